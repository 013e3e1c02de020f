/**
 * Writing a blob's metadata. The order makes a crash at any point leave the old blob or the new one: extent pages and the
 * pages of a new chain first, then the root page, which alone decides, and only then is what the old blob had cleared and
 * given back. Barriers stand before and after the root page, but for a root page that is all there is to write: it needs none
 * before it, and the one after it may be shared with others.
 *
 * After a failure nobody knows what the device has. The memory keeps or gets back what it had before, the blob remembers what
 * may differ, and the next write of its metadata makes that good first (`settle`).
 *
 * Everything here runs under the store's lock, except `flushLater`.
 */
import type { IoError } from "@effect-spdk/core/Bdev"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Result from "effect/Result"
import { serializeChain } from "../format/blobMeta.ts"
import { encodeExtents, encodeMdPage } from "../format/mdPage.ts"
import * as L from "../format/layout.ts"
import type { BlobState } from "./blob.ts"
import { noMemory } from "./errors.ts"
import { dropCluster, releaseClusters, takePages } from "./space.ts"
import type { Store } from "./store.ts"

/** What the device is to have at one place of the blob. The memory follows when it is written. */
export interface MetadataChange {
  readonly index: number
  /** 0: none. */
  readonly cluster: number
}

const extentPageWrite = (store: Store, blob: BlobState, index: number, change?: MetadataChange) => {
  const start = index * L.clustersPerExtentPage
  const clusters = blob.clusters.slice(start, Math.min(blob.clusterCount, start + L.clustersPerExtentPage))
  if (change !== undefined && change.index >= start && change.index < start + clusters.length) {
    clusters[change.index - start] = change.cluster
  }
  return store.pageWrite(blob.extentPages[index] ?? 0, encodeExtents(blob.id, start, clusters))
}

/** Writes one extent page in its place. */
export const writeExtentPage = (
  store: Store,
  blob: BlobState,
  index: number,
  change?: MetadataChange
): Effect.Effect<void, IoError> =>
  Effect.suspend(() => {
    const { bytes, offsetBytes } = extentPageWrite(store, blob, index, change)
    return store.device.write(offsetBytes, bytes)
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

const chainWrites = (store: Store, blob: BlobState, areas: ReadonlyArray<Uint8Array>, chain: ReadonlyArray<number>) =>
  areas.map((area, sequence) =>
    store.pageWrite(chain[sequence] ?? 0, encodeMdPage({ id: blob.id, sequence, next: chain[sequence + 1] }, area))
  )

/** Makes good what a failure left: the device has what the memory has, and what waited for that is free. */
export const settle = (store: Store, blob: BlobState): Effect.Effect<void, IoError> =>
  Effect.suspend(() => (blob.isUnsettled ? persist(store, blob) : Effect.void))

/** What could not be written when it closed. */
export const settleKept = (store: Store): Effect.Effect<void, IoError> =>
  Effect.suspend(() =>
    Effect.forEach(
      [...store.kept.values()],
      (blob) => Effect.map(persist(store, blob), () => void store.kept.delete(blob.id)),
      { discard: true }
    )
  )

/** So that clusters that wait for their blobs are free. The first failure ends it. */
export const settleOthers = (store: Store): Effect.Effect<void, IoError> =>
  Effect.suspend(() => Effect.forEach([...store.unsettled], (blob) => settle(store, blob), { discard: true }))

/** What is in memory becomes what is on the device. Data that was written before it survives a power cut, too. */
export const persist = (store: Store, blob: BlobState, change?: MetadataChange): Effect.Effect<void, IoError> =>
  Effect.asVoid(write(store, blob, false, change))

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
        const now = store.open.get(blob.id) ?? store.kept.get(blob.id) ?? blob
        now.dirty = true
        now.unsure = true
        // It has closed, and nobody else has it; nor is it deleted.
        if (now === blob && !store.open.has(blob.id) && store.usedBlobIds.has(blob.rootPage)) {
          store.kept.set(blob.id, blob)
        }
      })
    )
  }).pipe(Effect.uninterruptible)

/** True when a flush is due for it. */
const write = Effect.fnUntraced(function* (store: Store, blob: BlobState, isLater: boolean, change?: MetadataChange) {
  if (!blob.dirty && !blob.isUnsettled) return blob.unflushed > 0
  yield* store.markDirty
  const isFlushed = blob.dirty || blob.unsure ? yield* writeChain(store, blob, isLater, change) : true
  if (blob.isUnsettled) yield* tidy(store, blob)
  return !isFlushed
})

