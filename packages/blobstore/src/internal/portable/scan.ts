/**
 * Reading the metadata of a whole store: in large requests, several in flight, looking closer only at pages that a blob
 * begins with. After a clean unload the masks are there, and of a blob only its parent is of interest; in a recovery everything a
 * blob has is claimed in empty masks.
 */
import type { SpdkError } from "@effect-spdk/core/SpdkError"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type { BlobId } from "../driver.ts"
import { type ChainMeta, idXattr, parseChain } from "../format/blobMeta.ts"
import { pageCrc } from "../format/crc32c.ts"
import { damaged, type Decoded } from "../format/damage.ts"
import * as L from "../format/layout.ts"
import { decodeMdPage, type MdPage, mdPageName } from "../format/mdPage.ts"
import { applyExtentPages, orFail, readMeta } from "./open.ts"
import type { Store } from "./store.ts"

/** What the load has to know of the blobs. */
export interface Scanned {
  readonly parents: Array<{ readonly id: BlobId; readonly parent: BlobId }>
  /** Snapshots that were being made or removed, and the blob on top of each. */
  readonly leftovers: Array<{ readonly id: BlobId; readonly clone: BlobId }>
  /** A crash came between the extent pages and the table that counts their clusters. */
  readonly resized: Array<BlobId>
  /** In a recovery: what more than one blob has. */
  readonly sharedClusters: Set<number>
  readonly sharedPages: Set<number>
}

type OnProgress = (done: number, total: number | undefined) => void

const inFlight = 4

/** Metadata pages in memory, from `first` on. */
interface Window {
  readonly bytes: Uint8Array
  /** Of all of them: one for each page would cost more than looking at the page. */
  readonly view: DataView
  readonly first: number
  readonly count: number
}

const pageIn = (store: Store, window: Window, page: number): Uint8Array | undefined => {
  const at = (page - window.first) * store.pageBytes
  return page >= window.first && page < window.first + window.count
    ? window.bytes.subarray(at, at + L.pageBytes)
    : undefined
}

export const scan = Effect.fnUntraced(function* (store: Store, recovers: boolean, onProgress: OnProgress | undefined) {
  const scanned: Scanned = {
    parents: [],
    leftovers: [],
    resized: [],
    sharedClusters: new Set(),
    sharedPages: new Set()
  }
  const elsewhere: Array<number> = []
  const total = recovers ? undefined : store.usedBlobIds.count
  let done = 0
  const look = (window: Window): Effect.Effect<void, SpdkError> => {
    let damage: Decoded<unknown> = Result.void
    for (let page = window.first; page < window.first + window.count; page++) {
      const found = recovers ? recoverRoot(store, window, page, scanned) : checkRoot(store, window, page, scanned)
      if (found === "none") continue
      done++
      if (found === "elsewhere") elsewhere.push(page)
      else if (Result.isFailure(found)) {
        damage = found
        break
      }
    }
    return Effect.andThen(
      orFail(store, damage),
      Effect.sync(() => onProgress?.(done, total))
    )
  }
  yield* Effect.forEach(windowsOf(store, recovers), (range) => readWindow(store, range, look), {
    concurrency: inFlight,
    discard: true
  })
  for (const root of elsewhere) {
    const { meta, resized } = yield* readMeta(store, root)
    yield* orFail(store, recovers ? claim(store, meta, resized, scanned) : note(meta, scanned))
  }
  return scanned
})

interface Range {
  readonly first: number
  readonly count: number
}

/** All pages in a recovery, else those around the first pages of blobs. */
const windowsOf = (store: Store, recovers: boolean): ReadonlyArray<Range> => {
  const most = Math.floor(store.device.chunks.lengthBytes / store.pageBytes)
  const pages = store.superBlock.mdLength
  const windows: Array<Range> = []
  for (let first = 0; ;) {
    if (!recovers) first = store.usedBlobIds.firstSet(first)
    if (first < 0 || first >= pages) return windows
    let count = Math.min(most, pages - first)
    if (!recovers) {
      // Up to the last one in reach.
      while (count > 1 && !store.usedBlobIds.has(first + count - 1)) count--
    }
    windows.push({ first, count })
    first += count
  }
}

const readWindow = (store: Store, range: Range, look: (window: Window) => Effect.Effect<void, SpdkError>) =>
  store.device.withChunk((chunk) => {
    const part = chunk.slice(0, range.count * store.pageBytes)
    return Effect.andThen(
      store.device.bdev.read(store.pageOffset(range.first), part),
      Effect.suspend(() => look({ bytes: part.bytes, view: L.viewOf(part.bytes), ...range }))
    )
  })

/** `none`: no blob begins here. `elsewhere`: it goes on outside of the window. */
type Found = "none" | "elsewhere" | Decoded<unknown>

