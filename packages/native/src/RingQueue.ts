/**
 * The JavaScript side of one SpdkThread's rings. A submission writes an entry and publishes the tail. A drain reads
 * completions until the ring is empty. One request takes no call into native code, no allocation and no lock.
 *
 * Thread: only the JavaScript thread that owns the `Host`.
 */
import { Overflow, type Refused } from "./internal/overflow.ts"
import { Control, Cqe, Detail, Opcode, Segment, Sqe, Wide } from "./Layout.ts"
import {
  type Completion,
  type Entry,
  makeEntry,
  noRequest,
  type Queue,
  type RequestId,
  type SlabRange
} from "./Queue.ts"

/** The number of completion places that are kept free for poller ticks. */
const reservedForTicks = 256
/** The number of ids that are kept free for aborts. Aborts must work when a device holds all other ids. */
const reservedForAborts = 64
/** The number of written entries after which the queue publishes, while more are being written. */
const publishEvery = 16
/** The number of completions that are copied out of the ring before the first of them runs. */
const takeTogether = 16
/** A request id is `id + generation * idSpace`. Ids of requests that wait outside the ring are negative. */
const idSpace = 65536
const twoTo32 = 4294967296

const ecanceled = -125
const einval = -22

/** The functions that the queue needs from its host. */
export interface RingQueueHost {
  /** Called when a request is in flight. The host drains until none is. */
  readonly schedule: () => void
  readonly kick: () => void
}

/** Owns the ids of aborts. No caller waits for their completion. */
const abortOwner: Completion = { complete: () => {} }

export class RingQueue implements Queue {
  readonly immediate = undefined
  private readonly host: RingQueueHost
  private readonly words: Uint32Array
  private readonly signed: Int32Array
  private readonly sqBase = Control.words
  private readonly cqBase: number
  private readonly sqEntries: number
  private readonly sqMask: number
  private readonly cqMask: number

  /**
   * Entries before they are published. A store to a cache line that the other core has read is slow, and holds up all
   * stores behind it. A copy of whole lines has many of them on their way at once.
   */
  private readonly staged: Uint32Array
  /** Views of the first n slots of `staged`, made once. */
  private readonly stagedSlots: ReadonlyArray<Uint32Array>
  private sqTail: number
  private sqPublished: number
  private sqHeadSeen: number
  /**
   * Completions that are read from the ring together. Separate reads of lines that the other core wrote would each
   * wait.
   */
  private readonly arrived = new Uint32Array(takeTogether * Cqe.words)
  private cqHead: number
  private cqHeadStored: number

  private readonly owners: Array<Completion | undefined>
  private readonly indexes: Int32Array
  private readonly generations: Uint32Array
  private readonly freeIds: Uint16Array
  private freeIdCount: number
  private readonly abortIds: number

  private readonly overflow = new Overflow()
  private nextSequence = noRequest - 1
  private refused: Array<Refused> = []
  /** Aborts that wait for a place in the ring. */
  private aborts: Array<RequestId> = []

  private readonly tickHandlers = new Map<number, (runs: number) => void>()
  private draining = false
  private corks = 0
  private closed = false
  private ended = false
  private inFlightCount = 0

  constructor(ring: ArrayBuffer, host: RingQueueHost) {
    this.host = host
    this.words = new Uint32Array(ring)
    this.signed = new Int32Array(ring)
    if (this.word(Control.magicWord) !== Control.magic) throw new Error("not a ring of this layout")
    this.sqEntries = this.word(Control.sqEntriesWord)
    const cqEntries = this.word(Control.cqEntriesWord)
    // A ring may have been in use: its counts wrap at 2^32, and nothing here depends on where they began.
    this.sqTail = this.sqPublished = this.word(Control.sqTailWord)
    this.sqHeadSeen = this.word(Control.sqHeadWord)
    this.cqHead = this.cqHeadStored = this.word(Control.cqHeadWord)
    this.sqMask = this.sqEntries - 1
    this.cqMask = cqEntries - 1
    this.cqBase = this.sqBase + this.sqEntries * Sqe.words
    const maxStaged = publishEvery + mostSlots
    this.staged = new Uint32Array(maxStaged * Sqe.words)
    this.stagedSlots = Array.from({ length: maxStaged + 1 }, (_, slots) => this.staged.subarray(0, slots * Sqe.words))
    const ids = Math.min(cqEntries - reservedForTicks, idSpace)
    this.owners = new Array<Completion | undefined>(ids).fill(undefined)
    this.indexes = new Int32Array(ids)
    this.generations = new Uint32Array(ids).fill(1)
    this.freeIds = new Uint16Array(ids)
    for (let i = 0; i < ids; i++) this.freeIds[i] = ids - 1 - i
    this.freeIdCount = ids
    this.abortIds = Math.min(reservedForAborts, ids >>> 2)
  }

