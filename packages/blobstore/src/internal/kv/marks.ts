/**
 * The xattrs by which the blobs of a key-value store are known. They are written with the blob, in one durable step, so that a
 * blob without them is somebody else's, and a segment needs no header of its own.
 */
import * as Result from "effect/Result"
import { damaged, type Decoded } from "../format/damage.ts"
import { saltBytes } from "./codec.ts"

/** The name of the key-value store. */
export const storeXattr = "kv.store"
/** On a segment of the log: what `encodeSegmentMark` makes. */
export const segmentXattr = "kv.segment"
/** On a segment that takes no more batches: where it ends, as a decimal number. */
export const endXattr = "kv.end"
/** On the empty blob that is kept for bad times. */
export const spareXattr = "kv.spare"
/** On the blob of a large value: its token. */
export const valueXattr = "kv.value"

const version = 1
const markBytes = 28

export interface SegmentMark {
  /** Counts up; the highest is written to. */
  readonly number: number
  readonly salt: Uint8Array
  /** Records with a lower sequence, which are those of all segments with a lower base, were cleared. */
  readonly baseSequence: number
  /** Every batch starts at a multiple of it. */
  readonly alignmentBytes: number
}

export const encodeSegmentMark = (mark: SegmentMark): Uint8Array => {
  const bytes = new Uint8Array(markBytes)
  const fields = new DataView(bytes.buffer)
  fields.setUint32(0, version, true)
  fields.setUint32(4, mark.number, true)
  fields.setUint32(8, mark.alignmentBytes, true)
  fields.setBigUint64(12, BigInt(mark.baseSequence), true)
  bytes.set(mark.salt, 20)
  return bytes
}

export const decodeSegmentMark = (bytes: Uint8Array): Decoded<SegmentMark> => {
  const where = `xattr ${segmentXattr}`
  if (bytes.length !== markBytes) return damaged(where, `has ${bytes.length} bytes instead of ${markBytes}`)
  const fields = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const found = fields.getUint32(0, true)
  if (found !== version) return damaged(where, `is of version ${found} and not ${version}`)
  const alignmentBytes = fields.getUint32(8, true)
  const baseSequence = Number(fields.getBigUint64(12, true))
  if (alignmentBytes < 512 || !Number.isInteger(Math.log2(alignmentBytes))) {
    return damaged(where, `has the alignment ${alignmentBytes}, which is not a power of two from 512`)
  }
  if (!Number.isSafeInteger(baseSequence)) return damaged(where, "has a base above 2^53")
  return Result.succeed({
    number: fields.getUint32(4, true),
    alignmentBytes,
    baseSequence,
    salt: bytes.slice(20, 20 + saltBytes)
  })
}

export const encodeEnd = (endBytes: number): Uint8Array => new TextEncoder().encode(String(endBytes))

export const decodeEnd = (bytes: Uint8Array): Decoded<number> => {
  const text = new TextDecoder().decode(bytes)
  return /^\d{1,10}$/.test(text) ? Result.succeed(Number(text)) : damaged(`xattr ${endXattr}`, "is not a number")
}
