/**
 * The handle of an open NVMe namespace: the I/O of a bdev, and the commands that only NVMe has. Made by
 * `NvmeController.namespace`. Import all of this from `Nvme`.
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
import type { DescriptorEvent } from "./internal/engine.ts"
import { NvmeNamespaceTypeId } from "./internal/nvme/typeIds.ts"
import type { PassthruCommand, PassthruResult, QueryError } from "./NvmeController.ts"
import type { IdentifyNamespace, NamespaceDescriptors } from "./NvmeData.ts"
import type { SpdkThread } from "./SpdkThread.ts"

/** What happens to a namespace under an open handle. @since 0.1.0 @category models */
export type NamespaceEvent = DescriptorEvent

/** @since 0.1.0 @category models */
export interface NamespaceInfo extends NamespaceDescriptors {
  readonly nsid: number
  /** In bytes, without metadata. */
  readonly blockSize: number
  readonly numBlocks: number
  readonly sizeBytes: number
  /** Of each block, in bytes. */
  readonly metadataBytes: number
  readonly identify: IdentifyNamespace
}

/** @since 0.1.0 @category models */
export interface DatasetOptions {
  /** AD: the content is not needed any more. */
  readonly deallocate?: boolean | undefined
  /** IDW: will be written as a whole. */
  readonly integralWrite?: boolean | undefined
  /** IDR: will be read as a whole. */
  readonly integralRead?: boolean | undefined
}

/** @since 0.1.0 @category models */
export type NamespaceCommand = Omit<PassthruCommand, "nsid">

/**
 * The I/O of a namespace. Ranges, errors, threads, durability and interruption are as for `BdevIo`; reads and writes of any
 * length are split by the engine, the commands below are one command each, as long as `NvmeController.maxTransferBytes` at most.
 *
 * @since 0.1.0
 * @category models
 */
export interface NvmeIo extends Omit<BdevIo, "reset"> {
  /** Compares with what is stored, and fails with `Miscompare` when it differs. `NotSupported` by devices without it. */
  compare(offsetBytes: number, buffer: DmaBuffer): Effect.Effect<void, IoError>
  /**
   * Copies ranges, one after the other, to one place, inside of the device. Their number and lengths have limits, which
   * `info.identify` tells (MSSRL, MCL, MSRC).
   */
  copy(sources: ReadonlyArray<ByteRange>, destinationOffsetBytes: number): Effect.Effect<void, IoError>
  /**
   * Says what becomes of 1 to 256 ranges. All of it is advice: without `deallocate` nothing happens to the content, and with it a
   * controller may leave out all ranges but the first few (DMRL). `unmap` is one range, and so sure to be carried out.
   */
  datasetManagement(ranges: ReadonlyArray<ByteRange>, options: DatasetOptions): Effect.Effect<void, IoError>
  /**
   * Any command of the I/O queue, to this namespace. One that moves more bytes than it comes with memory for is refused: the
   * device would not know where to stop. A status other than success is an error with that status.
   */
  io(command: NamespaceCommand): Effect.Effect<PassthruResult, IoError>
}

/**
 * I/O by a queue pair on one thread.
 *
 * @since 0.1.0
 * @category models
 */
export interface NvmeChannel extends NvmeIo {
  /** Where the queue pair is; undefined is the engine's main thread. */
  readonly thread: SpdkThread | undefined
}

/**
 * An open namespace, and the tag under which layers provide one. Its I/O fails with `Released` once its scope, or that of the
 * controller, has closed, and with `DeviceRemoved` once the namespace has gone.
 *
 * @since 0.1.0
 * @category models
 */
export interface NvmeNamespace extends NvmeIo {
  readonly [NvmeNamespaceTypeId]: typeof NvmeNamespaceTypeId
  readonly nsid: number
  /** As it was when the namespace was opened. */
  readonly info: NamespaceInfo
  /** In bytes. */
  readonly blockSize: number
  /** Follows `Resized`. */
  readonly numBlocks: number
  readonly sizeBytes: number
  readonly isRemoved: boolean
  /** Asks the device anew. */
  readonly identify: Effect.Effect<NamespaceInfo, QueryError>
  /**
   * What happens to the namespace from now on. Every run of the stream gets every event. It ends after `Removed`, which who
   * comes later still gets, and when the handle closes.
   */
  readonly events: Stream.Stream<NamespaceEvent>
  /** A queue pair on the thread the fiber is on, until the scope ends. Without it the handle opens one per thread and keeps it. */
  readonly channel: Effect.Effect<NvmeChannel, IoError, Scope.Scope>
}

export const NvmeNamespace: Context.Service<NvmeNamespace, NvmeNamespace> = Context.Service(
  "@effect-spdk/core/NvmeNamespace"
)

/** @since 0.1.0 @category guards */
export const isNvmeNamespace = (u: unknown): u is NvmeNamespace => Predicate.hasProperty(u, NvmeNamespaceTypeId)
