import * as Bdev from "@effect-spdk/core/Bdev"
import * as DmaBuffer from "@effect-spdk/core/DmaBuffer"
import type { IoReason, SpdkError } from "@effect-spdk/core/SpdkError"
import { Detail, Opcode } from "@effect-spdk/native/Layout"
import { assert, describe, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { TestClock } from "effect/testing"
import type { EngineService } from "../src/internal/engineService.ts"
import { FakeEngine } from "./support/fakeEngine.ts"

const openFake = Effect.fnUntraced(function*(engine: FakeEngine) {
  const bdev = yield* Bdev.open("fake", { write: true })
  const buffer = yield* DmaBuffer.make(4096)
  // The first I/O opens the channel; tests of what comes later need not see that.
  const first = yield* Effect.forkChild(bdev.read(0, buffer), { startImmediately: true })
  yield* untilInFlight(engine, 1)
  engine.queue.complete()
  yield* Fiber.join(first)
  return { bdev, buffer }
})

const untilInFlight = (engine: FakeEngine, count: number) =>
  Effect.repeat(Effect.yieldNow, { until: () => engine.queue.inFlight >= count })

const start = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.forkChild(effect, { startImmediately: true })

const withFake = <A, E>(
  test: (engine: FakeEngine) => Effect.Effect<A, E, EngineService | Scope.Scope>,
  engine = new FakeEngine()
) => Effect.scoped(engine.provide(test(engine)))

const tagOf = (error: SpdkError<IoReason>) => error.reason._tag

describe("one I/O", () => {
  it.effect("is submitted with its place, its memory and its channel", () =>
    withFake(Effect.fnUntraced(function*(engine) {
      const { bdev, buffer } = yield* openFake(engine)
      const fiber = yield* start(bdev.write(512 * 7, buffer.slice(1024, 2048)))
      const [request] = engine.queue.requests
      assert.include(request, {
        opcode: Opcode.Write,
        slabOffset: 1024,
        lengthBytes: 2048,
        offsetBlocks: 7,
        lengthBlocks: 4,
        segments: undefined
      })
      engine.queue.complete()
      yield* Fiber.join(fiber)
    })))

  it.effect("of several buffers carries them as segments, which later changes of the array do not touch", () =>
    withFake(Effect.fnUntraced(function*(engine) {
      const { bdev, buffer } = yield* openFake(engine)
      const buffers = [buffer.slice(0, 512), buffer.slice(2048, 1024)]
      const fiber = yield* start(bdev.readv(512, buffers))
      buffers.length = 0
      const [request] = engine.queue.requests
      assert.deepStrictEqual(
        request?.segments?.map(({ lengthBytes, offsetBytes }) => [offsetBytes, lengthBytes]),
        [[0, 512], [2048, 1024]]
      )
      assert.include(request, { offsetBlocks: 1, lengthBlocks: 3, lengthBytes: 1536 })
      assert.strictEqual(buffer.pins, 2)
      engine.queue.complete()
      yield* Fiber.join(fiber)
      assert.strictEqual(buffer.pins, 0)
    })))

  it.effect("shares the opening of a channel with those that come meanwhile", () =>
    withFake(Effect.fnUntraced(function*(engine) {
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
    })))

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
    withFake(Effect.fnUntraced(function*(engine) {
      const { bdev, buffer } = yield* openFake(engine)
      const fiber = yield* start(Effect.flip(bdev.read(0, buffer)))
      engine.queue.complete({ status, detail, nvme })
      const error = yield* Fiber.join(fiber)
      assert.strictEqual(tagOf(error), tag)
      assert.include(error.message, `Bdev.read on "fake"`)
      assert.strictEqual(buffer.pins, 0)
    })))
})

