/**
 * The handle of a connected NVMe controller: identity, log pages, features, events, admin commands and namespaces.
 * `Nvme.connect` makes handles. Import these names from `Nvme`.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import type { DmaBuffer } from "./DmaBuffer.ts"
import { NvmeControllerTypeId } from "./internal/nvme/typeIds.ts"
import type {
  AnaLog,
  AsyncEvent,
  ChangedNamespaces,
  CommandEffectsLog,
  DiscoveredSubsystem,
  ErrorLogEntry,
  FeatureInput,
  FeatureName,
  FeatureValue,
  FirmwareLog,
  HealthLog,
  IdentifyController,
  Timestamp
} from "./NvmeData.ts"
import type { NvmeNamespace } from "./NvmeNamespace.ts"
import type { TransportId } from "./NvmeTransportId.ts"
import type { Corrupted, ErrnoReason, IoReason, SpdkError } from "./SpdkError.ts"

/** The error of an admin command: the device's status, or the loss of the device. @since 0.1.0 @category errors */
export type AdminError = SpdkError<IoReason>

/** `AdminError`, and `Corrupted` when the device's answer is not valid. @since 0.1.0 @category errors */
export type QueryError = SpdkError<IoReason | Corrupted>

/** @since 0.1.0 @category errors */
export type OpenNamespaceError = SpdkError<IoReason | Corrupted>

/** @since 0.1.0 @category errors */
export type ResetError = SpdkError<ErrnoReason | Corrupted>

/**
 * A command in the layout of the specification. The engine sets the command id and the data pointer. Fields are
 * unsigned 32-bit numbers. An absent field is 0. The two low bits of the opcode give the direction of the data.
 *
 * @since 0.1.0
 * @category models
 */
export interface PassthruCommand {
  readonly opcode: number
  /** The namespace id. `NvmeNamespace.io` always uses its own namespace. */
  readonly nsid?: number | undefined
  readonly cdw2?: number | undefined
  readonly cdw3?: number | undefined
  readonly cdw10?: number | undefined
  readonly cdw11?: number | undefined
  readonly cdw12?: number | undefined
  readonly cdw13?: number | undefined
  readonly cdw14?: number | undefined
  readonly cdw15?: number | undefined
  /**
   * The data that the command sends: a multiple of 4 bytes, at most `maxTransferBytes` and at most 4 MiB. The data are
   * copied.
   */
  readonly data?: Uint8Array | undefined
  /** The number of bytes that the command returns: a multiple of 4, at most `maxTransferBytes` and at most 4 MiB. */
  readonly lengthBytes?: number | undefined
  /** Memory that is sent or filled without a copy: at most `maxTransferBytes`. Replaces `data` and `lengthBytes`. */
  readonly buffer?: DmaBuffer | undefined
}

/** @since 0.1.0 @category models */
export interface PassthruResult {
  readonly dword0: number
  readonly dword1: number
  /** The bytes that the command returned. Empty unless `lengthBytes` was given. */
  readonly data: Uint8Array
}

/** The decoded CAP register. @since 0.1.0 @category models */
export interface ControllerCapabilities {
  /** MQES + 1: the maximum number of entries of a queue. */
  readonly maxQueueEntries: number
  /** CQR: queues must be contiguous in memory. */
  readonly contiguousQueues: boolean
  /** TO: the maximum time in milliseconds until the controller is ready. */
  readonly readyTimeoutMillis: number
  /** 2 to the power of (12 + MPSMIN), in bytes. The unit of the maximum transfer size. */
  readonly minPageBytes: number
  readonly maxPageBytes: number
  /** NSSRS */
  readonly subsystemReset: boolean
}

