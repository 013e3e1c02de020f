// Writes packages/native/addon/core/ring_layout.h and operations.h, and spdk/io_types.h, from packages/native/src/Layout.ts (its compiled
// form), so that the ring layout and the table of operations have one source. `--check` exits 1 when a header is stale.
import { existsSync, readFileSync, writeFileSync } from "node:fs"
import { fileURLToPath } from "node:url"

const layoutUrl = new URL("../packages/native/dist/Layout.js", import.meta.url)
const pathOf = (header) => fileURLToPath(new URL(`../packages/native/addon/${header}`, import.meta.url))

const { Opcode, operations, Detail, Sqe, Wide, Segment, Cqe, CompletionKind, Control } = await import(layoutUrl.href)

const snake = (name) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`).replace(/^_/, "")
const enumeration = (name, values) =>
  `enum class ${name} : uint32_t {\n${Object.entries(values)
    .map(([key, value]) => `  k${key} = ${value},`)
    .join("\n")}\n};\n`
const constants = (name, values) =>
  `namespace ${name} {\n${Object.entries(values)
    .map(([key, value]) => `inline constexpr uint32_t ${snake(key)} = ${value}u;`)
    .join("\n")}\n}  // namespace ${name}\n`

const generated = "// Generated from src/Layout.ts by scripts/generate-layout.mjs. Do not edit."

const ringLayout = `${generated}
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

/** A function of the opcode: a switch without default, so that the compiler names an opcode that has no case. */
const functionOf = (returns, name, valueOf, otherwise) => `constexpr ${returns} ${name}(Opcode opcode) {
  switch (opcode) {
${Object.entries(Opcode)
  .map(([key, code]) => `    case Opcode::k${key}:\n      return ${valueOf(operations[code])};`)
  .join("\n")}
  }
  return ${otherwise};
}
`

const operationsHeader = `${generated}
// What comes from JavaScript may be no opcode at all: that counts as an operation of no device, without a range and memory.
#pragma once

#include "ring_layout.h"

namespace effect_spdk {

enum class Data { kNone, kIn, kOut, kCommand };

// The descriptor must be open for writing.
${functionOf("bool", "Writes", ({ writes }) => writes, "false")}
// The entry names blocks.
${functionOf("bool", "HasRange", ({ hasRange }) => hasRange, "false")}
// The memory that the entry names.
${functionOf("Data", "DataOf", ({ data }) => `Data::k${data[0].toUpperCase()}${data.slice(1)}`, "Data::kNone")}
}  // namespace effect_spdk
`

const ioTypesHeader = `${generated}
#pragma once

#include "../core/ring_layout.h"
#include "spdk_headers.h"

namespace effect_spdk {

${functionOf(
  "spdk_bdev_io_type",
  "IoTypeOf",
  ({ ioType }) => `SPDK_BDEV_IO_TYPE_${(ioType ?? "invalid").toUpperCase()}`,
  "SPDK_BDEV_IO_TYPE_INVALID"
)}
}  // namespace effect_spdk
`

const headers = {
  "core/ring_layout.h": ringLayout,
  "core/operations.h": operationsHeader,
  "spdk/io_types.h": ioTypesHeader
}

for (const [name, text] of Object.entries(headers)) {
  const path = pathOf(name)
  if (existsSync(path) && readFileSync(path, "utf8") === text) continue
  if (process.argv.includes("--check")) {
    console.error(`${name} is stale: run \`npm run build\``)
    process.exitCode = 1
  } else {
    writeFileSync(path, text)
  }
}
