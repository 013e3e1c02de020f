/**
 * Runs cases of the fuzzer until one of them kills it: `fuzz ENGINE SEED FROM TO CONCURRENCY LIMIT_MILLIS`, or `fuzz ENGINE FILE quick|patient` for
 * the one case in a file. Says what it begins and what it ends, so that who reads it knows what was under way. Stops after the batch in
 * which something was wrong. With a concurrency of 1 a batch is one case, and the patience is greater.
 */
import * as Effect from "effect/Effect"
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { batchCases, caseOf, type FuzzCase } from "../fuzz/cases.ts"
import { checkHealth, patient, quick, runCase } from "../fuzz/run.ts"
import { engineLayer } from "./layers.ts"

const [engine, seedOrCase = "1", from = "0", to = "0", atOnce = "1", limitMillis = "Infinity"] = process.argv.slice(2)

/** At once: the next thing that happens may be the end. */
const say = (line: string): void => void writeSync(1, `${line}\n`)

const isOne = seedOrCase.endsWith(".json")
// What the campaign wrote.
const only = isOne ? (JSON.parse(readFileSync(seedOrCase, "utf8")) as FuzzCase) : undefined

const folder = mkdtempSync(join(tmpdir(), "fuzz-"))
process.on("exit", () => rmSync(folder, { recursive: true, force: true }))
// Paths of cases are relative too, and "../x" stays inside.
const cwd = join(folder, "in", "cwd")
mkdirSync(cwd, { recursive: true })
process.chdir(cwd)
const files = join(folder, "files")
mkdirSync(files)

const concurrency = isOne ? 1 : Number(atOnce)
const patience = (isOne ? from === "quick" : concurrency > 1) ? quick : patient

/** Where the batch of this case ends. */
const batchEnd = (index: number): number =>
  concurrency === 1 ? index + 1 : (Math.floor(index / batchCases) + 1) * batchCases

const one = (index: number) =>
  Effect.gen(function* () {
    say(`+${index}`)
    const fuzzCase = only ?? caseOf(Number(seedOrCase), index)
    const startedAt = performance.now()
    const { answers, findings, stuck } = yield* runCase(fuzzCase, index, files, patience)
    for (const finding of findings) say(`!${index} ${JSON.stringify(finding)}`)
    if (stuck.length > 0) say(`?${index} ${JSON.stringify(stuck)}`)
    say(`-${index} ${Math.round(performance.now() - startedAt)} ${answers.join(",")}`)
    return findings.length === 0 && stuck.length === 0
  })

const program = Effect.gen(function* () {
  const last = isOne ? 1 : Number(to)
  for (let next = isOne ? 0 : Number(from); next < last; next = batchEnd(next)) {
    const indexes = Array.from({ length: Math.min(batchEnd(next), last) - next }, (_, i) => next + i)
    const good = yield* Effect.forEach(indexes, one, { concurrency })
    const wrong = yield* checkHealth(files, patience)
    for (const text of wrong) say(`~${next} ${JSON.stringify(text)}`)
    if (wrong.length > 0 || good.includes(false)) return
    say(`#${next + indexes.length}`)
    if (performance.now() > Number(limitMillis)) break
  }
  say("end")
}).pipe(Effect.provide(engineLayer(engine, { logLevel: "disabled" })))

Effect.runPromise(Effect.asVoid(program)).then(
  () => process.exit(0),
  (error: unknown) => {
    say(`!-1 ${JSON.stringify(String(error))}`)
    process.exit(3)
  }
)
