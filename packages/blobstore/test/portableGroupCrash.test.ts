/** Many blobs that are made, written and synced at once, and a loss of power: what was acknowledged is there. */
import { assert, describe, it } from "@effect/vitest"
import { Bdev } from "@effect-spdk/core/Bdev"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { check } from "../src/Check.ts"
import type { BlobId } from "../src/internal/driver.ts"
import { makeRandom, seed } from "./golden/random.ts"
import { faultyBdev } from "./support/faultyBdev.ts"
import { create, init, load, malloc, mebibyte, open, pattern, read, run, write } from "./support/portableDisk.ts"

const clusterBytes = 4096
const diskBytes = 2 * mebibyte
const writers = 8
const blockBytes = 512

/** What a writer was told, before the power went. */
interface Acknowledged {
  id?: BlobId
  /** Of the bytes and the xattr that were synced last. */
  synced?: number
  closed?: boolean
}

const random = makeRandom(seed)

const attempt = Effect.fnUntraced(function* (failAt: number, extentTable: boolean) {
  const disk = yield* malloc(diskBytes)
  const { bdev, faults } = faultyBdev(disk, { cache: true })
  const store = yield* init(bdev, { clusterSizeBytes: clusterBytes, metadataPages: 64 })
  faults.failAt = faults.changes + failAt
  const known = Array.from({ length: writers }, (): Acknowledged => ({}))
  const work = Effect.fnUntraced(function* (mine: Acknowledged, writer: number) {
    const id = yield* create(store, { clusters: 2, extentTable, xattrs: new Map([["writer", pattern(40, writer)]]) })
    mine.id = id
    const blob = yield* open(store, id)
    for (let version = 1; version <= 2; version++) {
      yield* write(blob, (version - 1) * blockBytes, pattern(blockBytes, writer * 100 + version))
      yield* blob.setXattr("version", new Uint8Array([version]))
      yield* blob.sync
      mine.synced = version
    }
    yield* blob.setXattr("closed", new Uint8Array([1]))
    yield* blob.close
    mine.closed = true
  })
  const exits = yield* Effect.forEach(known, (mine, writer) => Effect.exit(work(mine, writer)), {
    concurrency: "unbounded"
  })
  const isDone = faults.changes < faults.failAt
  assert.strictEqual(exits.every(Exit.isSuccess), isDone)
  yield* faults.powerCut(() => random.below(2) === 0)

  const loaded = yield* load(disk)
  for (const [writer, { closed, id, synced = 0 }] of known.entries()) {
    if (id === undefined) continue
    const when = `writer ${writer}, write ${failAt} fails, seed ${seed}`
    const blob = yield* open(loaded, id)
    const xattrs = yield* blob.xattrs
    assert.deepStrictEqual(xattrs.get("writer"), pattern(40, writer), when)
    assert.isAtLeast(xattrs.get("version")?.[0] ?? 0, synced, when)
    for (let version = 1; version <= synced; version++) {
      const bytes = yield* read(blob, (version - 1) * blockBytes, blockBytes)
      assert.deepStrictEqual(bytes, pattern(blockBytes, writer * 100 + version), when)
    }
    if (closed === true) assert.deepStrictEqual(xattrs.get("closed"), new Uint8Array([1]), when)
    yield* blob.close
  }
  yield* loaded.unload
  const { findings } = yield* Effect.provideService(check, Bdev, disk)
  const wrong = findings.filter((finding) => finding.severity !== "info")
  assert.deepStrictEqual(
    wrong.map((finding) => finding.message),
    []
  )
  return isDone
})

describe("power is lost while many blobs share flushes", () => {
  for (const extentTable of [true, false]) {
    it.live(`extent table ${extentTable}`, () =>
      run(
        Effect.gen(function* () {
          let failAt = 1
          while (!(yield* Effect.scoped(attempt(failAt, extentTable)))) failAt++
          assert.isAbove(failAt, 50)
        })
      )
    )
  }
})
