/** Reads a segment's bytes from its start to its end, and tells a torn write from damage. */
import * as Result from "effect/Result"
import { damaged, type Decoded } from "../format/damage.ts"
import { decodeBatch, type Placed } from "./codec.ts"

export interface ScannedLog {
  readonly records: ReadonlyArray<Placed>
  /** Where the next batch would go. */
  readonly endBytes: number
  readonly nextIndex: number
}

/**
 * `sealedBytes` is where the segment is known to end, undefined while it takes batches. Then the first batch that does not
 * decode ends it: it is what a power cut left of a write that nobody was told of. Unless a later batch decodes, because
 * that was written when the earlier ones were durable.
 */
export const scanSegment = (
  bytes: Uint8Array,
  segment: { readonly salt: Uint8Array; readonly alignmentBytes: number },
  sealedBytes: number | undefined
): Decoded<ScannedLog> => {
  const { alignmentBytes, salt } = segment
  const limit = sealedBytes ?? bytes.length
  if (limit > bytes.length)
    return damaged(`the end ${limit}`, `lies outside of the ${bytes.length} bytes of the segment`)
  const region = bytes.subarray(0, limit)
  const records: Array<Placed> = []
  let endBytes = 0
  let nextIndex = 0
  while (endBytes < limit) {
    const batch = decodeBatch(region, { salt, index: nextIndex, offsetBytes: endBytes })
    if (Result.isFailure(batch)) {
      if (sealedBytes !== undefined) return Result.fail(batch.failure)
      const later = laterBatch(region, salt, alignmentBytes, endBytes, nextIndex)
      if (later === undefined) break
      return damaged(batch.failure.where, `${batch.failure.rule}, and the batch at ${later} was written after it`)
    }
    for (const placed of batch.success.records) records.push(placed)
    endBytes += Math.ceil(batch.success.batchBytes / alignmentBytes) * alignmentBytes
    nextIndex++
  }
  return Result.succeed({ records, endBytes, nextIndex })
}

const laterBatch = (
  region: Uint8Array,
  salt: Uint8Array,
  alignmentBytes: number,
  fromBytes: number,
  index: number
): number | undefined => {
  for (let at = fromBytes + alignmentBytes; at < region.length; at += alignmentBytes) {
    const batch = decodeBatch(region, { salt, index: undefined, offsetBytes: at })
    if (Result.isSuccess(batch) && batch.success.index > index) return at
  }
  return undefined
}
