// Writes packages/native/addon/core/ring_layout.h from packages/native/src/Layout.ts (its compiled form), so that
// the ring layout has one source. `--check` exits 1 when the header is stale.
import { readFileSync, writeFileSync } from "node:fs"
import { fileURLToPath } from "node:url"

const layoutUrl = new URL("../packages/native/dist/Layout.js", import.meta.url)
const headerPath = fileURLToPath(new URL("../packages/native/addon/core/ring_layout.h", import.meta.url))

const { Opcode, Detail, Sqe, Wide, Segment, Cqe, CompletionKind, Control } = await import(layoutUrl.href)

const snake = (name) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`).replace(/^_/, "")
const enumeration = (name, values) =>
  `enum class ${name} : uint32_t {\n${Object.entries(values)
    .map(([key, value]) => `  k${key} = ${value},`)
    .join("\n")}\n};\n`
const constants = (name, values) =>
  `namespace ${name} {\n${Object.entries(values)
    .map(([key, value]) => `inline constexpr uint32_t ${snake(key)} = ${value}u;`)
    .join("\n")}\n}  // namespace ${name}\n`

const header = `// Generated from src/Layout.ts by scripts/generate-layout.mjs. Do not edit.
#pragma once

#include <cstdint>

namespace effect_spdk {

${enumeration("Opcode", Opcode)}
${enumeration("Detail", Detail)}
${enumeration("CompletionKind", CompletionKind)}
namespace layout {

${constants("sqe", Sqe)}
${constants("wide", Wide)}
${constants("segment", Segment)}
${constants("cqe", Cqe)}
${constants("control", Control)}
}  // namespace layout

static_assert(layout::sqe::words * sizeof(uint32_t) == 32, "two submission entries are one cache line");
static_assert(layout::cqe::words * sizeof(uint32_t) == 16, "four completion entries are one cache line");
static_assert(layout::segment::max <= layout::sqe::segments_mask, "segments are counted in the entry");
static_assert(layout::segment::words * layout::segment::per_slot == layout::sqe::words, "segments fill a ring slot");
static_assert(layout::control::words % 16 == 0, "the rings start on a cache line");

}  // namespace effect_spdk
`

if (process.argv.includes("--check")) {
  const current = readFileSync(headerPath, "utf8")
  if (current !== header) {
    console.error("ring_layout.h is stale: run `npm run build`")
    process.exit(1)
  }
} else {
  writeFileSync(headerPath, header)
}
