// The device of a blobstore: that of its bdev, and what has to be known of the blobstore's writes. App thread, all of it, but
// for the I/O of data, which passes through.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "spdk_headers.h"

namespace effect_spdk {

struct StoreDeviceEvents {
  // The blobstore has let go of the device: the last moment when its bdev is certain to be open.
  std::function<void()> closing;
  // The blobstore has destroyed the device, which closes its bdev.
  std::function<void()> destroyed;
  // A write of metadata has failed, the first one. SPDK ignores that in places and goes on with what it believes to be written. So from
  // here on the device refuses all writes of metadata: what lies on it stays a state that SPDK's recovery understands.
  std::function<void()> failed;
};

// Which pages of metadata were written since somebody asked. SPDK has a place where it forgets why it could not write the metadata of
// a blob, and says that it has: with no page left, for one. But what it writes of a blob ends with the first page.
struct MetadataWrites {
  uint64_t first_lba = 0;
  uint64_t blocks_per_page = 0;
  std::vector<uint64_t> lbas;

  bool Has(spdk_blob_id id) const;
};

// Takes `base`. Until KeepSuperBlock has read where the metadata ends, every write counts as one of metadata.
spdk_bs_dev* MakeStoreDevice(spdk_bs_dev* base, StoreDeviceEvents events);

// Learns what the bdev has gained.
void UpdateBlockCount(spdk_bs_dev* dev);

// Keeps a copy of the first page, for DisconnectDevice, and where the metadata ends. -EIO when it cannot be read.
void KeepSuperBlock(spdk_bs_dev* dev, std::function<void(int status)> done);

// From here on what would be unmapped is written with zeroes, unless the bdev is known to read as zeroes where it was unmapped: what a
// blob gives back is not seen by the next one. Before any other thread has a channel.
void ZeroFreed(spdk_bs_dev* dev);

// As if a write of metadata had failed.
void FailMetadata(spdk_bs_dev* dev);

// Goes on as long as somebody holds what is returned. After KeepSuperBlock.
std::shared_ptr<const MetadataWrites> WatchMetadata(spdk_bs_dev* dev);

// How many metadata pages there are. After KeepSuperBlock.
uint32_t MetadataPages(spdk_bs_dev* dev);

// Between the two, writes that fail are kept from the blobstore, and the first status is what TakeWriteFailure returns: an
// initialisation that fails would leave the blobstore behind, with the device, where nobody can reach it. The super
// block that is written meanwhile is kept.
void HideWriteFailures(spdk_bs_dev* dev);
int TakeWriteFailure(spdk_bs_dev* dev);

// From here on writes vanish and reads find the super block and zeroes: a blobstore does not unload when its super block is
// not there or not its own any more, and must not keep memory and bdev for that. Only the app thread may have a channel.
void DisconnectDevice(spdk_bs_dev* dev);

}  // namespace effect_spdk
