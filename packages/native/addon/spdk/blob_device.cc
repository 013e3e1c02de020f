#include "blob_device.h"

#include <cerrno>
#include <cstring>
#include <map>
#include <memory>
#include <utility>

namespace effect_spdk {

namespace {

struct Watched {
  void (*destroy)(spdk_bs_dev* dev) = nullptr;
  std::function<void()> destroyed;
  // It is not closed yet, whoever destroys it; and whether it was destroyed.
  bool is_held = false;
  bool is_unwanted = false;
};

// A device has no place for a context.
std::map<spdk_bs_dev*, Watched>& AllWatched() {
  static auto* const all = new std::map<spdk_bs_dev*, Watched>;
  return *all;
}

void DestroyWatched(spdk_bs_dev* dev) {
  const auto found = AllWatched().find(dev);
  const Watched watched = std::move(found->second);
  AllWatched().erase(found);
  watched.destroy(dev);
  watched.destroyed();
}

void Answer(spdk_bs_dev_cb_args* args, int status) { args->cb_fn(args->channel, args->cb_arg, status); }

// The functions of every device that SPDK makes of a bdev. Kept once for all: reads come on any thread, where nobody may look
// a device up.
struct BdevFunctions {
  decltype(spdk_bs_dev::create_channel) create_channel;
  decltype(spdk_bs_dev::destroy_channel) destroy_channel;
  decltype(spdk_bs_dev::read) read;
  decltype(spdk_bs_dev::readv) readv;
  decltype(spdk_bs_dev::readv_ext) readv_ext;
};

BdevFunctions& Kept() {
  static BdevFunctions kept{};
  return kept;
}

struct Source;

// A read of an external snapshot that is under way.
struct Reading {
  spdk_bs_dev_cb_args args;
  spdk_bs_dev_cb_args* wanted;
  Source* source;
  // The one of ExternalIoDevice.
  spdk_io_channel* channel;
  Reading* next;
};

// An external snapshot as one thread reads it.
struct Source {
  spdk_io_channel* channel = nullptr;
  uint32_t reading = 0;
  // Goes on when nothing reads any more: the device is to be destroyed.
  spdk_io_channel_iter* leaving = nullptr;
};

// Of a thread: the external snapshots that it reads. SPDK keeps a channel by the id of the blob, and forgets it when the blob is
// inflated: the next external snapshot under a blob of this id is read by the channel of the one before. So what SPDK has is
// the same for all of them. And it lets go of channel and device while reads are under way, when a snapshot is taken or the blob
// inflated: reads keep both.
struct Sources {
  std::map<spdk_bs_dev*, Source> all;
  uint32_t reading = 0;
  Reading* free = nullptr;
};

int CreateSources(void*, void* context) {
  *static_cast<Sources**>(context) = new Sources;
  return 0;
}

void DestroySources(void*, void* context) {
  const std::unique_ptr<Sources> sources(*static_cast<Sources**>(context));
  for (const auto& [dev, source] : sources->all) {
    if (source.channel != nullptr) Kept().destroy_channel(dev, source.channel);
  }
  while (sources->free != nullptr) delete std::exchange(sources->free, sources->free->next);
}

void* ExternalIoDevice() {
  static void* const device = [] {
    auto* made = new char;
    spdk_io_device_register(made, CreateSources, DestroySources, sizeof(Sources*), "effect_spdk_external");
    return made;
  }();
  return device;
}

Sources& SourcesOf(spdk_io_channel* channel) { return **static_cast<Sources**>(spdk_io_channel_get_ctx(channel)); }

void Leave(Sources& sources, spdk_bs_dev* dev, spdk_io_channel_iter* at) {
  const auto found = sources.all.find(dev);
  if (found != sources.all.end()) {
    if (found->second.reading != 0) {
      found->second.leaving = at;
      return;
    }
    if (found->second.channel != nullptr) Kept().destroy_channel(dev, found->second.channel);
    sources.all.erase(found);
  }
  spdk_for_each_channel_continue(at, 0);
}

void OnRead(spdk_io_channel*, void* context, int status) {
  auto* reading = static_cast<Reading*>(context);
  spdk_bs_dev_cb_args* const wanted = reading->wanted;
  spdk_io_channel* const channel = reading->channel;
  Source* const source = reading->source;
  Sources& sources = SourcesOf(channel);
  reading->next = std::exchange(sources.free, reading);
  source->reading--;
  sources.reading--;
  if (source->reading == 0 && source->leaving != nullptr) {
    spdk_io_channel_iter* const at = source->leaving;
    Leave(sources, static_cast<spdk_bs_dev*>(spdk_io_channel_iter_get_ctx(at)), at);
  }
  const bool last = sources.reading == 0;
  Answer(wanted, status);
  if (last) spdk_put_io_channel(channel);
}

// nullptr when there is no memory for a channel.
Reading* BeginRead(spdk_bs_dev* dev, spdk_io_channel* channel, spdk_bs_dev_cb_args* wanted) {
  Sources& sources = SourcesOf(channel);
  Source& source = sources.all[dev];
  if (source.channel == nullptr) source.channel = Kept().create_channel(dev);
  if (source.channel == nullptr) return nullptr;
  Reading* reading = sources.free;
  if (reading == nullptr) {
    reading = new Reading;
  } else {
    sources.free = reading->next;
  }
  *reading = {*wanted, wanted, &source, channel, nullptr};
  reading->args.cb_fn = OnRead;
  reading->args.cb_arg = reading;
  source.reading++;
  // Put when none is under way any more.
  if (sources.reading++ == 0) spdk_get_io_channel(ExternalIoDevice());
  return reading;
}

// Every thread lets go of the device before it is closed.
void DestroyExternal(spdk_bs_dev* dev) {
  Watched& watched = AllWatched()[dev];
  watched.is_unwanted = true;
  if (watched.is_held) return;
  spdk_for_each_channel(
      ExternalIoDevice(),
      [](spdk_io_channel_iter* at) {
        Leave(SourcesOf(spdk_io_channel_iter_get_channel(at)), static_cast<spdk_bs_dev*>(spdk_io_channel_iter_get_ctx(at)), at);
      },
      dev, [](spdk_io_channel_iter* at, int) { DestroyWatched(static_cast<spdk_bs_dev*>(spdk_io_channel_iter_get_ctx(at))); });
}

bool IsPastEnd(const spdk_bs_dev* dev, uint64_t lba) { return lba >= dev->blockcnt; }

void ReadZeroes(iovec* iov, int count, spdk_bs_dev_cb_args* args) {
  for (int i = 0; i < count; i++) std::memset(iov[i].iov_base, 0, iov[i].iov_len);
  Answer(args, 0);
}

// A bdev refuses what lies past its end, so that there a blob larger than its external snapshot could be neither read nor, for the
// copy of the rest of the cluster, written. No request crosses the end: the device has whole clusters.
void ReadAsExternal(spdk_bs_dev* dev) {
  dev->read = [](spdk_bs_dev* self, spdk_io_channel* channel, void* payload, uint64_t lba, uint32_t lba_count,
                 spdk_bs_dev_cb_args* args) {
    iovec all{payload, uint64_t{lba_count} * self->blocklen};
    if (IsPastEnd(self, lba)) return ReadZeroes(&all, 1, args);
    Reading* const reading = BeginRead(self, channel, args);
    if (reading == nullptr) return Answer(args, -ENOMEM);
    Kept().read(self, reading->source->channel, payload, lba, lba_count, &reading->args);
  };
  dev->readv = [](spdk_bs_dev* self, spdk_io_channel* channel, iovec* iov, int count, uint64_t lba, uint32_t lba_count,
                  spdk_bs_dev_cb_args* args) {
    if (IsPastEnd(self, lba)) return ReadZeroes(iov, count, args);
    Reading* const reading = BeginRead(self, channel, args);
    if (reading == nullptr) return Answer(args, -ENOMEM);
    Kept().readv(self, reading->source->channel, iov, count, lba, lba_count, &reading->args);
  };
  dev->readv_ext = [](spdk_bs_dev* self, spdk_io_channel* channel, iovec* iov, int count, uint64_t lba, uint32_t lba_count,
                      spdk_bs_dev_cb_args* args, spdk_blob_ext_io_opts* opts) {
    if (IsPastEnd(self, lba)) return ReadZeroes(iov, count, args);
    Reading* const reading = BeginRead(self, channel, args);
    if (reading == nullptr) return Answer(args, -ENOMEM);
    Kept().readv_ext(self, reading->source->channel, iov, count, lba, lba_count, &reading->args, opts);
  };
}

// What a degraded device has no channel of its own for.
int CreateNothing(void*, void*) { return 0; }
void DestroyNothing(void*, void*) {}

}  // namespace

int OpenExternalSnapshot(const std::string& bdev, std::function<void(spdk_bs_dev*)> removed, spdk_bs_dev** out) {
  struct External {
    std::function<void(spdk_bs_dev*)> removed;
    spdk_bs_dev* dev = nullptr;
  };
  auto* external = new External{std::move(removed), nullptr};
  const auto on_event = [](spdk_bdev_event_type type, spdk_bdev*, void* context) {
    const auto* gone = static_cast<External*>(context);
    if (type == SPDK_BDEV_EVENT_REMOVE && gone->removed) gone->removed(gone->dev);
  };
  const int rc = spdk_bdev_create_bs_dev(bdev.c_str(), false, nullptr, 0, on_event, external, out);
  if (rc != 0) {
    delete external;
    return rc;
  }
  external->dev = *out;
  if (Kept().read == nullptr) {
    Kept() = {(*out)->create_channel, (*out)->destroy_channel, (*out)->read, (*out)->readv, (*out)->readv_ext};
  }
  ReadAsExternal(*out);
  (*out)->create_channel = [](spdk_bs_dev*) { return spdk_get_io_channel(ExternalIoDevice()); };
  (*out)->destroy_channel = [](spdk_bs_dev*, spdk_io_channel* channel) { spdk_put_io_channel(channel); };
  // Asked for a place on the device of the blobstore: SPDK would copy from there, when a blob has this under its snapshot.
  (*out)->translate_lba = [](spdk_bs_dev*, uint64_t, uint64_t*) { return false; };
  AllWatched()[*out] = {(*out)->destroy, [external] { delete external; }};
  (*out)->destroy = DestroyExternal;
  return 0;
}

void HoldExternalSnapshot(spdk_bs_dev* dev) { AllWatched()[dev].is_held = true; }

void LetGoOfExternalSnapshot(spdk_bs_dev* dev) {
  Watched& watched = AllWatched()[dev];
  watched.is_held = false;
  if (watched.is_unwanted) DestroyExternal(dev);
}

spdk_bs_dev* DegradedDevice() {
  static spdk_bs_dev* device = nullptr;
  if (device != nullptr) return device;
  device = new spdk_bs_dev{};
  spdk_io_device_register(device, CreateNothing, DestroyNothing, 0, "effect_spdk_degraded");
  device->create_channel = [](spdk_bs_dev* dev) { return spdk_get_io_channel(dev); };
  device->destroy_channel = [](spdk_bs_dev*, spdk_io_channel* channel) { spdk_put_io_channel(channel); };
  // There is one for all, and it stays.
  device->destroy = [](spdk_bs_dev*) {};
  device->read = [](spdk_bs_dev*, spdk_io_channel*, void*, uint64_t, uint32_t, spdk_bs_dev_cb_args* args) {
    Answer(args, -EIO);
  };
  device->readv = [](spdk_bs_dev*, spdk_io_channel*, iovec*, int, uint64_t, uint32_t, spdk_bs_dev_cb_args* args) {
    Answer(args, -EIO);
  };
  device->readv_ext = [](spdk_bs_dev*, spdk_io_channel*, iovec*, int, uint64_t, uint32_t, spdk_bs_dev_cb_args* args,
                         spdk_blob_ext_io_opts*) { Answer(args, -EIO); };
  device->is_zeroes = [](spdk_bs_dev*, uint64_t, uint64_t) { return false; };
  device->is_range_valid = [](spdk_bs_dev*, uint64_t, uint64_t) { return true; };
  device->translate_lba = [](spdk_bs_dev*, uint64_t, uint64_t*) { return false; };
  device->is_degraded = [](spdk_bs_dev*) { return true; };
  device->blockcnt = 0;
  device->blocklen = 512;
  return device;
}

}  // namespace effect_spdk
