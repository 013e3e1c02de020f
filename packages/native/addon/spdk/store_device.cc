#include "store_device.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

namespace effect_spdk {

namespace {

constexpr size_t kSuperBlockBytes = 4096;
constexpr uint32_t kDefaultPageBytes = 4096;
// Of SPDK's struct spdk_bs_super_block, which no header shows.
constexpr size_t kMetadataStartAt = 48;
constexpr size_t kMetadataLengthAt = 52;
constexpr size_t kPageBytesAt = 92;

struct StoreDevice;

// A write of metadata that is under way.
struct MetadataWrite {
  StoreDevice* device;
  spdk_bs_dev_cb_args* wanted;
  spdk_bs_dev_cb_args args;
  MetadataWrite* next;
};

struct StoreDevice : spdk_bs_dev {
  spdk_bs_dev* base = nullptr;
  StoreDeviceEvents events;
  // In blocks. Set before any other thread has a channel.
  uint64_t metadata_end = UINT64_MAX;
  bool failed = false;
  bool hides_failures = false;
  bool zeroes_freed = false;
  int write_failure = 0;
  std::vector<char> super_block;
  MetadataWrite* free_writes = nullptr;
  std::vector<std::weak_ptr<MetadataWrites>> watchers;
};

StoreDevice& Of(spdk_bs_dev* dev) { return *static_cast<StoreDevice*>(dev); }

void Answer(spdk_bs_dev_cb_args* args, int status) { args->cb_fn(args->channel, args->cb_arg, status); }

void OnMetadataWritten(spdk_io_channel*, void* context, int status) {
  auto* write = static_cast<MetadataWrite*>(context);
  StoreDevice& device = *write->device;
  spdk_bs_dev_cb_args* const wanted = write->wanted;
  write->next = std::exchange(device.free_writes, write);
  if (status != 0 && device.hides_failures) {
    if (device.write_failure == 0) device.write_failure = status;
    status = 0;
  }
  if (status != 0 && !std::exchange(device.failed, true)) device.events.failed();
  Answer(wanted, status);
}

spdk_bs_dev_cb_args* Watch(StoreDevice& device, spdk_bs_dev_cb_args* wanted) {
  MetadataWrite* write = device.free_writes;
  if (write == nullptr) {
    write = new MetadataWrite;
  } else {
    device.free_writes = write->next;
  }
  *write = {&device, wanted, *wanted, nullptr};
  write->args.cb_fn = OnMetadataWritten;
  write->args.cb_arg = write;
  return &write->args;
}

void Write(spdk_bs_dev* dev, spdk_io_channel* channel, void* payload, uint64_t lba, uint32_t lba_count,
           spdk_bs_dev_cb_args* args) {
  StoreDevice& device = Of(dev);
  if (lba >= device.metadata_end) return device.base->write(device.base, channel, payload, lba, lba_count, args);
  if (device.failed) return Answer(args, -EIO);
  if (device.hides_failures && lba == 0) {
    const auto* bytes = static_cast<const char*>(payload);
    device.super_block.assign(bytes, bytes + kSuperBlockBytes);
  }
  for (const auto& watcher : device.watchers) {
    if (const auto writes = watcher.lock()) writes->lbas.push_back(lba);
  }
  device.base->write(device.base, channel, payload, lba, lba_count, Watch(device, args));
}

void WriteZeroes(spdk_bs_dev* dev, spdk_io_channel* channel, uint64_t lba, uint64_t lba_count, spdk_bs_dev_cb_args* args) {
  StoreDevice& device = Of(dev);
  if (lba >= device.metadata_end) return device.base->write_zeroes(device.base, channel, lba, lba_count, args);
  if (device.failed) return Answer(args, -EIO);
  device.base->write_zeroes(device.base, channel, lba, lba_count, Watch(device, args));
}

void Destroy(spdk_bs_dev* dev) {
  const std::unique_ptr<StoreDevice> device(&Of(dev));
  device->events.closing();
  device->base->destroy(device->base);
  while (device->free_writes != nullptr) delete std::exchange(device->free_writes, device->free_writes->next);
  device->events.destroyed();
}

// What passes through.
void Forward(spdk_bs_dev* dev) {
  dev->create_channel = [](spdk_bs_dev* self) { return Of(self).base->create_channel(Of(self).base); };
  dev->destroy_channel = [](spdk_bs_dev* self, spdk_io_channel* channel) {
    Of(self).base->destroy_channel(Of(self).base, channel);
  };
  dev->read = [](spdk_bs_dev* self, spdk_io_channel* channel, void* payload, uint64_t lba, uint32_t lba_count,
                 spdk_bs_dev_cb_args* args) {
    spdk_bs_dev* const base = Of(self).base;
    base->read(base, channel, payload, lba, lba_count, args);
  };
  dev->readv = [](spdk_bs_dev* self, spdk_io_channel* channel, iovec* iov, int count, uint64_t lba, uint32_t lba_count,
                  spdk_bs_dev_cb_args* args) {
    spdk_bs_dev* const base = Of(self).base;
    base->readv(base, channel, iov, count, lba, lba_count, args);
  };
  dev->readv_ext = [](spdk_bs_dev* self, spdk_io_channel* channel, iovec* iov, int count, uint64_t lba, uint32_t lba_count,
                      spdk_bs_dev_cb_args* args, spdk_blob_ext_io_opts* opts) {
    spdk_bs_dev* const base = Of(self).base;
    base->readv_ext(base, channel, iov, count, lba, lba_count, args, opts);
  };
  dev->writev = [](spdk_bs_dev* self, spdk_io_channel* channel, iovec* iov, int count, uint64_t lba, uint32_t lba_count,
                   spdk_bs_dev_cb_args* args) {
    spdk_bs_dev* const base = Of(self).base;
    base->writev(base, channel, iov, count, lba, lba_count, args);
  };
  dev->writev_ext = [](spdk_bs_dev* self, spdk_io_channel* channel, iovec* iov, int count, uint64_t lba, uint32_t lba_count,
                       spdk_bs_dev_cb_args* args, spdk_blob_ext_io_opts* opts) {
    spdk_bs_dev* const base = Of(self).base;
    base->writev_ext(base, channel, iov, count, lba, lba_count, args, opts);
  };
  dev->unmap = [](spdk_bs_dev* self, spdk_io_channel* channel, uint64_t lba, uint64_t lba_count, spdk_bs_dev_cb_args* args) {
    spdk_bs_dev* const base = Of(self).base;
    if (Of(self).zeroes_freed) return base->write_zeroes(base, channel, lba, lba_count, args);
    base->unmap(base, channel, lba, lba_count, args);
  };
  dev->get_base_bdev = [](spdk_bs_dev* self) { return Of(self).base->get_base_bdev(Of(self).base); };
  dev->is_zeroes = [](spdk_bs_dev* self, uint64_t lba, uint64_t lba_count) {
    return Of(self).base->is_zeroes(Of(self).base, lba, lba_count);
  };
  dev->is_range_valid = [](spdk_bs_dev* self, uint64_t lba, uint64_t lba_count) {
    return Of(self).base->is_range_valid(Of(self).base, lba, lba_count);
  };
  dev->translate_lba = [](spdk_bs_dev* self, uint64_t lba, uint64_t* base_lba) {
    return Of(self).base->translate_lba(Of(self).base, lba, base_lba);
  };
}

// What not every bdev offers: SPDK looks whether it is there.
void ForwardOptional(spdk_bs_dev* dev) {
  const spdk_bs_dev& base = *Of(dev).base;
  if (base.flush != nullptr) {
    dev->flush = [](spdk_bs_dev* self, spdk_io_channel* channel, spdk_bs_dev_cb_args* args) {
      Of(self).base->flush(Of(self).base, channel, args);
    };
  }
  if (base.copy != nullptr) {
    dev->copy = [](spdk_bs_dev* self, spdk_io_channel* channel, uint64_t to, uint64_t from, uint64_t lba_count,
                   spdk_bs_dev_cb_args* args) {
      spdk_bs_dev* const below = Of(self).base;
      below->copy(below, channel, to, from, lba_count, args);
    };
  }
  if (base.is_degraded != nullptr) {
    dev->is_degraded = [](spdk_bs_dev* self) { return Of(self).base->is_degraded(Of(self).base); };
  }
}

uint32_t SuperField(const StoreDevice& device, size_t at) {
  uint32_t value = 0;
  std::memcpy(&value, device.super_block.data() + at, sizeof value);
  return value;
}

uint64_t BlocksPerPage(const StoreDevice& device) {
  const uint32_t known = SuperField(device, kPageBytesAt);
  // 0 in the super blocks of older versions.
  return (known == 0 ? kDefaultPageBytes : known) / device.blocklen;
}

// In blocks; 0 when the super block is none.
uint64_t MetadataEnd(const StoreDevice& device) {
  const uint64_t pages = uint64_t{SuperField(device, kMetadataStartAt)} + SuperField(device, kMetadataLengthAt);
  return pages * BlocksPerPage(device);
}

void FillDisconnected(spdk_bs_dev* dev, void* payload, uint64_t lba, uint64_t length_bytes, uint64_t done_bytes) {
  std::memset(payload, 0, length_bytes);
  const std::vector<char>& super_block = Of(dev).super_block;
  if (lba != 0 || done_bytes >= super_block.size()) return;
  std::memcpy(payload, super_block.data() + done_bytes, std::min<uint64_t>(length_bytes, super_block.size() - done_bytes));
}

void ReadDisconnected(spdk_bs_dev* dev, spdk_io_channel*, void* payload, uint64_t lba, uint32_t lba_count,
                      spdk_bs_dev_cb_args* args) {
  FillDisconnected(dev, payload, lba, uint64_t{lba_count} * dev->blocklen, 0);
  Answer(args, 0);
}

void ReadvDisconnected(spdk_bs_dev* dev, spdk_io_channel*, iovec* iov, int count, uint64_t lba, uint32_t,
                       spdk_bs_dev_cb_args* args) {
  uint64_t done = 0;
  for (int i = 0; i < count; i++) {
    FillDisconnected(dev, iov[i].iov_base, lba, iov[i].iov_len, done);
    done += iov[i].iov_len;
  }
  Answer(args, 0);
}

}  // namespace

spdk_bs_dev* MakeStoreDevice(spdk_bs_dev* base, StoreDeviceEvents events) {
  auto* device = new StoreDevice;
  // Sizes of the device, whichever of them this version of SPDK knows.
  static_cast<spdk_bs_dev&>(*device) = *base;
  device->base = base;
  device->events = std::move(events);
  Forward(device);
  ForwardOptional(device);
  device->write = Write;
  device->write_zeroes = WriteZeroes;
  device->destroy = Destroy;
  return device;
}

void UpdateBlockCount(spdk_bs_dev* dev) {
  spdk_bs_dev* const base = Of(dev).base;
  spdk_bdev_update_bs_blockcnt(base);
  dev->blockcnt = base->blockcnt;
}

void KeepSuperBlock(spdk_bs_dev* dev, std::function<void(int)> done) {
  struct Reading {
    spdk_bs_dev* dev;
    std::function<void(int)> done;
    spdk_bs_dev_cb_args args;
    void* memory;
  };
  const size_t bytes = std::max<size_t>(kSuperBlockBytes, dev->blocklen);
  auto* reading = new Reading{dev, std::move(done), {}, spdk_dma_zmalloc(bytes, bytes, nullptr)};
  spdk_io_channel* channel = reading->memory == nullptr ? nullptr : dev->create_channel(dev);
  const auto end = [](spdk_io_channel* io_channel, void* context, int status) {
    auto* ended = static_cast<Reading*>(context);
    StoreDevice& device = Of(ended->dev);
    if (status == 0) {
      const auto* read = static_cast<const char*>(ended->memory);
      device.super_block.assign(read, read + kSuperBlockBytes);
      device.metadata_end = MetadataEnd(device);
    }
    spdk_dma_free(ended->memory);
    if (io_channel != nullptr) ended->dev->destroy_channel(ended->dev, io_channel);
    const std::function<void(int)> next = std::move(ended->done);
    delete ended;
    next(status);
  };
  reading->args = {end, channel, reading};
  if (channel == nullptr) return end(nullptr, reading, -ENOMEM);
  dev->read(dev, channel, reading->memory, 0, static_cast<uint32_t>(bytes / dev->blocklen), &reading->args);
}

void ZeroFreed(spdk_bs_dev* dev) {
  spdk_bdev* const bdev = dev->get_base_bdev(dev);
  const std::string_view module = spdk_bdev_get_product_name(bdev);
  // These fill memory, or make a hole in a file.
  const bool zeroes = module == "Malloc disk" || module == "AIO disk";
  Of(dev).zeroes_freed = !zeroes || !spdk_bdev_io_type_supported(bdev, SPDK_BDEV_IO_TYPE_UNMAP);
}

void FailMetadata(spdk_bs_dev* dev) {
  if (!std::exchange(Of(dev).failed, true)) Of(dev).events.failed();
}

bool MetadataWrites::Has(spdk_blob_id id) const {
  const uint64_t lba = first_lba + (id & UINT32_MAX) * blocks_per_page;
  return std::find(lbas.begin(), lbas.end(), lba) != lbas.end();
}

std::shared_ptr<const MetadataWrites> WatchMetadata(spdk_bs_dev* dev) {
  StoreDevice& device = Of(dev);
  auto writes = std::make_shared<MetadataWrites>();
  writes->blocks_per_page = BlocksPerPage(device);
  writes->first_lba = SuperField(device, kMetadataStartAt) * writes->blocks_per_page;
  std::erase_if(device.watchers, [](const auto& watcher) { return watcher.expired(); });
  device.watchers.push_back(writes);
  return writes;
}

uint32_t MetadataPages(spdk_bs_dev* dev) { return SuperField(Of(dev), kMetadataLengthAt); }

void HideWriteFailures(spdk_bs_dev* dev) { Of(dev).hides_failures = true; }

int TakeWriteFailure(spdk_bs_dev* dev) {
  Of(dev).hides_failures = false;
  return std::exchange(Of(dev).write_failure, 0);
}

void DisconnectDevice(spdk_bs_dev* dev) {
  dev->read = ReadDisconnected;
  dev->readv = ReadvDisconnected;
  dev->readv_ext = [](spdk_bs_dev* self, spdk_io_channel* channel, iovec* iov, int count, uint64_t lba, uint32_t lba_count,
                      spdk_bs_dev_cb_args* args, spdk_blob_ext_io_opts*) {
    ReadvDisconnected(self, channel, iov, count, lba, lba_count, args);
  };
  dev->write = [](spdk_bs_dev*, spdk_io_channel*, void*, uint64_t, uint32_t, spdk_bs_dev_cb_args* args) { Answer(args, 0); };
  dev->writev = [](spdk_bs_dev*, spdk_io_channel*, iovec*, int, uint64_t, uint32_t, spdk_bs_dev_cb_args* args) {
    Answer(args, 0);
  };
  dev->writev_ext = [](spdk_bs_dev*, spdk_io_channel*, iovec*, int, uint64_t, uint32_t, spdk_bs_dev_cb_args* args,
                       spdk_blob_ext_io_opts*) { Answer(args, 0); };
  dev->write_zeroes = [](spdk_bs_dev*, spdk_io_channel*, uint64_t, uint64_t, spdk_bs_dev_cb_args* args) { Answer(args, 0); };
  dev->unmap = dev->write_zeroes;
  dev->copy = nullptr;
}

}  // namespace effect_spdk
