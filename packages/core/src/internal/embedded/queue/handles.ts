/**
 * What the users of the engine hold of bdevs: descriptors and channels, by {slot, generation}. A channel's slot
 * stays taken until its user asks for the close, so that after a removal its name still answers "removed".
 */
import type { DescriptorEvent, DescriptorInfo } from "../../engine/engine.ts"
import { type EmbeddedBdev, type EmbeddedChannel, ioTypes } from "../bdev/bdev.ts"
import { BdevDescriptor } from "../bdev/descriptor.ts"
import type { BdevRegistry } from "../bdev/registry.ts"
import { SlotTable } from "./slots.ts"
import type { LogicalThread } from "../runtime/thread.ts"
import { callAll } from "../runtime/uncaught.ts"

type Done = () => void

export class OpenDescriptor {
  readonly slot: number
  readonly generation: number
  readonly writable: boolean
  readonly info: DescriptorInfo
  readonly bdev: EmbeddedBdev
  readonly channels = new Set<OpenChannel>()
  readonly descriptor: BdevDescriptor
  isRemoved = false
  isClosing = false
  isClosed = false
  waiting: Array<Done> = []

  constructor(slot: number, generation: number, descriptor: BdevDescriptor) {
    this.slot = slot
    this.generation = generation
    this.writable = descriptor.isWritable
    this.bdev = descriptor.bdev
    this.info = infoOf(descriptor.bdev)
    this.descriptor = descriptor
  }
}

export class OpenChannel {
  readonly slot: number
  readonly generation: number
  readonly thread: LogicalThread
  readonly descriptor: OpenDescriptor
  readonly bdev: EmbeddedBdev
  readonly channel: EmbeddedChannel
  state: "open" | "closing" | "put" = "open"
  inFlight = 0
  waiting: Array<Done> = []

  constructor(slot: number, generation: number, thread: LogicalThread, descriptor: OpenDescriptor) {
    this.slot = slot
    this.generation = generation
    this.thread = thread
    this.descriptor = descriptor
    this.bdev = descriptor.bdev
    this.channel = descriptor.bdev.getChannel(thread)
  }
}

export class Handles {
  private readonly registry: BdevRegistry
  private readonly descriptors: SlotTable<OpenDescriptor>
  private readonly channels: SlotTable<OpenChannel>
  descriptorCount = 0
  channelCount = 0

  constructor(registry: BdevRegistry) {
    const { host } = registry.context.reactor
    this.registry = registry
    this.descriptors = new SlotTable(host)
    this.channels = new SlotTable(host)
  }

  /** A negative errno when it cannot be opened. */
  openDescriptor(name: string, write: boolean, onEvent: (event: DescriptorEvent) => void): OpenDescriptor | number {
    const descriptor = this.registry.open(name, write)
    return typeof descriptor === "number" ? descriptor : this.opened(descriptor, onEvent)
  }

  private opened(descriptor: BdevDescriptor, onEvent: (event: DescriptorEvent) => void): OpenDescriptor {
    const open = this.descriptors.open((slot, generation) => new OpenDescriptor(slot, generation, descriptor))
    this.descriptorCount++
    descriptor.onEvent = (type) => {
      if (type === "resized") onEvent({ _tag: "Resized", numBlocks: open.bdev.numBlocks })
      else this.removed(open, onEvent)
    }
    return open
  }

  /** A bdev that has no name in the registry: its owner opens it, and nobody else. */
  openUnregistered(bdev: EmbeddedBdev, write: boolean, onEvent: (event: DescriptorEvent) => void): OpenDescriptor {
    const descriptor = new BdevDescriptor(bdev, write, () => {})
    bdev.descriptors.add(descriptor)
    return this.opened(descriptor, onEvent)
  }

