import * as Poller from "@effect-spdk/core/Poller"
import * as Spdk from "@effect-spdk/core/Spdk"
import * as SpdkThread from "@effect-spdk/core/SpdkThread"
import { assert, describe, it as test, layer } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { TestClock } from "effect/testing"
import { makeTickBox } from "../src/internal/thread/ticks.ts"

const sum = (ticks: ReadonlyArray<Poller.Tick>) => ticks.reduce((runs, tick) => runs + tick.runs, 0)

const recordTime = (times: Array<number>) => Effect.map(Clock.currentTimeMillis, (now) => times.push(now))

const recordMetadata = (seen: Array<Schedule.Metadata>) =>
  Effect.map(Schedule.CurrentMetadata, (metadata) => seen.push({ ...metadata, start: 0, now: 0 }))

layer(Spdk.layerEmbedded())("Poller", (it) => {
  describe("ticks", () => {
    it.effect("come once a period", () =>
      Effect.gen(function* () {
        const fiber = yield* Poller.ticks({ period: "10 millis" }).pipe(
          Stream.take(3),
          Stream.runCollect,
          Effect.forkChild
        )
        for (let period = 0; period < 3; period++) {
          yield* Effect.yieldNow
          yield* TestClock.adjust("10 millis")
        }
        assert.deepStrictEqual(yield* Fiber.join(fiber), [{ runs: 1 }, { runs: 1 }, { runs: 1 }])
      })
    )

    it.effect("unregister the poller when the consumer stops", () =>
      Effect.gen(function* () {
        const { usage } = yield* Spdk.Spdk
        const before = yield* usage
        const fiber = yield* Poller.ticks({ period: "1 second" }).pipe(Stream.runDrain, Effect.forkChild)
        yield* Effect.yieldNow
        assert.strictEqual((yield* usage).pollers, before.pollers + 1)
        yield* Fiber.interrupt(fiber)
        assert.deepStrictEqual(yield* usage, before)
      })
    )

    const refused: ReadonlyArray<readonly [field: string, options: Poller.PollerOptions, rule: RegExp]> = [
      ["period", { period: -1 }, /negative/],
      ["period", { period: Duration.infinity }, /longer than/],
      // As it may come from JavaScript.
      ["period", { period: "soon" as Duration.Input }, /not a duration/],
      ["name", { name: "" }, /empty/],
      ["name", { name: "p".repeat(257) }, /longer than 256 bytes/]
    ]
    it.effect.each(refused)("refuse a %s of %j", ([field, options, rule]) =>
      Effect.gen(function* () {
        const { reason } = yield* Effect.flip(Stream.runDrain(Poller.ticks(options)))
        if (reason._tag !== "InvalidArgument") return assert.fail(reason.message)
        assert.strictEqual(reason.field, field)
        assert.match(reason.rule, rule)
      })
    )
  })

  describe("make", () => {
    it.effect("registers on the current thread", () =>
      Effect.gen(function* () {
        const thread = yield* SpdkThread.spawn({ name: "polled" })
        const before = yield* thread.stats
        yield* Poller.make({ period: "1 second" }).pipe(SpdkThread.on(thread))
        assert.strictEqual((yield* thread.stats).timedPollers, before.timedPollers + 1)
      }).pipe(Effect.scoped)
    )

    it.effect("adds up the runs that nobody has taken", () =>
      Effect.gen(function* () {
        const poller = yield* Poller.make({ period: "10 millis" })
        yield* TestClock.adjust("50 millis")
        const first = yield* poller.ticks.pipe(Stream.take(1), Stream.runCollect)
        assert.isAtLeast(sum(first), 1)
        const { busy, runs } = yield* poller.stats
        assert.isAtLeast(runs, sum(first))
        assert.isAtMost(busy, runs)
      }).pipe(Effect.scoped)
    )

    it.effect("does not run while it is paused", () =>
      Effect.gen(function* () {
        const poller = yield* Poller.make({ period: "10 millis" })
        const next = poller.ticks.pipe(Stream.take(1), Stream.runCollect)
        yield* TestClock.adjust("10 millis")
        yield* next
        yield* poller.pause
        const paused = yield* poller.stats
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(yield* poller.stats, paused)
        yield* poller.resume
        yield* TestClock.adjust("10 millis")
        yield* next
        assert.isAbove((yield* poller.stats).runs, paused.runs)
      }).pipe(Effect.scoped)
    )

    it.effect("ends its ticks with its scope", () =>
      Effect.gen(function* () {
        const poller = yield* Poller.make({ period: "1 second" }).pipe(Effect.scoped)
        assert.deepStrictEqual(yield* Stream.runCollect(poller.ticks), [])
      })
    )

    it.effect("fails its ticks when the thread is released under it", () =>
      Effect.gen(function* () {
        const scope = yield* Scope.make()
        const thread = yield* SpdkThread.spawn({ name: "leaving" }).pipe(Scope.provide(scope))
        const poller = yield* Poller.make({ period: "1 second" }).pipe(SpdkThread.on(thread))
        const fiber = yield* Effect.forkChild(Effect.flip(Stream.runDrain(poller.ticks)))
        yield* Effect.yieldNow
        yield* Scope.close(scope, Exit.void)
        assert.strictEqual((yield* Fiber.join(fiber)).reason._tag, "Released")
      }).pipe(Effect.scoped)
    )

    it.effect("is refused on a released thread", () =>
      Effect.gen(function* () {
        const thread = yield* SpdkThread.spawn({ name: "left" }).pipe(Effect.scoped)
        const { reason } = yield* Poller.make().pipe(SpdkThread.on(thread), Effect.flip)
        assert.strictEqual(reason._tag, "Released")
      }).pipe(Effect.scoped)
    )
  })

  describe("repeat", () => {
    it.effect("runs once, then after each delay, and returns the schedule's output as Effect.repeat does", () =>
      Effect.gen(function* () {
        const schedule = Schedule.exponential("100 millis").pipe(Schedule.upTo({ times: 3 }))
        const [ours, theirs]: [Array<number>, Array<number>] = [[], []]
        const fiber = yield* Effect.forkChild(
          Effect.all([Poller.repeat(recordTime(ours), schedule), Effect.repeat(recordTime(theirs), schedule)], {
            concurrency: 2
          })
        )
        for (let step = 0; step < 20; step++) {
          yield* Effect.yieldNow
          yield* TestClock.adjust("50 millis")
        }
        const [output, expected] = yield* Fiber.join(fiber)
        assert.deepStrictEqual(ours, theirs)
        assert.strictEqual(ours.length, 4)
        assert.deepStrictEqual(output, expected)
      })
    )

    it.effect("tells each run of the step before it, as Effect.repeat does", () =>
      Effect.gen(function* () {
        const schedule = Schedule.recurs(2)
        const [ours, theirs]: [Array<Schedule.Metadata>, Array<Schedule.Metadata>] = [[], []]
        yield* Effect.repeat(recordMetadata(theirs), schedule)
        const fiber = yield* Effect.forkChild(Poller.repeat(recordMetadata(ours), schedule))
        for (let step = 0; step < 10; step++) {
          yield* Effect.yieldNow
          yield* TestClock.adjust(0)
        }
        yield* Fiber.join(fiber)
        assert.strictEqual(ours.length, 3)
        assert.deepStrictEqual(ours, theirs)
      })
    )

    it.effect("fails as the effect fails", () =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(Poller.repeat(Effect.fail("no" as const), Schedule.forever))
        assert.strictEqual(error, "no")
      })
    )

    it.effect("gives its timer back when it is interrupted", () =>
      Effect.gen(function* () {
        const { usage } = yield* Spdk.Spdk
        const before = yield* usage
        let runs = 0
        const fiber = yield* Effect.forkChild(
          Poller.repeat(
            Effect.sync(() => runs++),
            Schedule.spaced("1 hour")
          )
        )
        yield* Effect.yieldNow
        assert.strictEqual(runs, 1)
        assert.strictEqual((yield* usage).requestsInFlight, before.requestsInFlight + 1)
        yield* Fiber.interrupt(fiber)
        assert.deepStrictEqual(yield* usage, before)
      })
    )

    it.effect("fails with Released when its thread goes away", () =>
      Effect.gen(function* () {
        const scope = yield* Scope.make()
        const thread = yield* SpdkThread.spawn({ name: "timers" }).pipe(Scope.provide(scope))
        const fiber = yield* Poller.repeat(Effect.void, Schedule.spaced("1 hour")).pipe(
          SpdkThread.on(thread),
          Effect.flip,
          Effect.forkChild
        )
        yield* Effect.yieldNow
        yield* Scope.close(scope, Exit.void)
        assert.strictEqual((yield* Fiber.join(fiber)).reason._tag, "Released")
      })
    )
  })

  describe("makeRepeat", () => {
    it.effect("pauses, resumes, counts, and hands out the result", () =>
      Effect.gen(function* () {
        let value = 0
        const handle = yield* Poller.makeRepeat(
          Effect.sync(() => ++value),
          Schedule.spaced("1 second").pipe(Schedule.upTo({ times: 3 })),
          { isBusy: (result) => result % 2 === 0 }
        )
        const pass = Effect.andThen(Effect.yieldNow, TestClock.adjust("1 second"))
        yield* pass
        assert.deepStrictEqual(yield* handle.stats, { runs: 2, busy: 1 })
        yield* handle.pause
        yield* Effect.repeat(pass, Schedule.recurs(4))
        assert.deepStrictEqual(yield* handle.stats, { runs: 2, busy: 1 })
        yield* handle.resume
        yield* pass
        yield* pass
        assert.strictEqual(yield* handle.await, 3)
        assert.deepStrictEqual(yield* handle.stats, { runs: 4, busy: 2 })
      }).pipe(Effect.scoped)
    )

    it.effect("ends with its scope", () =>
      Effect.gen(function* () {
        const started = yield* Deferred.make<void>()
        const handle = yield* Poller.makeRepeat(Deferred.succeed(started, undefined), Schedule.spaced("1 second")).pipe(
          Effect.tap(() => Deferred.await(started)),
          Effect.scoped
        )
        const { runs } = yield* handle.stats
        yield* TestClock.adjust("1 minute")
        assert.strictEqual((yield* handle.stats).runs, runs)
        assert.isTrue(Exit.hasInterrupts(yield* Effect.exit(handle.await)))
      })
    )

    it.effect("keeps the error for whoever awaits it", () =>
      Effect.gen(function* () {
        const handle = yield* Poller.makeRepeat(Effect.fail("no" as const), Schedule.forever)
        assert.strictEqual(yield* Effect.flip(handle.await), "no")
        assert.deepStrictEqual(yield* handle.stats, { runs: 1, busy: 1 })
      }).pipe(Effect.scoped)
    )
  })

  describe("the box between poller and consumer", () => {
    it.effect("holds one tick at most and forgets no run", () =>
      Effect.gen(function* () {
        const box = makeTickBox()
        box.add(1)
        box.add(2)
        const taken: Array<Poller.Tick> = []
        const fiber = yield* Effect.forkChild(
          Stream.runForEach(box.ticks, (tick) => Effect.sync(() => taken.push(tick)))
        )
        yield* Effect.yieldNow
        assert.deepStrictEqual(taken, [{ runs: 3 }])
        box.add(4)
        yield* Effect.yieldNow
        box.add(5)
        box.end(undefined)
        yield* Fiber.join(fiber)
        assert.strictEqual(sum(taken), 12)
      })
    )

    it.effect("tells each run to one of two consumers", () =>
      Effect.gen(function* () {
        const box = makeTickBox()
        const fiber = yield* Effect.forkChild(
          Effect.all([Stream.runCollect(box.ticks), Stream.runCollect(box.ticks)], { concurrency: 2 })
        )
        for (let run = 0; run < 10; run++) {
          yield* Effect.yieldNow
          box.add(1)
        }
        box.end(undefined)
        const [one, other] = yield* Fiber.join(fiber)
        assert.strictEqual(sum(one) + sum(other), 10)
      })
    )
  })
})

test.live("a busy poller ticks without a period", () =>
  Effect.gen(function* () {
    const ticks = yield* Poller.ticks().pipe(Stream.take(5), Stream.runCollect)
    assert.strictEqual(ticks.length, 5)
    assert.isAtLeast(sum(ticks), 5)
  }).pipe(Effect.provide(Spdk.layerEmbedded()))
)
