/**
 * How long the plans of seeds are. Most faults need few steps: most seeds are short, so that there are many of them, and the others are
 * as long as they were drawn. What is short is the beginning of what is long.
 */
import type { Chance } from "@effect-spdk/core/Simulation"
import type { Life, Plan } from "./plan.ts"

/** Of the seeds; measured over the mutations, in faults that are found per second of the processor. */
const shortShare = 0.85
/** Requests to the disk: few lives that are short make more. */
const mostRequests = 60

/** The plan, or the beginning of it. */
export const mixed = (plan: Plan, chance: Chance): Plan => {
  if (!chance.is(shortShare)) return plan
  const steps = chance.between(3, 10)
  const lives = plan.lives.slice(0, chance.pick([1, 1, 1, 2])).map((life) => shortLife(life, steps))
  return { ...plan, isBrief: chance.is(0.7), lives }
}

/** So many steps in all, from all fibers in turn. */
const shortLife = (life: Life, steps: number): Life => {
  const crashAfter = life.crashAfter === undefined ? undefined : 1 + ((life.crashAfter - 1) % mostRequests)
  const counts = life.fibers.map(() => 0)
  let left = steps
  for (let at = 0; left > 0 && life.fibers.some(({ length }) => length > at); at++) {
    for (const [i, { length }] of life.fibers.entries()) {
      if (length <= at || left === 0) continue
      counts[i] = at + 1
      left--
    }
  }
  return { ...life, crashAfter, fibers: life.fibers.map((fiber, i) => fiber.slice(0, counts[i])) }
}
