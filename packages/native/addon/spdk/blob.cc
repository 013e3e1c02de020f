#include "blob.h"

#include <cerrno>
#include <utility>

#include "queue.h"
#include "runtime.h"
#include "spdk_calls.h"
#include "store_device.h"

namespace effect_spdk {

Blob::Blob(std::shared_ptr<Blobstore> store, spdk_blob* blob, uint32_t slot, std::shared_ptr<Mailbox> mailbox)
    : Target(!spdk_blob_is_read_only(blob), slot, std::move(mailbox)), store_(std::move(store)), blob_(blob), read_only_(!write()) {
  block_size_ = static_cast<uint32_t>(spdk_bs_get_io_unit_size(store_->bs()));
  buffer_alignment_ = spdk_bdev_get_buf_align(store_->dev()->get_base_bdev(store_->dev()));
  Resize(spdk_blob_get_num_io_units(blob));
  SetSupported(SPDK_BDEV_IO_TYPE_READ);
  SetSupported(SPDK_BDEV_IO_TYPE_WRITE);
  SetSupported(SPDK_BDEV_IO_TYPE_UNMAP);
  SetSupported(SPDK_BDEV_IO_TYPE_WRITE_ZEROES);
}

Blob::~Blob() = default;

void Blob::Open(const std::shared_ptr<Blobstore>& store, spdk_blob_id id, blob_clear_method clear_method, uint32_t slot,
                std::shared_ptr<Mailbox> mailbox, Opened opened) {
  auto found = std::make_shared<std::shared_ptr<Blob>>();
  const auto done = [found, opened = std::move(opened)](int status) { opened(status, std::move(*found)); };
  store->Run(false, done, [store, id, clear_method, slot, mailbox = std::move(mailbox), found](const Done& ended) {
    spdk_blob_open_opts opts;
    spdk_blob_open_opts_init(&opts, sizeof opts);
    opts.clear_method = clear_method;
    // Tells whoever opens an external snapshot that this is not SPDK itself.
    opts.esnap_ctx = store.get();
    const auto on_blob = [store, slot, mailbox, found, ended](spdk_blob* blob, int status) {
      if (status != 0) return ended(status);
      found->reset(new Blob(store, blob, slot, mailbox));
      Runtime::Get().blob_count.fetch_add(1);
      store->Attach(*found);
      if (!store->removed() && !store->going()) return ended(0);
      // Too late. The blobstore is waiting for it to close.
      const auto late = std::move(*found);
      late->Close([](int) {});
      ended(-ESHUTDOWN);
    };
    spdk_bs_open_blob_ext(store->bs(), id, &opts, OnBlob::Run, OnBlob::Keep(on_blob));
  });
}

spdk_io_channel* Blob::GetIoChannel() { return spdk_bs_alloc_io_channel(store_->bs()); }

int Blob::Refusal() {
  if (removed()) return -ESHUTDOWN;
  return closing() ? -EBADF : 0;
}

void Blob::Run(bool exclusive, Done done, std::function<void(Done)> operation) {
  const int refusal = Refusal();
  if (refusal != 0) return done(refusal);
  operations_++;
  const auto self = shared_from_this();
  store_->RunChange(
      exclusive,
      [this, self, done = std::move(done)](int status) {
        done(status);
        operations_--;
        CloseIfUnused();
      },
      std::move(operation));
}

void Blob::WhileQuiet(Done done, std::function<void(Done)> operation) {
  struct Quiet {
    std::vector<std::shared_ptr<Queue>> queues;
    size_t left = 0;
  };
  auto quiet = std::make_shared<Quiet>();
  Pause();
  quiet->queues = Queues();
  quiet->left = quiet->queues.size() + 1;
  const auto self = shared_from_this();
  const auto ended = [this, self, done = std::move(done)](int status) {
    Unpause();
    for (const auto& queue : Queues()) queue->Resume();
    done(status);
  };
  const auto one_less = [self, quiet, ended, operation = std::move(operation)] {
    if (--quiet->left == 0) operation(ended);
  };
  for (const auto& queue : quiet->queues) {
    queue->Pause(self, [one_less] { Runtime::Get().PostToApp(one_less); });
  }
  one_less();
}

void Blob::ResizeTo(uint64_t clusters, Done done) {
  // Alone: SPDK writes metadata in several steps, and a change of size between two of them is lost, or damages the blob.
  // Quiet: I/O that takes clusters writes metadata too, and nothing must be on its way to clusters that are given up.
  Run(true, std::move(done), [this, clusters](const Done& finished) {
    WhileQuiet(finished, [this, clusters](const Done& ended) { ResizeNow(clusters, ended); });
  });
}

// Smaller is written at once: the next write of metadata, which may be that of a write that takes a cluster, would move the
// list of clusters from under the I/O of other channels.
void Blob::ResizeNow(uint64_t clusters, const Done& ended) {
  const bool shrinks = clusters < spdk_blob_get_num_clusters(blob_);
  ResizeWhole(*store_, blob_, clusters, [this, shrinks, ended](int status) {
    Resize(spdk_blob_get_num_io_units(blob_));
    if (status != 0) return ended(status);
    changed_ = true;
    if (!shrinks) return ended(0);
    SyncNow(ended);
  });
}

void Blob::ResizeWhole(Blobstore& store, spdk_blob* blob, uint64_t clusters, Done done) {
  const uint64_t before = spdk_blob_get_num_clusters(blob);
  const uint64_t allocated = spdk_blob_get_num_allocated_clusters(blob);
  spdk_blob_resize(blob, clusters, OnStatus::Run, OnStatus::Keep([=, &store, done = std::move(done)](int status) {
                     const uint64_t gained = spdk_blob_get_num_allocated_clusters(blob) - allocated;
                     const bool whole = clusters <= before || spdk_blob_is_thin_provisioned(blob) || gained == clusters - before;
                     if (status != 0 || whole) return done(status);
                     // Synced at once: that is what gives back what it took.
                     const auto given_back = [done](int failed) { done(failed == 0 ? -ENOSPC : failed); };
                     spdk_blob_resize(blob, before, OnStatus::Run, OnStatus::Keep([&store, blob, given_back](int failed) {
                                        if (failed != 0) return given_back(failed);
                                        SyncWhole(store, blob, given_back);
                                      }));
                   }));
}

void Blob::Sync(Done done) {
  Run(false, std::move(done), [this](const Done& ended) {
    waiting_for_sync_.push_back(ended);
    SyncNext();
  });
}

void Blob::SyncNext() {
  if (waiting_for_sync_.empty() || std::exchange(syncing_, true)) return;
  const auto on_synced = [this, waiting = std::exchange(waiting_for_sync_, {})](int status) {
    syncing_ = false;
    // The operations keep the blob open: the next sync starts before the last of these ends.
    SyncNext();
    for (const Done& ended : waiting) ended(status);
  };
  if (!changed_ && !sync_failed_) return SyncNow(on_synced);
  // Quiet: SPDK puts copies in the place of the lists of clusters and extent pages that it has written, and frees the old ones.
  WhileQuiet(on_synced, [this](const Done& ended) { SyncNow(ended); });
}

void Blob::SyncNow(const Done& ended) {
  if (sync_failed_) MarkDirtyAgain();
  changed_ = false;
  SyncWhole(*store_, blob_, [this, ended](int status) {
    sync_failed_ = status != 0;
    ended(status);
  });
}

void Blob::SyncWhole(Blobstore& store, spdk_blob* blob, Done done) {
  const auto writes = WatchMetadata(store.dev());
  // Before the call returns: there was nothing to write.
  const auto at_once = std::make_shared<bool>(true);
  const spdk_blob_id id = spdk_blob_get_id(blob);
  spdk_blob_sync_md(blob, OnStatus::Run, OnStatus::Keep([writes, at_once, id, done = std::move(done)](int status) {
                      done(status == 0 && !*at_once && !writes->Has(id) ? -ENOMEM : status);
                    }));
  *at_once = false;
}

int Blob::SetXattr(const std::string& name, const std::string& value) {
  const int status = spdk_blob_set_xattr(blob_, name.c_str(), value.data(), static_cast<uint16_t>(value.size()));
  if (status == 0) changed_ = true;
  return status;
}

int Blob::RemoveXattr(const std::string& name) {
  const int status = spdk_blob_remove_xattr(blob_, name.c_str());
  if (status == 0) changed_ = true;
  return status;
}

// SPDK takes metadata for clean as soon as it begins to write it, and would write nothing the next time.
void Blob::MarkDirtyAgain() {
  static constexpr char kName[] = "effect_spdk_dirty";
  if (read_only()) {
    spdk_blob_set_read_only(blob_);
    return;
  }
  const void* value = nullptr;
  size_t length = 0;
  if (spdk_blob_get_xattr_value(blob_, kName, &value, &length) == 0) {
    const std::string copy(static_cast<const char*>(value), length);
    spdk_blob_set_xattr(blob_, kName, copy.data(), static_cast<uint16_t>(copy.size()));
    return;
  }
  spdk_blob_set_xattr(blob_, kName, kName, sizeof kName);
  spdk_blob_remove_xattr(blob_, kName);
}

int Blob::SetReadOnly() {
  if (read_only()) return 0;
  const int status = spdk_blob_set_read_only(blob_);
  if (status != 0) return status;
  write_ = false;
  read_only_ = true;
  changed_ = true;
  return 0;
}

void Blob::CloseNow() {
  const auto self = shared_from_this();
  const bool stopped = store_->stopped();
  // Of a store that has stopped only that is news which nobody has tried to sync.
  const int lost = changed_ ? -ENOTRECOVERABLE : 0;
  if (sync_failed_ && !stopped) MarkDirtyAgain();
  const auto close = [this, self, stopped, lost](int synced) {
    store_->CloseBlob(this, [this, self, stopped, lost, synced](int status) {
      Runtime::Get().blob_count.fetch_sub(1);
      if (status == 0) status = synced;
      Closed(stopped && status != -ESHUTDOWN ? lost : status);
    });
  };
  // Before the close, which would not tell that there was no page for it.
  if (!stopped && !store_->removed() && (changed_ || sync_failed_)) return SyncWhole(*store_, blob_, close);
  close(0);
}

}  // namespace effect_spdk
