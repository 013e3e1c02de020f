/** One blob with everything that it refers to, however damaged. */
import type { IoError } from "@effect-spdk/core/Bdev"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type { BlobId } from "../driver.ts"
import { applyExtentPage, type ChainMeta, parseChain, type StoreLimits } from "../format/blobMeta.ts"
import { decodeExtentPage, decodeMdPage, type MdPage } from "../format/mdPage.ts"
import { BlobDamaged, ExtentPageDamaged, type Finding, PageDamaged, SizeDiffers } from "./finding.ts"
import type { MdReader } from "./reader.ts"

export interface BlobRead {
  readonly id: BlobId
  /** The pages of the chain as far as it can be followed, and those of its table. */
  readonly pages: ReadonlyArray<number>
  /** With the size that the extent pages say; undefined when the chain cannot be read. */
  readonly meta: ChainMeta | undefined
  /** Something it refers to may not be known. */
  readonly isWhole: boolean
  readonly findings: ReadonlyArray<Finding>
}

interface Reading {
  readonly id: BlobId
  readonly pages: Array<number>
  readonly findings: Array<Finding>
}

export const readBlob = Effect.fnUntraced(function* (
  reader: MdReader,
  limits: StoreLimits,
  first: MdPage
): Effect.fn.Return<BlobRead, IoError> {
  const reading: Reading = { id: first.id, pages: [first.index], findings: [] }
  const chain = yield* readChain(reader, reading, first)
  const parsed = chain === undefined ? undefined : parseChain(chain, limits)
  if (parsed === undefined || Result.isFailure(parsed)) {
    if (parsed !== undefined) {
      const { rule, where } = parsed.failure
      reading.findings.push(new BlobDamaged({ blob: first.id, rule: `${where} ${rule}` }))
    }
    return { ...reading, meta: undefined, isWhole: false }
  }
  const meta = parsed.success
  const isWhole = yield* readExtentPages(reader, limits, reading, meta)
  return { ...reading, meta, isWhole }
})

/** The sequence numbers rise, so that a chain that bites its tail ends. */
const readChain = Effect.fnUntraced(function* (
  reader: MdReader,
  reading: Reading,
  first: MdPage
): Effect.fn.Return<ReadonlyArray<MdPage> | undefined, IoError> {
  const blob = reading.id
  const chain = [first]
  for (let next = first.next; next !== undefined;) {
    const decoded = decodeMdPage(yield* reader.page(next), next, reader.sb.mdLength)
    if (Result.isFailure(decoded)) {
      reading.pages.push(next)
      reading.findings.push(new PageDamaged({ page: next, blob, rule: decoded.failure.rule }))
      return undefined
    }
    const page = decoded.success
    if (page.id !== blob || page.sequence !== chain.length) {
      const rule = `its chain leads to metadata page ${next}, which is number ${page.sequence} of 0x${page.id.toString(16)}`
      reading.findings.push(new BlobDamaged({ blob, rule }))
      return undefined
    }
    reading.pages.push(next)
    chain.push(page)
    next = page.next
  }
  return chain
})

const readExtentPages = Effect.fnUntraced(function* (
  reader: MdReader,
  limits: StoreLimits,
  reading: Reading,
  meta: ChainMeta
): Effect.fn.Return<boolean, IoError> {
  const blob = reading.id
  const inTable = meta.clusters.length
  let isWhole = true
  for (const [i, page] of meta.extentPages.entries()) {
    if (page === 0) continue
    reading.pages.push(page)
    const decoded = decodeExtentPage(yield* reader.page(page), page)
    const applied = Result.flatMap(decoded, (extents) => applyExtentPage(meta, i, extents, limits))
    if (Result.isFailure(applied) || Result.isFailure(decoded)) {
      const rule = Result.isFailure(applied) ? `${applied.failure.where} ${applied.failure.rule}` : ""
      reading.findings.push(new ExtentPageDamaged({ blob, page, rule }))
      isWhole = false
    } else if (applied.success > 0) {
      // SPDK counts what the page has, and so its clusters are taken.
      const all = new Uint32Array(inTable + applied.success)
      all.set(meta.clusters)
      all.set(decoded.success.clusters.subarray(-applied.success), inTable)
      meta.clusters = all
    }
  }
  const inPages = meta.clusters.length
  if (inPages !== inTable) reading.findings.push(new SizeDiffers({ blob, inTable, inPages }))
  return isWhole
})
