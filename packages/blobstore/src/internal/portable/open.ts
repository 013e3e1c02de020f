/**
 * Opening and closing blobs. A blob is in memory once; the blobs on top of it hold it open as a user does.
 *
 * Everything here runs under the store's lock.
 */
import * as Bdev from "@effect-spdk/core/Bdev"
import type { IoError } from "@effect-spdk/core/Bdev"
import type { SpdkError } from "@effect-spdk/core/SpdkError"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import type { BlobId, ClearMethod } from "../driver.ts"
import { applyExtentPage, type ChainMeta, idXattr, parseChain } from "../format/blobMeta.ts"
import { pageCrc } from "../format/crc32c.ts"
import { type Damage, damaged, type Decoded } from "../format/damage.ts"
import * as L from "../format/layout.ts"
import { decodeExtentPage, decodeMdPage, type MdPage, mdPageName } from "../format/mdPage.ts"
import { type Backing, BlobState, clearMethodOf, externalName } from "./blob.ts"
import { corrupted, notFound, refused } from "./errors.ts"
import { persist, persistUnflushed } from "./persist.ts"
import type { Store } from "./store.ts"

const operation = "Blobstore.open"

export const orFail = <A>(store: Store, decoded: Decoded<A>): Effect.Effect<A, SpdkError> =>
  Result.isSuccess(decoded)
    ? Effect.succeed(decoded.success)
    : Effect.fail(corrupted(operation, store.device.bdev.name, decoded.failure))

/** The page of an id that is in use. */
export const pageOf = (store: Store, id: BlobId): number | undefined => {
  const page = L.pageOfBlobId(id)
  return page !== undefined && store.usedBlobIds.has(page) ? page : undefined
}

/** `torn`: why it ends early, and where. */
export interface Chain {
  readonly pages: ReadonlyArray<MdPage>
  readonly torn: Torn | undefined
}

/** A page that is empty, cut in the middle or another's, where the next of a chain should be. */
export interface Torn {
  readonly page: number
  readonly isFree: boolean
  readonly damage: Damage
}

/** The page at this place of the chain of a root. A root that is torn begins no chain. */
export const followChain = (
  store: Store,
  root: number,
  bytes: Uint8Array,
  index: number,
  sequence: number
): { readonly page: Decoded<MdPage> } | { readonly torn: Torn } => {
  const torn = (isFree: boolean, rule: string) => ({
    torn: { page: index, isFree, damage: { where: mdPageName(index), rule } }
  })
  if (sequence > 0 && L.viewOf(bytes).getUint32(L.mdPageOffset.crc, true) !== pageCrc(bytes)) {
    return torn(true, "has a wrong CRC")
  }
  const page = decodeMdPage(bytes, index, store.superBlock.mdLength)
  if (Result.isFailure(page)) return { page }
  if (page.success.id !== L.blobIdOfPage(root))
    return torn(false, `is a page of blob 0x${page.success.id.toString(16)}`)
  if (page.success.sequence === sequence) return { page }
  return { page: damaged(index, `has sequence ${page.success.sequence}, not ${sequence}`) }
}

/** The pages of a chain, from its root on. The sequence rises, so that a chain that leads back to itself ends. */
export const readChain: (store: Store, root: number) => Effect.Effect<Chain, SpdkError> = Effect.fnUntraced(function* (
  store: Store,
  root: number
) {
  const pages: Array<MdPage> = []
  for (let next: number | undefined = root; next !== undefined;) {
    const bytes: Uint8Array = yield* store.readPage(next)
    const followed: ReturnType<typeof followChain> = followChain(store, root, bytes, next, pages.length)
    if ("torn" in followed) return { pages, torn: followed.torn }
    const page: MdPage = yield* orFail(store, followed.page)
    pages.push(page)
    next = page.next
  }
  return { pages, torn: undefined }
})

/** The chain and its extent pages; `resized` when a crash left them of different sizes. */
export const readMeta = Effect.fnUntraced(function* (store: Store, root: number) {
  const { pages, torn } = yield* readChain(store, root)
  if (torn !== undefined) return yield* orFail(store, Result.fail(torn.damage))
  const meta = yield* orFail(store, parseChain(pages, store.limits))
  const found = yield* Effect.forEach(
    meta.extentPages,
    (page) => (page === 0 ? Effect.undefined : store.readPage(page)),
    { concurrency: 8 }
  )
  const applied = yield* orFail(store, applyExtentPages(store, meta, found))
  return { meta, resized: applied }
})

