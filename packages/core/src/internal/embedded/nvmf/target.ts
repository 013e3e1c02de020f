/**
 * What the NVMe-oF target exports, and to whom: subsystems, their namespaces, hosts and listeners, and the discovery log.
 * Who is told of a change is decided here; how the commands are answered is in controller.ts and connection.ts.
 */
import type { AnaState, DiscoveryEntryInput } from "../../nvme/wire/logPages.ts"
import { discoveryNqn } from "../../nvme/wire/nqn.ts"
import type { EmbeddedBdev, EmbeddedChannel, ChannelThread } from "../bdev/bdev.ts"
import type { BdevDescriptor } from "../bdev/descriptor.ts"
import type { BdevRegistry } from "../bdev/registry.ts"
import { callAll } from "../runtime/uncaught.ts"
import type { Connection } from "./connection.ts"
import type { Controller } from "./controller.ts"
import { DataPool, dataPoolBytes } from "./dataPool.ts"
import { ListenSocket } from "./listener.ts"
import { BlockPool } from "./outBlock.ts"

export const claimant = "NVMe-oF Target"

export interface TransportOptions {
  readonly max_queue_depth: number
  readonly max_io_qpairs_per_ctrlr: number
  readonly in_capsule_data_size: number
  readonly max_io_size: number
  readonly max_aq_depth: number
  readonly c2h_success: boolean
  /** Keep-alive granularity, in units of 100 ms. */
  readonly kas: number
  /** Milliseconds. */
  readonly min_kato: number
}

export interface Address {
  readonly adrfam: "IPv4" | "IPv6"
  readonly traddr: string
  readonly trsvcid: string
}

export const addressKey = ({ traddr, trsvcid }: Address): string => `${traddr} ${trsvcid}`

export interface Referral {
  readonly trtype: string
  readonly adrfam: string
  readonly traddr: string
  readonly trsvcid: string
  readonly subnqn: string
  readonly secure: boolean
}

/** A subsystem's place at an address. */
export interface SubsystemListener {
  readonly id: number
  readonly address: Address
  /** By ANA group, from group 1 on. */
  readonly anaStates: Array<AnaState>
  anaChangeCount: bigint
}

export interface NamespaceIds {
  readonly uuid: string
  /** Upper-case hexadecimal digits; undefined: none. */
  readonly nguid: string | undefined
  readonly eui64: string | undefined
}

export class Namespace {
  readonly nsid: number
  readonly ids: NamespaceIds
  readonly bdev: EmbeddedBdev
  readonly channel: EmbeddedChannel
  readonly isVisibleToAll: boolean
  readonly hosts = new Set<string>()
  anaGroup: number
  inFlight = 0
  isClosing = false
  private readonly registry: BdevRegistry
  private readonly descriptor: BdevDescriptor
  private readonly waiting: Array<() => void> = []
  private isClosed = false

  constructor(
    target: Target,
    options: {
      readonly nsid: number
      readonly ids: NamespaceIds
      readonly descriptor: BdevDescriptor
      readonly isVisibleToAll: boolean
      readonly anaGroup: number
    }
  ) {
    this.nsid = options.nsid
    this.ids = options.ids
    this.descriptor = options.descriptor
    this.bdev = options.descriptor.bdev
    this.channel = this.bdev.getChannel(target.thread)
    this.isVisibleToAll = options.isVisibleToAll
    this.anaGroup = options.anaGroup
    this.registry = target.registry
  }

  isVisibleTo(hostNqn: string): boolean {
    return this.isVisibleToAll || this.hosts.has(hostNqn)
  }

  ioEnded(): void {
    this.inFlight--
    if (this.isClosing && this.inFlight === 0) this.finishClose()
  }

  /** Takes no more I/O; lets the bdev go when what runs has ended. */
  close(done: () => void = () => {}): void {
    this.waiting.push(done)
    this.isClosing = true
    if (this.inFlight === 0) this.finishClose()
  }

  private finishClose(): void {
    if (!this.isClosed) {
      this.isClosed = true
      this.bdev.putChannel(this.channel)
      this.registry.release(this.bdev)
      this.registry.close(this.descriptor)
    }
    callAll(this.waiting.splice(0))
  }
}

export interface SubsystemOptions {
  readonly nqn: string
  readonly isDiscovery: boolean
  readonly serialNumber: string
  readonly modelNumber: string
  readonly maxNamespaces: number
  readonly anaReporting: boolean
  readonly minControllerId: number
  readonly maxControllerId: number
  readonly dmrsl: number
  readonly wzsl: number
}

export class Subsystem {
  readonly options: SubsystemOptions
  allowAnyHost: boolean
  /** Newest first, as SPDK lists them. */
  readonly hosts: Array<string> = []
  readonly listeners: Array<SubsystemListener> = []
  readonly namespaces = new Map<number, Namespace>()
  readonly controllers = new Map<number, Controller>()
  private nextControllerId: number
  private nextListenerId = 0

  constructor(options: SubsystemOptions, allowAnyHost: boolean) {
    this.options = options
    this.allowAnyHost = allowAnyHost
    this.nextControllerId = options.minControllerId
  }

  get nqn(): string {
    return this.options.nqn
  }

  allows(hostNqn: string): boolean {
    return this.allowAnyHost || this.hosts.includes(hostNqn)
  }

  listenerAt(address: Address): SubsystemListener | undefined {
    const key = addressKey(address)
    return this.listeners.find((listener) => addressKey(listener.address) === key)
  }

  addListener(address: Address, anaState: AnaState): void {
    this.listeners.unshift({
      id: this.nextListenerId++,
      address,
      anaStates: new Array<AnaState>(this.options.maxNamespaces).fill(anaState),
      anaChangeCount: 0n
    })
  }

