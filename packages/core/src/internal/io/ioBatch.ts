/**
 * Many requests in one Effect. All entries are checked before the first is submitted; one completion object counts them
 * in, so what an entry costs is its checks, its fields and the queue.
 *
 * Everything here runs on the JS thread.
 */
import type { TransferOpcode } from "@effect-spdk/native/Layout"
import { type Completion, makeEntry, type RequestId } from "@effect-spdk/native/Queue"
import * as Effect from "effect/Effect"
import * as Effectable from "effect/Effectable"
import * as Exit from "effect/Exit"
import type { BatchEntry, BdevBatch } from "../../Bdev.ts"
import { Busy, invalid, SpdkError } from "../../SpdkError.ts"
import type { Channel } from "./channels.ts"
import { channelOf, type IoRoute, openFor } from "./io.ts"
import { refusedBuffer, refusedOpcode, refusedRange } from "./ioCheck.ts"
import { type IoError, ioError, type Resume } from "./ioCompletion.ts"
import { type DmaBufferImpl, type Memory, unpin } from "../memory/ioMemory.ts"

interface Failure {
  readonly status: number
  readonly detail: number
  readonly nvme: number
}

const entry = makeEntry()

/** Checked requests. Plain arrays: those of a batch of a hundred cost less than typed ones do. */
class BatchRequests {
  readonly buffers: Array<DmaBufferImpl> = []
  readonly offsetsBlocks: Array<number> = []
  readonly lengthsBlocks: Array<number> = []
  /** Of the buffers; the same one seldom stands here twice. */
  readonly memories: Array<Memory> = []

  add(buffer: DmaBufferImpl, offsetBlocks: number, lengthBlocks: number): void {
    const { memories } = this
    if (memories.length === 0 || memories[memories.length - 1] !== buffer.memory) memories.push(buffer.memory)
    this.buffers.push(buffer)
    this.offsetsBlocks.push(offsetBlocks)
    this.lengthsBlocks.push(lengthBlocks)
  }
}

/** Runs the requests, once or again and again, one run at a time. */
class BatchRun extends Effectable.Class<void> implements Completion {
  readonly requests: BatchRequests
  /** 0 between runs. */
  pending: number
  failures: Map<number, Failure> | undefined
  /** Of a batch that shows them: the status of each entry in the last run. */
  private readonly statuses: Int32Array | undefined
  private readonly target: IoRoute
  private readonly opcode: TransferOpcode
  private readonly operation: string
  private readonly ids: Array<RequestId>
  private channel: Channel | undefined
  private resume: Resume | undefined
  /** A prepared batch runs again and again. */
  private runs = 0

  constructor(
    target: IoRoute,
    opcode: TransferOpcode,
    operation: string,
    requests: BatchRequests,
    statuses: Int32Array | undefined
  ) {
    super()
    this.statuses = statuses
    this.target = target
    this.opcode = opcode
    this.operation = operation
    this.requests = requests
    this.ids = []
    this.pending = 0
    this.failures = undefined
    this.channel = undefined
    this.resume = undefined
  }

  submit(channel: Channel, resume: Resume): void {
    const { buffers, lengthsBlocks, memories, offsetsBlocks } = this.requests
    const { ids } = this
    const { queue } = channel
    this.runs++
    this.channel = channel
    this.resume = resume
    if (this.failures !== undefined) this.statuses?.fill(0)
    this.failures = undefined
    this.pending = buffers.length
    for (const memory of memories) memory.pins++
    this.target.bdev.enter(buffers.length)
    queue.cork()
    for (let i = 0; i < buffers.length; i++) {
      const buffer = buffers[i]
      if (buffer === undefined) continue
      const { memory } = buffer
      // All of it, because what runs inside of `submit` may use the same object.
      entry.opcode = this.opcode
      entry.channelSlot = channel.slot
      entry.channelGeneration = channel.generation
      entry.slabSlot = memory.slot
      entry.slabGeneration = memory.generation
      entry.slabOffset = buffer.offsetBytes
      entry.offsetBlocks = offsetsBlocks[i] ?? 0
      entry.lengthBlocks = lengthsBlocks[i] ?? 0
      ids[i] = queue.submit(entry, this, i)
    }
    queue.uncork()
  }

