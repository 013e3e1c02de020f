// An open bdev.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "lost_writes.h"
#include "target.h"

namespace effect_spdk {

// The runtime remembers it from Open to the end of Close.
class Descriptor final : public Target {
 public:
  // App thread. 0 or a negative errno. `slot` names the descriptor in the events that `mailbox` gets.
  static int Open(const std::string& name, bool write, uint32_t slot, std::shared_ptr<Mailbox> mailbox,
                  std::shared_ptr<Descriptor>* out);

  // App thread. Claims the bdev for a blobstore until it is closed, or the bdev removed. It is for no I/O.
  static int Claim(const std::string& name, uint32_t slot, std::shared_ptr<Mailbox> mailbox, std::shared_ptr<Descriptor>* out);

  ~Descriptor() override;

  spdk_bdev_desc* desc() const { return desc_; }
  spdk_bdev* bdev() const { return bdev_; }

  // What JavaScript is told of it: JSON.
  std::string Describe() const;

  spdk_io_channel* GetIoChannel() override;
  bool HasLostWrites() const override;
  void OnFlushFailed() override;

 private:
  Descriptor(bool write, uint32_t slot, std::shared_ptr<Mailbox> mailbox);

  static void OnEvent(spdk_bdev_event_type type, spdk_bdev* bdev, void* context);
  void CloseNow() override;

  spdk_bdev_desc* desc_ = nullptr;
  spdk_bdev* bdev_ = nullptr;
  bool claims_ = false;
  // Of the file bdevs below.
  std::vector<std::shared_ptr<LostWrites>> lost_writes_;
};

}  // namespace effect_spdk
