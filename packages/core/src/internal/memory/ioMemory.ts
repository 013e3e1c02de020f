/**
 * DMA memory as the I/O path sees it: slabs with a count of the requests that use them.
 */
import * as Effect from "effect/Effect"
import type { DmaBuffer } from "../../DmaBuffer.ts"
import { invalid } from "../../SpdkError.ts"
import type { EngineMemory, Slab } from "../engine/engine.ts"
import { withinLimit } from "../common/release.ts"

export const DmaBufferTypeId = "~@effect-spdk/core/DmaBuffer"

/** The most bytes of one allocation: ring entries address memory with 32-bit words. */
export const maxLengthBytes = 2 ** 31

/** One life of a slab: from its allocation, or the lease of a pool, to its release. */
export class Memory {
  readonly slab: Slab
  readonly slot: number
  readonly generation: number
  /** Requests in flight that use the slab or a part of it. */
  pins: number
  released: boolean
  /** Runs each time `pins` falls to 0. */
  onUnpinned: (() => void) | undefined

  constructor(slab: Slab) {
    this.slab = slab
    this.slot = slab.slot
    this.generation = slab.generation
    this.pins = 0
    this.released = false
    this.onUnpinned = undefined
  }
}

export const unpin = (memory: Memory): void => {
  if (--memory.pins === 0 && memory.onUnpinned !== undefined) memory.onUnpinned()
}

/** Stands for the memory of requests that carry none, so that the I/O path needs no case for them. */
export const noMemory = new Memory({
  slot: 0,
  generation: 0,
  lengthBytes: 0,
  alignmentBytes: 0,
  view: new Uint8Array(0)
})

/** Waits until no request uses the memory. */
export const awaitUnpinned = (memory: Memory): Effect.Effect<void> =>
  Effect.suspend(() =>
    memory.pins === 0
      ? Effect.void
      : Effect.callback<void>((resume) => {
          memory.onUnpinned = () => resume(Effect.void)
        })
  )

/** From here on no I/O takes the memory; what is in flight is waited for, and only then `giveBack` runs. */
export const releaseMemory = (memory: Memory, operation: string, giveBack: () => void): Effect.Effect<void> =>
  Effect.suspend(() => {
    memory.released = true
    return memory.pins === 0
      ? Effect.sync(giveBack)
      : withinLimit(
          operation,
          `slab ${memory.slot}, used by ${memory.pins} requests`,
          Effect.andThen(awaitUnpinned(memory), Effect.sync(giveBack))
        )
  })

export const freeMemory = (engineMemory: EngineMemory, memory: Memory, operation: string): Effect.Effect<void> =>
  releaseMemory(memory, operation, () => engineMemory.free(memory.slab))

const noBytes = new Uint8Array(0)

/** Also a `SlabRange`, so that an array of buffers is the segment list of a vectored request. */
export class DmaBufferImpl implements DmaBuffer {
  readonly [DmaBufferTypeId] = DmaBufferTypeId
  readonly memory: Memory
  readonly slab: Slab
  readonly offsetBytes: number
  readonly lengthBytes: number
  readonly alignment: number
  private view: Uint8Array | undefined

  constructor(memory: Memory, offsetBytes: number, lengthBytes: number, alignment: number) {
    this.memory = memory
    this.slab = memory.slab
    this.offsetBytes = offsetBytes
    this.lengthBytes = lengthBytes
    this.alignment = alignment
    this.view = undefined
  }

  get byteLength(): number {
    return this.memory.released ? 0 : this.lengthBytes
  }

  get bytes(): Uint8Array {
    if (this.memory.released) return noBytes
    return (this.view ??= this.slab.view.subarray(this.offsetBytes, this.offsetBytes + this.lengthBytes))
  }

  get pins(): number {
    return this.memory.pins
  }

  get isReleased(): boolean {
    return this.memory.released
  }

  slice(offsetBytes: number, lengthBytes: number = this.lengthBytes - offsetBytes): DmaBuffer {
    const operation = "DmaBuffer.slice"
    if (!Number.isSafeInteger(offsetBytes) || offsetBytes < 0 || offsetBytes > this.lengthBytes) {
      throw invalid(operation, "offsetBytes", `is not a whole number from 0 to ${this.lengthBytes}`, offsetBytes)
    }
    const left = this.lengthBytes - offsetBytes
    if (!Number.isSafeInteger(lengthBytes) || lengthBytes < 0 || lengthBytes > left) {
      throw invalid(operation, "lengthBytes", `is not a whole number from 0 to ${left}`, lengthBytes)
    }
    return sliceOf(this, offsetBytes, lengthBytes)
  }

  toJSON(): unknown {
    return { _id: "DmaBuffer", byteLength: this.byteLength, alignment: this.alignment, isReleased: this.isReleased }
  }
}

/** Unchecked `slice`. */
export const sliceOf = (buffer: DmaBufferImpl, offsetBytes: number, lengthBytes: number): DmaBufferImpl => {
  const start = buffer.offsetBytes + offsetBytes
  // The lowest set bit of the start is the largest power of two that divides it.
  const alignment = start === 0 ? buffer.slab.alignmentBytes : Math.min(buffer.slab.alignmentBytes, lowestBit(start))
  return new DmaBufferImpl(buffer.memory, start, lengthBytes, alignment)
}

// Offsets are below 2^31; the two's complement of 32 bits is enough.
const lowestBit = (value: number): number => (value & -value) >>> 0

/** The slab's first `lengthBytes`; an engine may have allocated more. */
export const bufferOf = (memory: Memory, lengthBytes: number): DmaBufferImpl =>
  new DmaBufferImpl(memory, 0, lengthBytes, memory.slab.alignmentBytes)
