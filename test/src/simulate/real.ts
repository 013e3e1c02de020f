/**
 * The plans of the simulation on a real engine, where nothing but the plan is by the seed: fibers on two threads, a bdev in memory,
 * each life from a load to a clean end. For what cannot be simulated, SPDK's own blobstore.
 */
import * as Blobstore from "@effect-spdk/blobstore/Blobstore"
import * as Check from "@effect-spdk/blobstore/Check"
import * as Bdev from "@effect-spdk/core/Bdev"
import * as SpdkThread from "@effect-spdk/core/SpdkThread"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as References from "effect/References"
import { BlobModel } from "./blobModel.ts"
import { BlobWork } from "./blobWork.ts"
import type { Action, Life, Plan, Step } from "./plan.ts"
import { outerClusters, outerContents, StoreWork } from "./storeWork.ts"
import { endOf, Watch } from "./violation.ts"

/** Steps of a plan that are turns here: nobody waits for a clock. */
const microsPerTurn = 100
const mostTurns = 15

export interface RealResult {
  readonly violations: ReadonlyArray<string>
  readonly lines: ReadonlyArray<string>
}

/** SPDK leaves what is in a cluster that no clear method takes away, and thin blobs show it. */
const cleared = (action: Action): Action =>
  action._tag === "Create" && action.clearMethod === "none" ? { ...action, clearMethod: "unmap" } : action

const turns = (micros: number): Effect.Effect<void> =>
  Effect.yieldNow.pipe(Effect.repeat({ times: Math.min(mostTurns, Math.ceil(micros / microsPerTurn)) }))

const stepOf = ({ action, delayMicros, interruptMicros }: Step, work: StoreWork) => {
  const performed = Effect.uninterruptible(work.perform(cleared(action)))
  const begun = delayMicros === 0 ? performed : Effect.andThen(turns(delayMicros), performed)
  if (interruptMicros === undefined) return begun
  return Effect.gen(function* () {
    const fiber = yield* Effect.forkDetach(begun, { startImmediately: true })
    if (interruptMicros > 0) yield* turns(interruptMicros)
    fiber.interruptUnsafe()
    yield* Fiber.await(fiber)
  })
}

/**
 * For all blobs and their xattrs: without a page left SPDK cannot write metadata that it has changed already, and the store stops, which
 * `blobFailStop` and `blobTrouble` test.
 */
const enoughPages = 48

const endOfWork = "at the end of the work"

const nobody = (): boolean => false

class RealRun {
  readonly watch: Watch
  private readonly plan: Plan
  private readonly driver: Blobstore.DriverKind
  private readonly clusters: number
  private readonly blobs: BlobModel

  constructor(plan: Plan, driver: Blobstore.DriverKind, isLogged: boolean) {
    this.plan = plan
    this.driver = driver
    this.watch = new Watch(isLogged, () => performance.now() * 1000)
    // The pages that the plan does not have are on clusters that it does not have.
    const more = Math.ceil(((enoughPages - plan.metadataPages) * 4096) / plan.clusterBytes)
    this.clusters = plan.clusters + more
    this.blobs = new BlobModel(plan.clusterBytes, this.clusters)
  }

  readonly all = Effect.fnUntraced(function* (this: RealRun) {
    const { plan, watch } = this
    const numBlocks = (this.clusters * plan.clusterBytes) / 512
    const bdev = yield* Bdev.open(yield* Bdev.createMalloc({ numBlocks, blockSize: 512 }), { write: true })
    if (plan.outer === true) yield* this.makeOuter()
    const threads = yield* Effect.forEach(["one", "other"], (name) => SpdkThread.spawn({ name: `work-${name}` }))
    const on = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.provideService(effect, Bdev.Bdev, bdev)
    for (const [index, life] of plan.lives.entries()) {
      watch.log("a life")
      const exit = yield* Effect.exit(Effect.scoped(on(this.life(life, index === 0, bdev, threads))))
      if (exit._tag === "Failure") watch.violated(`a life ended with ${endOf(exit.cause)}`)
      if (watch.violations.length > 0) return
      this.blobs.settled()
      yield* on(this.check)
    }
    yield* Effect.scoped(on(Effect.flatMap(this.open(false), (work) => this.verify(work, "after the last load"))))
  })

