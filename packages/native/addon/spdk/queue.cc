// How a queue begins, and the turns of its poller.
#include "queue.h"

#include <sched.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstdlib>
#include <utility>

#include "nvme_qpair.h"
#include "runtime.h"

namespace effect_spdk {

namespace {

// How long completions may wait for others before a JavaScript thread that sleeps is woken.
constexpr uint64_t kWakeDelayMicros = 12;
// How long a JavaScript thread that could run may wait for this thread to let go of their processor.
constexpr uint64_t kTurnMicros = 100;

}  // namespace

RingMemory::RingMemory(size_t size) : size_bytes(size) {
  // Whole pages of its own, so that nothing else shares its cache lines.
  void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory != MAP_FAILED) words = static_cast<uint32_t*>(memory);
}

RingMemory::~RingMemory() {
  if (words != nullptr) munmap(words, size_bytes);
}

Queue::Queue(const Options& options, std::shared_ptr<Mailbox> mailbox, std::shared_ptr<SlabTable> slabs)
    : name_(options.name),
      mailbox_(std::move(mailbox)),
      slabs_(std::move(slabs)),
      pins_(slabs_),
      memory_(std::make_shared<RingMemory>(Ring::BytesFor(options.sq_entries, options.cq_entries))) {
  if (memory_->words == nullptr) return;
  ring_ = std::make_unique<Ring>(memory_->words, options.sq_entries, options.cq_entries);
  request_count_ = options.cq_entries;
  requests_ = std::make_unique<Request[]>(request_count_);
  by_id_.resize(request_count_);
  for (uint32_t i = request_count_; i > 0; i--) {
    Request& request = requests_[i - 1];
    request.queue = this;
    request.next = std::exchange(free_requests_, &request);
  }
  segments_ = std::make_unique_for_overwrite<Segments[]>(request_count_);
}

Queue::~Queue() = default;

void Queue::Spawn(const Options& options, std::shared_ptr<Mailbox> mailbox, std::shared_ptr<SlabTable> slabs,
                  std::function<void(int, std::shared_ptr<Queue>)> ready) {
  spdk_cpuset mask;
  spdk_cpuset_zero(&mask);
  if (!options.cpu_mask.empty() && spdk_cpuset_parse(&mask, options.cpu_mask.c_str()) != 0) {
    return ready(-EINVAL, nullptr);
  }
  std::shared_ptr<Queue> queue(new Queue(options, std::move(mailbox), std::move(slabs)));
  if (queue->memory_->words == nullptr) return ready(-ENOMEM, nullptr);
  queue->thread_ = spdk_thread_create(options.name.c_str(), options.cpu_mask.empty() ? nullptr : &mask);
  if (queue->thread_ == nullptr) return ready(-ENOMEM, nullptr);
  queue->thread_id_ = spdk_thread_get_id(queue->thread_);
  Runtime::Get().Remember(queue);
  Runtime::Get().thread_count.fetch_add(1);
  struct Startup {
    std::shared_ptr<Queue> queue;
    std::function<void(int, std::shared_ptr<Queue>)> ready;
  };
  // The only message of SPDK's own pool: one per thread that is made.
  const int rc = spdk_thread_send_msg(
      queue->thread_,
      [](void* context) {
        const std::unique_ptr<Startup> startup(static_cast<Startup*>(context));
        startup->queue->Start();
        startup->ready(0, startup->queue);
      },
      new Startup{queue, std::move(ready)});
  if (rc != 0) std::abort();  // only for a thread that exits, which this one does not
}

void Queue::Start() {
  poller_ = spdk_poller_register_named(PollThunk, this, 0, "effect_spdk_queue");
  wake_delay_ticks_ = kWakeDelayMicros * spdk_get_ticks_hz() / 1000000;
  turn_ticks_ = kTurnMicros * spdk_get_ticks_hz() / 1000000;
  EnterCore(spdk_env_get_current_core());
}

void Queue::EnterCore(uint32_t core) {
  core_.store(core, std::memory_order_relaxed);
  NoteProcessor(sched_getcpu());
  Runtime::Get().EnterCore(core, this);
}

bool Queue::Post(Inbox::Task task) {
  if (!inbox_.Post(std::move(task))) return false;
  Kick();
  return true;
}

void Queue::Kick() { Runtime::Get().KickThread(this); }

int Queue::PollThunk(void* context) { return static_cast<Queue*>(context)->Poll(); }

int Queue::Poll() {
  AssertThread();
  const uint32_t core = spdk_env_get_current_core();
  if (core != this->core()) {
    Runtime::Get().LeaveCore(this->core(), this);
    EnterCore(core);
  }
  size_t work = 0;
  if (closing_ || inbox_.pending()) {
    // A task may end this queue and let go of it.
    const std::shared_ptr<Queue> keep = shared_from_this();
    work = inbox_.Run();
    if (closing_) ContinueClosing();
    if (closed_) return SPDK_POLLER_BUSY;
  }
  if (backlog_head_ != nullptr && FlushBacklog()) work++;
  // What the pollers of devices have completed: JavaScript goes on with it while the next entries are submitted, which is
  // where a device in memory does its work.
  if (PublishNew()) work++;
  work += ConsumeRing();
  if (nvme_group_ != nullptr) work += PollNvme();
  if (!abort_wishes_.empty()) AskForAborts();
  for (const auto& poller : pollers_) {
    if (poller->undelivered != 0) DeliverTick(poller.get());
  }
  if (PublishNew()) work++;
  if (wake_due_ticks_ != 0) WakeIfDue();
  if (const uint32_t turn = ring_->JavaScriptGivesWay(); turn != 0) GiveTurnIfDue(turn, work == 0);
  if (work == 0) {
    TellIdle();
    return SPDK_POLLER_IDLE;
  }
  activity_.Add(work);
  return SPDK_POLLER_BUSY;
}

void Queue::TellIdle() {
  spdk_thread_stats stats = {};
  if (spdk_thread_get_stats(&stats) == 0) busy_ticks_.Set(stats.busy_tsc);
  next_timer_ticks_.Set(spdk_thread_next_poller_expiration(thread_));
}

}  // namespace effect_spdk
