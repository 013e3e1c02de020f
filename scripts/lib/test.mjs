/** `npm test` and `npm run test:long`. */
import { existsSync, readFileSync, rmSync } from "node:fs"
import { inRoot, isInterruption, node } from "./exec.mjs"
import { generatedSteps } from "./develop.mjs"
import { setUp } from "./setup.mjs"
import { runSteps } from "./steps.mjs"
import { summarise } from "./summary.mjs"
import { toolEntry } from "./tools.mjs"

const reportPath = inRoot(".cache", `vitest-${process.pid}.json`)

const readReport = () => {
  if (!existsSync(reportPath)) return undefined
  const report = JSON.parse(readFileSync(reportPath, "utf8"))
  rmSync(reportPath)
  return report
}

const vitest = async (args, env, engines) => {
  const { code } = await node(toolEntry("vitest"), ["run", "--config", inRoot("test", "vitest.config.ts"), ...args], {
    env: { ...process.env, ...env, EFFECT_SPDK_TEST_REPORT: reportPath }
  })
  const report = readReport()
  if (isInterruption(code) || report === undefined) return { code: code === 0 ? 1 : code }
  const counts = summarise(report, engines.libspdk === "available")
  // An error outside of any test, such as an unhandled rejection, fails the run although no test did.
  if (code !== 0 && counts.failed === 0) counts.failed = 1
  return counts
}

/** They end with a line of counts; without one, and when they fail without a failed test, they count as one failure. */
const nativeTests = async () => {
  const { code, output } = await node(inRoot("scripts", "test-native.mjs"), [], { capture: true, show: true })
  const line = /^native unit tests: (\d+) passed, (\d+) failed, (\d+) skipped$/m.exec(output)
  if (isInterruption(code) || line === null) return { code: code === 0 ? 1 : code }
  const [passed, failed, skipped] = line.slice(1).map(Number)
  return { passed, failed: code === 0 ? failed : Math.max(failed, 1), skipped }
}

/** Arguments select tests; then only vitest runs. */
const runTests = async (command, args, env) => {
  const engines = await setUp({ projects: ["."] })
  const suites = { name: "vitest", run: () => vitest(args, env, engines) }
  if (args.length > 0) return await runSteps(command, [suites])
  return await runSteps(command, [...generatedSteps, { name: "native unit tests", run: nativeTests }, suites])
}

export const test = (args) => runTests("test", args, {})

/** The same with the long forms of the random tests. */
export const testLong = (args) => runTests("test:long", args, { EFFECT_SPDK_LONG: "1" })
