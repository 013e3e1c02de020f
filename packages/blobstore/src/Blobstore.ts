/**
 * SPDK's blobstore: a device full of blobs, which are made, opened, resized, snapshot and cloned. For services that keep many
 * objects on one block device; the one thing to know is that the store belongs to a scope, which at its end closes
 * every blob and marks the store clean.
 *
 * ```ts
 * import * as Blobstore from "@effect-spdk/blobstore/Blobstore"
 * import * as Bdev from "@effect-spdk/core/Bdev"
 * import * as Spdk from "@effect-spdk/core/Spdk"
 * import * as Layer from "effect/Layer"
 *
 * const Storage = Blobstore.layer({ onEmpty: "init" }).pipe(
 *   Layer.provide(Bdev.layerFile({ path: "disk.img", size: "256 MiB" })),
 *   Layer.provide(Spdk.layerAuto)
 * )
 * ```
 *
 * @since 0.1.0
 */
import * as Bdev from "@effect-spdk/core/Bdev"
import { EngineService } from "@effect-spdk/core/Engine"
import type { SpdkErrorOf } from "@effect-spdk/core/SpdkError"
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Predicate from "effect/Predicate"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import type { Blob, BlobId, ClearMethod, InfoError, MetadataReason, Parent, XattrsInput } from "./Blob.ts"
import type { StoreInfo as DriverStoreInfo } from "./internal/driver.ts"
import { BlobstoreTypeId, initStore, loadOrInitStore, loadStore } from "./internal/store.ts"

export type {
  BlobId,
  ClearMethod,
  InfoError,
  MetadataReason,
  Parent,
  ReleasedError,
  XattrsInput,
  XattrValue
} from "./Blob.ts"

/**
 * Who does the work: SPDK's library, or TypeScript over the bdev. Both write the same bytes to the device, and each loads what
 * the other wrote.
 *
 * @since 0.1.0
 * @category models
 */
export type DriverKind = "libspdk" | "portable"

/** What the store is and has, as of now. @since 0.1.0 @category models */
export interface StoreInfo extends DriverStoreInfo {
  /**
   * Whether a flush reaches the device below. False where it has a volatile write cache and the NVMe bdev answers flushes
   * without sending them, because somebody has set `enable_flush: false` by `bdev_nvme_set_options`: then nothing that is called
   * durable here survives a power cut for sure. Known since the load.
   */
  readonly isFlushed: boolean
}

/** Why a store is not made. @since 0.1.0 @category errors */
export type InitError = SpdkErrorOf<
  MetadataReason | "Busy" | "InvalidArgument" | "NoSpace" | "NotSupported" | "PermissionDenied" | "ReadOnly"
>

/**
 * Why a store does not load. `Corrupted`: what lies on the device is no blobstore, is of another version, or is damaged.
 *
 * @since 0.1.0
 * @category errors
 */
export type LoadError = SpdkErrorOf<InitReason | "Corrupted" | "WrongType">
type InitReason = Extract<InitError["reason"]["_tag"], string>

/** What building a layer can fail with. @since 0.1.0 @category errors */
export type BlobstoreError = InitError | LoadError

/** @since 0.1.0 @category errors */
export type CreateError = SpdkErrorOf<
  MetadataReason | "Busy" | "InvalidArgument" | "NoSpace" | "NotFound" | "NotSupported" | "PermissionDenied"
>

/** @since 0.1.0 @category errors */
export type OpenError = SpdkErrorOf<
  MetadataReason | "Busy" | "Corrupted" | "InvalidArgument" | "NotFound" | "NotSupported" | "PermissionDenied"
>

/** @since 0.1.0 @category errors */
export type DeleteError = SpdkErrorOf<
  MetadataReason | "Busy" | "Corrupted" | "InvalidArgument" | "NotFound" | "NotSupported" | "PermissionDenied"
>

/** @since 0.1.0 @category errors */
export type SuperBlobError = SpdkErrorOf<MetadataReason | "InvalidArgument" | "NotFound">

/** @since 0.1.0 @category errors */
export type ListError = SpdkErrorOf<MetadataReason | "Corrupted" | "NotSupported">

/** Of snapshot and clone, inflate and decouple. @since 0.1.0 @category errors */
export type CloneError = SpdkErrorOf<
  | MetadataReason
  | "Busy"
  | "Corrupted"
  | "InvalidArgument"
  | "NoSpace"
  | "NotFound"
  | "NotSupported"
  | "PermissionDenied"
  | "ReadOnly"
>

/** Of `setParent` and `setExternalParent`. @since 0.1.0 @category errors */
export type ParentError = SpdkErrorOf<CloneError["reason"]["_tag"] | "AlreadyExists">

