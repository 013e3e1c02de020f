/**
 * A controller: what one host has of one subsystem, from the connect of its admin queue until that queue is gone.
 */
import { AsyncEventType, AsyncNotice, encodeAsyncEvent } from "../../nvme/wire/asyncEvent.ts"
import { Cc, Csts, Property } from "../../nvme/wire/fabrics.ts"
import { FeatureId } from "../../nvme/wire/features.ts"
import { LogPageId } from "../../nvme/wire/logPages.ts"
import { dnr, Status } from "../../nvme/wire/nvmeStatus.ts"
import { Deadline } from "../runtime/deadline.ts"
import type { Connection } from "./connection.ts"
import type { Namespace, Subsystem, SubsystemListener, Target, TransportOptions } from "./target.ts"

export const maxAsyncEvents = 4
const maxChangedNamespaces = 1024
/** For discovery controllers that have not asked for keep-alive. */
const discoveryTimeoutMillis = 120_000

/** Bits of the asynchronous event configuration. */
const Notice = { namespace: 1 << 8, ana: 1 << 11, discovery: 1 << 31 } as const

export const version = 0x0002_0000

/** CAP.TO and CRTO.CRWMT, in half seconds. */
const readyWithin = 30n

export class Controller {
  readonly target: Target
  readonly transport: TransportOptions
  readonly subsystem: Subsystem
  /** Undefined of discovery controllers. */
  readonly listener: SubsystemListener | undefined
  readonly id: number
  readonly hostNqn: string
  readonly hostId: Uint8Array
  readonly admin: Connection
  readonly ioQueues = new Map<number, Connection>()
  /** By feature id: dword 11 of Set Features, where no other place has it. */
  readonly features = new Map<number, number>()
  cc = 0
  csts = 0
  keepAliveMillis: number
  changedNamespaces: Array<number> = []
  /**
   * Ids whose namespace was taken away, and which the host has not identified since. Commands that it has sent before that are not for
   * the volume that has come in the place.
   */
  readonly unseen = new Set<number>()
  private readonly asyncRequests: Array<number> = []
  private readonly pendingEvents: Array<number> = []
  /** Notices that wait for the host to read their log page. */
  private masked = new Set<number>()
  private lastAliveMicros: number
  private keepAliveDeadline: Deadline | undefined
  isGone = false

  constructor(options: {
    readonly target: Target
    readonly transport: TransportOptions
    readonly subsystem: Subsystem
    readonly listener: SubsystemListener | undefined
    readonly id: number
    readonly hostNqn: string
    readonly hostId: Uint8Array
    readonly admin: Connection
    readonly keepAliveMillis: number
  }) {
    const { isDiscovery } = options.subsystem.options
    this.target = options.target
    this.transport = options.transport
    this.subsystem = options.subsystem
    this.listener = options.listener
    this.id = options.id
    this.hostNqn = options.hostNqn
    this.hostId = options.hostId
    this.admin = options.admin
    this.lastAliveMicros = this.nowMicros()
    const wanted = this.rounded(options.keepAliveMillis)
    let events: number = Notice.namespace
    if (options.subsystem.options.anaReporting) events |= Notice.ana
    if (isDiscovery && wanted !== 0) events |= Notice.discovery
    this.features.set(FeatureId.asyncEvents, events >>> 0)
    this.features.set(FeatureId.volatileWriteCache, 1)
    this.features.set(FeatureId.interruptVector, 0x10000)
    this.keepAliveMillis = wanted === 0 && isDiscovery ? discoveryTimeoutMillis : wanted
    this.subsystem.controllers.set(this.id, this)
    this.armKeepAlive()
  }

  get cap(): bigint {
    // Contiguous queues, 15 s to become ready, the NVM command set, ready without waiting for media.
    return BigInt(this.transport.max_queue_depth - 1) | (1n << 16n) | (readyWithin << 24n) | (1n << 37n) | (1n << 59n)
  }

  property(offset: number): bigint | undefined {
    switch (offset) {
      case Property.Cap:
        return this.cap
      case Property.Vs:
        return BigInt(version)
      case Property.Cc:
        return BigInt(this.cc >>> 0)
      case Property.Csts:
        return BigInt(this.csts)
      case Property.Nssr:
        return 0n
      case Property.Crto:
        // Linux asks, because CAP says that there is a time to wait for media.
        return readyWithin
      default:
        return undefined
    }
  }

  /** False for what the controller cannot be set to. */
  setConfiguration(value: number): boolean {
    // Another arbitration than round robin, other pages than 4 KiB, other command sets.
    if ((value & 0x3800) !== 0 || (value & 0x0780) !== 0 || ((value >>> 4) & 7) > 6) return false
    if ((value & Cc.shutdownMask) === Cc.shutdownMask) return false
    const changed = this.cc ^ value
    this.cc = value >>> 0
    if ((changed & Cc.enable) !== 0) {
      if ((value & Cc.enable) !== 0) this.csts = Csts.ready
      else {
        this.closeIoQueues()
        this.cc = 0
        this.csts = 0
        return true
      }
    }
    if ((changed & Cc.shutdownMask) !== 0 && (value & Cc.shutdownMask) !== 0) {
      this.closeIoQueues()
      this.stopKeepAlive()
      this.csts |= Csts.shutdownComplete
    }
    return true
  }

