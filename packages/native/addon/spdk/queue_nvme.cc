// How a queue gives requests to NVMe namespaces. Queue pairs of one thread share a poll group. SPDK may complete a request
// before it returns, and it completes all that a queue pair has when that breaks or is given up.
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "../core/operations.h"
#include "nvme_namespace.h"
#include "nvme_passthru.h"
#include "nvme_qpair.h"
#include "nvme_thread.h"
#include "queue.h"
#include "runtime.h"

namespace effect_spdk {

namespace {

constexpr uint32_t kMostRangesOnStack = 256;

// Status type and code, and "do not retry", as a completion entry carries them.
uint32_t NvmeWordOf(const spdk_nvme_cpl& completion) {
  return 0x10000u | static_cast<uint32_t>(completion.status.sct) << 8 | completion.status.sc |
         (completion.status.dnr != 0 ? 0x20000u : 0u);
}

}  // namespace

int Queue::OpenNvmeChannel(Channel* channel, const std::shared_ptr<Target>& target, Opened opened) {
  if (nvme_group_ == nullptr) nvme_group_ = spdk_nvme_poll_group_create(this, nullptr);
  if (nvme_group_ == nullptr) return -ENOMEM;
  channel->nvme = std::make_unique<NvmeQpair>(
      std::static_pointer_cast<NvmeNamespace>(target->AsNvme()->shared_from_this()), nvme_group_);
  channel->opened = std::move(opened);
  nvme_unsettled_ = true;
  return 0;
}

uint32_t Queue::PollNvme() {
  const int64_t done = spdk_nvme_poll_group_process_completions(nvme_group_, 0, OnNvmeDisconnected);
  uint32_t work = done > 0 ? static_cast<uint32_t>(done) : 0;
  if (nvme_unsettled_) work += StepNvme();
  return work;
}

void Queue::OnNvmeDisconnected(spdk_nvme_qpair* qpair, void* context) {
  auto* queue = static_cast<Queue*>(context);
  for (const auto& channel : queue->channels_) {
    if (channel->nvme == nullptr || channel->nvme->qpair() != qpair) continue;
    channel->nvme->OnDisconnected();
    queue->nvme_unsettled_ = true;
  }
}

// Brings every queue pair a step nearer to where it should be, and tells those who wait for that.
uint32_t Queue::StepNvme() {
  uint32_t changes = 0;
  nvme_unsettled_ = false;
  // By index: an answer may open the next channel.
  for (size_t i = 0; i < channels_.size(); i++) {
    Channel* channel = channels_[i].get();
    if (channel->nvme == nullptr) continue;
    if (channel->nvme->Step()) changes++;
    SettleNvme(channel);
    if (channel->nvme != nullptr && !channel->nvme->settled()) nvme_unsettled_ = true;
  }
  for (size_t i = 0; i < nvme_drops_.size();) {
    const bool pending = std::any_of(channels_.begin(), channels_.end(), [&drop = nvme_drops_[i]](const auto& channel) {
      return channel->nvme != nullptr && &channel->nvme->controller() == drop.controller.get() && !channel->nvme->gone();
    });
    if (pending) {
      nvme_unsettled_ = true;
      i++;
      continue;
    }
    const NvmeDrop dropped = std::move(nvme_drops_[i]);
    nvme_drops_.erase(nvme_drops_.begin() + static_cast<std::ptrdiff_t>(i));
    dropped.dropped();
  }
  return changes;
}

void Queue::SettleNvme(Channel* channel) {
  NvmeQpair& nvme = *channel->nvme;
  if (nvme.ready()) {
    if (const Opened opened = std::exchange(channel->opened, nullptr)) opened(0, HandleOf(channel));
    return SubmitWaitingToNvme(channel);
  }
  const int lost = nvme.lost();
  const int failure = lost != 0 ? lost : nvme.gone() ? nvme.failure() : 0;
  if (failure != 0 && channel->opened != nullptr) {
    // It never was open: its slot goes back as if somebody had closed it.
    const Opened opened = std::exchange(channel->opened, nullptr);
    channel->waiting.push_back([opened, failure](int) { opened(failure, {}); });
    channel->state = Channel::State::kClosing;
  } else if (channel->state == Channel::State::kOpen && lost == 0 && nvme.TakeReport()) {
    // It was there and does not come back while its controller is: that is as good as lost.
    NvmeThread::Get().Post([controller = channel->target->AsNvme()->controller()] { controller->OnQueuePairLost(); });
  }
  SubmitWaitingToNvme(channel);
  PutChannelIfUnused(channel);
}

void Queue::DropNvme(std::shared_ptr<NvmeController> controller, std::function<void()> dropped) {
  auto drop = std::make_shared<NvmeDrop>(std::move(controller), std::move(dropped));
  const bool posted = Post([this, keep = shared_from_this(), drop] {
    for (const auto& channel : channels_) {
      if (channel->nvme != nullptr && &channel->nvme->controller() == drop->controller.get()) channel->nvme->Drop();
    }
    nvme_drops_.push_back(std::move(*drop));
    nvme_unsettled_ = true;
    if (nvme_group_ == nullptr) StepNvme();
  });
  // A queue that has ended has no queue pairs.
  if (!posted) drop->dropped();
}

// True when the queue pair is gone, and with it what SPDK had of the channel.
bool Queue::ReleaseNvme(Channel* channel) {
  channel->nvme->Release();
  nvme_unsettled_ = true;
  if (!channel->nvme->gone()) return false;
  if (const Opened opened = std::exchange(channel->opened, nullptr)) {
    const int status = channel->target->removed() ? -ENODEV : -ECANCELED;
    channel->waiting.push_back([opened, status](int) { opened(status, {}); });
  }
  channel->nvme = nullptr;
  return true;
}

void Queue::ReleaseAllNvme() {
  for (const auto& channel : channels_) {
    if (channel->nvme != nullptr) channel->nvme->Release();
  }
  nvme_unsettled_ = true;
}

void Queue::CloseNvmeGroup() {
  if (nvme_group_ != nullptr) spdk_nvme_poll_group_destroy(std::exchange(nvme_group_, nullptr));
  for (const NvmeDrop& drop : std::exchange(nvme_drops_, {})) drop.dropped();
}

// One or two segments: the command and its data.
bool Queue::PreparePassthru(Request* request, const SubmissionEntry& entry) {
  if (request->segment_count == 0 || request->segment_count > 2) {
    return Refuse(request, -EINVAL, Detail::kTooManySegments), false;
  }
  const uint32_t claimed = TakeSegments(request);
  uint32_t slot_words[layout::sqe::words];
  ring_->CopySlot(entry.segments_at(), slot_words);
  for (uint32_t i = 0; i < claimed; i++) {
    char* address = nullptr;
    if (!PinSegment(request, slot_words + i * layout::segment::words, &address)) return false;
    if (i != 0 && (reinterpret_cast<uintptr_t>(address) & (request->channel->target->buffer_alignment() - 1)) != 0) {
      return Refuse(request, -EINVAL, Detail::kMisaligned), false;
    }
  }
  if (request->segments->iov[0].iov_len != sizeof(spdk_nvme_cmd)) return Refuse(request, -EINVAL, Detail::kLengthMismatch), false;
  return true;
}

void Queue::SubmitToNvme(Request* request) {
  Channel* channel = request->channel;
  if (channel->nvme_waiting_head == nullptr && channel->nvme->ready()) {
    const int rc = AskNvme(request);
    if (rc == 0) return;
    // All of SPDK's requests are in flight, and one of them will come back.
    if (rc != -ENOMEM || channel->asked == 0) return RefuseNvme(request, rc);
  } else if (const int lost = channel->nvme->lost(); lost != 0) {
    return RefuseNvme(request, lost);
  }
  request->Enter(Phase::kWaiting);
  request->next = nullptr;
  *channel->nvme_waiting_tail = request;
  channel->nvme_waiting_tail = &request->next;
}

void Queue::RefuseNvme(Request* request, int rc) {
  // A queue pair that has broken, and whose controller does not know it yet.
  const Detail detail = rc == -ENOTSUP ? Detail::kNotSupported : rc == -ENODEV ? Detail::kRemoved : Detail::kNone;
  Refuse(request, rc == -ENXIO ? -ENOTCONN : rc, detail);
}

void Queue::RefuseUnwantedByNvme(Channel* channel) {
  Request** link = &channel->nvme_waiting_head;
  Request* unwanted = nullptr;
  while (Request* request = *link) {
    if (!request->abort_wished) {
      link = &request->next;
      continue;
    }
    *link = request->next;
    request->next = std::exchange(unwanted, request);
  }
  channel->nvme_waiting_tail = link;
  while (Request* request = unwanted) {
    unwanted = std::exchange(request->next, nullptr);
    request->Enter(Phase::kTaken);
    Refuse(request, -ECANCELED, Detail::kNone);
  }
}

// In the order in which they came. A completion inside of a submission leaves the rest to whoever is at it.
void Queue::SubmitWaitingToNvme(Channel* channel) {
  if (channel->nvme_waiting_head == nullptr || std::exchange(channel->nvme_submitting, true)) return;
  while (Request* request = channel->nvme_waiting_head) {
    const bool unwanted = closing_ || request->abort_wished;
    const int lost = channel->nvme->lost();
    if (!unwanted && lost == 0 && !channel->nvme->ready()) break;
    int rc = unwanted ? -ECANCELED : lost;
    channel->nvme_waiting_head = std::exchange(request->next, nullptr);
    if (channel->nvme_waiting_head == nullptr) channel->nvme_waiting_tail = &channel->nvme_waiting_head;
    request->Enter(Phase::kTaken);
    if (rc == 0) rc = AskNvme(request);
    if (rc == 0) continue;
    if (rc == -ENOMEM && channel->asked != 0) {
      request->Enter(Phase::kWaiting);
      request->next = channel->nvme_waiting_head;
      if (request->next == nullptr) channel->nvme_waiting_tail = &request->next;
      channel->nvme_waiting_head = request;
      break;
    }
    if (closing_) {
      Refuse(request, rc, Detail::kClosing);
    } else {
      RefuseNvme(request, rc);
    }
  }
  channel->nvme_submitting = false;
}

// After 0 the request may be complete, and somebody else's.
int Queue::AskNvme(Request* request) {
  Channel* channel = request->channel;
  request->Enter(Phase::kSubmitted);
  channel->asked++;
  const int rc = CallNvme(request);
  if (rc == 0) return 0;
  request->Enter(Phase::kTaken);
  channel->asked--;
  // SPDK has heard that it is gone before this queue has, and cuts requests into pieces of no length.
  if (rc == -EINVAL && spdk_nvme_ns_get_extended_sector_size(channel->nvme->ns()) == 0) return -ENODEV;
  return rc;
}

int Queue::CallNvme(Request* request) {
  const NvmeQpair& nvme = *request->channel->nvme;
  spdk_nvme_ns* ns = nvme.ns();
  spdk_nvme_qpair* qpair = nvme.qpair();
  const uint64_t offset = request->offset_blocks;
  const auto blocks = static_cast<uint32_t>(request->length_blocks);
  const bool vectored = request->segment_count != 0;
  request->part_blocks = 0;
  switch (request->opcode) {
    case Opcode::kRead:
      if (vectored) return spdk_nvme_ns_cmd_readv(ns, qpair, offset, blocks, OnNvme, request, 0, RewindSegments, NextSegment);
      return spdk_nvme_ns_cmd_read(ns, qpair, request->buffer, offset, blocks, OnNvme, request, 0);
    case Opcode::kWrite:
      if (vectored) return spdk_nvme_ns_cmd_writev(ns, qpair, offset, blocks, OnNvme, request, 0, RewindSegments, NextSegment);
      return spdk_nvme_ns_cmd_write(ns, qpair, request->buffer, offset, blocks, OnNvme, request, 0);
    case Opcode::kFlush:
      return spdk_nvme_ns_cmd_flush(ns, qpair, OnNvme, request);
    case Opcode::kUnmap:
      return Deallocate(request);
    case Opcode::kWriteZeroes: {
      request->part_blocks = std::min(request->length_blocks, nvme.target().most_zeroes_blocks());
      return spdk_nvme_ns_cmd_write_zeroes(ns, qpair, offset, static_cast<uint32_t>(request->part_blocks), OnNvme, request, 0);
    }
    case Opcode::kNvmeIo:
      return PassThrough(request);
    case Opcode::kReset:
    case Opcode::kNop:
    case Opcode::kAbort:
    case Opcode::kTimer:
      break;
  }
  return -EINVAL;
}

int Queue::Deallocate(Request* request) {
  const NvmeQpair& nvme = *request->channel->nvme;
  spdk_nvme_dsm_range ranges[kMostRangesOnStack];
  const uint32_t most = std::min(nvme.target().most_ranges(), kMostRangesOnStack);
  uint16_t count = 0;
  request->part_blocks = 0;
  while (count < most && request->part_blocks < request->length_blocks) {
    spdk_nvme_dsm_range& range = ranges[count++];
    range = {};
    range.starting_lba = request->offset_blocks + request->part_blocks;
    range.length = static_cast<uint32_t>(
        std::min<uint64_t>(request->length_blocks - request->part_blocks, nvme.target().most_range_blocks()));
    request->part_blocks += range.length;
  }
  return spdk_nvme_ns_cmd_dataset_management(nvme.ns(), nvme.qpair(), SPDK_NVME_DSM_ATTR_DEALLOCATE, ranges, count, OnNvme,
                                             request);
}

int Queue::PassThrough(Request* request) {
  spdk_nvme_cmd command;
  // JavaScript may write to it while it is read: what is checked is what is sent.
  std::memcpy(&command, request->segments->iov[0].iov_base, sizeof command);
  const NvmeQpair& nvme = *request->channel->nvme;
  const bool has_data = request->segment_count == 2;
  const auto length = has_data ? static_cast<uint32_t>(request->segments->iov[1].iov_len) : 0;
  const int rc = CheckIoCommand(&command, length, nvme.target().nsid(), nvme.target().block_size());
  if (rc != 0) return rc;
  void* data = has_data ? request->segments->iov[1].iov_base : nullptr;
  return spdk_nvme_ctrlr_cmd_io_raw(nvme.controller().ctrlr(), nvme.qpair(), &command, data, length, OnNvme, request);
}

void Queue::RewindSegments(void* context, uint32_t offset) {
  auto* request = static_cast<Request*>(context);
  request->segment_index = 0;
  while (request->segment_index < request->segment_count &&
         offset >= request->segments->iov[request->segment_index].iov_len) {
    offset -= static_cast<uint32_t>(request->segments->iov[request->segment_index++].iov_len);
  }
  request->segment_offset = offset;
}

int Queue::NextSegment(void* context, void** address, uint32_t* length) {
  auto* request = static_cast<Request*>(context);
  if (request->segment_index >= request->segment_count) return -EINVAL;
  const iovec& segment = request->segments->iov[request->segment_index++];
  const uint32_t offset = std::exchange(request->segment_offset, 0);
  *address = static_cast<char*>(segment.iov_base) + offset;
  *length = static_cast<uint32_t>(segment.iov_len) - offset;
  return 0;
}

void Queue::OnNvme(void* context, const spdk_nvme_cpl* completion) {
  auto* request = static_cast<Request*>(context);
  Queue* queue = request->queue;
  Channel* channel = request->channel;
  queue->AssertThread();
  EFFECT_SPDK_ASSERT(request->submitted() && channel->asked != 0);
  channel->asked--;
  const bool failed = spdk_nvme_cpl_is_error(completion);
  if (DataOf(request->opcode) == Data::kCommand) {
    std::memcpy(request->segments->iov[0].iov_base, completion, sizeof *completion);
  } else if (failed) {
    const bool aborted =
        completion->status.sct == SPDK_NVME_SCT_GENERIC && completion->status.sc == SPDK_NVME_SC_ABORTED_BY_REQUEST;
    request->completion.status = aborted ? -ECANCELED : -EIO;
    request->completion.nvme = NvmeWordOf(*completion);
  } else if (queue->ContinueInParts(request)) {
    return;
  }
  queue->Complete(request);
  if (channel->nvme != nullptr) queue->SubmitWaitingToNvme(channel);
}

// True when there is more of a request that one command cannot do.
bool Queue::ContinueInParts(Request* request) {
  if (request->part_blocks == 0) return false;
  request->offset_blocks += request->part_blocks;
  request->length_blocks -= request->part_blocks;
  if (request->length_blocks == 0) return false;
  request->Enter(Phase::kTaken);
  if (closing_ || request->abort_wished) {
    Refuse(request, -ECANCELED, closing_ ? Detail::kClosing : Detail::kNone);
  } else {
    SubmitToNvme(request);
  }
  return true;
}

// The answer comes on the NVMe thread. -EAGAIN when the controller is busy, and the next turn is as good.
int Queue::AbortNvme(Request* target) {
  struct Answer {
    std::shared_ptr<Queue> queue;
    AbortAsk* ask;
  };
  Channel* channel = target->channel;
  if (!channel->nvme->ready()) return -EAGAIN;
  const std::unique_lock<std::mutex> guard(channel->nvme->controller().guard(), std::try_to_lock);
  if (!guard.owns_lock()) return -EAGAIN;
  auto answer = std::make_unique<Answer>(shared_from_this(), &target->ask);
  const int rc = spdk_nvme_ctrlr_cmd_abort_ext(
      channel->nvme->controller().ctrlr(), channel->nvme->qpair(), target,
      [](void* context, const spdk_nvme_cpl*) {
        const std::unique_ptr<Answer> answered(static_cast<Answer*>(context));
        Queue* queue = answered->queue.get();
        queue->Post([keep = std::move(answered->queue), ask = answered->ask] {
          Channel* held = std::exchange(ask->channel, nullptr);
          held->queue->LetGo(held);
        });
      },
      answer.get());
  if (rc == 0) (void)answer.release();
  return rc;
}

}  // namespace effect_spdk
