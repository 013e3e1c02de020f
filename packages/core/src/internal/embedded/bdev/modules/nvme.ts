/**
 * NVMe bdevs: namespaces of controllers that `bdev_nvme_attach_controller` has connected. A controller that is lost is connected
 * again, by the next of its paths, until the loss timeout; I/O waits for it, or fails after the fast-fail timeout.
 *
 * Everything here runs on the JS thread.
 */
import { Opcode } from "@effect-spdk/native/Layout"
import * as Effect from "effect/Effect"
import type { SpdkError } from "../../../../SpdkError.ts"
import type { NvmeConnectSettings, NvmeControllerEvent, NvmeTransportIdFields } from "../../../engine/nvme.ts"
import type { Host } from "../../../engine/host.ts"
import { decodeAsyncEvent } from "../../../nvme/wire/asyncEvent.ts"
import { isDnr, sctOf, Status } from "../../../nvme/wire/nvmeStatus.ts"
import type { IoType } from "../bdev.ts"
import { describeNvme } from "./nvmeInfo.ts"
import type { BdevRegistry } from "../registry.ts"
import type { EmbeddedIo } from "../io.ts"
import { addressOf } from "../../nvme/address.ts"
import { coalesced } from "../../nvme/coalesced.ts"
import { HostController } from "../../nvme/controller.ts"
import { ioStatusOf, ioTypesOf, NvmeDisk, removed } from "../../nvme/disk.ts"
import { describeNamespace, identityOf, isSameNamespace, type NamespaceFacts } from "../../nvme/initialise.ts"
import { type IoStatus, success } from "../../queue/status.ts"
import type { Timer, Timers } from "../../runtime/timers.ts"

const operation = "bdev_nvme_attach_controller"
const productName = "NVMe disk"
/** As SPDK: how long I/O waits that a controller has called inaccessible, when no notice comes. */
const accessRetryMicros = 1_000_000

/** The connection, and not the command. */
const isOfPath = (status: number): boolean => (status & 0x7ff) === Status.AbortedSqDeletion || sctOf(status) === 3

export interface LossSettings {
  /** -1: for ever. 0: one attempt. */
  readonly lossTimeoutSeconds: number
  readonly reconnectDelaySeconds: number
  /** 0: I/O waits as long as there is hope. */
  readonly fastFailSeconds: number
}

export interface NvmePath {
  readonly transportId: NvmeTransportIdFields
  readonly settings: NvmeConnectSettings
}

export interface NvmeBdevControllerOptions {
  readonly path: NvmePath
  readonly loss: LossSettings
  readonly address: HostController["address"]
  readonly mode: "disable" | "failover" | "multipath"
  /** Attached by a discovery service. */
  readonly isDiscovered: boolean
  /** Whether a flush reaches controllers that have a volatile write cache. */
  readonly isFlushing: boolean
}

class NvmeBdev extends NvmeDisk {
  private readonly owner: NvmeBdevController
  /** I/O that waits: for a connection, for a namespace that can be reached, or for the word that this is still the same one. */
  private held: Array<EmbeddedIo> = []
  /** Since when the namespace cannot be reached, though its controller can. Undefined once an I/O was served. */
  private inaccessibleMicros: number | undefined = undefined
  private accessTimer: Timer | undefined = undefined
  /** An I/O was served since the last change of paths. */
  isServed = false

  constructor(owner: NvmeBdevController, facts: NamespaceFacts) {
    const { controller, name } = owner
    super(
      controller,
      facts,
      {
        name: `${name}n${facts.nsid}`,
        uuid: facts.uuid ?? controller.context.reactor.host.uuid(),
        productName,
        blockSize: facts.blockSizeBytes,
        numBlocks: facts.numBlocks,
        physicalBlockSize: facts.physicalBlockSizeBytes,
        hasWriteCache: controller.facts?.identify.volatileWriteCache.present === 1,
        optimalIoBoundaryBlocks: facts.optimalIoBoundaryBlocks,
        numaId: -1,
        ...facts.preferred
      },
      new Set<IoType>([...ioTypesOf(controller), "reset"])
    )
    this.owner = owner
  }

