// One reactor's sleep. SPDK's reactors poll without end; when nothing on a core had work for a while, its idle poller
// waits on an eventfd for a short bounded time, so that an idle program costs a few percent of a core. Whoever hands
// work to a thread of that core kicks it.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <vector>

#include "../core/backoff.h"
#include "spdk_headers.h"

namespace effect_spdk {

class Queue;

class Idle {
 public:
  explicit Idle(uint32_t core);
  ~Idle();
  Idle(const Idle&) = delete;
  Idle& operator=(const Idle&) = delete;

  bool valid() const { return event_fd_ >= 0; }

  // On an SPDK thread of this core.
  void Register();
  void Unregister();

  // Any thread.
  void Enter(Queue* queue);
  void Leave(Queue* queue);
  // Wakes the reactor if it sleeps or is about to.
  void Kick();
  // Which SPDK threads run on this core, refreshed from time to time by the runtime.
  void SetThreads(std::vector<uint64_t> thread_ids);

 private:
  static int Poll(void* context);
  int Poll();
  uint64_t Activity(uint64_t* until_timer_micros, bool* in_flight);
  void Sleep(uint32_t micros);

  const uint32_t core_;
  int event_fd_ = -1;
  spdk_poller* poller_ = nullptr;
  uint64_t ticks_per_micro_ = 1;
  uint32_t turns_ = 0;
  uint64_t last_busy_ = 0;
  uint64_t last_look_ = 0;
  uint64_t busy_looks_ = 0;
  Backoff backoff_;
  std::atomic<bool> sleeping_{false};

  std::mutex mutex_;
  std::vector<Queue*> queues_;
  std::vector<uint64_t> thread_ids_;
};

}  // namespace effect_spdk