  complete(index: number, status: number, detail: number, nvme: number): void {
    if (status !== 0) {
      const failures = (this.failures ??= new Map())
      failures.set(index, { status, detail, nvme })
      if (this.statuses !== undefined) this.statuses[index] = status
    }
    if (--this.pending === 0) this.finish()
  }

  errorAt(index: number): IoError | undefined {
    const failure = this.failures?.get(index)
    return failure && this.errorOf(failure, `entries[${index}] of ${this.requests.buffers.length}`)
  }

  /** The interruption. */
  asEffect(): Effect.Effect<void> {
    const { runs } = this
    return Effect.callback<void>((resume) => {
      // Looked at here: the fiber may yield before, the last request complete, and another run begin.
      const queue = this.channel?.queue
      if (this.pending === 0 || this.runs !== runs || queue === undefined) return resume(Effect.void)
      // How it ends does not matter any more.
      this.resume = () => resume(Effect.void)
      // A copy: what completes now may start the next run.
      this.ids.slice().forEach((id) => queue.abort(id))
    })
  }

  private finish(): void {
    const { failures, resume } = this
    this.resume = undefined
    this.channel = undefined
    for (const memory of this.requests.memories) unpin(memory)
    this.target.bdev.leave(this.requests.buffers.length)
    if (resume !== undefined) resume(failures === undefined ? Exit.void : Exit.fail(this.firstError(failures)))
  }

  private firstError(failures: ReadonlyMap<number, Failure>): IoError {
    const [first, failure] = [...failures].reduce((lowest, one) => (one[0] < lowest[0] ? one : lowest))
    return this.errorOf(failure, `entries[${first}] of ${this.requests.buffers.length}; ${failures.size} failed`)
  }

  private errorOf({ detail, nvme, status }: Failure, note: string): IoError {
    return ioError(this.target.bdev, this.operation, status, detail, nvme, note)
  }
}

/** Checks and runs the entries once. */
export const runBatch = (
  target: IoRoute,
  opcode: TransferOpcode,
  entries: ReadonlyArray<BatchEntry>,
  operation: string
): Effect.Effect<void, IoError> =>
  Effect.callback((resume) => {
    const requests = checkEntries(target, opcode, entries, operation)
    if (requests instanceof SpdkError) {
      resume(Exit.fail(requests))
      return
    }
    const channel = channelOf(target)
    if (entries.length === 0) {
      resume(Exit.void)
      return
    }
    if (channel === undefined) {
      resume(Effect.andThen(openFor(target, operation), runBatch(target, opcode, entries, operation)))
      return
    }
    const run = new BatchRun(target, opcode, operation, requests, undefined)
    run.submit(channel, resume)
    return run
  })

/** Checks the entries now, and what can change since at each run. */
export const prepareBatch = (
  target: IoRoute,
  opcode: TransferOpcode,
  entries: ReadonlyArray<BatchEntry>,
  operation: string
): Effect.Effect<BdevBatch, IoError> =>
  Effect.suspend(() => {
    const requests = checkEntries(target, opcode, entries, operation)
    return requests instanceof SpdkError
      ? Effect.fail(requests)
      : Effect.succeed(new PreparedBatch(target, opcode, operation, requests))
  })

class PreparedBatch implements BdevBatch {
  readonly length: number
  readonly offsetsBytes: Float64Array
  readonly statuses: Int32Array
  readonly run: Effect.Effect<void, IoError>
  private readonly target: IoRoute
  private readonly opcode: TransferOpcode
  private readonly operation: string
  private readonly batch: BatchRun

  constructor(target: IoRoute, opcode: TransferOpcode, operation: string, requests: BatchRequests) {
    const { blockSize } = target.bdev
    this.target = target
    this.opcode = opcode
    this.operation = operation
    this.length = requests.buffers.length
    this.offsetsBytes = Float64Array.from(requests.offsetsBlocks, (blocks) => blocks * blockSize)
    this.statuses = new Int32Array(this.length)
    this.batch = new BatchRun(target, opcode, operation, requests, this.statuses)
    this.run = Effect.callback((resume) => this.start(resume))
  }

