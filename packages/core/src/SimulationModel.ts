/**
 * Parts for the oracle of a simulation. Contents carry a stamp that identifies their write. A register knows its
 * possible values while operations overlap, fail, or are lost in a power cut. The rule: acknowledged and durable values
 * survive a crash. Other values are old or new, and never those of another write.
 *
 * ```ts
 * import * as SimulationModel from "@effect-spdk/core/SimulationModel"
 *
 * const time = SimulationModel.makeTime()
 * const register = SimulationModel.makeRegister(time, "old")
 * const write = register.begin("new")
 * // The device answers, or the power goes. Then, and not before:
 * write.fail()
 * // register.possible() is ["old", "new"]: either may be read, and once one was read it stays.
 * ```
 *
 * @since 0.1.0
 */

/** A clock of moments. Each moment is later than all earlier ones. @since 0.1.0 @category models */
export interface Time {
  readonly next: () => number
}

/** @since 0.1.0 @category constructors */
export const makeTime = (): Time => {
  let now = 0
  return { next: () => ++now }
}

interface Entry<A> {
  value: A
  readonly begin: number
  /** The moment at which the write ended, with or without success. */
  end: number
  /** From this moment on, the value is certainly gone. */
  until: number
}

/** A change in progress. Call exactly one of the three functions, once. @since 0.1.0 @category models */
export interface Change {
  /** The change is acknowledged. Values whose write ended before this change began are gone. */
  readonly succeed: () => void
  /** The change failed or was interrupted. From now on the change has either happened or not. */
  readonly fail: () => void
  /** The change was refused. Nothing has changed. */
  readonly refuse: () => void
}

/** @since 0.1.0 @category models */
export interface Register<A> {
  readonly begin: (value: A) => Change
  /** The values that a read may find when the read lasted from `begin` until now. */
  readonly possible: (begin?: number) => ReadonlyArray<A>
  /**
   * Records that a read which began at `begin` has found `value`. Returns false when the value is not possible. When no
   * change is in progress, the found value becomes the only possible value.
   */
  readonly found: (value: A, begin: number) => boolean
  /** Values that stopped being possible before this moment do not return after a crash. */
  readonly durableSince: (moment: number) => void
  /** The values that are possible after a crash. */
  readonly afterCrash: () => ReadonlyArray<A>
  /** Records a power cut. The values that are possible after a crash become the possible values. */
  readonly crash: () => void
}

/**
 * Makes a register with this initial value. `matches` tells whether a possible value allows a found value. Default:
 * `Object.is`.
 *
 * @since 0.1.0
 * @category constructors
 */
export const makeRegister = <A>(
  time: Time,
  initial: A | ReadonlyArray<A>,
  matches: (possible: A, found: A) => boolean = Object.is
): Register<A> => new History(time, Array.isArray(initial) ? initial : [initial as A], matches)

class History<A> implements Register<A> {
  private readonly time: Time
  private readonly matches: (possible: A, found: A) => boolean
  private entries: Array<Entry<A>>
  private durable = 0

  constructor(time: Time, initial: ReadonlyArray<A>, matches: (possible: A, found: A) => boolean) {
    this.time = time
    this.matches = matches
    this.entries = initial.map((value) => ({ value, begin: 0, end: 0, until: Infinity }))
  }

  begin(value: A): Change {
    const entry: Entry<A> = { value, begin: this.time.next(), end: Infinity, until: Infinity }
    this.entries.push(entry)
    return {
      succeed: () => {
        const now = this.time.next()
        entry.end = now
        for (const other of this.entries) if (other.end < entry.begin && other.until > now) other.until = now
        this.prune()
      },
      fail: () => {
        entry.end = this.time.next()
      },
      refuse: () => {
        this.entries = this.entries.filter((other) => other !== entry)
      }
    }
  }

  possible(begin = Infinity): ReadonlyArray<A> {
    return this.entries.flatMap(({ until, value }) => (until >= begin || until === Infinity ? [value] : []))
  }

  found(value: A, begin: number): boolean {
    const now = this.time.next()
    const known = this.entries.filter((entry) => entry.until >= begin && this.matches(entry.value, value))
    if (known.length === 0) return false
    const current = known.filter((entry) => entry.until === Infinity)
    const isStable = this.entries.every((entry) => entry.end < begin)
    const [first] = current
    if (isStable && first !== undefined) {
      for (const entry of this.entries) if (!current.includes(entry) && entry.until > now) entry.until = now
      // What matches anything is this from now on, and may still be something else after a crash.
      if (!Object.is(first.value, value)) {
        first.until = now
        this.entries.push({ value, begin: first.begin, end: first.end, until: Infinity })
      }
    }
    return true
  }

  durableSince(moment: number): void {
    this.durable = Math.max(this.durable, moment)
    this.prune()
  }

  afterCrash(): ReadonlyArray<A> {
    return this.entries.filter(({ until }) => until >= this.durable).map(({ value }) => value)
  }

  crash(): void {
    const values = this.afterCrash()
    this.durable = 0
    this.entries = values.map((value) => ({ value, begin: 0, end: 0, until: Infinity }))
  }

  /** The next durable change drops values that no read in progress can find. */
  private prune(): void {
    if (this.entries.length < 8) return
    this.entries = this.entries.filter(({ until }) => until >= this.durable)
  }
}

/** The unit of stamps and of torn writes: 512 bytes. @since 0.1.0 @category constants */
export const stampBytes = 512

/** The stamp of a sector of zeroes. @since 0.1.0 @category constants */
export const zeroStamp = 0

/** The stamp of contents that `stamped` did not make. @since 0.1.0 @category constants */
export const foreignStamp = -1

/**
 * Makes contents of whole sectors that carry the stamp of their write. `stamp` is a whole number from 1 to 2^31 - 1; 0
 * gives zeroes. Every sector has the same stamp.
 *
 * @since 0.1.0
 * @category contents
 */
export const stamped = (lengthBytes: number, stamp: number): Uint8Array => {
  const bytes = new Uint8Array(lengthBytes)
  if (stamp === zeroStamp) return bytes
  const words = new Int32Array(bytes.buffer)
  for (let i = 0; i < words.length; i++) words[i] = wordOf(stamp, i & 127)
  return bytes
}

/**
 * The stamp of each sector of the contents. A torn or mixed sector has `foreignStamp`.
 *
 * @since 0.1.0
 * @category contents
 */
export const stampsOf = (bytes: Uint8Array): ReadonlyArray<number> => {
  const stamps: Array<number> = []
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  for (let at = 0; at + stampBytes <= bytes.length; at += stampBytes) stamps.push(stampAt(view, at))
  return stamps
}

const wordOf = (stamp: number, index: number): number => (index === 0 ? stamp : Math.imul(stamp, 0x9e3779b1) ^ index)

const stampAt = (view: DataView, at: number): number => {
  const stamp = view.getInt32(at, true)
  for (let i = 1; i < stampBytes / 4; i++) {
    const word = view.getInt32(at + i * 4, true)
    if (word !== (stamp === zeroStamp ? 0 : wordOf(stamp, i))) return foreignStamp
  }
  return stamp
}
