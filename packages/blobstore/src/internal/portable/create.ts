/** Making and removing blobs. Under the store's lock, but for `remove`, which takes it. */
import type { IoError } from "@effect-spdk/core/Bdev"
import type { SpdkError } from "@effect-spdk/core/SpdkError"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type { BlobId, ClearMethod, Xattrs } from "../driver.ts"
import * as L from "../format/layout.ts"
import { encodeText } from "../format/text.ts"
import { BlobState } from "./blob.ts"
import { busy, noMemory, notFound, refused } from "./errors.ts"
import { exclusively } from "./exclusively.ts"
import { closeBlob, openBlob, pageOf } from "./open.ts"
import { erase, erased, persist, persistUnflushed, settle, writeExtentPage } from "./persist.ts"
import { disown } from "./recover.ts"
import { resize } from "./resize.ts"
import { dropCluster } from "./space.ts"
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
  Effect.onError(store.device.flush, () =>
    // Who has found and opened it meanwhile keeps it: it is as durable as what the device says.
    store.change(Effect.suspend(() => (store.open.has(blob.id) ? Effect.void : discard(store, blob))))
  )

/** Takes back what was not to be: its space is free at once where the device allows it. */
export const discard = (store: Store, blob: BlobState): Effect.Effect<void> =>
  Effect.suspend(() => {
    // Nothing of it is on the device.
    if (blob.chain.length === 0 && !blob.unsure) {
      store.releasePages([blob.rootPage, ...[...blob.extentPages].filter((page) => page !== 0)])
      for (const cluster of blob.clusters) if (cluster !== 0) dropCluster(store, cluster, false)
      return Effect.void
    }
    // After the root page nothing counts any more.
    return Effect.catch(erase(store, blob), () => (blob.unsure ? lose(store, blob) : Effect.void))
  })

/**
 * The device may have it still. It goes, after `before`, before anything else of the metadata changes, and what it has stays claimed
 * until then, or until a recovery has looked.
 */
export const lose = (
  store: Store,
  blob: BlobState,
  before: Effect.Effect<void, IoError> = Effect.void
): Effect.Effect<void> =>
  Effect.suspend(() => {
    store.usedBlobIds.delete(blob.rootPage)
    store.unsettled.delete(blob)
    // Nobody finds it any more, by its snapshot neither.
    store.removeClone(blob)
    store.doomed.set(blob.rootPage, { before, after: Effect.ignore(erased(store, blob)) })
    const text =
      "could not be removed from the device; its clusters stay in use until the removal succeeds, or until the next load"
    return Effect.logWarning(`${blob.name} ${text}`)
  })

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
  const written = Effect.andThen(resize(store, blob, options.clusters, operation), write(store, blob))
  yield* Effect.onError(written, () => discard(store, blob))
  store.usedBlobIds.add(page)
  return blob
})

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
      (opened) => exclusively(store, opened, removeBelow(store, id, opened)),
      (opened) => Effect.ignore(store.change(closeBlob(store, opened)))
    )
  })

const removeAlone = Effect.fnUntraced(function* (store: Store, id: BlobId) {
  if (store.open.has(id)) return yield* Effect.fail(busy("Blobstore.delete", store.nameOf(id), "it is open"))
  if ((store.clones.get(id) ?? []).length > 0)
    return yield* Effect.fail(busy("Blobstore.delete", store.nameOf(id), "it has a clone"))
  const opened = yield* Effect.result(openBlob(store, id, { backing: false }))
  if (Result.isFailure(opened)) {
    return yield* opened.failure.reason._tag === "Corrupted" ? removeUnreadable(store, id) : Effect.fail(opened.failure)
  }
  const blob = opened.success
  store.open.delete(id)
  yield* takeAway(store, blob)
  store.removeClone(blob)
  store.clones.delete(id)
})

/** Without its first page nobody has it any more. What it had is found free by the recovery of the next load. */
const removeUnreadable = Effect.fnUntraced(function* (store: Store, id: BlobId) {
  const page = pageOf(store, id)
  if (page === undefined) return
  yield* store.markDirty
  store.fail()
  yield* Effect.andThen(store.zeroPages([page]), store.device.flush)
  store.usedBlobIds.delete(page)
  store.unreadable.delete(page)
  for (const clones of store.clones.values()) if (clones.includes(id)) clones.splice(clones.indexOf(id), 1)
})

