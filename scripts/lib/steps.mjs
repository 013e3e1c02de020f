/** Runs named steps one after the other, all of them, and counts what passed. */
import { appendFileSync } from "node:fs"
import { isInterruption } from "./exec.mjs"

/** Where a run leaves its counts for .ci/run: one JSON object a line. */
const countsFile = process.env.EFFECT_SPDK_COUNTS

const one = (code) => ({ passed: code === 0 ? 1 : 0, failed: code === 0 ? 0 : 1, skipped: 0 })

const add = (left, right) => ({
  passed: left.passed + right.passed,
  failed: left.failed + right.failed,
  skipped: left.skipped + right.skipped
})

/**
 * A step is `{ name, run }`; `run` resolves with `{ code }`, or with counts where a step is many tests. A step that was
 * ended by a signal ends the run.
 */
export const runSteps = async (command, steps) => {
  let total = { passed: 0, failed: 0, skipped: 0 }
  const failed = []
  for (const { name, run } of steps) {
    const started = Date.now()
    console.log(`\n== ${command}: ${name}`)
    const result = await run()
    if (isInterruption(result.code)) return result.code
    const counts = result.code === undefined ? result : one(result.code)
    total = add(total, counts)
    if (counts.failed > 0) failed.push(name)
    console.log(
      `== ${name}: ${counts.failed === 0 ? "ok" : "FAILED"} in ${((Date.now() - started) / 1000).toFixed(1)} s`
    )
  }
  if (countsFile) appendFileSync(countsFile, `${JSON.stringify(total)}\n`)
  console.log(`\n${command}: passed ${total.passed}, failed ${total.failed}, skipped ${total.skipped}`)
  if (failed.length > 0) console.log(`${command} failed in: ${failed.join(", ")}`)
  return total.failed === 0 ? 0 : 1
}
