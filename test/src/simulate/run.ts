/** One plan from its first life to the end, and what it has shown. */
import * as BlobKeyValueStore from "@effect-spdk/blobstore/BlobKeyValueStore"
import * as Blobstore from "@effect-spdk/blobstore/Blobstore"
import * as Check from "@effect-spdk/blobstore/Check"
import * as Bdev from "@effect-spdk/core/Bdev"
import * as SimulatedDisk from "@effect-spdk/core/SimulatedDisk"
import * as Simulation from "@effect-spdk/core/Simulation"
import * as Spdk from "@effect-spdk/core/Spdk"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as References from "effect/References"
import type * as Scope from "effect/Scope"
import { BlobModel } from "./blobModel.ts"
import { BlobWork } from "./blobWork.ts"
import { KeyModel, KeyWork } from "./keyWork.ts"
import type { Action, Life, Plan, Step } from "./plan.ts"
import { endOf, Watch } from "./violation.ts"

export interface Result {
  readonly violations: ReadonlyArray<string>
  readonly lines: ReadonlyArray<string>
  /** The same for the same plan. */
  readonly trace: string
  readonly steps: number
  readonly requests: number
  /** What the disk holds at the end, when it was asked for. */
  readonly image: Uint8Array | undefined
}

export interface RunOptions {
  readonly log?: boolean
  readonly image?: boolean
}

const engine = Spdk.layerEmbedded({ memoryMiB: 64 })

/** Everything ends within this much virtual time. */
const bound = "10 minutes"
const maxSteps = 400_000
const isKeyAction: ReadonlySet<Action["_tag"]> = new Set<Action["_tag"]>([
  "Set",
  "Get",
  "Remove",
  "Modify",
  "Clear",
  "Size"
])
const EIO = 5

/** Super block, masks and pages: at least all of the metadata, and not much more. */
const metadataBytesOf = (plan: Plan): number => (plan.metadataPages + 4) * 4096

export const run = (plan: Plan, options: RunOptions = {}): Result => new Run(plan, options).all()

class Run {
  private readonly plan: Plan
  private readonly options: RunOptions
  private readonly simulation: Simulation.Simulation
  private readonly disk: SimulatedDisk.SimulatedDisk
  private readonly watch: Watch
  private readonly blobs: BlobModel
  private readonly keys: KeyModel
  /** Errors came at the metadata, so that what is in memory is not all that the device refers to. */
  private isSuspect = false

  constructor(plan: Plan, options: RunOptions) {
    this.plan = plan
    this.options = options
    this.simulation = Simulation.make({ seed: plan.seed, yieldChance: plan.yieldChance })
    this.disk = SimulatedDisk.make(this.simulation, {
      sizeBytes: plan.clusters * plan.clusterBytes,
      // SPDK's format counts on pages of metadata that are written whole. Data are torn at 512.
      atomic: { unitBytes: 4096, upToBytes: metadataBytesOf(plan) }
    })
    this.watch = new Watch(options.log === true, this.simulation.nowMicros)
    this.blobs = new BlobModel(plan.clusterBytes)
    this.keys = new KeyModel(this.blobs.time)
  }

  all(): Result {
    const { plan, watch } = this
    let isFirst = true
    for (const life of plan.lives) {
      this.life(life, isFirst)
      isFirst = false
      if (watch.violations.length > 0) break
    }
    if (watch.violations.length === 0) this.end()
    return {
      violations: watch.violations,
      lines: watch.lines ?? [],
      trace: this.simulation.trace,
      steps: this.simulation.steps,
      requests: this.disk.requests,
      image: this.options.image === true ? this.disk.contents() : undefined
    }
  }

  private life(life: Life, isFirst: boolean): void {
    const { disk, watch } = this
    watch.hasFaults = false
    this.isSuspect = false
    this.calm()
    if (!isFirst && !this.load()) return
    const cutAt = life.crashAfter === undefined ? Infinity : disk.requests + life.crashAfter
    watch.log(
      `a life with faults "${life.fault}"${life.crashAfter === undefined ? "" : `, ${life.crash} after ${life.crashAfter} requests`}`
    )
    const outcome = this.within(
      Effect.gen({ self: this }, function* () {
        const store = isFirst ? yield* this.init : yield* Blobstore.load()
        if (isFirst && this.plan.fillPages) yield* this.fillPages(store)
        const keys = this.plan.work === "blobs" ? undefined : yield* this.openKeys(store)
        const work = new BlobWork(store, this.blobs, watch)
        this.stir(life, cutAt)
        yield* Effect.forEach(life.fibers, (steps) => this.fiber(steps, work, keys), {
          concurrency: "unbounded",
          discard: true
        })
        this.calm()
        watch.log("calm")
        const isSuspect = this.isSuspect
        yield* work.verify(isOfKeys)
        if (keys !== undefined) yield* keys.verify
        if (!isSuspect && !work.hasLost && work.allocated !== work.used) {
          watch.violated(`${work.used} clusters are taken, and ${work.allocated} of them are a blob's`)
        }
      })
    )
    this.calm()
    if (outcome.ending === "stopped") {
      watch.log(`the end by ${life.crash}`)
      this.blobs.crash()
      this.keys.crash()
      return
    }
    this.judge("a life", outcome)
    this.keys.closed()
    // What was not synced is, by the end of the scope; where that could not be written, it was said by a defect.
    if (!watch.hasFaults) this.blobs.settled()
    else {
      this.blobs.crash()
      this.keys.crash()
    }
  }

