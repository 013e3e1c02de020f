// A processor goes from a JavaScript thread to the reactors that run on it, and back. JavaScript's thread only.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

namespace effect_spdk {

template <typename Queue>
class Handover {
 public:
  // Calls `yield`, which lets go of `processor`. As long as it runs, those of `queues` whose reactor is on that processor know
  // that JavaScript waits for it. Any other reactor is in nobody's way, and is not told.
  template <typename Queues, typename Yield>
  void Give(const Queues& queues, int processor, Yield yield) {
    turn_ = turn_ == UINT32_MAX ? 1 : turn_ + 1;
    queues.ForEach([this, processor](const std::shared_ptr<Queue>& queue) {
      if (queue->processor() != processor) return;
      queue->SetJavaScriptGivesWay(turn_);
      told_.push_back(queue);
    });
    yield();
    for (const std::shared_ptr<Queue>& queue : told_) queue->SetJavaScriptGivesWay(0);
    told_.clear();
  }

 private:
  uint32_t turn_ = 0;
  // Kept, because a queue may end while its reactor has the processor. Empty between two calls.
  std::vector<std::shared_ptr<Queue>> told_;
};

}  // namespace effect_spdk
