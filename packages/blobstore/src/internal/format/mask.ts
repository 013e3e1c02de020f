/** The three masks between the super block and the metadata: used pages, used clusters, used blob ids. */
import * as Result from "effect/Result"
import { BitSet } from "./bitSet.ts"
import { damaged, type Decoded } from "./damage.ts"
import { maskHeaderBytes, maskType, type MaskType, viewOf } from "./layout.ts"

export const maskName = (type: MaskType): string =>
  type === maskType.usedPages
    ? "used page mask"
    : type === maskType.usedClusters
      ? "used cluster mask"
      : "used blob id mask"

/** How many pages a mask of so many bits takes. */
export const maskPages = (bits: number, mdPageSize: number): number =>
  Math.ceil((maskHeaderBytes + Math.ceil(bits / 8)) / mdPageSize)

/**
 * `bytes` is the whole mask, `bits` what the super block says it holds. A cluster mask may be longer than that: growing a
 * store writes it first.
 */
export const decodeMask = (bytes: Uint8Array, type: MaskType, bits: number): Decoded<BitSet> => {
  const where = maskName(type)
  if (bytes.length < maskHeaderBytes) return damaged(where, "is cut off")
  const view = viewOf(bytes)
  if (view.getUint8(0) !== type) return damaged(where, `has type ${view.getUint8(0)} instead of ${type}`, 0)
  const length = view.getUint32(1, true)
  if (length !== bits && !(type === maskType.usedClusters && length > bits)) {
    return damaged(where, `holds ${length} bits instead of ${bits}`, 1)
  }
  if (maskHeaderBytes + Math.ceil(length / 8) > bytes.length) {
    return damaged(where, `of ${length} bits does not fit into its ${bytes.length} bytes`, 1)
  }
  return Result.succeed(BitSet.fromBytes(bytes.subarray(maskHeaderBytes, maskHeaderBytes + Math.ceil(bits / 8)), bits))
}

/** `pages` as the super block has it; bytes past the bits are 0. */
export const encodeMask = (type: MaskType, bits: BitSet, pages: number, mdPageSize = 4096): Uint8Array => {
  const bytes = new Uint8Array(pages * mdPageSize)
  const view = viewOf(bytes)
  view.setUint8(0, type)
  view.setUint32(1, bits.size, true)
  bytes.set(bits.toBytes(), maskHeaderBytes)
  return bytes
}
