/** From a survey to findings: what no blob can tell alone. */
import type { Bdev, IoError } from "@effect-spdk/core/Bdev"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type { BlobId } from "../driver.ts"
import { BitSet } from "../format/bitSet.ts"
import { blobIdOfPage } from "../format/layout.ts"
import type { BlobFacts } from "./blobFacts.ts"
import * as F from "./finding.ts"
import { maskPlaces, readMask } from "./reader.ts"
import type { Shared, Survey } from "./survey.ts"

/** `keep` when the clone knows it as its parent. */
export const recoveryOf = (survey: Survey, blob: BlobFacts): "keep" | "drop" | undefined => {
  const clone = blob.leftover === undefined ? undefined : survey.blobs.get(blob.leftover.clone)
  if (clone === undefined) return undefined
  return clone.parent === blob.id ? "keep" : "drop"
}

/** The masks of a clean store, as far as they can be decoded. */
export interface Masks {
  readonly pages: BitSet | undefined
  readonly clusters: BitSet | undefined
  readonly ids: BitSet | undefined
}

export const judge = Effect.fnUntraced(function* (bdev: Bdev, survey: Survey): Effect.fn.Return<Masks, IoError> {
  const { findings, sb } = survey
  const isRecovered = !sb.clean || sb.usedBlobIdMaskLength === 0
  if (isRecovered) findings.add(new F.Unclean({ because: sb.clean ? "version" : "stopped" }))
  for (const blob of survey.blobs.values()) for (const finding of blob.findings) findings.add(finding)
  judgeLineage(survey)
  judgeShared(survey)
  if (sb.superBlob !== undefined && !survey.blobs.has(sb.superBlob)) {
    findings.add(new F.SuperBlobMissing({ blob: sb.superBlob }))
  }
  const masks = yield* readMasks(bdev, survey, isRecovered)
  if (isRecovered) yield* judgeLost(bdev, survey)
  judgePages(survey, masks)
  return masks
})

const judgeLineage = (survey: Survey): void => {
  const { blobs, findings } = survey
  for (const blob of blobs.values()) {
    // A snapshot that is being made becomes read-only last.
    if (blob.parent === undefined) continue
    const parent = blobs.get(blob.parent)
    if (parent === undefined) findings.add(new F.ParentMissing({ blob: blob.id, parent: blob.parent }))
    else if (!parent.isReadOnly && parent.leftover === undefined)
      findings.add(new F.ParentWritable({ blob: blob.id, parent: parent.id }))
  }
  for (const id of cycles(blobs)) findings.add(new F.ParentCycle({ blob: id }))
  for (const blob of blobs.values()) {
    if (blob.leftover === undefined) continue
    const { clone, of } = blob.leftover
    const recovery = recoveryOf(survey, blob)
    if (recovery === undefined) {
      findings.add(
        new F.LeftoverDamaged({ blob: blob.id, rule: `is left over of 0x${clone.toString(16)}, which does not exist` })
      )
      continue
    }
    const sharedClusters = survey.shared
      .filter((shared) => shared.what === "clusters" && isPair(shared, blob.id, clone))
      .reduce((sum, shared) => sum + shared.count, 0)
    findings.add(new F.Leftover({ blob: blob.id, clone, of, recovery, sharedClusters }))
  }
}

/** Each blob is walked once: `seen` holds which walk came by. */
const cycles = (blobs: ReadonlyMap<BlobId, BlobFacts>): ReadonlyArray<BlobId> => {
  const seen = new Map<BlobId, BlobId>()
  const found: Array<BlobId> = []
  for (const start of blobs.values()) {
    let at: BlobFacts | undefined = start
    while (at !== undefined && !seen.has(at.id)) {
      seen.set(at.id, start.id)
      at = at.parent === undefined ? undefined : blobs.get(at.parent)
    }
    if (at !== undefined && seen.get(at.id) === start.id) found.push(at.id)
  }
  return found
}

const isPair = (shared: Shared, a: BlobId, b: BlobId): boolean => {
  const [one, other] = shared.blobs
  return (one === a && other === b) || (one === b && other === a)
}

/** A leftover and its clone have the same maps for a while: that is told with the leftover. */
const judgeShared = (survey: Survey): void => {
  const leftovers = [...survey.blobs.values()].filter((blob) => blob.leftover !== undefined)
  for (const shared of survey.shared) {
    if (leftovers.some((blob) => isPair(shared, blob.id, blob.leftover?.clone ?? 0))) continue
    const { blobs, count, first, what } = shared
    survey.findings.add(new F.UsedTwice({ what, blobs: [blobs[0], blobs[1]], first, count }))
  }
}

