/**
 * A blob: bytes on a blobstore, in clusters, with attributes. For everybody who holds one; the one thing to know is that
 * an open blob belongs to a scope, and that what it holds survives a power cut only after `sync`.
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
import type { BlobId, BlobInfo as DriverBlobInfo, Parent } from "./internal/driver.ts"

export type { BatchEntry, BdevBatch, IoError } from "@effect-spdk/core/Bdev"
export type { BlobId, ClearMethod, Parent } from "./internal/driver.ts"

/**
 * Why a call on metadata can fail whatever it does: the device failed under it, memory ran out, or the blob, the store or the
 * engine is released already.
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

/** The error of what only looks at memory, which goes with the device. @since 0.1.0 @category errors */
export type InfoError = SpdkErrorOf<"DeviceRemoved" | "Released">

/** The error of a call with arguments that only looks at memory. @since 0.1.0 @category errors */
export type LookError = SpdkErrorOf<"DeviceRemoved" | "InvalidArgument" | "Released">

/** The value of an xattr: bytes, or a string in UTF-8. @since 0.1.0 @category models */
export type XattrValue = Uint8Array | string

/**
 * Xattrs by name. As entries, a name that comes twice fails with `InvalidArgument`.
 *
 * @since 0.1.0
 * @category models
 */
export type XattrsInput = Readonly<Record<string, XattrValue>> | Iterable<readonly [name: string, value: XattrValue]>

/**
 * What a blob is, as of now: in memory, synced or not.
 *
 * @since 0.1.0
 * @category models
 */
export interface BlobInfo extends DriverBlobInfo {
  readonly sizeBytes: number
  /** Of the clusters that are its own. A thin blob, and a clone, has fewer of them than its size tells. */
  readonly allocatedBytes: number
  /** The blob it reads from where it has no cluster of its own. */
  readonly parent: Parent
}

/** @since 0.1.0 @category models */
export interface BlobRangeOptions {
  /** Where the range starts; any byte. Default 0. */
  readonly offsetBytes?: number | undefined
  /** Any number of bytes. Default: up to the end of the blob. */
  readonly lengthBytes?: number | undefined
  /**
   * Bytes of one I/O, rounded down to whole io units, at least one. At most and by default 256 KiB, the size of the store's
   * buffers.
   */
  readonly chunkBytes?: number | undefined
  /** I/Os in flight. Default 4. */
  readonly concurrency?: number | undefined
}

/**
 * Reads, writes and the rest of a blob, through its handle or through a channel.
 *
 * **Ranges.** `read`, `write`, `readv`, `writev`, `unmap`, `writeZeroes` and batches take offsets and lengths in bytes that are
 * multiples of `ioUnitBytes`. `readBytes`, `writeBytes`, `stream` and `sink` take any byte. A range must lie in the blob.
 *
 * **Errors.** As of `Bdev`: what is wrong with the arguments fails with `InvalidArgument` naming field and rule before anything
 * reaches the device; writing a read-only blob (a snapshot, for one) fails with `ReadOnly`; a first write to a cluster of a thin
 * blob or of a clone fails with `NoSpace` when no cluster is free; a removed device fails everything with `DeviceRemoved`, and
 * a handle after its scope has closed with `Released`.
 *
 * **Thread and order.** A request is submitted from the SpdkThread the fiber is on, through a channel that is opened at the first
 * I/O there. Requests in flight at the same time have no order among them.
 *
 * **Durability.** A write that has completed is seen by every later read, and survives a power cut only after `sync`.
 *
 * **A failed write of metadata** (a first write to a thin cluster writes metadata, too) stops the store of the libspdk driver: see
 * `Blobstore`. From then on writes, `unmap` and `writeZeroes` fail with `IoFailed`, and reads go on.
 *
 * **Interruption** waits until the device has let go of the memory. The request may or may not have taken effect.
 *
 * @since 0.1.0
 * @category models
 */