/** When the device does not take it, the blob is there again, if the device takes that. */
const takeAway = (store: Store, blob: BlobState): Effect.Effect<void, IoError> =>
  Effect.onError(erase(store, blob), () =>
    blob.unsure ? Effect.catch(settle(store, blob), () => lose(store, blob)) : Effect.void
  )

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
    return yield* Effect.fail(busy(operation, store.nameOf(id), "another operation is in progress"))
  yield* settle(store, clone)
  yield* settle(store, snapshot)
  snapshot.setInternal(L.internalXattr.snapshotPendingRemoval, clone.id)
  const before = cloneParts(clone)
  yield* Effect.onError(Effect.andThen(persist(store, snapshot), takeOver(store, snapshot, clone)), () => {
    restore(clone, before)
    return Effect.ignore(unmark(store, snapshot))
  })
  relink(store, snapshot, clone)
  disown(snapshot, clone)
  store.open.delete(id)
  // The clone has everything: what is left of the snapshot goes at the next load at the latest.
  yield* Effect.onError(erase(store, snapshot), () => (snapshot.unsure ? lose(store, snapshot) : Effect.void))
})

const cloneParts = (clone: BlobState) => ({
  dirty: clone.dirty,
  changes: clone.changes,
  clusters: clone.clusters.slice(),
  extentPages: clone.extentPages.slice(),
  invalidFlags: clone.invalidFlags,
  internalXattrs: new Map(clone.internalXattrs)
})

const restore = (clone: BlobState, before: ReturnType<typeof cloneParts>): void => {
  const { changes, clusters, dirty, extentPages, internalXattrs, invalidFlags } = before
  Object.assign(clone, { clusters, extentPages, internalXattrs, invalidFlags })
  clone.countAllocated()
  clone.dirty = dirty || clone.unsure || clone.changes !== changes
}

/**
 * A removal that failed is taken back: the blob above first, which may have the snapshot's clusters on the device, and only then
 * the mark, by which a load would know that. Until that is done the mark stays.
 */
export const unmark = (store: Store, snapshot: BlobState): Effect.Effect<void, IoError> =>
  Effect.suspend(() => {
    const mark = snapshot.internalXattrs.get(L.internalXattr.snapshotPendingRemoval)
    if (mark === undefined) return Effect.void
    const above = [...store.open.values(), ...store.kept.values()].filter(({ parentId }) => parentId === snapshot.id)
    const settled = Effect.forEach([...above, snapshot], (blob) => settle(store, blob), { discard: true })
    return Effect.flatMap(settled, () => {
      const { dirty } = snapshot
      snapshot.removeInternal(L.internalXattr.snapshotPendingRemoval)
      return Effect.onError(persist(store, snapshot), () =>
        Effect.sync(() => {
          snapshot.setInternal(L.internalXattr.snapshotPendingRemoval, mark)
          snapshot.dirty = dirty || snapshot.unsure
        })
      )
    })
  })

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
    if (!isTaken) clone.unsurePages.add(i)
    // Taken back, it is the snapshot's again.
    else if (mine !== had) snapshot.unsurePages.add(i)
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
  yield* writeRoot(store, clone)
  snapshot.unsurePages.clear()
  for (const index of later) clone.unsurePages.add(index)
  // The clone has the clusters: the next settle does the rest.
  yield* Effect.ignore(settle(store, clone))
})

/** The extent pages are written: only a failure makes them unsure. */
const writeRoot = (store: Store, clone: BlobState): Effect.Effect<void, IoError> => {
  const pages = [...clone.unsurePages]
  clone.unsurePages.clear()
  const { chain } = clone
  return Effect.catch(persist(store, clone), (error) => {
    // The root page is written, and what follows it is not.
    if (clone.chain !== chain) return Effect.void
    for (const page of pages) clone.unsurePages.add(page)
    return Effect.fail(error)
  })
}

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
