import * as Bdev from "@effect-spdk/core/Bdev"
import * as DmaBuffer from "@effect-spdk/core/DmaBuffer"
import * as SpdkError from "@effect-spdk/core/SpdkError"
import { assert, describe, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import { FakeEngine, start, untilInFlight } from "./support/fakeEngine.ts"

const prettyOf = (exit: Exit.Exit<unknown, unknown>) => (Exit.isFailure(exit) ? Cause.pretty(exit.cause) : "success")

describe("a buffer", () => {
  it.effect("is zeroed, as long as asked for, and freed with its scope", () => {
    const engine = new FakeEngine()
    return engine.provide(
      Effect.gen(function* () {
        const scope = yield* Scope.make()
        const buffer = yield* Scope.provide(DmaBuffer.make(10_000), scope)
        assert.strictEqual(buffer.byteLength, 10_000)
        assert.isTrue(buffer.bytes.every((byte) => byte === 0))
        assert.isTrue(DmaBuffer.isDmaBuffer(buffer))
        assert.strictEqual(engine.dmaBytes, 10_000)
        yield* Scope.close(scope, Exit.void)
        assert.strictEqual(engine.dmaBytes, 0)
      })
    )
  })

  it.effect("after release has length 0 in all its views, and is refused by I/O", () => {
    const engine = new FakeEngine()
    return Effect.scoped(
      engine.provide(
        Effect.gen(function* () {
          const bdev = yield* Bdev.open("fake")
          const scope = yield* Scope.make()
          const buffer = yield* Scope.provide(DmaBuffer.make(4096), scope)
          const slice = buffer.slice(1024, 512)
          const views = [buffer.bytes, slice.bytes, buffer.bytes.subarray(5)]
          yield* Scope.close(scope, Exit.void)
          assert.deepStrictEqual(
            views.map(({ length }) => length),
            [0, 0, 0]
          )
          assert.deepStrictEqual([buffer.bytes.length, slice.bytes.length, buffer.byteLength], [0, 0, 0])
          assert.isTrue(slice.isReleased)
          for (const released of [buffer, slice]) {
            assert.include((yield* Effect.flip(bdev.read(0, released))).reason, { _tag: "Released", what: "buffer" })
          }
        })
      )
    )
  })

  it.effect("is released only when the I/O of its slices has completed", () => {
    const engine = new FakeEngine()
    return Effect.scoped(
      engine.provide(
        Effect.gen(function* () {
          const bdev = yield* Bdev.open("fake")
          const scope = yield* Scope.make()
          const buffer = yield* Scope.provide(DmaBuffer.make(4096), scope)
          const view = buffer.bytes
          const reading = yield* start(bdev.read(0, buffer.slice(512, 512)))
          yield* untilInFlight(engine, 1)
          assert.strictEqual(buffer.pins, 1)
          const closing = yield* start(Scope.close(scope, Exit.void))
          yield* Effect.yieldNow
          assert.strictEqual(view.length, 4096)
          assert.include((yield* Effect.flip(bdev.read(0, buffer))).reason, { _tag: "Released" })
          engine.queue.complete()
          yield* Fiber.join(reading)
          yield* Fiber.join(closing)
          assert.strictEqual(view.length, 0)
        })
      )
    )
  })

  it.effect("under a device that does not answer dies at the limit and stays allocated until it does", () => {
    const engine = new FakeEngine()
    return Effect.scoped(
      engine.provide(
        Effect.gen(function* () {
          const bdev = yield* Bdev.open("fake")
          const scope = yield* Scope.make()
          const buffer = yield* Scope.provide(DmaBuffer.make(4096), scope)
          const reading = yield* start(bdev.read(0, buffer))
          yield* untilInFlight(engine, 1)
          const closing = yield* start(Effect.exit(Scope.close(scope, Exit.void)))
          assert.match(
            prettyOf(yield* Fiber.join(closing)),
            /DmaBuffer.release on "slab .*used by 1 requests": TimedOut/
          )
          assert.strictEqual(engine.dmaBytes, 4096)
          engine.queue.complete()
          yield* Fiber.join(reading)
          yield* Effect.repeat(Effect.yieldNow, { until: () => engine.dmaBytes === 0 })
        })
      )
    ).pipe(Effect.provideService(Bdev.ReleaseTimeout, "50 millis"))
  })

  it("knows the alignment of its slices", () => {
    const engine = new FakeEngine()
    const program = Effect.map(DmaBuffer.make(16384, { alignment: 4096 }), (buffer) => {
      assert.strictEqual(buffer.alignment, 4096)
      const starts = [0, 1, 512, 1536, 4096, 8192]
      assert.deepStrictEqual(
        starts.map((at) => buffer.slice(at).alignment),
        [4096, 1, 512, 512, 4096, 4096]
      )
      assert.strictEqual(buffer.slice(4096).slice(512, 10).alignment, 512)
      assert.strictEqual(buffer.slice(4096).slice(512, 10).byteLength, 10)
    })
    Effect.runSync(Effect.scoped(engine.provide(program)))
  })

  it("shares its bytes with its slices", () => {
    const engine = new FakeEngine()
    const program = Effect.map(DmaBuffer.make(4096), (buffer) => {
      buffer.slice(100, 10).slice(5).bytes.fill(7)
      assert.deepStrictEqual([...buffer.bytes.subarray(104, 111)], [0, 7, 7, 7, 7, 7, 0])
    })
    Effect.runSync(Effect.scoped(engine.provide(program)))
  })

  it("refuses slices that do not lie in it", () => {
    const engine = new FakeEngine()
    const slices: ReadonlyArray<readonly [field: string, offset: number, length: number | undefined]> = [
      ["offsetBytes", -1, undefined],
      ["offsetBytes", 4097, undefined],
      ["offsetBytes", 0.5, undefined],
      ["lengthBytes", 0, 4097],
      ["lengthBytes", 4000, 97],
      ["lengthBytes", 0, -1],
      ["lengthBytes", 0, Number.NaN]
    ]
    const program = Effect.map(DmaBuffer.make(4096), (buffer) => {
      for (const [field, offset, length] of slices) {
        try {
          buffer.slice(offset, length)
          assert.fail(`slice(${offset}, ${length}) did not throw`)
        } catch (error) {
          if (!SpdkError.isSpdkError(error)) throw error
          assert.include(error.reason, { _tag: "InvalidArgument", field })
        }
      }
    })
    Effect.runSync(Effect.scoped(engine.provide(program)))
  })

  const refused: ReadonlyArray<readonly [field: string, lengthBytes: number, alignment: number | undefined]> = [
    ["lengthBytes", 0, undefined],
    ["lengthBytes", -4096, undefined],
    ["lengthBytes", 1.5, undefined],
    ["lengthBytes", Number.NaN, undefined],
    ["lengthBytes", 2 ** 31 + 1, undefined],
    ["alignment", 4096, 0],
    ["alignment", 4096, 3],
    ["alignment", 4096, 2 ** 22],
    ["alignment", 4096, 0.5]
  ]
  it.effect.each(refused)("of a bad %s (%d bytes, alignment %s) is refused", ([field, lengthBytes, alignment]) => {
    const engine = new FakeEngine()
    return Effect.scoped(
      engine.provide(
        Effect.gen(function* () {
          const { reason } = yield* Effect.flip(DmaBuffer.make(lengthBytes, { alignment }))
          assert.include(reason, { _tag: "InvalidArgument", field })
          assert.strictEqual(engine.slabs.size, 0)
        })
      )
    )
  })

  it.effect("fails with NoMemory when there is none", () => {
    const engine = new FakeEngine()
    engine.memoryBytes = 8191
    return Effect.scoped(
      engine.provide(
        Effect.gen(function* () {
          yield* DmaBuffer.make(4096)
          assert.strictEqual((yield* Effect.flip(DmaBuffer.make(4096))).reason._tag, "NoMemory")
        })
      )
    )
  })
})

describe("a pool", () => {
  it.effect("detaches the views of a lease at its end, and lets its bytes be", () => {
    const engine = new FakeEngine()
    return Effect.scoped(
      engine.provide(
        Effect.gen(function* () {
          const pool = yield* DmaBuffer.pool({ lengthBytes: 4096, capacity: 1 })
          const [view, old] = yield* Effect.scoped(
            Effect.map(pool.take, (buffer) => {
              buffer.bytes.fill(9)
              return [buffer.bytes, buffer] as const
            })
          )
          assert.strictEqual(view.length, 0)
          const buffer = yield* pool.take
          assert.strictEqual(buffer.bytes[17], 9)
          assert.isTrue(old.isReleased)
          assert.isFalse(buffer.isReleased)
        })
      )
    )
  })

  it.effect("serves waiters in order of arrival, and skips those who gave up", () => {
    const engine = new FakeEngine()
    return Effect.scoped(
      engine.provide(
        Effect.gen(function* () {
          const pool = yield* DmaBuffer.pool({ lengthBytes: 4096, capacity: 1 })
          const scope = yield* Scope.make()
          yield* Scope.provide(pool.take, scope)
          assert.strictEqual(pool.available, 0)
          const served: Array<number> = []
          const fibers = yield* Effect.forEach([0, 1, 2, 3], (i) =>
            start(
              Effect.scoped(
                Effect.andThen(
                  pool.take,
                  Effect.sync(() => served.push(i))
                )
              )
            )
          )
          if (fibers[1] !== undefined) yield* Fiber.interrupt(fibers[1])
          yield* Scope.close(scope, Exit.void)
          yield* Effect.forEach(fibers, Fiber.await)
          assert.deepStrictEqual(served, [0, 2, 3])
          assert.strictEqual(pool.available, 1)
        })
      )
    )
  })

  it.effect("fails waiters when it closes, and frees leased buffers at the end of their lease", () => {
    const engine = new FakeEngine()
    return Effect.scoped(
      engine.provide(
        Effect.gen(function* () {
          const poolScope = yield* Scope.make()
          const leaseScope = yield* Scope.make()
          const pool = yield* Scope.provide(DmaBuffer.pool({ lengthBytes: 4096, capacity: 2 }), poolScope)
          yield* Scope.provide(pool.take, leaseScope)
          yield* Scope.provide(pool.take, leaseScope)
          const waiter = yield* start(Effect.flip(Effect.scoped(pool.take)))
          yield* Scope.close(poolScope, Exit.void)
          assert.include((yield* Fiber.join(waiter)).reason, { _tag: "Released", what: "pool" })
          assert.include((yield* Effect.flip(Effect.scoped(pool.take))).reason, { _tag: "Released", what: "pool" })
          assert.strictEqual(engine.slabs.size, 2)
          yield* Scope.close(leaseScope, Exit.void)
          assert.strictEqual(engine.slabs.size, 0)
        })
      )
    )
  })

  it.effect("leases a buffer again only when its I/O has completed", () => {
    const engine = new FakeEngine()
    return Effect.scoped(
      engine.provide(
        Effect.gen(function* () {
          const bdev = yield* Bdev.open("fake")
          const pool = yield* DmaBuffer.pool({ lengthBytes: 4096, capacity: 1 })
          const scope = yield* Scope.make()
          const buffer = yield* Scope.provide(pool.take, scope)
          const reading = yield* start(bdev.read(0, buffer))
          yield* untilInFlight(engine, 1)
          const closing = yield* start(Scope.close(scope, Exit.void))
          yield* Effect.yieldNow
          assert.strictEqual(pool.available, 0)
          engine.queue.complete()
          yield* Fiber.join(reading)
          yield* Fiber.join(closing)
          assert.strictEqual(pool.available, 1)
        })
      )
    )
  })

  it.effect("gives back what it has when there is not enough memory for all", () => {
    const engine = new FakeEngine()
    engine.memoryBytes = 3 * 4096
    return engine.provide(
      Effect.gen(function* () {
        const { reason } = yield* Effect.flip(Effect.scoped(DmaBuffer.pool({ lengthBytes: 4096, capacity: 4 })))
        assert.strictEqual(reason._tag, "NoMemory")
        assert.strictEqual(engine.slabs.size, 0)
      })
    )
  })

  it.effect("of a bad capacity is refused", () =>
    Effect.scoped(
      new FakeEngine().provide(
        Effect.forEach([0, -1, 1.5, Number.NaN], (capacity) =>
          Effect.map(Effect.flip(DmaBuffer.pool({ lengthBytes: 4096, capacity })), ({ reason }) =>
            assert.include(reason, { _tag: "InvalidArgument", field: "capacity" })
          )
        )
      )
    )
  )
})
