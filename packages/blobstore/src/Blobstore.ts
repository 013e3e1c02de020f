/**
 * SPDK's blobstore: many blobs on one block device. Services create, open, resize, snapshot and clone blobs. The store
 * belongs to a scope. The end of the scope closes every blob and marks the store clean.
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
import type { DriverStoreInfo } from "./internal/driver.ts"
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
 * Which driver runs the store: SPDK's blobstore library (`libspdk`), or this package's TypeScript implementation
 * (`portable`). Both write the same on-disk format, and each loads stores of the other.
 *
 * @since 0.1.0
 * @category models
 */
export type DriverKind = "libspdk" | "portable"

/** The current properties and space of the store. @since 0.1.0 @category models */
export interface StoreInfo extends DriverStoreInfo {
  /**
   * Whether a flush reaches the device. False when the device has a volatile write cache and its NVMe bdev completes
   * flushes without sending them, because `bdev_nvme_set_options` set `enable_flush: false`. Then nothing that is
   * called durable here is certain to survive a power cut. The value is determined when the store is loaded.
   */
  readonly isFlushed: boolean
}

/** The reasons for which a store is not created. @since 0.1.0 @category errors */
export type InitError = SpdkErrorOf<
  MetadataReason | "Busy" | "InvalidArgument" | "NoSpace" | "NotSupported" | "PermissionDenied" | "ReadOnly"
>

/**
 * The reasons for which a store does not load. `Corrupted`: the device holds no blobstore, one of another version, or a
 * damaged one.
 *
 * @since 0.1.0
 * @category errors
 */
export type LoadError = SpdkErrorOf<InitReason | "Corrupted" | "WrongType">
type InitReason = Extract<InitError["reason"]["_tag"], string>

/** The reasons for which a layer does not build. @since 0.1.0 @category errors */
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

/** The error of snapshot, clone, inflate and decouple. @since 0.1.0 @category errors */
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

/** The error of `setParent` and `setExternalParent`. @since 0.1.0 @category errors */
export type ParentError = SpdkErrorOf<CloneError["reason"]["_tag"] | "AlreadyExists">

/** @since 0.1.0 @category errors */
export type GrowError = SpdkErrorOf<MetadataReason | "Busy" | "NoSpace" | "NotSupported">

/** @since 0.1.0 @category errors */
export type DestroyError = SpdkErrorOf<MetadataReason | "Busy">

/** @since 0.1.0 @category options */
export interface DriverOptions {
  /** "auto" (default): libspdk on the libspdk engine, otherwise portable. */
  readonly driver?: "auto" | DriverKind | undefined
  /**
   * Writes zeroes to the clusters that blobs give back by a delete, a smaller size or `unmap`. Applies to devices that
   * are not known to read as zeroes after an unmap: a file without `fallocate`, an NVMe namespace. Default false.
   *
   * The option matters for the libspdk driver. There, the first write to a thin blob or a clone may cover a part of a
   * new cluster. The rest of the cluster keeps the device's content. The rest is zeroes on devices where unmap makes
   * zeroes (malloc bdevs, files with `fallocate`). On other devices the rest is the data of an earlier blob. With this
   * option the rest is zeroes there too. Two conditions apply: the store was created with the option and with
   * `clearMethod: "write_zeroes"`, and every load uses the option. A delete then takes as long as writing the blob.
   *
   * Three cases remain. Blobs with the clear method "none" are not cleared. Clusters that were being given back at a
   * crash or power cut are not cleared. Two threads may write to one cluster of a clone for the first time at once: the
   * discarded copy is not cleared.
   *
   * The portable driver fills the rest of a cluster with zeroes at its first write, with or without this option.
   */
  readonly zeroFreed?: boolean | undefined
}

