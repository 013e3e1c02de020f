/**
 * Makes a blobstore on a file, writes everything to it, prints a record of it, and leaves: cleanly, or by being killed.
 * Arguments: engine, driver, path, `unload` or `wait`.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Effect from "effect/Effect"
import { writeSync } from "node:fs"
import { recordStore, storeOnFile, writeEverything } from "../support/blobImage.ts"
import { engineLayer } from "./layers.ts"

const [engine, driver, path = "", way] = process.argv.slice(2)

const program = Effect.gen(function* () {
  yield* writeEverything
  const record = yield* recordStore
  yield* Effect.sync(() => writeSync(1, `record ${JSON.stringify(record)}\n`))
  if (way === "wait") yield* Effect.never
}).pipe(
  Effect.provide(storeOnFile(path, driver === "libspdk" ? "libspdk" : "portable")),
  Effect.provide(engineLayer(engine))
)

NodeRuntime.runMain(program)
