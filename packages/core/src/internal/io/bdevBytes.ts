/**
 * I/O on plain memory: copies through the bounce pool, in pieces the pool can lease.
 */
import { Opcode } from "@effect-spdk/native/Layout"
import * as Effect from "effect/Effect"
import { invalid } from "../../SpdkError.ts"
import { maxBounceBytes } from "../memory/bouncePool.ts"
import { type IoRoute, transfer } from "./io.ts"
import { refusedOpcode, refusedRange } from "./ioCheck.ts"
import type { IoError } from "./ioCompletion.ts"
import { type DmaBufferImpl, sliceOf } from "../memory/ioMemory.ts"
import type { OpenTarget } from "./openTarget.ts"

/** Of one large read or write. */
const pieceBytes = 2 ** 20
const piecesInFlight = 4

export const readBytes = (
  target: IoRoute,
  offsetBytes: number,
  lengthBytes: number,
  operation: string
): Effect.Effect<Uint8Array, IoError> =>
  Effect.suspend(() => {
    const refused = refuse(target.bdev, Opcode.Read, offsetBytes, lengthBytes, "lengthBytes", operation)
    if (refused !== undefined) return Effect.fail(refused)
    const bytes = new Uint8Array(lengthBytes)
    return Effect.as(
      forEachPiece(target.bdev, lengthBytes, (start, length) =>
        lease(target.bdev, length, (buffer) =>
          Effect.map(transfer(target, Opcode.Read, offsetBytes + start, buffer, operation), () =>
            bytes.set(buffer.bytes, start)
          )
        )
      ),
      bytes
    )
  })

export const writeBytes = (
  target: IoRoute,
  offsetBytes: number,
  bytes: Uint8Array,
  operation: string
): Effect.Effect<void, IoError> =>
  Effect.suspend(() => {
    // Callers without types do pass other things.
    if (!(bytes instanceof Uint8Array)) {
      return Effect.fail(invalid(operation, "bytes", "is not a Uint8Array", undefined, target.bdev.name))
    }
    const refused = refuse(target.bdev, Opcode.Write, offsetBytes, bytes.length, "bytes.length", operation)
    if (refused !== undefined) return Effect.fail(refused)
    return forEachPiece(target.bdev, bytes.length, (start, length) =>
      lease(target.bdev, length, (buffer) => {
        buffer.bytes.set(bytes.subarray(start, start + length))
        return transfer(target, Opcode.Write, offsetBytes + start, buffer, operation)
      })
    )
  })

/** Memory that the bdev takes. */
const lease = <A>(
  { bounce, bufferAlignment }: OpenTarget,
  lengthBytes: number,
  use: (buffer: DmaBufferImpl) => Effect.Effect<A, IoError>
): Effect.Effect<A, IoError> => bounce.lease(lengthBytes, use, bufferAlignment)

const forEachPiece = (
  bdev: OpenTarget,
  lengthBytes: number,
  move: (startBytes: number, lengthBytes: number) => Effect.Effect<void, IoError>
): Effect.Effect<void, IoError> => {
  const piece = wholeBlocks(bdev, pieceBytes)
  if (lengthBytes <= piece) return move(0, lengthBytes)
  const starts = Array.from({ length: Math.ceil(lengthBytes / piece) }, (_, index) => index * piece)
  return Effect.forEach(starts, (start) => move(start, Math.min(piece, lengthBytes - start)), {
    concurrency: piecesInFlight,
    discard: true
  })
}

/** The largest multiple of the block size up to `bytes`, and at least one block. */
const wholeBlocks = (bdev: OpenTarget, bytes: number): number =>
  Math.max(1, Math.floor(Math.min(bytes, maxBounceBytes) / bdev.blockSize)) * bdev.blockSize

const refuse = (
  bdev: OpenTarget,
  opcode: Opcode,
  offsetBytes: number,
  lengthBytes: number,
  lengthField: string,
  operation: string
): IoError | undefined => {
  if ((bdev.allowed & (1 << opcode)) === 0) return refusedOpcode(bdev, opcode, operation)
  const { blockSize, numBlocks } = bdev
  const isRange =
    Number.isSafeInteger(offsetBytes) &&
    Number.isSafeInteger(lengthBytes) &&
    offsetBytes >= 0 &&
    lengthBytes > 0 &&
    offsetBytes % blockSize === 0 &&
    lengthBytes % blockSize === 0 &&
    offsetBytes + lengthBytes <= numBlocks * blockSize
  if (!isRange) return refusedRange(bdev, operation, offsetBytes, lengthBytes, lengthField)
  return lengthBytes > maxBytesLength
    ? invalid(
        operation,
        lengthField,
        `exceeds the maximum of one Uint8Array here, ${maxBytesLength}`,
        lengthBytes,
        bdev.name
      )
    : undefined
}

const maxBytesLength = 2 ** 31

/**
 * Reads any range of bytes, whole blocks or not, of at most `maxBounceBytes` with the blocks it touches. The caller
 * has checked that it lies in the bdev.
 */
export const readRange = (
  target: IoRoute,
  startBytes: number,
  endBytes: number,
  operation: string
): Effect.Effect<Uint8Array, IoError> => {
  const { blockSize } = target.bdev
  const first = Math.floor(startBytes / blockSize) * blockSize
  const last = Math.ceil(endBytes / blockSize) * blockSize
  return lease(target.bdev, last - first, (buffer) =>
    Effect.map(transfer(target, Opcode.Read, first, buffer, operation), () =>
      buffer.bytes.slice(startBytes - first, endBytes - first)
    )
  )
}

/**
 * Writes pieces that follow each other from `startBytes`. A unit that they fill only partly is read first, and keeps its
 * other bytes.
 */
export const writeRange = (
  target: IoRoute,
  startBytes: number,
  pieces: ReadonlyArray<Uint8Array>,
  unitBytes: number,
  operation: string
): Effect.Effect<void, IoError> => {
  const { bdev } = target
  const lengthBytes = pieces.reduce((sum, piece) => sum + piece.length, 0)
  const endBytes = startBytes + lengthBytes
  const first = Math.floor(startBytes / unitBytes) * unitBytes
  const last = Math.min(Math.ceil(endBytes / unitBytes) * unitBytes, bdev.numBlocks * bdev.blockSize)
  return lease(bdev, last - first, (buffer) => {
    const readUnit = (unit: number) =>
      transfer(target, Opcode.Read, unit, sliceOf(buffer, unit - first, Math.min(unitBytes, last - unit)), operation)
    const lastUnit = Math.floor((endBytes - 1) / unitBytes) * unitBytes
    const before: Array<Effect.Effect<void, IoError>> = []
    if (first < startBytes) before.push(readUnit(first))
    if (endBytes < last && (lastUnit > first || first === startBytes)) before.push(readUnit(lastUnit))
    return Effect.all(before, { discard: true, concurrency: 2 }).pipe(
      Effect.andThen(
        Effect.sync(() => {
          let at = startBytes - first
          for (const piece of pieces) {
            buffer.bytes.set(piece, at)
            at += piece.length
          }
        })
      ),
      Effect.andThen(transfer(target, Opcode.Write, first, buffer, operation))
    )
  })
}
