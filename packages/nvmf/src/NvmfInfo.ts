/**
 * The decoded information that a target reports. Fields that only some transports or subsystems have are optional.
 * Import these names from `NvmfTarget`.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"

/** The address of a listener, or of a host's connection. @since 0.1.0 @category models */
export const Address = Schema.Struct({
  /** `TCP`, `RDMA` or `VFIOUSER`. */
  trtype: Schema.String,
  /** `IPv4` or `IPv6`. */
  adrfam: Schema.optional(Schema.String),
  traddr: Schema.String,
  trsvcid: Schema.optional(Schema.String)
})
export type Address = typeof Address.Type

/** @since 0.1.0 @category models */
export const NamespaceInfo = Schema.Struct({
  nsid: Schema.Number,
  bdev: Schema.String,
  uuid: Schema.optional(Schema.String),
  /** 32 hexadecimal digits. */
  nguid: Schema.optional(Schema.String),
  /** 16 hexadecimal digits. */
  eui64: Schema.optional(Schema.String),
  /** Present with ANA reporting. */
  anaGroup: Schema.optional(Schema.Number)
}).pipe(Schema.encodeKeys({ bdev: "bdev_name", anaGroup: "anagrpid" }))
export type NamespaceInfo = typeof NamespaceInfo.Type

/** An admitted host. Keys are given by their names in the keyring. @since 0.1.0 @category models */
export const HostInfo = Schema.Struct({
  nqn: Schema.String,
  dhchapKey: Schema.optional(Schema.String),
  dhchapControllerKey: Schema.optional(Schema.String)
}).pipe(Schema.encodeKeys({ dhchapKey: "dhchap_key", dhchapControllerKey: "dhchap_ctrlr_key" }))
export type HostInfo = typeof HostInfo.Type

/** A subsystem as `nvmf_get_subsystems` reports it. @since 0.1.0 @category models */
export const SubsystemInfo = Schema.Struct({
  nqn: Schema.String,
  subtype: Schema.Literals(["NVMe", "Discovery"]),
  listeners: Schema.Array(Address),
  allowAnyHost: Schema.Boolean,
  hosts: Schema.Array(HostInfo),
  serialNumber: Schema.optional(Schema.String),
  modelNumber: Schema.optional(Schema.String),
  maxNamespaces: Schema.optional(Schema.Number),
  minCntlid: Schema.optional(Schema.Number),
  maxCntlid: Schema.optional(Schema.Number),
  passthrough: Schema.optional(Schema.Boolean),
  namespaces: Schema.Array(NamespaceInfo).pipe(Schema.withDecodingDefaultKey(Effect.succeed([])))
}).pipe(
  Schema.encodeKeys({
    listeners: "listen_addresses",
    allowAnyHost: "allow_any_host",
    serialNumber: "serial_number",
    modelNumber: "model_number",
    maxNamespaces: "max_namespaces",
    minCntlid: "min_cntlid",
    maxCntlid: "max_cntlid"
  })
)
export type SubsystemInfo = typeof SubsystemInfo.Type

/** The ANA state of the paths through a listener. @since 0.1.0 @category models */
export const AnaState = Schema.Literals(["optimized", "non_optimized", "inaccessible", "persistent_loss", "change"])
export type AnaState = typeof AnaState.Type

/** @since 0.1.0 @category models */
export const ListenerInfo = Schema.Struct({
  address: Address,
  /** One state for each ANA group, with ANA reporting. */
  anaStates: Schema.optional(
    Schema.Array(
      Schema.Struct({ group: Schema.Number, state: AnaState }).pipe(
        Schema.encodeKeys({ group: "ana_group", state: "ana_state" })
      )
    )
  )
}).pipe(Schema.encodeKeys({ anaStates: "ana_states" }))
export type ListenerInfo = typeof ListenerInfo.Type

/** A controller: the connection of one host to a subsystem. @since 0.1.0 @category models */
export const ControllerInfo = Schema.Struct({
  cntlid: Schema.Number,
  /** `io`, `discovery` or `administrative`. */
  type: Schema.optional(Schema.String),
  hostNqn: Schema.String,
  hostId: Schema.String,
  /** The number of queue pairs. As in SPDK, the admin queue counts as one. */
  ioQpairs: Schema.Number
}).pipe(Schema.encodeKeys({ type: "cntrltype", hostNqn: "hostnqn", hostId: "hostid", ioQpairs: "num_io_qpairs" }))
export type ControllerInfo = typeof ControllerInfo.Type

/** One queue pair, which is one connection. Queue 0 is the admin queue. @since 0.1.0 @category models */
export const QpairInfo = Schema.Struct({
  cntlid: Schema.Number,
  qid: Schema.Number,
  /** `enabled`, `authenticating`, `deactivating` and others. */
  state: Schema.String,
  /** The SPDK thread that serves the queue pair. */
  thread: Schema.String,
  hostNqn: Schema.String,
  listenAddress: Schema.optional(Address),
  peerAddress: Schema.optional(Address),
  /** Present after the target has asked the host to authenticate. */
  auth: Schema.optional(Schema.Struct({ state: Schema.String, digest: Schema.String, dhgroup: Schema.String }))
}).pipe(Schema.encodeKeys({ hostNqn: "hostnqn", listenAddress: "listen_address", peerAddress: "peer_address" }))
export type QpairInfo = typeof QpairInfo.Type

/** A transport and its current options, as `nvmf_get_transports` reports it. @since 0.1.0 @category models */
export const TransportInfo = Schema.StructWithRest(Schema.Struct({ trtype: Schema.String }), [
  Schema.Record(Schema.String, Schema.Union([Schema.String, Schema.Number, Schema.Boolean]))
])
export type TransportInfo = typeof TransportInfo.Type

/**
 * The statistics of one SPDK thread of the target. Counters run since the start. Fields named current are gauges.
 *
 * @since 0.1.0
 * @category models
 */
export const PollGroupStats = Schema.Struct({
  name: Schema.String,
  adminQpairs: Schema.Number,
  ioQpairs: Schema.Number,
  currentAdminQpairs: Schema.Number,
  currentIoQpairs: Schema.Number,
  pendingBdevIo: Schema.Number,
  completedNvmeIo: Schema.Number,
  /** The statistics of the transports, by SPDK's names. */
  transports: Schema.Array(
    Schema.StructWithRest(Schema.Struct({ trtype: Schema.String }), [Schema.Record(Schema.String, Schema.Json)])
  )
}).pipe(
  Schema.encodeKeys({
    adminQpairs: "admin_qpairs",
    ioQpairs: "io_qpairs",
    currentAdminQpairs: "current_admin_qpairs",
    currentIoQpairs: "current_io_qpairs",
    pendingBdevIo: "pending_bdev_io",
    completedNvmeIo: "completed_nvme_io"
  })
)
export type PollGroupStats = typeof PollGroupStats.Type

/** The statistics that `nvmf_get_stats` reports. @since 0.1.0 @category models */
export const TargetStats = Schema.Struct({
  /** Ticks per second. */
  tickRate: Schema.Number,
  pollGroups: Schema.Array(PollGroupStats)
}).pipe(Schema.encodeKeys({ tickRate: "tick_rate", pollGroups: "poll_groups" }))
export type TargetStats = typeof TargetStats.Type

/** Another discovery service that hosts are referred to. @since 0.1.0 @category models */
export const ReferralInfo = Schema.Struct({
  address: Address,
  secureChannel: Schema.Boolean,
  subnqn: Schema.String
}).pipe(Schema.encodeKeys({ secureChannel: "secure_channel" }))
export type ReferralInfo = typeof ReferralInfo.Type
