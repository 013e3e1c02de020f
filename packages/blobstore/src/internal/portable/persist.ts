/**
 * Writing a blob's metadata. The order makes a crash at any point leave the old blob or the new one: extent pages and the
 * pages of a new chain first, then the root page, which alone decides, and only then is what the old blob had cleared and
 * given back. Barriers stand before and after the root page, but for a root page that is all there is to write: it needs none
 * before it, and the one after it may be shared with others.
 *
 * Everything here runs under the store's lock, except `flushLater`.
 */
import type { IoError } from "@effect-spdk/core/Bdev"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Result from "effect/Result"
import { encodeExtentPage, serializeChain } from "../format/blobMeta.ts"
import * as L from "../format/layout.ts"
import { encodeMdPage } from "../format/mdPage.ts"
import type { BlobState } from "./blob.ts"
import { noMemory } from "./errors.ts"
import type { Store } from "./store.ts"

const extentPagesFor = (clusters: number): number => Math.ceil(clusters / L.clustersPerExtentPage)

const extentPageWrite = (store: Store, blob: BlobState, index: number) => {
  const clusters = blob.clusters.subarray(0, blob.clusterCount)
  const bytes = encodeExtentPage(blob.id, index * L.clustersPerExtentPage, clusters)
  return store.pageWrite(blob.extentPages[index] ?? 0, bytes)
}

/** Writes one extent page in its place. */
export const writeExtentPage = (store: Store, blob: BlobState, index: number): Effect.Effect<void, IoError> =>
  Effect.suspend(() => {
    const { bytes, offsetBytes } = extentPageWrite(store, blob, index)
    return Effect.onError(store.device.write(offsetBytes, bytes), () => Effect.sync(() => store.fail()))
  })

/** The extent pages that a change of the size touches, as SPDK chooses them. */
const resizedExtentPages = (blob: BlobState): ReadonlyArray<number> => {
  if (!blob.useExtentTable) return []
  const pages: Array<number> = []
  const grew = blob.persistedClusters < blob.clusterCount
  if (!grew && blob.persistedClusters === blob.clusterCount) return []
  const from = Math.max(1, grew ? blob.persistedExtentPages : blob.extentPageCount) - 1
  for (let i = from; i < blob.extentPageCount; i++) if (blob.extentPages[i] !== 0) pages.push(i)
  return pages
}

/** The first pages that are free, claimed; undefined when there are too few. */
const claimPages = (store: Store, count: number): Array<number> | undefined => {
  const { usedPages } = store
  if (usedPages.size - usedPages.count < count) return undefined
  const pages: Array<number> = []
  for (let page = 0; pages.length < count;) {
    page = usedPages.firstClear(page)
    usedPages.add(page)
    pages.push(page)
  }
  return pages
}

const chainWrites = (store: Store, blob: BlobState, areas: ReadonlyArray<Uint8Array>, chain: ReadonlyArray<number>) =>
  areas.map((area, sequence) =>
    store.pageWrite(chain[sequence] ?? 0, encodeMdPage({ id: blob.id, sequence, next: chain[sequence + 1] }, area))
  )

/** Before something is written that only the root page gives its meaning. */
export const settle = (store: Store, blob: BlobState): Effect.Effect<void, IoError> =>
  Effect.suspend(() => (blob.unsure ? persist(store, blob) : Effect.void))

/** What is in memory becomes what is on the device. Data that was written before it survives a power cut, too. */
export const persist = (store: Store, blob: BlobState): Effect.Effect<void, IoError> =>
  Effect.asVoid(write(store, blob, false))

/**
 * The same, and where nothing else waits for it the last flush is left to `flushLater`, which others share: outside of the lock,
 * before anybody is told. True when one is due.
 */
export const persistUnflushed = (store: Store, blob: BlobState): Effect.Effect<boolean, IoError> =>
  write(store, blob, true)

/** Until it has ended nobody may count on what `persistUnflushed` wrote. */
export const flushLater = (store: Store, blob: BlobState): Effect.Effect<void, IoError> =>
  Effect.suspend(() => {
    const { unflushed } = blob
    return Effect.onExit(store.device.flush, (exit) =>
      Effect.sync(() => {
        if (Exit.isSuccess(exit)) {
          if (blob.unflushed === unflushed) blob.unflushed = 0
          return
        }
        store.fail()
        blob.dirty = true
        blob.unsure = true
      })
    )
  }).pipe(Effect.uninterruptible)

