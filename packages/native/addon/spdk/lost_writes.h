// File bdevs of which a flush has failed. Linux reports a failed write-back once, and may have dropped the pages: a flush that succeeds
// after that says nothing of them. So every later flush fails, by all handles, until the bdev is made anew.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "spdk_headers.h"

namespace effect_spdk {

class LostWrites : public std::enable_shared_from_this<LostWrites> {
 public:
  // App thread. Those of the file bdevs that the bdev stands on: as long as the caller has the bdev open.
  static std::vector<std::shared_ptr<LostWrites>> Under(spdk_bdev* bdev);

  explicit LostWrites(spdk_bdev* bdev);
  ~LostWrites();

  // Any thread, as all below.
  bool any() const { return any_.load(std::memory_order_relaxed); }
  // From here on it is remembered for as long as the bdev is there.
  void Mark();

 private:
  static void OnEvent(spdk_bdev_event_type type, spdk_bdev* bdev, void* context);
  // App thread.
  void Keep();

  spdk_bdev* bdev_;
  const std::string name_;
  std::atomic<bool> any_{false};
  // Open while there is something to remember, to hear of the bdev's end.
  spdk_bdev_desc* desc_ = nullptr;
  std::shared_ptr<LostWrites> self_;
};

}  // namespace effect_spdk
