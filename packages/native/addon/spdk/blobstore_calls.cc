#include "blobstore_calls.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <iterator>
#include <utility>

#include "blob_device.h"
#include "runtime.h"
#include "spdk_calls.h"
#include "store_device.h"

namespace effect_spdk {

namespace {

// An id is the index of a metadata page with this bit set.
constexpr uint64_t kBlobIdBit = uint64_t{1} << 32;

// One extent page knows more clusters than these.
constexpr uint64_t kCertainClusters = 512;

using Ended = std::function<void(int status)>;
using Store = std::shared_ptr<Blobstore>;

// SPDK ends names at a NUL, and counts values in 16 bits.
int CheckXattr(const std::string& name, const std::string& value) {
  if (name.empty() || name.find('\0') != std::string::npos) return -EINVAL;
  return value.size() > UINT16_MAX ? -ENOMEM : 0;
}

// Extended attributes (the values of a call: name, value, name, value, ...) as SPDK asks for them, one by one, until the blob
// that gets them is there.
class XattrList {
 public:
  explicit XattrList(std::vector<std::string> pairs) : pairs_(std::move(pairs)) {
    for (size_t i = 0; i + 1 < pairs_.size(); i += 2) names_.push_back(pairs_[i].data());
  }
  XattrList(const XattrList&) = delete;
  XattrList& operator=(const XattrList&) = delete;

  int Check() const {
    if (pairs_.size() % 2 != 0) return -EINVAL;
    for (size_t i = 0; i < pairs_.size(); i += 2) {
      const int status = CheckXattr(pairs_[i], pairs_[i + 1]);
      if (status != 0) return status;
    }
    return 0;
  }

  int SetOn(spdk_blob* blob) const {
    int status = 0;
    for (size_t i = 0; i + 1 < pairs_.size() && status == 0; i += 2) {
      const std::string& value = pairs_[i + 1];
      status = spdk_blob_set_xattr(blob, pairs_[i].c_str(), value.data(), static_cast<uint16_t>(value.size()));
    }
    return status;
  }

  spdk_blob_xattr_opts Options() {
    return {.count = names_.size(), .names = names_.data(), .ctx = this, .get_value = GetValue};
  }

 private:
  static void GetValue(void* context, const char* name, const void** value, size_t* length) {
    const std::vector<std::string>& pairs = static_cast<XattrList*>(context)->pairs_;
    size_t at = 0;
    while (pairs[at] != name) at += 2;
    *value = pairs[at + 1].data();
    *length = pairs[at + 1].size();
  }

