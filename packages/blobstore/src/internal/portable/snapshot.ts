/** Snapshots and clones, in SPDK's steps, so that a load after a crash in between knows which of the two blobs has the clusters. */
import type { IoError } from "@effect-spdk/core/Bdev"
import type { SpdkError } from "@effect-spdk/core/SpdkError"
import * as Effect from "effect/Effect"
import type { BlobId, Xattrs } from "../driver.ts"
import * as L from "../format/layout.ts"
import type { Backing, BlobState, ParentId } from "./blob.ts"
import { createBlob, discard, lose, unmark } from "./create.ts"
import { busy, refused } from "./errors.ts"
import { closeBlob, openBlob } from "./open.ts"
import { persist, settle } from "./persist.ts"
import type { Store } from "./store.ts"

/** Runs `use` with the blob marked, or fails with `whenLocked` where another operation has marked it. */
export const locking = <A, E, E2>(
  blob: BlobState,
  use: Effect.Effect<A, E>,
  whenLocked: () => E2
): Effect.Effect<A, E | E2> =>
  Effect.uninterruptibleMask((restore): Effect.Effect<A, E | E2> => {
    if (blob.locked) return Effect.fail(whenLocked())
    blob.locked = true
    return Effect.onExit(restore(use), () => {
      blob.locked = false
      return Effect.void
    })
  })

/** One operation of several steps at a time on a blob: `use` runs with the blob open and marked. */
export const locked = <A, E>(
  store: Store,
  operation: string,
  id: BlobId,
  use: (blob: BlobState) => Effect.Effect<A, E>
): Effect.Effect<A, E | SpdkError> =>
  Effect.acquireUseRelease(
    store.change(openBlob(store, id)),
    (blob) =>
      locking(
        blob,
        Effect.suspend(() => Effect.andThen(unmarked(store, blob), use(blob))),
        () => busy(operation, store.nameOf(id), "another operation is in progress")
      ),
    // What `use` did is synced; a failure here is of something else that was dirty.
    (blob) => Effect.ignore(store.change(closeBlob(store, blob)))
  )

/** No removal that failed is in the way of the blob, nor of what it lies on. */
const unmarked = (store: Store, blob: BlobState): Effect.Effect<void, IoError> => {
  const below = blob.backing?._tag === "Blob" ? [blob.backing.blob] : []
  const marked = [blob, ...below].filter(({ internalXattrs }) =>
    internalXattrs.has(L.internalXattr.snapshotPendingRemoval)
  )
  return Effect.forEach(marked, (one) => store.change(unmark(store, one)), { discard: true })
}

export const snapshot = (store: Store, id: BlobId, xattrs: Xattrs): Effect.Effect<BlobId, SpdkError> => {
  const operation = "Blobstore.snapshot"
  return locked(store, operation, id, (blob) =>
    blob.dataReadOnly || blob.mdReadOnly
      ? Effect.fail(refused(operation, store.nameOf(id), "id", "names a read-only blob"))
      : blob.gate.exclusive(store.change(makeSnapshot(store, blob, xattrs)))
  )
}

const makeSnapshot = Effect.fnUntraced(function* (store: Store, blob: BlobState, xattrs: Xattrs) {
  yield* settle(store, blob)
  // Extent pages are written for a size that changed, and the snapshot takes them as they are.
  if (blob.persistedClusters !== blob.clusterCount) yield* persist(store, blob)
  const made = yield* createBlob(store, {
    clusters: blob.clusterCount,
    thin: true,
    extentTable: blob.useExtentTable,
    clearMethod: "default",
    xattrs,
    internal: [[L.internalXattr.snapshotInProgress, blob.id]],
    isExternal: false
  })
  yield* Effect.onError(fillSnapshot(store, made, blob), () => {
    swapClusters(made, blob)
    return discard(store, made)
  })
  const before = partsOf(blob)
  yield* Effect.onError(putOnTop(store, made, blob), () => {
    takeBack(store, blob, before)
    swapClusters(made, blob)
    // The device may have the blob on top of the snapshot: first it must not.
    return Effect.matchEffect(settle(store, blob), {
      onSuccess: () => discard(store, made),
      onFailure: () => lose(store, made, settle(store, blob))
    })
  })
  // The blob holds its snapshot open.
  made.openCount = 1
  store.open.set(made.id, made)
  store.addClone(made)
  store.addClone(blob)
  made.removeInternal(L.internalXattr.snapshotInProgress)
  made.dataRoFlags |= L.dataRoFlag.readOnly
  made.dataReadOnly = true
  made.mdReadOnly = true
  made.dirty = true
  // A load takes the mark off as well: where there is no page to write it on, the snapshot is durable as it is.
  yield* Effect.catchIf(
    persist(store, made),
    ({ reason }) => reason._tag === "NoMemory",
    () => Effect.void
  )
  return made.id
})

