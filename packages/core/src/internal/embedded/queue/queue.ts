/**
 * The queue of a logical thread. `submit` copies the entry; a drain of the reactor looks at it, with the checks, in
 * the order and with the words of the native reactor, and hands it to its bdev.
 *
 * Everything here runs on the JS thread.
 */
import {
  Detail,
  type DeviceOpcode,
  Opcode,
  operations,
  type OperationTraits,
  Segment
} from "@effect-spdk/native/Layout"
import type { Completion, Entry, Queue, RequestId } from "@effect-spdk/native/Queue"
import type { Handles, OpenChannel } from "./handles.ts"
import { Immediate } from "./immediate.ts"
import type { EmbeddedIo, IoOwner, IoSegment } from "../bdev/io.ts"
import { isAligned, isInSlab, type SlabTable } from "./memory.ts"
import { type EmbeddedReactor, type Runnable, runsPerSlice } from "../runtime/reactor.ts"
import { type QueueRequest, RequestPool } from "./request.ts"
import { aborted, EBADF, ECANCELED, EFAULT, EINVAL, ENODEV, ENOENT, ENOTSUP, type IoStatus, success } from "./status.ts"
import type { LogicalThread } from "../runtime/thread.ts"
import type { Timers } from "../runtime/timers.ts"
import { callAll, throwAlone } from "../runtime/uncaught.ts"

const nvmeCommandBytes = 64

const cancelled: IoStatus = { errno: -ECANCELED, nvme: 0, counter: undefined }

export interface QueueContext {
  readonly reactor: EmbeddedReactor
  readonly timers: Timers
  readonly slabs: SlabTable
  readonly handles: Handles
}

export class EmbeddedQueue implements Queue, Runnable, IoOwner {
  isScheduled = false
  inFlight = 0
  /** Milliseconds spent on this queue's work, completions included. */
  busyMillis = 0
  /** How often it had requests to take. */
  runs = 0
  /** Up to here time has been counted, as busy or as idle. */
  private countedUntilMillis: number
  private readonly context: QueueContext
  private readonly thread: LogicalThread
  private readonly requests = new RequestPool()
  /** Submitted and not looked at yet: a circle with room for a power of two. */
  private ring: Array<QueueRequest | undefined> = new Array(256).fill(undefined)
  private head = 0
  private tail = 0
  isClosed = false
  private onIdle: ReadonlyArray<() => void> = []
  readonly immediate: Immediate

  constructor(context: QueueContext, thread: LogicalThread) {
    this.context = context
    this.thread = thread
    this.countedUntilMillis = context.reactor.host.nowMillis()
    this.immediate = new Immediate(context, thread, this)
  }

  submit(entry: Entry, completion: Completion, index: number): RequestId {
    const request = this.requests.take()
    request.fill(entry, completion, index)
    request.owner = this
    this.inFlight++
    if (this.tail - this.head === this.ring.length) this.growRing()
    this.ring[this.tail++ & (this.ring.length - 1)] = request
    if (!this.isScheduled) this.context.reactor.schedule(this)
    return request.id
  }

  abort(id: RequestId): void {
    const request = this.requests.find(id)
    if (request === undefined) return
    if (request.state === "queued") request.isAbortRequested = true
    // Later, because the completion must not run inside of the caller.
    else this.context.reactor.post(() => this.abortNow(id))
  }

  /** Of what is timed by samples: where one took long by chance, those that it stands for did not, for no such time went by. */
  countEstimate(millis: number): void {
    const now = this.context.reactor.host.nowMillis()
    this.busyMillis += Math.min(millis, now - this.countedUntilMillis)
    this.countedUntilMillis = now
  }

  // Entries are handed over in groups anyway: those of one turn.
  cork(): void {}
  uncork(): void {}

  run(): boolean {
    const { reactor } = this.context
    const startMillis = reactor.host.nowMillis()
    this.runs++
    reactor.isTimed = true
    try {
      for (let count = 0; count < runsPerSlice && !reactor.isExhausted; count++) {
        if (this.head === this.tail) break
        const request = this.ring[this.head++ & (this.ring.length - 1)]
        if (request === undefined) continue
        reactor.spent++
        this.immediate.othersHadTheirTurn()
        this.dispatch(request)
      }
    } finally {
      // Keeps the counts small, which V8 counts faster.
      if (this.head === this.tail) this.head = this.tail = 0
      reactor.isTimed = false
      this.countedUntilMillis = reactor.host.nowMillis()
      this.busyMillis += this.countedUntilMillis - startMillis
      // Here, so that nothing that is thrown leaves the rest behind.
      if (this.head !== this.tail) reactor.schedule(this)
    }
    return false
  }