  std::vector<std::string> pairs_;
  std::vector<char*> names_;
};

blob_clear_method ClearMethodOf(const BlobstoreCall& call, size_t index) {
  return static_cast<blob_clear_method>(std::min(call.U32(index), static_cast<uint32_t>(BLOB_CLEAR_WITH_WRITE_ZEROES)));
}

// Runs a change that answers with a status only.
void RunPlain(const Store& store, bool exclusive, const Answered& answered, std::function<void(Ended)> operation) {
  store->RunChange(exclusive, [answered](int status) { answered(StatusOnly(status)); }, std::move(operation));
}

// The same, alone, and while no I/O of the blob is in SPDK's hands, nor of those that read through it. SPDK holds what comes while it
// exchanges lists of clusters, but does not wait for what is on its way: a first write of a cluster that was under way when a
// snapshot took the extent pages writes its own over metadata page 0, and a read goes on in a snapshot that is deleted.
void RunQuiet(const Store& store, spdk_blob_id id, const Answered& answered, std::function<void(Ended)> operation) {
  RunPlain(store, true, answered, [store, id, operation = std::move(operation)](const Ended& ended) {
    Blobstore::WhileQuiet(store->OpenAbove(id), ended, operation);
  });
}

// Runs a change of what a blob is made of, with the blob open. SPDK does not tell that it has had no page left for the metadata. When
// the blob has what cannot be written, it is another on the device than in memory, and so may be its parents: the store stops.
void RunWhole(const Store& store, spdk_blob_id id, const Ended& ended, const std::function<void(Ended)>& operation) {
  const auto on_open = [store, ended, operation](spdk_blob* blob, int unopened) {
    // The operation finds out by itself.
    if (unopened != 0) return operation(ended);
    operation([store, blob, ended](int status) {
      const auto close = [blob, ended](int result) {
        spdk_blob_close(blob, OnStatus::Run, OnStatus::Keep([ended, result](int) { ended(result); }));
      };
      if (status != 0) return close(status);
      Blob::SyncWhole(*store, blob, [store, close](int synced) {
        if (synced != 0) FailMetadata(store->dev());
        close(synced);
      });
    });
  };
  spdk_bs_open_blob(store->bs(), id, OnBlob::Run, OnBlob::Keep(on_open));
}

// Runs a change that answers with the number of a blob, while `quiet` and what reads through it is; SPDK_BLOBID_INVALID: nobody is.
void RunForId(const Store& store, bool exclusive, const Answered& answered, spdk_blob_id quiet,
              const std::function<void(spdk_blob_op_with_id_complete, void*)>& operation) {
  const auto id = std::make_shared<spdk_blob_id>(0);
  store->RunChange(
      exclusive,
      [id, answered](int status) {
        answered({status, {}, status == 0 ? BytesOf({static_cast<double>(*id)}) : ""});
      },
      [store, quiet, id, operation](const Ended& ended) {
        const auto make = [id, operation](const Ended& made) {
          operation(OnBlobId::Run, OnBlobId::Keep([id, made](spdk_blob_id known, int status) {
                      *id = known;
                      made(status);
                    }));
        };
        if (quiet == SPDK_BLOBID_INVALID) return make(ended);
        Blobstore::WhileQuiet(store->OpenAbove(quiet), ended, [store, quiet, make](const Ended& done) {
          RunWhole(store, quiet, done, make);
        });
      });
}

// Gives the blob, which nobody knows yet, what it is to have, and syncs it once: that makes all of it durable, or nothing.
void Complete(const Store& store, spdk_blob* blob, uint64_t clusters, const std::shared_ptr<XattrList>& xattrs, const Ended& ended) {
  Blob::ResizeWhole(*store, blob, clusters, [store, blob, xattrs, ended](int resized) {
    const int status = resized != 0 ? resized : xattrs->SetOn(blob);
    if (status != 0) return ended(status);
    Blob::SyncWhole(*store, blob, ended);
  });
}

// A blob with several extent pages: SPDK's creation takes no notice of those that it finds no metadata page for.
void CreateInSteps(const Store& store, spdk_blob_opts opts, const std::shared_ptr<XattrList>& xattrs,
                   const std::function<void(spdk_blob_id, int)>& ended) {
  const uint64_t clusters = std::exchange(opts.num_clusters, 0);
  opts.xattrs = {};
  const auto remove = [store, ended](spdk_blob_id id, int status) {
    spdk_bs_delete_blob(store->bs(), id, OnStatus::Run, OnStatus::Keep([ended, status](int) {
                          ended(SPDK_BLOBID_INVALID, status);
                        }));
  };
  const auto on_made = [store, clusters, xattrs, ended, remove](spdk_blob_id id, int failed) {
    if (failed != 0) return ended(id, failed);
    const auto on_open = [store, id, clusters, xattrs, ended, remove](spdk_blob* blob, int unopened) {
      if (unopened != 0) return remove(id, unopened);
      Complete(store, blob, clusters, xattrs, [id, blob, ended, remove](int completed) {
        spdk_blob_close(blob, OnStatus::Run, OnStatus::Keep([id, completed, ended, remove](int closed) {
                          const int status = completed != 0 ? completed : closed;
                          if (status != 0) return remove(id, status);
                          ended(id, 0);
                        }));
      });
    };
    spdk_bs_open_blob(store->bs(), id, OnBlob::Run, OnBlob::Keep(on_open));
  };
  spdk_bs_create_blob_ext(store->bs(), &opts, OnBlobId::Run, OnBlobId::Keep(on_made));
}

// create [clusters, thin, clear method, extent table] [external snapshot or ""] xattrs -> number: the id
void Create(const Store& store, const BlobstoreCall& call, const Answered& answered) {
  const auto xattrs = std::make_shared<XattrList>(call.values);
  const int status = xattrs->Check();
  if (status != 0) return answered(StatusOnly(status));
  RunForId(store, false, answered, SPDK_BLOBID_INVALID, [store, call, xattrs](spdk_blob_op_with_id_complete done, void* context) {
    spdk_blob_opts opts;
    spdk_blob_opts_init(&opts, sizeof opts);
    opts.num_clusters = static_cast<uint64_t>(call.Number(0));
    opts.thin_provision = call.Bool(1);
    opts.clear_method = ClearMethodOf(call, 2);
    opts.use_extent_table = call.Bool(3);
    opts.xattrs = xattrs->Options();
    const std::string external = call.Text(0);
    if (!external.empty()) {
      spdk_bs_dev* dev = nullptr;
      int rc = OpenExternalSnapshot(external, nullptr, &dev);
      if (rc == 0 && !FitsUnder(store->bs(), dev)) rc = -EINVAL;
      if (dev != nullptr) dev->destroy(dev);
      if (rc != 0) return done(context, SPDK_BLOBID_INVALID, rc);
      opts.esnap_id = external.data();
      opts.esnap_id_len = external.size();
    }
    const uint64_t free = spdk_bs_free_cluster_count(store->bs());
    const auto ended = [store, free, done, context, writes = WatchMetadata(store->dev())](spdk_blob_id id, int failed) {
      if (failed == 0 && !writes->Has(id)) {
        store->ForgetBlob(id);
        store->LeaveForRecovery();
        return done(context, SPDK_BLOBID_INVALID, -ENOMEM);
      }
      if (failed != 0 && spdk_bs_free_cluster_count(store->bs()) < free) store->LeaveForRecovery();
      done(context, id, failed);
    };
    const bool in_steps = !opts.thin_provision && opts.use_extent_table && opts.num_clusters > kCertainClusters;
    if (in_steps) return CreateInSteps(store, opts, xattrs, ended);
    // Everything that the options point at is read before this returns.
    spdk_bs_create_blob_ext(store->bs(), &opts, OnBlobId::Run, OnBlobId::Keep(ended));
  });
}

// Comes after all that the channels of the blobstore were sent before.
void AfterChannels(spdk_blob_store* bs, std::function<void()> then) {
  spdk_for_each_channel(
      bs, [](spdk_io_channel_iter* at) { spdk_for_each_channel_continue(at, 0); },
      new std::function<void()>(std::move(then)), [](spdk_io_channel_iter* at, int) {
        const std::unique_ptr<std::function<void()>> kept(static_cast<std::function<void()>*>(spdk_io_channel_iter_get_ctx(at)));
        (*kept)();
      });
}

// delete [id]
void Delete(const Store& store, spdk_blob_id id, const Answered& answered) {
  RunQuiet(store, id, answered, [store, id](const Ended& ended) {
    const auto once_more = [store, id, ended](int status) {
      if (status != -EBUSY) return ended(status);
      // A clone that closes says so before its snapshot has let go of an external snapshot, which it does channel by channel.
      AfterChannels(store->bs(), [store, id, ended] {
        spdk_bs_delete_blob(store->bs(), id, OnStatus::Run, OnStatus::Keep(ended));
      });
    };
    spdk_bs_delete_blob(store->bs(), id, OnStatus::Run, OnStatus::Keep(once_more));
  });
}

// snapshot, clone [id] [] xattrs -> number: the id of the new blob
void Derive(const Store& store, const BlobstoreCall& call, spdk_blob_id id, const Answered& answered) {
  struct Derivation {
    explicit Derivation(const std::vector<std::string>& pairs) : list(pairs), opts(list.Options()) {}
    XattrList list;
    spdk_blob_xattr_opts opts;
  };
  const auto derivation = std::make_shared<Derivation>(call.values);
  const int status = derivation->list.Check();
  if (status != 0) return answered(StatusOnly(status));
  const bool is_snapshot = call.name == "snapshot";
  RunForId(
      store, true, [answered, derivation](BlobstoreAnswer answer) { answered(std::move(answer)); },
      // A clone changes nothing of the snapshot.
      is_snapshot ? id : SPDK_BLOBID_INVALID,
      [store, id, derivation, is_snapshot](spdk_blob_op_with_id_complete done, void* context) {
        const auto derive = is_snapshot ? spdk_bs_create_snapshot : spdk_bs_create_clone;
        derive(store->bs(), id, &derivation->opts, done, context);
      });
}

// Opens the parent of a blob once more: `held` gets it, or null. One that cannot be opened is missed by the operation itself.
void HoldParent(const Store& store, spdk_blob_id id, std::function<void(spdk_blob* parent)> held) {
  const spdk_blob_id parent = spdk_blob_get_parent_snapshot(store->bs(), id);
  if (parent == SPDK_BLOBID_INVALID) return held(nullptr);
  spdk_bs_open_blob(store->bs(), parent, OnBlob::Run, OnBlob::Keep([held = std::move(held)](spdk_blob* blob, int status) {
                      held(status == 0 ? blob : nullptr);
                    }));
}

// inflate, decouple [id]
void Inflate(const Store& store, const BlobstoreCall& call, spdk_blob_id id, const Answered& answered) {
  const auto inflate = call.name == "inflate" ? spdk_bs_inflate_blob : spdk_bs_blob_decouple_parent;
  // Not alone, like a shallow copy: it takes long, and SPDK keeps others from the blob meanwhile. I/O goes on. From its first step SPDK
  // gives no cluster back that is unmapped; an unmap that was on its way before that would leave a hole in a blob without holes.
  // At the end SPDK closes the parent under the reads that go through it: it stays open until they have ended.
  RunPlain(store, false, answered, [store, id, inflate](const Ended& ended) {
    HoldParent(store, id, [store, id, inflate, ended](spdk_blob* parent) {
      // Quiet at the end as well: the metadata may be written then, and the parent is let go of.
      const auto resume = std::make_shared<Ended>();
      const auto close_parent = [ended, parent, resume](int status) {
        const auto finish = [ended, resume, status](int) {
          if (*resume) (*resume)(0);
          ended(status);
        };
        if (parent == nullptr) return finish(0);
        spdk_blob_close(parent, OnStatus::Run, OnStatus::Keep(finish));
      };
      RunWhole(store, id, close_parent, [store, id, inflate, resume](const Ended& whole) {
        spdk_io_channel* const channel = spdk_bs_alloc_io_channel(store->bs());
        if (channel == nullptr) return whole(-ENOMEM);
        const auto on_inflated = [store, id, channel, whole, resume](int status) {
          spdk_put_io_channel(channel);
          Blobstore::WhileQuiet(store->OpenAbove(id), [](int) {}, [whole, status, resume](const Ended& quiet) {
            *resume = quiet;
            whole(status);
          });
        };
        Blobstore::WhileQuiet(store->OpenAbove(id), [](int) {}, [store, channel, id, inflate, on_inflated](const Ended& begun) {
          inflate(store->bs(), channel, id, OnStatus::Run, OnStatus::Keep(on_inflated));
          begun(0);
        });
      });
    });
  });
}

// The blob may have the device all the same, or have been closed with it: SPDK tells that the metadata could not be written, too.
void AfterFailedParent(const Store& store, spdk_blob_id id, spdk_bs_dev* dev, std::function<void()> done) {
  const auto on_blob = [dev, done = std::move(done)](spdk_blob* blob, int status) {
    const auto end = [dev, done](bool unused) {
      if (unused) dev->destroy(dev);
      LetGoOfExternalSnapshot(dev);
      done();
    };
    // Without memory nobody can tell.
    if (status != 0) return end(status != -ENOMEM);
    const bool unused = !spdk_blob_is_esnap_clone(blob) || spdk_blob_get_esnap_bs_dev(blob) != dev;
    spdk_blob_close(blob, OnStatus::Run, OnStatus::Keep([end, unused](int) { end(unused); }));
  };
  spdk_bs_open_blob(store->bs(), id, OnBlob::Run, OnBlob::Keep(on_blob));
}

// setExternalParent [id] [bdev]
void SetExternalParent(const Store& store, const BlobstoreCall& call, spdk_blob_id id, const Answered& answered) {
  RunQuiet(store, id, answered, [store, id, bdev = call.Text(0)](const Ended& quiet) {
    RunWhole(store, id, quiet, [store, id, bdev](const Ended& ended) {
      spdk_bs_dev* dev = nullptr;
      const int rc = OpenExternalSnapshot(bdev, store->OnExternalSnapshotRemoved(id), &dev);
      if (rc != 0) return ended(rc);
      // A device that does not fit would be an assertion at the first copy of a cluster.
      if (!FitsUnder(store->bs(), dev)) {
        dev->destroy(dev);
        return ended(-EINVAL);
      }
      HoldExternalSnapshot(dev);
      const auto on_set = [store, id, dev, ended](int status) {
        if (status != 0) return AfterFailedParent(store, id, dev, [ended, status] { ended(status); });
        LetGoOfExternalSnapshot(dev);
        ended(0);
      };
      spdk_bs_blob_set_external_parent(store->bs(), id, dev, bdev.data(), static_cast<uint32_t>(bdev.size()), OnStatus::Run,
                                       OnStatus::Keep(on_set));
    });
  });
}

// shallowCopy [id] [bdev], with progress in clusters
void ShallowCopy(const Store& store, const BlobstoreCall& call, spdk_blob_id id, const Progressed& progressed,
                 const Answered& answered) {
  // It reads, no more.
  store->Run(false, [answered](int status) { answered(StatusOnly(status)); }, [store, id, bdev = call.Text(0), progressed](const Ended& ended) {
    struct Copy {
      spdk_bs_dev* dev = nullptr;
      spdk_io_channel* channel = nullptr;
      Progressed progressed;
      Ended ended;
    };
    auto* copy = new Copy{nullptr, nullptr, progressed, ended};
    const auto end = [](void* context, int status) {
      const std::unique_ptr<Copy> ending(static_cast<Copy*>(context));
      if (ending->channel != nullptr) spdk_put_io_channel(ending->channel);
      if (ending->dev != nullptr) ending->dev->destroy(ending->dev);
      ending->ended(status);
    };
    int rc = spdk_bdev_create_bs_dev_ext(
        bdev.c_str(), [](spdk_bdev_event_type, spdk_bdev*, void*) {}, nullptr, &copy->dev);
    if (rc != 0) return end(copy, rc);
    // SPDK counts the blocks of the one device on the other.
    if (copy->dev->blocklen != store->dev()->blocklen) return end(copy, -EINVAL);
    copy->channel = spdk_bs_alloc_io_channel(store->bs());
    if (copy->channel == nullptr) return end(copy, -ENOMEM);
    rc = spdk_bs_blob_shallow_copy(
        store->bs(), copy->channel, id, copy->dev,
        [](uint64_t clusters, void* context) { static_cast<Copy*>(context)->progressed(clusters); }, copy, end, copy);
    if (rc != 0) end(copy, rc);
  });
}

// All ids that are in use, one after the other. SPDK's own iteration leaves out the blobs that it cannot open. The first of those
// ends this one.
class Iteration : public std::enable_shared_from_this<Iteration> {
 public:
  static void Run(const Store& store, std::function<void(int status, std::vector<double> ids)> done) {
    const std::shared_ptr<Iteration> self(new Iteration(store, std::move(done)));
    self->keep_ = self;
    self->Step();
  }

