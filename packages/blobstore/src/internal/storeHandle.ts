/** The service of a loaded blobstore. */
import { type Bdev, open as openBdev } from "@effect-spdk/core/Bdev"
import { type Engine, EngineService, withinLimit } from "@effect-spdk/core/Engine"
import { failInvalid, type SpdkError } from "@effect-spdk/core/SpdkError"
import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Semaphore from "effect/Semaphore"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { Blob } from "../Blob.ts"
import type * as Public from "../Blobstore.ts"
import { blobName } from "./blobName.ts"
import { BlobImpl, type StoreContext } from "./blobHandle.ts"
import { BufferPool } from "./bufferPool.ts"
import { claimedBelow } from "./claims.ts"
import type { BlobId, ClearMethod, Parent, StoreDriver } from "./driver.ts"
import { adopt, failBusy, fitsItsParent, isRelated, removing } from "./guards.ts"
import { OpenBlobs } from "./openBlobs.ts"
import { checkBdevName, checkClearMethod, checkCreate, checkId } from "./options.ts"
import { metadataReasons, only, onlyLooks, type Place, releasedStore } from "./reasons.ts"
import { xattrsOf } from "./xattrs.ts"

export const BlobstoreTypeId = "~@effect-spdk/blobstore/Blobstore"

const openReasons = [
  ...metadataReasons,
  "Busy",
  "Corrupted",
  "InvalidArgument",
  "NotFound",
  "NotSupported",
  "PermissionDenied"
] as const

const createReasons = [
  ...metadataReasons,
  "Busy",
  "InvalidArgument",
  "NoSpace",
  "NotFound",
  "NotSupported",
  "PermissionDenied"
] as const

const cloneReasons = [...openReasons, "NoSpace", "ReadOnly"] as const
const parentReasons = [...cloneReasons, "AlreadyExists"] as const

export class BlobstoreImpl implements Public.Blobstore {
  readonly [BlobstoreTypeId] = BlobstoreTypeId
  readonly bdev: string
  private readonly engine: Engine
  private readonly letGo: Effect.Effect<void>
  private readonly below: Bdev
  private readonly native: StoreDriver
  private readonly blobs: OpenBlobs
  private readonly context: StoreContext
  private readonly isFlushed: boolean
  /**
   * What changes who is whose parent takes turns. SPDK crashes when, for one, a snapshot is deleted while its clone is inflated,
   * and two blobs that are given parents at once could become each other's.
   */
  private readonly lineage = Semaphore.makeUnsafe(1)
  /** Calls of the driver that are running. */
  private running = 0
  private onIdle: (() => void) | undefined
  private closed = false

  /** `letGo` of the bdev: called once nothing of the store is on it any more. */
  constructor(
    engine: Engine,
    bdev: Bdev,
    native: StoreDriver,
    { clusterSizeBytes, ioUnitBytes, isFlushed }: Public.StoreInfo,
    buffers: Scope.Scope,
    letGo: Effect.Effect<void>
  ) {
    this.letGo = letGo
    this.bdev = bdev.name
    this.engine = engine
    this.below = bdev
    this.native = native
    this.isFlushed = isFlushed
    this.blobs = new OpenBlobs(native)
    this.context = {
      ioUnitBytes,
      clusterBytes: clusterSizeBytes,
      pool: new BufferPool(engine, buffers, {
        ioUnitBytes,
        alignmentBytes: bdev.info.bufferAlignmentBytes,
        deviceBytes: bdev.sizeBytes
      }),
      run: (operation, call) => this.run(operation, call)
    }
  }

  get driver(): Public.DriverKind {
    return this.native.kind
  }

  get info(): Effect.Effect<Public.StoreInfo, Public.InfoError> {
    return Effect.suspend(() =>
      this.closed
        ? Effect.fail(releasedStore("Blobstore.info", this.bdev))
        : Effect.map(onlyLooks(this.native.info), (info) => ({ ...info, isFlushed: this.isFlushed }))
    )
  }

  create(options?: Public.CreateOptions): Effect.Effect<Blob, Public.CreateError | Public.OpenError, Scope.Scope> {
    return Effect.uninterruptible(
      Effect.flatMap(this.createId(options), (id) =>
        // What nobody has a handle of would be lost.
        Effect.onError(this.open(id), () => Effect.ignore(this.delete(id)))
      )
    )
  }