  get inFlight(): number {
    return this.inFlightCount
  }

  /** Whether the ring delivers no more completions. A later submission is refused at the next drain. */
  get hasEnded(): boolean {
    return this.ended
  }

  /** Whether the queue has pollers. Ticks arrive without a request in flight, so the host must listen. */
  get hasPollers(): boolean {
    return this.tickHandlers.size > 0
  }

  onTick(poller: number, handler: (runs: number) => void): void {
    this.tickHandlers.set(poller, handler)
  }

  hasTick(poller: number): boolean {
    return this.tickHandlers.has(poller)
  }

  offTick(poller: number): void {
    this.tickHandlers.delete(poller)
  }

  submit(entry: Entry, completion: Completion, index: number): RequestId {
    this.inFlightCount++
    if (this.inFlightCount === 1) this.host.schedule()
    if (this.closed) return this.refuse(completion, index, ecanceled, Detail.Closing)
    const segments = entry.segments
    if (segments !== undefined && (segments.length === 0 || segments.length > Segment.max)) {
      return this.refuse(completion, index, einval, Detail.TooManySegments)
    }
    if (this.overflow.isEmpty && this.hasPlace(entry)) return this.push(entry, completion, index)
    const sequence = this.nextSequence--
    this.overflow.add(entry, completion, index, sequence)
    // Nothing in the ring tells of room for it: somebody has to look.
    this.host.schedule()
    return sequence
  }

  abort(id: RequestId): void {
    if (id < 0) {
      const waiting = this.overflow.find(id)
      if (waiting === undefined) return
      if (waiting.ringId !== undefined) return this.abort(waiting.ringId)
      // Never reached the ring. It stays counted until its completion runs, at the next turn.
      this.overflow.remove(waiting)
      this.refuse(waiting.completion, waiting.index, ecanceled, Detail.None)
      return
    }
    if (this.pushAbort(id)) return
    this.aborts.push(id)
    this.host.schedule()
  }

  /** Between `cork` and `uncork`, the queue publishes entries in groups. Pairs may nest. */
  cork(): void {
    this.corks++
  }

  uncork(): void {
    this.corks--
    if (this.corks === 0) this.publish()
  }

  /** Runs the available completions, at most about `limit`, and returns their number. Never re-entered. */
  drain(limit: number): number {
    if (this.draining) return 0
    this.draining = true
    try {
      let done = this.refused.length > 0 ? this.completeRefused() : 0
      while (done < limit) {
        const tail = Atomics.load(this.signed, Control.cqTailWord) >>> 0
        if (tail === this.cqHead) {
          if (this.ended) this.cancelUnanswered()
          break
        }
        while (this.cqHead !== tail && done < limit) {
          const taken = this.take(Math.min((tail - this.cqHead) >>> 0, limit - done))
          for (let index = 0; index < taken; index++) {
            const at = index * Cqe.words
            this.cqHead = (this.cqHead + 1) >>> 0
            done++
            if ((this.arrived[at + Cqe.reasonWord] as number) >>> Cqe.kindShift === 0) this.completeAt(at)
            else this.tick(at)
          }
        }
        this.handOver()
      }
      return done
    } finally {
      // Also behind a completion that threw.
      this.handOver()
      this.draining = false
    }
  }

  /** Announces sleep. Returns false, and cancels the sleep, when there is work. */
  sleep(): boolean {
    Atomics.store(this.signed, Control.jsSleepingWord, 1)
    if (
      this.refused.length === 0 &&
      !this.waitsForReactor() &&
      Atomics.load(this.signed, Control.cqTailWord) >>> 0 === this.cqHead
    ) {
      return true
    }
    this.wake()
    return false
  }

  wake(): void {
    Atomics.store(this.signed, Control.jsSleepingWord, 0)
  }

  /** Refuses every later submission. Entries in the ring still complete. */
  close(): void {
    this.closed = true
    this.publish()
    for (const { completion, index } of this.overflow.takeAll()) {
      this.refuse(completion, index, ecanceled, Detail.Closing)
    }
    this.aborts = []
  }

  /**
   * Called when the native side has published its last completion. Requests without a completion in the ring are
   * cancelled.
   */
  end(): void {
    this.close()
    this.ended = true
    this.host.schedule()
  }

  private word(at: number): number {
    // Bounds: every index is computed from the ring's own sizes, which the constructor read.
    return this.words[at] as number
  }

