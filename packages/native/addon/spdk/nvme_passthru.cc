#include "nvme_passthru.h"

#include <cerrno>

namespace effect_spdk {

namespace {

// Of Dataset Management and of Copy: entries, 1's based.
constexpr uint32_t kMostEntries = 256;
constexpr uint32_t kCopyRangeBytes = 32;
constexpr uint32_t kMostCopyRangeBytes = 40;
constexpr uint64_t kIdentifyBytes = 4096;
constexpr uint64_t kWordBytes = 4;

// Queues, connections and event requests are the driver's, and an abort names a command by a number that only it knows.
// The others hand the device addresses of memory that no completion ends.
bool IsDrivers(const spdk_nvme_cmd& command) {
  switch (command.opc) {
    case SPDK_NVME_OPC_DELETE_IO_SQ:
    case SPDK_NVME_OPC_CREATE_IO_SQ:
    case SPDK_NVME_OPC_DELETE_IO_CQ:
    case SPDK_NVME_OPC_CREATE_IO_CQ:
    case SPDK_NVME_OPC_ABORT:
    case SPDK_NVME_OPC_ASYNC_EVENT_REQUEST:
    case SPDK_NVME_OPC_DOORBELL_BUFFER_CONFIG:
    case SPDK_NVME_OPC_FABRIC:
      return true;
    case SPDK_NVME_OPC_SET_FEATURES:
      return (command.cdw10 & 0xff) == SPDK_NVME_FEAT_HOST_MEM_BUFFER;
    default:
      return false;
  }
}

// SPDK writes these where it has data to point at, and sends them as they are where it has none.
void ClearPointers(spdk_nvme_cmd* command) {
  command->psdt = 0;
  command->cid = 0;
  command->mptr = 0;
  command->dptr.prp.prp1 = 0;
  command->dptr.prp.prp2 = 0;
}

bool CarriesData(const spdk_nvme_cmd& command) {
  const spdk_nvme_data_transfer direction = spdk_nvme_opc_get_data_transfer(static_cast<uint8_t>(command.opc));
  return direction != SPDK_NVME_DATA_NONE && direction != SPDK_NVME_DATA_BIDIRECTIONAL;
}

// What the device moves: as many bytes as the command says, not as many as there are. More would go to memory of others.
// 0 where that cannot be told from here.
uint64_t AdminBytes(const spdk_nvme_cmd& command) {
  switch (command.opc) {
    case SPDK_NVME_OPC_IDENTIFY:
      return kIdentifyBytes;
    case SPDK_NVME_OPC_GET_LOG_PAGE:
      return ((uint64_t{command.cdw11 & 0xffff} << 16 | command.cdw10 >> 16) + 1) * kWordBytes;
    default:
      return 0;
  }
}

uint64_t IoBytes(const spdk_nvme_cmd& command, uint32_t block_size) {
  switch (command.opc) {
    case SPDK_NVME_OPC_READ:
    case SPDK_NVME_OPC_WRITE:
    case SPDK_NVME_OPC_COMPARE:
      return uint64_t{(command.cdw12 & 0xffff) + 1} * block_size;
    case SPDK_NVME_OPC_DATASET_MANAGEMENT:
      return uint64_t{command.cdw10 % kMostEntries + 1} * sizeof(spdk_nvme_dsm_range);
    case SPDK_NVME_OPC_COPY: {
      const uint32_t format = command.cdw12 >> 8 & 0xf;
      const uint32_t range_bytes = format == 0 || format == 2 ? kCopyRangeBytes : kMostCopyRangeBytes;
      return uint64_t{command.cdw12 % kMostEntries + 1} * range_bytes;
    }
    default:
      return 0;
  }
}

}  // namespace

int CheckAdminCommand(spdk_nvme_cmd* command, uint32_t length_bytes) {
  // Half of a fused pair, whose other half nobody sends.
  if (IsDrivers(*command) || command->fuse != 0) return -EINVAL;
  if (length_bytes != 0 && !CarriesData(*command)) return -EINVAL;
  if (length_bytes < AdminBytes(*command)) return -EINVAL;
  ClearPointers(command);
  return 0;
}

int CheckIoCommand(spdk_nvme_cmd* command, uint32_t length_bytes, uint32_t nsid, uint32_t block_size) {
  if (command->opc == SPDK_NVME_OPC_FABRIC || command->fuse != 0) return -EINVAL;
  if (command->nsid != nsid) return -EINVAL;
  if (length_bytes != 0 && !CarriesData(*command)) return -EINVAL;
  if (length_bytes < IoBytes(*command, block_size)) return -EINVAL;
  ClearPointers(command);
  return 0;
}

}  // namespace effect_spdk
