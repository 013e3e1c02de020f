/** Blobs over another bdev: external snapshots. */
import type * as Blobstore from "@effect-spdk/blobstore/Blobstore"
import * as Bdev from "@effect-spdk/core/Bdev"
import * as Spdk from "@effect-spdk/core/Spdk"
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import {
  type BlobSuite,
  closable,
  device,
  during,
  freshStore,
  init,
  load,
  smallClusters,
  zeroes
} from "../support/blobs.ts"
import { contract, failsWith, fresh, pattern, sameBytes, until, within } from "../support/harness.ts"
import { errorBdev, letGoOf, needsResume } from "../support/held.ts"

export const suite: BlobSuite = (name, layer, _capabilities, driver) =>
  contract(name, layer, (check) => {
    const external = Effect.gen(function* () {
      const bytes = pattern(4 * smallClusters, 14)
      const other = yield* Bdev.createMalloc({ name: fresh("base"), blockSize: 512, numBlocks: bytes.length / 512 })
      yield* during(Bdev.open(other, { write: true }), (bdev) => bdev.writeBytes(0, bytes))
      return { name: other, bytes }
    })

    check("a blob over another bdev reads from it until it is written", () =>
      Effect.gen(function* () {
        const { bytes, name: other } = yield* external
        const bdev = yield* device()
        const expected = bytes.slice()
        const id = yield* during(init(bdev, driver), (store) =>
          Effect.gen(function* () {
            const blob = yield* store.create({ clusters: 4, externalSnapshot: other })
            assert.deepInclude(yield* blob.info, { isThin: true, isClone: false, allocatedClusters: 0 })
            assert.deepStrictEqual((yield* blob.info).parent, { _tag: "External", bdev: other })
            sameBytes(yield* blob.readBytes(0, bytes.length), bytes, "the fresh blob")
            yield* blob.writeBytes(smallClusters + 5, pattern(100, 15))
            expected.set(pattern(100, 15), smallClusters + 5)
            sameBytes(yield* blob.readBytes(0, bytes.length), expected, "the blob after a write")
            return blob.id
          })
        )
        const store = yield* load(bdev, driver)
        const blob = yield* store.open(id)
        sameBytes(yield* blob.readBytes(0, bytes.length), expected, "after a load")
        assert.deepStrictEqual(yield* store.parent(id), { _tag: "External", bdev: other })
        yield* store.inflate(id)
        assert.deepStrictEqual((yield* blob.info).parent, { _tag: "None" })
        sameBytes(yield* blob.readBytes(0, bytes.length), expected, "after inflating")
      })
    )

    check("setExternalParent puts a bdev under a thin blob", () =>
      Effect.gen(function* () {
        const { bytes, name: other } = yield* external
        const store = yield* freshStore(driver)
        const blob = yield* store.create({ clusters: 4, thin: true })
        yield* store.setExternalParent(blob.id, other)
        assert.deepStrictEqual(yield* store.parent(blob.id), { _tag: "External", bdev: other })
        sameBytes(yield* blob.readBytes(0, bytes.length), bytes, "through the blob")
        yield* failsWith(store.setExternalParent(blob.id, other), "AlreadyExists")
        yield* failsWith(store.setExternalParent(blob.id, fresh("nobody")), "NotFound")
        const thick = yield* store.createId({ clusters: 4 })
        yield* failsWith(store.setExternalParent(thick, other), "InvalidArgument")
      })
    )

    check("a bdev that does not fit is not put under a blob", () =>
      Effect.gen(function* () {
        const store = yield* freshStore(driver)
        const thin = yield* store.createId({ clusters: 4, thin: true })
        const uneven = yield* Bdev.createMalloc({ name: fresh("uneven"), blockSize: 512, numBlocks: 320 })
        const coarse = yield* Bdev.createMalloc({ name: fresh("coarse"), blockSize: 4096, numBlocks: 64 })
        for (const bdev of [uneven, coarse]) {
          const { ids, info } = store
          const before = [yield* ids, yield* info]
          yield* failsWith(store.createId({ clusters: 4, externalSnapshot: bdev }), "InvalidArgument", {
            field: "externalSnapshot"
          })
          yield* failsWith(store.setExternalParent(thin, bdev), "InvalidArgument", { field: "bdev" })
          assert.deepStrictEqual([yield* ids, yield* info], before)
        }
      })
    )

    check("past the end of an external snapshot a larger blob has zeroes, and is written there and inflated", () =>
      Effect.gen(function* () {
        const { bytes, name: other } = yield* external
        const store = yield* freshStore(driver)
        const blob = yield* store.create({ clusters: 7, externalSnapshot: other })
        const expected = zeroes(7 * smallClusters)
        expected.set(bytes)
        sameBytes(yield* blob.readBytes(0, expected.length), expected, "the fresh blob")
        yield* blob.writeBytes(5 * smallClusters + 100, pattern(1000, 40))
        expected.set(pattern(1000, 40), 5 * smallClusters + 100)
        sameBytes(yield* blob.readBytes(0, expected.length), expected, "the blob after a write")
        yield* store.inflate(blob.id)
        sameBytes(yield* blob.readBytes(0, expected.length), expected, "the inflated blob")
      })
    )

    check("what lies on a snapshot over a bdev copies from the bdev, and is decoupled on to it", () =>
      Effect.gen(function* () {
        const { bytes, name: other } = yield* external
        const store = yield* freshStore(driver)
        const blob = yield* store.create({ clusters: 4, externalSnapshot: other })
        const expected = bytes.slice()
        const write = (offset: number, seed: number) => {
          expected.set(pattern(700, seed), offset)
          return blob.writeBytes(offset, pattern(700, seed))
        }
        yield* write(10, 41)
        const snapshot = yield* store.snapshot(blob.id)
        yield* write(smallClusters + 10, 42)
        sameBytes(yield* blob.readBytes(0, expected.length), expected, "the blob over its snapshot")
        yield* store.decouple(blob.id)
        assert.deepStrictEqual(yield* store.parent(blob.id), { _tag: "External", bdev: other })
        assert.strictEqual((yield* blob.info).allocatedClusters, 2)
        sameBytes(yield* blob.readBytes(0, expected.length), expected, "the decoupled blob")
        yield* store.delete(snapshot)
        sameBytes(yield* blob.readBytes(0, expected.length), expected, "without the snapshot")
      })
    )

    check("an inflated blob can lie over another bdev, and the one before can go", () =>
      Effect.gen(function* () {
        const store = yield* freshStore(driver)
        const id = yield* Effect.scoped(
          Effect.gen(function* () {
            const { bytes, name: first } = yield* external
            const made = yield* store.createId({ clusters: 4, externalSnapshot: first })
            yield* during(store.open(made), (blob) => blob.writeBytes(0, pattern(10, 43)))
            yield* store.inflate(made)
            bytes.set(pattern(10, 43))
            const read = yield* during(store.open(made), (blob) => blob.readBytes(0, bytes.length))
            sameBytes(read, bytes, "the inflated blob")
            yield* store.delete(made)
            return made
          })
        )
        const other = yield* device({ sizeBytes: 4 * smallClusters })
        yield* other.writeBytes(0, pattern(4 * smallClusters, 44))
        assert.strictEqual(yield* store.createId({ clusters: 4, thin: true }), id)
        yield* store.setExternalParent(id, other.name)
        const read = yield* during(store.open(id), (blob) => blob.readBytes(0, other.sizeBytes))
        sameBytes(read, pattern(4 * smallClusters, 44), "the blob over the other bdev")
      })
    )

    check("a snapshot over a bdev is deleted as soon as its clone has closed", () =>
      Effect.gen(function* () {
        const { bytes, name: other } = yield* external
        const store = yield* freshStore(driver)
        for (let round = 0; round < 5; round++) {
          const id = yield* store.createId({ clusters: 4, externalSnapshot: other })
          const snapshot = yield* store.snapshot(id)
          yield* during(store.open(id), (blob) => blob.readBytes(0, bytes.length))
          yield* store.delete(snapshot)
          assert.deepStrictEqual(yield* store.parent(id), { _tag: "External", bdev: other })
          yield* store.delete(id)
        }
      })
    )

    const changes: ReadonlyArray<
      readonly [string, (store: Blobstore.Blobstore, id: number, other: string) => Effect.Effect<unknown, unknown>]
    > = [
      ["a snapshot is taken", (store, id) => store.snapshot(id)],
      ["the blob is inflated", (store, id) => store.inflate(id)],
      ["the blob gets another parent", (store, id, other) => store.setExternalParent(id, other)]
    ]
    for (const [what, change] of changes) {
      check(`a read of an external snapshot ends well though ${what} meanwhile`, () =>
        Effect.gen(function* () {
          yield* needsResume
          const spdk = yield* Spdk.Spdk
          const other = yield* external
          // Nobody else has it open, nor a channel to it.
          const below = yield* external
          const held = yield* Bdev.createError({ base: below.name })
          const letGo = letGoOf(held.name)
          yield* Effect.addFinalizer(() => Effect.ignore(letGo))
          const store = yield* freshStore(driver)
          const blob = yield* store.create({ clusters: 4, externalSnapshot: held.name })
          yield* held.inject({ ioType: "read", errorType: "pending", count: 2 })
          const read = (cluster: number) =>
            Effect.forkChild(blob.readBytes(cluster * smallClusters, 4096), { startImmediately: true })
          const reads = [yield* read(0), yield* read(2)] as const
          const roundTrips = Effect.forEach(Array.from({ length: 30 }), () => spdk.rpc.call("spdk_get_version"))
          yield* until(
            "both reads are in flight",
            Effect.map(spdk.usage, ({ requestsInFlight }) => requestsInFlight === 2)
          )
          yield* roundTrips
          const changing = yield* Effect.forkChild(change(store, blob.id, other.name), { startImmediately: true })
          yield* roundTrips
          yield* letGo
          for (const [index, fiber] of reads.entries()) {
            const at = index * 2 * smallClusters
            const bytes = yield* within("the read", Fiber.join(fiber))
            sameBytes(bytes, other.bytes.subarray(at, at + 4096), `read ${index}`)
          }
          yield* within("the change", Fiber.join(changing))
          sameBytes(yield* blob.readBytes(0, other.bytes.length), other.bytes, "afterwards")
        })
      )
    }

    check("reads go on while another bdev is put under their blob, and none fails", () =>
      Effect.gen(function* () {
        const first = yield* external
        const second = yield* external
        const store = yield* freshStore(driver)
        const blob = yield* store.create({ clusters: 4, externalSnapshot: first.name })
        let stop = false
        const reading = yield* Effect.forEach(
          Array.from({ length: 16 }, (_, index) => index % 4),
          (cluster) =>
            Effect.forkChild(
              Effect.gen(function* () {
                const at = cluster * smallClusters
                let reads = 0
                while (!stop) {
                  sameBytes(yield* blob.readBytes(at, 8192), first.bytes.subarray(at, at + 8192), `read of ${cluster}`)
                  reads++
                }
                return reads
              }),
              { startImmediately: true }
            )
        )
        for (let round = 0; round < 60; round++) {
          yield* store.setExternalParent(blob.id, round % 2 === 0 ? second.name : first.name)
        }
        stop = true
        for (const fiber of reading) assert.isAbove(yield* Fiber.join(fiber), 0)
      })
    )

    for (const opened of [true, false]) {
      check(`a parent that cannot be written down leaves no damage, the blob ${opened ? "open" : "closed"}`, () =>
        Effect.gen(function* () {
          const { bytes, name: other } = yield* external
          const disk = yield* errorBdev(16384)
          const id = yield* during(init(disk.bdev, driver), (store) => store.createId({ clusters: 4, thin: true }))
          const opening = yield* closable(load(disk.bdev, driver))
          const store = opening.resource
          const blob = opened ? yield* closable(store.open(id)) : undefined
          yield* disk.inject({ ioType: "write", errorType: "failure", count: 1000 })
          assert.isTrue(Exit.isFailure(yield* Effect.exit(store.setExternalParent(id, other))))
          yield* disk.inject({ ioType: "clear", errorType: "failure", count: 0 })
          if (blob !== undefined) {
            yield* Effect.exit(blob.resource.readBytes(0, bytes.length))
            yield* Effect.exit(blob.close)
          }
          yield* Effect.exit(opening.close)
          const again = yield* load(disk.bdev, driver)
          const read = yield* during(again.open(id), (after) => after.readBytes(0, bytes.length))
          const parent = yield* again.parent(id)
          sameBytes(read, parent._tag === "External" ? bytes : zeroes(bytes.length), "after a load")
        })
      )
    }
  })
