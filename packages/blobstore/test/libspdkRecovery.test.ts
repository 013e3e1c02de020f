/**
 * SPDK loads what a crash left of a snapshot, or of the removal of one, in the states where its own recovery ends the process: the
 * half-made snapshot has a parent that another blob has, too. Without the recovery before it these tests do not fail, they die.
 */
import { assert, describe, layer, type Vitest } from "@effect/vitest"
import * as Bdev from "@effect-spdk/core/Bdev"
import * as Spdk from "@effect-spdk/core/Spdk"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import { libspdkMissing } from "../../../test/src/support/libspdkMissing.ts"
import { check } from "../src/Check.ts"
import type { BlobId, StoreDriver } from "../src/internal/driver.ts"
import { pageCrc } from "../src/internal/format/crc32c.ts"
import {
  descriptorHeaderBytes,
  descriptorType,
  extentPageHeaderBytes,
  mdPageOffset,
  pageBytes
} from "../src/internal/format/layout.ts"
import { libspdkDriver } from "../src/internal/libspdk/driver.ts"
import { portableDriver } from "../src/internal/portable/driver.ts"
import { faultyBdev } from "./support/faultyBdev.ts"
import { create, init, load, loadOptions, malloc, open, pattern, see, write } from "./support/portableDisk.ts"

const clusterBytes = 4096
const diskBytes = 2 * 1024 * 1024
const none = new Map<string, Uint8Array>()

interface Made {
  readonly blob: BlobId
  readonly lower: BlobId
}

/** The blob has written over one of its snapshot's clusters. */
const prepare = Effect.fnUntraced(function* (disk: Bdev.Bdev) {
  const store = yield* init(disk, { clusterSizeBytes: clusterBytes, metadataPages: 48 })
  const blob = yield* create(store, { clusters: 6, thin: true, xattrs: new Map([["SNAPRM", pattern(8, 9)]]) })
  yield* writeTo(store, blob, 0, 1)
  yield* writeTo(store, blob, 1, 2)
  const lower = yield* store.snapshot(blob, none)
  yield* writeTo(store, blob, 1, 3)
  yield* store.unload
  return { blob, lower }
})

const writeTo = (store: StoreDriver, id: BlobId, cluster: number, seed: number) =>
  Effect.flatMap(open(store, id), (blob) =>
    Effect.andThen(write(blob, cluster * clusterBytes, pattern(clusterBytes, seed)), blob.close)
  )

/** Each has to begin with the store that `prepare` made. */
const changes = {
  "a second snapshot": (store: StoreDriver, { blob }: Made) => store.snapshot(blob, none),
  "the removal of a second snapshot": (store: StoreDriver, { blob }: Made) =>
    Effect.flatMap(store.snapshot(blob, none), (upper) =>
      Effect.andThen(writeTo(store, blob, 2, 4), store.delete(upper))
    )
} as const

const messagesOf = (disk: Bdev.Bdev) =>
  Effect.map(Effect.provideService(check, Bdev.Bdev, disk), ({ findings }) =>
    // Pages that nothing refers to may be left over.
    findings.filter(({ severity }) => severity !== "info").map(({ message }) => message)
  )

const seenBy = Effect.fnUntraced(function* (driver: typeof portableDriver, disk: Bdev.Bdev) {
  const store = yield* driver.load(disk, loadOptions)
  const state = yield* see(store)
  yield* store.unload
  return state
})

/** What power that is lost at each write of the change leaves behind; ends when none is lost any more. */
const sweep = Effect.fnUntraced(function* (
  change: (store: StoreDriver, made: Made) => Effect.Effect<unknown, unknown, Spdk.EngineService>,
  onLeft: (disk: Bdev.Bdev, left: Uint8Array, wasLeftOver: boolean) => Effect.Effect<void, unknown, Spdk.EngineService>
) {
  const disk = yield* malloc(diskBytes)
  const made = yield* prepare(disk)
  const before = yield* disk.readBytes(0, diskBytes)
  let leftOver = 0
  for (let failAt = 1; ; failAt++) {
    assert.isBelow(failAt, 200)
    yield* disk.writeBytes(0, before)
    const { bdev, faults } = faultyBdev(disk)
    const store = yield* load(bdev)
    faults.failAt = failAt
    yield* Effect.exit(change(store, made))
    const isDone = faults.changes < failAt
    yield* Effect.exit(store.unload)
    const wasLeftOver = (yield* messagesOf(disk)).some((message) => message.includes("recovery is to drop"))
    if (wasLeftOver) leftOver++
    yield* onLeft(disk, yield* disk.readBytes(0, diskBytes), wasLeftOver)
    if (isDone) return leftOver
  }
})