  /** `done` runs after the last channel is put; at once when the descriptor is closed already. */
  closeDescriptor(slot: number, generation: number, done: Done): void {
    const descriptor = this.descriptors.find(slot, generation)
    if (descriptor === undefined) return done()
    descriptor.isClosing = true
    descriptor.waiting.push(done)
    this.closeIfUnused(descriptor)
  }

  findDescriptor(slot: number, generation: number): OpenDescriptor | undefined {
    return this.descriptors.find(slot, generation)
  }

  findChannel(slot: number, generation: number): OpenChannel | undefined {
    return this.channels.find(slot, generation)
  }

  openChannel(thread: LogicalThread, descriptor: OpenDescriptor): OpenChannel {
    const channel = this.channels.open((slot, generation) => new OpenChannel(slot, generation, thread, descriptor))
    descriptor.channels.add(channel)
    this.channelCount++
    return channel
  }

  /** `done` runs after the last request; at once when the channel is gone already. */
  closeChannel(slot: number, generation: number, done: Done): void {
    const channel = this.channels.find(slot, generation)
    if (channel === undefined) return done()
    channel.waiting.push(done)
    if (channel.state === "open") channel.state = "closing"
    this.putIfUnused(channel)
  }

  /** Closes what is left on a thread. */
  closeChannelsOf(thread: LogicalThread): void {
    for (const channel of this.channels.values()) {
      if (channel.thread === thread) this.closeChannel(channel.slot, channel.generation, () => {})
    }
  }

  /** Closes everything, in SPDK's order. */
  closeAll(): void {
    for (const { generation, slot } of this.channels.values()) this.closeChannel(slot, generation, () => {})
    for (const { generation, slot } of this.descriptors.values()) this.closeDescriptor(slot, generation, () => {})
  }

  /** A request on it has ended. */
  requestEnded(channel: OpenChannel): void {
    channel.inFlight--
    if (channel.state !== "open") this.putIfUnused(channel)
  }

  private removed(descriptor: OpenDescriptor, onEvent: (event: DescriptorEvent) => void): void {
    if (descriptor.isRemoved) return
    descriptor.isRemoved = true
    descriptor.isClosing = true
    callAll([() => onEvent({ _tag: "Removed" })])
    for (const channel of [...descriptor.channels]) {
      if (channel.state === "open") channel.state = "closing"
      this.putIfUnused(channel)
    }
    this.closeIfUnused(descriptor)
  }

  private putIfUnused(channel: OpenChannel): void {
    if (channel.inFlight > 0) return
    if (channel.state === "closing") {
      channel.state = "put"
      channel.bdev.putChannel(channel.channel)
      this.channelCount--
      channel.descriptor.channels.delete(channel)
      this.closeIfUnused(channel.descriptor)
    }
    if (channel.state !== "put" || channel.waiting.length === 0) return
    this.channels.free(channel.slot)
    const { waiting } = channel
    channel.waiting = []
    callAll(waiting)
  }

  private closeIfUnused(descriptor: OpenDescriptor): void {
    if (!descriptor.isClosing || descriptor.channels.size > 0) return
    if (!descriptor.isClosed) {
      descriptor.isClosed = true
      this.descriptors.free(descriptor.slot)
      this.descriptorCount--
      this.registry.close(descriptor.descriptor)
    }
    const { waiting } = descriptor
    descriptor.waiting = []
    callAll(waiting)
  }
}

const infoOf = (bdev: EmbeddedBdev): DescriptorInfo => ({
  name: bdev.name,
  productName: bdev.properties.productName,
  blockSizeBytes: bdev.blockSize,
  numBlocks: bdev.numBlocks,
  bufferAlignmentBytes: bdev.properties.alignmentBytes ?? 1,
  writeUnitBlocks: 1,
  optimalIoBoundaryBlocks: bdev.properties.optimalIoBoundaryBlocks ?? 0,
  hasWriteCache: bdev.properties.hasWriteCache,
  supportedIoTypes: ioTypes.filter((type) => bdev.supports(type))
})
