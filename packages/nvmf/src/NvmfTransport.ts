/**
 * Options of transports, without those that SPDK has deprecated. Import these names from `NvmfTarget`.
 *
 * @since 0.1.0
 */

/** An optional command that can be hidden from hosts. @since 0.1.0 @category options */
export type MaskedCommand = "nvmcmps" | "nvmdsmsv" | "nvmwzsv" | "reservs" | "nvmcpys"

/** The options of every transport. An absent option has SPDK's default. @since 0.1.0 @category options */
export interface CommonTransportOptions {
  /** The number of commands in flight per queue. Default 128. */
  readonly maxQueueDepth?: number | undefined
  /** Default 127. */
  readonly maxIoQpairsPerController?: number | undefined
  /** The maximum write data inside a command, in bytes. Default 4096. */
  readonly inCapsuleDataSize?: number | undefined
  /** The maximum data of one command, in bytes. Default 131072. */
  readonly maxIoSize?: number | undefined
  /** Default 128. */
  readonly maxAdminQueueDepth?: number | undefined
  /** The number of SPDK's pool buffers that each thread caches. */
  readonly iobufSmallCacheSize?: number | undefined
  readonly iobufLargeCacheSize?: number | undefined
  /** Passes buffers of the bdev to the network without a copy, for bdevs that support it. Default false. */
  readonly zcopy?: boolean | undefined
  /** Adds protection information to the data of hosts that send none. Default false. */
  readonly difInsertOrStrip?: boolean | undefined
  /** How long an abort waits for its command, in seconds. Default 1. */
  readonly abortTimeoutSeconds?: number | undefined
  /** The period of the poll for new connections, in microseconds. Default 10,000. */
  readonly acceptorPollRateMicros?: number | undefined
  /**
   * How long sent data may stay unacknowledged before the connection is given up, in milliseconds. Default 0: the
   * system's own limit.
   */
  readonly ackTimeoutMillis?: number | undefined
  /** Refuses I/O commands that SPDK does not know, instead of passing them to the bdev. Default false. */
  readonly disableCommandPassthru?: boolean | undefined
  /** The granularity of keep-alive, in units of 100 ms. Default 100. */
  readonly keepAliveGranularity?: number | undefined
  /** The shortest keep-alive that hosts may ask for, in milliseconds. Default 10000. */
  readonly minKeepAliveMillis?: number | undefined
  /**
   * The optional commands that are hidden from hosts. `[]` hides none. Default: none; on SPDK 26.05 and later
   * `["reservs"]`. There, one Reservation Acquire (preempt and abort) of an admitted host ends the target's process. A
   * program that trusts its hosts and needs reservations gives a list without `"reservs"`.
   */
  readonly maskedCommands?: ReadonlyArray<MaskedCommand> | undefined
  /** Hides fused compare and write. Default false: hosts may use it when the bdev supports it. */
  readonly maskFusedCompareAndWrite?: boolean | undefined
}

/** Options of NVMe/TCP. @since 0.1.0 @category options */
export interface TcpTransportOptions extends CommonTransportOptions {
  readonly trtype: "TCP"
  /** Omits the response after the last data of a read. Default true. */
  readonly c2hSuccess?: boolean | undefined
  /** The priority of the sockets (SO_PRIORITY). Default 0. */
  readonly sockPriority?: number | undefined
  /** The number of buffers per thread for data of control messages. Default 32. */
  readonly controlMessageCount?: number | undefined
}

/** Options of NVMe/RDMA. @since 0.1.0 @category options */
export interface RdmaTransportOptions extends CommonTransportOptions {
  readonly trtype: "RDMA"
  /** The number of entries of a completion queue. Default 4096. */
  readonly numCqe?: number | undefined
  /** Default 4096. */
  readonly maxSrqDepth?: number | undefined
  /** Disables the shared receive queue. Default false: used when the device has one. */
  readonly noSrq?: boolean | undefined
  /** The number of connections that may wait to be accepted. Default 100. */
  readonly acceptorBacklog?: number | undefined
  /** Submits each work request separately. Default false. */
  readonly noWrBatching?: boolean | undefined
  /** The number of data work requests that each thread keeps for requests of several pieces. Default 4095. */
  readonly dataWrPoolSize?: number | undefined
}

/** Options of vfio-user, for virtual machines on this machine. @since 0.1.0 @category options */
export interface VfioUserTransportOptions extends CommonTransportOptions {
  readonly trtype: "VFIOUSER"
  readonly disableMappableBar0?: boolean | undefined
  readonly disableAdaptiveIrq?: boolean | undefined
  readonly disableShadowDoorbells?: boolean | undefined
}

/** @since 0.1.0 @category options */
export type TransportOptions = TcpTransportOptions | RdmaTransportOptions | VfioUserTransportOptions
