/** Why a request on a blob is refused. The I/O path finds out that something is wrong with few comparisons; this says what. */
import type { IoError } from "@effect-spdk/core/Bdev"
import { type DmaBuffer, isDmaBuffer } from "@effect-spdk/core/DmaBuffer"
import { Released, SpdkError } from "@effect-spdk/core/SpdkError"
import type { BlobState } from "./blob.ts"
import { closed, readOnly, refused } from "./errors.ts"
import type { Store } from "./store.ts"

/** Of one request, as in core. */
const maxBuffers = 64

export const refusedClosed = (operation: string, blob: BlobState): IoError => closed(operation, blob.name)
export const refusedReadOnly = (operation: string, blob: BlobState): IoError => readOnly(operation, blob.name)

/** A range that is not whole io units inside the blob. `path` goes before the field's name, `entries[3].`. */
export const refusedRange = (
  store: Store,
  blob: BlobState,
  operation: string,
  offsetBytes: number,
  lengthBytes: number,
  lengthField: string,
  path: string
): IoError | undefined => {
  const fail = (field: string, rule: string, value: number) =>
    refused(operation, blob.name, `${path}${field}`, rule, value)
  const offsetRule = wholeUnitsRule(store.ioUnitBytes, offsetBytes)
  if (offsetRule !== undefined) return fail("offsetBytes", offsetRule, offsetBytes)
  const lengthRule =
    lengthBytes === 0 ? "is 0, and an I/O moves at least one io unit" : wholeUnitsRule(store.ioUnitBytes, lengthBytes)
  if (lengthRule !== undefined) return fail(lengthField, lengthRule, lengthBytes)
  const sizeBytes = blob.clusterCount * store.clusterBytes
  if (offsetBytes >= sizeBytes) {
    return fail("offsetBytes", `lies past the end of the blob at ${sizeBytes}`, offsetBytes)
  }
  if (offsetBytes + lengthBytes > sizeBytes) {
    const rule = `runs past the end of the blob at ${sizeBytes} when it starts at ${offsetBytes}`
    return fail(lengthField, rule, lengthBytes)
  }
  return undefined
}

const wholeUnitsRule = (ioUnitBytes: number, bytes: number): string | undefined => {
  if (!Number.isSafeInteger(bytes)) return "is not a safe integer"
  if (bytes < 0) return "is negative"
  return bytes % ioUnitBytes === 0 ? undefined : `is not a multiple of the io unit ${ioUnitBytes}`
}

/** `field` is `buffer`, of one, or `buffers`. Callers without types pass other things. */
export const refusedBuffers = (
  blob: BlobState,
  operation: string,
  buffers: ReadonlyArray<DmaBuffer | undefined>,
  field: string
): IoError | undefined => {
  if (!Array.isArray(buffers)) return refused(operation, blob.name, field, "is not an array of DmaBuffers")
  if (buffers.length === 0) return refused(operation, blob.name, field, "is empty")
  if (buffers.length > maxBuffers) {
    return refused(operation, blob.name, field, `has more than ${maxBuffers} elements`, buffers.length)
  }
  for (const [i, buffer] of buffers.entries()) {
    const name = field === "buffers" ? `buffers[${i}]` : field
    if (!isDmaBuffer(buffer)) return refused(operation, blob.name, name, "is not a DmaBuffer")
    if (buffer.isReleased) {
      return new SpdkError({ reason: new Released({ operation, resource: blob.name, what: "buffer" }) })
    }
  }
  return undefined
}

export const lengthField = (field: string): string => (field === "buffer" ? "buffer.byteLength" : field)

export const totalBytes = (buffers: ReadonlyArray<DmaBuffer>): number => {
  let total = 0
  // What is no array has no bytes, and is refused for that.
  if (!Array.isArray(buffers)) return total
  for (const buffer of buffers) total += buffer?.byteLength ?? 0
  return total
}

/** The part of the buffers, one after the other, from `offset` on. */
export const cut = (
  buffers: ReadonlyArray<DmaBuffer>,
  offset: number,
  lengthBytes: number
): ReadonlyArray<DmaBuffer> => {
  const parts: Array<DmaBuffer> = []
  let start = 0
  const end = offset + lengthBytes
  for (const buffer of buffers) {
    const length = buffer.byteLength
    const from = Math.max(offset, start) - start
    const to = Math.min(end, start + length) - start
    if (from < to) parts.push(from === 0 && to === length ? buffer : buffer.slice(from, to - from))
    start += length
  }
  return parts
}
