// Commands of a controller's admin queue, and the limits of time of all its queues.
#include <algorithm>
#include <cerrno>
#include <utility>

#include "nvme_controller.h"
#include "nvme_thread.h"

namespace effect_spdk {

namespace {

// The longest time that SPDK's count of ticks holds with room to spare.
constexpr uint64_t kLongestTimeoutMicros = uint64_t{3600} * 1000000;
constexpr uint32_t kLongestStarvationMillis = 1000;

uint64_t TicksOf(uint64_t millis) { return spdk_get_ticks_hz() / 1000 * millis; }

}  // namespace

void NvmeController::Admin(uint32_t id, AdminCommand command) {
  // Nobody could tell the two apart, and SPDK may have the first.
  if (admin_.contains(id)) return command.done(-EEXIST, nullptr);
  auto pending = std::make_unique<PendingAdmin>();
  pending->controller = this;
  pending->id = id;
  pending->command = std::move(command);
  admin_waiting_.push_back(pending.get());
  admin_[id] = std::move(pending);
  SubmitAdmin();
}

// In their order; those that come while it resets wait.
void NvmeController::SubmitAdmin() {
  while (!admin_waiting_.empty()) {
    PendingAdmin* pending = admin_waiting_.front();
    const bool lost = closing_ || state_ == State::kFailed || state_ == State::kGone || gate() == Gate::kLost;
    if (!lost && state_ != State::kReady) return;
    int rc = -ENOTCONN;
    if (!lost) {
      pending->submitted = true;
      pending->submitted_ticks = spdk_get_ticks();
      admin_in_flight_++;
      const std::lock_guard<std::mutex> lock(guard_);
      rc = spdk_nvme_ctrlr_cmd_admin_raw(ctrlr_, &pending->command.command, pending->command.data,
                                         pending->command.length_bytes, OnAdmin, pending);
    }
    if (rc != 0 && !lost) {
      pending->submitted = false;
      admin_in_flight_--;
      // The queue is full: one of those before it makes room, or one of SPDK's own. Some of those stay for ever.
      if (rc == -ENOMEM) {
        const uint64_t now = spdk_get_ticks();
        if (pending->starved_ticks == 0) pending->starved_ticks = now;
        if (admin_in_flight_ != 0 || now - pending->starved_ticks < TicksOf(kLongestStarvationMillis)) return;
      }
    }
    admin_waiting_.pop_front();
    if (rc != 0) FinishAdmin(pending, rc == -ENXIO ? -ENOTCONN : rc, nullptr);
  }
}

void NvmeController::OnAdmin(void* context, const spdk_nvme_cpl* completion) {
  auto* pending = static_cast<PendingAdmin*>(context);
  NvmeController* self = pending->controller;
  if (std::this_thread::get_id() != self->thread_) {
    // SPDK lets a queue that connects to a device of this machine look at the admin queue.
    NvmeThread::Get().Post([keep = self->shared_from_this(), pending, copy = *completion] { OnAdmin(pending, &copy); });
    return;
  }
  self->admin_in_flight_--;
  self->FinishAdmin(pending, 0, completion);
}

void NvmeController::FinishAdmin(PendingAdmin* pending, int status, const spdk_nvme_cpl* completion) {
  const auto done = std::move(pending->command.done);
  admin_.erase(pending->id);
  done(status, completion);
}

void NvmeController::AbortAdmin(uint32_t id) {
  const auto found = admin_.find(id);
  if (found == admin_.end()) return;
  PendingAdmin* pending = found->second.get();
  if (!pending->submitted) {
    std::erase(admin_waiting_, pending);
    return FinishAdmin(pending, -ECANCELED, nullptr);
  }
  if (state_ != State::kReady) return;
  const std::lock_guard<std::mutex> lock(guard_);
  // How that ends does not matter: the command itself is answered in any case.
  spdk_nvme_ctrlr_cmd_abort_ext(ctrlr_, nullptr, pending, [](void*, const spdk_nvme_cpl*) {}, nullptr);
}

// SPDK waits for answers to what it sends by itself, the log of changed namespaces for one, and where the wait runs out it
// frees the memory that a late answer is written to all the same. So it hears of each of its commands a little before that,
// and the admin queue is given up then: nothing is read from it any more.
// Reading that log here instead, which SPDK has an option for, would lose changes: it looks at the namespaces before the log is
// read then, and offers no way to look again.
void NvmeController::SetLimits() {
  const uint64_t inner_millis = attach_.opts.admin_timeout_ms;
  const uint64_t inner_micros = std::min(inner_millis * 1000 / 8 * 7, kLongestTimeoutMicros);
  inner_limit_ticks_ = spdk_get_ticks_hz() / 1000000 * inner_micros;
  admin_limit_ticks_ = TicksOf(options_.admin_timeout_millis);
  const uint64_t io_millis = options_.io_timeout_millis;
  const uint64_t io_micros = io_millis == 0 ? kLongestTimeoutMicros : std::min(io_millis * 1000, kLongestTimeoutMicros);
  spdk_nvme_ctrlr_register_timeout_callback(ctrlr_, io_micros, inner_micros, OnTimeout, this);
}

void NvmeController::OnTimeout(void* context, spdk_nvme_ctrlr*, spdk_nvme_qpair* qpair, uint16_t) {
  auto* self = static_cast<NvmeController*>(context);
  if (qpair != nullptr) {
    if (self->options_.io_timeout_millis == 0) return;
    // The target may have ended the connection with words, upon which SPDK answers nothing any more, or is silent. Whatever
    // it is, the whole controller is given up, with all that its queue pairs have in flight.
    NvmeThread::Get().Post([keep = self->shared_from_this()] {
      if (keep->state_ == State::kReady) keep->io_overdue_ = true;
    });
  } else if (std::this_thread::get_id() == self->thread_) {
    self->OnAdminTimeout();
  } else {
    NvmeThread::Get().Post([keep = self->shared_from_this()] { keep->OnAdminTimeout(); });
  }
}

// Once for every command that takes longer than SPDK's own may; keep-alives have a limit of their own.
void NvmeController::OnAdminTimeout() {
  const uint64_t now = spdk_get_ticks();
  if (poll_ticks_ != 0 && now - poll_ticks_ >= inner_limit_ticks_) {
    // SPDK is waiting, with the guard held by who called it.
    overdue_ = true;
    spdk_nvme_ctrlr_fail(ctrlr_);
    return;
  }
  for (const auto& [id, pending] : admin_) {
    if (!pending->submitted || pending->late || now - pending->submitted_ticks < inner_limit_ticks_) continue;
    // A caller's, which has the limit that the caller chose.
    pending->late = true;
    return;
  }
  if (state_ == State::kReady) overdue_ = true;
}

bool NvmeController::AdminOverdue() const {
  if (admin_limit_ticks_ == 0) return false;
  const uint64_t now = spdk_get_ticks();
  return std::any_of(admin_.begin(), admin_.end(), [this, now](const auto& one) {
    return one.second->submitted && now - one.second->submitted_ticks >= admin_limit_ticks_;
  });
}

int32_t NvmeController::ProcessAdmin() {
  const std::lock_guard<std::mutex> lock(guard_);
  poll_ticks_ = spdk_get_ticks();
  const int32_t rc = spdk_nvme_ctrlr_process_admin_completions(ctrlr_);
  // Also where nobody said so, because this thread did not run in time.
  if (spdk_get_ticks() - poll_ticks_ >= inner_limit_ticks_) {
    overdue_ = true;
    spdk_nvme_ctrlr_fail(ctrlr_);
  }
  poll_ticks_ = 0;
  return rc;
}

}  // namespace effect_spdk
