/**
 * Memory that a device can read and write directly. Use DMA buffers for bdev I/O without copies. A buffer lives as long
 * as its scope, not until garbage collection. The memory is never freed while a device may use it.
 *
 * ```ts
 * import * as Bdev from "@effect-spdk/core/Bdev"
 * import * as DmaBuffer from "@effect-spdk/core/DmaBuffer"
 * import * as Effect from "effect/Effect"
 *
 * const firstBlock = Effect.gen(function*() {
 *   const bdev = yield* Bdev.Bdev
 *   const buffer = yield* DmaBuffer.make(bdev.blockSize)
 *   yield* bdev.read(0, buffer)
 *   return buffer.bytes.slice()
 * }).pipe(Effect.scoped)
 * ```
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import type * as Scope from "effect/Scope"
import { makePool } from "./internal/memory/dmaPool.ts"
import { EngineService } from "./internal/engine/service.ts"
import { bufferOf, DmaBufferTypeId, freeMemory, maxLengthBytes, Memory } from "./internal/memory/ioMemory.ts"
import { onlyReasons } from "./internal/common/reasons.ts"
import { failInvalid, type SpdkErrorOf } from "./SpdkError.ts"

/**
 * A piece of DMA memory. Only this module makes buffers.
 *
 * **Lifetime.** A buffer is released at the end of the scope of `make`, or of a pool's lease. The release has three
 * steps. First, every new I/O with the buffer or with a slice of it fails with `Released`. Then the release waits for
 * the I/O in flight. Then it frees the memory. Afterwards `bytes`, and every `Uint8Array` made from `bytes`, have
 * length 0, because their `ArrayBuffer` is detached. A late use thus reads nothing, and never reads the data of another
 * buffer. When the device does not answer within `Bdev.ReleaseTimeout`, the release dies with `TimedOut`. The memory
 * then stays allocated until the device no longer uses it.
 *
 * **While an I/O is in flight** the device owns the bytes. A change to the bytes may or may not reach the device. A
 * read of the bytes may return a partly filled block.
 *
 * **Do not transfer `bytes.buffer`.** The memory belongs to SPDK and does not move. On libspdk, a message or
 * `structuredClone` does not transfer external memory: Node copies or refuses, depending on its version.
 * `ArrayBuffer.prototype.transfer` does transfer it. Afterwards no I/O accepts the buffer, the release dies, and the
 * memory stays allocated, because the new owner could still reach it. The end of the worker that made the buffer frees
 * the memory nevertheless. On the embedded engine, no I/O accepts a buffer after any kind of transfer.
 *
 * @since 0.1.0
 * @category models
 */
export interface DmaBuffer {
  readonly [DmaBufferTypeId]: typeof DmaBufferTypeId
  /** In bytes; 0 after release. */
  readonly byteLength: number
  /**
   * The largest power of two, in bytes, that divides the memory address. The alignment of a slice follows from its
   * offset.
   */
  readonly alignment: number
  /** The memory itself, not a copy. The length is 0 after release. */
  readonly bytes: Uint8Array
  /** The number of requests in flight that use this memory. Requests on slices and on the parent buffer count too. */
  readonly pins: number
  readonly isReleased: boolean
  /**
   * A part of the same memory, with the same lifetime. Both numbers are in bytes; `lengthBytes` defaults to the rest of
   * the buffer. Throws `SpdkError<InvalidArgument>` when the part is not inside the buffer. `new Uint8Array(buffer,
   * offset, length)` throws a `RangeError` likewise. Inside an Effect the throw is a defect.
   */
  slice(offsetBytes: number, lengthBytes?: number): DmaBuffer
}

/** @since 0.1.0 @category guards */
export const isDmaBuffer = (u: unknown): u is DmaBuffer => Predicate.hasProperty(u, DmaBufferTypeId)

/** @since 0.1.0 @category models */
export interface MakeOptions {
  /** In bytes, a power of two. Default 4096, which fits every bdev in use. */
  readonly alignment?: number | undefined
}

/** @since 0.1.0 @category errors */
export type MakeError = SpdkErrorOf<"InvalidArgument" | "NoMemory" | "NotSupported">

