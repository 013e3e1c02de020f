import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { faultyBdev } from "./support/faultyBdev.ts"
import { create, init, malloc, mebibyte, open, pattern, run, write } from "./support/portableDisk.ts"
import { sharedFlush } from "../src/internal/sharedFlush.ts"

/** Flushes that end when the test says so. */
const slowFlush = () => {
  const submitted: Array<Deferred.Deferred<void, string>> = []
  const flush = Effect.suspend(() => {
    const ended = Deferred.makeUnsafe<void, string>()
    submitted.push(ended)
    return Deferred.await(ended)
  })
  return { submitted, flush: sharedFlush(flush) }
}

const start = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.forkChild(effect, { startImmediately: true })

const settle = Effect.repeat(Effect.yieldNow, { times: 5 })

describe("a shared flush", () => {
  it.effect("covers whoever asked before it was submitted, and nobody after", () =>
    Effect.gen(function* () {
      const { flush, submitted } = slowFlush()
      const first = yield* start(flush)
      const late = yield* Effect.forEach(Array.from({ length: 10 }), () => start(flush))
      yield* settle
      assert.strictEqual(submitted.length, 1)
      yield* Deferred.succeed(submitted[0] ?? assert.fail(), undefined)
      yield* Fiber.join(first)
      yield* settle
      // The ten came while the first was under way: they need another one, and share it.
      assert.strictEqual(submitted.length, 2)
      assert.isTrue(late.every((fiber) => fiber.pollUnsafe() === undefined))
      const later = yield* start(flush)
      yield* Deferred.succeed(submitted[1] ?? assert.fail(), undefined)
      for (const fiber of late) yield* Fiber.join(fiber)
      yield* settle
      assert.strictEqual(submitted.length, 3)
      assert.isUndefined(later.pollUnsafe())
      yield* Deferred.succeed(submitted[2] ?? assert.fail(), undefined)
      yield* Fiber.join(later)
    })
  )

  it.effect("fails for all who share it, and the next one is another matter", () =>
    Effect.gen(function* () {
      const { flush, submitted } = slowFlush()
      const first = yield* start(flush)
      const sharing = yield* Effect.forEach([1, 2, 3], () => start(Effect.exit(flush)))
      yield* Deferred.succeed(submitted[0] ?? assert.fail(), undefined)
      yield* Fiber.join(first)
      yield* settle
      yield* Deferred.fail(submitted[1] ?? assert.fail(), "lost")
      for (const fiber of sharing) assert.deepStrictEqual(yield* Fiber.join(fiber), Exit.fail("lost"))
      const next = yield* start(flush)
      yield* Deferred.succeed(submitted[2] ?? assert.fail(), undefined)
      yield* Fiber.join(next)
    })
  )

  it.effect("goes on for the others when the first of them is interrupted", () =>
    Effect.gen(function* () {
      const { flush, submitted } = slowFlush()
      yield* start(flush)
      const leader = yield* start(flush)
      const follower = yield* start(flush)
      const interrupting = yield* start(Fiber.interrupt(leader))
      yield* Deferred.succeed(submitted[0] ?? assert.fail(), undefined)
      yield* settle
      assert.strictEqual(submitted.length, 2)
      yield* Deferred.succeed(submitted[1] ?? assert.fail(), undefined)
      yield* Fiber.join(follower)
      yield* Fiber.join(interrupting)
    })
  )
})

describe("the portable driver", () => {
  const blobs = 32

  it.effect("flushes for many blobs at once", () =>
    run(
      Effect.gen(function* () {
        const counted = faultyBdev(yield* malloc(32 * mebibyte), { cache: false })
        let flushes = 0
        const bdev = new Proxy(counted.bdev, {
          get: (target, name) => {
            const value: unknown = Reflect.get(target, name, target)
            if (name !== "flush" || typeof value !== "function") return value
            // Slow enough for others to come meanwhile.
            return () =>
              Effect.andThen(
                Effect.sync(() => void flushes++),
                Effect.andThen(
                  settle,
                  Effect.suspend(() => value.call(target))
                )
              )
          }
        })
        const store = yield* init(bdev)
        const during = Effect.fnUntraced(function* <A, E, R>(work: Effect.Effect<A, E, R>) {
          const before = flushes
          const result = yield* work
          return [result, flushes - before] as const
        })
        const all = { concurrency: "unbounded" } as const
        const numbers = Array.from({ length: blobs }, (_, i) => i)
        const [ids, ofCreates] = yield* during(
          Effect.forEach(numbers, () => create(store, { clusters: 1, extentTable: false }), all)
        )
        assert.strictEqual(new Set(ids).size, blobs)
        assert.isAtMost(ofCreates, blobs / 4)
        const opened = yield* Effect.forEach(ids, (id) => open(store, id), all)
        const [, ofSyncs] = yield* during(
          Effect.forEach(
            opened,
            (blob, i) =>
              Effect.gen(function* () {
                yield* write(blob, 0, pattern(512, i))
                yield* blob.setXattr("number", new Uint8Array([i + 1]))
                yield* blob.sync
              }),
            all
          )
        )
        assert.isAtMost(ofSyncs, blobs / 4)
        for (const [i, blob] of opened.entries()) yield* blob.setXattr("last", new Uint8Array([i + 1]))
        const [, ofCloses] = yield* during(Effect.forEach(opened, (blob) => blob.close, { ...all, discard: true }))
        assert.isAtMost(ofCloses, blobs / 4)
        // One by one nothing is shared, and every one of them flushes.
        const [, alone] = yield* during(
          Effect.forEach(numbers, () => create(store, { clusters: 1, extentTable: false }), { discard: true })
        )
        assert.strictEqual(alone, blobs)
        yield* store.unload
      })
    )
  )
})