  /** A bdev has ended the I/O. */
  ioDone(io: EmbeddedIo): void {
    // A queue submits requests, and nothing else.
    this.complete(io as QueueRequest, io.status)
  }

  /** Refuses what comes from now on, cancels timers, and calls `done` when nothing is in flight. */
  close(done: () => void): void {
    this.isClosed = true
    this.onIdle = [...this.onIdle, done]
    for (const request of this.requests.inState("timer")) this.context.reactor.post(() => this.abortNow(request.id))
    if (this.inFlight === 0) this.idle()
  }

  /** Tries to abort whatever a bdev has. */
  abortSubmitted(): void {
    for (const { id } of this.requests.inState("submitted")) this.abort(id)
  }

  private growRing(): void {
    const { ring } = this
    const grown: Array<QueueRequest | undefined> = new Array(ring.length * 2).fill(undefined)
    for (let at = this.head; at < this.tail; at++) grown[at & (grown.length - 1)] = ring[at & (ring.length - 1)]
    this.ring = grown
  }

  private abortNow(id: RequestId): void {
    const request = this.requests.find(id)
    if (request === undefined) return
    if (request.timer !== undefined) {
      this.context.timers.cancel(request.timer)
      return this.complete(request, cancelled)
    }
    const bdev = request.openChannel?.bdev
    if (request.state !== "submitted" || bdev === undefined || request.opcode === Opcode.Reset) return
    if (bdev.supports("abort")) bdev.abort(request)
  }

  private dispatch(request: QueueRequest): void {
    if (this.isClosed) return this.refuse(request, ECANCELED, Detail.Closing)
    const segmentCount = request.ranges?.length ?? 0
    if (segmentCount > Segment.max) return this.refuse(request, EINVAL, Detail.TooManySegments)
    switch (request.asked) {
      case Opcode.Nop:
        return this.complete(request, success)
      case Opcode.Timer:
        return this.startTimer(request)
      case Opcode.Abort:
        // `abort` is how one asks for it here; an entry has no place for the target.
        return this.refuse(request, ENOENT, Detail.UnknownTarget)
      default:
        return this.startIo(request, request.asked)
    }
  }

  private startTimer(request: QueueRequest): void {
    if (request.isAbortRequested) return this.complete(request, cancelled)
    if (!Number.isSafeInteger(request.offsetBlocks) || request.offsetBlocks < 0) {
      return this.refuse(request, EINVAL, Detail.None)
    }
    const { reactor, timers } = this.context
    const { id } = request
    request.state = "timer"
    request.timer = timers.after(request.offsetBlocks, () =>
      reactor.post(() => {
        const due = this.requests.find(id)
        if (due !== undefined) this.complete(due, success)
      })
    )
  }

  private startIo(request: QueueRequest, opcode: DeviceOpcode): void {
    const traits: OperationTraits | undefined = operations[opcode]
    if (traits === undefined) return this.refuse(request, EINVAL, Detail.UnknownOpcode)
    request.opcode = opcode
    const channel = this.context.handles.findChannel(request.channelSlot, request.channelGeneration)
    if (channel === undefined || channel.thread !== this.thread) return this.refuse(request, EBADF, Detail.StaleChannel)
    const { bdev, descriptor } = channel
    if (descriptor.isRemoved) return this.refuse(request, ENODEV, Detail.Removed)
    if (channel.state !== "open") return this.refuse(request, EBADF, Detail.StaleChannel)
    if (traits.writes && !descriptor.writable) return this.refuse(request, EBADF, Detail.ReadOnly)
    if (!bdev.supportsOpcode(opcode)) return this.refuse(request, ENOTSUP, Detail.NotSupported)
    if (traits.hasRange && !bdev.hasBlocks(request.offsetBlocks, request.lengthBlocks))
      return this.refuse(request, EINVAL, Detail.BlockRange)
    if (!this.prepare(request, channel, traits.data)) return
    request.openChannel = channel
    channel.inFlight++
    if (request.isAbortRequested) return this.complete(request, aborted)
    request.state = "submitted"
    channel.channel.submit(request)
  }