  override submit(io: EmbeddedIo): void {
    if (io.opcode === Opcode.Reset) return this.resetController(io)
    // As SPDK's module does unless it is told otherwise.
    if (io.opcode === Opcode.Flush && !(this.owner.isFlushing && this.properties.hasWriteCache)) {
      return io.finish(success)
    }
    if (this.owner.isUnsure && this.state === "ready") return void this.held.push(io)
    if (this.owner.isGivenUp) return this.ended(io, Status.AbortedSqDeletion)
    super.submit(io)
  }

  override abort(io: EmbeddedIo): boolean {
    const at = this.held.indexOf(io)
    if (at === -1) return super.abort(io)
    this.held.splice(at, 1)
    io.finish(ioStatusOf(Status.AbortedByRequest))
    return true
  }

  protected override ended(io: EmbeddedIo, status: number): void {
    if (status === 0) {
      this.isServed = true
      this.inaccessibleMicros = undefined
      return io.finish(success)
    }
    if (this.state !== "ready") return io.finish(isOfPath(status) ? removed : ioStatusOf(status))
    if (!isOfPath(status) || isDnr(status)) return io.finish(ioStatusOf(status))
    if (this.controller.state === "ready") return this.waitForAccess(io, status)
    if (this.owner.mayReturn) this.held.push(io)
    else io.finish(ioStatusOf(status))
  }

  override memoryDomains() {
    return [{ dma_device_type: "DMA" }]
  }

  /** SPDK counts errors by status here when it is told to, which this engine refuses (`nvme_error_stat`). */
  override statSpecific() {
    return {}
  }

  override driverSpecific() {
    return { nvme: [describeNvme(this.controller, this.facts)], mp_policy: "active_passive" }
  }

  override onUnregister(): void {
    this.stopWaiting()
    this.letGo(removed)
  }

  override destruct(): void {
    this.owner.forget(this)
  }

  /** Sends again what was held, or ends it. Only in a drain. */
  letGo(end: IoStatus | undefined): void {
    const { held } = this
    this.held = []
    for (const io of held) {
      if (end === undefined) this.submit(io)
      else io.finish(end)
    }
  }

  private stopWaiting(): void {
    if (this.accessTimer !== undefined) this.owner.timers.cancel(this.accessTimer)
    this.accessTimer = undefined
  }

  /**
   * The controller is there, and answers that this namespace cannot be reached by it now. Its notice of a change sends the I/O again,
   * and so does the clock, because a notice may be missing; the fast-fail timeout counts from the first such answer.
   */
  private waitForAccess(io: EmbeddedIo, status: number): void {
    // For good, so that only another path helps.
    if ((status & 0x7ff) === Status.AnaPersistentLoss && this.owner.paths.length === 1) {
      return io.finish(ioStatusOf(status))
    }
    const now = this.owner.timers.nowMicros()
    this.inaccessibleMicros ??= now
    const leftMicros = this.owner.fastFailMicros - (now - this.inaccessibleMicros)
    if (leftMicros <= 0) return io.finish(ioStatusOf(status))
    this.held.push(io)
    this.accessTimer ??= this.owner.timers.after(Math.min(accessRetryMicros, leftMicros), () => {
      this.accessTimer = undefined
      this.owner.accessDue()
    })
  }

  private resetController(io: EmbeddedIo): void {
    this.reactor.host.fork(
      Effect.match(this.owner.reset, {
        onSuccess: () => this.reactor.post(() => io.finish(success)),
        onFailure: () => this.reactor.post(() => io.finish(ioStatusOf(Status.InternalPathError)))
      })
    )
  }
}

export class NvmeBdevController {
  readonly name: string
  readonly loss: LossSettings
  readonly mode: "disable" | "failover" | "multipath"
  readonly isDiscovered: boolean
  readonly isFlushing: boolean
  /** The one in use first. */
  readonly paths: Array<NvmePath>
  readonly controller: HostController
  readonly bdevs = new Map<number, NvmeBdev>()
  isRemoved = false
  /** How often namespaces may have changed, and how many of these notices have been followed. */
  private notices = 0
  private followed = 0
  private readonly registry: BdevRegistry
  private readonly onRemoved: () => void
  private isReconnecting = false
  private isFastFailed = false
  private lostMicros = 0
  private readonly running = new Set<Timer>()
  private whenEmpty: (() => void) | undefined = undefined