/** `bytes` of each extent page, undefined where the table has none. Whether a size differs from the table's. */
export const applyExtentPages = (
  store: Store,
  meta: ChainMeta,
  bytes: ReadonlyArray<Uint8Array | undefined>
): Decoded<boolean> => {
  const clusters = meta.clusters.length
  let resized = false
  for (const [index, page] of bytes.entries()) {
    if (page === undefined) continue
    const more = Result.flatMap(decodeExtentPage(page, meta.extentPages[index] ?? 0), (extents) =>
      applyExtentPage(meta, index, extents, store.limits)
    )
    if (Result.isFailure(more)) return Result.fail(more.failure)
    resized ||= more.success !== 0
  }
  return Result.succeed(resized || meta.clusters.length !== clusters)
}

const blobOf = (store: Store, meta: ChainMeta, clearMethod: ClearMethod): BlobState => {
  const blob = new BlobState(meta.id, store.nameOf(meta.id))
  // A copy, because the meta's may be a part of a longer array, and an array longer than the blob has clusters to release.
  blob.clusters = meta.clusters.slice()
  blob.clusterCount = meta.clusters.length
  blob.persistedClusters = meta.clusters.length
  blob.extentPages = Uint32Array.from(meta.extentPages)
  blob.extentPageCount = meta.extentPages.length
  blob.persistedExtentPages = meta.extentPages.length
  blob.useExtentTable = meta.useExtentTable
  blob.chain = [...meta.pages]
  blob.invalidFlags = meta.invalidFlags
  blob.dataRoFlags = meta.dataRoFlags
  blob.mdRoFlags = meta.mdRoFlags
  blob.dataReadOnly = meta.dataReadOnly
  blob.mdReadOnly = meta.mdReadOnly
  blob.xattrs = meta.xattrs
  blob.internalXattrs = meta.internalXattrs
  blob.clearMethod = clearMethod === "default" ? clearMethodOf(meta.mdRoFlags) : clearMethod
  blob.countAllocated()
  return blob
}

interface OpenOptions {
  readonly clearMethod?: ClearMethod
  /** False: without what lies under it, for blobs whose data nobody reads. */
  readonly backing?: boolean
  /** Whether the bdev that it lies over itself has to be there. Asked of nothing below it, nor of a blob that is open already. */
  readonly needsExternal?: boolean
}

export const openBlob: (store: Store, id: BlobId, options?: OpenOptions) => Effect.Effect<BlobState, SpdkError> =
  Effect.fnUntraced(function* (store, id, options) {
    const root = pageOf(store, id)
    if (root === undefined) return yield* Effect.fail(notFound(operation, store.nameOf(id)))
    const open = store.open.get(id)
    if (open !== undefined) {
      open.openCount++
      return open
    }
    const kept = store.kept.get(id)
    const blob = kept ?? blobOf(store, (yield* readMeta(store, root)).meta, options?.clearMethod ?? "default")
    yield* openBacking(store, blob, options ?? {})
    blob.openCount = 1
    store.open.set(id, blob)
    store.kept.delete(id)
    return blob
  })

const openBacking = Effect.fnUntraced(function* (
  store: Store,
  blob: BlobState,
  { backing = true, needsExternal = false }: OpenOptions
) {
  if (blob.isExternalClone) {
    blob.parentId = "external"
    if (backing) yield* openExternal(store, blob, needsExternal)
    return
  }
  const parent = blob.isThin ? yield* orFail(store, idXattr(blob, L.internalXattr.snapshot)) : undefined
  if (parent === undefined) return
  blob.parentId = parent
  if (!backing) return
  if (parent === blob.id) {
    return yield* orFail(store, Result.fail({ where: `blob ${blob.id}`, rule: "is its own parent" }))
  }
  if (store.opening.has(parent)) {
    return yield* orFail(store, Result.fail({ where: `blob ${blob.id}`, rule: "is its own ancestor" }))
  }
  store.opening.add(blob.id)
  const below = yield* openBlob(store, parent).pipe(Effect.ensuring(Effect.sync(() => store.opening.delete(blob.id))))
  blob.backing = { _tag: "Blob", blob: below }
})

