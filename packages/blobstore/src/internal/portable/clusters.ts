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
import { type MetadataChange, persist, settle, settleOthers, writeExtentPage } from "./persist.ts"
import { readBacking, source } from "./source.ts"
import { dropCluster, takeCluster, takePages } from "./space.ts"
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
  // Others wait for an allocation from the step on in which they can see it.
  Effect.uninterruptibleMask((restore) => {
    if (blob.clusters[index] !== 0) return Effect.succeed(false)
    const pending = blob.allocations.get(index)
    // Whoever waits tries again by itself, so the end of the other one counts, not how it ended.
    if (pending !== undefined) {
      return restore(Effect.andThen(Effect.exit(Deferred.await(pending)), allocate(store, blob, index, fill)))
    }
    const deferred = Deferred.makeUnsafe<void, IoError>()
    blob.allocations.set(index, deferred)
    return Effect.onExit(insertNew(store, blob, index, fill), () =>
      Effect.sync(() => {
        blob.allocations.delete(index)
        Deferred.doneUnsafe(deferred, Exit.void)
      })
    )
  })

const insertNew = Effect.fnUntraced(function* (store: Store, blob: BlobState, index: number, fill: Fill | undefined) {
  // A device that does not take what failed before gets nothing new, and no cluster waits for it.
  if (blob.isUnsettled) yield* store.change(settle(store, blob))
  const { cluster, isZeroed } = yield* claim(store)
  const drop = Effect.sync(() => dropCluster(store, cluster, true))
  yield* Effect.onError(prepare(store, blob, index, cluster * store.clusterBytes, isZeroed, fill), () => drop)
  yield* store.change(insert(store, blob, index, cluster))
  return true
})

/** Clusters that wait for their blobs count as free, and are when nothing else is. */
const claim = (store: Store): Effect.Effect<NonNullable<ReturnType<typeof takeCluster>>, IoError> =>
  Effect.suspend(() => {
    const taken = takeCluster(store)
    if (taken !== undefined) return Effect.succeed(taken)
    const full = Effect.fail(noSpace("Blob.write", "no cluster is free"))
    if (store.unsettled.size === 0) return full
    return Effect.flatMap(store.change(settleOthers(store)), () => {
      const now = takeCluster(store)
      return now === undefined ? full : Effect.succeed(now)
    })
  })

/**
 * What the cluster must hold, durably: otherwise a power cut that keeps the metadata leaves the blob with what another had there. A
 * cluster of zeroes shows at worst what the blob read as before.
 */
const prepare = (
  store: Store,
  blob: BlobState,
  index: number,
  offsetBytes: number,
  isZeroed: boolean,
  fill: Fill | undefined
): Effect.Effect<void, IoError> => {
  const readsAsZeroes = source(blob, index)._tag === "Zeroes"
  const first = fill ?? copyBacking(store, blob, index)
  if (!isZeroed || !readsAsZeroes) return Effect.andThen(first(offsetBytes), store.device.flush)
  return fill === undefined ? Effect.void : fill(offsetBytes)
}

const needsExtentPage = (blob: BlobState, index: number): boolean =>
  blob.useExtentTable && blob.extentPages[Math.floor(index / L.clustersPerExtentPage)] === 0

/** Under the lock. The memory follows the device: until it is there, nobody reads or writes the cluster. */
const insert = Effect.fnUntraced(function* (store: Store, blob: BlobState, index: number, cluster: number) {
  const drop = () => Effect.sync(() => dropCluster(store, cluster, true))
  yield* Effect.onError(Effect.andThen(store.markDirty, settle(store, blob)), drop)
  if (needsExtentPage(blob, index)) yield* insertPage(store, blob, index, cluster)
  else if (blob.useExtentTable) {
    const extentPage = Math.floor(index / L.clustersPerExtentPage)
    yield* Effect.onError(writeExtentPage(store, blob, extentPage, { index, cluster }), () =>
      Effect.sync(() => {
        blob.unsurePages.add(extentPage)
        hold(store, blob, cluster)
      })
    )
  } else yield* insertRoot(store, blob, { index, cluster }, undefined)
  blob.clusters[index] = cluster
  blob.allocatedClusters++
})

/** The first cluster of an extent page. */
const insertPage = Effect.fnUntraced(function* (store: Store, blob: BlobState, index: number, cluster: number) {
  const extentPage = Math.floor(index / L.clustersPerExtentPage)
  const [page] = takePages(store, 1, 1) ?? []
  if (page === undefined) {
    dropCluster(store, cluster, true)
    return yield* Effect.fail(noSpace("Blob.write", "no metadata page is free"))
  }
  blob.extentPages[extentPage] = page
  // Nothing leads to the page yet.
  yield* Effect.onError(writeExtentPage(store, blob, extentPage, { index, cluster }), () =>
    Effect.sync(() => {
      blob.extentPages[extentPage] = 0
      store.releasePages([page])
      dropCluster(store, cluster, true)
    })
  )
  yield* Effect.onError(insertRoot(store, blob, { index, cluster }, page), () =>
    Effect.sync(() => {
      blob.extentPages[extentPage] = 0
    })
  )
})

/** Writes the root page for a new cluster, and perhaps a new extent page. */
const insertRoot = (
  store: Store,
  blob: BlobState,
  change: MetadataChange,
  page: number | undefined
): Effect.Effect<void, IoError> =>
  Effect.suspend(() => {
    const { changes, dirty } = blob
    blob.dirty = true
    return Effect.onError(persist(store, blob, change), () =>
      Effect.sync(() => {
        if (blob.unsure) {
          if (page !== undefined) blob.stale.push(page)
          hold(store, blob, change.cluster)
          return
        }
        // Nothing of it is on the device.
        if (page !== undefined) store.releasePages([page])
        dropCluster(store, change.cluster, true)
        blob.dirty = dirty || blob.changes !== changes
      })
    )
  })

/** Until the device has been told that it is not the blob's. */
const hold = (store: Store, blob: BlobState, cluster: number): void => {
  blob.staleClusters.push(cluster)
  store.unsettled.add(blob)
}

/** What the cluster reads as so far. */
const copyBacking =
  (store: Store, blob: BlobState, index: number): Fill =>
  (offsetBytes) => {
    const { clusterBytes, device } = store
    const from = source(blob, index)
    if (from._tag === "Zeroes") return device.zero(offsetBytes, clusterBytes)
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

/** The blob keeps the cluster until the device certainly knows it without. */
const remove = Effect.fnUntraced(function* (store: Store, blob: BlobState, index: number, cluster: number) {
  yield* store.markDirty
  yield* settle(store, blob)
  if (blob.useExtentTable) {
    const extentPage = Math.floor(index / L.clustersPerExtentPage)
    const written = writeExtentPage(store, blob, extentPage, { index, cluster: 0 })
    yield* Effect.onError(Effect.andThen(written, store.device.flush), () =>
      Effect.sync(() => void blob.unsurePages.add(extentPage))
    )
  } else {
    const { changes, dirty } = blob
    blob.dirty = true
    yield* Effect.onError(persist(store, blob, { index, cluster: 0 }), () =>
      Effect.sync(() => {
        if (!blob.unsure) blob.dirty = dirty || blob.changes !== changes
      })
    )
  }
  blob.clusters[index] = 0
  blob.allocatedClusters--
  dropCluster(store, cluster, !store.device.clearsReleased)
})
