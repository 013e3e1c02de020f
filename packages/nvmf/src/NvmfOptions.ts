/**
 * Options of subsystems and what they have. Import all of this from `NvmfTarget`.
 *
 * @since 0.1.0
 */
import type { Bdev } from "@effect-spdk/core/Bdev"
import type { KeyInput } from "@effect-spdk/core/Keyring"
import type * as Duration from "effect/Duration"
import type { TransportOptions } from "./NvmfTransport.ts"

/** @since 0.1.0 @category options */
export interface TargetOptions {
  /** What the target speaks. A transport that is there already stays. Default: TCP with SPDK's own options. */
  readonly transports?: ReadonlyArray<TransportOptions> | undefined
  /** How long the end of a subsystem waits for its hosts to be gone, once nobody listens any more. Default 10 seconds. */
  readonly drainTimeout?: Duration.Input | undefined
}

/** @since 0.1.0 @category options */
export interface SubsystemOptions {
  /** Its NVMe qualified name, `nqn.2026-01.com.example:disk`. */
  readonly nqn: string
  /** At most 20 characters of ASCII. Default: zeroes, as SPDK. Paths to one subsystem of several targets need the same. */
  readonly serialNumber?: string | undefined
  /** At most 40 characters of ASCII. Default "SPDK bdev Controller". */
  readonly modelNumber?: string | undefined
  /** The largest namespace id there can be. Default 32. */
  readonly maxNamespaces?: number | undefined
  /** Lets any host in, without a key. Default false: nobody is let in until `addHost` says so. */
  readonly allowAnyHost?: boolean | undefined
  /** Tells hosts which paths are good: what listeners' ANA states need. Default false. */
  readonly anaReporting?: boolean | undefined
  /** The range that ids of controllers are taken from, 1 to 65519. Targets that share a subsystem's name need ranges apart. */
  readonly minCntlid?: number | undefined
  readonly maxCntlid?: number | undefined
  /** The most logical blocks that one deallocation may have (DMRSL). */
  readonly maxDeallocateBlocks?: number | undefined
  /** The most that one Write Zeroes may have, as a power of two of pages of 4 KiB (WZSL). */
  readonly writeZeroesSizeLimit?: number | undefined
  /** Hands commands on as they are. Only for namespaces of attached NVMe controllers. Default false. */
  readonly passthrough?: boolean | undefined
  /** Lets hosts reset the subsystem. Default false. */
  readonly enableSubsystemReset?: boolean | undefined
}

/** @since 0.1.0 @category options */
export interface NamespaceOptions {
  /** A bdev or the name of one. It is claimed: nobody else can write to it meanwhile. */
  readonly bdev: Bdev | string
  /** Default: the lowest that is free. */
  readonly nsid?: number | undefined
  /**
   * Default: a random one. The bdev's own, which SPDK takes, would collide with it when the export is attached in the same
   * process. Paths to one volume through several targets need the same.
   */
  readonly uuid?: string | undefined
  /** 32 hexadecimal digits. Default: those of the UUID. */
  readonly nguid?: string | undefined
  /** 16 hexadecimal digits. Default: none. */
  readonly eui64?: string | undefined
  /** Default: as `nsid`. Only with ANA reporting. */
  readonly anaGroup?: number | undefined
  /**
   * A file that reservations persist in, as seen by the target. Default: they do not. Hosts have reservations only where the
   * transport does not mask them: see `maskedCommands`.
   */
  readonly persistReservationsIn?: string | undefined
  /** The hosts that see it, by name. Default: all that are let in. */
  readonly visibleTo?: ReadonlyArray<string> | undefined
}

/** @since 0.1.0 @category options */
export interface AddressOptions {
  /** Default "TCP". */
  readonly trtype?: "TCP" | "RDMA" | "VFIOUSER" | undefined
  /** Default: what `traddr` is. */
  readonly adrfam?: "IPv4" | "IPv6" | "IB" | undefined
  /** An address of the target's machine, or a directory for vfio-user. */
  readonly traddr: string
  /** The port, 1 to 65535. SPDK does not choose one by itself. Default 4420. */
  readonly trsvcid?: string | number | undefined
}

/** @since 0.1.0 @category options */
export interface ListenerOptions extends Omit<AddressOptions, "traddr"> {
  /**
   * Default "127.0.0.1": reachable from its own machine only. Not for vfio-user. "0.0.0.0" and "::" are `InvalidArgument`: SPDK lets
   * nobody in there, and no host can dial what discovery would say. Add a listener for each address.
   */
  readonly traddr?: string | undefined
  /** Of all groups, at first. Only with ANA reporting. Default "optimized". */
  readonly anaState?: "optimized" | "non_optimized" | "inaccessible" | undefined
  /** TLS: only hosts with a `psk` get in. Not together with `allowAnyHost`. Default false. */
  readonly secureChannel?: boolean | undefined
  /** SPDK's socket implementation: "posix", "uring", "ssl". Default: SPDK's choice. */
  readonly sockImpl?: string | undefined
  /** Serves the connections of this listener on cores of that NUMA node. */
  readonly numaId?: number | undefined
}

/** @since 0.1.0 @category options */
export interface HostOptions {
  /** What the host calls itself. */
  readonly nqn: string
  /** The TLS key of this host, for listeners with `secureChannel`. */
  readonly psk?: KeyInput | undefined
  /** The key that the host must prove to have (DH-HMAC-CHAP). */
  readonly dhchapKey?: KeyInput | undefined
  /** The key that the host may ask the subsystem to prove. Only with `dhchapKey`. */
  readonly dhchapControllerKey?: KeyInput | undefined
}

/** @since 0.1.0 @category options */
export interface ReferralOptions extends AddressOptions {
  /** Default: the discovery subsystem there. */
  readonly subnqn?: string | undefined
  /** Tells hosts to use TLS. Default false. */
  readonly secureChannel?: boolean | undefined
}
