// The reactor's side of the rings that it shares with one JavaScript thread. No Node, no SPDK.
//
// Submission: JavaScript writes entries, then the tail; the reactor copies an entry out before it looks at it,
// because the other side can write at any time. Completion: the reactor writes entries, then the tail.
// A word that comes from the other side is never trusted: a tail that claims more than the ring holds is
// read as a full ring.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>

#include "assert.h"
#include "ring_layout.h"

namespace effect_spdk {

// An entry as it was copied out of the ring. Not checked in any way.
class SubmissionEntry {
 public:
  Opcode opcode() const { return static_cast<Opcode>(first() & 0xff); }
  uint32_t id() const { return first() >> layout::sqe::id_shift; }
  uint32_t id_generation() const { return words_[layout::sqe::id_generation_word]; }
  uint32_t channel_slot() const { return words_[layout::sqe::handles_word] & 0xffff; }
  uint32_t channel_generation() const { return words_[layout::sqe::channel_generation_word]; }
  uint32_t slab_slot() const { return words_[layout::sqe::handles_word] >> layout::sqe::slab_shift; }
  uint32_t slab_generation() const { return words_[layout::sqe::slab_generation_word]; }
  uint32_t slab_offset() const { return words_[layout::sqe::slab_offset_word]; }
  uint64_t offset_blocks() const { return upper_offset_ | words_[layout::sqe::offset_blocks_word]; }
  uint64_t length_blocks() const { return upper_length_ | words_[layout::sqe::length_blocks_word]; }
  // Of an abort, in the place of its channel.
  uint32_t target_id() const { return words_[layout::sqe::target_id_word] & 0xffff; }
  uint32_t target_generation() const { return words_[layout::sqe::target_generation_word]; }

  uint32_t segment_count() const { return first() >> layout::sqe::segments_shift & layout::sqe::segments_mask; }
  // Where its segments begin: so many slots behind its first one.
  uint32_t segments_at() const { return is_wide() ? 2 : 1; }
  // The slots of the ring that it says it takes.
  uint32_t slots() const {
    return segments_at() + (segment_count() + layout::segment::per_slot - 1) / layout::segment::per_slot;
  }

 private:
  friend class Ring;

  uint32_t first() const { return words_[layout::sqe::opcode_word]; }
  bool is_wide() const { return (first() & layout::sqe::wide_bit) != 0; }

  uint32_t words_[layout::sqe::words];
  uint64_t upper_offset_ = 0;
  uint64_t upper_length_ = 0;
};

struct CompletionEntry {
  uint32_t id = 0;
  uint32_t id_generation = 0;
  int32_t status = 0;
  Detail detail = Detail::kNone;
  uint32_t nvme = 0;
  CompletionKind kind = CompletionKind::kRequest;
  uint32_t runs = 0;
};

class Ring {
 public:
  static constexpr size_t BytesFor(uint32_t sq_entries, uint32_t cq_entries) {
    return sizeof(uint32_t) *
           (layout::control::words + size_t{sq_entries} * layout::sqe::words + size_t{cq_entries} * layout::cqe::words);
  }

  static constexpr bool IsPowerOfTwo(uint32_t n) { return n != 0 && (n & (n - 1)) == 0; }

  // `memory` is zeroed, 64-byte aligned, BytesFor() long and outlives the ring. Both counts are powers of two. `age`: the entries
  // of either kind that the ring counts as gone through it, so that a test need not send four billion to see the words wrap.
  Ring(uint32_t* memory, uint32_t sq_entries, uint32_t cq_entries, uint64_t age = 0)
      : control_(memory),
        sq_(memory + layout::control::words),
        cq_(sq_ + size_t{sq_entries} * layout::sqe::words),
        sq_entries_(sq_entries),
        cq_entries_(cq_entries),
        staged_(std::make_unique<uint32_t[]>(size_t{cq_entries} * layout::cqe::words)),
        sq_head_(static_cast<uint32_t>(age)),
        cq_tail_(age),
        cq_published_(age),
        cq_head_seen_(age) {
    EFFECT_SPDK_ASSERT(IsPowerOfTwo(sq_entries) && IsPowerOfTwo(cq_entries));
    EFFECT_SPDK_ASSERT(reinterpret_cast<uintptr_t>(memory) % 64 == 0);
    control_[layout::control::magic_word] = layout::control::magic;
    control_[layout::control::sq_entries_word] = sq_entries;
    control_[layout::control::cq_entries_word] = cq_entries;
    for (const uint32_t word : {layout::control::sq_tail_word, layout::control::sq_head_word, layout::control::cq_tail_word,
                                layout::control::cq_head_word}) {
      control_[word] = static_cast<uint32_t>(age);
    }
  }

  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  uint32_t sq_entries() const { return sq_entries_; }
  uint32_t cq_entries() const { return cq_entries_; }

