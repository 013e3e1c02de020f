/** One plan of NVMe/TCP from its start to its end, and what it has shown. */
import * as Bdev from "@effect-spdk/core/Bdev"
import * as Nvme from "@effect-spdk/core/Nvme"
import * as NvmeBdev from "@effect-spdk/core/NvmeBdev"
import * as Rpc from "@effect-spdk/core/Rpc"
import * as Simulation from "@effect-spdk/core/Simulation"
import * as Model from "@effect-spdk/core/SimulationModel"
import * as Spdk from "@effect-spdk/core/Spdk"
import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as References from "effect/References"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import type { HostAction, NetPlan, NetStep, WorldAction } from "./netPlan.ts"
import { address, portOf, subnqn, Target } from "./netTarget.ts"
import { Wire } from "./netWire.ts"
import { clip, reads, Volume, writes } from "./netWork.ts"
import { endOf, Watch } from "./violation.ts"

export interface NetResult {
  readonly violations: ReadonlyArray<string>
  readonly lines: ReadonlyArray<string>
  readonly trace: string
  readonly steps: number
}

const hostnqn = "nqn.2014-08.org.nvmexpress:uuid:11111111-2222-4333-8444-555555555555"
const controllerName = "remote"
const bdevName = `${controllerName}n1`
const maxSteps = 3_000_000
const maxTime = "1 hour"
/** From the end of the faults on, everything ends within this much virtual time. */
const calmLimit = "5 minutes"

export const runNet = (plan: NetPlan, options: { readonly log?: boolean } = {}): NetResult => {
  const { stackTraceLimit } = Error
  Error.stackTraceLimit = options.log === true ? stackTraceLimit : 0
  try {
    return new NetRun(plan, options.log === true).all()
  } finally {
    Error.stackTraceLimit = stackTraceLimit
  }
}

/** A handle that a fiber keeps from one step to the next. */
interface Held {
  scope: Scope.Closeable | undefined
  bdev: Bdev.Bdev | undefined
  /** Of the volume that it is. */
  uuid: string | undefined
}

class NetRun {
  private readonly plan: NetPlan
  private readonly simulation: Simulation.Simulation
  private readonly watch: Watch
  private readonly wire: Wire
  private readonly time = Model.makeTime()
  private readonly volumes: readonly [Volume, Volume]
  private readonly canFail: boolean
  private readonly isSteady: boolean
  private expectedConnects = 0
  private nextStamp = 1
  private hostScope: Scope.Closeable | undefined = undefined
  private controller: NvmeBdev.AttachedController | undefined = undefined
  private discovery: NvmeBdev.Discovery | undefined = undefined
  private readonly attaching = Semaphore.makeUnsafe(1)
  private readonly targetTurn = Semaphore.makeUnsafe(1)

  constructor(plan: NetPlan, isLogged: boolean) {
    this.plan = plan
    this.simulation = Simulation.make({ seed: plan.seed, yieldChance: plan.yieldChance })
    this.watch = new Watch(isLogged, this.simulation.nowMicros)
    this.wire = new Wire((message) => this.watch.violated(message))
    this.volumes = [
      new Volume(this.simulation, this.time, "first", 1, plan.sectors),
      new Volume(this.simulation, this.time, "other", 2, plan.sectors)
    ]
    // A connection that was made takes at least as long as what is left of the one before it.
    this.simulation.network.latencyMicros = { least: 60, most: 200 }
    this.simulation.network.onPassage = this.wire.onPassage
    this.canFail = mayFail(plan)
    this.isSteady = plan.fault === "slow" || plan.fault === "still"
  }

