/**
 * The path of one I/O: checks, submission, completion. This is what runs millions of times per second, so: one
 * `Effect.callback` whose register function has one parameter (a second one would cost an AbortController), one
 * completion object, numbers compared and not wrapped, and no span, metric or generator. What fails is explained
 * by ioCheck.ts, after the fact.
 *
 * Everything here runs on the JS thread.
 */
import { Opcode, type TransferOpcode } from "@effect-spdk/native/Layout"
import { type Entry, makeEntry } from "@effect-spdk/native/Queue"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type { ByteRange } from "../../Bdev.ts"
import type { DmaBuffer } from "../../DmaBuffer.ts"
import { invalid } from "../../SpdkError.ts"
import { type Channel, releasedChannel } from "./channels.ts"
import { refusedBuffer, refusedBuffers, refusedOpcode, refusedRange } from "./ioCheck.ts"
import { IoCompletion, type IoError, MappedCompletion, type Resume } from "./ioCompletion.ts"
import type { IoMap } from "./mappedIo.ts"
import { type DmaBufferImpl, Memory, noMemory, unpin } from "../memory/ioMemory.ts"
import type { OpenTarget } from "./openTarget.ts"
import { CurrentThread, releasedThread } from "../thread/thread.ts"

/** Where I/O goes: a bdev by the channel of the fiber's thread, or by one explicit channel. */
export interface IoRoute {
  readonly bdev: OpenTarget
  readonly channel: Channel | undefined
}

type RangeOpcode = typeof Opcode.Flush | typeof Opcode.Unmap | typeof Opcode.WriteZeroes

// `submit` of a queue copies the entry. Each is filled completely each time: what runs inside of `submit` may use it too.
const entry = makeEntry()
const vectoredEntry = makeEntry()

/** The channel to submit by, or undefined when one has to be opened (or nothing is usable): `openFor` knows. */
export const channelOf = (target: IoRoute): Channel | undefined => {
  const explicit = target.channel
  if (explicit !== undefined) return explicit.isUsable() ? explicit : undefined
  const fiber = Fiber.getCurrent()
  return fiber === undefined ? undefined : target.bdev.channels.of(fiber)
}

/** Makes `channelOf` find a channel, or says why there is none. */
export const openFor = (target: IoRoute, operation: string): Effect.Effect<void, IoError> =>
  target.channel === undefined
    ? Effect.flatMap(CurrentThread, (thread) => target.bdev.channels.open(thread, operation))
    : Effect.fail(
        target.channel.closed
          ? releasedChannel(target.bdev, operation)
          : releasedThread(operation, target.channel.thread)
      )

/** Reads into or writes from one buffer. */
export const transfer = (
  target: IoRoute,
  opcode: TransferOpcode,
  offsetBytes: number,
  buffer: DmaBuffer,
  operation: string
): Effect.Effect<void, IoError> =>
  // Every DmaBuffer is made by this package; what is none fails the check of `memory`.
  Effect.callback((resume) => startTransfer(target, opcode, offsetBytes, buffer as DmaBufferImpl, operation, resume))

/**
 * With a `map`, its `leave` is called when the request has ended; when nothing is returned, none is on its way: it was refused,
 * or has ended already.
 */
