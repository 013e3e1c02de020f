/**
 * The decoded records that SPDK reports for controllers attached as bdevs. Import these names from `NvmeBdev`.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"

/** A transport id in SPDK's notation. @since 0.1.0 @category models */
export const TransportId = Schema.Struct({
  /** `TCP`, `RDMA`, `PCIe`, `VFIOUSER` */
  trtype: Schema.String,
  adrfam: Schema.optional(Schema.String),
  traddr: Schema.String,
  trsvcid: Schema.optional(Schema.String),
  subnqn: Schema.optional(Schema.String)
})
export type TransportId = typeof TransportId.Type

/**
 * The state of one connection. `resetting` and `reconnect_is_delayed` end by themselves. `failed` does not.
 *
 * @since 0.1.0
 * @category models
 */
export const ControllerState = Schema.Literals([
  "enabled",
  "disabled",
  "resetting",
  "reconnect_is_delayed",
  "failed",
  "deleting"
])
export type ControllerState = typeof ControllerState.Type

/** One path to a subsystem. With `multipath`, each path is a controller of its own. @since 0.1.0 @category models */
export const PathInfo = Schema.Struct({
  state: ControllerState,
  transportId: TransportId,
  /** Alternative addresses, with "failover". */
  alternates: Schema.optional(Schema.Array(TransportId)),
  cntlid: Schema.Number,
  host: Schema.Struct({ nqn: Schema.String, addr: Schema.String, svcid: Schema.String })
}).pipe(Schema.encodeKeys({ transportId: "trid", alternates: "alternate_trids" }))
export type PathInfo = typeof PathInfo.Type

/** An attached controller with its paths, as `bdev_nvme_get_controllers` reports it. @since 0.1.0 @category models */
export const ControllerInfo = Schema.Struct({ name: Schema.String, paths: Schema.Array(PathInfo) }).pipe(
  Schema.encodeKeys({ paths: "ctrlrs" })
)
export type ControllerInfo = typeof ControllerInfo.Type

/** One path of one bdev on one SPDK thread. @since 0.1.0 @category models */
export const IoPath = Schema.Struct({
  bdev: Schema.String,
  cntlid: Schema.Number,
  /** Whether I/O currently uses this path. */
  isCurrent: Schema.Boolean,
  isConnected: Schema.Boolean,
  /** Whether the ANA state of the path allows I/O. */
  isAccessible: Schema.Boolean,
  transport: Schema.Struct({
    trtype: Schema.String,
    traddr: Schema.String,
    trsvcid: Schema.optional(Schema.String),
    adrfam: Schema.optional(Schema.String)
  })
}).pipe(
  Schema.encodeKeys({
    bdev: "bdev_name",
    isCurrent: "current",
    isConnected: "connected",
    isAccessible: "accessible"
  })
)
export type IoPath = typeof IoPath.Type

/**
 * The paths on one SPDK thread. A thread has paths while a channel is open on that thread.
 *
 * @since 0.1.0
 * @category models
 */
export const ThreadPaths = Schema.Struct({ thread: Schema.String, paths: Schema.Array(IoPath) }).pipe(
  Schema.encodeKeys({ paths: "io_paths" })
)
export type ThreadPaths = typeof ThreadPaths.Type

export const IoPaths = Schema.Struct({ poll_groups: Schema.Array(ThreadPaths) })

/** The I/O counters of one path. Latencies are in ticks. @since 0.1.0 @category models */
export const PathCounters = Schema.Struct({
  bytesRead: Schema.Number,
  readOps: Schema.Number,
  bytesWritten: Schema.Number,
  writeOps: Schema.Number,
  bytesUnmapped: Schema.Number,
  unmapOps: Schema.Number,
  readLatencyTicks: Schema.Number,
  writeLatencyTicks: Schema.Number,
  unmapLatencyTicks: Schema.Number
}).pipe(
  Schema.encodeKeys({
    bytesRead: "bytes_read",
    readOps: "num_read_ops",
    bytesWritten: "bytes_written",
    writeOps: "num_write_ops",
    bytesUnmapped: "bytes_unmapped",
    unmapOps: "num_unmap_ops",
    readLatencyTicks: "read_latency_ticks",
    writeLatencyTicks: "write_latency_ticks",
    unmapLatencyTicks: "unmap_latency_ticks"
  })
)
export type PathCounters = typeof PathCounters.Type

/** @since 0.1.0 @category models */
export const PathStats = Schema.Struct({ transportId: TransportId, counters: PathCounters }).pipe(
  Schema.encodeKeys({ transportId: "trid", counters: "stat" })
)
export type PathStats = typeof PathStats.Type

export const BdevPathStats = Schema.Struct({ name: Schema.String, stats: Schema.Array(PathStats) })

/** The discovery controllers that a discovery service reads. @since 0.1.0 @category models */
export const DiscoveryInfo = Schema.Struct({
  name: Schema.String,
  transportId: TransportId,
  /** Discovery controllers that this one refers to. The service reads those too. */
  referrals: Schema.Array(Schema.Struct({ transportId: TransportId }).pipe(Schema.encodeKeys({ transportId: "trid" })))
}).pipe(Schema.encodeKeys({ transportId: "trid" }))
export type DiscoveryInfo = typeof DiscoveryInfo.Type
