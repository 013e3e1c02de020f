/** Pollers: every run is told once, runs that nobody took add up, and nothing runs after its scope. */
import * as Poller from "@effect-spdk/core/Poller"
import * as Spdk from "@effect-spdk/core/Spdk"
import * as SpdkThread from "@effect-spdk/core/SpdkThread"
import { assert, describe, it as plain } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import type { Capabilities, EngineLayer } from "../support/engines.ts"
import {
  contract,
  expectInterrupted,
  failsWith,
  fresh,
  leavesNothing,
  turn,
  until,
  within
} from "../support/harness.ts"

const usage = Effect.flatMap(Effect.service(Spdk.Spdk), (spdk) => spdk.usage)

const spawn = Effect.suspend(() => SpdkThread.spawn({ name: fresh("pollers") }))

export const suite = (name: string, layer: EngineLayer, capabilities: Capabilities): void => {
  onRealTime(name, layer)
  if (capabilities.virtualTime) onTestClock(`${name}, on a TestClock`, layer)
}

const onRealTime = (name: string, layer: EngineLayer): void =>
  contract(name, layer, (check) => {
    check("a busy poller ticks without a period", () =>
      Effect.gen(function* () {
        const ticks = yield* within("50 ticks", Poller.ticks().pipe(Stream.take(50), Stream.runCollect))
        assert.strictEqual(ticks.length, 50)
        for (const tick of ticks) assert.isAtLeast(tick.runs, 1)
      })
    )

    check("a timed poller ticks, at most once per period", () =>
      Effect.gen(function* () {
        const started = performance.now()
        const ticks = yield* within(
          "10 ticks",
          Poller.ticks({ period: "5 millis" }).pipe(Stream.take(10), Stream.runCollect)
        )
        const runs = ticks.reduce((sum, tick) => sum + tick.runs, 0)
        // It never runs ahead of its time; a busy machine may make it run late.
        assert.isAtMost(runs, Math.floor((performance.now() - started) / 5) + 1)
        assert.isAtLeast(runs, 10)
      })
    )

    check("runs that nobody takes add up in one tick, and each run is told once", () =>
      Effect.gen(function* () {
        const poller = yield* Poller.make({ period: "1 millis" })
        yield* until(
          "30 runs",
          Effect.map(poller.stats, (stats) => stats.runs >= 30)
        )
        const due = (yield* poller.stats).runs
        let ticks = 0
        let told = 0
        yield* within(
          "the runs that are due",
          Stream.runForEachWhile(poller.ticks, (tick) =>
            Effect.sync(() => {
              ticks++
              told += tick.runs
              return told < due
            })
          )
        )
        const { busy, runs } = yield* poller.stats
        assert.isAtMost(told, runs, "no run is told twice")
        assert.isBelow(ticks, due / 2, "the runs of the pause came together")
        assert.isAtMost(busy, runs)
        assert.isAtLeast(busy, 1)
      })
    )

    check("a paused poller does not run, a resumed one does", () =>
      Effect.gen(function* () {
        const poller = yield* Poller.make({ period: "1 millis" })
        yield* until(
          "it runs",
          Effect.map(poller.stats, (stats) => stats.runs > 0)
        )
        for (let round = 0; round < 5; round++) {
          yield* poller.pause
          yield* poller.pause
          const paused = yield* poller.stats
          for (let wait = 0; wait < 50; wait++) yield* turn
          assert.strictEqual((yield* poller.stats).runs, paused.runs)
          yield* poller.resume
          yield* poller.resume
          yield* until(
            "it runs again",
            Effect.map(poller.stats, (stats) => stats.runs > paused.runs)
          )
        }
      })
    )

    check("is registered while its scope is open, on the thread that the fiber is on", () =>
      Effect.gen(function* () {
        const thread = yield* spawn
        const count = Effect.map(thread.stats, (stats) => stats.timedPollers + stats.pausedPollers)
        const before = yield* count
        const pollersBefore = (yield* usage).pollers
        yield* Effect.scoped(
          Effect.gen(function* () {
            const poller = yield* Poller.make({ period: "1 millis" }).pipe(SpdkThread.on(thread))
            assert.strictEqual(yield* count, before + 1)
            assert.strictEqual((yield* usage).pollers, pollersBefore + 1)
            yield* within("a tick", Stream.runHead(poller.ticks))
          })
        )
        assert.strictEqual(yield* count, before)
        assert.strictEqual((yield* usage).pollers, pollersBefore)
      })
    )

    check("its stream ends with its scope, and fails with Released when its thread goes first", () =>
      Effect.gen(function* () {
        const scope = yield* Scope.make()
        const poller = yield* Poller.make({ period: "1 millis" }).pipe(Scope.provide(scope))
        const taking = yield* Effect.forkChild(Stream.runDrain(poller.ticks), { startImmediately: true })
        yield* Scope.close(scope, Exit.void)
        yield* within("the end", Fiber.join(taking))

        const threadScope = yield* Scope.make()
        const thread = yield* spawn.pipe(Scope.provide(threadScope))
        const other = yield* Poller.make({ period: "1 millis" }).pipe(SpdkThread.on(thread))
        const drained = yield* Effect.forkChild(Stream.runDrain(other.ticks), { startImmediately: true })
        yield* within("the close", Scope.close(threadScope, Exit.void))
        yield* failsWith(within("the end", Fiber.join(drained)), "Released", { what: "thread" })
        yield* failsWith(Poller.make().pipe(SpdkThread.on(thread)), "Released", { what: "thread" })
      })
    )

    check("an interrupted consumer unregisters the poller", () =>
      Effect.gen(function* () {
        const before = yield* usage
        for (let round = 0; round < 30; round++) {
          const taking = yield* Effect.forkChild(Stream.runDrain(Poller.ticks({ period: "1 millis" })), {
            startImmediately: true
          })
          for (let wait = 0; wait < round % 7; wait++) yield* turn
          yield* within("the interruption", Fiber.interrupt(taking))
          expectInterrupted(yield* Fiber.await(taking))
          assert.deepStrictEqual(yield* usage, before)
        }
      })
    )

    check("200 pollers on four threads tick side by side", () =>
      Effect.gen(function* () {
        const threads = yield* Effect.forEach(Array.from({ length: 4 }), () => spawn)
        yield* within(
          "their ticks",
          Effect.forEach(
            Array.from({ length: 200 }),
            (_, index) => {
              const thread = threads[index % 4]
              assert.isDefined(thread)
              return Poller.ticks({ period: `${1 + (index % 3)} millis`, name: `poller${index}` }).pipe(
                Stream.take(5),
                Stream.runDrain,
                SpdkThread.on(thread)
              )
            },
            { concurrency: "unbounded", discard: true }
          )
        )
      })
    )

    check("a poller that nobody listens to does not pile up", () =>
      Effect.gen(function* () {
        const poller = yield* Poller.make()
        yield* until(
          "many runs",
          Effect.map(poller.stats, (stats) => stats.runs > 1000)
        )
        const tick = yield* within("a tick", Stream.runHead(poller.ticks))
        assert.isAbove(Option.isSome(tick) ? tick.value.runs : 0, 0)
      })
    )

    check("names field and rule of bad periods and names", () =>
      Effect.gen(function* () {
        // A text that is no duration is refused by the types; programs without types exist.
        const notADuration = "soon" as `${number} millis`
        for (const period of [-1, notADuration, Infinity]) {
          yield* failsWith(Poller.make({ period }), "InvalidArgument", { field: "period" })
        }
        for (const bad of ["", "x".repeat(257)]) {
          yield* failsWith(Poller.make({ name: bad }), "InvalidArgument", { field: "name" })
        }
      })
    )

    check("repeats by a schedule on the thread's timers", () =>
      Effect.gen(function* () {
        const thread = yield* spawn
        let runs = 0
        const count = Effect.sync(() => ++runs)
        const output = yield* within(
          "the repetition",
          Poller.repeat(count, Schedule.spaced("1 millis").pipe(Schedule.upTo({ times: 4 }))).pipe(
            SpdkThread.on(thread)
          )
        )
        assert.strictEqual(runs, 5)
        assert.isNumber(output)
        assert.strictEqual(yield* Effect.flip(Poller.repeat(Effect.fail("stop" as const), Schedule.forever)), "stop")
      })
    )

    check("an interrupted repetition leaves no timer", () =>
      leavesNothing(
        Effect.gen(function* () {
          let runs = 0
          const fiber = yield* Effect.forkChild(
            Poller.repeat(
              Effect.sync(() => ++runs),
              Schedule.spaced("1 hour")
            ),
            { startImmediately: true }
          )
          yield* until(
            "the first run",
            Effect.sync(() => runs === 1)
          )
          yield* within("the interruption", Fiber.interrupt(fiber))
          expectInterrupted(yield* Fiber.await(fiber))
        })
      )
    )

    check("a repetition in the background pauses, resumes, counts, and ends with its scope", () =>
      Effect.gen(function* () {
        let runs = 0
        yield* Effect.scoped(
          Effect.gen(function* () {
            const repeat = yield* Poller.makeRepeat(
              Effect.sync(() => ++runs),
              Schedule.spaced("1 millis"),
              {
                isBusy: (run) => run % 2 === 0
              }
            )
            yield* until(
              "10 runs",
              Effect.sync(() => runs >= 10)
            )
            yield* repeat.pause
            for (let wait = 0; wait < 5; wait++) yield* turn
            const paused = runs
            for (let wait = 0; wait < 50; wait++) yield* turn
            assert.strictEqual(runs, paused)
            const stats = yield* repeat.stats
            assert.strictEqual(stats.runs, runs)
            assert.strictEqual(stats.busy, Math.floor(runs / 2))
            yield* repeat.resume
            yield* until(
              "it goes on",
              Effect.sync(() => runs > paused)
            )
          })
        )
        const after = runs
        for (let wait = 0; wait < 50; wait++) yield* turn
        assert.strictEqual(runs, after)
      })
    )
  })