  private hasRoom(slots: number): boolean {
    const used = (this.sqTail - this.sqHeadSeen) >>> 0
    if (used + slots <= this.sqEntries) return true
    this.sqHeadSeen = Atomics.load(this.signed, Control.sqHeadWord) >>> 0
    return ((this.sqTail - this.sqHeadSeen) >>> 0) + slots <= this.sqEntries
  }

  private hasPlace(entry: Entry): boolean {
    return this.freeIdCount > this.abortIds && this.hasRoom(slotsOf(entry))
  }

  private push(entry: Entry, completion: Completion, index: number): RequestId {
    const id = this.freeIds[--this.freeIdCount] as number
    const generation = this.generations[id] as number
    this.owners[id] = completion
    this.indexes[id] = index
    const { lengthBlocks, offsetBlocks, segments } = entry
    const wide = isWide(entry)
    const words = this.staged
    const at = ((this.sqTail - this.sqPublished) >>> 0) * Sqe.words
    let first = entry.opcode | (id << Sqe.idShift)
    if (wide) first |= Sqe.wideBit
    if (segments !== undefined) first |= segments.length << Sqe.segmentsShift
    words[at + Sqe.opcodeWord] = first
    words[at + Sqe.idGenerationWord] = generation
    // What does not fit names nobody, and must not name another.
    words[at + Sqe.handlesWord] =
      Math.min(entry.channelSlot, Sqe.noSlot) | (Math.min(entry.slabSlot, Sqe.noSlot) << Sqe.slabShift)
    words[at + Sqe.channelGenerationWord] = entry.channelGeneration
    words[at + Sqe.slabGenerationWord] = entry.slabGeneration
    words[at + Sqe.slabOffsetWord] = entry.slabOffset
    words[at + Sqe.offsetBlocksWord] = offsetBlocks
    words[at + Sqe.lengthBlocksWord] = lengthBlocks
    this.sqTail = (this.sqTail + 1) >>> 0
    if (wide) this.pushWide(offsetBlocks, lengthBlocks)
    if (segments !== undefined) this.pushSegments(segments)
    if ((!this.draining && this.corks === 0) || (this.sqTail - this.sqPublished) >>> 0 >= publishEvery) this.publish()
    return id + generation * idSpace
  }

  private pushWide(offsetBlocks: number, lengthBlocks: number): void {
    const at = ((this.sqTail - this.sqPublished) >>> 0) * Sqe.words
    this.staged.fill(0, at, at + Sqe.words)
    this.staged[at + Wide.offsetBlocksWord] = Math.floor(offsetBlocks / twoTo32)
    this.staged[at + Wide.lengthBlocksWord] = Math.floor(lengthBlocks / twoTo32)
    this.sqTail = (this.sqTail + 1) >>> 0
  }

  private pushSegments(segments: ReadonlyArray<SlabRange>): void {
    for (let i = 0; i < segments.length; i++) {
      const segment = segments[i] as SlabRange
      const slot = ((this.sqTail - this.sqPublished) >>> 0) + Math.floor(i / Segment.perSlot)
      const at = slot * Sqe.words + (i % Segment.perSlot) * Segment.words
      this.staged[at + Segment.slabSlotWord] = segment.slab.slot
      this.staged[at + Segment.slabGenerationWord] = segment.slab.generation
      this.staged[at + Segment.slabOffsetWord] = segment.offsetBytes
      this.staged[at + Segment.lengthBytesWord] = segment.lengthBytes
    }
    this.sqTail = (this.sqTail + slotsOfSegments(segments.length)) >>> 0
  }

  private publish(): void {
    const slots = (this.sqTail - this.sqPublished) >>> 0
    if (slots === 0) return
    const first = this.sqPublished & this.sqMask
    const beforeEnd = this.sqEntries - first
    if (slots <= beforeEnd) {
      this.words.set(this.stagedSlots[slots] as Uint32Array, this.sqBase + first * Sqe.words)
    } else {
      this.words.set(this.stagedSlots[beforeEnd] as Uint32Array, this.sqBase + first * Sqe.words)
      this.words.set(this.staged.subarray(beforeEnd * Sqe.words, slots * Sqe.words), this.sqBase)
    }
    this.sqPublished = this.sqTail
    Atomics.store(this.signed, Control.sqTailWord, this.sqTail | 0)
    if (
      Atomics.load(this.signed, Control.reactorSleepingWord) !== 0 &&
      Atomics.exchange(this.signed, Control.reactorSleepingWord, 0) !== 0
    ) {
      this.host.kick()
    }
  }