/** True when a flush is due for it. */
const write = Effect.fnUntraced(function* (store: Store, blob: BlobState, isLater: boolean) {
  if (!blob.dirty) return blob.unflushed > 0
  yield* store.markDirty
  const areas = serialize(blob)
  if (areas === undefined) return yield* Effect.fail(noMemory("Blob.sync", "an xattr does not fit into a page"))
  const added = claimPages(store, areas.length - 1)
  if (added === undefined) return yield* Effect.fail(noMemory("Blob.sync", "no metadata page is free"))
  const chain = [blob.rootPage, ...added]
  const extentPages = resizedExtentPages(blob)
  const size = { clusters: blob.clusterCount, extentPages: blob.extentPageCount }
  // A page that loses extents to other pages of the blob can only be cut once the table that counts them is.
  const cutsLater = size.extentPages < blob.persistedExtentPages
  blob.dirty = false
  const old = [...blob.chain.slice(1), ...blob.stale]
  const givesBack = old.length > 0 || cutsLater || cutsOff(blob)
  const leavesFlush = isLater && !givesBack && !blob.unsure
  yield* writeChain(store, blob, areas, chain, cutsLater ? [] : extentPages, leavesFlush).pipe(
    Effect.onError(() =>
      Effect.sync(() => {
        store.fail()
        blob.dirty = true
        blob.unsure = true
        blob.stale.push(...added)
      })
    )
  )
  blob.chain = chain
  blob.stale = []
  blob.unsure = false
  blob.persistedClusters = size.clusters
  blob.persistedExtentPages = size.extentPages
  yield* giveBack(store, blob, old, cutsLater ? extentPages : []).pipe(
    Effect.onError(() => Effect.sync(() => store.fail()))
  )
  blob.unflushed = leavesFlush ? blob.unflushed + 1 : 0
  return leavesFlush
})

/** Whether clusters or extent pages wait to be given back. */
const cutsOff = (blob: BlobState): boolean =>
  blob.clusters.length > blob.clusterCount || blob.extentPages.length > blob.extentPageCount

const serialize = (blob: BlobState): ReadonlyArray<Uint8Array> | undefined => {
  const { dataRoFlags, id, internalXattrs, invalidFlags, mdRoFlags, useExtentTable, xattrs } = blob
  const clusters = blob.clusters.subarray(0, blob.clusterCount)
  const extentPages = useExtentTable ? blob.extentPages.subarray(0, blob.extentPageCount) : []
  const areas = serializeChain({
    id,
    invalidFlags,
    dataRoFlags,
    mdRoFlags,
    clusters,
    extentPages,
    useExtentTable,
    xattrs,
    internalXattrs
  })
  return Result.isSuccess(areas) ? areas.success : undefined
}

const writeChain = Effect.fnUntraced(function* (
  store: Store,
  blob: BlobState,
  areas: ReadonlyArray<Uint8Array>,
  chain: ReadonlyArray<number>,
  extentPages: ReadonlyArray<number>,
  leavesFlush: boolean
) {
  const { device } = store
  const [root, ...others] = chainWrites(store, blob, areas, chain)
  const first = [...extentPages.map((index) => extentPageWrite(store, blob, index)), ...others]
  yield* device.writeAll(first)
  // A root page alone decides about nothing but itself.
  if (!leavesFlush || first.length > 0) yield* device.flush
  if (root !== undefined) yield* device.write(root.offsetBytes, root.bytes)
  if (!leavesFlush) yield* device.flush
})

/** What the root page does not lead to any more: pages of the old chain, clusters and extent pages that were cut off. */
const giveBack = Effect.fnUntraced(function* (
  store: Store,
  blob: BlobState,
  pages: ReadonlyArray<number>,
  extentPages: ReadonlyArray<number>
) {
  if (extentPages.length > 0) {
    yield* store.device.writeAll(extentPages.map((index) => extentPageWrite(store, blob, index)))
    yield* store.device.flush
  }
  yield* store.zeroPages(pages)
  store.releasePages(pages)
  yield* releaseTruncated(store, blob)
})

