/** Bits for pages, clusters and blob ids: a word at a time where one is looked for, lowest first as SPDK allocates. */
import { viewOf } from "./layout.ts"

const ones = (word: number): number => {
  let n = word - ((word >>> 1) & 0x55555555)
  n = (n & 0x33333333) + ((n >>> 2) & 0x33333333)
  return Math.imul((n + (n >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24
}

export class BitSet {
  /** How many bits there are. */
  readonly size: number
  /** Bit i is bit `i % 32` of word `i / 32`. Bits past `size` are 0. Who writes here breaks `count`. */
  readonly words: Uint32Array
  #count = 0

  constructor(bits: number) {
    this.size = bits
    this.words = new Uint32Array(Math.ceil(bits / 32))
  }

  /** Bits past the end of `bytes` are 0. */
  static fromBytes(bytes: Uint8Array, bits: number): BitSet {
    const set = new BitSet(bits)
    const words = set.words
    const whole = Math.min(words.length, Math.floor(bytes.length / 4))
    const view = viewOf(bytes)
    for (let i = 0; i < whole; i++) words[i] = view.getUint32(i * 4, true)
    if (whole < words.length) {
      let last = 0
      for (let i = whole * 4; i < bytes.length; i++) last |= (bytes[i] ?? 0) << ((i - whole * 4) * 8)
      words[whole] = last
    }
    if (bits % 32 !== 0) words[words.length - 1] = (words[words.length - 1] ?? 0) & (2 ** (bits % 32) - 1)
    let count = 0
    for (const word of words) count += ones(word)
    set.#count = count
    return set
  }

  /** How many are set. */
  get count(): number {
    return this.#count
  }

  /** False outside of the set, too. */
  has(i: number): boolean {
    return i >= 0 && i < this.size && ((this.words[i >>> 5] ?? 0) & (1 << (i & 31))) !== 0
  }

  /** Whether it was clear. Outside of the set nothing happens, and the answer is false. */
  add(i: number): boolean {
    if (!(i >= 0 && i < this.size)) return false
    const word = this.words[i >>> 5] ?? 0
    const bit = 1 << (i & 31)
    if ((word & bit) !== 0) return false
    this.words[i >>> 5] = word | bit
    this.#count++
    return true
  }

  /** Whether it was set. */
  delete(i: number): boolean {
    if (!this.has(i)) return false
    this.words[i >>> 5] = (this.words[i >>> 5] ?? 0) & ~(1 << (i & 31))
    this.#count--
    return true
  }

  /** The first at or after `from` that is clear; -1 when there is none. */
  firstClear(from = 0): number {
    return this.#first(from, 0xffffffff)
  }

  /** The first at or after `from` that is set; -1 when there is none. */
  firstSet(from = 0): number {
    return this.#first(from, 0)
  }

  #first(from: number, flip: number): number {
    if (!(from < this.size)) return -1
    const start = Math.max(0, from)
    let index = start >>> 5
    let word = ((this.words[index] ?? 0) ^ flip) & (0xffffffff << (start & 31))
    while (word === 0) {
      if (++index >= this.words.length) return -1
      word = (this.words[index] ?? 0) ^ flip
    }
    const found = index * 32 + (31 - Math.clz32(word & -word))
    return found < this.size ? found : -1
  }

  /** As on disk: bit i is bit `i % 8` of byte `i / 8`. */
  toBytes(): Uint8Array {
    const bytes = new Uint8Array(Math.ceil(this.size / 8))
    for (let i = 0; i < bytes.length; i++) bytes[i] = (this.words[i >>> 2] ?? 0) >>> ((i & 3) * 8)
    return bytes
  }

  copy(): BitSet {
    const other = new BitSet(this.size)
    other.words.set(this.words)
    other.#count = this.#count
    return other
  }
}
