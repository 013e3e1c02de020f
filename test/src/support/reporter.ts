/**
 * Says at the end which suites did not run and why, in one line that cannot be missed: a skipped suite looks like a
 * passed one otherwise.
 */
import type { Reporter, TestModule } from "vitest/node"

/** The shape of the names that `libspdk` in engines.ts gives to skipped suites. */
const skippedName = /^(\w+) (.+) \[skipped: (.+)\]$/

export class SkippedSuites implements Reporter {
  onTestRunEnd(modules: ReadonlyArray<TestModule>): void {
    const skipped = new Map<string, Array<string>>()
    for (const module of modules) {
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
    if (skipped.size === 0) console.log("skipped suites: none")
  }
}
