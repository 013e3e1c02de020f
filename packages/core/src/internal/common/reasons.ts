/**
 * Engines fail with any `SpdkError`; public operations name the reasons they fail with. This is the step between.
 */
import * as Effect from "effect/Effect"
import type { ReasonTag, Released, SpdkError, SpdkErrorOf } from "../../SpdkError.ts"

/**
 * Narrows the error to these reasons. Another reason is a broken promise of the engine, and dies with the error.
 */
export const onlyReasons =
  <const Tags extends ReadonlyArray<ReasonTag>>(tags: Tags) =>
  <A, R>(self: Effect.Effect<A, SpdkError, R>): Effect.Effect<A, SpdkErrorOf<Tags[number]>, R> =>
    Effect.catch(self, (error): Effect.Effect<never, SpdkErrorOf<Tags[number]>> =>
      isOneOf(error, tags) ? Effect.fail(error) : Effect.die(error)
    )

const isOneOf = <Tags extends ReadonlyArray<ReasonTag>>(
  error: SpdkError,
  tags: Tags
): error is SpdkErrorOf<Tags[number]> => tags.some((tag) => tag === error.reason._tag)

/** What an engine calls aborted or removed, because the thread or the engine itself goes away, is released to users. */
export const goneIsReleased =
  (released: SpdkError<Released>) =>
  <A, R>(self: Effect.Effect<A, SpdkError, R>): Effect.Effect<A, SpdkError, R> =>
    Effect.mapError(self, (error) =>
      error.reason._tag === "Aborted" || error.reason._tag === "DeviceRemoved" ? released : error
    )
