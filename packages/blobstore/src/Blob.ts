/**
 * A blob: bytes in a blobstore, in clusters, with xattrs. An open blob belongs to a scope. Its data survive a power cut
 * only after `sync`.
 *
 * ```ts
 * import * as Blobstore from "@effect-spdk/blobstore/Blobstore"
 * import * as Effect from "effect/Effect"
 * import * as Stream from "effect/Stream"
 *
 * const photo = Effect.gen(function*() {
 *   const store = yield* Blobstore.Blobstore
 *   const blob = yield* store.create({ size: "4 MiB", xattrs: { name: "photo.jpg" } })
 *   yield* Stream.run(Stream.make(new Uint8Array(100_000)), blob.sink())
 *   yield* blob.sync
 *   return yield* blob.readBytes(0, 100_000)
 * }).pipe(Effect.scoped)
 * ```
 *
 * @since 0.1.0
 */
import type { BatchEntry, BdevBatch, IoError } from "@effect-spdk/core/Bdev"
import type { DmaBuffer } from "@effect-spdk/core/DmaBuffer"
import type { SpdkErrorOf } from "@effect-spdk/core/SpdkError"
import type * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import type * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type * as Sink from "effect/Sink"
import type * as Stream from "effect/Stream"
import { BlobTypeId } from "./internal/blobTypeId.ts"
import type { BlobId, DriverBlobInfo, Parent } from "./internal/driver.ts"

export type { BatchEntry, BdevBatch, IoError } from "@effect-spdk/core/Bdev"
export type { BlobId, ClearMethod, Parent } from "./internal/driver.ts"

/**
 * The reasons with which every call on metadata can fail. The device failed, memory is exhausted, or the blob, the
 * store or the engine has been released.
 *
 * @since 0.1.0
 * @category errors
 */
export type MetadataReason = "Aborted" | "DeviceRemoved" | "IoFailed" | "NoMemory" | "Released" | "TimedOut"

/** @since 0.1.0 @category errors */
export type ResizeError = SpdkErrorOf<MetadataReason | "Busy" | "InvalidArgument" | "NoSpace" | "ReadOnly">

/** @since 0.1.0 @category errors */
export type SyncError = SpdkErrorOf<MetadataReason | "Busy" | "NoSpace">

/** @since 0.1.0 @category errors */
export type SetReadOnlyError = SpdkErrorOf<MetadataReason | "Busy" | "ReadOnly">

/** @since 0.1.0 @category errors */
export type SetXattrError = SpdkErrorOf<MetadataReason | "Busy" | "InvalidArgument" | "ReadOnly">

/** @since 0.1.0 @category errors */
export type RemoveXattrError = SpdkErrorOf<MetadataReason | "Busy" | "InvalidArgument" | "NotFound" | "ReadOnly">

/** @since 0.1.0 @category errors */
export type ReleasedError = SpdkErrorOf<"Released">

/**
 * The error of calls that read only memory. These calls fail with `DeviceRemoved` after the device was removed.
 *
 * @since 0.1.0
 * @category errors
 */
export type InfoError = SpdkErrorOf<"DeviceRemoved" | "Released">

/** The error of calls with arguments that read only memory. @since 0.1.0 @category errors */
export type LookError = SpdkErrorOf<"DeviceRemoved" | "InvalidArgument" | "Released">

/** The value of an xattr: bytes, or a string in UTF-8. @since 0.1.0 @category models */
export type XattrValue = Uint8Array | string

/**
 * Xattrs by name. Given as entries, a repeated name fails with `InvalidArgument`.
 *
 * @since 0.1.0
 * @category models
 */
export type XattrsInput = Readonly<Record<string, XattrValue>> | Iterable<readonly [name: string, value: XattrValue]>

/**
 * The current state of a blob in memory, whether synced or not.
 *
 * @since 0.1.0
 * @category models
 */
export interface BlobInfo extends DriverBlobInfo {
  readonly sizeBytes: number
  /** The bytes of the blob's own clusters. A thin blob or a clone can have fewer of them than its size. */
  readonly allocatedBytes: number
  /** The source of reads where the blob has no cluster of its own. */
  readonly parent: Parent
}

/** @since 0.1.0 @category models */
export interface BlobRangeOptions {
  /** The start of the range, at any byte. Default 0. */
  readonly offsetBytes?: number | undefined
  /** The length of the range: any number of bytes. Default: up to the end of the blob. */
  readonly lengthBytes?: number | undefined
  /**
   * The size of one I/O in bytes, rounded down to whole io units, at least one io unit. Default and maximum: 256 KiB,
   * the size of the store's buffers.
   */
  readonly chunkBytes?: number | undefined
  /** The number of I/Os in flight. Default 4. */
  readonly concurrency?: number | undefined
}

