/**
 * The public handles over an open bdev: `Bdev` by the channel of the fiber's thread, `BdevChannel` by one of its own.
 */
import { Opcode } from "@effect-spdk/native/Layout"
import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type {
  BatchEntry,
  Bdev,
  BdevBatch,
  BdevChannel,
  BdevEvent,
  BdevIo,
  BdevOperation,
  ByteRange,
  RangeOptions
} from "../../Bdev.ts"
import type { BdevStats } from "../../BdevInfo.ts"
import type { DmaBuffer } from "../../DmaBuffer.ts"
import { NotSupported, type RpcReason, SpdkError } from "../../SpdkError.ts"
import type { SpdkThread } from "../../SpdkThread.ts"
import { readBytes, writeBytes } from "./bdevBytes.ts"
import { statsOf } from "../bdev/stats.ts"
import { sinkRange, streamRange } from "./bdevStream.ts"
import { bouncePoolOf } from "../memory/bouncePool.ts"
import { type Channel, openChannel } from "./channels.ts"
import type { DescriptorEvent, DescriptorInfo, Engine } from "../engine/engine.ts"
import { type IoRoute, rangeRequest, resetRequest, transfer, transferVectored } from "./io.ts"
import { prepareBatch, runBatch } from "./ioBatch.ts"
import type { IoError } from "./ioCompletion.ts"
import { OpenTarget } from "./openTarget.ts"
import { onlyReasons } from "../common/reasons.ts"
import { withinLimit } from "../common/release.ts"
import { CurrentThread } from "../thread/thread.ts"

export const BdevTypeId = "~@effect-spdk/core/Bdev"

export class BdevIoImpl implements BdevIo {
  protected readonly target: IoRoute
  /** The same; that it is there tells ours from a Proxy. */
  readonly #target: IoRoute

  constructor(target: IoRoute) {
    this.target = target
    this.#target = target
  }

  /** Undefined of what somebody else has made, also when it stands for one of ours, as a Proxy does. */
  static targetOf(io: BdevIo): IoRoute | undefined {
    return io instanceof BdevIoImpl && #target in io ? io.#target : undefined
  }

  read(offsetBytes: number, buffer: DmaBuffer): Effect.Effect<void, IoError> {
    return transfer(this.target, Opcode.Read, offsetBytes, buffer, this.target.bdev.operations.read)
  }

  write(offsetBytes: number, buffer: DmaBuffer): Effect.Effect<void, IoError> {
    return transfer(this.target, Opcode.Write, offsetBytes, buffer, this.target.bdev.operations.write)
  }

  readv(offsetBytes: number, buffers: ReadonlyArray<DmaBuffer>): Effect.Effect<void, IoError> {
    return transferVectored(this.target, Opcode.Read, offsetBytes, buffers, this.target.bdev.operations.readv)
  }

  writev(offsetBytes: number, buffers: ReadonlyArray<DmaBuffer>): Effect.Effect<void, IoError> {
    return transferVectored(this.target, Opcode.Write, offsetBytes, buffers, this.target.bdev.operations.writev)
  }

  flush(range?: ByteRange): Effect.Effect<void, IoError> {
    return rangeRequest(this.target, Opcode.Flush, range, this.target.bdev.operations.flush)
  }

  unmap(offsetBytes: number, lengthBytes: number): Effect.Effect<void, IoError> {
    return rangeRequest(this.target, Opcode.Unmap, { offsetBytes, lengthBytes }, this.target.bdev.operations.unmap)
  }

  writeZeroes(offsetBytes: number, lengthBytes: number): Effect.Effect<void, IoError> {
    return rangeRequest(
      this.target,
      Opcode.WriteZeroes,
      { offsetBytes, lengthBytes },
      this.target.bdev.operations.writeZeroes
    )
  }

  get reset(): Effect.Effect<void, IoError> {
    return resetRequest(this.target, this.target.bdev.operations.reset)
  }

  readBytes(offsetBytes: number, lengthBytes: number): Effect.Effect<Uint8Array, IoError> {
    return readBytes(this.target, offsetBytes, lengthBytes, this.target.bdev.operations.readBytes)
  }

  writeBytes(offsetBytes: number, bytes: Uint8Array): Effect.Effect<void, IoError> {
    return writeBytes(this.target, offsetBytes, bytes, this.target.bdev.operations.writeBytes)
  }

  readBatch(entries: ReadonlyArray<BatchEntry>): Effect.Effect<void, IoError> {
    return runBatch(this.target, Opcode.Read, entries, this.target.bdev.operations.readBatch)
  }

  writeBatch(entries: ReadonlyArray<BatchEntry>): Effect.Effect<void, IoError> {
    return runBatch(this.target, Opcode.Write, entries, this.target.bdev.operations.writeBatch)
  }

  prepareReads(entries: ReadonlyArray<BatchEntry>): Effect.Effect<BdevBatch, IoError> {
    return prepareBatch(this.target, Opcode.Read, entries, this.target.bdev.operations.prepareReads)
  }

  prepareWrites(entries: ReadonlyArray<BatchEntry>): Effect.Effect<BdevBatch, IoError> {
    return prepareBatch(this.target, Opcode.Write, entries, this.target.bdev.operations.prepareWrites)
  }

  stream(options?: RangeOptions): Stream.Stream<Uint8Array, IoError> {
    return streamRange(this.target, options, this.target.bdev.operations.stream)
  }

