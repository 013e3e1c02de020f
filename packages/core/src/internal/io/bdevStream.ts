/**
 * A range of bytes of a bdev as a Stream and as a Sink.
 */
import { Opcode } from "@effect-spdk/native/Layout"
import type * as Sink from "effect/Sink"
import type * as Stream from "effect/Stream"
import type { RangeOptions } from "../../Bdev.ts"
import { readRange, writeRange } from "./bdevBytes.ts"
import { maxBounceBytes } from "../memory/bouncePool.ts"
import type { IoRoute } from "./io.ts"
import { refusedOpcode } from "./ioCheck.ts"
import type { IoError } from "./ioCompletion.ts"
import { type RangeTarget, sinkOf, streamOf } from "./rangeStream.ts"

const defaultChunkBytes = 128 * 1024

export const streamRange = (
  target: IoRoute,
  options: RangeOptions | undefined,
  operation: string
): Stream.Stream<Uint8Array, IoError> => streamOf(() => rangeTarget(target, Opcode.Read, operation), options, operation)

export const sinkRange = (
  target: IoRoute,
  options: RangeOptions | undefined,
  operation: string
): Sink.Sink<number, Uint8Array, never, IoError> =>
  sinkOf(() => rangeTarget(target, Opcode.Write, operation), options, operation)

const rangeTarget = (target: IoRoute, opcode: Opcode, operation: string): RangeTarget | IoError => {
  const { bdev } = target
  if ((bdev.allowed & (1 << opcode)) === 0) return refusedOpcode(bdev, opcode, operation)
  const writeUnitBytes = bdev.blockSize * Math.max(1, bdev.descriptor.info.writeUnitBlocks)
  return {
    resource: bdev.name,
    sizeBytes: bdev.numBlocks * bdev.blockSize,
    unitBytes: bdev.blockSize,
    writeUnitBytes,
    defaultChunkBytes,
    maxChunkBytes: maxBounceBytes,
    read: (startBytes, endBytes) => readRange(target, startBytes, endBytes, operation),
    write: (startBytes, pieces) => writeRange(target, startBytes, pieces, writeUnitBytes, operation)
  }
}
