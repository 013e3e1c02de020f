/** The images that real SPDK wrote, and reading them by the codec alone. */
import * as Result from "effect/Result"
import { createHash } from "node:crypto"
import * as fs from "node:fs"
import * as path from "node:path"
import { brotliDecompressSync } from "node:zlib"
import type { BitSet } from "../../src/internal/format/bitSet.ts"
import { applyExtentPage, type ChainMeta, limitsOf, parseChain } from "../../src/internal/format/blobMeta.ts"
import type { Decoded } from "../../src/internal/format/damage.ts"
import { blobIdOfPage, maskType, type MaskType, pageBytes } from "../../src/internal/format/layout.ts"
import { decodeMask } from "../../src/internal/format/mask.ts"
import { decodeExtentPage, decodeMdPage, isZeroPage, type MdPage } from "../../src/internal/format/mdPage.ts"
import { decodeSuperBlock, type SuperBlock, totalClusters } from "../../src/internal/format/superBlock.ts"

/** Loaded by SPDK without a recovery, or with one that changes no blob: what it said is what is on disk. */
export const whole = ["empty", "xattrs", "large", "rle", "snapshots", "unclean", "lvol"] as const
/** Stopped in the middle of something. */
export const cut = [
  "snapshot-cut-1",
  "snapshot-cut-2",
  "snapshot-cut-3",
  "delete-cut-2",
  "delete-cut-3",
  "delete-cut-5",
  "grow-cut",
  "shrink-cut"
] as const
export type Name = (typeof whole)[number] | (typeof cut)[number]
export const names: ReadonlyArray<Name> = [...whole, ...cut]

export interface SaidBlob {
  readonly id: string
  readonly clusters: number
  readonly allocated: number
  readonly thin: 0 | 1
  readonly readOnly: 0 | 1
  readonly snapshot: 0 | 1
  readonly clone: 0 | 1
  readonly parent?: string
  readonly clones: ReadonlyArray<string>
  readonly allocatedRanges: ReadonlyArray<readonly [number, number]>
  readonly xattrs: Readonly<Record<string, string>>
}

export interface Said {
  readonly clusterSize: number
  readonly totalDataClusters: number
  readonly freeClusters: number
  readonly ioUnitSize: number
  readonly type: string
  readonly superBlob?: string
  readonly blobs: ReadonlyArray<SaidBlob>
  readonly lvols?: ReadonlyArray<{
    readonly name: string
    readonly num_allocated_clusters: number
    readonly is_esnap_clone: boolean
  }>
}

const here = import.meta.dirname
const cache = new Map<Name, Buffer>()

/** A copy: change it at will. */
export const image = (name: Name): Buffer => {
  let bytes = cache.get(name)
  if (bytes === undefined) {
    bytes = brotliDecompressSync(fs.readFileSync(path.join(here, `${name}.img.br`)))
    cache.set(name, bytes)
  }
  return Buffer.from(bytes)
}

export const said = (name: Name): Said => JSON.parse(fs.readFileSync(path.join(here, `${name}.json`), "utf8")) as Said

export const saidValue = (value: Uint8Array): string =>
  value.length > 32
    ? `${value.length}:${createHash("sha256").update(value).digest("hex").slice(0, 16)}`
    : Buffer.from(value).toString("hex")

export const good = <A>(result: Decoded<A>): A => {
  if (Result.isFailure(result)) throw new Error(`${result.failure.where} ${result.failure.rule}`)
  return result.success
}

export const superOf = (bytes: Uint8Array): SuperBlock => good(decodeSuperBlock(bytes, bytes.length))

export const mdBytes = (bytes: Uint8Array, sb: SuperBlock, page: number): Uint8Array =>
  bytes.subarray((sb.mdStart + page) * sb.mdPageSize, (sb.mdStart + page) * sb.mdPageSize + pageBytes)

export const maskPlace = (sb: SuperBlock, type: MaskType) =>
  type === maskType.usedPages
    ? { start: sb.usedPageMaskStart, length: sb.usedPageMaskLength, bits: sb.mdLength }
    : type === maskType.usedClusters
      ? { start: sb.usedClusterMaskStart, length: sb.usedClusterMaskLength, bits: totalClusters(sb) }
      : { start: sb.usedBlobIdMaskStart, length: sb.usedBlobIdMaskLength, bits: sb.mdLength }

export const maskBytes = (bytes: Uint8Array, sb: SuperBlock, type: MaskType): Uint8Array => {
  const { length, start } = maskPlace(sb, type)
  return bytes.subarray(start * sb.mdPageSize, (start + length) * sb.mdPageSize)
}

export const maskOf = (bytes: Uint8Array, sb: SuperBlock, type: MaskType): BitSet =>
  good(decodeMask(maskBytes(bytes, sb, type), type, maskPlace(sb, type).bits))

export interface ReadBlob {
  readonly meta: ChainMeta
  readonly chain: ReadonlyArray<MdPage>
  /** More, or fewer, clusters than the table says, in the last extent page. */
  readonly difference: number
}

/** By the id mask, or, in a store that is not clean, by the first pages that are there. */
export const blobsOf = (bytes: Uint8Array): ReadonlyArray<ReadBlob> => {
  const sb = superOf(bytes)
  const limits = limitsOf(sb)
  const blobs: Array<ReadBlob> = []
  const ids = sb.clean ? maskOf(bytes, sb, maskType.usedBlobIds) : undefined
  for (let index = 0; index < sb.mdLength; index++) {
    if (ids === undefined ? isZeroPage(mdBytes(bytes, sb, index)) : !ids.has(index)) continue
    const first = good(decodeMdPage(mdBytes(bytes, sb, index), index, sb.mdLength))
    if (first.id !== blobIdOfPage(index) || first.sequence !== 0) continue
    const chain = [first]
    for (let next = first.next; next !== undefined && chain.length < sb.mdLength;) {
      const page = good(decodeMdPage(mdBytes(bytes, sb, next), next, sb.mdLength))
      chain.push(page)
      next = page.next
    }
    const meta = good(parseChain(chain, limits))
    let difference = 0
    for (const [i, page] of meta.extentPages.entries()) {
      if (page === 0) continue
      difference = good(applyExtentPage(meta, i, good(decodeExtentPage(mdBytes(bytes, sb, page), page)), limits))
    }
    blobs.push({ meta, chain, difference })
  }
  return blobs
}