/** Opens the bdev that the blob names. Where it cannot, and none is needed, the blob does without. */
const openExternal = Effect.fnUntraced(function* (store: Store, blob: BlobState, isNeeded: boolean) {
  const name = externalName(blob.internalXattrs.get(L.internalXattr.externalSnapshot))
  if (name === "") {
    return yield* orFail(store, Result.fail({ where: `blob ${blob.id}`, rule: "names no external snapshot" }))
  }
  const opened = externalBdev(store, blob.id, name)
  const external: Effect.Effect<Backing, SpdkError> = Effect.map(opened, (bdev) => ({ _tag: "External", ...bdev }))
  blob.backing = yield* isNeeded ? external : Effect.orElseSucceed(external, (): Backing => ({ _tag: "Missing", name }))
})

/** Why the bdev cannot lie under a blob; undefined when it can. */
const misfit = (store: Store, bdev: Bdev.Bdev): string | undefined => {
  if (bdev.sizeBytes % store.clusterBytes !== 0) return `has ${bdev.sizeBytes} bytes, not whole clusters`
  return store.ioUnitBytes % bdev.blockSize === 0
    ? undefined
    : `has blocks of ${bdev.blockSize} bytes, which do not fit in io units of ${store.ioUnitBytes}`
}

/** Opens the bdev `name` for the scope, unless it cannot lie under a blob: `field` is what named it. */
export const openFitting = (store: Store, by: string, resource: string, field: string, name: string) =>
  Bdev.open(name).pipe(
    Effect.provide(store.services),
    Effect.flatMap((bdev) => {
      const rule = misfit(store, bdev)
      return rule === undefined ? Effect.succeed(bdev) : Effect.fail(refused(by, resource, field, rule, name))
    })
  )

export const externalBdev = Effect.fnUntraced(function* (store: Store, id: BlobId, name: string) {
  const scope = yield* Scope.make()
  const open = openFitting(store, operation, store.nameOf(id), "externalSnapshot", name)
  const bdev = yield* Effect.onError(Scope.provide(open, scope), () => Scope.close(scope, Exit.void))
  return { bdev, scope }
})

/** Lets go of what lies under the blob. */
const closeBacking = (store: Store, blob: BlobState): Effect.Effect<void, IoError> =>
  Effect.suspend(() => {
    const { backing } = blob
    blob.backing = undefined
    return backing === undefined ? Effect.void : letGo(store, backing)
  })

export const letGo = (store: Store, backing: Backing): Effect.Effect<void, IoError> => {
  switch (backing._tag) {
    case "Blob":
      return closeBlob(store, backing.blob)
    case "External":
      return Scope.close(backing.scope, Exit.void)
    case "Missing":
      return Effect.void
  }
}

/** Syncs what is dirty. The last one takes the blob from memory, even when that fails. */
export const closeBlob = (store: Store, blob: BlobState): Effect.Effect<void, IoError> =>
  closeWith(store, blob, persist(store, blob))

/** The same, without the lock when it ends: true when `flushLater` has to follow. */
export const closeUnflushed = (store: Store, blob: BlobState): Effect.Effect<boolean, IoError> =>
  closeWith(store, blob, persistUnflushed(store, blob))

const closeWith = <A>(store: Store, blob: BlobState, write: Effect.Effect<A, IoError>): Effect.Effect<A, IoError> =>
  Effect.ensuring(
    write,
    Effect.suspend(() => {
      if (--blob.openCount > 0) return Effect.void
      const isOpen = store.open.get(blob.id) === blob
      if (isOpen) store.open.delete(blob.id)
      // What could not be written stays in memory: the device may have nothing that can be read.
      if (isOpen && (blob.dirty || blob.isUnsettled)) store.kept.set(blob.id, blob)
      return Effect.ignore(closeBacking(store, blob))
    })
  )

/** Runs with the blob open. A failure of `use` counts before one of closing. */
export const withBlob = <A, E>(
  store: Store,
  id: BlobId,
  use: (blob: BlobState) => Effect.Effect<A, E>,
  options?: OpenOptions
): Effect.Effect<A, E | SpdkError> =>
  Effect.flatMap(openBlob(store, id, options), (blob) =>
    use(blob).pipe(
      Effect.onError(() => Effect.ignore(closeBlob(store, blob))),
      Effect.tap(() => closeBlob(store, blob))
    )
  )