/** @since 0.1.0 @category errors */
export type GrowError = SpdkErrorOf<MetadataReason | "Busy" | "NoSpace" | "NotSupported">

/** @since 0.1.0 @category errors */
export type DestroyError = SpdkErrorOf<MetadataReason | "Busy">

/** @since 0.1.0 @category options */
export interface DriverOptions {
  /** "auto" (default): libspdk where the engine is libspdk, otherwise portable. */
  readonly driver?: "auto" | DriverKind | undefined
  /**
   * Writes zeroes to what blobs give back (by a delete, a smaller size, `unmap`), where the device is not known to read as zeroes
   * after an unmap: a file without `fallocate`, an NVMe namespace. Default false.
   *
   * It is about the libspdk driver. There a thin blob or a clone that writes a part of a new cluster reads in the rest whatever the
   * device has there. That is zeroes where unmaps make zeroes (malloc bdevs, files with `fallocate`), and otherwise what an earlier
   * blob has left. With this option it is zeroes as well, as long as every load has the option, and the store was made with it and
   * with `clearMethod: "write_zeroes"`. A delete then takes the time of writing the blob. Three things remain: blobs whose clear
   * method is "none", what was being given back when the process or the power went, and the copy that is given up when two threads
   * write to one cluster of a clone for the first time at once.
   *
   * The portable driver fills the rest of a cluster with zeroes at its first write, with or without this option.
   */
  readonly zeroFreed?: boolean | undefined
}

/** @since 0.1.0 @category options */
export interface InitOptions extends DriverOptions {
  /** The unit that space is given out in: a multiple of 4 KiB below 4 GiB. Default 1 MiB, as SPDK. */
  readonly clusterSize?: number | string | undefined
  /** How many pages of metadata there are, and so at most how many blobs. Default: one per cluster, as SPDK. */
  readonly metadataPages?: number | undefined
  /** A name for what the store is used for, at most 16 bytes of ASCII: loading with another one fails. Default: none. */
  readonly type?: string | undefined
  /** What becomes of the old content of the device. Default "unmap", as SPDK. */
  readonly clearMethod?: Exclude<ClearMethod, "default"> | undefined
}

/** @since 0.1.0 @category options */
export interface LoadOptions extends DriverOptions {
  /** The type the store must have. Default: any. */
  readonly type?: string | undefined
  /** Rebuilds what is free and used from the blobs even after a clean unload. Default false. */
  readonly forceRecover?: boolean | undefined
  /** Takes the space that the device has gained since. Default false. */
  readonly grow?: boolean | undefined
  /** Hears how far loading is, on the JS thread. `total` is known where the driver knows it beforehand. */
  readonly onProgress?: ((progress: LoadProgress) => void) | undefined
}

/** Pages of metadata, or blobs, that were read. @since 0.1.0 @category models */
export interface LoadProgress {
  readonly done: number
  readonly total: number | undefined
}

/**
 * What is of `InitOptions` alone describes a store that is made: one that is there keeps its own cluster size and metadata, whatever
 * they say. What is of `LoadOptions` alone has nothing to do on a store that was just made.
 *
 * @since 0.1.0
 * @category options
 */
export interface LayerOptions extends InitOptions, LoadOptions {
  /**
   * What to do with a device that holds no blobstore: make one, or fail with `Corrupted`. A device that holds a damaged
   * blobstore is never initialised.
   */
  readonly onEmpty: "init" | "fail"
}

/** @since 0.1.0 @category options */
export interface CreateOptions {
  /** In bytes, rounded up to whole clusters. Default 0. Not together with `clusters`. */
  readonly size?: number | string | undefined
  readonly clusters?: number | undefined
  /** Takes a cluster when it is first written, and not before. Default false. */
  readonly thin?: boolean | undefined
  /** What becomes of a cluster that is freed. Default "default": unmap, as SPDK. See `zeroFreed`. */
  readonly clearMethod?: ClearMethod | undefined
  /** Extent pages, which make a sync cheap however large the blob is. Default true. */
  readonly extentTable?: boolean | undefined
  /**
   * The name or UUID of a bdev that the blob reads from where it has no cluster of its own, and zeroes past its end. It must have
   * whole clusters, and blocks that fit in an io unit. Implies `thin`.
   */
  readonly externalSnapshot?: string | undefined
  readonly xattrs?: XattrsInput | undefined
}

/** @since 0.1.0 @category options */
export interface OpenOptions {
  /**
   * What becomes of a cluster that is freed. Default: what the blob was created with. `Busy` when the blob is open with another.
   */
  readonly clearMethod?: ClearMethod | undefined
}

/** @since 0.1.0 @category options */
export interface CloneOptions {
  readonly xattrs?: XattrsInput | undefined
}

