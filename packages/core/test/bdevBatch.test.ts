import * as DmaBuffer from "@effect-spdk/core/DmaBuffer"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import { openFake, start, tagOf, withFake } from "./support/fakeEngine.ts"

const eight = (buffer: DmaBuffer.DmaBuffer) =>
  Array.from({ length: 8 }, (_, i) => ({ offsetBytes: i * 4096, buffer: buffer.slice(i * 512, 512) }))

describe("a batch", () => {
  it.effect("completes when all entries have, in any order", () =>
    withFake(
      Effect.fnUntraced(function* (engine) {
        const { bdev, buffer } = yield* openFake(engine)
        const fiber = yield* start(bdev.writeBatch(eight(buffer)))
        assert.deepStrictEqual(
          engine.queue.requests.map(({ offsetBlocks }) => offsetBlocks),
          [0, 8, 16, 24, 32, 40, 48, 56]
        )
        for (const { id } of engine.queue.requests.toReversed()) {
          assert.isUndefined(fiber.pollUnsafe())
          engine.queue.complete({ id })
        }
        yield* Fiber.join(fiber)
      })
    )
  )

  it.effect("fails with the lowest failed index, after all entries have completed", () =>
    withFake(
      Effect.fnUntraced(function* (engine) {
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
      })
    )
  )

  it.effect("submits nothing when one entry is refused", () =>
    withFake(
      Effect.fnUntraced(function* (engine) {
        const { bdev, buffer } = yield* openFake(engine)
        const entries = [...eight(buffer), { offsetBytes: 100, buffer: buffer.slice(0, 512) }]
        const { reason } = yield* Effect.flip(bdev.readBatch(entries))
        assert.include(reason, { _tag: "InvalidArgument", field: "entries[8].offsetBytes", value: 100 })
        assert.strictEqual(engine.queue.inFlight, 0)
        assert.strictEqual(buffer.pins, 0)
      })
    )
  )

  it.effect("that was prepared tells of every entry and runs again from other offsets", () =>
    withFake(
      Effect.fnUntraced(function* (engine) {
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
      })
    )
  )

  it.effect("that was prepared checks offsets at each run, and runs once at a time", () =>
    withFake(
      Effect.fnUntraced(function* (engine) {
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
      })
    )
  )

  it.effect("that was prepared fails with Released once its buffer is", () =>
    withFake(
      Effect.fnUntraced(function* (engine) {
        const { bdev } = yield* openFake(engine)
        const scope = yield* Scope.make()
        const buffer = yield* Scope.provide(DmaBuffer.make(4096), scope)
        const batch = yield* bdev.prepareReads(eight(buffer))
        yield* Scope.close(scope, Exit.void)
        assert.include((yield* Effect.flip(batch.run)).reason, { _tag: "Released", what: "buffer" })
      })
    )
  )

  it.effect("of nothing succeeds", () =>
    withFake(
      Effect.fnUntraced(function* (engine) {
        const { bdev } = yield* openFake(engine)
        yield* bdev.readBatch([])
        yield* Effect.flatMap(bdev.prepareWrites([]), (batch) => batch.run)
        assert.strictEqual(engine.queue.inFlight, 0)
      })
    )
  )
})
