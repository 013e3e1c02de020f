/** What is said of the seeds of a range. */
import { subjectOf, type SubjectOptions } from "./subject.ts"

export interface SeedOptions extends SubjectOptions {
  readonly shrinks: boolean
  readonly log: boolean
  readonly keepsGoing: boolean
}

/** Of one process: the seeds from `from` on, `count` of them at most, until the time is over. */
export interface Range {
  readonly options: SeedOptions
  readonly from: number
  readonly count: number
  /** Unix milliseconds; undefined: no limit. */
  readonly until: number | undefined
}

export interface RangeReport {
  readonly ran: number
  readonly failed: number
  readonly isOver: boolean
}

/** Runs them until one fails, or all. */
export const runRange = ({ count, from, options, until }: Range, say: (line: string) => void): RangeReport => {
  let ran = 0
  let failed = 0
  for (; ran < count; ran++) {
    if (until !== undefined && Date.now() >= until) return { ran, failed, isOver: true }
    if (holds(from + ran, options, say)) continue
    failed++
    if (!options.keepsGoing) return { ran: ran + 1, failed, isOver: true }
  }
  return { ran, failed, isOver: false }
}

const holds = (seed: number, options: SeedOptions, say: (line: string) => void): boolean => {
  const { fault, log, plain, shrinks, work } = options
  const subject = subjectOf(seed, { fault, work, plain })
  const { lines, violations } = subject.run({ log })
  for (const line of lines) say(line)
  if (violations.length === 0) return true
  const again = [
    fault === undefined ? "" : ` --fault ${fault}`,
    work === undefined ? "" : ` --work ${work}`,
    plain === true ? " --plain" : ""
  ].join("")
  say(`seed ${seed} fails: npm run simulate -- --seed ${seed}${again}`)
  for (const violation of violations) say(`  ${violation}`)
  if (shrinks) {
    const short = subject.shrink()
    say(`shortened:\n${short.describe()}\nand what happens then:`)
    for (const line of short.run({ log: true }).lines) say(line)
  }
  return false
}