/**
 * Reads, writes and the other I/O of a blob, through its handle or through a channel.
 *
 * **Ranges.** `read`, `write`, `readv`, `writev`, `unmap`, `writeZeroes` and batches take offsets and lengths in bytes
 * that are multiples of `ioUnitBytes`. `readBytes`, `writeBytes`, `stream` and `sink` accept any byte. A range must lie
 * inside the blob.
 *
 * **Errors.** Errors are as for `Bdev`. Invalid arguments fail with `InvalidArgument`, which names the field and the
 * rule, before a request reaches the device. Writing to a read-only blob, for example a snapshot, fails with
 * `ReadOnly`. The first write to a cluster of a thin blob or of a clone fails with `NoSpace` when no cluster is free.
 * After the device was removed, every operation fails with `DeviceRemoved`. After the scope of a handle has closed, its
 * operations fail with `Released`.
 *
 * **Thread and order.** A request is submitted from the fiber's current SpdkThread. The channel on that thread opens at
 * the first I/O there. Requests in flight at the same time have no order among them.
 *
 * **Durability.** Every later read sees a completed write. The write survives a power cut only after `sync`.
 *
 * **A failed metadata write** stops the store of the libspdk driver: see `Blobstore`. The first write to a thin cluster
 * writes metadata too. After the failure, writes, `unmap` and `writeZeroes` fail with `IoFailed`. Reads continue.
 *
 * **Interruption** waits until the device no longer uses the memory. The request may or may not have taken effect.
 *
 * @since 0.1.0
 * @category models
 */
export interface BlobIo {
  /**
   * Fills the buffer from `offsetBytes` (`spdk_blob_io_read`). Clusters of a thin blob that were never written read as
   * zeroes. In a cluster that was written in part, the portable driver returns zeroes for the rest. The libspdk driver
   * returns what the device has there: see `zeroFreed` of `Blobstore.DriverOptions`.
   */
  read(offsetBytes: number, buffer: DmaBuffer): Effect.Effect<void, IoError>
  /** Writes the whole buffer at `offsetBytes` (`spdk_blob_io_write`). */
  write(offsetBytes: number, buffer: DmaBuffer): Effect.Effect<void, IoError>
  /** Fills 1 to 64 buffers in order from one contiguous range (`spdk_blob_io_readv`). */
  readv(offsetBytes: number, buffers: ReadonlyArray<DmaBuffer>): Effect.Effect<void, IoError>
  /** Writes 1 to 64 buffers in order to one contiguous range (`spdk_blob_io_writev`). */
  writev(offsetBytes: number, buffers: ReadonlyArray<DmaBuffer>): Effect.Effect<void, IoError>
  /**
   * Tells the device that the content of the range is no longer needed (`spdk_blob_io_unmap`). The device decides what
   * later reads return. On a thin blob, whole clusters become unallocated.
   */
  unmap(offsetBytes: number, lengthBytes: number): Effect.Effect<void, IoError>
  /** Writes zeroes (`spdk_blob_io_write_zeroes`). */
  writeZeroes(offsetBytes: number, lengthBytes: number): Effect.Effect<void, IoError>
  /** Submits many reads in one Effect, by the rules of `Bdev.readBatch`. */
  readBatch(entries: ReadonlyArray<BatchEntry>): Effect.Effect<void, IoError>
  /** Submits many writes in one Effect, by the rules of `Bdev.writeBatch`. */
  writeBatch(entries: ReadonlyArray<BatchEntry>): Effect.Effect<void, IoError>
  /** Prepares a batch of reads that can run many times, as `Bdev.prepareReads`. */
  prepareReads(entries: ReadonlyArray<BatchEntry>): Effect.Effect<BdevBatch, IoError>
  /** Prepares a batch of writes that can run many times, as `Bdev.prepareWrites`. */
  prepareWrites(entries: ReadonlyArray<BatchEntry>): Effect.Effect<BdevBatch, IoError>
  /** Reads any range into new plain memory. At most 2 GiB. A range above 256 KiB takes several requests. */
  readBytes(offsetBytes: number, lengthBytes: number): Effect.Effect<Uint8Array, IoError>
  /**
   * Writes plain memory to any range. Where the bytes start or end inside an io unit, the call reads that unit, merges
   * the bytes and writes the unit back. Concurrent writes to different bytes of one io unit keep each other's bytes, if
   * all of them use `writeBytes` or `sink`. The result of concurrent writes to the same bytes is undefined. A range
   * above 256 KiB takes several requests, so a failure can leave a part written. Do not change the bytes before the
   * Effect has ended.
   */
  writeBytes(offsetBytes: number, bytes: Uint8Array): Effect.Effect<void, IoError>
  /**
   * Streams the bytes of a range in order, with `concurrency` reads ahead of the consumer. Each chunk is a new
   * `Uint8Array`, which the consumer may keep.
   */
  stream(options?: BlobRangeOptions): Stream.Stream<Uint8Array, IoError>
  /**
   * Writes the incoming chunks to a range, in order of offsets, with up to `concurrency` writes in flight. Returns the
   * number of bytes. Both ends may lie at any byte, as with `writeBytes`.
   *
   * When the input is longer than the range, the sink writes the part that fits, then fails with `NoSpace`. A sink does
   * not extend the blob. The sink does not sync. The sink keeps references to the chunks until they are written.
   */
  sink(options?: BlobRangeOptions): Sink.Sink<number, Uint8Array, never, IoError>
}