const checkRoot = (store: Store, window: Window, page: number, scanned: Scanned): Found => {
  if (!store.usedBlobIds.has(page)) return "none"
  const at = (page - window.first) * store.pageBytes
  if (!isRoot(window.view, at, page)) return damaged(mdPageName(page), "is not the first page of its blob")
  if (!hasItsCrc(window, at)) return damaged(mdPageName(page), "has a wrong CRC")
  if (window.view.getUint32(at + L.mdPageOffset.next, true) === L.noPage && !mayHaveParent(window.view, at)) return good
  const chain = chainIn(store, window, page)
  if (chain === "elsewhere") return chain
  return Result.flatMap(
    Result.flatMap(chain, (pages) => parseChain(pages, store.limits)),
    (meta) => note(meta, scanned)
  )
}

const recoverRoot = (store: Store, window: Window, page: number, scanned: Scanned): Found => {
  const at = (page - window.first) * store.pageBytes
  // What is torn was never a blob.
  if (!isRoot(window.view, at, page) || !hasItsCrc(window, at)) return "none"
  const chain = chainIn(store, window, page)
  if (chain === "elsewhere") return chain
  const parsed = Result.flatMap(chain, (pages) => parseChain(pages, store.limits))
  if (Result.isFailure(parsed)) return parsed
  const meta = parsed.success
  const extents = meta.extentPages.map((extent) => (extent === 0 ? undefined : pageIn(store, window, extent)))
  if (extents.some((extent, i) => extent === undefined && meta.extentPages[i] !== 0)) return "elsewhere"
  return Result.flatMap(applyExtentPages(store, meta, extents), (resized) => claim(store, meta, resized, scanned))
}

const good: Decoded<void> = Result.void

/** By the id and the sequence only: cheap enough for every page. */
const isRoot = (view: DataView, at: number, page: number): boolean =>
  view.getUint32(at, true) === page && view.getUint32(at + 4, true) === 1 && view.getUint32(at + 8, true) === 0

const hasItsCrc = (window: Window, at: number): boolean =>
  window.view.getUint32(at + L.mdPageOffset.crc, true) === pageCrc(window.bytes.subarray(at, at + L.pageBytes))

/** Flags come first, and a parent or a leftover is an internal xattr. */
const mayHaveParent = (view: DataView, at: number): boolean => {
  const descriptors = at + L.mdPageOffset.descriptors
  if (view.getUint8(descriptors) !== L.descriptorType.flags) return true
  return (view.getUint8(descriptors + L.descriptorHeaderBytes) & L.invalidFlag.internalXattr) !== 0
}

const chainIn = (store: Store, window: Window, root: number): "elsewhere" | Decoded<ReadonlyArray<MdPage>> => {
  const pages: Array<MdPage> = []
  for (let next: number | undefined = root; next !== undefined;) {
    const bytes = pageIn(store, window, next)
    if (bytes === undefined) return "elsewhere"
    const page: Decoded<MdPage> = decodeMdPage(bytes, next, store.superBlock.mdLength)
    if (Result.isFailure(page)) return Result.fail(page.failure)
    if (page.success.sequence !== pages.length) return damaged(mdPageName(next), "is out of its sequence")
    pages.push(page.success)
    next = page.success.next
  }
  return Result.succeed(pages)
}

const note = (meta: ChainMeta, scanned: Scanned): Decoded<void> => {
  const { snapshot, snapshotInProgress, snapshotPendingRemoval } = L.internalXattr
  for (const name of [snapshotPendingRemoval, snapshotInProgress]) {
    const clone = idXattr(meta, name)
    if (Result.isFailure(clone)) return Result.fail(clone.failure)
    if (clone.success !== undefined) {
      scanned.leftovers.push({ id: meta.id, clone: clone.success })
      return Result.void
    }
  }
  const isThin = (meta.invalidFlags & L.invalidFlag.thin) !== 0
  const isExternal = (meta.invalidFlags & L.invalidFlag.externalSnapshot) !== 0
  const parent = idXattr(meta, snapshot)
  if (Result.isFailure(parent)) return Result.fail(parent.failure)
  if (parent.success !== undefined && isThin && !isExternal) {
    scanned.parents.push({ id: meta.id, parent: parent.success })
  }
  return Result.void
}

/** Extent pages and clusters may have two owners while a snapshot is being made or removed; pages of a chain never. */
const claim = (store: Store, meta: ChainMeta, resized: boolean, scanned: Scanned): Decoded<void> => {
  if (meta.unknownDescriptors.length > 0) {
    return damaged(mdPageName(meta.pages[0] ?? 0), `has descriptors of unknown type ${meta.unknownDescriptors[0]}`)
  }
  store.usedBlobIds.add(meta.pages[0] ?? 0)
  for (const page of meta.pages) {
    if (!store.usedPages.add(page)) return damaged(mdPageName(page), "belongs to two blobs")
  }
  for (const page of meta.extentPages) {
    if (page !== 0 && !store.usedPages.add(page)) scanned.sharedPages.add(page)
  }
  for (const cluster of meta.clusters) {
    if (cluster !== 0 && !store.usedClusters.add(cluster)) scanned.sharedClusters.add(cluster)
  }
  if (resized) scanned.resized.push(meta.id)
  return note(meta, scanned)
}
