/** Making and removing blobs. Under the store's lock, but for `remove`, which takes it. */
import type { IoError } from "@effect-spdk/core/Bdev"
import type { SpdkError } from "@effect-spdk/core/SpdkError"
import * as Effect from "effect/Effect"
import type { BlobId, ClearMethod, Xattrs } from "../driver.ts"
import * as L from "../format/layout.ts"
import { encodeText } from "../format/text.ts"
import { BlobState } from "./blob.ts"
import { busy, noMemory, noSpace, notFound, refused } from "./errors.ts"
import { closeBlob, openBlob, pageOf } from "./open.ts"
import { erase, flushLater, persist, persistUnflushed, resize, settle, writeExtentPage } from "./persist.ts"
import { disown } from "./recover.ts"
import type { Store } from "./store.ts"

interface NewBlob {
  readonly clusters: number
  readonly thin: boolean
  readonly extentTable: boolean
  readonly clearMethod: ClearMethod
  readonly xattrs: Xattrs
  readonly internal: ReadonlyArray<readonly [name: string, value: Uint8Array | BlobId]>
  readonly isExternal: boolean
}

/** SPDK's ENOMEM: a descriptor has to fit into one page. */
export const xattrTooLong = (operation: string, name: string, value: Uint8Array): IoError | undefined =>
  encodeText(name).length + value.length > L.maxXattrBytes
    ? noMemory(operation, `xattr "${name}" does not fit into a metadata page`)
    : undefined

/** Makes a blob, durably, in memory too. */
export const createBlob = (store: Store, options: NewBlob): Effect.Effect<BlobState, IoError> =>
  createWith(store, options, persist)

/** The same, and it is durable once `settleNew` has ended, which takes no lock. */
export const createUnflushed = (store: Store, options: NewBlob): Effect.Effect<BlobState, IoError> =>
  createWith(store, options, persistUnflushed)

export const settleNew = (store: Store, blob: BlobState): Effect.Effect<void, IoError> =>
  Effect.onError(flushLater(store, blob), () => Effect.sync(() => void store.usedBlobIds.delete(blob.rootPage)))

const createWith: (
  store: Store,
  options: NewBlob,
  write: (store: Store, blob: BlobState) => Effect.Effect<unknown, IoError>
) => Effect.Effect<BlobState, IoError> = Effect.fnUntraced(function* (
  store: Store,
  options: NewBlob,
  write: (store: Store, blob: BlobState) => Effect.Effect<unknown, IoError>
) {
  const operation = "Blobstore.create"
  const page = store.usedPages.firstClear()
  if (page < 0) return yield* Effect.fail(noMemory(operation, "no metadata page is free"))
  const id = L.blobIdOfPage(page)
  const blob = new BlobState(id, store.nameOf(id))
  for (const [name, value] of options.xattrs) {
    const tooLong = xattrTooLong(operation, name, value)
    if (tooLong !== undefined) return yield* Effect.fail(tooLong)
    if (value.length === 0) {
      return yield* Effect.fail(refused(operation, blob.name, "xattrs", `has no value for "${name}"`))
    }
    blob.xattrs.set(name, value.slice())
  }
  store.usedPages.add(page)
  blob.useExtentTable = options.extentTable
  blob.setFlag(L.invalidFlag.extentTable, options.extentTable)
  for (const [name, value] of options.internal) blob.setInternal(name, value)
  if (options.thin || options.isExternal) blob.setFlag(L.invalidFlag.thin, true)
  if (options.isExternal) blob.setFlag(L.invalidFlag.externalSnapshot, true)
  blob.setClearMethod(options.clearMethod)
  if (resize(store, blob, options.clusters) !== undefined) {
    store.usedPages.delete(page)
    return yield* Effect.fail(noSpace(operation, `${options.clusters} clusters are more than are free`))
  }
  yield* Effect.onError(write(store, blob), () => Effect.sync(() => forget(store, blob)))
  store.usedBlobIds.add(page)
  return blob
})

/** After a failed write the device may have the blob; what it has is claimed until a recovery has looked. */
const forget = (store: Store, blob: BlobState): void => {
  if (store.suspect) return
  store.releasePages([blob.rootPage, ...[...blob.extentPages].filter((page) => page !== 0)])
  for (const cluster of blob.clusters) if (cluster !== 0) store.usedClusters.delete(cluster)
}

/** SPDK's rules: not while it is open, nor a snapshot with more than one clone; one clone gets what the snapshot has. */
export const remove = (store: Store, id: BlobId): Effect.Effect<void, SpdkError> =>
  Effect.suspend(() => {
    if (pageOf(store, id) === undefined) return Effect.fail(notFound("Blobstore.delete", store.nameOf(id)))
    const clones = store.clones.get(id) ?? []
    const [clone] = clones
    if (clones.length > 1)
      return Effect.fail(busy("Blobstore.delete", store.nameOf(id), `it has ${clones.length} clones`))
    if (clone === undefined) return store.change(removeAlone(store, id))
    // Its gate before the lock.
    return Effect.acquireUseRelease(
      store.change(openBlob(store, clone)),
      (opened) => opened.gate.exclusive(store.change(removeBelow(store, id, opened))),
      (opened) => Effect.ignore(store.change(closeBlob(store, opened)))
    )
  })

