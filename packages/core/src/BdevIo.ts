/**
 * The I/O that a bdev offers, through its handle or through an explicit channel. Import all of this from `Bdev`.
 *
 * @since 0.1.0
 */
import type * as Effect from "effect/Effect"
import type * as Sink from "effect/Sink"
import type * as Stream from "effect/Stream"
import type { DmaBuffer } from "./DmaBuffer.ts"
import type { IoReason, SpdkError } from "./SpdkError.ts"

/** What an I/O fails with. @since 0.1.0 @category errors */
export type IoError = SpdkError<IoReason>

/** Bytes of a bdev. @since 0.1.0 @category models */
export interface ByteRange {
  readonly offsetBytes: number
  readonly lengthBytes: number
}

/** One request of a batch: `buffer.byteLength` bytes at `offsetBytes`. @since 0.1.0 @category models */
export interface BatchEntry {
  readonly offsetBytes: number
  readonly buffer: DmaBuffer
}

/**
 * A list of requests that was checked once and can run many times: the fastest way to do I/O from JavaScript. Set
 * `offsetsBytes`, run, read `statuses`.
 *
 * @since 0.1.0
 * @category models
 */
export interface BdevBatch {
  /** The number of entries. */
  readonly length: number
  /** Where each entry reads or writes. Write to it between runs; it is read, and checked, when a run starts. */
  readonly offsetsBytes: Float64Array
  /** Of each entry in the last run: 0, or a negative errno. */
  readonly statuses: Int32Array
  /**
   * Submits all entries in order and completes when all of them have completed; in which order they do that is up to the
   * device. Fails with the error of the lowest failed index, after all have completed. One run at a time: a second one
   * fails with `Busy`. Interruption asks to abort what is in flight and waits for it.
   */
  readonly run: Effect.Effect<void, IoError>
  /** Why an entry failed in the last run; undefined when it did not. */
  readonly errorAt: (index: number) => IoError | undefined
}

/** @since 0.1.0 @category models */
export interface RangeOptions {
  /** Where the range starts; any byte. Default 0. */
  readonly offsetBytes?: number | undefined
  /** Any number of bytes. Default: up to the end of the bdev. */
  readonly lengthBytes?: number | undefined
  /** Bytes of one I/O, at most 4 MiB, rounded down to whole blocks, at least one. Default 128 KiB. */
  readonly chunkBytes?: number | undefined
  /** I/Os in flight. Default 4. */
  readonly concurrency?: number | undefined
}

/**
 * Reads, writes and the rest.
 *
 * **Ranges.** Offsets and lengths are in bytes and must be multiples of the block size; `stream` and `sink` alone take any
 * byte. A range must lie in the bdev. Buffers must not be empty, must be whole blocks long, and their memory must be
 * aligned as the bdev requires, which a buffer of `DmaBuffer.make` always is.
 *
 * **Errors.** All of that is checked before anything reaches the device, and fails with `InvalidArgument` naming field and
 * rule; so do `ReadOnly`, `NotSupported` and `Released` (of the buffer, the handle, the channel or the thread). A bdev that
 * was removed fails everything with `DeviceRemoved`. What the device answers becomes `IoFailed`, `Aborted`, `NoSpace` and
 * so on, with the NVMe status where there is one.
 *
 * **Thread and order.** A request goes to the device from the SpdkThread the fiber is on (`SpdkThread.on`), through a channel
 * that is opened at the first I/O there. Requests in flight at the same time have no order among them.
 *
 * **Durability.** A write that has completed is seen by every later read, and survives a power cut only after a `flush`
 * that was submitted after its completion has completed.
 *
 * **Interruption** asks the device to abort the request and then waits until the device has let go of the memory, so it
 * can take as long as the I/O. The request may or may not have taken effect.
 *
 * @since 0.1.0
 * @category models
 */
