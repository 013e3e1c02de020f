/**
 * What a disk with a volatile cache holds: what reads see, what is durable, and per sector what it had in between.
 */
import type { Chance } from "./chance.ts"

export const sectorBytes = 512

/** A write, from its submission on. */
export interface DiskWrite {
  readonly offsetBytes: number
  readonly lengthBytes: number
  readonly flip: number | undefined
  /** Sectors that are not written yet. */
  left: Array<number>
  /** When it completed or failed, in marks. Infinity before that. */
  completed: number
}

interface Version {
  readonly bytes: Uint8Array
  readonly write: DiskWrite
  /** When it was stored: the sectors of one unit of one write have the same. */
  readonly order: number
}

/** Units that are stored whole or not at all, in the first `limitBytes` of the disk. */
export interface Atomicity {
  readonly unitBytes: number
  readonly limitBytes: number
}

export class DiskContents {
  visible: Uint8Array
  durable: Uint8Array
  private readonly chance: Chance
  /** Per sector, oldest first, what it had since it was last made durable. */
  private readonly unflushed = new Map<number, Array<Version>>()
  private readonly atomicity: Atomicity
  private clock = 0
  private orders = 0

  constructor(sizeBytes: number, chance: Chance, atomicity: Atomicity) {
    this.atomicity = atomicity
    this.visible = new Uint8Array(sizeBytes)
    this.durable = new Uint8Array(sizeBytes)
    this.chance = chance
  }

  /** A moment: a flush that begins now covers what has completed before. */
  mark(): number {
    return this.clock
  }

  begin(offsetBytes: number, lengthBytes: number, flip: number | undefined): DiskWrite {
    const first = offsetBytes / sectorBytes
    const left = Array.from({ length: lengthBytes / sectorBytes }, (_, i) => first + i)
    return { offsetBytes, lengthBytes, flip, left, completed: Infinity }
  }

  /** Writes this share of what is left. Nothing when the memory is gone. */
  apply(write: DiskWrite, bytes: Uint8Array | undefined, share: number): void {
    if (bytes === undefined) return
    const later: Array<number> = []
    const [flipped] = write.left
    let unit = -1
    let isNow = true
    for (const sector of write.left) {
      const own = this.unitOf(sector)
      if (own !== unit) {
        unit = own
        isNow = share >= 1 || this.chance.is(share)
        this.orders++
      }
      if (!isNow) {
        later.push(sector)
        continue
      }
      const at = sector * sectorBytes - write.offsetBytes
      const piece = bytes.subarray(at, at + sectorBytes)
      if (write.flip !== undefined && sector === flipped) flipBit(piece, write.flip)
      this.visible.set(piece, sector * sectorBytes)
      const versions = this.unflushed.get(sector)
      const version = { bytes: piece, write, order: this.orders }
      if (versions === undefined) this.unflushed.set(sector, [version])
      else versions.push(version)
    }
    write.left = later
  }

  complete(write: DiskWrite): void {
    write.completed = ++this.clock
  }

  /** It ends without success: any part of it is written. */
  abandon(write: DiskWrite, take: () => Uint8Array | undefined): void {
    const share = this.chance.pick([0, 0.5, 1])
    if (share > 0 && write.left.length > 0) this.apply(write, take(), share)
    write.left = []
    // What of it is in the cache is there like everything else: reads find it, and the next flush keeps it.
    this.complete(write)
  }

  /** What had completed at `mark` is durable. */
  flush(mark: number): void {
    for (const [sector, versions] of this.unflushed) this.settle(sector, versions, covered(versions, mark))
  }

  /** A flush that failed: some of it may be. */
  flushSome(mark: number): void {
    for (const sectors of this.units().values()) {
      if (!this.chance.is(0.5)) continue
      for (const [sector, versions] of sectors) this.settle(sector, versions, covered(versions, mark))
    }
  }

  /** Each unit keeps the newest with this chance, and otherwise any of what it had. */
  cut(keep: number): void {
    for (const sectors of this.units().values()) {
      const orders = new Set<number>()
      for (const [, versions] of sectors) for (const { order } of versions) orders.add(order)
      const all = [...orders].toSorted((a, b) => a - b)
      const index = this.chance.is(keep) ? all.length - 1 : this.chance.below(all.length + 1) - 1
      const last = all[index] ?? 0
      for (const [sector, versions] of sectors) {
        const kept = versions.findLast(({ order }) => order <= last)
        const at = sector * sectorBytes
        if (kept !== undefined) this.durable.set(kept.bytes, at)
        this.visible.set(this.durable.subarray(at, at + sectorBytes), at)
      }
    }
    this.unflushed.clear()
  }

  /** What is new reads as zeroes. */
  enlarge(sizeBytes: number): void {
    const grown = (old: Uint8Array): Uint8Array => {
      const bytes = new Uint8Array(sizeBytes)
      bytes.set(old)
      return bytes
    }
    this.visible = grown(this.visible)
    this.durable = grown(this.durable)
  }

  restore(contents: Uint8Array): void {
    if (contents.length !== this.visible.length) {
      throw new RangeError(`the contents have ${contents.length} bytes, and the disk ${this.visible.length}`)
    }
    this.unflushed.clear()
    this.visible.set(contents)
    this.durable.set(contents)
  }

  flip(offsetBytes: number, bit: number): void {
    const sector = Math.floor(offsetBytes / sectorBytes)
    flipBit(this.visible.subarray(offsetBytes, offsetBytes + 1), bit)
    flipBit(this.durable.subarray(offsetBytes, offsetBytes + 1), bit)
    for (const { bytes } of this.unflushed.get(sector) ?? []) {
      const at = offsetBytes - sector * sectorBytes
      flipBit(bytes.subarray(at, at + 1), bit)
    }
  }

  private unitOf(sector: number): number {
    const { limitBytes, unitBytes } = this.atomicity
    const at = sector * sectorBytes
    return at < limitBytes ? at - (at % unitBytes) : at
  }

  private units(): Map<number, Array<readonly [sector: number, versions: Array<Version>]>> {
    const units = new Map<number, Array<readonly [sector: number, versions: Array<Version>]>>()
    for (const entry of this.unflushed) {
      const unit = this.unitOf(entry[0])
      const sectors = units.get(unit)
      if (sectors === undefined) units.set(unit, [entry])
      else sectors.push(entry)
    }
    return units
  }

  private settle(sector: number, versions: Array<Version>, index: number): void {
    const version = versions[index]
    if (version === undefined) return
    this.durable.set(version.bytes, sector * sectorBytes)
    if (index === versions.length - 1) this.unflushed.delete(sector)
    else versions.splice(0, index + 1)
  }
}

/** The last of them that had completed; -1 for none. */
const covered = (versions: ReadonlyArray<Version>, mark: number): number =>
  versions.findLastIndex(({ write }) => write.completed <= mark)

const flipBit = (bytes: Uint8Array, bit: number): void => {
  const at = (bit >>> 3) % bytes.length
  bytes[at] = (bytes[at] ?? 0) ^ (1 << (bit & 7))
}
