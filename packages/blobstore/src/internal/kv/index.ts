/**
 * What is known in memory: of every key where its newest record lies, and of every segment how much of it is still needed.
 * Plain and synchronous; who calls it sees to the order.
 */
import { Kind, type Encoding } from "./codec.ts"
import type { KvBlob } from "./port.ts"

/** A large value's blob. It goes when nothing refers to it and nobody reads it any more. */
export interface ValueBlob {
  readonly id: number
  readonly lengthBytes: number
  readonly crc: number
  readers: number
  /** Set while somebody waits for the last reader. */
  onIdle: (() => void) | undefined
}

export interface Segment {
  readonly number: number
  readonly salt: Uint8Array
  readonly alignmentBytes: number
  readonly blob: KvBlob
  readonly capacityBytes: number
  /** Where the next batch goes. */
  endBytes: number
  nextIndex: number
  /** Takes no more batches. */
  sealed: boolean
  /** Bytes of records that are still needed. */
  liveBytes: number
  /** Of every record that lies in it, or may after a failed write: counts in `Entry.records`. */
  readonly keys: Array<string>
  /** Blobs that records of failed writes may refer to, after a restart. */
  readonly limbo: Array<ValueBlob>
  /** Its deletion failed: the id of its blob may be another's by now. */
  mayBeGone: boolean
  readers: number
  onIdle: (() => void) | undefined
}

export interface Entry {
  readonly sequence: number
  readonly kind: Kind
  readonly encoding: Encoding
  /** undefined for a tombstone whose segment has gone. */
  readonly segment: Segment | undefined
  readonly offsetBytes: number
  readonly recordBytes: number
  readonly blob: ValueBlob | undefined
  /** Records of this key in all segments. A tombstone is needed as long as it is not the only one. */
  records: number
  /** The highest sequence of a failed write: above `sequence`, a restart may bring that one up. */
  uncertain: number
}

export interface NewRecord {
  readonly key: string
  readonly sequence: number
  readonly kind: Kind
  readonly encoding: Encoding
  readonly offsetBytes: number
  readonly recordBytes: number
  readonly blob: ValueBlob | undefined
}

const isNeeded = (entry: Entry): boolean => entry.kind !== Kind.Tombstone || entry.records > 1

export class KvIndex {
  private entries = new Map<string, Entry>()
  private live = 0

  /** Keys that have a value. */
  get size(): number {
    return this.live
  }

  keys(): ReadonlyArray<string> {
    const keys: Array<string> = []
    for (const [key, entry] of this.entries) if (entry.kind !== Kind.Tombstone) keys.push(key)
    return keys
  }

  /** Undefined when the key has no value. */
  find(key: string): Entry | undefined {
    const entry = this.entries.get(key)
    return entry === undefined || entry.kind === Kind.Tombstone ? undefined : entry
  }

  /** Whether a record of the key may be on disk that nothing supersedes. */
  mayBeThere(key: string): boolean {
    const entry = this.entries.get(key)
    return entry !== undefined && (entry.kind !== Kind.Tombstone || entry.uncertain > entry.sequence)
  }

  /** Entries with values, in no particular order. */
  *values(): Iterable<readonly [string, Entry]> {
    for (const pair of this.entries) if (pair[1].kind !== Kind.Tombstone) yield pair
  }

  /** A record has become durable. Returns the blob that nothing refers to any more because of it. */
  add(segment: Segment, record: NewRecord): ValueBlob | undefined {
    segment.keys.push(record.key)
    const previous = this.entries.get(record.key)
    if (previous !== undefined && previous.sequence > record.sequence) {
      this.recount(previous, 1)
      return undefined
    }
    const records = (previous?.records ?? 0) + 1
    if (previous !== undefined) this.weigh(previous, -1)
    const { blob, encoding, kind, offsetBytes, recordBytes, sequence } = record
    const uncertain = previous?.uncertain ?? 0
    const entry: Entry = { sequence, kind, encoding, segment, offsetBytes, recordBytes, blob, records, uncertain }
    this.entries.set(record.key, entry)
    this.weigh(entry, 1)
    const old = previous?.blob
    return old === undefined || old === blob ? undefined : old
  }

  /** A write failed that may have put a record there all the same. */
  addUncertain(segment: Segment, key: string, sequence: number): void {
    segment.keys.push(key)
    const entry = this.entries.get(key)
    if (entry === undefined) this.entries.set(key, { ...nothing, records: 1, uncertain: sequence })
    else {
      this.recount(entry, 1)
      entry.uncertain = Math.max(entry.uncertain, sequence)
    }
  }

  /** Whether a victim's record must be copied before the victim goes. */
  mustKeep(victim: Segment, key: string, sequence: number): boolean {
    const entry = this.entries.get(key)
    return entry !== undefined && entry.sequence === sequence && entry.segment === victim && isNeeded(entry)
  }

  /** The copy of a record has become durable. */
  move(key: string, sequence: number, from: Segment, to: Segment, offsetBytes: number): void {
    to.keys.push(key)
    const entry = this.entries.get(key)
    if (entry === undefined) throw new Error(`no entry for a record that is on disk: ${key}`)
    if (entry.sequence !== sequence || entry.segment !== from) {
      this.recount(entry, 1)
      return
    }
    this.weigh(entry, -1)
    const moved: Entry = { ...entry, segment: to, offsetBytes, records: entry.records + 1 }
    this.entries.set(key, moved)
    this.weigh(moved, 1)
  }

  /** A segment has gone, durably. */
  drop(segment: Segment): void {
    for (const key of segment.keys) {
      const entry = this.entries.get(key)
      if (entry === undefined) throw new Error(`no entry for a record that was on disk: ${key}`)
      this.recount(entry, -1)
      if (entry.records === 0) this.entries.delete(key)
      else if (entry.segment === segment) this.entries.set(key, { ...entry, segment: undefined, recordBytes: 0 })
    }
    segment.keys.length = 0
  }

  /** All values are gone. Returns the blobs that held some. */
  clear(): ReadonlyArray<ValueBlob> {
    const blobs: Array<ValueBlob> = []
    for (const [, entry] of this.values()) if (entry.blob !== undefined) blobs.push(entry.blob)
    this.entries = new Map()
    this.live = 0
    return blobs
  }

  private recount(entry: Entry, by: 1 | -1): void {
    this.weigh(entry, -1)
    entry.records += by
    this.weigh(entry, 1)
  }

  private weigh(entry: Entry, by: 1 | -1): void {
    if (entry.kind !== Kind.Tombstone) this.live += by
    if (entry.segment !== undefined && isNeeded(entry)) entry.segment.liveBytes += by * entry.recordBytes
  }
}

/** What stands for a key without a value whose only records are those of failed writes. */
const nothing: Omit<Entry, "records" | "uncertain"> = {
  sequence: 0,
  kind: Kind.Tombstone,
  encoding: 0,
  segment: undefined,
  offsetBytes: 0,
  recordBytes: 0,
  blob: undefined
}
