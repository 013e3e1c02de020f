/**
 * The handle of an open NVMe namespace: the I/O of a bdev, and NVMe commands that bdevs lack.
 * `NvmeController.namespace` makes handles. Import these names from `Nvme`.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import type { BdevIo, ByteRange, IoError } from "./BdevIo.ts"
import type { DmaBuffer } from "./DmaBuffer.ts"
import type { DescriptorEvent } from "./internal/engine/engine.ts"
import { NvmeNamespaceTypeId } from "./internal/nvme/typeIds.ts"
import type { PassthruCommand, PassthruResult, QueryError } from "./NvmeController.ts"
import type { IdentifyNamespace, NamespaceDescriptors } from "./NvmeData.ts"
import type { SpdkThread } from "./SpdkThread.ts"

/** An event of a namespace while a handle is open. @since 0.1.0 @category models */
export type NamespaceEvent = DescriptorEvent

/** @since 0.1.0 @category models */
export interface NamespaceInfo extends NamespaceDescriptors {
  readonly nsid: number
  /** In bytes, without metadata. */
  readonly blockSize: number
  readonly numBlocks: number
  readonly sizeBytes: number
  /** The metadata bytes of each block. */
  readonly metadataBytes: number
  readonly identify: IdentifyNamespace
}

/** @since 0.1.0 @category models */
export interface DatasetOptions {
  /** AD: the content is no longer needed. */
  readonly deallocate?: boolean | undefined
  /** IDW: the ranges will be written as a whole. */
  readonly integralWrite?: boolean | undefined
  /** IDR: the ranges will be read as a whole. */
  readonly integralRead?: boolean | undefined
}

/** @since 0.1.0 @category models */
export type NamespaceCommand = Omit<PassthruCommand, "nsid">

/**
 * The I/O of a namespace. Ranges, errors, threads, durability and interruption are as for `BdevIo`. The engine splits
 * reads and writes of any length. Each other command below is one NVMe command, of at most
 * `NvmeController.maxTransferBytes`.
 *
 * @since 0.1.0
 * @category models
 */
export interface NvmeIo extends Omit<BdevIo, "reset"> {
  /**
   * Compares the buffer with the stored bytes. Fails with `Miscompare` when they differ, and with `NotSupported` on
   * devices without Compare.
   */
  compare(offsetBytes: number, buffer: DmaBuffer): Effect.Effect<void, IoError>
  /**
   * Copies the ranges, in order, to one contiguous place inside the device. `info.identify` gives the limits of their
   * number and lengths (MSSRL, MCL, MSRC).
   */
  copy(sources: ReadonlyArray<ByteRange>, destinationOffsetBytes: number): Effect.Effect<void, IoError>
  /**
   * Gives the device advice about 1 to 256 ranges. Without `deallocate` the content does not change. With `deallocate`,
   * a controller may ignore all ranges but the first few (DMRL). `unmap` deallocates one range, and the controller
   * always carries it out.
   */
  datasetManagement(ranges: ReadonlyArray<ByteRange>, options: DatasetOptions): Effect.Effect<void, IoError>
  /**
   * Submits any command of the I/O queue to this namespace. A command that transfers more bytes than its memory has is
   * refused, because the device would write past the end. A status other than success fails with that status.
   */
  io(command: NamespaceCommand): Effect.Effect<PassthruResult, IoError>
}

/**
 * I/O through one queue pair on one thread.
 *
 * @since 0.1.0
 * @category models
 */
export interface NvmeChannel extends NvmeIo {
  /** The thread of the queue pair. `undefined` is the engine's main thread. */
  readonly thread: SpdkThread | undefined
}

/**
 * An open namespace, and the tag under which layers provide one. I/O fails with `Released` after the scope of the
 * namespace or of the controller has closed. I/O fails with `DeviceRemoved` after the namespace was removed.
 *
 * @since 0.1.0
 * @category models
 */
export interface NvmeNamespace extends NvmeIo {
  readonly [NvmeNamespaceTypeId]: typeof NvmeNamespaceTypeId
  readonly nsid: number
  /** The state of the namespace when it was opened. */
  readonly info: NamespaceInfo
  /** In bytes. */
  readonly blockSize: number
  /** In blocks. Changes when a `Resized` event arrives. */
  readonly numBlocks: number
  readonly sizeBytes: number
  readonly isRemoved: boolean
  /** Reads the identify data from the device at each run. */
  readonly identify: Effect.Effect<NamespaceInfo, QueryError>
  /**
   * Events of the namespace from the time of subscription. Every run of the stream receives every event. The stream
   * ends after `Removed`, and when the handle closes. Late subscribers receive `Removed` too.
   */
  readonly events: Stream.Stream<NamespaceEvent>
  /**
   * Opens an explicit queue pair on the fiber's current SpdkThread, until the scope ends. Without it, the handle opens
   * one queue pair per thread and keeps it.
   */
  readonly channel: Effect.Effect<NvmeChannel, IoError, Scope.Scope>
}

export const NvmeNamespace: Context.Service<NvmeNamespace, NvmeNamespace> = Context.Service(
  "@effect-spdk/core/NvmeNamespace"
)

/** @since 0.1.0 @category guards */
export const isNvmeNamespace = (u: unknown): u is NvmeNamespace => Predicate.hasProperty(u, NvmeNamespaceTypeId)
