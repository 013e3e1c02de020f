/**
 * The time limit of every release: a device that never answers must not hang a scope silently.
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Outside from "../engine/outside.ts"
import { SpdkError, TimedOut } from "../../SpdkError.ts"

/** How long the release of a handle or of memory may wait for its device. */
export const ReleaseTimeout: Context.Reference<Duration.Input> = Context.Reference<Duration.Input>(
  "@effect-spdk/core/ReleaseTimeout",
  { defaultValue: () => "30 seconds" }
)

/**
 * Runs `release` and waits for it up to the limit, then dies with `TimedOut`. What runs on after that is `release`
 * itself, in a fiber of its own: whatever it holds is given back when the device lets go of it, and not before.
 */
export const withinLimit = (
  operation: string,
  resource: string | undefined,
  release: Effect.Effect<void>
): Effect.Effect<void> =>
  Effect.flatMap(Effect.forkDetach(release, { startImmediately: true, uninterruptible: true }), (fiber) => {
    const exit = fiber.pollUnsafe()
    return exit !== undefined
      ? exit
      : Effect.flatMap(ReleaseTimeout, (limit) => awaitFiber(fiber, limit, operation, resource))
  })

/**
 * As `withinLimit`, for what is given back by RPC. A server that cannot be reached any more is no reason to die: what it had goes
 * with it. Where only the way to it is lost, it keeps what it had, and the log says what that is.
 */
export const withinLimitByRpc = (
  operation: string,
  resource: string | undefined,
  release: Effect.Effect<void>
): Effect.Effect<void> =>
  withinLimit(
    operation,
    resource,
    Effect.catchDefect(release, (defect) =>
      defect instanceof SpdkError && defect.reason._tag === "RpcUnreachable"
        ? Effect.logWarning(`${operation} on ${resource ?? "it"} is not done: ${defect.message}`)
        : Effect.die(defect)
    )
  )

const awaitFiber = (
  fiber: Fiber.Fiber<void>,
  limit: Duration.Input,
  operation: string,
  resource: string | undefined
): Effect.Effect<void> =>
  Effect.flatMap(Outside.timeoutOption(Fiber.await(fiber), limit), (exit) =>
    Option.isSome(exit)
      ? exit.value
      : Effect.die(
          new SpdkError({ reason: new TimedOut({ operation, resource, limitMillis: Duration.toMillis(limit) }) })
        )
  )
