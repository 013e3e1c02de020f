import * as Bdev from "@effect-spdk/core/Bdev"
import { IoFailed, SpdkError } from "@effect-spdk/core/SpdkError"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { execFileSync, spawn } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import * as Blobstore from "../src/Blobstore.ts"
import * as Check from "../src/Check.ts"
import { pageCrc } from "../src/internal/format/crc32c.ts"
import { maskHeaderBytes, maskType } from "../src/internal/format/layout.ts"
import { encodeSuperBlock } from "../src/internal/format/superBlock.ts"
import { onImage, temporaryFolder } from "./golden/device.ts"
import * as G from "./golden/images.ts"
import { makeRandom, mutate, type Random, rounds, seed } from "./golden/random.ts"
import { rpcPyTool, spdkTool, titled } from "../../../test/src/support/spdkTools.ts"

const kinds = (repaired: Check.Repaired): ReadonlyArray<string> => repaired.actions.map(({ kind }) => kind)

const scramble = (type: 0 | 1 | 2, bytes: Uint8Array): Uint8Array => {
  const mask = G.maskBytes(bytes, G.superOf(bytes), type)
  for (let i = maskHeaderBytes; i < maskHeaderBytes + 8; i++) mask[i] = (mask[i] ?? 0) ^ 0x5a
  return bytes
}

/** Repairs and looks again; a second repair finds nothing to do. */
const repaired = (bytes: Uint8Array) =>
  onImage(bytes, (read) =>
    Effect.gen(function* () {
      const result = yield* Check.repair
      const image = read()
      const dump = yield* Check.dump
      assert.deepStrictEqual(dump.report, result.after)
      const again = yield* Check.repair
      assert.deepStrictEqual(again.actions, [])
      assert.isTrue(image.equals(read()), "nothing to do is nothing written")
      return { result, image, dump }
    })
  )

const told = (dump: Check.Dump) =>
  dump.blobs.map(({ allocatedClusters, clusters, id }) => [`0x${id.toString(16)}`, clusters, allocatedClusters])
const saidOf = (name: G.Name) => G.said(name).blobs.map(({ allocated, clusters, id }) => [id, clusters, allocated])

