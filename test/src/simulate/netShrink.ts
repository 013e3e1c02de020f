/** Makes a failing plan of NVMe/TCP shorter, as long as it fails, and writes it down. */
import type { NetPlan, NetStep } from "./netPlan.ts"
import { runNet } from "./netRun.ts"

const fails = (plan: NetPlan): boolean => runNet(plan).violations.length > 0

function* shorter<A>(steps: ReadonlyArray<A>): Generator<ReadonlyArray<A>> {
  for (let size = steps.length; size >= 1; size = size >> 1) {
    for (let from = 0; from + size <= steps.length; from += size) {
      yield [...steps.slice(0, from), ...steps.slice(from + size)]
    }
  }
}

/** Every plan that has one thing less, the larger things first. */
function* smaller(plan: NetPlan): Generator<NetPlan> {
  for (const world of shorter(plan.world)) yield { ...plan, world }
  for (const [index, steps] of plan.fibers.entries()) {
    const withSteps = (changed: ReadonlyArray<NetPlan["fibers"][number][number]>): NetPlan => ({
      ...plan,
      fibers: plan.fibers.map((other, i) => (i === index ? changed : other))
    })
    for (const changed of shorter(steps)) yield withSteps(changed)
    for (const [at, step] of steps.entries()) {
      if (step.interruptMicros === undefined) continue
      yield withSteps(steps.map((other, i) => (i === at ? { ...other, interruptMicros: undefined } : other)))
    }
  }
  if (plan.fault !== "none") yield { ...plan, fault: "none" }
  if (plan.paths > 1) yield { ...plan, paths: 1 }
  if (plan.ioQueues > 1) yield { ...plan, ioQueues: 1 }
  if (plan.headerDigest || plan.dataDigest) yield { ...plan, headerDigest: false, dataDigest: false }
  if (plan.yieldChance > 0) yield { ...plan, yieldChance: 0 }
}

/** At most so many attempts. */
export const shrinkNet = (plan: NetPlan, attempts = 200): NetPlan => {
  let best = plan
  let left = attempts
  for (let isShorter = true; isShorter && left > 0;) {
    isShorter = false
    for (const candidate of smaller(best)) {
      if (left-- <= 0) break
      if (!fails(candidate)) continue
      best = candidate
      isShorter = true
      break
    }
  }
  return best
}

/** The plan as people read it. */
export const describeNet = ({ fibers, world, ...options }: NetPlan): string =>
  [
    Object.entries(options)
      .map(([name, value]) => `${name} ${value ?? "none"}`)
      .join(", "),
    ...world.map((step) => `  world: ${describeStep(step)}`),
    ...fibers.flatMap((steps, index) => steps.map((step) => `  fiber ${index}: ${describeStep(step)}`))
  ].join("\n")

const describeStep = ({ action, delayMicros, interruptMicros }: NetStep<object>): string =>
  JSON.stringify(action) +
  (delayMicros > 0 ? ` after ${delayMicros} us` : "") +
  (interruptMicros === undefined ? "" : `, interrupted after ${interruptMicros} us`)