/** Clears and gives back the clusters and extent pages past the end of the blob. */
const releaseTruncated = Effect.fnUntraced(function* (store: Store, blob: BlobState) {
  const { clusterCount, extentPageCount } = blob
  if (blob.clusters.length > clusterCount) {
    const clusters = blob.clusters.subarray(clusterCount).filter((cluster) => cluster !== 0)
    yield* clearClusters(store, blob, clusters.toSorted())
    for (const cluster of clusters) store.usedClusters.delete(cluster)
    blob.clusters = blob.clusters.slice(0, clusterCount)
  }
  if (blob.extentPages.length > extentPageCount) {
    const pages = [...blob.extentPages.subarray(extentPageCount)].filter((page) => page !== 0)
    yield* store.zeroPages(pages)
    store.releasePages(pages)
    blob.extentPages = blob.extentPages.slice(0, extentPageCount)
  }
})

/** Runs of neighbours are one request each. */
const clearClusters = (store: Store, blob: BlobState, sorted: Uint32Array): Effect.Effect<void, IoError> => {
  const runs: Array<{ first: number; length: number }> = []
  for (const cluster of sorted) {
    const last = runs[runs.length - 1]
    if (last !== undefined && last.first + last.length === cluster) last.length++
    else runs.push({ first: cluster, length: 1 })
  }
  const { clusterBytes, device } = store
  return Effect.forEach(
    runs,
    ({ first, length }) => device.clear(blob.clearMethod, first * clusterBytes, length * clusterBytes),
    { concurrency: 8, discard: true }
  )
}

/**
 * Takes a blob from the device. The root page goes first, alone: without it nothing leads to the rest, which a recovery then
 * finds free.
 */
export const erase: (store: Store, blob: BlobState) => Effect.Effect<void, IoError> = Effect.fnUntraced(function* (
  store: Store,
  blob: BlobState
) {
  yield* store.markDirty
  blob.clusterCount = 0
  blob.extentPageCount = 0
  blob.allocatedClusters = 0
  blob.dirty = false
  store.usedBlobIds.delete(blob.rootPage)
  yield* Effect.gen(function* () {
    yield* store.zeroPages([blob.rootPage])
    yield* store.device.flush
    const others = [...blob.chain.slice(1), ...blob.stale]
    yield* store.zeroPages(others)
    store.releasePages([blob.rootPage, ...others])
    yield* releaseTruncated(store, blob)
  }).pipe(Effect.onError(() => Effect.sync(() => store.fail())))
})

/** Makes the blob this large in memory. NoSpace changes nothing. */
export const resize = (store: Store, blob: BlobState, clusters: number): "NoSpace" | undefined => {
  if (clusters === blob.clusterCount) return undefined
  // Clusters that an unsynced cut left over come first.
  const have = Math.max(blob.clusterCount, Math.min(blob.clusters.length, clusters))
  const pages = blob.useExtentTable ? extentPagesFor(clusters) : 0
  const havePages = blob.useExtentTable ? extentPagesFor(have) : 0
  if (clusters > have && !blob.isThin) {
    const freePages = store.usedPages.size - store.usedPages.count - (store.usedPages.has(0) ? 0 : 1)
    if (clusters - have > store.freeClusters || pages - havePages > freePages) return "NoSpace"
  }
  blob.reserve(clusters, pages)
  if (!blob.isThin) for (let i = have; i < clusters; i++) claimInto(store, blob, i)
  blob.clusterCount = clusters
  blob.extentPageCount = pages
  blob.countAllocated()
  blob.dirty = true
  return undefined
}

/** The lowest free cluster and, where there is none yet, the lowest free page but 0 for its extents. */
const claimInto = (store: Store, blob: BlobState, index: number): void => {
  const cluster = store.usedClusters.firstClear()
  store.usedClusters.add(cluster)
  blob.clusters[index] = cluster
  const extentPage = Math.floor(index / L.clustersPerExtentPage)
  if (blob.useExtentTable && blob.extentPages[extentPage] === 0) {
    const page = store.usedPages.firstClear(1)
    store.usedPages.add(page)
    blob.extentPages[extentPage] = page
  }
}