  // Submission entries that wait, at most a full ring.
  uint32_t Available() const {
    const uint32_t waiting = Word(layout::control::sq_tail_word).load(std::memory_order_acquire) - sq_head_;
    return waiting > sq_entries_ ? sq_entries_ : waiting;
  }

  // Any thread: whether entries wait, as far as the ring says.
  bool HasSubmissions() const {
    return Word(layout::control::sq_tail_word).load(std::memory_order_seq_cst) !=
           Word(layout::control::sq_head_word).load(std::memory_order_relaxed);
  }

  // Copies the entry at the head out, of which so many slots are `available`: at least one.
  void CopyEntry(uint32_t available, SubmissionEntry* out) const {
    EFFECT_SPDK_ASSERT(available >= 1 && available <= sq_entries_);
    CopySlot(0, out->words_);
    if (!out->is_wide() || available < 2) return;
    uint32_t upper[layout::sqe::words];
    CopySlot(1, upper);
    out->upper_offset_ = uint64_t{upper[layout::wide::offset_blocks_word]} << 32;
    out->upper_length_ = uint64_t{upper[layout::wide::length_blocks_word]} << 32;
  }

  // Copies the slot `ahead` of the head.
  void CopySlot(uint32_t ahead, uint32_t out[layout::sqe::words]) const {
    const uint32_t index = (sq_head_ + ahead) & (sq_entries_ - 1);
    std::memcpy(out, sq_ + size_t{index} * layout::sqe::words, sizeof(uint32_t) * layout::sqe::words);
  }

  void PrefetchSlot(uint32_t ahead) const {
    __builtin_prefetch(sq_ + size_t{(sq_head_ + ahead) & (sq_entries_ - 1)} * layout::sqe::words);
  }

  // The slots are done with; JavaScript gets them back with ReturnSlots().
  void Consume(uint32_t slots) { sq_head_ += slots; }

  void ReturnSlots() {
    Word(layout::control::sq_head_word).store(sq_head_, std::memory_order_release);
  }

  bool HasRoom() {
    if (cq_tail_ - cq_head_seen_ < cq_entries_) return true;
    SeeCompletionHead();
    return cq_tail_ - cq_head_seen_ < cq_entries_;
  }

  // Needs HasRoom(). Not visible to JavaScript before Publish(). Returns the entry's position, which no other entry ever has.
  uint64_t Push(const CompletionEntry& entry) {
    EFFECT_SPDK_ASSERT(cq_tail_ - cq_head_seen_ < cq_entries_);
    uint32_t* words = staged_.get() + size_t{IndexOf(cq_tail_)} * layout::cqe::words;
    words[layout::cqe::id_word] = entry.id;
    words[layout::cqe::id_generation_word] = entry.id_generation;
    words[layout::cqe::status_word] = entry.kind == CompletionKind::kTick ? entry.runs : static_cast<uint32_t>(entry.status);
    words[layout::cqe::reason_word] = static_cast<uint32_t>(entry.detail) |
                                      (entry.nvme & layout::cqe::nvme_mask) << layout::cqe::nvme_shift |
                                      static_cast<uint32_t>(entry.kind) << layout::cqe::kind_shift;
    return cq_tail_++;
  }

  // True when JavaScript has consumed the completion at `position`.
  bool Consumed(uint64_t position) {
    if (cq_head_seen_ > position) return true;
    SeeCompletionHead();
    return cq_head_seen_ > position;
  }