/** @since 0.1.0 @category models */
export interface CopyProgress {
  readonly copiedClusters: number
  readonly totalClusters: number
}

/**
 * A loaded blobstore, and the tag under which layers provide one. All of it fails with `Released` once its scope has closed.
 *
 * **Durability.** What makes, deletes or links blobs is durable when it returns. Interruption of a call on metadata waits until
 * the call has ended, one way or the other: half-done metadata is never left behind.
 *
 * **A failed write of metadata** leaves it open whether the call took effect, until the next load. With the libspdk driver it also
 * stops the store, because SPDK drops some of these errors: every later write to a blob, every `sync` and every call that changes
 * the store fails with `IoFailed`, and reads and lists go on. The scope still closes; the store stays marked as in use, and
 * loading it anew recovers what lies on the device. The portable driver writes again what it could not write, at the next call
 * that changes metadata, and stops nothing.
 *
 * @since 0.1.0
 * @category models
 */
export interface Blobstore {
  readonly [BlobstoreTypeId]: typeof BlobstoreTypeId
  readonly driver: DriverKind
  /** The name of the bdev below. */
  readonly bdev: string
  readonly info: Effect.Effect<StoreInfo, InfoError>
  /**
   * Makes a blob and opens it (`spdk_bs_create_blob_ext`, `spdk_bs_open_blob_ext`). The scope closes it; the blob stays. When the
   * blob is made and does not open, it is deleted again.
   *
   * After a failure other than `InvalidArgument` and `NoSpace` the clusters that were meant for the blob may be missing among the
   * free ones until the next load: the portable driver gives them back at once where the device takes the writes, and SPDK never.
   */
  create(options?: CreateOptions): Effect.Effect<Blob, CreateError | OpenError, Scope.Scope>
  /** Makes a blob without opening it. */
  createId(options?: CreateOptions): Effect.Effect<BlobId, CreateError>
  /**
   * Opens a blob (`spdk_bs_open_blob_ext`). Who opens what is open already gets another handle of it. Snapshots open like
   * any blob, and are read-only.
   */
  open(id: BlobId, options?: OpenOptions): Effect.Effect<Blob, OpenError, Scope.Scope>
  /**
   * Deletes a blob and frees its clusters (`spdk_bs_delete_blob`). `Busy` while it is open, or a snapshot with more than one
   * clone; a snapshot with one clone hands its clusters to that, and is `Busy` when that has been resized: inflate it first.
   */
  delete(id: BlobId): Effect.Effect<void, DeleteError>
  /**
   * All blobs in the order of their ids, snapshots included. Of a time: who comes later is not in it. `Corrupted`, naming the first,
   * when there are blobs that cannot be read: others still open, and the portable driver deletes these.
   */
  readonly list: Stream.Stream<BlobId, ListError>
  readonly ids: Effect.Effect<ReadonlyArray<BlobId>, ListError>
  /** The blob that applications find everything else from; undefined when none is set (`spdk_bs_get_super`). */
  readonly superBlob: Effect.Effect<BlobId | undefined, SuperBlobError>
  /** Durable when it returns (`spdk_bs_set_super`). undefined takes it away. */
  setSuperBlob(id: BlobId | undefined): Effect.Effect<void, SuperBlobError>
  /**
   * A read-only blob with the content of this one, which becomes its clone: takes no time and no space until somebody writes
   * (`spdk_bs_create_snapshot`). The blob may be open and written to meanwhile; it is synced first, and writes wait.
   */
  snapshot(id: BlobId, options?: CloneOptions): Effect.Effect<BlobId, CloneError>
  /** A writable thin blob over a snapshot, or over any read-only blob (`spdk_bs_create_clone`). */
  clone(snapshot: BlobId, options?: CloneOptions): Effect.Effect<BlobId, CloneError>
  /** What a blob reads from where it has no cluster of its own. */
  parent(id: BlobId): Effect.Effect<Parent, OpenError>
  /** The blobs that read from this snapshot (`spdk_blob_get_clones`). */
  clones(snapshot: BlobId): Effect.Effect<ReadonlyArray<BlobId>, OpenError>
  /** Gives a thin blob all its clusters, copies what it reads from parents, and cuts it loose (`spdk_bs_inflate_blob`). */
  inflate(id: BlobId): Effect.Effect<void, CloneError>
  /**
   * Copies what the blob reads from its parent, but not what that reads from its own, and makes the parent's parent its
   * parent (`spdk_bs_blob_decouple_parent`). A blob that has become larger than its parent can only be inflated.
   */
  decouple(id: BlobId): Effect.Effect<void, CloneError>
  /** Makes the blob a clone of this snapshot, whose content must be the same (`spdk_bs_blob_set_parent`). */
  setParent(id: BlobId, snapshot: BlobId): Effect.Effect<void, ParentError>
  /** Makes the blob a clone of a bdev, whose content must be the same (`spdk_bs_blob_set_external_parent`). */
  setExternalParent(id: BlobId, bdev: string): Effect.Effect<void, ParentError>
  /**
   * Copies the clusters that are the blob's own to another bdev, at the same offsets, when the stream is run
   * (`spdk_bs_blob_shallow_copy`). The blob must be read-only. Emits how far it is, and ends when all is copied. Who stops
   * reading early waits for the end of the copy.
   */
  shallowCopy(id: BlobId, bdev: string): Stream.Stream<CopyProgress, CloneError>
  /** Takes the space that the device has gained (`spdk_bs_grow_live`). */
  readonly grow: Effect.Effect<void, GrowError>
  /**
   * Erases the super block: nothing can load the device as a blobstore afterwards (`spdk_bs_destroy`). `Busy` while blobs are
   * open or calls are running. After it everything fails with `Released`.
   */
  readonly destroy: Effect.Effect<void, DestroyError>
}