/** @since 0.1.0 @category models */
export interface LogPageOptions {
  /** LID */
  readonly logPage: number
  /** A multiple of 4. */
  readonly lengthBytes: number
  /** A multiple of 4. Default 0. Other offsets need `logPages.extendedData` of the controller. */
  readonly offsetBytes?: number | undefined
  /** Default: all namespaces (0xffffffff). */
  readonly nsid?: number | undefined
  /** LSP, 7 bits. Default 0. */
  readonly specificField?: number | undefined
  /** LSI, 16 bits. Default 0. */
  readonly specificId?: number | undefined
  /** RAE: reading the page does not acknowledge the event. Default false. */
  readonly retainEvent?: boolean | undefined
}

/**
 * Log pages. Reading a page acknowledges its asynchronous event. The engine itself reads the pages of namespace
 * changes. A page that is longer than one transfer is read in pieces.
 *
 * @since 0.1.0
 * @category models
 */
export interface NvmeLogPages {
  /** The health of the controller, or of one namespace on controllers that support it. */
  health(nsid?: number): Effect.Effect<HealthLog, QueryError>
  /** The used entries, newest first, at most `count`. Default: all entries of the controller. */
  errors(count?: number): Effect.Effect<ReadonlyArray<ErrorLogEntry>, QueryError>
  readonly firmware: Effect.Effect<FirmwareLog, QueryError>
  /** Empty when the engine has read the page before. The engine reads the page at each notice. */
  readonly changedNamespaces: Effect.Effect<ChangedNamespaces, QueryError>
  readonly commandEffects: Effect.Effect<CommandEffectsLog, QueryError>
  /** Fails with `InvalidArgument` or `NotSupported` on controllers without ANA. */
  readonly ana: Effect.Effect<AnaLog, QueryError>
  /**
   * All entries of one generation of a discovery controller's log. Fails with `Busy` when the log changes faster than
   * it can be read.
   */
  readonly discovery: Effect.Effect<ReadonlyArray<DiscoveredSubsystem>, QueryError>
  raw(options: LogPageOptions): Effect.Effect<Uint8Array, AdminError>
}

/** @since 0.1.0 @category models */
export interface FeatureGetOptions {
  /** Default "current". */
  readonly select?: "current" | "default" | "saved" | "supported" | undefined
  /** Default 0: no namespace. */
  readonly nsid?: number | undefined
  /** Dword 11, which selects a part of some features: for example the sensor of a temperature threshold. */
  readonly selector?: number | undefined
}

/** @since 0.1.0 @category models */
export interface FeatureSetOptions {
  /** Keeps the value over resets and power cycles. Default false. */
  readonly save?: boolean | undefined
  readonly nsid?: number | undefined
}

/** @since 0.1.0 @category models */
export interface RawFeatureGet extends FeatureGetOptions {
  /** FID */
  readonly feature: number
  /** The number of data bytes of the feature. Default: none. */
  readonly lengthBytes?: number | undefined
}

/** @since 0.1.0 @category models */
export interface RawFeatureSet extends FeatureSetOptions {
  readonly feature: number
  readonly dword11?: number | undefined
  readonly dword12?: number | undefined
  readonly data?: Uint8Array | undefined
}

/**
 * Features (Get Features, Set Features). The engine sets four features itself: the number of queues, the keep-alive
 * timer, the host identifier and the asynchronous events. A controller in use refuses most changes to the first three.
 *
 * @since 0.1.0
 * @category models
 */
export interface NvmeFeatures {
  get<Name extends FeatureName>(name: Name, options?: FeatureGetOptions): Effect.Effect<FeatureValue<Name>, AdminError>
  set<Name extends FeatureName>(
    name: Name,
    value: FeatureInput<Name>,
    options?: FeatureSetOptions
  ): Effect.Effect<void, AdminError>
  readonly timestamp: Effect.Effect<Timestamp, QueryError>
  setTimestamp(time: Date): Effect.Effect<void, AdminError>
  /** A UUID, the extended form of 16 bytes. */
  readonly hostIdentifier: Effect.Effect<string, AdminError>
  getRaw(options: RawFeatureGet): Effect.Effect<{ readonly dword0: number; readonly data: Uint8Array }, AdminError>
  setRaw(options: RawFeatureSet): Effect.Effect<{ readonly dword0: number }, AdminError>
}

