import * as DmaBuffer from "@effect-spdk/core/DmaBuffer"
import { NotFound, SpdkError } from "@effect-spdk/core/SpdkError"
import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import type { Descriptor, DescriptorEvent } from "../src/internal/engine/engine.ts"
import { openBlocks } from "../src/internal/io/openBlocks.ts"
import { type FakeEngine, start, tagOf, untilInFlight, withFake } from "./support/fakeEngine.ts"

const blockSize = 512
const lost = new SpdkError({ reason: new NotFound({ operation: "Blobstore.open", resource: "blob 0x1" }) })

/** What takes I/O in blocks here, beside the fake's bdevs. */
class Blocks {
  readonly engine: FakeEngine
  /** Of what `open` is asked for, before it answers. */
  early: ReadonlyArray<DescriptorEvent> = []
  onOpen: Effect.Effect<void, SpdkError> = Effect.void
  onClose: Effect.Effect<void, SpdkError> = Effect.void
  tell: (event: DescriptorEvent) => void = () => {}
  readonly closed: Array<Descriptor> = []

  constructor(engine: FakeEngine) {
    this.engine = engine
  }

  readonly open = Effect.suspend(() =>
    openBlocks({
      engine: this.engine,
      operation: "Blob",
      noun: "blob",
      open: (onEvent) => {
        this.tell = onEvent
        this.early.forEach(onEvent)
        return Effect.andThen(
          this.onOpen,
          this.engine.openBdev("blob 0x1", { write: true, onEvent: () => assert.fail("an event of the bdev's") })
        )
      },
      close: (descriptor) =>
        Effect.suspend(() => {
          this.closed.push(descriptor)
          this.engine.log.push("close")
          return this.onClose
        })
    })
  )
}

const opened = Effect.fnUntraced(function* (engine: FakeEngine) {
  const below = new Blocks(engine)
  const blocks = yield* below.open
  const buffer = yield* DmaBuffer.make(blockSize)
  return { below, blocks, buffer }
})

