/** What a crash left half-done and a load finishes or takes back. */
import type { SpdkError } from "@effect-spdk/core/SpdkError"
import * as Effect from "effect/Effect"
import type { BlobId } from "../driver.ts"
import * as L from "../format/layout.ts"
import type { BlobState } from "./blob.ts"
import { closeBlob, openBlob, withBlob } from "./open.ts"
import { erase, persist, writeExtentPage } from "./persist.ts"
import type { ScannedStore } from "./scan.ts"
import type { Store } from "./store.ts"

const alone = { backing: false }

/** Writes a blob as it was loaded, so that its extent pages and its table say the same. */
export const fixResized = (store: Store, id: BlobId): Effect.Effect<void, SpdkError> =>
  withBlob(
    store,
    id,
    Effect.fnUntraced(function* (blob: BlobState) {
      yield* store.markDirty
      for (let i = 0; i < blob.extentPageCount; i++) {
        if (blob.extentPages[i] !== 0) yield* writeExtentPage(store, blob, i)
      }
      blob.dirty = true
    }),
    alone
  )

/**
 * A snapshot that was being made or removed. When the blob on top of it has it as its parent, the snapshot has all its
 * clusters and stays; else it is not needed any more, or not yet, and goes. The answer is the parent of a snapshot that stays.
 */
export const fixLeftover = Effect.fnUntraced(function* (
  store: Store,
  leftover: { readonly id: BlobId; readonly clone: BlobId },
  scanned: ScannedStore
) {
  const opened = yield* Effect.result(openBlob(store, leftover.clone, alone))
  if (opened._tag === "Failure") {
    // As SPDK: nobody knows what the clone has.
    if (opened.failure.reason._tag === "Corrupted") return []
    if (opened.failure.reason._tag !== "NotFound") return yield* Effect.fail(opened.failure)
    // SPDK leaves the mark, too, and drops the snapshot once another blob has got that id. Nobody is to lose it so.
    const snapshot = yield* openBlob(store, leftover.id, alone)
    const parent = snapshot.parentId
    yield* store.markDirty
    yield* unmark(store, snapshot)
    yield* closeBlob(store, snapshot)
    return typeof parent === "number" ? [{ id: snapshot.id, parent }] : []
  }
  const clone = opened.success
  const snapshot = yield* openBlob(store, leftover.id, alone)
  const parent = snapshot.parentId
  if (clone.parentId === snapshot.id) {
    yield* keep(store, snapshot, clone, scanned)
    yield* closeBlob(store, snapshot)
    yield* closeBlob(store, clone)
    return typeof parent === "number" ? [{ id: snapshot.id, parent }] : []
  }
  yield* closeBlob(store, clone)
  yield* remove(store, snapshot, clone, scanned)
  return []
})

const keep = Effect.fnUntraced(function* (store: Store, snapshot: BlobState, clone: BlobState, scanned: ScannedStore) {
  // A removal writes the snapshot's clusters into the clone's extent pages before it gives the clone another parent.
  const shared = new Set<number>()
  for (let i = 0; i < Math.min(snapshot.clusterCount, clone.clusterCount); i++) {
    const cluster = clone.clusters[i] ?? 0
    if (cluster === 0 || cluster !== snapshot.clusters[i]) continue
    clone.clusters[i] = 0
    scanned.sharedClusters.delete(cluster)
    shared.add(Math.floor(i / L.clustersPerExtentPage))
  }
  clone.countAllocated()
  yield* store.markDirty
  if (clone.useExtentTable) for (const index of shared) yield* writeExtentPage(store, clone, index)
  else clone.dirty ||= shared.size > 0
  yield* unmark(store, snapshot)
})

const unmark = (store: Store, snapshot: BlobState) =>
  Effect.suspend(() => {
    snapshot.removeInternal(L.internalXattr.snapshotPendingRemoval)
    snapshot.removeInternal(L.internalXattr.snapshotInProgress)
    snapshot.dataRoFlags |= L.dataRoFlag.readOnly
    snapshot.dirty = true
    return persist(store, snapshot)
  })

/** What the clone has as well is the clone's, and so it is with others that came to it since. */
const remove = Effect.fnUntraced(function* (
  store: Store,
  snapshot: BlobState,
  clone: BlobState,
  scanned: ScannedStore
) {
  // Of two who had it one is left.
  snapshot.clusters = snapshot.clusters.map((cluster) => (scanned.sharedClusters.delete(cluster) ? 0 : cluster))
  snapshot.extentPages = snapshot.extentPages.map((page) => (scanned.sharedPages.delete(page) ? 0 : page))
  disown(snapshot, clone)
  store.open.delete(snapshot.id)
  yield* erase(store, snapshot)
})

/** Takes from the first blob what the second has, too. */
export const disown = (blob: BlobState, other: BlobState): void => {
  for (let i = 0; i < Math.min(blob.clusterCount, other.clusterCount); i++) {
    if (blob.clusters[i] === other.clusters[i]) blob.clusters[i] = 0
  }
  for (let i = 0; i < Math.min(blob.extentPageCount, other.extentPageCount); i++) {
    if (blob.extentPages[i] === other.extentPages[i]) blob.extentPages[i] = 0
  }
  blob.countAllocated()
}