 private:
  // Between two turns of the thread.
  static constexpr uint32_t kIdsPerTurn = 4096;

  Iteration(Store store, std::function<void(int, std::vector<double>)> done)
      : store_(std::move(store)), done_(std::move(done)), pages_(MetadataPages(store_->dev())) {}

  double Id() const { return static_cast<double>(kBlobIdBit + page_); }

  // SPDK may answer before a call returns.
  void Step() {
    stepping_ = true;
    const auto self = shared_from_this();
    for (uint32_t left = kIdsPerTurn; goes_on_ && page_ < pages_; left--) {
      if (left == 0) {
        stepping_ = false;
        if (!Runtime::Get().PostToApp([self] { self->Step(); })) End(-ESHUTDOWN);
        return;
      }
      if (store_->forgot(kBlobIdBit + page_)) {
        page_++;
        continue;
      }
      goes_on_ = false;
      opens_ = true;
      spdk_bs_open_blob(store_->bs(), kBlobIdBit + page_, OnOpened, this);
      opens_ = false;
    }
    stepping_ = false;
    if (goes_on_) End(0);
  }

  void Next() {
    page_++;
    goes_on_ = true;
    if (!stepping_) Step();
  }

  void End(int status) {
    const auto self = std::exchange(keep_, nullptr);
    done_(status, std::move(ids_));
  }

