/** Makes a bdev on a file, says so, and holds it until it is ended. */
import * as Bdev from "@effect-spdk/core/Bdev"
import * as Effect from "effect/Effect"
import { engineLayer } from "./layers.ts"

const [engine, path = ""] = process.argv.slice(2)

const program = Effect.gen(function* () {
  yield* Bdev.createFile({ path })
  yield* Effect.sync(() => console.log("holds the file"))
  // An engine that has nothing to do does not keep the process.
  return yield* Effect.callback<never>(() => {
    const timer = setInterval(() => {}, 1000)
    return Effect.sync(() => clearInterval(timer))
  })
}).pipe(
  Effect.scoped,
  Effect.catch((error) => Effect.sync(() => console.log(`refused: ${error.message}`)))
)

await Effect.runPromise(Effect.provide(program, engineLayer(engine, { logLevel: "error" })))
