/**
 * Options of controllers attached as bdevs. Import these names from `NvmeBdev`.
 *
 * @since 0.1.0
 */
import type * as Duration from "effect/Duration"
import type { BdevNvmeMultipathMode, BdevNvmeMultipathPolicy, BdevNvmeMultipathSelector } from "./generated/RpcTypes.ts"
import type { KeyInput } from "./Keyring.ts"

/** The address of a subsystem, with the names of a transport id. @since 0.1.0 @category options */
export interface PathOptions {
  /** Default "TCP". */
  readonly trtype?: "TCP" | "RDMA" | "PCIe" | "VFIOUSER" | undefined
  /** Default: IPv4 or IPv6, by the form of `traddr`. Not for PCIe and vfio-user. */
  readonly adrfam?: "IPv4" | "IPv6" | "IB" | undefined
  /** An IP address, a PCI address like `0000:01:00.0`, or a directory. */
  readonly traddr: string
  /** The port. Default 4420 for TCP and RDMA. */
  readonly trsvcid?: string | number | undefined
  /** The local address of the connection. Default: the system's choice. */
  readonly hostaddr?: string | undefined
  /** The local port of the connection. */
  readonly hostsvcid?: string | number | undefined
  /** The priority of the sockets (SO_PRIORITY). Default 0. */
  readonly priority?: number | undefined
}

/**
 * The treatment of I/O and bdevs while a connection is lost. All times are whole seconds. An absent time takes its
 * value from `bdev_nvme_set_options`. SPDK's default is no waiting: I/O fails as soon as one reconnection has failed.
 *
 * @since 0.1.0
 * @category options
 */
export interface LossOptions {
  /**
   * How long to reconnect before SPDK gives the controller up and removes its bdevs. "never" reconnects without limit.
   */
  readonly lossTimeout?: Duration.Input | "never" | undefined
  /** The time between two attempts: at least one second, and at most `lossTimeout`. */
  readonly reconnectDelay?: Duration.Input | undefined
  /**
   * How long waiting I/O waits before it fails: at least `reconnectDelay`, at most `lossTimeout`. Default:
   * `lossTimeout`. On the embedded engine this also limits I/O to a namespace in the ANA state inaccessible, which
   * otherwise waits without limit.
   */
  readonly fastIoFailTimeout?: Duration.Input | undefined
}

/** How I/O chooses a path. @since 0.1.0 @category options */
export interface PolicyOptions {
  /** "active_passive", SPDK's default: one path at a time. "active_active": all paths in the ANA state optimized. */
  readonly policy: BdevNvmeMultipathPolicy
  /** Only with "active_active". Default "round_robin". */
  readonly selector?: BdevNvmeMultipathSelector | undefined
  /** Only with "round_robin": the number of I/Os on one path before the next path takes its turn. Default 1. */
  readonly minIo?: number | undefined
}

/** @since 0.1.0 @category options */
export interface ControllerOptions extends LossOptions {
  /** Adds a digest to the headers of PDUs. Default false. TCP only. */
  readonly headerDigest?: boolean | undefined
  /** Adds a digest to the data of PDUs. Default false. TCP only. */
  readonly dataDigest?: boolean | undefined
  /** The time limit of the fabrics Connect command. Default 500 ms. */
  readonly connectTimeout?: Duration.Input | undefined
  /** The number of I/O queues to request, 1 to 65,536. Default 1,024. */
  readonly ioQueues?: number | undefined
  /** The TLS key. The connection is then encrypted. */
  readonly psk?: KeyInput | undefined
  /** The host's key for DH-HMAC-CHAP. */
  readonly dhchapKey?: KeyInput | undefined
  /** The key with which the controller must authenticate itself. Only with `dhchapKey`. */
  readonly dhchapControllerKey?: KeyInput | undefined
  /** Accepts namespaces of command sets that SPDK does not know. Default false. */
  readonly allowUnrecognizedCsi?: boolean | undefined
}

/** @since 0.1.0 @category options */
export interface AttachOptions extends PathOptions, ControllerOptions {
  /** The name of the controller. Its bdevs are named `<name>n1` and so on. Default: generated. */
  readonly name?: string | undefined
  /** The NQN of the subsystem. Required for TCP and RDMA. */
  readonly subnqn?: string | undefined
  /** The NQN of the host. Default: a UUID-based name of SPDK's choice, the same for the whole process. */
  readonly hostnqn?: string | undefined
  /**
   * The use of a second path. Default "multipath".
   *
   * - "multipath": one bdev with several paths, chosen by ANA state and policy.
   * - "failover": further addresses are alternatives for the one connection.
   * - "disable": further paths are refused.
   */
  readonly multipath?: BdevNvmeMultipathMode | undefined
  readonly policy?: PolicyOptions | undefined
  /** The controller is not attached when it has more namespaces than this. Default 128. */
  readonly maxBdevs?: number | undefined
  /** Checks the reference tag of protection information. Default false. */
  readonly checkReferenceTag?: boolean | undefined
  /** Checks the guard of protection information. Default false. */
  readonly checkGuard?: boolean | undefined
}

/** Options of a further path to the subsystem of an attached controller. @since 0.1.0 @category options */
export interface AddPathOptions extends PathOptions, ControllerOptions {}

/** Keys that replace the current keys. @since 0.1.0 @category options */
export interface SetKeysOptions {
  readonly dhchapKey: KeyInput
  readonly dhchapControllerKey?: KeyInput | undefined
}

/** @since 0.1.0 @category options */
export interface DiscoverOptions extends Omit<PathOptions, "hostaddr" | "hostsvcid" | "priority">, LossOptions {
  /** The name of the discovery service, and the prefix of the names of its bdevs. Default: generated. */
  readonly name?: string | undefined
  /** The NQN of the host, for the discovery controller and for the attached subsystems. Default: as for `attach`. */
  readonly hostnqn?: string | undefined
  /**
   * The time limit for the attach of the subsystems in the first discovery log. The call waits for it. Default: the
   * call does not wait.
   */
  readonly attachTimeout?: Duration.Input | undefined
}
