/**
 * `npm run bench`: every comparison in one run, ours and the peer's in turns, medians of both.
 *
 *   --json FILE      an array of { id, value, unit, peer, peerValue, ratio }
 *   --picture FILE   the same as SVG
 *   --filter TEXT    only ids that contain one of these, separated by commas
 *   --runs N         turns (default 5)
 *   --seconds S      length of one measurement (default 2)
 *
 * The exit status is 1 when a ratio is not what it must be.
 */
import { randomFillSync } from "node:crypto"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { parseArgs } from "node:util"
import * as Bdevperf from "./Bdevperf.ts"
import { type Case, cases, needs, pick, units } from "./Case.ts"
import type { Job } from "./Job.ts"
import { libspdkStatus, measure } from "./measure.ts"
import * as Machine from "./Machine.ts"
import * as NvmfTarget from "./NvmfTarget.ts"
import * as Picture from "./Picture.ts"
import * as Report from "./Report.ts"
import { formatNumber, judge, type Judged, type Row, toJson } from "./Row.ts"
import { median } from "./statistics.ts"

const fileBytes = 64 * 2 ** 20

/** npm runs scripts in the repository and tells here where the command was given. */
const userPath = (path: string): string => resolve(process.env["INIT_CWD"] ?? process.cwd(), path)

const wholeNumber = (name: string, text: string): number => {
  const value = Number(text)
  if (Number.isSafeInteger(value) && value >= 1) return value
  throw new Error(`--${name} must be a whole number of at least 1, not "${text}"`)
}

interface Options {
  readonly json: string | undefined
  readonly picture: string | undefined
  readonly filter: ReadonlyArray<string> | undefined
  readonly runs: number
  readonly seconds: number
}

const readOptions = (): Options => {
  const { values } = parseArgs({
    options: {
      json: { type: "string" },
      picture: { type: "string" },
      filter: { type: "string" },
      runs: { type: "string", default: "5" },
      seconds: { type: "string", default: "2" }
    }
  })
  return {
    json: values.json,
    picture: values.picture,
    filter: values.filter?.split(","),
    runs: wholeNumber("runs", values.runs),
    seconds: wholeNumber("seconds", values.seconds)
  }
}

const prepared = new Set<string>()

/** What several cases share is made for the first. */
const prepareOnce = async (job: Job): Promise<void> => {
  const key = JSON.stringify(job)
  if (prepared.has(key)) return
  await measure(job)
  prepared.add(key)
}

/** Measures subject and peer in turns; who goes first changes every time. */
const compare = async (benchCase: Case, runs: number): Promise<Judged> => {
  const { metric, peer, prepare, subject } = benchCase
  if (prepare !== undefined) await prepareOnce(prepare)
  const ours: Array<number> = []
  const theirs: Array<number> = []
  const once = async (job: Job, into: Array<number>) => into.push(pick(metric, await measure(job)))
  for (let turn = 0; turn < runs; turn++) {
    if (turn % 2 === 0) await once(subject, ours)
    if (peer !== undefined) await once(peer, theirs)
    if (turn % 2 === 1) await once(subject, ours)
  }
  const spread = (turns: ReadonlyArray<number>) => turns.map(formatNumber).join(" ")
  process.stderr.write(`  ${spread(ours)}${theirs.length === 0 ? "" : `, peer ${spread(theirs)}`}\n`)
  const value = median(ours)
  const peerValue = peer === undefined ? null : median(theirs)
  const ratio = peerValue === null ? null : value / peerValue
  const row: Row = {
    id: benchCase.id,
    value,
    unit: units[metric],
    peer: peer === undefined ? null : benchCase.peerName,
    peerValue,
    ratio
  }
  return judge(benchCase, row)
}

/** Why a case cannot be measured on this machine; undefined when it can. */
const missing = (benchCase: Case, libspdk: string | undefined): string | undefined => {
  const needed = new Set([...needs(benchCase.subject), ...needs(benchCase.peer)])
  if (needed.has("libspdk") && libspdk !== undefined) return libspdk
  if (needed.has("nvmf programs") && NvmfTarget.missing() !== undefined) return NvmfTarget.missing()
  if (needed.has("bdevperf") && Bdevperf.program === undefined) return Bdevperf.whereLooked
  return undefined
}

const runAll = async (
  chosen: ReadonlyArray<Case>,
  options: Options
): Promise<{ readonly rows: ReadonlyArray<Judged>; readonly failures: number }> => {
  const status = await libspdkStatus()
  const machine = await Machine.describe(status.description)
  console.log(`${machine.join("\n")}\nmedians of ${options.runs} turns of ${options.seconds} s each\n`)
  const rows: Array<Judged> = []
  const notMeasurable = new Map<string, ReadonlyArray<string>>()
  let failures = 0
  for (const benchCase of chosen) {
    const reason = missing(benchCase, status.missing)
    if (reason !== undefined) {
      notMeasurable.set(reason, [...(notMeasurable.get(reason) ?? []), benchCase.id])
      continue
    }
    process.stderr.write(`${benchCase.id} ...\n`)
    try {
      rows.push(await compare(benchCase, options.runs))
    } catch (error) {
      failures++
      console.error(`${benchCase.id} failed: ${error instanceof Error ? error.message : String(error)}`)
    }
  }
  if (rows.length > 0) console.log(`\n${Report.table(rows)}`)
  for (const [reason, ids] of notMeasurable) console.log(`\nnot measurable: ${ids.join(", ")}\n  ${reason}`)
  if (options.json !== undefined) {
    writeFileSync(userPath(options.json), `${JSON.stringify(rows.map(toJson), undefined, 2)}\n`)
  }
  if (options.picture !== undefined) writeFileSync(userPath(options.picture), Picture.svg(rows, machine))
  return { rows, failures }
}

/** A part that is an id selects that one alone. */
const matches = (id: string, part: string, all: ReadonlyArray<Case>): boolean =>
  all.some((other) => other.id === part) ? id === part : id.includes(part)

const choose = (all: ReadonlyArray<Case>, filter: Options["filter"]): ReadonlyArray<Case> => {
  const chosen = filter === undefined ? all : all.filter(({ id }) => filter.some((part) => matches(id, part, all)))
  if (chosen.length === 0) throw new Error(`no id matches; there are ${all.map(({ id }) => id).join(", ")}`)
  return chosen
}

/** Resolves with the exit status. */
const main = async (): Promise<number> => {
  const options = readOptions()
  const folder = mkdtempSync(join(tmpdir(), "effect-spdk-bench-"))
  try {
    const file = { type: "file", path: join(folder, "bench.img"), sizeBytes: fileBytes } as const
    const chosen = choose(cases(options.seconds, file), options.filter)
    writeFileSync(file.path, randomFillSync(new Uint8Array(fileBytes)))
    const { failures, rows } = await runAll(chosen, options)
    const failed = rows.filter((row) => row.passed === false).map((row) => row.id)
    if (failed.length > 0) console.log(`\nnot as required: ${failed.join(", ")}`)
    return failures > 0 || failed.length > 0 ? 1 : 0
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

try {
  process.exitCode = await main()
} catch (error) {
  console.error(error instanceof Error ? error.message : error)
  process.exitCode = 1
}
