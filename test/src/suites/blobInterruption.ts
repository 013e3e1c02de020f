/**
 * Interruption at random moments. Whatever the moment: the fiber ends, no buffer stays with the device, nothing that was
 * opened stays open, and the metadata in memory and on the device agree.
 */
import * as Bdev from "@effect-spdk/core/Bdev"
import * as DmaBuffer from "@effect-spdk/core/DmaBuffer"
import * as Rpc from "@effect-spdk/core/Rpc"
import * as Spdk from "@effect-spdk/core/Spdk"
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Stream from "effect/Stream"
import { type BlobSuite, closable, device, during, freshStore, init, load, smallClusters } from "../support/blobs.ts"
import { long } from "../support/engines.ts"
import {
  contract,
  expectInterrupted,
  expectReleaseTimedOut,
  failsWith,
  pattern,
  sameBytes,
  turn,
  until,
  within
} from "../support/harness.ts"
import { arrived, errorBdev } from "../support/held.ts"
import { type RandomSource, seeded } from "../support/random.ts"

const pause = (random: RandomSource, most: number) =>
  Effect.gen(function* () {
    for (let left = random.below(most); left > 0; left--) yield* random.chance(0.3) ? turn : Effect.yieldNow
  })

const rounds = long ? 1000 : 60

export const suite: BlobSuite = (name, layer, _capabilities, driver) =>
  contract(name, layer, (check) => {
    /** Interrupts it at a random moment, and waits for its end. */
    const cutOff = <A, E, R>(random: RandomSource, effect: Effect.Effect<A, E, R>, most = 12) =>
      Effect.gen(function* () {
        const fiber = yield* Effect.forkChild(effect, { startImmediately: true })
        yield* pause(random, most)
        yield* within("the interruption", Fiber.interrupt(fiber))
        const exit = yield* Fiber.await(fiber)
        if (Exit.isFailure(exit)) expectInterrupted(exit)
        return Exit.isSuccess(exit)
      })

    check("opening, using and closing under interruption leaves nothing open", () =>
      seeded((random) =>
        Effect.gen(function* () {
          const store = yield* freshStore(driver)
          const ids = yield* Effect.forEach([1, 2], () => store.createId({ clusters: 2 }))
          for (let round = 0; round < rounds; round++) {
            const id = random.pick(ids)
            yield* cutOff(
              random,
              during(store.open(id), (blob) =>
                Effect.andThen(blob.writeBytes(random.below(5000), pattern(3000, round)), blob.readBytes(0, 9000))
              )
            )
          }
          // An open that was left behind would keep it from being deleted.
          for (const id of ids) yield* store.delete(id)
        })
      )
    )

    check("creating under interruption makes a blob or none, and the clusters add up", () =>
      seeded((random) =>
        Effect.gen(function* () {
          const bdev = yield* device()
          const before = yield* during(init(bdev, driver), (store) =>
            Effect.gen(function* () {
              const info = yield* store.info
              for (let round = 0; round < rounds; round++) {
                yield* cutOff(random, Effect.scoped(store.create({ clusters: 1 })))
                const ids = yield* store.ids
                assert.strictEqual((yield* store.info).freeClusters, info.freeClusters - ids.length)
                if (ids.length > 20) yield* Effect.forEach(ids, (id) => store.delete(id), { discard: true })
              }
              return [yield* store.ids, yield* store.info] as const
            })
          )
          const store = yield* load(bdev, driver, { forceRecover: true })
          assert.deepStrictEqual([yield* store.ids, yield* store.info], [...before])
        })
      )
    )

    check("whatever changes a blob is whole or not at all when it is interrupted", () =>
      seeded((random) =>
        Effect.gen(function* () {
          const bdev = yield* device()
          const expected = yield* during(init(bdev, driver), (store) =>
            Effect.gen(function* () {
              const id = yield* store.createId({ clusters: 2 })
              for (let round = 0; round < rounds / 2; round++) {
                const use = during(store.open(id), (blob) =>
                  Effect.gen(function* () {
                    yield* blob.resize({ clusters: 1 + random.below(6) })
                    yield* blob.xattrs.set("round", `${round}`)
                    yield* blob.sync
                    yield* blob.writeBytes(17, pattern(1000, round))
                  })
                )
                yield* cutOff(random, use)
                if (random.chance(0.3)) {
                  yield* cutOff(random, store.snapshot(id))
                  const { parent } = yield* during(store.open(id), (blob) => blob.info)
                  if (parent._tag === "Snapshot") yield* cutOff(random, store.delete(parent.id))
                }
              }
              const blob = yield* during(store.open(id), (opened) =>
                Effect.all([opened.info, opened.xattrs.entries, opened.readBytes(0, smallClusters)])
              )
              return { ids: yield* store.ids, info: yield* store.info, blob, id }
            })
          )
          const store = yield* load(bdev, driver, { forceRecover: true })
          assert.deepStrictEqual(yield* store.ids, expected.ids)
          assert.deepStrictEqual(yield* store.info, expected.info)
          const blob = yield* store.open(expected.id)
          const found = yield* Effect.all([blob.info, blob.xattrs.entries, blob.readBytes(0, smallClusters)])
          assert.deepStrictEqual(found[0], expected.blob[0])
          assert.deepStrictEqual(found[1], expected.blob[1])
          sameBytes(found[2], expected.blob[2], "the blob")
        })
      )
    )

    check("streams, sinks and partial writes under interruption leave no lock and no buffer behind", () =>
      seeded((random) =>
        Effect.gen(function* () {
          const store = yield* freshStore(driver)
          const blob = yield* store.create({ clusters: 16 })
          const bytes = pattern(300_000, 1)
          for (let round = 0; round < rounds; round++) {
            const offsetBytes = random.below(100_000)
            const work = random.pick([
              Stream.run(Stream.make(bytes, bytes), blob.sink({ offsetBytes, chunkBytes: 8192 })),
              Stream.runDrain(blob.stream({ offsetBytes, chunkBytes: 8192 })),
              blob.writeBytes(offsetBytes, bytes),
              blob.readBytes(offsetBytes, bytes.length)
            ])
            yield* cutOff(random, Effect.asVoid(work), 30)
          }
          // All the buffers of the store at once, over the same io units.
          yield* Effect.forEach(
            Array.from({ length: 40 }, (_, index) => index),
            (index) => blob.writeBytes(index * 100, pattern(100, index)),
            { concurrency: "unbounded", discard: true }
          )
          for (let index = 0; index < 40; index++) {
            sameBytes(yield* blob.readBytes(index * 100, 100), pattern(100, index), `piece ${index}`)
          }
        })
      )
    )

    check("loading and unloading under interruption leaves a store that loads", () =>
      seeded((random) =>
        Effect.gen(function* () {
          const spdk = yield* Spdk.Spdk
          const bdev = yield* device()
          const id = yield* during(init(bdev, driver), (store) => store.createId({ clusters: 1 }))
          // The first load takes memory that stays with the bdev.
          yield* during(load(bdev, driver), () => Effect.void)
          const usage = yield* spdk.usage
          for (let round = 0; round < rounds / 4; round++) {
            yield* cutOff(
              random,
              during(load(bdev, driver), (store) =>
                Effect.andThen(
                  store.ids,
                  during(store.open(id), (blob) => blob.sync)
                )
              )
            )
            assert.deepStrictEqual(yield* spdk.usage, usage)
          }
          const store = yield* load(bdev, driver)
          assert.deepStrictEqual(yield* store.ids, [id])
        })
      )
    )

    check("a read that the device keeps is waited for, by its fiber and by the close of the blob", () =>
      Effect.gen(function* () {
        const client = yield* Rpc.RpcClient
        const held = yield* errorBdev(16_384)
        const store = yield* init(held.bdev, driver)
        const { close, resource: blob } = yield* closable(store.create({ clusters: 2 }))
        yield* blob.writeBytes(0, pattern(4096, 1))
        // Whatever fails below is let go before the blob closes, so that it is not a hang.
        yield* Effect.addFinalizer(() => Effect.ignore(held.letGo))
        yield* held.inject({ ioType: "read", errorType: "pending", count: 1_000_000 })
        const buffer = yield* DmaBuffer.make(4096)
        const reading = yield* Effect.forkChild(blob.read(0, buffer), { startImmediately: true })
        yield* until(
          "the read is in flight",
          Effect.sync(() => buffer.pins === 1)
        )
        yield* arrived
        const interrupting = yield* Effect.forkChild(Fiber.interrupt(reading), { startImmediately: true })
        const closing = yield* Effect.forkChild(close, { startImmediately: true })
        yield* Effect.forEach(Array.from({ length: 20 }), () => client.call("spdk_get_version"), { discard: true })
        assert.isUndefined(reading.pollUnsafe(), "the fiber waits for the device")
        assert.isUndefined(closing.pollUnsafe(), "and so does the close")
        assert.strictEqual(buffer.pins, 1)
        yield* held.letGo
        yield* within("the interruption", Fiber.join(interrupting))
        yield* within("the close", Fiber.join(closing))
        expectInterrupted(yield* Fiber.await(reading))
        assert.strictEqual(buffer.pins, 0)
      })
    )

    check("a device that never answers makes the close of a blob fail loudly, and the store waits for it", () =>
      Effect.gen(function* () {
        const held = yield* errorBdev(16_384)
        const store = yield* closable(init(held.bdev, driver))
        const blob = yield* closable(store.resource.create({ clusters: 2 })).pipe(
          Effect.provideService(Bdev.ReleaseTimeout, "30 millis")
        )
        yield* blob.resource.writeBytes(0, pattern(4096, 2))
        yield* Effect.addFinalizer(() => Effect.ignore(held.letGo))
        yield* held.inject({ ioType: "read", errorType: "pending", count: 1_000_000 })
        const buffer = yield* DmaBuffer.make(4096)
        const reading = yield* Effect.forkChild(blob.resource.read(0, buffer), { startImmediately: true })
        yield* until(
          "the read is in flight",
          Effect.sync(() => buffer.pins === 1)
        )
        yield* arrived
        const exit = yield* within("the close", Effect.exit(blob.close))
        expectReleaseTimedOut(exit, { limitMillis: 30, operation: "Blob.close" })
        yield* failsWith(blob.resource.read(0, buffer), "Released")
        yield* held.letGo
        yield* within("the read", Fiber.await(reading))
        yield* within("the close of the store", store.close)
        const again = yield* load(held.bdev, driver)
        const same = yield* again.open(blob.resource.id)
        sameBytes(yield* same.readBytes(0, 4096), pattern(4096, 2), "the blob")
      })
    )
  })
