/**
 * The handle of a connected NVMe controller: what it is, its log pages and features, its events, commands of the admin queue, and
 * its namespaces. Made by `Nvme.connect`. Import all of this from `Nvme`.
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

/** What a command of the admin queue fails with: the device's status, or the loss of the device. @since 0.1.0 @category errors */
export type AdminError = SpdkError<IoReason>

/** As `AdminError`; `Corrupted` when the device's answer cannot be what it should be. @since 0.1.0 @category errors */
export type QueryError = SpdkError<IoReason | Corrupted>

/** @since 0.1.0 @category errors */
export type OpenNamespaceError = SpdkError<IoReason | Corrupted>

/** @since 0.1.0 @category errors */
export type ResetError = SpdkError<ErrnoReason | Corrupted>

/**
 * A command as the specification has it; the engine sets the command id and the pointer to the data. Numbers are unsigned, of 32
 * bits; what is left out is 0. The two low bits of the opcode say which way data goes.
 *
 * @since 0.1.0
 * @category models
 */
export interface PassthruCommand {
  readonly opcode: number
  /** Of `NvmeNamespace.io` always the namespace's own. */
  readonly nsid?: number | undefined
  readonly cdw2?: number | undefined
  readonly cdw3?: number | undefined
  readonly cdw10?: number | undefined
  readonly cdw11?: number | undefined
  readonly cdw12?: number | undefined
  readonly cdw13?: number | undefined
  readonly cdw14?: number | undefined
  readonly cdw15?: number | undefined
  /** What the command sends: a multiple of 4 bytes, `maxTransferBytes` and 4 MiB at most. Copied. */
  readonly data?: Uint8Array | undefined
  /** How much the command answers with: a multiple of 4, `maxTransferBytes` and 4 MiB at most. */
  readonly lengthBytes?: number | undefined
  /** Instead of `data` and `lengthBytes`: memory that is sent or filled, and not copied; `maxTransferBytes` at most. */
  readonly buffer?: DmaBuffer | undefined
}

/** @since 0.1.0 @category models */
export interface PassthruResult {
  readonly dword0: number
  readonly dword1: number
  /** What the command answered with, when `lengthBytes` said so; otherwise empty. */
  readonly data: Uint8Array
}

/** The register CAP, decoded. @since 0.1.0 @category models */
export interface ControllerCapabilities {
  /** MQES + 1: entries of a queue. */
  readonly maxQueueEntries: number
  /** CQR: queues must be contiguous in memory. */
  readonly contiguousQueues: boolean
  /** TO: how long becoming ready may take. */
  readonly readyTimeoutMillis: number
  /** 2 to the power of 12 + MPSMIN, in bytes: the unit of the largest transfer. */
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
  /** A multiple of 4. Default 0; others need `logPages.extendedData` of the controller. */
  readonly offsetBytes?: number | undefined
  /** Default: all namespaces (0xffffffff). */
  readonly nsid?: number | undefined
  /** LSP, 7 bits. Default 0. */
  readonly specificField?: number | undefined
  /** LSI, 16 bits. Default 0. */
  readonly specificId?: number | undefined
  /** RAE: the event that led here is not acknowledged by reading. Default false. */
  readonly retainEvent?: boolean | undefined
}

/**
 * Log pages. Reading one acknowledges the asynchronous event that belongs to it; the engine reads those of namespace changes by
 * itself. Pages longer than one transfer are read in pieces.
 *
 * @since 0.1.0
 * @category models
 */
export interface NvmeLogPages {
  /** Of the controller, or of one namespace where the controller knows that. */
  health(nsid?: number): Effect.Effect<HealthLog, QueryError>
  /** The entries in use, newest first; at most as many as asked for. Default: all that the controller keeps. */
  errors(count?: number): Effect.Effect<ReadonlyArray<ErrorLogEntry>, QueryError>
  readonly firmware: Effect.Effect<FirmwareLog, QueryError>
  /** Empty when the engine has read it before, which it does at each notice. */
  readonly changedNamespaces: Effect.Effect<ChangedNamespaces, QueryError>
  readonly commandEffects: Effect.Effect<CommandEffectsLog, QueryError>
  /** `InvalidArgument` or `NotSupported` from controllers without ANA. */
  readonly ana: Effect.Effect<AnaLog, QueryError>
  /** Of a discovery controller: all entries of one generation. `Busy` when it changes faster than it can be read. */
  readonly discovery: Effect.Effect<ReadonlyArray<DiscoveredSubsystem>, QueryError>
  raw(options: LogPageOptions): Effect.Effect<Uint8Array, AdminError>
}

