// One reactor's sleep. SPDK's reactors poll without end; when nothing on a core had work for a while, its idle poller
// waits on an eventfd for a short bounded time, so that an idle program costs a few percent of a core. Whoever hands
// work to a thread of that core kicks it.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <vector>

#include "../core/backoff.h"
#include "../core/busy_share.h"
#include "spdk_headers.h"

namespace effect_spdk {

class Queue;

// Whether SPDK's scheduler leaves the thread where it is.
bool StaysOnItsCore(const spdk_thread* thread);

class Idle {
 public:
  explicit Idle(uint32_t core);
  ~Idle();
  Idle(const Idle&) = delete;
  Idle& operator=(const Idle&) = delete;

  // The SPDK threads of this core that are not queues.
  struct Neighbours {
    // By id, those that stay on this core.
    std::vector<uint64_t> pinned;
    // There are others, which SPDK's scheduler may move away at any time.
    bool roaming = false;
  };

  // On an SPDK thread of this core.
  void Register();
  void Unregister();

  // Any thread.
  void Enter(Queue* queue);
  void Leave(Queue* queue);
  // Wakes the reactor if it sleeps or is about to.
  void Kick();
  // Refreshed from time to time by the runtime.
  void SetNeighbours(Neighbours neighbours);

 private:
  static int Poll(void* context);
  int Poll();
  // What a look around this core found.
  struct Look {
    // Changes when work was done.
    uint64_t activity = 0;
    uint64_t busy_ticks = 0;
    uint64_t until_timer_micros = UINT64_MAX;
    // Something may complete without a kick.
    bool in_flight = false;
    bool roaming = false;
  };
  Look LookAround();
  void LookAtThread(uint64_t id, uint64_t now, Look* look) const;
  void NoteTimer(uint64_t expiration, uint64_t now, Look* look) const;
  void Sleep(uint32_t micros);

  const uint32_t core_;
  int event_fd_ = -1;
  spdk_poller* poller_ = nullptr;
  uint64_t ticks_per_micro_ = 1;
  uint32_t turns_ = 0;
  uint32_t longest_sleeps_ = 0;
  BusyShare busy_share_{1};
  uint64_t busy_looks_ = 0;
  Backoff backoff_;
  std::atomic<bool> sleeping_{false};

  std::mutex mutex_;
  std::vector<Queue*> queues_;
  Neighbours neighbours_;
};

}  // namespace effect_spdk