describe("repair", () => {
  it.effect.each(G.whole.filter((name) => name !== "unclean"))("writes nothing to %s, which is sound", (name) =>
    Effect.gen(function* () {
      const bytes = G.image(name)
      const { image, result } = yield* repaired(bytes)
      assert.deepStrictEqual(result.actions, [])
      assert.isTrue(image.equals(bytes))
    })
  )

  it.effect("makes of a store that was not unloaded one that was", () =>
    Effect.gen(function* () {
      const { image, result } = yield* repaired(G.image("unclean"))
      assert.deepStrictEqual(kinds(result), ["masks rebuilt"])
      assert.deepStrictEqual(result.after.findings, [])
      // The same commands with an unload at the end.
      const clean = G.image("snapshots")
      assert.isTrue(image.subarray(0, 4096 * 40).equals(clean.subarray(0, 4096 * 40)))
    })
  )

  it.effect("leaves a store alone that is loaded, and repairs it once it is not", () =>
    onImage(G.image("unclean"), (read) =>
      Effect.gen(function* () {
        yield* Effect.scoped(
          Effect.gen(function* () {
            yield* Blobstore.load()
            const loaded = read()
            const { reason } = yield* Effect.flip(Check.repair)
            assert.strictEqual(reason._tag, "Busy")
            assert.isTrue(loaded.equals(read()), "nothing was written")
          })
        )
        const { actions, after } = yield* Check.repair
        assert.deepStrictEqual(actions, [])
        assert.isTrue(after.isClean)
      })
    )
  )

  it.effect.each(G.cut)("recovers %s as SPDK does", (name) =>
    Effect.gen(function* () {
      const { dump, result } = yield* repaired(G.image(name))
      assert.isTrue(result.after.isClean)
      // Here SPDK leaves clusters to two blobs; the clone gives them back instead.
      if (name === "delete-cut-2") {
        assert.deepStrictEqual(kinds(result), ["clusters returned", "leftover kept", "masks rebuilt"])
        assert.deepStrictEqual(told(dump), [
          ["0x100000000", 20, 2],
          ["0x100000002", 5, 5],
          ["0x100000004", 20, 6]
        ])
      } else assert.deepStrictEqual<unknown>(told(dump), saidOf(name))
      const leftover = {
        "snapshot-cut-2": "leftover dropped",
        "snapshot-cut-3": "leftover kept",
        "delete-cut-3": "leftover dropped"
      }
      const size = { "grow-cut": "size settled", "shrink-cut": "size settled" }
      for (const [cut, kind] of Object.entries({ ...leftover, ...size }))
        if (cut === name) assert.include(kinds(result), kind)
    })
  )

  it.effect.each([
    { mask: "pages", type: maskType.usedPages },
    { mask: "clusters", type: maskType.usedClusters },
    { mask: "blob ids", type: maskType.usedBlobIds }
  ])("rebuilds the mask of $mask, byte by byte", ({ type }) =>
    Effect.gen(function* () {
      for (const name of ["large", "rle", "snapshots", "lvol"] as const) {
        const { image, result } = yield* repaired(scramble(type, G.image(name)))
        assert.isFalse(result.before.isClean)
        assert.deepStrictEqual(result.after.findings, [])
        assert.isTrue(image.equals(G.image(name)))
      }
    })
  )

  it.effect("frees nothing when a blob cannot be read, and marks what is in use", () =>
    Effect.gen(function* () {
      const bytes = G.image("large")
      const sb = G.superOf(bytes)
      const found = G.blobsOf(bytes)
      const [first, thin] = [found[0]?.meta, found[1]?.meta]
      const page = G.mdBytes(bytes, sb, first?.extentPages[0] ?? 0)
      page[99] = (page[99] ?? 0) ^ 1
      const mask = G.maskBytes(bytes, sb, maskType.usedClusters)
      const cluster = thin?.clusters[0] ?? 0
      const at = maskHeaderBytes + (cluster >> 3)
      mask[at] = (mask[at] ?? 0) & ~(1 << (cluster & 7))
      const { image, result } = yield* repaired(bytes)
      assert.deepStrictEqual(kinds(result), ["marks added"])
      const used = G.maskOf(image, sb, maskType.usedClusters)
      const before = G.maskOf(G.image("large"), sb, maskType.usedClusters)
      assert.deepStrictEqual(used.toBytes(), before.toBytes())
      assert.isTrue(result.after.hasErrors)
      assert.isFalse(result.after.findings.some(({ _tag }) => _tag === "Missing"))
    })
  )

  it.effect("leaves a device alone that is no blobstore, or that is open for reading", () =>
    Effect.gen(function* () {
      const bytes = G.image("large")
      bytes[0] = 0
      const { image, result } = yield* repaired(bytes)
      assert.deepStrictEqual(result.actions, [])
      assert.isTrue(image.equals(bytes))
      const error = yield* onImage(G.image("unclean"), () => Check.repair, { readonly: true }).pipe(Effect.flip)
      assert(error instanceof SpdkError)
      assert.strictEqual(error.reason._tag, "ReadOnly")
    })
  )

  it.effect("keeps what the super block has that no field describes", () =>
    Effect.gen(function* () {
      const bytes = G.image("unclean")
      bytes.fill(0x77, 200, 300)
      bytes.set(encodeSuperBlock(G.superOf(G.image("unclean")), bytes))
      const { image } = yield* repaired(bytes)
      assert.isTrue(image.subarray(200, 300).every((byte) => byte === 0x77))
    })
  )
})

/** A device whose N-th write, and all after it, fail: a power cut for whoever reads it later. */
const cutAt = (bdev: Bdev.Bdev, writes: number): Bdev.Bdev => {
  let left = writes
  const failure = new SpdkError({ reason: new IoFailed({ operation: "Bdev.write", resource: bdev.name }) })
  return Object.create(bdev, {
    writeBytes: {
      value: (offsetBytes: number, bytes: Uint8Array) =>
        Effect.suspend(() => (left-- > 0 ? bdev.writeBytes(offsetBytes, bytes) : Effect.fail(failure)))
    }
  }) as Bdev.Bdev
}

describe("a repair that is cut at any write", () => {
  it.effect.each(["unclean", ...G.cut] as const)("leaves %s so that the next one finishes", (name) =>
    Effect.gen(function* () {
      for (let writes = 0, done = false; !done; writes++) {
        assert.isBelow(writes, 40)
        done = yield* onImage(G.image(name), () =>
          Effect.gen(function* () {
            const bdev = yield* Bdev.Bdev
            const cut = yield* Check.repair.pipe(
              Effect.provideService(Bdev.Bdev, cutAt(bdev, writes)),
              Effect.as(false),
              Effect.catchTag("SpdkError", () => Effect.succeed(true))
            )
            const between = yield* Check.check
            assert.isFalse(between.hasErrors, between.findings.map(({ message }) => message).join("; "))
            const finished = yield* Check.repair
            assert.isTrue(finished.after.isClean)
            assert.notInclude(
              finished.after.findings.map(({ _tag }) => _tag),
              "Unclean"
            )
            return !cut
          })
        )
      }
    })
  )
})

