#include "../core/slab_pins.h"
#include "../core/slab_table.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "harness.h"

namespace effect_spdk {
namespace {

using Pin = SlabTable::PinResult;

TEST("a slab is found by its handle, inside its bounds") {
  SlabTable slabs(4);
  std::vector<char> memory(4096);
  const auto handle = slabs.Open(memory.data(), 4096);
  CHECK(handle.has_value());
  char* address = nullptr;
  CHECK(slabs.Pin(handle->slot, handle->generation, 512, 3584, &address) == Pin::kPinned);
  CHECK(address == memory.data() + 512);
  CHECK(slabs.Unpin(handle->slot) == nullptr);
}

TEST("out of range is refused, however the sum wraps, and still unpinned once") {
  SlabTable slabs(4);
  std::vector<char> memory(4096);
  const auto handle = slabs.Open(memory.data(), 4096);
  char* address = nullptr;
  const uint32_t ranges[][2] = {{0, 4097}, {4096, 1}, {4097, 0}, {0xffffffff, 2}, {1, 0xffffffff}};
  for (const auto& [offset, length] : ranges) {
    CHECK(slabs.Pin(handle->slot, handle->generation, offset, length, &address) == Pin::kOutOfRange);
    CHECK(slabs.Unpin(handle->slot) == nullptr);
  }
  CHECK(slabs.Close(*handle).memory == memory.data());
}

TEST("stale, foreign and never-issued handles are refused") {
  SlabTable slabs(2);
  char byte = 0;
  char* address = nullptr;
  const auto handle = slabs.Open(&byte, 1);
  CHECK(slabs.Pin(handle->slot, handle->generation + 1, 0, 1, &address) == Pin::kStale);
  CHECK(slabs.Pin(handle->slot, 0, 0, 1, &address) == Pin::kStale);
  CHECK(slabs.Pin(7, 1, 0, 1, &address) == Pin::kStale);
  CHECK(slabs.Pin(handle->slot == 0 ? 1 : 0, handle->generation, 0, 1, &address) == Pin::kStale);
  CHECK(slabs.Close(*handle).memory == &byte);
  slabs.Recycle(handle->slot);
  const auto again = slabs.Open(&byte, 1);
  CHECK(again->slot == handle->slot && again->generation != handle->generation);
  CHECK(slabs.Pin(handle->slot, handle->generation, 0, 1, &address) == Pin::kStale);
}

TEST("memory under a device outlives the close, and comes back with the last pin") {
  SlabTable slabs(1);
  char byte = 0;
  char* address = nullptr;
  const auto handle = slabs.Open(&byte, 1);
  CHECK(slabs.Pin(handle->slot, handle->generation, 0, 1, &address) == Pin::kPinned);
  CHECK(slabs.Pin(handle->slot, handle->generation, 0, 1, &address) == Pin::kPinned);
  const auto closed = slabs.Close(*handle);
  CHECK(closed.found && closed.memory == nullptr);
  CHECK(!slabs.Close(*handle).found);
  CHECK(slabs.Pin(handle->slot, handle->generation, 0, 1, &address) == Pin::kStale);
  CHECK(slabs.Unpin(handle->slot) == nullptr);
  CHECK(slabs.Unpin(handle->slot) == &byte);
}

TEST("one pin of the table stands for all uses of a reactor") {
  const auto slabs = std::make_shared<SlabTable>(2);
  SlabPins pins(slabs);
  char bytes[64] = {};
  char* address = nullptr;
  const auto handle = slabs->Open(bytes, 64);
  CHECK(pins.Pin(handle->slot, handle->generation, 0, 64, &address) == Pin::kPinned);
  CHECK(pins.Pin(handle->slot, handle->generation, 8, 56, &address) == Pin::kPinned);
  CHECK(address == bytes + 8);
  CHECK(pins.Pin(handle->slot, handle->generation, 8, 57, &address) == Pin::kOutOfRange);
  CHECK(pins.Pin(handle->slot, handle->generation + 1, 0, 1, &address) == Pin::kStale);
  CHECK(pins.Pin(handle->slot, 0, 0, 1, &address) == Pin::kStale);
  CHECK(pins.Pin(2, 1, 0, 1, &address) == Pin::kStale);
  CHECK(pins.Unpin(handle->slot) == nullptr);
  CHECK(!slabs->Renew(*handle).has_value());
  CHECK(slabs->Close(*handle).memory == nullptr);
  CHECK(pins.Pin(handle->slot, handle->generation, 0, 1, &address) == Pin::kStale);
  CHECK(pins.Unpin(handle->slot) == nullptr);
  CHECK(pins.Unpin(handle->slot) == bytes);
  slabs->Recycle(handle->slot);
  const auto again = slabs->Open(bytes, 1);
  CHECK(pins.Pin(again->slot, handle->generation, 0, 1, &address) == Pin::kStale);
  CHECK(pins.Pin(again->slot, again->generation, 0, 1, &address) == Pin::kPinned);
  CHECK(pins.Unpin(again->slot) == nullptr);
}

TEST("renewing changes the name and not the memory, and not while pinned") {
  SlabTable slabs(1);
  char byte = 0;
  char* address = nullptr;
  const auto first = slabs.Open(&byte, 1);
  CHECK(slabs.Pin(first->slot, first->generation, 0, 1, &address) == Pin::kPinned);
  CHECK(!slabs.Renew(*first).has_value());
  slabs.Unpin(first->slot);
  const auto second = slabs.Renew(*first);
  CHECK(second.has_value() && second->slot == first->slot && second->generation != first->generation);
  CHECK(slabs.Pin(first->slot, first->generation, 0, 1, &address) == Pin::kStale);
  CHECK(slabs.Pin(second->slot, second->generation, 0, 1, &address) == Pin::kPinned);
  slabs.Unpin(second->slot);
}

TEST("a full table says so, and knows what is open") {
  SlabTable slabs(2);
  char bytes[3] = {};
  CHECK(slabs.Open(&bytes[0], 1).has_value());
  CHECK(slabs.Open(&bytes[1], 1).has_value());
  CHECK(!slabs.Open(&bytes[2], 1).has_value());
  CHECK(slabs.OpenHandles().size() == 2);
}

TEST("threads: memory is freed once, and never while it is written to") {
  constexpr int kRounds = 3000;
  const auto table = std::make_shared<SlabTable>(4);
  SlabTable& slabs = *table;
  std::atomic<uint64_t> name{0};
  std::atomic<bool> stop{false};
  std::atomic<int> freed{0};
  const auto release = [&](uint32_t slot, void* memory) {
    if (memory == nullptr) return;
    std::free(memory);
    slabs.Recycle(slot);
    freed.fetch_add(1);
  };
  std::vector<std::thread> reactors;
  for (int i = 0; i < 2; i++) {
    reactors.emplace_back([&] {
      SlabPins pins(table);
      while (!stop.load()) {
        const uint64_t now = name.load();
        const auto slot = static_cast<uint32_t>(now >> 32);
        char* address = nullptr;
        int uses = 0;
        // Several requests that overlap, as far as the slab stays open.
        while (uses < 4 && pins.Pin(slot, static_cast<uint32_t>(now), 0, 64, &address) == Pin::kPinned) {
          uses++;
          // What a device does: read memory that nobody may have freed.
          volatile char sum = 0;
          for (int at = 0; at < 64; at++) sum = static_cast<char>(sum + address[at]);
        }
        while (uses-- > 0) release(slot, pins.Unpin(slot));
      }
    });
  }
  for (int round = 0; round < kRounds; round++) {
    void* memory = std::calloc(1, 64);
    const auto handle = slabs.Open(memory, 64);
    if (!handle.has_value()) {
      std::free(memory);
      round--;
      std::this_thread::yield();
      continue;
    }
    name.store(uint64_t{handle->slot} << 32 | handle->generation);
    std::this_thread::yield();
    release(handle->slot, slabs.Close(*handle).memory);
  }
  stop = true;
  for (auto& reactor : reactors) reactor.join();
  CHECK(freed.load() == kRounds);
}

}  // namespace
}  // namespace effect_spdk
