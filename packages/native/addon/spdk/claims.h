// The claims of blobstores on the bdevs under them. SPDK then opens them for writing for nobody else, which keeps exports, bdevs
// that stand on others, and second blobstores off. App thread.
#pragma once

#include <string>

#include "spdk_headers.h"

namespace effect_spdk {

// Who has claimed the bdev, in words: empty when nobody has, or there is no such bdev.
std::string ClaimOf(const std::string& name);
// Whether somebody has the bdev, which nobody has claimed, open for writing: then SPDK's newer kinds of claims fail.
bool HasWriter(const std::string& name);

// A holder has the bdev open. The claim ends with the last of them; a descriptor that is closed does not end it.
// Whoever has the bdev open for writing already goes on writing: SPDK's newer kinds of claims do not allow that.
// -EPERM when anybody has claimed it.
int ClaimBdev(spdk_bdev* bdev);
// As one more holder, where there is one.
int ShareClaim(spdk_bdev* bdev);
void ReleaseClaim(spdk_bdev* bdev);

// As long as it lives, the bdev opens for writing although a blobstore has claimed it. Nothing else runs meanwhile.
class LiftedClaim {
 public:
  explicit LiftedClaim(const std::string& name);
  ~LiftedClaim();
  LiftedClaim(const LiftedClaim&) = delete;
  LiftedClaim& operator=(const LiftedClaim&) = delete;

 private:
  spdk_bdev* bdev_ = nullptr;
};

}  // namespace effect_spdk
