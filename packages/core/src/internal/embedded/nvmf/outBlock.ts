/**
 * Memory that responses are written into. Connections share the blocks: one that has nothing to say holds none.
 */
import { SlabMemory } from "../queue/memory.ts"

/** Two reads of 128 KiB with what is around them. */
export const blockBytes = 256 * 1024 + 512
const maxFree = 64

export class OutBlock extends SlabMemory {
  filledBytes = 0

  constructor(lengthBytes: number) {
    super(0, 0, lengthBytes, 1)
  }
}

export class BlockPool {
  private readonly free: Array<OutBlock> = []
  /** By connections. */
  takenBytes = 0

  take(neededBytes: number): OutBlock {
    const block = neededBytes <= blockBytes ? this.free.pop() : undefined
    const taken = block ?? new OutBlock(Math.max(blockBytes, neededBytes))
    this.takenBytes += taken.lengthBytes
    return taken
  }

  give(block: OutBlock): void {
    block.filledBytes = 0
    this.takenBytes -= block.lengthBytes
    if (block.lengthBytes === blockBytes && this.free.length < maxFree) this.free.push(block)
  }
}
