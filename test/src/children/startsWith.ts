/** Starts the engine with a configuration from a file, and prints as one line of JSON what it made, or why it did not start. */
import * as Rpc from "@effect-spdk/core/Rpc"
import { isSpdkError } from "@effect-spdk/core/SpdkError"
import * as Effect from "effect/Effect"
import { made } from "../support/savedConfig.ts"
import { engineLayer } from "./layers.ts"

const [engine, config] = process.argv.slice(2)

const said = await Effect.flatMap(Rpc.RpcClient, made).pipe(
  Effect.provide(engineLayer(engine, { config, logLevel: "error" })),
  Effect.map((has) => ({ made: has })),
  Effect.catch((error) => Effect.succeed({ refused: isSpdkError(error) ? error.message : String(error) })),
  Effect.runPromise
)
console.log(JSON.stringify(said))