  all(): NetResult {
    const { simulation, watch } = this
    const outcome = simulation.run(heard(watch, this.program), { maxSteps, maxTime })
    if (outcome.ending !== "done") {
      const why = outcome.ending === "threw" ? `: ${describe(outcome.thrown)}` : ""
      watch.violated(`the run ended as ${outcome.ending}${why}`)
    } else if (outcome.exit?._tag === "Failure") {
      watch.log(Cause.pretty(outcome.exit.cause))
      watch.violated(`the run ended with ${endOf(outcome.exit.cause)}`)
    } else if (outcome.left.tasks > 0) watch.violated(`the run left ${outcome.left.tasks} tasks`)
    return { violations: watch.violations, lines: watch.lines ?? [], trace: simulation.trace, steps: simulation.steps }
  }

  private readonly program = Effect.suspend(() =>
    Effect.gen({ self: this }, function* () {
      const { network } = this.simulation
      yield* Effect.scoped(this.whole)
      // Sockets linger for half a second.
      yield* Effect.sleep("5 seconds")
      if (network.connections > 0) this.watch.violated(`${network.connections} connections are left`)
      if (network.listening > 0) this.watch.violated(`${network.listening} listeners are left`)
    })
  )

  private readonly whole = Effect.suspend(() =>
    Effect.gen({ self: this }, function* () {
      const { plan, volumes } = this
      const scope = yield* Effect.scope
      const host = yield* this.engine("host")(scope)
      const hostBefore = yield* usageOf(host)
      const target = new Target(plan, volumes, plan.engines === 1 ? () => Effect.succeed(host) : this.engine("target"))
      yield* target.startEngine
      yield* target.startSubsystem
      yield* Effect.provideContext(this.hosts(target), host)
      yield* target.stopSubsystem
      if (plan.engines === 2) {
        const { engine } = target
        if (engine !== undefined) yield* this.compareUsage("target", engine, undefined)
      }
      yield* target.stopEngine
      yield* this.compareUsage("host", host, hostBefore)
      this.compareDisks()
    })
  )

  private readonly hosts = (target: Target) =>
    Effect.gen({ self: this }, function* () {
      const { plan, watch } = this
      yield* Rpc.call("bdev_nvme_set_options", { keep_alive_timeout_ms: plan.keepAliveMillis })
      yield* this.attach
      watch.log("work")
      this.stir()
      const fibers = yield* Effect.forkChild(
        Effect.forEach(plan.fibers, (steps, index) => this.fiber(steps, index), {
          concurrency: "unbounded",
          discard: true
        })
      )
      yield* Effect.forEach(plan.world, (step) => this.worldStep(step, target), { discard: true })
      if (plan.fastFailSeconds !== undefined) yield* this.awaitFastFail(fibers)
      this.calm()
      watch.log("calm")
      yield* this.targetTurn.withPermits(1)(
        target.provided(
          Effect.forEach(
            target.ana,
            (_, path) => Effect.andThen(target.setAna(path, "optimized"), target.listen(path)),
            {
              discard: true
            }
          )
        )
      )
      if ((yield* Effect.timeoutOption(Fiber.await(fibers), calmLimit))._tag === "None") {
        return watch.violated(`I/O has not ended ${calmLimit} after the last fault`)
      }
      if (this.isSteady && this.wire.adminConnects > this.expectedConnects) {
        watch.violated(`a controller was connected again, and no connection was lost: ${this.wire.adminConnects} times`)
      }
      yield* this.verify(target)
      yield* this.detach
    })

  /** I/O fails once its path is gone for so long, whatever the path does. */
  private readonly awaitFastFail = (fibers: Fiber.Fiber<unknown, unknown>) =>
    Effect.gen({ self: this }, function* () {
      const { fastFailSeconds = 0, world } = this.plan
      const seconds = (fastFailSeconds + 2) * (world.length + 4)
      const steps = Math.max(...this.plan.fibers.map(({ length }) => length))
      const limit = seconds + steps * (fastFailSeconds + 15)
      if ((yield* Effect.timeoutOption(Fiber.await(fibers), `${limit} seconds`))._tag === "None") {
        this.watch.violated(`I/O has waited for ${limit} seconds, and fastIoFailTimeout is ${fastFailSeconds} seconds`)
      }
    })