  readonly errorAt = (index: number): IoError | undefined => this.batch.errorAt(index)

  private start(resume: Resume): BatchRun | undefined {
    const { batch, target } = this
    const refused = this.refuse()
    if (refused !== undefined) {
      resume(Exit.fail(refused))
      return
    }
    const channel = channelOf(target)
    if (channel === undefined) {
      resume(Effect.andThen(openFor(target, this.operation), this.run))
      return
    }
    if (this.length === 0) {
      resume(Exit.void)
      return
    }
    batch.submit(channel, resume)
    return batch
  }

  /** Fills in where the requests go. */
  private refuse(): IoError | undefined {
    const { bdev } = this.target
    if ((bdev.allowed & (1 << this.opcode)) === 0) return refusedOpcode(bdev, this.opcode, this.operation)
    if (this.batch.pending > 0) {
      const detail = "the batch is running already"
      return new SpdkError({ reason: new Busy({ operation: this.operation, resource: bdev.name, detail }) })
    }
    const { buffers, lengthsBlocks, memories, offsetsBlocks } = this.batch.requests
    for (const memory of memories) {
      if (memory.released) return this.refusedEntry(buffers.findIndex((buffer) => buffer.memory.released))
    }
    const { blockSize, numBlocks } = bdev
    const { offsetsBytes } = this
    for (let i = 0; i < offsetsBytes.length; i++) {
      const offsetBytes = offsetsBytes[i] ?? -1
      const offsetBlocks = Math.floor(offsetBytes / blockSize)
      const isInside =
        offsetBlocks * blockSize === offsetBytes &&
        offsetBlocks >= 0 &&
        offsetBlocks + (lengthsBlocks[i] ?? 0) <= numBlocks
      if (!isInside) return this.refusedEntry(i)
      offsetsBlocks[i] = offsetBlocks
    }
    return undefined
  }

  private refusedEntry(index: number): IoError | undefined {
    const buffer = this.batch.requests.buffers[index]
    return buffer && refuseEntry(this.target, this.operation, index, this.offsetsBytes[index] ?? -1, buffer)
  }
}

const checkEntries = (
  target: IoRoute,
  opcode: TransferOpcode,
  entries: ReadonlyArray<BatchEntry>,
  operation: string
): BatchRequests | IoError => {
  const { allowed, blockSize, bufferAlignment, name, numBlocks } = target.bdev
  if ((allowed & (1 << opcode)) === 0) return refusedOpcode(target.bdev, opcode, operation)
  if (!Array.isArray(entries)) return invalid(operation, "entries", "is not an array", undefined, name)
  const requests = new BatchRequests()
  for (let i = 0; i < entries.length; i++) {
    const one: BatchEntry | null | undefined = entries[i]
    if (one === undefined || one === null) return invalid(operation, `entries[${i}]`, "is missing", undefined, name)
    // Every DmaBuffer is made by this package; what is none fails the check of `memory`.
    const buffer = one.buffer as DmaBufferImpl
    const { offsetBytes } = one
    const memory = buffer?.memory
    const lengthBytes = buffer?.lengthBytes
    const offsetBlocks = Math.floor(offsetBytes / blockSize)
    const lengthBlocks = Math.floor(lengthBytes / blockSize)
    const isFit =
      memory !== undefined &&
      !memory.released &&
      buffer.alignment >= bufferAlignment &&
      offsetBlocks * blockSize === offsetBytes &&
      lengthBlocks * blockSize === lengthBytes &&
      offsetBlocks >= 0 &&
      lengthBlocks > 0 &&
      offsetBlocks + lengthBlocks <= numBlocks
    if (!isFit) return refuseEntry(target, operation, i, offsetBytes, buffer)
    requests.add(buffer, offsetBlocks, lengthBlocks)
  }
  return requests
}

const refuseEntry = (
  target: IoRoute,
  operation: string,
  index: number,
  offsetBytes: number,
  buffer: DmaBufferImpl
): IoError => {
  const path = `entries[${index}].`
  return (
    refusedBuffer(target.bdev, operation, buffer, `${path}buffer`) ??
    refusedRange(target.bdev, operation, offsetBytes, buffer.lengthBytes, "buffer.byteLength", path)
  )
}
