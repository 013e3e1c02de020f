/**
 * Starts an engine with the options of its second argument (JSON), uses it when it starts, and prints what came of it
 * as one line of JSON.
 */
import * as Bdev from "@effect-spdk/core/Bdev"
import * as Spdk from "@effect-spdk/core/Spdk"
import * as SpdkError from "@effect-spdk/core/SpdkError"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { engineLayer } from "./layers.ts"

const [engine, json = "{}"] = process.argv.slice(2)

const use = Effect.gen(function* () {
  const spdk = yield* Spdk.Spdk
  const bdevs = yield* Bdev.list
  const reactors = yield* spdk.reactors
  return {
    version: spdk.version,
    description: spdk.description,
    rpcSocket: spdk.rpcSocket,
    cores: reactors.map((reactor) => reactor.core),
    bdevs: bdevs.map((bdev) => bdev.name)
  }
})

const outcome = (exit: Exit.Exit<unknown, unknown>): unknown => {
  if (Exit.isSuccess(exit)) return { started: exit.value }
  const error = Cause.squash(exit.cause)
  if (!SpdkError.isSpdkError(error)) return { died: Cause.pretty(exit.cause) }
  return { failed: { ...error.reason, message: error.message } }
}

const exit = await Effect.runPromiseExit(use.pipe(Effect.provide(engineLayer(engine, JSON.parse(json)))))
console.log(`outcome ${JSON.stringify(outcome(exit))}`)