  // ----- the host's controller -----

  private readonly attach = Effect.suspend(() =>
    Effect.gen({ self: this }, function* () {
      const { plan, watch } = this
      for (let tries = 0; tries < 60; tries++) {
        const scope = yield* Scope.make()
        this.expectedConnects++
        const exit = yield* Effect.exit(Scope.provide(plan.isDiscovered ? this.discoverOnce : this.attachOnce, scope))
        if (Exit.isSuccess(exit)) {
          this.hostScope = scope
          watch.log("attached")
          // A second path is made known, and is connected to when the first is lost.
          return
        }
        yield* Scope.close(scope, Exit.void)
        const end = endOf(exit.cause)
        watch.log(`attach: ${end} ${watch.lines === undefined ? "" : Cause.pretty(exit.cause)}`)
        if (end.startsWith("died")) watch.violated(`attach ended with ${end}`)
        if (plan.fault === "none" && plan.world.length === 0) watch.violated(`attach ended with ${end}`)
        yield* Effect.sleep("700 millis")
      }
      watch.violated("the host could not attach")
    })
  )

  private readonly attachOnce = Effect.suspend(() =>
    Effect.gen({ self: this }, function* () {
      const { plan } = this
      const common = {
        traddr: address,
        headerDigest: plan.headerDigest,
        dataDigest: plan.dataDigest,
        ioQueues: plan.ioQueues,
        reconnectDelay: "1 second",
        lossTimeout: `${plan.lossSeconds} seconds`,
        fastIoFailTimeout: plan.fastFailSeconds === undefined ? undefined : (`${plan.fastFailSeconds} seconds` as const)
      } as const
      const controller = yield* NvmeBdev.attach({
        ...common,
        name: controllerName,
        trsvcid: portOf(0),
        subnqn,
        hostnqn,
        multipath: "failover"
      })
      for (let path = 1; path < plan.paths; path++) yield* controller.addPath({ ...common, trsvcid: portOf(path) })
      this.controller = controller
    })
  )

  /** What the target's discovery subsystem knows is attached, by whichever paths. */
  private readonly discoverOnce = Effect.suspend(() =>
    Effect.gen({ self: this }, function* () {
      const { fastFailSeconds, lossSeconds } = this.plan
      this.discovery = yield* NvmeBdev.discover({
        name: "found",
        traddr: address,
        trsvcid: portOf(0),
        hostnqn,
        attachTimeout: "20 seconds",
        reconnectDelay: "1 second",
        lossTimeout: `${lossSeconds} seconds`,
        fastIoFailTimeout: fastFailSeconds === undefined ? undefined : (`${fastFailSeconds} seconds` as const)
      })
    })
  )

  /** What the volume is called on the host now. */
  private readonly nameNow: Effect.Effect<string> = Effect.suspend(() => {
    const { discovery } = this
    if (discovery === undefined) return Effect.succeed(bdevName)
    return Effect.map(
      Effect.orElseSucceed(discovery.bdevs, () => []),
      ([first = "none"]) => first
    )
  })

  /** The host is connected; "gone" when it was told to give up. */
  private readonly connection: Effect.Effect<"up" | "down" | "gone", never, Spdk.Services> = Effect.suspend(() => {
    const { controller, discovery } = this
    const all = Effect.exit(
      discovery === undefined
        ? (controller?.paths ?? Effect.succeed([]))
        : Effect.map(Effect.zip(NvmeBdev.list, this.nameNow), ([found, name]) =>
            found.filter((one) => name === `${one.name}n1`).flatMap(({ paths }) => paths)
          )
    )
    return Effect.map(all, (exit) =>
      exit._tag === "Failure" || (discovery === undefined && exit.value.length === 0)
        ? ("gone" as const)
        : exit.value.some(({ state }) => state === "enabled")
          ? ("up" as const)
          : ("down" as const)
    )
  })

