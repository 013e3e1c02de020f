/**
 * A bdev_io pool that is far smaller than what is in flight. The layer of this suite starts SPDK with such a pool; the
 * embedded engine has none to run empty and must behave the same.
 */
import * as Bdev from "@effect-spdk/core/Bdev"
import * as DmaBuffer from "@effect-spdk/core/DmaBuffer"
import * as Rpc from "@effect-spdk/core/Rpc"
import * as Spdk from "@effect-spdk/core/Spdk"
import * as SpdkThread from "@effect-spdk/core/SpdkThread"
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type { Capabilities, EngineLayer } from "../support/engines.ts"
import {
  blockSize,
  contract,
  expectInterrupted,
  fresh,
  mallocOpened,
  pattern,
  sameBytes,
  within
} from "../support/harness.ts"
import { setLatency } from "../support/held.ts"
import { seeded } from "../support/random.ts"

const poolSize = 64

/** What the layer of this suite must be started with. */
export const poolConfig = {
  subsystems: [
    {
      subsystem: "bdev",
      config: [{ method: "bdev_set_options", params: { bdev_io_pool_size: poolSize, bdev_io_cache_size: 8 } }]
    }
  ]
}

export const suite = (name: string, layer: EngineLayer, _capabilities: Capabilities): void =>
  contract(name, layer, (check) => {
    check("runs with the pool it was given", () =>
      Effect.gen(function* () {
        const client = yield* Rpc.RpcClient
        const config = yield* client.call("framework_get_config", { name: "bdev" })
        assert.include(JSON.stringify(config), `"bdev_io_pool_size":${poolSize}`)
      })
    )

    check("more in flight than the pool has: the rest waits, every one completes with its bytes", () =>
      Effect.gen(function* () {
        const bdev = yield* mallocOpened(8192)
        const buffer = yield* DmaBuffer.make(4096 * blockSize)
        const bytes = pattern(buffer.byteLength, 1)
        buffer.bytes.set(bytes)
        const entries = Array.from({ length: 4096 }, (_, index) => ({
          offsetBytes: index * blockSize,
          buffer: buffer.slice(index * blockSize, blockSize)
        }))
        yield* within("the writes", bdev.writeBatch(entries))
        buffer.bytes.fill(0)
        yield* within("the reads", bdev.readBatch(entries))
        sameBytes(buffer.bytes, bytes, "all of it")
      })
    )

    check("the device holds the whole pool: what waits for it waits, and goes on as it comes free", () =>
      Effect.gen(function* () {
        const { bdev, bytes } = yield* slowBdev
        const buffer = yield* DmaBuffer.make(inFlight * blockSize)
        yield* within(
          "the reads",
          Effect.forEach(
            Array.from({ length: inFlight }),
            (_, index) => bdev.read(index * blockSize, buffer.slice(index * blockSize, blockSize)),
            { concurrency: "unbounded", discard: true }
          )
        )
        sameBytes(buffer.bytes, bytes, "the reads")
      })
    )

    check("interrupted while they wait for the pool", () =>
      seeded((random) =>
        Effect.gen(function* () {
          const { bdev, bytes } = yield* slowBdev
          const spdk = yield* Spdk.Spdk
          for (let round = 0; round < 5; round++) {
            const buffer = yield* DmaBuffer.make(inFlight * blockSize)
            const fibers = yield* Effect.forEach(Array.from({ length: inFlight }), (_, index) =>
              Effect.forkChild(bdev.read(index * blockSize, buffer.slice(index * blockSize, blockSize)), {
                startImmediately: true
              })
            )
            for (let pause = random.below(3); pause > 0; pause--) yield* spdk.rpc.call("spdk_get_version")
            const interrupted = fibers.map(() => random.chance(0.5))
            yield* within("the interruption", Fiber.interruptAll(fibers.filter((_, index) => interrupted[index])))
            const exits = yield* within("the others", Fiber.awaitAll(fibers))
            assert.strictEqual(buffer.pins, 0)
            for (const [index, exit] of exits.entries()) {
              if (Exit.isFailure(exit)) {
                assert.isTrue(interrupted[index])
                expectInterrupted(exit)
                continue
              }
              const from = index * blockSize
              sameBytes(
                buffer.bytes.subarray(from, from + blockSize),
                bytes.subarray(from, from + blockSize),
                `read ${index}`
              )
            }
          }
        })
      )
    )

    check("from several threads, which share the pool", () =>
      Effect.gen(function* () {
        const bdev = yield* mallocOpened(8192)
        const threads = yield* Effect.forEach([1, 2], () => SpdkThread.spawn({ name: fresh("pool") }))
        // A channel takes its share of the pool when it is opened, and is not opened where there is none.
        for (const thread of threads) yield* bdev.readBytes(0, blockSize).pipe(SpdkThread.on(thread))
        yield* within(
          "all of them",
          Effect.forEach(
            threads,
            (thread, index) =>
              Effect.scoped(
                Effect.gen(function* () {
                  const buffer = yield* DmaBuffer.make(2048 * blockSize)
                  buffer.bytes.set(pattern(buffer.byteLength, index))
                  const entries = Array.from({ length: 2048 }, (_, block) => ({
                    offsetBytes: (index * 2048 + block) * blockSize,
                    buffer: buffer.slice(block * blockSize, blockSize)
                  }))
                  yield* bdev.writeBatch(entries)
                  buffer.bytes.fill(0)
                  yield* bdev.readBatch(entries)
                  sameBytes(buffer.bytes, pattern(buffer.byteLength, index), `thread ${index}`)
                })
              ).pipe(SpdkThread.on(thread)),
            { concurrency: "unbounded", discard: true }
          )
        )
      })
    )
  })

/**
 * Many times the pool. Each level of a stack takes from it too: if what waits on top went first whenever a bdev_io comes
 * free, all of them would end on top, waiting for one more below.
 */
const inFlight = poolSize * 8

/** Slow enough that what was submitted together is held together. */
const slowBdev = Effect.gen(function* () {
  const base = yield* Bdev.createMalloc({ name: fresh("base"), blockSize, numBlocks: 1024 })
  const name = yield* Bdev.createDelay({ base, name: fresh("slow") })
  const bdev = yield* Bdev.open(name, { write: true })
  const bytes = pattern(inFlight * blockSize, 3)
  yield* bdev.writeBytes(0, bytes)
  yield* setLatency(name, 10_000)
  return { bdev, bytes }
})