  /** Hands completion places and entries to the reactor, including those that waited for a place. */
  private handOver(): void {
    if (this.cqHead !== this.cqHeadStored) {
      this.cqHeadStored = this.cqHead
      Atomics.store(this.signed, Control.cqHeadWord, this.cqHead | 0)
    }
    if (this.aborts.length > 0) this.aborts = this.aborts.filter((id) => !this.pushAbort(id))
    if (!this.overflow.isEmpty) this.refill()
    this.publish()
  }

  /**
   * Whether an entry waits for the reactor to take entries out of the ring. The reactor does not wake JavaScript for
   * that.
   */
  private waitsForReactor(): boolean {
    return (
      (!this.overflow.isEmpty && this.freeIdCount > this.abortIds) || (this.aborts.length > 0 && this.freeIdCount > 0)
    )
  }

  /** Returns false when the ring has no place now. */
  private pushAbort(id: RequestId): boolean {
    const slot = id % idSpace
    const generation = Math.floor(id / idSpace)
    if (this.owners[slot] === undefined || this.generations[slot] !== generation) return true
    if (this.freeIdCount === 0 || !this.hasRoom(1)) return false
    // The request to abort is named where others name their channel.
    abortEntry.channelSlot = slot
    abortEntry.channelGeneration = generation
    this.push(abortEntry, abortOwner, 0)
    return true
  }

  private refill(): void {
    for (;;) {
      const waiting = this.overflow.peek()
      if (waiting === undefined || !this.hasPlace(waiting.entry)) break
      waiting.ringId = this.push(waiting.entry, waiting, 0)
      this.overflow.shift()
    }
    this.overflow.trim()
  }

  /** Copies at most `count` completions out of the ring and returns their number. */
  private take(count: number): number {
    const first = this.cqHead & this.cqMask
    const taken = Math.min(count, takeTogether, this.cqMask + 1 - first)
    const from = this.cqBase + first * Cqe.words
    for (let word = 0; word < taken * Cqe.words; word++) this.arrived[word] = this.word(from + word)
    return taken
  }

  private completeAt(at: number): void {
    const arrived = this.arrived
    const id = arrived[at + Cqe.idWord] as number
    const completion = this.owners[id]
    // Not ours to trust blindly: a completion that nobody waits for, or for an earlier use of the id, is dropped.
    if (completion === undefined || this.generations[id] !== arrived[at + Cqe.idGenerationWord]) return
    this.free(id)
    if (completion === abortOwner) return
    this.inFlightCount--
    const reason = arrived[at + Cqe.reasonWord] as number
    completion.complete(
      this.indexes[id] as number,
      (arrived[at + Cqe.statusWord] as number) | 0,
      reason & Cqe.detailMask,
      (reason >>> Cqe.nvmeShift) & Cqe.nvmeMask
    )
  }

  private free(id: number): void {
    const generation = this.generations[id] as number
    this.owners[id] = undefined
    this.generations[id] = generation === twoTo32 - 1 ? 1 : generation + 1
    this.freeIds[this.freeIdCount++] = id
  }

  private cancelUnanswered(): void {
    for (let id = 0; id < this.owners.length; id++) {
      const completion = this.owners[id]
      if (completion === undefined) continue
      this.free(id)
      if (completion !== abortOwner) this.refuse(completion, this.indexes[id] as number, ecanceled, Detail.Closing)
    }
  }

  private tick(at: number): void {
    const poller = this.arrived[at + Cqe.idWord] as number
    this.tickHandlers.get(poller)?.(this.arrived[at + Cqe.statusWord] as number)
  }

  private refuse(completion: Completion, index: number, status: number, detail: number): RequestId {
    this.refused.push({ completion, index, status, detail })
    this.host.schedule()
    return this.nextSequence--
  }

  private completeRefused(): number {
    const refused = this.refused
    this.refused = []
    let done = 0
    try {
      for (const { completion, detail, index, status } of refused) {
        done++
        this.inFlightCount--
        completion.complete(index, status, detail, 0)
      }
    } finally {
      if (done < refused.length) this.refused = [...refused.slice(done), ...this.refused]
    }
    return done
  }
}

const slotsOfSegments = (segments: number): number => Math.ceil(segments / Segment.perSlot)
const isWide = ({ lengthBlocks, offsetBlocks }: Entry): boolean => offsetBlocks >= twoTo32 || lengthBlocks >= twoTo32
const slotsOf = (entry: Entry): number =>
  1 + (isWide(entry) ? 1 : 0) + (entry.segments === undefined ? 0 : slotsOfSegments(entry.segments.length))
const mostSlots = 2 + slotsOfSegments(Segment.max)

// Only its target changes, and a queue copies what it is given.
const abortEntry = makeEntry()
abortEntry.opcode = Opcode.Abort