  private readonly detach = Effect.suspend(() => {
    const { hostScope } = this
    this.hostScope = this.controller = this.discovery = undefined
    return hostScope === undefined ? Effect.void : Scope.close(hostScope, Exit.void)
  })

  private readonly reattach = this.attaching.withPermits(1)(
    Effect.uninterruptible(Effect.suspend(() => Effect.andThen(this.detach, this.attach)))
  )

  // ----- fibers -----

  private fiber(steps: ReadonlyArray<NetStep<HostAction>>, index: number) {
    const held: Held = { scope: undefined, bdev: undefined, uuid: undefined }
    return Effect.andThen(
      Effect.forEach(steps, (step) => this.step(step, held, index), { discard: true }),
      Effect.suspend(() => this.letGo(held))
    )
  }

  private step({ action, delayMicros, interruptMicros }: NetStep<HostAction>, held: Held, index: number) {
    const performed = Effect.uninterruptible(this.perform(action, held, index))
    const delayed = delayMicros === 0 ? Effect.void : Effect.sleep(`${delayMicros} micros`)
    if (interruptMicros === undefined) return Effect.andThen(delayed, performed)
    return Effect.gen({ self: this }, function* () {
      yield* delayed
      const fiber = yield* Effect.forkDetach(performed, { startImmediately: true })
      this.simulation.after(interruptMicros, () => fiber.interruptUnsafe())
      yield* Fiber.await(fiber)
    })
  }

  private perform(action: HostAction, held: Held, index: number): Effect.Effect<void, never, Spdk.Services> {
    const text = `fiber ${index}: ${action._tag}`
    const connects = this.isSteady ? "Rest" : action._tag
    switch (connects) {
      case "Rest":
        return Effect.sleep(action.at % 5 === 0 ? "15 seconds" : "1 second")
      case "Reattach":
        return Effect.andThen(this.letGo(held), this.attempt(text, this.reattach, { mayFail: true }))
      case "Reset":
        return this.attempt(
          text,
          Effect.suspend((): Effect.Effect<void, unknown> => this.controller?.reset() ?? Effect.void),
          { mayFail: true }
        )
      case "Discover":
        return this.attempt(
          text,
          Nvme.probe({ trtype: "TCP", traddr: address, trsvcid: `${portOf(0)}` }, { connectTimeout: "1 second" }),
          { mayFail: true }
        )
      default:
        return this.onBdev(text, held, (bdev, volume) => this.io(text, action, bdev, volume))
    }
  }

  /** The bdev there is now, and the volume that it was when it was opened. */
  private onBdev(
    text: string,
    held: Held,
    use: (bdev: Bdev.Bdev, volume: Volume) => Effect.Effect<boolean, never, Spdk.Services>
  ): Effect.Effect<void, never, Spdk.Services> {
    return Effect.gen({ self: this }, function* () {
      if (held.bdev?.isRemoved === true) yield* this.letGo(held)
      if (held.bdev === undefined) {
        const scope = yield* Scope.make()
        held.scope = scope
        const now = this.nameNow
        yield* this.attempt(
          `${text}, open`,
          Effect.gen(function* () {
            const name = yield* now
            held.bdev = yield* Scope.provide(Bdev.open(name, { write: true }), scope)
            // The name is this bdev's for as long as it is open.
            held.uuid = (yield* Bdev.find(name)).uuid
          }),
          { mayFail: this.canFail }
        )
      }
      const { bdev } = held
      const volume = this.volumes.find(({ uuid }) => uuid === held.uuid)
      if (bdev === undefined || volume === undefined) {
        yield* this.letGo(held)
        return yield* Effect.sleep("500 millis")
      }
      if (!(yield* use(bdev, volume))) yield* this.letGo(held)
    })
  }