/** @since 0.1.0 @category options */
export interface InitOptions extends DriverOptions {
  /** The allocation unit of the store, in bytes: a multiple of 4 KiB below 4 GiB. Default 1 MiB, as in SPDK. */
  readonly clusterSize?: number | string | undefined
  /** The number of metadata pages, which limits the number of blobs. Default: one page per cluster, as in SPDK. */
  readonly metadataPages?: number | undefined
  /** The purpose of the store, at most 16 bytes of ASCII. A load with another type fails. Default: none. */
  readonly type?: string | undefined
  /** The treatment of the device's old content. Default "unmap", as in SPDK. */
  readonly clearMethod?: Exclude<ClearMethod, "default"> | undefined
}

/** @since 0.1.0 @category options */
export interface LoadOptions extends DriverOptions {
  /** The type that the store must have. Default: any. */
  readonly type?: string | undefined
  /** Rebuilds the masks of free and used space from the blobs, even after a clean unload. Default false. */
  readonly forceRecover?: boolean | undefined
  /** Adds the space that the device has gained since. Default false. */
  readonly grow?: boolean | undefined
  /** Reports the progress of the load, on the JS thread. `total` is present when the driver knows it in advance. */
  readonly onProgress?: ((progress: LoadProgress) => void) | undefined
}

/** The number of metadata pages, or of blobs, that were read. @since 0.1.0 @category models */
export interface LoadProgress {
  readonly done: number
  readonly total: number | undefined
}

/**
 * `InitOptions` apply only when a new store is created. An existing store keeps its cluster size and metadata size.
 * `LoadOptions` have no effect on a store that was just created.
 *
 * @since 0.1.0
 * @category options
 */
export interface LayerOptions extends InitOptions, LoadOptions {
  /**
   * The action for a device without a blobstore: `init` creates one, `fail` fails with `Corrupted`. A device with a
   * damaged blobstore is never initialised.
   */
  readonly onEmpty: "init" | "fail"
}

/** @since 0.1.0 @category options */
export interface CreateOptions {
  /** In bytes, rounded up to whole clusters. Default 0. Excludes `clusters`. */
  readonly size?: number | string | undefined
  readonly clusters?: number | undefined
  /** Allocates a cluster at its first write. Default false: allocates all clusters at once. */
  readonly thin?: boolean | undefined
  /** The treatment of a cluster that is freed. Default "default": unmap, as in SPDK. See `zeroFreed`. */
  readonly clearMethod?: ClearMethod | undefined
  /** Uses extent pages, which keep a sync cheap for a blob of any size. Default true. */
  readonly extentTable?: boolean | undefined
  /**
   * The name or UUID of a bdev that serves reads where the blob has no cluster of its own. Reads past the end of the
   * bdev return zeroes. The bdev must have whole clusters, and blocks that fit in an io unit. Implies `thin`.
   */
  readonly externalSnapshot?: string | undefined
  readonly xattrs?: XattrsInput | undefined
}