describe("interruption", () => {
  it.effect("asks for an abort and waits for the completion", () =>
    withFake(Effect.fnUntraced(function*(engine) {
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
    })))

  it.effect("waits for a device that does not abort as well", () =>
    withFake(Effect.fnUntraced(function*(engine) {
      const { bdev, buffer } = yield* openFake(engine)
      const fiber = yield* start(bdev.write(0, buffer))
      const interrupting = yield* start(Fiber.interrupt(fiber))
      yield* TestClock.adjust("1 hour")
      assert.isUndefined(fiber.pollUnsafe())
      engine.queue.complete()
      yield* Fiber.join(interrupting)
    })))

  it.effect("is fine with a device that aborts at once", () =>
    withFake(Effect.fnUntraced(function*(engine) {
      const { bdev, buffer } = yield* openFake(engine)
      engine.queue.onAbort = (id) => engine.queue.complete({ id, status: -125 })
      const fiber = yield* start(bdev.read(0, buffer))
      yield* Fiber.interrupt(fiber)
      assert.strictEqual(engine.queue.inFlight, 0)
      assert.strictEqual(buffer.pins, 0)
    })))

  it.effect("of a batch aborts and awaits all of its entries", () =>
    withFake(Effect.fnUntraced(function*(engine) {
      const { bdev, buffer } = yield* openFake(engine)
      const entries = [0, 1, 2].map((i) => ({ offsetBytes: i * 512, buffer: buffer.slice(i * 512, 512) }))
      const fiber = yield* start(bdev.readBatch(entries))
      engine.queue.complete()
      const interrupting = yield* start(Fiber.interrupt(fiber))
      yield* Effect.yieldNow
      assert.includeMembers(engine.queue.aborted, engine.queue.requests.map(({ id }) => id))
      engine.queue.complete({ status: -125 })
      assert.isUndefined(fiber.pollUnsafe())
      assert.strictEqual(buffer.pins, 1)
      engine.queue.complete()
      yield* Fiber.join(interrupting)
      assert.strictEqual(buffer.pins, 0)
    })))

  it.effect("while the channel opens leaves a channel that works", () =>
    withFake(Effect.fnUntraced(function*(engine) {
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
    })))
})