  createId(options?: Public.CreateOptions): Effect.Effect<BlobId, Public.CreateError> {
    const place = this.place("Blobstore.create")
    return checkCreate(place, options ?? {}, this.context.clusterBytes).pipe(
      Effect.tap(({ externalSnapshot }) =>
        externalSnapshot === undefined
          ? Effect.void
          : Effect.andThen(this.exists(externalSnapshot), this.isNoStore(place, "externalSnapshot", externalSnapshot))
      ),
      Effect.flatMap((checked) => this.run(place.operation, this.native.create(checked))),
      only(place, createReasons)
    )
  }

  open(id: BlobId, options?: Public.OpenOptions): Effect.Effect<Blob, Public.OpenError, Scope.Scope> {
    const place = this.place("Blobstore.open", id)
    const clearMethod = options?.clearMethod
    return checkId(place, id).pipe(
      Effect.andThen(checkClearMethod(place, clearMethod)),
      Effect.andThen(Effect.acquireRelease(this.acquire(place, id, clearMethod), (opened) => opened.release)),
      Effect.map((opened) => opened.handle),
      only(place, openReasons)
    )
  }

  delete(id: BlobId): Effect.Effect<void, Public.DeleteError> {
    const place = this.place("Blobstore.delete", id)
    const call = this.blobs.exclusively(
      id,
      Effect.suspend(() => (this.blobs.isOpen(id) ? this.openStill(place) : this.native.delete(id)))
    )
    const related = this.lineage.withPermit(removing(this.native, this.blobs, place, id, call))
    // What is nobody's parent or clone waits for nobody.
    const remove = Effect.flatMap(isRelated(this.native, id), (is) => (is ? related : call))
    return this.onBlob(place, id, remove).pipe(only(place, openReasons))
  }

  get list(): Stream.Stream<BlobId, Public.ListError> {
    return Stream.unwrap(Effect.map(this.ids, Stream.fromIterable))
  }

  get ids(): Effect.Effect<ReadonlyArray<BlobId>, Public.ListError> {
    const place = this.place("Blobstore.ids")
    return this.run(place.operation, this.native.ids).pipe(
      only(place, [...metadataReasons, "Corrupted", "NotSupported"])
    )
  }

  get superBlob(): Effect.Effect<BlobId | undefined, Public.SuperBlobError> {
    const place = this.place("Blobstore.superBlob")
    return this.run(place.operation, this.native.superBlob).pipe(
      only(place, [...metadataReasons, "InvalidArgument", "NotFound"])
    )
  }

  setSuperBlob(id: BlobId | undefined): Effect.Effect<void, Public.SuperBlobError> {
    const place = this.place("Blobstore.setSuperBlob")
    return (id === undefined ? Effect.void : Effect.asVoid(checkId(place, id))).pipe(
      Effect.andThen(this.run(place.operation, this.native.setSuperBlob(id))),
      only(place, [...metadataReasons, "InvalidArgument", "NotFound"])
    )
  }

  snapshot(id: BlobId, options?: Public.CloneOptions): Effect.Effect<BlobId, Public.CloneError> {
    const place = this.place("Blobstore.snapshot", id)
    return this.withXattrs(place, options, (xattrs) =>
      this.onBlob(
        place,
        id,
        this.inLineage(id, Effect.andThen(this.blobs.syncIfOpen(id), this.native.snapshot(id, xattrs)))
      )
    )
  }

  clone(snapshot: BlobId, options?: Public.CloneOptions): Effect.Effect<BlobId, Public.CloneError> {
    const place = this.place("Blobstore.clone", snapshot)
    return this.withXattrs(place, options, (xattrs) =>
      this.onBlob(place, snapshot, this.inLineage(snapshot, this.native.clone(snapshot, xattrs)))
    )
  }

  parent(id: BlobId): Effect.Effect<Parent, Public.OpenError> {
    const place = this.place("Blobstore.parent", id)
    return this.onBlob(place, id, this.native.parent(id)).pipe(only(place, openReasons))
  }

  clones(snapshot: BlobId): Effect.Effect<ReadonlyArray<BlobId>, Public.OpenError> {
    const place = this.place("Blobstore.clones", snapshot)
    return this.onBlob(place, snapshot, this.native.clones(snapshot)).pipe(only(place, openReasons))
  }

  inflate(id: BlobId): Effect.Effect<void, Public.CloneError> {
    const place = this.place("Blobstore.inflate", id)
    return this.onBlob(place, id, this.inLineage(id, this.native.inflate(id))).pipe(only(place, cloneReasons))
  }

  decouple(id: BlobId): Effect.Effect<void, Public.CloneError> {
    const place = this.place("Blobstore.decouple", id)
    const call = this.inLineage(
      id,
      Effect.andThen(fitsItsParent(this.native, this.blobs, place, id), this.native.decouple(id))
    )
    return this.onBlob(place, id, call).pipe(only(place, cloneReasons))
  }