describe("openBlocks", () => {
  it.effect("fails as the opening does, and leaves nothing open", () =>
    withFake(
      Effect.fnUntraced(function* (engine) {
        const below = new Blocks(engine)
        below.onOpen = Effect.fail(lost)
        assert.strictEqual(yield* Effect.flip(below.open), lost)
        assert.deepStrictEqual(below.closed, [])
        assert.deepStrictEqual(engine.log, [])
        assert.strictEqual(engine.slabs.size, 0)
      })
    )
  )

  it.effect("knows of a resize that came before the opening ended", () =>
    withFake(
      Effect.fnUntraced(function* (engine) {
        const below = new Blocks(engine)
        const gate = yield* Deferred.make<void>()
        below.onOpen = Deferred.await(gate)
        below.early = [{ _tag: "Resized", numBlocks: 8 }]
        const opening = yield* start(below.open)
        below.tell({ _tag: "Resized", numBlocks: 4 })
        yield* Deferred.succeed(gate, undefined)
        const blocks = yield* Fiber.join(opening)
        assert.strictEqual(blocks.numBlocks(), 4)
        below.tell({ _tag: "Resized", numBlocks: 16 })
        assert.strictEqual(blocks.numBlocks(), 16)
        yield* blocks.close
      })
    )
  )

  it.effect("knows of a removal that came before the opening ended, and closes all the same", () =>
    withFake(
      Effect.fnUntraced(function* (engine) {
        const below = new Blocks(engine)
        below.early = [{ _tag: "Removed" }]
        const blocks = yield* below.open
        const buffer = yield* DmaBuffer.make(blockSize)
        assert.isTrue(blocks.isRemoved())
        assert.strictEqual(tagOf(yield* Effect.flip(blocks.io.read(0, buffer))), "DeviceRemoved")
        assert.strictEqual(engine.queue.inFlight, 0)
        yield* blocks.close
        assert.deepStrictEqual(below.closed, [blocks.descriptor])
      })
    )
  )

  it.effect("refuses what lies past the end, under its own name, as the size changes", () =>
    withFake(
      Effect.fnUntraced(function* (engine) {
        const { blocks, buffer } = yield* opened(engine)
        blocks.setNumBlocks(2)
        const { reason } = yield* Effect.flip(blocks.io.read(2 * blockSize, buffer))
        assert.include(reason, { _tag: "InvalidArgument", operation: "Blob.read", field: "offsetBytes" })
        assert.match(reason.message, /past the end of the blob at 1024/)
        blocks.setNumBlocks(3)
        const reading = yield* start(blocks.io.read(2 * blockSize, buffer))
        yield* untilInFlight(engine, 1)
        engine.queue.complete()
        yield* Fiber.join(reading)
        yield* blocks.close
      })
    )
  )

  it.effect("takes no writes while it is not writable", () =>
    withFake(
      Effect.fnUntraced(function* (engine) {
        const { below, blocks, buffer } = yield* opened(engine)
        blocks.setWritable(false)
        assert.strictEqual(tagOf(yield* Effect.flip(blocks.io.write(0, buffer))), "ReadOnly")
        blocks.setWritable(true)
        const writing = yield* start(blocks.io.write(0, buffer))
        yield* untilInFlight(engine, 1)
        engine.queue.complete()
        yield* Fiber.join(writing)
        yield* blocks.close
        // Nothing brings back what is closed.
        blocks.setWritable(true)
        assert.strictEqual(tagOf(yield* Effect.flip(blocks.io.write(0, buffer))), "Released")
        assert.strictEqual(below.closed.length, 1)
      })
    )
  )

  it.effect("closes after the I/O in flight, and channels before the descriptor", () =>
    withFake(
      Effect.fnUntraced(function* (engine) {
        const { below, blocks, buffer } = yield* opened(engine)
        const reading = yield* start(blocks.io.read(0, buffer))
        yield* untilInFlight(engine, 1)
        const closing = yield* start(blocks.close)
        yield* Effect.yieldNow
        assert.deepStrictEqual(engine.log, ["openChannel"])
        assert.include((yield* Effect.flip(blocks.io.read(0, buffer))).reason, {
          _tag: "Released",
          operation: "Blob.read"
        })
        engine.queue.complete()
        yield* Fiber.join(closing)
        yield* Fiber.join(reading)
        assert.deepStrictEqual(engine.log.slice(0, 3), ["openChannel", "closeChannel", "close"])
        assert.deepStrictEqual(below.closed, [blocks.descriptor])
      })
    )
  )

  it.effect("closes once, and tells everybody how that went", () =>
    withFake(
      Effect.fnUntraced(function* (engine) {
        const { below, blocks } = yield* opened(engine)
        const gate = yield* Deferred.make<void>()
        below.onClose = Effect.andThen(Deferred.await(gate), Effect.fail(lost))
        const first = yield* start(Effect.flip(blocks.close))
        const second = yield* start(Effect.flip(blocks.close))
        yield* Deferred.succeed(gate, undefined)
        assert.strictEqual(yield* Fiber.join(first), lost)
        assert.strictEqual(yield* Fiber.join(second), lost)
        assert.strictEqual(yield* Effect.flip(blocks.close), lost)
        assert.strictEqual(below.closed.length, 1)
      })
    )
  )

  it.effect("goes on closing when who closes is interrupted", () =>
    withFake(
      Effect.fnUntraced(function* (engine) {
        const { below, blocks, buffer } = yield* opened(engine)
        const reading = yield* start(blocks.io.read(0, buffer))
        yield* untilInFlight(engine, 1)
        const closing = yield* start(blocks.close)
        const interrupting = yield* start(Fiber.interrupt(closing))
        yield* Effect.yieldNow
        assert.deepStrictEqual(below.closed, [])
        engine.queue.complete()
        yield* Fiber.join(interrupting)
        yield* Fiber.join(reading)
        yield* blocks.close
        assert.strictEqual(below.closed.length, 1)
      })
    )
  )

  it.effect("carries I/O over a channel of one's own, which ends with its scope or with the blocks", () =>
    withFake(
      Effect.fnUntraced(function* (engine) {
        const { blocks, buffer } = yield* opened(engine)
        const [first, second] = [yield* Scope.make(), yield* Scope.make()]
        const own = yield* Scope.provide(blocks.channel, first)
        const other = yield* Scope.provide(blocks.channel, second)
        const reading = yield* start(own.read(0, buffer))
        yield* untilInFlight(engine, 1)
        const [request] = engine.queue.requests
        engine.queue.complete()
        yield* Fiber.join(reading)
        const shared = yield* start(blocks.io.read(0, buffer))
        yield* untilInFlight(engine, 1)
        assert.notStrictEqual(engine.queue.requests[0]?.channelSlot, request?.channelSlot)
        engine.queue.complete()
        yield* Fiber.join(shared)

        yield* Scope.close(first, Exit.void)
        assert.include((yield* Effect.flip(own.read(0, buffer))).reason, { _tag: "Released", what: "channel" })
        yield* blocks.close
        assert.include((yield* Effect.flip(other.read(0, buffer))).reason, { _tag: "Released", what: "handle" })
        yield* Scope.close(second, Exit.void)
        assert.deepStrictEqual(
          engine.log.filter((event) => event === "closeChannel" || event === "close"),
          ["closeChannel", "closeChannel", "closeChannel", "close"]
        )
      })
    )
  )
})
