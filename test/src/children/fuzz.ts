/**
 * Runs cases of the fuzzer until one of them kills it: `fuzz ENGINE SEED FROM TO`, or `fuzz ENGINE FILE` for the one case in a file. Says
 * what it begins and what it ends, so that who reads it knows what was under way.
 */
import * as Rpc from "@effect-spdk/core/Rpc"
import * as Effect from "effect/Effect"
import { mkdtempSync, readFileSync, rmSync, writeSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { caseOf, type FuzzCase } from "../fuzz/cases.ts"
import { runCase } from "../fuzz/run.ts"
import { engineLayer } from "./layers.ts"

const [engine, seedOrCase = "1", from = "0", to = "0"] = process.argv.slice(2)

/** At once: the next thing that happens may be the end. */
const say = (line: string): void => void writeSync(1, `${line}\n`)

const folder = mkdtempSync(join(tmpdir(), "fuzz-"))
process.on("exit", () => rmSync(folder, { recursive: true, force: true }))

const isOne = seedOrCase.endsWith(".json")

const one = (index: number) =>
  Effect.gen(function* () {
    // What the campaign wrote.
    const fuzzCase = isOne
      ? (JSON.parse(readFileSync(seedOrCase, "utf8")) as FuzzCase)
      : caseOf(Number(seedOrCase), index)
    say(`+${index}`)
    const { findings, stuck } = yield* runCase(fuzzCase, index, folder)
    for (const finding of findings) say(`!${index} ${JSON.stringify(finding)}`)
    if (stuck.length > 0) say(`?${index} ${JSON.stringify(stuck)}`)
    say(`-${index}`)
  })

const indexes = isOne ? [0] : Array.from({ length: Number(to) - Number(from) }, (_, i) => Number(from) + i)

const program = Effect.gen(function* () {
  yield* Effect.forEach(indexes, one, { concurrency: 8, discard: true })
  // The reactor still answers.
  yield* Effect.flatMap(Rpc.RpcClient, (client) =>
    client.call("spdk_get_version", undefined, { timeout: "20 seconds" })
  )
  say("end")
}).pipe(Effect.provide(engineLayer(engine, { logLevel: "disabled" })))

Effect.runPromise(Effect.asVoid(program)).then(
  () => process.exit(0),
  (error: unknown) => {
    say(`!-1 ${JSON.stringify(String(error))}`)
    process.exit(3)
  }
)
