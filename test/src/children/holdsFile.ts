/** Makes a bdev on a file, says so, and holds it until it is ended. */
import * as Bdev from "@effect-spdk/core/Bdev"
import * as Effect from "effect/Effect"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { engineLayer } from "./layers.ts"

const [engine, path = ""] = process.argv.slice(2)

setFlagsFromString("--expose-gc")
const collect = runInNewContext("gc") as () => void

const program = Effect.gen(function* () {
  yield* Bdev.createFile({ path })
  // An engine that has nothing to do does not keep the process. Nothing keeps this fiber: what it holds must not go with it.
  return yield* Effect.callback<never>(() => {
    setInterval(collect, 1000)
    setTimeout(() => {
      for (let i = 0; i < 5; i++) collect()
      setImmediate(() => console.log("holds the file"))
    })
  })
}).pipe(
  Effect.scoped,
  Effect.catch((error) => Effect.sync(() => console.log(`refused: ${error.message}`)))
)

await Effect.runPromise(Effect.provide(program, engineLayer(engine, { logLevel: "error" })))
