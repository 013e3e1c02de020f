/**
 * Random choices that can be had again: the seed of a failing test is printed, and EFFECT_SPDK_SEED brings it back.
 */
export interface RandomSource {
  /** A whole number from 0 to below `limit`. */
  readonly below: (limit: number) => number
  /** A whole number with all 32 bits. */
  readonly word: () => number
  readonly chance: (probability: number) => boolean
  readonly pick: <A>(values: readonly [A, ...ReadonlyArray<A>] | ReadonlyArray<A>) => A
}

/** mulberry32 */
export const makeRandom = (seed: number): RandomSource => {
  let state = seed >>> 0
  const word = (): number => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = state
    t = Math.imul(t ^ (t >>> 15), t | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return (t ^ (t >>> 14)) >>> 0
  }
  const below = (limit: number) => Math.floor((word() / 0x100000000) * limit)
  return {
    word,
    below,
    chance: (probability) => word() / 0x100000000 < probability,
    pick: (values) => {
      const value = values[below(values.length)]
      if (value === undefined) throw new RangeError("pick from an empty list")
      return value
    }
  }
}

/** Runs a test body with a seed, and names the seed when it fails. */
export const withSeed = (body: (seed: number) => void): void => {
  const given = process.env["EFFECT_SPDK_SEED"]
  const seed = given === undefined ? Math.floor(Math.random() * 0x100000000) : Number(given)
  try {
    body(seed)
  } catch (error) {
    throw new Error(`to repeat this run: EFFECT_SPDK_SEED=${seed}`, { cause: error })
  }
}
