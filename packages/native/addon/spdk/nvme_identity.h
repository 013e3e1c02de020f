// Watches the NVMe bdevs of SPDK's own module: it compares no identifiers when a connection comes back, and would write to
// whatever volume has the namespace id then. App thread only.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "spdk_headers.h"

struct spdk_bdev_nvme_ctrlr;

namespace effect_spdk {

// What cannot change while it is the same volume. All zeroes: the controller does not tell.
struct NvmeIds {
  static NvmeIds Of(spdk_nvme_ns* ns);
  // While SPDK reads them they are zero for a moment, so that one which is not there says nothing.
  bool DiffersFrom(const NvmeIds& other) const;

  std::array<uint8_t, 16> uuid{};
  std::array<uint8_t, 16> nguid{};
  uint64_t eui64 = 0;
  uint32_t block_bytes = 0;
};

class NvmeIdentity {
 public:
  static NvmeIdentity& Get();

  void Start();
  void Stop();

 private:
  struct Known {
    spdk_nvme_ctrlr* ctrlr = nullptr;
    uint32_t nsid = 0;
    // One that was made later, by the same name, is another.
    spdk_bdev* bdev = nullptr;
    spdk_uuid bdev_uuid{};
    NvmeIds ids;
    bool seen = false;
    // Its controller is on its way out.
    bool given_up = false;
  };

  static int OnLook(void* context);
  static int OnRefresh(void* context);
  bool Look();
  void Refresh();
  void GiveUp(spdk_bdev_nvme_ctrlr* group, Known* known);

  std::vector<Known> known_;
  spdk_poller* look_poller_ = nullptr;
  spdk_poller* refresh_poller_ = nullptr;
};

}  // namespace effect_spdk