  static void OnOpened(void* context, spdk_blob* blob, int status) {
    auto* self = static_cast<Iteration*>(context);
    // At once: the id is not in use. Later: something that the blob needs is not there.
    if (status == -ENOENT && self->opens_) return self->Next();
    if (status != 0) {
      self->ids_ = {self->Id()};
      return self->End(status);
    }
    self->ids_.push_back(self->Id());
    spdk_blob_close(blob, [](void* closed, int) { static_cast<Iteration*>(closed)->Next(); }, context);
  }

  const Store store_;
  const std::function<void(int, std::vector<double>)> done_;
  const uint64_t pages_;
  std::shared_ptr<Iteration> keep_;
  std::vector<double> ids_;
  uint64_t page_ = 0;
  bool goes_on_ = true;
  bool stepping_ = false;
  bool opens_ = false;
};

void IdsOnce(const Store& store, bool exclusive, const Answered& answered) {
  const auto ids = std::make_shared<std::vector<double>>();
  store->Run(
      exclusive,
      [store, exclusive, ids, answered](int status) {
        // What is being created cannot be read yet.
        if (status != 0 && !exclusive) return IdsOnce(store, true, answered);
        answered({status, {}, BytesOf(*ids)});
      },
      [store, ids](const Ended& ended) {
        Iteration::Run(store, [ids, ended](int status, std::vector<double> found) {
          *ids = std::move(found);
          ended(status);
        });
      });
}

// ids -> numbers; of a failure the id of the blob that cannot be read
void Ids(const Store& store, const Answered& answered) { IdsOnce(store, false, answered); }

// parent [id] -> numbers: the parent's id or 0; text: the external snapshot
void Parent(const Store& store, spdk_blob_id id, const Answered& answered) {
  const auto answer = std::make_shared<BlobstoreAnswer>();
  store->Run(
      false,
      [answer, answered](int status) {
        answer->status = status;
        answered(std::move(*answer));
      },
      [store, id, answer](const Ended& ended) {
        spdk_bs_open_blob(store->bs(), id, OnBlob::Run, OnBlob::Keep([store, id, answer, ended](spdk_blob* blob, int status) {
                            if (status != 0) return ended(status);
                            answer->text = ExternalSnapshotOf(blob);
                            const spdk_blob_id parent = spdk_blob_get_parent_snapshot(store->bs(), id);
                            answer->bytes = BytesOf({parent == SPDK_BLOBID_INVALID ? 0 : static_cast<double>(parent)});
                            spdk_blob_close(blob, OnStatus::Run, OnStatus::Keep(ended));
                          }));
      });
}

}  // namespace

int BlobIdOf(double number, spdk_blob_id* id) {
  const bool has_bit = number >= static_cast<double>(kBlobIdBit) && number < static_cast<double>(kBlobIdBit * 2);
  if (!has_bit || std::floor(number) != number) return -ENOENT;
  *id = static_cast<spdk_blob_id>(number);
  return 0;
}

// init, load, loadAndGrow [cluster bytes, metadata pages, clear method, force recover, zero freed] [bdev, type]
BlobstoreOptions BlobstoreOptionsOf(const BlobstoreCall& call) {
  BlobstoreOptions options;
  using Start = BlobstoreOptions::Start;
  options.start = call.name == "init" ? Start::kInit : call.name == "loadAndGrow" ? Start::kLoadAndGrow : Start::kLoad;
  options.cluster_bytes = call.U32(0);
  options.metadata_pages = call.U32(1);
  options.clear_method = static_cast<bs_clear_method>(std::min(call.U32(2), static_cast<uint32_t>(BS_CLEAR_WITH_NONE)));
  options.force_recover = call.Bool(3);
  options.zero_freed = call.Bool(4);
  options.bdev = call.Text(0);
  options.type = call.Text(1);
  return options;
}

bool CallBlobstore(const Store& store, const BlobstoreCall& call, const Progressed& progressed, const Answered& answered) {
  const std::string& name = call.name;
  const auto plain = [answered](int status) { answered(StatusOnly(status)); };
  // unload, destroy -> number: open blobs
  if (name == "unload" || name == "destroy") {
    const auto with_open = [store, answered](int status) {
      answered({status, {}, BytesOf({static_cast<double>(store->open_blobs())})});
    };
    return name == "unload" ? store->Unload(with_open) : store->Destroy(with_open), true;
  }
  if (name == "create") return Create(store, call, answered), true;
  if (name == "ids") return Ids(store, answered), true;
  if (name == "grow") return store->Grow(plain), true;
  // What follows names a blob. setSuper takes 0 for none.
  spdk_blob_id id = SPDK_BLOBID_INVALID;
  const int status = name == "setSuper" && call.Number(0) == 0 ? 0 : BlobIdOf(call.Number(0), &id);
  const auto refuse = [&answered, status] { answered(StatusOnly(status)); };
  if (name == "setSuper") {
    if (status != 0) return refuse(), true;
    RunPlain(store, true, answered, [store, id](const Ended& ended) {
      spdk_bs_set_super(store->bs(), id, OnStatus::Run, OnStatus::Keep(ended));
    });
    return true;
  }
  if (name == "delete") return status != 0 ? refuse() : Delete(store, id, answered), true;
  if (name == "setParent") {
    spdk_blob_id snapshot = SPDK_BLOBID_INVALID;
    if (status != 0 || BlobIdOf(call.Number(1), &snapshot) != 0) return answered(StatusOnly(-ENOENT)), true;
    RunQuiet(store, id, answered, [store, id, snapshot](const Ended& ended) {
      RunWhole(store, id, ended, [store, id, snapshot](const Ended& whole) {
        spdk_bs_blob_set_parent(store->bs(), id, snapshot, OnStatus::Run, OnStatus::Keep(whole));
      });
    });
    return true;
  }
  if (name == "snapshot" || name == "clone") return status != 0 ? refuse() : Derive(store, call, id, answered), true;
  if (name == "inflate" || name == "decouple") return status != 0 ? refuse() : Inflate(store, call, id, answered), true;
  if (name == "setExternalParent") return status != 0 ? refuse() : SetExternalParent(store, call, id, answered), true;
  if (name == "shallowCopy") return status != 0 ? refuse() : ShallowCopy(store, call, id, progressed, answered), true;
  if (name == "parent") return status != 0 ? refuse() : Parent(store, id, answered), true;
  return false;
}

bool CallBlob(const std::shared_ptr<Blob>& blob, const BlobstoreCall& call, const Answered& answered) {
  const std::string& name = call.name;
  const auto plain = [answered](int status) { answered(StatusOnly(status)); };
  // resize [clusters] -> number: io units, also when it failed
  if (name == "resize") {
    blob->ResizeTo(static_cast<uint64_t>(call.Number(0)), [blob, answered](int status) {
      answered({status, {}, BytesOf({static_cast<double>(blob->num_blocks())})});
    });
    return true;
  }
  if (name == "sync") return blob->Sync(plain), true;
  if (name == "setReadOnly") {
    blob->Run(false, plain, [blob](const Ended& ended) { ended(blob->SetReadOnly()); });
    return true;
  }
  // setXattr [] [] [name, value]; removeXattr [] [] [name]
  if (name == "setXattr" || name == "removeXattr") {
    const std::string key = call.Value(0);
    const std::string value = call.Value(1);
    const int status = CheckXattr(key, value);
    if (status != 0) return plain(status), true;
    blob->Run(false, plain, [blob, key, value, removes = name == "removeXattr"](const Ended& ended) {
      ended(removes ? blob->RemoveXattr(key) : blob->SetXattr(key, value));
    });
    return true;
  }
  return false;
}

}  // namespace effect_spdk