  /** Checks the memory that the entry names. False when it has refused the request. */
  private prepare(request: QueueRequest, channel: OpenChannel, data: OperationTraits["data"]): boolean {
    switch (data) {
      case "none":
        return request.ranges === undefined || this.refused(request, EINVAL, Detail.TooManySegments)
      case "in":
      case "out":
        return this.prepareMemory(request, channel)
      case "command":
        return this.prepareCommand(request)
    }
  }

  /** Checks and pins the memory. False when it has refused the request. */
  private prepareMemory(request: QueueRequest, { bdev }: OpenChannel): boolean {
    const lengthBytes = request.lengthBlocks * bdev.blockSize
    this.context.reactor.spent += lengthBytes >>> 12
    const alignmentBytes = bdev.properties.alignmentBytes ?? 1
    if (request.ranges !== undefined) return this.prepareSegments(request, lengthBytes, alignmentBytes)
    const memory = this.context.slabs.find(request.slabSlot, request.slabGeneration)
    if (memory === undefined) return this.refused(request, EBADF, Detail.StaleSlab)
    if (!isInSlab(memory, request.slabOffset, lengthBytes)) return this.refused(request, EFAULT, Detail.SlabRange)
    if (!isAligned(memory, request.slabOffset, alignmentBytes)) return this.refused(request, EINVAL, Detail.Misaligned)
    memory.pins++
    request.memory = memory
    request.memoryOffset = request.slabOffset
    return true
  }

  /** An NVMe command and its data. */
  private prepareCommand(request: QueueRequest): boolean {
    const [command, data, ...more] = request.ranges ?? []
    if (more.length > 0) return this.refused(request, EINVAL, Detail.TooManySegments)
    if (command?.lengthBytes !== nvmeCommandBytes) return this.refused(request, EINVAL, Detail.LengthMismatch)
    const dataBytes = data?.lengthBytes ?? 0
    this.context.reactor.spent += dataBytes >>> 12
    return this.prepareSegments(request, nvmeCommandBytes + dataBytes, 1)
  }

  private prepareSegments(request: QueueRequest, lengthBytes: number, alignmentBytes: number): boolean {
    const segments: Array<IoSegment> = []
    let totalBytes = 0
    // What is pinned by then is let go when the request completes, refused or not.
    request.segments = segments
    for (const range of request.ranges ?? []) {
      const memory = this.context.slabs.find(range.slab.slot, range.slab.generation)
      if (memory === undefined) return this.refused(request, EBADF, Detail.StaleSlab)
      if (!isInSlab(memory, range.offsetBytes, range.lengthBytes))
        return this.refused(request, EFAULT, Detail.SlabRange)
      if (range.lengthBytes === 0) return this.refused(request, EINVAL, Detail.LengthMismatch)
      if (!isAligned(memory, range.offsetBytes, alignmentBytes)) return this.refused(request, EINVAL, Detail.Misaligned)
      memory.pins++
      segments.push({ memory, offsetBytes: range.offsetBytes, lengthBytes: range.lengthBytes })
      totalBytes += range.lengthBytes
    }
    return totalBytes === lengthBytes || this.refused(request, EINVAL, Detail.LengthMismatch)
  }

  private refused(request: QueueRequest, errno: number, detail: number): false {
    this.refuse(request, errno, detail)
    return false
  }

  private refuse(request: QueueRequest, errno: number, detail: number): void {
    request.detail = detail
    this.complete(request, { errno: -errno, nvme: 0, counter: undefined })
  }

  private complete(request: QueueRequest, status: IoStatus): void {
    const { completion, detail, index, memory, openChannel, segments } = request
    const { handles, slabs } = this.context
    if (memory !== undefined) slabs.unpin(memory)
    if (segments !== undefined) for (const segment of segments) slabs.unpin(segment.memory)
    this.inFlight--
    // First, so that what the completion submits finds the record still warm.
    this.requests.give(request)
    if (openChannel !== undefined) handles.requestEnded(openChannel)
    try {
      completion.complete(index, status.errno, detail, status.nvme)
    } catch (error) {
      // Bdevs end I/O in the middle of their work, and others wait for the rest of it.
      throwAlone(error)
    }
    if (this.isClosed && this.inFlight === 0) this.idle()
  }

  private idle(): void {
    const { onIdle } = this
    this.onIdle = []
    callAll(onIdle)
  }
}
