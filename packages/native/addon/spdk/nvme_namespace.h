// An open namespace of an NVMe controller. Its I/O goes over the queues, by a queue pair for every channel.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "nvme_controller.h"
#include "nvme_identity.h"
#include "target.h"

namespace effect_spdk {

class NvmeNamespace final : public Target {
 public:
  // The NVMe thread, with the controller's guard. `slot` names the namespace in the events that `mailbox` gets.
  static int Make(const std::shared_ptr<NvmeController>& controller, uint32_t nsid, uint32_t slot,
                  std::shared_ptr<Mailbox> mailbox, std::shared_ptr<NvmeNamespace>* out);

  ~NvmeNamespace() override;

  NvmeNamespace* AsNvme() override { return this; }
  const std::shared_ptr<NvmeController>& controller() const { return controller_; }
  uint32_t nsid() const { return nsid_; }
  // Any thread. Another volume, or none, has its place: no queue pair is connected for it any more.
  bool replaced() const { return replaced_.load(std::memory_order_acquire); }

  // The most that one command may do, in blocks.
  uint64_t most_zeroes_blocks() const { return most_zeroes_blocks_; }
  uint32_t most_range_blocks() const { return most_range_blocks_; }
  uint32_t most_ranges() const { return most_ranges_; }

  // What JavaScript is told of it: JSON.
  std::string Describe() const;

  // The NVMe thread, below.
  std::vector<std::shared_ptr<Queue>> UsedBy() { return Queues(); }
  void PostRemove();
  // Compares with what SPDK knows of it now.
  void Check();

 private:
  NvmeNamespace(std::shared_ptr<NvmeController> controller, uint32_t nsid, uint32_t slot, std::shared_ptr<Mailbox> mailbox);

  void TakeLimits();
  void CloseNow() override;

  const std::shared_ptr<NvmeController> controller_;
  const uint32_t nsid_;
  uint64_t most_zeroes_blocks_ = 0;
  uint32_t most_range_blocks_ = 0;
  uint32_t most_ranges_ = 0;
  bool has_write_cache_ = false;
  NvmeIds ids_;
  std::atomic<bool> replaced_{false};
};

}  // namespace effect_spdk
