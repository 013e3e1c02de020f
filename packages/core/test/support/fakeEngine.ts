/**
 * An engine whose device is the test: requests stay in flight until the test completes them, with the status it wants.
 * For what no real engine can be brought to do at will.
 */
import type { Completion, Entry, Handle, Queue, RequestId } from "@effect-spdk/native/Queue"
import * as Bdev from "@effect-spdk/core/Bdev"
import * as DmaBuffer from "@effect-spdk/core/DmaBuffer"
import type { IoReason, SpdkError as AnySpdkError } from "@effect-spdk/core/SpdkError"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import type { Descriptor, DescriptorEvent, DescriptorInfo, Engine, Slab } from "../../src/internal/engine/engine.ts"
import { EngineService } from "../../src/internal/engine/service.ts"
import { NoMemory, SpdkError } from "../../src/SpdkError.ts"

export interface Request extends Entry {
  readonly id: RequestId
  readonly index: number
  readonly completion: Completion
}

export class FakeQueue implements Queue {
  readonly immediate = undefined
  readonly requests: Array<Request> = []
  readonly aborted: Array<RequestId> = []
  /** What happens to an abort; by default nothing. */
  onAbort: (id: RequestId) => void = () => {}
  private lastId = 0

  get inFlight(): number {
    return this.requests.length
  }

  submit(entry: Entry, completion: Completion, index: number): RequestId {
    const id = ++this.lastId
    this.requests.push({ ...entry, id, completion, index })
    return id
  }

  cork(): void {}

  uncork(): void {}

  abort(id: RequestId): void {
    this.aborted.push(id)
    this.onAbort(id)
  }

  /** Completes the oldest request, or the one of this id. */
  complete(
    answer: { readonly id?: RequestId; readonly status?: number; readonly detail?: number; readonly nvme?: number } = {}
  ): void {
    const at = answer.id === undefined ? 0 : this.requests.findIndex((request) => request.id === answer.id)
    const [request] = this.requests.splice(at, 1)
    if (request === undefined) throw new Error("no such request is in flight")
    request.completion.complete(request.index, answer.status ?? 0, answer.detail ?? 0, answer.nvme ?? 0)
  }

  completeAll(status = 0): void {
    while (this.requests.length > 0) this.complete({ status })
  }
}

const info: DescriptorInfo = {
  name: "fake",
  productName: "Fake disk",
  blockSizeBytes: 512,
  numBlocks: 2048,
  bufferAlignmentBytes: 512,
  writeUnitBlocks: 1,
  optimalIoBoundaryBlocks: 0,
  hasWriteCache: false,
  supportedIoTypes: ["read", "write", "flush", "unmap", "reset", "write_zeroes"]
}

const unused = () => Effect.die(new Error("the fake engine has no such thing"))

export class FakeEngine implements Engine {
  readonly kind = "embedded"
  readonly version = "fake"
  readonly description = "fake"
  readonly rpcSocket = undefined
  readonly rpc = { address: "fake", call: unused }
  readonly queue = new FakeQueue()
  readonly mainThread = { id: 1, name: "main", queue: this.queue }
  readonly spawn = unused
  readonly claimBdev = unused
  readonly registerPoller = unused
  /** What happened, in order. */
  readonly log: Array<string> = []
  readonly slabs = new Set<Slab>()
  /** Bytes of DMA memory that there are. */
  memoryBytes = Number.POSITIVE_INFINITY
  /** Replaced to make closing hang, or opening wait. */
  onCloseBdev: Effect.Effect<void> = Effect.void
  onOpenChannel: Effect.Effect<void, SpdkError> = Effect.void
  /** Replaced to make allocations wait, as those of a real engine may. */
  onAllocate: Effect.Effect<void> = Effect.void
  tell: (event: DescriptorEvent) => void = () => {}
  private readonly info: DescriptorInfo
  private slots = 0

  constructor(overrides: Partial<DescriptorInfo> = {}) {
    this.info = { ...info, ...overrides }
  }

  readonly loadedInTypeScript = new Set<never>()

  readonly usage = Effect.sync(() => ({
    threads: 1,
    descriptors: 0,
    channels: 0,
    pollers: 0,
    blobstores: 0,
    blobs: 0,
    nvmeControllers: 0,
    slabs: this.slabs.size,
    dmaBytes: this.dmaBytes,
    requestsInFlight: this.queue.inFlight
  }))

  get dmaBytes(): number {
    return [...this.slabs].reduce((sum, slab) => sum + slab.lengthBytes, 0)
  }

  readonly memory = {
    allocate: (lengthBytes: number, alignmentBytes: number) =>
      Effect.flatMap(
        Effect.suspend(() => this.onAllocate),
        () => {
          if (this.dmaBytes + lengthBytes > this.memoryBytes) {
            return Effect.fail(new SpdkError({ reason: new NoMemory({ operation: "DmaBuffer.make" }) }))
          }
          const slab: Slab = { ...this.handle(), lengthBytes, alignmentBytes, view: new Uint8Array(lengthBytes) }
          this.slabs.add(slab)
          return Effect.succeed(slab)
        }
      ),
    free: (slab: Slab) => {
      this.log.push("free")
      this.slabs.delete(slab)
      detach(slab)
    },
    renew: (slab: Slab) => {
      const bytes = new Uint8Array(slab.view)
      this.slabs.delete(slab)
      detach(slab)
      const renewed: Slab = { ...slab, generation: slab.generation + 1, view: bytes }
      this.slabs.add(renewed)
      return renewed
    }
  }

  readonly openBdev: Engine["openBdev"] = (name, options) =>
    Effect.sync((): Descriptor => {
      this.tell = options.onEvent
      return { ...this.handle(), writable: options.write, info: { ...this.info, name } }
    })

  readonly closeBdev: Engine["closeBdev"] = () => Effect.andThen(this.note("closeBdev"), this.onCloseBdev)

  readonly openChannel: Engine["openChannel"] = () =>
    Effect.andThen(this.note("openChannel"), Effect.as(this.onOpenChannel, this.handle()))

  readonly closeChannel: Engine["closeChannel"] = () => this.note("closeChannel")

  readonly provide = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, Exclude<R, EngineService>> =>
    Effect.provideService(effect, EngineService, this)

  private readonly note = (event: string) => Effect.sync(() => void this.log.push(event))

  private handle(): Handle {
    return { slot: ++this.slots, generation: 1 }
  }
}

const detach = (slab: Slab): void => {
  const { buffer } = slab.view
  // The fake's slabs never stand on shared memory.
  structuredClone(buffer, { transfer: [buffer as ArrayBuffer] })
}

/** A handle whose channel is open already: tests of what comes later need not see that. */
export const openFake = Effect.fnUntraced(function* (engine: FakeEngine) {
  const bdev = yield* Bdev.open("fake", { write: true })
  const buffer = yield* DmaBuffer.make(4096)
  const first = yield* Effect.forkChild(bdev.read(0, buffer), { startImmediately: true })
  yield* untilInFlight(engine, 1)
  engine.queue.complete()
  yield* Fiber.join(first)
  return { bdev, buffer }
})

export const untilInFlight = (engine: FakeEngine, count: number) =>
  Effect.repeat(Effect.yieldNow, { until: () => engine.queue.inFlight >= count })

export const start = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.forkChild(effect, { startImmediately: true })

export const withFake = <A, E>(
  test: (engine: FakeEngine) => Effect.Effect<A, E, EngineService | Scope.Scope>,
  engine = new FakeEngine()
) => Effect.scoped(engine.provide(test(engine)))

export const tagOf = (error: AnySpdkError<IoReason>) => error.reason._tag
