/** Seeds of the simulation: the same twice, those that have failed before, and new ones for a while. */
import { assert, describe, it } from "@effect/vitest"
import { planOf, type PlanOptions } from "./simulate/plan.ts"
import { run } from "./simulate/run.ts"
import { failedSeeds } from "./simulate/seeds.ts"
import { describePlan, shrink } from "./simulate/shrink.ts"
import { long } from "./support/engines.ts"

const seconds = long ? 1500 : 20

const assertHolds = (seed: number, options: PlanOptions = {}): void => {
  const plan = planOf(seed, options)
  const { violations } = run(plan)
  if (violations.length === 0) return
  const short = shrink(plan)
  const { lines } = run(short, { log: true })
  assert.fail(
    [`seed ${seed} fails (${JSON.stringify(options)})`, ...violations, describePlan(short), ...lines].join("\n")
  )
}

describe("the simulation", () => {
  it("runs the same for the same seed", () => {
    const traces = new Set<string>()
    for (let seed = 0; seed < 12; seed++) {
      const first = run(planOf(seed, { work: "blobs" }))
      const second = run(planOf(seed, { work: "blobs" }))
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
