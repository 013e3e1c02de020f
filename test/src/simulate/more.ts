/**
 * What a plan does beyond the plain one: put between its steps, from a chance of its own, so that the plain plan of a seed stays what
 * it is.
 */
import type { Chance } from "@effect-spdk/core/Simulation"
import { xattrNames } from "./blobModel.ts"
import type { Action, Life, Plan, Step } from "./plan.ts"
import { ways } from "./ways.ts"

/** Above those of the plain plan. */
const firstLabel = 100

export const withMore = (plan: Plan, chance: Chance): Plan => {
  // Some stay plain, and short.
  if (plan.work === "keys" || chance.is(0.3)) return plan
  const more = new More(chance)
  const enlarged =
    plan.lives.length > 1 && chance.is(0.4)
      ? { life: chance.between(1, plan.lives.length - 1), clusters: plan.clusters + chance.pick([1, 5, 40]) }
      : undefined
  return {
    ...plan,
    ...(more.outer ? { outer: true } : {}),
    ...(enlarged === undefined ? {} : { enlarged }),
    lives: plan.lives.map((life, index) => more.life(life, index))
  }
}

/** EIO, ENOMEM, ENOSPC, EILSEQ, ETIMEDOUT, EREMOTEIO. */
const errnos = [5, 12, 28, 84, 110, 121]

const clearMethods = ["none", "unmap", "write_zeroes"] as const

class More {
  readonly outer: boolean
  private readonly chance: Chance
  private readonly labels: Array<number> = []
  private readonly snapshots: Array<number> = []
  private next = firstLabel

  constructor(chance: Chance) {
    this.chance = chance
    this.outer = chance.is(0.6)
  }

  life(life: Life, index: number): Life {
    const { chance } = this
    const density = chance.pick([0.1, 0.3, 0.6])
    const fibers = life.fibers.map((steps) =>
      steps.flatMap((step) => {
        this.learn(step.action)
        const changed = this.otherWay(step)
        return chance.is(density) ? [changed, this.step(step)] : [changed]
      })
    )
    const load = index > 0 && chance.is(0.4) ? { load: this.load() } : {}
    const errno = chance.is(0.5) ? { errno: chance.pick(errnos) } : {}
    const isUnplugged = life.crashAfter !== undefined && life.crashFrom === "work" && chance.is(0.25)
    return { ...life, ...load, ...errno, ...(isUnplugged ? { crash: "unplug" } : {}), fibers }
  }

  private load() {
    const { chance } = this
    return { forceRecover: chance.is(0.3), grow: chance.is(0.4), makes: chance.is(0.3), repairs: chance.is(0.3) }
  }

  private learn(action: Action): void {
    if (action._tag === "Create" || action._tag === "Snapshot" || action._tag === "Clone") {
      this.labels.push(action.label)
      if (action._tag === "Snapshot") this.snapshots.push(action.label)
    }
  }

  private otherWay(step: Step): Step {
    const { chance } = this
    const { action } = step
    if ((action._tag === "Write" || action._tag === "Read") && chance.is(0.4)) {
      return { ...step, action: { ...action, way: chance.pick(ways) } }
    }
    if ((action._tag === "SetXattr" || action._tag === "RemoveXattr") && chance.is(0.7)) {
      return { ...step, action: { ...action, name: chance.pick(xattrNames) } }
    }
    if (action._tag === "Create" && chance.is(0.3)) {
      return { ...step, action: { ...action, clearMethod: chance.pick(clearMethods), opens: chance.is(0.5) } }
    }
    return step
  }

  private step({ interruptMicros }: Step): Step {
    const { chance } = this
    return { action: this.action(), delayMicros: chance.is(0.7) ? 0 : chance.below(1000), interruptMicros }
  }

  private label(): number {
    const { chance, labels } = this
    if (labels.length === 0) return 1
    return chance.is(0.7) ? chance.pick(labels.slice(-3)) : chance.pick(labels)
  }

  private fresh(): number {
    const label = this.next++
    this.labels.push(label)
    return label
  }

  private action(): Action {
    const { chance, snapshots } = this
    const label = this.label()
    const turn = chance.below(100)
    if (turn < 10) return { _tag: "SetXattr", label, name: chance.pick(xattrNames) }
    if (turn < 15) return { _tag: "GetXattr", label, name: chance.pick(xattrNames) }
    if (turn < 25) return { _tag: "SetReadOnly", label, syncs: chance.is(0.7) }
    if (turn < 30) return { _tag: "SetSuper", label: chance.is(0.2) ? 0 : label }
    if (turn < 33) return { _tag: "GetSuper" }
    if (turn < 36) return { _tag: "OpenWith", label, clearMethod: chance.pick(clearMethods) }
    if (turn < 50 && snapshots.length > 0) return { _tag: "SetParent", label, to: chance.pick(snapshots.slice(-4)) }
    if (turn < 53) return { _tag: "Clone", label: this.fresh(), from: label }
    if (turn < 56) return { _tag: "SecondStore" }
    if (turn < 58) return { _tag: "Repair" }
    if (turn < 60) return { _tag: "Grow" }
    if (!this.outer) return { _tag: "GetXattr", label, name: "value" }
    if (turn < 75) return { _tag: "CreateExternal", label: this.fresh(), clusters: chance.pick([1, 2, 3, 4, 6]) }
    const bdev = chance.is(0.9) ? undefined : chance.pick(["disk", "none"] as const)
    if (turn < 85) return { _tag: "SetExternalParent", label, bdev: bdev ?? "outer" }
    return { _tag: "ShallowCopy", label: snapshots.length > 0 ? chance.pick(snapshots) : label, bdev: bdev ?? "target" }
  }
}
