// Generated from src/Layout.ts by scripts/generate-layout.mjs. Do not edit.
// What comes from JavaScript may be no opcode at all: that counts as an operation of no device, without a range and memory.
#pragma once

#include "ring_layout.h"

namespace effect_spdk {

enum class Data { kNone, kIn, kOut, kCommand };

// The descriptor must be open for writing.
constexpr bool Writes(Opcode opcode) {
  switch (opcode) {
    case Opcode::kNop:
      return false;
    case Opcode::kRead:
      return false;
    case Opcode::kWrite:
      return true;
    case Opcode::kFlush:
      return true;
    case Opcode::kUnmap:
      return true;
    case Opcode::kWriteZeroes:
      return true;
    case Opcode::kReset:
      return false;
    case Opcode::kAbort:
      return false;
    case Opcode::kTimer:
      return false;
    case Opcode::kNvmeIo:
      return false;
  }
  return false;
}

// The entry names blocks.
constexpr bool HasRange(Opcode opcode) {
  switch (opcode) {
    case Opcode::kNop:
      return false;
    case Opcode::kRead:
      return true;
    case Opcode::kWrite:
      return true;
    case Opcode::kFlush:
      return true;
    case Opcode::kUnmap:
      return true;
    case Opcode::kWriteZeroes:
      return true;
    case Opcode::kReset:
      return false;
    case Opcode::kAbort:
      return false;
    case Opcode::kTimer:
      return false;
    case Opcode::kNvmeIo:
      return false;
  }
  return false;
}

// The memory that the entry names.
constexpr Data DataOf(Opcode opcode) {
  switch (opcode) {
    case Opcode::kNop:
      return Data::kNone;
    case Opcode::kRead:
      return Data::kIn;
    case Opcode::kWrite:
      return Data::kOut;
    case Opcode::kFlush:
      return Data::kNone;
    case Opcode::kUnmap:
      return Data::kNone;
    case Opcode::kWriteZeroes:
      return Data::kNone;
    case Opcode::kReset:
      return Data::kNone;
    case Opcode::kAbort:
      return Data::kNone;
    case Opcode::kTimer:
      return Data::kNone;
    case Opcode::kNvmeIo:
      return Data::kCommand;
  }
  return Data::kNone;
}

}  // namespace effect_spdk
