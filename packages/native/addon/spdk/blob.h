// An open blob. Its metadata is used on the app thread; its I/O goes over the queues.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "blobstore.h"
#include "target.h"

namespace effect_spdk {

class Blob final : public Target {
 public:
  using Opened = std::function<void(int status, std::shared_ptr<Blob> blob)>;

  // `slot` names the blob in the events that `mailbox` gets.
  static void Open(const std::shared_ptr<Blobstore>& store, spdk_blob_id id, blob_clear_method clear_method, uint32_t slot,
                   std::shared_ptr<Mailbox> mailbox, Opened opened);

  ~Blob() override;

  Blob* AsBlob() override { return this; }
  spdk_blob* blob() const { return blob_; }
  const std::shared_ptr<Blobstore>& store() const { return store_; }

  spdk_io_channel* GetIoChannel() override;

  // App thread, below. An operation on the open blob: it is not closed before that has ended, and none starts once it closes.
  void Run(bool exclusive, Done done, std::function<void(Done ended)> operation);
  // Why nothing more can be asked of it: 0 when it can.
  int Refusal();
  // SPDK takes no notice of the extent pages that it finds no metadata page for, and makes a blob that has clusters in name only.
  // This answers -ENOSPC then, and nothing has changed.
  static void ResizeWhole(Blobstore& store, spdk_blob* blob, uint64_t clusters, Done done);
  // Writes the metadata. -ENOMEM when there are no pages for it, which SPDK tells nobody.
  static void SyncWhole(Blobstore& store, spdk_blob* blob, Done done);
  // Runs `operation` while no queue has I/O in SPDK's hands. App thread, then and at the end.
  void WhileQuiet(Done done, std::function<void(Done ended)> operation);
  void ResizeTo(uint64_t clusters, Done done);
  // Those that come while one is under way share the next one. SPDK joins them too, and then keeps the errors of all but
  // the first to itself.
  void Sync(Done done);
  // In memory, until a sync.
  int SetReadOnly();
  int SetXattr(const std::string& name, const std::string& value);
  int RemoveXattr(const std::string& name);
  // Also after SetReadOnly, which SPDK heeds only once that is synced.
  bool read_only() const { return read_only_; }
  // Of the store: its device is gone.
  void OnStoreRemoved() { Remove(); }
  // Of the store: it does not write any more.
  void OnStoreStopped() { Stop(); }

 private:
  Blob(std::shared_ptr<Blobstore> store, spdk_blob* blob, uint32_t slot, std::shared_ptr<Mailbox> mailbox);

  bool busy() const override { return operations_ != 0; }
  void CloseNow() override;
  void ResizeNow(uint64_t clusters, const Done& ended);
  void SyncNext();
  void SyncNow(const Done& ended);
  void MarkDirtyAgain();

  const std::shared_ptr<Blobstore> store_;
  spdk_blob* const blob_;
  bool read_only_;
  uint32_t operations_ = 0;
  std::vector<Done> waiting_for_sync_;
  bool syncing_ = false;
  // By us, and not synced yet. What I/O changes it writes itself.
  bool changed_ = false;
  // What is in memory is not on the device, whatever SPDK thinks.
  bool sync_failed_ = false;
};

}  // namespace effect_spdk
