/**
 * Many fibers that do random things to the same few blobs at once, some of them interrupted. What comes of each is up to the moment;
 * that nothing dies, nothing is held, and memory and device agree is not.
 */
import type * as Blobstore from "@effect-spdk/blobstore/Blobstore"
import { assert } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { type BlobSuite, closable, device, during, init, KiB, load, MiB } from "../support/blobs.ts"
import { long } from "../support/engines.ts"
import { contract, pattern, sameBytes, turn, within } from "../support/harness.ts"
import { type RandomSource, seeded } from "../support/random.ts"

const fibers = 8
const steps = long ? 400 : 25

export const suite: BlobSuite = (name, layer, _capabilities, driver) =>
  contract(name, layer, (check) => {
    const step = (random: RandomSource, store: Blobstore.Blobstore) =>
      Effect.gen(function* () {
        const ids = yield* store.ids
        if (ids.length < 4) return yield* store.createId({ clusters: random.below(8), thin: random.chance(0.5) })
        const id = random.pick(ids)
        const use = during(store.open(id), (blob) =>
          Effect.gen(function* () {
            yield* blob.resize({ clusters: 1 + random.below(8) })
            yield* blob.writeBytes(random.below(10_000), pattern(1 + random.below(6000), random.word()))
            yield* blob.readBytes(0, blob.sizeBytes)
            yield* blob.xattrs.set(`x${random.below(3)}`, pattern(random.below(500), 1))
            if (random.chance(0.5)) yield* blob.sync
          })
        )
        return yield* random.pick([
          use,
          use,
          use,
          Effect.asVoid(store.snapshot(id)),
          Effect.asVoid(store.clone(id)),
          store.inflate(id),
          store.decouple(id),
          store.setParent(id, random.pick(ids)),
          store.delete(id),
          store.delete(id),
          Effect.asVoid(store.clones(id))
        ])
      })

    /** Typed failures are the answers of the moment; anything else is not. */
    const noDefect = (exit: Exit.Exit<unknown, unknown>) => {
      if (Exit.isFailure(exit)) assert.isFalse(Cause.hasDies(exit.cause), Cause.pretty(exit.cause))
    }

    const look = (store: Blobstore.Blobstore) =>
      Effect.gen(function* () {
        const ids = yield* store.ids
        const blobs = yield* Effect.forEach(ids, (id) =>
          during(store.open(id), (blob) =>
            Effect.gen(function* () {
              // SPDK calls a blob that has lost its clones a snapshot until the next load.
              const { isSnapshot: _, ...info } = yield* blob.info
              return [info, yield* blob.readBytes(0, blob.sizeBytes)] as const
            })
          )
        )
        return { info: yield* store.info, blobs }
      })

    type Looked = Effect.Success<ReturnType<typeof look>>
    const same = (actual: Looked, expected: Looked, when: string) => {
      assert.deepStrictEqual(actual.info, expected.info, when)
      assert.deepStrictEqual(
        actual.blobs.map(([info]) => info),
        expected.blobs.map(([info]) => info),
        when
      )
      for (const [index, [info, bytes]] of actual.blobs.entries()) {
        sameBytes(bytes, expected.blobs[index]?.[1] ?? new Uint8Array(0), `${JSON.stringify(info)} ${when}`)
      }
    }

    check("a size that is set beside a sync is there after the next one", () =>
      seeded((random) =>
        Effect.gen(function* () {
          const bdev = yield* device({ sizeBytes: 4 * MiB })
          const opened = yield* closable(init(bdev, driver, { clusterSize: 16 * KiB }))
          const store = opened.resource
          const id = yield* store.createId({ clusters: 4 })
          const clusters = yield* during(store.open(id), (blob) =>
            Effect.gen(function* () {
              for (let round = 0; round < (long ? 500 : 30); round++) {
                yield* blob.xattrs.set("round", pattern(200, round))
                const syncing = yield* Effect.forkChild(blob.sync, { startImmediately: true })
                for (let pause = random.below(3); pause > 0; pause--) yield* turn
                yield* blob.resize({ clusters: 1 + random.below(30) })
                yield* Fiber.join(syncing)
              }
              yield* blob.sync
              return (yield* blob.info).clusters
            })
          )
          yield* opened.close
          const loaded = yield* during(load(bdev, driver), (again) => during(again.open(id), (blob) => blob.info))
          assert.strictEqual(loaded.clusters, clusters)
          assert.strictEqual(loaded.allocatedClusters, clusters)
        })
      )
    )

    check("fibers that get in each other's way leave a store that adds up", () =>
      seeded((random) =>
        Effect.gen(function* () {
          const bdev = yield* device({ sizeBytes: 4 * MiB })
          const opened = yield* closable(init(bdev, driver, { clusterSize: 16 * KiB }))
          const store = opened.resource
          yield* Effect.forEach(
            Array.from({ length: fibers }),
            () =>
              Effect.gen(function* () {
                for (let round = 0; round < steps; round++) {
                  const fiber = yield* Effect.forkChild(step(random, store), { startImmediately: true })
                  if (random.chance(0.2)) {
                    for (let pause = random.below(6); pause > 0; pause--) yield* turn
                    yield* Fiber.interrupt(fiber)
                  }
                  noDefect(yield* within("a step", Fiber.await(fiber)))
                }
              }),
            { concurrency: "unbounded", discard: true }
          )
          const before = yield* look(store)
          yield* opened.close
          const loaded = yield* during(load(bdev, driver), look)
          same(loaded, before, "after a load")
          const recovered = yield* during(load(bdev, driver, { forceRecover: true }), look)
          same(recovered, before, "after a recovery")
        })
      )
    )
  })
