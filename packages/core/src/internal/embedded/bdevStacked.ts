/**
 * Bdevs that stand on another bdev: they claim it, go away with it, and pass I/O down.
 */
import { Bdev, BdevChannel, type BdevProperties, type ChannelThread, type IoType } from "./bdev.ts"
import type { BdevDescriptor } from "./bdevDescriptor.ts"
import type { BdevRegistry } from "./bdevRegistry.ts"
import type { BdevIo, IoOwner } from "./io.ts"
import type { IoStatus } from "./status.ts"

export class StackedChannel extends BdevChannel {
  readonly base: BdevChannel

  constructor(bdev: StackedBdev, thread: ChannelThread) {
    super(bdev, thread)
    this.base = bdev.base.getChannel(thread)
  }

  override destroy(): void {
    this.base.bdev.putChannel(this.base)
  }
}

export abstract class StackedBdev extends Bdev implements IoOwner {
  readonly base: Bdev
  readonly moduleIoTypes: ReadonlySet<IoType>
  protected readonly registry: BdevRegistry

  constructor(registry: BdevRegistry, base: Bdev, properties: BdevProperties, moduleIoTypes: ReadonlySet<IoType>) {
    super(registry.context.reactor, properties)
    this.registry = registry
    this.base = base
    this.moduleIoTypes = moduleIoTypes
  }

  get isImmediate(): boolean {
    return this.base.isImmediate
  }

  submit(io: BdevIo): void {
    this.passDown(io, io.offsetBlocks)
  }

  /** The I/O may have ended, and its record may be another's, when this returns. */
  protected passDown(io: BdevIo, offsetBlocks: number): void {
    const child = this.registry.ioPool.take(this, io, offsetBlocks)
    io.child = child
    stackedChannelOf(io).base.submit(child)
  }

  ioDone(child: BdevIo): void {
    const { parent, status } = child
    this.registry.ioPool.give(child)
    if (parent === undefined) return
    parent.child = undefined
    this.baseDone(parent, status)
  }

  /** The bdev below has ended its part. */
  protected baseDone(io: BdevIo, status: IoStatus): void {
    io.finish(status)
  }

  override abort(io: BdevIo): boolean {
    const { child } = io
    return child !== undefined && this.base.supports("abort") && this.base.abort(child)
  }

  override makeChannel(thread: ChannelThread): BdevChannel {
    return new StackedChannel(this, thread)
  }
}

// makeChannel of a stacked bdev makes nothing else.
const stackedChannelOf = (io: BdevIo): StackedChannel => io.channel as StackedChannel

/** The io types that spdk_bdev_io_type_supported says yes to, what the layer emulates included. */
export const allIoTypes = (base: Bdev, types: Iterable<IoType>): ReadonlySet<IoType> => {
  const supported = new Set<IoType>()
  for (const type of types) {
    if (base.supports(type)) supported.add(type)
  }
  return supported
}

/** What passthru and delay bdevs take over from their base. */
export const propertiesOfBase = (base: Bdev) => ({
  blockSize: base.blockSize,
  numBlocks: base.numBlocks,
  hasWriteCache: base.properties.hasWriteCache,
  alignmentBytes: base.properties.alignmentBytes ?? 1,
  optimalIoBoundaryBlocks: base.properties.optimalIoBoundaryBlocks ?? 0,
  numaId: base.properties.numaId
})

/** Opens the base, so that the removal of it removes what `standing` says stands on it. */
export const openBase = (
  registry: BdevRegistry,
  baseName: string,
  write: boolean,
  standing: () => ReadonlyArray<Bdev>
): BdevDescriptor | number =>
  registry.open(baseName, write, (event) => {
    // SPDK's stacked bdevs keep their size when the base grows.
    if (event !== "removed") return
    for (const bdev of standing()) registry.unregister(bdev)
  })
