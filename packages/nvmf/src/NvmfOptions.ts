/**
 * Options of subsystems, namespaces, listeners and hosts. Import these names from `NvmfTarget`.
 *
 * @since 0.1.0
 */
import type { Bdev } from "@effect-spdk/core/Bdev"
import type { KeyInput } from "@effect-spdk/core/Keyring"
import type * as Duration from "effect/Duration"
import type { TransportOptions } from "./NvmfTransport.ts"

/** @since 0.1.0 @category options */
export interface TargetOptions {
  /** The transports of the target. An existing transport stays. Default: TCP with SPDK's own options. */
  readonly transports?: ReadonlyArray<TransportOptions> | undefined
  /**
   * How long the end of a subsystem waits for its hosts to disconnect, after its listeners are removed. Default 10
   * seconds.
   */
  readonly drainTimeout?: Duration.Input | undefined
}

/** @since 0.1.0 @category options */
export interface SubsystemOptions {
  /** The NVMe qualified name of the subsystem, for example `nqn.2026-01.com.example:disk`. */
  readonly nqn: string
  /**
   * At most 20 ASCII characters. Default: zeroes, as in SPDK. Several targets that offer paths to one subsystem need
   * the same serial number.
   */
  readonly serialNumber?: string | undefined
  /** At most 40 characters of ASCII. Default "SPDK bdev Controller". */
  readonly modelNumber?: string | undefined
  /** The largest possible namespace id. Default 32. */
  readonly maxNamespaces?: number | undefined
  /** Admits every host, without a key. Default false: `addHost` admits hosts. */
  readonly allowAnyHost?: boolean | undefined
  /** Reports ANA states to hosts, which the ANA states of listeners require. Default false. */
  readonly anaReporting?: boolean | undefined
  /** The range of controller ids, within 1 to 65519. Targets that share a subsystem's name need disjoint ranges. */
  readonly minCntlid?: number | undefined
  readonly maxCntlid?: number | undefined
  /** The maximum number of logical blocks in one deallocation (DMRSL). */
  readonly maxDeallocateBlocks?: number | undefined
  /** The maximum size of one Write Zeroes, as a power of two in 4 KiB pages (WZSL). */
  readonly writeZeroesSizeLimit?: number | undefined
  /** Passes commands on unchanged. Only for namespaces of attached NVMe controllers. Default false. */
  readonly passthrough?: boolean | undefined
  /** Lets hosts reset the subsystem. Default false. */
  readonly enableSubsystemReset?: boolean | undefined
}

/** @since 0.1.0 @category options */
export interface NamespaceOptions {
  /** The bdev, or its name. The namespace claims the bdev: no other user can write to it meanwhile. */
  readonly bdev: Bdev | string
  /** The namespace id. Default: the lowest free id. */
  readonly nsid?: number | undefined
  /**
   * Default: a random UUID. SPDK's default is the UUID of the bdev, which collides when the same process attaches the
   * export. Several targets that offer paths to one volume need the same UUID.
   */
  readonly uuid?: string | undefined
  /** 32 hexadecimal digits. Default: the digits of the UUID. */
  readonly nguid?: string | undefined
  /** 16 hexadecimal digits. Default: none. */
  readonly eui64?: string | undefined
  /** Default: equal to `nsid`. Only with ANA reporting. */
  readonly anaGroup?: number | undefined
  /**
   * The path of a file that stores reservations, as the target sees it. Default: reservations are not stored. Hosts
   * have reservations only when the transport does not mask them: see `maskedCommands`.
   */
  readonly persistReservationsIn?: string | undefined
  /** The NQNs of the hosts that see the namespace. Default: all admitted hosts. */
  readonly visibleTo?: ReadonlyArray<string> | undefined
}

/** @since 0.1.0 @category options */
export interface AddressOptions {
  /** Default "TCP". */
  readonly trtype?: "TCP" | "RDMA" | "VFIOUSER" | undefined
  /** Default: IPv4 or IPv6, by the form of `traddr`. */
  readonly adrfam?: "IPv4" | "IPv6" | "IB" | undefined
  /** An address of the target's machine, or a directory for vfio-user. */
  readonly traddr: string
  /** The port, 1 to 65535. SPDK does not choose a port. Default 4420. */
  readonly trsvcid?: string | number | undefined
}

/** @since 0.1.0 @category options */
export interface ListenerOptions extends Omit<AddressOptions, "traddr"> {
  /**
   * Default "127.0.0.1", which is reachable only from the same machine. Not for vfio-user. "0.0.0.0" and "::" fail with
   * `InvalidArgument`: SPDK admits no host there, and the discovery log would have no usable address. Add one listener
   * for each address.
   */
  readonly traddr?: string | undefined
  /** The initial ANA state of all groups. Only with ANA reporting. Default "optimized". */
  readonly anaState?: "optimized" | "non_optimized" | "inaccessible" | undefined
  /** Requires TLS: admits only hosts with a `psk`. Excludes `allowAnyHost`. Default false. */
  readonly secureChannel?: boolean | undefined
  /** SPDK's socket implementation: "posix", "uring", "ssl". Default: SPDK's choice. */
  readonly sockImpl?: string | undefined
  /** Serves the connections of this listener on cores of this NUMA node. */
  readonly numaId?: number | undefined
}

/** @since 0.1.0 @category options */
export interface HostOptions {
  /** The NQN of the host. */
  readonly nqn: string
  /** The TLS key of this host, for listeners with `secureChannel`. */
  readonly psk?: KeyInput | undefined
  /** The key with which the host must authenticate itself (DH-HMAC-CHAP). */
  readonly dhchapKey?: KeyInput | undefined
  /** The key with which the subsystem authenticates itself when the host asks. Only with `dhchapKey`. */
  readonly dhchapControllerKey?: KeyInput | undefined
}

/** @since 0.1.0 @category options */
export interface ReferralOptions extends AddressOptions {
  /** Default: the discovery subsystem at that address. */
  readonly subnqn?: string | undefined
  /** Tells hosts to use TLS. Default false. */
  readonly secureChannel?: boolean | undefined
}
