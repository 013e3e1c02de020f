/**
 * What can be put right without guessing: leftovers of snapshots as a load would treat them, sizes that were cut in half, and the
 * masks. It runs with the store marked as not unloaded, in the order in which SPDK writes, so that a cut anywhere leaves a store
 * that a load recovers.
 */
import type { Bdev, IoError } from "@effect-spdk/core/Bdev"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type { BlobId } from "../driver.ts"
import type { BitSet } from "../format/bitSet.ts"
import { type BlobMeta, encodeExtentPage, serializeChain } from "../format/blobMeta.ts"
import { clustersPerExtentPage, dataRoFlag, internalXattr, pageBytes, pageOfBlobId } from "../format/layout.ts"
import { encodeMask } from "../format/mask.ts"
import { decodeMdPage, encodeMdPage } from "../format/mdPage.ts"
import { encodeSuperBlock } from "../format/superBlock.ts"
import type { BlobFacts } from "./blobFacts.ts"
import { isThin } from "./blobFacts.ts"
import type { Finding } from "./finding.ts"
import { type Masks, recoveryOf } from "./judge.ts"
import { type BlobRead, readBlob } from "./readBlob.ts"
import { maskPlaces, readSuper } from "./reader.ts"
import type { Action } from "./report.ts"
import { type Survey, survey } from "./survey.ts"

/** With one of these, what is in use is not known, and what is marked is better left. */
const unknowns = new Set<Finding["_tag"]>([
  "PageDamaged",
  "BlobLost",
  "BlobDamaged",
  "ExtentPageDamaged",
  "DescriptorUnknown",
  // Marked as unloaded, no load would look for it again.
  "UsedTwice"
])

interface Repair {
  readonly bdev: Bdev
  readonly found: Survey
  readonly actions: Array<Action>
  /** Pages that are used, or were written by this repair. */
  readonly pages: BitSet
}

export const repairStore = Effect.fnUntraced(function* (
  bdev: Bdev,
  found: Survey,
  masks: Masks
): Effect.fn.Return<ReadonlyArray<Action>, IoError> {
  const repair: Repair = { bdev, found, actions: [], pages: found.pages.copy() }
  const tags = found.findings.all.map((finding) => finding._tag)
  if (found.findings.omitted > 0 || tags.some((tag) => unknowns.has(tag))) {
    yield* addMarks(repair, masks)
    return repair.actions
  }
  const isUnclean = !found.sb.clean && found.sb.usedBlobIdMaskLength > 0
  const needs = ["Lost", "Missing", "MaskDamaged", "Leftover", "SizeDiffers"] satisfies Array<Finding["_tag"]>
  if (!isUnclean && !needs.some((tag) => tags.includes(tag))) return repair.actions
  yield* writeSuper(bdev, false)
  const leftovers = [...found.blobs.values()].filter((blob) => blob.leftover !== undefined)
  for (const blob of leftovers) yield* settleLeftover(repair, blob)
  const dropped = new Set(repair.actions.filter(({ kind }) => kind === "leftover dropped").map(({ blob }) => blob))
  for (const blob of found.blobs.values()) {
    if (blob.sizeDiffers && !dropped.has(blob.id)) yield* settleSize(repair, blob.id)
  }
  yield* flush(bdev)
  yield* rebuildMasks(repair)
  return repair.actions
})

const flush = (bdev: Bdev): Effect.Effect<void, IoError> => (bdev.supports("flush") ? bdev.flush() : Effect.void)

const writeSuper = Effect.fnUntraced(function* (bdev: Bdev, clean: boolean): Effect.fn.Return<void, IoError> {
  const { bytes, decoded } = yield* readSuper(bdev)
  if (Result.isFailure(decoded) || decoded.success.clean === clean) return
  yield* bdev.writeBytes(0, encodeSuperBlock({ ...decoded.success, clean }, bytes))
  yield* flush(bdev)
})

