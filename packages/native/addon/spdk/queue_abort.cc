// How a queue aborts what its devices have.
#include <algorithm>
#include <cerrno>
#include <utility>

#include "nvme_qpair.h"
#include "queue.h"

namespace effect_spdk {

namespace {

// Between two times that a device is asked to abort the same request; doubled each time.
constexpr uint64_t kFirstAbortPauseMicros = 1000;
constexpr uint64_t kLongestAbortPauseMicros = 1000000;

}  // namespace

Queue::Request* Queue::FindRequest(uint32_t id, uint32_t generation) {
  Request* request = Named(id);
  const bool found = request != nullptr && request->busy() && request->completion.id == id &&
                     request->completion.id_generation == generation;
  return found ? request : nullptr;
}

void Queue::CancelTimer(Request* request) {
  spdk_poller_unregister(&request->timer);
  Refuse(request, -ECANCELED, Detail::kNone);
}

// The answer to the asker is only that it was heard. The request itself completes in its own time.
void Queue::Abort(Request* request, const SubmissionEntry& entry) {
  Request* target = FindRequest(entry.target_id(), entry.target_generation());
  if (target == nullptr || target == request) return Refuse(request, -ENOENT, Detail::kUnknownTarget);
  if (target->timer != nullptr) {
    CancelTimer(target);
  } else if (target->submitted() && !target->channel->target->Supports(SPDK_BDEV_IO_TYPE_ABORT)) {
    return Refuse(request, -ENOTSUP, Detail::kNotSupported);
  } else {
    WishAbort(target);
    if (!target->submitted() && target->channel->nvme != nullptr) RefuseUnwantedByNvme(target->channel);
  }
  Complete(request);
}

void Queue::WishAbort(Request* target) {
  if (std::exchange(target->abort_wished, true)) return;
  // What waits for a bdev_io is refused when it gets one.
  if (!target->submitted()) return;
  const uint64_t pause = spdk_get_ticks_hz() / 1000000 * kFirstAbortPauseMicros;
  abort_wishes_.push_back({target->completion.id, target->completion.id_generation, 0, pause});
  next_abort_ticks_ = 0;
}

// Never inside a completion: a module that completes a list of requests does not expect one of them to be taken away.
void Queue::AskForAborts() {
  const uint64_t now = spdk_get_ticks();
  if (now < next_abort_ticks_) return;
  next_abort_ticks_ = UINT64_MAX;
  const uint64_t longest_pause = spdk_get_ticks_hz() / 1000000 * kLongestAbortPauseMicros;
  bool empty_pool = false;
  for (size_t i = 0; i < abort_wishes_.size();) {
    AbortWish& wish = abort_wishes_[i];
    Request* target = FindRequest(wish.id, wish.generation);
    if (target == nullptr || !target->submitted()) {
      wish = abort_wishes_.back();
      abort_wishes_.pop_back();
      continue;
    }
    if (now >= wish.due_ticks) {
      if (target->ask.channel == nullptr && !empty_pool) empty_pool = AskForAbort(target) == -ENOMEM;
      wish.due_ticks = now + wish.pause_ticks;
      if (!empty_pool) wish.pause_ticks = std::min(wish.pause_ticks * 2, longest_pause);
    }
    next_abort_ticks_ = std::min(next_abort_ticks_, wish.due_ticks);
    i++;
  }
}

int Queue::AskForAbort(Request* target) {
  Channel* channel = target->channel;
  // An abort holds the channel like any other request.
  Hold(channel);
  target->ask.channel = channel;
  const int rc = channel->nvme != nullptr
                     ? AbortNvme(target)
                     : spdk_bdev_abort(channel->desc, channel->io_channel, target, OnAborted, &target->ask);
  if (rc == 0) return rc;
  target->ask.channel = nullptr;
  LetGo(channel);
  return rc;
}

void Queue::OnAborted(spdk_bdev_io* io, bool, void* context) {
  Channel* channel = std::exchange(static_cast<AbortAsk*>(context)->channel, nullptr);
  EFFECT_SPDK_ASSERT(channel != nullptr);
  spdk_bdev_free_io(io);
  channel->queue->LetGo(channel);
}

void Queue::AbortAll() {
  // With a queue pair goes all that it has in flight, also when its device does not answer any more.
  ReleaseAllNvme();
  for (uint32_t i = 0; i < request_count_; i++) {
    Request& request = requests_[i];
    if (!request.busy()) continue;
    if (request.timer != nullptr) {
      CancelTimer(&request);
    } else if (request.submitted() && request.channel->nvme != nullptr) {
      continue;
    } else if (!request.submitted() || request.channel->target->Supports(SPDK_BDEV_IO_TYPE_ABORT)) {
      WishAbort(&request);
    }
  }
}

}  // namespace effect_spdk