describe("a batch", () => {
  const eight = (buffer: DmaBuffer.DmaBuffer) =>
    Array.from({ length: 8 }, (_, i) => ({ offsetBytes: i * 4096, buffer: buffer.slice(i * 512, 512) }))

  it.effect("completes when all entries have, in any order", () =>
    withFake(Effect.fnUntraced(function*(engine) {
      const { bdev, buffer } = yield* openFake(engine)
      const fiber = yield* start(bdev.writeBatch(eight(buffer)))
      assert.deepStrictEqual(engine.queue.requests.map(({ offsetBlocks }) => offsetBlocks), [0, 8, 16, 24, 32, 40, 48, 56])
      for (const { id } of [...engine.queue.requests].reverse()) {
        assert.isUndefined(fiber.pollUnsafe())
        engine.queue.complete({ id })
      }
      yield* Fiber.join(fiber)
    })))

  it.effect("fails with the lowest failed index, after all entries have completed", () =>
    withFake(Effect.fnUntraced(function*(engine) {
      const { bdev, buffer } = yield* openFake(engine)
      const fiber = yield* start(Effect.flip(bdev.readBatch(eight(buffer))))
      const ids = engine.queue.requests.map(({ id }) => id)
      engine.queue.complete({ id: ids[6] ?? 0, status: -12 })
      engine.queue.complete({ id: ids[2] ?? 0, status: -5 })
      assert.isUndefined(fiber.pollUnsafe())
      engine.queue.completeAll()
      const error = yield* Fiber.join(fiber)
      assert.strictEqual(tagOf(error), "IoFailed")
      assert.strictEqual(error.reason.detail, "entries[2] of 8; 2 failed")
      assert.strictEqual(buffer.pins, 0)
    })))

  it.effect("submits nothing when one entry is refused", () =>
    withFake(Effect.fnUntraced(function*(engine) {
      const { bdev, buffer } = yield* openFake(engine)
      const entries = [...eight(buffer), { offsetBytes: 100, buffer: buffer.slice(0, 512) }]
      const { reason } = yield* Effect.flip(bdev.readBatch(entries))
      assert.include(reason, { _tag: "InvalidArgument", field: "entries[8].offsetBytes", value: 100 })
      assert.strictEqual(engine.queue.inFlight, 0)
      assert.strictEqual(buffer.pins, 0)
    })))

  it.effect("that was prepared tells of every entry and runs again from other offsets", () =>
    withFake(Effect.fnUntraced(function*(engine) {
      const { bdev, buffer } = yield* openFake(engine)
      const batch = yield* bdev.prepareReads(eight(buffer))
      assert.deepStrictEqual([...batch.offsetsBytes], [0, 4096, 8192, 12288, 16384, 20480, 24576, 28672])
      const failing = yield* start(Effect.flip(batch.run))
      engine.queue.complete()
      engine.queue.complete({ status: -5 })
      engine.queue.completeAll()
      yield* Fiber.join(failing)
      assert.deepStrictEqual([...batch.statuses], [0, -5, 0, 0, 0, 0, 0, 0])
      assert.strictEqual(batch.errorAt(1)?.reason._tag, "IoFailed")
      assert.isUndefined(batch.errorAt(0))

      batch.offsetsBytes[1] = 512
      const again = yield* start(batch.run)
      assert.strictEqual(engine.queue.requests[1]?.offsetBlocks, 1)
      engine.queue.completeAll()
      yield* Fiber.join(again)
      assert.deepStrictEqual([...batch.statuses], [0, 0, 0, 0, 0, 0, 0, 0])
      assert.isUndefined(batch.errorAt(1))
    })))

  it.effect("that was prepared checks offsets at each run, and runs once at a time", () =>
    withFake(Effect.fnUntraced(function*(engine) {
      const { bdev, buffer } = yield* openFake(engine)
      const batch = yield* bdev.prepareWrites(eight(buffer))
      batch.offsetsBytes[3] = bdev.sizeBytes
      const { reason } = yield* Effect.flip(batch.run)
      assert.include(reason, { _tag: "InvalidArgument", field: "entries[3].offsetBytes" })
      batch.offsetsBytes[3] = 0
      const running = yield* start(batch.run)
      assert.strictEqual(tagOf(yield* Effect.flip(batch.run)), "Busy")
      engine.queue.completeAll()
      yield* Fiber.join(running)
    })))

  it.effect("that was prepared fails with Released once its buffer is", () =>
    withFake(Effect.fnUntraced(function*(engine) {
      const { bdev } = yield* openFake(engine)
      const scope = yield* Scope.make()
      const buffer = yield* Scope.provide(DmaBuffer.make(4096), scope)
      const batch = yield* bdev.prepareReads(eight(buffer))
      yield* Scope.close(scope, Exit.void)
      assert.include((yield* Effect.flip(batch.run)).reason, { _tag: "Released", what: "buffer" })
    })))

  it.effect("of nothing succeeds", () =>
    withFake(Effect.fnUntraced(function*(engine) {
      const { bdev } = yield* openFake(engine)
      yield* bdev.readBatch([])
      yield* Effect.flatMap(bdev.prepareWrites([]), (batch) => batch.run)
      assert.strictEqual(engine.queue.inFlight, 0)
    })))
})

