/**
 * The I/O of a bdev, through its handle or through an explicit channel. Import these names from `Bdev`.
 *
 * @since 0.1.0
 */
import type * as Effect from "effect/Effect"
import type * as Sink from "effect/Sink"
import type * as Stream from "effect/Stream"
import type { DmaBuffer } from "./DmaBuffer.ts"
import type { IoReason, SpdkError } from "./SpdkError.ts"

/** The error of an I/O. @since 0.1.0 @category errors */
export type IoError = SpdkError<IoReason>

/** A range of a bdev, in bytes. @since 0.1.0 @category models */
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
 * A list of requests that is checked once and can run many times. This is the fastest way to do I/O from JavaScript.
 * Set `offsetsBytes`, run, then read `statuses`.
 *
 * @since 0.1.0
 * @category models
 */
export interface BdevBatch {
  /** The number of entries. */
  readonly length: number
  /**
   * The offset of each entry on the bdev. Change offsets only between runs. Each run reads and checks them when it
   * starts.
   */
  readonly offsetsBytes: Float64Array
  /** The status of each entry in the last run: 0, or a negative errno. */
  readonly statuses: Int32Array
  /**
   * Submits all entries in order. Completes when all entries have completed. The device decides the order of the
   * completions. When entries fail, the run fails with the error of the lowest failed index, after all entries have
   * completed. Only one run may be in progress: a second run fails with `Busy`. Interruption asks the device to abort
   * the entries in flight and waits for them.
   */
  readonly run: Effect.Effect<void, IoError>
  /** The error of an entry in the last run; `undefined` when the entry succeeded. */
  readonly errorAt: (index: number) => IoError | undefined
}

/** @since 0.1.0 @category models */
export interface RangeOptions {
  /** The start of the range, at any byte. Default 0. */
  readonly offsetBytes?: number | undefined
  /** The length of the range: any number of bytes. Default: up to the end of the bdev. */
  readonly lengthBytes?: number | undefined
  /** The size of one I/O in bytes: at most 4 MiB, rounded down to whole blocks, at least one block. Default 128 KiB. */
  readonly chunkBytes?: number | undefined
  /** The number of I/Os in flight. Default 4. */
  readonly concurrency?: number | undefined
}

/**
 * Reads, writes and the other I/O operations.
 *
 * **Ranges.** Offsets and lengths are in bytes and must be multiples of the block size. Only the `stream` and `sink`
 * methods accept any byte. A range must lie inside the bdev. Buffers must not be empty and must be whole blocks long.
 * Their memory must have the alignment that the bdev requires; a buffer of `DmaBuffer.make` always has.
 *
 * **Errors.** These rules are checked before a request reaches the device. A violation fails with `InvalidArgument`,
 * which names the field and the rule. `ReadOnly`, `NotSupported` and `Released` are detected at the same point;
 * `Released` concerns the buffer, the handle, the channel or the thread. After the bdev was removed, every operation
 * fails with `DeviceRemoved`. An error of the device becomes `IoFailed`, `Aborted`, `NoSpace` or another reason, with
 * the NVMe status when there is one.
 *
 * **Thread and order.** A request is submitted from the fiber's current SpdkThread (`SpdkThread.on`). The channel on
 * that thread opens at the first I/O there. Requests in flight at the same time have no order among them.
 *
 * **Durability.** Every later read sees a completed write. The write survives a power cut only after a `flush` has
 * completed that was submitted after the write completed.
 *
 * **Interruption** asks the device to abort the request, then waits until the device no longer uses the memory. This
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
  /** Fills 1 to 64 buffers in order from one contiguous range, in one request (`spdk_bdev_readv_blocks`). */
  readv(offsetBytes: number, buffers: ReadonlyArray<DmaBuffer>): Effect.Effect<void, IoError>
  /** Writes 1 to 64 buffers in order to one contiguous range, in one request (`spdk_bdev_writev_blocks`). */
  writev(offsetBytes: number, buffers: ReadonlyArray<DmaBuffer>): Effect.Effect<void, IoError>
  /**
   * Makes completed writes durable, in this range or on the whole bdev (`spdk_bdev_flush_blocks`). Some bdevs without a
   * volatile cache fail with `NotSupported`. Use `supports("flush")` to find out.
   */
  flush(range?: ByteRange): Effect.Effect<void, IoError>
  /**
   * Tells the device that the content of the range is no longer needed (`spdk_bdev_unmap_blocks`). The device decides
   * what later reads return. A range of any length is one request.
   */
  unmap(offsetBytes: number, lengthBytes: number): Effect.Effect<void, IoError>
  /** Writes zeroes (`spdk_bdev_write_zeroes_blocks`). A range of any length is one request. */
  writeZeroes(offsetBytes: number, lengthBytes: number): Effect.Effect<void, IoError>
  /** Resets the device (`spdk_bdev_reset`). Requests in flight complete, many of them with `Aborted`. */
  readonly reset: Effect.Effect<void, IoError>
  /** Reads into new plain memory, with one copy. At most 2 GiB. A range above 1 MiB takes several requests. */
  readBytes(offsetBytes: number, lengthBytes: number): Effect.Effect<Uint8Array, IoError>
  /**
   * Writes from plain memory, with one copy. A range above 1 MiB takes several requests, so a failure can leave a part
   * written. Do not change the bytes before the Effect has ended.
   */
  writeBytes(offsetBytes: number, bytes: Uint8Array): Effect.Effect<void, IoError>
  /**
   * Submits many reads in one Effect. All entries are checked before the first is submitted; `InvalidArgument` names
   * the index of the wrong entry (`entries[3].offsetBytes`). Entries may complete in any order.
   *
   * When entries fail, the others still complete. Then the batch fails with the error of the lowest failed index. Its
   * `detail` starts with `entries[3]`, for example. Use `prepareReads` to get the status of each entry.
   */
  readBatch(entries: ReadonlyArray<BatchEntry>): Effect.Effect<void, IoError>
  /** Submits many writes in one Effect, by the rules of `readBatch`. */
  writeBatch(entries: ReadonlyArray<BatchEntry>): Effect.Effect<void, IoError>
  /** Prepares a batch of reads that can run many times. The buffers must outlive the runs. */
  prepareReads(entries: ReadonlyArray<BatchEntry>): Effect.Effect<BdevBatch, IoError>
  /** Prepares a batch of writes that can run many times. The buffers must outlive the runs. */
  prepareWrites(entries: ReadonlyArray<BatchEntry>): Effect.Effect<BdevBatch, IoError>
  /**
   * Streams the bytes of a range in order, with `concurrency` reads ahead of the consumer. Each chunk is a new
   * `Uint8Array`, which the consumer may keep. The first and the last chunk may be shorter than the others.
   */
  stream(options?: RangeOptions): Stream.Stream<Uint8Array, IoError>
  /**
   * Writes the incoming chunks to a range, in order of offsets, with up to `concurrency` writes in flight. Returns the
   * number of bytes. Where the bytes start or end inside a block, the sink reads that block, merges the bytes and
   * writes the block back. The block's other bytes keep their value, unless another writer changes that block at the
   * same time.
   *
   * When the input is longer than the range, the sink writes the part that fits, then fails with `NoSpace`. Nothing
   * outside the range changes. The sink does not flush. The sink keeps references to the chunks until they are written.
   */
  sink(options?: RangeOptions): Sink.Sink<number, Uint8Array, never, IoError>
}