export const startTransfer = (
  target: IoRoute,
  opcode: TransferOpcode,
  offsetBytes: number,
  buffer: DmaBufferImpl,
  operation: string,
  resume: Resume,
  map?: IoMap
): IoCompletion | undefined => {
  const bdev = target.bdev
  // Callers without types pass nothing, too.
  const memory = buffer?.memory
  if ((bdev.allowed & (1 << opcode)) === 0) {
    resume(Exit.fail(refusedOpcode(bdev, opcode, operation)))
    return
  }
  if (memory === undefined || memory.released || buffer.alignment < bdev.bufferAlignment) {
    const refused = refusedBuffer(bdev, operation, buffer)
    if (refused !== undefined) {
      resume(Exit.fail(refused))
      return
    }
  }
  const blockSize = bdev.blockSize
  const lengthBytes = buffer.lengthBytes
  // Products of whole numbers up to 2^53 are exact, so these four comparisons also refuse NaN, fractions, negative
  // numbers and what is no safe integer.
  const offsetBlocks = Math.floor(offsetBytes / blockSize)
  const lengthBlocks = Math.floor(lengthBytes / blockSize)
  if (
    !(
      offsetBlocks * blockSize === offsetBytes &&
      lengthBlocks * blockSize === lengthBytes &&
      offsetBlocks >= 0 &&
      lengthBlocks > 0 &&
      offsetBlocks + lengthBlocks <= bdev.numBlocks
    )
  ) {
    resume(Exit.fail(refusedRange(bdev, operation, offsetBytes, lengthBytes, "buffer.byteLength")))
    return
  }
  const channel = channelOf(target)
  if (channel === undefined) {
    resume(Effect.andThen(openFor(target, operation), transfer(target, opcode, offsetBytes, buffer, operation)))
    return
  }
  entry.opcode = opcode
  entry.channelSlot = channel.slot
  entry.channelGeneration = channel.generation
  entry.slabSlot = memory.slot
  entry.slabGeneration = memory.generation
  entry.slabOffset = buffer.offsetBytes
  entry.offsetBlocks = offsetBlocks
  entry.lengthBlocks = lengthBlocks
  const { immediate } = channel.queue
  if (immediate !== undefined && immediate.transfer(entry)) {
    resume(Exit.void)
    return
  }
  memory.pins++
  bdev.enter(1)
  const completion =
    map === undefined
      ? new IoCompletion(resume, channel, memory, operation)
      : new MappedCompletion(resume, channel, memory, operation, map)
  completion.id = channel.queue.submit(entry, completion, 0)
  return completion
}

/** Reads into or writes from several buffers, one contiguous range of the bdev, one request. */
export const transferVectored = (
  target: IoRoute,
  opcode: TransferOpcode,
  offsetBytes: number,
  buffers: ReadonlyArray<DmaBuffer>,
  operation: string
): Effect.Effect<void, IoError> =>
  Effect.callback((resume) => {
    // A copy, because the caller may change the array while the request is in flight. What is no array is refused below.
    const copy = (Array.isArray(buffers) ? buffers.slice() : buffers) as ReadonlyArray<DmaBufferImpl>
    return startVectored(target, opcode, offsetBytes, copy, operation, resume)
  })

const startVectored = (
  target: IoRoute,
  opcode: TransferOpcode,
  offsetBytes: number,
  buffers: ReadonlyArray<DmaBufferImpl>,
  operation: string,
  resume: Resume
): IoCompletion | undefined => {
  const bdev = target.bdev
  const refused =
    (bdev.allowed & (1 << opcode)) === 0
      ? refusedOpcode(bdev, opcode, operation)
      : refusedBuffers(bdev, operation, buffers)
  if (refused !== undefined) {
    resume(Exit.fail(refused))
    return
  }
  const lengthBytes = buffers.reduce((sum, buffer) => sum + buffer.lengthBytes, 0)
  const lengthBlocks = lengthBytes / bdev.blockSize
  const offsetBlocks = blocksOf(bdev, offsetBytes, lengthBlocks)
  if (offsetBlocks === -1) {
    resume(Exit.fail(refusedRange(bdev, operation, offsetBytes, lengthBytes, "buffers")))
    return
  }
  const channel = channelOf(target)
  if (channel === undefined) {
    resume(
      Effect.andThen(openFor(target, operation), transferVectored(target, opcode, offsetBytes, buffers, operation))
    )
    return
  }
  vectoredEntry.opcode = opcode
  vectoredEntry.segments = buffers
  return submit(vectoredEntry, resume, channel, pinAll(buffers), offsetBlocks, lengthBlocks, operation)
}

/** One `Memory` for all of them: it is unpinned once, by the completion, and lets the others go then. */
const pinAll = (buffers: ReadonlyArray<DmaBufferImpl>): Memory => {
  const all = new Memory(noMemory.slab)
  for (const buffer of buffers) buffer.memory.pins++
  all.onUnpinned = () => {
    for (const buffer of buffers) unpin(buffer.memory)
  }
  all.pins = 1
  return all
}

