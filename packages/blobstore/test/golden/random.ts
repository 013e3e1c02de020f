/** Choices that can be had again by `EFFECT_SPDK_SEED`, and how many of them a run takes. */
const given = process.env["EFFECT_SPDK_SEED"]

export const seed: number = given === undefined ? (Date.now() ^ (process.pid << 12)) >>> 0 : Number(given) >>> 0

export const isLong: boolean = process.env["EFFECT_SPDK_LONG"] === "1"

/** The short slice of every run, the long one under EFFECT_SPDK_LONG=1. */
export const rounds = (short: number, long: number): number => (isLong ? long : short)

/**
 * The points 1 to `last` of a sweep: all of them in the long slice, every `stride`-th in the short one. Chance decides where that
 * begins, so that a few runs visit all.
 */
export const sweepPoints = (last: number, stride: number): ReadonlyArray<number> => {
  const step = rounds(stride, 1)
  const first = 1 + (seed % step)
  return Array.from({ length: Math.max(0, Math.ceil((last - first + 1) / step)) }, (_, index) => first + index * step)
}

export interface Random {
  /** A whole number from 0 to below `limit`. */
  readonly below: (limit: number) => number
  readonly word: () => number
  readonly pick: <A>(values: ReadonlyArray<A>) => A
}

/** mulberry32. */
export const makeRandom = (start: number): Random => {
  let state = start >>> 0
  const word = (): number => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), state | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return (t ^ (t >>> 14)) >>> 0
  }
  const below = (limit: number): number => Math.floor((word() / 2 ** 32) * limit)
  return {
    word,
    below,
    pick: (values) => {
      const value = values[below(values.length)]
      if (value === undefined) throw new RangeError("pick from an empty list")
      return value
    }
  }
}

/** Runs each round with a seed of its own and names it when the round fails. */
export const eachRound = (count: number, body: (random: Random, round: number) => void): void => {
  for (let round = 0; round < count; round++) {
    const own = (seed + Math.imul(round, 0x9e3779b9)) >>> 0
    try {
      body(makeRandom(own), round)
    } catch (cause) {
      throw new Error(`round ${round} fails; to repeat the run: EFFECT_SPDK_SEED=${seed}`, { cause })
    }
  }
}

/** Bytes where lengths, indexes and counts go wrong: single bits, edges of integers, copies of other places. */
export const mutate = (random: Random, bytes: Uint8Array, changes: number): void => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  for (let i = 0; i < changes; i++) {
    // Most of a page is padding: what is read lies at its front.
    const at = random.below(random.below(4) === 0 ? bytes.length : Math.min(bytes.length, 160))
    const word = Math.min(at, bytes.length - 4)
    switch (random.below(5)) {
      case 0:
        bytes[at] = (bytes[at] ?? 0) ^ (1 << random.below(8))
        break
      case 1:
        bytes[at] = random.below(256)
        break
      case 2:
        view.setUint32(word, random.pick([0, 1, 4, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff]), true)
        break
      case 3:
        view.setUint32(word, random.pick([-8, -1, 1, 8, 4096]) + view.getUint32(word, true), true)
        break
      default: {
        const from = random.below(bytes.length)
        bytes.copyWithin(at, from, from + random.below(64))
      }
    }
  }
}