describe("the end of a handle", () => {
  it.effect("waits for its I/O, then closes channels, then the descriptor", () =>
    withFake(Effect.fnUntraced(function*(engine) {
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
    })))

  it.effect("dies with TimedOut when the device does not answer, and gives back what it holds when it does", () =>
    withFake(Effect.fnUntraced(function*(engine) {
      const buffer = yield* DmaBuffer.make(512)
      const scope = yield* Scope.make()
      const bdev = yield* Scope.provide(Bdev.open("fake"), scope)
      const reading = yield* start(bdev.read(0, buffer))
      yield* untilInFlight(engine, 1)
      const closing = yield* start(Effect.exit(Scope.close(scope, Exit.void)))
      yield* TestClock.adjust("30 seconds")
      const exit = yield* Fiber.join(closing)
      assert.match(Exit.isFailure(exit) ? Cause.pretty(exit.cause) : "", /Bdev.close on "fake": TimedOut: no answer within 30000 ms/)
      assert.notInclude(engine.log, "closeBdev")
      engine.queue.complete()
      yield* Fiber.join(reading)
      yield* Effect.repeat(Effect.yieldNow, { until: () => engine.log.includes("closeBdev") })
    })))

  it.effect("has a limit that can be set", () =>
    withFake(Effect.fnUntraced(function*(engine) {
      engine.onCloseBdev = Effect.never
      const closing = yield* start(Effect.exit(Effect.scoped(Bdev.open("fake"))))
      yield* TestClock.adjust("5 seconds")
      const exit = yield* Fiber.join(closing)
      assert.match(Exit.isFailure(exit) ? Cause.pretty(exit.cause) : "", /within 5000 ms/)
    })).pipe(Effect.provideService(Bdev.ReleaseTimeout, "5 seconds")))

  it.effect("ends the event streams", () =>
    withFake(Effect.fnUntraced(function*() {
      const scope = yield* Scope.make()
      const bdev = yield* Scope.provide(Bdev.open("fake"), scope)
      const events = yield* start(Stream.runCollect(bdev.events))
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(yield* Fiber.join(events), [])
      assert.deepStrictEqual(yield* Stream.runCollect(bdev.events), [])
    })))
})

describe("a removed device", () => {
  it.effect("fails what is in flight and what comes later, ends the events, and the handle still closes", () =>
    withFake(Effect.fnUntraced(function*(engine) {
      yield* Effect.scoped(Effect.gen(function*() {
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
      }))
      assert.deepStrictEqual(engine.log, ["openChannel", "free", "closeChannel", "closeBdev"])
    })))

  it.effect("that changed its size is followed", () =>
    withFake(Effect.fnUntraced(function*(engine) {
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
    })))

  it.effect("is not opened when offsets in bytes would not be exact", () =>
    withFake(
      () => Effect.map(Effect.flip(Bdev.open("fake")), ({ reason }) => assert.include(reason, { _tag: "NotSupported" })),
      new FakeEngine({ numBlocks: 2 ** 45 })
    ))
})

describe("plain memory", () => {
  it.effect("goes back when the handle closes", () =>
    withFake(Effect.fnUntraced(function*(engine) {
      yield* Effect.scoped(Effect.gen(function*() {
        const { bdev } = yield* openFake(engine)
        const writing = yield* start(bdev.writeBytes(0, new Uint8Array(8192)))
        engine.queue.complete()
        yield* Fiber.join(writing)
        assert.strictEqual(engine.slabs.size, 2)
      }))
      assert.strictEqual(engine.slabs.size, 0)
    })))

  it.effect("waits for its turn when the engine has no memory left, instead of failing", () =>
    withFake(Effect.fnUntraced(function*(engine) {
      const { bdev } = yield* openFake(engine)
      engine.memoryBytes = engine.dmaBytes + 8192
      const fibers = yield* Effect.forEach([0, 1, 2, 3], (i) => start(bdev.readBytes(i * 8192, 8192)))
      for (const fiber of fibers) {
        yield* untilInFlight(engine, 1)
        assert.strictEqual(engine.queue.inFlight, 1)
        engine.queue.complete()
        yield* Fiber.join(fiber)
      }
    })))

  it.effect("fails with NoMemory when there never was enough", () =>
    withFake(Effect.fnUntraced(function*(engine) {
      const { bdev } = yield* openFake(engine)
      engine.memoryBytes = engine.dmaBytes + 4096
      assert.strictEqual(tagOf(yield* Effect.flip(bdev.readBytes(0, 8192))), "NoMemory")
    })))

  it.effect("holds the turn of an interrupted waiter for nobody", () =>
    withFake(Effect.fnUntraced(function*(engine) {
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
    })))
})