/** A request over a range of the bdev that carries no data. */
export const rangeRequest = (
  target: IoRoute,
  opcode: RangeOpcode,
  range: ByteRange | undefined,
  operation: string
): Effect.Effect<void, IoError> => Effect.callback((resume) => startRange(target, opcode, range, operation, resume))

const startRange = (
  target: IoRoute,
  opcode: RangeOpcode,
  range: ByteRange | undefined,
  operation: string,
  resume: Resume
): IoCompletion | undefined => {
  const bdev = target.bdev
  if ((bdev.allowed & (1 << opcode)) === 0) {
    resume(Exit.fail(refusedOpcode(bdev, opcode, operation)))
    return
  }
  if (range === null || (range !== undefined && typeof range !== "object")) {
    resume(Exit.fail(invalid(operation, "range", "is not an object", undefined, bdev.name)))
    return
  }
  const lengthBlocks = range === undefined ? bdev.numBlocks : range.lengthBytes / bdev.blockSize
  const offsetBlocks = range === undefined ? 0 : blocksOf(bdev, range.offsetBytes, lengthBlocks)
  if (offsetBlocks === -1 && range !== undefined) {
    resume(Exit.fail(refusedRange(bdev, operation, range.offsetBytes, range.lengthBytes, "lengthBytes")))
    return
  }
  const channel = channelOf(target)
  if (channel === undefined) {
    resume(Effect.andThen(openFor(target, operation), rangeRequest(target, opcode, range, operation)))
    return
  }
  return submitWithoutMemory(opcode, resume, channel, offsetBlocks, lengthBlocks, operation)
}

export const resetRequest = (target: IoRoute, operation: string): Effect.Effect<void, IoError> =>
  Effect.callback((resume) => {
    const bdev = target.bdev
    if ((bdev.allowed & (1 << Opcode.Reset)) === 0) {
      resume(Exit.fail(refusedOpcode(bdev, Opcode.Reset, operation)))
      return
    }
    const channel = channelOf(target)
    if (channel === undefined) {
      resume(Effect.andThen(openFor(target, operation), resetRequest(target, operation)))
      return
    }
    return submitWithoutMemory(Opcode.Reset, resume, channel, 0, 0, operation)
  })

const submitWithoutMemory = (
  opcode: Opcode,
  resume: Resume,
  channel: Channel,
  offsetBlocks: number,
  lengthBlocks: number,
  operation: string
): IoCompletion => {
  entry.opcode = opcode
  entry.slabSlot = 0
  entry.slabGeneration = 0
  entry.slabOffset = 0
  noMemory.pins++
  return submit(entry, resume, channel, noMemory, offsetBlocks, lengthBlocks, operation)
}

/** `memory` is pinned already. */
const submit = (
  filled: Entry,
  resume: Resume,
  channel: Channel,
  memory: Memory,
  offsetBlocks: number,
  lengthBlocks: number,
  operation: string
): IoCompletion => {
  filled.channelSlot = channel.slot
  filled.channelGeneration = channel.generation
  filled.offsetBlocks = offsetBlocks
  filled.lengthBlocks = lengthBlocks
  channel.bdev.enter(1)
  const completion = new IoCompletion(resume, channel, memory, operation)
  completion.id = channel.queue.submit(filled, completion, 0)
  return completion
}

/** The offset in blocks, or -1 when the range is not whole blocks inside the bdev. */
const blocksOf = (bdev: OpenTarget, offsetBytes: number, lengthBlocks: number): number => {
  const offsetBlocks = Math.floor(offsetBytes / bdev.blockSize)
  return offsetBlocks * bdev.blockSize === offsetBytes &&
    Number.isInteger(lengthBlocks) &&
    offsetBlocks >= 0 &&
    lengthBlocks > 0 &&
    offsetBlocks + lengthBlocks <= bdev.numBlocks
    ? offsetBlocks
    : -1
}
