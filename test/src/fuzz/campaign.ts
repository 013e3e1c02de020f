/**
 * Runs a range of cases in child processes. A death, a defect, a silence and something that stays are findings. A batch in which
 * something was wrong is run again one case at a time, each followed by a look at the engine's health: that names the case, which is
 * then shortened for as long as it still does the same.
 */
import { spawn } from "node:child_process"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { caseOf, type FuzzCase, smaller } from "./cases.ts"
import { type Coverage, makeCoverage } from "./coverage.ts"

export interface Campaign {
  readonly engine: "libspdk" | "embedded"
  readonly seed: number
  readonly from: number
  readonly cases: number
  /** Stops early, with fewer cases, and says so in the summary. */
  readonly limitMillis?: number
  readonly onProgress?: (line: string) => void
  readonly onAnswers?: (index: number, answers: ReadonlyArray<string>) => void
}

export interface Finding {
  readonly index: number
  readonly what: string
  /** Shortened; undefined where it took several cases together. */
  readonly fuzzCase: FuzzCase | undefined
}

export interface Summary {
  readonly engine: string
  readonly seed: number
  readonly from: number
  readonly cases: number
  readonly seconds: number
  readonly children: number
  readonly signals: number
  readonly hangs: number
  readonly findings: ReadonlyArray<Finding>
  /** Batches in which something was wrong that none of their cases does alone and with patience: load, most likely. */
  readonly passing: number
  readonly coverage: Coverage
}

interface Run {
  readonly died: string | undefined
  readonly started: number
  /** Cases below it ran in batches after which all was well. */
  readonly good: number
  readonly said: ReadonlyArray<string>
}

// Node 20 runs no TypeScript: from the sources as from what is built, the built program is run.
const program = fileURLToPath(new URL("../../dist/children/fuzz.js", import.meta.url))

/** Nothing may take longer: each call has a limit of its own below this. */
const silenceMillis = 90_000

/** SPDK's memory does not come back whole after some refusals: a child does not live for ever. */
const perChild = 2560
/** What waits is waited for together: most of a call is SPDK's poller of requests, which looks every 4 milliseconds. */
const concurrency = 16
const shortenings = 40

const runChild = (
  args: ReadonlyArray<string>,
  onAnswers: (index: number, answers: ReadonlyArray<string>) => void = () => {}
): Promise<Run> =>
  new Promise((resolve) => {
    const child = spawn(process.execPath, [program, ...args], { stdio: ["ignore", "pipe", "ignore"] })
    const said: Array<string> = []
    let started = -1
    let good = -1
    let rest = ""
    let ended = false
    let isSilent = false
    const silence = setTimeout(() => {
      isSilent = true
      child.kill("SIGKILL")
    }, silenceMillis)
    const take = (line: string): void => {
      const index = Number.parseInt(line.slice(1), 10)
      switch (line[0]) {
        case "+":
          started = Math.max(started, index)
          return
        case "-":
          return onAnswers(index, line.split(" ")[2]?.split(",") ?? [])
        case "#":
          good = index
          return
        case "!":
        case "?":
        case "~":
          return void said.push(line)
        default:
          if (line === "end") ended = true
      }
    }
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      silence.refresh()
      const lines = (rest + text).split("\n")
      rest = lines.pop() ?? ""
      lines.forEach(take)
    })
    child.on("close", (code, signal) => {
      clearTimeout(silence)
      // Who is killed leaves its trace.
      rmSync(`/dev/shm/child_trace.pid${child.pid}`, { force: true })
      const died = isSilent ? "silence" : ended || said.length > 0 ? undefined : `${signal ?? `exit ${code}`}`
      resolve({ died: signal === null || isSilent ? died : signal, started, good, said })
    })
  })

/** What is wrong, for comparing: the same fault names other bdevs each time. */
const faultOf = ({ died, said }: Run): string | undefined => died ?? said[0]?.slice(0, 1)

const runOne = async (engine: string, fuzzCase: FuzzCase, patience: "quick" | "patient"): Promise<Run> => {
  // Some are too long for a command line.
  const file = join(mkdtempSync(join(tmpdir(), "fuzz-case-")), "case.json")
  writeFileSync(file, JSON.stringify(fuzzCase))
  const run = await runChild([engine, file, patience])
  rmSync(dirname(file), { recursive: true, force: true })
  return run
}

const shorten = async (engine: string, start: FuzzCase, fault: string): Promise<FuzzCase> => {
  let best = start
  let tries = 0
  for (let isSmaller = true; isSmaller && tries < shortenings;) {
    isSmaller = false
    for (const next of smaller(best)) {
      if (tries++ >= shortenings) break
      if (faultOf(await runOne(engine, next, "quick")) !== fault) continue
      best = next
      isSmaller = true
      break
    }
  }
  return best
}

