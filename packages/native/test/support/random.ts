/** Random choices that can be had again: the seed is in the message of whatever fails. */
export class Random {
  readonly seed: number
  private state: number

  constructor(seed = Number(process.env["EFFECT_SPDK_SEED"] ?? Date.now() ^ (process.pid << 12)) >>> 0) {
    this.seed = seed
    this.state = seed
  }

  /** mulberry32. */
  word(): number {
    this.state = (this.state + 0x6d2b79f5) >>> 0
    let t = this.state
    t = Math.imul(t ^ (t >>> 15), t | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return (t ^ (t >>> 14)) >>> 0
  }

  below(limit: number): number {
    return Math.floor((this.word() / 2 ** 32) * limit)
  }

  chance(probability: number): boolean {
    return this.word() / 2 ** 32 < probability
  }

  pick<A>(values: ReadonlyArray<A>): A {
    const value = values[this.below(values.length)]
    if (value === undefined) throw new RangeError("pick from an empty list")
    return value
  }
}
