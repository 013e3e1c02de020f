/**
 * The memory that data of commands is in: what hosts send at the target's request, and what bdevs read for them that do not do it
 * at once. All connections share it, and it has a bound. Who finds none waits for those before; the host is not asked for its data
 * until then.
 *
 * Data that comes with a command is on its way whether there is memory or not. It takes memory beyond the bound, and is bounded by the
 * depth of its queue.
 */
import type { EmbeddedReactor } from "../runtime/reactor.ts"
import { SlabMemory } from "../queue/memory.ts"
import type { Timer, Timers } from "../runtime/timers.ts"

/** For all connections of a target. As much as the large buffers of SPDK's transports had. */
export const dataPoolBytes = 64 * 1024 * 1024
/** Of it, what is kept for the next ones when nobody uses it. */
const keptBytes = 16 * 1024 * 1024
const leastBytes = 4096
/** How often to look for hosts that owe data while others wait. One that sent nothing between two looks loses its connection. */
const lookMicros = 5_000_000

export interface DataWaiter {
  readonly neededBytes: number
  /** In a drain of the reactor. */
  granted(memory: SlabMemory): void
}

/** A transfer that holds memory until its host has sent the data. */
export interface DataTransfer {
  /** The look before which its host has sent something last. */
  seenAtLook: number
  /** Nobody has heard of its host for too long. */
  stalled(): void
}

export class DataPool {
  takenBytes = 0
  /** Counts the looks. */
  look = 0
  private readonly limitBytes: number
  private readonly reactor: EmbeddedReactor
  private readonly timers: Timers
  private readonly waiting = new Set<DataWaiter>()
  private readonly transfers = new Set<DataTransfer>()
  /** By size. */
  private readonly free = new Map<number, Array<SlabMemory>>()
  private freeBytes = 0
  private isGrantPosted = false
  private timer: Timer | undefined = undefined

  constructor(reactor: EmbeddedReactor, timers: Timers, limitBytes: number) {
    this.reactor = reactor
    this.timers = timers
    this.limitBytes = limitBytes
  }

  get waitingCount(): number {
    return this.waiting.size
  }

  /** Undefined when there is none, or others wait for it. A single one may be larger than the bound. */
  take(lengthBytes: number): SlabMemory | undefined {
    return this.waiting.size === 0 && this.hasRoom(lengthBytes) ? this.takeAnyway(lengthBytes) : undefined
  }

  /** Also beyond the bound. */
  takeAnyway(lengthBytes: number): SlabMemory {
    const size = sizeOf(lengthBytes)
    const kept = this.free.get(size)?.pop()
    if (kept !== undefined) this.freeBytes -= size
    this.takenBytes += size
    return kept ?? new SlabMemory(0, 0, size, leastBytes)
  }

  give(memory: SlabMemory): void {
    const { lengthBytes } = memory
    this.takenBytes -= lengthBytes
    if (this.freeBytes + lengthBytes <= keptBytes && this.takenBytes + this.freeBytes < this.limitBytes) {
      this.freeBytes += lengthBytes
      const kept = this.free.get(lengthBytes)
      if (kept === undefined) this.free.set(lengthBytes, [memory])
      else kept.push(memory)
    }
    this.postGrants()
  }

  /** First come, first served. */
  wait(waiter: DataWaiter): void {
    this.waiting.add(waiter)
    this.timer ??= this.timers.after(lookMicros, this.onLook)
  }

  /** It is not wanted any more. Those behind may have been waiting for it alone. */
  cancel(waiter: DataWaiter): void {
    if (this.waiting.delete(waiter)) this.postGrants()
  }

  startTransfer(transfer: DataTransfer): void {
    transfer.seenAtLook = this.look
    this.transfers.add(transfer)
  }

  endTransfer(transfer: DataTransfer): void {
    this.transfers.delete(transfer)
  }

  /** The end of the target. */
  close(): void {
    if (this.timer !== undefined) this.timers.cancel(this.timer)
    this.timer = undefined
    this.waiting.clear()
    this.free.clear()
    this.freeBytes = 0
  }

  private hasRoom(lengthBytes: number): boolean {
    return this.takenBytes === 0 || this.takenBytes + sizeOf(lengthBytes) <= this.limitBytes
  }

  private postGrants(): void {
    if (this.isGrantPosted || this.waiting.size === 0) return
    this.isGrantPosted = true
    this.reactor.post(this.grant)
  }

  private readonly grant = (): void => {
    this.isGrantPosted = false
    for (const waiter of this.waiting) {
      if (!this.hasRoom(waiter.neededBytes)) return
      this.waiting.delete(waiter)
      // Also when this one throws.
      this.postGrants()
      waiter.granted(this.takeAnyway(waiter.neededBytes))
    }
  }

  private readonly onLook = (): void => {
    this.timer = undefined
    if (this.waiting.size === 0) return
    this.look++
    for (const transfer of [...this.transfers]) if (transfer.seenAtLook < this.look - 1) transfer.stalled()
    this.timer = this.timers.after(lookMicros, this.onLook)
  }
}

const sizeOf = (lengthBytes: number): number => 2 ** Math.ceil(Math.log2(Math.max(leastBytes, lengthBytes)))
