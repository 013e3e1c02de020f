/**
 * All bdevs of an engine, by name and alias: registration, opening, claims, removal, and the modules that make
 * bdevs out of bdevs. Errors are negative errno numbers, which RPC answers carry as they are.
 */
import type { EmbeddedBdev } from "./bdev.ts"
import { BdevDescriptor, type BdevEventType } from "./descriptor.ts"
import type { BdevModule } from "./module.ts"
import { IoPool } from "./io.ts"
import type { MemoryBudget } from "../queue/memory.ts"
import type { Notifications } from "../runtime/notifications.ts"
import type { EmbeddedReactor } from "../runtime/reactor.ts"
import { EBUSY, EEXIST, EINVAL, ENODEV, EPERM } from "../queue/status.ts"
import type { Timers } from "../runtime/timers.ts"
import { WithoutEffect } from "../rpc/withoutEffect.ts"

export interface RegistryContext {
  readonly reactor: EmbeddedReactor
  readonly timers: Timers
  readonly budget: MemoryBudget
  readonly notifications: Notifications
  readonly log: (level: "error" | "warning" | "notice" | "info" | "debug", message: string) => void
}

/** What `bdev_set_options` sets. There is no pool of bdev_io here, and none of iobuf: their sizes are only kept. */
export interface BdevOptions {
  readonly bdev_io_pool_size: number
  readonly bdev_io_cache_size: number
  readonly bdev_auto_examine: boolean
  readonly iobuf_small_cache_size: number
  readonly iobuf_large_cache_size: number
}

const ignoreEvents = (): void => {}

export class BdevRegistry {
  readonly context: RegistryContext
  readonly ioPool = new IoPool()
  readonly withoutEffect: WithoutEffect
  /** In the order in which SPDK's modules look at a new bdev, and so which of them gets it; a configuration has the same order. */
  modules: ReadonlyArray<BdevModule> = []
  options: BdevOptions = {
    bdev_io_pool_size: 65_535,
    bdev_io_cache_size: 256,
    bdev_auto_examine: true,
    iobuf_small_cache_size: 128,
    iobuf_large_cache_size: 16
  }
  /** The bdevs that are examined though the others are not. */
  private readonly examined = new Set<string>()
  private readonly names = new Map<string, EmbeddedBdev>()
  private readonly bdevs = new Set<EmbeddedBdev>()
  private readonly waiters = new Set<() => void>()

  constructor(context: RegistryContext) {
    this.context = context
    this.withoutEffect = new WithoutEffect(context.log)
  }

  get all(): ReadonlyArray<EmbeddedBdev> {
    return [...this.bdevs]
  }

  find(name: string): EmbeddedBdev | undefined {
    return this.names.get(name)
  }

  /** 0, -EINVAL for an empty name, -EEXIST for one that is taken, as name or as alias. */
  register(bdev: EmbeddedBdev): number {
    const { uuid } = bdev.properties
    if (bdev.name === "") return -EINVAL
    if (this.names.has(bdev.name) || this.names.has(uuid)) {
      this.context.log("error", `Bdev name ${this.names.has(uuid) ? uuid : bdev.name} already exists`)
      return -EEXIST
    }
    if (bdev.name !== uuid) {
      bdev.aliases.push(uuid)
      this.names.set(uuid, bdev)
    }
    this.names.set(bdev.name, bdev)
    this.bdevs.add(bdev)
    this.context.notifications.add("bdev_register", bdev.name)
    if (this.options.bdev_auto_examine || this.examined.has(bdev.name)) this.examine(bdev)
    for (const waiter of [...this.waiters]) waiter()
    return 0
  }

  /** Has the bdev of this name examined, now or when it appears, where that is not done for all of them. */
  examineByName(name: string): number {
    if (this.options.bdev_auto_examine) return -EINVAL
    if (this.examined.has(name)) return -EEXIST
    this.examined.add(name)
    const bdev = this.find(name)
    if (bdev !== undefined) this.examine(bdev)
    return 0
  }

  private examine(bdev: EmbeddedBdev): void {
    for (const module of this.modules) module.examine?.(bdev)
  }