  /** What a load makes of the image: nothing is made to fail. */
  private load(): boolean {
    const { watch } = this
    watch.log("load and verify")
    this.judge(
      "the check",
      this.within(
        Effect.map(Check.check, (report) => {
          for (const { message, severity } of report.findings) {
            if (severity === "error") watch.violated(`check before the load: ${message}`)
          }
        }),
        false
      )
    )
    let work: BlobWork | undefined
    this.judge(
      "the load",
      this.within(
        Effect.gen({ self: this }, function* () {
          const store = yield* Blobstore.load()
          work = new BlobWork(store, this.blobs, watch)
          yield* work.verify(isOfKeys)
          if (work.allocated !== work.used) {
            watch.violated(`after a load ${work.used} clusters are taken, and ${work.allocated} of them are a blob's`)
          }
          if (this.plan.work === "blobs") return
          const keys = yield* this.openKeys(store)
          if (keys !== undefined) yield* keys.verify
        })
      )
    )
    this.blobs.settled()
    return watch.violations.length === 0
  }

  /** Everything is loaded once more, found clean, and given back. */
  private end(): void {
    const { watch } = this
    this.calm()
    watch.hasFaults = false
    if (!this.load()) return
    this.judge(
      "the last check",
      this.within(
        Effect.map(Check.check, (report) => {
          for (const { message, severity } of report.findings) {
            if (severity !== "info") watch.violated(`check after an unload: ${message}`)
          }
        }),
        false
      )
    )
    if (this.options.image === true || watch.violations.length > 0) return
    this.judge("the last life", this.within(Effect.flatMap(Blobstore.load(), removeAll(watch))))
  }

  private readonly init = Effect.suspend(() =>
    Blobstore.init({
      clusterSize: this.plan.clusterBytes,
      metadataPages: this.plan.metadataPages,
      clearMethod: this.plan.clearMethod
    })
  )

  private openKeys(store: Blobstore.Blobstore) {
    return BlobKeyValueStore.make({ segmentSize: 65_536, largeValueSize: 8192 }).pipe(
      Effect.provideService(Blobstore.Blobstore, store),
      Effect.map((made) => new KeyWork(made, this.keys, this.watch)),
      // Beside blobs that take everything there may be no room for a segment.
      Effect.catchIf(
        ({ reason }) => this.plan.work === "both" && (reason._tag === "NoSpace" || reason._tag === "NoMemory"),
        () => Effect.sync(() => void this.watch.log("no room to open the key-value store"))
      )
    )
  }

  /** Leaves one page of metadata or two. */
  private readonly fillPages = Effect.fnUntraced(function* (this: Run, store: Blobstore.Blobstore) {
    const work = new BlobWork(store, this.blobs, this.watch)
    for (let i = 0; i < this.plan.metadataPages - 6; i++) {
      yield* work.perform({
        _tag: "Create",
        label: 1000 + i,
        clusters: 0,
        thin: true,
        extentTable: false,
        padded: false
      })
    }
  })

  private fiber(steps: ReadonlyArray<Step>, work: BlobWork, keys: KeyWork | undefined) {
    return Effect.forEach(steps, (step) => this.step(step, work, keys), { discard: true })
  }

  private step({ action, delayMicros, interruptMicros }: Step, work: BlobWork, keys: KeyWork | undefined) {
    const performed = isKeyAction.has(action._tag) ? (keys?.perform(action) ?? Effect.void) : work.perform(action)
    const delayed = delayMicros === 0 ? Effect.void : Effect.sleep(`${delayMicros} micros`)
    if (interruptMicros === undefined) return Effect.andThen(delayed, Effect.uninterruptible(performed))
    return Effect.gen({ self: this }, function* () {
      yield* delayed
      const fiber = yield* Effect.forkDetach(Effect.uninterruptible(performed), { startImmediately: true })
      this.simulation.after(interruptMicros, () => fiber.interruptUnsafe())
      yield* Fiber.await(fiber)
    })
  }