  constructor(registry: BdevRegistry, name: string, options: NvmeBdevControllerOptions, onRemoved: () => void) {
    this.registry = registry
    this.name = name
    this.paths = [options.path]
    this.loss = options.loss
    this.mode = options.mode
    this.isDiscovered = options.isDiscovered
    this.isFlushing = options.isFlushing
    this.onRemoved = onRemoved
    const { settings, transportId } = options.path
    this.controller = new HostController(registry.context, transportId, options.address, settings, (event) =>
      this.onEvent(event)
    )
    this.controller.beforeIo = this.compare
    this.controller.onNamespacesNotice = () => this.notices++
  }

  get timers(): Timers {
    return this.registry.context.timers
  }

  private get host(): Host {
    return this.registry.context.reactor.host
  }

  /** The controller has told of changed namespaces, and which volumes they are now is not known yet. I/O waits. */
  get isUnsure(): boolean {
    return this.notices !== this.followed
  }

  /** How long I/O may wait for a namespace that cannot be reached; infinity: as long as it takes. */
  get fastFailMicros(): number {
    const { fastFailSeconds } = this.loss
    return fastFailSeconds === 0 ? Infinity : fastFailSeconds * 1e6
  }

  /** No I/O waits any more for the connection that is missing. */
  get isGivenUp(): boolean {
    return this.isFastFailed && this.controller.state !== "ready"
  }

  /** Whether it is worth while for I/O to wait. */
  get mayReturn(): boolean {
    if (this.isRemoved || this.isFastFailed) return false
    return this.isReconnecting || this.controller.state === "ready" || this.controller.state === "connecting"
  }

  /** The state as SPDK names it. */
  get state(): string {
    if (this.isRemoved) return "deleting"
    if (this.isReconnecting) return "resetting"
    return this.controller.state === "ready" ? "enabled" : "failed"
  }

  /** By namespace id. */
  get names(): ReadonlyArray<string> {
    return [...this.bdevs.values()].toSorted((a, b) => a.nsid - b.nsid).map(({ name }) => name)
  }

  /** Connects, and makes its bdevs. */
  get connect(): Effect.Effect<void, SpdkError> {
    return Effect.andThen(
      this.controller.connect,
      Effect.map(this.populate, () => {
        this.controller.onNamespaces = () => this.look()
      })
    )
  }

  /** Where to connect when the path in use is lost. */
  addPath(path: NvmePath): void {
    this.paths.push(path)
  }

  /** The one in use is left for the next that there is; the last one goes with the controller. */
  removePaths(gone: ReadonlyArray<NvmePath>): Effect.Effect<void> {
    return Effect.suspend(() => {
      const [inUse] = this.paths
      const left = this.paths.filter((path) => !gone.includes(path))
      if (left.length === this.paths.length) return Effect.void
      if (left.length === 0) return this.remove
      this.paths.splice(0, this.paths.length, ...left)
      if (this.paths[0] !== inUse) this.failover()
      return Effect.void
    })
  }

  /** As asked for by a user: when it fails, or is interrupted in the middle, the controller is lost. */
  get reset(): Effect.Effect<void, SpdkError> {
    return Effect.onExit(this.again, (exit) =>
      Effect.sync(() => {
        // Who is interrupted may have waited for the reset of somebody else, which goes on.
        if (exit._tag === "Failure" && this.controller.state === "failed") this.lost()
      })
    )
  }

  private get again(): Effect.Effect<void, SpdkError> {
    return Effect.tap(this.controller.reset, () => this.returned)
  }

  /** Removes the bdevs and disconnects. */
  readonly remove: Effect.Effect<void> = Effect.suspend(() => {
    this.isRemoved = true
    this.cancelTimers()
    const gone = Effect.callback<void>((resume) => {
      this.whenEmpty = () => resume(Effect.void)
      for (const bdev of this.bdevs.values()) this.registry.unregister(bdev)
      if (this.bdevs.size === 0) this.whenEmpty()
    })
    // What is in flight ends with its connection, and the bdevs when nothing is.
    return Effect.andThen(
      Effect.zip(gone, this.controller.disconnect, { concurrent: true }),
      Effect.sync(() => this.onRemoved())
    )
  })