/** @since 0.1.0 @category models */
export interface FeatureGetOptions {
  /** Default "current". */
  readonly select?: "current" | "default" | "saved" | "supported" | undefined
  /** Default 0, none. */
  readonly nsid?: number | undefined
  /** Dword 11, for features that are read by a selector: the sensor of a temperature threshold. */
  readonly selector?: number | undefined
}

/** @since 0.1.0 @category models */
export interface FeatureSetOptions {
  /** Keeps it over resets and power cycles. Default false. */
  readonly save?: boolean | undefined
  readonly nsid?: number | undefined
}

/** @since 0.1.0 @category models */
export interface RawFeatureGet extends FeatureGetOptions {
  /** FID */
  readonly feature: number
  /** How much data comes with it. Default: none. */
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
 * Features (Get Features, Set Features). The engine itself sets the number of queues, the keep-alive timer, the host identifier
 * and the asynchronous events; a controller refuses most changes to the first three once it is in use.
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
 * What can happen to a controller.
 *
 * @since 0.1.0
 * @category models
 */
export type ControllerEvent =
  | AsyncEvent
  | { readonly _tag: "NamespaceAdded"; readonly nsid: number }
  | { readonly _tag: "NamespaceRemoved"; readonly nsid: number }
  /** The connection is lost, and everything in flight has been answered. `reset` connects again. */
  | { readonly _tag: "Failed"; readonly message: string }
  /** After `reset` has connected again. */
  | { readonly _tag: "Recovered" }
  /** The device has left the machine. The last event. */
  | { readonly _tag: "Removed" }

/** @since 0.1.0 @category models */
export type ControllerState = "connected" | "failed" | "removed" | "released"

/**
 * A connected controller, and the tag under which layers provide one. The end of its scope closes its namespaces and
 * disconnects; after that everything fails with `Released`. After `Failed` everything but `reset` fails with `DeviceRemoved`, or
 * with what the engine says.
 *
 * **Interruption** of a command asks the controller to abort it and waits until it has let go of the memory.
 *
 * @since 0.1.0
 * @category models
 */
export interface NvmeController {
  readonly [NvmeControllerTypeId]: typeof NvmeControllerTypeId
  readonly transportId: TransportId
  readonly state: ControllerState
  /** "1.4.0": the register VS. */
  readonly version: string
  readonly capabilities: ControllerCapabilities
  /** Queue pairs for I/O that the controller has granted. Each thread that does I/O takes one. */
  readonly ioQueues: number
  /** What one command may carry, in bytes. Reads and writes of namespaces are split by the engine; passthru is not. */
  readonly maxTransferBytes: number
  /** Asks the device anew each time (CNS 01h). */
  readonly identify: Effect.Effect<IdentifyController, QueryError>
  /** Ids of the active namespaces, in rising order. */
  readonly namespaces: Effect.Effect<ReadonlyArray<number>, AdminError>
  /** Opens a namespace for I/O. The scope closes it; it ends with the controller too. `NotFound` when it is not active. */
  namespace(nsid: number): Effect.Effect<NvmeNamespace, OpenNamespaceError, Scope.Scope>
  readonly logPages: NvmeLogPages
  readonly features: NvmeFeatures
  /**
   * Any command of the admin queue. Commands that make and delete queues, aborts, asynchronous event requests and Fabrics
   * commands are the engine's own, and refused; so is what hands the device memory of this machine for good (doorbell buffers,
   * the host memory buffer), and Identify or Get Log Page with less memory than they fill. A status other than success is an
   * error with that status. After a command that changes the format of a namespace, close its handles and reset.
   */
  admin(command: PassthruCommand): Effect.Effect<PassthruResult, AdminError>
  /**
   * What happens from now on. Every run of the stream gets every event; who falls 256 behind loses the oldest ones, and does
   * well to look at the state itself. It ends after `Removed`, and when the controller is released.
   */
  readonly events: Stream.Stream<ControllerEvent>
  /**
   * Resets the controller, or connects again after `Failed` (`spdk_nvme_ctrlr_reset`). I/O in flight is answered as aborted;
   * queue pairs come back by themselves.
   */
  readonly reset: Effect.Effect<void, ResetError>
}

export const NvmeController: Context.Service<NvmeController, NvmeController> = Context.Service(
  "@effect-spdk/core/NvmeController"
)

/** @since 0.1.0 @category guards */
export const isNvmeController = (u: unknown): u is NvmeController => Predicate.hasProperty(u, NvmeControllerTypeId)
