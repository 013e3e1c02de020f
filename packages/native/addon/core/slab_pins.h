// What one reactor has pinned of a slab table. It pins a slab once for all of its requests that use it: a locked
// instruction per request would wait for every store that the device's copy has under way. No Node, no SPDK.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>

#include "assert.h"
#include "slab_table.h"

namespace effect_spdk {

// One thread. Everything that was pinned must be unpinned before the end.
class SlabPins {
 public:
  explicit SlabPins(std::shared_ptr<SlabTable> slabs)
      : slabs_(std::move(slabs)), uses_(std::make_unique<uint32_t[]>(slabs_->capacity())) {}

  ~SlabPins() {
    for (uint32_t i = 0; kDebug && i < slabs_->capacity(); i++) EFFECT_SPDK_ASSERT(uses_[i] == 0);
  }

  SlabPins(const SlabPins&) = delete;
  SlabPins& operator=(const SlabPins&) = delete;

  // As SlabTable::Pin: on kPinned and on kOutOfRange the caller owes an Unpin.
  SlabTable::PinResult Pin(uint32_t index, uint32_t generation, uint32_t offset, uint32_t length_bytes, char** address) {
    if (index >= slabs_->capacity()) return SlabTable::PinResult::kStale;
    uint32_t& uses = uses_[index];
    const auto result = uses == 0 ? slabs_->Pin(index, generation, offset, length_bytes, address)
                                  : slabs_->Locate(index, generation, offset, length_bytes, address);
    if (result != SlabTable::PinResult::kStale) uses++;
    return result;
  }

  // As SlabTable::Unpin: memory that is returned is the caller's to free, and then to recycle.
  void* Unpin(uint32_t index) {
    EFFECT_SPDK_ASSERT(index < slabs_->capacity());
    EFFECT_SPDK_ASSERT(uses_[index] != 0);
    return --uses_[index] == 0 ? slabs_->Unpin(index) : nullptr;
  }

 private:
  const std::shared_ptr<SlabTable> slabs_;
  const std::unique_ptr<uint32_t[]> uses_;
};

}  // namespace effect_spdk
