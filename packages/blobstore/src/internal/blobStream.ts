/**
 * A range of bytes of a blob as a Stream and as a Sink.
 */
import type { IoError } from "@effect-spdk/core/Bdev"
import { invalid, NoSpace, SpdkError } from "@effect-spdk/core/SpdkError"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Pull from "effect/Pull"
import type * as Scope from "effect/Scope"
import * as Sink from "effect/Sink"
import * as Stream from "effect/Stream"
import type { BlobRangeOptions } from "../Blob.ts"
import { type ByteTarget, readRange, writeRange } from "./byteIo.ts"
import { releasedBlob } from "./reasons.ts"

interface Range {
  readonly startBytes: number
  readonly endBytes: number
  /** Whole io units. */
  readonly chunkBytes: number
  readonly concurrency: number
}

const defaultConcurrency = 4

export const streamRange = (
  target: ByteTarget,
  options: BlobRangeOptions | undefined
): Stream.Stream<Uint8Array, IoError> =>
  Stream.suspend(() => {
    const range = checkRange(target, options, "Blob.stream")
    if (range instanceof SpdkError) return Stream.fail(range)
    const { chunkBytes, concurrency, endBytes, startBytes } = range
    if (startBytes === endBytes) return Stream.empty
    // Chunks end where an io unit ends, so that none is read twice.
    const base = Math.floor(startBytes / target.ioUnitBytes) * target.ioUnitBytes
    const count = Math.ceil((endBytes - base) / chunkBytes)
    return Stream.range(0, count - 1).pipe(
      Stream.mapEffect(
        (index) => {
          const from = base + index * chunkBytes
          return readRange(target, Math.max(from, startBytes), Math.min(from + chunkBytes, endBytes))
        },
        { concurrency }
      )
    )
  })

export const sinkRange = (
  target: ByteTarget,
  options: BlobRangeOptions | undefined
): Sink.Sink<number, Uint8Array, never, IoError> =>
  Sink.fromTransform((upstream, scope) =>
    Effect.suspend(() => {
      const range = checkRange(target, options, "Blob.sink")
      if (range instanceof SpdkError) return Effect.fail(range)
      const writer = new RangeWriter(target, range, scope)
      const consume = Effect.flatMap(upstream, (chunks) =>
        Effect.forEach(chunks, (chunk) => writer.push(chunk), { discard: true })
      )
      return Effect.forever(consume, { disableYield: true }).pipe(
        Pull.catchDone(() => Effect.map(writer.finish, (bytes): Sink.End<number> => [bytes]))
      )
    })
  )

/** Collects pieces until a chunk is full, and keeps up to `concurrency` writes in flight. */
class RangeWriter {
  private readonly target: ByteTarget
  private readonly range: Range
  private readonly scope: Scope.Scope
  /** References, not copies: memory of the device is leased only while it is written. */
  private pieces: Array<Uint8Array> = []
  private chunkStart: number
  private position: number
  private readonly writes: Array<Fiber.Fiber<void, IoError>> = []

  constructor(target: ByteTarget, range: Range, scope: Scope.Scope) {
    this.target = target
    this.range = range
    this.scope = scope
    this.chunkStart = range.startBytes
    this.position = range.startBytes
  }

  push(bytes: Uint8Array): Effect.Effect<void, IoError> {
    return Effect.suspend(() => {
      if (bytes.length === 0) return Effect.void
      if (this.position === this.range.endBytes) return Effect.andThen(this.finish, Effect.fail(this.noSpace()))
      const chunkEnd = this.chunkEnd()
      const fits = Math.min(bytes.length, chunkEnd - this.position)
      this.pieces.push(bytes.subarray(0, fits))
      this.position += fits
      const full = this.position === chunkEnd ? this.writeChunk : Effect.void
      return fits === bytes.length ? full : Effect.andThen(full, this.push(bytes.subarray(fits)))
    })
  }

  /** Writes what is left and waits for everything. */
  readonly finish: Effect.Effect<number, IoError> = Effect.suspend(() =>
    (this.pieces.length === 0 ? Effect.void : this.writeChunk).pipe(
      Effect.andThen(Effect.suspend(() => Effect.forEach(this.writes.splice(0), Fiber.join, { discard: true }))),
      Effect.andThen(Effect.sync(() => this.position - this.range.startBytes))
    )
  )

  /** Where the chunk that begins at `chunkStart` ends: on the grid of chunks, or at the end of the range. */
  private chunkEnd(): number {
    const { chunkBytes, endBytes } = this.range
    return Math.min((Math.floor(this.chunkStart / chunkBytes) + 1) * chunkBytes, endBytes)
  }

  private readonly writeChunk: Effect.Effect<void, IoError> = Effect.suspend(() => {
    const { chunkStart, pieces, target } = this
    this.pieces = []
    this.chunkStart = this.position
    const start = Effect.map(
      Effect.forkIn(writeRange(target, chunkStart, pieces), this.scope, { startImmediately: true }),
      (fiber) => {
        this.writes.push(fiber)
      }
    )
    const oldest = this.writes.length < this.range.concurrency ? undefined : this.writes.shift()
    return oldest === undefined ? start : Effect.andThen(Fiber.join(oldest), start)
  })

  private noSpace(): IoError {
    const { endBytes, startBytes } = this.range
    const detail = `more bytes came than the ${endBytes - startBytes} of the range`
    return new SpdkError({ reason: new NoSpace({ operation: "Blob.sink", resource: this.target.resource, detail }) })
  }
}

const checkRange = (target: ByteTarget, options: BlobRangeOptions | undefined, operation: string): Range | IoError => {
  const { ioUnitBytes, pool, resource } = target
  if (target.isReleased) return releasedBlob(operation, resource)
  const sizeBytes = target.sizeBytes
  const startBytes = options?.offsetBytes ?? 0
  if (!Number.isSafeInteger(startBytes) || startBytes < 0 || startBytes > sizeBytes) {
    return invalid(operation, "offsetBytes", `is not a whole number from 0 to ${sizeBytes}`, startBytes, resource)
  }
  const lengthBytes = options?.lengthBytes ?? sizeBytes - startBytes
  if (!Number.isSafeInteger(lengthBytes) || lengthBytes < 0 || lengthBytes > sizeBytes - startBytes) {
    const rule = `is not a whole number from 0 to ${sizeBytes - startBytes}, which is what follows ${startBytes}`
    return invalid(operation, "lengthBytes", rule, lengthBytes, resource)
  }
  const chunkBytes = options?.chunkBytes ?? pool.maxBytes
  if (!Number.isSafeInteger(chunkBytes) || chunkBytes < 1 || chunkBytes > pool.maxBytes) {
    return invalid(operation, "chunkBytes", `is not a whole number from 1 to ${pool.maxBytes}`, chunkBytes, resource)
  }
  const concurrency = options?.concurrency ?? defaultConcurrency
  if (!Number.isSafeInteger(concurrency) || concurrency < 1) {
    return invalid(operation, "concurrency", "is not a whole number above 0", concurrency, resource)
  }
  return {
    startBytes,
    endBytes: startBytes + lengthBytes,
    chunkBytes: Math.max(1, Math.floor(chunkBytes / ioUnitBytes)) * ioUnitBytes,
    concurrency
  }
}
