/** Work that others ask for faster than it may be done: a controller sends as many notices as it likes. */
import * as Effect from "effect/Effect"

/** Runs the Effect when it is called, one run at a time. However often it is called meanwhile, that is one run more. */
export const coalesced = (run: Effect.Effect<void>): (() => void) => {
  let isAsked = false
  let isRunning = false
  const loop = Effect.ensuring(
    Effect.gen(function* () {
      while (isAsked) {
        isAsked = false
        yield* run
      }
    }),
    Effect.sync(() => {
      isRunning = false
    })
  )
  return () => {
    isAsked = true
    if (isRunning) return
    isRunning = true
    Effect.runFork(loop)
  }
}
