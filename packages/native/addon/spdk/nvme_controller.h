// A connected NVMe controller. Everything here runs on the NVMe thread unless it says otherwise; callers of other threads
// post there. Queue pairs belong to the queues, which are asked to give them up before a controller resets or ends.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "../core/mailbox.h"
#include "spdk_headers.h"

namespace effect_spdk {

class NvmeNamespace;

struct NvmeConnectOptions {
  spdk_nvme_transport_id transport_id = {};
  // Keys by name; empty is none.
  std::string psk;
  std::string dhchap_key;
  std::string dhchap_controller_key;
  std::string host_nqn;
  std::string host_id;  // 16 bytes
  std::string source_address;
  std::string source_port;
  uint32_t io_queues = 0;
  uint32_t io_queue_size = 0;
  uint32_t admin_queue_size = 0;
  uint32_t keep_alive_millis = 0;
  uint32_t connect_timeout_millis = 0;
  uint32_t admin_timeout_millis = 0;
  uint32_t io_timeout_millis = 0;
  uint32_t retries = 0;
  bool header_digest = false;
  bool data_digest = false;
};

// Of events to JavaScript, in their field a.
enum class NvmeEvent : uint32_t { kAsync = 0, kFailed = 1, kRemoved = 2 };

class NvmeController : public std::enable_shared_from_this<NvmeController> {
 public:
  using Done = std::function<void(int status, const std::string& reason)>;

  // What queues may do with it.
  enum class Gate { kOpen, kBlocked, kLost };

  // Any thread. `slot` names the controller in the events that `mailbox` gets. `connected` runs once.
  static std::shared_ptr<NvmeController> Make(NvmeConnectOptions options, uint32_t slot, std::shared_ptr<Mailbox> mailbox,
                                              Done connected);
  // Once.
  void Connect();

  ~NvmeController();
  NvmeController(const NvmeController&) = delete;
  NvmeController& operator=(const NvmeController&) = delete;

  // Answers a connection that is not through yet with -ECANCELED. SPDK's part of it ends in the background, in the time
  // that one step of it may take.
  void GiveUp();
  // Ends what is in flight, closes namespaces, disconnects. `done` runs at once when that has happened already.
  void Close(std::function<void()> done);
  void Reset(Done done);
  // Ids of the active namespaces.
  std::vector<uint32_t> ActiveNamespaces();

  using Opened = std::function<void(int status, std::shared_ptr<NvmeNamespace>)>;
  void Open(uint32_t nsid, uint32_t slot, std::shared_ptr<Mailbox> mailbox, Opened opened);
  void OnNamespaceClosed(const NvmeNamespace* closed);

  struct AdminCommand {
    spdk_nvme_cmd command = {};
    void* data = nullptr;
    uint32_t length_bytes = 0;
    // Null when there is no completion: then `status` says why.
    std::function<void(int status, const spdk_nvme_cpl* completion)> done;
  };
  // `id` is the caller's own name of it, for the abort.
  void Admin(uint32_t id, AdminCommand command);
  void AbortAdmin(uint32_t id);

  // A queue pair broke, and nobody asked it to.
  void OnQueuePairLost();

  // Does what is due. Returns the microseconds until that should happen again.
  uint32_t Poll();
  bool gone() const { return state_ == State::kGone; }
  bool closing() const { return closing_; }

  struct Facts {
    uint64_t cap = 0;
    uint32_t vs = 0;
    uint32_t io_queues = 0;
    uint32_t max_transfer_bytes = 0;
  };
  // Of a connected one.
  const Facts& facts() const { return facts_; }

  // Queues, below.
  Gate gate() const { return gate_.load(std::memory_order_acquire); }
  spdk_nvme_ctrlr* ctrlr() const { return ctrlr_; }
  uint32_t connect_timeout_millis() const { return options_.connect_timeout_millis; }
  // SPDK guards a controller with a lock, which this thread may hold for as long as the device takes. A queue takes this
  // one before it makes a call that takes SPDK's, and comes back later when somebody has it: reactors do not wait.
  std::mutex& guard() { return guard_; }

 private:
  enum class State { kConnecting, kReady, kDropping, kFailed, kDisconnecting, kReconnecting, kDraining, kDetaching, kGone };