const swapClusters = (a: BlobState, b: BlobState): void => {
  const { allocatedClusters, clusters, extentPages } = a
  a.clusters = b.clusters
  a.extentPages = b.extentPages
  a.allocatedClusters = b.allocatedClusters
  b.clusters = clusters
  b.extentPages = extentPages
  b.allocatedClusters = allocatedClusters
}

/** The snapshot gets the clusters, the flags and the parent. */
const fillSnapshot = (store: Store, made: BlobState, blob: BlobState): Effect.Effect<void, IoError> =>
  Effect.suspend(() => {
    const { externalSnapshot, snapshot: parentXattr } = L.internalXattr
    made.invalidFlags = blob.invalidFlags | L.invalidFlag.internalXattr
    made.parentId = blob.parentId
    made.backing = blob.backing
    const external = blob.internalXattrs.get(externalSnapshot)
    if (blob.parentId === "external" && external !== undefined) made.setInternal(externalSnapshot, external)
    if (typeof blob.parentId === "number") made.setInternal(parentXattr, blob.parentId)
    swapClusters(made, blob)
    made.setClearMethod(blob.clearMethod)
    return persist(store, made)
  })

interface Parts {
  readonly dirty: boolean
  readonly changes: number
  readonly invalidFlags: number
  readonly internalXattrs: Map<string, Uint8Array>
  readonly parentId: ParentId
  readonly backing: Backing | undefined
}

const partsOf = (blob: BlobState): Parts => ({
  dirty: blob.dirty,
  changes: blob.changes,
  invalidFlags: blob.invalidFlags,
  internalXattrs: new Map(blob.internalXattrs),
  parentId: blob.parentId,
  backing: blob.backing
})

const takeBack = (store: Store, blob: BlobState, before: Parts): void => {
  const { backing, changes, dirty, internalXattrs, invalidFlags, parentId } = before
  Object.assign(blob, { backing, internalXattrs, invalidFlags, parentId })
  blob.dirty = dirty || blob.unsure || blob.changes !== changes
  store.addClone(blob)
}

/** The blob becomes a thin one of no clusters on top of the snapshot. */
const putOnTop = (store: Store, made: BlobState, blob: BlobState): Effect.Effect<void, IoError> =>
  Effect.suspend(() => {
    store.removeClone(blob)
    blob.setInternal(L.internalXattr.snapshot, made.id)
    blob.removeInternal(L.internalXattr.externalSnapshot)
    blob.setFlag(L.invalidFlag.externalSnapshot, false)
    blob.setFlag(L.invalidFlag.thin, true)
    blob.parentId = made.id
    blob.backing = { _tag: "Blob", blob: made }
    return persist(store, blob)
  })

export const clone = (store: Store, id: BlobId, xattrs: Xattrs): Effect.Effect<BlobId, SpdkError> => {
  const operation = "Blobstore.clone"
  return locked(store, operation, id, (blob) => {
    if (!blob.dataReadOnly || !blob.mdReadOnly) {
      return Effect.fail(refused(operation, store.nameOf(id), "snapshot", "names a blob that is not read-only"))
    }
    const create = createBlob(store, {
      clusters: blob.clusterCount,
      thin: true,
      extentTable: blob.useExtentTable,
      clearMethod: "default",
      xattrs,
      internal: [[L.internalXattr.snapshot, id]],
      isExternal: false
    })
    return store.change(
      Effect.map(create, (made) => {
        store.addCloneOf(id, made.id)
        return made.id
      })
    )
  })
}
