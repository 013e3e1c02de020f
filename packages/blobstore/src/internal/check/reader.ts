/** The metadata of a store as the checker reads it: a part at a time, whatever its size, and single pages out of order. */
import type { Bdev, IoError } from "@effect-spdk/core/Bdev"
import * as Effect from "effect/Effect"
import type { BitSet } from "../format/bitSet.ts"
import type { Decoded } from "../format/damage.ts"
import { blobIdOfPage, maskType, type MaskType, pageBytes } from "../format/layout.ts"
import { decodeMask } from "../format/mask.ts"
import type { MdPage } from "../format/mdPage.ts"
import { decodeSuperBlock, type SuperBlock, totalClusters } from "../format/superBlock.ts"

/** What is held in memory of the metadata region. */
const partBytes = 2 ** 20

export const readSuper = (
  bdev: Bdev
): Effect.Effect<{ readonly bytes: Uint8Array; readonly decoded: Decoded<SuperBlock> }, IoError> =>
  Effect.map(bdev.readBytes(0, Math.min(pageBytes, bdev.sizeBytes)), (bytes) => ({
    bytes,
    decoded: decodeSuperBlock(bytes, bdev.sizeBytes)
  }))

export interface MaskPlace {
  readonly name: "used pages" | "used clusters" | "used blob ids"
  readonly type: MaskType
  readonly start: number
  readonly length: number
  readonly bits: number
}

/** Without that of blob ids in a store that has none. */
export const maskPlaces = (sb: SuperBlock): ReadonlyArray<MaskPlace> => {
  const pages: MaskPlace = {
    name: "used pages",
    type: maskType.usedPages,
    start: sb.usedPageMaskStart,
    length: sb.usedPageMaskLength,
    bits: sb.mdLength
  }
  const clusters: MaskPlace = {
    name: "used clusters",
    type: maskType.usedClusters,
    start: sb.usedClusterMaskStart,
    length: sb.usedClusterMaskLength,
    bits: totalClusters(sb)
  }
  const ids: MaskPlace = {
    name: "used blob ids",
    type: maskType.usedBlobIds,
    start: sb.usedBlobIdMaskStart,
    length: sb.usedBlobIdMaskLength,
    bits: sb.mdLength
  }
  return sb.usedBlobIdMaskLength === 0 ? [pages, clusters] : [pages, clusters, ids]
}

/** As long as its bits need, which the super block was checked to have room for; not the pages kept for growing. */
export const readMask = (bdev: Bdev, sb: SuperBlock, place: MaskPlace): Effect.Effect<Decoded<BitSet>, IoError> =>
  Effect.map(bdev.readBytes(place.start * sb.mdPageSize, place.length * sb.mdPageSize), (bytes) =>
    decodeMask(bytes, place.type, place.bits)
  )

export class MdReader {
  readonly sb: SuperBlock
  readonly pagesPerPart: number
  readonly #bdev: Bdev
  #part: { readonly first: number; readonly bytes: Uint8Array } | undefined

  constructor(bdev: Bdev, sb: SuperBlock) {
    this.#bdev = bdev
    this.sb = sb
    this.pagesPerPart = Math.max(1, Math.floor(partBytes / sb.mdPageSize))
  }

  offsetBytes(page: number): number {
    return (this.sb.mdStart + page) * this.sb.mdPageSize
  }

  /** From `first` on, as many pages as a part has; answers how many. */
  load(first: number): Effect.Effect<number, IoError> {
    const pages = Math.min(this.pagesPerPart, this.sb.mdLength - first)
    return Effect.map(this.#bdev.readBytes(this.offsetBytes(first), pages * this.sb.mdPageSize), (bytes) => {
      this.#part = { first, bytes }
      return pages
    })
  }

  /** undefined outside of the part that is loaded. */
  loaded(page: number): Uint8Array | undefined {
    const part = this.#part
    if (part === undefined || page < part.first) return undefined
    const at = (page - part.first) * this.sb.mdPageSize
    return at < part.bytes.length ? part.bytes.subarray(at, at + pageBytes) : undefined
  }

  /** From the device; forgets the part that is loaded. */
  fresh(page: number): Effect.Effect<Uint8Array, IoError> {
    this.#part = undefined
    return this.page(page)
  }

  page(page: number): Effect.Effect<Uint8Array, IoError> {
    const bytes = this.loaded(page)
    return bytes === undefined ? this.#bdev.readBytes(this.offsetBytes(page), pageBytes) : Effect.succeed(bytes)
  }
}

/** What a recovery takes for the start of a blob. */
export const isFirstPage = (page: MdPage): boolean => page.sequence === 0 && page.id === blobIdOfPage(page.index)
