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
import type { Action, Life, LoadPlan, Plan, Step } from "./plan.ts"
import { outerClusters, outerContents, StoreWork } from "./storeWork.ts"
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
  /** And what lies under its blobs. */
  readonly outer: Uint8Array | undefined
}

export interface RunOptions {
  readonly log?: boolean
  readonly image?: boolean
}

const engine = Spdk.layerEmbedded({ memoryMiB: 64 })

/** Nobody reads logs and spans of thousands of runs. */
const quiet = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  effect.pipe(
    Effect.provideService(References.MinimumLogLevel, "None"),
    Effect.provideService(References.TracerEnabled, false)
  )

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
/** Of the super block: the first page of metadata. */
const mdStartOffset = 48

/** Super block, masks and pages: at least all of the metadata, and not much more. */
const metadataBytesOf = (plan: Plan): number => (plan.metadataPages + 4) * 4096

export const run = (plan: Plan, options: RunOptions = {}): Result => {
  const { stackTraceLimit } = Error
  // Most of them are expected, and nobody looks.
  Error.stackTraceLimit = options.log === true ? stackTraceLimit : 0
  try {
    return new Run(plan, options).all()
  } finally {
    Error.stackTraceLimit = stackTraceLimit
  }
}

class Run {
  private readonly plan: Plan
  private readonly options: RunOptions
  private readonly simulation: Simulation.Simulation
  private readonly disk: SimulatedDisk.SimulatedDisk
  private readonly watch: Watch
  private readonly blobs: BlobModel
  private readonly keys: KeyModel
  /** Under blobs, and to copy to. */
  private readonly others: ReadonlyArray<SimulatedDisk.SimulatedDisk>
  /** Errors came at the metadata, so that what is in memory is not all that the device refers to. */
  private isSuspect = false
  /** The last life ended with a disk that still had its cache. */
  private isCached = false
  private crash: (number: number) => SimulatedDisk.Fault | undefined = () => undefined

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
    this.others = plan.outer === true ? this.makeOthers() : []
    this.blobs = new BlobModel(plan.clusterBytes, plan.clusters)
    this.keys = new KeyModel(this.blobs.time)
  }

  private makeOthers(): ReadonlyArray<SimulatedDisk.SimulatedDisk> {
    const { plan, simulation } = this
    const sizeBytes = outerClusters * plan.clusterBytes
    return [
      SimulatedDisk.make(simulation, { name: "outer", sizeBytes, contents: outerContents(sizeBytes) }),
      SimulatedDisk.make(simulation, { name: "target", sizeBytes: 16 * plan.clusterBytes })
    ]
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
      image: this.options.image === true ? this.disk.contents() : undefined,
      outer: this.others[0]?.contents()
    }
  }

  private life(life: Life, isFirst: boolean): void {
    const { watch } = this
    const { enlarged } = this.plan
    watch.hasFaults = false
    this.isSuspect = false
    this.calm()
    if (enlarged !== undefined && this.plan.lives[enlarged.life] === life) {
      this.disk.enlarge(enlarged.clusters * this.plan.clusterBytes)
    }
    const end =
      life.crashAfter === undefined ? "" : `, ${life.crash} after ${life.crashAfter} requests of its ${life.crashFrom}`
    watch.log(`a life with faults "${life.fault}"${end}`)
    let hasLost = false
    const outcome = this.within(
      Effect.gen({ self: this }, function* () {
        if (!isFirst) yield* this.check("before the load", "error")
        if (life.crashFrom === "load" && !isFirst) this.arm(life)
        if (life.load?.repairs === true && !isFirst) yield* this.repair
        const { keys, work } = yield* this.start(isFirst, life.load)
        const all = new StoreWork(work, yield* Bdev.Bdev, this.others[1])
        if (isFirst && this.plan.fillPages) yield* this.fillPages(work)
        watch.log("work")
        this.stir(life, life.crashFrom === "work" || isFirst)
        yield* Effect.forEach(life.fibers, (steps) => this.fiber(steps, all, keys), {
          concurrency: "unbounded",
          discard: true
        })
        this.calm()
        watch.log("calm")
        if (watch.isGone) return
        yield* work.verify(isOfKeys)
        yield* all.getSuper
        if (keys !== undefined) yield* keys.verify
        // Compaction of a key-value store goes on behind it.
        const isComplete = !this.isSuspect && !work.hasLost && keys === undefined
        if (isComplete) this.compareSpace(work, "at the end of the work")
        hasLost = work.hasLost
      })
    )
    this.calm()
    const { isGone } = watch
    watch.isGone = false
    if (isGone) {
      // What has ended has ended well, and nothing dies of it.
      if (outcome.exit?._tag === "Failure")
        watch.violated(`without a disk a life ended with ${endOf(outcome.exit.cause)}`)
      this.judge("a life without a disk", outcome)
    }
    if (outcome.ending === "stopped" || isGone) {
      watch.log(`the end by ${life.crash}`)
      this.blobs.crash()
      this.keys.crash()
      this.isCached = life.crash !== "cut"
      return
    }
    this.judge("a life", outcome)
    this.keys.closed()
    // What was not synced is, by the end of the scope; where that could not be written, it was said by a defect.
    this.isCached = watch.hasFaults || hasLost
    if (!this.isCached) this.blobs.settled()
    else {
      this.blobs.crash()
      this.keys.crash()
    }
  }

  /** The store, made or loaded, and what a load made of the image: nothing is made to fail. */
  private readonly start = Effect.fnUntraced(function* (this: Run, isFirst: boolean, plan?: LoadPlan) {
    const store = isFirst ? yield* this.init : yield* this.load(plan)
    const work = new BlobWork(store, this.blobs, this.watch)
    if (!isFirst) {
      yield* work.verify(isOfKeys)
      this.compareSpace(work, "after a load")
    }
    const keys = this.plan.work === "blobs" ? undefined : yield* this.openKeys(store)
    if (!isFirst && keys !== undefined) yield* keys.verify
    // After a power cut there is no cache whose content could still be lost.
    if (!isFirst && !this.isCached) this.blobs.settled()
    return { store, work, keys }
  })

  private readonly load = Effect.fnUntraced(function* (this: Run, plan: LoadPlan | undefined) {
    if (plan === undefined) return yield* Blobstore.load()
    const { blobs, disk, watch } = this
    const { forceRecover, grow, makes } = plan
    watch.log(`load ${JSON.stringify(plan)}`)
    const change = grow ? blobs.clusters.begin(disk.sizeBytes / this.plan.clusterBytes) : undefined
    let last = 0
    const onProgress = ({ done, total = Infinity }: Blobstore.LoadProgress) => {
      if (done < last || done > total) watch.violated(`loading is at ${done} of ${total}, and was at ${last}`)
      last = done
    }
    const options = { forceRecover, grow, onProgress, type: "simulated" }
    const wrong = yield* Effect.exit(Effect.scoped(Blobstore.load({ type: "another" })))
    if (wrong._tag === "Success" || endOf(wrong.cause) !== "WrongType") watch.violated("a store of another type loads")
    const store = yield* makes ? Blobstore.make({ ...options, onEmpty: "init" }) : Blobstore.load(options)
    change?.succeed()
    blobs.clusters.durableSince(blobs.time.next())
    return store
  })

  /** Before a load: what is not damaged is as good as before, and clean. */
  private readonly repair = Effect.suspend(() =>
    Effect.map(Check.repair, ({ actions, after }) => {
      this.watch.log(`repaired: ${actions.length} actions`)
      for (const { _tag, message } of after.findings) {
        if (_tag === "StalePages" || (_tag === "SuperBlobMissing" && this.blobs.mayMissSuperBlob)) continue
        this.watch.violated(`after a repair: ${message}`)
      }
    })
  )

  private compareSpace({ allocated, used }: BlobWork, when: string): void {
    if (allocated !== used) {
      this.watch.violated(`${when} ${used} clusters are taken, and ${allocated} of them are a blob's`)
    }
  }

  private check(when: string, most: "error" | "warning") {
    return Effect.map(Check.check, (report) => {
      for (const finding of report.findings) {
        const { message, severity } = finding
        if (finding._tag === "SuperBlobMissing" && this.blobs.mayMissSuperBlob) continue
        if (severity === "error" || severity === most) this.watch.violated(`check ${when}: ${message}`)
      }
    })
  }

  /** Everything is loaded once more and found clean, and given back. */
  private end(): void {
    const { watch } = this
    this.calm()
    watch.hasFaults = false
    const load = Effect.andThen(
      this.check("before the load", "error"),
      Effect.suspend(() => this.start(false))
    )
    const isBrief = this.plan.isBrief === true
    const all = isBrief ? Effect.andThen(Effect.scoped(load), this.check("after an unload", "warning")) : load
    this.judge("the last load", this.within(all))
    if (watch.violations.length > 0) return
    this.decay()
    if (isBrief) return
    const last = this.options.image === true ? Effect.void : Effect.flatMap(Blobstore.load(), removeAll(watch))
    this.judge("the last life", this.within(Effect.andThen(this.check("after an unload", "warning"), last)))
  }

  /** One bit of the first page of a blob is another: a check warns of that, at least. */
  private decay(): void {
    const { blobs, disk, simulation, watch } = this
    const chance = simulation.chance("decay")
    const found = [...blobs.blobs.values()].flatMap(({ exists, id }) =>
      id !== undefined && exists.possible().every(Boolean) ? [id] : []
    )
    if (found.length === 0 || chance.is(0.5)) return
    const image = disk.contents()
    if (chance.is(0.5)) this.leaveDirty()
    const firstPage = new DataView(image.buffer).getUint32(mdStartOffset, true)
    const id = chance.pick(found)
    disk.flipBit((firstPage + (id % 2 ** 32)) * 4096 + chance.below(4096), chance.below(8))
    watch.log(`one bit of the first page of blob ${id} is flipped`)
    this.judge(
      "the check of a flipped bit",
      this.within(
        Effect.map(Check.check, ({ findings }) => {
          if (findings.every(({ _tag, severity }) => _tag === "SuperBlobMissing" || severity === "info"))
            watch.violated(`check warns of nothing although a bit of blob ${id} is flipped`)
        })
      )
    )
    disk.restore(image)
  }

  /** The store is loaded and not unloaded: the masks are those of before. */
  private leaveDirty(): void {
    const { disk } = this
    this.within(
      Effect.gen(function* () {
        const store = yield* Blobstore.load()
        yield* Effect.exit(store.createId({ clusters: 0 }))
        disk.killProcess()
        return yield* Effect.never
      })
    )
  }

  private readonly init = Effect.suspend(() =>
    Blobstore.init({
      clusterSize: this.plan.clusterBytes,
      metadataPages: this.plan.metadataPages,
      type: "simulated",
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

  /** Leaves a few pages of metadata. */
  private readonly fillPages = Effect.fnUntraced(function* (this: Run, work: BlobWork) {
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

  private fiber(steps: ReadonlyArray<Step>, work: StoreWork, keys: KeyWork | undefined) {
    return Effect.forEach(steps, (step) => this.step(step, work, keys), { discard: true })
  }

  private step({ action, delayMicros, interruptMicros }: Step, work: StoreWork, keys: KeyWork | undefined) {
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
    const { disk, others, simulation, watch } = this
    const body = Effect.gen(function* () {
      const spdk = yield* Spdk.Spdk
      const before = yield* spdk.usage
      const result = yield* Effect.scoped(
        Effect.gen(function* () {
          for (const other of others) yield* SimulatedDisk.attach(other)
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
    }).pipe(Effect.provide(engine), quiet)
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
    this.crash = () => undefined
    disk.faults.error = disk.faults.retry = disk.faults.delay = 0
    simulation.memoryFailureChance = 0
  }

  /** Power or process go after so many requests from here on. */
  private arm(life: Life): void {
    const { disk } = this
    const cutAt = life.crashAfter === undefined ? Infinity : disk.requests + life.crashAfter
    this.crash = (number) => {
      if (number !== cutAt) return undefined
      if (life.crash === "cut") return { _tag: "Cut" }
      if (life.crash === "kill") disk.killProcess()
      else this.unplug()
      return undefined
    }
    disk.onRequest = ({ number }) => this.crash(number)
  }

  private unplug(): void {
    const { disk, simulation, watch } = this
    simulation.after(1, () => {
      watch.log("the disk is unplugged")
      watch.hasFaults = true
      watch.isGone = true
      disk.unplug()
    })
  }

  private stir(life: Life, arms: boolean): void {
    const { disk, plan, simulation, watch } = this
    const chance = simulation.chance("faults")
    const { fault, faultChance } = life
    if (arms) this.arm(life)
    if (fault === "memory") {
      simulation.memoryFailureChance = faultChance
      watch.hasFaults = true
      this.isSuspect = true
    }
    if (fault === "retry") disk.faults.retry = faultChance
    if (fault === "delay") disk.faults.delay = faultChance
    const metadataBytes = metadataBytesOf(plan)
    disk.onRequest = ({ number, offsetBytes, operation }) => {
      const crash = this.crash(number)
      if (crash !== undefined) return crash
      const isData = offsetBytes >= metadataBytes && operation !== "flush"
      if ((fault === "errors" || (fault === "data" && isData)) && chance.is(faultChance)) {
        watch.hasFaults = true
        if (!isData) this.isSuspect = true
        watch.log(`the disk fails ${operation} at ${offsetBytes}`)
        return { _tag: "Errno", errno: life.errno ?? EIO }
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
