/**
 * Changing how many clusters a blob has. Larger is in memory until the next sync; smaller is written at once. A call that fails
 * leaves the old size.
 */
import type { IoError } from "@effect-spdk/core/Bdev"
import * as Effect from "effect/Effect"
import * as L from "../format/layout.ts"
import type { BlobState } from "./blob.ts"
import { busy, noSpace } from "./errors.ts"
import { persist, settle, settleOthers } from "./persist.ts"
import { clearSoiled, dropCluster, takeClusters, takePages } from "./space.ts"
import type { Store } from "./store.ts"

const extentPagesFor = (clusters: number): number => Math.ceil(clusters / L.clustersPerExtentPage)

/** Under the store's lock; smaller with the blob's gate, too, and `locked`. */
export const resize: (
  store: Store,
  blob: BlobState,
  clusters: number,
  operation: string
) => Effect.Effect<void, IoError> = Effect.fnUntraced(function* (store, blob, clusters, operation) {
  yield* settle(store, blob)
  if (clusters > blob.clusterCount) return yield* enlarge(store, blob, clusters, operation)
  if (clusters === blob.clusterCount) return
  // It was to become larger, and somebody else has made it larger still.
  if (!blob.locked) return yield* Effect.fail(busy(operation, blob.name, "another operation is in progress"))
  yield* cut(store, blob, clusters)
})

const enlarge = Effect.fnUntraced(function* (store: Store, blob: BlobState, clusters: number, operation: string) {
  const before = blob.clusterCount
  const pages = blob.useExtentTable ? extentPagesFor(clusters) : 0
  if (!blob.isThin) {
    const failed = noSpace(operation, `a size of ${clusters} clusters needs more clusters than are free`)
    if (clusters - before > store.freeClusters) return yield* Effect.fail(failed)
    if (store.usedClusters.size - store.usedClusters.count < clusters - before) yield* settleOthers(store)
    const places: Array<number> = []
    for (let i = Math.floor(before / L.clustersPerExtentPage); i < pages; i++) {
      if ((blob.extentPages[i] ?? 0) === 0) places.push(i)
    }
    const taken = takeClusters(store, clusters - before)
    if (taken === undefined) return yield* Effect.fail(failed)
    // Page 0 would read as none.
    const extents = takePages(store, places.length, 1)
    const giveUp = () => {
      const soiled = new Set(taken.soiled)
      for (const cluster of taken.clusters) dropCluster(store, cluster, soiled.has(cluster))
    }
    if (extents === undefined) {
      giveUp()
      return yield* Effect.fail(failed)
    }
    yield* Effect.onError(clearSoiled(store, taken.soiled), () =>
      Effect.sync(() => {
        giveUp()
        store.releasePages(extents)
      })
    )
    blob.reserve(clusters, pages)
    blob.clusters.set(taken.clusters, before)
    for (const [i, place] of places.entries()) blob.extentPages[place] = extents[i] ?? 0
  } else blob.reserve(clusters, pages)
  blob.clusterCount = clusters
  blob.extentPageCount = pages
  blob.countAllocated()
  blob.dirty = true
})

const cut = Effect.fnUntraced(function* (store: Store, blob: BlobState, clusters: number) {
  const { chain, changes, clusterCount, dirty, extentPageCount } = blob
  const set = (count: number, pages: number) => {
    blob.clusterCount = count
    blob.extentPageCount = pages
    blob.countAllocated()
  }
  set(clusters, blob.useExtentTable ? extentPagesFor(clusters) : 0)
  // Writes to what an unsynced growth has given put its size into extent pages.
  if (clusterCount > blob.persistedClusters && blob.extentPageCount > 0) blob.unsurePages.add(blob.extentPageCount - 1)
  blob.dirty = true
  yield* Effect.onError(persist(store, blob), () =>
    Effect.sync(() => {
      // The device has the new size: the next settle does the rest.
      if (blob.chain !== chain) return
      set(clusterCount, extentPageCount)
      // Nothing was written, so that nothing is left to write.
      if (!blob.unsure) blob.dirty = dirty || blob.changes !== changes
    })
  )
})