  private letGo(held: Held): Effect.Effect<void> {
    const { scope } = held
    held.scope = held.bdev = held.uuid = undefined
    if (scope === undefined) return Effect.void
    return Effect.map(Effect.exit(Effect.uninterruptible(Scope.close(scope, Exit.void))), (exit) => {
      if (exit._tag === "Failure") this.watch.violated(`the end of a handle ended with ${endOf(exit.cause)}`)
    })
  }

  /** False when it failed. */
  private io(
    text: string,
    action: HostAction,
    bdev: Bdev.Bdev,
    volume: Volume
  ): Effect.Effect<boolean, never, Spdk.Services> {
    return Effect.suspend(() => {
      const { plan } = this
      const { at } = action
      switch (action._tag) {
        case "Read": {
          const { count, first } = clip(plan.sectors, at, action.length)
          return this.attempt(
            `${text} ${volume.label} ${first}+${count}`,
            Effect.map(reads(bdev, volume, first, count), (wrong) => {
              for (const one of wrong) this.watch.violated(`${text} ${first}+${count}: ${one}`)
            })
          )
        }
        case "Write":
        case "Zero":
        case "Unmap":
          return this.write(text, action._tag, bdev, volume, clip(plan.sectors, at, action.length))
        case "Burst":
          return Effect.map(
            Effect.forEach(
              Array.from({ length: 24 }, (_, i) => clip(plan.sectors, at + i * 3, 5)),
              (range) => this.write(text, "Write", bdev, volume, range),
              { concurrency: "unbounded" }
            ),
            (all) => all.every(Boolean)
          )
        default: {
          return this.attempt(
            `${text} ${volume.label}`,
            Effect.suspend(() => {
              const flushed = volume.beginFlush()
              return Effect.map(bdev.flush(), flushed)
            })
          )
        }
      }
    })
  }

  private write(
    text: string,
    kind: "Write" | "Zero" | "Unmap",
    bdev: Bdev.Bdev,
    volume: Volume,
    { count, first }: { readonly first: number; readonly count: number }
  ): Effect.Effect<boolean, never, Spdk.Services> {
    return Effect.suspend(() => {
      const stamp = kind === "Write" ? this.nextStamp++ : Model.zeroStamp
      const change = volume.begin(first, count, stamp)
      return this.attempt(
        `${text} ${volume.label} ${first}+${count} stamp ${stamp}`,
        writes(bdev, kind, first, count, stamp),
        { change }
      )
    })
  }

  /** Runs it, logs how it ended, and says what must not be. True when it succeeded. */
  private attempt<A, E, R>(
    text: string,
    effect: Effect.Effect<A, E, R>,
    options: { readonly change?: Model.Change; readonly mayFail?: boolean } = {}
  ): Effect.Effect<boolean, never, R> {
    return Effect.suspend(() => {
      const { watch } = this
      watch.log(`${text} ...`)
      return Effect.map(Effect.exit(Effect.interruptible(effect)), (exit) => {
        if (Exit.isSuccess(exit)) {
          watch.log(`${text}: ok`)
          options.change?.succeed()
          return true
        }
        const end = endOf(exit.cause)
        options.change?.fail()
        watch.log(`${text}: ${end}`)
        if (end.startsWith("died") || end === "Corrupted" || end.startsWith("unclosed")) {
          watch.violated(`${text} ended with ${end}`)
        } else if (end !== "interrupted" && !(options.mayFail ?? this.canFail)) {
          watch.violated(`${text} ended with ${end}, and it could have waited`)
        }
        return false
      })
    })
  }

  // ----- the world -----

  private worldStep({ action, delayMicros }: NetStep<WorldAction>, target: Target) {
    return Effect.gen({ self: this }, function* () {
      yield* Effect.sleep(`${delayMicros} micros`)
      this.watch.log(`world: ${JSON.stringify(action)}`)
      const exit = yield* Effect.exit(this.targetTurn.withPermits(1)(this.act(action, target)))
      this.watch.log(`world: ${action._tag} done`)
      if (exit._tag === "Failure") {
        this.watch.log(Cause.pretty(exit.cause))
        this.watch.violated(`${action._tag} of the target ended with ${endOf(exit.cause)}`)
      }
    })
  }

