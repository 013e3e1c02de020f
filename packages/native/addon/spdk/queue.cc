#include "queue.h"

#include <sched.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <utility>

#include "nvme_qpair.h"
#include "runtime.h"

namespace effect_spdk {

namespace {

// Requests one poll takes out of the ring, so that the thread's other pollers get their turn.
constexpr uint32_t kEntriesPerPoll = 256;
// Entries written by another core take a while to arrive: ask for the ones after the next.
constexpr uint32_t kPrefetchAhead = 3;
// With fewer requests in flight than this a completion is published by itself, otherwise with those of its turn.
constexpr uint32_t kPublishAtOnceBelow = 4;
// How long completions may wait for others before a JavaScript thread that sleeps is woken.
constexpr uint64_t kWakeDelayMicros = 12;

uint64_t Join(uint32_t low, uint32_t high) { return uint64_t{high} << 32 | low; }

spdk_bdev_io_type IoTypeOf(Opcode opcode) {
  switch (opcode) {
    case Opcode::kRead:
      return SPDK_BDEV_IO_TYPE_READ;
    case Opcode::kWrite:
      return SPDK_BDEV_IO_TYPE_WRITE;
    case Opcode::kFlush:
      return SPDK_BDEV_IO_TYPE_FLUSH;
    case Opcode::kUnmap:
      return SPDK_BDEV_IO_TYPE_UNMAP;
    case Opcode::kWriteZeroes:
      return SPDK_BDEV_IO_TYPE_WRITE_ZEROES;
    case Opcode::kReset:
      return SPDK_BDEV_IO_TYPE_RESET;
    case Opcode::kNvmeIo:
      return SPDK_BDEV_IO_TYPE_NVME_IO;
    default:
      return SPDK_BDEV_IO_TYPE_INVALID;
  }
}

// Opcodes that change the device.
bool Writes(Opcode opcode) {
  return opcode == Opcode::kWrite || opcode == Opcode::kUnmap || opcode == Opcode::kWriteZeroes;
}

Detail RefusalOf(int rc) { return rc == -ENOTSUP ? Detail::kNotSupported : Detail::kNone; }

bool HasRange(Opcode opcode) { return opcode != Opcode::kReset && opcode != Opcode::kNvmeIo; }

}  // namespace

void FreeSlabMemory(SlabTable& slabs, uint32_t slot, void* memory) {
  Runtime::Get().dma_bytes.fetch_sub(slabs.length_bytes(slot));
  Runtime::Get().slab_count.fetch_sub(1);
  spdk_dma_free(memory);
  slabs.Recycle(slot);
}

RingMemory::RingMemory(size_t size) : size_bytes(size) {
  // Whole pages of its own, so that nothing else shares its cache lines.
  void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory != MAP_FAILED) words = static_cast<uint32_t*>(memory);
}

RingMemory::~RingMemory() {
  if (words != nullptr) munmap(words, size_bytes);
}

Queue::Queue(const Options& options, std::shared_ptr<Mailbox> mailbox, std::shared_ptr<SlabTable> slabs)
    : name_(options.name),
      mailbox_(std::move(mailbox)),
      slabs_(std::move(slabs)),
      pins_(slabs_),
      memory_(std::make_shared<RingMemory>(Ring::BytesFor(options.sq_entries, options.cq_entries))) {
  if (memory_->words == nullptr) return;
  ring_ = std::make_unique<Ring>(memory_->words, options.sq_entries, options.cq_entries);
  request_count_ = options.cq_entries;
  requests_ = std::make_unique<Request[]>(request_count_);
  by_id_.resize(request_count_);
  for (uint32_t i = request_count_; i > 0; i--) {
    Request& request = requests_[i - 1];
    request.queue = this;
    request.next = std::exchange(free_requests_, &request);
  }
  segments_ = std::make_unique_for_overwrite<Segments[]>(request_count_);
}

Queue::~Queue() = default;

void Queue::Spawn(const Options& options, std::shared_ptr<Mailbox> mailbox, std::shared_ptr<SlabTable> slabs,
                  std::function<void(int, std::shared_ptr<Queue>)> ready) {
  spdk_cpuset mask;
  spdk_cpuset_zero(&mask);
  if (!options.cpu_mask.empty() && spdk_cpuset_parse(&mask, options.cpu_mask.c_str()) != 0) {
    return ready(-EINVAL, nullptr);
  }
  std::shared_ptr<Queue> queue(new Queue(options, std::move(mailbox), std::move(slabs)));
  if (queue->memory_->words == nullptr) return ready(-ENOMEM, nullptr);
  queue->thread_ = spdk_thread_create(options.name.c_str(), options.cpu_mask.empty() ? nullptr : &mask);
  if (queue->thread_ == nullptr) return ready(-ENOMEM, nullptr);
  queue->thread_id_ = spdk_thread_get_id(queue->thread_);
  Runtime::Get().Remember(queue);
  Runtime::Get().thread_count.fetch_add(1);
  struct Startup {
    std::shared_ptr<Queue> queue;
    std::function<void(int, std::shared_ptr<Queue>)> ready;
  };
  // The only message of SPDK's own pool: one per thread that is made.
  const int rc = spdk_thread_send_msg(
      queue->thread_,
      [](void* context) {
        const std::unique_ptr<Startup> startup(static_cast<Startup*>(context));
        startup->queue->Start();
        startup->ready(0, startup->queue);
      },
      new Startup{queue, std::move(ready)});
  if (rc != 0) std::abort();  // only for a thread that exits, which this one does not
}

