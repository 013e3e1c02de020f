/** What waits on the JavaScript side of a queue, because the ring is full or because it was refused. */
import type { Completion, Entry, RequestId, SlabRange } from "../Queue.ts"

/** A request that waits for a place in the ring. Once it is there, completions come by way of this object. */
export class Waiting implements Completion {
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
