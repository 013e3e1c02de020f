// Whether threads that only tell how long they were busy are at work, or only do their housekeeping. Pure: time comes in as
// ticks. No Node, no SPDK.
#pragma once

#include <cstdint>

namespace effect_spdk {

class BusyShare {
 public:
  // SPDK's own housekeeping (the RPC server looks at its sockets every 4 ms and calls that busy) must not keep a core awake:
  // threads are at work from one part in this many of the time.
  static constexpr uint64_t kPart = 20;

  // The time that counts, or half of it: several turns of the housekeeping, because one may well take such a part of the time
  // since the last look.
  explicit BusyShare(uint64_t window_ticks) : window_ticks_(window_ticks) {}

  // `busy_ticks`: the sum of all threads until now; it goes down when a thread ends, and that look starts over. True when
  // they were at work since the last look.
  bool Look(uint64_t now, uint64_t busy_ticks) {
    const uint64_t busy = busy_ticks > last_busy_ ? busy_ticks - last_busy_ : 0;
    recent_busy_ += busy;
    recent_ += now - last_look_;
    while (recent_ > window_ticks_) {
      recent_ /= 2;
      recent_busy_ /= 2;
    }
    last_busy_ = busy_ticks;
    last_look_ = now;
    return busy != 0 && recent_busy_ * kPart > recent_;
  }

 private:
  uint64_t window_ticks_;
  uint64_t last_look_ = 0;
  uint64_t last_busy_ = 0;
  uint64_t recent_ = 0;
  uint64_t recent_busy_ = 0;
};

}  // namespace effect_spdk
