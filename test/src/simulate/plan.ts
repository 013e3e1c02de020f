/** What a seed does, as data: a failing plan gets shorter by leaving things out. */
import { type Chance, make as makeSimulation } from "@effect-spdk/core/Simulation"
import type { XattrName } from "./blobModel.ts"
import { mixed } from "./mix.ts"
import { withMore } from "./more.ts"
import type { Way } from "./ways.ts"

export type FaultKind = "none" | "errors" | "data" | "memory" | "retry" | "delay"
export const faultKinds: ReadonlyArray<FaultKind> = ["none", "errors", "data", "memory", "retry", "delay"]

export type Work = "blobs" | "keys" | "both"

export type Action =
  | {
      readonly _tag: "Create"
      readonly label: number
      readonly clusters: number
      readonly thin: boolean
      readonly extentTable: boolean
      readonly padded: boolean
      readonly clearMethod?: "none" | "unmap" | "write_zeroes"
      /** Opened by the one call that makes it. */
      readonly opens?: boolean
    }
  | {
      readonly _tag: "Write" | "Zero" | "Unmap" | "Read"
      readonly label: number
      readonly at: number
      readonly length: number
      readonly vectored: boolean
      /** Comes before `vectored`. */
      readonly way?: Way
    }
  | { readonly _tag: "Resize"; readonly label: number; readonly clusters: number }
  | { readonly _tag: "Snapshot" | "Clone"; readonly label: number; readonly from: number }
  | {
      readonly _tag: "Inflate" | "Decouple" | "Delete" | "Sync" | "Hold" | "Info"
      readonly label: number
    }
  | { readonly _tag: "RemoveXattr" | "SetXattr"; readonly label: number; readonly name?: XattrName }
  | { readonly _tag: "GetXattr"; readonly label: number; readonly name: XattrName }
  /** `syncs`: it is in effect when the action has ended. */
  | { readonly _tag: "SetReadOnly"; readonly label: number; readonly syncs: boolean }
  | { readonly _tag: "SetParent"; readonly label: number; readonly to: number }
  | { readonly _tag: "CreateExternal"; readonly label: number; readonly clusters: number }
  | { readonly _tag: "SetExternalParent" | "ShallowCopy"; readonly label: number; readonly bdev: BdevRole }
  /** 0: of none. */
  | { readonly _tag: "SetSuper"; readonly label: number }
  | { readonly _tag: "GetSuper" | "Grow" | "SecondStore" | "Repair" }
  | { readonly _tag: "OpenWith"; readonly label: number; readonly clearMethod: "none" | "unmap" | "write_zeroes" }
  | { readonly _tag: "List" }
  | { readonly _tag: "Set"; readonly key: number; readonly lengthBytes: number }
  | { readonly _tag: "Get" | "Remove" | "Modify"; readonly key: number }
  | { readonly _tag: "Clear" | "Size" }

/** The disk below blobs, the disk that is copied to, the disk of the store, and none at all. */
export type BdevRole = "outer" | "target" | "disk" | "none"

export interface Step {
  readonly action: Action
  /** In the store of the other disk. */
  readonly elsewhere?: boolean
  /** Virtual microseconds before it begins. */
  readonly delayMicros: number
  /** Interrupts it after so long, 0 at its first chance; undefined: not. */
  readonly interruptMicros: number | undefined
}

export interface Life {
  readonly fibers: ReadonlyArray<ReadonlyArray<Step>>
  readonly fault: FaultKind
  readonly faultChance: number
  /** Requests to the disk until the end comes; undefined: the end is a clean one. */
  readonly crashAfter: number | undefined
  readonly crash: "cut" | "kill" | "unplug"
  /** From where the requests are counted. */
  readonly crashFrom: "load" | "work"
  /** How the store is loaded. Default: as it is. */
  readonly load?: LoadPlan
  /** Of the errors. Default EIO. */
  readonly errno?: number
}

export interface LoadPlan {
  readonly forceRecover: boolean
  readonly grow: boolean
  /** By `Blobstore.make`. */
  readonly makes: boolean
  /** `Check.repair` comes first. */
  readonly repairs: boolean
}

export interface Plan {
  readonly seed: number
  readonly work: Work
  readonly clusters: number
  readonly clusterBytes: number
  readonly metadataPages: number
  readonly clearMethod: "unmap" | "write_zeroes" | "none"
  readonly yieldChance: number
  /** How many of the pages of metadata are taken before anything else, so that they run out. */
  readonly fillPages: boolean
  /** Other disks, beside that of the store: under blobs, and to copy to. */
  readonly outer?: boolean
  /** A store of its own on another disk. */
  readonly second?: boolean
  /** From the life of this index on the disk has so many clusters. */
  readonly enlarged?: { readonly life: number; readonly clusters: number }
  /** It ends without the load in which everything is deleted. */
  readonly isBrief?: boolean
  readonly lives: ReadonlyArray<Life>
}

export interface PlanOptions {
  readonly fault?: FaultKind | undefined
  readonly work?: Work | undefined
  /** Without what seeds do beyond reading, writing, sizes, snapshots and xattrs: those that failed before that are kept this way. */
  readonly plain?: boolean | undefined
}