/**
 * The masks of the last unload mean nothing to a recovery. Still, a blob that they know was there, and one that was deleted since
 * has left its first page empty, or to others.
 */
const judgeLost = Effect.fnUntraced(function* (bdev: Bdev, survey: Survey): Effect.fn.Return<void, IoError> {
  const place = maskPlaces(survey.sb).find(({ name }) => name === "used blob ids")
  if (place === undefined) return
  const decoded = yield* readMask(bdev, survey.sb, place)
  // Before the first unload there is none.
  if (Result.isFailure(decoded)) return
  const known = decoded.success
  for (let page = known.firstSet(); page >= 0; page = known.firstSet(page + 1)) {
    if (survey.pages.has(page) || !survey.notEmpty.has(page)) continue
    const rule = survey.rules.get(page) ?? "is not the first of a blob"
    survey.findings.add(new F.BlobLost({ blob: blobIdOfPage(page), page, rule }))
  }
})

const readMasks = Effect.fnUntraced(function* (
  bdev: Bdev,
  survey: Survey,
  isRecovered: boolean
): Effect.fn.Return<Masks, IoError> {
  const masks: { pages?: BitSet; clusters?: BitSet; ids?: BitSet } = {}
  const found = { "used pages": survey.pages, "used clusters": survey.clusters, "used blob ids": survey.ids }
  const names = { "used pages": "pages", "used clusters": "clusters", "used blob ids": "ids" } as const
  for (const place of isRecovered ? [] : maskPlaces(survey.sb)) {
    const decoded = yield* readMask(bdev, survey.sb, place)
    if (Result.isFailure(decoded)) {
      const { rule, where } = decoded.failure
      survey.findings.add(new F.MaskDamaged({ mask: place.name, rule: `${where} ${rule}` }))
      continue
    }
    const mask = decoded.success
    masks[names[place.name]] = mask
    const used = found[place.name]
    eachRun(without(mask, used), (first, count) => survey.findings.add(new F.Lost({ mask: place.name, first, count })))
    eachRun(without(used, mask), (first, count) =>
      survey.findings.add(new F.Missing({ mask: place.name, first, count }))
    )
  }
  return { pages: masks.pages, clusters: masks.clusters, ids: masks.ids }
})

const without = (a: BitSet, b: BitSet): BitSet => {
  const difference = new BitSet(a.size)
  for (let at = 0; at < a.words.length; at++) {
    const word = (a.words[at] ?? 0) & ~(b.words[at] ?? 0)
    for (let bit = 0; word !== 0 && bit < 32; bit++) if ((word & (1 << bit)) !== 0) difference.add(at * 32 + bit)
  }
  return difference
}

const eachRun = (bits: BitSet, use: (first: number, count: number) => void): void => {
  for (let first = bits.firstSet(); first >= 0;) {
    const clear = bits.firstClear(first)
    const end = clear < 0 ? bits.size : clear
    use(first, end - first)
    first = bits.firstSet(end)
  }
}

/**
 * Pages that no chain leads to: a blob that is lost, where the masks remember one, or what was written and never used. What is
 * marked and sound counts as lost only.
 */
const judgePages = (survey: Survey, masks: Masks): void => {
  const stale = new BitSet(survey.sb.mdLength)
  for (let page = survey.notEmpty.firstSet(); page >= 0; page = survey.notEmpty.firstSet(page + 1)) {
    if (survey.pages.has(page)) continue
    const isBlob = masks.ids?.has(page) === true
    if (isBlob || (survey.unreadable.has(page) && masks.pages?.has(page) === true)) {
      const rule = survey.rules.get(page) ?? "is not the first of a blob"
      survey.findings.add(new F.PageDamaged({ page, blob: isBlob ? blobIdOfPage(page) : undefined, rule }))
    } else if (masks.pages?.has(page) !== true) stale.add(page)
  }
  // Marked as a blob and as a page, and empty: the mark of the blob alone loses nothing.
  for (let page = masks.ids?.firstSet() ?? -1; page >= 0; page = masks.ids?.firstSet(page + 1) ?? -1) {
    if (survey.notEmpty.has(page) || masks.pages?.has(page) === false) continue
    survey.findings.add(new F.PageDamaged({ page, blob: blobIdOfPage(page), rule: "is empty" }))
  }
  eachRun(stale, (first, count) => survey.findings.add(new F.StalePages({ first, count })))
}