  forget(bdev: NvmeBdev): void {
    if (this.bdevs.get(bdev.nsid) === bdev) this.bdevs.delete(bdev.nsid)
    if (this.bdevs.size === 0) this.whenEmpty?.()
    // Its name is free: the volume that has come in its place becomes a bdev.
    if (bdev.isGone && !this.isRemoved && this.controller.state === "ready") this.look()
  }

  /** I/O was called inaccessible a while ago. By the next path, when this one serves nobody; otherwise once more. */
  accessDue(): void {
    if (this.isRemoved || this.isReconnecting || this.controller.state !== "ready") return
    const isServing = [...this.bdevs.values()].some((bdev) => bdev.isServed)
    for (const bdev of this.bdevs.values()) bdev.isServed = false
    if (isServing || this.paths.length === 1) return this.letGo(undefined)
    this.nextPath()
    this.failover()
  }

  private onEvent(event: NvmeControllerEvent): void {
    if (event._tag === "Failed") this.lost()
    else if (event._tag === "AsyncEvent" && decodeAsyncEvent(event.dword0)._tag === "AnaChanged") this.anaChanged()
  }

  private readonly anaChanged = coalesced(
    () => this.host,
    Effect.suspend(() =>
      Effect.andThen(
        this.controller.readAna,
        Effect.sync(() => this.letGo(undefined))
      )
    )
  )

  /** Which volumes there are. I/O waits for the answer, and the question for I/O: to have asked is to know. */
  private look(): void {
    this.notices++
    this.lookSoon()
  }

  private readonly lookSoon = coalesced(
    () => this.host,
    Effect.suspend(() => {
      const { notices } = this
      // What was sent before the notice is answered before the target hears that we know of the change: until then it refuses that.
      return Effect.andThen(
        Effect.andThen(this.controller.settled, Effect.ignore(this.populate)),
        Effect.sync(() => this.follow(notices))
      )
    })
  )

  /** Notices that have come meanwhile have a look of their own. */
  private follow(notices: number): void {
    if (!this.isUnsure || notices < this.followed) return
    this.followed = notices
    if (!this.isUnsure) this.letGo(undefined)
  }

  /** What is connected now may have other volumes in the places of those that were there: no I/O goes to them. */
  private readonly compare: Effect.Effect<void, SpdkError> = Effect.suspend(() => {
    const { activeNamespaces } = this.controller
    // Of this connection there is no notice yet: what comes after it is told by one.
    this.followed = this.notices
    return Effect.forEach(
      [...this.bdevs.values()].filter((bdev) => !bdev.isGone && bdev.state === "ready"),
      (bdev) =>
        activeNamespaces.includes(bdev.nsid)
          ? Effect.map(describeNamespace(this.controller, operation, bdev.nsid), (facts) => {
              if (facts === undefined || !isSameNamespace(bdev.facts, facts)) this.discard(bdev, facts)
            })
          : Effect.sync(() => this.discard(bdev, undefined)),
      { discard: true }
    )
  })

  private discard(bdev: NvmeBdev, now: NamespaceFacts | undefined): void {
    const { log } = this.registry.context
    if (now === undefined) log("notice", `${bdev.name}: the namespace is gone, and the bdev is removed`)
    else {
      const change = `${identityOf(bdev.facts)} became ${identityOf(now)}, ${now.blockSizeBytes} bytes a block`
      log("error", `${bdev.name}: the namespace is another volume now (${change}), and the bdev is removed`)
    }
    bdev.discard()
    this.registry.unregister(bdev)
  }

  /** Makes bdevs of the namespaces that there are, and removes those of namespaces that are gone. */
  private readonly populate: Effect.Effect<void, SpdkError> = Effect.suspend(() => {
    const { activeNamespaces } = this.controller
    for (const [nsid, bdev] of this.bdevs) {
      if (!activeNamespaces.includes(nsid) && !bdev.isGone) this.discard(bdev, undefined)
    }
    const namespaces = Effect.forEach(activeNamespaces, (nsid) =>
      Effect.map(describeNamespace(this.controller, operation, nsid), (facts) => this.upsert(nsid, facts))
    )
    return Effect.andThen(this.controller.readAna, namespaces)
  }).pipe(Effect.asVoid)

