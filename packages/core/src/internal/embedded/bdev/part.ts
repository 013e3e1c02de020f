/**
 * What split and error bdevs have in common: parts of a base, which claim it together.
 */
import type { EmbeddedBdev } from "./bdev.ts"
import type { BdevDescriptor } from "./descriptor.ts"
import type { BdevRegistry } from "./registry.ts"
import { openBase, StackedBdev } from "./stacked.ts"
import type { EmbeddedIo } from "./io.ts"
import * as Uuid from "./uuid.ts"

const namespace = "976b899e-3e1e-4d71-ab69-c2b08e9df8b8"

/** The open base of some parts. Closes itself after the last of them. */
export class PartBase {
  readonly registry: BdevRegistry
  readonly moduleName: string
  readonly bdev: EmbeddedBdev
  readonly parts: Set<PartBdev>
  private readonly descriptor: BdevDescriptor
  private readonly onClose: () => void

  /** A negative errno when the base cannot be opened. `onClose` runs after the last part is gone. */
  static open(
    registry: BdevRegistry,
    moduleName: string,
    baseName: string,
    onClose: () => void = () => {}
  ): PartBase | number {
    const parts = new Set<PartBdev>()
    const descriptor = openBase(registry, baseName, false, () => [...parts])
    return typeof descriptor === "number" ? descriptor : new PartBase(registry, moduleName, descriptor, parts, onClose)
  }

  private constructor(
    registry: BdevRegistry,
    moduleName: string,
    descriptor: BdevDescriptor,
    parts: Set<PartBdev>,
    onClose: () => void
  ) {
    this.registry = registry
    this.moduleName = moduleName
    this.descriptor = descriptor
    this.bdev = descriptor.bdev
    this.parts = parts
    this.onClose = onClose
  }

  /** Registers a part. 0, or a negative errno: -EPERM (-1) also stands for a claim that another module holds. */
  add(part: PartBdev): number {
    if (this.parts.size === 0) {
      const errno = this.registry.claim(this.descriptor, this.moduleName)
      if (errno !== 0) return errno
    }
    this.parts.add(part)
    const errno = this.registry.register(part)
    if (errno !== 0) this.forget(part)
    return errno
  }

  /** After the last channel and descriptor of the part. */
  remove(part: PartBdev): void {
    this.forget(part)
    if (this.parts.size === 0) this.close()
  }

  /** When no part could be made. */
  close(): void {
    this.registry.close(this.descriptor)
    this.onClose()
  }

  private forget(part: PartBdev): void {
    this.parts.delete(part)
    if (this.parts.size === 0) this.registry.release(this.bdev)
  }
}

export abstract class PartBdev extends StackedBdev {
  readonly offsetBlocks: number
  protected readonly partBase: PartBase

  constructor(
    partBase: PartBase,
    options: {
      readonly name: string
      readonly productName: string
      readonly offsetBlocks: number
      readonly numBlocks: number
    }
  ) {
    const { bdev, registry } = partBase
    const { hasWriteCache, numaId } = bdev.properties
    super(
      registry,
      [bdev],
      {
        name: options.name,
        productName: options.productName,
        uuid: partUuid(bdev, options.offsetBlocks, options.numBlocks),
        blockSize: bdev.blockSize,
        numBlocks: options.numBlocks,
        hasWriteCache,
        alignmentBytes: bdev.properties.alignmentBytes ?? 1,
        numaId
      },
      bdev.moduleIoTypes
    )
    this.partBase = partBase
    this.offsetBlocks = options.offsetBlocks
  }

  protected override passDown(io: EmbeddedIo, offsetBlocks: number): void {
    super.passDown(io, offsetBlocks + this.offsetBlocks)
  }

  destruct(): void {
    this.partBase.remove(this)
  }
}

/** spdk_bdev_part_construct: of the base's UUID and the range. */
const partUuid = (base: EmbeddedBdev, offsetBlocks: number, numBlocks: number): string => {
  const name = Buffer.alloc(32)
  Uuid.toBytes(base.properties.uuid).copy(name)
  name.writeBigUInt64LE(BigInt(offsetBlocks), 16)
  name.writeBigUInt64LE(BigInt(numBlocks), 24)
  return Uuid.derive(namespace, name)
}
