// Work handed to one thread by others, run there in order. The reactor's answer to "send a message", without SPDK's
// message pool, whose exhaustion aborts the process. Control plane only: it allocates. No Node, no SPDK.
#pragma once

#include <atomic>
#include <functional>
#include <mutex>
#include <utility>
#include <vector>

namespace effect_spdk {

class Inbox {
 public:
  using Task = std::function<void()>;

  // Any thread. False once closed: the task was not taken.
  bool Post(Task task) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (closed_) return false;
    tasks_.push_back(std::move(task));
    pending_.store(true, std::memory_order_seq_cst);
    return true;
  }

  bool pending() const { return pending_.load(std::memory_order_seq_cst); }

  // The owning thread. Returns how many ran; tasks posted meanwhile run at the next call.
  size_t Run() {
    if (!pending_.load(std::memory_order_acquire)) return 0;
    std::vector<Task> batch;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      batch.swap(tasks_);
      pending_.store(false, std::memory_order_relaxed);
    }
    for (Task& task : batch) task();
    return batch.size();
  }

  // Returns what was never run. Posting fails from here on.
  std::vector<Task> Close() {
    const std::lock_guard<std::mutex> lock(mutex_);
    closed_ = true;
    pending_.store(false, std::memory_order_relaxed);
    return std::exchange(tasks_, {});
  }

 private:
  std::mutex mutex_;
  std::atomic<bool> pending_{false};
  std::vector<Task> tasks_;
  bool closed_ = false;
};

}  // namespace effect_spdk
