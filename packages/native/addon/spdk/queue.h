// The queue of one SPDK thread: takes submissions out of the ring, gives them to libspdk, and puts completions into the
// ring. Everything here runs on that SPDK thread unless it says otherwise.
//
// Every entry that is consumed completes exactly once. Nothing is allocated per I/O: requests and segment lists come
// from pools that are sized when the queue is made; when there is no request left the ring waits.
#pragma once

#include <sys/uio.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "../core/assert.h"
#include "../core/counter.h"
#include "../core/inbox.h"
#include "../core/mailbox.h"
#include "../core/ring.h"
#include "../core/slab_pins.h"
#include "../core/slab_table.h"
#include "spdk_headers.h"
#include "target.h"

namespace effect_spdk {

class NvmeController;
class NvmeQpair;

// Called when the last pin of a closed slab is gone: frees the memory and recycles the slot. Any thread.
void FreeSlabMemory(SlabTable& slabs, uint32_t slot, void* memory);

struct RingMemory {
  explicit RingMemory(size_t size_bytes);
  ~RingMemory();
  RingMemory(const RingMemory&) = delete;
  RingMemory& operator=(const RingMemory&) = delete;

  uint32_t* words = nullptr;  // null when there is no memory
  const size_t size_bytes;
};

// The runtime remembers it from Spawn until its SPDK thread exits.
class Queue : public std::enable_shared_from_this<Queue> {
 public:
  struct Options {
    std::string name;
    std::string cpu_mask;  // empty: any core
    uint32_t sq_entries = 1024;
    uint32_t cq_entries = 4096;
  };
  using Done = std::function<void(int status)>;

  // App thread. Makes the SPDK thread; `ready` runs on it once the queue polls, or here with an errno.
  static void Spawn(const Options& options, std::shared_ptr<Mailbox> mailbox, std::shared_ptr<SlabTable> slabs,
                    std::function<void(int status, std::shared_ptr<Queue>)> ready);

  ~Queue();
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;

  // Any thread.
  const std::shared_ptr<RingMemory>& memory() const { return memory_; }
  uint32_t core() const { return core_.load(std::memory_order_relaxed); }
  // The system's number of the processor under that core, as of this queue's arrival there and, with adaptive polling, of the
  // idle poller's last look; -1 before it runs.
  int processor() const { return processor_.load(std::memory_order_relaxed); }
  void NoteProcessor(int processor) { processor_.store(processor, std::memory_order_relaxed); }
  // JavaScript's thread: that it could run, and waits for this reactor to let go of the processor.
  void SetJavaScriptGivesWay(uint32_t turn) { ring_->SetJavaScriptGivesWay(turn); }
  uint64_t thread_id() const { return thread_id_; }
  bool Post(Inbox::Task task);
  void Kick();
  uint32_t in_flight() const { return in_flight_.Get(); }

  // Any thread. Refuses what is still in the ring, waits for what is in flight, puts channels, unregisters pollers and
  // exits the SPDK thread; then `done`. Runs at once when that has happened already.
  void Close(Done done);

  // Any thread, after the device of `target` was removed.
  void PutChannelsOf(std::shared_ptr<Target> target);

  // Any thread. Submits nothing to the blob any more, and runs `paused`, here, once SPDK has nothing of it; then the same
  // in the other direction. What comes meanwhile waits.
  void Pause(std::shared_ptr<Target> blob, std::function<void()> paused);
  void Resume();

  // Any thread. Gives up the queue pairs of that controller with all that they have in flight, and runs `dropped`, here,
  // once they are gone. They come back by themselves when the controller lets them.
  void DropNvme(std::shared_ptr<NvmeController> controller, std::function<void()> dropped);

  struct ChannelHandle {
    uint32_t slot = 0;
    uint32_t generation = 0;
  };
  using Opened = std::function<void(int status, ChannelHandle handle)>;
  // `opened` runs at once for bdevs and blobs; a queue pair has to connect first.
  void OpenChannel(const std::shared_ptr<Target>& target, Opened opened);
  // Waits for the channel's requests. `done` runs at once for a stale handle.
  void CloseChannel(ChannelHandle handle, Done done);

  struct PollerStats {
    uint64_t runs = 0;
    uint64_t busy = 0;
  };
  // `id` comes back in the ticks. Period 0 polls at every turn of the reactor.
  int RegisterPoller(uint32_t id, const std::string& name, uint64_t period_micros);
  bool PausePoller(uint32_t id, bool pause);
  bool UnregisterPoller(uint32_t id, PollerStats* stats);
  bool GetPollerStats(uint32_t id, PollerStats* stats) const;

