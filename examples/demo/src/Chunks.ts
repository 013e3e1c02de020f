/**
 * Files and blobs in chunks. All chunks under way, of however many files, share a few buffers of device memory: that is what
 * holds the faster side back, and what bounds the memory.
 */
import * as DmaBuffer from "@effect-spdk/core/DmaBuffer"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"

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

/** What is done with each chunk of a file, in this order. */
export interface Steps<EFill, EPass, EUse> {
  /** Fills the buffer. Several chunks at once. */
  readonly load: (chunk: Chunk) => Effect.Effect<unknown, EFill>
  /** One chunk after the other, in the order of the file. */
  readonly pass: (chunk: Chunk) => Effect.Effect<unknown, EPass>
  /** Several at once again; afterwards the buffer is free. */
  readonly use: (chunk: Chunk) => Effect.Effect<unknown, EUse>
}

/**
 * Takes so many bytes through the steps. A few fibers do it, each with one chunk at a time, and what they do per chunk is
 * little: this is where the JavaScript of large files runs. Chunks queue for buffers in the order of the file, so one that
 * has a buffer never waits for one that has none.
 */
export const transfer = <EFill, EPass, EUse>(
  free: Buffers,
  sizeBytes: number,
  steps: Steps<EFill, EPass, EUse>
): Effect.Effect<void, EFill | EPass | EUse> =>
  Effect.suspend(() => {
    const chunks = Math.ceil(sizeBytes / chunkBytes)
    const waiting = new Map<number, () => void>()
    let taken = 0
    let passed = 0
    const turnOf = (index: number): Effect.Effect<void> =>
      Effect.callback((resume) => {
        waiting.set(index, () => resume(Effect.void))
      })
    const passOn = (): void => {
      passed++
      const next = waiting.get(passed)
      waiting.delete(passed)
      next?.()
    }
    const fiber = Effect.gen(function* () {
      while (taken < chunks) {
        const index = taken++
        const buffer = yield* Queue.take(free)
        const offsetBytes = index * chunkBytes
        const chunk: Chunk = { offsetBytes, lengthBytes: Math.min(chunkBytes, sizeBytes - offsetBytes), buffer }
        yield* steps.load(chunk)
        if (passed !== index) yield* turnOf(index)
        yield* steps.pass(chunk)
        passOn()
        yield* steps.use(chunk)
        yield* Queue.offer(free, buffer)
      }
    })
    const fibers = Array.from({ length: Math.min(chunksAtOnce, chunks) }, () => fiber)
    return Effect.all(fibers, { concurrency: "unbounded", discard: true })
  })
