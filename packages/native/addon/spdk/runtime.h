// The one SPDK of this process. It starts on a thread of its own at the first request, is shared by every JavaScript
// environment that asks for the same options, idles when the last of them lets go, and stops when the process exits:
// SPDK cannot start twice in one process.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "../core/inbox.h"
#include "../core/mailbox.h"
#include "idle.h"
#include "spdk_headers.h"

namespace effect_spdk {

class Blobstore;
class Descriptor;
class Queue;

struct RuntimeOptions {
  std::string name;
  std::string core_list;  // "[0,1]"
  std::string rpc_socket;
  // Removed when the process exits: the private directory of the socket, and the link that others know it by.
  std::string rpc_directory;
  std::string rpc_link;
  std::string log_level;
  std::vector<std::string> pci_allowed;
  std::vector<std::string> pci_blocked;
  int memory_mib = 256;
  bool hugepages = false;
  bool pci = false;
  bool adaptive = true;
  // Wait for framework_start_init over RPC, so that a JSON configuration can speak first.
  bool wait_for_rpc = false;
  // What a later start is compared with: the same text is the same SPDK.
  std::string key;
};

class Runtime {
 public:
  // status 0 with the RPC socket's path, or -EEXIST with the key of the one that runs, or another negative errno with the reason.
  using Started = std::function<void(int status, const std::string& text)>;

  static Runtime& Get();

  // One holder's share of SPDK: `id` is the holder's own number.
  struct Share {
    std::shared_ptr<Mailbox> holder;
    uint32_t id = 0;
    bool operator==(const Share&) const = default;
  };

  // Any thread. `share` is held from here until its release, unless the start is refused or fails.
  void Start(const RuntimeOptions& options, Share share, Started started);
  // Any thread, also before the start is through. Nothing happens when there is no such share.
  void Release(const Share& share);
  void ReleaseAll(const std::shared_ptr<Mailbox>& holder);

  // Any thread. Who applies the JSON configuration of this SPDK, which is said once: 0 when the share is to apply this one and
  // then to settle it, -EALREADY when the same has been applied, -EEXIST with the applied text when another has, and
  // -EAGAIN while some share applies one.
  int ClaimConfig(const Share& share, const std::string& text, std::string* applied);
  // Without success, or when the share is released before, the next claim is as the first.
  void SettleConfig(const Share& share, bool is_applied);

  // Any thread. False when SPDK does not run.
  bool PostToApp(Inbox::Task task);
  void KickThread(Queue* queue);

  // What must be closed before SPDK stops. Any thread.
  void Remember(const std::shared_ptr<Queue>& queue);
  void Forget(const Queue* queue);
  // Queues tell the sleepers about themselves; other threads are looked at.
  bool IsQueue(uint64_t thread_id);
  void Remember(const std::shared_ptr<Descriptor>& descriptor);
  void Forget(const Descriptor* descriptor);
  // The app thread, which is every blobstore's metadata thread.
  void Remember(const std::shared_ptr<Blobstore>& blobstore);
  void Forget(const Blobstore* blobstore);

  // A reactor is about to sleep and wants to know its neighbours anew.
  void WantCensus() { census_wanted_.store(true, std::memory_order_relaxed); }

  // A queue's thread, when it finds itself on another core.
  void EnterCore(uint32_t core, Queue* queue);
  void LeaveCore(uint32_t core, Queue* queue);

  bool AppHasWork(uint32_t core) const { return core == app_core_.load() && app_inbox_.pending(); }
  bool running() const { return state_.load() == State::kRunning; }
  bool adaptive() const { return adaptive_ || !held_.load(std::memory_order_relaxed); }
  // Whether a line of this level is wanted.
  bool Prints(int level) const;
  // The process is on its way out: JavaScript is not called any more.
  bool exiting() const { return exiting_.load(std::memory_order_relaxed); }

  void SendLog(int level, const char* file, int line, const char* function, std::string message);

  std::atomic<int64_t> dma_bytes{0};
  std::atomic<int64_t> slab_count{0};
  std::atomic<int64_t> descriptor_count{0};
  std::atomic<int64_t> channel_count{0};
  std::atomic<int64_t> thread_count{0};
  std::atomic<int64_t> poller_count{0};
  std::atomic<int64_t> blobstore_count{0};
  std::atomic<int64_t> blob_count{0};
  std::atomic<int64_t> nvme_count{0};

 private:
  enum class State { kStopped, kStarting, kRunning, kStopping, kFailed };

  Runtime() = default;

  void RunApp();
  static void OnStarted(void* context);
  void OnAppThread();
  void FinishStart(State state, int status, const std::string& text);
  void ReleaseIf(const std::function<bool(const Share&)>& condition);
  void InitializeWithoutStarter();
  static int PollApp(void* context);
  static void TakeCensus(Runtime* runtime);
  static void OnExit(int status, void* context);
  bool StopForExit();
  void RemoveSocket();
  void CloseQueues();
  void CloseNvme();
  void CloseBlobstores();
  void CloseDescriptors();
  void StopReactors();
  Idle* IdleOf(uint32_t core);

  std::mutex mutex_;
  std::condition_variable changed_;
  std::atomic<State> state_{State::kStopped};
  RuntimeOptions options_;
  std::string failure_;
  std::vector<Started> waiting_;
  // Who has to configure the SPDK that waits for it.
  Share starter_;
  enum class Config { kNone, kClaimed, kApplied };
  Config config_ = Config::kNone;
  Share config_claimer_;
  std::string config_text_;
  std::thread initializer_;
  std::atomic<bool> held_{false};
  bool adaptive_ = true;
  int start_level_ = 0;
  std::atomic<bool> exiting_{false};

  Inbox app_inbox_;
  std::atomic<uint32_t> app_core_{0};
  spdk_poller* app_poller_ = nullptr;
  spdk_poller* census_poller_ = nullptr;
  bool census_running_ = false;
  std::atomic<bool> census_wanted_{false};
  std::vector<spdk_thread*> idle_threads_;
  std::mutex registry_mutex_;
  std::vector<std::shared_ptr<Queue>> queues_;
  std::vector<std::shared_ptr<Descriptor>> descriptors_;
  std::vector<std::shared_ptr<Blobstore>> blobstores_;
  std::thread app_;
  // Made before the state becomes kRunning, never changed after.
  std::map<uint32_t, std::unique_ptr<Idle>> idle_;

  // Taken after mutex_ by whoever takes both. SPDK logs under any lock of its own.
  std::mutex shares_mutex_;
  std::vector<Share> shares_;
  std::string last_errors_;
};

}  // namespace effect_spdk