export interface BlobIo {
  /**
   * Fills the buffer from `offsetBytes` (`spdk_blob_io_read`). Clusters of a thin blob that nobody has written read as zeroes. In a
   * cluster that was written in part the rest reads as zeroes, too, with the portable driver; with libspdk it depends on the device:
   * see `zeroFreed` of `Blobstore.DriverOptions`.
   */
  read(offsetBytes: number, buffer: DmaBuffer): Effect.Effect<void, IoError>
  /** Writes the whole buffer at `offsetBytes` (`spdk_blob_io_write`). */
  write(offsetBytes: number, buffer: DmaBuffer): Effect.Effect<void, IoError>
  /** Fills 1 to 64 buffers, one after the other, from one range (`spdk_blob_io_readv`). */
  readv(offsetBytes: number, buffers: ReadonlyArray<DmaBuffer>): Effect.Effect<void, IoError>
  /** Writes 1 to 64 buffers, one after the other, to one range (`spdk_blob_io_writev`). */
  writev(offsetBytes: number, buffers: ReadonlyArray<DmaBuffer>): Effect.Effect<void, IoError>
  /**
   * Says that the content is not needed any more (`spdk_blob_io_unmap`). What a read returns afterwards is up to the device. On a
   * thin blob, whole clusters become unallocated.
   */
  unmap(offsetBytes: number, lengthBytes: number): Effect.Effect<void, IoError>
  /** Writes zeroes (`spdk_blob_io_write_zeroes`). */
  writeZeroes(offsetBytes: number, lengthBytes: number): Effect.Effect<void, IoError>
  /** Many reads at the cost of one Effect, as `Bdev.readBatch`. */
  readBatch(entries: ReadonlyArray<BatchEntry>): Effect.Effect<void, IoError>
  /** Many writes at the cost of one Effect, as `Bdev.writeBatch`. */
  writeBatch(entries: ReadonlyArray<BatchEntry>): Effect.Effect<void, IoError>
  /** A batch of reads to run again and again, as `Bdev.prepareReads`. */
  prepareReads(entries: ReadonlyArray<BatchEntry>): Effect.Effect<BdevBatch, IoError>
  /** A batch of writes to run again and again, as `Bdev.prepareWrites`. */
  prepareWrites(entries: ReadonlyArray<BatchEntry>): Effect.Effect<BdevBatch, IoError>
  /** The bytes of any range in new plain memory. Up to 2 GiB; above 256 KiB several requests. */
  readBytes(offsetBytes: number, lengthBytes: number): Effect.Effect<Uint8Array, IoError>
  /**
   * Writes plain memory anywhere. Where the bytes start or end inside an io unit, that unit is read, merged and written back.
   * Writes at the same time that share an io unit and no byte do not disturb each other, as long as all of them come through
   * `writeBytes` and `sink`; what writes that overlap leave behind is up to chance. Above 256 KiB several requests, so
   * that a failure leaves a part written. The bytes must not change until the Effect has ended.
   */
  writeBytes(offsetBytes: number, bytes: Uint8Array): Effect.Effect<void, IoError>
  /**
   * The bytes of a range, in order, with `concurrency` reads ahead of the consumer. Each chunk is a new `Uint8Array` that the
   * consumer may keep.
   */
  stream(options?: BlobRangeOptions): Stream.Stream<Uint8Array, IoError>
  /**
   * Writes what it is fed to a range, in order of offsets, with up to `concurrency` writes in flight, and returns the number of
   * bytes. Both ends may lie at any byte, as with `writeBytes`.
   *
   * More bytes than the range holds fail with `NoSpace`, after what fits has been written: a sink does not make the blob
   * larger. It does not sync. It keeps references to what it is fed until that is written.
   */
  sink(options?: BlobRangeOptions): Sink.Sink<number, Uint8Array, never, IoError>
}

/**
 * The xattrs of a blob. Names have 1 or more bytes in UTF-8 and no NUL; name and value together at most 4,063 bytes, which
 * is what a page of metadata takes. Changes are in memory until `sync` or until the blob closes.
 *
 * @since 0.1.0
 * @category models
 */