  get isEnabled(): boolean {
    return (this.cc & Cc.enable) !== 0
  }

  namespace(nsid: number): Namespace | undefined {
    const namespace = this.subsystem.namespaces.get(nsid)
    return namespace !== undefined && !namespace.isClosing && namespace.isVisibleTo(this.hostNqn)
      ? namespace
      : undefined
  }

  anaStatus(namespace: Namespace): number {
    if (!this.subsystem.options.anaReporting || this.listener === undefined) return Status.Success
    if (!this.subsystem.listeners.includes(this.listener)) return Status.AnaInaccessible
    const state = this.listener.anaStates[namespace.anaGroup - 1]
    if (state === "inaccessible") return Status.AnaInaccessible
    if (state === "persistentLoss") return Status.AnaPersistentLoss
    return state === "change" ? Status.AnaTransition : Status.Success
  }

  /** An event that waits for it, or "later" when it waits for one; or why neither. */
  requestAsyncEvent(commandId: number): number | "later" | { readonly dword0: number } {
    if (this.asyncRequests.length >= maxAsyncEvents) return Status.AsyncEventLimitExceeded | dnr
    const pending = this.pendingEvents.shift()
    if (pending !== undefined) return { dword0: pending }
    this.asyncRequests.push(commandId)
    return "later"
  }

  abortAsyncEvent(commandId: number): boolean {
    const index = this.asyncRequests.indexOf(commandId)
    if (index === -1) return false
    this.asyncRequests.splice(index, 1)
    this.admin.respondLater(commandId, Status.AbortedByRequest, 0)
    return true
  }

  namespaceChanged(nsid: number): void {
    if (!this.changedNamespaces.includes(nsid)) {
      if (this.changedNamespaces.length <= maxChangedNamespaces) this.changedNamespaces.push(nsid)
    }
    this.notify(Notice.namespace, AsyncNotice.namespaceAttributeChanged, LogPageId.changedNamespaces)
  }

  anaChanged(): void {
    this.notify(Notice.ana, AsyncNotice.anaChanged, LogPageId.ana)
  }

  discoveryChanged(): void {
    this.notify(Notice.discovery, AsyncNotice.discoveryLogChanged, LogPageId.discovery)
  }

  /** The host has read the page: the next change is told again. */
  unmask(logPage: number): void {
    this.masked.delete(logPage)
  }

  keptAlive(): void {
    this.lastAliveMicros = this.nowMicros()
  }

  setKeepAlive(millis: number): void {
    this.keepAliveMillis = this.rounded(millis)
    this.keptAlive()
    this.armKeepAlive()
  }

  /** The admin queue is gone, and everything goes with it. */
  destroy(): void {
    if (this.isGone) return
    this.isGone = true
    this.stopKeepAlive()
    if (this.subsystem.controllers.get(this.id) === this) this.subsystem.controllers.delete(this.id)
    this.closeIoQueues()
    this.admin.destroy()
  }

  private closeIoQueues(): void {
    for (const queue of [...this.ioQueues.values()]) queue.destroy()
    this.ioQueues.clear()
  }

  private notify(notice: number, info: number, logPage: number): void {
    if (((this.features.get(FeatureId.asyncEvents) ?? 0) & notice) === 0 || this.masked.has(logPage)) return
    this.masked.add(logPage)
    const dword0 = encodeAsyncEvent(AsyncEventType.notice, info, logPage)
    const commandId = this.asyncRequests.shift()
    // A host that reads log pages and asks for no events is told of each page once.
    if (commandId !== undefined) this.admin.respondLater(commandId, Status.Success, dword0)
    else if (!this.pendingEvents.includes(dword0)) this.pendingEvents.push(dword0)
  }

  private rounded(millis: number): number {
    const { kas, min_kato: least } = this.transport
    if (millis === 0) return 0
    return millis <= least ? least : Math.ceil(millis / (kas * 100)) * kas * 100
  }

  private nowMicros(): number {
    return this.target.registry.context.timers.nowMicros()
  }

  private stopKeepAlive(): void {
    this.keepAliveDeadline?.cancel()
    this.keepAliveDeadline = undefined
  }

  private armKeepAlive(): void {
    this.stopKeepAlive()
    if (this.keepAliveMillis === 0 || this.isGone) return
    const { log, timers } = this.target.registry.context
    const seenMicros = this.lastAliveMicros
    const leftMicros = seenMicros + this.keepAliveMillis * 1000 - this.nowMicros()
    this.keepAliveDeadline = new Deadline(timers, Math.max(1000, leftMicros), () => {
      this.keepAliveDeadline = undefined
      // Whatever the clock says now: it may have stood still since that was read.
      if (this.lastAliveMicros !== seenMicros) return this.armKeepAlive()
      log(
        "notice",
        `Disconnecting host ${this.hostNqn} from subsystem ${this.subsystem.nqn} due to keep alive timeout.`
      )
      this.csts |= Csts.fatal
      this.destroy()
    })
  }
}
