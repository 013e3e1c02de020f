#include "idle.h"

#include <poll.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "queue.h"
#include "runtime.h"

namespace effect_spdk {

namespace {
// Looking at every thread's counters costs more than a turn of an idle reactor: look now and then.
constexpr uint32_t kTurnsPerLook = 64;
constexpr uint64_t kBusyWindowMicros = 16000;
// A core that has slept this often without work in between, about 50 ms, is idle and not merely waiting for its turn.
constexpr uint32_t kSleepsBeforeCensus = 48;
}  // namespace

// SPDK's default scheduler, static, never moves a thread; the others move what may run on several cores.
bool StaysOnItsCore(const spdk_thread* thread) {
  const spdk_scheduler* scheduler = spdk_scheduler_get();
  if (scheduler == nullptr || std::strcmp(scheduler->name, "static") == 0) return true;
  return spdk_cpuset_count(spdk_thread_get_cpumask(const_cast<spdk_thread*>(thread))) == 1;
}

Idle::Idle(uint32_t core) : core_(core), event_fd_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {}

Idle::~Idle() {
  if (event_fd_ >= 0) close(event_fd_);
}

void Idle::Register() {
  ticks_per_micro_ = std::max<uint64_t>(1, spdk_get_ticks_hz() / 1000000);
  busy_share_ = BusyShare(kBusyWindowMicros * ticks_per_micro_);
  poller_ = spdk_poller_register_named(Poll, this, 0, "effect_spdk_idle");
}

void Idle::Unregister() { spdk_poller_unregister(&poller_); }

void Idle::Enter(Queue* queue) {
  const std::lock_guard<std::mutex> lock(mutex_);
  queues_.push_back(queue);
}

void Idle::Leave(Queue* queue) {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::erase(queues_, queue);
}

void Idle::SetNeighbours(Neighbours neighbours) {
  const std::lock_guard<std::mutex> lock(mutex_);
  neighbours_ = std::move(neighbours);
}

void Idle::Kick() {
  if (!sleeping_.load(std::memory_order_seq_cst)) return;
  const uint64_t one = 1;
  // A full counter wakes as well as a written one.
  [[maybe_unused]] const ssize_t written = write(event_fd_, &one, sizeof one);
}

int Idle::Poll(void* context) { return static_cast<Idle*>(context)->Poll(); }

int Idle::Poll() {
  Runtime& runtime = Runtime::Get();
  if (++turns_ % kTurnsPerLook != 0 || !runtime.adaptive()) return SPDK_POLLER_IDLE;
  const Look look = LookAround();
  const uint32_t micros =
      backoff_.Next(spdk_get_ticks() / ticks_per_micro_, look.activity, look.in_flight, look.until_timer_micros);
  if (micros != 0) {
    // Not for the short naps of a busy core, which would pay for it.
    longest_sleeps_ = micros == Backoff::kLongestSleepMicros ? longest_sleeps_ + 1 : 0;
    if (longest_sleeps_ >= kSleepsBeforeCensus || look.roaming) runtime.WantCensus();
    Sleep(micros);
    turns_ = kTurnsPerLook - 2;  // one turn for every poller, then look again
  }
  return SPDK_POLLER_IDLE;
}

Idle::Look Idle::LookAround() {
  Look look;
  const uint64_t now = spdk_get_ticks();
  // Somebody may have moved this thread.
  const int processor = sched_getcpu();
  const std::lock_guard<std::mutex> lock(mutex_);
  for (Queue* queue : queues_) {
    queue->NoteProcessor(processor);
    look.activity += queue->activity();
    look.busy_ticks += queue->busy_ticks();
    look.in_flight = look.in_flight || queue->device_in_flight() != 0;
    NoteTimer(queue->next_timer_ticks(), now, &look);
  }
  look.roaming = neighbours_.roaming;
  look.in_flight = look.in_flight || look.roaming;
  spdk_thread* const current = spdk_get_thread();
  for (const uint64_t id : neighbours_.pinned) LookAtThread(id, now, &look);
  spdk_set_thread(current);
  if (busy_share_.Look(now, look.busy_ticks)) busy_looks_++;
  look.activity += busy_looks_;
  return look;
}

// A thread that stays on this core cannot run, move or end while this poller runs. Any other is left alone: its list of
// pollers may change under us.
void Idle::LookAtThread(uint64_t id, uint64_t now, Look* look) const {
  spdk_thread* thread = spdk_thread_get_by_id(id);
  if (thread == nullptr || !StaysOnItsCore(thread)) return;
  // Its mask may have been changed by RPC, and it with it.
  if (!spdk_cpuset_get_cpu(spdk_thread_get_cpumask(thread), core_)) return;
  spdk_set_thread(thread);
  spdk_thread_stats stats = {};
  if (spdk_thread_get_stats(&stats) == 0) look->busy_ticks += stats.busy_tsc;
  NoteTimer(spdk_thread_next_poller_expiration(thread), now, look);
}

// `expiration` 0: there is no timer.
void Idle::NoteTimer(uint64_t expiration, uint64_t now, Look* look) const {
  if (expiration == 0) return;
  const uint64_t until = expiration > now ? (expiration - now) / ticks_per_micro_ : 0;
  look->until_timer_micros = std::min(look->until_timer_micros, until);
}

void Idle::Sleep(uint32_t micros) {
  sleeping_.store(true, std::memory_order_seq_cst);
  bool work = false;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (Queue* queue : queues_) {
      queue->SetReactorSleeping(true);
      work = work || queue->HasWork();
    }
  }
  // Whoever published or posted before the flags were up is seen here; whoever does so from now on kicks.
  if (!work && !Runtime::Get().AppHasWork(core_)) {
    pollfd event = {event_fd_, POLLIN, 0};
    const timespec timeout = {0, static_cast<long>(micros) * 1000};
    ppoll(&event, 1, &timeout, nullptr);
  }
  sleeping_.store(false, std::memory_order_seq_cst);
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (Queue* queue : queues_) queue->SetReactorSleeping(false);
  }
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t drained = read(event_fd_, &count, sizeof count);
}

}  // namespace effect_spdk
