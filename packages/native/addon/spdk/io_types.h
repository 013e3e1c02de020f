// Generated from src/Layout.ts by scripts/generate-layout.mjs. Do not edit.
#pragma once

#include "../core/ring_layout.h"
#include "spdk_headers.h"

namespace effect_spdk {

constexpr spdk_bdev_io_type IoTypeOf(Opcode opcode) {
  switch (opcode) {
    case Opcode::kNop:
      return SPDK_BDEV_IO_TYPE_INVALID;
    case Opcode::kRead:
      return SPDK_BDEV_IO_TYPE_READ;
    case Opcode::kWrite:
      return SPDK_BDEV_IO_TYPE_WRITE;
    case Opcode::kFlush:
      return SPDK_BDEV_IO_TYPE_FLUSH;
    case Opcode::kUnmap:
      return SPDK_BDEV_IO_TYPE_UNMAP;
    case Opcode::kWriteZeroes:
      return SPDK_BDEV_IO_TYPE_WRITE_ZEROES;
    case Opcode::kReset:
      return SPDK_BDEV_IO_TYPE_RESET;
    case Opcode::kAbort:
      return SPDK_BDEV_IO_TYPE_INVALID;
    case Opcode::kTimer:
      return SPDK_BDEV_IO_TYPE_INVALID;
    case Opcode::kNvmeIo:
      return SPDK_BDEV_IO_TYPE_NVME_IO;
  }
  return SPDK_BDEV_IO_TYPE_INVALID;
}

}  // namespace effect_spdk
