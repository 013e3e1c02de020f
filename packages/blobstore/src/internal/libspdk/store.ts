/**
 * A blobstore that SPDK has loaded.
 */
import { type BlobstoreAnswer, type BlobstoreArguments, type BlobstoreCall, numbersOf } from "@effect-spdk/core/Engine"
import type { SpdkError } from "@effect-spdk/core/SpdkError"
import * as Effect from "effect/Effect"
import { blobName } from "../blobName.ts"
import type {
  BlobId,
  DriverCreateOptions,
  OpenBlob,
  Parent,
  Progress,
  StoreDriver,
  DriverStoreInfo,
  Xattrs
} from "../driver.ts"
import { blobClearMethods, flag, xattrPairs } from "./encoding.ts"
import { check, errno, type Meaning } from "./errors.ts"
import { openBlob, parentOf, type OpenBlobContext } from "./openBlob.ts"

const xattrRule: Meaning = { field: "xattrs", rule: "has an empty name or value, or a NUL in a name" }

/** What SPDK cannot read it does not delete. */
const damagedBlob: Meaning = {
  damage: { where: "the metadata of the blob", rule: "is damaged; the portable driver can delete it" }
}

const externalRule = "has a size that is not whole clusters, or blocks that do not fit in an io unit"

export class LibspdkStore implements StoreDriver {
  readonly kind = "libspdk"
  private readonly context: OpenBlobContext
  private readonly bdev: string

  constructor(context: OpenBlobContext) {
    this.context = context
    this.bdev = context.handle.bdev
  }

  get info(): Effect.Effect<DriverStoreInfo, SpdkError> {
    return Effect.map(this.call("info", this.bdev), ({ bytes, text }) => {
      const numbers = numbersOf(bytes)
      const [clusterSizeBytes = 0, totalClusters = 0, freeClusters = 0, ioUnitBytes = 0, pageBytes = 0] = numbers
      return { type: text, clusterSizeBytes, totalClusters, freeClusters, ioUnitBytes, pageBytes }
    })
  }

  readonly create = (options: DriverCreateOptions): Effect.Effect<BlobId, SpdkError> => {
    const { clearMethod, clusters, extentTable, externalSnapshot = "", thin, xattrs } = options
    const meaning =
      externalSnapshot === ""
        ? xattrRule
        : { field: "externalSnapshot", rule: externalRule, detail: `its external snapshot is "${externalSnapshot}"` }
    return this.durable(
      this.callForId("create", this.bdev, meaning, {
        numbers: [clusters, flag(thin), blobClearMethods[clearMethod], flag(extentTable)],
        texts: [externalSnapshot],
        values: xattrPairs(xattrs)
      })
    )
  }

  readonly delete = (id: BlobId): Effect.Effect<void, SpdkError> =>
    this.durable(
      this.callFor("delete", id, {
        ...damagedBlob,
        details: { [errno.EBUSY]: "it is open, is a snapshot with clones, or another operation on it is in progress" }
      })
    )

  readonly open: StoreDriver["open"] = (id, { clearMethod }): Effect.Effect<OpenBlob, SpdkError> =>
    openBlob(this.context, id, clearMethod)

  get ids(): Effect.Effect<ReadonlyArray<BlobId>, SpdkError> {
    return Effect.flatMap(this.context.blobstores.call(this.context.handle, "ids"), (answer) => {
      const ids = Array.from(numbersOf(answer.bytes))
      // A blob that nobody could open would be missing without a word.
      const resource = answer.status === 0 ? this.bdev : blobName(this.bdev, ids[0] ?? 0)
      const isMissing = answer.status === errno.ENOENT
      const status = isMissing ? errno.EINVAL : answer.status
      return Effect.as(check({ ...answer, status }, "Blobstore.ids", resource, damagedBlob), ids)
    })
  }

  get superBlob(): Effect.Effect<BlobId | undefined, SpdkError> {
    return Effect.flatMap(this.context.blobstores.call(this.context.handle, "super"), (answer) =>
      answer.status === errno.ENOENT
        ? Effect.undefined
        : Effect.map(check(answer, "Blobstore.superBlob", this.bdev), ({ bytes }) => numbersOf(bytes)[0])
    )
  }

  readonly setSuperBlob = (id: BlobId | undefined): Effect.Effect<void, SpdkError> =>
    this.durable(
      Effect.asVoid(
        Effect.flatMap(
          this.context.blobstores.call(this.context.handle, "setSuper", { numbers: [id ?? 0] }),
          (answer) => check(answer, "Blobstore.setSuperBlob", this.bdev)
        )
      )
    )

  readonly snapshot = (id: BlobId, xattrs: Xattrs): Effect.Effect<BlobId, SpdkError> =>
    this.durable(
      this.callForId("snapshot", blobName(this.bdev, id), xattrRule, { numbers: [id], values: xattrPairs(xattrs) })
    )

  readonly clone = (snapshot: BlobId, xattrs: Xattrs): Effect.Effect<BlobId, SpdkError> => {
    const meaning = { field: "id", rule: "is not that of a snapshot or of a read-only blob" }
    return this.durable(
      this.callForId("clone", blobName(this.bdev, snapshot), xattrs.size === 0 ? meaning : xattrRule, {
        numbers: [snapshot],
        values: xattrPairs(xattrs)
      })
    )
  }

