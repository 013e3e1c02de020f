/**
 * The waist of this package: the interface of a driver. Two drivers implement it: `libspdk` (SPDK's library, through
 * the engine) and `portable` (TypeScript over any bdev). Both use SPDK's on-disk format version 3. Public modules use a
 * driver only through this interface.
 *
 * Sizes are in bytes unless a name says clusters or io units. Arguments of a driver have been checked as far as
 * possible without the driver. For other faults (a name that is taken, a device that is full) the driver fails like
 * SPDK's errno.
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
  /** `undefined`: one per cluster, as in SPDK. */
  readonly metadataPages: number | undefined
  /** At most 16 bytes. "" is no type. */
  readonly type: string
  /** The treatment of the device's old content. SPDK's default: unmap. */
  readonly clearMethod: Exclude<ClearMethod, "default">
  /** See `DriverLoadOptions`. */
  readonly zeroFreed?: boolean
}

export interface DriverLoadOptions {
  /** "" takes any. Another type than the one on disk fails with ENXIO in SPDK's terms: `IoFailed`'s sibling, see errors.ts. */
  readonly type: string
  /** Rebuilds the masks even after a clean unload (SPDK's force_recover). */
  readonly forceRecover: boolean
  /** Adds the space that the device has gained since, during the load (spdk_bs_grow). */
  readonly grow: boolean
  /** Called on the JS thread while blobs are read. `total` is the number of used metadata pages, when known. */
  readonly onProgress: ((done: number, total: number | undefined) => void) | undefined
  /**
   * Whether unwritten parts of new clusters of a thin blob read as zeroes on every device. Default false: only where
   * unmap erases content. The portable driver fills clusters at their first write and does not need this.
   */
  readonly zeroFreed?: boolean
}

/** The current state. */
export interface DriverStoreInfo {
  readonly type: string
  readonly clusterSizeBytes: number
  /** The number of clusters for data. Clusters of the metadata do not count. */
  readonly totalClusters: number
  readonly freeClusters: number
  readonly ioUnitBytes: number
  /** The size of a metadata page. */
  readonly pageBytes: number
}

export interface DriverCreateOptions {
  readonly clusters: number
  readonly thin: boolean
  readonly clearMethod: ClearMethod
  /** Extent pages (the default of SPDK's lvol), or, when false, run-length extents in the chain. Default true. */
  readonly extentTable: boolean
  readonly xattrs: Xattrs
  /** An external snapshot: the name or UUID of the bdev under the blob. The blob's metadata stores it. */
  readonly externalSnapshot: string | undefined
}

export type Parent =
  | { readonly _tag: "None" }
  | { readonly _tag: "Snapshot"; readonly id: BlobId }
  | { readonly _tag: "External"; readonly bdev: string }

/** The current state in memory, whether synced or not. */
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

/**
 * The I/O of one open blob. Offsets and lengths are whole io units inside the blob. The driver checks and refuses as
 * `Bdev` does.
 */
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
 * One opened blob. The layer above opens each blob once and counts its users. A driver thus sees one open per id,
 * except when the driver itself opens blobs, as for snapshots.
 */
export interface OpenBlob {
  readonly id: BlobId
  /** I/O through the channel of the fiber's current SpdkThread. */
  readonly io: BlobBlockIo
  /** An explicit channel on the fiber's current SpdkThread. */
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
