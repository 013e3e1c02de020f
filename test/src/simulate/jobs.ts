/** Seeds over several processes: what a seed does is the same in any of them. */
import { type ChildProcess, fork } from "node:child_process"
import type { RangeReport, SeedOptions } from "./report.ts"

interface JobReport extends RangeReport {
  readonly lines: ReadonlyArray<string>
}

export interface Total {
  readonly ran: number
  readonly failed: number
}

/** Seeds that a process gets at a time: a few seconds of work. */
const rangeSeeds = 250
/** Much lives for a moment, and the other cores have jobs of their own: this takes a tenth less time of the processor. */
const execArgv = ["--single-threaded-gc", "--min-semi-space-size=32", "--max-semi-space-size=32"]

export const runJobs = async (
  jobs: number,
  options: SeedOptions,
  { count, first, until }: { readonly first: number; readonly count: number; readonly until: number | undefined }
): Promise<Total> => {
  let given = 0
  let ran = 0
  let failed = 0
  let isOver = false

  const ask = (child: ChildProcess, from: number, most: number): Promise<JobReport> =>
    new Promise((resolve, reject) => {
      const ended = (code: number | null, signal: string | null) =>
        reject(new Error(`the process of the seeds ${from} to ${from + most - 1} ended with ${code ?? signal}`))
      child.once("exit", ended)
      child.once("message", (report) => {
        child.off("exit", ended)
        // Of job.ts.
        resolve(report as JobReport)
      })
      child.send({ options, from, count: most, until })
    })

  const job = async (): Promise<void> => {
    const child = fork(new URL("./job.js", import.meta.url), { execArgv })
    try {
      while (!isOver && given < count) {
        const from = first + given
        const most = Math.min(rangeSeeds, count - given)
        given += most
        const report = await ask(child, from, most)
        ran += report.ran
        failed += report.failed
        isOver ||= report.isOver
        for (const line of report.lines) console.log(line)
      }
    } finally {
      child.kill()
    }
  }

  await Promise.all(Array.from({ length: jobs }, job))
  return { ran, failed }
}
