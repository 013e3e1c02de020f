/** Metadata pages: header, descriptors, `next` and CRC. A blob is a chain of them; an extent page stands alone. */
import * as Result from "effect/Result"
import type { BlobId } from "../driver.ts"
import { pageCrc } from "./crc32c.ts"
import { damaged, type Decoded, nameOf } from "./damage.ts"
import { decodeDescriptors, encodeDescriptors, type ExtentPage, type MdDescriptor } from "./descriptor.ts"
import * as L from "./layout.ts"

export type * from "./descriptor.ts"

export interface MdPage {
  /** Where it was read from, in pages from the start of the metadata. */
  readonly index: number
  /**
   * The blob that wrote it. The first page of a chain lies where its id says. An extent page keeps the id of who wrote it when
   * a snapshot takes it over.
   */
  readonly id: BlobId
  /** In the chain, from 0. */
  readonly sequence: number
  /** undefined: the last of its chain. */
  readonly next: number | undefined
  readonly descriptors: ReadonlyArray<MdDescriptor>
}

export const mdPageName = (index: number): string => nameOf(index)

/** A page that was never written or was given back. */
export const isZeroPage = (bytes: Uint8Array): boolean => {
  for (let i = 0; i < L.pageBytes; i++) if (bytes[i] !== 0) return false
  return true
}

/** `mdPages`: how many there are, where `next` has to lie. Nothing of the answer shares memory with `bytes`. */
export const decodeMdPage = (bytes: Uint8Array, index: number, mdPages: number = L.noPage): Decoded<MdPage> => {
  const at = L.mdPageOffset
  if (bytes.length < L.pageBytes) return damaged(index, "is cut off")
  const view = L.viewOf(bytes)
  if (view.getUint32(at.crc, true) !== pageCrc(bytes)) return damaged(index, "has a wrong CRC", at.crc)
  const id = L.readU64(view, at.id)
  if (id === undefined) return damaged(index, "has an id that no blob can have", at.id)
  const next = view.getUint32(at.next, true)
  if (next !== L.noPage && next >= mdPages) {
    return damaged(index, `continues at page ${next} of ${mdPages}`, at.next)
  }
  const sequence = view.getUint32(at.sequence, true)
  return Result.map(decodeDescriptors(bytes.subarray(at.descriptors, at.next), index), (descriptors) => ({
    index,
    id,
    sequence,
    next: next === L.noPage ? undefined : next,
    descriptors
  }))
}

/** `area` is what `encodeDescriptors` or `serializeChain` makes. 4096 bytes, with the CRC. */
export const encodeMdPage = (
  page: { readonly id: BlobId; readonly sequence: number; readonly next: number | undefined },
  area: Uint8Array
): Uint8Array => {
  const bytes = new Uint8Array(L.pageBytes)
  const view = L.viewOf(bytes)
  L.writeU64(view, L.mdPageOffset.id, page.id)
  view.setUint32(L.mdPageOffset.sequence, page.sequence, true)
  bytes.set(area.subarray(0, L.descriptorAreaBytes), L.mdPageOffset.descriptors)
  view.setUint32(L.mdPageOffset.next, page.next ?? L.noPage, true)
  view.setUint32(L.mdPageOffset.crc, pageCrc(bytes), true)
  return bytes
}

/** Whether a decoded page is one, as SPDK's `bs_load_cur_extent_page_valid` decides. */
export const asExtentPage = (page: MdPage): Decoded<ExtentPage> => {
  const where = page.index
  const [first, second] = page.descriptors
  if (first?._tag !== "ExtentPage") return damaged(where, "is not an extent page", L.mdPageOffset.descriptors)
  if (second !== undefined) return damaged(where, "has more than the clusters of an extent page")
  if (page.sequence !== 0) return damaged(where, "is an extent page in a chain", L.mdPageOffset.sequence)
  if (page.next !== undefined) return damaged(where, "is an extent page that continues", L.mdPageOffset.next)
  return Result.succeed(first)
}

export const decodeExtentPage = (bytes: Uint8Array, index: number): Decoded<ExtentPage> =>
  Result.flatMap(decodeMdPage(bytes, index), asExtentPage)

/** The page of the 512 clusters from `startCluster` on, of all the clusters of the blob; 4096 bytes, with the CRC. */
export const encodeExtentPage = (id: BlobId, startCluster: number, blobClusters: ArrayLike<number>): Uint8Array => {
  const length = Math.max(0, Math.min(L.clustersPerExtentPage, blobClusters.length - startCluster))
  return encodeExtents(
    id,
    startCluster,
    Uint32Array.from({ length }, (_, i) => blobClusters[startCluster + i] ?? 0)
  )
}

/** The same of the clusters of this page alone. */
export const encodeExtents = (id: BlobId, startCluster: number, clusters: Uint32Array): Uint8Array =>
  encodeMdPage(
    { id, sequence: 0, next: undefined },
    encodeDescriptors([{ _tag: "ExtentPage", startCluster, clusters }])
  )
