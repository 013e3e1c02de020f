/** What a seed of NVMe/TCP does, as data: a target, a host, and what happens between them. */
import { type Chance, make as makeSimulation } from "@effect-spdk/core/Simulation"

/**
 * - `cut`, `refuse`: connections end at any byte, or are not made. I/O waits for the next one.
 * - `stall`: nothing passes for longer than the keep-alive.
 * - `slow`: answers take longer than half of the keep-alive, and less than all of it. No connection is lost.
 * - `still`: the machine stands still for longer than the keep-alive. No connection is lost.
 * - `errors`: the target's disk fails requests.
 * - `memory`: allocations of DMA memory fail.
 */
export type NetFault = "none" | "cut" | "refuse" | "stall" | "slow" | "still" | "errors" | "memory"
export const netFaults: ReadonlyArray<NetFault> = [
  "none",
  "cut",
  "refuse",
  "stall",
  "slow",
  "still",
  "errors",
  "memory"
]

export interface RangeAction {
  readonly _tag: "Write" | "Zero" | "Unmap" | "Read"
  readonly at: number
  readonly length: number
}

export type HostAction =
  | RangeAction
  | { readonly _tag: "Flush" | "Reset" | "Reattach" | "Discover" | "Burst" | "Rest"; readonly at: number }

/** What the target, and the world, do meanwhile. */
export type WorldAction =
  | { readonly _tag: "Ana"; readonly path: number; readonly state: "optimized" | "non_optimized" | "inaccessible" }
  | {
      readonly _tag: "Restart"
      readonly millis: number
      readonly whole: boolean
      readonly other: boolean
      readonly power: boolean
    }
  | { readonly _tag: "Replace" }
  | { readonly _tag: "Unlisten"; readonly path: number; readonly millis: number }
  | { readonly _tag: "Cut"; readonly kind: "reset" | "end" }
  | { readonly _tag: "Stall"; readonly millis: number }
  | { readonly _tag: "Slow"; readonly millis: number }
  | { readonly _tag: "Still"; readonly millis: number }
  | { readonly _tag: "Power" }

export interface NetStep<A> {
  readonly action: A
  /** Virtual microseconds before it begins. */
  readonly delayMicros: number
  /** Interrupts it after so long. */
  readonly interruptMicros: number | undefined
}

export interface NetPlan {
  readonly seed: number
  readonly yieldChance: number
  readonly paths: 1 | 2
  /** Target and host have engines of their own, or one for both. */
  readonly engines: 1 | 2
  readonly headerDigest: boolean
  readonly dataDigest: boolean
  /** Of each volume. */
  readonly sectors: number
  readonly queueDepth: number
  readonly ioQueues: number
  readonly inCapsuleBytes: number
  readonly keepAliveMillis: number
  readonly lossSeconds: number
  /** The host attaches what a discovery service finds. */
  readonly isDiscovered: boolean
  readonly fastFailSeconds: number | undefined
  readonly fault: NetFault
  readonly faultChance: number
  readonly fibers: ReadonlyArray<ReadonlyArray<NetStep<HostAction>>>
  readonly world: ReadonlyArray<NetStep<WorldAction>>
}

export const keepAliveMillis = 4000

