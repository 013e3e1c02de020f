/** What the flusher writes in which order, so that the test knows without asking what must be on the disk. */
import { makeRandom } from "./random.ts"

export const durableBlocks = 512
export const durableBlockSize = 4096

/** A block that names itself and the write it comes from, and is whole or is not. */
export const stampBlock = (bytes: Uint8Array, block: number, step: number): void => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, durableBlockSize)
  for (let at = 0; at < durableBlockSize; at += 8) {
    view.setUint32(at, block ^ (at * 2654435761), true)
    view.setUint32(at + 4, step, true)
  }
}

/** The write that a block comes from; 0 for a block never written; undefined when it is torn or another's. */
export const readStamp = (bytes: Uint8Array, block: number): number | undefined => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, durableBlockSize)
  const step = view.getUint32(4, true)
  if (step === 0) return bytes.every((byte) => byte === 0) ? 0 : undefined
  for (let at = 0; at < durableBlockSize; at += 8) {
    const isOurs =
      view.getUint32(at, true) === (block ^ (at * 2654435761)) >>> 0 && view.getUint32(at + 4, true) === step
    if (!isOurs) return undefined
  }
  return step
}

export interface DurableScript {
  /** The next blocks to write at once, at most `width` and all different, and whether to flush after them. */
  readonly next: (width: number) => { readonly blocks: ReadonlyArray<number>; readonly flush: boolean }
}

export const durableScript = (seed: number): DurableScript => {
  const random = makeRandom(seed)
  return {
    next: (width) => {
      const blocks = new Set<number>()
      const count = 1 + random.below(width)
      while (blocks.size < count) blocks.add(random.below(durableBlocks))
      return { blocks: [...blocks], flush: random.chance(0.4) }
    }
  }
}
