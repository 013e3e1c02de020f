// When an idle reactor sleeps, and for how long. Pure: time comes in as microseconds. No Node, no SPDK.
#pragma once

#include <algorithm>
#include <cstdint>

namespace effect_spdk {

class Backoff {
 public:
  // Work that came less than this ago keeps the reactor polling.
  static constexpr uint64_t kGraceMicros = 200;
  static constexpr uint32_t kFirstSleepMicros = 20;
  static constexpr uint32_t kLongestSleepMicros = 1000;
  // While a device owes an answer, so that a completion without a signal is not late by more than this.
  static constexpr uint32_t kLongestSleepInFlightMicros = 50;

  // `activity` is any number that changes when work was done. `until_timer_micros` bounds the sleep (0: due now).
  // Returns the microseconds to sleep, 0 for none.
  uint32_t Next(uint64_t now_micros, uint64_t activity, bool in_flight, uint64_t until_timer_micros) {
    if (activity != last_activity_) {
      last_activity_ = activity;
      last_active_micros_ = now_micros;
      sleep_micros_ = kFirstSleepMicros;
      return 0;
    }
    if (now_micros - last_active_micros_ < kGraceMicros) return 0;
    const uint32_t longest = in_flight ? kLongestSleepInFlightMicros : kLongestSleepMicros;
    const uint32_t sleep = static_cast<uint32_t>(std::min<uint64_t>(std::min(sleep_micros_, longest), until_timer_micros));
    if (sleep != 0) sleep_micros_ = std::min(sleep_micros_ * 2, kLongestSleepMicros);
    return sleep;
  }

 private:
  uint64_t last_activity_ = 0;
  uint64_t last_active_micros_ = 0;
  uint32_t sleep_micros_ = kFirstSleepMicros;
};

}  // namespace effect_spdk