  sink(options?: RangeOptions) {
    return sinkRange(this.target, options, this.target.bdev.operations.sink)
  }
}

class BdevChannelImpl extends BdevIoImpl implements BdevChannel {
  readonly thread: SpdkThread | undefined

  constructor(bdev: OpenTarget, channel: Channel) {
    super({ bdev, channel })
    this.thread = channel.thread
  }
}

/** The engine that opened it; undefined for what is no handle of this package's. */
export const engineOf = (bdev: Bdev): Engine | undefined => (bdev instanceof BdevImpl ? bdev.engine : undefined)

class BdevImpl extends BdevIoImpl implements Bdev {
  readonly [BdevTypeId] = BdevTypeId

  constructor(bdev: OpenTarget) {
    super({ bdev, channel: undefined })
  }

  get engine(): Engine {
    return this.target.bdev.engine
  }

  get name(): string {
    return this.target.bdev.name
  }

  get info(): DescriptorInfo {
    return this.target.bdev.descriptor.info
  }

  get blockSize(): number {
    return this.target.bdev.blockSize
  }

  get numBlocks(): number {
    return this.target.bdev.numBlocks
  }

  get sizeBytes(): number {
    return this.numBlocks * this.blockSize
  }

  get writable(): boolean {
    return this.target.bdev.writable
  }

  get isRemoved(): boolean {
    return this.target.bdev.removed
  }

  supports(operation: BdevOperation): boolean {
    return this.info.supportedIoTypes.includes(operation === "writeZeroes" ? "write_zeroes" : operation)
  }

  get events(): Stream.Stream<BdevEvent> {
    return eventsOf(this.target.bdev)
  }

  get stats(): Effect.Effect<BdevStats, SpdkError<RpcReason>> {
    return Effect.suspend(() => statsOf(this.target.bdev.engine.rpc, this.name))
  }

  get channel(): Effect.Effect<BdevChannel, IoError, Scope.Scope> {
    return explicitChannel(this.target.bdev)
  }

  toJSON(): unknown {
    const { blockSize, isRemoved, name, numBlocks, writable } = this
    return { _id: "Bdev", name, blockSize, numBlocks, writable, isRemoved }
  }
}

/** A channel of one's own, on the fiber's thread. */
export const explicitChannel = (bdev: OpenTarget): Effect.Effect<BdevChannel, IoError, Scope.Scope> =>
  Effect.map(scopedChannel(bdev), (channel) => new BdevChannelImpl(bdev, channel))

export const scopedChannel = (bdev: OpenTarget): Effect.Effect<Channel, IoError, Scope.Scope> => {
  const { channel: operation, closeChannel } = bdev.operations
  const acquire = Effect.flatMap(CurrentThread, (thread) =>
    openChannel(bdev, thread, operation, (channel) => bdev.channels.track(channel))
  )
  const release = (channel: Channel) => {
    bdev.channels.untrack(channel)
    return withinLimit(closeChannel, bdev.name, channel.close())
  }
  return Effect.acquireRelease(acquire, release)
}

export const eventsOf = (bdev: OpenTarget): Stream.Stream<BdevEvent> =>
  Stream.callback<BdevEvent>((queue) =>
    Effect.sync(() => {
      // What comes too late hears at least how it ended.
      if (bdev.removed) deliver(queue, { _tag: "Removed" })
      else if (bdev.closing) deliver(queue, "closed")
      return bdev.listen((event) => deliver(queue, event))
    }).pipe(Effect.flatMap((unlisten) => Effect.addFinalizer(() => Effect.sync(unlisten))))
  )

const deliver = (queue: Queue.Queue<BdevEvent, Cause.Done>, event: BdevEvent | "closed"): void => {
  if (event !== "closed") Queue.offerUnsafe(queue, event)
  if (event === "closed" || event._tag === "Removed") Queue.endUnsafe(queue)
}

const openReasons = onlyReasons([
  "Busy",
  "DeviceRemoved",
  "InvalidArgument",
  "IoFailed",
  "NoMemory",
  "NotFound",
  "NotSupported",
  "PermissionDenied",
  "ReadOnly",
  "Released"
])

export const openBdev = Effect.fnUntraced(function* (engine: Engine, name: string, write: boolean) {
  const bounce = yield* bouncePoolOf(engine)
  const opened = yield* Effect.acquireRelease(
    Effect.suspend(() => {
      // The engine may tell of an event before the descriptor is in our hands.
      const early: Array<DescriptorEvent> = []
      let onEvent = (event: DescriptorEvent): void => {
        early.push(event)
      }
      return Effect.map(
        openReasons(engine.openBdev(name, { write, onEvent: (event) => onEvent(event) })),
        (descriptor) => {
          const bdev = new OpenTarget(engine, descriptor, bounce)
          onEvent = (event) => bdev.onEvent(event)
          early.forEach(onEvent)
          return bdev
        }
      )
    }),
    (bdev) => withinLimit("Bdev.close", bdev.name, bdev.close())
  )
  if (!Number.isSafeInteger(opened.numBlocks * opened.blockSize)) {
    const detail = "its size in bytes is not a safe integer, which all offsets and lengths are here"
    return yield* Effect.fail(
      new SpdkError({ reason: new NotSupported({ operation: "Bdev.open", resource: name, detail }) })
    )
  }
  return new BdevImpl(opened)
})
