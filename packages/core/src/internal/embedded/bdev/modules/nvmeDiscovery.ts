/**
 * A discovery service: stays connected to a discovery controller, attaches what its log has, detaches what it has no more.
 *
 * Everything here runs on the JS thread.
 */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Queue from "effect/Queue"
import type { SpdkError } from "../../../../SpdkError.ts"
import type { NvmeConnectSettings, NvmeControllerEvent, NvmeTransportIdFields } from "../../../engine/nvme.ts"
import { LogPageId } from "../../../nvme/wire/logPages.ts"
import type { Json } from "../bdev.ts"
import type { LossSettings } from "./nvme.ts"
import { describePath } from "./nvmeInfo.ts"
import { lossParams, type NvmeModule } from "./nvmeModule.ts"
import { addressOf } from "../../nvme/address.ts"
import { HostController } from "../../nvme/controller.ts"
import { readDiscoveryEntries, referralsOf, transportIdsOf } from "../../nvme/discovery.ts"
import { EALREADY, ETIMEDOUT } from "../../queue/status.ts"

const operation = "bdev_nvme_start_discovery"
const retryMicros = 1_000_000

type Signal = "changed" | "lost"

interface Found {
  readonly name: string
  readonly transportId: NvmeTransportIdFields
}

export interface DiscoveryOptions {
  readonly name: string
  readonly transportId: NvmeTransportIdFields
  readonly loss: LossSettings
  readonly isAwaited: boolean
  /** How to connect, to it and to what it tells of. */
  readonly settings: NvmeConnectSettings
}

export const isSameId = (a: NvmeTransportIdFields, b: NvmeTransportIdFields): boolean =>
  a.traddr === b.traddr && a.trsvcid === b.trsvcid && a.subnqn === b.subnqn && a.trtype === b.trtype

export class DiscoveryService {
  readonly name: string
  readonly transportId: NvmeTransportIdFields
  /** Discovery controllers that may be asked next. SPDK calls them referrals. */
  referrals: Array<NvmeTransportIdFields>
  inUse: NvmeTransportIdFields | undefined = undefined
  private readonly module: NvmeModule
  private readonly options: DiscoveryOptions
  private found: Array<Found> = []
  private index = 0
  private isStopped = false
  /** A "changed" waits among the signals. */
  private isChangeKnown = false
  /** Once it runs: a queue wakes its taker by the scheduler of the fiber that has made it. */
  private signals: Queue.Queue<Signal> | undefined = undefined
  private fiber: Fiber.Fiber<void> | undefined = undefined
  private onStarted: (errno: number) => void = () => {}

  constructor(module: NvmeModule, options: DiscoveryOptions) {
    this.module = module
    this.options = options
    this.name = options.name
    this.transportId = options.transportId
    this.referrals = [options.transportId]
  }

  /** Begins. 0 once all that the first log has was tried, or -ETIMEDOUT after the limit, and then it has ended. */
  start(limitMillis: number): Effect.Effect<number> {
    const { timers } = this.module.registry.context
    return Effect.callback<number>((resume) => {
      const timer = limitMillis === 0 ? undefined : timers.after(limitMillis * 1000, () => this.onStarted(-ETIMEDOUT))
      this.onStarted = (errno) => {
        this.onStarted = () => {}
        if (timer !== undefined) timers.cancel(timer)
        resume(Effect.as(errno === -ETIMEDOUT ? this.stop : Effect.void, errno))
      }
      this.fiber = this.module.registry.context.reactor.host.fork(this.run)
    })
  }

  /** Detaches what it has attached. -EALREADY when that is under way. */
  readonly stopOnce: Effect.Effect<number> = Effect.suspend(() =>
    this.isStopped ? Effect.succeed(-EALREADY) : Effect.as(this.stop, 0)
  )

  readonly stop: Effect.Effect<void> = Effect.suspend(() => {
    if (this.isStopped) return Effect.void
    this.isStopped = true
    return Effect.gen({ self: this }, function* () {
      if (this.fiber !== undefined) yield* Fiber.interrupt(this.fiber)
      yield* this.detach(this.found)
      this.module.discoveries.delete(this.name)
      this.onStarted(-ETIMEDOUT)
    })
  })

  /** A controller has been given up, or somebody has detached it: it is attached again when the log still has it. */
  controllerGone(name: string): void {
    if (this.isStopped || !this.found.some((one) => one.name === name)) return
    this.found = this.found.filter((one) => one.name !== name)
    this.module.registry.context.timers.after(retryMicros, () => this.signal("changed"))
  }

  describe() {
    return {
      name: this.name,
      trid: describePath(this.transportId),
      referrals: this.referrals.map((transportId) => ({ trid: describePath(transportId) }))
    }
  }

  configCall(): Json {
    const { isAwaited, loss, settings } = this.options
    const { subnqn: _, ...path } = describePath(this.transportId)
    const params = { name: this.name, hostnqn: settings.hostnqn, ...path, wait_for_attach: isAwaited }
    return { method: operation, params: { ...params, ...lossParams(loss) } }
  }

  has(subnqn: string): string | undefined {
    return this.found.find((one) => one.transportId.subnqn === subnqn)?.name
  }

