// The queue pair of one channel to an NVMe namespace, on the channel's thread. It connects, breaks and comes back without
// waiting: whoever owns it calls Step() at every turn until it is where it should be.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>

#include "nvme_controller.h"
#include "nvme_namespace.h"
#include "spdk_headers.h"

namespace effect_spdk {

class NvmeQpair {
 public:
  NvmeQpair(std::shared_ptr<NvmeNamespace> target, spdk_nvme_poll_group* group);
  ~NvmeQpair();
  NvmeQpair(const NvmeQpair&) = delete;
  NvmeQpair& operator=(const NvmeQpair&) = delete;

  // True when something has changed.
  bool Step();
  // Takes requests.
  bool ready() const { return state_ == State::kReady && wanted_ && !dropped_; }
  // SPDK has nothing of it.
  bool gone() const { return state_ == State::kNone; }
  // Nothing is to be done until somebody asks for it.
  bool settled() const { return ready() || (gone() && !wanted_); }
  // Why it is not to be had: its controller is not there, or another volume has the namespace's place. 0: it may come.
  int lost() const;
  // Why the last attempt to connect it failed; 0 when it did not.
  int failure() const { return failure_; }
  // Once for each failure.
  bool TakeReport() { return failure_ != 0 && !std::exchange(reported_, true); }

  // Gives it up with all that is in flight. It comes back when its controller is there.
  void Drop() { dropped_ = true; }
  // The same for good.
  void Release() { wanted_ = false; }
  // Of the poll group.
  void OnDisconnected() { disconnected_ = true; }

  const NvmeNamespace& target() const { return *target_; }
  NvmeController& controller() const { return *target_->controller(); }
  spdk_nvme_qpair* qpair() const { return qpair_; }
  spdk_nvme_ns* ns() const { return ns_; }

 private:
  enum class State { kNone, kConnecting, kReady, kDisconnecting };

  bool Connect();
  bool Disconnect();
  bool Free();

  const std::shared_ptr<NvmeNamespace> target_;
  spdk_nvme_poll_group* const group_;
  State state_ = State::kNone;
  spdk_nvme_qpair* qpair_ = nullptr;
  spdk_nvme_ns* ns_ = nullptr;
  uint64_t deadline_ticks_ = 0;
  int failure_ = 0;
  bool reported_ = false;
  bool wanted_ = true;
  bool dropped_ = false;
  bool disconnected_ = false;
};

}  // namespace effect_spdk
