/**
 * A range of bytes of a blob as a Stream and as a Sink.
 */
import type { IoError } from "@effect-spdk/core/Bdev"
import { type RangeTarget, sinkOf, streamOf } from "@effect-spdk/core/Engine"
import type * as Sink from "effect/Sink"
import type * as Stream from "effect/Stream"
import type { BlobRangeOptions } from "../Blob.ts"
import { type ByteTarget, readRange, writeRange } from "./byteIo.ts"
import { releasedBlob } from "./reasons.ts"

export const streamRange = (
  target: ByteTarget,
  options: BlobRangeOptions | undefined
): Stream.Stream<Uint8Array, IoError> => streamOf(() => rangeTarget(target, "Blob.stream"), options, "Blob.stream")

export const sinkRange = (
  target: ByteTarget,
  options: BlobRangeOptions | undefined
): Sink.Sink<number, Uint8Array, never, IoError> => sinkOf(() => rangeTarget(target, "Blob.sink"), options, "Blob.sink")

const rangeTarget = (target: ByteTarget, operation: string): RangeTarget | IoError => {
  const { ioUnitBytes, pool, resource, sizeBytes } = target
  if (target.isReleased) return releasedBlob(operation, resource)
  return {
    resource,
    sizeBytes,
    unitBytes: ioUnitBytes,
    writeUnitBytes: ioUnitBytes,
    defaultChunkBytes: pool.maxBytes,
    maxChunkBytes: pool.maxBytes,
    read: (startBytes, endBytes) => readRange(target, startBytes, endBytes),
    write: (startBytes, pieces) => writeRange(target, startBytes, pieces)
  }
}
