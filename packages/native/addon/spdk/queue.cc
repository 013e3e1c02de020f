#include "queue.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <utility>

#include "runtime.h"

namespace effect_spdk {

namespace {

// Requests one poll takes out of the ring, so that the thread's other pollers get their turn.
constexpr uint32_t kEntriesPerPoll = 256;
// Entries written by another core take a while to arrive: ask for the ones after the next.
constexpr uint32_t kPrefetchAhead = 3;
// With fewer requests in flight than this a completion is published by itself, otherwise with those of its turn.
constexpr uint32_t kPublishAtOnceBelow = 4;
// Thirty years: SPDK multiplies by the ticks of a microsecond and adds the time, in 64 bits.
constexpr uint64_t kLongestTimerMicros = 946080000000000;
// Between two times that a device is asked to abort the same request; doubled each time.
constexpr uint64_t kFirstAbortPauseMicros = 1000;
constexpr uint64_t kLongestAbortPauseMicros = 1000000;

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
    default:
      return SPDK_BDEV_IO_TYPE_INVALID;
  }
}

// Opcodes that change the device.
bool Writes(Opcode opcode) {
  return opcode == Opcode::kWrite || opcode == Opcode::kUnmap || opcode == Opcode::kWriteZeroes;
}

bool HasRange(Opcode opcode) { return opcode != Opcode::kReset; }

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
  core_.store(spdk_env_get_current_core(), std::memory_order_relaxed);
  Runtime::Get().EnterCore(core(), this);
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
    core_.store(core, std::memory_order_relaxed);
    Runtime::Get().EnterCore(core, this);
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
  if (!abort_wishes_.empty()) AskForAborts();
  for (const auto& poller : pollers_) {
    if (poller->undelivered != 0) DeliverTick(poller.get());
  }
  if (ring_->unpublished()) {
    work++;
    Publish();
  }
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
  if (ring_->Publish()) mailbox_->Wake();
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
  Descriptor& descriptor = *channel->descriptor;
  if (descriptor.removed()) return Refuse(request, -ENODEV, Detail::kRemoved), false;
  if (channel->state != Channel::State::kOpen) return Refuse(request, -EBADF, Detail::kStaleChannel), false;
  if (Writes(request->opcode) && !descriptor.write()) return Refuse(request, -EBADF, Detail::kReadOnly), false;
  if (!descriptor.Supports(IoTypeOf(request->opcode))) return Refuse(request, -ENOTSUP, Detail::kNotSupported), false;
  request->offset_blocks = Join(words[layout::sqe::offset_blocks_low_word], words[layout::sqe::offset_blocks_high_word]);
  request->length_blocks = Join(words[layout::sqe::length_blocks_low_word], words[layout::sqe::length_blocks_high_word]);
  if (HasRange(request->opcode)) {
    const uint64_t num_blocks = descriptor.num_blocks();
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
    return PrepareMemory(request, words, request->length_blocks * descriptor.block_size());
  }
  if (request->segment_count != 0) return Refuse(request, -EINVAL, Detail::kTooManySegments), false;
  return true;
}

