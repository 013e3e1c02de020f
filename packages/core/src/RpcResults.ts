/**
 * The results of SPDK's RPC methods as Schemas, for the methods that this project uses. `Rpc.call` decodes results with
 * these Schemas. Other methods return plain JSON. A field that some SPDK since 25.09 does not send is optional. A field
 * that is unknown here is dropped. 64-bit counters are numbers, exact up to 2^53.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { RpcMethods } from "./generated/RpcMethods.ts"

/**
 * A bdev as `bdev_get_bdevs` describes it. Sizes are in blocks unless the name says otherwise.
 *
 * @since 0.1.0
 * @category models
 */
export const BdevRecord = Schema.Struct({
  name: Schema.String,
  aliases: Schema.Array(Schema.String),
  product_name: Schema.String,
  /** In bytes. */
  block_size: Schema.Number,
  num_blocks: Schema.Number,
  preferred_write_alignment: Schema.optional(Schema.Number),
  preferred_write_granularity: Schema.optional(Schema.Number),
  optimal_write_size: Schema.optional(Schema.Number),
  preferred_unmap_alignment: Schema.optional(Schema.Number),
  preferred_unmap_granularity: Schema.optional(Schema.Number),
  uuid: Schema.optional(Schema.String),
  numa_id: Schema.optional(Schema.Number),
  /** In bytes per block. Absent on a bdev without metadata, as are the fields down to `dif_pi_format`. */
  md_size: Schema.optional(Schema.Number),
  md_interleave: Schema.optional(Schema.Boolean),
  dif_type: Schema.optional(Schema.Number),
  dif_is_head_of_md: Schema.optional(Schema.Boolean),
  enabled_dif_check_types: Schema.optional(
    Schema.Struct({ reftag: Schema.Boolean, apptag: Schema.Boolean, guard: Schema.Boolean })
  ),
  dif_pi_format: Schema.optional(Schema.Number),
  /** By the kind of limit, for example `rw_ios_per_sec`. 0 is no limit. */
  assigned_rate_limits: Schema.Record(Schema.String, Schema.Number),
  /** Whether a module claims the bdev. Then no other user may write to it. */
  claimed: Schema.Boolean,
  claim_type: Schema.optional(Schema.String),
  zoned: Schema.Boolean,
  zone_size: Schema.optional(Schema.Number),
  max_open_zones: Schema.optional(Schema.Number),
  optimal_open_zones: Schema.optional(Schema.Number),
  /** By the name of the I/O type: `read`, `unmap`, `write_zeroes` and others. */
  supported_io_types: Schema.Record(Schema.String, Schema.Boolean),
  /** Since 26.05 only the name of the type, for example `dma`. Before 26.05 with an id and the number of the type. */
  memory_domains: Schema.optional(
    Schema.Array(
      Schema.Struct({
        dma_device_id: Schema.optional(Schema.NullOr(Schema.String)),
        dma_device_type: Schema.Union([Schema.String, Schema.Number])
      })
    )
  ),
  /** The information that the module adds, under the module's name. */
  driver_specific: Schema.Record(Schema.String, Schema.Json)
})
export type BdevRecord = typeof BdevRecord.Type

const ioCounters = {
  bytes_read: Schema.Number,
  num_read_ops: Schema.Number,
  bytes_written: Schema.Number,
  num_write_ops: Schema.Number,
  bytes_unmapped: Schema.Number,
  num_unmap_ops: Schema.Number,
  bytes_copied: Schema.Number,
  num_copy_ops: Schema.Number,
  read_latency_ticks: Schema.Number,
  max_read_latency_ticks: Schema.Number,
  min_read_latency_ticks: Schema.Number,
  write_latency_ticks: Schema.Number,
  max_write_latency_ticks: Schema.Number,
  min_write_latency_ticks: Schema.Number,
  unmap_latency_ticks: Schema.Number,
  max_unmap_latency_ticks: Schema.Number,
  min_unmap_latency_ticks: Schema.Number,
  copy_latency_ticks: Schema.Number,
  max_copy_latency_ticks: Schema.Number,
  min_copy_latency_ticks: Schema.Number,
  /** The number of I/Os that ended with each error, by the name of SPDK's status. */
  io_error: Schema.optional(Schema.Record(Schema.String, Schema.Number))
}

/** The counters of one bdev, summed over all channels. @since 0.1.0 @category models */
export const BdevIostat = Schema.Struct({
  name: Schema.String,
  ...ioCounters,
  /** This field and the next three are present while queue depth sampling is on. */
  queue_depth_polling_period: Schema.optional(Schema.Number),
  queue_depth: Schema.optional(Schema.Number),
  io_time: Schema.optional(Schema.Number),
  weighted_io_time: Schema.optional(Schema.Number),
  driver_specific: Schema.optional(Schema.Record(Schema.String, Schema.Json))
})
export type BdevIostat = typeof BdevIostat.Type