  struct PendingAdmin {
    NvmeController* controller = nullptr;
    uint32_t id = 0;
    AdminCommand command;
    bool submitted = false;
    uint64_t submitted_ticks = 0;
    // SPDK has said that it takes long.
    bool late = false;
    // Since when SPDK has had no request for it; 0 when it has not been tried.
    uint64_t starved_ticks = 0;
  };

  NvmeController(NvmeConnectOptions options, uint32_t slot, std::shared_ptr<Mailbox> mailbox, Done connected);

  static void OnAttached(void* opts, const spdk_nvme_transport_id*, spdk_nvme_ctrlr* ctrlr, const spdk_nvme_ctrlr_opts*);
  static void OnAsyncEvent(void* context, const spdk_nvme_cpl* completion);
  static void OnRemoved(void* context, spdk_nvme_ctrlr*);
  static void OnAdmin(void* context, const spdk_nvme_cpl* completion);
  // A queue's thread, where `qpair` is not null; and any thread that polls the admin queue.
  static void OnTimeout(void* context, spdk_nvme_ctrlr*, spdk_nvme_qpair* qpair, uint16_t);

  void Start();
  int FillOptions();
  int TakeKey(const std::string& name, spdk_key** out);
  bool NameApart();
  void PollConnect();
  void FinishConnect(int status);
  void OnReady();
  void SetLimits();
  int32_t ProcessAdmin();
  void OnAdminTimeout();
  bool AdminOverdue() const;
  void PollAdmin();
  void PollDisconnect();
  void PollReconnect();
  void PollDetach();
  void HandleAsyncEvents();
  void CheckNamespaces();
  void Fail(const std::string& message);
  void Drop(std::function<void()> dropped);
  void OnDrained();
  void OnFailed();
  void TellFailed();
  void RemoveNamespaces();
  void StartReset();
  void FinishReset(int status);
  void StartClose();
  void StartDetach();
  // `status` is for a connect that has not been answered.
  void BecomeGone(int status);
  void WhenSettled(std::function<void()> task);
  void RunSettled();
  void SubmitAdmin();
  void FinishAdmin(PendingAdmin* pending, int status, const spdk_nvme_cpl* completion);
  void Tell(NvmeEvent kind, uint32_t dword0, std::string text);
  bool settled() const { return state_ == State::kReady || state_ == State::kFailed || state_ == State::kGone; }

  // First, because SPDK gives this pointer back.
  struct Attach {
    spdk_nvme_ctrlr_opts opts = {};
    NvmeController* controller = nullptr;
  } attach_;

  NvmeConnectOptions options_;
  const uint32_t slot_;
  const std::shared_ptr<Mailbox> mailbox_;
  Done connected_;
  State state_ = State::kConnecting;
  std::atomic<Gate> gate_{Gate::kBlocked};
  std::mutex guard_;
  Facts facts_;
  std::string reason_;
  std::vector<spdk_key*> keys_;

  spdk_nvme_probe_ctx* probe_ = nullptr;
  spdk_nvme_ctrlr* ctrlr_ = nullptr;
  spdk_nvme_detach_ctx* detach_ = nullptr;
  uint64_t deadline_ticks_ = 0;
  bool starting_ = false;
  bool borrowed_ = false;
  bool given_up_ = false;
  bool closing_ = false;
  bool close_started_ = false;
  std::string failure_;
  bool removed_ = false;
  bool overdue_ = false;
  bool io_overdue_ = false;
  bool broken_ = false;
  std::thread::id thread_;
  // Of a command of a caller; 0: none.
  uint64_t admin_limit_ticks_ = 0;
  // Of what SPDK sends by itself and waits for.
  uint64_t inner_limit_ticks_ = 0;
  // When SPDK was last told to look at the admin queue; 0 when it is not at it.
  uint64_t poll_ticks_ = 0;

  std::vector<uint32_t> async_events_;
  std::vector<std::shared_ptr<NvmeNamespace>> namespaces_;
  std::map<uint32_t, std::unique_ptr<PendingAdmin>> admin_;
  std::deque<PendingAdmin*> admin_waiting_;
  uint32_t admin_in_flight_ = 0;
  std::deque<std::function<void()>> settled_tasks_;
  std::vector<Done> resets_;
  std::vector<std::function<void()>> waiting_for_close_;
};

}  // namespace effect_spdk
