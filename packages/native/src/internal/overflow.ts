/**
 * What waits on the JavaScript side of a queue, because the ring is full or because it was refused. Requests that find a place at
 * once never come by here.
 */
import type { Completion, Entry, RequestId, SlabRange } from "../Queue.ts"

/** A request that waits for a place in the ring. Once it is there, its completion comes by way of this object. */
class Waiting implements Completion {
  readonly entry: Entry
  readonly completion: Completion
  readonly index: number
  readonly sequence: number
  readonly waiting: Map<number, Waiting>
  /** Its id in the ring, once it is there. */
  ringId: RequestId | undefined = undefined

  constructor(entry: Entry, completion: Completion, index: number, sequence: number, waiting: Map<number, Waiting>) {
    this.entry = { ...entry, segments: entry.segments?.map(copyOf) }
    this.completion = completion
    this.index = index
    this.sequence = sequence
    this.waiting = waiting
  }

  complete(_index: number, status: number, detail: number, nvme: number): void {
    this.waiting.delete(this.sequence)
    this.completion.complete(this.index, status, detail, nvme)
  }
}

/** Places at the front of the line whose turn has been, before it is made shorter. */
const mostPassed = 4096

/** Requests without a place in the ring, in order of submission. */
export class Overflow {
  /** Those that wait, and those that are in the ring now and have not completed. */
  private readonly bySequence = new Map<number, Waiting>()
  /** Those that were taken out of it by name are skipped. */
  private readonly line: Array<Waiting> = []
  private head = 0

  /** False also while all that is left is to be skipped. */
  get isEmpty(): boolean {
    return this.line.length === 0
  }

  add(entry: Entry, completion: Completion, index: number, sequence: number): void {
    const waiting = new Waiting(entry, completion, index, sequence, this.bySequence)
    this.bySequence.set(sequence, waiting)
    this.line.push(waiting)
  }

  /** Undefined when it has completed. */
  find(sequence: number): Waiting | undefined {
    return this.bySequence.get(sequence)
  }

  /** It will not get to the ring. */
  remove(waiting: Waiting): void {
    this.bySequence.delete(waiting.sequence)
  }

  /** Who is next; undefined when nobody is left. */
  peek(): Waiting | undefined {
    while (this.head < this.line.length) {
      const waiting = this.line[this.head]
      if (waiting !== undefined && this.bySequence.has(waiting.sequence)) return waiting
      this.head++
    }
    return undefined
  }

  /** The next one is in the ring. */
  shift(): void {
    this.head++
  }

  /** Forgets those whose turn has been. */
  trim(): void {
    if (this.head === this.line.length) {
      this.line.length = 0
      this.head = 0
    } else if (this.head > mostPassed) {
      this.line.splice(0, this.head)
      this.head = 0
    }
  }

  /** All that wait, which do no more. */
  takeAll(): ReadonlyArray<Waiting> {
    const taken = this.line.slice(this.head).filter(({ sequence }) => this.bySequence.delete(sequence))
    this.line.length = 0
    this.head = 0
    return taken
  }
}

/** A request whose answer is known, and must not arrive before `submit` has returned. */
export interface Refused {
  readonly completion: Completion
  readonly index: number
  readonly status: number
  readonly detail: number
}

// The caller may fill its objects again as soon as `submit` has returned.
const copyOf = ({ lengthBytes, offsetBytes, slab: { generation, slot } }: SlabRange): SlabRange => ({
  slab: { slot, generation },
  offsetBytes,
  lengthBytes
})
