/** The driver's face of a loaded store. */
import type { SpdkError } from "@effect-spdk/core/SpdkError"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type * as D from "../driver.ts"
import * as L from "../format/layout.ts"
import { encodeText } from "../format/text.ts"
import { type BlobState, parentOf } from "./blob.ts"
import { createUnflushed, remove, settleNew } from "./create.ts"
import { busy, corrupted } from "./errors.ts"
import { grow, writeClean } from "./grow.ts"
import { openBlob, openFitting, withBlob } from "./open.ts"
import { PortableBlob } from "./openBlob.ts"
import { inflate, setExternalParent, setParent, shallowCopy } from "./parents.ts"
import { persist, settleKept } from "./persist.ts"
import { verify } from "./scan.ts"
import { clone, snapshot } from "./snapshot.ts"
import type { Store } from "./store.ts"

export class PortableStore implements D.StoreDriver {
  readonly kind = "portable"
  readonly ids: Effect.Effect<ReadonlyArray<D.BlobId>, SpdkError>
  readonly info: Effect.Effect<D.DriverStoreInfo, SpdkError>
  readonly superBlob: Effect.Effect<D.BlobId | undefined, SpdkError>
  readonly grow: Effect.Effect<void, SpdkError>
  readonly unload: Effect.Effect<void, SpdkError>
  readonly destroy: Effect.Effect<void, SpdkError>
  private readonly store: Store

  constructor(store: Store) {
    this.store = store
    // SPDK opens and closes every blob on the way, and closing syncs what others have changed.
    this.ids = store.change(
      Effect.suspend(() =>
        Effect.forEach(openInOrder(store), (blob) => persist(store, blob), { discard: true }).pipe(
          Effect.andThen(settleKept(store)),
          Effect.andThen(store.isVerified ? Effect.void : verify(store)),
          Effect.andThen(Effect.suspend(() => refuseUnreadable(store))),
          Effect.andThen(Effect.sync(() => idsOf(store)))
        )
      )
    )
    this.info = Effect.sync(() => store.info())
    this.superBlob = Effect.sync(() => store.superBlock.superBlob)
    this.grow = store.change(grow(store))
    this.unload = this.end("Blobstore.unload", writeClean(store))
    this.destroy = this.end("Blobstore.destroy", Effect.andThen(store.device.zero(0, L.pageBytes), store.device.flush))
  }

  readonly create = (options: D.DriverCreateOptions): Effect.Effect<D.BlobId, SpdkError> =>
    Effect.suspend(() => {
      const { externalSnapshot } = options
      const made = createUnflushed(this.store, {
        ...options,
        isExternal: externalSnapshot !== undefined,
        internal:
          externalSnapshot === undefined ? [] : [[L.internalXattr.externalSnapshot, encodeText(externalSnapshot)]]
      })
      return Effect.uninterruptibleMask((restore) =>
        restore(Effect.andThen(this.fits(externalSnapshot), this.store.change(made))).pipe(
          Effect.flatMap((blob) => Effect.as(settleNew(this.store, blob), blob.id))
        )
      )
    })

  readonly delete = (id: D.BlobId): Effect.Effect<void, SpdkError> => remove(this.store, id)

  readonly open = (
    id: D.BlobId,
    options: { readonly clearMethod: D.ClearMethod }
  ): Effect.Effect<D.OpenBlob, SpdkError> =>
    // Who opens it wants to read it.
    Effect.map(
      this.store.change(openBlob(this.store, id, { ...options, needsExternal: true })),
      (blob) => new PortableBlob(this.store, blob)
    )

  readonly setSuperBlob = (id: D.BlobId | undefined): Effect.Effect<void, SpdkError> =>
    this.store.change(this.store.writeSuper({ superBlob: id }))

  readonly snapshot = (id: D.BlobId, xattrs: D.Xattrs): Effect.Effect<D.BlobId, SpdkError> =>
    snapshot(this.store, id, xattrs)

  readonly clone = (id: D.BlobId, xattrs: D.Xattrs): Effect.Effect<D.BlobId, SpdkError> => clone(this.store, id, xattrs)

  readonly clones = (id: D.BlobId): Effect.Effect<ReadonlyArray<D.BlobId>, SpdkError> =>
    this.store.change(
      withBlob(this.store, id, () => Effect.sync(() => [...(this.store.clones.get(id) ?? [])]), { backing: false })
    )

  readonly parent = (id: D.BlobId): Effect.Effect<D.Parent, SpdkError> =>
    this.store.change(
      withBlob(this.store, id, (blob) => Effect.sync(() => parentOf(blob.parentId, blob.internalXattrs)), {
        backing: false
      })
    )

  readonly inflate = (id: D.BlobId): Effect.Effect<void, SpdkError> => inflate(this.store, id, true)
  readonly decouple = (id: D.BlobId): Effect.Effect<void, SpdkError> => inflate(this.store, id, false)

  readonly setParent = (id: D.BlobId, parent: D.BlobId): Effect.Effect<void, SpdkError> =>
    Effect.suspend(() => setParent(this.store, id, parent))

  readonly setExternalParent = (id: D.BlobId, bdev: string): Effect.Effect<void, SpdkError> =>
    Effect.suspend(() => setExternalParent(this.store, id, bdev))

  readonly shallowCopy = (id: D.BlobId, bdev: string, onProgress: D.Progress): Effect.Effect<void, SpdkError> =>
    shallowCopy(this.store, id, bdev, onProgress)

  private fits(external: string | undefined): Effect.Effect<unknown, SpdkError> {
    const { bdev } = this.store.device
    return external === undefined
      ? Effect.void
      : Effect.scoped(openFitting(this.store, "Blobstore.create", bdev.name, "externalSnapshot", external))
  }

  /** Whatever becomes of the writes, the memory is given back. */
  private end(operation: string, write: Effect.Effect<void, SpdkError>): Effect.Effect<void, SpdkError> {
    const { store } = this
    return store.change(
      Effect.suspend(() => {
        const [open] = store.open.keys()
        return open === undefined
          ? Effect.ensuring(Effect.andThen(lastTry(store), write), Scope.close(store.scope, Exit.void))
          : Effect.fail(busy(operation, store.nameOf(open), "blobs are open"))
      })
    )
  }
}

/** Who closed these was told. What still cannot be written is left to the recovery of the next load. */
const lastTry = (store: Store): Effect.Effect<void> =>
  Effect.catch(Effect.andThen(store.execute, settleKept(store)), () => Effect.sync(() => store.fail()))

const openInOrder = (store: Store): ReadonlyArray<BlobState> => [...store.open.values()].toSorted((a, b) => a.id - b.id)

/** Blobs that nobody could open would be missing without a word. */
const refuseUnreadable = (store: Store): Effect.Effect<void, SpdkError> => {
  const [first] = [...store.unreadable].toSorted(([a], [b]) => a - b)
  if (first === undefined) return Effect.void
  const [page, { rule, where }] = first
  return Effect.fail(corrupted("Blobstore.ids", store.nameOf(L.blobIdOfPage(page)), { where, rule }))
}

const idsOf = (store: Store): ReadonlyArray<D.BlobId> => {
  const ids: Array<D.BlobId> = []
  const { usedBlobIds } = store
  for (let page = usedBlobIds.firstSet(0); page >= 0; page = usedBlobIds.firstSet(page + 1)) {
    ids.push(L.blobIdOfPage(page))
  }
  return ids
}
