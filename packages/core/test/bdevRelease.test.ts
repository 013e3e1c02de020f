import * as Bdev from "@effect-spdk/core/Bdev"
import * as DmaBuffer from "@effect-spdk/core/DmaBuffer"
import { assert, describe, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { FakeEngine, openFake, start, tagOf, untilInFlight, withFake } from "./support/fakeEngine.ts"

describe("the end of a handle", () => {
  it.effect("waits for its I/O, then closes channels, then the descriptor", () =>
    withFake(
      Effect.fnUntraced(function* (engine) {
        const buffer = yield* DmaBuffer.make(512)
        const scope = yield* Scope.make()
        const bdev = yield* Scope.provide(Bdev.open("fake"), scope)
        const reading = yield* start(bdev.read(0, buffer))
        yield* untilInFlight(engine, 1)
        const closing = yield* start(Scope.close(scope, Exit.void))
        yield* Effect.yieldNow
        assert.deepStrictEqual(engine.log, ["openChannel"])
        assert.include((yield* Effect.flip(bdev.read(0, buffer))).reason, { _tag: "Released", what: "handle" })
        engine.queue.complete()
        yield* Fiber.join(closing)
        yield* Fiber.join(reading)
        assert.deepStrictEqual(engine.log, ["openChannel", "closeChannel", "closeBdev"])
      })
    )
  )

  it.effect("waits for a channel that is being opened, and closes that one too", () =>
    withFake(
      Effect.fnUntraced(function* (engine) {
        const gate = yield* Deferred.make<void>()
        engine.onOpenChannel = Deferred.await(gate)
        const buffer = yield* DmaBuffer.make(512)
        const scope = yield* Scope.make()
        const bdev = yield* Scope.provide(Bdev.open("fake"), scope)
        const reading = yield* start(Effect.flip(bdev.read(0, buffer)))
        const closing = yield* start(Scope.close(scope, Exit.void))
        yield* Deferred.succeed(gate, undefined)
        yield* Fiber.join(closing)
        assert.strictEqual(tagOf(yield* Fiber.join(reading)), "Released")
        assert.deepStrictEqual(engine.log, ["openChannel", "closeChannel", "closeBdev"])
      })
    )
  )

  it.effect("waits for an explicit channel that is being opened, and closes that one too", () =>
    withFake(
      Effect.fnUntraced(function* (engine) {
        const gate = yield* Deferred.make<void>()
        engine.onOpenChannel = Deferred.await(gate)
        const [handle, outer] = [yield* Scope.make(), yield* Scope.make()]
        const bdev = yield* Scope.provide(Bdev.open("fake"), handle)
        const opening = yield* start(Scope.provide(bdev.channel, outer))
        const closing = yield* start(Scope.close(handle, Exit.void))
        yield* Deferred.succeed(gate, undefined)
        yield* Fiber.join(closing)
        yield* Fiber.join(opening)
        assert.deepStrictEqual(engine.log, ["openChannel", "closeChannel", "closeBdev"])
        yield* Scope.close(outer, Exit.void)
      })
    )
  )

  it.effect("dies with TimedOut when the device does not answer, and gives back what it holds when it does", () =>
    withFake(
      Effect.fnUntraced(function* (engine) {
        const buffer = yield* DmaBuffer.make(512)
        const scope = yield* Scope.make()
        const bdev = yield* Scope.provide(Bdev.open("fake"), scope)
        const reading = yield* start(bdev.read(0, buffer))
        yield* untilInFlight(engine, 1)
        const closing = yield* start(Effect.exit(Scope.close(scope, Exit.void)))
        const exit = yield* Fiber.join(closing)
        assert.match(
          Exit.isFailure(exit) ? Cause.pretty(exit.cause) : "",
          /Bdev.close on "fake": TimedOut: no answer within 50 ms/
        )
        assert.notInclude(engine.log, "closeBdev")
        engine.queue.complete()
        yield* Fiber.join(reading)
        yield* Effect.repeat(Effect.yieldNow, { until: () => engine.log.includes("closeBdev") })
      })
    ).pipe(Effect.provideService(Bdev.ReleaseTimeout, "50 millis"))
  )

  it.effect("has a limit that can be set", () =>
    withFake(
      Effect.fnUntraced(function* (engine) {
        engine.onCloseBdev = Effect.never
        const closing = yield* start(Effect.exit(Effect.scoped(Bdev.open("fake"))))
        const exit = yield* Fiber.join(closing)
        assert.match(Exit.isFailure(exit) ? Cause.pretty(exit.cause) : "", /within 20 ms/)
      })
    ).pipe(Effect.provideService(Bdev.ReleaseTimeout, "20 millis"))
  )

  it.effect("closes the explicit channels that outlive it", () =>
    withFake(
      Effect.fnUntraced(function* (engine) {
        const [handle, outer] = [yield* Scope.make(), yield* Scope.make()]
        const bdev = yield* Scope.provide(Bdev.open("fake"), handle)
        const channel = yield* Scope.provide(bdev.channel, outer)
        yield* Scope.close(handle, Exit.void)
        yield* Scope.close(outer, Exit.void)
        assert.deepStrictEqual(engine.log, ["openChannel", "closeChannel", "closeBdev"])
        const buffer = yield* DmaBuffer.make(512)
        assert.include((yield* Effect.flip(channel.read(0, buffer))).reason, { _tag: "Released", what: "handle" })
      })
    )
  )

  it.effect("comes after the end of an explicit channel, whose I/O fails from then on", () =>
    withFake(
      Effect.fnUntraced(function* (engine) {
        const { bdev, buffer } = yield* openFake(engine)
        const scope = yield* Scope.make()
        const channel = yield* Scope.provide(bdev.channel, scope)
        const reading = yield* start(channel.read(0, buffer))
        engine.queue.complete()
        yield* Fiber.join(reading)
        yield* Scope.close(scope, Exit.void)
        const io = [
          channel.read(0, buffer),
          channel.readBatch([{ offsetBytes: 0, buffer }]),
          channel.flush(),
          channel.reset
        ]
        for (const one of io) {
          assert.include((yield* Effect.flip(one)).reason, { _tag: "Released", what: "channel" })
        }
        assert.strictEqual(buffer.pins, 0)
      })
    )
  )

  it.effect("ends the event streams", () =>
    withFake(
      Effect.fnUntraced(function* () {
        const scope = yield* Scope.make()
        const bdev = yield* Scope.provide(Bdev.open("fake"), scope)
        const events = yield* start(Stream.runCollect(bdev.events))
        yield* Scope.close(scope, Exit.void)
        assert.deepStrictEqual(yield* Fiber.join(events), [])
        assert.deepStrictEqual(yield* Stream.runCollect(bdev.events), [])
      })
    )
  )
})

describe("a removed device", () => {
  it.effect("fails what is in flight and what comes later, ends the events, and the handle still closes", () =>
    withFake(
      Effect.fnUntraced(function* (engine) {
        yield* Effect.scoped(
          Effect.gen(function* () {
            const { bdev, buffer } = yield* openFake(engine)
            const events = yield* start(Stream.runCollect(bdev.events))
            const reading = yield* start(Effect.flip(bdev.read(0, buffer)))
            engine.tell({ _tag: "Removed" })
            engine.queue.complete({ status: -5 })
            assert.include((yield* Fiber.join(reading)).reason, { _tag: "DeviceRemoved", errno: "EIO" })
            assert.strictEqual(tagOf(yield* Effect.flip(bdev.read(0, buffer))), "DeviceRemoved")
            assert.strictEqual(tagOf(yield* Effect.flip(bdev.flush())), "DeviceRemoved")
            assert.deepStrictEqual(yield* Fiber.join(events), [{ _tag: "Removed" }])
            assert.deepStrictEqual(yield* Stream.runCollect(bdev.events), [{ _tag: "Removed" }])
            assert.isTrue(bdev.isRemoved)
          })
        )
        assert.deepStrictEqual(engine.log, ["openChannel", "free", "closeChannel", "closeBdev"])
      })
    )
  )

  it.effect("that changed its size is followed", () =>
    withFake(
      Effect.fnUntraced(function* (engine) {
        const { bdev, buffer } = yield* openFake(engine)
        const events = yield* start(Stream.runCollect(Stream.take(bdev.events, 1)))
        const { reason } = yield* Effect.flip(bdev.read(512 * 2048, buffer))
        assert.include(reason, { _tag: "InvalidArgument", field: "offsetBytes" })
        engine.tell({ _tag: "Resized", numBlocks: 4096 })
        const reading = yield* start(bdev.read(512 * 2048, buffer))
        engine.queue.complete()
        yield* Fiber.join(reading)
        assert.deepStrictEqual(yield* Fiber.join(events), [{ _tag: "Resized", numBlocks: 4096 }])
        assert.strictEqual(bdev.sizeBytes, 4096 * 512)
      })
    )
  )

  it.effect("is not opened when offsets in bytes would not be exact", () =>
    withFake(
      () =>
        Effect.map(Effect.flip(Bdev.open("fake")), ({ reason }) => assert.include(reason, { _tag: "NotSupported" })),
      new FakeEngine({ numBlocks: 2 ** 45 })
    )
  )
})

describe("plain memory", () => {
  it.effect("goes back when the handle closes", () =>
    withFake(
      Effect.fnUntraced(function* (engine) {
        yield* Effect.scoped(
          Effect.gen(function* () {
            const { bdev } = yield* openFake(engine)
            const writing = yield* start(bdev.writeBytes(0, new Uint8Array(8192)))
            engine.queue.complete()
            yield* Fiber.join(writing)
            assert.strictEqual(engine.slabs.size, 2)
          })
        )
        assert.strictEqual(engine.slabs.size, 0)
      })
    )
  )

  it.effect("waits for its turn when the engine has no memory left, instead of failing", () =>
    withFake(
      Effect.fnUntraced(function* (engine) {
        const { bdev } = yield* openFake(engine)
        engine.memoryBytes = engine.dmaBytes + 8192
        const fibers = yield* Effect.forEach([0, 1, 2, 3], (i) => start(bdev.readBytes(i * 8192, 8192)))
        for (const fiber of fibers) {
          yield* untilInFlight(engine, 1)
          assert.strictEqual(engine.queue.inFlight, 1)
          engine.queue.complete()
          yield* Fiber.join(fiber)
        }
      })
    )
  )

  it.effect("fails with NoMemory when there never was enough", () =>
    withFake(
      Effect.fnUntraced(function* (engine) {
        const { bdev } = yield* openFake(engine)
        engine.memoryBytes = engine.dmaBytes + 4096
        assert.strictEqual(tagOf(yield* Effect.flip(bdev.readBytes(0, 8192))), "NoMemory")
      })
    )
  )

  it.effect("fails with NoMemory for all who come together when there never was enough", () =>
    withFake(
      Effect.fnUntraced(function* (engine) {
        const { bdev } = yield* openFake(engine)
        const gate = yield* Deferred.make<void>()
        engine.memoryBytes = engine.dmaBytes
        engine.onAllocate = Deferred.await(gate)
        const fibers = yield* Effect.forEach([0, 1, 2], (i) => start(Effect.flip(bdev.readBytes(i * 8192, 8192))))
        yield* Deferred.succeed(gate, undefined)
        const errors = yield* Fiber.joinAll(fibers)
        assert.deepStrictEqual(errors.map(tagOf), ["NoMemory", "NoMemory", "NoMemory"])
        engine.memoryBytes = Number.POSITIVE_INFINITY
        const reading = yield* start(bdev.readBytes(0, 8192))
        yield* untilInFlight(engine, 1)
        engine.queue.complete()
        yield* Fiber.join(reading)
      })
    )
  )

  it.effect("holds the turn of an interrupted waiter for nobody", () =>
    withFake(
      Effect.fnUntraced(function* (engine) {
        const { bdev } = yield* openFake(engine)
        engine.memoryBytes = engine.dmaBytes + 8192
        const [first, second, third] = yield* Effect.forEach([0, 1, 2], (i) => start(bdev.readBytes(i * 8192, 8192)))
        if (first === undefined || second === undefined || third === undefined) return assert.fail()
        yield* Fiber.interrupt(second)
        engine.queue.complete()
        yield* Fiber.join(first)
        yield* untilInFlight(engine, 1)
        engine.queue.complete()
        yield* Fiber.join(third)
      })
    )
  )
})