  private readonly makeOuter = Effect.fnUntraced(function* (this: RealRun) {
    const sizeBytes = outerClusters * this.plan.clusterBytes
    const name = yield* Bdev.createMalloc({ name: "outer", numBlocks: sizeBytes / 512, blockSize: 512 })
    yield* Effect.scoped(
      Effect.flatMap(Bdev.open(name, { write: true }), (bdev) => bdev.writeBytes(0, outerContents(sizeBytes)))
    )
  })

  private readonly life = Effect.fnUntraced(function* (
    this: RealRun,
    life: Life,
    isFirst: boolean,
    bdev: Bdev.Bdev,
    threads: ReadonlyArray<SpdkThread.SpdkThread>
  ) {
    const work = yield* this.open(isFirst, life)
    if (!isFirst) yield* this.verify(work, "after a load")
    const all = new StoreWork(work, bdev, undefined)
    yield* Effect.forEach(
      life.fibers,
      (steps, index) => {
        const thread = threads[index % threads.length]
        const fiber = Effect.forEach(steps, (step) => stepOf(step, all), { discard: true })
        return thread === undefined ? fiber : SpdkThread.on(fiber, thread)
      },
      { concurrency: "unbounded", discard: true }
    )
    this.watch.log("calm")
    yield* this.verify(work, endOfWork)
    yield* all.getSuper
  })

  private readonly open = Effect.fnUntraced(function* (this: RealRun, isFirst: boolean, life?: Life) {
    const { driver, plan } = this
    const { clusterBytes: clusterSize } = plan
    const clearMethod = plan.clearMethod === "none" ? "unmap" : plan.clearMethod
    const store = isFirst
      ? yield* Blobstore.init({ driver, clusterSize, metadataPages: enoughPages, clearMethod, type: "simulated" })
      : yield* Blobstore.load({ driver, type: "simulated", forceRecover: life?.load?.forceRecover })
    return new BlobWork(store, this.blobs, this.watch)
  })

  private readonly verify = Effect.fnUntraced(function* (this: RealRun, work: BlobWork, when: string) {
    yield* work.verify(nobody)
    const { allocated, used } = work
    // What a creation that failed has taken SPDK gives back at the next load.
    const isLeft = this.driver === "libspdk" && when === endOfWork
    if (allocated !== used && !isLeft)
      this.watch.violated(`${when} ${used} clusters are taken, and ${allocated} are a blob's`)
  })

  private readonly check = Effect.suspend(() =>
    Effect.map(Check.check, ({ findings }) => {
      for (const { _tag, message, severity } of findings) {
        if (severity === "info" || (_tag === "SuperBlobMissing" && this.blobs.mayMissSuperBlob)) continue
        // SPDK keeps the page of a first write that fails because the blob became read-only, until a recovery.
        if (_tag === "Lost" && this.driver === "libspdk") continue
        this.watch.violated(`check after an unload: ${message}`)
      }
    })
  )
}

/** Nothing is made to fail, so that a plan's faults and crashes are not in it. */
export const runReal = (plan: Plan, driver: Blobstore.DriverKind, options: { readonly log?: boolean } = {}) =>
  Effect.gen(function* () {
    const run = new RealRun(plan, driver, options.log === true)
    yield* Effect.scoped(run.all())
    const result: RealResult = { violations: run.watch.violations, lines: run.watch.lines ?? [] }
    return result
  }).pipe(
    Effect.provideService(References.MinimumLogLevel, "None"),
    Effect.provideService(References.TracerEnabled, false)
  )