/** The pages and the root of the chain; whether it is flushed. */
const writeChain = Effect.fnUntraced(function* (
  store: Store,
  blob: BlobState,
  isLater: boolean,
  change: MetadataChange | undefined
) {
  const areas = serialize(blob, change)
  if (areas === undefined) return yield* Effect.fail(noMemory("Blob.sync", "an xattr does not fit into a page"))
  const added = takePages(store, areas.length - 1)
  if (added === undefined) return yield* Effect.fail(noMemory("Blob.sync", "no metadata page is free"))
  const chain = [blob.rootPage, ...added]
  const size = { clusters: blob.clusterCount, extentPages: blob.extentPageCount }
  // A page that loses extents to other pages of the blob can only be cut once the table that counts them is.
  const cutsLater = size.extentPages < blob.persistedExtentPages
  const resized = resizedExtentPages(blob)
  const now = cutsLater ? [] : resized
  if (cutsLater) for (const index of resized) blob.unsurePages.add(index)
  blob.dirty = false
  const old = blob.chain.slice(1)
  const leavesFlush = isLater && old.length === 0 && !blob.isUnsettled
  const { device } = store
  const [root, ...others] = chainWrites(store, blob, areas, chain)
  const first = [...now.map((index) => extentPageWrite(store, blob, index, change)), ...others]
  yield* Effect.gen(function* () {
    yield* device.writeAll(first)
    // A root page alone decides about nothing but itself.
    if (!leavesFlush || first.length > 0) yield* device.flush
    if (root !== undefined) yield* device.write(root.offsetBytes, root.bytes)
    if (!leavesFlush) yield* device.flush
  }).pipe(
    Effect.onError(() =>
      Effect.sync(() => {
        blob.dirty = true
        blob.unsure = true
        blob.stale.push(...added)
        for (const index of now) blob.unsurePages.add(index)
      })
    )
  )
  for (const index of now) blob.unsurePages.delete(index)
  blob.chain = chain
  blob.stale.push(...old)
  blob.unsure = false
  blob.persistedClusters = size.clusters
  blob.persistedExtentPages = size.extentPages
  blob.unflushed = leavesFlush ? blob.unflushed + 1 : 0
  return !leavesFlush
})

/**
 * After the root page: the extent pages that are not what they were to be, and then what the blob does not have any more. Pages
 * that are given back need not be cleared: they are written before anything leads to them.
 */
const tidy = Effect.fnUntraced(function* (store: Store, blob: BlobState) {
  const unsure = [...blob.unsurePages]
  const there = unsure.filter((index) => index < blob.extentPageCount && (blob.extentPages[index] ?? 0) !== 0)
  if (there.length > 0) {
    yield* store.device.writeAll(there.map((index) => extentPageWrite(store, blob, index)))
    yield* store.device.flush
  }
  for (const index of unsure) blob.unsurePages.delete(index)
  for (const cluster of blob.staleClusters.splice(0)) dropCluster(store, cluster, true)
  store.unsettled.delete(blob)
  const pages = blob.stale.splice(0)
  const { clusterCount, extentPageCount } = blob
  if (blob.extentPages.length > extentPageCount) {
    pages.push(...blob.extentPages.subarray(extentPageCount).filter((page) => page !== 0))
    blob.extentPages = blob.extentPages.slice(0, extentPageCount)
  }
  yield* Effect.ignore(store.zeroPages(pages))
  store.releasePages(pages)
  if (blob.clusters.length > clusterCount) {
    const cut = [...blob.clusters.subarray(clusterCount).filter((cluster) => cluster !== 0)]
    blob.clusters = blob.clusters.slice(0, clusterCount)
    yield* releaseClusters(store, blob.clearMethod, cut)
  }
})

const serialize = (blob: BlobState, change: MetadataChange | undefined): ReadonlyArray<Uint8Array> | undefined => {
  const { dataRoFlags, id, internalXattrs, invalidFlags, mdRoFlags, useExtentTable, xattrs } = blob
  const isChanged = change !== undefined && !useExtentTable
  const clusters = isChanged ? blob.clusters.slice(0, blob.clusterCount) : blob.clusters.subarray(0, blob.clusterCount)
  if (isChanged) clusters[change.index] = change.cluster
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

/**
 * Takes a blob from the device. The root page goes first, alone: without it nothing leads to the rest, which a recovery then
 * finds free. When that fails the device may have the blob or not, and the memory has it.
 */
export const erase: (store: Store, blob: BlobState) => Effect.Effect<void, IoError> = Effect.fnUntraced(function* (
  store: Store,
  blob: BlobState
) {
  yield* store.markDirty
  yield* Effect.onError(Effect.andThen(store.zeroPages([blob.rootPage]), store.device.flush), () =>
    Effect.sync(() => {
      blob.dirty = true
      blob.unsure = true
    })
  )
  yield* erased(store, blob)
})

/** Its first page is gone, and so all that it had is free. */
export const erased = (store: Store, blob: BlobState): Effect.Effect<void, IoError> =>
  Effect.suspend(() => {
    blob.clusterCount = 0
    blob.extentPageCount = 0
    blob.allocatedClusters = 0
    blob.dirty = false
    blob.unsure = false
    store.usedBlobIds.delete(blob.rootPage)
    blob.stale.push(...blob.chain)
    // A new blob has no chain yet.
    if (!blob.stale.includes(blob.rootPage)) blob.stale.push(blob.rootPage)
    return tidy(store, blob)
  })