const removeAlone = Effect.fnUntraced(function* (store: Store, id: BlobId) {
  if (store.open.has(id)) return yield* Effect.fail(busy("Blobstore.delete", store.nameOf(id), "it is open"))
  if ((store.clones.get(id) ?? []).length > 0)
    return yield* Effect.fail(busy("Blobstore.delete", store.nameOf(id), "it has a clone"))
  const blob = yield* openBlob(store, id, { backing: false })
  store.open.delete(id)
  store.removeClone(blob)
  store.clones.delete(id)
  yield* erase(store, blob)
})

/** The clone holds the snapshot open, and nobody else may. */
const removeBelow = Effect.fnUntraced(function* (store: Store, id: BlobId, clone: BlobState) {
  const operation = "Blobstore.delete"
  const snapshot = store.open.get(id)
  const clones = store.clones.get(id) ?? []
  if (snapshot === undefined || clone.parentId !== id || clones.length !== 1) {
    return yield* Effect.fail(busy(operation, store.nameOf(id), "its clones are changing"))
  }
  const under = snapshot.backing
  // It is to lie under the clone from now on.
  if (under?._tag === "Missing") {
    return yield* Effect.fail(
      notFound(operation, store.nameOf(id), `the bdev ${under.name}, its external snapshot, is missing`)
    )
  }
  if (snapshot.openCount > 1) return yield* Effect.fail(busy(operation, store.nameOf(id), "it is open"))
  if (snapshot.locked || clone.locked)
    return yield* Effect.fail(busy(operation, store.nameOf(id), "another operation is under way"))
  yield* settle(store, clone)
  snapshot.setInternal(L.internalXattr.snapshotPendingRemoval, clone.id)
  yield* persist(store, snapshot)
  const before = cloneParts(clone)
  yield* takeOver(store, snapshot, clone).pipe(Effect.onError(() => Effect.sync(() => restore(clone, before))))
  relink(store, snapshot, clone)
  disown(snapshot, clone)
  store.open.delete(id)
  yield* erase(store, snapshot)
})

const cloneParts = (clone: BlobState) => ({
  clusters: clone.clusters.slice(),
  extentPages: clone.extentPages.slice(),
  invalidFlags: clone.invalidFlags,
  internalXattrs: new Map(clone.internalXattrs)
})

const restore = (clone: BlobState, before: ReturnType<typeof cloneParts>): void => {
  Object.assign(clone, before)
  clone.countAllocated()
  clone.dirty = true
  clone.unsure = true
}

/** The clone gets the clusters it has none of its own for, and the snapshot's parent. */
const takeOver = Effect.fnUntraced(function* (store: Store, snapshot: BlobState, clone: BlobState) {
  for (let i = 0; i < Math.min(snapshot.clusterCount, clone.clusterCount); i++) {
    if (clone.clusters[i] === 0) clone.clusters[i] = snapshot.clusters[i] ?? 0
  }
  clone.countAllocated()
  const later: Array<number> = []
  for (let i = 0; i < Math.min(snapshot.extentPageCount, clone.extentPageCount); i++) {
    const theirs = snapshot.extentPages[i] ?? 0
    if (theirs === 0) continue
    const isTaken = clone.extentPages[i] === 0
    if (isTaken) clone.extentPages[i] = theirs
    const end = (i + 1) * L.clustersPerExtentPage
    const mine = Math.min(end, clone.clusterCount)
    const had = Math.min(end, snapshot.clusterCount)
    // The same page with the same clusters needs no write; one that gets shorter is the snapshot's until the clone is synced.
    if (!isTaken || mine > had) yield* writeExtentPage(store, clone, i)
    else if (mine < had) later.push(i)
  }
  const { externalSnapshot, snapshot: parentXattr } = L.internalXattr
  const external = snapshot.internalXattrs.get(externalSnapshot)
  clone.removeInternal(parentXattr)
  if (snapshot.parentId === "external" && external !== undefined) {
    clone.setInternal(externalSnapshot, external)
    clone.setFlag(L.invalidFlag.externalSnapshot, true)
  } else if (typeof snapshot.parentId === "number") {
    clone.setInternal(parentXattr, snapshot.parentId)
  }
  clone.dirty = true
  yield* persist(store, clone)
  for (const index of later) yield* writeExtentPage(store, clone, index)
})

/** In memory: who is on top of whom. What lay under the snapshot lies under the clone. */
const relink = (store: Store, snapshot: BlobState, clone: BlobState): void => {
  store.removeClone(clone)
  store.clones.delete(snapshot.id)
  clone.parentId = snapshot.parentId
  clone.backing = snapshot.backing
  snapshot.backing = undefined
  store.addClone(clone)
  store.removeClone(snapshot)
}
