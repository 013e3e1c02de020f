// A loaded blobstore. Everything here runs on SPDK's app thread, which is the blobstore's metadata thread; only the I/O of
// blobs leaves it, over the queues.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "spdk_headers.h"

namespace effect_spdk {

class Blob;

struct BlobstoreOptions {
  enum class Start { kInit, kLoad, kLoadAndGrow };

  Start start = Start::kLoad;
  std::string bdev;
  // At most 16 bytes; empty is any.
  std::string type;
  uint32_t cluster_bytes = 0;
  uint32_t metadata_pages = 0;  // 0: as many as SPDK takes
  bs_clear_method clear_method = BS_CLEAR_WITH_UNMAP;
  bool force_recover = false;
  bool zero_freed = false;
  // While it loads: how many blobs were read.
  std::function<void(uint64_t)> on_progress;
};

// Whether the device can be an external snapshot: SPDK takes what holds whole clusters and no larger blocks than the io unit.
bool FitsUnder(spdk_blob_store* bs, const spdk_bs_dev* dev);

// The runtime remembers it from Open until its device is closed.
class Blobstore : public std::enable_shared_from_this<Blobstore> {
 public:
  using Done = std::function<void(int status)>;

  // Of every channel, and of the metadata thread.
  static constexpr uint32_t kChannelOps = 4096;

  static void Open(BlobstoreOptions options, std::function<void(int, std::shared_ptr<Blobstore>)> opened);

  ~Blobstore();
  Blobstore(const Blobstore&) = delete;
  Blobstore& operator=(const Blobstore&) = delete;

  spdk_blob_store* bs() const { return bs_; }
  spdk_bs_dev* dev() const { return dev_; }
  bool gone() const { return bs_ == nullptr; }
  bool removed() const { return removed_; }
  bool going() const { return going_; }
  // Why nothing more can be asked of it: 0 when it can.
  int Refusal() const;
  // A write of metadata has failed. What it has in memory may differ from what lies on the device, so that nothing is written any
  // more: a load brings back what the device has.
  bool stopped() const { return stopped_; }

  // Clusters are marked that no blob has: the next load is to find out which. SPDK does not give back what a creation that failed
  // has taken.
  void LeaveForRecovery() { recovers_ = true; }

  // A blob that SPDK has made in memory alone: its page is taken until the next load.
  void ForgetBlob(spdk_blob_id id) { forgotten_.insert(id); }
  bool forgot(spdk_blob_id id) const { return forgotten_.contains(id); }

  // Metadata operations in the order in which they came: shared ones side by side, an exclusive one alone. `operation` gets
  // a function to call, once, with how it ended, which runs `done`. It does not run when the blobstore is going away.
  void Run(bool exclusive, Done done, std::function<void(Done ended)> operation);
  // The same for what writes metadata: -ENOTRECOVERABLE from a blobstore that has stopped, also when SPDK does not tell that
  // it did so meanwhile.
  void RunChange(bool exclusive, Done done, std::function<void(Done ended)> operation);

  // And those that SPDK could not close.
  size_t open_blobs() const { return blobs_.size() + stuck_.size(); }
  // The open blobs that are this one or read through it.
  std::vector<std::shared_ptr<Blob>> OpenAbove(spdk_blob_id id) const;
  // Runs `operation` while no queue has I/O of these blobs in SPDK's hands. What comes meanwhile waits.
  static void WhileQuiet(const std::vector<std::shared_ptr<Blob>>& blobs, Done done, std::function<void(Done ended)> operation);

  // -EBUSY while blobs are open. Otherwise the device is closed when `done` runs with 0.
  void Unload(Done done);
  void Destroy(Done done);
  // Takes what the device has gained.
  void Grow(Done done);
  // Closes blobs once their channels are put, and unloads, whatever the device says. `done` runs at once when that has
  // happened already.
  void Shutdown(std::function<void()> done);

  // What runs when the bdev under this blob, or under a snapshot below it, goes away.
  std::function<void(spdk_bs_dev*)> OnExternalSnapshotRemoved(spdk_blob_id id);

  // Of Blob.
  void Attach(const std::shared_ptr<Blob>& blob);
  void CloseBlob(Blob* blob, Done done);

 private:
  struct Operation {
    bool exclusive = false;
    std::function<void()> run;
  };

  Blobstore() = default;

  static void OnEvent(spdk_bdev_event_type type, spdk_bdev* bdev, void* context);
  static int OnExternalSnapshot(void* store, void* open, spdk_blob* blob, const void* id, uint32_t id_bytes, spdk_bs_dev** out);
  static void OnIterated(void* context, spdk_blob* blob, int status);

  void DegradeUnder(std::vector<spdk_blob_id> ids, spdk_bs_dev* lost, Done ended);
  void Degrade(spdk_blob_id id, spdk_bs_dev* lost, Done ended);
  void SetDegraded(spdk_blob* blob, Done ended);
  void Start(const BlobstoreOptions& options);
  void OnOpened(spdk_blob_store* bs, int status);
  void OnMetadataFailed();
  void OnDeviceClosed();
  void GiveUp();
  void Abandon(std::function<void()> closed);
  void Enter(bool exclusive, std::function<void()> run);
  void Leave();
  void RunNext();
  void OnRemoved();
  void UnloadWhenEmpty();
  void UnloadAnyway(const Done& ended);
  void UnloadOnce(Done ended);
  void CloseStuck(std::function<void()> closed);

  std::shared_ptr<Blobstore> self_;  // until the device is closed
  spdk_bs_dev* dev_ = nullptr;
  spdk_blob_store* bs_ = nullptr;
  std::function<void(int, std::shared_ptr<Blobstore>)> opened_;
  std::function<void(uint64_t)> on_progress_;
  uint64_t iterated_ = 0;
  int open_status_ = 0;
  int unload_status_ = 0;
  bool loading_ = true;
  bool removed_ = false;
  bool going_ = false;
  bool unloading_ = false;
  bool stopped_ = false;
  bool recovers_ = false;
  std::set<spdk_blob_id> forgotten_;
  bool zero_freed_ = false;

  std::vector<std::shared_ptr<Blob>> blobs_;
  // Closed by us, and not by SPDK.
  std::vector<spdk_blob*> stuck_;
  std::deque<Operation> waiting_;
  uint32_t running_ = 0;
  bool exclusive_running_ = false;
  bool running_next_ = false;
  std::vector<std::function<void()>> waiting_for_shutdown_;
};

}  // namespace effect_spdk
