/** `npm test` and `npm run test:long`. */
import { existsSync, readFileSync, rmSync } from "node:fs"
import { exec, inRoot, isInterruption, node } from "./exec.mjs"
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
  const { notes, ...counts } = summarise(report, engines.libspdk === "available")
  for (const note of notes) console.log(note)
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

/** The libspdk suites on an addon built for AddressSanitizer, whose runtime must be there before Node's own malloc. */
const asanTests = async (engines) => {
  const built = await node(inRoot("scripts", "build-addon.mjs"), ["--sanitize=address"], { capture: true })
  const addon = built.output.trim().split("\n").at(-1)
  const runtime = await exec(process.env.CXX ?? "c++", ["-print-file-name=libasan.so"], { capture: true })
  if (built.code !== 0 || runtime.code !== 0) {
    console.error(built.output, runtime.output)
    return { code: 1 }
  }
  const env = {
    EFFECT_SPDK_ADDON: addon,
    LD_PRELOAD: runtime.output.trim(),
    // V8 frees nothing at exit, and DPDK's memory is not the heap's: only errors count here, not leaks.
    ASAN_OPTIONS: "detect_leaks=0:abort_on_error=1"
  }
  return await vitest(["--project", "libspdk*"], env, engines)
}

/** Arguments select tests; then only vitest runs. */
const runTests = async (command, args, env, more) => {
  const engines = await setUp({ projects: ["."] })
  const suites = { name: "vitest", run: () => vitest(args, env, engines) }
  if (args.length > 0) return await runSteps(command, [suites])
  return await runSteps(command, [
    ...generatedSteps,
    { name: "native unit tests", run: nativeTests },
    suites,
    ...more(engines)
  ])
}

export const test = (args) => runTests("test", args, {}, () => [])

/** The same with the long forms of the random tests, and the libspdk suites once more under AddressSanitizer. */
export const testLong = (args) =>
  runTests("test:long", args, { EFFECT_SPDK_LONG: "1" }, (engines) =>
    engines.libspdk === "available"
      ? [{ name: "libspdk suites under AddressSanitizer", run: () => asanTests(engines) }]
      : []
  )
