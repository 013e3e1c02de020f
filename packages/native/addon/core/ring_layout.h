// Generated from src/Layout.ts by scripts/generate-layout.mjs. Do not edit.
#pragma once

#include <cstdint>

namespace effect_spdk {

enum class Opcode : uint32_t {
  kNop = 0,
  kRead = 1,
  kWrite = 2,
  kFlush = 3,
  kUnmap = 4,
  kWriteZeroes = 5,
  kReset = 6,
  kAbort = 7,
  kTimer = 8,
  kNvmeIo = 9,
};

enum class Detail : uint32_t {
  kNone = 0,
  kUnknownOpcode = 1,
  kStaleChannel = 2,
  kStaleSlab = 3,
  kSlabRange = 4,
  kMisaligned = 5,
  kBlockRange = 6,
  kReadOnly = 7,
  kNotSupported = 8,
  kRemoved = 9,
  kTooManySegments = 10,
  kUnknownTarget = 11,
  kClosing = 12,
  kLengthMismatch = 13,
  kStopped = 14,
};

enum class CompletionKind : uint32_t {
  kRequest = 0,
  kTick = 1,
};

namespace layout {

namespace sqe {
inline constexpr uint32_t words = 8u;
inline constexpr uint32_t opcode_word = 0u;
inline constexpr uint32_t segments_shift = 8u;
inline constexpr uint32_t segments_mask = 127u;
inline constexpr uint32_t wide_bit = 32768u;
inline constexpr uint32_t id_shift = 16u;
inline constexpr uint32_t id_generation_word = 1u;
inline constexpr uint32_t handles_word = 2u;
inline constexpr uint32_t slab_shift = 16u;
inline constexpr uint32_t no_slot = 65535u;
inline constexpr uint32_t channel_generation_word = 3u;
inline constexpr uint32_t slab_generation_word = 4u;
inline constexpr uint32_t slab_offset_word = 5u;
inline constexpr uint32_t offset_blocks_word = 6u;
inline constexpr uint32_t length_blocks_word = 7u;
inline constexpr uint32_t target_id_word = 2u;
inline constexpr uint32_t target_generation_word = 3u;
}  // namespace sqe

namespace wide {
inline constexpr uint32_t offset_blocks_word = 0u;
inline constexpr uint32_t length_blocks_word = 1u;
}  // namespace wide

namespace segment {
inline constexpr uint32_t words = 4u;
inline constexpr uint32_t slab_slot_word = 0u;
inline constexpr uint32_t slab_generation_word = 1u;
inline constexpr uint32_t slab_offset_word = 2u;
inline constexpr uint32_t length_bytes_word = 3u;
inline constexpr uint32_t per_slot = 2u;
inline constexpr uint32_t max = 64u;
}  // namespace segment

namespace cqe {
inline constexpr uint32_t words = 4u;
inline constexpr uint32_t id_word = 0u;
inline constexpr uint32_t id_generation_word = 1u;
inline constexpr uint32_t status_word = 2u;
inline constexpr uint32_t reason_word = 3u;
inline constexpr uint32_t detail_mask = 255u;
inline constexpr uint32_t nvme_shift = 8u;
inline constexpr uint32_t nvme_mask = 262143u;
inline constexpr uint32_t kind_shift = 31u;
}  // namespace cqe

namespace control {
inline constexpr uint32_t words = 128u;
inline constexpr uint32_t magic_word = 0u;
inline constexpr uint32_t sq_entries_word = 1u;
inline constexpr uint32_t cq_entries_word = 2u;
inline constexpr uint32_t sq_tail_word = 16u;
inline constexpr uint32_t sq_head_word = 32u;
inline constexpr uint32_t cq_tail_word = 48u;
inline constexpr uint32_t cq_head_word = 64u;
inline constexpr uint32_t js_sleeping_word = 80u;
inline constexpr uint32_t js_gives_way_word = 81u;
inline constexpr uint32_t reactor_sleeping_word = 96u;
inline constexpr uint32_t magic = 1397769291u;
}  // namespace control

}  // namespace layout

static_assert(layout::sqe::words * sizeof(uint32_t) == 32, "two submission entries are one cache line");
static_assert(layout::cqe::words * sizeof(uint32_t) == 16, "four completion entries are one cache line");
static_assert(layout::segment::max <= layout::sqe::segments_mask, "segments are counted in the entry");
static_assert(layout::segment::words * layout::segment::per_slot == layout::sqe::words, "segments fill a ring slot");
static_assert(layout::control::words % 16 == 0, "the rings start on a cache line");

}  // namespace effect_spdk
