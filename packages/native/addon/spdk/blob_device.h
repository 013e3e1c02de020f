// The devices under blobs, as the blobstore sees them. App thread, all of it.
#pragma once

#include <functional>
#include <string>

#include "spdk_headers.h"

namespace effect_spdk {

// Runs `destroyed` once the blobstore has destroyed the device, which closes its bdev.
void WatchDevice(spdk_bs_dev* dev, std::function<void()> destroyed);

// Keeps a copy of the first page, for DisconnectDevice.
void KeepSuperBlock(spdk_bs_dev* dev, std::function<void()> done);

// Between the two, writes that fail are kept from the blobstore, and the first status is what TakeWriteFailure returns: an
// initialisation that fails would leave the blobstore behind, with the device, where nobody can reach it. The super
// block that is written meanwhile is kept.
void HideWriteFailures(spdk_bs_dev* dev);
int TakeWriteFailure(spdk_bs_dev* dev);

// From here on writes vanish and reads find the super block and zeroes: a blobstore does not unload when its super block is
// not there or not its own any more, and must not keep memory and bdev for that. Only the app thread may have a channel.
void DisconnectDevice(spdk_bs_dev* dev);

// A bdev under a blob, read-only, and zeroes past its end. `removed` runs when it is going away; its removal waits until the device
// is destroyed, and its last read has ended.
int OpenExternalSnapshot(const std::string& bdev, std::function<void(spdk_bs_dev*)> removed, spdk_bs_dev** out);

// In between a device that is destroyed stays what it is.
void HoldExternalSnapshot(spdk_bs_dev* dev);
void LetGoOfExternalSnapshot(spdk_bs_dev* dev);

// Stands for an external snapshot that is not there: all I/O fails.
spdk_bs_dev* DegradedDevice();

}  // namespace effect_spdk
