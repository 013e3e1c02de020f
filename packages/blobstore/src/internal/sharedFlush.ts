/**
 * One flush of a device for all who wait for one. Whoever asks while none has been submitted that covers what he wrote takes
 * part in the next: never in one that was submitted before he asked.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Semaphore from "effect/Semaphore"

export const sharedFlush = <E>(flush: Effect.Effect<void, E>): Effect.Effect<void, E> => {
  const turn = Semaphore.makeUnsafe(1)
  /** How the flush ends that waits for the one before it; undefined when none waits. */
  let next: Deferred.Deferred<void, E> | undefined
  // For the others, too: it does not end with the fiber that was first, not even before it began.
  return Effect.uninterruptibleMask((restore) => {
    if (next !== undefined) return restore(Deferred.await(next))
    const mine = Deferred.makeUnsafe<void, E>()
    next = mine
    const submit = Effect.suspend(() => {
      next = undefined
      return flush
    })
    return Effect.onExit(turn.withPermit(submit), (exit) => Deferred.done(mine, exit))
  })
}