export const netPlanOf = (seed: number, options: { readonly fault?: NetFault | undefined } = {}): NetPlan => {
  const simulation = makeSimulation({ seed })
  const chance = simulation.chance("net plan")
  const fault = options.fault ?? chance.pick(["none", "none", ...netFaults])
  const paths = chance.pick([1, 1, 2] as const)
  const interrupts = chance.pick([0, 0, 0.1, 0.3])
  const fibers = Array.from({ length: chance.between(1, 4) }, () =>
    Array.from({ length: chance.between(3, 14) }, () => stepOf(chance, hostAction(chance), interrupts, 20_000))
  )
  return {
    seed,
    yieldChance: chance.pick([0, 0.01, 0.05]),
    paths,
    engines: chance.pick([1, 2, 2]),
    headerDigest: chance.is(0.3),
    dataDigest: chance.is(0.3),
    sectors: chance.pick([64, 128, 400]),
    queueDepth: chance.pick([2, 4, 16, 128]),
    ioQueues: chance.pick([1, 1, 3]),
    inCapsuleBytes: chance.pick([4096, 4096, 8192]),
    keepAliveMillis,
    isDiscovered: fault !== "slow" && fault !== "still" && simulation.chance("net discovery").is(0.2),
    lossSeconds: chance.pick([60, 60, 60, 3]),
    fastFailSeconds: chance.is(0.25) ? 2 : undefined,
    fault,
    faultChance: chance.pick([0.05, 0.2, 0.5]),
    fibers,
    world: worldOf(chance, fault, paths)
  }
}

const stepOf = <A>(chance: Chance, action: A, interrupts: number, mostMicros: number): NetStep<A> => ({
  action,
  delayMicros: chance.pick([0, 0, chance.below(2000), chance.below(mostMicros)]),
  interruptMicros: chance.is(interrupts) ? chance.pick([0, chance.below(3000), chance.below(300_000)]) : undefined
})

const hostAction = (chance: Chance): HostAction => {
  const turn = chance.below(100)
  const at = chance.below(400)
  const length = chance.pick([1, chance.between(1, 8), chance.between(1, 64), chance.between(1, 300)])
  if (turn < 40) return { _tag: "Write", at, length }
  if (turn < 64) return { _tag: "Read", at, length }
  if (turn < 76) return { _tag: "Flush", at }
  if (turn < 81) return { _tag: "Zero", at, length }
  if (turn < 86) return { _tag: "Unmap", at, length }
  if (turn < 90) return { _tag: "Burst", at }
  if (turn < 92) return { _tag: "Reset", at }
  if (turn < 94) return { _tag: "Reattach", at }
  if (turn < 96) return { _tag: "Discover", at }
  return { _tag: "Rest", at }
}

const worldOf = (chance: Chance, fault: NetFault, paths: number): ReadonlyArray<NetStep<WorldAction>> => {
  const all: Array<WorldAction> = []
  const count = chance.pick([0, 1, 2, 4])
  if (fault === "stall") all.push({ _tag: "Stall", millis: chance.between(1000, keepAliveMillis * 4) })
  // At any moment between two beats of the keep-alive.
  for (let i = 0; fault === "slow" && i < 3; i++) {
    all.push({ _tag: "Slow", millis: Math.floor(keepAliveMillis * (0.55 + 0.35 * chance.next())) })
  }
  if (fault === "still") all.push({ _tag: "Still", millis: chance.between(keepAliveMillis, keepAliveMillis * 4) })
  // These two say that no connection is lost, which nothing else may make untrue.
  const isAlone = fault === "slow" || fault === "still"
  for (let i = 0; i < count; i++) {
    const turn = chance.below(100)
    const path = chance.below(paths)
    if (turn < 35 || isAlone) {
      all.push({
        _tag: "Ana",
        path,
        state: chance.pick(["optimized", "non_optimized", "inaccessible", "inaccessible"])
      })
    } else if (turn < 60) {
      all.push({
        _tag: "Restart",
        millis: chance.pick([0, chance.below(500), chance.below(6000)]),
        whole: chance.is(0.5),
        other: chance.is(0.35),
        power: chance.is(0.4)
      })
    } else if (turn < 68) all.push({ _tag: "Replace" })
    else if (turn < 76) all.push({ _tag: "Unlisten", path, millis: chance.below(5000) })
    else if (turn < 90) all.push({ _tag: "Cut", kind: chance.pick(["reset", "end"]) })
    else all.push({ _tag: "Power" })
  }
  return all.map((action) =>
    action._tag === "Slow"
      ? { action, delayMicros: 5000 + chance.below(keepAliveMillis * 1000), interruptMicros: undefined }
      : stepOf(chance, action, 0, 200_000)
  )
}
