// A number that one thread changes and any thread reads. As cheap as a plain one. No Node, no SPDK.
#pragma once

#include <atomic>

namespace effect_spdk {

template <typename T>
class Counter {
 public:
  T Get() const { return value_.load(std::memory_order_relaxed); }

  // The owning thread.
  void Set(T value) { value_.store(value, std::memory_order_relaxed); }
  void Add(T count) { Set(static_cast<T>(Get() + count)); }
  void Subtract(T count) { Set(static_cast<T>(Get() - count)); }

 private:
  std::atomic<T> value_{0};
};

}  // namespace effect_spdk
