/**
 * Runs a range of cases in child processes. A death, a defect and a silence are findings: the case is found among those that
 * were under way, and shortened for as long as it still does the same.
 */
import { spawn } from "node:child_process"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { caseOf, type FuzzCase, smaller } from "./cases.ts"

export interface Campaign {
  readonly engine: "libspdk" | "embedded"
  readonly seed: number
  readonly from: number
  readonly cases: number
  readonly onProgress?: (line: string) => void
}

export interface Finding {
  readonly index: number
  readonly what: string
  /** Shortened; undefined where it took several cases together. */
  readonly fuzzCase: FuzzCase | undefined
}

export interface Summary {
  readonly cases: number
  readonly children: number
  readonly findings: ReadonlyArray<Finding>
  /** Cases after which SPDK kept something: only unchecked methods do that. */
  readonly stuck: ReadonlyArray<string>
}

interface Run {
  readonly died: string | undefined
  readonly unfinished: ReadonlyArray<number>
  readonly started: number
  readonly done: number
  readonly said: ReadonlyArray<readonly [index: number, text: string]>
  readonly stuck: ReadonlyArray<string>
}

// Node 20 runs no TypeScript: from the sources as from what is built, the built program is run.
const program = fileURLToPath(new URL("../../dist/children/fuzz.js", import.meta.url))

/** Nothing may take longer: each call has a limit of its own below this. */
const silenceMillis = 90_000

const perChild = 1000
const shortenings = 40

const runChild = (args: ReadonlyArray<string>): Promise<Run> =>
  new Promise((resolve) => {
    const child = spawn(process.execPath, [program, ...args], { stdio: ["ignore", "pipe", "ignore"] })
    const underWay = new Set<number>()
    const said: Array<readonly [number, string]> = []
    const stuck: Array<string> = []
    let started = -1
    let done = 0
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
          underWay.add(index)
          started = Math.max(started, index)
          return
        case "-":
          done++
          underWay.delete(index)
          return
        case "!":
          return void said.push([index, line])
        case "?":
          return void stuck.push(line)
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
      const died = isSilent ? "silence" : ended ? undefined : `${signal ?? `exit ${code}`}`
      resolve({ died, unfinished: [...underWay], started, done, said, stuck })
    })
  })

const runOne = async (engine: string, fuzzCase: FuzzCase): Promise<string | undefined> => {
  // Some are too long for a command line.
  const file = join(mkdtempSync(join(tmpdir(), "fuzz-case-")), "case.json")
  writeFileSync(file, JSON.stringify(fuzzCase))
  const { died, said } = await runChild([engine, file])
  rmSync(dirname(file), { recursive: true, force: true })
  return died ?? (said.length > 0 ? "defect" : undefined)
}

const shorten = async (engine: string, start: FuzzCase, what: string): Promise<FuzzCase> => {
  let best = start
  let tries = 0
  for (let isSmaller = true; isSmaller && tries < shortenings;) {
    isSmaller = false
    for (const next of smaller(best)) {
      if (tries++ >= shortenings) break
      if ((await runOne(engine, next)) !== what) continue
      best = next
      isSmaller = true
      break
    }
  }
  return best
}

/** Which of the cases that were under way does it alone. */
const culprits = async (campaign: Campaign, run: Run): Promise<ReadonlyArray<Finding>> => {
  const { engine, seed } = campaign
  const suspects = new Map(run.said)
  if (run.died !== undefined) for (const index of run.unfinished) suspects.set(index, run.died)
  const found: Array<Finding> = []
  for (const [index, seen] of suspects) {
    if (index < 0) continue
    const fuzzCase = caseOf(seed, index)
    const what = await runOne(engine, fuzzCase)
    if (what !== undefined)
      found.push({ index, what: `${what}: ${seen}`, fuzzCase: await shorten(engine, fuzzCase, what) })
    else if (run.died === undefined) found.push({ index, what: seen, fuzzCase: undefined })
  }
  if (run.died !== undefined && !found.some(({ what }) => what.startsWith(`${run.died}`))) {
    found.push({
      index: run.unfinished[0] ?? run.started,
      what: `${run.died}, of ${run.unfinished.join(", ")} together`,
      fuzzCase: undefined
    })
  }
  return found
}

export const runCampaign = async (campaign: Campaign): Promise<Summary> => {
  const { cases, engine, from, onProgress = () => {}, seed } = campaign
  const findings: Array<Finding> = []
  const stuck: Array<string> = []
  const startedAt = performance.now()
  let children = 0
  let done = 0
  for (let next = from; next < from + cases;) {
    const to = Math.min(next + perChild, from + cases)
    const run = await runChild([engine, `${seed}`, `${next}`, `${to}`])
    children++
    const reached = run.died === undefined ? to : Math.max(run.started + 1, next + 1)
    done += reached - next
    next = reached
    stuck.push(...run.stuck)
    for (const finding of await culprits(campaign, run)) {
      findings.push(finding)
      onProgress(`FOUND ${JSON.stringify(finding)}`)
    }
    const seconds = (performance.now() - startedAt) / 1000
    onProgress(
      `${done} cases, ${findings.length} findings, ${stuck.length} stuck, ${Math.round(done / seconds)} a second`
    )
  }
  return { cases: done, children, findings, stuck }
}
