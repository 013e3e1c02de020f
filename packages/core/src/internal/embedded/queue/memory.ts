/**
 * DMA memory of the embedded engine: ArrayBuffers by {slot, generation}. Giving a slab back detaches the view that
 * its user holds; the bytes move to an ArrayBuffer of the engine's, so that requests in flight keep writing into
 * memory that is still there and nobody else's.
 */
import * as Effect from "effect/Effect"
import { invalid, NoMemory, SpdkError } from "../../../SpdkError.ts"
import type { EngineMemory, Slab } from "../../engine/engine.ts"
import { type Host, machineHost } from "../../engine/host.ts"
import { SlotTable } from "./slots.ts"

const operation = "DmaBuffer.make"
const maxLengthBytes = 2 ** 31

/** What there is, and what of it slabs and malloc bdevs hold. */
export class MemoryBudget {
  readonly limitBytes: number
  usedBytes = 0

  constructor(limitBytes: number) {
    this.limitBytes = limitBytes
  }

  take(lengthBytes: number): boolean {
    if (lengthBytes > this.limitBytes - this.usedBytes) return false
    this.usedBytes += lengthBytes
    return true
  }

  give(lengthBytes: number): void {
    this.usedBytes -= lengthBytes
  }
}

/** The memory behind a slab. Requests hold this, not the bytes, which are another object after a release. */
export class SlabMemory {
  readonly slot: number
  readonly lengthBytes: number
  readonly alignmentBytes: number
  generation: number
  bytes: Uint8Array<ArrayBuffer>
  /** Requests in flight. */
  pins = 0
  isClosed = false

  constructor(slot: number, generation: number, lengthBytes: number, alignmentBytes: number) {
    this.slot = slot
    this.generation = generation
    this.lengthBytes = lengthBytes
    this.alignmentBytes = alignmentBytes
    this.bytes = new Uint8Array(lengthBytes)
  }
}

export class SlabTable implements EngineMemory {
  private readonly budget: MemoryBudget
  private readonly host: Host
  private readonly slabs: SlotTable<SlabMemory>
  count = 0
  bytes = 0

  constructor(budget: MemoryBudget, host: Host = machineHost) {
    this.budget = budget
    this.host = host
    this.slabs = new SlotTable(host)
  }

  allocate = (lengthBytes: number, alignmentBytes: number): Effect.Effect<Slab, SpdkError> =>
    Effect.suspend(() => {
      if (!Number.isSafeInteger(lengthBytes) || lengthBytes < 1 || lengthBytes > maxLengthBytes) {
        const rule = `is not a whole number from 1 to ${maxLengthBytes}`
        return Effect.fail(invalid(operation, "lengthBytes", rule, lengthBytes))
      }
      if (!Number.isSafeInteger(alignmentBytes) || alignmentBytes < 1 || !Number.isInteger(Math.log2(alignmentBytes))) {
        return Effect.fail(invalid(operation, "alignment", "is not a power of two", alignmentBytes))
      }
      const memory = this.add(lengthBytes, alignmentBytes)
      return memory === undefined ? Effect.fail(this.noMemory(lengthBytes)) : Effect.succeed(new SlabView(memory))
    })

  free = (slab: Slab): void => {
    const memory = this.notGivenBack(slab.slot, slab.generation)
    if (memory === undefined) return
    if (!isMoved(memory)) detach(memory)
    memory.isClosed = true
    if (memory.pins === 0) this.recycle(memory)
  }

  renew = (slab: Slab): Slab => {
    const memory = this.notGivenBack(slab.slot, slab.generation)
    if (memory === undefined) return slab
    if (isMoved(memory)) memory.bytes = new Uint8Array(memory.lengthBytes)
    else detach(memory)
    memory.generation = this.slabs.renew(memory.slot)
    return new SlabView(memory)
  }

  /** The slab of this name, unless it was given back, or its bytes were taken away by a transfer of the view. */
  find(slot: number, generation: number): SlabMemory | undefined {
    const memory = this.notGivenBack(slot, generation)
    return memory === undefined || isMoved(memory) ? undefined : memory
  }

  unpin(memory: SlabMemory): void {
    if (--memory.pins === 0 && memory.isClosed) this.recycle(memory)
  }

  /** The end of the engine. Whoever still holds a view finds it detached. */
  freeAll(): void {
    for (const memory of this.slabs.values()) {
      if (!memory.isClosed) this.free(new SlabView(memory))
    }
  }

  private notGivenBack(slot: number, generation: number): SlabMemory | undefined {
    const memory = this.slabs.find(slot, generation)
    return memory === undefined || memory.isClosed ? undefined : memory
  }

  private add(lengthBytes: number, alignmentBytes: number): SlabMemory | undefined {
    if (this.host.refusesMemory(lengthBytes) || !this.budget.take(lengthBytes)) return undefined
    try {
      const memory = this.slabs.open(
        (slot, generation) => new SlabMemory(slot, generation, lengthBytes, alignmentBytes)
      )
      this.count++
      this.bytes += lengthBytes
      return memory
    } catch {
      // V8 had no room for it.
      this.budget.give(lengthBytes)
      return undefined
    }
  }

  private recycle(memory: SlabMemory): void {
    this.slabs.free(memory.slot)
    this.budget.give(memory.lengthBytes)
    this.count--
    this.bytes -= memory.lengthBytes
    memory.bytes = new Uint8Array(0)
  }

  private noMemory(lengthBytes: number): SpdkError {
    const { limitBytes, usedBytes } = this.budget
    return new SpdkError({
      reason: new NoMemory({
        operation,
        detail: `${lengthBytes} bytes were asked for, and ${limitBytes - usedBytes} of ${limitBytes} are free`,
        errno: "ENOMEM",
        errnoCode: 12
      })
    })
  }
}

/** One life of a slab, as its user has it. The bytes are no property, so that nobody prints them by accident. */
class SlabView implements Slab {
  readonly slot: number
  readonly generation: number
  readonly lengthBytes: number
  readonly alignmentBytes: number
  readonly #view: Uint8Array

  constructor(memory: SlabMemory) {
    this.slot = memory.slot
    this.generation = memory.generation
    this.lengthBytes = memory.lengthBytes
    this.alignmentBytes = memory.alignmentBytes
    this.#view = memory.bytes
  }

  get view(): Uint8Array {
    return this.#view
  }
}

/** Whether the user of its view has transferred the bytes to somebody else. */
export const isMoved = (memory: SlabMemory): boolean => memory.bytes.length !== memory.lengthBytes

/** Moves the bytes to a new ArrayBuffer without copying them. Every view of the old one has length 0 from here on. */
const detach = (memory: SlabMemory): void => {
  const { buffer } = memory.bytes
  memory.bytes = new Uint8Array(structuredClone(buffer, { transfer: [buffer] }))
}

export const isInSlab = (memory: SlabMemory, offsetBytes: number, lengthBytes: number): boolean =>
  offsetBytes >= 0 &&
  lengthBytes >= 0 &&
  lengthBytes <= memory.lengthBytes - offsetBytes &&
  Number.isInteger(offsetBytes) &&
  Number.isInteger(lengthBytes)

/** A slab's address counts as a multiple of its alignment, and of nothing more. */
export const isAligned = (memory: SlabMemory, offsetBytes: number, alignmentBytes: number): boolean =>
  memory.alignmentBytes % alignmentBytes === 0 && offsetBytes % alignmentBytes === 0
