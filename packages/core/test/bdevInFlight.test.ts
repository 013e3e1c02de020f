import * as Bdev from "@effect-spdk/core/Bdev"
import * as DmaBuffer from "@effect-spdk/core/DmaBuffer"
import { Detail, Opcode } from "@effect-spdk/native/Layout"
import { assert, describe, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { TestClock } from "effect/testing"
import { Aborted, fromErrno, SpdkError } from "../src/SpdkError.ts"
import { openFake, start, tagOf, untilInFlight, withFake } from "./support/fakeEngine.ts"

describe("one I/O", () => {
  it.effect("is submitted with its place, its memory and its channel", () =>
    withFake(
      Effect.fnUntraced(function* (engine) {
        const { bdev, buffer } = yield* openFake(engine)
        const fiber = yield* start(bdev.write(512 * 7, buffer.slice(1024, 2048)))
        const [request] = engine.queue.requests
        assert.include(request, {
          opcode: Opcode.Write,
          slabOffset: 1024,
          offsetBlocks: 7,
          lengthBlocks: 4,
          segments: undefined
        })
        engine.queue.complete()
        yield* Fiber.join(fiber)
      })
    )
  )

  it.effect("of several buffers carries them as segments, which later changes of the array do not touch", () =>
    withFake(
      Effect.fnUntraced(function* (engine) {
        const { bdev, buffer } = yield* openFake(engine)
        const buffers = [buffer.slice(0, 512), buffer.slice(2048, 1024)]
        const fiber = yield* start(bdev.readv(512, buffers))
        buffers.length = 0
        const [request] = engine.queue.requests
        assert.deepStrictEqual(
          request?.segments?.map(({ lengthBytes, offsetBytes }) => [offsetBytes, lengthBytes]),
          [
            [0, 512],
            [2048, 1024]
          ]
        )
        assert.include(request, { offsetBlocks: 1, lengthBlocks: 3 })
        assert.strictEqual(buffer.pins, 2)
        engine.queue.complete()
        yield* Fiber.join(fiber)
        assert.strictEqual(buffer.pins, 0)
      })
    )
  )

  it.effect("shares the opening of a channel with those that come meanwhile", () =>
    withFake(
      Effect.fnUntraced(function* (engine) {
        const gate = yield* Deferred.make<void>()
        engine.onOpenChannel = Deferred.await(gate)
        const bdev = yield* Bdev.open("fake")
        const buffer = yield* DmaBuffer.make(512)
        const fibers = yield* Effect.forEach([0, 512, 1024], (offset) => start(bdev.read(offset, buffer)))
        yield* Deferred.succeed(gate, undefined)
        yield* untilInFlight(engine, 3)
        engine.queue.completeAll()
        yield* Fiber.joinAll(fibers)
        assert.deepStrictEqual(engine.log, ["openChannel"])
      })
    )
  )

  it.effect(
    "fails with Released when the engine calls the opening of a channel off, because the thread goes away",
    () =>
      withFake(
        Effect.fnUntraced(function* (engine) {
          engine.onOpenChannel = Effect.fail(new SpdkError({ reason: new Aborted({ operation: "Bdev.channel" }) }))
          const bdev = yield* Bdev.open("fake")
          const buffer = yield* DmaBuffer.make(512)
          assert.include((yield* Effect.flip(bdev.read(0, buffer))).reason, { _tag: "Released", what: "thread" })
          assert.include((yield* Effect.flip(bdev.channel)).reason, { _tag: "Released", what: "thread" })
        })
      )
  )

  it.effect("fails with DeviceRemoved when the bdev is gone before its channel opens", () =>
    withFake(
      Effect.fnUntraced(function* (engine) {
        engine.onOpenChannel = Effect.fail(fromErrno(-19, { operation: "Bdev.channel" }))
        const bdev = yield* Bdev.open("fake")
        const buffer = yield* DmaBuffer.make(512)
        assert.strictEqual(tagOf(yield* Effect.flip(bdev.read(0, buffer))), "DeviceRemoved")
      })
    )
  )

  const answers: ReadonlyArray<readonly [tag: string, status: number, detail: number, nvme: number]> = [
    ["IoFailed", -5, Detail.None, 0],
    ["Aborted", -5, Detail.None, 0x10000 | 0x07],
    ["NoSpace", -5, Detail.None, 0x10000 | 0x81],
    ["NoMemory", -12, Detail.None, 0],
    ["InvalidArgument", -22, Detail.BlockRange, 0],
    ["DeviceRemoved", -19, Detail.Removed, 0],
    ["Released", -9, Detail.Closing, 0]
  ]
  it.effect.each(answers)("fails with %s when the device answers so", ([tag, status, detail, nvme]) =>
    withFake(
      Effect.fnUntraced(function* (engine) {
        const { bdev, buffer } = yield* openFake(engine)
        const fiber = yield* start(Effect.flip(bdev.read(0, buffer)))
        engine.queue.complete({ status, detail, nvme })
        const error = yield* Fiber.join(fiber)
        assert.strictEqual(tagOf(error), tag)
        assert.include(error.message, `Bdev.read on "fake"`)
        assert.strictEqual(buffer.pins, 0)
      })
    )
  )
})

describe("interruption", () => {
  it.effect("asks for an abort and waits for the completion", () =>
    withFake(
      Effect.fnUntraced(function* (engine) {
        const { bdev, buffer } = yield* openFake(engine)
        const fiber = yield* start(bdev.read(0, buffer))
        const id = engine.queue.requests[0]?.id ?? 0
        const interrupting = yield* start(Fiber.interrupt(fiber))
        yield* Effect.yieldNow
        assert.deepStrictEqual(engine.queue.aborted, [id])
        assert.isUndefined(fiber.pollUnsafe())
        assert.strictEqual(buffer.pins, 1)
        engine.queue.complete({ status: -125 })
        yield* Fiber.join(interrupting)
        const exit = yield* Fiber.await(fiber)
        assert.isTrue(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause))
        assert.strictEqual(buffer.pins, 0)
      })
    )
  )

  it.effect("waits for a device that does not abort as well", () =>
    withFake(
      Effect.fnUntraced(function* (engine) {
        const { bdev, buffer } = yield* openFake(engine)
        const fiber = yield* start(bdev.write(0, buffer))
        const interrupting = yield* start(Fiber.interrupt(fiber))
        yield* TestClock.adjust("1 hour")
        assert.isUndefined(fiber.pollUnsafe())
        engine.queue.complete()
        yield* Fiber.join(interrupting)
      })
    )
  )

  it.effect("is fine with a device that aborts at once", () =>
    withFake(
      Effect.fnUntraced(function* (engine) {
        const { bdev, buffer } = yield* openFake(engine)
        engine.queue.onAbort = (id) => engine.queue.complete({ id, status: -125 })
        const fiber = yield* start(bdev.read(0, buffer))
        yield* Fiber.interrupt(fiber)
        assert.strictEqual(engine.queue.inFlight, 0)
        assert.strictEqual(buffer.pins, 0)
      })
    )
  )

  it.effect("of a batch aborts and awaits all of its entries", () =>
    withFake(
      Effect.fnUntraced(function* (engine) {
        const { bdev, buffer } = yield* openFake(engine)
        const entries = [0, 1, 2].map((i) => ({ offsetBytes: i * 512, buffer: buffer.slice(i * 512, 512) }))
        const fiber = yield* start(bdev.readBatch(entries))
        engine.queue.complete()
        const interrupting = yield* start(Fiber.interrupt(fiber))
        yield* Effect.yieldNow
        assert.includeMembers(
          engine.queue.aborted,
          engine.queue.requests.map(({ id }) => id)
        )
        engine.queue.complete({ status: -125 })
        assert.isUndefined(fiber.pollUnsafe())
        assert.strictEqual(buffer.pins, 1)
        engine.queue.complete()
        yield* Fiber.join(interrupting)
        assert.strictEqual(buffer.pins, 0)
      })
    )
  )

  it.effect("of a prepared batch leaves the statuses of that run", () =>
    withFake(
      Effect.fnUntraced(function* (engine) {
        const { bdev, buffer } = yield* openFake(engine)
        const batch = yield* bdev.prepareReads(
          [0, 512].map((offsetBytes) => ({ offsetBytes, buffer: buffer.slice(0, 512) }))
        )
        const fiber = yield* start(batch.run)
        const interrupting = yield* start(Fiber.interrupt(fiber))
        yield* Effect.yieldNow
        engine.queue.complete()
        engine.queue.complete({ status: -125 })
        yield* Fiber.join(interrupting)
        assert.deepStrictEqual([...batch.statuses], [0, -125])
      })
    )
  )

  it.effect("while the channel opens leaves a channel that works", () =>
    withFake(
      Effect.fnUntraced(function* (engine) {
        const gate = yield* Deferred.make<void>()
        engine.onOpenChannel = Deferred.await(gate)
        const bdev = yield* Bdev.open("fake")
        const buffer = yield* DmaBuffer.make(512)
        const fiber = yield* start(bdev.read(0, buffer))
        const interrupting = yield* start(Fiber.interrupt(fiber))
        yield* Deferred.succeed(gate, undefined)
        yield* Fiber.join(interrupting)
        assert.strictEqual(engine.queue.inFlight, 0)
        const second = yield* start(bdev.read(0, buffer))
        yield* untilInFlight(engine, 1)
        engine.queue.complete()
        yield* Fiber.join(second)
        assert.deepStrictEqual(engine.log, ["openChannel"])
      })
    )
  )
})
