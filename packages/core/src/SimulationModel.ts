/**
 * What an oracle of a simulation needs: contents that say which write they are from, and registers that know which values are
 * possible while operations overlap, fail, or are lost with the power. The one thing to know is the rule: what was acknowledged and
 * made durable is there after a crash; what was not is old or new, and never another's.
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

/** An order of moments. Each is later than those before. @since 0.1.0 @category models */
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
  /** When its write ended, either way. */
  end: number
  /** From here on it is sure that it is not there any more. */
  until: number
}

/** A change that is under way. Exactly one of the two is called, once. @since 0.1.0 @category models */
export interface Change {
  /** It is acknowledged: what ended before it began is gone. */
  readonly succeed: () => void
  /** It failed, or was interrupted: from now on it is either done or not. */
  readonly fail: () => void
  /** It was refused: nothing has changed. */
  readonly refuse: () => void
}

/** @since 0.1.0 @category models */
export interface Register<A> {
  readonly begin: (value: A) => Change
  /** The values that a read may find which lasted from `begin` until now. */
  readonly possible: (begin?: number) => ReadonlyArray<A>
  /**
   * A read that began then has found this. False when it cannot be. While nothing is under way, what was found is what there is from now
   * on.
   */
  readonly found: (value: A, begin: number) => boolean
  /** What was possible before this moment, and is not since, does not come back after a crash. */
  readonly durableSince: (moment: number) => void
  /** The values that may be there after a crash. */
  readonly afterCrash: () => ReadonlyArray<A>
  /** The power has gone: what may be there after a crash is what is possible. */
  readonly crash: () => void
}

/**
 * A register with this value. `matches` says whether a value that is possible allows one that was found; the default is ===.
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

  /** Values that no read under way can find are forgotten with the next change that is durable. */
  private prune(): void {
    if (this.entries.length < 8) return
    this.entries = this.entries.filter(({ until }) => until >= this.durable)
  }
}

/** The unit in which contents are stamped, and torn: 512 bytes. @since 0.1.0 @category constants */
export const stampBytes = 512

/** The stamp of a sector of zeroes. @since 0.1.0 @category constants */
export const zeroStamp = 0

/** The stamp of contents that no `stamped` has made. @since 0.1.0 @category constants */
export const foreignStamp = -1

/**
 * Contents of whole sectors that say which write they are from: `stamp` is a whole number from 1 to 2^31 - 1, and 0 gives zeroes. Every
 * sector of a write has the same stamp.
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

/** The stamps of contents, sector by sector. A torn or a mixed sector is `foreignStamp`. @since 0.1.0 @category contents */
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
