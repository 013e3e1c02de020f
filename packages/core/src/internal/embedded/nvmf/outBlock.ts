/**
 * Memory that responses are written into. Connections share the blocks: one that has nothing to say holds none.
 */
import { SlabMemory } from "../memory.ts"

export const blockBytes = 256 * 1024
const maxFree = 64

export class OutBlock extends SlabMemory {
  filledBytes = 0

  constructor(lengthBytes: number) {
    super(0, 0, lengthBytes, 1)
  }
}

export class BlockPool {
  private readonly free: Array<OutBlock> = []

  take(neededBytes: number): OutBlock {
    const block = neededBytes <= blockBytes ? this.free.pop() : undefined
    return block ?? new OutBlock(Math.max(blockBytes, neededBytes))
  }

  give(block: OutBlock): void {
    block.filledBytes = 0
    if (block.lengthBytes === blockBytes && this.free.length < maxFree) this.free.push(block)
  }
}
