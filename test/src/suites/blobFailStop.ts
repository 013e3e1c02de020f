/** A write of metadata that fails is never taken for one that has not, and a store loads whatever its physical blocks. */
import * as Blobstore from "@effect-spdk/blobstore/Blobstore"
import * as Bdev from "@effect-spdk/core/Bdev"
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { type BlobSuite, KiB, MiB } from "../support/blobs.ts"
import { contract, pattern, sameBytes } from "../support/harness.ts"

export const suite: BlobSuite = (name, layer, _capabilities, driver) =>
  contract(name, layer, (check) => {
    for (const failing of [1, 2, 3]) {
      check(`what a sync has covered is there when write ${failing} of a first write to a thin cluster fails`, () =>
        Effect.gen(function* () {
          const base = yield* Bdev.createMalloc({ size: 8 * MiB })
          const bad = yield* Bdev.createError({ base })
          const bdev = yield* Bdev.open(bad.name, { write: true })
          const on = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.provideService(effect, Bdev.Bdev, bdev)
          const written = yield* Effect.scoped(
            Effect.gen(function* () {
              const store = yield* on(Blobstore.init({ driver, clusterSize: 64 * KiB }))
              const blob = yield* store.create({ clusters: 4, thin: true })
              // The first `failing` writes fail: of the content, or of the metadata that says where it is.
              yield* bad.inject({ ioType: "write", errorType: "failure", count: failing })
              const write = yield* Effect.exit(blob.writeBytes(0, pattern(4096, 1)))
              const sync = yield* Effect.exit(blob.sync)
              // The end of the store writes, too.
              yield* bad.inject({ ioType: "clear", errorType: "failure" })
              return { id: blob.id, isDurable: Exit.isSuccess(write) && Exit.isSuccess(sync) }
            })
          )
          yield* Effect.scoped(
            Effect.gen(function* () {
              const store = yield* on(Blobstore.load({ driver }))
              assert.deepStrictEqual(yield* store.ids, [written.id])
              const blob = yield* store.open(written.id)
              if (written.isDurable) sameBytes(yield* blob.readBytes(0, 4096), pattern(4096, 1), "what was synced")
              yield* blob.writeBytes(0, pattern(4096, 2))
              yield* blob.sync
            })
          )
        })
      )
    }

    for (const blockSize of [512, 4096]) {
      check(`a store on blocks of ${blockSize} bytes in physical ones of 16 KiB loads`, () =>
        Effect.gen(function* () {
          const disk = yield* Bdev.createMalloc({ size: 16 * MiB, blockSize, physicalBlockSize: 16 * KiB })
          const bdev = yield* Bdev.open(disk, { write: true })
          const on = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.provideService(effect, Bdev.Bdev, bdev)
          const id = yield* Effect.scoped(
            Effect.flatMap(on(Blobstore.init({ driver, clusterSize: 64 * KiB })), (store) =>
              store.createId({ clusters: 1 })
            )
          )
          const ids = yield* Effect.scoped(Effect.flatMap(on(Blobstore.load({ driver })), (store) => store.ids))
          assert.deepStrictEqual(ids, [id])
        })
      )
    }
  })