  // For the idle poller of this queue's core, or of the core that it is just leaving: any thread.
  // A number that changes when this queue did work.
  uint64_t activity() const { return activity_.Get() + let_go_.Get(); }
  // Requests that a device owes an answer: timers do not count.
  uint32_t device_in_flight() const { return held_.Get() - let_go_.Get(); }
  // The time that all pollers of the SPDK thread found work to do in.
  uint64_t busy_ticks() const { return busy_ticks_.Get(); }
  // When the next timed poller of the SPDK thread is due; 0 when there is none.
  uint64_t next_timer_ticks() const { return next_timer_ticks_.Get(); }
  bool HasWork() const { return ring_->HasSubmissions() || inbox_.pending(); }
  void SetReactorSleeping(bool sleeping) { ring_->SetReactorSleeping(sleeping); }

 private:
  // Thirty years: SPDK multiplies by the ticks of a microsecond and adds the time, in 64 bits.
  static constexpr uint64_t kLongestTimerMicros = 946080000000000;

  struct Segments {
    iovec iov[layout::segment::max];
    uint32_t slab_slots[layout::segment::max];
    Segments* next;
  };

  struct Request;

  struct Channel {
    Queue* queue = nullptr;
    uint32_t generation = 1;
    enum class State { kFree, kOpen, kClosing, kPut } state = State::kFree;
    std::shared_ptr<Target> target;
    // Of a bdev, and null otherwise; so is the next of a blob, and the one after that of an NVMe namespace.
    spdk_bdev_desc* desc = nullptr;
    spdk_blob* blob = nullptr;
    std::unique_ptr<NvmeQpair> nvme;
    // Of bdevs and blobs.
    spdk_io_channel* io_channel = nullptr;
    uint32_t in_flight = 0;
    // Of blobs and namespaces: what SPDK has of it.
    uint32_t asked = 0;
    // Of a namespace: what waits for its queue pair, or for a request of SPDK's.
    Request* nvme_waiting_head = nullptr;
    Request** nvme_waiting_tail = &nvme_waiting_head;
    bool nvme_submitting = false;
    // Whoever waits for the queue pair's connection.
    Opened opened;
    std::vector<Done> waiting;
  };

  // An abort that the device has. It may outlive its request, and then be in the way of the next one's for a moment.
  struct AbortAsk {
    Channel* channel = nullptr;  // null: there is none
  };

  // A request that is to be aborted, by name: asked again and again, because a device (or one of a stack of them) may
  // not have had it in its hands the last time.
  struct AbortWish {
    uint32_t id = 0;
    uint32_t generation = 0;
    uint64_t due_ticks = 0;
    uint64_t pause_ticks = 0;
  };

  // Where a request is. It goes round: free, taken, then any of the three in the middle, completing, free.
  enum class Phase : uint8_t {
    kFree,        // in the pool
    kTaken,       // out of the ring, and in the hands of a function
    kWaiting,     // in one of this queue's lists, until the device can take it
    kSubmitted,   // the device has it
    kTiming,      // a timer
    kCompleting,  // its completion is in the ring, or in the backlog
  };

  struct Request {
    Queue* queue = nullptr;
    Channel* channel = nullptr;
    Segments* segments = nullptr;
    Request* next = nullptr;
    spdk_poller* timer = nullptr;
    void* buffer = nullptr;
    uint64_t offset_blocks = 0;
    uint64_t length_blocks = 0;
    CompletionEntry completion;
    Opcode opcode = Opcode::kNop;
    uint32_t segment_count = 0;
    uint32_t slab_slot = 0;
    // Of an NVMe command in hand: how far it goes, and where its list of segments is read.
    uint64_t part_blocks = 0;
    uint32_t segment_index = 0;
    uint32_t segment_offset = 0;
    Phase phase = Phase::kFree;
    bool has_slab = false;
    bool abort_wished = false;
    AbortAsk ask;

    bool submitted() const { return phase == Phase::kSubmitted; }
    // It owes a completion.
    bool busy() const { return phase != Phase::kFree && phase != Phase::kCompleting; }
    void Enter(Phase to) {
      EFFECT_SPDK_ASSERT(Follows(phase, to));
      phase = to;
    }
  };

