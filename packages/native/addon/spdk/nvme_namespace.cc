#include "nvme_namespace.h"

#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <utility>

#include "nvme_thread.h"
#include "runtime.h"

namespace effect_spdk {

namespace {

// The number of blocks is 16 bits of a command, and zero stands for one.
constexpr uint64_t kMostBlocks = 65536;
// Ranges of one dataset management command.
constexpr uint32_t kMostRanges = 256;
// The lowest two bits of an address in a scatter list are not sent.
constexpr size_t kWordBytes = 4;
constexpr uint32_t kFewestSectorBytes = 512;
constexpr uint32_t kMostSectorBytes = 1u << 16;

// What the controller says of its own limits, where this SPDK reads it: from 26.05 on.
template <typename Controller>
const spdk_nvme_nvm_ctrlr_data* LimitsOf(Controller* ctrlr) {
  if constexpr (requires { spdk_nvme_nvm_ctrlr_get_data(ctrlr); }) return spdk_nvme_nvm_ctrlr_get_data(ctrlr);
  return nullptr;
}

}  // namespace

NvmeNamespace::NvmeNamespace(std::shared_ptr<NvmeController> controller, uint32_t nsid, uint32_t slot,
                             std::shared_ptr<Mailbox> mailbox)
    : Target(true, slot, std::move(mailbox)), controller_(std::move(controller)), nsid_(nsid) {}

NvmeNamespace::~NvmeNamespace() = default;

int NvmeNamespace::Make(const std::shared_ptr<NvmeController>& controller, uint32_t nsid, uint32_t slot,
                        std::shared_ptr<Mailbox> mailbox, std::shared_ptr<NvmeNamespace>* out) {
  spdk_nvme_ctrlr* ctrlr = controller->ctrlr();
  if (!spdk_nvme_ctrlr_is_active_ns(ctrlr, nsid)) return -ENOENT;
  spdk_nvme_ns* ns = spdk_nvme_ctrlr_get_ns(ctrlr, nsid);
  if (ns == nullptr || spdk_nvme_ns_get_extended_sector_size(ns) == 0) return -ENOENT;
  // Smaller than the specification's smallest, or larger than anything: no such device.
  const uint32_t sector_bytes = spdk_nvme_ns_get_sector_size(ns);
  if (sector_bytes < kFewestSectorBytes || sector_bytes > kMostSectorBytes) return -ENOTSUP;
  // Metadata in a buffer of its own would have to come with every request.
  if (spdk_nvme_ns_get_md_size(ns) != 0 && !spdk_nvme_ns_supports_extended_lba(ns)) return -ENOTSUP;
  std::shared_ptr<NvmeNamespace> self(new NvmeNamespace(controller, nsid, slot, std::move(mailbox)));
  self->block_size_ = spdk_nvme_ns_get_extended_sector_size(ns);
  self->buffer_alignment_ = spdk_nvme_ctrlr_is_fabrics(ctrlr) ? 1 : kWordBytes;
  self->has_write_cache_ = spdk_nvme_ctrlr_get_data(ctrlr)->vwc.present != 0;
  self->Resize(spdk_nvme_ns_get_num_sectors(ns));
  const uint32_t flags = spdk_nvme_ns_get_flags(ns);
  self->SetSupported(SPDK_BDEV_IO_TYPE_READ);
  self->SetSupported(SPDK_BDEV_IO_TYPE_WRITE);
  self->SetSupported(SPDK_BDEV_IO_TYPE_NVME_IO);
  self->SetSupported(SPDK_BDEV_IO_TYPE_ABORT);
  if ((flags & SPDK_NVME_NS_FLUSH_SUPPORTED) != 0) self->SetSupported(SPDK_BDEV_IO_TYPE_FLUSH);
  if ((flags & SPDK_NVME_NS_DEALLOCATE_SUPPORTED) != 0) self->SetSupported(SPDK_BDEV_IO_TYPE_UNMAP);
  if ((flags & SPDK_NVME_NS_WRITE_ZEROES_SUPPORTED) != 0) self->SetSupported(SPDK_BDEV_IO_TYPE_WRITE_ZEROES);
  self->TakeLimits();
  self->ids_ = NvmeIds::Of(ns);
  Runtime::Get().descriptor_count.fetch_add(1);
  *out = std::move(self);
  return 0;
}

void NvmeNamespace::TakeLimits() {
  spdk_nvme_ctrlr* ctrlr = controller_->ctrlr();
  most_zeroes_blocks_ = kMostBlocks;
  most_range_blocks_ = UINT32_MAX;
  most_ranges_ = kMostRanges;
  const spdk_nvme_nvm_ctrlr_data* limits = LimitsOf(ctrlr);
  if (limits == nullptr) return;
  // As a power of two, in units of the smallest page; 0 is no limit.
  if (limits->wzsl != 0 && limits->wzsl < 32) {
    const uint64_t page_bytes = uint64_t{1} << (12 + spdk_nvme_ctrlr_get_regs_cap(ctrlr).bits.mpsmin);
    const uint64_t blocks = (page_bytes << limits->wzsl) / block_size_;
    most_zeroes_blocks_ = std::clamp<uint64_t>(blocks, 1, kMostBlocks);
  }
  if (limits->dmrsl != 0) most_range_blocks_ = limits->dmrsl;
  if (limits->dmrl != 0) most_ranges_ = std::min<uint32_t>(limits->dmrl, kMostRanges);
  if (limits->dmsl != 0 && limits->dmsl < uint64_t{most_range_blocks_} * most_ranges_) {
    most_ranges_ = 1;
    most_range_blocks_ = static_cast<uint32_t>(std::min<uint64_t>(limits->dmsl, most_range_blocks_));
  }
}

std::string NvmeNamespace::Describe() const {
  char text[512];
  std::snprintf(text, sizeof text,
                "{\"name\":\"nsid %" PRIu32 "\",\"productName\":\"NVMe namespace\",\"blockSizeBytes\":%" PRIu32
                ",\"numBlocks\":%" PRIu64
                ",\"bufferAlignmentBytes\":%zu,\"writeUnitBlocks\":1,\"optimalIoBoundaryBlocks\":0,\"hasWriteCache\":%s"
                ",\"supportedIoTypes\":[\"read\",\"write\",\"nvme_io\",\"abort\"%s%s%s]}",
                nsid_, block_size_, num_blocks(), buffer_alignment_, has_write_cache_ ? "true" : "false",
                Supports(SPDK_BDEV_IO_TYPE_FLUSH) ? ",\"flush\"" : "", Supports(SPDK_BDEV_IO_TYPE_UNMAP) ? ",\"unmap\"" : "",
                Supports(SPDK_BDEV_IO_TYPE_WRITE_ZEROES) ? ",\"write_zeroes\"" : "");
  return text;
}

void NvmeNamespace::PostRemove() {
  Runtime::Get().PostToApp([this, self = shared_from_this()] { Remove(); });
}

void NvmeNamespace::Check() {
  spdk_nvme_ctrlr* ctrlr = controller_->ctrlr();
  spdk_nvme_ns* ns =
      spdk_nvme_ctrlr_is_active_ns(ctrlr, nsid_) ? spdk_nvme_ctrlr_get_ns(ctrlr, nsid_) : nullptr;
  // Other identifiers are another device, and so are blocks of another size.
  if (ns == nullptr || spdk_nvme_ns_get_extended_sector_size(ns) != block_size_ || ids_.DiffersFrom(NvmeIds::Of(ns))) {
    replaced_.store(true, std::memory_order_release);
    return PostRemove();
  }
  const uint64_t blocks = spdk_nvme_ns_get_num_sectors(ns);
  if (blocks == num_blocks()) return;
  Runtime::Get().PostToApp([this, self = shared_from_this(), blocks] { Resized(blocks); });
}

void NvmeNamespace::CloseNow() {
  const auto self = shared_from_this();
  Runtime::Get().descriptor_count.fetch_sub(1);
  // The controller lets go of it before whoever closed it hears so, and then disconnects.
  const bool posted = NvmeThread::Get().Post([this, self] {
    controller_->OnNamespaceClosed(this);
    Runtime::Get().PostToApp([this, self] { Closed(0); });
  });
  if (!posted) Closed(0);
}

}  // namespace effect_spdk
