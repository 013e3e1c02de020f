/**
 * Between a poller, which never waits, and the consumers of its ticks, which may be slow: runs add up until
 * somebody takes them.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Stream from "effect/Stream"
import type { Released, SpdkError } from "../../SpdkError.ts"

export interface TickBox {
  readonly add: (runs: number) => void
  /** Consumers get what has added up, and then the end. Only the first end counts. */
  readonly end: (error: SpdkError<Released> | undefined) => void
  readonly ticks: Stream.Stream<{ readonly runs: number }, SpdkError<Released>>
}

export const makeTickBox = (): TickBox => {
  const latch = Latch.makeUnsafe(false)
  let runs = 0
  let ended: Effect.Effect<never, SpdkError<Released> | Cause.Done> | undefined
  const take: Effect.Effect<readonly [{ readonly runs: number }], SpdkError<Released> | Cause.Done> = Effect.suspend(
    () => {
      if (runs > 0) {
        const tick = { runs }
        runs = 0
        return Effect.succeed([tick] as const)
      }
      if (ended !== undefined) return ended
      latch.closeUnsafe()
      return Effect.andThen(latch.await, take)
    }
  )
  return {
    add: (more) => {
      runs += more
      latch.openUnsafe()
    },
    end: (error) => {
      ended ??= error === undefined ? Cause.done() : Effect.fail(error)
      latch.openUnsafe()
    },
    ticks: Stream.fromPull(Effect.succeed(take))
  }
}