const whatOf = (run: Run): string => (run.died === undefined ? run.said.join(" ") : [run.died, ...run.said].join(" "))

/** The same fault names other bdevs each time. */
const kindOf = (what: string): string => what.replaceAll(/\\*"[^"]*\\*"|[0-9]+/g, "").slice(0, 120)

/** Which of the cases that said something do it alone. */
const complainers = async (
  { engine, seed }: Campaign,
  run: Run,
  known: Set<string>
): Promise<ReadonlyArray<Finding>> => {
  const found: Array<Finding> = []
  for (const index of new Set(run.said.map((line) => Number.parseInt(line.slice(1), 10)))) {
    const fuzzCase = caseOf(seed, index)
    const alone = await runOne(engine, fuzzCase, "patient")
    if (faultOf(alone) !== undefined) found.push(await findingOf(engine, index, fuzzCase, alone, known))
  }
  return found
}

const findingOf = async (
  engine: string,
  index: number,
  fuzzCase: FuzzCase,
  alone: Run,
  known: Set<string>
): Promise<Finding> => {
  const what = whatOf(alone)
  const kind = kindOf(what)
  if (known.has(kind)) return { index, what, fuzzCase }
  known.add(kind)
  return { index, what, fuzzCase: await shorten(engine, fuzzCase, faultOf(alone) ?? "") }
}

/** Which cases of a range do it one after the other. */
const culprits = async (
  campaign: Campaign,
  from: number,
  to: number,
  known: Set<string>
): Promise<ReadonlyArray<Finding>> => {
  const { engine, seed } = campaign
  const found: Array<Finding> = []
  for (let next = from; next < to;) {
    const run = await runChild([engine, `${seed}`, `${next}`, `${to}`, "1"])
    if (faultOf(run) === undefined) break
    const index = Math.max(run.started, next)
    next = index + 1
    const fuzzCase = caseOf(seed, index)
    const alone = await runOne(engine, fuzzCase, "patient")
    found.push(
      faultOf(alone) === undefined
        ? { index, what: whatOf(run), fuzzCase: undefined }
        : await findingOf(engine, index, fuzzCase, alone, known)
    )
  }
  return found
}

const isDeath = ({ what }: Finding): boolean => /^(SIG|exit)/.test(what)

export const runCampaign = async (campaign: Campaign): Promise<Summary> => {
  const { cases, engine, from, limitMillis = Infinity, onAnswers, onProgress = () => {}, seed } = campaign
  const findings: Array<Finding> = []
  const known = new Set<string>()
  const coverage = makeCoverage()
  const startedAt = performance.now()
  const seconds = () => (performance.now() - startedAt) / 1000
  const leftMillis = () => limitMillis - seconds() * 1000
  let children = 0
  let passing = 0
  let next = from
  while (next < from + cases && leftMillis() > 0) {
    const to = Math.min(next + perChild, from + cases)
    const run = await runChild(
      [engine, `${seed}`, `${next}`, `${to}`, `${concurrency}`, `${leftMillis()}`],
      (index, answers) => {
        coverage.add(seed, index, answers)
        onAnswers?.(index, answers)
      }
    )
    children++
    const good = Math.max(run.good, next)
    if (faultOf(run) === undefined) {
      next = good
    } else {
      next = Math.max(run.started + 1, good + 1)
      onProgress(`wrong from ${good} to ${next}: ${whatOf(run).slice(0, 600)}`)
      // Where all is well afterwards, it was those that said so.
      const isOver = run.died === undefined && !run.said.some((line) => line.startsWith("~"))
      const found = isOver ? await complainers(campaign, run, known) : await culprits(campaign, good, next, known)
      // A death is one however it comes about; that something was slow may be the machine's load.
      if (found.length === 0 && run.died !== undefined) {
        findings.push({ index: good, what: `${whatOf(run)}, of ${good} to ${next - 1} together`, fuzzCase: undefined })
      }
      if (found.length === 0 && run.died === undefined) passing++
      for (const finding of found) {
        findings.push(finding)
        onProgress(`FOUND ${JSON.stringify(finding)}`)
      }
    }
    const done = next - from
    onProgress(
      `${done} cases, ${findings.length} findings, ${passing} passing, ${Math.round(done / seconds())} a second`
    )
  }
  const signals = findings.filter(isDeath).length
  return {
    engine,
    seed,
    from,
    cases: next - from,
    seconds: Math.round(seconds()),
    children,
    signals,
    hangs: findings.length - signals,
    findings,
    passing,
    coverage: coverage.summary()
  }
}
