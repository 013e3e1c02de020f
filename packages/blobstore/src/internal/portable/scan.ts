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
import { type MdPage, mdPageName } from "../format/mdPage.ts"
import { applyExtentPages, type Chain, followChain, orFail, readChain, readMeta } from "./open.ts"
import type { Store } from "./store.ts"

/** What the load has to know of the blobs. */
export interface ScannedStore {
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
  const scanned: ScannedStore = {
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
    const chain = yield* readChain(store, root)
    if (chain.torn !== undefined) {
      claimTorn(store, chain, recovers, scanned)
      continue
    }
    const { meta, resized } = yield* readMeta(store, root)
    yield* orFail(store, recovers ? claim(store, meta, resized, scanned) : note(meta, scanned))
  }
  return scanned
})

/**
 * Which blobs can be opened: asked once after a clean load, which looks at little more than the first page of each. What is open
 * has been read.
 */
export const verify: (store: Store) => Effect.Effect<void, SpdkError> = Effect.fnUntraced(function* (store: Store) {
  const elsewhere: Array<number> = []
  const look = (window: Window) =>
    Effect.sync(() => {
      for (let page = window.first; page < window.first + window.count; page++) {
        const id = L.blobIdOfPage(page)
        if (!store.usedBlobIds.has(page) || store.unreadable.has(page)) continue
        if (store.open.has(id) || store.kept.has(id)) continue
        const found = readIn(store, window, page)
        if (found === "elsewhere") elsewhere.push(page)
        else if (Result.isFailure(found)) store.unreadable.set(page, found.failure)
      }
    })
  yield* Effect.forEach(windowsOf(store, false), (range) => readWindow(store, range, look), {
    concurrency: inFlight,
    discard: true
  })
  for (const root of elsewhere) {
    const read = yield* Effect.result(readMeta(store, root))
    if (Result.isSuccess(read)) continue
    const { reason } = read.failure
    if (reason._tag !== "Corrupted") return yield* Effect.fail(read.failure)
    store.unreadable.set(root, { where: reason.where ?? mdPageName(root), rule: reason.rule ?? "cannot be read" })
  }
  store.isVerified = true
})

/** All of a blob, where it lies in the window. */
const readIn = (store: Store, window: Window, root: number): "elsewhere" | Decoded<Read> => {
  const chain = chainIn(store, window, root)
  if (chain === "elsewhere") return chain
  if (Result.isFailure(chain)) return Result.fail(chain.failure)
  if (chain.success.torn !== undefined) return Result.fail(chain.success.torn.damage)
  const parsed = parseChain(chain.success.pages, store.limits)
  if (Result.isFailure(parsed)) return Result.fail(parsed.failure)
  const meta = parsed.success
  const extents = meta.extentPages.map((extent) => (extent === 0 ? undefined : pageIn(store, window, extent)))
  if (extents.some((extent, i) => extent === undefined && meta.extentPages[i] !== 0)) return "elsewhere"
  return Result.map(applyExtentPages(store, meta, extents), (resized) => ({ meta, resized }))
}

interface Read {
  readonly meta: ChainMeta
  readonly resized: boolean
}

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

const checkRoot = (store: Store, window: Window, page: number, scanned: ScannedStore): Found => {
  if (!store.usedBlobIds.has(page)) return "none"
  const at = (page - window.first) * store.pageBytes
  if (!isRoot(window.view, at, page)) return damaged(mdPageName(page), "is not the first page of its blob")
  if (!hasItsCrc(window, at)) return damaged(mdPageName(page), "has a wrong CRC")
  if (window.view.getUint32(at + L.mdPageOffset.next, true) === L.noPage && !mayHaveParent(window.view, at)) return good
  const chain = chainIn(store, window, page)
  if (chain === "elsewhere") return chain
  if (Result.isSuccess(chain) && chain.success.torn !== undefined) {
    claimTorn(store, chain.success, false, scanned)
    return good
  }
  return Result.flatMap(
    Result.flatMap(chain, ({ pages }) => parseChain(pages, store.limits)),
    (meta) => note(meta, scanned)
  )
}

const recoverRoot = (store: Store, window: Window, page: number, scanned: ScannedStore): Found => {
  const at = (page - window.first) * store.pageBytes
  // What is torn was never a blob.
  if (!isRoot(window.view, at, page) || !hasItsCrc(window, at)) return "none"
  const chain = chainIn(store, window, page)
  if (chain === "elsewhere") return chain
  if (Result.isSuccess(chain) && chain.success.torn !== undefined) {
    claimTorn(store, chain.success, true, scanned)
    return good
  }
  const read = readIn(store, window, page)
  if (read === "elsewhere") return read
  return Result.flatMap(read, ({ meta, resized }) => claim(store, meta, resized, scanned))
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

const chainIn = (store: Store, window: Window, root: number): "elsewhere" | Decoded<Chain> => {
  const pages: Array<MdPage> = []
  for (let next: number | undefined = root; next !== undefined;) {
    const bytes = pageIn(store, window, next)
    if (bytes === undefined) return "elsewhere"
    const followed: ReturnType<typeof followChain> = followChain(store, root, bytes, next, pages.length)
    if ("torn" in followed) return Result.succeed({ pages, torn: followed.torn })
    if (Result.isFailure(followed.page)) return Result.fail(followed.page.failure)
    const page: MdPage = followed.page.success
    pages.push(page)
    next = page.next
  }
  return Result.succeed({ pages, torn: undefined })
}

/**
 * A blob whose chain ends in a page that is empty, torn or another's: SPDK deletes the pages of a chain all at once, and a stop may
 * leave the first. As with SPDK the store loads, the blob cannot be opened, and what is known of it stays its own.
 */
const claimTorn = (store: Store, { pages, torn }: Chain, recovers: boolean, scanned: ScannedStore): void => {
  const root = pages[0]?.index ?? 0
  if (torn !== undefined) store.unreadable.set(root, torn.damage)
  // Otherwise the chain would lead into whatever is written there next.
  if (recovers && torn?.isFree === true) store.usedPages.add(torn.page)
  const internalXattrs = new Map<string, Uint8Array>()
  let isThin = false
  if (recovers) store.usedBlobIds.add(root)
  for (const page of pages) {
    if (recovers) store.usedPages.add(page.index)
    for (const descriptor of page.descriptors) {
      if (descriptor._tag === "Flags") isThin = (descriptor.invalidFlags & L.invalidFlag.thin) !== 0
      if (descriptor._tag === "XattrInternal") internalXattrs.set(descriptor.name, descriptor.value)
      if (!recovers) continue
      if (descriptor._tag === "ExtentTable") for (const entry of descriptor.entries) store.usedPages.add(entry.page)
      if (descriptor._tag !== "ExtentRle") continue
      for (const { cluster, length } of descriptor.extents) {
        // It may claim more than there is.
        const end = Math.min(cluster + length, store.usedClusters.size)
        if (cluster !== 0) for (let i = cluster; i < end; i++) store.usedClusters.add(i)
      }
    }
  }
  const id = L.blobIdOfPage(root)
  const parent = idXattr({ id, internalXattrs }, L.internalXattr.snapshot)
  if (isThin && Result.isSuccess(parent) && parent.success !== undefined) {
    scanned.parents.push({ id, parent: parent.success })
  }
}

const note = (meta: ChainMeta, scanned: ScannedStore): Decoded<void> => {
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
const claim = (store: Store, meta: ChainMeta, resized: boolean, scanned: ScannedStore): Decoded<void> => {
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
