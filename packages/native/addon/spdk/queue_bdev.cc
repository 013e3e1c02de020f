// How a queue gives requests to bdevs. SPDK completes nothing inside of a submission.
#include <cerrno>
#include <utility>

#include "queue.h"

namespace effect_spdk {

namespace {

Detail RefusalOf(int rc) { return rc == -ENOTSUP ? Detail::kNotSupported : Detail::kNone; }

}  // namespace

void Queue::SubmitToBdev(Request* request) {
  if (waiting_head_ == nullptr) {
    request->Enter(Phase::kSubmitted);
    const int rc = AskBdev(request);
    if (rc == 0) return;
    request->Enter(Phase::kTaken);
    if (rc != -ENOMEM) return Refuse(request, rc, RefusalOf(rc));
  }
  const bool first = waiting_head_ == nullptr;
  request->Enter(Phase::kWaiting);
  request->next = nullptr;
  *waiting_tail_ = request;
  waiting_tail_ = &request->next;
  if (first) SubmitWaitingToBdevs();
}

// Submits what waits for a bdev_io, until there is none left.
void Queue::SubmitWaitingToBdevs() {
  while (waiting_head_ != nullptr) {
    Request* request = waiting_head_;
    const bool wanted = !closing_ && !request->abort_wished;
    request->Enter(wanted ? Phase::kSubmitted : Phase::kTaken);
    int rc = wanted ? AskBdev(request) : -ECANCELED;
    if (rc == -ENOMEM) {
      request->Enter(Phase::kWaiting);
      rc = WaitForBdevIo(*request);
      if (rc == 0) return;
      // A bdev_io is there after all: the next try finds it.
      if (rc == -EINVAL) continue;
    }
    waiting_head_ = std::exchange(request->next, nullptr);
    if (waiting_head_ == nullptr) waiting_tail_ = &waiting_head_;
    if (rc == 0) continue;
    if (request->phase != Phase::kTaken) request->Enter(Phase::kTaken);
    Refuse(request, rc, !wanted && closing_ ? Detail::kClosing : RefusalOf(rc));
  }
}

// SPDK calls back when a bdev_io comes free.
int Queue::WaitForBdevIo(const Request& request) {
  wait_.bdev = spdk_bdev_desc_get_bdev(request.channel->desc);
  wait_.cb_fn = OnIoWait;
  wait_.cb_arg = this;
  return spdk_bdev_queue_io_wait(wait_.bdev, request.channel->io_channel, &wait_);
}

void Queue::OnIoWait(void* context) {
  auto* queue = static_cast<Queue*>(context);
  queue->activity_.Add(1);
  queue->SubmitWaitingToBdevs();
}

int Queue::AskBdev(Request* request) {
  Channel& channel = *request->channel;
  spdk_bdev_desc* desc = channel.desc;
  spdk_io_channel* io_channel = channel.io_channel;
  const uint64_t offset = request->offset_blocks;
  const uint64_t blocks = request->length_blocks;
  const bool vectored = request->segment_count != 0;
  const auto count = static_cast<int>(request->segment_count);
  switch (request->opcode) {
    case Opcode::kRead:
      return vectored ? spdk_bdev_readv_blocks(desc, io_channel, request->segments->iov, count, offset, blocks, OnIo, request)
                      : spdk_bdev_read_blocks(desc, io_channel, request->buffer, offset, blocks, OnIo, request);
    case Opcode::kWrite:
      return vectored ? spdk_bdev_writev_blocks(desc, io_channel, request->segments->iov, count, offset, blocks, OnIo, request)
                      : spdk_bdev_write_blocks(desc, io_channel, request->buffer, offset, blocks, OnIo, request);
    case Opcode::kFlush:
      if (channel.target->HasLostWrites()) return -EIO;
      return spdk_bdev_flush_blocks(desc, io_channel, offset, blocks, OnIo, request);
    case Opcode::kUnmap:
      return spdk_bdev_unmap_blocks(desc, io_channel, offset, blocks, OnIo, request);
    case Opcode::kWriteZeroes:
      return spdk_bdev_write_zeroes_blocks(desc, io_channel, offset, blocks, OnIo, request);
    case Opcode::kReset:
      return spdk_bdev_reset(desc, io_channel, OnIo, request);
    case Opcode::kNvmeIo:
    case Opcode::kNop:
    case Opcode::kAbort:
    case Opcode::kTimer:
      break;
  }
  return -EINVAL;
}

}  // namespace effect_spdk