  private act(action: WorldAction, target: Target): Effect.Effect<void, unknown> {
    const { network } = this.simulation
    switch (action._tag) {
      case "Ana":
        return target.setAna(action.path, action.state)
      case "Cut":
        return Effect.sync(() => network.cut(action.kind))
      case "Stall":
        return Effect.andThen(
          Effect.sync(() => network.stall(action.millis * 1000)),
          Effect.sleep(`${action.millis} millis`)
        )
      case "Slow":
        return Effect.andThen(
          Effect.sync(() => network.stall(action.millis * 1000, { from: "server" })),
          Effect.sleep(`${action.millis} millis`)
        )
      case "Still":
        return Effect.andThen(
          Effect.sync(() => this.simulation.standStill(action.millis * 1000)),
          Effect.sleep("5 seconds")
        )
      case "Power":
        return Effect.sync(() => target.current.losePower())
      case "Replace":
        return target.replace(this.other(target))
      case "Unlisten":
        return target
          .unlisten(action.path)
          .pipe(
            Effect.andThen(Effect.sleep(`${action.millis} millis`)),
            Effect.andThen(target.provided(target.listen(action.path)))
          )
      case "Restart":
        return Effect.gen({ self: this }, function* () {
          yield* target.stopSubsystem
          const isWhole = action.whole && this.plan.engines === 2
          if (isWhole) yield* target.stopEngine
          if (action.power) target.current.losePower()
          if (action.other) target.current = this.other(target)
          yield* Effect.sleep(`${action.millis} millis`)
          if (isWhole) yield* target.startEngine
          yield* target.startSubsystem
        })
    }
  }

  private other({ current }: Target): Volume {
    const [first, other] = this.volumes
    return current === first ? other : first
  }

  private stir(): void {
    const { fault, faultChance } = this.plan
    const { faults } = this.simulation.network
    if (fault === "memory") this.simulation.memoryFailureChance = faultChance / 2
    if (fault === "cut") faults.cut = faultChance
    if (fault === "refuse") {
      faults.refuse = faultChance
      faults.cut = 0.2
    }
    if (fault === "errors") for (const { disk } of this.volumes) disk.faults.error = faultChance / 2
  }

  private calm(): void {
    const { faults } = this.simulation.network
    faults.cut = faults.refuse = faults.stall = 0
    for (const { disk } of this.volumes) disk.faults.error = 0
    this.simulation.memoryFailureChance = 0
  }

  // ----- the end -----

  /** Nothing is made to fail any more: the volume can be read, written and flushed. */
  private readonly verify = (target: Target) =>
    Effect.gen({ self: this }, function* () {
      const { plan, watch } = this
      const held: Held = { scope: undefined, bdev: undefined, uuid: undefined }
      const work = Effect.gen({ self: this }, function* () {
        // The volume may have been replaced twice a moment ago, and be the first one again: until the host has read the notice, the
        // target refuses its I/O.
        yield* Effect.sleep("1 second")
        for (let tries = 0; tries < 30; tries++) {
          const found = yield* Effect.exit(Effect.flatMap(this.nameNow, Bdev.find))
          const connection = yield* this.connection
          if (connection === "up" && found._tag === "Success" && found.value.uuid === target.current.uuid) break
          // Given up, as it was told to be.
          if (connection === "gone") yield* this.reattach
          yield* Effect.sleep("1 second")
        }
        const scope = yield* Scope.make()
        const name = yield* this.nameNow
        const opened = yield* Effect.exit(Scope.provide(Bdev.open(name, { write: true }), scope))
        if (opened._tag === "Failure")
          return watch.violated(`in the end, the bdev is not there: ${endOf(opened.cause)}`)
        held.scope = scope
        const bdev = opened.value
        const found = yield* Bdev.find(name)
        const volume = this.volumes.find(({ uuid }) => uuid === found.uuid)
        if (volume !== target.current)
          return watch.violated(`in the end, the bdev is ${volume?.label ?? "nothing known"}`)
        const strict = { mayFail: false }
        const read = (text: string) =>
          this.attempt(
            text,
            Effect.map(reads(bdev, volume, 0, plan.sectors), (wrong) => {
              for (const one of wrong) watch.violated(`${text}: ${one}`)
            }),
            strict
          )
        yield* read("read all, in the end")
        const stamp = this.nextStamp++
        const change = volume.begin(0, 8, stamp)
        yield* this.attempt("write, in the end", bdev.writeBytes(0, Model.stamped(8 * 512, stamp)), {
          ...strict,
          change
        })
        const flushed = volume.beginFlush()
        yield* this.attempt("flush, in the end", Effect.map(bdev.flush(), flushed), strict)
        volume.losePower()
        yield* read("read all, after a power cut")
      })
      if ((yield* Effect.timeoutOption(work, calmLimit))._tag === "None") {
        watch.violated(`I/O does not work ${calmLimit} after the last fault`)
      }
      yield* this.letGo(held)
    })

