/**
 * The queue itself, without an Effect per I/O: what the Effect API's cost is measured against. It is inside
 * @effect-spdk/core, whose exports do not reach it; this package lies beside it and imports the compiled file.
 */
import type { Queue, Completion } from "@effect-spdk/native/Queue"
import { makeEntry } from "@effect-spdk/native/Queue"
import { Opcode } from "@effect-spdk/native/Layout"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type { Slab } from "../../../packages/core/dist/internal/engine/engine.js"
import { EngineService } from "../../../packages/core/dist/internal/engine/service.js"
import { type Job, throughput } from "../Job.ts"
import { createBdev, engineLayer } from "./device.ts"
import { type Load, makeLoad, makeOffsets, measureLoad } from "./window.ts"

/** Keeps `depth` reads under way: each completion submits the next read into the same memory. */
class Reader implements Completion {
  private readonly entry = makeEntry()
  private readonly queue: Queue
  private readonly slab: Slab
  private readonly ioBytes: number
  private readonly nextBlock: () => number
  private readonly load: Load
  private readonly onDrained: (failure: string | undefined) => void
  private underWay = 0

  constructor(options: {
    readonly queue: Queue
    readonly slab: Slab
    readonly channel: { readonly slot: number; readonly generation: number }
    readonly ioBytes: number
    readonly blockSizeBytes: number
    readonly numBlocks: number
    readonly load: Load
    readonly onDrained: (failure: string | undefined) => void
  }) {
    this.queue = options.queue
    this.slab = options.slab
    this.ioBytes = options.ioBytes
    this.nextBlock = makeOffsets(options.numBlocks, options.ioBytes / options.blockSizeBytes, 1)
    this.load = options.load
    this.onDrained = options.onDrained
    this.entry.opcode = Opcode.Read
    this.entry.channelSlot = options.channel.slot
    this.entry.channelGeneration = options.channel.generation
    this.entry.slabSlot = this.slab.slot
    this.entry.slabGeneration = this.slab.generation
    this.entry.lengthBlocks = options.ioBytes / options.blockSizeBytes
  }

  start(depth: number): void {
    this.underWay = depth
    for (let index = 0; index < depth; index++) this.submit(index)
  }

  private submit(index: number): void {
    this.entry.slabOffset = index * this.ioBytes
    this.entry.offsetBlocks = this.nextBlock()
    this.queue.submit(this.entry, this, index)
  }

  complete(index: number, status: number, detail: number): void {
    if (status === 0 && this.load.running) {
      this.load.operations++
      this.submit(index)
      return
    }
    this.underWay--
    if (status !== 0) this.load.running = false
    if (status !== 0) this.onDrained(`a read failed with ${status}, detail ${detail}`)
    else if (this.underWay === 0) this.onDrained(undefined)
  }
}

export const raw = (job: Job & { readonly kind: "raw" }) =>
  Effect.gen(function* () {
    const engine = yield* EngineService
    const name = yield* createBdev(job.bdev)
    const descriptor = yield* Effect.acquireRelease(
      engine.openBdev(name, { write: false, onEvent: () => {} }),
      (opened) => engine.closeBdev(opened)
    )
    const channel = yield* Effect.acquireRelease(engine.openChannel(engine.mainThread, descriptor), (opened) =>
      engine.closeChannel(engine.mainThread, opened)
    )
    const { blockSizeBytes, numBlocks } = descriptor.info
    const slab = yield* Effect.acquireRelease(engine.memory.allocate(job.depth * job.ioBytes, 4096), (allocated) =>
      Effect.sync(() => engine.memory.free(allocated))
    )
    const load = makeLoad()
    const drained = yield* Deferred.make<void, Error>()
    const reader = new Reader({
      queue: engine.mainThread.queue,
      slab,
      channel,
      ioBytes: job.ioBytes,
      blockSizeBytes,
      numBlocks,
      load,
      onDrained: (failure) =>
        Deferred.doneUnsafe(drained, failure === undefined ? Effect.void : Effect.fail(new Error(failure)))
    })
    reader.start(job.depth)
    const { operations, seconds } = yield* measureLoad(load, job.seconds)
    yield* Deferred.await(drained)
    return throughput(operations, seconds, job.depth, job.ioBytes)
  }).pipe(Effect.scoped, Effect.provide(engineLayer("libspdk")))