const say = (repair: Repair, kind: Action["kind"], message: string, blob?: BlobId): void => {
  repair.actions.push(blob === undefined ? { kind, message } : { kind, message, blob })
}

const hex = (id: BlobId): string => `0x${id.toString(16)}`

const readAgain = Effect.fnUntraced(function* (
  { found }: Repair,
  id: BlobId
): Effect.fn.Return<BlobRead | undefined, IoError> {
  const page = pageOfBlobId(id)
  if (page === undefined || page >= found.sb.mdLength) return undefined
  // The part that is loaded may be of before this repair.
  const bytes = yield* found.reader.fresh(page)
  const first = Result.getOrUndefined(decodeMdPage(bytes, page, found.sb.mdLength))
  return first === undefined ? undefined : yield* readBlob(found.reader, found.limits, first)
})

const settleLeftover = Effect.fnUntraced(function* (repair: Repair, facts: BlobFacts): Effect.fn.Return<void, IoError> {
  const recovery = recoveryOf(repair.found, facts)
  const snapshot = yield* readAgain(repair, facts.id)
  const clone = facts.leftover === undefined ? undefined : yield* readAgain(repair, facts.leftover.clone)
  if (recovery === undefined || snapshot?.meta === undefined || clone?.meta === undefined) return
  if (recovery === "drop") {
    // Without its first page the others belong to nobody. The clone keeps what both had.
    const [first = 0, ...others] = snapshot.pages
    const kept = new Set(clone.pages)
    yield* zero(repair, first)
    for (const page of others) if (!kept.has(page)) yield* zero(repair, page)
    return say(repair, "leftover dropped", `deleted the orphan snapshot ${hex(facts.id)}`, facts.id)
  }
  if (yield* returnClusters(repair, snapshot.meta.clusters, clone)) {
    const internalXattrs = new Map(snapshot.meta.internalXattrs)
    internalXattrs.delete(internalXattr.snapshotInProgress)
    internalXattrs.delete(internalXattr.snapshotPendingRemoval)
    const dataRoFlags = snapshot.meta.dataRoFlags | dataRoFlag.readOnly
    const written = yield* rewriteChain(repair, { ...snapshot.meta, internalXattrs, dataRoFlags }, snapshot.meta.pages)
    if (written) say(repair, "leftover kept", `removed the mark of the snapshot ${hex(facts.id)}`, facts.id)
  }
})

/**
 * A clone that was about to take over the clusters of its snapshot has some of them in its extent pages already. It gives
 * them back and reads them through its parent, as before. Answers whether the two have nothing in common now.
 */
const returnClusters = Effect.fnUntraced(function* (
  repair: Repair,
  parents: Uint32Array,
  clone: BlobRead
): Effect.fn.Return<boolean, IoError> {
  const { meta } = clone
  if (meta === undefined) return false
  const own = new Set(parents)
  const changed = new Set<number>()
  const clusters = meta.clusters.map((cluster, i) => {
    if (cluster === 0 || !own.has(cluster)) return cluster
    changed.add(Math.floor(i / clustersPerExtentPage))
    return 0
  })
  if (changed.size === 0) return true
  // At another place of the blob the same cluster would be a different damage, and SPDK writes only tables here.
  const isSame = meta.clusters.every((cluster, i) => !own.has(cluster) || cluster === 0 || parents[i] === cluster)
  if (!isSame || !isThin(meta) || !meta.useExtentTable) return false
  for (const i of changed) {
    const page = meta.extentPages[i] ?? 0
    yield* repair.bdev.writeBytes(
      repair.found.reader.offsetBytes(page),
      encodeExtentPage(meta.id, i * clustersPerExtentPage, clusters)
    )
  }
  yield* flush(repair.bdev)
  say(repair, "clusters returned", `blob ${hex(meta.id)} gave the clusters of its snapshot back`, meta.id)
  return true
})

