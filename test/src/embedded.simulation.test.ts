/** Seeds of the simulation: the same twice, those that have failed before, and new ones for a while. */
import { assert, describe, it } from "@effect/vitest"
import { failedSeeds } from "./simulate/seeds.ts"
import { subjectOf, type SubjectOptions } from "./simulate/subject.ts"
import { long } from "./support/engines.ts"

const seconds = long ? 1500 : 20

const assertHolds = (seed: number, options: SubjectOptions = {}): void => {
  const subject = subjectOf(seed, options)
  const { violations } = subject.run()
  if (violations.length === 0) return
  const short = subject.shrink()
  const { lines } = short.run({ log: true })
  assert.fail([`seed ${seed} fails (${JSON.stringify(options)})`, ...violations, short.describe(), ...lines].join("\n"))
}

describe("the simulation", () => {
  it.each(["blobs", "fabrics"] as const)("runs the same for the same seed: %s", (work) => {
    const traces = new Set<string>()
    for (let seed = 0; seed < 12; seed++) {
      const first = subjectOf(seed, { work }).run()
      const second = subjectOf(seed, { work }).run()
      assert.strictEqual(second.trace, first.trace)
      assert.strictEqual(second.steps, first.steps)
      traces.add(first.trace)
    }
    assert.strictEqual(traces.size, 12)
  })

  it.each(failedSeeds)("holds with seed $seed, which found: $found", ({ seed, ...options }) => {
    assertHolds(seed, options)
  })

  it(`holds with new seeds for ${seconds} seconds`, { timeout: (seconds + 300) * 1000 }, () => {
    const until = performance.now() + seconds * 1000
    // Not the same as yesterday. A failure names its seed.
    for (let seed = Date.now(); performance.now() < until; seed++) assertHolds(seed)
  })
})
