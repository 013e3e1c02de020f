/**
 * Says at the end which suites did not run and why, in one line that cannot be missed: a skipped suite looks like a
 * passed one otherwise.
 */
import type { Reporter, TestModule } from "vitest/node"

declare module "vitest" {
  interface TaskMeta {
    /** Why the test did not run, where that is no failure. */
    skippedFor?: string
  }
}

/** The shape of the names that `libspdk` in engines.ts gives to skipped suites. */
const skippedName = /^(\w+) (.+) \[skipped: (.+)\]$/

export class SkippedSuites implements Reporter {
  onTestRunEnd(modules: ReadonlyArray<TestModule>): void {
    const skipped = new Map<string, Array<string>>()
    const lacking = new Map<string, number>()
    for (const module of modules) {
      for (const test of module.children.allTests()) {
        const reason = test.meta().skippedFor
        if (reason !== undefined) lacking.set(reason, (lacking.get(reason) ?? 0) + 1)
      }
      for (const suite of module.children.suites()) {
        const match = skippedName.exec(suite.name)
        if (match === null) continue
        const [, engine = "", name = "", reason = ""] = match
        const key = `${engine}\u0000${reason}`
        skipped.set(key, [...(skipped.get(key) ?? []), name])
      }
    }
    for (const [key, names] of skipped) {
      const [engine, reason] = key.split("\u0000")
      console.log(`skipped ${engine} suites: ${names.toSorted().join(", ")} (${names.length}): ${reason}`)
    }
    for (const [reason, count] of lacking) console.log(`skipped tests: ${count}: ${reason}`)
    if (skipped.size === 0) console.log("skipped suites: none")
  }
}
