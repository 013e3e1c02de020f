/**
 * An opcode that is added to a copy of the tree: the compilers name each place where it is not handled, in both engines and in the
 * addon. With a stub at each of those places everything compiles, and a request of the new opcode is refused by name.
 */
import { spawnSync } from "node:child_process"
import { cpSync, mkdirSync, mkdtempSync, readFileSync, symlinkSync, writeFileSync } from "node:fs"
import { rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { afterAll, beforeAll, describe, expect, it } from "vitest"

const root = fileURLToPath(new URL("../../", import.meta.url))
const copy = mkdtempSync(join(tmpdir(), "effect-spdk-planted-"))
afterAll(() => rm(copy, { recursive: true, force: true }))

const run = (command, args, cwd = copy) =>
  spawnSync(command, args, { cwd, encoding: "utf8", timeout: 120_000, env: { ...process.env, LC_ALL: "C" } })
const compiler = [process.env.CXX, "c++", "g++"].find(
  (name) => name !== undefined && run(name, ["--version"]).status === 0
)
const flags = run(process.execPath, ["spdk-flags.mjs", "--cflags"], join(root, "packages/native/addon"))
const canCompile = compiler !== undefined && flags.status === 0

const core = "packages/core/src/internal"
const addon = "packages/native/addon/spdk"
/** Where an operation of `Bdev` that SPDK calls "compare" would have to be handled, and the stub that says that it is not. */
const table = {
  file: "packages/native/src/Layout.ts",
  after: "as const satisfies Readonly<Record<Opcode, OperationTraits>>",
  before: "} ",
  stub: `,\n  [Opcode.Compare]: { ioType: "compare", writes: false, hasRange: true, data: "out" }\n`
}
const record = (file, name, value) => ({
  file: `${core}/${file}`,
  after: name,
  before: "\n}",
  stub: `,\n  [Opcode.Compare]: ${value}`
})
const refuses = (file, method) => ({
  file: `${core}/${file}`,
  after: method,
  before: "      default:",
  stub: "      case Opcode.Compare:\n        return io.finish(failed)\n"
})
const typescript = [
  record("embedded/bdev/modules/delay.ts", "const averageKindOf", "0"),
  record("embedded/bdev/modules/device.ts", "const operations", "undefined"),
  record("embedded/bdev/modules/error.ts", "const errorTypeOf", "undefined"),
  record("embedded/bdev/ioStat.ts", "const counterOf", "undefined"),
  refuses("embedded/bdev/modules/aio.ts", "submit(io"),
  refuses("embedded/bdev/modules/malloc.ts", "submit(io"),
  refuses("embedded/bdev/modules/null.ts", "submit(io"),
  refuses("embedded/nvme/disk.ts", "submit(io"),
  refuses("embedded/nvme/disk.ts", "private piece(")
]
const native = [
  { function: "Queue::Dispatch", file: "queue_take.cc", before: "    case Opcode::kReset:" },
  { function: "Queue::AskBdev", file: "queue_bdev.cc", before: "    case Opcode::kNvmeIo:" },
  { function: "Queue::AskBlob", file: "queue_blob.cc", before: "    case Opcode::kNvmeIo:" },
  { function: "Queue::CallNvme", file: "queue_nvme.cc", before: "    case Opcode::kNop:" }
]

const edit = (file, change) => {
  const path = join(copy, file)
  const before = readFileSync(path, "utf8")
  const after = change(before)
  expect(after, `${file} is not what this test knows`).not.toBe(before)
  writeFileSync(path, after)
}

/** Puts `stub` in front of the first `before` that comes after `after`. */
const insert = ({ after, before, file, stub }) =>
  edit(file, (text) => {
    const at = text.indexOf(before, text.indexOf(after) + (before === "} " ? -before.length : 0))
    return `${text.slice(0, at).trimEnd()}${stub.startsWith(",") ? "" : "\n"}${stub}${text.slice(at)}`
  })

/** The places that `tsc` names, `file` by `file`. */
const typeErrors = () => {
  const { error, stdout } = run(process.execPath, [
    join(root, "node_modules/typescript/bin/tsc"),
    "-b",
    "packages/core"
  ])
  expect(error).toBeUndefined()
  return stdout
    .split("\n")
    .flatMap((line) => /^(\S+?)\(\d+,\d+\): error/.exec(line)?.[1] ?? [])
    .toSorted()
}

const generate = () => expect(run(process.execPath, ["scripts/generate-layout.mjs"]).status).toBe(0)

/** The functions with a switch that has no case for the new opcode. */
const nativeErrors = () =>
  native.flatMap(({ file, function: name }) => {
    const args = [
      "-std=c++20",
      "-fsyntax-only",
      "-Werror=switch",
      ...flags.stdout.trim().split("\n"),
      join(addon, file)
    ]
    const { status, stderr } = run(compiler, args)
    if (status === 0) return []
    const named = [...stderr.matchAll(/In member function '[^']*?(Queue::\w+)\(/g)].map((match) => match[1])
    expect(stderr).toContain("kCompare")
    return named.includes(name) ? named : [...named, `another than ${name}: ${stderr}`]
  })

beforeAll(() => {
  for (const file of ["tsconfig.base.json", "package.json", "scripts/generate-layout.mjs"])
    cpSync(join(root, file), join(copy, file))
  for (const name of ["native", "core"]) {
    const from = join(root, "packages", name)
    const to = join(copy, "packages", name)
    mkdirSync(to, { recursive: true })
    for (const entry of ["src", "dist", "tsconfig.json", "package.json", "node_modules"]) {
      cpSync(join(from, entry), join(to, entry), { recursive: true, verbatimSymlinks: true })
    }
  }
  cpSync(join(root, "packages/native/addon"), join(copy, "packages/native/addon"), { recursive: true })
  symlinkSync(join(root, "node_modules"), join(copy, "node_modules"))
})

describe("a new opcode", () => {
  it("does not compile before the table of operations has it", () => {
    edit(table.file, (text) => text.replace(/NvmeIo: 9\n/, "NvmeIo: 9,\n  Compare: 10\n"))
    expect(typeErrors()).toContain(table.file)
  })

  it("does not compile before each bdev module of the embedded engine says what it does with it", () => {
    insert(table)
    expect(typeErrors()).toStrictEqual(typescript.map(({ file }) => file).toSorted())
    for (const place of typescript) insert(place)
    expect(typeErrors()).toStrictEqual([])
  })

  it.skipIf(!canCompile)("does not compile before each function of the addon has a case for it", () => {
    generate()
    expect(nativeErrors()).toStrictEqual(native.map((place) => place.function))
    for (const { before, file } of native)
      insert({ file: `${addon}/${file}`, after: "", before, stub: "    case Opcode::kCompare:\n" })
    expect(nativeErrors()).toStrictEqual([])
  })

  it("is refused by the embedded engine where a bdev has no such I/O, and the other refusals are as they were", () => {
    const file = "packages/core/test/embeddedQueueRefusals.test.ts"
    cpSync(join(root, "packages/core/test"), join(copy, "packages/core/test"), { recursive: true })
    const stub = `
    ["planted", (w) => command(w.nullDisk, Opcode.Compare), refused(ENOTSUP, Detail.NotSupported)],`
    insert({ file, after: "const cases", before: '\n    ["a flush on a read-only channel"', stub })
    const vitest = join(root, "node_modules/vitest/vitest.mjs")
    const { stderr, stdout } = run(
      process.execPath,
      [vitest, "run", "embeddedQueueRefusals", "--reporter=verbose"],
      join(copy, "packages/core")
    )
    expect(stdout, stderr).toMatch(/✓.*planted/)
    expect(stdout, stderr).not.toContain("failed")
  })
})
