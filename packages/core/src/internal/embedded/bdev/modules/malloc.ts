/**
 * Malloc bdevs: a disk in memory.
 */
import { Opcode, type TransferOpcode } from "@effect-spdk/native/Layout"
import * as Effect from "effect/Effect"
import { EmbeddedBdev, type BdevProperties, type IoType, type Json } from "../bdev.ts"
import { batched, type BdevModule, method } from "../module.ts"
import type { BdevRegistry } from "../registry.ts"
import type { EmbeddedIo } from "../io.ts"
import { isMoved } from "../../queue/memory.ts"
import { refusedMetadata } from "../metadata.ts"
import { orErrno, whenGone } from "../../rpc/table.ts"
import { EINVAL, ENOMEM, failed, success } from "../../queue/status.ts"
import * as Uuid from "../uuid.ts"

const moduleName = "malloc"

/** Of zcopy, compare and copy SPDK's module says that it has them; no queue entry asks for them. */
const moduleIoTypes: ReadonlySet<IoType> = new Set<IoType>([
  "read",
  "write",
  "unmap",
  "flush",
  "reset",
  "write_zeroes",
  "zcopy",
  "compare",
  "abort",
  "copy"
])

class MallocBdev extends EmbeddedBdev {
  readonly moduleName = moduleName
  readonly moduleIoTypes = moduleIoTypes
  readonly isImmediate = true
  private readonly bytes: Uint8Array
  private readonly registry: BdevRegistry

  constructor(registry: BdevRegistry, properties: BdevProperties, bytes: Uint8Array) {
    super(registry.context.reactor, properties)
    this.registry = registry
    this.bytes = bytes
  }

  submit(io: EmbeddedIo): void {
    const start = io.offsetBlocks * this.blockSize
    switch (io.opcode) {
      case Opcode.Read:
      case Opcode.Write:
        return io.finish(this.transfer(io, io.opcode, start) ? success : failed)
      case Opcode.Unmap:
      case Opcode.WriteZeroes:
        this.bytes.fill(0, start, start + io.lengthBlocks * this.blockSize)
        this.reactor.spent += (io.lengthBlocks * this.blockSize) / 16_384
        return io.finish(success)
      case Opcode.Flush:
      case Opcode.Reset:
        return io.finish(success)
      case Opcode.NvmeIo:
        return io.finish(failed)
      default:
        return io.refuse(io.opcode)
    }
  }

  override transferNow(
    opcode: TransferOpcode,
    offsetBlocks: number,
    lengthBlocks: number,
    bytes: Uint8Array,
    offset: number
  ): boolean {
    this.move(opcode, offsetBlocks * this.blockSize, lengthBlocks * this.blockSize, bytes, offset)
    return true
  }

  destruct(): void {
    this.registry.context.budget.give(this.bytes.length)
  }

  configCall(): Json {
    return {
      method: "bdev_malloc_create",
      params: {
        name: this.name,
        num_blocks: this.numBlocks,
        block_size: this.blockSize,
        physical_block_size: this.properties.physicalBlockSize ?? this.blockSize,
        uuid: this.properties.uuid,
        optimal_io_boundary: this.properties.optimalIoBoundaryBlocks ?? 0,
        md_size: 0,
        dif_type: 0,
        dif_is_head_of_md: false,
        dif_pi_format: 0,
        numa_id: this.properties.numaId ?? -1
      }
    }
  }

  /** False when the memory was transferred to somebody else since the request was looked at: a bdev above may have held it back. */
  private transfer(io: EmbeddedIo, opcode: TransferOpcode, start: number): boolean {
    const { memory, segments } = io
    if (memory !== undefined) {
      if (isMoved(memory)) return false
      this.move(opcode, start, io.lengthBlocks * this.blockSize, memory.bytes, io.memoryOffset)
      return true
    }
    if (segments?.some((segment) => isMoved(segment.memory)) === true) return false
    let at = start
    for (const segment of segments ?? []) {
      this.move(opcode, at, segment.lengthBytes, segment.memory.bytes, segment.offsetBytes)
      at += segment.lengthBytes
    }
    return true
  }

