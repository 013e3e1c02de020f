/** Batches on a blob: one of the bdev at other offsets while every entry lies in a cluster of the blob, else one by one. */
import type { BatchEntry, BdevBatch, IoError } from "@effect-spdk/core/Bdev"
import { SpdkError } from "@effect-spdk/core/SpdkError"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Cause from "effect/Cause"
import type { PortableBlobIo } from "./blobIo.ts"
import { busy } from "./errors.ts"

const inFlight = 32

export class BlobBatch implements BdevBatch {
  readonly length: number
  readonly offsetsBytes: Float64Array
  readonly statuses: Int32Array
  readonly run: Effect.Effect<void, IoError>
  private readonly io: PortableBlobIo
  private readonly entries: ReadonlyArray<BatchEntry>
  private readonly inner: BdevBatch
  private readonly writes: boolean
  private readonly operation: string
  private errors: Map<number, IoError> | undefined
  private running = false

  constructor(io: PortableBlobIo, entries: ReadonlyArray<BatchEntry>, inner: BdevBatch, writes: boolean) {
    this.io = io
    this.entries = entries.slice()
    this.inner = inner
    this.writes = writes
    this.operation = writes ? "Blob.writeBatch" : "Blob.readBatch"
    this.length = entries.length
    this.offsetsBytes = Float64Array.from(entries, (entry) => entry.offsetBytes)
    this.statuses = new Int32Array(entries.length)
    this.run = Effect.uninterruptibleMask((restore) => {
      if (this.running) return Effect.fail(busy(this.operation, io.blob.name, "the batch is running already"))
      this.running = true
      return Effect.onExit(restore(this.start()), () => {
        this.running = false
        return Effect.void
      })
    })
  }

  readonly errorAt = (index: number): IoError | undefined => this.errors?.get(index)

  private start(): Effect.Effect<void, IoError> {
    this.errors = undefined
    this.statuses.fill(0)
    const refused = this.refuse()
    if (refused !== undefined) return Effect.fail(refused)
    return Effect.flatMap(
      this.io.blob.gate.shared(() => (this.place() ? this.together() : Effect.succeed(false))),
      (done) => (done ? Effect.void : this.oneByOne())
    )
  }

  private refuse(): IoError | undefined {
    for (const [i, { buffer }] of this.entries.entries()) {
      const offsetBytes = this.offsetsBytes[i] ?? -1
      const path = `entries[${i}].`
      // A released buffer has no length any more; the bdev says so.
      if (buffer.isReleased) continue
      const { byteLength } = buffer
      const refused = this.io.refuse(this.operation, offsetBytes, byteLength, this.writes, "buffer.byteLength", path)
      if (refused !== undefined) return refused
    }
    return undefined
  }

  /** Whether every entry is one request of the bdev; the batch below is told where. */
  private place(): boolean {
    for (const [i, { buffer }] of this.entries.entries()) {
      const at = buffer.isReleased ? 0 : this.io.translate(this.offsetsBytes[i] ?? -1, buffer.byteLength)
      if (at < 0) return false
      this.inner.offsetsBytes[i] = at
    }
    return true
  }

  private together(): Effect.Effect<boolean, IoError> {
    return this.inner.run.pipe(
      Effect.onError(() =>
        Effect.sync(() => {
          const errors = new Map<number, IoError>()
          this.statuses.set(this.inner.statuses)
          for (let i = 0; i < this.length; i++) {
            const error = this.inner.errorAt(i)
            if (error !== undefined) errors.set(i, error)
          }
          this.errors = errors
        })
      ),
      Effect.as(true)
    )
  }

  private oneByOne(): Effect.Effect<void, IoError> {
    const errors = new Map<number, IoError>()
    this.errors = errors
    const one = (entry: BatchEntry, index: number) => {
      const offsetBytes = this.offsetsBytes[index] ?? -1
      const request = this.writes ? this.io.write(offsetBytes, entry.buffer) : this.io.read(offsetBytes, entry.buffer)
      return Effect.flatMap(Effect.exit(request), (exit) => {
        if (Exit.isSuccess(exit)) return Effect.void
        const error = Cause.findErrorOption(exit.cause)
        if (error._tag === "None") return exit
        errors.set(index, error.value)
        this.statuses[index] = -(error.value.reason.errnoCode ?? 5)
        return Effect.void
      })
    }
    return Effect.flatMap(Effect.forEach(this.entries, one, { concurrency: inFlight, discard: true }), () => {
      if (errors.size === 0) return Effect.void
      const first = Math.min(...errors.keys())
      const error = errors.get(first)
      return error === undefined ? Effect.void : Effect.fail(this.noted(error, first, errors.size))
    })
  }

  private noted(error: IoError, index: number, failed: number): IoError {
    const detail = `entries[${index}] of ${this.length}; ${failed} failed`
    Object.defineProperty(error.reason, "detail", { value: detail, enumerable: true })
    return new SpdkError({ reason: error.reason })
  }
}