describe("mutated images", () => {
  const one = (random: Random) => {
    const bytes = G.image(random.pick(G.names))
    const sb = G.superOf(bytes)
    const page = random.below(sb.mdStart + Math.min(16, sb.mdLength))
    const part = bytes.subarray(page * 4096, page * 4096 + 4096)
    mutate(random, part, 1 + random.below(3))
    // What lies behind a wrong CRC is never reached.
    if ((page === 0 || page >= sb.mdStart) && random.below(2) === 0) {
      new DataView(part.buffer, part.byteOffset).setUint32(4092, pageCrc(part), true)
    }
    return onImage(bytes, () =>
      Effect.gen(function* () {
        const { actions, after, before } = yield* Check.repair
        const errors = (report: Check.Report) => report.findings.filter(({ severity }) => severity === "error").length
        assert.isAtMost(errors(after), errors(before))
        if (actions.some(({ kind }) => kind === "masks rebuilt")) {
          for (const { _tag } of after.findings) assert.notInclude(["Lost", "Missing", "MaskDamaged", "Unclean"], _tag)
        }
      })
    )
  }

  it.effect(`are checked and repaired, and a repair makes nothing worse (seed ${seed})`, () =>
    Effect.forEach(
      Array.from({ length: rounds(40, 2000) }, (_, round) => round),
      (round) => one(makeRandom((seed + Math.imul(round, 0x9e3779b9)) >>> 0)),
      { discard: true }
    )
  )
})

const spdkTgt = spdkTool("spdk_tgt")
const lacking = [spdkTgt, rpcPyTool].find(({ missing }) => missing !== undefined) ?? spdkTgt

describe.skipIf(lacking.missing !== undefined)(titled("SPDK's own target", lacking), () => {
  it.effect("loads a repaired lvol store with all its volumes", () =>
    Effect.gen(function* () {
      const damaged = scramble(maskType.usedClusters, scramble(maskType.usedPages, G.image("lvol")))
      const { image, result } = yield* repaired(damaged)
      assert.isTrue(result.after.isClean)
      const folder = yield* temporaryFolder
      const [file, socket, config] = ["disk.img", "rpc.sock", "config.json"].map((name) => path.join(folder, name))
      assert(file !== undefined && socket !== undefined && config !== undefined)
      fs.writeFileSync(file, image)
      const params = { name: "a0", filename: file, block_size: 4096 }
      const bdev = { subsystem: "bdev", config: [{ method: "bdev_aio_create", params }] }
      fs.writeFileSync(config, JSON.stringify({ subsystems: [bdev] }))
      yield* Effect.acquireRelease(
        Effect.sync(() =>
          spawn(
            spdkTgt.path,
            ["--no-huge", "-s", "1024", "-m", "0x1", "--no-pci", "--disable-cpumask-locks", "-r", socket, "-c", config],
            {
              stdio: "ignore"
            }
          )
        ),
        (target) => Effect.sync(() => target.kill("SIGKILL"))
      )
      // Tries to connect every 0.2 s, for ten seconds at most.
      const rpc = (method: string): string =>
        execFileSync(rpcPyTool.path, ["-s", socket, "-r", "50", method], { encoding: "utf8" })
      rpc("framework_wait_init")
      rpc("bdev_wait_for_examine")
      const [store] = JSON.parse(rpc("bdev_lvol_get_lvstores")) as ReadonlyArray<{ readonly free_clusters: number }>
      assert.strictEqual(store?.free_clusters, G.said("lvol").freeClusters)
      const lvols = JSON.parse(rpc("bdev_lvol_get_lvols")) as ReadonlyArray<{
        readonly name: string
        readonly num_allocated_clusters: number
      }>
      assert.deepStrictEqual(
        lvols.map((lvol) => [lvol.name, lvol.num_allocated_clusters]),
        G.said("lvol").lvols?.map((lvol) => [lvol.name, lvol.num_allocated_clusters])
      )
    }).pipe(Effect.scoped)
  )
})
