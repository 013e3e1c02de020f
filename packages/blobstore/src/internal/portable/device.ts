/**
 * The bdev below a store as the store uses it: pages of metadata, runs of clusters, barriers. Offsets in bytes from the
 * start of the bdev.
 */
import type { Bdev, BdevIo, IoError } from "@effect-spdk/core/Bdev"
import type { DmaBuffer, DmaPool } from "@effect-spdk/core/DmaBuffer"
import * as Effect from "effect/Effect"
import type { ClearMethod } from "../driver.ts"
import { sharedFlush } from "../sharedFlush.ts"

/** Requests of one step that are in flight together. */
const inFlight = 8

/** Of SPDK's modules: unmapping fills memory, or makes a hole in a file. */
const zeroing: ReadonlySet<string> = new Set(["Malloc disk", "AIO disk"])

export class Device {
  readonly bdev: Bdev
  /** For reading the metadata in bulk and for copies of clusters. */
  readonly chunks: DmaPool
  /** What was written before survives a power cut. Without a cache to flush there is nothing to do. */
  readonly flush: Effect.Effect<void, IoError>
  private readonly canUnmap: boolean
  private readonly canZero: boolean

  constructor(bdev: Bdev, chunks: DmaPool) {
    this.bdev = bdev
    this.chunks = chunks
    this.flush = bdev.supports("flush") ? sharedFlush(Effect.suspend(() => bdev.flush())) : Effect.void
    this.canUnmap = bdev.supports("unmap")
    this.canZero = bdev.supports("writeZeroes")
  }

  /** Whether unmapping takes what is released from the device, as far as blobstores count on it. */
  get clearsReleased(): boolean {
    return this.canUnmap
  }

  /** What was unmapped is known to read as zeroes. A drive may leave it as it was. */
  get unmapsToZeroes(): boolean {
    return this.canUnmap && zeroing.has(this.bdev.info.productName)
  }

  read(offsetBytes: number, lengthBytes: number): Effect.Effect<Uint8Array, IoError> {
    return this.bdev.readBytes(offsetBytes, lengthBytes)
  }

  write(offsetBytes: number, bytes: Uint8Array): Effect.Effect<void, IoError> {
    return this.bdev.writeBytes(offsetBytes, bytes)
  }

  writeAll(
    writes: ReadonlyArray<{ readonly offsetBytes: number; readonly bytes: Uint8Array }>
  ): Effect.Effect<void, IoError> {
    return Effect.forEach(writes, ({ bytes, offsetBytes }) => this.write(offsetBytes, bytes), {
      concurrency: inFlight,
      discard: true
    })
  }

  /** Nothing when the bdev does not know the request, as SPDK's `bdev_blob_unmap`. */
  unmap(offsetBytes: number, lengthBytes: number, io: BdevIo = this.bdev): Effect.Effect<void, IoError> {
    return this.canUnmap && lengthBytes > 0 ? io.unmap(offsetBytes, lengthBytes) : Effect.void
  }

  zero(offsetBytes: number, lengthBytes: number, io: BdevIo = this.bdev): Effect.Effect<void, IoError> {
    if (lengthBytes === 0) return Effect.void
    return this.canZero ? io.writeZeroes(offsetBytes, lengthBytes) : this.writeZeroes(offsetBytes, lengthBytes)
  }

  zeroAll(offsetsBytes: ReadonlyArray<number>, lengthBytes: number): Effect.Effect<void, IoError> {
    return Effect.forEach(offsetsBytes, (offsetBytes) => this.zero(offsetBytes, lengthBytes), {
      concurrency: inFlight,
      discard: true
    })
  }

  clear(method: ClearMethod, offsetBytes: number, lengthBytes: number): Effect.Effect<void, IoError> {
    if (method === "none") return Effect.void
    return method === "write_zeroes" ? this.zero(offsetBytes, lengthBytes) : this.unmap(offsetBytes, lengthBytes)
  }

  withChunk<A, E>(use: (chunk: DmaBuffer) => Effect.Effect<A, E>): Effect.Effect<A, E | IoError> {
    return Effect.scoped(Effect.flatMap(this.chunks.take, use))
  }

  /** For bdevs that do not know the request. */
  private writeZeroes(offsetBytes: number, lengthBytes: number): Effect.Effect<void, IoError> {
    return this.withChunk((chunk) => {
      chunk.bytes.fill(0)
      const next = (at: number): Effect.Effect<void, IoError> => {
        if (at >= lengthBytes) return Effect.void
        const length = Math.min(chunk.byteLength, lengthBytes - at)
        return Effect.flatMap(this.bdev.write(offsetBytes + at, chunk.slice(0, length)), () => next(at + length))
      }
      return next(0)
    })
  }
}
