/**
 * How long the plans of seeds are. What is short is the beginning of what is long. Measured over three mutations, in faults that are
 * found per second of the processor: plans as drawn found 79, without the deletion of everything at their end 86, one life or two of 8
 * to 20 steps 66, of 3 to 10 steps 59.
 */
import type { Chance } from "@effect-spdk/core/Simulation"
import type { Life, Plan } from "./plan.ts"

const shortShare = 0.65
/** To delete everything takes a tenth of a seed, and the clusters have been counted after every load. */
const briefShare = 0.85
/** Requests to the disk: few steps make fewer. */
const mostRequests = 100

/** The plan, or the beginning of it. */
export const mixed = (plan: Plan, chance: Chance): Plan => {
  const isBrief = chance.is(briefShare)
  if (!chance.is(shortShare)) return { ...plan, isBrief }
  const steps = chance.between(8, 20)
  const lives = plan.lives.slice(0, chance.pick([1, 1, 2])).map((life) => shortLife(life, steps))
  return { ...plan, isBrief, lives }
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
