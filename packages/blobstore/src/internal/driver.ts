/**
 * The waist of this package: what a driver must offer so that everything else in it works. Two fulfil it: `libspdk`
 * (the real library, by way of the engine) and `portable` (TypeScript over any bdev), both on SPDK's on-disk format
 * version 3. Public modules know nothing below it; it knows nothing above it.
 *
 * All sizes in bytes unless a name says clusters or io units. Whatever a driver is handed has been checked for type and
 * range against what is known without the driver; what only the driver can know (a name that is taken, a device that
 * is full) it answers as SPDK's errno would say.
 */
import type { BdevIo } from "@effect-spdk/core/Bdev"
import type { Bdev } from "@effect-spdk/core/Bdev"
import type { SpdkError } from "@effect-spdk/core/SpdkError"
import type { EngineService } from "@effect-spdk/core/Spdk"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"

/** SPDK's blob id: the index of its first metadata page, with bit 32 set. Always a safe integer here. */
export type BlobId = number

export type ClearMethod = "default" | "none" | "unmap" | "write_zeroes"

/** Names are 1 or more bytes of UTF-8 without NUL; values are bytes. */
export type Xattrs = ReadonlyMap<string, Uint8Array>

export interface DriverInitOptions {
  readonly clusterSizeBytes: number
  /** undefined: one per cluster, as SPDK does. */
  readonly metadataPages: number | undefined
  /** At most 16 bytes; "" is any. */
  readonly type: string
  /** What becomes of the old content of the device. Default of SPDK: unmap. */
  readonly clearMethod: Exclude<ClearMethod, "default">
  /** See `LoadOptions`. */
  readonly zeroFreed?: boolean
}

export interface DriverLoadOptions {
  /** "" takes any. Another type than the one on disk fails with ENXIO in SPDK's terms: `IoFailed`'s sibling, see errors.ts. */
  readonly type: string
  /** Rebuilds the masks even after a clean unload (SPDK's force_recover). */
  readonly forceRecover: boolean
  /** Takes the space that the device has gained since, while loading (spdk_bs_grow). */
  readonly grow: boolean
  /** Called on the JS thread while blobs are read; `total` is the number of metadata pages that are in use, where known. */
  readonly onProgress: ((done: number, total: number | undefined) => void) | undefined
  /**
   * What a thin blob gets reads as zeroes where it has not written, on whichever device. Default false: where unmapping takes
   * content away. The portable driver fills clusters at their first write, and needs no telling.
   */
  readonly zeroFreed?: boolean
}

/** As of now. */
export interface DriverStoreInfo {
  readonly type: string
  readonly clusterSizeBytes: number
  /** Clusters that can hold data: those of the metadata do not count. */
  readonly totalClusters: number
  readonly freeClusters: number
  readonly ioUnitBytes: number
  /** Of a metadata page. */
  readonly pageBytes: number
}

export interface DriverCreateOptions {
  readonly clusters: number
  readonly thin: boolean
  readonly clearMethod: ClearMethod
  /** Extent pages (the default of SPDK's lvol) or, when false, run-length extents in the chain. Default true. */
  readonly extentTable: boolean
  readonly xattrs: Xattrs
  /** An external snapshot: the name or UUID of a bdev under the blob, kept in its metadata. */
  readonly externalSnapshot: string | undefined
}

export type Parent =
  | { readonly _tag: "None" }
  | { readonly _tag: "Snapshot"; readonly id: BlobId }
  | { readonly _tag: "External"; readonly bdev: string }

/** As of now: what is in memory, synced or not. */
export interface DriverBlobInfo {
  readonly id: BlobId
  readonly clusters: number
  readonly allocatedClusters: number
  readonly isReadOnly: boolean
  readonly isThin: boolean
  readonly isSnapshot: boolean
  readonly isClone: boolean
  readonly parent: Parent
}

/** The I/O of one open blob. Offsets and lengths are whole io units inside the blob; the driver checks and refuses as `Bdev` does. */
export type BlobBlockIo = Pick<
  BdevIo,
  | "read"
  | "write"
  | "readv"
  | "writev"
  | "unmap"
  | "writeZeroes"
  | "readBatch"
  | "writeBatch"
  | "prepareReads"
  | "prepareWrites"
>

/**
 * One open of a blob. The layer above opens each blob once and counts its users, so a driver sees one at a time per id
 * (except where it opens by itself, as for snapshots).
 */
