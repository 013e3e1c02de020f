// What native threads have to say to one JavaScript thread: answers to control calls, bdev events, log lines. Bounded
// where the sender cannot be held back (logs, which are counted when dropped); one coalesced wake-up. No Node, no SPDK.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace effect_spdk {

struct Event {
  enum class Kind : uint32_t { kReply = 0, kRemoved = 1, kResized = 2, kLog = 3, kProgress = 4, kNvme = 5 };

  Kind kind = Kind::kReply;
  // Reply, Progress: the request. Removed, Resized: the target's slot. Nvme: the controller's.
  uint32_t id = 0;
  // Reply: 0 or a negative errno. Log: the level.
  int32_t status = 0;
  double a = 0;
  double b = 0;
  double c = 0;
  std::string text;
  // Of calls to blobstores.
  std::string bytes;
};

class Mailbox {
 public:
  static constexpr size_t kMostLogLines = 4096;

  explicit Mailbox(std::function<void()> wake) : wake_(std::move(wake)) {}

  // Any thread. Dropped after Close().
  void Send(Event event) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (closed_) return;
      if (event.kind == Event::Kind::kLog) {
        if (log_lines_ >= kMostLogLines) {
          dropped_log_lines_++;
          return;
        }
        log_lines_++;
      }
      events_.push_back(std::move(event));
      if (pending_.exchange(true)) return;
    }
    // Without the lock: whoever wakes up may take it before this thread goes on.
    wake_();
  }

  // Any thread: wakes JavaScript without an event, for completions in a ring.
  void Wake() {
    if (!closed_) wake_();
  }

  // The JavaScript thread: there is something to take.
  bool pending() const { return pending_; }

  struct Batch {
    std::vector<Event> events;
    uint64_t dropped_log_lines = 0;
  };

  // The JavaScript thread.
  Batch Take() {
    const std::lock_guard<std::mutex> lock(mutex_);
    pending_ = false;
    log_lines_ = 0;
    return {std::exchange(events_, {}), std::exchange(dropped_log_lines_, 0)};
  }

  void Close() {
    const std::lock_guard<std::mutex> lock(mutex_);
    closed_ = true;
    events_.clear();
  }

 private:
  std::mutex mutex_;
  const std::function<void()> wake_;
  std::vector<Event> events_;
  size_t log_lines_ = 0;
  uint64_t dropped_log_lines_ = 0;
  std::atomic<bool> pending_{false};
  std::atomic<bool> closed_{false};
};

}  // namespace effect_spdk
