/**
 * Repeated work on a thread. `ticks` and `make` register an SPDK poller on the current SpdkThread and make a Stream of
 * its runs. `repeat` and `makeRepeat` run an Effect by a Schedule on that thread's timers.
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as Stream from "effect/Stream"
 * import * as Poller from "@effect-spdk/core/Poller"
 *
 * const watch = Poller.ticks({ period: "10 millis" }).pipe(
 *   Stream.take(5),
 *   Stream.runForEach((tick) => Effect.log(`${tick.runs} runs`))
 * )
 * ```
 *
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { dual } from "effect/Function"
import * as Latch from "effect/Latch"
import * as Option from "effect/Option"
import type * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { EngineService } from "./internal/engine/service.ts"
import { checkName } from "./internal/common/names.ts"
import { goneIsReleased, onlyReasons } from "./internal/common/reasons.ts"
import { drive } from "./internal/thread/repeat.ts"
import { currentEngineThread, releasedThread, watchRelease } from "./internal/thread/thread.ts"
import { makeTickBox } from "./internal/thread/ticks.ts"
import { failInvalid, type InvalidArgument, type SpdkError, type SpdkErrorOf } from "./SpdkError.ts"

/**
 * One or more runs of a poller. Runs that the consumer has not taken yet add up in one tick. A slow consumer is at most
 * one tick behind and still receives the count of every run.
 *
 * @since 0.1.0
 * @category models
 */
export interface Tick {
  readonly runs: number
}

/**
 * The number of runs, and the number of runs that did work.
 *
 * @since 0.1.0
 * @category models
 */
export interface PollerStats {
  readonly runs: number
  readonly busy: number
}

/** @since 0.1.0 @category models */
export interface PollerOptions {
  /**
   * The time between runs, rounded up to microseconds. Default zero: a busy poller, which runs at every iteration of
   * the reactor and keeps the reactor from sleeping.
   */
  readonly period?: Duration.Input | undefined
  /** The name in statistics, 1 to 256 bytes. */
  readonly name?: string | undefined
}

/** @since 0.1.0 @category models */
export interface Poller {
  readonly name: string
  /**
   * The runs of the poller, for one consumer: each run is reported once. Ends with the poller's scope. Fails with
   * `Released` when the thread is released first.
   */
  readonly ticks: Stream.Stream<Tick, SpdkErrorOf<"Released">>
  /** Starts no new run until `resume` (`spdk_poller_pause`). */
  readonly pause: Effect.Effect<void>
  readonly resume: Effect.Effect<void>
  /** `busy` counts the runs that delivered a tick. */
  readonly stats: Effect.Effect<PollerStats>
}

/** The reasons for which a poller is not registered. @since 0.1.0 @category errors */
export type PollerError = SpdkErrorOf<"InvalidArgument" | "NoMemory" | "NotSupported" | "Released">

/**
 * Registers a poller on the fiber's current SpdkThread. The end of the scope unregisters it.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make: (options?: PollerOptions) => Effect.Effect<Poller, PollerError, EngineService | Scope.Scope> =
  Effect.fn("Poller.make")(function* (options: PollerOptions = {}) {
    const operation = "Poller.make"
    const engine = yield* EngineService
    const name = yield* checkName(operation, options.name ?? "effect-spdk-poller")
    const periodMicros = yield* checkPeriod(operation, options.period ?? Duration.zero)
    const thread = yield* currentEngineThread(engine, operation)
    const box = makeTickBox()
    yield* Effect.addFinalizer(() => Effect.sync(() => box.end(undefined)))
    yield* watchRelease(() => box.end(releasedThread(operation, thread)))
    const { pause, resume, stats } = yield* engine
      .registerPoller(thread, { name, periodMicros, onTick: box.add })
      .pipe(
        goneIsReleased(releasedThread(operation, thread)),
        onlyReasons(["InvalidArgument", "NoMemory", "NotSupported", "Released"])
      )
    return { name, ticks: box.ticks, pause, resume, stats }
  })

/**
 * The runs of a poller that is registered while the Stream is consumed.
 *
 * @since 0.1.0
 * @category constructors
 */