/** With time in the test's hands the number of runs is exact. */
const onTestClock = (name: string, layer: EngineLayer): void => {
  describe(name, () => {
    const check = (title: string, test: () => Effect.Effect<void, unknown, Spdk.Services | Scope.Scope>) =>
      plain.effect(title, () => leavesNothing(Effect.suspend(test)).pipe(Effect.provide(layer)))

    check("a timed poller runs exactly once per period", () =>
      Effect.gen(function* () {
        const poller = yield* Poller.make({ period: "10 seconds" })
        yield* TestClock.adjust("9 seconds")
        assert.strictEqual((yield* poller.stats).runs, 0)
        yield* TestClock.adjust("1 second")
        assert.strictEqual((yield* poller.stats).runs, 1)
        for (let minute = 0; minute < 10; minute++) yield* TestClock.adjust("60 seconds")
        assert.strictEqual((yield* poller.stats).runs, 61)
        const tick = yield* Stream.runHead(poller.ticks)
        assert.deepStrictEqual(tick, Option.some({ runs: 61 }))
        yield* poller.pause
        yield* TestClock.adjust("60 seconds")
        assert.strictEqual((yield* poller.stats).runs, 61)
        yield* poller.resume
        yield* TestClock.adjust("10 seconds")
        assert.strictEqual((yield* poller.stats).runs, 62)
      })
    )

    check("a schedule's delays pass on the thread's timers", () =>
      Effect.gen(function* () {
        let runs = 0
        yield* Effect.forkScoped(
          Poller.repeat(
            Effect.sync(() => ++runs),
            Schedule.exponential("1 second", 2)
          ),
          { startImmediately: true }
        )
        yield* TestClock.adjust("999 millis")
        assert.strictEqual(runs, 1)
        yield* TestClock.adjust("1 millis")
        assert.strictEqual(runs, 2)
        yield* TestClock.adjust("2 seconds")
        assert.strictEqual(runs, 3)
        yield* TestClock.adjust("3999 millis")
        assert.strictEqual(runs, 3)
        yield* TestClock.adjust("1 millis")
        assert.strictEqual(runs, 4)
      })
    )
  })
}
