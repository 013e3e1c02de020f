/**
 * What SPDK's load never comes back from. It follows chains of metadata pages and lines of parents to their end, and some have none;
 * it reads pages and clusters that the store does not have; it takes lengths on trust. So the metadata is read before SPDK does it,
 * in large parts. Refused is what SPDK would spin on, crash on, or read outside of the metadata; what it leaves out or recovers is
 * left to it.
 */
import type { Bdev, IoError } from "@effect-spdk/core/Bdev"
import * as DmaBuffer from "@effect-spdk/core/DmaBuffer"
import type { EngineService } from "@effect-spdk/core/Engine"
import type { SpdkError } from "@effect-spdk/core/SpdkError"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type { BitSet } from "../format/bitSet.ts"
import type { Damage, Decoded } from "../format/damage.ts"
import { blobIdOfPage, maskType, type MaskType, noPage, pageBytes, viewOf } from "../format/layout.ts"
import { decodeMask } from "../format/mask.ts"
import { mdPageName } from "../format/mdPage.ts"
import type { SuperBlock } from "../format/superBlock.ts"
import { MdPages, type Pages } from "./mdPages.ts"

const partBytes = 256 * 1024
const inFlight = 4

/** SPDK counts clusters and extent pages of a blob in 32 bits, and writes past the memory that it takes for the sum. */
const mostInBlob = 2 ** 32 - 1

export interface Walked {
  /** Why SPDK must not load it. */
  readonly damage: Damage | undefined
  /** A snapshot was being made or removed: leftovers.ts. */
  readonly mentionsLeftovers: boolean
}

interface Reader {
  readonly pageBytes: number
  readonly pagesInPart: number
  /** `page` counts from the start of the device. */
  readonly read: (page: number, count: number, use: (bytes: Uint8Array) => void) => Effect.Effect<void, IoError>
}

const readerOf = (bdev: Bdev, { mdPageSize }: SuperBlock) => {
  const pagesInPart = Math.max(1, Math.floor(partBytes / mdPageSize))
  const alignment = Math.max(pageBytes, bdev.info.bufferAlignmentBytes)
  return Effect.map(
    DmaBuffer.pool({ lengthBytes: pagesInPart * mdPageSize, capacity: inFlight, alignment }),
    (pool): Reader => ({
      pageBytes: mdPageSize,
      pagesInPart,
      read: (page, count, use) =>
        Effect.scoped(
          Effect.flatMap(pool.take, (chunk) => {
            const buffer = chunk.slice(0, count * mdPageSize)
            return Effect.map(bdev.read(page * mdPageSize, buffer), () => use(buffer.bytes))
          })
        )
    })
  )
}

/** Reads what SPDK is going to read: all pages in a recovery, else those that are marked. */
export const walk = (
  bdev: Bdev,
  superBlock: SuperBlock,
  recovers: boolean
): Effect.Effect<Walked, SpdkError, EngineService> =>
  Effect.gen(function* () {
    const reader = yield* readerOf(bdev, superBlock)
    const masks = recovers ? Result.succeed(undefined) : yield* readMasks(reader, superBlock)
    if (Result.isFailure(masks)) return { damage: masks.failure, mentionsLeftovers: false }
    const marked = masks.success
    const pages = new MdPages(superBlock, recovers)
    const look = (first: number, count: number) =>
      reader.read(superBlock.mdStart + first, count, (bytes) => {
        const part: Pages = {
          bytes,
          view: viewOf(bytes),
          text: Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength),
          first,
          count,
          strideBytes: reader.pageBytes
        }
        for (let page = first; page < first + count; page++) {
          if (marked === undefined || marked.pages.has(page)) pages.add(part, page)
        }
      })
    const parts = partsOf(superBlock.mdLength, reader.pagesInPart, marked?.pages)
    yield* Effect.forEach(parts, ([first, count]) => look(first, count), { concurrency: inFlight, discard: true })
    const { mentionsLeftovers } = pages
    return { damage: damageOf(pages, marked?.ids ?? pages.firsts), mentionsLeftovers }
  }).pipe(Effect.scoped)

