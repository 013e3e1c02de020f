/**
 * Options of controllers attached as bdevs. Import all of this from `NvmeBdev`.
 *
 * @since 0.1.0
 */
import type * as Duration from "effect/Duration"
import type { BdevNvmeMultipathMode, BdevNvmeMultipathPolicy, BdevNvmeMultipathSelector } from "./generated/RpcTypes.ts"
import type { KeyInput } from "./Keyring.ts"

/** Where a subsystem is, in the words of a transport id. @since 0.1.0 @category options */
export interface PathOptions {
  /** Default "TCP". */
  readonly trtype?: "TCP" | "RDMA" | "PCIe" | "VFIOUSER" | undefined
  /** Default: what `traddr` is, IPv4 or IPv6. Not for PCIe and vfio-user. */
  readonly adrfam?: "IPv4" | "IPv6" | "IB" | undefined
  /** An address, a PCI address like `0000:01:00.0`, or a directory. */
  readonly traddr: string
  /** The port. Default 4420 for TCP and RDMA. */
  readonly trsvcid?: string | number | undefined
  /** The address to connect from. Default: the system's choice. */
  readonly hostaddr?: string | undefined
  /** The port to connect from. */
  readonly hostsvcid?: string | number | undefined
  /** Of the sockets, as SO_PRIORITY. Default 0. */
  readonly priority?: number | undefined
}

/**
 * What becomes of I/O and of the bdevs while a connection is lost. All in whole seconds. What is left out is what
 * `bdev_nvme_set_options` says, SPDK's own default: no time at all, so that I/O fails as soon as one reconnection has failed.
 *
 * @since 0.1.0
 * @category options
 */
export interface LossOptions {
  /** How long to try to connect again before the controller is given up and its bdevs are removed. "never" goes on for ever. */
  readonly lossTimeout?: Duration.Input | "never" | undefined
  /** Between two attempts: at least a second, and not more than `lossTimeout`. */
  readonly reconnectDelay?: Duration.Input | undefined
  /**
   * When I/O that waits begins to fail: not before `reconnectDelay` and not after `lossTimeout`. Default: with `lossTimeout`. On the
   * embedded engine also for I/O whose namespace the controller calls inaccessible, which waits without an end otherwise.
   */
  readonly fastIoFailTimeout?: Duration.Input | undefined
}

/** Which path an I/O takes. @since 0.1.0 @category options */
export interface PolicyOptions {
  /** "active_passive", SPDK's default: one path at a time. "active_active": all optimized paths. */
  readonly policy: BdevNvmeMultipathPolicy
  /** Only with "active_active". Default "round_robin". */
  readonly selector?: BdevNvmeMultipathSelector | undefined
  /** Only with "round_robin": how many I/Os go by one path before it is the next one's turn. Default 1. */
  readonly minIo?: number | undefined
}

/** @since 0.1.0 @category options */
export interface ControllerOptions extends LossOptions {
  /** Adds a digest to the headers of PDUs. Default false. TCP only. */
  readonly headerDigest?: boolean | undefined
  /** Adds a digest to the data of PDUs. Default false. TCP only. */
  readonly dataDigest?: boolean | undefined
  /** How long the fabrics Connect command may take. Default 500 ms. */
  readonly connectTimeout?: Duration.Input | undefined
  /** How many I/O queues to ask for, 1 to 65,536. Default 1,024. */
  readonly ioQueues?: number | undefined
  /** The TLS key. The connection is encrypted. */
  readonly psk?: KeyInput | undefined
  /** The host's key for DH-HMAC-CHAP. */
  readonly dhchapKey?: KeyInput | undefined
  /** The key that the controller must prove to have. Only with `dhchapKey`. */
  readonly dhchapControllerKey?: KeyInput | undefined
  /** Takes namespaces of command sets that SPDK does not know. Default false. */
  readonly allowUnrecognizedCsi?: boolean | undefined
}

/** @since 0.1.0 @category options */
export interface AttachOptions extends PathOptions, ControllerOptions {
  /** Of the controller; its bdevs are called `<name>n1` and so on. Default: generated. */
  readonly name?: string | undefined
  /** The subsystem. Needed for TCP and RDMA. */
  readonly subnqn?: string | undefined
  /** What the host calls itself. Default: a name by a UUID, of SPDK's choice, the same for the whole process. */
  readonly hostnqn?: string | undefined
  /**
   * What a second path may be: "multipath", the default, makes one bdev with several paths by ANA state and policy; "failover"
   * keeps further addresses for the one connection there is; "disable" refuses them.
   */
  readonly multipath?: BdevNvmeMultipathMode | undefined
  readonly policy?: PolicyOptions | undefined
  /** With more namespaces than this it is not attached. Default 128. */
  readonly maxBdevs?: number | undefined
  /** Checks the reference tag of protection information. Default false. */
  readonly checkReferenceTag?: boolean | undefined
  /** Checks the guard of protection information. Default false. */
  readonly checkGuard?: boolean | undefined
}

/** A further path to the subsystem of an attached controller. @since 0.1.0 @category options */
export interface AddPathOptions extends PathOptions, ControllerOptions {}

/** Keys that take the place of others. @since 0.1.0 @category options */
export interface SetKeysOptions {
  readonly dhchapKey: KeyInput
  readonly dhchapControllerKey?: KeyInput | undefined
}

/** @since 0.1.0 @category options */
export interface DiscoverOptions extends Omit<PathOptions, "hostaddr" | "hostsvcid" | "priority">, LossOptions {
  /** Of the discovery service, and the beginning of the names of the bdevs it attaches. Default: generated. */
  readonly name?: string | undefined
  /** What the host calls itself, to the discovery controller and to what it attaches. Default: as for `attach`. */
  readonly hostnqn?: string | undefined
  /** Waits until what the discovery controller knows at first is attached, at most so long. Default: does not wait. */
  readonly attachTimeout?: Duration.Input | undefined
}
