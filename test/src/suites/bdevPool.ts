/**
 * A bdev_io pool that is far smaller than what is in flight. The layer of this suite starts SPDK with such a pool; the
 * embedded engine has none to run empty and must behave the same.
 */
import * as Bdev from "@effect-spdk/core/Bdev"
import * as DmaBuffer from "@effect-spdk/core/DmaBuffer"
import * as Rpc from "@effect-spdk/core/Rpc"
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type { Capabilities, EngineLayer } from "../support/engines.ts"
import { blockSize, contract, expectInterrupted, fresh, mallocOpened, pattern, sameBytes, within } from "../support/harness.ts"
import { heldReads } from "../support/held.ts"
import { seeded } from "../support/random.ts"

const poolSize = 256

/** What the layer of this suite must be started with. */
export const poolConfig = {
  subsystems: [{
    subsystem: "bdev",
    config: [{ method: "bdev_set_options", params: { bdev_io_pool_size: poolSize, bdev_io_cache_size: 16 } }]
  }]
}

export const suite = (name: string, layer: EngineLayer, capabilities: Capabilities): void =>
  contract(name, layer, (check) => {
    check("runs with the pool it was given", () =>
      Effect.gen(function*() {
        if (!capabilities.bdevIoPool) return
        const client = yield* Rpc.RpcClient
        const config = yield* client.call("framework_get_config", { name: "bdev" })
        assert.include(JSON.stringify(config), `"bdev_io_pool_size":${poolSize}`)
      }))

    check("more in flight than the pool has: the rest waits, every one completes with its bytes", () =>
      Effect.gen(function*() {
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
      }))

    check("the device holds the whole pool: what waits for it waits, and goes on when it is let go", () =>
      Effect.gen(function*() {
        const held = yield* heldReads()
        const buffer = yield* DmaBuffer.make(blockSize)
        const fibers = yield* Effect.forEach(Array.from({ length: poolSize * 8 }), (_, index) =>
          Effect.forkChild(held.bdev.read((index % 4096) * blockSize, buffer), { startImmediately: true }))
        yield* held.holds(fibers.length)
        yield* held.roundTrips(10)
        assert.isTrue(fibers.every((fiber) => fiber.pollUnsafe() === undefined))
        yield* held.letGo
        yield* within("all of them", Fiber.joinAll(fibers))
        assert.strictEqual(buffer.pins, 0)
      }))

    check("interrupted while they wait for the pool", () =>
      seeded((random) =>
        Effect.gen(function*() {
          const held = yield* heldReads()
          const buffer = yield* DmaBuffer.make(blockSize)
          const fibers = yield* Effect.forEach(Array.from({ length: poolSize * 4 }), (_, index) =>
            Effect.forkChild(held.bdev.read((index % 4096) * blockSize, buffer), { startImmediately: true }))
          yield* held.holds(fibers.length)
          const some = fibers.filter(() => random.chance(0.5))
          const others = fibers.filter((fiber) => !some.includes(fiber))
          const interrupting = yield* Effect.forkChild(Fiber.interruptAll(some), { startImmediately: true })
          yield* held.roundTrips(10)
          yield* held.letGo
          yield* within("the interruption", Fiber.join(interrupting))
          for (const fiber of some) expectInterrupted(yield* Fiber.await(fiber))
          yield* within("the others", Fiber.joinAll(others))
          assert.strictEqual(buffer.pins, 0)
        })
      ))

    check("waits on a stack of modules, each of which takes from the same pool", () =>
      Effect.gen(function*() {
        let base = yield* Bdev.createMalloc({ name: fresh("base"), blockSize, numBlocks: 4096 })
        for (let depth = 0; depth < 3; depth++) base = yield* Bdev.createPassthru({ base: base, name: fresh("layer") })
        const bdev = yield* Bdev.open(base, { write: true })
        const buffer = yield* DmaBuffer.make(1024 * blockSize)
        buffer.bytes.set(pattern(buffer.byteLength, 2))
        const entries = Array.from({ length: 1024 }, (_, index) => ({
          offsetBytes: index * blockSize,
          buffer: buffer.slice(index * blockSize, blockSize)
        }))
        yield* within("the writes", bdev.writeBatch(entries))
        buffer.bytes.fill(0)
        yield* within("the reads", bdev.readBatch(entries))
        sameBytes(buffer.bytes, pattern(buffer.byteLength, 2), "through the stack")
      }))
  })
