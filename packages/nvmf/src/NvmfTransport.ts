/**
 * Options of transports. What SPDK has deprecated is left out. Import all of this from `NvmfTarget`.
 *
 * @since 0.1.0
 */

/** Optional commands that hosts are not to see. @since 0.1.0 @category options */
export type MaskedCommand = "nvmcmps" | "nvmdsmsv" | "nvmwzsv" | "reservs" | "nvmcpys"

/** What all transports have. Whatever is left out is SPDK's default. @since 0.1.0 @category options */
export interface CommonTransportOptions {
  /** Commands in flight per queue. Default 128. */
  readonly maxQueueDepth?: number | undefined
  /** Default 127. */
  readonly maxIoQpairsPerController?: number | undefined
  /** In bytes: how much of a write may come with its command. Default 4096. */
  readonly inCapsuleDataSize?: number | undefined
  /** In bytes: the most that one command may carry. Default 131072. */
  readonly maxIoSize?: number | undefined
  /** Default 128. */
  readonly maxAdminQueueDepth?: number | undefined
  /** Buffers of SPDK's pools that each thread keeps for itself. */
  readonly iobufSmallCacheSize?: number | undefined
  readonly iobufLargeCacheSize?: number | undefined
  /** Hands buffers of bdevs that can do so to the network, without a copy. Default false. */
  readonly zcopy?: boolean | undefined
  /** Adds protection information to what hosts send without. Default false. */
  readonly difInsertOrStrip?: boolean | undefined
  /** How long an abort waits for its command, in seconds. Default 1. */
  readonly abortTimeoutSeconds?: number | undefined
  /** How often to look for new connections. Default 10,000. */
  readonly acceptorPollRateMicros?: number | undefined
  /** How long sent data may stay without acknowledgement before the connection is given up. Default 0: the system's own. */
  readonly ackTimeoutMillis?: number | undefined
  /** Refuses I/O commands that SPDK does not know, instead of handing them to the bdev. Default false. */
  readonly disableCommandPassthru?: boolean | undefined
  /** The granularity of keep-alive, in units of 100 ms. Default 100. */
  readonly keepAliveGranularity?: number | undefined
  /** The shortest keep-alive that hosts may ask for, in milliseconds. Default 10000. */
  readonly minKeepAliveMillis?: number | undefined
  /**
   * Default: none, and on SPDK 26.05 and later `["reservs"]`: there one Reservation Acquire of a host that is let in, to preempt and
   * abort, ends the target's process. Who trusts the hosts and needs reservations gives a list without it; `[]` masks none.
   */
  readonly maskedCommands?: ReadonlyArray<MaskedCommand> | undefined
  /** Default false: compare and write may be fused where the bdev can do it. */
  readonly maskFusedCompareAndWrite?: boolean | undefined
}

/** NVMe/TCP. @since 0.1.0 @category options */
export interface TcpTransportOptions extends CommonTransportOptions {
  readonly trtype: "TCP"
  /** Leaves out the response behind the last data of a read. Default true. */
  readonly c2hSuccess?: boolean | undefined
  /** SO_PRIORITY of the sockets. Default 0. */
  readonly sockPriority?: number | undefined
  /** Buffers per thread for what comes with control messages. Default 32. */
  readonly controlMessageCount?: number | undefined
}

/** NVMe/RDMA. @since 0.1.0 @category options */
export interface RdmaTransportOptions extends CommonTransportOptions {
  readonly trtype: "RDMA"
  /** Entries of a completion queue. Default 4096. */
  readonly numCqe?: number | undefined
  /** Default 4096. */
  readonly maxSrqDepth?: number | undefined
  /** Default false: a shared receive queue where the device has one. */
  readonly noSrq?: boolean | undefined
  /** Connections that may wait to be accepted. Default 100. */
  readonly acceptorBacklog?: number | undefined
  /** Sends each work request by itself. Default false. */
  readonly noWrBatching?: boolean | undefined
  /** Work requests for data that each thread keeps for requests of several pieces. Default 4095. */
  readonly dataWrPoolSize?: number | undefined
}

/** vfio-user: virtual machines on this machine. @since 0.1.0 @category options */
export interface VfioUserTransportOptions extends CommonTransportOptions {
  readonly trtype: "VFIOUSER"
  readonly disableMappableBar0?: boolean | undefined
  readonly disableAdaptiveIrq?: boolean | undefined
  readonly disableShadowDoorbells?: boolean | undefined
}

/** @since 0.1.0 @category options */
export type TransportOptions = TcpTransportOptions | RdmaTransportOptions | VfioUserTransportOptions
