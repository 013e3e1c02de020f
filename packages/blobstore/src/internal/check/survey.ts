/**
 * The whole metadata once, from its first page to its last: which blobs there are, and what each page and cluster belongs to. A
 * few bytes per page and per cluster stay in memory, and a part of the region at a time.
 */
import type { Bdev, IoError } from "@effect-spdk/core/Bdev"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type { BlobId } from "../driver.ts"
import { BitSet } from "../format/bitSet.ts"
import { eachAllocated, limitsOf, type StoreLimits } from "../format/blobMeta.ts"
import { pageCrc } from "../format/crc32c.ts"
import { blobIdOfPage, mdPageOffset, readU64, viewOf } from "../format/layout.ts"
import { decodeMdPage, isZeroPage, type MdPage } from "../format/mdPage.ts"
import { metadataClusters, type SuperBlock, totalClusters } from "../format/superBlock.ts"
import { type Finding, PageDamaged } from "./finding.ts"
import { asBlobFacts, type BlobFacts } from "./blobFacts.ts"
import { type BlobRead, readBlob } from "./readBlob.ts"
import { isFirstPage, MdReader } from "./reader.ts"

/** Of a store that is damaged all over, the first say enough. */
export const maxFindings = 1000

export class Findings {
  readonly all: Array<Finding> = []
  omitted = 0
  add(finding: Finding): void {
    if (this.all.length < maxFindings) this.all.push(finding)
    else this.omitted++
  }
}

/** What two blobs, or one twice, have in common. */
export interface Shared {
  readonly what: "pages" | "clusters"
  readonly blobs: readonly [BlobId, BlobId]
  readonly first: number
  count: number
}

export interface Survey {
  readonly sb: SuperBlock
  readonly limits: StoreLimits
  readonly reader: MdReader
  readonly findings: Findings
  /** By the page they begin at, in that order. */
  readonly blobs: ReadonlyMap<BlobId, BlobFacts>
  readonly shared: ReadonlyArray<Shared>
  /** What the metadata refers to; the clusters of the metadata count. */
  readonly pages: BitSet
  readonly clusters: BitSet
  readonly ids: BitSet
  /** Not empty, and with a CRC or a content that is wrong: the rule of the first ones. */
  readonly unreadable: BitSet
  readonly rules: ReadonlyMap<number, string>
  readonly notEmpty: BitSet
  /** Some blob could not be read as a whole, so that the bit sets may miss some of it. */
  readonly hasUnknowns: boolean
}

/** `0` is nobody, otherwise a page index + 1. */
class Owners {
  readonly #owner: Uint32Array
  readonly #shared: Map<string, Shared>
  readonly #what: Shared["what"]
  readonly used: BitSet

  constructor(what: Shared["what"], size: number, shared: Map<string, Shared>) {
    this.#owner = new Uint32Array(size)
    this.#shared = shared
    this.#what = what
    this.used = new BitSet(size)
  }

  claim(index: number, blob: MdPage): void {
    const before = this.#owner[index] ?? 0
    this.used.add(index)
    if (before === 0) {
      this.#owner[index] = blob.index + 1
      return
    }
    const key = `${this.#what} ${before - 1} ${blob.index}`
    const shared = this.#shared.get(key)
    if (shared !== undefined) shared.count++
    else if (this.#shared.size < maxFindings) {
      const blobs = [blobIdOfPage(before - 1), blob.id] as const
      this.#shared.set(key, { what: this.#what, blobs, first: index, count: 1 })
    }
  }
}

/** Sealed by whoever wrote it, with the place and the number of a first page, and still it cannot be decoded. */
const isDamagedRoot = (bytes: Uint8Array, index: number): boolean => {
  const view = viewOf(bytes)
  const isFirst =
    readU64(view, mdPageOffset.id) === blobIdOfPage(index) && view.getUint32(mdPageOffset.sequence, true) === 0
  return isFirst && view.getUint32(mdPageOffset.crc, true) === pageCrc(bytes)
}

export const survey = Effect.fnUntraced(function* (
  bdev: Bdev,
  sb: SuperBlock,
  onBlob: (blob: BlobRead) => void = () => undefined
): Effect.fn.Return<Survey, IoError> {
  const reader = new MdReader(bdev, sb)
  const limits = limitsOf(sb)
  const shared = new Map<string, Shared>()
  const pages = new Owners("pages", sb.mdLength, shared)
  const clusters = new Owners("clusters", totalClusters(sb), shared)
  const findings = new Findings()
  const blobs = new Map<BlobId, BlobFacts>()
  const ids = new BitSet(sb.mdLength)
  const notEmpty = new BitSet(sb.mdLength)
  const unreadable = new BitSet(sb.mdLength)
  const rules = new Map<number, string>()
  let hasUnknowns = false
  for (let i = 0; i < metadataClusters(sb); i++) clusters.used.add(i)

  for (let start = 0; start < sb.mdLength;) {
    const loaded = yield* reader.load(start)
    for (let index = start; index < start + loaded; index++) {
      const bytes = reader.loaded(index)
      if (bytes === undefined || isZeroPage(bytes)) continue
      notEmpty.add(index)
      const decoded = decodeMdPage(bytes, index, sb.mdLength)
      if (Result.isFailure(decoded)) {
        const { rule } = decoded.failure
        if (isDamagedRoot(bytes, index)) {
          // A recovery takes it for a blob.
          const id = blobIdOfPage(index)
          ids.add(index)
          pages.used.add(index)
          findings.add(new PageDamaged({ page: index, blob: id, rule }))
          hasUnknowns = true
          blobs.set(id, asBlobFacts({ id, pages: [index], meta: undefined, isWhole: false, findings: [] }))
          continue
        }
        unreadable.add(index)
        if (rules.size < maxFindings) rules.set(index, decoded.failure.rule)
        continue
      }
      const first = decoded.success
      if (!isFirstPage(first)) continue
      ids.add(index)
      const blob = yield* readBlob(reader, limits, first)
      for (const page of blob.pages) pages.claim(page, first)
      if (blob.meta !== undefined) eachAllocated(blob.meta, (cluster) => clusters.claim(cluster, first))
      for (const finding of blob.findings) findings.add(finding)
      hasUnknowns ||= !blob.isWhole
      blobs.set(blob.id, asBlobFacts(blob))
      onBlob(blob)
    }
    start += loaded
  }
  return {
    sb,
    limits,
    reader,
    findings,
    blobs,
    shared: [...shared.values()],
    pages: pages.used,
    clusters: clusters.used,
    ids,
    unreadable,
    rules,
    notEmpty,
    hasUnknowns
  }
})