/**
 * Allocates zeroed memory (`spdk_dma_zmalloc`). The end of the scope releases the memory. `lengthBytes` is a whole
 * number from 1 to 2 GiB. For I/O it must be a multiple of the bdev's block size. Fails with `NoMemory` when the engine
 * has no DMA memory left.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make: (
  lengthBytes: number,
  options?: MakeOptions
) => Effect.Effect<DmaBuffer, MakeError, EngineService | Scope.Scope> = Effect.fnUntraced(function* (
  lengthBytes: number,
  options?: MakeOptions
) {
  const operation = "DmaBuffer.make"
  const engine = yield* EngineService
  const alignment = options?.alignment ?? defaultAlignment
  yield* checkMemory(operation, lengthBytes, alignment)
  const memory = yield* Effect.acquireRelease(
    Effect.map(
      onlyReasons(["InvalidArgument", "NoMemory", "NotSupported"])(engine.memory.allocate(lengthBytes, alignment)),
      (slab) => new Memory(slab)
    ),
    (released) => freeMemory(engine.memory, released, "DmaBuffer.release")
  )
  return bufferOf(memory, lengthBytes)
})

/** @since 0.1.0 @category models */
export interface PoolOptions extends MakeOptions {
  /** The length of each buffer, as in `make`. */
  readonly lengthBytes: number
  /** The number of buffers. All of them are allocated at once. */
  readonly capacity: number
}

/**
 * A fixed number of buffers of equal length.
 *
 * @since 0.1.0
 * @category models
 */
export interface DmaPool {
  readonly lengthBytes: number
  readonly capacity: number
  /** The number of buffers that `take` can lease without waiting. */
  readonly available: number
  /**
   * Leases a buffer until the scope ends. When all buffers are leased, callers wait in order of arrival. The bytes keep
   * the content of the previous lease. The end of the lease waits for the buffer's I/O, as a release does, and detaches
   * the views. A view from one lease never shows the bytes of the next. Fails with `Released` after the pool's scope
   * has closed.
   */
  readonly take: Effect.Effect<DmaBuffer, SpdkErrorOf<"Released">, Scope.Scope>
}

/**
 * Allocates a pool, for programs that would otherwise allocate memory for each request. When the scope of the pool
 * closes, waiting takers fail with `Released`. Leased buffers are freed at the end of their lease.
 *
 * @since 0.1.0
 * @category constructors
 */
export const pool: (options: PoolOptions) => Effect.Effect<DmaPool, MakeError, EngineService | Scope.Scope> =
  Effect.fnUntraced(function* (options: PoolOptions) {
    const operation = "DmaBuffer.pool"
    const engine = yield* EngineService
    const alignment = options.alignment ?? defaultAlignment
    yield* checkMemory(operation, options.lengthBytes, alignment)
    if (!Number.isSafeInteger(options.capacity) || options.capacity < 1) {
      return yield* failInvalid(operation, "capacity", "is not a whole number above 0", options.capacity)
    }
    return yield* makePool(engine.memory, options.lengthBytes, alignment, options.capacity)
  })

const defaultAlignment = 4096

/** The size of a huge page. SPDK's allocators can align to this size without wasting more memory than they give. */
const maxAlignment = 2 ** 21

const checkMemory = (
  operation: string,
  lengthBytes: number,
  alignment: number
): Effect.Effect<void, SpdkErrorOf<"InvalidArgument">> => {
  if (!Number.isSafeInteger(lengthBytes) || lengthBytes < 1 || lengthBytes > maxLengthBytes) {
    return failInvalid(operation, "lengthBytes", `is not a whole number from 1 to ${maxLengthBytes}`, lengthBytes)
  }
  const isPowerOfTwo = Number.isSafeInteger(alignment) && alignment > 0 && Number.isInteger(Math.log2(alignment))
  if (!isPowerOfTwo || alignment > maxAlignment) {
    return failInvalid(operation, "alignment", `is not a power of two from 1 to ${maxAlignment}`, alignment)
  }
  return Effect.void
}