  /** Calls `onRegister` after each registration, until the returned function is called. */
  watch(onRegister: () => void): () => void {
    this.waiters.add(onRegister)
    return () => this.waiters.delete(onRegister)
  }

  /** A descriptor, -ENODEV, or -EPERM when another module has claimed the right to write. */
  open(name: string, write: boolean, onEvent: (type: BdevEventType) => void = ignoreEvents): BdevDescriptor | number {
    const bdev = this.find(name)
    if (bdev === undefined || bdev.state !== "ready") return -ENODEV
    if (write && bdev.claimedBy !== undefined) {
      this.context.log("error", `bdev ${name} already claimed: type exclusive_write by module ${bdev.claimedBy}`)
      return -EPERM
    }
    const descriptor = new BdevDescriptor(bdev, write, onEvent)
    bdev.descriptors.add(descriptor)
    return descriptor
  }

  close(descriptor: BdevDescriptor): void {
    if (descriptor.isClosed) return
    descriptor.isClosed = true
    const { bdev } = descriptor
    bdev.descriptors.delete(descriptor)
    if (bdev.state === "removing" && bdev.descriptors.size === 0) this.finishUnregister(bdev)
  }

  /** The only right to write. Upgrades the descriptor. */
  claim(descriptor: BdevDescriptor, moduleName: string): number {
    const { bdev } = descriptor
    if (bdev.claimedBy !== undefined) return -EPERM
    descriptor.isWritable = true
    bdev.claimedBy = moduleName
    return 0
  }

  release(bdev: EmbeddedBdev): void {
    bdev.claimedBy = undefined
  }

  /** `onDone` gets 0 when the bdev is gone, or -EBUSY when its removal is under way already. */
  unregister(bdev: EmbeddedBdev, onDone: (errno: number) => void = () => {}): void {
    if (bdev.state !== "ready") return onDone(-EBUSY)
    bdev.state = "unregistering"
    bdev.onRemoved = onDone
    // Waiting I/O is ended in a drain, like all I/O.
    this.context.reactor.post(() => {
      for (const channel of bdev.channels.values()) channel.abortWaiting()
      bdev.onUnregister()
      bdev.state = "removing"
      if (bdev.descriptors.size === 0) return this.finishUnregister(bdev)
      for (const descriptor of [...bdev.descriptors]) this.notify(descriptor, "removed")
    })
  }

  /** As unregister, for a bdev of this module and of no other. */
  unregisterByName(name: string, moduleName: string, onDone: (errno: number) => void): number {
    const bdev = this.find(name)
    if (bdev === undefined || bdev.state !== "ready" || bdev.moduleName !== moduleName) return -ENODEV
    this.unregister(bdev, onDone)
    return 0
  }

  /** -EBUSY when an open bdev would shrink. */
  resize(bdev: EmbeddedBdev, numBlocks: number): number {
    if (numBlocks === bdev.numBlocks) return 0
    if (numBlocks < bdev.numBlocks && bdev.descriptors.size > 0) return -EBUSY
    this.context.notifications.add("bdev_resize", bdev.name)
    return this.resizeTo(bdev, numBlocks)
  }

  /** The device has this size now, whoever holds it. */
  resizeTo(bdev: EmbeddedBdev, numBlocks: number): number {
    if (numBlocks === bdev.numBlocks) return 0
    bdev.numBlocks = numBlocks
    for (const descriptor of [...bdev.descriptors]) this.notify(descriptor, "resized")
    return 0
  }

  private notify(descriptor: BdevDescriptor, type: BdevEventType): void {
    this.context.reactor.post(() => {
      if (!descriptor.isClosed) descriptor.onEvent(type)
    })
  }

  private finishUnregister(bdev: EmbeddedBdev): void {
    if (!this.bdevs.delete(bdev)) return
    for (const name of [bdev.name, ...bdev.aliases]) this.names.delete(name)
    bdev.aliases.length = 0
    this.context.notifications.add("bdev_unregister", bdev.name)
    const finish = () => {
      if (bdev.channels.size > 0) return
      bdev.onChannelGone = undefined
      bdev.destruct()
      bdev.onRemoved?.(0)
    }
    bdev.onChannelGone = finish
    finish()
  }
}
