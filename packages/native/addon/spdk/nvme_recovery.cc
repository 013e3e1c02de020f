// How a controller fails, resets and ends. First of all its queue pairs are given up, each on its own thread, and what
// they had in flight is answered: SPDK's reset of a controller touches them, and so does its end.
#include <algorithm>
#include <cerrno>
#include <utility>

#include "nvme_controller.h"
#include "nvme_namespace.h"
#include "nvme_thread.h"
#include "queue.h"
#include "runtime.h"

namespace effect_spdk {

namespace {

// How long a controller over fabrics is waited for after it was told to shut down: one that still has I/O in its hands,
// which nobody waits for any more, would let SPDK wait for ten. A device of this machine has something to save, and is
// given that time.
constexpr uint64_t kShutdownSeconds = 1;
// How long a device of this machine may take to answer an abort when it is to go.
constexpr uint64_t kDeviceSeconds = 10;

}  // namespace

// `dropped` runs on this thread, later. Who opens a channel from here on finds the gate closed.
void NvmeController::Drop(std::function<void()> dropped) {
  state_ = State::kDropping;
  std::vector<std::shared_ptr<Queue>> queues;
  for (const auto& ns : namespaces_) {
    for (auto& queue : ns->UsedBy()) queues.push_back(std::move(queue));
  }
  std::sort(queues.begin(), queues.end());
  queues.erase(std::unique(queues.begin(), queues.end()), queues.end());
  auto left = std::make_shared<size_t>(queues.size() + 1);
  const auto one_less = [self = shared_from_this(), left, dropped = std::move(dropped)] {
    if (--*left == 0) dropped();
  };
  for (const auto& queue : queues) {
    queue->DropNvme(shared_from_this(), [one_less] { NvmeThread::Get().Post(one_less); });
  }
  NvmeThread::Get().Post(one_less);
}

void NvmeController::Fail(const std::string& message) {
  failure_ = message;
  TellFailed();
  gate_.store(Gate::kLost, std::memory_order_release);
  {
    const std::lock_guard<std::mutex> lock(guard_);
    spdk_nvme_ctrlr_fail(ctrlr_);
  }
  if (removed_) RemoveNamespaces();
  Drop([this] { state_ = State::kDraining; });
}

// Queue pairs and admin queue have nothing any more.
void NvmeController::OnDrained() {
  if (!closing_) return OnFailed();
  if (!close_started_) return StartClose();
  // They close by way of the app thread.
  if (namespaces_.empty()) return StartDetach();
  if (spdk_get_ticks() < deadline_ticks_) return;
  // Aborts hold their channels until the device answers them, and this one does not.
  deadline_ticks_ = UINT64_MAX;
  const std::lock_guard<std::mutex> lock(guard_);
  spdk_nvme_ctrlr_fail(ctrlr_);
}

void NvmeController::OnFailed() {
  state_ = State::kFailed;
  // Found out in the middle of a reset.
  if (removed_) RemoveNamespaces();
  RunSettled();
}

// Before the answers that follow from it: whoever gets one of them finds the controller failed.
void NvmeController::TellFailed() { Tell(removed_ ? NvmeEvent::kRemoved : NvmeEvent::kFailed, 0, failure_); }

void NvmeController::OnQueuePairLost() {
  if (state_ == State::kReady) broken_ = true;
}

void NvmeController::WhenSettled(std::function<void()> task) {
  if (settled() && settled_tasks_.empty()) return task();
  settled_tasks_.push_back(std::move(task));
}

void NvmeController::RunSettled() {
  if (closing_ && state_ != State::kGone) return StartClose();
  while (settled() && !settled_tasks_.empty()) {
    const auto task = std::move(settled_tasks_.front());
    settled_tasks_.pop_front();
    task();
  }
  SubmitAdmin();
}

void NvmeController::Reset(Done done) {
  // Those that come while one is under way share its end.
  if (!resets_.empty()) return resets_.push_back(std::move(done));
  WhenSettled([this, self = shared_from_this(), done = std::move(done)] {
    if (removed_) return done(-ENODEV, failure_);
    if (state_ == State::kGone || closing_) return done(-ESHUTDOWN, {});
    resets_.push_back(done);
    if (resets_.size() == 1) StartReset();
  });
}

void NvmeController::StartReset() {
  gate_.store(Gate::kBlocked, std::memory_order_release);
  Drop([this] {
    if (closing_) {
      for (const Done& done : std::exchange(resets_, {})) done(-ESHUTDOWN, {});
      return StartClose();
    }
    int rc = 0;
    {
      const std::lock_guard<std::mutex> lock(guard_);
      rc = spdk_nvme_ctrlr_disconnect(ctrlr_);
    }
    if (rc != 0) return FinishReset(rc);
    state_ = State::kDisconnecting;
  });
}

void NvmeController::PollDisconnect() {
  if (ProcessAdmin() >= 0) return;
  const std::lock_guard<std::mutex> lock(guard_);
  // SPDK holds its lock from here to the end of the initialisation, on this thread. No queue has anything to ask for.
  spdk_nvme_ctrlr_reconnect_async(ctrlr_);
  state_ = State::kReconnecting;
}

void NvmeController::PollReconnect() {
  int rc = 0;
  {
    const NvmeThread::Reason reason(&reason_);
    const std::lock_guard<std::mutex> lock(guard_);
    rc = spdk_nvme_ctrlr_reconnect_poll_async(ctrlr_);
  }
  if (rc == -EAGAIN) return;
  FinishReset(rc == 0 ? 0 : -ENOTCONN);
}

void NvmeController::FinishReset(int status) {
  overdue_ = false;
  io_overdue_ = false;
  broken_ = false;
  const std::string reason = std::exchange(reason_, {});
  if (status != 0) {
    failure_ = "the controller did not come back";
    TellFailed();
  }
  for (const Done& done : std::exchange(resets_, {})) done(status, reason);
  if (status != 0) {
    gate_.store(Gate::kLost, std::memory_order_release);
    return OnFailed();
  }
  state_ = State::kReady;
  CheckNamespaces();
  gate_.store(Gate::kOpen, std::memory_order_release);
  RunSettled();
}

std::vector<uint32_t> NvmeController::ActiveNamespaces() {
  std::vector<uint32_t> ids;
  if (ctrlr_ == nullptr || state_ != State::kReady) return ids;
  const std::lock_guard<std::mutex> lock(guard_);
  for (uint32_t id = spdk_nvme_ctrlr_get_first_active_ns(ctrlr_); id != 0;
       id = spdk_nvme_ctrlr_get_next_active_ns(ctrlr_, id)) {
    ids.push_back(id);
  }
  return ids;
}

void NvmeController::Open(uint32_t nsid, uint32_t slot, std::shared_ptr<Mailbox> mailbox, Opened opened) {
  WhenSettled([this, self = shared_from_this(), nsid, slot, mailbox = std::move(mailbox), opened = std::move(opened)] {
    if (closing_ || state_ == State::kGone) return opened(-ESHUTDOWN, nullptr);
    if (state_ != State::kReady) return opened(removed_ ? -ENODEV : -ENOTCONN, nullptr);
    std::shared_ptr<NvmeNamespace> ns;
    int status = 0;
    {
      const std::lock_guard<std::mutex> lock(guard_);
      status = NvmeNamespace::Make(self, nsid, slot, mailbox, &ns);
    }
    if (status == 0) namespaces_.push_back(ns);
    opened(status, std::move(ns));
  });
}

void NvmeController::CheckNamespaces() {
  const std::lock_guard<std::mutex> lock(guard_);
  for (const auto& ns : namespaces_) ns->Check();
}

void NvmeController::RemoveNamespaces() {
  for (const auto& ns : namespaces_) ns->PostRemove();
}

void NvmeController::OnNamespaceClosed(const NvmeNamespace* closed) {
  std::erase_if(namespaces_, [closed](const auto& known) { return known.get() == closed; });
}

void NvmeController::Close(std::function<void()> done) {
  if (state_ == State::kGone) return done();
  waiting_for_close_.push_back(std::move(done));
  if (std::exchange(closing_, true)) return;
  GiveUp();
  if (settled()) StartClose();
}

void NvmeController::StartClose() {
  close_started_ = true;
  for (const auto& task : std::exchange(settled_tasks_, {})) task();
  gate_.store(Gate::kLost, std::memory_order_release);
  SubmitAdmin();
  RemoveNamespaces();
  Drop([this] {
    state_ = State::kDraining;
    const uint64_t seconds = spdk_nvme_ctrlr_is_fabrics(ctrlr_) ? kShutdownSeconds : kDeviceSeconds;
    deadline_ticks_ = spdk_get_ticks() + spdk_get_ticks_hz() * seconds;
  });
}

void NvmeController::StartDetach() {
  const std::lock_guard<std::mutex> lock(guard_);
  state_ = State::kDetaching;
  deadline_ticks_ = spdk_get_ticks() + spdk_get_ticks_hz() * kShutdownSeconds;
  // Refuses nothing that was attached once.
  spdk_nvme_detach_async(ctrlr_, &detach_);
}

void NvmeController::PollDetach() {
  if (detach_ != nullptr && spdk_nvme_detach_poll_async(detach_) == -EAGAIN) {
    if (spdk_get_ticks() < deadline_ticks_ || !spdk_nvme_ctrlr_is_fabrics(ctrlr_)) return;
    deadline_ticks_ = UINT64_MAX;
    const std::lock_guard<std::mutex> lock(guard_);
    spdk_nvme_ctrlr_fail(ctrlr_);
    return;
  }
  detach_ = nullptr;
  ctrlr_ = nullptr;
  BecomeGone(-ESHUTDOWN);
}

void NvmeController::BecomeGone(int status) {
  state_ = State::kGone;
  gate_.store(Gate::kLost, std::memory_order_release);
  for (spdk_key* key : std::exchange(keys_, {})) spdk_keyring_put_key(key);
  const auto self = shared_from_this();
  Runtime::Get().nvme_count.fetch_sub(1);
  // Whoever hears that it failed may count what is left.
  FinishConnect(status);
  RunSettled();
  for (const Done& done : std::exchange(resets_, {})) done(-ESHUTDOWN, {});
  for (const auto& done : std::exchange(waiting_for_close_, {})) done();
}

}  // namespace effect_spdk
