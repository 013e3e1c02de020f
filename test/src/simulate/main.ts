/** npm run simulate -- [--seed N] [--seeds COUNT] [--seconds S] [--fault KIND] [--work KIND] [--plain] [--jobs N] [--no-shrink] [--log] */
import { availableParallelism } from "node:os"
import { parseArgs } from "node:util"
import { runJobs } from "./jobs.ts"
import { runRange } from "./report.ts"
import { faults, works } from "./subject.ts"

const usage = `usage: npm run simulate -- [options]
  --seed N       the first seed; alone, that seed and no other. Default: of the clock
  --seeds COUNT  so many seeds
  --seconds S    as many as fit. Default 60
  --fault KIND   ${faults.join(", ")}. Default: of the seed
  --work KIND    ${works.join(", ")}. Default: of the seed
  --plain        reads, writes, sizes, snapshots and xattrs alone
  --jobs N       in so many processes, of some 300 MB each. 0: in this one. Default: as many as there are cores
  --keep-going   goes on after a failure
  --no-shrink    prints a failing seed as it is
  --log          prints what happens`

const oneOf = <A extends string>(name: string, value: string | undefined, all: ReadonlyArray<A>): A | undefined => {
  const found = all.find((one) => one === value)
  if (value !== undefined && found === undefined) throw new Error(`--${name} ${value} is none of ${all.join(", ")}`)
  return found
}

const whole = (name: string, value: string | undefined): number | undefined => {
  if (value === undefined) return undefined
  const number = Number(value)
  if (!Number.isSafeInteger(number) || number < 0) throw new Error(`--${name} ${value} is no whole number from 0 on`)
  return number
}

const main = async (): Promise<number> => {
  const { values } = parseArgs({
    options: {
      seed: { type: "string" },
      seeds: { type: "string" },
      seconds: { type: "string" },
      fault: { type: "string" },
      work: { type: "string" },
      plain: { type: "boolean", default: false },
      jobs: { type: "string" },
      "keep-going": { type: "boolean", default: false },
      "no-shrink": { type: "boolean", default: false },
      log: { type: "boolean", default: false },
      help: { type: "boolean", default: false }
    }
  })
  if (values.help) {
    console.log(usage)
    return 0
  }
  const fault = oneOf("fault", values.fault, faults)
  const work = oneOf("work", values.work, works)
  const seed = whole("seed", values.seed)
  const seconds = whole("seconds", values.seconds)
  const seeds = whole("seeds", values.seeds) ?? (seed !== undefined && seconds === undefined ? 1 : Infinity)
  const first = seed ?? Date.now()
  const limit = seconds ?? (seeds === Infinity ? 60 : undefined)
  const jobs = Math.min(whole("jobs", values.jobs) ?? availableParallelism(), seeds)
  const start = performance.now()
  const until = limit === undefined ? undefined : Date.now() + limit * 1000
  const options = {
    fault,
    work,
    plain: values.plain,
    shrinks: !values["no-shrink"],
    log: values.log,
    keepsGoing: values["keep-going"]
  }
  const { failed, ran } =
    seeds === 1 || jobs === 0
      ? runRange({ options, from: first, count: seeds, until }, console.log)
      : await runJobs(jobs, options, { first, count: seeds, until })
  const millis = performance.now() - start
  const rate = ((ran * 1000) / millis).toFixed(0)
  console.log(
    `${ran} seeds from ${first} on, ${failed} failed, in ${(millis / 1000).toFixed(1)} s: ${rate} seeds per second, jobs: ${jobs}`
  )
  return failed === 0 ? 0 : 1
}

process.exitCode = await main()
