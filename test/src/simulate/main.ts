/** npm run simulate -- [--seed N] [--seeds COUNT] [--seconds S] [--fault KIND] [--work KIND] [--plain] [--no-shrink] [--log] */
import { parseArgs } from "node:util"
import { faults, subjectOf, works } from "./subject.ts"

const usage = `usage: npm run simulate -- [options]
  --seed N       the first seed; alone, that seed and no other. Default: of the clock
  --seeds COUNT  so many seeds
  --seconds S    as many as fit. Default 60
  --fault KIND   ${faults.join(", ")}. Default: of the seed
  --work KIND    ${works.join(", ")}. Default: of the seed
  --plain        reads, writes, sizes, snapshots and xattrs alone
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

const main = (): number => {
  const { values } = parseArgs({
    options: {
      seed: { type: "string" },
      seeds: { type: "string" },
      seconds: { type: "string" },
      fault: { type: "string" },
      work: { type: "string" },
      plain: { type: "boolean", default: false },
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
  const start = performance.now()
  const until = start + (seconds ?? (seeds === Infinity ? 60 : Infinity)) * 1000
  let ran = 0
  let failed = 0
  for (let next = first; ran < seeds && performance.now() < until; next++, ran++) {
    const subject = subjectOf(next, { fault, work, plain: values.plain })
    const result = subject.run({ log: values.log })
    for (const line of result.lines) console.log(line)
    if (result.violations.length === 0) continue
    failed++
    const options = [
      fault === undefined ? "" : ` --fault ${fault}`,
      work === undefined ? "" : ` --work ${work}`,
      values.plain ? " --plain" : ""
    ].join("")
    console.log(`seed ${next} fails: npm run simulate -- --seed ${next}${options}`)
    for (const violation of result.violations) console.log(`  ${violation}`)
    if (!values["no-shrink"]) {
      const short = subject.shrink()
      const again = short.run({ log: true })
      console.log(`shortened:\n${short.describe()}\nand what happens then:`)
      for (const line of again.lines) console.log(line)
    }
    if (!values["keep-going"]) {
      ran++
      break
    }
  }
  const millis = performance.now() - start
  console.log(
    `${ran} seeds from ${first} on, ${failed} failed, in ${(millis / 1000).toFixed(1)} s: ${((ran * 1000) / millis).toFixed(0)} seeds per second`
  )
  return failed === 0 ? 0 : 1
}

process.exitCode = main()