  setParent(id: BlobId, snapshot: BlobId): Effect.Effect<void, Public.ParentError> {
    const place = this.place("Blobstore.setParent", id)
    const isItself = failInvalid(place.operation, "snapshot", "is the blob itself", snapshot, place.resource)
    return checkId(place, snapshot, "snapshot").pipe(
      Effect.andThen(id === snapshot ? isItself : Effect.void),
      Effect.andThen(this.onBlob(place, id, this.inLineage(id, adopt(this.native, place, id, snapshot)))),
      only(place, parentReasons)
    )
  }

  setExternalParent(id: BlobId, bdev: string): Effect.Effect<void, Public.ParentError> {
    const place = this.place("Blobstore.setExternalParent", id)
    return checkBdevName(place, "bdev", bdev).pipe(
      Effect.andThen(this.isNoStore(place, "bdev", bdev)),
      Effect.andThen(this.onBlob(place, id, this.inLineage(id, this.native.setExternalParent(id, bdev)))),
      only(place, parentReasons)
    )
  }

  shallowCopy(id: BlobId, bdev: string): Stream.Stream<Public.CopyProgress, Public.CloneError> {
    const place = this.place("Blobstore.shallowCopy", id)
    return Stream.callback<Public.CopyProgress, Public.CloneError>(
      (queue) => Effect.flatMap(Effect.exit(this.copy(place, id, bdev, queue)), (exit) => end(queue, exit)),
      { bufferSize: 64, strategy: "sliding" }
    )
  }

  get grow(): Effect.Effect<void, Public.GrowError> {
    const place = this.place("Blobstore.grow")
    return this.run(place.operation, this.native.grow).pipe(
      only(place, [...metadataReasons, "Busy", "NoSpace", "NotSupported"])
    )
  }

  get destroy(): Effect.Effect<void, Public.DestroyError> {
    const place = this.place("Blobstore.destroy")
    return Effect.suspend(() => {
      if (this.closed) return Effect.fail(releasedStore(place.operation, this.bdev))
      if (this.blobs.count > 0 || this.running > 0) return this.openStill(place)
      this.closed = true
      return Effect.onExit(this.native.destroy, (exit) =>
        Exit.isSuccess(exit)
          ? this.letGo
          : Effect.sync(() => {
              this.closed = false
            })
      )
    }).pipe(Effect.uninterruptible, only(place, [...metadataReasons, "Busy"]))
  }

  /** Waits for the calls that are running, closes the blobs and unloads. */
  readonly close: Effect.Effect<void> = Effect.suspend(() => {
    if (this.closed) return Effect.void
    this.closed = true
    return this.awaitIdle.pipe(
      Effect.andThen(Effect.exit(this.blobs.closeAll)),
      Effect.flatMap((blobs) =>
        Effect.flatMap(Effect.exit(this.native.unload), (store) => (Exit.isFailure(blobs) ? blobs : store))
      ),
      (release) => this.unlessRemoved(release)
    )
  })

  toJSON(): unknown {
    return { _id: "Blobstore", bdev: this.bdev, driver: this.driver, isReleased: this.closed }
  }

  private readonly awaitIdle: Effect.Effect<void> = Effect.suspend(() =>
    this.running === 0
      ? Effect.void
      : Effect.callback<void>((resume) => {
          this.onIdle = () => resume(Effect.void)
        })
  )

  private place(operation: string, id?: BlobId): Place {
    return { operation, resource: id === undefined ? this.bdev : blobName(this.bdev, id) }
  }

  /** Counts the call, and lets it finish when its fiber is interrupted: the metadata in memory and on the device are one. */
  private run<A, E>(operation: string, call: Effect.Effect<A, E>): Effect.Effect<A, E | Public.ReleasedError> {
    return Effect.suspend((): Effect.Effect<A, E | Public.ReleasedError> => {
      if (this.closed) return Effect.fail(releasedStore(operation, this.bdev))
      this.running++
      return Effect.ensuring(
        call,
        Effect.sync(() => {
          if (--this.running === 0 && this.onIdle !== undefined) this.onIdle()
        })
      )
    }).pipe(Effect.uninterruptible)
  }

  private onBlob<A>(place: Place, id: BlobId, call: Effect.Effect<A, SpdkError>): Effect.Effect<A, SpdkError> {
    return Effect.andThen(checkId(place, id), this.run(place.operation, call))
  }