export interface BdevIo {
  /** Fills the buffer from `offsetBytes` (`spdk_bdev_read_blocks`). */
  read(offsetBytes: number, buffer: DmaBuffer): Effect.Effect<void, IoError>
  /** Writes the whole buffer at `offsetBytes` (`spdk_bdev_write_blocks`). */
  write(offsetBytes: number, buffer: DmaBuffer): Effect.Effect<void, IoError>
  /** Fills 1 to 64 buffers, one after the other, from one range: one request (`spdk_bdev_readv_blocks`). */
  readv(offsetBytes: number, buffers: ReadonlyArray<DmaBuffer>): Effect.Effect<void, IoError>
  /** Writes 1 to 64 buffers, one after the other, to one range: one request (`spdk_bdev_writev_blocks`). */
  writev(offsetBytes: number, buffers: ReadonlyArray<DmaBuffer>): Effect.Effect<void, IoError>
  /**
   * Makes what was written durable, in this range or in the whole bdev (`spdk_bdev_flush_blocks`). `NotSupported` on bdevs
   * without a volatile cache that do not know the request: ask `supports("flush")`.
   */
  flush(range?: ByteRange): Effect.Effect<void, IoError>
  /**
   * Says that the content is not needed any more (`spdk_bdev_unmap_blocks`). What a read returns afterwards is up to the
   * device. Any length is one request.
   */
  unmap(offsetBytes: number, lengthBytes: number): Effect.Effect<void, IoError>
  /** Writes zeroes (`spdk_bdev_write_zeroes_blocks`). Any length is one request. */
  writeZeroes(offsetBytes: number, lengthBytes: number): Effect.Effect<void, IoError>
  /** Resets the device (`spdk_bdev_reset`). Requests in flight complete, many of them with `Aborted`. */
  readonly reset: Effect.Effect<void, IoError>
  /** `read` into new plain memory: copies once. Up to 2 GiB; above 1 MiB several requests. */
  readBytes(offsetBytes: number, lengthBytes: number): Effect.Effect<Uint8Array, IoError>
  /**
   * `write` from plain memory: copies once. Above 1 MiB several requests, so that a failure leaves a part written. The
   * bytes must not change until the Effect has ended.
   */
  writeBytes(offsetBytes: number, bytes: Uint8Array): Effect.Effect<void, IoError>
  /**
   * Many reads at the cost of one Effect. All entries are checked before the first is submitted, and an `InvalidArgument`
   * names its index (`entries[3].offsetBytes`). Entries may complete in any order. When some fail, the others still complete,
   * and then the batch fails with the error of the lowest failed index, whose `detail` starts with `entries[3]`; to
   * know of each entry, use `prepareReads`.
   */
  readBatch(entries: ReadonlyArray<BatchEntry>): Effect.Effect<void, IoError>
  /** Many writes at the cost of one Effect, as `readBatch`. */
  writeBatch(entries: ReadonlyArray<BatchEntry>): Effect.Effect<void, IoError>
  /** A batch of reads to run again and again. Its buffers must outlive its runs. */
  prepareReads(entries: ReadonlyArray<BatchEntry>): Effect.Effect<BdevBatch, IoError>
  /** A batch of writes to run again and again. Its buffers must outlive its runs. */
  prepareWrites(entries: ReadonlyArray<BatchEntry>): Effect.Effect<BdevBatch, IoError>
  /**
   * The bytes of a range, in order, with `concurrency` reads ahead of the consumer. Each chunk is a new `Uint8Array` that the
   * consumer may keep; the first and the last may be shorter than the others.
   */
  stream(options?: RangeOptions): Stream.Stream<Uint8Array, IoError>
  /**
   * Writes what it is fed to a range, in order of offsets, with up to `concurrency` writes in flight, and returns the number of
   * bytes. Where the bytes start or end inside a block, that block is read, merged and written back: its other bytes
   * keep their value, unless somebody else writes to that block at the same time.
   *
   * More bytes than the range holds fail with `NoSpace`, after what fits has been written; nothing outside of the range
   * changes. The sink does not flush. It keeps references to what it is fed until that is written.
   */
  sink(options?: RangeOptions): Sink.Sink<number, Uint8Array, never, IoError>
}
