// The external snapshots under blobs, as the blobstore sees them. App thread, all of it.
#pragma once

#include <functional>
#include <string>

#include "spdk_headers.h"

namespace effect_spdk {

// A bdev under a blob, read-only, and zeroes past its end. `removed` runs when it is going away; its removal waits until the device
// is destroyed, and its last read has ended.
int OpenExternalSnapshot(const std::string& bdev, std::function<void(spdk_bs_dev*)> removed, spdk_bs_dev** out);

// In between a device that is destroyed stays what it is.
void HoldExternalSnapshot(spdk_bs_dev* dev);
void LetGoOfExternalSnapshot(spdk_bs_dev* dev);

// Stands for an external snapshot that is not there: all I/O fails.
spdk_bs_dev* DegradedDevice();

}  // namespace effect_spdk
