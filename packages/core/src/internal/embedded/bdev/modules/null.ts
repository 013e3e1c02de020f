/**
 * Null bdevs: writes go nowhere, and reads leave the memory as it is, as in SPDK.
 */
import { Opcode } from "@effect-spdk/native/Layout"
import * as Effect from "effect/Effect"
import { EmbeddedBdev, type IoType, type Json } from "../bdev.ts"
import { batched, type BdevModule, method } from "../module.ts"
import type { BdevRegistry } from "../registry.ts"
import type { EmbeddedIo } from "../io.ts"
import { refusedMetadata } from "../metadata.ts"
import { orErrno, trueOrErrno, whenGone } from "../../rpc/table.ts"
import { EINVAL, failed, success } from "../../queue/status.ts"
import * as Uuid from "../uuid.ts"

const moduleName = "null"

const moduleIoTypes: ReadonlySet<IoType> = new Set<IoType>(["read", "write", "write_zeroes", "reset", "abort"])

class NullBdev extends EmbeddedBdev {
  readonly moduleName = moduleName
  readonly moduleIoTypes = moduleIoTypes
  readonly isImmediate = true

  submit(io: EmbeddedIo): void {
    switch (io.opcode) {
      case Opcode.Read:
      case Opcode.Write:
      case Opcode.WriteZeroes:
      case Opcode.Reset:
        return io.finish(success)
      case Opcode.Flush:
      case Opcode.Unmap:
      case Opcode.NvmeIo:
        return io.finish(failed)
      default:
        return io.refuse(io.opcode)
    }
  }

  override transferNow(): boolean {
    return true
  }

  destruct(): void {}

  configCall(): Json {
    const { properties } = this
    return {
      method: "bdev_null_create",
      params: {
        name: this.name,
        num_blocks: this.numBlocks,
        block_size: this.blockSize,
        physical_block_size: properties.physicalBlockSize ?? this.blockSize,
        md_size: 0,
        dif_type: 0,
        dif_is_head_of_md: false,
        dif_pi_format: 0,
        uuid: properties.uuid,
        preferred_write_granularity: properties.preferredWriteGranularity ?? 0,
        preferred_write_alignment: properties.preferredWriteAlignment ?? 0,
        optimal_write_size: properties.optimalWriteSize ?? 0,
        preferred_unmap_granularity: properties.preferredUnmapGranularity ?? 0,
        preferred_unmap_alignment: properties.preferredUnmapAlignment ?? 0
      }
    }
  }
}

interface NullSettings {
  readonly name: string
  readonly uuid: string | undefined
  readonly numBlocks: number
  readonly blockSize: number
  readonly physicalBlockSize: number
  readonly preferredWriteAlignment: number
  readonly preferredWriteGranularity: number
  readonly optimalWriteSize: number
  readonly preferredUnmapAlignment: number
  readonly preferredUnmapGranularity: number
}

export class NullModule implements BdevModule {
  readonly name = moduleName
  readonly bases = "none"
  readonly examine = undefined
  private readonly registry: BdevRegistry

  constructor(registry: BdevRegistry) {
    this.registry = registry
  }

  readonly create = method("bdev_null_create", (params) => {
    const fault = refusedMetadata(params)
    if (fault !== undefined) return Effect.fail(fault)
    const made = make(this.registry, {
      name: params.name,
      uuid: params.uuid,
      numBlocks: Number(params.num_blocks),
      blockSize: params.block_size,
      physicalBlockSize: params.physical_block_size ?? 0,
      preferredWriteAlignment: params.preferred_write_alignment ?? 0,
      preferredWriteGranularity: params.preferred_write_granularity ?? 0,
      optimalWriteSize: params.optimal_write_size ?? 0,
      preferredUnmapAlignment: params.preferred_unmap_alignment ?? 0,
      preferredUnmapGranularity: params.preferred_unmap_granularity ?? 0
    })
    return orErrno(made, ({ name }) => name)
  })

  readonly delete = method("bdev_null_delete", ({ name }) =>
    whenGone((done) => this.registry.unregisterByName(name, moduleName, done))
  )

  readonly others = [
    method("bdev_null_resize", (params) => trueOrErrno(resize(this.registry, params.name, Number(params.new_size))))
  ]

  readonly configCalls = (withBatches: boolean): ReadonlyArray<Json> =>
    batched(
      this.registry.all.flatMap((bdev) => (bdev instanceof NullBdev ? [bdev.configCall()] : [])),
      withBatches
    )
}

/** The bdev, or a negative errno. */
const make = (registry: BdevRegistry, options: NullSettings): EmbeddedBdev | number => {
  const { blockSize, numBlocks, physicalBlockSize, uuid, ...properties } = options
  if (blockSize % 512 !== 0 || physicalBlockSize % 512 !== 0 || numBlocks === 0) return -EINVAL
  const bdev = new NullBdev(registry.context.reactor, {
    ...properties,
    uuid: Uuid.normalize(uuid) ?? registry.context.reactor.host.uuid(),
    productName: "Null disk",
    blockSize,
    numBlocks,
    physicalBlockSize: physicalBlockSize || blockSize,
    hasWriteCache: false
  })
  const errno = registry.register(bdev)
  return errno === 0 ? bdev : errno
}

/** 0, or a negative errno. A null bdev only grows. */
const resize = (registry: BdevRegistry, name: string, newSizeMiB: number): number => {
  const descriptor = registry.open(name, false)
  if (typeof descriptor === "number") return descriptor
  const { bdev } = descriptor
  const mib = 1024 * 1024
  const errno =
    bdev.moduleName !== moduleName || newSizeMiB < Math.floor((bdev.blockSize * bdev.numBlocks) / mib)
      ? -EINVAL
      : registry.resize(bdev, Math.floor((newSizeMiB * mib) / bdev.blockSize))
  registry.close(descriptor)
  return errno
}