  struct Poller {
    Queue* queue = nullptr;
    spdk_poller* poller = nullptr;
    uint32_t id = 0;
    uint64_t runs = 0;
    uint64_t busy = 0;
    uint32_t undelivered = 0;
    bool tick_in_ring = false;
    uint64_t tick_position = 0;
  };

  Queue(const Options& options, std::shared_ptr<Mailbox> mailbox, std::shared_ptr<SlabTable> slabs);

  static constexpr bool Follows(Phase from, Phase to) {
    switch (from) {
      case Phase::kFree:
        return to == Phase::kTaken;
      case Phase::kTaken:
        return to == Phase::kWaiting || to == Phase::kSubmitted || to == Phase::kTiming || to == Phase::kCompleting;
      case Phase::kWaiting:
        return to == Phase::kTaken || to == Phase::kSubmitted;
      case Phase::kSubmitted:
        // Refused by the device, which is asked again later; or the first part of a request has ended.
        return to == Phase::kTaken || to == Phase::kWaiting || to == Phase::kCompleting;
      case Phase::kTiming:
        return to == Phase::kCompleting;
      case Phase::kCompleting:
        return to == Phase::kFree;
    }
    return false;
  }

  // The thread of every private function.
  void AssertThread() const { EFFECT_SPDK_ASSERT(spdk_get_thread() == thread_); }
  void Recycle(Request* request);

  static int PollThunk(void* context);
  static int RunPoller(void* context);
  static int OnTimer(void* context);
  static void OnIo(spdk_bdev_io* io, bool success, void* context);
  static void OnAborted(spdk_bdev_io* io, bool success, void* context);
  static void OnIoWait(void* context);

  int Poll();
  void Start();
  void EnterCore(uint32_t core);
  uint32_t ConsumeRing();
  // Returns the slots the entry took, 0 when a pool is empty and it must wait.
  uint32_t TakeEntry(uint32_t available);
  void Dispatch(Request* request, const SubmissionEntry& entry);
  bool Prepare(Request* request, const SubmissionEntry& entry);
  bool PrepareMemory(Request* request, const SubmissionEntry& entry, uint64_t length_bytes);
  // Returns how many the entry claims to have.
  uint32_t TakeSegments(Request* request);
  bool PinSegment(Request* request, const uint32_t* segment, char** address);
  void Submit(Request* request);
  void SubmitToBdev(Request* request);
  // The answer of SPDK to a submission, 0 or an errno.
  int AskBdev(Request* request);
  void SubmitWaitingToBdevs();
  void SubmitToBlob(Request* request);
  void AskBlob(Request* request);
  void SubmitWaitingToBlobs();
  void GrantPauses();
  static void OnBlobIo(void* context, int status);
  int OpenNvmeChannel(Channel* channel, const std::shared_ptr<Target>& target, Opened opened);
  uint32_t PollNvme();
  uint32_t StepNvme();
  void SettleNvme(Channel* channel);
  static void OnNvmeDisconnected(spdk_nvme_qpair* qpair, void* context);
  bool ReleaseNvme(Channel* channel);
  void ReleaseAllNvme();
  void CloseNvmeGroup();
  bool PreparePassthru(Request* request, const SubmissionEntry& entry);
  void SubmitToNvme(Request* request);
  void SubmitWaitingToNvme(Channel* channel);
  void RefuseNvme(Request* request, int rc);
  void RefuseUnwantedByNvme(Channel* channel);
  int AskNvme(Request* request);
  int CallNvme(Request* request);
  int Deallocate(Request* request);
  int PassThrough(Request* request);
  static void RewindSegments(void* context, uint32_t offset);
  static int NextSegment(void* context, void** address, uint32_t* length);
  static void OnNvme(void* context, const spdk_nvme_cpl* completion);
  bool ContinueInParts(Request* request);
  int AbortNvme(Request* target);
  int WaitForBdevIo(const Request& request);
  void Abort(Request* request, const SubmissionEntry& entry);
  void WishAbort(Request* target);
  void AskForAborts();
  int AskForAbort(Request* target);
  Request* FindRequest(uint32_t id, uint32_t generation);
  void CancelTimer(Request* request);
  void Refuse(Request* request, int status, Detail detail);
  void Complete(Request* request);
  void ReleaseMemory(Request* request);
  bool FlushBacklog();
  Request*& Named(uint32_t id) { return by_id_[id & (request_count_ - 1)]; }
  void Publish();
  // False when there was nothing to publish.
  bool PublishNew();
  // Only while a wake-up waits.
  void WakeIfDue();
  // Only while JavaScript gives way. `nothing_new`: this turn found no work.
  void GiveTurnIfDue(uint32_t turn, bool nothing_new);
  void TellIdle();
  Channel* FindChannel(uint32_t slot, uint32_t generation);
  ChannelHandle HandleOf(const Channel* channel) const;
  void Hold(Channel* channel) {
    channel->in_flight++;
    held_.Add(1);
  }
  void LetGo(Channel* channel);
  void PutChannelIfUnused(Channel* channel);
  void AbortAll();
  void ContinueClosing();
  void FinishClosing();
  void DeliverTick(Poller* poller);
  std::deque<std::unique_ptr<Poller>>::const_iterator FindPoller(uint32_t id) const;

