/**
 * The records and statistics that SPDK reports for bdevs. Import these names from `Bdev`.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import type * as Schema from "effect/Schema"
import type { RpcClient } from "./Rpc.ts"
import * as Rpc from "./Rpc.ts"
import type { BdevRecord } from "./RpcResults.ts"
import { NotFound, type RpcReason, SpdkError } from "./SpdkError.ts"

/**
 * A bdev as `bdev_get_bdevs` reports it.
 *
 * @since 0.1.0
 * @category models
 */
export interface BdevInfo {
  readonly name: string
  /** Other names of the bdev, its UUID among them. */
  readonly aliases: ReadonlyArray<string>
  /** The kind of bdev, in the words of its module: `Malloc disk`, `AIO disk`, `NVMe disk`. */
  readonly productName: string
  readonly uuid: string | undefined
  /** In bytes. */
  readonly blockSize: number
  readonly numBlocks: number
  /** Exact up to 2^53. */
  readonly sizeBytes: number
  /**
   * Whether a module has claimed the bdev. `claimType` names the claim, for example `exclusive_write`: nothing else can
   * then write to the bdev.
   */
  readonly claimed: boolean
  readonly claimType: string | undefined
  readonly zoned: boolean
  /** I/O types by SPDK's names: `read`, `write_zeroes`. */
  readonly supportedIoTypes: ReadonlySet<string>
  /** The information that the bdev's module adds. */
  readonly driverSpecific: Schema.Json
}

/**
 * I/O counters of a bdev since its creation, summed over all its users, as `bdev_get_iostat` reports them.
 *
 * @since 0.1.0
 * @category models
 */
export interface BdevStats {
  readonly readBytes: number
  readonly readOps: number
  readonly writtenBytes: number
  readonly writeOps: number
  readonly unmappedBytes: number
  readonly unmapOps: number
  /** The sum of the latencies of all reads. The next two are the same for writes and unmaps. */
  readonly readLatencyMicros: number
  readonly writeLatencyMicros: number
  readonly unmapLatencyMicros: number
}

/**
 * Lists all bdevs (`bdev_get_bdevs`).
 *
 * @since 0.1.0
 * @category inspection
 */
export const list: Effect.Effect<ReadonlyArray<BdevInfo>, SpdkError<RpcReason>, RpcClient> = Effect.map(
  Rpc.call("bdev_get_bdevs"),
  (bdevs) => bdevs.map(toInfo)
)

/**
 * Finds a bdev by its name or an alias (`bdev_get_bdevs`). Fails with `NotFound`.
 *
 * @since 0.1.0
 * @category inspection
 */
export const find = (name: string): Effect.Effect<BdevInfo, SpdkError<RpcReason>, RpcClient> =>
  Effect.flatMap(Rpc.call("bdev_get_bdevs", { name }), ([bdev]) =>
    bdev === undefined ? notFound("bdev_get_bdevs", name) : Effect.succeed(toInfo(bdev))
  )

const toInfo = (bdev: BdevRecord): BdevInfo => ({
  name: bdev.name,
  aliases: bdev.aliases,
  productName: bdev.product_name,
  uuid: bdev.uuid,
  blockSize: bdev.block_size,
  numBlocks: bdev.num_blocks,
  sizeBytes: bdev.block_size * bdev.num_blocks,
  claimed: bdev.claimed,
  claimType: bdev.claim_type,
  zoned: bdev.zoned,
  supportedIoTypes: new Set(Object.keys(bdev.supported_io_types).filter((ioType) => bdev.supported_io_types[ioType])),
  driverSpecific: bdev.driver_specific
})

const notFound = (operation: string, resource: string) =>
  Effect.fail(new SpdkError({ reason: new NotFound({ operation, resource }) }))
