import * as Effect from "effect/Effect"
import { turn } from "./embeddedEngine.ts"

/** Runs it, and gives what was thrown meanwhile and nobody caught. */
export const uncaughtDuring = <A, E, R>(
  effect: Effect.Effect<A, E, R>
): Effect.Effect<{ readonly value: A; readonly uncaught: ReadonlyArray<unknown> }, E, R> =>
  Effect.acquireUseRelease(
    Effect.sync(() => {
      const listeners = process.listeners("uncaughtException")
      const uncaught: Array<unknown> = []
      process.removeAllListeners("uncaughtException")
      process.on("uncaughtException", (error) => void uncaught.push(error))
      return { listeners, uncaught }
    }),
    ({ uncaught }) =>
      Effect.gen(function* () {
        const value = yield* effect
        yield* turn
        return { value, uncaught }
      }),
    ({ listeners }) =>
      Effect.sync(() => {
        process.removeAllListeners("uncaughtException")
        for (const listener of listeners) process.on("uncaughtException", listener)
      })
  )