/** @since 0.1.0 @category options */
export interface OpenOptions {
  /**
   * The treatment of a cluster that is freed. Default: the clear method with which the blob was created. Fails with
   * `Busy` when the blob is open with another.
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
 * A loaded blobstore, and the tag under which layers provide one. Every operation fails with `Released` after the scope
 * has closed.
 *
 * **Durability.** A call that creates, deletes or links blobs is durable when it returns. Interruption of a call on
 * metadata waits until the call has ended. Metadata is never left half written.
 *
 * **A failed metadata write** leaves the effect of the call unknown until the next load. With the libspdk driver it
 * also stops the store, because SPDK drops some of these errors. Then every later write to a blob, every `sync` and
 * every call that changes the store fails with `IoFailed`. Reads and lists continue. The scope still closes. The store
 * stays marked as in use, and the next load recovers what is on the device. The portable driver does not stop: it
 * repeats the failed write at the next call that changes metadata.
 *
 * @since 0.1.0
 * @category models
 */
export interface Blobstore {
  readonly [BlobstoreTypeId]: typeof BlobstoreTypeId
  readonly driver: DriverKind
  /** The name of the bdev that holds the store. */
  readonly bdev: string
  readonly info: Effect.Effect<StoreInfo, InfoError>
  /**
   * Creates a blob and opens it (`spdk_bs_create_blob_ext`, `spdk_bs_open_blob_ext`). The end of the scope closes the
   * blob. The blob stays in the store. When the open fails, the new blob is deleted.
   *
   * After a failure other than `InvalidArgument` and `NoSpace`, the clusters of the failed blob may be unavailable
   * until the next load. The portable driver frees them at once when the device accepts the writes. SPDK never does.
   */
  create(options?: CreateOptions): Effect.Effect<Blob, CreateError | OpenError, Scope.Scope>
  /** Creates a blob without opening it. */
  createId(options?: CreateOptions): Effect.Effect<BlobId, CreateError>
  /**
   * Opens a blob (`spdk_bs_open_blob_ext`). Opening a blob that is already open returns another handle to the same
   * blob. A snapshot opens like any blob and is read-only.
   */
  open(id: BlobId, options?: OpenOptions): Effect.Effect<Blob, OpenError, Scope.Scope>
  /**
   * Deletes a blob and frees its clusters (`spdk_bs_delete_blob`). Fails with `Busy` while the blob is open, and for a
   * snapshot with more than one clone. A snapshot with one clone hands its clusters to the clone. This fails with
   * `Busy` when the clone has been resized: inflate the clone first.
   */
  delete(id: BlobId): Effect.Effect<void, DeleteError>
  /**
   * All blobs, snapshots included, in order of their ids. The list is point-in-time: blobs that are created later are
   * not in it. Fails with `Corrupted`, which names the first one, when some blobs are unreadable. Other blobs still
   * open, and the portable driver can delete the unreadable ones.
   */
  readonly list: Stream.Stream<BlobId, ListError>
  readonly ids: Effect.Effect<ReadonlyArray<BlobId>, ListError>
  /** The blob from which applications find all others; `undefined` when none is set (`spdk_bs_get_super`). */
  readonly superBlob: Effect.Effect<BlobId | undefined, SuperBlobError>
  /** Sets the super blob; `undefined` clears it (`spdk_bs_set_super`). Durable when the call returns. */
  setSuperBlob(id: BlobId | undefined): Effect.Effect<void, SuperBlobError>
  /**
   * Creates a read-only blob with the content of this blob, which becomes its clone (`spdk_bs_create_snapshot`). The
   * snapshot takes no time and no space until a later write. The blob may be open and in use. It is synced first, and
   * its writes wait meanwhile.
   */
  snapshot(id: BlobId, options?: CloneOptions): Effect.Effect<BlobId, CloneError>
  /** Creates a writable thin blob on top of a snapshot, or of any read-only blob (`spdk_bs_create_clone`). */
  clone(snapshot: BlobId, options?: CloneOptions): Effect.Effect<BlobId, CloneError>
  /** The source of a blob's reads where the blob has no cluster of its own. */
  parent(id: BlobId): Effect.Effect<Parent, OpenError>
  /** The blobs that read from this snapshot (`spdk_blob_get_clones`). */
  clones(snapshot: BlobId): Effect.Effect<ReadonlyArray<BlobId>, OpenError>
  /**
   * Gives a thin blob all its clusters, copies the content of its parents, and detaches the blob from its parent
   * (`spdk_bs_inflate_blob`).
   */
  inflate(id: BlobId): Effect.Effect<void, CloneError>
  /**
   * Copies the content that the blob reads from its parent's own clusters, but not the content that the parent reads
   * from its own parent. Then the parent's parent becomes the blob's parent (`spdk_bs_blob_decouple_parent`). A blob
   * that has become larger than its parent can only be inflated.
   */
  decouple(id: BlobId): Effect.Effect<void, CloneError>
  /** Makes the blob a clone of this snapshot (`spdk_bs_blob_set_parent`). Both must have the same content. */
  setParent(id: BlobId, snapshot: BlobId): Effect.Effect<void, ParentError>
  /** Makes the blob a clone of a bdev (`spdk_bs_blob_set_external_parent`). Both must have the same content. */
  setExternalParent(id: BlobId, bdev: string): Effect.Effect<void, ParentError>
  /**
   * Copies the blob's own clusters to another bdev, at the same offsets, when the stream runs
   * (`spdk_bs_blob_shallow_copy`). The blob must be read-only. The stream emits the progress and ends when all clusters
   * are copied. A consumer that stops early waits for the end of the copy.
   */
  shallowCopy(id: BlobId, bdev: string): Stream.Stream<CopyProgress, CloneError>
  /** Adds the space that the device has gained (`spdk_bs_grow_live`). */
  readonly grow: Effect.Effect<void, GrowError>
  /**
   * Erases the super block (`spdk_bs_destroy`). The device then holds no blobstore. Fails with `Busy` while blobs are
   * open or calls are in progress. Afterwards every operation fails with `Released`.
   */
  readonly destroy: Effect.Effect<void, DestroyError>
}

export const Blobstore: Context.Service<Blobstore, Blobstore> = Context.Service("@effect-spdk/blobstore/Blobstore")

/** @since 0.1.0 @category guards */
export const isBlobstore = (u: unknown): u is Blobstore => Predicate.hasProperty(u, BlobstoreTypeId)

type Services = Bdev.Bdev | EngineService

/**
 * Creates a new blobstore on the bdev, whatever the bdev holds, and loads it (`spdk_bs_init`). The bdev must be open
 * for writing.
 *
 * The end of the scope closes the open blobs, waits for calls in progress, marks the store clean and flushes
 * (`spdk_bs_unload`). It dies with `TimedOut` when it takes longer than `Bdev.ReleaseTimeout`. After a crash or a power
 * cut, the next load recovers the store.
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
 * Loads the blobstore on the bdev (`spdk_bs_load`). After an unclean stop, the load rebuilds the masks of used space.
 * The end of the scope unloads the store, as with `init`. Fails with `Busy` while a store is loaded on the bdev.
 * Interruption waits for the end of the load.
 *
 * The bdev is claimed while the store is loaded. Opening the bdev for writing, exporting it, and stacking bdevs or other
 * stores on it then fail with `Busy` and "claimed by module blobstore". Read-only handles open, so `Check.check` works
 * beside the store. Handles that were open for writing before the load stay writable: do not write through them. When
 * another module has claimed the bdev before the load, the load fails with `Busy`, which names the module. The claim ends
 * after the unload.
 *
 * `Corrupted` names the blob and the metadata page when they are known. Both drivers refuse metadata chains that form a
 * circle, and pages and clusters outside the store. The libspdk driver reads the metadata for these checks before SPDK
 * does, in large reads, because SPDK would never return. It also refuses a store with a blob that is its own ancestor.
 * The portable driver opens the other blobs of such a store. One unreadable blob does not keep a store from loading.
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
 * Loads the blobstore on the bdev. With `onEmpty: "init"`, creates a blobstore on a device without one. A device counts
 * as empty when its first page is neither a super block nor the rest of one. A damaged blobstore fails with `Corrupted`
 * and is not changed.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make: (options: LayerOptions) => Effect.Effect<Blobstore, BlobstoreError, Services | Scope.Scope> =
  Effect.fn("Blobstore.make")(function* (options: LayerOptions) {
    return yield* loadOrInitStore(yield* EngineService, yield* Bdev.Bdev, options)
  })

/**
 * Provides the blobstore on the bdev in the context, as `make` does.
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
 * `destroy` of the blobstore in the context.
 *
 * @since 0.1.0
 * @category combinators
 */
export const destroy: Effect.Effect<void, DestroyError, Blobstore> = Effect.flatMap(Blobstore, (store) => store.destroy)
