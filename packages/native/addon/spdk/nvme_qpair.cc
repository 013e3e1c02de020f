#include "nvme_qpair.h"

#include <cerrno>
#include <mutex>
#include <utility>

#include "nvme_thread.h"

namespace effect_spdk {

NvmeQpair::NvmeQpair(std::shared_ptr<NvmeNamespace> target, spdk_nvme_poll_group* group)
    : target_(std::move(target)), group_(group) {}

NvmeQpair::~NvmeQpair() = default;

int NvmeQpair::lost() const {
  if (target_->replaced() && gone()) return -ENODEV;
  return controller().gate() == NvmeController::Gate::kLost ? -ENOTCONN : 0;
}

bool NvmeQpair::Step() {
  switch (state_) {
    case State::kNone:
      dropped_ = false;
      if (controller().gate() != NvmeController::Gate::kOpen) {
        failure_ = 0;
        return false;
      }
      // One attempt for each time that the controller is there.
      return wanted_ && failure_ == 0 && Connect();
    case State::kConnecting:
      if (disconnected_) {
        if (failure_ == 0 && wanted_ && !dropped_) failure_ = -ECONNRESET;
        return Free();
      }
      if (!wanted_ || dropped_) return Disconnect();
      if (spdk_nvme_qpair_is_connected(qpair_)) {
        state_ = State::kReady;
        return true;
      }
      if (spdk_get_ticks() < deadline_ticks_) return false;
      failure_ = -ETIMEDOUT;
      return Disconnect();
    case State::kReady:
      if (!wanted_ || dropped_) return disconnected_ ? Free() : Disconnect();
      if (!disconnected_) return false;
      // Nobody asked for that: the controller finds out what is the matter, and says so to all of its queue pairs.
      dropped_ = true;
      NvmeThread::Get().Post([controller = target_->controller()] { controller->OnQueuePairLost(); });
      return true;
    case State::kDisconnecting:
      return disconnected_ && Free();
  }
  return false;
}

bool NvmeQpair::Connect() {
  const std::unique_lock<std::mutex> guard(controller().guard(), std::try_to_lock);
  // The controller may have begun a reset since: its message to this thread says so, and it waits for that.
  if (!guard.owns_lock()) return false;
  spdk_nvme_ctrlr* ctrlr = controller().ctrlr();
  disconnected_ = false;
  // Not the controller's fault, which is not told of it.
  reported_ = target_->replaced();
  if (reported_) {
    failure_ = -ENODEV;
    return true;
  }
  ns_ = spdk_nvme_ctrlr_get_ns(ctrlr, target_->nsid());
  spdk_nvme_io_qpair_opts opts;
  spdk_nvme_ctrlr_get_default_io_qpair_opts(ctrlr, &opts, sizeof opts);
  opts.create_only = true;
  opts.async_mode = true;
  // On PCIe: one doorbell per turn, and not one per command.
  opts.delay_cmd_submit = true;
  qpair_ = ns_ == nullptr ? nullptr : spdk_nvme_ctrlr_alloc_io_qpair(ctrlr, &opts, sizeof opts);
  if (qpair_ == nullptr) {
    // There are so many as the controller has granted.
    failure_ = -ENOMEM;
    return true;
  }
  int rc = spdk_nvme_poll_group_add(group_, qpair_);
  if (rc == 0) rc = spdk_nvme_ctrlr_connect_io_qpair(ctrlr, qpair_);
  if (rc != 0) {
    spdk_nvme_ctrlr_free_io_qpair(std::exchange(qpair_, nullptr));
    failure_ = rc;
    return true;
  }
  const uint32_t millis = controller().connect_timeout_millis();
  deadline_ticks_ = millis == 0 ? UINT64_MAX : spdk_get_ticks() + spdk_get_ticks_hz() / 1000 * millis;
  state_ = State::kConnecting;
  return true;
}

// What it has in flight is answered inside of this, or a little later by the poll group.
bool NvmeQpair::Disconnect() {
  const std::unique_lock<std::mutex> guard(controller().guard(), std::try_to_lock);
  if (!guard.owns_lock()) return false;
  // Before it: whoever is answered must not submit to it any more.
  state_ = State::kDisconnecting;
  spdk_nvme_ctrlr_disconnect_io_qpair(qpair_);
  return true;
}

bool NvmeQpair::Free() {
  const std::unique_lock<std::mutex> guard(controller().guard(), std::try_to_lock);
  if (!guard.owns_lock()) return false;
  spdk_nvme_ctrlr_free_io_qpair(std::exchange(qpair_, nullptr));
  ns_ = nullptr;
  dropped_ = false;
  disconnected_ = false;
  state_ = State::kNone;
  return true;
}

}  // namespace effect_spdk
