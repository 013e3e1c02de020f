/**
 * A range of bytes as a Stream and as a Sink, over whatever can read and write bytes in whole units: bdevs here, blobs in a
 * package of their own.
 */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Pull from "effect/Pull"
import type * as Scope from "effect/Scope"
import * as Sink from "effect/Sink"
import * as Stream from "effect/Stream"
import type { RangeOptions } from "../../Bdev.ts"
import { invalid, NoSpace, SpdkError } from "../../SpdkError.ts"
import type { IoError } from "./ioCompletion.ts"

/** What a range lies in. */
export interface RangeTarget {
  /** Its name in errors. */
  readonly resource: string
  readonly sizeBytes: number
  /** What one read is a multiple of. */
  readonly unitBytes: number
  /** What one write is a multiple of. */
  readonly writeUnitBytes: number
  readonly defaultChunkBytes: number
  readonly maxChunkBytes: number
  /** Any bytes, at most `maxChunkBytes` with the units they touch. */
  readonly read: (startBytes: number, endBytes: number) => Effect.Effect<Uint8Array, IoError>
  /** Pieces that follow each other. A unit that they fill only partly keeps its other bytes. */
  readonly write: (startBytes: number, pieces: ReadonlyArray<Uint8Array>) => Effect.Effect<void, IoError>
}

interface Range {
  readonly startBytes: number
  readonly endBytes: number
  /** Whole units. */
  readonly chunkBytes: number
  readonly concurrency: number
}

const defaultConcurrency = 4

/** `open` tells the target, or why there is none, when the stream runs. */
export const streamOf = (
  open: () => RangeTarget | IoError,
  options: RangeOptions | undefined,
  operation: string
): Stream.Stream<Uint8Array, IoError> =>
  Stream.suspend(() => {
    const target = open()
    if (target instanceof SpdkError) return Stream.fail(target)
    const range = checkRange(target, options, operation)
    if (range instanceof SpdkError) return Stream.fail(range)
    const { chunkBytes, concurrency, endBytes, startBytes } = range
    if (startBytes === endBytes) return Stream.empty
    // Chunks end where a unit ends, so that none is read twice.
    const base = Math.floor(startBytes / target.unitBytes) * target.unitBytes
    const count = Math.ceil((endBytes - base) / chunkBytes)
    return Stream.range(0, count - 1).pipe(
      Stream.mapEffect(
        (index) => {
          const from = base + index * chunkBytes
          return target.read(Math.max(from, startBytes), Math.min(from + chunkBytes, endBytes))
        },
        { concurrency }
      )
    )
  })

export const sinkOf = (
  open: () => RangeTarget | IoError,
  options: RangeOptions | undefined,
  operation: string
): Sink.Sink<number, Uint8Array, never, IoError> =>
  Sink.fromTransform((upstream, scope) =>
    Effect.suspend(() => {
      const target = open()
      if (target instanceof SpdkError) return Effect.fail(target)
      const range = checkRange(target, options, operation)
      if (range instanceof SpdkError) return Effect.fail(range)
      const writer = new RangeWriter(target, range, scope, operation)
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
  private readonly target: RangeTarget
  private readonly range: Range
  private readonly scope: Scope.Scope
  private readonly operation: string
  /** References, not copies: memory of the device is leased only while it is written. */
  private pieces: Array<Uint8Array> = []
  private chunkStart: number
  private position: number
  private readonly writes: Array<Fiber.Fiber<void, IoError>> = []

  constructor(target: RangeTarget, range: Range, scope: Scope.Scope, operation: string) {
    this.target = target
    this.range = range
    this.scope = scope
    this.operation = operation
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
    const grid = wholeUnits(chunkBytes, this.target.writeUnitBytes)
    return Math.min((Math.floor(this.chunkStart / grid) + 1) * grid, endBytes)
  }

  private readonly writeChunk: Effect.Effect<void, IoError> = Effect.suspend(() => {
    const { chunkStart, pieces, target } = this
    this.pieces = []
    this.chunkStart = this.position
    const start = Effect.map(
      Effect.forkIn(target.write(chunkStart, pieces), this.scope, { startImmediately: true }),
      (fiber) => {
        this.writes.push(fiber)
      }
    )
    const oldest = this.writes.length < this.range.concurrency ? undefined : this.writes.shift()
    return oldest === undefined ? start : Effect.andThen(Fiber.join(oldest), start)
  })

  private noSpace(): IoError {
    const detail = `more bytes came than the ${this.range.endBytes - this.range.startBytes} of the range`
    return new SpdkError({
      reason: new NoSpace({ operation: this.operation, resource: this.target.resource, detail })
    })
  }
}

/** The largest multiple of the unit up to `bytes`, and at least one unit. */
const wholeUnits = (bytes: number, unitBytes: number): number => Math.max(1, Math.floor(bytes / unitBytes)) * unitBytes

const checkRange = (target: RangeTarget, options: RangeOptions | undefined, operation: string): Range | IoError => {
  const { maxChunkBytes, resource, sizeBytes, unitBytes } = target
  const startBytes = options?.offsetBytes ?? 0
  if (!Number.isSafeInteger(startBytes) || startBytes < 0 || startBytes > sizeBytes) {
    return invalid(operation, "offsetBytes", `is not a whole number from 0 to ${sizeBytes}`, startBytes, resource)
  }
  const lengthBytes = options?.lengthBytes ?? sizeBytes - startBytes
  if (!Number.isSafeInteger(lengthBytes) || lengthBytes < 0 || lengthBytes > sizeBytes - startBytes) {
    const rule = `is not a whole number from 0 to ${sizeBytes - startBytes}, the rest after ${startBytes}`
    return invalid(operation, "lengthBytes", rule, lengthBytes, resource)
  }
  const chunkBytes = options?.chunkBytes ?? target.defaultChunkBytes
  if (!Number.isSafeInteger(chunkBytes) || chunkBytes < 1 || chunkBytes > maxChunkBytes) {
    return invalid(operation, "chunkBytes", `is not a whole number from 1 to ${maxChunkBytes}`, chunkBytes, resource)
  }
  const concurrency = options?.concurrency ?? defaultConcurrency
  if (!Number.isSafeInteger(concurrency) || concurrency < 1) {
    return invalid(operation, "concurrency", "is not a whole number above 0", concurrency, resource)
  }
  const endBytes = startBytes + lengthBytes
  return { startBytes, endBytes, chunkBytes: wholeUnits(chunkBytes, unitBytes), concurrency }
}
