#include "blobstore.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <set>
#include <utility>

#include "blob.h"
#include "blob_device.h"
#include "claims.h"
#include "runtime.h"
#include "spdk_calls.h"
#include "store_device.h"

namespace effect_spdk {

namespace {

// The bdevs under loaded blobstores: two on one would destroy each other's metadata.
std::set<spdk_bdev*>& BasesInUse() {
  static auto* const bases = new std::set<spdk_bdev*>;
  return *bases;
}

// The devices of blobstores that SPDK does not unload, until they are closed.
std::map<void*, spdk_bs_dev*>& Abandoned() {
  static auto* const devices = new std::map<void*, spdk_bs_dev*>;
  return *devices;
}

// SPDK's default is more than a small device has, and it compares before it has read the real size.
constexpr uint32_t kSmallestClusterBytes = 4096;

}  // namespace

bool FitsUnder(spdk_blob_store* bs, const spdk_bs_dev* dev) {
  return dev->blockcnt * dev->blocklen % spdk_bs_get_cluster_size(bs) == 0 &&
         spdk_bs_get_io_unit_size(bs) % dev->blocklen == 0;
}

Blobstore::~Blobstore() = default;

void Blobstore::Open(BlobstoreOptions options, std::function<void(int, std::shared_ptr<Blobstore>)> opened) {
  const std::shared_ptr<Blobstore> self(new Blobstore);
  spdk_bs_dev* below = nullptr;
  int rc = 0;
  {
    // Whoever loads it may have claimed it first.
    const LiftedClaim lifted(options.bdev);
    rc = spdk_bdev_create_bs_dev_ext(options.bdev.c_str(), OnEvent, self.get(), &below);
  }
  if (rc != 0) return opened(rc, nullptr);
  spdk_bdev* const base = below->get_base_bdev(below);
  if (!BasesInUse().insert(base).second) {
    below->destroy(below);
    return opened(-EBUSY, nullptr);
  }
  rc = ShareClaim(base);
  if (rc != 0) {
    BasesInUse().erase(base);
    below->destroy(below);
    return opened(rc, nullptr);
  }
  self->self_ = self;
  self->opened_ = std::move(opened);
  self->on_progress_ = std::move(options.on_progress);
  self->zero_freed_ = options.zero_freed;
  Runtime::Get().blobstore_count.fetch_add(1);
  Runtime::Get().Remember(self);
  const auto destroyed = [store = self.get(), base] {
    BasesInUse().erase(base);
    store->OnDeviceClosed();
  };
  const auto closing = [base] { ReleaseClaim(base); };
  self->dev_ = MakeStoreDevice(below, {closing, destroyed, [store = self.get()] { store->OnMetadataFailed(); }});
  self->Start(options);
}

void Blobstore::Start(const BlobstoreOptions& options) {
  spdk_bs_opts opts;
  spdk_bs_opts_init(&opts, sizeof opts);
  opts.max_channel_ops = kChannelOps;
  opts.clear_method = options.clear_method;
  std::memcpy(opts.bstype.bstype, options.type.data(), std::min(options.type.size(), sizeof opts.bstype.bstype));
  opts.esnap_bs_dev_create = OnExternalSnapshot;
  opts.esnap_ctx = this;
  auto on_opened = [this](spdk_blob_store* bs, int status) { OnOpened(bs, status); };
  if (options.start == BlobstoreOptions::Start::kInit) {
    opts.cluster_sz = options.cluster_bytes;
    if (options.metadata_pages != 0) opts.num_md_pages = options.metadata_pages;
    HideWriteFailures(dev_);
    return spdk_bs_init(dev_, &opts, OnStore::Run, OnStore::Keep(on_opened));
  }
  // SPDK compares the device with this size before it has read the real one, and refuses one below a page, which is a physical block
  // where that is larger.
  opts.cluster_sz = std::max(kSmallestClusterBytes, spdk_bdev_get_physical_block_size(dev_->get_base_bdev(dev_)));
  opts.force_recover = options.force_recover;
  opts.iter_cb_fn = OnIterated;
  opts.iter_cb_arg = this;
  if (options.start == BlobstoreOptions::Start::kLoad) return spdk_bs_load(dev_, &opts, OnStore::Run, OnStore::Keep(on_opened));
  spdk_bs_grow(dev_, &opts, OnStore::Run, OnStore::Keep(on_opened));
}

void Blobstore::OnIterated(void* context, spdk_blob*, int) {
  auto* self = static_cast<Blobstore*>(context);
  self->iterated_++;
  if (self->on_progress_) self->on_progress_(self->iterated_);
}

void Blobstore::OnOpened(spdk_blob_store* bs, int status) {
  loading_ = false;
  if (status != 0) {
    open_status_ = status;
    // SPDK destroys the device before this or after; the answer comes when the bdev is closed.
    if (dev_ == nullptr) OnDeviceClosed();
    return;
  }
  bs_ = bs;
  open_status_ = TakeWriteFailure(dev_);
  if (stopped_) open_status_ = -EIO;
  if (open_status_ != 0) return GiveUp();
  KeepSuperBlock(dev_, [this, self = self_](int read) {
    open_status_ = read;
    if (read != 0) return GiveUp();
    // Not before: an initialisation has a method of its own for the whole device.
    if (zero_freed_) ZeroFreed(dev_);
    const auto opened = std::exchange(opened_, nullptr);
    opened(0, self);
    if (removed_ || going_) UnloadWhenEmpty();
  });
}

void Blobstore::OnMetadataFailed() {
  stopped_ = true;
  for (const auto& blob : blobs_) blob->OnStoreStopped();
}

// Initialised in memory, and not on the device. It is answered when the bdev is closed.
void Blobstore::GiveUp() {
  DisconnectDevice(dev_);
  UnloadOnce([self = self_](int) {
    if (!self->gone()) self->Abandon([] {});
  });
}

// What SPDK does not unload, without memory for one, loses its device all the same. What it has in memory is never freed.
void Blobstore::Abandon(std::function<void()> closed) {
  waiting_for_shutdown_.push_back(std::move(closed));
  Abandoned()[bs_] = dev_;
  // The one of the metadata thread, which is this one. It is put for us and for SPDK.
  spdk_io_channel* const channel = spdk_bs_alloc_io_channel(bs_);
  if (channel != nullptr) {
    spdk_put_io_channel(channel);
    spdk_put_io_channel(channel);
  }
  spdk_io_device_unregister(bs_, [](void* bs) {
    spdk_bs_dev* const dev = Abandoned()[bs];
    Abandoned().erase(bs);
    dev->destroy(dev);
  });
}

// Also when it never opened.
void Blobstore::OnDeviceClosed() {
  dev_ = nullptr;
  if (loading_) return;
  bs_ = nullptr;
  const auto self = std::exchange(self_, nullptr);
  Runtime::Get().blobstore_count.fetch_sub(1);
  Runtime::Get().Forget(this);
  if (opened_) std::exchange(opened_, nullptr)(removed_ ? -ESHUTDOWN : open_status_, nullptr);
  for (const auto& done : std::exchange(waiting_for_shutdown_, {})) done();
}

// Why nothing more can be asked of it: 0 when it can.
int Blobstore::Refusal() const {
  if (removed_) return -ESHUTDOWN;
  return bs_ == nullptr || going_ ? -EBADF : 0;
}

void Blobstore::Run(bool exclusive, Done done, std::function<void(Done)> operation) {
  Enter(exclusive, [self = shared_from_this(), done = std::move(done), operation = std::move(operation)] {
    const auto end = [self, done](int status) {
      // A device that is gone fails what was under way with whatever it finds.
      done(status != 0 && self->removed_ ? -ESHUTDOWN : status);
      self->Leave();
    };
    const int refusal = self->Refusal();
    if (refusal != 0) return end(refusal);
    operation(end);
  });
}

void Blobstore::RunChange(bool exclusive, Done done, std::function<void(Done)> operation) {
  // Within the run: it may stop while this waits for its turn.
  Run(exclusive, std::move(done), [this, operation = std::move(operation)](const Done& ended) {
    if (stopped_) return ended(-ENOTRECOVERABLE);
    operation([this, ended](int status) { ended(stopped_ ? -ENOTRECOVERABLE : status); });
  });
}

void Blobstore::Enter(bool exclusive, std::function<void()> run) {
  waiting_.push_back({exclusive, std::move(run)});
  RunNext();
}

void Blobstore::Leave() {
  running_--;
  exclusive_running_ = false;
  RunNext();
}

// Operations may end inside of their start: they are run from here, and not from each other.
void Blobstore::RunNext() {
  if (std::exchange(running_next_, true)) return;
  while (!waiting_.empty() && !exclusive_running_ && !(waiting_.front().exclusive && running_ != 0)) {
    const Operation operation = std::move(waiting_.front());
    waiting_.pop_front();
    running_++;
    exclusive_running_ = operation.exclusive;
    operation.run();
  }
  running_next_ = false;
}

void Blobstore::Unload(Done done) {
  Run(true, std::move(done), [this](const Done& ended) {
    if (!blobs_.empty()) return ended(-EBUSY);
    unloading_ = true;
    UnloadAnyway(ended);
  });
}

// What cannot be written is given up, so that memory and bdev come back; `ended` tells that it was.
void Blobstore::UnloadAnyway(const Done& ended) {
  CloseStuck([this, self = shared_from_this(), ended] {
    // It stays marked as in use, and the next load recovers what lies there. Whoever needed what was not written was told.
    if (stopped_ || recovers_) DisconnectDevice(dev_);
    UnloadOnce([this, self, ended](int status) {
      if (unload_status_ == 0) unload_status_ = status;
      if (gone()) return ended(unload_status_);
      DisconnectDevice(dev_);
      UnloadOnce([this, self, ended](int) {
        if (gone()) return ended(unload_status_);
        Abandon([self, ended] { ended(self->unload_status_); });
      });
    });
  });
}

void Blobstore::UnloadOnce(Done ended) { spdk_bs_unload(bs_, OnStatus::Run, OnStatus::Keep(std::move(ended))); }

// The metadata of clusters may be longer afterwards: what the device would be disconnected with has to be the new super block.
void Blobstore::Grow(Done done) {
  RunChange(true, std::move(done), [this](const Done& ended) {
    UpdateBlockCount(dev_);
    spdk_bs_grow_live(bs_, OnStatus::Run, OnStatus::Keep([this, ended](int status) {
                        KeepSuperBlock(dev_, [status, ended](int read) { ended(status != 0 ? status : read); });
                      }));
  });
}

void Blobstore::Destroy(Done done) {
  Run(true, std::move(done), [this](const Done& ended) {
    if (!blobs_.empty() || !stuck_.empty()) return ended(-EBUSY);
    unloading_ = true;
    spdk_bs_destroy(bs_, OnStatus::Run, OnStatus::Keep([this, self = shared_from_this(), ended](int status) {
                      unloading_ = false;
                      ended(status);
                      if (!gone() && (removed_ || going_)) UnloadWhenEmpty();
                    }));
  });
}

void Blobstore::Attach(const std::shared_ptr<Blob>& blob) {
  blobs_.push_back(blob);
  if (stopped_) blob->OnStoreStopped();
}

// Not by way of Run: it must go through while the blobstore goes away.
void Blobstore::CloseBlob(Blob* blob, Done done) {
  Enter(false, [this, self = shared_from_this(), blob, done = std::move(done)] {
    spdk_blob* const handle = blob->blob();
    spdk_blob_close(handle, OnStatus::Run, OnStatus::Keep([this, self, blob, handle, done](int status) {
                      // SPDK closes what it could not write. Without memory to try it, it does not.
                      if (status == -ENOMEM) stuck_.push_back(handle);
                      std::erase_if(blobs_, [blob](const auto& known) { return known.get() == blob; });
                      done(status != 0 && removed_ ? -ESHUTDOWN : status);
                      Leave();
                      if (removed_ || going_) UnloadWhenEmpty();
                    }));
  });
}

void Blobstore::OnEvent(spdk_bdev_event_type type, spdk_bdev*, void* context) {
  if (type == SPDK_BDEV_EVENT_REMOVE) static_cast<Blobstore*>(context)->OnRemoved();
}

// Blobs close, the blobstore unloads, the bdev is closed: SPDK's removal of it waits for that.
void Blobstore::OnRemoved() {
  if (std::exchange(removed_, true)) return;
  const auto self = shared_from_this();
  const auto blobs = blobs_;
  for (const auto& blob : blobs) blob->OnStoreRemoved();
  UnloadWhenEmpty();
}

void Blobstore::Shutdown(std::function<void()> done) {
  if (dev_ == nullptr) return done();
  waiting_for_shutdown_.push_back(std::move(done));
  if (std::exchange(going_, true)) return;
  const auto self = shared_from_this();
  const auto blobs = blobs_;
  for (const auto& blob : blobs) blob->Close([](int) {});
  UnloadWhenEmpty();
}

void Blobstore::UnloadWhenEmpty() {
  if (bs_ == nullptr || loading_ || opened_ || !blobs_.empty() || unloading_) return;
  unloading_ = true;
  Enter(true, [this, self = shared_from_this()] {
    // An unload that somebody asked for may have been before it in the line.
    if (gone()) return Leave();
    // What was being opened when it began to go away is closed by whoever opened it, and not yet.
    if (!blobs_.empty()) {
      unloading_ = false;
      return Leave();
    }
    UnloadAnyway([self](int) { self->Leave(); });
  });
}

// SPDK unloads no blobstore with open blobs.
void Blobstore::CloseStuck(std::function<void()> closed) {
  if (stuck_.empty()) return closed();
  spdk_blob* const blob = stuck_.back();
  stuck_.pop_back();
  spdk_blob_close(blob, OnStatus::Run, OnStatus::Keep([this, self = shared_from_this(), closed](int status) {
                    if (unload_status_ == 0) unload_status_ = status;
                    CloseStuck(closed);
                  }));
}

int Blobstore::OnExternalSnapshot(void* store, void* open, spdk_blob* blob, const void* id, uint32_t id_bytes,
                                  spdk_bs_dev** out) {
  std::string name(static_cast<const char*>(id), id_bytes);
  // A UUID may have been stored with the byte that ends it, as SPDK's logical volumes do.
  while (!name.empty() && name.back() == '\0') name.pop_back();
  auto* self = static_cast<Blobstore*>(store);
  // While it loads, SPDK looks at the metadata of every blob and at nothing else.
  const int rc = self->bs_ == nullptr
                     ? -EAGAIN
                     : OpenExternalSnapshot(name, self->OnExternalSnapshotRemoved(spdk_blob_get_id(blob)), out);
  if (rc == 0 && FitsUnder(self->bs_, *out)) return 0;
  if (rc == 0) (*out)->destroy(*out);
  // Whoever opens it wants to read it; SPDK itself wants its metadata, to list or to delete it.
  if (open != nullptr) return rc == 0 ? -EINVAL : rc;
  *out = DegradedDevice();
  return 0;
}

std::function<void(spdk_bs_dev*)> Blobstore::OnExternalSnapshotRemoved(spdk_blob_id id) {
  return [weak = weak_from_this(), id](spdk_bs_dev* lost) {
    const auto self = weak.lock();
    if (self == nullptr) return;
    self->Run(true, [](int) {}, [self, id, lost](const Done& ended) {
      // The blob may be gone, and its device in a snapshot: every open blob is looked under.
      std::vector<spdk_blob_id> ids = {id};
      for (const auto& blob : self->blobs_) ids.push_back(spdk_blob_get_id(blob->blob()));
      self->DegradeUnder(std::move(ids), lost, ended);
    });
  };
}

void Blobstore::DegradeUnder(std::vector<spdk_blob_id> ids, spdk_bs_dev* lost, Done ended) {
  if (ids.empty()) return ended(0);
  const spdk_blob_id id = ids.back();
  ids.pop_back();
  Degrade(id, lost, [this, ids = std::move(ids), lost, ended = std::move(ended)](int status) {
    if (status == 0) return ended(0);
    DegradeUnder(ids, lost, ended);
  });
}

// A snapshot that was taken meanwhile has the device now: it is looked for from the blob downwards.
void Blobstore::Degrade(spdk_blob_id id, spdk_bs_dev* lost, Done ended) {
  const auto on_blob = [this, self = shared_from_this(), id, lost, ended = std::move(ended)](spdk_blob* blob, int status) {
    if (status != 0) return ended(status);
    const spdk_blob_id parent = spdk_blob_get_parent_snapshot(bs_, id);
    const auto close = [this, self, blob, lost, ended](spdk_blob_id next, int found) {
      spdk_blob_close(blob, OnStatus::Run, OnStatus::Keep([this, self, lost, next, found, ended](int) {
                        if (next == SPDK_BLOBID_INVALID) return ended(found);
                        Degrade(next, lost, ended);
                      }));
    };
    if (!spdk_blob_is_esnap_clone(blob) || spdk_blob_get_esnap_bs_dev(blob) != lost) return close(parent, -ENOENT);
    SetDegraded(blob, [close](int) { close(SPDK_BLOBID_INVALID, 0); });
  };
  spdk_bs_open_blob(bs_, id, OnBlob::Run, OnBlob::Keep(on_blob));
}

// SPDK takes the channels to the device from under the I/O of the blob, and of what lies above it.
void Blobstore::SetDegraded(spdk_blob* blob, Done ended) {
  WhileQuiet(blobs_, std::move(ended), [blob](const Done& done) {
    spdk_blob_set_esnap_bs_dev(blob, DegradedDevice(), OnStatus::Run, OnStatus::Keep(done));
  });
}

std::vector<std::shared_ptr<Blob>> Blobstore::OpenAbove(spdk_blob_id id) const {
  std::vector<std::shared_ptr<Blob>> above;
  for (const auto& open : blobs_) {
    spdk_blob_id at = spdk_blob_get_id(open->blob());
    while (at != id && at != SPDK_BLOBID_INVALID) at = spdk_blob_get_parent_snapshot(bs_, at);
    if (at == id) above.push_back(open);
  }
  return above;
}

void Blobstore::WhileQuiet(const std::vector<std::shared_ptr<Blob>>& blobs, Done done, std::function<void(Done)> operation) {
  struct Pausing {
    std::vector<Done> resume;
    size_t left = 0;
  };
  const auto pausing = std::make_shared<Pausing>();
  pausing->left = blobs.size() + 1;
  const auto one_less = [pausing, done = std::move(done), operation = std::move(operation)] {
    if (--pausing->left != 0) return;
    operation([pausing, done](int status) {
      for (const Done& resume : std::exchange(pausing->resume, {})) resume(0);
      done(status);
    });
  };
  for (const auto& blob : blobs) {
    blob->WhileQuiet([](int) {}, [pausing, one_less](Done resume) {
      pausing->resume.push_back(std::move(resume));
      one_less();
    });
  }
  one_less();
}

}  // namespace effect_spdk
