/** Work that others ask for faster than it may be done: a controller sends as many notices as it likes. */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { Host } from "../../engine/host.ts"

/** Runs the Effect when it is called, one run at a time. However often it is called meanwhile, that is one run more. */
export const coalesced = (host: () => Host, run: Effect.Effect<void>): (() => void) => {
  let isAsked = false
  let isRunning = false
  const loop = Effect.gen(function* () {
    while (isAsked) {
      isAsked = false
      yield* run
    }
    // In the same step as the look: a fiber may pause between two of its steps, and who asks then must not be told it runs.
    isRunning = false
  })
  const start = () => {
    isRunning = true
    host()
      .fork(loop)
      .addObserver((exit) => {
        if (Exit.isSuccess(exit)) return
        isRunning = false
        if (isAsked) start()
      })
  }
  return () => {
    isAsked = true
    if (!isRunning) start()
  }
}