/** The counters of one bdev on one channel. @since 0.1.0 @category models */
export const ChannelIostat = Schema.Struct({ thread_id: Schema.Number, ...ioCounters })
export type ChannelIostat = typeof ChannelIostat.Type

/** @since 0.1.0 @category models */
export const BdevIostats = Schema.Struct({
  /** Ticks per second. All latencies and `ticks` are in this unit. */
  tick_rate: Schema.Number,
  ticks: Schema.Number,
  /** Empty with `per_channel: true`. The next two fields are present exactly then. */
  bdevs: Schema.Array(BdevIostat).pipe(Schema.withDecodingDefaultKey(Effect.succeed([]))),
  name: Schema.optional(Schema.String),
  channels: Schema.optional(Schema.Array(ChannelIostat))
})
export type BdevIostats = typeof BdevIostats.Type

/** One SPDK thread. `busy` and `idle` count ticks. @since 0.1.0 @category models */
export const ThreadStats = Schema.Struct({
  name: Schema.String,
  id: Schema.Number,
  /** Hexadecimal without 0x. `CpuSet.fromMask` parses it. */
  cpumask: Schema.String,
  busy: Schema.Number,
  idle: Schema.Number,
  active_pollers_count: Schema.Number,
  timed_pollers_count: Schema.Number,
  paused_pollers_count: Schema.Number
})
export type ThreadStats = typeof ThreadStats.Type

/** @since 0.1.0 @category models */
export const ThreadsStats = Schema.Struct({ tick_rate: Schema.Number, threads: Schema.Array(ThreadStats) })
export type ThreadsStats = typeof ThreadsStats.Type

/** One reactor, and its current threads. `busy` and `idle` count ticks. @since 0.1.0 @category models */
export const Reactor = Schema.Struct({
  lcore: Schema.Number,
  numa_id: Schema.optional(Schema.Number),
  tid: Schema.optional(Schema.Number),
  busy: Schema.Number,
  idle: Schema.Number,
  in_interrupt: Schema.Boolean,
  /** In percent since the previous call, as are the next two fields. */
  irq: Schema.optional(Schema.Number),
  sys: Schema.optional(Schema.Number),
  usr: Schema.optional(Schema.Number),
  /** In MHz. Present while a governor runs. */
  core_freq: Schema.optional(Schema.Number),
  lw_threads: Schema.Array(
    Schema.Struct({ name: Schema.String, id: Schema.Number, cpumask: Schema.String, elapsed: Schema.Number })
  )
})
export type Reactor = typeof Reactor.Type

/** @since 0.1.0 @category models */
export const Reactors = Schema.Struct({
  tick_rate: Schema.Number,
  pid: Schema.optional(Schema.Number),
  reactors: Schema.Array(Reactor)
})
export type Reactors = typeof Reactors.Type

/** @since 0.1.0 @category models */
export const SpdkVersion = Schema.Struct({
  version: Schema.String,
  fields: Schema.Struct({
    major: Schema.Number,
    minor: Schema.Number,
    patch: Schema.Number,
    suffix: Schema.String,
    commit: Schema.optional(Schema.String)
  })
})
export type SpdkVersion = typeof SpdkVersion.Type

const name = Schema.String
const names = Schema.Array(Schema.String)
const done = Schema.Boolean

/**
 * The Schema of each method's result, by the method's name.
 *
 * @since 0.1.0
 * @category schemas
 */
export const rpcResults = {
  bdev_get_bdevs: Schema.Array(BdevRecord),
  bdev_get_iostat: BdevIostats,
  framework_get_reactors: Reactors,
  rpc_get_methods: names,
  spdk_get_version: SpdkVersion,
  thread_get_stats: ThreadsStats,

  bdev_aio_create: name,
  bdev_crypto_create: name,
  bdev_delay_create: name,
  bdev_error_create: done,
  bdev_malloc_create: name,
  bdev_null_create: name,
  bdev_nvme_attach_controller: names,
  bdev_passthru_create: name,
  bdev_raid_create: done,
  bdev_split_create: names,
  bdev_uring_create: name,

  bdev_aio_delete: done,
  bdev_crypto_delete: done,
  bdev_delay_delete: done,
  bdev_error_delete: done,
  bdev_malloc_delete: done,
  bdev_null_delete: done,
  bdev_nvme_detach_controller: done,
  bdev_passthru_delete: done,
  bdev_raid_delete: done,
  bdev_split_delete: done,
  bdev_uring_delete: done,

  bdev_aio_rescan: done,
  bdev_delay_update_latency: done,
  bdev_error_inject_error: done,
  bdev_null_resize: done,
  framework_start_init: done
} satisfies { readonly [Method in keyof RpcMethods]?: Schema.Codec<unknown, unknown> }