export interface OpenBlob {
  readonly id: BlobId
  /** By the channel of the fiber's SpdkThread. */
  readonly io: BlobBlockIo
  /** A channel of one's own on the fiber's SpdkThread. */
  readonly channel: Effect.Effect<BlobBlockIo, SpdkError, Scope.Scope>
  readonly info: Effect.Effect<DriverBlobInfo, SpdkError>
  /** In clusters, in memory; `sync` makes it durable (a smaller size may be written at once). NoSpace changes nothing. */
  readonly resize: (clusters: number) => Effect.Effect<void, SpdkError>
  /** Writes the metadata and flushes the device: data written before and the metadata survive a power cut. */
  readonly sync: Effect.Effect<void, SpdkError>
  /** Data can no longer be written; in memory until `sync`. */
  readonly setReadOnly: Effect.Effect<void, SpdkError>
  readonly xattrs: Effect.Effect<Xattrs, SpdkError>
  /** In memory until `sync`. Replaces. */
  readonly setXattr: (name: string, value: Uint8Array) => Effect.Effect<void, SpdkError>
  /** NotFound when there is none. */
  readonly removeXattr: (name: string) => Effect.Effect<void, SpdkError>
  /** The first io unit at or after this one that has (or has not) a cluster of its own; undefined when there is none. */
  readonly nextAllocated: (ioUnit: number) => Effect.Effect<number | undefined, SpdkError>
  readonly nextUnallocated: (ioUnit: number) => Effect.Effect<number | undefined, SpdkError>
  /** Waits for its I/O, syncs what is dirty as SPDK does, and closes. Idempotent. */
  readonly close: Effect.Effect<void, SpdkError>
}

export interface Progress {
  (copiedClusters: number): void
}

/** A loaded blobstore. */
export interface StoreDriver {
  readonly kind: "libspdk" | "portable"
  readonly info: Effect.Effect<DriverStoreInfo, SpdkError>
  /** Durable when it returns. */
  readonly create: (options: DriverCreateOptions) => Effect.Effect<BlobId, SpdkError>
  /** Busy while it is open, or a snapshot with more than one clone. Durable when it returns. */
  readonly delete: (id: BlobId) => Effect.Effect<void, SpdkError>
  readonly open: (id: BlobId, options: { readonly clearMethod: ClearMethod }) => Effect.Effect<OpenBlob, SpdkError>
  /** In the order of ids, as SPDK iterates; includes snapshots. */
  readonly ids: Effect.Effect<ReadonlyArray<BlobId>, SpdkError>
  /** undefined when there is none. */
  readonly superBlob: Effect.Effect<BlobId | undefined, SpdkError>
  readonly setSuperBlob: (id: BlobId | undefined) => Effect.Effect<void, SpdkError>
  readonly snapshot: (id: BlobId, xattrs: Xattrs) => Effect.Effect<BlobId, SpdkError>
  readonly clone: (snapshot: BlobId, xattrs: Xattrs) => Effect.Effect<BlobId, SpdkError>
  readonly clones: (snapshot: BlobId) => Effect.Effect<ReadonlyArray<BlobId>, SpdkError>
  readonly parent: (id: BlobId) => Effect.Effect<Parent, SpdkError>
  readonly inflate: (id: BlobId) => Effect.Effect<void, SpdkError>
  readonly decouple: (id: BlobId) => Effect.Effect<void, SpdkError>
  readonly setParent: (id: BlobId, snapshot: BlobId) => Effect.Effect<void, SpdkError>
  readonly setExternalParent: (id: BlobId, bdev: string) => Effect.Effect<void, SpdkError>
  /** Copies the clusters the blob itself has to another bdev, at the same offsets. The blob must be read-only. */
  readonly shallowCopy: (id: BlobId, bdev: string, onProgress: Progress) => Effect.Effect<void, SpdkError>
  /** Takes the space that the device has gained. */
  readonly grow: Effect.Effect<void, SpdkError>
  /** Busy while blobs are open. Marks the store clean, flushes. After it nothing else is called. */
  readonly unload: Effect.Effect<void, SpdkError>
  /** Busy while blobs are open. Nothing can load the device as a blobstore afterwards. */
  readonly destroy: Effect.Effect<void, SpdkError>
}

/** Neither has a scope: the layer above unloads, once, or destroys. What fails leaves nothing open. */
export interface DriverFactory {
  readonly kind: StoreDriver["kind"]
  readonly init: (bdev: Bdev, options: DriverInitOptions) => Effect.Effect<StoreDriver, SpdkError, EngineService>
  readonly load: (bdev: Bdev, options: DriverLoadOptions) => Effect.Effect<StoreDriver, SpdkError, EngineService>
}
