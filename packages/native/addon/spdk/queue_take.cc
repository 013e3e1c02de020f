// How a queue takes entries out of the ring, checks them, and hands them to the file that knows their device.
#include <algorithm>
#include <cerrno>
#include <utility>

#include "../core/operations.h"
#include "io_types.h"
#include "nvme_qpair.h"
#include "queue.h"

namespace effect_spdk {

namespace {

// Requests one poll takes out of the ring, so that the thread's other pollers get their turn.
constexpr uint32_t kEntriesPerPoll = 256;
// Entries written by another core take a while to arrive: they are asked for so many slots ahead. Two share a line.
constexpr uint32_t kPrefetchAhead = 8;

}  // namespace

uint32_t Queue::ConsumeRing() {
  uint32_t available = ring_->Available();
  uint32_t taken = 0;
  for (uint32_t ahead = 0; ahead < std::min(available, kPrefetchAhead); ahead += 2) ring_->PrefetchSlot(ahead);
  while (available != 0 && taken < kEntriesPerPoll) {
    if (available > kPrefetchAhead) ring_->PrefetchSlot(kPrefetchAhead);
    const uint32_t slots = TakeEntry(available);
    if (slots == 0) break;
    available -= slots;
    taken += slots;
  }
  if (taken != 0) ring_->ReturnSlots();
  return taken;
}

uint32_t Queue::TakeEntry(uint32_t available) {
  Request* request = free_requests_;
  if (request == nullptr) return 0;
  SubmissionEntry entry;
  ring_->CopyEntry(available, &entry);
  // An entry that claims more slots than were published is a lie: take what there is, and refuse it.
  const bool truncated = entry.slots() > available;

  free_requests_ = std::exchange(request->next, nullptr);
  EFFECT_SPDK_ASSERT(request->channel == nullptr && request->segments == nullptr && !request->has_slab);
  EFFECT_SPDK_ASSERT(request->timer == nullptr);
  request->Enter(Phase::kTaken);
  request->completion = CompletionEntry{};
  request->completion.id = entry.id();
  request->completion.id_generation = entry.id_generation();
  request->opcode = entry.opcode();
  request->segment_count = entry.segment_count();
  request->abort_wished = false;
  Named(request->completion.id) = request;
  in_flight_.Add(1);

  if (closing_) {
    Refuse(request, -ECANCELED, Detail::kClosing);
  } else if (truncated || entry.segment_count() > layout::segment::max) {
    Refuse(request, -EINVAL, Detail::kTooManySegments);
  } else {
    Dispatch(request, entry);
  }
  // Only now: the slots of the segments are read until here.
  const uint32_t slots = std::min(entry.slots(), available);
  ring_->Consume(slots);
  return slots;
}

void Queue::Dispatch(Request* request, const SubmissionEntry& entry) {
  switch (request->opcode) {
    case Opcode::kNop:
      return Complete(request);
    case Opcode::kAbort:
      return Abort(request, entry);
    case Opcode::kTimer: {
      // SPDK reads period 0 as a busy poller; a timer due at once is one turn of the reactor away.
      request->timer = spdk_poller_register_named(OnTimer, request, std::min(entry.offset_blocks(), kLongestTimerMicros),
                                                  "effect_spdk_timer");
      if (request->timer == nullptr) return Refuse(request, -ENOMEM, Detail::kNone);
      return request->Enter(Phase::kTiming);
    }
    case Opcode::kRead:
    case Opcode::kWrite:
    case Opcode::kFlush:
    case Opcode::kUnmap:
    case Opcode::kWriteZeroes:
    case Opcode::kReset:
    case Opcode::kNvmeIo:
      if (Prepare(request, entry)) Submit(request);
      return;
  }
  Refuse(request, -EINVAL, Detail::kUnknownOpcode);
}

Queue::Channel* Queue::FindChannel(uint32_t slot, uint32_t generation) {
  if (slot >= channels_.size()) return nullptr;
  Channel* channel = channels_[slot].get();
  return channel->generation == generation && channel->state != Channel::State::kFree ? channel : nullptr;
}

// Checks everything about an entry that SPDK would assert on, crash on or report without a reason.
bool Queue::Prepare(Request* request, const SubmissionEntry& entry) {
  Channel* channel = FindChannel(entry.channel_slot(), entry.channel_generation());
  if (channel == nullptr) return Refuse(request, -EBADF, Detail::kStaleChannel), false;
  const Target& target = *channel->target;
  if (target.removed()) return Refuse(request, -ENODEV, Detail::kRemoved), false;
  if (channel->state != Channel::State::kOpen) return Refuse(request, -EBADF, Detail::kStaleChannel), false;
  if (Writes(request->opcode) && !target.write()) {
    if (target.stopped()) return Refuse(request, -EIO, Detail::kStopped), false;
    return Refuse(request, -EBADF, Detail::kReadOnly), false;
  }
  // Of bdevs as well, by SPDK's word: but nothing here hands a command to one.
  const bool passes = DataOf(request->opcode) != Data::kCommand || channel->nvme != nullptr;
  if (!passes || !target.Supports(IoTypeOf(request->opcode))) return Refuse(request, -ENOTSUP, Detail::kNotSupported), false;
  request->offset_blocks = entry.offset_blocks();
  request->length_blocks = entry.length_blocks();
  if (HasRange(request->opcode)) {
    const uint64_t num_blocks = target.num_blocks();
    if (request->length_blocks == 0 || request->offset_blocks > num_blocks ||
        request->length_blocks > num_blocks - request->offset_blocks) {
      return Refuse(request, -EINVAL, Detail::kBlockRange), false;
    }
  }
  request->channel = channel;
  Hold(channel);
  switch (DataOf(request->opcode)) {
    case Data::kNone:
      if (request->segment_count != 0) return Refuse(request, -EINVAL, Detail::kTooManySegments), false;
      return true;
    case Data::kIn:
    case Data::kOut:
      // No list of slabs is as long as that, and what follows must not overflow.
      if (request->length_blocks > UINT32_MAX) return Refuse(request, -EINVAL, Detail::kLengthMismatch), false;
      return PrepareMemory(request, entry, request->length_blocks * target.block_size());
    case Data::kCommand:
      return PreparePassthru(request, entry);
  }
  return false;
}

bool Queue::PrepareMemory(Request* request, const SubmissionEntry& entry, uint64_t length_bytes) {
  const uintptr_t misaligned = request->channel->target->buffer_alignment() - 1;
  if (request->segment_count == 0) {
    // No slab is as long as that.
    if (length_bytes > UINT32_MAX) return Refuse(request, -EINVAL, Detail::kLengthMismatch), false;
    char* address = nullptr;
    const auto pinned = pins_.Pin(entry.slab_slot(), entry.slab_generation(), entry.slab_offset(),
                                  static_cast<uint32_t>(length_bytes), &address);
    if (pinned == SlabTable::PinResult::kStale) return Refuse(request, -EBADF, Detail::kStaleSlab), false;
    request->slab_slot = entry.slab_slot();
    request->has_slab = true;
    if (pinned == SlabTable::PinResult::kOutOfRange) return Refuse(request, -EFAULT, Detail::kSlabRange), false;
    if ((reinterpret_cast<uintptr_t>(address) & misaligned) != 0) return Refuse(request, -EINVAL, Detail::kMisaligned), false;
    request->buffer = address;
    return true;
  }

  const uint32_t claimed = TakeSegments(request);
  uint64_t total = 0;
  uint32_t slot_words[layout::sqe::words];
  for (uint32_t i = 0; i < claimed; i++) {
    if (i % layout::segment::per_slot == 0) ring_->CopySlot(entry.segments_at() + i / layout::segment::per_slot, slot_words);
    const uint32_t* segment = slot_words + i % layout::segment::per_slot * layout::segment::words;
    char* address = nullptr;
    if (!PinSegment(request, segment, &address)) return false;
    if ((reinterpret_cast<uintptr_t>(address) & misaligned) != 0) return Refuse(request, -EINVAL, Detail::kMisaligned), false;
    total += segment[layout::segment::length_bytes_word];
  }
  if (total != length_bytes) return Refuse(request, -EINVAL, Detail::kLengthMismatch), false;
  return true;
}

uint32_t Queue::TakeSegments(Request* request) {
  if (free_segments_ == nullptr) {
    EFFECT_SPDK_ASSERT(segments_used_ < request_count_);
    request->segments = &segments_[segments_used_++];
  } else {
    request->segments = std::exchange(free_segments_, free_segments_->next);
  }
  return std::exchange(request->segment_count, 0);
}

bool Queue::PinSegment(Request* request, const uint32_t* segment, char** address) {
  const uint32_t slot = segment[layout::segment::slab_slot_word];
  const uint32_t length = segment[layout::segment::length_bytes_word];
  const auto pinned = pins_.Pin(slot, segment[layout::segment::slab_generation_word],
                                  segment[layout::segment::slab_offset_word], length, address);
  if (pinned == SlabTable::PinResult::kStale) return Refuse(request, -EBADF, Detail::kStaleSlab), false;
  request->segments->slab_slots[request->segment_count] = slot;
  request->segments->iov[request->segment_count] = {*address, length};
  request->segment_count++;
  if (pinned == SlabTable::PinResult::kOutOfRange) return Refuse(request, -EFAULT, Detail::kSlabRange), false;
  if (length == 0) return Refuse(request, -EINVAL, Detail::kLengthMismatch), false;
  return true;
}

void Queue::Submit(Request* request) {
  if (request->channel->blob != nullptr) return SubmitToBlob(request);
  if (request->channel->nvme != nullptr) return SubmitToNvme(request);
  SubmitToBdev(request);
}

}  // namespace effect_spdk
