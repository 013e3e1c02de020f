/**
 * SPDK's RPC says what is there, not what happens: a stream of changes is the difference between two looks.
 */
import type * as Effect from "effect/Effect"
import type * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"

export interface PollChangesOptions<A, C, E, R> {
  readonly look: Effect.Effect<ReadonlyArray<A>, E, R>
  readonly keyOf: (one: A) => string
  readonly found: (one: A) => C
  readonly lost: (one: A) => C
  /** Undefined when what is to be told of it is the same as before. */
  readonly changed?: ((before: A, now: A) => C | undefined) | undefined
}

/**
 * Looks by the schedule. The first look finds all that is there; what came and went between two looks is never seen. Losses
 * come before what is found in the same look.
 */
export const pollChanges = <A, C, E, R, X, E2, R2>(
  options: PollChangesOptions<A, C, E, R>,
  schedule: Schedule.Schedule<X, unknown, E2, R2>
): Stream.Stream<C, E | E2, R | R2> =>
  Stream.fromEffectSchedule(options.look, schedule).pipe(
    Stream.mapAccum(
      (): ReadonlyMap<string, A> => new Map(),
      (before, all) => {
        const now = new Map(all.map((one) => [options.keyOf(one), one]))
        return [now, differences(options, before, now)] as const
      }
    )
  )

const differences = <A, C, E, R>(
  options: PollChangesOptions<A, C, E, R>,
  before: ReadonlyMap<string, A>,
  now: ReadonlyMap<string, A>
): ReadonlyArray<C> => {
  const changes: Array<C> = []
  for (const [key, one] of before) if (!now.has(key)) changes.push(options.lost(one))
  for (const [key, one] of now) {
    const old = before.get(key)
    const change = old === undefined ? options.found(one) : options.changed?.(old, one)
    if (change !== undefined) changes.push(change)
  }
  return changes
}
