/** Entries of the submission ring as a test writes them, and reads them back: apart from the product's own code. */
import { Segment, Sqe, Wide } from "@effect-spdk/native/Layout"

export interface EntryFields {
  readonly generation?: number
  /** So many segments are said to follow. */
  readonly segments?: number
  readonly channel?: ArrayLike<number>
  readonly slab?: ArrayLike<number>
  readonly slabOffset?: number
  readonly offsetBlocks?: number | bigint
  readonly lengthBlocks?: number | bigint
  /** Of an abort: a request of generation 1. */
  readonly target?: number
}

const twoTo32 = 1n << 32n

/** The slots of an entry: one, or two when it is wide. */
export const slotsOfEntry = (opcode: number, id: number, fields: EntryFields = {}): ReadonlyArray<Uint32Array> => {
  const { channel = [0, 0], generation = 1, segments = 0, slab = [0, 0], slabOffset = 0, target } = fields
  const [offset, length] = [BigInt(fields.offsetBlocks ?? 0), BigInt(fields.lengthBlocks ?? 0)]
  const isWide = offset >= twoTo32 || length >= twoTo32
  const words = new Uint32Array(Sqe.words)
  const first = opcode | (segments << Sqe.segmentsShift) | (id << Sqe.idShift) | (isWide ? Sqe.wideBit : 0)
  words[Sqe.opcodeWord] = first
  words[Sqe.idGenerationWord] = generation
  words[Sqe.handlesWord] = (channel[0] ?? 0) | ((slab[0] ?? 0) << Sqe.slabShift)
  words[Sqe.channelGenerationWord] = channel[1] ?? 0
  if (target !== undefined) words.set([target, 1], Sqe.targetIdWord)
  words[Sqe.slabGenerationWord] = slab[1] ?? 0
  words[Sqe.slabOffsetWord] = slabOffset
  words[Sqe.offsetBlocksWord] = Number(offset % twoTo32)
  words[Sqe.lengthBlocksWord] = Number(length % twoTo32)
  if (!isWide) return [words]
  const upper = new Uint32Array(Sqe.words)
  upper[Wide.offsetBlocksWord] = Number(offset / twoTo32)
  upper[Wide.lengthBlocksWord] = Number(length / twoTo32)
  return [words, upper]
}

/** The slots of these segments: slab slot, slab generation, offset and length of each. */
export const slotsOfSegments = (segments: ReadonlyArray<ArrayLike<number>>): ReadonlyArray<Uint32Array> =>
  Array.from({ length: Math.ceil(segments.length / Segment.perSlot) }, (_, slot) => {
    const words = new Uint32Array(Sqe.words)
    segments
      .slice(slot * Segment.perSlot, (slot + 1) * Segment.perSlot)
      .forEach((segment, at) => words.set(segment, at * Segment.words))
    return words
  })

export interface DecodedEntry {
  readonly opcode: number
  readonly id: number
  readonly generation: number
  readonly channel: readonly [slot: number, generation: number]
  readonly slab: readonly [slot: number, generation: number]
  /** Of an abort. */
  readonly target: readonly [id: number, generation: number]
  readonly slabOffset: number
  readonly offsetBlocks: bigint
  readonly lengthBlocks: bigint
  readonly segments: number
  /** Behind the entry's first slot. */
  readonly segmentsAt: number
  readonly slots: number
}

/** What the words of an entry say, its slots one behind the other. */
export const decodeEntry = (words: ArrayLike<number>): DecodedEntry => {
  const word = (at: number): number => words[at] ?? 0
  const first = word(Sqe.opcodeWord)
  const isWide = (first & Sqe.wideBit) !== 0
  const upper = (at: number): bigint => (isWide ? BigInt(word(Sqe.words + at)) * twoTo32 : 0n)
  const segments = (first >>> Sqe.segmentsShift) & Sqe.segmentsMask
  const segmentsAt = isWide ? 2 : 1
  return {
    opcode: first & 0xff,
    id: first >>> Sqe.idShift,
    generation: word(Sqe.idGenerationWord),
    channel: [word(Sqe.handlesWord) & 0xffff, word(Sqe.channelGenerationWord)],
    slab: [word(Sqe.handlesWord) >>> Sqe.slabShift, word(Sqe.slabGenerationWord)],
    target: [word(Sqe.targetIdWord), word(Sqe.targetGenerationWord)],
    slabOffset: word(Sqe.slabOffsetWord),
    offsetBlocks: upper(Wide.offsetBlocksWord) + BigInt(word(Sqe.offsetBlocksWord)),
    lengthBlocks: upper(Wide.lengthBlocksWord) + BigInt(word(Sqe.lengthBlocksWord)),
    segments,
    segmentsAt,
    slots: segmentsAt + Math.ceil(segments / Segment.perSlot)
  }
}
