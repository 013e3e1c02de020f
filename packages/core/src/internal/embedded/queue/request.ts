/**
 * A request of a queue: an I/O, a Nop or a timer, from `submit` to `complete`. Records are used again and again;
 * the generation tells the lives of one apart.
 */
import { Opcode } from "@effect-spdk/native/Layout"
import type { Completion, Entry, RequestId, SlabRange } from "@effect-spdk/native/Queue"
import type { OpenChannel } from "./handles.ts"
import { EmbeddedIo } from "../bdev/io.ts"
import type { Timer } from "../runtime/timers.ts"

const maxSlots = 2 ** 24
const maxGeneration = 2 ** 28

const nobody: Completion = { complete: () => {} }

export class QueueRequest extends EmbeddedIo {
  readonly slot: number
  generation = 0
  state: "free" | "queued" | "submitted" | "timer" = "free"
  isAbortRequested = false
  /** What the entry says: any number, of callers without types. */
  asked: Opcode = Opcode.Nop
  completion: Completion = nobody
  index = 0
  channelSlot = 0
  channelGeneration = 0
  slabSlot = 0
  slabGeneration = 0
  slabOffset = 0
  ranges: ReadonlyArray<SlabRange> | undefined = undefined
  openChannel: OpenChannel | undefined = undefined
  timer: Timer | undefined = undefined
  detail = 0

  constructor(slot: number) {
    super()
    this.slot = slot
  }

  get id(): RequestId {
    return this.generation * maxSlots + this.slot
  }

  fill(entry: Entry, completion: Completion, index: number): void {
    this.state = "queued"
    this.isAbortRequested = false
    this.completion = completion
    this.index = index
    // What it is, is looked at when its turn comes.
    this.asked = entry.opcode
    this.channelSlot = entry.channelSlot
    this.channelGeneration = entry.channelGeneration
    this.slabSlot = entry.slabSlot
    this.slabGeneration = entry.slabGeneration
    this.slabOffset = entry.slabOffset
    this.offsetBlocks = entry.offsetBlocks
    this.lengthBlocks = entry.lengthBlocks
    this.ranges = entry.segments === undefined || entry.segments.length === 0 ? undefined : entry.segments.slice()
    this.detail = 0
  }
}

/** Grows to the most requests that were in flight at once. */
export class RequestPool {
  private readonly all: Array<QueueRequest> = []
  private readonly free: Array<QueueRequest> = []

  take(): QueueRequest {
    const request = this.free.pop() ?? this.grow()
    request.generation = (request.generation + 1) % maxGeneration
    return request
  }

  give(request: QueueRequest): void {
    request.state = "free"
    request.completion = nobody
    request.memory = undefined
    request.segments = undefined
    request.ranges = undefined
    request.openChannel = undefined
    request.child = undefined
    request.timer = undefined
    this.free.push(request)
  }

  /** The request of this name, unless it has completed. */
  find(id: RequestId): QueueRequest | undefined {
    const request = this.all[id % maxSlots]
    return request !== undefined && request.state !== "free" && request.id === id ? request : undefined
  }

  inState(state: QueueRequest["state"]): ReadonlyArray<QueueRequest> {
    return this.all.filter((request) => request.state === state)
  }

  private grow(): QueueRequest {
    const request = new QueueRequest(this.all.length)
    this.all.push(request)
    return request
  }
}