  sortedNamespaces(): ReadonlyArray<Namespace> {
    return [...this.namespaces.values()].toSorted((a, b) => a.nsid - b.nsid)
  }

  /** Undefined when all ids are taken. */
  takeControllerId(): number | undefined {
    const { maxControllerId, minControllerId } = this.options
    for (let tries = maxControllerId - minControllerId; tries >= 0; tries--) {
      const id = this.nextControllerId
      this.nextControllerId = id === maxControllerId ? minControllerId : id + 1
      if (!this.controllers.has(id)) return id
    }
    return undefined
  }

  /** Tells the controllers that see it. */
  namespaceChanged(namespace: Namespace): void {
    for (const controller of this.controllers.values()) {
      if (namespace.isVisibleTo(controller.hostNqn)) controller.namespaceChanged(namespace.nsid)
    }
  }

  removeNamespace(nsid: number, done: () => void = () => {}): boolean {
    const namespace = this.namespaces.get(nsid)
    if (namespace === undefined) return false
    this.namespaces.delete(nsid)
    for (const controller of this.controllers.values()) controller.unseen.add(nsid)
    this.namespaceChanged(namespace)
    namespace.close(done)
    return true
  }
}

export class Target {
  readonly registry: BdevRegistry
  readonly name = "nvmf_tgt"
  readonly thread: ChannelThread = { id: 0, name: "nvmf_tgt_poll_group_000" }
  readonly blocks = new BlockPool()
  readonly data: DataPool
  readonly subsystems = new Map<string, Subsystem>()
  readonly referrals: Array<Referral> = []
  /** By address. */
  readonly sockets = new Map<string, ListenSocket>()
  readonly connections = new Set<Connection>()
  transport: TransportOptions | undefined = undefined
  maxSubsystems = 1024
  generation = 0n
  /** CRDT1 to CRDT3, in units of 100 ms. */
  retryDelays: ReadonlyArray<number> = [0, 0, 0]
  readonly stats = { adminQueues: 0, ioQueues: 0, completed: 0 }

  constructor(registry: BdevRegistry) {
    const { reactor, timers } = registry.context
    this.registry = registry
    this.data = new DataPool(reactor, timers, dataPoolBytes)
    const discovery = new Subsystem(
      {
        nqn: discoveryNqn,
        isDiscovery: true,
        serialNumber: "00000000000000000000",
        modelNumber: "SPDK bdev Controller",
        maxNamespaces: 0,
        anaReporting: false,
        minControllerId: 1,
        maxControllerId: 0xffef,
        dmrsl: 0,
        wzsl: 0
      },
      true
    )
    this.subsystems.set(discoveryNqn, discovery)
  }

  /** The discovery log has changed, for one host or for all. */
  discoveryChanged(hostNqn?: string): void {
    this.generation++
    for (const controller of this.subsystems.get(discoveryNqn)?.controllers.values() ?? []) {
      if (hostNqn === undefined || controller.hostNqn === hostNqn) controller.discoveryChanged()
    }
  }

  discoveryEntries(hostNqn: string): ReadonlyArray<DiscoveryEntryInput> {
    const entries: Array<DiscoveryEntryInput> = []
    for (const subsystem of this.subsystems.values()) {
      if (!subsystem.allows(hostNqn)) continue
      for (const { address, id } of subsystem.listeners) {
        entries.push({
          trtype: 3,
          adrfam: address.adrfam === "IPv6" ? 2 : 1,
          subtype: subsystem.options.isDiscovery ? 3 : 2,
          requirements: { secureChannel: 0 },
          portId: id,
          controllerId: 0xffff,
          adminQueueSize: this.transport?.max_aq_depth ?? 32,
          flags: subsystem.options.isDiscovery ? { sameInformation: true, explicitPersistentConnections: true } : {},
          trsvcid: address.trsvcid,
          subnqn: subsystem.nqn,
          traddr: address.traddr
        })
      }
    }
    for (const referral of this.referrals) {
      entries.push({
        trtype: 3,
        adrfam: referral.adrfam === "IPv6" ? 2 : 1,
        subtype: 1,
        requirements: { secureChannel: referral.secure ? 1 : 2 },
        controllerId: 0xffff,
        adminQueueSize: 32,
        trsvcid: referral.trsvcid,
        subnqn: referral.subnqn,
        traddr: referral.traddr
      })
    }
    return entries
  }

  /** The socket of this address, made when there is none. Each subsystem counts itself as a user. */
  listenSocket(address: Address): ListenSocket {
    const key = addressKey(address)
    let socket = this.sockets.get(key)
    if (socket === undefined) {
      socket = new ListenSocket(this, address)
      this.sockets.set(key, socket)
    }
    return socket
  }

  /** One subsystem fewer listens there. */
  stopListening(address: Address): void {
    const key = addressKey(address)
    const socket = this.sockets.get(key)
    if (socket === undefined || --socket.users > 0) return
    this.sockets.delete(key)
    socket.close()
  }

  /** Ends everything; calls `done` when no namespace holds a bdev any more. */
  close(done: () => void): void {
    for (const socket of this.sockets.values()) socket.close()
    this.sockets.clear()
    for (const connection of [...this.connections]) connection.destroy()
    this.data.close()
    const namespaces = [...this.subsystems.values()].flatMap((subsystem) => [...subsystem.namespaces.values()])
    let left = namespaces.length
    if (left === 0) return done()
    for (const namespace of namespaces) {
      namespace.close(() => {
        if (--left === 0) done()
      })
    }
  }
}