  const std::string name_;
  const std::shared_ptr<Mailbox> mailbox_;
  const std::shared_ptr<SlabTable> slabs_;
  SlabPins pins_;
  const std::shared_ptr<RingMemory> memory_;
  std::unique_ptr<Ring> ring_;

  spdk_thread* thread_ = nullptr;
  uint64_t thread_id_ = 0;
  spdk_poller* poller_ = nullptr;
  std::atomic<uint32_t> core_{UINT32_MAX};
  std::atomic<int> processor_{-1};
  Inbox inbox_;

  std::unique_ptr<Request[]> requests_;
  uint32_t request_count_ = 0;  // a power of two
  Request* free_requests_ = nullptr;
  std::vector<Request*> by_id_;
  // One for every request. Memory that was never used is never touched.
  std::unique_ptr<Segments[]> segments_;
  uint32_t segments_used_ = 0;
  Segments* free_segments_ = nullptr;
  Request* backlog_head_ = nullptr;
  Request** backlog_tail_ = &backlog_head_;
  // Requests that found the pool of bdev_io empty, in their order. Only the first of them stands in SPDK's own line, so
  // that what a stack of bdevs asks for below a request does not stand behind all of ours.
  Request* waiting_head_ = nullptr;
  Request** waiting_tail_ = &waiting_head_;
  spdk_bdev_io_wait_entry wait_ = {};
  // The same for blobs: a blobstore's channel has so many request sets and no more.
  Request* waiting_for_blob_head_ = nullptr;
  Request** waiting_for_blob_tail_ = &waiting_for_blob_head_;
  uint32_t blob_in_flight_ = 0;
  bool submitting_to_blobs_ = false;
  // SPDK had no request set for the first that waits: the next completion of another brings one.
  bool blob_starved_ = false;
  struct PauseWish {
    std::shared_ptr<Target> blob;
    std::function<void()> paused;
  };
  std::vector<PauseWish> pause_wishes_;

  struct NvmeDrop {
    std::shared_ptr<NvmeController> controller;
    std::function<void()> dropped;
  };
  std::vector<NvmeDrop> nvme_drops_;
  // Of all queue pairs of this thread; null when there never was one.
  spdk_nvme_poll_group* nvme_group_ = nullptr;
  // A queue pair is not where it should be.
  bool nvme_unsettled_ = false;

  std::vector<std::unique_ptr<Channel>> channels_;
  std::deque<std::unique_ptr<Poller>> pollers_;
  std::vector<AbortWish> abort_wishes_;
  // When the next of them is due.
  uint64_t next_abort_ticks_ = 0;
  // When JavaScript is to be woken, at the latest, for completions it has been shown in its sleep; 0: there are none.
  uint64_t wake_due_ticks_ = 0;
  uint64_t wake_delay_ticks_ = 0;
  // The turn of JavaScript's that is due, and when it is to have the processor: at the latest, and when completions wait for it.
  uint32_t turn_ = 0;
  uint64_t turn_due_ticks_ = 0;
  uint64_t turn_due_with_some_ticks_ = 0;
  uint64_t turn_ticks_ = 0;
  Counter<uint32_t> in_flight_;
  Counter<uint64_t> activity_;
  // Times that a channel was held by a request or an abort, and let go.
  Counter<uint32_t> held_;
  Counter<uint32_t> let_go_;
  Counter<uint64_t> busy_ticks_;
  Counter<uint64_t> next_timer_ticks_;

  bool closing_ = false;
  bool closed_ = false;
  std::vector<Done> waiting_for_close_;
};

}  // namespace effect_spdk
