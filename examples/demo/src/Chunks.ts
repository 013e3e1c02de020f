/**
 * Files and blobs in chunks. All chunks under way, of however many files, share a few buffers of device memory: that is what
 * holds the faster side back, and what bounds the memory.
 */
import * as DmaBuffer from "@effect-spdk/core/DmaBuffer"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"

const chunkBytes = 2 ** 20
const buffers = 24

/** Files under way at once, and chunks under way of each. */
export const filesAtOnce = 16
export const chunksAtOnce = 8

export type Buffers = Queue.Queue<DmaBuffer.DmaBuffer>

export interface Chunk {
  readonly offsetBytes: number
  readonly lengthBytes: number
  /** What the chunk does not fill of its last io unit is zeroes. */
  readonly buffer: DmaBuffer.DmaBuffer
}

export const bytesOf = ({ buffer, lengthBytes }: Chunk): Uint8Array => buffer.bytes.subarray(0, lengthBytes)

/** The part of the buffer that a blob reads or writes: whole io units. */
export const unitsOf = ({ buffer, lengthBytes }: Chunk, ioUnitBytes: number): DmaBuffer.DmaBuffer =>
  buffer.slice(0, Math.ceil(lengthBytes / ioUnitBytes) * ioUnitBytes)

/** The buffers, all free, until the scope ends. */
export const makeBuffers = Effect.gen(function* () {
  const free: Buffers = yield* Queue.unbounded<DmaBuffer.DmaBuffer>()
  for (let index = 0; index < buffers; index++) yield* Queue.offer(free, yield* DmaBuffer.make(chunkBytes))
  return free
})

/**
 * So many bytes in chunks, in order, each with a buffer that `fill` has filled. Whoever takes a chunk gives its buffer back.
 * One buffer is taken at a time, in the order of the chunks: a chunk that has one never waits for a chunk that has none.
 */
export const read = <E, R>(
  free: Buffers,
  sizeBytes: number,
  fill: (chunk: Chunk) => Effect.Effect<unknown, E, R>
): Stream.Stream<Chunk, E, R> =>
  Stream.range(0, Math.ceil(sizeBytes / chunkBytes) - 1).pipe(
    Stream.mapEffect((index) => {
      const offsetBytes = index * chunkBytes
      const lengthBytes = Math.min(chunkBytes, sizeBytes - offsetBytes)
      return Effect.map(Queue.take(free), (buffer): Chunk => ({ offsetBytes, lengthBytes, buffer }))
    }),
    Stream.mapEffect((chunk) => Effect.as(fill(chunk), chunk), { concurrency: chunksAtOnce })
  )
