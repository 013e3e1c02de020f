// How a queue gives requests to a blob. SPDK may complete them before it returns: a hole in a thin blob is read at once.
#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <memory>
#include <utility>

#include "../core/operations.h"
#include "queue.h"

namespace effect_spdk {

namespace {

// A request takes up to four request sets of the blobstore's channel (Blobstore::kChannelOps): one that crosses a cluster, of
// the part in hand, of the copy of a cluster and of the request that waits for that.
constexpr uint32_t kMostInFlight = 1024;

}  // namespace

void Queue::SubmitToBlob(Request* request) {
  const bool free = blob_in_flight_ < kMostInFlight && request->channel->target->pauses() == 0;
  if (waiting_for_blob_head_ == nullptr && free) return AskBlob(request);
  request->Enter(Phase::kWaiting);
  request->next = nullptr;
  *waiting_for_blob_tail_ = request;
  waiting_for_blob_tail_ = &request->next;
}

// In the order in which they came. A request that completes inside of its submission does not start the next one: this does.
void Queue::SubmitWaitingToBlobs() {
  if (std::exchange(submitting_to_blobs_, true)) return;
  while (waiting_for_blob_head_ != nullptr && blob_in_flight_ < kMostInFlight && !blob_starved_) {
    Request* request = waiting_for_blob_head_;
    const bool unwanted = closing_ || request->abort_wished;
    // Those behind it wait with it: a pause is short.
    if (!unwanted && request->channel->target->pauses() != 0) break;
    waiting_for_blob_head_ = std::exchange(request->next, nullptr);
    if (waiting_for_blob_head_ == nullptr) waiting_for_blob_tail_ = &waiting_for_blob_head_;
    if (unwanted) {
      request->Enter(Phase::kTaken);
      Refuse(request, -ECANCELED, closing_ ? Detail::kClosing : Detail::kNone);
    } else {
      AskBlob(request);
    }
  }
  submitting_to_blobs_ = false;
}

void Queue::AskBlob(Request* request) {
  Channel& channel = *request->channel;
  spdk_blob* blob = channel.blob;
  spdk_io_channel* io_channel = channel.io_channel;
  const uint64_t offset = request->offset_blocks;
  const uint64_t blocks = request->length_blocks;
  const bool vectored = request->segment_count != 0;
  const auto count = static_cast<int>(request->segment_count);
  request->Enter(Phase::kSubmitted);
  blob_in_flight_++;
  channel.asked++;
  // It may be complete, and somebody else's, when a call returns.
  switch (request->opcode) {
    case Opcode::kRead:
      if (vectored) return spdk_blob_io_readv(blob, io_channel, request->segments->iov, count, offset, blocks, OnBlobIo, request);
      return spdk_blob_io_read(blob, io_channel, request->buffer, offset, blocks, OnBlobIo, request);
    case Opcode::kWrite:
      if (vectored) return spdk_blob_io_writev(blob, io_channel, request->segments->iov, count, offset, blocks, OnBlobIo, request);
      return spdk_blob_io_write(blob, io_channel, request->buffer, offset, blocks, OnBlobIo, request);
    case Opcode::kUnmap:
      return spdk_blob_io_unmap(blob, io_channel, offset, blocks, OnBlobIo, request);
    case Opcode::kWriteZeroes:
      return spdk_blob_io_write_zeroes(blob, io_channel, offset, blocks, OnBlobIo, request);
    case Opcode::kFlush:
    case Opcode::kReset:
    case Opcode::kNvmeIo:
    case Opcode::kNop:
    case Opcode::kAbort:
    case Opcode::kTimer:
      break;
  }
  OnBlobIo(request, -ENOTSUP);
}

void Queue::OnBlobIo(void* context, int status) {
  auto* request = static_cast<Request*>(context);
  Queue* queue = request->queue;
  queue->AssertThread();
  EFFECT_SPDK_ASSERT(request->submitted());
  EFFECT_SPDK_ASSERT(queue->blob_in_flight_ != 0 && request->channel->asked != 0);
  queue->blob_in_flight_--;
  request->channel->asked--;
  if (status == -ENOMEM && queue->blob_in_flight_ != 0 && !queue->closing_ && !request->abort_wished) {
    // Every level of a chain of snapshots takes a request set: it waits for one of the others to give its own back.
    request->Enter(Phase::kWaiting);
    request->next = queue->waiting_for_blob_head_;
    if (request->next == nullptr) queue->waiting_for_blob_tail_ = &request->next;
    queue->waiting_for_blob_head_ = request;
    queue->blob_starved_ = true;
    if (!queue->pause_wishes_.empty()) queue->GrantPauses();
    return;
  }
  queue->blob_starved_ = false;
  // SPDK may say that a write has succeeded although its metadata has not.
  if (Writes(request->opcode) && request->channel->target->stopped()) {
    status = -EIO;
    request->completion.detail = Detail::kStopped;
  }
  request->completion.status = status;
  queue->Complete(request);
  if (queue->waiting_for_blob_head_ != nullptr) queue->SubmitWaitingToBlobs();
  if (!queue->pause_wishes_.empty()) queue->GrantPauses();
}

void Queue::Pause(std::shared_ptr<Target> blob, std::function<void()> paused) {
  auto wish = std::make_shared<PauseWish>(std::move(blob), std::move(paused));
  const bool posted = Post([this, keep = shared_from_this(), wish] {
    pause_wishes_.push_back(std::move(*wish));
    GrantPauses();
  });
  // A queue that has ended has nothing in flight.
  if (!posted) wish->paused();
}

void Queue::Resume() {
  Post([this, keep = shared_from_this()] { SubmitWaitingToBlobs(); });
}

void Queue::GrantPauses() {
  for (size_t i = 0; i < pause_wishes_.size();) {
    const bool quiet = std::none_of(channels_.begin(), channels_.end(), [&wish = pause_wishes_[i]](const auto& channel) {
      return channel->target == wish.blob && channel->asked != 0;
    });
    if (!quiet) {
      i++;
      continue;
    }
    const PauseWish granted = std::move(pause_wishes_[i]);
    pause_wishes_.erase(pause_wishes_.begin() + static_cast<std::ptrdiff_t>(i));
    granted.paused();
  }
}

}  // namespace effect_spdk