void Queue::Start() {
  poller_ = spdk_poller_register_named(PollThunk, this, 0, "effect_spdk_queue");
  wake_delay_ticks_ = kWakeDelayMicros * spdk_get_ticks_hz() / 1000000;
  EnterCore(spdk_env_get_current_core());
}

void Queue::EnterCore(uint32_t core) {
  core_.store(core, std::memory_order_relaxed);
  processor_.store(sched_getcpu(), std::memory_order_relaxed);
  Runtime::Get().EnterCore(core, this);
}

bool Queue::Post(Inbox::Task task) {
  if (!inbox_.Post(std::move(task))) return false;
  Kick();
  return true;
}

void Queue::Kick() { Runtime::Get().KickThread(this); }

int Queue::PollThunk(void* context) { return static_cast<Queue*>(context)->Poll(); }

int Queue::Poll() {
  const uint32_t core = spdk_env_get_current_core();
  if (core != this->core()) {
    Runtime::Get().LeaveCore(this->core(), this);
    EnterCore(core);
  }
  size_t work = 0;
  if (closing_ || inbox_.pending()) {
    // A task may end this queue and let go of it.
    const std::shared_ptr<Queue> keep = shared_from_this();
    work = inbox_.Run();
    if (closing_) ContinueClosing();
    if (closed_) return SPDK_POLLER_BUSY;
  }
  if (backlog_head_ != nullptr && FlushBacklog()) work++;
  work += ConsumeRing();
  if (nvme_group_ != nullptr) work += PollNvme();
  if (!abort_wishes_.empty()) AskForAborts();
  for (const auto& poller : pollers_) {
    if (poller->undelivered != 0) DeliverTick(poller.get());
  }
  if (ring_->unpublished()) {
    work++;
    Publish();
  }
  WakeIfDue();
  if (work == 0) {
    TellIdle();
    return SPDK_POLLER_IDLE;
  }
  activity_.Add(work);
  return SPDK_POLLER_BUSY;
}

void Queue::TellIdle() {
  spdk_thread_stats stats = {};
  if (spdk_thread_get_stats(&stats) == 0) busy_ticks_.Set(stats.busy_tsc);
  next_timer_ticks_.Set(spdk_thread_next_poller_expiration(thread_));
}

void Queue::Publish() {
  const bool sleeps = ring_->Publish();
  if (!sleeps || wake_due_ticks_ != 0) return;
  wake_due_ticks_ = spdk_get_ticks() + wake_delay_ticks_;
  WakeIfDue();
}

// Waking a thread costs as much as many completions do: while more of them are on their way it waits a little.
void Queue::WakeIfDue() {
  if (wake_due_ticks_ == 0) return;
  if (ring_->JavaScriptSleeps()) {
    const uint32_t coming = device_in_flight();
    if (coming >= kPublishAtOnceBelow && ring_->Unread() < coming && spdk_get_ticks() < wake_due_ticks_) return;
    if (ring_->TakeWake()) mailbox_->Wake();
  }
  wake_due_ticks_ = 0;
}

uint32_t Queue::ConsumeRing() {
  uint32_t available = ring_->Available();
  uint32_t taken = 0;
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
  uint32_t words[layout::sqe::words];
  ring_->CopySlot(0, words);
  const uint32_t segment_count = words[layout::sqe::opcode_word] >> 8 & 0xffff;
  const uint32_t segment_slots = (segment_count + layout::segment::per_slot - 1) / layout::segment::per_slot;
  // An entry that claims more slots than were published is a lie: take what there is, and refuse it.
  const bool truncated = segment_slots >= available;
  const bool too_many = segment_count > layout::segment::max;

  free_requests_ = std::exchange(request->next, nullptr);
  request->completion = CompletionEntry{};
  request->completion.id = words[layout::sqe::id_word];
  request->completion.id_generation = words[layout::sqe::id_generation_word];
  request->opcode = static_cast<Opcode>(words[layout::sqe::opcode_word] & 0xff);
  request->segment_count = segment_count;
  request->segments = nullptr;
  request->channel = nullptr;
  request->has_slab = false;
  request->submitted = false;
  request->abort_wished = false;
  request->busy = true;
  Named(request->completion.id) = request;
  in_flight_.Add(1);

  const uint32_t slots = truncated ? (segment_count == 0 ? 1 : available) : 1 + segment_slots;
  if (closing_) {
    Refuse(request, -ECANCELED, Detail::kClosing);
  } else if (segment_count != 0 && (truncated || too_many)) {
    Refuse(request, -EINVAL, Detail::kTooManySegments);
  } else {
    Dispatch(request, words);
  }
  // Only now: the slots of the segments are read until here.
  ring_->Consume(slots);
  return slots;
}