bool Queue::PrepareMemory(Request* request, const uint32_t* words, uint64_t length_bytes) {
  const uintptr_t misaligned = request->channel->descriptor->buffer_alignment() - 1;
  if (request->segment_count == 0) {
    if (words[layout::sqe::length_bytes_word] != length_bytes) {
      return Refuse(request, -EINVAL, Detail::kLengthMismatch), false;
    }
    char* address = nullptr;
    const auto pinned = slabs_->Pin(words[layout::sqe::slab_slot_word], words[layout::sqe::slab_generation_word],
                                    words[layout::sqe::slab_offset_word], words[layout::sqe::length_bytes_word], &address);
    if (pinned == SlabTable::PinResult::kStale) return Refuse(request, -EBADF, Detail::kStaleSlab), false;
    request->slab_slot = words[layout::sqe::slab_slot_word];
    request->has_slab = true;
    if (pinned == SlabTable::PinResult::kOutOfRange) return Refuse(request, -EFAULT, Detail::kSlabRange), false;
    if ((reinterpret_cast<uintptr_t>(address) & misaligned) != 0) return Refuse(request, -EINVAL, Detail::kMisaligned), false;
    request->buffer = address;
    return true;
  }

  if (free_segments_ == nullptr) {
    request->segments = &segments_[segments_used_++];
  } else {
    request->segments = std::exchange(free_segments_, free_segments_->next);
  }
  const uint32_t claimed = std::exchange(request->segment_count, 0);
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

bool Queue::PinSegment(Request* request, const uint32_t* segment, char** address) {
  const uint32_t slot = segment[layout::segment::slab_slot_word];
  const uint32_t length = segment[layout::segment::length_bytes_word];
  const auto pinned = slabs_->Pin(slot, segment[layout::segment::slab_generation_word],
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
  request->submitted = true;
  const int rc = Ask(request);
  if (rc == 0) return;
  request->submitted = false;
  if (rc == -ENOMEM) return WaitForBdevIo(request);
  Refuse(request, rc, rc == -ENOTSUP ? Detail::kNotSupported : Detail::kNone);
}

// The pool of bdev_io is empty: SPDK calls back when one comes free.
void Queue::WaitForBdevIo(Request* request) {
  request->wait.bdev = request->channel->descriptor->bdev();
  request->wait.cb_fn = OnIoWait;
  request->wait.cb_arg = request;
  const int rc = spdk_bdev_queue_io_wait(request->wait.bdev, request->channel->io_channel, &request->wait);
  if (rc == 0) return;
  // A bdev_io is there after all (SPDK says -EINVAL): the next try finds it. Anything else is final.
  if (rc == -EINVAL) return Submit(request);
  Refuse(request, rc, Detail::kNone);
}

void Queue::OnIoWait(void* context) {
  auto* request = static_cast<Request*>(context);
  Queue* queue = request->queue;
  queue->activity_.Add(1);
  if (queue->closing_) return queue->Refuse(request, -ECANCELED, Detail::kClosing);
  if (request->abort_wished) return queue->Refuse(request, -ECANCELED, Detail::kNone);
  queue->Submit(request);
}

int Queue::Ask(Request* request) {
  Channel& channel = *request->channel;
  spdk_bdev_desc* desc = channel.descriptor->desc();
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

// The answer to the asker is only that it was heard. The request itself completes in its own time.
void Queue::Abort(Request* request, const uint32_t* words) {
  Request* target = FindRequest(words[layout::sqe::target_id_word], words[layout::sqe::target_generation_word]);
  if (target == nullptr || target == request) return Refuse(request, -ENOENT, Detail::kUnknownTarget);
  if (target->timer != nullptr) {
    CancelTimer(target);
  } else if (target->submitted && !target->channel->descriptor->Supports(SPDK_BDEV_IO_TYPE_ABORT)) {
    return Refuse(request, -ENOTSUP, Detail::kNotSupported);
  } else {
    WishAbort(target);
  }
  Complete(request);
}

void Queue::WishAbort(Request* target) {
  if (std::exchange(target->abort_wished, true)) return;
  // What waits for a bdev_io is refused when it gets one.
  if (!target->submitted) return;
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
    if (target == nullptr || !target->submitted) {
      wish = abort_wishes_.back();
      abort_wishes_.pop_back();
      continue;
    }
    if (now >= wish.due_ticks && target->ask.channel == nullptr && !empty_pool) {
      empty_pool = AskForAbort(target) == -ENOMEM;
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
  const int rc = spdk_bdev_abort(channel->descriptor->desc(), channel->io_channel, target, OnAborted, &target->ask);
  if (rc == 0) return rc;
  target->ask.channel = nullptr;
  LetGo(channel);
  return rc;
}

void Queue::OnAborted(spdk_bdev_io* io, bool, void* context) {
  Channel* channel = std::exchange(static_cast<AbortAsk*>(context)->channel, nullptr);
  spdk_bdev_free_io(io);
  channel->queue->LetGo(channel);
}

void Queue::Refuse(Request* request, int status, Detail detail) {
  request->completion.status = status;
  request->completion.detail = detail;
  Complete(request);
}

void Queue::ReleaseMemory(Request* request) {
  if (request->has_slab) {
    request->has_slab = false;
    if (void* memory = slabs_->Unpin(request->slab_slot)) FreeSlabMemory(*slabs_, request->slab_slot, memory);
  }
  if (request->segments == nullptr) return;
  for (uint32_t i = 0; i < request->segment_count; i++) {
    const uint32_t slot = request->segments->slab_slots[i];
    if (void* memory = slabs_->Unpin(slot)) FreeSlabMemory(*slabs_, slot, memory);
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

int Queue::OpenChannel(const std::shared_ptr<Descriptor>& descriptor, ChannelHandle* out) {
  if (closing_) return -ECANCELED;
  if (!descriptor->AttachChannel(shared_from_this())) return descriptor->removed() ? -ENODEV : -EBADF;
  spdk_io_channel* io_channel = spdk_bdev_get_io_channel(descriptor->desc());
  if (io_channel == nullptr) {
    descriptor->DetachChannel(shared_from_this());
    return -ENOMEM;
  }
  uint32_t slot = 0;
  while (slot < channels_.size() && channels_[slot]->state != Channel::State::kFree) slot++;
  if (slot == channels_.size()) {
    channels_.push_back(std::make_unique<Channel>());
    channels_.back()->queue = this;
  }
  Channel& channel = *channels_[slot];
  channel.state = Channel::State::kOpen;
  channel.descriptor = descriptor;
  channel.io_channel = io_channel;
  Runtime::Get().channel_count.fetch_add(1);
  *out = {slot, channel.generation};
  return 0;
}

void Queue::CloseChannel(ChannelHandle handle, Done done) {
  Channel* channel = FindChannel(handle.slot, handle.generation);
  if (channel == nullptr) return done(0);
  channel->waiting.push_back(std::move(done));
  if (channel->state == Channel::State::kOpen) channel->state = Channel::State::kClosing;
  PutChannelIfUnused(channel);
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

// Puts the channel of a closing one, and frees the slot once somebody has asked for its close: until then its handle
// answers "removed", not "stale".
void Queue::PutChannelIfUnused(Channel* channel) {
  if (channel->state == Channel::State::kOpen || channel->in_flight != 0) return;
  if (channel->state == Channel::State::kClosing) {
    channel->state = Channel::State::kPut;
    spdk_put_io_channel(std::exchange(channel->io_channel, nullptr));
    Runtime::Get().channel_count.fetch_sub(1);
    channel->descriptor->DetachChannel(shared_from_this());
  }
  if (channel->state != Channel::State::kPut || channel->waiting.empty()) return;
  std::vector<Done> waiting = std::exchange(channel->waiting, {});
  channel->descriptor = nullptr;
  channel->generation = channel->generation == UINT32_MAX ? 1 : channel->generation + 1;
  channel->state = Channel::State::kFree;
  for (Done& done : waiting) done(0);
}

void Queue::PutChannelsOf(std::shared_ptr<Descriptor> descriptor) {
  Post([this, keep = shared_from_this(), descriptor = std::move(descriptor)] {
    for (const auto& channel : channels_) {
      if (channel->descriptor != descriptor || channel->state != Channel::State::kOpen) continue;
      channel->state = Channel::State::kClosing;
      PutChannelIfUnused(channel.get());
    }
  });
}

int Queue::RegisterPoller(uint32_t id, const std::string& name, uint64_t period_micros) {
  if (closing_) return -ECANCELED;
  auto poller = std::make_unique<Poller>();
  poller->queue = this;
  poller->id = id;
  poller->poller =
      spdk_poller_register_named(RunPoller, poller.get(), std::min(period_micros, kLongestTimerMicros), name.c_str());
  if (poller->poller == nullptr) return -ENOMEM;
  Runtime::Get().poller_count.fetch_add(1);
  pollers_.push_back(std::move(poller));
  return 0;
}

int Queue::RunPoller(void* context) {
  auto* poller = static_cast<Poller*>(context);
  poller->runs++;
  if (poller->undelivered != UINT32_MAX) poller->undelivered++;
  const uint64_t busy = poller->busy;
  poller->queue->DeliverTick(poller);
  return poller->busy != busy ? SPDK_POLLER_BUSY : SPDK_POLLER_IDLE;
}

// At most one tick of a poller is in the ring; it says how many runs it stands for.
void Queue::DeliverTick(Poller* poller) {
  if (poller->tick_in_ring && !ring_->Consumed(poller->tick_position)) return;
  poller->tick_in_ring = false;
  if (poller->undelivered == 0 || !ring_->HasRoom()) return;
  CompletionEntry tick;
  tick.id = poller->id;
  tick.kind = CompletionKind::kTick;
  tick.runs = std::exchange(poller->undelivered, 0);
  poller->tick_position = ring_->Push(tick);
  poller->tick_in_ring = true;
  poller->busy++;
  activity_.Add(1);
}

std::deque<std::unique_ptr<Queue::Poller>>::const_iterator Queue::FindPoller(uint32_t id) const {
  return std::find_if(pollers_.begin(), pollers_.end(), [id](const auto& poller) { return poller->id == id; });
}

bool Queue::PausePoller(uint32_t id, bool pause) {
  const auto found = FindPoller(id);
  if (found == pollers_.end()) return false;
  if (pause) {
    spdk_poller_pause((*found)->poller);
  } else {
    spdk_poller_resume((*found)->poller);
  }
  return true;
}

bool Queue::GetPollerStats(uint32_t id, PollerStats* stats) const {
  const auto found = FindPoller(id);
  if (found == pollers_.end()) return false;
  *stats = {(*found)->runs, (*found)->busy};
  return true;
}

bool Queue::UnregisterPoller(uint32_t id, PollerStats* stats) {
  const auto found = FindPoller(id);
  if (found == pollers_.end()) return false;
  *stats = {(*found)->runs, (*found)->busy};
  spdk_poller_unregister(&(*found)->poller);
  pollers_.erase(found);
  Runtime::Get().poller_count.fetch_sub(1);
  return true;
}

void Queue::Close(Done done) {
  auto shared_done = std::make_shared<Done>(std::move(done));
  const bool posted = Post([this, keep = shared_from_this(), shared_done] {
    if (closed_) return (*shared_done)(0);
    waiting_for_close_.push_back(std::move(*shared_done));
    if (!std::exchange(closing_, true)) AbortAll();
  });
  if (!posted) (*shared_done)(0);
}

void Queue::AbortAll() {
  for (uint32_t i = 0; i < request_count_; i++) {
    Request& request = requests_[i];
    if (!request.busy) continue;
    if (request.timer != nullptr) {
      CancelTimer(&request);
    } else if (!request.submitted || request.channel->descriptor->Supports(SPDK_BDEV_IO_TYPE_ABORT)) {
      WishAbort(&request);
    }
  }
}

// At every turn of a closing queue, until its devices have answered.
void Queue::ContinueClosing() {
  if (closed_) return;
  for (const auto& poller : pollers_) {
    spdk_poller_unregister(&poller->poller);
    Runtime::Get().poller_count.fetch_sub(1);
  }
  pollers_.clear();
  while (ConsumeRing() != 0) {
  }
  FlushBacklog();
  bool waiting = in_flight() != 0;
  for (const auto& channel : channels_) {
    if (channel->state == Channel::State::kOpen) channel->state = Channel::State::kClosing;
    if (channel->state == Channel::State::kClosing) {
      PutChannelIfUnused(channel.get());
      waiting = waiting || channel->state == Channel::State::kClosing;
    }
  }
  Publish();
  if (!waiting) FinishClosing();
}

void Queue::FinishClosing() {
  closed_ = true;
  for (const auto& channel : channels_) {
    for (Done& done : std::exchange(channel->waiting, {})) done(0);
    channel->descriptor = nullptr;
  }
  Runtime::Get().LeaveCore(core(), this);
  spdk_poller_unregister(&poller_);
  spdk_thread_exit(thread_);
  Runtime::Get().thread_count.fetch_sub(1);
  Runtime::Get().Forget(this);
  const auto never_run = inbox_.Close();
  for (Done& done : std::exchange(waiting_for_close_, {})) done(0);
  // Tasks that came too late find the queue closed, and answer whoever waits for them.
  for (const auto& task : never_run) task();
}

}  // namespace effect_spdk