  /** However many changes are told of before somebody looks, that is one. */
  private signal(signal: Signal): void {
    if (this.isStopped || (signal === "changed" && this.isChangeKnown)) return
    if (signal === "changed") this.isChangeKnown = true
    if (this.signals !== undefined) Queue.offerUnsafe(this.signals, signal)
  }

  private readonly run: Effect.Effect<void> = Effect.gen({ self: this }, function* () {
    const signals = yield* Queue.unbounded<Signal>()
    this.signals = signals
    for (;;) {
      const next = this.referrals.shift()
      if (next === undefined) return
      this.inUse = next
      yield* Effect.catch(this.follow(next, signals), ({ message }) =>
        Effect.sync(() => this.module.registry.context.log("warning", `${operation}: ${this.name}: ${message}`))
      )
      this.inUse = undefined
      this.referrals.push(next)
      yield* this.pause
    }
  })

  private readonly pause: Effect.Effect<void> = Effect.callback((resume) => {
    const { timers } = this.module.registry.context
    const timer = timers.after(retryMicros, () => resume(Effect.void))
    return Effect.sync(() => timers.cancel(timer))
  })

  /** Until the connection is lost. */
  private follow(transportId: NvmeTransportIdFields, signals: Queue.Queue<Signal>): Effect.Effect<void, SpdkError> {
    const { settings } = this.options
    return Effect.flatMap(addressOf(operation, transportId, settings), (address) => {
      const controller = new HostController(this.module.registry.context, transportId, address, settings, (event) =>
        this.onEvent(event)
      )
      return Effect.andThen(
        Effect.andThen(Queue.clear(signals), controller.connect),
        this.watch(controller, signals)
      ).pipe(Effect.ensuring(controller.disconnect))
    })
  }

  private onEvent(event: NvmeControllerEvent): void {
    if (event._tag === "Failed") this.signal("lost")
    else if (event._tag === "AsyncEvent" && ((event.dword0 >>> 16) & 0xff) === LogPageId.discovery) {
      this.signal("changed")
    }
  }

  private watch(controller: HostController, signals: Queue.Queue<Signal>): Effect.Effect<void, SpdkError> {
    return Effect.gen({ self: this }, function* () {
      for (;;) {
        this.isChangeKnown = false
        if (yield* this.isRead(controller)) this.onStarted(0)
        if ((yield* Queue.take(signals)) === "lost") return
      }
    })
  }

  /** False when the log changed faster than it could be read: it is read again at the next notice, and in any case before long. */
  private isRead(controller: HostController): Effect.Effect<boolean, SpdkError> {
    return Effect.catch(Effect.as(this.update(controller), true), (error) => {
      if (error.reason._tag !== "Busy") return Effect.fail(error)
      this.module.registry.context.timers.after(retryMicros, () => this.signal("changed"))
      return Effect.succeed(false)
    })
  }

  private update(controller: HostController): Effect.Effect<void, SpdkError> {
    return Effect.gen({ self: this }, function* () {
      const entries = yield* readDiscoveryEntries(controller, operation)
      this.referrals = [...referralsOf(entries)]
      const ids = transportIdsOf(entries)
      const added = ids.filter((id) => !this.found.some((one) => isSameId(one.transportId, id)))
      yield* Effect.forEach(added, (id) => this.attach(id), { concurrency: "unbounded", discard: true })
      const lost = this.found.filter((one) => !ids.some((id) => isSameId(one.transportId, id)))
      this.found = this.found.filter((one) => !lost.includes(one))
      yield* this.detach(lost)
    })
  }

  /** A failed attach is tried again a little later: the log need not change for its reason to go away. */
  private attach(transportId: NvmeTransportIdFields): Effect.Effect<void> {
    return Effect.suspend(() => {
      const { loss, settings } = this.options
      const { controllers, discoveries, registry } = this.module
      const path = { transportId, settings }
      const known = [...discoveries.values()]
        .map((one) => one.has(transportId.subnqn))
        .find((name) => name !== undefined)
      const name = known ?? `${this.name}${this.index++}`
      const found = { name, transportId }
      const other = controllers.get(name)
      this.found.push(found)
      if (known !== undefined && other !== undefined) return Effect.sync(() => other.addPath(path))
      const failed = (why: string) =>
        Effect.sync(() => {
          this.found = this.found.filter((one) => one !== found)
          registry.context.timers.after(retryMicros, () => this.signal("changed"))
          registry.context.log("error", `${operation}: ${transportId.subnqn} is not attached: ${why}`)
        })
      if (other !== undefined) return failed(`there is a controller ${name}`)
      return Effect.catch(
        Effect.asVoid(this.module.attach({ name, path, loss, mode: "multipath", isDiscovered: true })),
        ({ message }) => failed(message)
      )
    })
  }

  private detach(all: ReadonlyArray<Found>): Effect.Effect<void> {
    return Effect.forEach(
      all,
      ({ name, transportId }) =>
        Effect.suspend(() => {
          const controller = this.module.controllers.get(name)
          if (controller === undefined || !controller.isDiscovered) return Effect.void
          return controller.removePaths(controller.paths.filter((path) => isSameId(path.transportId, transportId)))
        }),
      { concurrency: "unbounded", discard: true }
    )
  }
}
