/**
 * Clusters of thin blobs: the first write gives one, unmapping all of it gives it back. A cluster becomes the blob's after
 * what it must hold is on it, and others' after the device has forgotten that it was the blob's.
 */
import type { IoError } from "@effect-spdk/core/Bdev"
import type { DmaBuffer } from "@effect-spdk/core/DmaBuffer"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as L from "../format/layout.ts"
import type { BlobState } from "./blob.ts"
import { noSpace } from "./errors.ts"
import { persist, settle, writeExtentPage } from "./persist.ts"
import { readBacking, source } from "./source.ts"
import type { Store } from "./store.ts"

/** How the content of a new cluster comes to be; it is on the device when this ends. `offsetBytes` is the cluster's. */
type Fill = (offsetBytes: number) => Effect.Effect<void, IoError>

/**
 * Gives the blob a cluster at `index`, unless it has one when the turn comes: writers that meet wait for one allocation.
 * The result is whether this call filled the cluster. Runs inside of the blob's gate.
 */
export const allocate = (
  store: Store,
  blob: BlobState,
  index: number,
  fill: Fill | undefined
): Effect.Effect<boolean, IoError> =>
  Effect.suspend(() => {
    if (blob.clusters[index] !== 0) return Effect.succeed(false)
    const pending = blob.allocations.get(index)
    // Whoever waits tries again by itself, so the end of the other one counts, not how it ended.
    if (pending !== undefined) {
      return Effect.andThen(Effect.exit(Deferred.await(pending)), allocate(store, blob, index, fill))
    }
    const deferred = Deferred.makeUnsafe<void, IoError>()
    blob.allocations.set(index, deferred)
    return Effect.uninterruptible(
      Effect.onExit(insertNew(store, blob, index, fill ?? copyBacking(store, blob, index)), () =>
        Effect.sync(() => {
          blob.allocations.delete(index)
          Deferred.doneUnsafe(deferred, Exit.void)
        })
      )
    )
  })

const insertNew = Effect.fnUntraced(function* (store: Store, blob: BlobState, index: number, fill: Fill) {
  const cluster = store.usedClusters.firstClear()
  if (cluster < 0) return yield* Effect.fail(noSpace("Blob.write", "no cluster is free"))
  if (needsExtentPage(blob, index) && store.usedPages.firstClear(1) < 0) {
    return yield* Effect.fail(noSpace("Blob.write", "no metadata page is free"))
  }
  store.usedClusters.add(cluster)
  yield* Effect.onError(fill(cluster * store.clusterBytes), () =>
    Effect.sync(() => void store.usedClusters.delete(cluster))
  )
  // Otherwise a power cut could leave the cluster without the content of the parent.
  if (blob.parentId !== undefined) {
    yield* Effect.onError(store.device.flush, () => Effect.sync(() => void store.usedClusters.delete(cluster)))
  }
  yield* store.change(insert(store, blob, index, cluster))
  return true
})

const needsExtentPage = (blob: BlobState, index: number): boolean =>
  blob.useExtentTable && blob.extentPages[Math.floor(index / L.clustersPerExtentPage)] === 0

/** Under the lock. When a write of metadata fails, what was claimed for it stays so: the device may refer to it. */
const insert = Effect.fnUntraced(function* (store: Store, blob: BlobState, index: number, cluster: number) {
  const extentPage = Math.floor(index / L.clustersPerExtentPage)
  const isNewPage = needsExtentPage(blob, index)
  const page = isNewPage ? store.usedPages.firstClear(1) : 0
  if (page < 0 || index >= blob.clusterCount) {
    store.usedClusters.delete(cluster)
    return yield* Effect.fail(noSpace("Blob.write", "no metadata page is free"))
  }
  yield* Effect.andThen(store.markDirty, settle(store, blob)).pipe(
    Effect.onError(() => Effect.sync(() => void store.usedClusters.delete(cluster)))
  )
  const wasDirty = blob.dirty
  blob.clusters[index] = cluster
  if (isNewPage) {
    store.usedPages.add(page)
    blob.extentPages[extentPage] = page
  }
  const written = blob.useExtentTable ? writeExtentPage(store, blob, extentPage) : Effect.void
  const persisted = Effect.suspend(() => {
    if (blob.useExtentTable && !isNewPage) return Effect.void
    blob.dirty = true
    return persist(store, blob)
  })
  yield* Effect.andThen(written, persisted).pipe(
    Effect.onError(() =>
      Effect.sync(() => {
        blob.clusters[index] = 0
        if (isNewPage) blob.extentPages[extentPage] = 0
        blob.dirty = wasDirty || isNewPage || !blob.useExtentTable
        // Without an I/O error nothing of it is on the device.
        if (!store.suspect) {
          store.usedClusters.delete(cluster)
          if (isNewPage) store.usedPages.delete(page)
          blob.dirty = wasDirty
        }
      })
    )
  )
  blob.allocatedClusters++
})

/** What the cluster reads as so far. */
const copyBacking =
  (store: Store, blob: BlobState, index: number): Fill =>
  (offsetBytes) => {
    const { clusterBytes, device } = store
    const from = source(blob, index)
    if (from._tag === "Zeroes") {
      // Clusters that are free have been unmapped, and read as zeroes: what SPDK counts on. Where the bdev cannot, they are not.
      return device.clearsReleased ? Effect.void : device.zero(offsetBytes, clusterBytes)
    }
    return device.withChunk((chunk: DmaBuffer) => {
      const next = (at: number): Effect.Effect<void, IoError> => {
        if (at >= clusterBytes) return Effect.void
        const part = chunk.slice(0, Math.min(chunk.byteLength, clusterBytes - at))
        return readBacking(store, from, index * clusterBytes + at, part).pipe(
          Effect.andThen(device.bdev.write(offsetBytes + at, part)),
          Effect.flatMap(() => next(at + part.byteLength))
        )
      }
      return next(0)
    })
  }

/** Whether unmapping a whole cluster gives it back, as SPDK decides. */
export const releasesClusters = (blob: BlobState): boolean =>
  blob.isThin && !blob.locked && blob.backing === undefined && blob.parentId === undefined

/** Unmaps a cluster and gives it back. Runs with the blob's gate to itself. */
export const release = (store: Store, blob: BlobState, index: number): Effect.Effect<void, IoError> =>
  Effect.suspend(() => {
    const cluster = index < blob.clusterCount ? (blob.clusters[index] ?? 0) : 0
    if (cluster === 0) return Effect.void
    return Effect.andThen(
      store.device.unmap(cluster * store.clusterBytes, store.clusterBytes),
      store.change(remove(store, blob, index, cluster))
    )
  })

const remove = Effect.fnUntraced(function* (store: Store, blob: BlobState, index: number, cluster: number) {
  if (blob.clusters[index] !== cluster) return
  yield* store.markDirty
  yield* settle(store, blob)
  blob.clusters[index] = 0
  blob.allocatedClusters--
  // When this fails the blob has lost the cluster in memory, and nobody gets it before a recovery has looked.
  if (blob.useExtentTable) {
    yield* writeExtentPage(store, blob, Math.floor(index / L.clustersPerExtentPage))
    yield* Effect.onError(store.device.flush, () => Effect.sync(() => store.fail()))
  } else {
    blob.dirty = true
    yield* persist(store, blob)
  }
  store.usedClusters.delete(cluster)
})
