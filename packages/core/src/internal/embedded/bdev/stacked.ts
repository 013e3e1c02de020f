/**
 * Bdevs that stand on others, their bases: they claim them, go away with them, and pass I/O down.
 */
import { EmbeddedBdev, EmbeddedChannel, type BdevProperties, type ChannelThread, type IoType } from "./bdev.ts"
import type { BdevDescriptor } from "./descriptor.ts"
import type { BdevRegistry } from "./registry.ts"
import type { EmbeddedIo, IoOwner } from "./io.ts"
import type { IoStatus } from "../queue/status.ts"

export class StackedChannel extends EmbeddedChannel {
  /** In the order of the bases. */
  readonly bases: ReadonlyArray<EmbeddedChannel>

  constructor(bdev: StackedBdev, thread: ChannelThread) {
    super(bdev, thread)
    this.bases = bdev.bases.map((base) => base.getChannel(thread))
  }

  override destroy(): void {
    for (const base of this.bases) base.bdev.putChannel(base)
  }
}

export abstract class StackedBdev extends EmbeddedBdev implements IoOwner {
  readonly bases: readonly [EmbeddedBdev, ...ReadonlyArray<EmbeddedBdev>]
  readonly moduleIoTypes: ReadonlySet<IoType>
  protected readonly registry: BdevRegistry

  constructor(
    registry: BdevRegistry,
    bases: readonly [EmbeddedBdev, ...ReadonlyArray<EmbeddedBdev>],
    properties: BdevProperties,
    moduleIoTypes: ReadonlySet<IoType>
  ) {
    super(registry.context.reactor, properties)
    this.registry = registry
    this.bases = bases
    this.moduleIoTypes = moduleIoTypes
  }

  /** The first one, which for most modules is the only one. */
  get base(): EmbeddedBdev {
    return this.bases[0]
  }

  get isImmediate(): boolean {
    return this.bases.every((base) => base.isImmediate)
  }

  submit(io: EmbeddedIo): void {
    this.passDown(io, io.offsetBlocks)
  }

  /** To one of the bases. The I/O may have ended, and its record may be another's, when this returns. */
  protected passDown(io: EmbeddedIo, offsetBlocks: number, base = 0): void {
    const child = this.registry.ioPool.take(this, io, offsetBlocks)
    io.child = child
    const channel = stackedChannelOf(io).bases[base]
    if (channel === undefined) throw new Error(`${this.name} has no base ${base}`)
    channel.submit(child)
  }

  ioDone(child: EmbeddedIo): void {
    const { parent, status } = child
    this.registry.ioPool.give(child)
    if (parent === undefined) return
    parent.child = undefined
    this.baseDone(parent, status)
  }

  /** The bdev below has ended its part. */
  protected baseDone(io: EmbeddedIo, status: IoStatus): void {
    io.finish(status)
  }

  override abort(io: EmbeddedIo): boolean {
    const { child } = io
    if (child === undefined) return false
    const { bdev } = child.channel
    return bdev.supports("abort") && bdev.abort(child)
  }

  override makeChannel(thread: ChannelThread): EmbeddedChannel {
    return new StackedChannel(this, thread)
  }
}

// makeChannel of a stacked bdev makes nothing else.
const stackedChannelOf = (io: EmbeddedIo): StackedChannel => io.channel as StackedChannel

/** The io types that spdk_bdev_io_type_supported says yes to, what the layer emulates included. */
export const allIoTypes = (base: EmbeddedBdev, types: Iterable<IoType>): ReadonlySet<IoType> => {
  const supported = new Set<IoType>()
  for (const type of types) {
    if (base.supports(type)) supported.add(type)
  }
  return supported
}

/** What passthru and delay bdevs take over from their base. */
export const propertiesOfBase = (base: EmbeddedBdev) => ({
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
  standing: () => ReadonlyArray<EmbeddedBdev>
): BdevDescriptor | number =>
  registry.open(baseName, write, (event) => {
    // SPDK's stacked bdevs keep their size when the base grows.
    if (event !== "removed") return
    for (const bdev of standing()) registry.unregister(bdev)
  })