  /** An engine, the disk, and the bdev, for as long as the program lasts. What is held at the end is nothing. */
  private within<A, E>(
    program: Effect.Effect<A, E, Bdev.Bdev | Spdk.Services | Scope.Scope>,
    write = true
  ): Simulation.Outcome<A, unknown> {
    const { disk, simulation, watch } = this
    const body = Effect.gen(function* () {
      const spdk = yield* Spdk.Spdk
      const before = yield* spdk.usage
      const result = yield* Effect.scoped(
        Effect.gen(function* () {
          const bdev = yield* Bdev.open(yield* SimulatedDisk.attach(disk), { write })
          return yield* Effect.scoped(Effect.provideService(program, Bdev.Bdev, bdev))
        })
      )
      const after = yield* spdk.usage
      for (const [name, count] of Object.entries(after)) {
        const start = Object.entries(before).find(([other]) => other === name)?.[1]
        if (count !== start) watch.violated(`usage: ${name} was ${start}, and is ${count}`)
      }
      return result
    }).pipe(Effect.provide(engine), Effect.provideService(References.MinimumLogLevel, "None"))
    return simulation.run(body, { maxSteps, maxTime: bound })
  }

  private judge(what: string, outcome: Simulation.Outcome<unknown, unknown>): void {
    const { watch } = this
    if (outcome.ending !== "done") {
      watch.violated(
        `${what} ended as ${outcome.ending}${outcome.ending === "threw" ? `: ${String(outcome.thrown)}` : ""}`
      )
      return
    }
    if (outcome.exit?._tag === "Failure") {
      const end = endOf(outcome.exit.cause)
      watch.log(Cause.pretty(outcome.exit.cause))
      // A store that could not be written at its end says so by dying.
      if (!(watch.hasFaults && end.startsWith("died"))) watch.violated(`${what} ended with ${end}`)
      else watch.log(`${what} ended with ${end}`)
    }
    if (outcome.left.tasks > 0) watch.violated(`${what} left ${outcome.left.tasks} tasks`)
  }

  private calm(): void {
    const { disk, simulation } = this
    disk.onRequest = undefined
    disk.faults.error = disk.faults.retry = disk.faults.delay = 0
    simulation.memoryFailureChance = 0
  }

  private stir(life: Life, cutAt: number): void {
    const { disk, plan, simulation, watch } = this
    const chance = simulation.chance("faults")
    const { fault, faultChance } = life
    if (fault === "memory") {
      simulation.memoryFailureChance = faultChance
      watch.hasFaults = true
      this.isSuspect = true
    }
    if (fault === "retry") disk.faults.retry = faultChance
    if (fault === "delay") disk.faults.delay = faultChance
    const metadataBytes = metadataBytesOf(plan)
    disk.onRequest = ({ number, offsetBytes, operation }) => {
      if (number === cutAt) {
        if (life.crash === "cut") return { _tag: "Cut" }
        disk.killProcess()
        return undefined
      }
      const isData = offsetBytes >= metadataBytes && operation !== "flush"
      if ((fault === "errors" || (fault === "data" && isData)) && chance.is(faultChance)) {
        watch.hasFaults = true
        if (!isData) this.isSuspect = true
        watch.log(`the disk fails ${operation} at ${offsetBytes}`)
        return { _tag: "Errno", errno: EIO }
      }
      return undefined
    }
  }
}

const isOfKeys = (xattrs: ReadonlyMap<string, Uint8Array>): boolean =>
  [...xattrs.keys()].some((name) => name.startsWith("kv."))

/** Takes everything away: the space comes back whole. */
const removeAll = (watch: Watch) => (store: Blobstore.Blobstore) =>
  Effect.gen(function* () {
    for (let left = Infinity; ;) {
      const ids = yield* store.ids
      if (ids.length === 0) break
      if (ids.length >= left) return watch.violated(`${ids.length} blobs cannot be deleted`)
      left = ids.length
      for (const id of ids) {
        const exit = yield* Effect.exit(store.delete(id))
        if (exit._tag === "Success") continue
        const end = endOf(exit.cause)
        // One clone that has been resized keeps its snapshot until it is inflated, or gone.
        if (end !== "Busy") watch.violated(`delete at the end: ${end}`)
      }
    }
    const { freeClusters, totalClusters } = yield* store.info
    if (freeClusters !== totalClusters) watch.violated(`${totalClusters - freeClusters} clusters are lost at the end`)
  })
