/**
 * Handles and bdevs that go while something is still under way: an interruption in the middle of making them leaves nothing, and
 * a close waits for what the device has.
 */
import * as Bdev from "@effect-spdk/core/Bdev"
import * as DmaBuffer from "@effect-spdk/core/DmaBuffer"
import * as Rpc from "@effect-spdk/core/Rpc"
import * as Spdk from "@effect-spdk/core/Spdk"
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import type { Capabilities, EngineLayer } from "../support/engines.ts"
import {
  blockSize,
  contract,
  expectReleaseTimedOut,
  failsWith,
  fresh,
  turn,
  until,
  within
} from "../support/harness.ts"
import { arrived, errorBdev, inFlight } from "../support/held.ts"
import { seeded } from "../support/random.ts"

export const suite = (name: string, layer: EngineLayer, _capabilities: Capabilities): void =>
  contract(name, layer, (check) => {
    check("opening and closing under interruption leaves no handle", () =>
      seeded((random) =>
        Effect.gen(function* () {
          const created = yield* Bdev.createMalloc({ name: fresh("malloc"), blockSize, numBlocks: 64 })
          const use = Effect.scoped(
            Effect.flatMap(Bdev.open(created, { write: true }), (bdev) => bdev.readBytes(0, blockSize))
          )
          for (let round = 0; round < 200; round++) {
            const fiber = yield* Effect.forkChild(use, { startImmediately: true })
            for (let pause = random.below(12); pause > 0; pause--) yield* random.chance(0.3) ? turn : Effect.yieldNow
            yield* within("the interruption", Fiber.interrupt(fiber))
          }
          // A handle left open would keep the bdev from being claimed or deleted.
          yield* Effect.scoped(Bdev.createPassthru({ base: created, name: fresh("passthru") }))
        })
      )
    )

    check("creating a bdev under interruption leaves no bdev", () =>
      seeded((random) =>
        Effect.gen(function* () {
          const client = yield* Rpc.RpcClient
          for (let round = 0; round < 60; round++) {
            const create = Effect.scoped(Bdev.createNull({ name: fresh("null"), blockSize, numBlocks: 64 }))
            const fiber = yield* Effect.forkChild(create, { startImmediately: true })
            for (let pause = random.below(8); pause > 0; pause--) yield* random.chance(0.3) ? turn : Effect.yieldNow
            yield* within("the interruption", Fiber.interrupt(fiber))
          }
          assert.deepStrictEqual(yield* client.call("bdev_get_bdevs"), [])
        })
      )
    )

    check("a device that never answers makes the close fail loudly, and the handle goes when it does answer", () =>
      Effect.gen(function* () {
        const device = yield* errorBdev()
        yield* device.inject({ ioType: "read", errorType: "pending" })
        yield* Effect.addFinalizer(() => Effect.ignore(device.letGo))
        const spdk = yield* Spdk.Spdk
        const before = yield* spdk.usage
        const scope = yield* Scope.make()
        const bdev = yield* Bdev.open(device.name).pipe(
          Scope.provide(scope),
          Effect.provideService(Bdev.ReleaseTimeout, "30 millis")
        )
        const reading = yield* Effect.forkChild(bdev.readBytes(0, blockSize), { startImmediately: true })
        yield* until(
          "the read is in flight",
          Effect.map(inFlight, (count) => count === 1)
        )
        yield* arrived
        const exit = yield* within("the close", Effect.exit(Scope.close(scope, Exit.void)))
        expectReleaseTimedOut(exit, { limitMillis: 30, resource: device.name })
        yield* device.letGo
        yield* within("the read", Fiber.await(reading))
        yield* until(
          "the handle is gone",
          Effect.map(spdk.usage, (usage) => usage.descriptors === before.descriptors)
        )
      })
    )

    check("closing the handle with I/O held waits for it, and what is asked for meanwhile is Released", () =>
      Effect.gen(function* () {
        const device = yield* errorBdev()
        yield* device.inject({ ioType: "read", errorType: "pending" })
        yield* Effect.addFinalizer(() => Effect.ignore(device.letGo))
        const scope = yield* Scope.make()
        const bdev = yield* Bdev.open(device.name).pipe(Scope.provide(scope))
        const buffer = yield* DmaBuffer.make(blockSize)
        const reading = yield* Effect.forkChild(bdev.read(0, buffer), { startImmediately: true })
        yield* until(
          "the read is in flight",
          Effect.map(inFlight, (count) => count === 1)
        )
        yield* arrived
        const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void), { startImmediately: true })
        yield* Effect.forEach(Array.from({ length: 20 }), () => turn, { discard: true })
        assert.isUndefined(closing.pollUnsafe(), "the close waits")
        assert.strictEqual(buffer.pins, 1)
        yield* failsWith(bdev.read(0, buffer), "Released", { what: "handle" })
        assert.strictEqual(buffer.pins, 1)
        yield* device.letGo
        yield* within("the close", Fiber.join(closing))
        yield* within("the read", Fiber.await(reading))
        assert.strictEqual(buffer.pins, 0)
      })
    )
  })
