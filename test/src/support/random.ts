/**
 * Random choices that can be had again: one seed per test process, printed by every test that fails with it, taken
 * from EFFECT_SPDK_SEED when it is set.
 */
import * as Effect from "effect/Effect"

const given = process.env["EFFECT_SPDK_SEED"]

export const seed: number = given === undefined ? (Date.now() ^ (process.pid << 12)) >>> 0 : Number(given) >>> 0

export interface RandomSource {
  /** A whole number from 0 to below `limit`. */
  readonly below: (limit: number) => number
  /** A whole number with all 32 bits. */
  readonly word: () => number
  readonly chance: (probability: number) => boolean
  readonly pick: <A>(values: ReadonlyArray<A>) => A
}

/** mulberry32: enough randomness for choices, and a state of one word. */
export const makeRandom = (start: number): RandomSource => {
  let state = start >>> 0
  const word = (): number => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = state
    t = Math.imul(t ^ (t >>> 15), t | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return (t ^ (t >>> 14)) >>> 0
  }
  const below = (limit: number): number => Math.floor((word() / 0x100000000) * limit)
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

/** Hands a fresh random source on and, when the effect fails, says how to have the same run again. */
export const seeded = <A, E, R>(
  body: (random: RandomSource, seed: number) => Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> =>
  Effect.suspend(() => body(makeRandom(seed), seed)).pipe(
    Effect.tapCause(() => Effect.sync(() => console.error(`to repeat this run: EFFECT_SPDK_SEED=${seed}`)))
  )