  private upsert(nsid: number, facts: NamespaceFacts | undefined): void {
    if (this.isRemoved) return
    const known = this.bdevs.get(nsid)
    if (known !== undefined && !known.isGone && (facts === undefined || !isSameNamespace(known.facts, facts))) {
      return this.discard(known, facts)
    }
    if (facts === undefined) return
    if (known !== undefined) {
      if (known.numBlocks === facts.numBlocks || known.state !== "ready") return
      this.registry.context.notifications.add("bdev_resize", known.name)
      this.registry.resizeTo(known, facts.numBlocks)
      return
    }
    if (facts.hasMetadata) {
      return this.registry.context.log("error", `${this.name}n${nsid}: blocks with metadata are not supported`)
    }
    const bdev = new NvmeBdev(this, facts)
    this.bdevs.set(nsid, bdev)
    if (this.registry.register(bdev) !== 0) this.bdevs.delete(nsid)
  }

  private lost(): void {
    if (this.isRemoved || this.isReconnecting) return
    // Without a delay there is one attempt, which I/O does not wait for.
    this.startReconnecting(this.loss.reconnectDelaySeconds === 0)
    this.nextPath()
    this.reconnect()
  }

  /** By the first path, from the one that has been taken away. I/O waits for the attempt. */
  private failover(): void {
    // An attempt that is under way looks by itself whether its path is still wanted.
    if (this.isRemoved || this.isReconnecting) return
    this.startReconnecting(false)
    this.reconnect()
  }

  private startReconnecting(isFastFailed: boolean): void {
    const { fastFailSeconds } = this.loss
    this.lostMicros = this.registry.context.timers.nowMicros()
    this.isReconnecting = true
    this.isFastFailed = isFastFailed
    if (fastFailSeconds > 0) this.after(fastFailSeconds, () => this.failFast())
  }

  private nextPath(): void {
    const [path, ...others] = this.paths
    if (path !== undefined && others.length > 0) this.paths.splice(0, this.paths.length, ...others, path)
  }

  private reconnect(): void {
    const next = this.paths[0]
    if (next === undefined) return
    const attempt = Effect.flatMap(addressOf(operation, next.transportId, next.settings), (address) => {
      this.controller.address = address
      this.controller.transportId = next.transportId
      return Effect.map(this.again, () => {
        if (!this.paths.includes(next)) this.failover()
      })
    })
    this.host.fork(Effect.catch(attempt, () => Effect.sync(() => this.stillLost())))
  }

  private stillLost(): void {
    if (this.isRemoved) return
    const { lossTimeoutSeconds, reconnectDelaySeconds } = this.loss
    if (reconnectDelaySeconds === 0) {
      this.isReconnecting = false
      return this.failFast()
    }
    const seconds = (this.registry.context.timers.nowMicros() - this.lostMicros) / 1e6
    if (lossTimeoutSeconds > 0 && seconds >= lossTimeoutSeconds) {
      this.registry.context.log("error", `${this.name}: the controller did not come back, its bdevs are removed`)
      this.host.fork(this.remove)
    } else {
      this.after(reconnectDelaySeconds, () => {
        this.nextPath()
        this.reconnect()
      })
    }
  }

  private failFast(): void {
    this.isFastFailed = true
    // Also what waits for the attempt that is under way.
    if (this.controller.state !== "ready") this.controller.endWaiting(() => true)
    this.letGo(ioStatusOf(Status.AbortedSqDeletion))
  }

  private readonly returned: Effect.Effect<void> = Effect.sync(() => {
    this.isReconnecting = false
    this.isFastFailed = false
    this.cancelTimers()
    this.letGo(undefined)
  })

  /** All that waits is sent again, or ended with this status. */
  private letGo(end: IoStatus | undefined): void {
    this.registry.context.reactor.post(() => {
      for (const bdev of this.bdevs.values()) bdev.letGo(end)
    })
  }

  private after(seconds: number, run: () => void): void {
    const timer = this.registry.context.timers.after(seconds * 1e6, () => {
      this.running.delete(timer)
      if (!this.isRemoved) run()
    })
    this.running.add(timer)
  }

  private cancelTimers(): void {
    for (const timer of this.running) this.timers.cancel(timer)
    this.running.clear()
  }
}