const settleSize = Effect.fnUntraced(function* (repair: Repair, id: BlobId): Effect.fn.Return<void, IoError> {
  const blob = yield* readAgain(repair, id)
  if (blob?.meta === undefined) return
  if (yield* rewriteChain(repair, blob.meta, blob.meta.pages)) {
    say(
      repair,
      "size settled",
      `set the size in the chain of blob ${hex(id)} to ${blob.meta.clusters.length} clusters`,
      id
    )
  }
})

/** New pages first, then the first page in its place, then the old ones are cleared: as SPDK. False: there is no free page. */
const rewriteChain = Effect.fnUntraced(function* (
  repair: Repair,
  meta: BlobMeta,
  old: ReadonlyArray<number>
): Effect.fn.Return<boolean, IoError> {
  const areas = Result.getOrUndefined(serializeChain(meta))
  if (areas === undefined) return false
  const pages = old.slice(0, 1)
  for (let at = 0; pages.length < areas.length; at++) {
    at = repair.pages.firstClear(at)
    if (at < 0) return false
    pages.push(at)
  }
  for (let i = areas.length - 1; i >= 0; i--) {
    const page = pages[i] ?? 0
    repair.pages.add(page)
    const header = { id: meta.id, sequence: i, next: pages[i + 1] }
    if (i === 0) yield* flush(repair.bdev)
    yield* repair.bdev.writeBytes(
      repair.found.reader.offsetBytes(page),
      encodeMdPage(header, areas[i] ?? new Uint8Array(0))
    )
  }
  yield* flush(repair.bdev)
  for (const page of old.slice(1)) yield* zero(repair, page)
  return true
})

const zero = (repair: Repair, page: number): Effect.Effect<void, IoError> =>
  repair.bdev.writeBytes(repair.found.reader.offsetBytes(page), new Uint8Array(pageBytes))

/** From the metadata as it is now, and then the store is as if it had been unloaded. */
const rebuildMasks = Effect.fnUntraced(function* (repair: Repair): Effect.fn.Return<void, IoError> {
  const { bdev } = repair
  const now = yield* survey(bdev, { ...repair.found.sb, clean: false })
  yield* writeMasks(repair, now)
  yield* writeSuper(bdev, true)
  say(repair, "masks rebuilt", "rewrote the masks from the metadata, and marked the store as unloaded")
})

const writeMasks = Effect.fnUntraced(function* (
  repair: Repair,
  marks: { readonly pages: BitSet; readonly clusters: BitSet; readonly ids: BitSet }
): Effect.fn.Return<void, IoError> {
  const { sb } = repair.found
  const bits = { "used pages": marks.pages, "used clusters": marks.clusters, "used blob ids": marks.ids }
  for (const { length, name, start, type } of maskPlaces(sb)) {
    yield* repair.bdev.writeBytes(start * sb.mdPageSize, encodeMask(type, bits[name], length, sb.mdPageSize))
  }
  yield* flush(repair.bdev)
})

/** What is certainly used is marked, and what is marked stays so: a damaged blob may be using it. */
const addMarks = Effect.fnUntraced(function* (repair: Repair, masks: Masks): Effect.fn.Return<void, IoError> {
  const { clusters, ids, pages } = masks
  const isMissing = repair.found.findings.all.some((finding) => finding._tag === "Missing")
  if (clusters === undefined || ids === undefined || pages === undefined || !isMissing) return
  const { found } = repair
  yield* writeMasks(repair, {
    pages: union(pages, found.pages),
    clusters: union(clusters, found.clusters),
    ids: union(ids, found.ids)
  })
  say(
    repair,
    "marks added",
    "marked the pages and clusters in use; did not rebuild the masks, because some of the metadata is unknown"
  )
})

const union = (a: BitSet, b: BitSet): BitSet => {
  const both = a.copy()
  for (let i = b.firstSet(); i >= 0; i = b.firstSet(i + 1)) both.add(i)
  return both
}