export const ticks = (options?: PollerOptions): Stream.Stream<Tick, PollerError, EngineService> =>
  Stream.unwrap(Effect.map(make(options), (poller) => poller.ticks))

/** The reasons for which the timers of a thread are not usable. @since 0.1.0 @category errors */
export type TimerError = SpdkErrorOf<"NoMemory" | "NotSupported" | "Released">

/**
 * `Effect.repeat` on the timers of the fiber's current SpdkThread. Runs the effect, then again after each delay of the
 * schedule, and returns the schedule's last output. Fails as soon as the effect or the schedule fails, and with
 * `Released` when the thread is released. Interruption aborts the timer.
 *
 * @since 0.1.0
 * @category combinators
 */
export const repeat: {
  <Output, Input, Error, Env>(
    schedule: Schedule.Schedule<Output, NoInfer<Input>, Error, Env>
  ): <E, R>(self: Effect.Effect<Input, E, R>) => Effect.Effect<Output, E | Error | TimerError, R | Env | EngineService>
  <Input, E, R, Output, Error, Env>(
    self: Effect.Effect<Input, E, R>,
    schedule: Schedule.Schedule<Output, NoInfer<Input>, Error, Env>
  ): Effect.Effect<Output, E | Error | TimerError, R | Env | EngineService>
} = dual(
  2,
  <Input, E, R, Output, Error, Env>(
    self: Effect.Effect<Input, E, R>,
    schedule: Schedule.Schedule<Output, Input, Error, Env>
  ): Effect.Effect<Output, E | Error | TimerError, R | Env | EngineService> =>
    Effect.flatMap(EngineService, (engine) => drive(engine, "Poller.repeat", self, schedule))
)

/** @since 0.1.0 @category models */
export interface Repeat<out A, out E = never> {
  /** Starts no new run until `resume`. A run in progress finishes. A delay continues while paused. */
  readonly pause: Effect.Effect<void>
  readonly resume: Effect.Effect<void>
  readonly stats: Effect.Effect<PollerStats>
  /** Waits for the result that `repeat` would return. */
  readonly await: Effect.Effect<A, E>
}

/**
 * Runs `repeat` in the background and returns a handle. The end of the scope ends it.
 *
 * `isBusy` decides which results count as work in the statistics. Without `isBusy` every run counts. A failed run
 * counts too; its error is the error of `await`.
 *
 * @since 0.1.0
 * @category constructors
 */
export const makeRepeat: <Input, E, R, Output, Error, Env>(
  self: Effect.Effect<Input, E, R>,
  schedule: Schedule.Schedule<Output, NoInfer<Input>, Error, Env>,
  options?: { readonly isBusy?: ((result: NoInfer<Input>) => boolean) | undefined }
) => Effect.Effect<Repeat<Output, E | Error | TimerError>, never, R | Env | EngineService | Scope.Scope> =
  Effect.fnUntraced(function* (self, schedule, options) {
    const engine = yield* EngineService
    const gate = yield* Latch.make(true)
    let runs = 0
    let busy = 0
    const isBusy = options?.isBusy ?? (() => true)
    const counted = Effect.onExit(self, (exit) =>
      Effect.sync(() => {
        runs++
        if (exit._tag === "Failure" || isBusy(exit.value)) busy++
      })
    )
    const fiber = yield* Effect.forkScoped(drive(engine, "Poller.makeRepeat", gate.whenOpen(counted), schedule))
    return {
      pause: gate.close,
      resume: gate.open,
      stats: Effect.sync(() => ({ runs, busy })),
      await: Fiber.join(fiber)
    }
  })

const checkPeriod = (operation: string, input: Duration.Input): Effect.Effect<number, SpdkError<InvalidArgument>> => {
  const refuse = (rule: string) => failInvalid(operation, "period", rule, `${input}`)
  const period = Duration.fromInput(input)
  if (Option.isNone(period)) return refuse("is not a duration")
  const micros = Math.ceil(Duration.toMicros(period.value))
  if (micros < 0) return refuse("is negative")
  if (!Number.isSafeInteger(micros)) return refuse("is longer than a poller's period can be")
  return Effect.succeed(micros)
}
