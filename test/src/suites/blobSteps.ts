/** Blobs, their store and a key-value store on it, with one fiber interrupted at every one of its steps in turn. */
import * as BlobKeyValueStore from "@effect-spdk/blobstore/BlobKeyValueStore"
import * as Blobstore from "@effect-spdk/blobstore/Blobstore"
import * as Bdev from "@effect-spdk/core/Bdev"
import * as DmaBuffer from "@effect-spdk/core/DmaBuffer"
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { type BlobSuite, freshStore, KiB, MiB, smallClusters } from "../support/blobs.ts"
import { contract, pattern, sameBytes } from "../support/harness.ts"
import { interruptedAtEachStep } from "../support/steps.ts"

export const suite: BlobSuite = (name, layer, _capabilities, driver) =>
  contract(name, layer, (check) => {
    const freshKv = Effect.gen(function* () {
      const store = yield* freshStore(driver, { sizeBytes: 16 * MiB })
      const make = BlobKeyValueStore.make({ segmentSize: 64 * KiB, largeValueSize: 8 * KiB })
      return yield* Effect.provideService(make, Blobstore.Blobstore, store)
    })

    for (const [size, length] of [
      ["small", 5],
      ["large", 20_000]
    ] as const) {
      check(`a get of a ${size} value, interrupted at any step, leaves a store that clears and sets`, () =>
        Effect.gen(function* () {
          const kv = yield* freshKv
          const value = "v".repeat(length)
          yield* kv.set("key", value)
          const steps = yield* interruptedAtEachStep(kv.get("key"), () =>
            Effect.gen(function* () {
              yield* kv.clear
              yield* kv.set("key", value)
            })
          )
          assert.isAbove(steps, 10)
          assert.strictEqual(yield* kv.get("key"), value)
        })
      )

      check(`a set of a ${size} value, interrupted at any step, takes effect or not, and the next one does`, () =>
        Effect.gen(function* () {
          const kv = yield* freshKv
          const value = "v".repeat(length)
          const steps = yield* interruptedAtEachStep(kv.set("key", value), (step, exit) =>
            Effect.gen(function* () {
              const found = yield* kv.get("key")
              if (Exit.isSuccess(exit)) assert.strictEqual(found, value)
              else assert.include([undefined, value], found)
              yield* kv.set("other", String(step))
              assert.strictEqual(yield* kv.get("other"), String(step))
              yield* kv.remove("key")
            })
          )
          assert.isAbove(steps, 10)
        })
      )
    }

    check("a clear, interrupted at any step, leaves all or nothing", () =>
      Effect.gen(function* () {
        const kv = yield* freshKv
        yield* interruptedAtEachStep(kv.clear, (step) =>
          Effect.gen(function* () {
            yield* kv.set("last", String(step))
            const size = yield* kv.size
            assert.include([1, 3], size)
            yield* kv.set("a", "1")
            yield* kv.set("b", "2")
          })
        )
      })
    )

    check("a first write to a thin cluster, interrupted at any step, lets others write there", () =>
      Effect.gen(function* () {
        const store = yield* freshStore(driver, { sizeBytes: 16 * MiB })
        const blob = yield* store.create({ size: smallClusters, thin: true })
        yield* interruptedAtEachStep(blob.writeBytes(100, pattern(300, 1)), () =>
          Effect.gen(function* () {
            yield* blob.writeBytes(100, pattern(300, 2))
            sameBytes(yield* blob.readBytes(100, 300), pattern(300, 2), "what was written after the interruption")
            yield* blob.unmap(0, smallClusters)
            yield* blob.sync
          })
        )
      })
    )

    check("a sync that is interrupted at any step keeps no other one waiting", () =>
      Effect.gen(function* () {
        const store = yield* freshStore(driver)
        const blob = yield* store.create({ size: smallClusters })
        let count = 0
        const dirty = Effect.suspend(() => blob.xattrs.set("count", String(count++)))
        yield* dirty
        yield* interruptedAtEachStep(blob.sync, () => Effect.andThen(dirty, blob.sync))
      })
    )

    check("a resize that is interrupted at any step keeps no other one out", () =>
      Effect.gen(function* () {
        const store = yield* freshStore(driver)
        const blob = yield* store.create({ clusters: 4 })
        yield* interruptedAtEachStep(blob.resize({ clusters: 2 }), () => blob.resize({ clusters: 4 }))
      })
    )

    check("a snapshot, an inflate and a delete, each interrupted at any step, keep nothing locked", () =>
      Effect.gen(function* () {
        const store = yield* freshStore(driver, { sizeBytes: 16 * MiB })
        const blob = yield* store.create({ clusters: 2, thin: true })
        const before = yield* store.ids
        const clean = Effect.gen(function* () {
          yield* store.inflate(blob.id)
          for (const id of yield* store.ids) if (!before.includes(id)) yield* store.delete(id)
        })
        yield* interruptedAtEachStep(store.snapshot(blob.id), () => clean)
        yield* interruptedAtEachStep(store.inflate(blob.id), () => Effect.andThen(store.snapshot(blob.id), clean))
        yield* interruptedAtEachStep(
          Effect.flatMap(store.createId({ clusters: 1 }), (id) => store.delete(id)),
          () => clean
        )
        assert.deepStrictEqual(yield* store.ids, before)
      })
    )

    check("a batch that is interrupted at any step can be run again", () =>
      Effect.gen(function* () {
        const store = yield* freshStore(driver)
        const blob = yield* store.create({ size: smallClusters })
        const buffer = yield* DmaBuffer.make(4096)
        const batch = yield* blob.prepareReads([{ offsetBytes: 0, buffer }])
        yield* interruptedAtEachStep(batch.run, () => batch.run)
      })
    )

    check("opening a blob, interrupted at any step, leaves it closed", () =>
      Effect.gen(function* () {
        const store = yield* freshStore(driver)
        const id = yield* store.createId({ clusters: 1 })
        yield* interruptedAtEachStep(Effect.scoped(store.open(id)), () =>
          Effect.gen(function* () {
            const blob = yield* Effect.scoped(Effect.flatMap(store.open(id), (opened) => opened.info))
            assert.strictEqual(blob.clusters, 1)
          })
        )
        yield* store.delete(id)
      })
    )

    check("two writes into one io unit, one of them interrupted at any step, end", () =>
      Effect.gen(function* () {
        const store = yield* freshStore(driver)
        const blob = yield* store.create({ size: smallClusters })
        yield* interruptedAtEachStep(blob.writeBytes(10, pattern(20, 1)), () =>
          Effect.gen(function* () {
            const other = yield* Effect.forkChild(blob.writeBytes(40, pattern(20, 2)))
            yield* blob.writeBytes(10, pattern(20, 3))
            yield* Fiber.join(other)
            sameBytes(yield* blob.readBytes(10, 20), pattern(20, 3), "one write")
            sameBytes(yield* blob.readBytes(40, 20), pattern(20, 2), "the other")
          })
        )
      })
    )

    check("the first I/O on a handle, interrupted at any step, leaves a handle that reads and closes", () =>
      Effect.gen(function* () {
        const name = yield* Bdev.createMalloc({ numBlocks: 1024, blockSize: 512 })
        const once = Effect.scoped(
          Effect.flatMap(Bdev.open(name), (bdev) =>
            // A fiber of its own reads by the same handle: it takes part in what the first one began.
            Effect.all([Effect.exit(bdev.readBytes(0, 512)), bdev.readBytes(512, 512)], { concurrency: 2 })
          )
        )
        yield* interruptedAtEachStep(once, () => once)
        const bdev = yield* Bdev.open(name)
        yield* bdev.readBytes(0, 512)
      })
    )
  })
