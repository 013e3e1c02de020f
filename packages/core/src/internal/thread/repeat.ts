/**
 * The loop of `Effect.repeat`, whose delays wait on an SpdkThread's timers.
 */
import * as Clock from "effect/Clock"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Pull from "effect/Pull"
import * as Schedule from "effect/Schedule"
import type { Engine } from "../engine/engine.ts"
import { sleep, type TimerError } from "./timer.ts"

/** Runs `self`, then again after each delay of the schedule; succeeds with the schedule's last output. */
export const drive = Effect.fnUntraced(function* <Input, E, R, Output, Error, Env>(
  engine: Engine,
  operation: string,
  self: Effect.Effect<Input, E, R>,
  schedule: Schedule.Schedule<Output, Input, Error, Env>
): Effect.fn.Return<Output, E | Error | TimerError, R | Env> {
  const step = yield* Schedule.toStep(schedule)
  const describe = makeMetadata()
  const run = (metadata: Schedule.Metadata): Effect.Effect<Input, E, R> =>
    Effect.provideService(self, Schedule.CurrentMetadata, metadata)
  const next = (input: Input): Effect.Effect<Output, E | Error | TimerError, R | Env> =>
    Effect.flatMap(Clock.currentTimeMillis, (now) =>
      Pull.matchEffect(step(now, input), {
        onSuccess: ([output, delay]) =>
          sleep(engine, operation, delay).pipe(
            Effect.andThen(run(describe(now, input, output, delay))),
            Effect.flatMap(next)
          ),
        onFailure: Effect.failCause,
        onDone: Effect.succeed
      })
    )
  return yield* Effect.flatMap(run(Schedule.CurrentMetadata.defaultValue()), next)
})

/** What `Schedule.CurrentMetadata` tells a run of the step before it, as `Effect.repeat` counts. */
const makeMetadata = () => {
  let attempt = 0
  let start: number | undefined
  let previous: number | undefined
  return (now: number, input: unknown, output: unknown, duration: Duration.Duration): Schedule.Metadata => {
    start ??= now
    const elapsedSincePrevious = now - (previous ?? now)
    previous = now
    return { input, output, duration, attempt: ++attempt, start, now, elapsed: now - start, elapsedSincePrevious }
  }
}
