// What one JavaScript environment (the main thread or a worker) holds. When the environment ends, everything it held is
// closed in SPDK's order, without it.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "../core/mailbox.h"
#include "../core/slab_table.h"
#include "../spdk/blobstore.h"
#include "../spdk/descriptor.h"
#include "../spdk/nvme_controller.h"
#include "../spdk/queue.h"

namespace effect_spdk {

// Named objects of one environment; used from its JavaScript thread and from SPDK threads that answer it.
template <typename T>
class Registry {
 public:
  // Names `value` before it exists, because its events carry the name.
  uint32_t Reserve() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return ++last_;
  }
  void Put(uint32_t id, std::shared_ptr<T> value) {
    const std::lock_guard<std::mutex> lock(mutex_);
    values_[id] = std::move(value);
  }
  std::shared_ptr<T> Find(uint32_t id) const {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = values_.find(id);
    return found == values_.end() ? nullptr : found->second;
  }
  void Erase(uint32_t id) {
    const std::lock_guard<std::mutex> lock(mutex_);
    values_.erase(id);
  }
  template <typename Call>
  void ForEach(Call call) const {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (const auto& [id, value] : values_) call(value);
  }
  template <typename Predicate>
  bool Any(Predicate predicate) const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return std::any_of(values_.begin(), values_.end(), [&](const auto& entry) { return predicate(*entry.second); });
  }
  std::map<uint32_t, std::shared_ptr<T>> TakeAll() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return std::exchange(values_, {});
  }

 private:
  mutable std::mutex mutex_;
  uint32_t last_ = 0;
  std::map<uint32_t, std::shared_ptr<T>> values_;
};

// What a call is answered with. What the numbers and the text are is said where the call is.
struct CallReply {
  int status = 0;
  double a = 0;
  double b = 0;
  double c = 0;
  std::string text = {};
  std::string bytes = {};
};

// Shared by the environment and by the tasks it sent to SPDK threads, so that an answer that comes too late finds it.
struct Holdings {
  std::shared_ptr<Mailbox> mailbox;
  std::shared_ptr<SlabTable> slabs;
  Registry<Queue> queues;
  // Open bdevs, blobs and NVMe namespaces.
  Registry<Target> targets;
  Registry<Blobstore> blobstores;
  Registry<NvmeController> controllers;
  // Set when the environment has ended: what arrives from here on is closed at once.
  std::atomic<bool> ended{false};

  void Reply(uint32_t request, CallReply reply) const;
  void Reply(uint32_t request, int status) const { Reply(request, CallReply{.status = status}); }
  void CloseEverything();
};

}  // namespace effect_spdk