  /** What the disks hold, past everything. */
  private compareDisks(): void {
    for (const volume of this.volumes) {
      const check = volume.beginRead(0, this.plan.sectors)
      for (const wrong of check(volume.disk.contents())) this.watch.violated(`on the disk: ${wrong}`)
    }
  }

  private compareUsage(who: string, engine: Context.Context<Spdk.Services>, before: Spdk.Usage | undefined) {
    return Effect.map(usageOf(engine), (after) => {
      for (const [name, count] of Object.entries(after)) {
        const start = before === undefined ? undefined : Object.entries(before).find(([other]) => other === name)?.[1]
        if (start !== undefined && start !== count) this.watch.violated(`${who}: ${name} was ${start}, and is ${count}`)
      }
    })
  }

  private readonly engine = (name: string) => (scope: Scope.Scope) =>
    Layer.buildWithScope(
      Layer.fresh(
        Spdk.layerEmbedded({
          name,
          memoryMiB: 64
        })
      ),
      scope
    )
}

const usageOf = (engine: Context.Context<Spdk.Services>): Effect.Effect<Spdk.Usage> =>
  Effect.provideContext(
    Effect.flatMap(Spdk.Spdk, ({ usage }) => usage),
    engine
  )

/** Whether I/O may end with an error: what a plan without that does to it, waiting survives. */
const mayFail = ({ fastFailSeconds, fault, fibers, isDiscovered, lossSeconds, world }: NetPlan): boolean =>
  fastFailSeconds !== undefined ||
  fault === "errors" ||
  fault === "memory" ||
  // A path that the log does not have any more is detached.
  (isDiscovered && (fault !== "none" || world.length > 0)) ||
  (lossSeconds < 20 && (fault !== "none" || world.some(({ action }) => action._tag !== "Ana"))) ||
  fibers.some((steps) => steps.some(({ action }) => action._tag === "Reattach" || action._tag === "Reset")) ||
  world.some(
    ({ action }) =>
      action._tag === "Replace" ||
      action._tag === "Power" ||
      (action._tag === "Restart" && (action.other || action.power))
  )

const describe = (error: unknown): string => (error instanceof Error ? (error.stack ?? error.message) : String(error))

/** Nobody reads logs and spans of thousands of runs. */
const heard = <A, E>(watch: Watch, effect: Effect.Effect<A, E>): Effect.Effect<A, E> =>
  watch.lines === undefined
    ? effect.pipe(
        Effect.provideService(References.MinimumLogLevel, "None"),
        Effect.provideService(References.TracerEnabled, false)
      )
    : Effect.provide(
        effect,
        Logger.layer([
          Logger.make(({ message }) =>
            watch.log(`log: ${Array.isArray(message) ? message.join(" ") : String(message)}`)
          )
        ])
      )