  private move(opcode: TransferOpcode, start: number, lengthBytes: number, bytes: Uint8Array, offset: number): void {
    if (opcode === Opcode.Read) bytes.set(viewOf(this.bytes, start, lengthBytes), offset)
    else this.bytes.set(pieceOf(bytes, offset, lengthBytes), start)
  }
}

/** The whole is what most I/O moves; a view less to make. */
const pieceOf = (bytes: Uint8Array, offsetBytes: number, lengthBytes: number): Uint8Array =>
  offsetBytes === 0 && lengthBytes === bytes.length ? bytes : viewOf(bytes, offsetBytes, lengthBytes)

/** What `subarray` gives, without looking up which class to make. */
const viewOf = (bytes: Uint8Array, offsetBytes: number, lengthBytes: number): Uint8Array =>
  new Uint8Array(bytes.buffer, bytes.byteOffset + offsetBytes, lengthBytes)

interface MallocSettings {
  readonly name: string | undefined
  readonly uuid: string | undefined
  readonly numBlocks: number
  readonly blockSize: number
  readonly physicalBlockSize: number
  readonly optimalIoBoundaryBlocks: number
  readonly numaId: number
}

export class MallocModule implements BdevModule {
  readonly name = moduleName
  readonly bases = "none"
  readonly examine = undefined
  readonly others = []
  private readonly registry: BdevRegistry
  private created = 0

  constructor(registry: BdevRegistry) {
    this.registry = registry
  }

  readonly create = method("bdev_malloc_create", (params) => {
    const fault = refusedMetadata(params)
    if (fault !== undefined) return Effect.fail(fault)
    const made = this.make({
      name: params.name,
      uuid: params.uuid,
      numBlocks: Number(params.num_blocks),
      blockSize: params.block_size,
      physicalBlockSize: params.physical_block_size ?? 0,
      optimalIoBoundaryBlocks: params.optimal_io_boundary ?? 0,
      numaId: params.numa_id ?? -1
    })
    return orErrno(made, ({ name }) => name)
  })

  readonly delete = method("bdev_malloc_delete", ({ name }) =>
    whenGone((done) => this.registry.unregisterByName(name, moduleName, done))
  )

  readonly configCalls = (withBatches: boolean): ReadonlyArray<Json> =>
    batched(
      this.registry.all.flatMap((bdev) => (bdev instanceof MallocBdev ? [bdev.configCall()] : [])),
      withBatches
    )

  /** The bdev, or a negative errno. */
  make(options: MallocSettings): EmbeddedBdev | number {
    const { blockSize, numBlocks } = options
    if (numBlocks === 0 || blockSize % 512 !== 0 || options.physicalBlockSize % 512 !== 0) return -EINVAL
    // There is one NUMA node here, whatever the machine has: -1 stands for any.
    if (options.numaId !== -1 && options.numaId !== 0) return -EINVAL
    const bytes = this.allocate(numBlocks * blockSize)
    if (bytes === undefined) return -ENOMEM
    const bdev = new MallocBdev(
      this.registry,
      {
        name: options.name ?? `Malloc${this.created++}`,
        uuid: Uuid.normalize(options.uuid) ?? this.registry.context.reactor.host.uuid(),
        productName: "Malloc disk",
        blockSize,
        numBlocks,
        physicalBlockSize: options.physicalBlockSize || blockSize,
        hasWriteCache: true,
        optimalIoBoundaryBlocks: options.optimalIoBoundaryBlocks,
        numaId: options.numaId
      },
      bytes
    )
    const errno = this.registry.register(bdev)
    if (errno === 0) return bdev
    bdev.destruct()
    return errno
  }

  private allocate(lengthBytes: number): Uint8Array | undefined {
    const { budget } = this.registry.context
    if (lengthBytes === 0 || !budget.take(lengthBytes)) return undefined
    try {
      return new Uint8Array(lengthBytes)
    } catch {
      // V8 had no room for it.
      budget.give(lengthBytes)
      return undefined
    }
  }
}
