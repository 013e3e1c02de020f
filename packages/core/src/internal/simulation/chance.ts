/**
 * Chance from a seed: sfc32. Streams of different names are independent, so that one that is asked more often does not change what
 * the others say.
 */

/** Random numbers that are the same for the same seed. */
export interface Chance {
  /** From 0 up to 1. */
  readonly next: () => number
  /** A whole number from 0 to `count` - 1. */
  readonly below: (count: number) => number
  /** A whole number from `least` to `most`. */
  readonly between: (least: number, most: number) => number
  /** True with this probability. */
  readonly is: (probability: number) => boolean
  /** One of them. There must be one. */
  readonly pick: <A>(values: ReadonlyArray<A>) => A
  /** 32 bits. */
  readonly bits: () => number
  /** Another stream, which depends on the seed and this name. */
  readonly fork: (name: string) => Chance
}

/** FNV-1a, with a last mix. */
const hash = (text: string, seed: number): number => {
  let h = 0x811c9dc5 ^ seed
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193)
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b)
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
  return (h ^ (h >>> 16)) >>> 0
}

/** `seed` is a safe integer. */
export const makeChance = (seed: number, name = ""): Chance => {
  const low = seed | 0
  const high = Math.floor(seed / 2 ** 32) | 0
  let a = hash(name, low)
  let b = hash(name, high ^ 0x9e3779b9)
  let c = hash(name, low ^ high ^ 0x243f6a88)
  let counter = 1
  const bits = (): number => {
    const t = (((a + b) | 0) + counter) | 0
    counter = (counter + 1) | 0
    a = b ^ (b >>> 9)
    b = (c + (c << 3)) | 0
    c = (c << 21) | (c >>> 11)
    c = (c + t) | 0
    return t >>> 0
  }
  for (let i = 0; i < 12; i++) bits()
  const next = (): number => bits() / 2 ** 32
  const below = (count: number): number => Math.floor(next() * count)
  return {
    next,
    below,
    between: (least, most) => least + below(most - least + 1),
    is: (probability) => probability > 0 && next() < probability,
    pick: <A>(values: ReadonlyArray<A>): A => {
      if (values.length === 0) throw new Error("there is nothing to pick from")
      // The index is inside.
      return values[below(values.length)] as A
    },
    bits,
    fork: (other) => makeChance(seed, `${name}/${other}`)
  }
}