/**
 * An event of a controller.
 *
 * @since 0.1.0
 * @category models
 */
export type ControllerEvent =
  | AsyncEvent
  | { readonly _tag: "NamespaceAdded"; readonly nsid: number }
  | { readonly _tag: "NamespaceRemoved"; readonly nsid: number }
  /** The connection is lost, and every request in flight has completed. `reset` reconnects. */
  | { readonly _tag: "Failed"; readonly message: string }
  /** `reset` has reconnected. */
  | { readonly _tag: "Recovered" }
  /** The device has left the machine. This is the last event. */
  | { readonly _tag: "Removed" }

/** @since 0.1.0 @category models */
export type ControllerState = "connected" | "failed" | "removed" | "released"

/**
 * A connected controller, and the tag under which layers provide one. The end of its scope closes its namespaces and
 * disconnects. After that every operation fails with `Released`. After `Failed`, every operation except `reset` fails
 * with `DeviceRemoved` or with the engine's own error.
 *
 * **Interruption** of a command asks the controller to abort the command, then waits until the controller no longer
 * uses the memory.
 *
 * @since 0.1.0
 * @category models
 */
export interface NvmeController {
  readonly [NvmeControllerTypeId]: typeof NvmeControllerTypeId
  readonly transportId: TransportId
  readonly state: ControllerState
  /** The VS register, for example "1.4.0". */
  readonly version: string
  readonly capabilities: ControllerCapabilities
  /** The number of I/O queue pairs that the controller has granted. Each thread that does I/O uses one. */
  readonly ioQueues: number
  /**
   * The maximum data of one command, in bytes. The engine splits reads and writes of namespaces. Passthru commands are
   * not split.
   */
  readonly maxTransferBytes: number
  /** Reads the identify data from the device at each run (CNS 01h). */
  readonly identify: Effect.Effect<IdentifyController, QueryError>
  /** The ids of the active namespaces, in ascending order. */
  readonly namespaces: Effect.Effect<ReadonlyArray<number>, AdminError>
  /**
   * Opens a namespace for I/O. The end of the scope, or of the controller, closes the namespace. Fails with `NotFound`
   * when the namespace is not active.
   */
  namespace(nsid: number): Effect.Effect<NvmeNamespace, OpenNamespaceError, Scope.Scope>
  readonly logPages: NvmeLogPages
  readonly features: NvmeFeatures
  /**
   * Submits any command of the admin queue, with these exceptions:
   *
   * - The engine owns some commands and refuses them here: commands that create and delete queues, aborts, asynchronous
   *   event requests and Fabrics commands.
   * - Commands that give the device memory of this machine permanently are refused: doorbell buffers and the host
   *   memory buffer.
   * - Identify and Get Log Page are refused when their memory is smaller than their data.
   *
   * A status other than success fails with that status. After a command that changes the format of a namespace, close
   * the namespace's handles and reset the controller.
   */
  admin(command: PassthruCommand): Effect.Effect<PassthruResult, AdminError>
  /**
   * Events of the controller from the time of subscription. Every run of the stream receives every event. A subscriber
   * that is more than 256 events behind loses the oldest ones and should then read the state itself. The stream ends
   * after `Removed`, and when the controller is released.
   */
  readonly events: Stream.Stream<ControllerEvent>
  /**
   * Resets the controller, or reconnects after `Failed` (`spdk_nvme_ctrlr_reset`). I/O in flight completes as aborted.
   * The queue pairs reconnect by themselves.
   */
  readonly reset: Effect.Effect<void, ResetError>
}

export const NvmeController: Context.Service<NvmeController, NvmeController> = Context.Service(
  "@effect-spdk/core/NvmeController"
)

/** @since 0.1.0 @category guards */
export const isNvmeController = (u: unknown): u is NvmeController => Predicate.hasProperty(u, NvmeControllerTypeId)
