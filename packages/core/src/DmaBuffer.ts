/**
 * Memory that a device can read and write directly. For everybody who does I/O on a bdev without copies; the one thing
 * to know is its lifetime: a buffer ends with its scope, not with the garbage collector, and never under a device.
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
import { makePool } from "./internal/dmaPool.ts"
import { EngineService } from "./internal/engineService.ts"
import { bufferOf, DmaBufferTypeId, freeMemory, maxLengthBytes, Memory } from "./internal/ioMemory.ts"
import { onlyReasons } from "./internal/reasons.ts"
import { failInvalid, type SpdkErrorOf } from "./SpdkError.ts"

/**
 * A piece of DMA memory. The interface is closed: only this module makes buffers.
 *
 * **Lifetime.** Release (the end of the scope of `make`, or of a pool's lease) first makes every new I/O with the buffer
 * or with a slice of it fail with `Released`, then waits for the I/O in flight, and only then frees the memory. From then
 * on `bytes` and every `Uint8Array` that was taken from it have length 0 (their `ArrayBuffer` is detached), so that a
 * late use reads nothing rather than somebody else's data. When the device does not answer within
 * `Bdev.ReleaseTimeout`, release dies with `TimedOut`, and the memory stays allocated until the device lets go of it.
 *
 * **While an I/O is in flight** the device owns the bytes: what is written to them in that time may or may not
 * reach the device, and what is read from them may be half of a block.
 *
 * **Do not transfer `bytes.buffer`**: the memory is SPDK's and does not move. On libspdk Node does not transfer external
 * memory by a message or `structuredClone` (it copies or refuses, by its version). `ArrayBuffer.prototype.transfer` does: no
 * I/O takes the buffer after that, its release dies and the memory stays allocated, because whoever has it now could still
 * reach it; the end of the worker that made it frees it all the same. On the embedded engine no I/O takes the buffer after a
 * transfer of any kind.
 *
 * @since 0.1.0
 * @category models
 */
export interface DmaBuffer {
  readonly [DmaBufferTypeId]: typeof DmaBufferTypeId
  /** In bytes; 0 after release. */
  readonly byteLength: number
  /** The power of two, in bytes, that divides the memory address. Of a slice, it follows from where it starts. */
  readonly alignment: number
  /** The memory itself, not a copy. Length 0 after release. */
  readonly bytes: Uint8Array
  /** Requests in flight that use this memory, those of slices and of the buffer they come from included. */
  readonly pins: number
  readonly isReleased: boolean
  /**
   * A part of the same memory, with the same lifetime; both numbers in bytes, by default up to the end. Throws
   * `SpdkError<InvalidArgument>` when the part does not lie in the buffer, as `new Uint8Array(buffer, offset, length)`
   * throws a `RangeError`: inside an Effect that is a defect.
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
 * Allocates zeroed memory (`spdk_dma_zmalloc`) that is released with the scope. `lengthBytes` is a whole number of bytes
 * from 1 to 2 GiB; for I/O it must be a multiple of the bdev's block size. Fails with `NoMemory` when the engine has no
 * room left.
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
  /** Of each buffer, as in `make`. */
  readonly lengthBytes: number
  /** How many buffers there are; all of them are allocated at once. */
  readonly capacity: number
}

/**
 * A fixed number of equal buffers.
 *
 * @since 0.1.0
 * @category models
 */
export interface DmaPool {
  readonly lengthBytes: number
  readonly capacity: number
  /** Buffers that `take` would get without waiting. */
  readonly available: number
  /**
   * Leases a buffer until the scope ends; waits, in order of arrival, when all are leased. The bytes are what the last
   * lease left in them. The end of the lease waits for the buffer's I/O as release does, and detaches its views: what was
   * captured in one lease never sees the bytes of the next. Fails with `Released` once the pool's scope has closed.
   */
  readonly take: Effect.Effect<DmaBuffer, SpdkErrorOf<"Released">, Scope.Scope>
}

/**
 * Allocates a pool, for programs that would otherwise allocate per request. When its scope closes, waiting takers fail with
 * `Released`, and buffers that are still leased are freed at the end of their lease.
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

/** A huge page: what the allocators of SPDK can align to without wasting more than they give. */
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
