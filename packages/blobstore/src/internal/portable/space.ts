/**
 * Clusters and pages on their way between blobs and free space. What a cluster holds when a blob gets it matters: pieces that
 * nobody writes are read.
 *
 * Everything here runs under the store's lock, except `takeCluster` and `dropCluster`, which wait for nothing.
 */
import type { IoError } from "@effect-spdk/core/Bdev"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { ClearMethod } from "../driver.ts"
import type { Store } from "./store.ts"

/** The lowest free cluster, claimed; undefined when there is none. `isZeroed`: it reads as zeroes, durably. */
export const takeCluster = (store: Store): { readonly cluster: number; readonly isZeroed: boolean } | undefined => {
  const cluster = store.usedClusters.firstClear()
  if (cluster < 0) return undefined
  store.usedClusters.add(cluster)
  store.soiled.delete(cluster)
  return { cluster, isZeroed: store.zeroed.delete(cluster) }
}

/** Free again. `isSoiled`: something may have been written to it. */
export const dropCluster = (store: Store, cluster: number, isSoiled: boolean): void => {
  if (store.disputed.has(cluster)) return
  store.usedClusters.delete(cluster)
  if (isSoiled) store.soiled.add(cluster)
}

/** So many clusters, claimed; undefined when there are too few. Those that hold something are listed to be cleared. */
export const takeClusters = (store: Store, count: number) => {
  if (store.usedClusters.size - store.usedClusters.count < count) return undefined
  const clusters = new Uint32Array(count)
  const soiled: Array<number> = []
  let at = 0
  for (let i = 0; i < count; i++) {
    at = store.usedClusters.firstClear(at)
    store.usedClusters.add(at)
    store.zeroed.delete(at)
    if (store.soiled.delete(at)) soiled.push(at)
    clusters[i] = at
  }
  return { clusters, soiled }
}

/** The lowest free pages from `first` on, claimed; undefined when there are too few. */
export const takePages = (store: Store, count: number, first = 0): Array<number> | undefined => {
  const { usedPages } = store
  const pages: Array<number> = []
  for (let page = first; pages.length < count; page++) {
    page = usedPages.firstClear(page)
    if (page < 0) {
      store.releasePages(pages)
      return undefined
    }
    usedPages.add(page)
    pages.push(page)
  }
  return pages
}

interface Run {
  readonly first: number
  length: number
}

/** Neighbours are one request. */
const runsOf = (clusters: Iterable<number>): ReadonlyArray<Run> => {
  const runs: Array<Run> = []
  for (const cluster of Uint32Array.from(clusters).toSorted()) {
    const last = runs[runs.length - 1]
    if (last !== undefined && last.first + last.length === cluster) last.length++
    else runs.push({ first: cluster, length: 1 })
  }
  return runs
}

/** For a blob that is to have them: what others left there is gone when this ends. */
export const clearSoiled = (store: Store, clusters: ReadonlyArray<number>): Effect.Effect<void, IoError> => {
  const { clusterBytes, device } = store
  return Effect.forEach(
    runsOf(clusters),
    ({ first, length }) =>
      device.clearsReleased
        ? device.unmap(first * clusterBytes, length * clusterBytes)
        : device.zero(first * clusterBytes, length * clusterBytes),
    { concurrency: 8, discard: true }
  )
}

/**
 * Clears clusters that no blob on the device has any more, and gives them back. They are free whatever the device says: what
 * it could not clear is cleared before somebody gets it. A failure counts only where the blob asked for zeroes to be written.
 */
export const releaseClusters = (
  store: Store,
  method: ClearMethod,
  clusters: ReadonlyArray<number>
): Effect.Effect<void, IoError> => {
  const { clusterBytes, device } = store
  const own = clusters.filter((cluster) => !store.disputed.has(cluster))
  let failed: Exit.Exit<void, IoError> = Exit.void
  const release = ({ first, length }: Run) =>
    Effect.map(Effect.exit(device.clear(method, first * clusterBytes, length * clusterBytes)), (exit) => {
      for (let i = first; i < first + length; i++) dropCluster(store, i, Exit.isFailure(exit))
      if (Exit.isFailure(exit) && method === "write_zeroes") failed = exit
    })
  return Effect.flatMap(Effect.forEach(runsOf(own), release, { concurrency: 8, discard: true }), () => failed)
}