export const Blobstore: Context.Service<Blobstore, Blobstore> = Context.Service("@effect-spdk/blobstore/Blobstore")

/** @since 0.1.0 @category guards */
export const isBlobstore = (u: unknown): u is Blobstore => Predicate.hasProperty(u, BlobstoreTypeId)

type Services = Bdev.Bdev | EngineService

/**
 * Makes a new blobstore on the bdev, whatever is there, and loads it (`spdk_bs_init`). The bdev must be open for writing.
 *
 * The end of the scope closes the blobs that are open, waits for what is running, marks the store clean and flushes
 * (`spdk_bs_unload`). It dies with `TimedOut` when that takes longer than `Bdev.ReleaseTimeout`. Without that end, by a crash or
 * a power cut, the next load recovers the store.
 *
 * @since 0.1.0
 * @category constructors
 */
export const init: (options?: InitOptions) => Effect.Effect<Blobstore, InitError, Services | Scope.Scope> = Effect.fn(
  "Blobstore.init"
)(function* (options?: InitOptions) {
  return yield* initStore(yield* EngineService, yield* Bdev.Bdev, options ?? {})
})

/**
 * Loads the blobstore on the bdev (`spdk_bs_load`); after an unclean stop it finds out again what is used. The end of the
 * scope unloads as with `init`. `Busy` while a store is loaded on the bdev already. Interruption waits for the end of loading.
 *
 * `Corrupted` names the blob and the page of metadata where they are known. Both drivers refuse chains of metadata that lead in a
 * circle, and pages and clusters that the store does not have. The libspdk driver reads the metadata for that before SPDK does, in
 * large reads: SPDK itself would never come back. It also refuses a store with a blob that is its own ancestor; the portable driver
 * opens the other blobs of such a store. A single blob that cannot be read keeps no store from loading.
 *
 * @since 0.1.0
 * @category constructors
 */
export const load: (options?: LoadOptions) => Effect.Effect<Blobstore, LoadError, Services | Scope.Scope> = Effect.fn(
  "Blobstore.load"
)(function* (options?: LoadOptions) {
  return yield* loadStore(yield* EngineService, yield* Bdev.Bdev, options ?? {})
})

/**
 * Loads the blobstore on the bdev or, with `onEmpty: "init"`, makes one on a device that has none. Empty is a device whose first
 * page is neither a super block nor the rest of one; a damaged blobstore fails with `Corrupted`, and stays as it is.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make: (options: LayerOptions) => Effect.Effect<Blobstore, BlobstoreError, Services | Scope.Scope> =
  Effect.fn("Blobstore.make")(function* (options: LayerOptions) {
    return yield* loadOrInitStore(yield* EngineService, yield* Bdev.Bdev, options)
  })

/**
 * Provides the blobstore on the bdev of the context, as `make` has it.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (options: LayerOptions): Layer.Layer<Blobstore, BlobstoreError, Services> =>
  Layer.effect(Blobstore, make(options))

/** `layer` with options that come from Config. @since 0.1.0 @category layers */
export const layerConfig = (
  options: Config.Wrap<LayerOptions>
): Layer.Layer<Blobstore, BlobstoreError | Config.ConfigError, Services> =>
  Layer.unwrap(Effect.map(Config.unwrap(options), layer))

/**
 * `destroy` of the blobstore of the context.
 *
 * @since 0.1.0
 * @category combinators
 */
export const destroy: Effect.Effect<void, DestroyError, Blobstore> = Effect.flatMap(Blobstore, (store) => store.destroy)