/** The plan of a seed. */
export const planOf = (seed: number, options: PlanOptions = {}): Plan => {
  const chance = makeSimulation({ seed }).chance("plan")
  const work = options.work ?? chance.pick<Work>(["blobs", "blobs", "keys", "blobs", "both"])
  const clusterBytes = chance.pick([4096, 4096, 4096, 16_384])
  const isKeys = work !== "blobs"
  const labels = { next: 1, known: [] as Array<number>, snapshots: [] as Array<number> }
  const lives = Array.from({ length: chance.between(1, 4) }, () => lifeOf(chance, work, labels, options.fault))
  const plan: Plan = {
    seed,
    work,
    clusters: isKeys ? chance.pick([80, 128, 200]) : chance.pick([28, 40, 64, 128]),
    clusterBytes: isKeys ? 4096 : clusterBytes,
    metadataPages: isKeys ? 40 : chance.pick([10, 12, 14, 24]),
    clearMethod: chance.pick(["unmap", "unmap", "none", "write_zeroes"] as const),
    yieldChance: chance.pick([0, 0.01, 0.05, 0.2]),
    fillPages: !isKeys && chance.is(0.15),
    lives
  }
  if (options.plain === true) return plan
  const simulation = makeSimulation({ seed })
  return mixed(withMore(plan, simulation.chance("more")), simulation.chance("length"))
}

interface Labels {
  next: number
  readonly known: Array<number>
  readonly snapshots: Array<number>
}

const lifeOf = (chance: Chance, work: Work, labels: Labels, forced: FaultKind | undefined): Life => {
  const fibers = chance.between(1, 4)
  const steps = chance.between(4, 24)
  const fault = forced ?? chance.pick<FaultKind>(["none", "none", "none", ...faultKinds])
  const interrupts = chance.pick([0, 0, 0.1, 0.3])
  const all = Array.from({ length: fibers }, () => [] as Array<Step>)
  for (let i = 0; i < steps; i++) {
    const action =
      work === "keys" || (work === "both" && chance.is(0.5)) ? keyAction(chance) : blobAction(chance, labels)
    const step: Step = {
      action,
      delayMicros: chance.is(0.6) ? 0 : chance.below(1500),
      interruptMicros: chance.is(interrupts) ? chance.pick([0, chance.below(30), chance.below(1000)]) : undefined
    }
    all[chance.below(fibers)]?.push(step)
  }
  return {
    fibers: all,
    fault,
    faultChance: chance.pick([0.02, 0.1, 0.3]),
    crashAfter: chance.is(0.5) ? chance.pick([chance.below(40), chance.below(200)]) + 1 : undefined,
    crash: chance.is(0.75) ? "cut" : "kill",
    crashFrom: chance.is(0.2) ? "load" : "work"
  }
}

const blobAction = (chance: Chance, labels: Labels): Action => {
  const { known, snapshots } = labels
  const fresh = (): number => {
    const label = labels.next++
    known.push(label)
    return label
  }
  if (known.length === 0 || (known.length < 24 && chance.is(0.14))) {
    return {
      _tag: "Create",
      label: fresh(),
      clusters: chance.pick([0, 1, 2, 3, 4, 6, chance.below(30)]),
      thin: chance.is(0.65),
      extentTable: chance.is(0.75),
      padded: chance.is(0.15)
    }
  }
  // Mostly the young ones: the old ones may be gone.
  const label = chance.is(0.7) ? chance.pick(known.slice(-3)) : chance.pick(known)
  const turn = chance.below(100)
  if (turn < 34) {
    const isWhole = chance.is(0.4)
    return {
      _tag: chance.is(0.75) ? "Write" : chance.is(0.35) ? "Zero" : "Unmap",
      label,
      at: isWhole ? chance.below(8) * 32 : chance.below(256),
      length: isWhole ? 32 * chance.between(1, 2) : chance.between(1, 24),
      vectored: chance.is(0.3)
    }
  }
  if (turn < 48) {
    return { _tag: "Read", label, at: chance.below(256), length: chance.between(1, 40), vectored: chance.is(0.4) }
  }
  if (turn < 58) return { _tag: "Sync", label }
  if (turn < 64) return { _tag: "Resize", label, clusters: chance.pick([0, 1, 2, 4, chance.below(40)]) }
  if (turn < 70) {
    const made = fresh()
    snapshots.push(made)
    return { _tag: "Snapshot", label: made, from: label }
  }
  if (turn < 75 && snapshots.length > 0)
    return { _tag: "Clone", label: fresh(), from: chance.pick(snapshots.slice(-3)) }
  if (turn < 80) return { _tag: "Inflate", label }
  if (turn < 83) return { _tag: "Decouple", label }
  if (turn < 90)
    return { _tag: "Delete", label: chance.is(0.3) && snapshots.length > 0 ? chance.pick(snapshots) : label }
  if (turn < 93) return { _tag: "SetXattr", label }
  if (turn < 94) return { _tag: "RemoveXattr", label }
  if (turn < 96) return { _tag: "Hold", label }
  return turn < 98 ? { _tag: "List" } : { _tag: "Info", label }
}

const keyAction = (chance: Chance): Action => {
  const key = chance.below(5)
  const turn = chance.below(100)
  if (turn < 48) return { _tag: "Set", key, lengthBytes: chance.pick([4, 100, 1500, 2000, 9000, 17_000]) }
  if (turn < 74) return { _tag: "Get", key }
  if (turn < 84) return { _tag: "Remove", key }
  if (turn < 90) return { _tag: "Modify", key }
  return turn < 96 ? { _tag: "Clear" } : { _tag: "Size" }
}