void Queue::Dispatch(Request* request, const uint32_t* words) {
  switch (request->opcode) {
    case Opcode::kNop:
      return Complete(request);
    case Opcode::kAbort:
      return Abort(request, words);
    case Opcode::kTimer: {
      const uint64_t micros =
          Join(words[layout::sqe::offset_blocks_low_word], words[layout::sqe::offset_blocks_high_word]);
      // SPDK reads period 0 as a busy poller; a timer due at once is one turn of the reactor away.
      request->timer =
          spdk_poller_register_named(OnTimer, request, std::min(micros, kLongestTimerMicros), "effect_spdk_timer");
      if (request->timer == nullptr) Refuse(request, -ENOMEM, Detail::kNone);
      return;
    }
    case Opcode::kRead:
    case Opcode::kWrite:
    case Opcode::kFlush:
    case Opcode::kUnmap:
    case Opcode::kWriteZeroes:
    case Opcode::kReset:
    case Opcode::kNvmeIo:
      if (Prepare(request, words)) Submit(request);
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
bool Queue::Prepare(Request* request, const uint32_t* words) {
  Channel* channel = FindChannel(words[layout::sqe::channel_slot_word], words[layout::sqe::channel_generation_word]);
  if (channel == nullptr) return Refuse(request, -EBADF, Detail::kStaleChannel), false;
  const Target& target = *channel->target;
  if (target.removed()) return Refuse(request, -ENODEV, Detail::kRemoved), false;
  if (channel->state != Channel::State::kOpen) return Refuse(request, -EBADF, Detail::kStaleChannel), false;
  if (Writes(request->opcode) && !target.write()) return Refuse(request, -EBADF, Detail::kReadOnly), false;
  // Of bdevs as well, by SPDK's word: but nothing here hands a command to one.
  const bool passes = request->opcode != Opcode::kNvmeIo || channel->nvme != nullptr;
  if (!passes || !target.Supports(IoTypeOf(request->opcode))) return Refuse(request, -ENOTSUP, Detail::kNotSupported), false;
  request->offset_blocks = Join(words[layout::sqe::offset_blocks_low_word], words[layout::sqe::offset_blocks_high_word]);
  request->length_blocks = Join(words[layout::sqe::length_blocks_low_word], words[layout::sqe::length_blocks_high_word]);
  if (HasRange(request->opcode)) {
    const uint64_t num_blocks = target.num_blocks();
    if (request->length_blocks == 0 || request->offset_blocks > num_blocks ||
        request->length_blocks > num_blocks - request->offset_blocks) {
      return Refuse(request, -EINVAL, Detail::kBlockRange), false;
    }
  }
  request->channel = channel;
  Hold(channel);
  if (request->opcode == Opcode::kRead || request->opcode == Opcode::kWrite) {
    // No list of slabs is as long as that, and what follows must not overflow.
    if (request->length_blocks > UINT32_MAX) return Refuse(request, -EINVAL, Detail::kLengthMismatch), false;
    return PrepareMemory(request, words, request->length_blocks * target.block_size());
  }
  if (request->opcode == Opcode::kNvmeIo) return PreparePassthru(request);
  if (request->segment_count != 0) return Refuse(request, -EINVAL, Detail::kTooManySegments), false;
  return true;
}

bool Queue::PrepareMemory(Request* request, const uint32_t* words, uint64_t length_bytes) {
  const uintptr_t misaligned = request->channel->target->buffer_alignment() - 1;
  if (request->segment_count == 0) {
    if (words[layout::sqe::length_bytes_word] != length_bytes) {
      return Refuse(request, -EINVAL, Detail::kLengthMismatch), false;
    }
    char* address = nullptr;
    const auto pinned = pins_.Pin(words[layout::sqe::slab_slot_word], words[layout::sqe::slab_generation_word],
                                    words[layout::sqe::slab_offset_word], words[layout::sqe::length_bytes_word], &address);
    if (pinned == SlabTable::PinResult::kStale) return Refuse(request, -EBADF, Detail::kStaleSlab), false;
    request->slab_slot = words[layout::sqe::slab_slot_word];
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
    if (i % layout::segment::per_slot == 0) ring_->CopySlot(1 + i / layout::segment::per_slot, slot_words);
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
  if (waiting_head_ == nullptr) {
    request->submitted = true;
    const int rc = Ask(request);
    if (rc == 0) return;
    request->submitted = false;
    if (rc != -ENOMEM) return Refuse(request, rc, RefusalOf(rc));
  }
  const bool first = waiting_head_ == nullptr;
  request->next = nullptr;
  *waiting_tail_ = request;
  waiting_tail_ = &request->next;
  if (first) SubmitWaiting();
}

// Submits what waits for a bdev_io, until there is none left. SPDK completes nothing inside of a submission.
void Queue::SubmitWaiting() {
  while (waiting_head_ != nullptr) {
    Request* request = waiting_head_;
    const bool wanted = !closing_ && !request->abort_wished;
    request->submitted = wanted;
    int rc = wanted ? Ask(request) : -ECANCELED;
    if (rc == -ENOMEM) {
      request->submitted = false;
      rc = WaitForBdevIo(*request);
      if (rc == 0) return;
      // A bdev_io is there after all: the next try finds it.
      if (rc == -EINVAL) continue;
    }
    waiting_head_ = std::exchange(request->next, nullptr);
    if (waiting_head_ == nullptr) waiting_tail_ = &waiting_head_;
    if (rc == 0) continue;
    request->submitted = false;
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
  queue->SubmitWaiting();
}

int Queue::Ask(Request* request) {
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
      return spdk_bdev_flush_blocks(desc, io_channel, offset, blocks, OnIo, request);
    case Opcode::kUnmap:
      return spdk_bdev_unmap_blocks(desc, io_channel, offset, blocks, OnIo, request);
    case Opcode::kWriteZeroes:
      return spdk_bdev_write_zeroes_blocks(desc, io_channel, offset, blocks, OnIo, request);
    case Opcode::kReset:
      return spdk_bdev_reset(desc, io_channel, OnIo, request);
    default:
      return -EINVAL;
  }
}

void Queue::OnIo(spdk_bdev_io* io, bool success, void* context) {
  auto* request = static_cast<Request*>(context);
  if (!success) {
    uint32_t cdw0 = 0;
    int sct = 0;
    int sc = 0;
    int aio_result = 0;
    spdk_bdev_io_get_nvme_status(io, &cdw0, &sct, &sc);
    spdk_bdev_io_get_aio_status(io, &aio_result);
    request->completion.status = -EIO;
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
  spdk_poller_unregister(&request->timer);
  request->queue->activity_.Add(1);
  request->queue->Complete(request);
  return SPDK_POLLER_BUSY;
}

Queue::Request* Queue::FindRequest(uint32_t id, uint32_t generation) {
  Request* request = Named(id);
  const bool found = request != nullptr && request->busy && request->completion.id == id &&
                     request->completion.id_generation == generation;
  return found ? request : nullptr;
}

void Queue::CancelTimer(Request* request) {
  spdk_poller_unregister(&request->timer);
  Refuse(request, -ECANCELED, Detail::kNone);
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
  ReleaseMemory(request);
  Channel* channel = std::exchange(request->channel, nullptr);
  request->busy = false;
  Request*& named = Named(request->completion.id);
  if (named == request) named = nullptr;
  if (ring_->HasRoom() && backlog_head_ == nullptr) {
    ring_->Push(request->completion);
    request->next = std::exchange(free_requests_, request);
    in_flight_.Subtract(1);
    // With little else on its way there is nothing to batch with, and somebody waits for exactly this one.
    if (in_flight() < kPublishAtOnceBelow) Publish();
  } else {
    request->next = nullptr;
    *backlog_tail_ = request;
    backlog_tail_ = &request->next;
  }
  if (channel != nullptr) LetGo(channel);
}

bool Queue::FlushBacklog() {
  bool moved = false;
  while (backlog_head_ != nullptr && (ring_->HasRoom() || closing_)) {
    Request* request = backlog_head_;
    backlog_head_ = request->next;
    if (backlog_head_ == nullptr) backlog_tail_ = &backlog_head_;
    // A closing queue whose reader is gone must not wait for it.
    if (ring_->HasRoom()) ring_->Push(request->completion);
    request->next = std::exchange(free_requests_, request);
    in_flight_.Subtract(1);
    moved = true;
  }
  return moved;
}

void Queue::Hold(Channel* channel) {
  channel->in_flight++;
  held_.Add(1);
}

void Queue::LetGo(Channel* channel) {
  channel->in_flight--;
  let_go_.Add(1);
  PutChannelIfUnused(channel);
}

}  // namespace effect_spdk
