/**
 * I/O on plain memory, at any byte: copies through the store's buffers, in pieces that fit one. What is not a whole io unit is
 * read, changed and written back, under the locks of the units it changes in part.
 */
import type { IoError } from "@effect-spdk/core/Bdev"
import { invalid } from "@effect-spdk/core/SpdkError"
import * as Effect from "effect/Effect"
import type { BufferPool } from "./bufferPool.ts"
import type { BlobBlockIo } from "./driver.ts"
import type { EdgeLocks } from "./edgeLocks.ts"
import { releasedBlob } from "./reasons.ts"

/** Where byte-addressed I/O goes: through a handle or a channel of a blob. */
export interface ByteTarget {
  /** The driver's, until the handle or the channel is released. */
  readonly io: BlobBlockIo
  readonly isReleased: boolean
  readonly resource: string
  readonly ioUnitBytes: number
  readonly sizeBytes: number
  readonly pool: BufferPool
  /** Of all who write to the blob. */
  readonly edges: EdgeLocks
}

const piecesInFlight = 4
const maxBytesLength = 2 ** 31

export const readBytes = (
  target: ByteTarget,
  offsetBytes: number,
  lengthBytes: number
): Effect.Effect<Uint8Array, IoError> =>
  Effect.suspend(() => {
    const refused = refuse(target, offsetBytes, lengthBytes, "lengthBytes", "Blob.readBytes")
    if (refused !== undefined) return Effect.fail(refused)
    if (lengthBytes <= 0) return Effect.succeed(new Uint8Array(0))
    const endBytes = offsetBytes + lengthBytes
    if (pieceEnd(target, offsetBytes) >= endBytes) return readRange(target, offsetBytes, endBytes)
    const bytes = new Uint8Array(lengthBytes)
    return Effect.as(
      Effect.forEach(
        piecesOf(target, offsetBytes, endBytes),
        ([start, end]) =>
          readInto(target, start, end, (source) => {
            bytes.set(source, start - offsetBytes)
          }),
        { concurrency: piecesInFlight, discard: true }
      ),
      bytes
    )
  })

export const writeBytes = (target: ByteTarget, offsetBytes: number, bytes: Uint8Array): Effect.Effect<void, IoError> =>
  Effect.suspend(() => {
    const operation = "Blob.writeBytes"
    // Callers without types do pass other things.
    if (!(bytes instanceof Uint8Array)) {
      return Effect.fail(invalid(operation, "bytes", "is not a Uint8Array", undefined, target.resource))
    }
    const refused = refuse(target, offsetBytes, bytes.length, "bytes.length", operation)
    if (refused !== undefined) return Effect.fail(refused)
    if (bytes.length === 0) return Effect.void
    const endBytes = offsetBytes + bytes.length
    if (pieceEnd(target, offsetBytes) >= endBytes) return writeRange(target, offsetBytes, [bytes])
    return Effect.forEach(
      piecesOf(target, offsetBytes, endBytes),
      ([start, end]) => writeRange(target, start, [bytes.subarray(start - offsetBytes, end - offsetBytes)]),
      { concurrency: piecesInFlight, discard: true }
    )
  })

/** Where the first piece ends that starts at this byte: on an io unit, so that no unit is read for two pieces. */
const pieceEnd = (target: ByteTarget, startBytes: number): number =>
  Math.floor(startBytes / target.ioUnitBytes) * target.ioUnitBytes + target.pool.maxBytes

const piecesOf = (
  target: ByteTarget,
  offsetBytes: number,
  endBytes: number
): ReadonlyArray<readonly [startBytes: number, endBytes: number]> => {
  const pieces: Array<readonly [number, number]> = []
  for (let start = offsetBytes; start < endBytes;) {
    const end = Math.min(pieceEnd(target, start), endBytes)
    pieces.push([start, end])
    start = end
  }
  return pieces
}

const refuse = (
  target: ByteTarget,
  offsetBytes: number,
  lengthBytes: number,
  lengthField: string,
  operation: string
): IoError | undefined => {
  const { resource } = target
  if (target.isReleased) return releasedBlob(operation, resource)
  const offsetRule = wholeRule(offsetBytes)
  if (offsetRule !== undefined) return invalid(operation, "offsetBytes", offsetRule, offsetBytes, resource)
  const lengthRule = wholeRule(lengthBytes)
  if (lengthRule !== undefined) return invalid(operation, lengthField, lengthRule, lengthBytes, resource)
  const { sizeBytes } = target
  if (offsetBytes > sizeBytes) {
    return invalid(operation, "offsetBytes", `lies past the end of the blob at ${sizeBytes}`, offsetBytes, resource)
  }
  if (lengthBytes > sizeBytes - offsetBytes) {
    const rule = `runs past the end of the blob at ${sizeBytes} when it starts at ${offsetBytes}`
    return invalid(operation, lengthField, rule, lengthBytes, resource)
  }
  return lengthBytes > maxBytesLength
    ? invalid(
        operation,
        lengthField,
        `exceeds the maximum of one Uint8Array here, ${maxBytesLength}`,
        lengthBytes,
        resource
      )
    : undefined
}

const wholeRule = (bytes: number): string | undefined => {
  if (!Number.isSafeInteger(bytes)) return "is not a safe integer"
  return bytes < 0 ? "is negative" : undefined
}

/**
 * Reads any range of bytes that, with the io units it touches, fits a buffer. The caller has checked that it lies in the
 * blob.
 */
export const readRange = (
  target: ByteTarget,
  startBytes: number,
  endBytes: number
): Effect.Effect<Uint8Array, IoError> => readInto(target, startBytes, endBytes, (source) => source.slice())

const readInto = <A>(
  target: ByteTarget,
  startBytes: number,
  endBytes: number,
  take: (source: Uint8Array) => A
): Effect.Effect<A, IoError> => {
  const unit = target.ioUnitBytes
  const first = Math.floor(startBytes / unit) * unit
  const last = Math.ceil(endBytes / unit) * unit
  return target.pool.lease(last - first, (buffer) =>
    Effect.map(target.io.read(first, buffer), () => take(buffer.bytes.subarray(startBytes - first, endBytes - first)))
  )
}

/** Writes pieces that follow each other from `startBytes`; with the io units they touch they fit a buffer. */
export const writeRange = (
  target: ByteTarget,
  startBytes: number,
  pieces: ReadonlyArray<Uint8Array>
): Effect.Effect<void, IoError> => {
  const unit = target.ioUnitBytes
  const lengthBytes = pieces.reduce((sum, piece) => sum + piece.length, 0)
  const endBytes = startBytes + lengthBytes
  const first = Math.floor(startBytes / unit) * unit
  const last = Math.ceil(endBytes / unit) * unit
  const partial: Array<number> = []
  if (first < startBytes) partial.push(first)
  if (endBytes < last && (partial.length === 0 || last - unit > first)) partial.push(last - unit)
  const write = target.pool.lease(last - first, (buffer) => {
    const fill = () => {
      let at = startBytes - first
      for (const piece of pieces) {
        buffer.bytes.set(piece, at)
        at += piece.length
      }
      return target.io.write(first, buffer)
    }
    if (partial.length === 0) return fill()
    const readUnit = (start: number) => target.io.read(start, buffer.slice(start - first, unit))
    return Effect.andThen(Effect.forEach(partial, readUnit, { concurrency: 2, discard: true }), Effect.suspend(fill))
  })
  // The locks before the buffer: who waits for a lock must not keep a buffer from its holder.
  return partial.length === 0 ? write : target.edges.hold(partial, write)
}
