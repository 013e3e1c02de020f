// What a channel of a queue reaches: an open bdev, an open blob or an NVMe namespace. Opened, closed and told of events on SPDK's app thread;
// read by queues on their reactors, and the fields that they read per I/O are plain ones in here.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "../core/mailbox.h"
#include "spdk_headers.h"

namespace effect_spdk {

class Blob;
class NvmeNamespace;
class Queue;

class Target : public std::enable_shared_from_this<Target> {
 public:
  // 0, or why what was to be closed could not be written back first. It is closed all the same.
  using Done = std::function<void(int status)>;

  virtual ~Target();
  Target(const Target&) = delete;
  Target& operator=(const Target&) = delete;

  // Any thread.
  bool write() const { return write_.load(std::memory_order_relaxed); }
  uint32_t block_size() const { return block_size_; }
  uint64_t num_blocks() const { return num_blocks_.load(std::memory_order_relaxed); }
  size_t buffer_alignment() const { return buffer_alignment_; }
  bool removed() const { return removed_.load(std::memory_order_relaxed); }
  // It is not written to any more, for what happened to its metadata.
  bool stopped() const { return stopped_.load(std::memory_order_relaxed); }
  bool Supports(spdk_bdev_io_type type) const { return (supported_ & (uint64_t{1} << type)) != 0; }
  // How many want no I/O in SPDK's hands. Any thread; changed on the app thread.
  uint32_t pauses() const { return pauses_.load(std::memory_order_acquire); }
  // Null when it is no blob.
  virtual Blob* AsBlob() { return nullptr; }
  virtual NvmeNamespace* AsNvme() { return nullptr; }

  // A queue's thread. It is put with spdk_put_io_channel. An NVMe namespace has queue pairs instead.
  virtual spdk_io_channel* GetIoChannel() { return nullptr; }
  // A queue's thread, with a channel: whether a flush of a file below has failed, so that no other may succeed.
  virtual bool HasLostWrites() const { return false; }
  // The same. The operating system could not write the file below.
  virtual void OnFlushFailed() {}
  // A queue's thread, before it takes a channel. False when the target is closing or its device is gone.
  bool AttachChannel(const std::shared_ptr<Queue>& queue);
  // A queue's thread, after it has put the channel.
  void DetachChannel(const std::shared_ptr<Queue>& queue);

  // App thread. Closes once every channel is put, then runs `done`. `done` runs at once when closed already.
  void Close(Done done);

 protected:
  // `slot` names the target in the events that `mailbox` gets.
  Target(bool write, uint32_t slot, std::shared_ptr<Mailbox> mailbox);

  // App thread, below. The device is going away: refuses new I/O, lets what is in flight finish, puts the channels, closes.
  void Remove();
  void Resized(uint64_t num_blocks);
  void Stop() {
    stopped_.store(true, std::memory_order_relaxed);
    // What asks for this alone does not ask for one thing more per I/O.
    write_.store(false, std::memory_order_relaxed);
  }
  // What else has to end before it closes.
  virtual bool busy() const { return false; }
  // Once, when nothing uses it any more; ends with Closed(), then or later.
  virtual void CloseNow() = 0;
  void CloseIfUnused();
  void Closed(int status);

  void SetSupported(spdk_bdev_io_type type) { supported_ |= uint64_t{1} << type; }
  void SetUnsupported(spdk_bdev_io_type type) { supported_ &= ~(uint64_t{1} << type); }
  void Resize(uint64_t num_blocks) { num_blocks_.store(num_blocks, std::memory_order_relaxed); }
  bool closing();
  // Before the queues are asked for: who attaches a channel from here on finds it.
  void Pause();
  void Unpause() { pauses_.fetch_sub(1, std::memory_order_release); }
  // The queues that have channels, each once.
  std::vector<std::shared_ptr<Queue>> Queues();

  std::atomic<bool> write_;
  std::atomic<bool> removed_{false};
  std::atomic<bool> stopped_{false};
  std::atomic<uint32_t> pauses_{0};
  uint32_t block_size_ = 0;
  size_t buffer_alignment_ = 1;
  uint64_t supported_ = 0;
  std::atomic<uint64_t> num_blocks_{0};
  const uint32_t slot_;
  const std::shared_ptr<Mailbox> mailbox_;

 private:
  std::mutex mutex_;
  bool closing_ = false;
  bool close_begun_ = false;
  bool closed_ = false;
  // One entry per channel; a queue may hold several.
  std::vector<std::shared_ptr<Queue>> channels_;
  std::vector<Done> waiting_for_close_;
};

}  // namespace effect_spdk
