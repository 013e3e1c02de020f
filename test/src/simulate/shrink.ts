/** Makes a failing plan shorter, as long as it fails. */
import type { Life, Plan, Step } from "./plan.ts"
import { run } from "./run.ts"

const fails = (plan: Plan): boolean => run(plan).violations.length > 0

const withLife = (plan: Plan, index: number, change: (life: Life) => Life): Plan => ({
  ...plan,
  lives: plan.lives.map((life, i) => (i === index ? change(life) : life))
})

const without = (plan: Plan, life: number, fiber: number, from: number, count: number): Plan =>
  withLife(plan, life, (one) => ({
    ...one,
    fibers: one.fibers.map((steps, i) =>
      i === fiber ? [...steps.slice(0, from), ...steps.slice(from + count)] : steps
    )
  }))

/** Every plan that has one thing less, the larger things first. */
function* smaller(plan: Plan): Generator<Plan> {
  for (let i = plan.lives.length - 1; i >= 0; i--) {
    if (plan.lives.length > 1) yield { ...plan, lives: plan.lives.filter((_, other) => other !== i) }
  }
  for (const [i, life] of plan.lives.entries()) {
    for (const [f, steps] of life.fibers.entries()) {
      for (let size = steps.length; size >= 1; size = size >> 1) {
        for (let from = 0; from + size <= steps.length; from += size) yield without(plan, i, f, from, size)
      }
    }
    if (life.fault !== "none") yield withLife(plan, i, (one) => ({ ...one, fault: "none" }))
    if (life.crashAfter !== undefined) yield withLife(plan, i, (one) => ({ ...one, crashAfter: undefined }))
  }
  for (const [i, life] of plan.lives.entries()) {
    for (const [f, steps] of life.fibers.entries()) {
      for (const [s, step] of steps.entries()) {
        const set = (change: Partial<Step>): Plan =>
          withLife(plan, i, (one) => ({
            ...one,
            fibers: one.fibers.map((all, g) =>
              g === f ? all.map((other, t) => (t === s ? { ...other, ...change } : other)) : all
            )
          }))
        if (step.interruptMicros !== undefined) yield set({ interruptMicros: undefined })
        if (step.delayMicros !== 0) yield set({ delayMicros: 0 })
      }
    }
  }
  if (plan.yieldChance > 0) yield { ...plan, yieldChance: 0 }
  if (plan.fillPages) yield { ...plan, fillPages: false }
}

/** At most so many attempts. */
export const shrink = (plan: Plan, attempts = 400): Plan => {
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
export const describePlan = (plan: Plan): string => {
  const lines = [
    `${plan.clusters} clusters of ${plan.clusterBytes} bytes, ${plan.metadataPages} pages of metadata, clear by ${plan.clearMethod}, ` +
      `yields ${plan.yieldChance}${plan.fillPages ? ", pages filled" : ""}`
  ]
  for (const [i, life] of plan.lives.entries()) {
    const end =
      life.crashAfter === undefined
        ? "a clean end"
        : `${life.crash} after ${life.crashAfter} requests of its ${life.crashFrom}`
    lines.push(`life ${i + 1}: faults ${life.fault} (${life.faultChance}), ${end}`)
    for (const [f, steps] of life.fibers.entries()) {
      for (const { action, delayMicros, interruptMicros } of steps) {
        const when = delayMicros > 0 ? ` after ${delayMicros} us` : ""
        const interrupt = interruptMicros === undefined ? "" : `, interrupted after ${interruptMicros} us`
        lines.push(`  fiber ${f + 1}: ${JSON.stringify(action)}${when}${interrupt}`)
      }
    }
  }
  return lines.join("\n")
}
