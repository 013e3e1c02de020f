// An open bdev. Opened, closed and told of events on SPDK's app thread; read by queues on their reactors.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "../core/mailbox.h"
#include "spdk_headers.h"

namespace effect_spdk {

class Queue;

// The runtime remembers it from Open to the end of Close.
class Descriptor : public std::enable_shared_from_this<Descriptor> {
 public:
  using Done = std::function<void()>;

  // App thread. 0 or a negative errno. `slot` names the descriptor in the events that `mailbox` gets.
  static int Open(const std::string& name, bool write, uint32_t slot, std::shared_ptr<Mailbox> mailbox,
                  std::shared_ptr<Descriptor>* out);

  ~Descriptor();
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  spdk_bdev_desc* desc() const { return desc_; }
  spdk_bdev* bdev() const { return bdev_; }
  bool write() const { return write_; }
  uint32_t block_size() const { return block_size_; }
  uint64_t num_blocks() const { return num_blocks_.load(std::memory_order_relaxed); }
  size_t buffer_alignment() const { return buffer_alignment_; }
  bool removed() const { return removed_.load(std::memory_order_relaxed); }
  bool Supports(spdk_bdev_io_type type) const { return (supported_ & (uint64_t{1} << type)) != 0; }

  // What JavaScript is told of it: JSON.
  std::string Describe() const;

  // A queue's thread, before it takes a channel. False when the descriptor is closing or its device is gone.
  bool AttachChannel(const std::shared_ptr<Queue>& queue);
  // A queue's thread, after it has put the channel.
  void DetachChannel(const std::shared_ptr<Queue>& queue);

  // App thread. Closes once every channel is put, then runs `done`. `done` runs at once when closed already.
  void Close(Done done);

 private:
  Descriptor(bool write, uint32_t slot, std::shared_ptr<Mailbox> mailbox);

  static void OnEvent(spdk_bdev_event_type type, spdk_bdev* bdev, void* context);
  void OnRemoved();
  void CloseIfUnused();

  spdk_bdev_desc* desc_ = nullptr;
  spdk_bdev* bdev_ = nullptr;
  const bool write_;
  const uint32_t slot_;
  const std::shared_ptr<Mailbox> mailbox_;
  uint32_t block_size_ = 0;
  size_t buffer_alignment_ = 1;
  uint64_t supported_ = 0;
  std::atomic<uint64_t> num_blocks_{0};
  std::atomic<bool> removed_{false};

  std::mutex mutex_;
  bool closing_ = false;
  bool closed_ = false;
  // One entry per channel; a queue may hold several.
  std::vector<std::shared_ptr<Queue>> channels_;
  std::vector<Done> waiting_for_close_;
};

}  // namespace effect_spdk