  readonly clones = (snapshot: BlobId): Effect.Effect<ReadonlyArray<BlobId>, SpdkError> =>
    Effect.flatMap(this.parent(snapshot), () =>
      Effect.map(this.call("clones", blobName(this.bdev, snapshot), {}, { numbers: [snapshot] }), ({ bytes }) =>
        Array.from(numbersOf(bytes))
      )
    )

  readonly parent = (id: BlobId): Effect.Effect<Parent, SpdkError> =>
    Effect.map(this.call("parent", blobName(this.bdev, id), damagedBlob, { numbers: [id] }), ({ bytes, text }) =>
      parentOf(numbersOf(bytes)[0], text)
    )

  readonly inflate = (id: BlobId): Effect.Effect<void, SpdkError> => this.durable(this.callFor("inflate", id))

  readonly decouple = (id: BlobId): Effect.Effect<void, SpdkError> => {
    const call = this.durable(this.callFor("decouple", id, { field: "id", rule: "is that of a blob without a parent" }))
    return Effect.flatMap(this.grandparent(id), (below) => {
      if (below._tag !== "External") return call
      // SPDK copies what the parent has, and then looks for a blob where that has an external snapshot.
      return Effect.catch(call, (error) =>
        error.reason._tag === "NotFound" ? this.setExternalParent(id, below.bdev) : Effect.fail(error)
      )
    })
  }

  readonly setParent = (id: BlobId, snapshot: BlobId): Effect.Effect<void, SpdkError> => {
    const rule = "is not that of a snapshot of the same size, or the blob is not thin"
    return this.durable(this.callFor("setParent", id, { field: "snapshot", rule }, { numbers: [id, snapshot] }))
  }

  readonly setExternalParent = (id: BlobId, bdev: string): Effect.Effect<void, SpdkError> => {
    const rule = `${externalRule}, or the blob is not thin`
    return this.durable(
      this.callFor("setExternalParent", id, { field: "bdev", rule, detail: bdev }, { numbers: [id], texts: [bdev] })
    )
  }

  readonly shallowCopy = (id: BlobId, bdev: string, onProgress: Progress): Effect.Effect<void, SpdkError> => {
    const rule = "is smaller than the blob, or has blocks of another size than the blobstore's bdev"
    const meaning = { field: "bdev", rule, detail: `the copy goes to "${bdev}"` }
    return Effect.asVoid(
      this.call("shallowCopy", blobName(this.bdev, id), meaning, { numbers: [id], texts: [bdev] }, onProgress)
    )
  }

  get grow(): Effect.Effect<void, SpdkError> {
    const details = {
      [errno.ENOSPC]: "the device is smaller than the blobstore, or has more clusters than its metadata has room for"
    }
    return this.durable(Effect.asVoid(this.call("grow", this.bdev, { details })))
  }

  get unload(): Effect.Effect<void, SpdkError> {
    return this.end("unload", "the store is not marked as unloaded, and the next load recovers it")
  }

  get destroy(): Effect.Effect<void, SpdkError> {
    return this.end("destroy", "the super block may still exist")
  }

  /** The answer says how many blobs are open. */
  private end(call: "unload" | "destroy", failed: string): Effect.Effect<void, SpdkError> {
    const { blobstores, handle } = this.context
    const ended = Effect.flatMap(blobstores.call(handle, call), (answer) => {
      const [open = 0] = numbersOf(answer.bytes)
      const isBusy = answer.status === errno.EBUSY && open > 0
      const detail = isBusy ? `${open === 1 ? "1 blob is" : `${open} blobs are`} open` : failed
      return check(answer, `Blobstore.${call}`, this.bdev, { detail })
    })
    return this.durable(Effect.asVoid(ended))
  }

  private grandparent(id: BlobId): Effect.Effect<Parent, SpdkError> {
    return Effect.flatMap(this.parent(id), (parent) =>
      parent._tag === "Snapshot" ? this.parent(parent.id) : Effect.succeed({ _tag: "None" })
    )
  }

  private durable<A>(effect: Effect.Effect<A, SpdkError>): Effect.Effect<A, SpdkError> {
    return Effect.tap(effect, () => this.context.flush)
  }

  private call(
    call: BlobstoreCall,
    resource: string,
    meaning?: Meaning,
    args?: BlobstoreArguments,
    onProgress?: Progress
  ): Effect.Effect<BlobstoreAnswer, SpdkError> {
    const { blobstores, handle } = this.context
    return Effect.flatMap(blobstores.call(handle, call, args, onProgress), (answer) =>
      check(answer, `Blobstore.${call}`, resource, meaning)
    )
  }

  private callFor(
    call: BlobstoreCall,
    id: BlobId,
    meaning?: Meaning,
    args: BlobstoreArguments = { numbers: [id] }
  ): Effect.Effect<void, SpdkError> {
    return Effect.asVoid(this.call(call, blobName(this.bdev, id), meaning, args))
  }

  /** Of calls that make a blob. */
  private callForId(
    call: BlobstoreCall,
    resource: string,
    meaning: Meaning,
    args: BlobstoreArguments
  ): Effect.Effect<BlobId, SpdkError> {
    return Effect.map(this.call(call, resource, meaning, args), ({ bytes }) => numbersOf(bytes)[0] ?? 0)
  }
}