  bool unpublished() const { return cq_tail_ != cq_published_; }

  // Makes pushed completions visible. True when JavaScript sleeps, and must be woken by somebody who has TakeWake().
  bool Publish() {
    if (!unpublished()) return false;
    const uint32_t from = IndexOf(cq_published_);
    EFFECT_SPDK_ASSERT(cq_tail_ - cq_published_ <= cq_entries_);
    const auto count = static_cast<uint32_t>(cq_tail_ - cq_published_);
    const uint32_t before_end = std::min(count, cq_entries_ - from);
    CopyOut(from, before_end);
    CopyOut(0, count - before_end);
    cq_published_ = cq_tail_;
    // The store of the tail and the load of the flag must not pass each other: JavaScript sets its flag and then
    // looks at the tail once more.
    Word(layout::control::cq_tail_word).exchange(static_cast<uint32_t>(cq_tail_), std::memory_order_seq_cst);
    return JavaScriptSleeps();
  }

  bool JavaScriptSleeps() const { return Word(layout::control::js_sleeping_word).load(std::memory_order_seq_cst) != 0; }

  // True for the one who has to wake JavaScript.
  bool TakeWake() { return Word(layout::control::js_sleeping_word).exchange(0, std::memory_order_seq_cst) != 0; }

  // Not 0: JavaScript could run, and waits for this reactor to let go of the processor. Another number every time.
  uint32_t JavaScriptGivesWay() const {
    return Word(layout::control::js_gives_way_word).load(std::memory_order_relaxed);
  }

  // JavaScript's thread. 0: it waits no more.
  void SetJavaScriptGivesWay(uint32_t turn) {
    Word(layout::control::js_gives_way_word).store(turn, std::memory_order_relaxed);
  }

  // Completions that JavaScript has been shown and, as far as it says, not looked at.
  uint32_t Unread() const {
    return static_cast<uint32_t>(cq_published_) - Word(layout::control::cq_head_word).load(std::memory_order_acquire);
  }

  // The reactor announces that it is about to sleep; it must look at Available() again afterwards.
  void SetReactorSleeping(bool sleeping) {
    Word(layout::control::reactor_sleeping_word).exchange(sleeping ? 1u : 0u, std::memory_order_seq_cst);
  }

 private:
  std::atomic_ref<uint32_t> Word(uint32_t word) const { return std::atomic_ref<uint32_t>(control_[word]); }

  void CopyOut(uint32_t from, uint32_t count) {
    const size_t at = size_t{from} * layout::cqe::words;
    std::memcpy(cq_ + at, staged_.get() + at, size_t{count} * layout::cqe::words * sizeof(uint32_t));
  }

  // Where the completion of that position is in the ring.
  uint32_t IndexOf(uint64_t position) const { return static_cast<uint32_t>(position) & (cq_entries_ - 1); }

  // The head's word has the lower half of a position between the one seen last and what is published. One that JavaScript could
  // not have reached is read as "nothing new", so that nothing is overwritten.
  void SeeCompletionHead() {
    const uint32_t head = Word(layout::control::cq_head_word).load(std::memory_order_acquire);
    const uint32_t further = head - static_cast<uint32_t>(cq_head_seen_);
    if (further <= cq_published_ - cq_head_seen_) cq_head_seen_ += further;
  }

  uint32_t* const control_;
  uint32_t* const sq_;
  uint32_t* const cq_;
  const uint32_t sq_entries_;
  const uint32_t cq_entries_;
  // Completions until they are published. Stores into lines that the other core has read take long to get there, and
  // every locked instruction in between would wait for them: they go over together.
  const std::unique_ptr<uint32_t[]> staged_;
  uint32_t sq_head_;
  // Positions count every completion of the ring's life; the words that JavaScript sees are their lower halves. A position is
  // compared with another from any time before, which 32 bits could tell for 2^31 completions only.
  uint64_t cq_tail_;
  uint64_t cq_published_;
  uint64_t cq_head_seen_;
};

}  // namespace effect_spdk
