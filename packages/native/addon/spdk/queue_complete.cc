// How requests complete: what they hold goes back, their entry goes into the ring, and JavaScript is woken for it.
#include <sched.h>

#include <cerrno>
#include <utility>

#include "nvme_qpair.h"
#include "queue.h"
#include "runtime.h"

namespace effect_spdk {

namespace {

// With fewer requests in flight than this a completion is published by itself, otherwise with those of its turn.
constexpr uint32_t kPublishAtOnceBelow = 4;

}  // namespace

void FreeSlabMemory(SlabTable& slabs, uint32_t slot, void* memory) {
  Runtime::Get().dma_bytes.fetch_sub(slabs.length_bytes(slot));
  Runtime::Get().slab_count.fetch_sub(1);
  spdk_dma_free(memory);
  slabs.Recycle(slot);
}

// Of bdevs, and here because all of Complete becomes part of it.
void Queue::OnIo(spdk_bdev_io* io, bool success, void* context) {
  auto* request = static_cast<Request*>(context);
  EFFECT_SPDK_ASSERT(request->submitted());
  if (!success) {
    uint32_t cdw0 = 0;
    int sct = 0;
    int sc = 0;
    int aio_result = 0;
    spdk_bdev_io_get_nvme_status(io, &cdw0, &sct, &sc);
    spdk_bdev_io_get_aio_status(io, &aio_result);
    request->completion.status = -EIO;
    // What other modules fail a flush with is no report of the operating system's.
    if (request->opcode == Opcode::kFlush && io->internal.status == SPDK_BDEV_IO_STATUS_AIO_ERROR) {
      request->channel->target->OnFlushFailed();
    }
    if (aio_result < 0 && aio_result != -EIO) {
      request->completion.status = aio_result;
    } else {
      if (sct == SPDK_NVME_SCT_GENERIC && sc == SPDK_NVME_SC_ABORTED_BY_REQUEST) request->completion.status = -ECANCELED;
      request->completion.nvme = 0x10000u | (static_cast<uint32_t>(sct) & 0xff) << 8 | (static_cast<uint32_t>(sc) & 0xff);
    }
  }
  spdk_bdev_free_io(io);
  request->queue->Complete(request);
}

int Queue::OnTimer(void* context) {
  auto* request = static_cast<Request*>(context);
  EFFECT_SPDK_ASSERT(request->phase == Phase::kTiming);
  spdk_poller_unregister(&request->timer);
  request->queue->activity_.Add(1);
  request->queue->Complete(request);
  return SPDK_POLLER_BUSY;
}

void Queue::Refuse(Request* request, int status, Detail detail) {
  request->completion.status = status;
  request->completion.detail = detail;
  Complete(request);
}

void Queue::ReleaseMemory(Request* request) {
  if (request->has_slab) {
    request->has_slab = false;
    if (void* memory = pins_.Unpin(request->slab_slot)) FreeSlabMemory(*slabs_, request->slab_slot, memory);
  }
  if (request->segments == nullptr) return;
  for (uint32_t i = 0; i < request->segment_count; i++) {
    const uint32_t slot = request->segments->slab_slots[i];
    if (void* memory = pins_.Unpin(slot)) FreeSlabMemory(*slabs_, slot, memory);
  }
  request->segments->next = std::exchange(free_segments_, request->segments);
  request->segments = nullptr;
}

void Queue::Complete(Request* request) {
  AssertThread();
  request->Enter(Phase::kCompleting);
  ReleaseMemory(request);
  Channel* channel = std::exchange(request->channel, nullptr);
  Request*& named = Named(request->completion.id);
  if (named == request) named = nullptr;
  if (ring_->HasRoom() && backlog_head_ == nullptr) {
    ring_->Push(request->completion);
    Recycle(request);
    // With little else on its way there is nothing to batch with, and somebody waits for exactly this one.
    if (in_flight() < kPublishAtOnceBelow) Publish();
  } else {
    request->next = nullptr;
    *backlog_tail_ = request;
    backlog_tail_ = &request->next;
  }
  if (channel != nullptr) LetGo(channel);
}

void Queue::Recycle(Request* request) {
  EFFECT_SPDK_ASSERT(in_flight() != 0 && in_flight() <= request_count_);
  request->Enter(Phase::kFree);
  request->next = std::exchange(free_requests_, request);
  in_flight_.Subtract(1);
}

bool Queue::FlushBacklog() {
  bool moved = false;
  while (backlog_head_ != nullptr && (ring_->HasRoom() || closing_)) {
    Request* request = backlog_head_;
    backlog_head_ = request->next;
    if (backlog_head_ == nullptr) backlog_tail_ = &backlog_head_;
    // A closing queue whose reader is gone must not wait for it.
    if (ring_->HasRoom()) ring_->Push(request->completion);
    Recycle(request);
    moved = true;
  }
  return moved;
}

void Queue::LetGo(Channel* channel) {
  AssertThread();
  EFFECT_SPDK_ASSERT(channel->in_flight != 0 && device_in_flight() != 0);
  channel->in_flight--;
  let_go_.Add(1);
  PutChannelIfUnused(channel);
}

void Queue::Publish() {
  const bool sleeps = ring_->Publish();
  if (!sleeps || wake_due_ticks_ != 0) return;
  wake_due_ticks_ = spdk_get_ticks() + wake_delay_ticks_;
  WakeIfDue();
}

bool Queue::PublishNew() {
  if (!ring_->unpublished()) return false;
  Publish();
  return true;
}

// Waking a thread costs as much as many completions do: while more of them are on their way it waits a little.
void Queue::WakeIfDue() {
  if (ring_->JavaScriptSleeps()) {
    const uint32_t coming = device_in_flight();
    if (coming >= kPublishAtOnceBelow && ring_->Unread() < coming && spdk_get_ticks() < wake_due_ticks_) return;
    if (ring_->TakeWake()) mailbox_->Wake();
  }
  wake_due_ticks_ = 0;
}

// JavaScript waits for this processor and for nothing else: it gets it as soon as there is enough for it to do, or no more
// comes, and in any case before long.
void Queue::GiveTurnIfDue(uint32_t turn, bool nothing_new) {
  const uint64_t now = spdk_get_ticks();
  if (turn != turn_) {
    turn_ = turn;
    turn_due_ticks_ = now + turn_ticks_;
    turn_due_with_some_ticks_ = 0;
  }
  bool due = now >= turn_due_ticks_;
  if (const uint32_t unread = ring_->Unread(); unread != 0) {
    if (turn_due_with_some_ticks_ == 0) turn_due_with_some_ticks_ = now + wake_delay_ticks_;
    const uint32_t coming = device_in_flight();
    // Half as many as are still to come, a third of all: the device goes on with the rest meanwhile, and neither side waits for the other.
    const bool enough = coming < kPublishAtOnceBelow || 2 * unread >= coming;
    due = due || enough || (nothing_new && now >= turn_due_with_some_ticks_);
  }
  if (!due) return;
  // Somebody else may get the processor, and JavaScript still wait.
  turn_ = 0;
  sched_yield();
}

}  // namespace effect_spdk