const tests = (it: Vitest.MethodsNonLive<Layer.Success<ReturnType<typeof Spdk.layer>>>): void => {
  for (const [name, change] of Object.entries(changes)) {
    it.effect(`loads what is left of ${name} as the portable driver does`, () =>
      Effect.gen(function* () {
        const leftOver = yield* sweep(
          change,
          Effect.fnUntraced(function* (disk, left) {
            const expected = yield* seenBy(portableDriver, disk)
            yield* disk.writeBytes(0, left)
            assert.deepStrictEqual(yield* seenBy(libspdkDriver, disk), expected)
            assert.deepStrictEqual(yield* messagesOf(disk), [])
            assert.deepStrictEqual(yield* seenBy(libspdkDriver, disk), expected)
          })
        )
        assert.isAbove(leftOver, 0, "the state that SPDK does not survive was among them")
      }).pipe(Effect.scoped)
    )
  }

  it.effect("leaves a store alone that is loaded", () =>
    Effect.gen(function* () {
      const disk = yield* malloc(diskBytes)
      yield* prepare(disk)
      const store = yield* libspdkDriver.load(disk, loadOptions)
      yield* create(store, { clusters: 1, xattrs: new Map([["SNAPTMP", pattern(8, 9)]]) })
      const before = yield* disk.readBytes(0, diskBytes)
      const other = yield* Bdev.open(disk.name)
      const error = yield* Effect.flip(libspdkDriver.load(other, loadOptions))
      assert.strictEqual(error.reason._tag, "Busy")
      assert.strictEqual((yield* Effect.flip(libspdkDriver.load(disk, loadOptions))).reason._tag, "Busy")
      assert.deepStrictEqual(yield* disk.readBytes(0, diskBytes), before)
      yield* store.unload
    }).pipe(Effect.scoped)
  )

  it.effect("fails when what is left over cannot be recovered", () =>
    Effect.gen(function* () {
      let refused = 0
      yield* sweep(
        changes["a second snapshot"],
        Effect.fnUntraced(function* (disk, left, wasLeftOver) {
          if (!wasLeftOver) return
          const damaged = left.slice()
          assert.isTrue(damageExtentPage(damaged))
          yield* disk.writeBytes(0, damaged)
          const error = yield* Effect.flip(libspdkDriver.load(disk, loadOptions))
          assert.strictEqual(error.reason._tag, "Corrupted")
          assert.deepStrictEqual(yield* disk.readBytes(0, diskBytes), damaged, "nothing is written")
          refused++
        })
      )
      assert.isAbove(refused, 0)
    }).pipe(Effect.scoped)
  )
}

/** Gives the extent page of the blob a cluster that no store of this size has, with a right CRC. */
const damageExtentPage = (image: Uint8Array): boolean => {
  const { descriptors } = mdPageOffset
  for (let at = 0; at < image.length; at += pageBytes) {
    const page = image.subarray(at, at + pageBytes)
    const view = new DataView(page.buffer, page.byteOffset, pageBytes)
    const isIt =
      page[descriptors] === descriptorType.extentPage && view.getUint32(mdPageOffset.crc, true) === pageCrc(page)
    if (!isIt) continue
    view.setUint32(descriptors + descriptorHeaderBytes + extentPageHeaderBytes, 0x7fffffff, true)
    view.setUint32(mdPageOffset.crc, pageCrc(page), true)
    return true
  }
  return false
}

const withSpdk = () => layer(Spdk.layer({ memoryMiB: 512, logLevel: "disabled" }))("", tests)

// Skipped under a name that says why, and counted; where SPDK is found, a skipped suite fails the run.
if (libspdkMissing === undefined) describe("libspdk driver recovers", withSpdk)
else describe.skip(`libspdk driver recovers [skipped: ${libspdkMissing}]`, withSpdk)