/** From the first page of interest to the last one in reach, again and again. */
function* partsOf(pages: number, most: number, marked: BitSet | undefined): Generator<readonly [number, number]> {
  for (let first = 0; first < pages;) {
    if (marked !== undefined) first = marked.firstSet(first)
    if (first < 0) return
    let count = Math.min(most, pages - first)
    if (marked !== undefined) while (!marked.has(first + count - 1)) count--
    yield [first, count]
    first += count
  }
}

const readMasks = (reader: Reader, superBlock: SuperBlock) => {
  const { mdLength, usedBlobIdMaskLength, usedBlobIdMaskStart, usedPageMaskLength, usedPageMaskStart } = superBlock
  const read = Effect.fnUntraced(function* (start: number, length: number, type: MaskType) {
    const bytes = new Uint8Array(length * reader.pageBytes)
    for (let done = 0; done < length; done += reader.pagesInPart) {
      const count = Math.min(reader.pagesInPart, length - done)
      yield* reader.read(start + done, count, (part) => bytes.set(part, done * reader.pageBytes))
    }
    return decodeMask(bytes, type, mdLength)
  })
  return Effect.gen(function* () {
    const pages = yield* read(usedPageMaskStart, usedPageMaskLength, maskType.usedPages)
    if (Result.isFailure(pages)) return Result.fail(pages.failure)
    const ids = yield* read(usedBlobIdMaskStart, usedBlobIdMaskLength, maskType.usedBlobIds)
    return Result.map(ids, (found) => ({ pages: pages.success, ids: found }))
  })
}

const damageOf = (pages: MdPages, firsts: BitSet): Damage | undefined => {
  for (const [page, rule] of pages.extentRules) {
    if (pages.extents.has(page)) return { where: mdPageName(page), rule }
  }
  const parents = new Map<number, number>()
  const most = pages.valid.count
  // Chains that share pages can be many times as long as there are pages.
  let left = 4 * most + firsts.count
  for (let first = firsts.firstSet(); first >= 0; first = firsts.firstSet(first + 1)) {
    const followed = follow(pages, first, Math.min(most, left))
    if (Result.isFailure(followed)) return followed.failure
    left -= followed.success.length
    const { parent } = followed.success
    if (parent !== undefined && firsts.has(parent)) parents.set(first, parent)
  }
  return circleOf(parents)
}

/** As SPDK opens a blob: to a page that is the last, or that has a wrong CRC. */
const follow = (
  pages: MdPages,
  first: number,
  most: number
): Decoded<{ readonly length: number; readonly parent: number | undefined }> => {
  let length = 0
  let parent: number | undefined
  let canHaveParent = false
  let size = 0
  for (let page = first; pages.valid.has(page);) {
    const rule = pages.rules.get(page)
    if (rule !== undefined) return Result.fail({ where: chainName(first), rule: `${rule} in ${mdPageName(page)}` })
    if (++length > most)
      return Result.fail({ where: chainName(first), rule: "is circular: it leads back to its own pages" })
    size += pages.sizes.get(page) ?? 0
    if (size > mostInBlob) return Result.fail({ where: chainName(first), rule: `tells of ${size} clusters` })
    parent ??= pages.parents.get(page)
    if (pages.hasFlags.has(page)) canHaveParent = pages.canHaveParent.has(page)
    const next = pages.next[page] ?? noPage
    if (next === noPage) break
    page = next
  }
  return Result.succeed({ length, parent: canHaveParent ? parent : undefined })
}

const chainName = (first: number): string => `the metadata of blob 0x${blobIdOfPage(first).toString(16)}`

/** Each blob is walked once: `seen` holds which walk came by. */
const circleOf = (parents: ReadonlyMap<number, number>): Damage | undefined => {
  const seen = new Map<number, number>()
  for (const start of parents.keys()) {
    let at: number | undefined = start
    while (at !== undefined && !seen.has(at)) {
      seen.set(at, start)
      at = parents.get(at)
    }
    if (at !== undefined && seen.get(at) === start) {
      return { where: `blob 0x${blobIdOfPage(at).toString(16)}`, rule: "is its own ancestor" }
    }
  }
  return undefined
}
