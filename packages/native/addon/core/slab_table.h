// DMA allocations by {slot, generation}. Reactors pin a slab for as long as a device may touch it; closing a pinned
// slab takes its name away at once and its memory after the last pin. No Node, no SPDK.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "assert.h"

namespace effect_spdk {

struct SlabHandle {
  uint32_t slot = 0;
  uint32_t generation = 0;
};

class SlabTable {
 public:
  enum class PinResult { kPinned, kStale, kOutOfRange };

  explicit SlabTable(uint32_t capacity) : slots_(std::make_unique<Slot[]>(capacity)), capacity_(capacity) {
    free_.reserve(capacity);
    for (uint32_t i = capacity; i > 0; i--) free_.push_back(i - 1);
  }

  SlabTable(const SlabTable&) = delete;
  SlabTable& operator=(const SlabTable&) = delete;

  // Any thread. Empty when the table is full.
  std::optional<SlabHandle> Open(void* base, uint32_t length_bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (free_.empty()) return std::nullopt;
    const uint32_t index = free_.back();
    free_.pop_back();
    Slot& slot = slots_[index];
    EFFECT_SPDK_ASSERT(slot.base == nullptr && slot.state.load(std::memory_order_relaxed) == 0);
    slot.base = static_cast<char*>(base);
    slot.length_bytes = length_bytes;
    const uint32_t generation = slot.next_generation;
    slot.next_generation = NextGeneration(generation);
    slot.state.store(MakeState(generation), std::memory_order_release);
    return SlabHandle{index, generation};
  }

  // Reactors. On kPinned and on kOutOfRange the slab is pinned and the caller owes an Unpin.
  PinResult Pin(uint32_t index, uint32_t generation, uint32_t offset, uint32_t length_bytes, char** address) {
    if (index >= capacity_ || generation == 0) return PinResult::kStale;
    Slot& slot = slots_[index];
    uint64_t state = slot.state.load(std::memory_order_acquire);
    do {
      if (GenerationOf(state) != generation || (state & kClosing) != 0) return PinResult::kStale;
    } while (!slot.state.compare_exchange_weak(state, state + 1, std::memory_order_acq_rel, std::memory_order_acquire));
    return Within(slot, offset, length_bytes, address);
  }

  // As Pin, by somebody who has the slab pinned already: counts nothing.
  PinResult Locate(uint32_t index, uint32_t generation, uint32_t offset, uint32_t length_bytes, char** address) const {
    EFFECT_SPDK_ASSERT(index < capacity_);
    const Slot& slot = slots_[index];
    const uint64_t state = slot.state.load(std::memory_order_acquire);
    EFFECT_SPDK_ASSERT((state & kPins) != 0);
    if (generation == 0 || GenerationOf(state) != generation || (state & kClosing) != 0) return PinResult::kStale;
    return Within(slot, offset, length_bytes, address);
  }

  // Returns the memory when this was the last pin of a closed slab: the caller frees it, then calls Recycle.
  void* Unpin(uint32_t index) {
    Slot& slot = slots_[index];
    const uint64_t before = slot.state.fetch_sub(1, std::memory_order_acq_rel);
    EFFECT_SPDK_ASSERT((before & kPins) != 0);
    return (before & kClosing) != 0 && (before & kPins) == 1 ? slot.base : nullptr;
  }

  struct CloseResult {
    bool found = false;
    void* memory = nullptr;  // set when nothing has it pinned: free it, then Recycle
  };

  // Any thread. The handle is stale from here on.
  CloseResult Close(SlabHandle handle) {
    if (handle.slot >= capacity_ || handle.generation == 0) return {};
    Slot& slot = slots_[handle.slot];
    uint64_t state = slot.state.load(std::memory_order_acquire);
    do {
      if (GenerationOf(state) != handle.generation || (state & kClosing) != 0) return {};
    } while (!slot.state.compare_exchange_weak(state, state | kClosing, std::memory_order_acq_rel, std::memory_order_acquire));
    return {true, (state & kPins) == 0 ? slot.base : nullptr};
  }

  // Gives an open slab a new generation over the same memory. Empty when it is stale or pinned.
  std::optional<SlabHandle> Renew(SlabHandle handle) {
    if (handle.slot >= capacity_ || handle.generation == 0) return std::nullopt;
    const std::lock_guard<std::mutex> lock(mutex_);
    Slot& slot = slots_[handle.slot];
    uint64_t expected = MakeState(handle.generation);
    const uint32_t generation = slot.next_generation;
    if (!slot.state.compare_exchange_strong(expected, MakeState(generation), std::memory_order_acq_rel)) return std::nullopt;
    slot.next_generation = NextGeneration(generation);
    return SlabHandle{handle.slot, generation};
  }

  // After the memory of a closed slab has been freed.
  void Recycle(uint32_t index) {
    const std::lock_guard<std::mutex> lock(mutex_);
    EFFECT_SPDK_ASSERT(index < capacity_);
    Slot& slot = slots_[index];
    // Closed, and pinned by nobody: its memory has just been freed.
    EFFECT_SPDK_ASSERT((slot.state.load(std::memory_order_relaxed) & (kClosing | kPins)) == kClosing);
    slot.base = nullptr;
    slot.length_bytes = 0;
    slot.state.store(0, std::memory_order_release);
    free_.push_back(index);
  }

  struct View {
    char* base = nullptr;
    uint32_t length_bytes = 0;
  };

  // The thread that opened the slab. Empty when the handle is stale.
  std::optional<View> Find(SlabHandle handle) const {
    if (handle.slot >= capacity_ || handle.generation == 0) return std::nullopt;
    const Slot& slot = slots_[handle.slot];
    const uint64_t state = slot.state.load(std::memory_order_acquire);
    if (GenerationOf(state) != handle.generation || (state & kClosing) != 0) return std::nullopt;
    return View{slot.base, slot.length_bytes};
  }

  // Every slab that is open now.
  std::vector<SlabHandle> OpenHandles() const {
    std::vector<SlabHandle> handles;
    for (uint32_t i = 0; i < capacity_; i++) {
      const uint64_t state = slots_[i].state.load(std::memory_order_acquire);
      if (GenerationOf(state) != 0 && (state & kClosing) == 0) handles.push_back({i, GenerationOf(state)});
    }
    return handles;
  }

  uint32_t capacity() const { return capacity_; }
  uint32_t length_bytes(uint32_t index) const { return slots_[index].length_bytes; }

 private:
  static constexpr uint64_t kPins = 0x7fffffff;
  static constexpr uint64_t kClosing = 0x80000000;

  struct Slot {
    // generation << 32 | closing << 31 | pins; generation 0 is a free slot.
    std::atomic<uint64_t> state{0};
    char* base = nullptr;
    uint32_t length_bytes = 0;
    uint32_t next_generation = 1;
  };

  static PinResult Within(const Slot& slot, uint32_t offset, uint32_t length_bytes, char** address) {
    if (offset > slot.length_bytes || length_bytes > slot.length_bytes - offset) return PinResult::kOutOfRange;
    *address = slot.base + offset;
    return PinResult::kPinned;
  }

  static uint64_t MakeState(uint32_t generation) { return uint64_t{generation} << 32; }
  static uint32_t GenerationOf(uint64_t state) { return static_cast<uint32_t>(state >> 32); }
  static uint32_t NextGeneration(uint32_t generation) { return generation == UINT32_MAX ? 1 : generation + 1; }

  std::unique_ptr<Slot[]> slots_;
  const uint32_t capacity_;
  std::mutex mutex_;
  std::vector<uint32_t> free_;
};

}  // namespace effect_spdk