  private withXattrs(
    place: Place,
    options: Public.CloneOptions | undefined,
    use: (xattrs: ReadonlyMap<string, Uint8Array>) => Effect.Effect<BlobId, SpdkError>
  ): Effect.Effect<BlobId, Public.CloneError> {
    return Effect.suspend(() => Effect.fromResult(xattrsOf(options?.xattrs, place.operation, place.resource))).pipe(
      Effect.flatMap(use),
      only(place, cloneReasons)
    )
  }

  /** SPDK makes a blob over a bdev that is not there, which then cannot be opened. */
  private exists(bdev: string): Effect.Effect<void, SpdkError> {
    return Effect.scoped(Effect.asVoid(openBdev(bdev))).pipe(Effect.provideService(EngineService, this.engine))
  }

  private acquire(place: Place, id: BlobId, clearMethod: ClearMethod | undefined) {
    return Effect.suspend(() => {
      let handle: BlobImpl | undefined
      const detach = () => handle?.detach()
      return Effect.map(
        this.run(place.operation, this.blobs.acquire(id, clearMethod, detach, place.resource)),
        (shared) => {
          const opened = new BlobImpl(shared, this.context, place.resource)
          handle = opened
          const release = Effect.suspend(() => {
            detach()
            return this.unlessRemoved(this.blobs.release(id, shared, detach))
          })
          return { handle: opened, release: withinLimit("Blob.close", place.resource, release) }
        }
      )
    })
  }

  private copy(
    place: Place,
    id: BlobId,
    bdev: string,
    queue: Queue.Queue<Public.CopyProgress, Public.CloneError | Cause.Done>
  ): Effect.Effect<void, Public.CloneError> {
    const copy = Effect.scoped(
      Effect.flatMap(this.open(id), (blob) =>
        Effect.flatMap(blob.info, ({ allocatedClusters: totalClusters }) => {
          let told = -1
          const tell = (copiedClusters: number) => {
            if (copiedClusters === told) return
            told = copiedClusters
            Queue.offerUnsafe(queue, { copiedClusters, totalClusters })
          }
          // A driver may leave out steps, the last one among them.
          return Effect.andThen(
            this.native.shallowCopy(id, bdev, tell),
            Effect.sync(() => tell(totalClusters))
          )
        })
      )
    )
    return checkBdevName(place, "bdev", bdev).pipe(
      Effect.andThen(this.isNoStore(place, "bdev", bdev)),
      Effect.andThen(this.onBlob(place, id, copy)),
      Effect.catch((error) => this.orClaimed(error, place, bdev)),
      only(place, cloneReasons)
    )
  }

  /** SPDK has one errno for a blob that is not read-only, and for a target that somebody has claimed. */
  private orClaimed(error: SpdkError, place: Place, target: string): Effect.Effect<never, SpdkError> {
    const { claimOf } = this.engine.rpc
    if (error.reason._tag !== "PermissionDenied" || claimOf === undefined) return Effect.fail(error)
    return Effect.flatMap(claimOf(target), (by) =>
      by === undefined ? Effect.fail(error) : failBusy(place, `"${target}" is ${by}`)
    )
  }

  /** What is copied to the device of a loaded store overwrites that store, and what reads from it finds metadata, and content that moves. */
  private isNoStore(place: Place, field: string, name: string): Effect.Effect<void, SpdkError> {
    return Effect.flatMap(claimedBelow(this.engine, name), (claimed) =>
      claimed === undefined
        ? Effect.void
        : failInvalid(place.operation, field, `is or lies on ${claimed}, on which a blobstore is loaded`, name)
    )
  }

  /** A device that is gone has nothing left to close; everything else that a release cannot do is said loudly. */
  private unlessRemoved(release: Effect.Effect<void, SpdkError>): Effect.Effect<void> {
    return Effect.catch(release, (error) =>
      this.below.isRemoved || error.reason._tag === "DeviceRemoved" ? Effect.void : Effect.die(error)
    )
  }

  private inLineage<A>(id: BlobId, call: Effect.Effect<A, SpdkError>): Effect.Effect<A, SpdkError> {
    return this.lineage.withPermit(this.blobs.whileSized(id, call))
  }

  private openStill(place: Place): Effect.Effect<never, SpdkError> {
    const detail = place.resource === this.bdev ? "blobs are open, or calls are running" : "the blob is open"
    return failBusy(place, detail)
  }
}

const end = <A, E>(queue: Queue.Queue<A, E | Cause.Done>, exit: Exit.Exit<void, E>): Effect.Effect<unknown> =>
  Exit.isSuccess(exit) ? Queue.end(queue) : Queue.failCause(queue, exit.cause)