export interface BlobXattrs {
  /** A copy of the value; none when there is no xattr of that name. */
  get(name: string): Effect.Effect<Option.Option<Uint8Array>, LookError>
  /** Adds or replaces. `ReadOnly` on a read-only blob. */
  set(name: string, value: XattrValue): Effect.Effect<void, SetXattrError>
  /** `NotFound` when there is none. */
  remove(name: string): Effect.Effect<void, RemoveXattrError>
  /** All of them, as copies. */
  readonly entries: Effect.Effect<ReadonlyMap<string, Uint8Array>, InfoError>
  /** One xattr that holds a value of this schema as JSON. */
  schema<S extends Schema.Constraint>(name: string, schema: S): BlobXattr<S>
}

/** @since 0.1.0 @category models */
export interface BlobXattr<S extends Schema.Constraint> {
  /** None when there is no such xattr. `SchemaError` when what is there is not JSON of this schema. */
  readonly get: Effect.Effect<Option.Option<S["Type"]>, LookError | Schema.SchemaError, S["DecodingServices"]>
  readonly set: (value: S["Type"]) => Effect.Effect<void, SetXattrError | Schema.SchemaError, S["EncodingServices"]>
}

/**
 * An open blob. It is opened once, whoever asks for it, and every handle of it counts: it closes when the last scope that holds
 * a handle closes. That waits for the I/O in flight and writes metadata that has changed; it dies with the error when that cannot
 * be written, and with `TimedOut` when it takes longer than `Bdev.ReleaseTimeout`. A handle fails with `Released` once its own
 * scope has closed, even while others hold the blob.
 *
 * @since 0.1.0
 * @category models
 */
export interface Blob extends BlobIo {
  readonly [BlobTypeId]: typeof BlobTypeId
  readonly id: BlobId
  /** The granularity of `read`, `write` and so on: the block size of the device. */
  readonly ioUnitBytes: number
  readonly clusterBytes: number
  /** Follows `resize`, whoever resizes. A whole number of clusters. */
  readonly sizeBytes: number
  readonly info: Effect.Effect<BlobInfo, InfoError>
  /**
   * Makes the blob larger or smaller: to so many bytes, rounded up to whole clusters, or to so many clusters
   * (`spdk_blob_resize`). `NoSpace` changes nothing. Larger is in memory until `sync`; what the blob gains has undefined content
   * unless it is thin. Smaller is synced, with everything else that has changed: what the blob loses is gone, and its clusters
   * are free, when this returns. With the portable driver a call that fails leaves the old size, in memory and, after the next
   * change or sync, on the device. `Busy` while another call changes the blob.
   */
  resize(size: number | string | { readonly clusters: number }): Effect.Effect<void, ResizeError>
  /**
   * Writes the metadata and flushes the device (`spdk_blob_sync_md`): data that was written before, size, xattrs and flags survive
   * a power cut after this returns. `IoFailed` with the libspdk driver once any write of the store's metadata has failed, whichever
   * blob it was for: what earlier syncs covered is on the device, and what came since may not be.
   */
  readonly sync: Effect.Effect<void, SyncError>
  /**
   * Makes the blob read-only for good (`spdk_blob_set_read_only`). In effect, and durable, after `sync`: data and metadata
   * then refuse changes with `ReadOnly`.
   */
  readonly setReadOnly: Effect.Effect<void, SetReadOnlyError>
  readonly xattrs: BlobXattrs
  /**
   * The first byte at or after `offsetBytes` that lies in a cluster of the blob's own
   * (`spdk_blob_get_next_allocated_io_unit`); none when there is none up to the end.
   */
  nextAllocated(offsetBytes: number): Effect.Effect<Option.Option<number>, LookError>
  /** The first byte at or after `offsetBytes` that has no cluster: it reads from the parent, or as zeroes. */
  nextUnallocated(offsetBytes: number): Effect.Effect<Option.Option<number>, LookError>
  /**
   * A channel of one's own on the thread the fiber is on (`spdk_bs_alloc_io_channel`). Without it the blob opens one per thread at
   * the first I/O there and keeps it; with it, I/O goes through this thread from wherever it is called. The end of the scope
   * waits for its I/O and closes it.
   */
  readonly channel: Effect.Effect<BlobIo, IoError, Scope.Scope>
}

/** @since 0.1.0 @category guards */
export const isBlob = (u: unknown): u is Blob => Predicate.hasProperty(u, BlobTypeId)