/**
 * The xattrs of a blob. A name has at least one byte of UTF-8 and no NUL. Name and value together have at most 4,063
 * bytes, the capacity of a metadata page. Changes stay in memory until `sync` or until the blob closes.
 *
 * @since 0.1.0
 * @category models
 */
export interface BlobXattrs {
  /** Returns a copy of the value, or none when there is no xattr with that name. */
  get(name: string): Effect.Effect<Option.Option<Uint8Array>, LookError>
  /** Adds or replaces an xattr. Fails with `ReadOnly` on a read-only blob. */
  set(name: string, value: XattrValue): Effect.Effect<void, SetXattrError>
  /** Removes an xattr. Fails with `NotFound` when there is none with that name. */
  remove(name: string): Effect.Effect<void, RemoveXattrError>
  /** All xattrs, as copies. */
  readonly entries: Effect.Effect<ReadonlyMap<string, Uint8Array>, InfoError>
  /** An xattr whose value is JSON of this schema. */
  schema<S extends Schema.Constraint>(name: string, schema: S): BlobXattr<S>
}

/** @since 0.1.0 @category models */
export interface BlobXattr<S extends Schema.Constraint> {
  /** None when there is no such xattr. Fails with `SchemaError` when the value is not JSON of this schema. */
  readonly get: Effect.Effect<Option.Option<S["Type"]>, LookError | Schema.SchemaError, S["DecodingServices"]>
  readonly set: (value: S["Type"]) => Effect.Effect<void, SetXattrError | Schema.SchemaError, S["EncodingServices"]>
}

/**
 * An open blob. The store opens a blob once, for any number of handles. The blob closes when the last scope with a
 * handle closes. Closing waits for the I/O in flight and writes changed metadata. Closing dies with the error when the
 * metadata cannot be written, and with `TimedOut` when it takes longer than `Bdev.ReleaseTimeout`. A handle fails with
 * `Released` after its own scope has closed, even while other handles are open.
 *
 * @since 0.1.0
 * @category models
 */
export interface Blob extends BlobIo {
  readonly [BlobTypeId]: typeof BlobTypeId
  readonly id: BlobId
  /** The granularity of `read`, `write` and the other aligned operations: the block size of the device. */
  readonly ioUnitBytes: number
  readonly clusterBytes: number
  /** A whole number of clusters. Follows every `resize` of the blob, by any handle. */
  readonly sizeBytes: number
  readonly info: Effect.Effect<BlobInfo, InfoError>
  /**
   * Makes the blob larger or smaller (`spdk_blob_resize`). A size in bytes is rounded up to whole clusters. `NoSpace`
   * changes nothing. Fails with `Busy` while another call changes the blob.
   *
   * - A larger size stays in memory until `sync`. The new clusters have undefined content unless the blob is thin.
   * - A smaller size is synced, together with all other changes. When the call returns, the removed content is gone and
   *   its clusters are free.
   * - With the portable driver, a call that fails keeps the old size: in memory at once, on the device after the next
   *   change or sync.
   */
  resize(size: number | string | { readonly clusters: number }): Effect.Effect<void, ResizeError>
  /**
   * Writes the metadata and flushes the device (`spdk_blob_sync_md`). Earlier writes, the size, xattrs and flags
   * survive a power cut after this returns. With the libspdk driver, `sync` fails with `IoFailed` after any metadata
   * write of the store has failed, for any blob. Data of earlier syncs are on the device. Later data may not be.
   */
  readonly sync: Effect.Effect<void, SyncError>
  /**
   * Makes the blob read-only permanently (`spdk_blob_set_read_only`). The change is in effect, and durable, after
   * `sync`. Then changes to data and metadata fail with `ReadOnly`.
   */
  readonly setReadOnly: Effect.Effect<void, SetReadOnlyError>
  readonly xattrs: BlobXattrs
  /**
   * The first byte at or after `offsetBytes` in a cluster of the blob's own (`spdk_blob_get_next_allocated_io_unit`).
   * None when there is no such byte before the end.
   */
  nextAllocated(offsetBytes: number): Effect.Effect<Option.Option<number>, LookError>
  /** The first byte at or after `offsetBytes` without a cluster. It reads from the parent, or as zeroes. */
  nextUnallocated(offsetBytes: number): Effect.Effect<Option.Option<number>, LookError>
  /**
   * Opens an explicit channel on the fiber's current SpdkThread (`spdk_bs_alloc_io_channel`). I/O through this channel
   * runs on that thread, wherever it is called. The end of the scope waits for the channel's I/O and closes the
   * channel. Without an explicit channel, the blob opens one channel per thread at the first I/O on that thread, and
   * keeps it.
   */
  readonly channel: Effect.Effect<BlobIo, IoError, Scope.Scope>
}

/** @since 0.1.0 @category guards */
export const isBlob = (u: unknown): u is Blob => Predicate.hasProperty(u, BlobTypeId)
