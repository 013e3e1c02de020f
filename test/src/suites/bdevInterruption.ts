/**
 * Interruption at every point of an I/O's life. Whatever the point: the fiber ends interrupted, it does not end
 * before the device has let go of the memory, the buffer is unpinned and usable again, nothing stays in flight.
 */
import * as Bdev from "@effect-spdk/core/Bdev"
import * as DmaBuffer from "@effect-spdk/core/DmaBuffer"
import * as Spdk from "@effect-spdk/core/Spdk"
import { assert } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import { type Capabilities, type EngineLayer, long } from "../support/engines.ts"
import {
  blockSize,
  contract,
  expectInterrupted,
  expectReason,
  fresh,
  mallocOpened,
  pattern,
  sameBytes,
  turn,
  until,
  within
} from "../support/harness.ts"
import { heldReads, inFlight, setLatency } from "../support/held.ts"
import { seeded } from "../support/random.ts"

/** Longer than the tests wait for an abort, and no longer, so that a failure ends. */
const slowMicros = 20_000_000
const abortMillis = 10_000

/** A delay bdev over a malloc bdev. What it delays can be aborted. */
const slowBdev = (delayMicros: number) =>
  Effect.gen(function* () {
    const base = yield* Bdev.createMalloc({ name: fresh("base"), blockSize, numBlocks: 8192 })
    const name = yield* Bdev.createDelay({ base, name: fresh("slow") })
    yield* setLatency(name, delayMicros)
    return yield* Bdev.open(name, { write: true })
  })

/** Until the delay bdev has what was submitted: while a request is on its way through the stack, an abort misses it. */
const settled = Effect.flatMap(Effect.service(Spdk.Spdk), (spdk) =>
  Effect.forEach(Array.from({ length: 50 }), () => spdk.rpc.call("spdk_get_version"), { discard: true })
)

export const suite = (name: string, layer: EngineLayer, _capabilities: Capabilities): void =>
  contract(name, layer, (check) => {
    check("a read that the device can abort ends at once, and its memory is free", () =>
      Effect.gen(function* () {
        const bdev = yield* slowBdev(slowMicros)
        assert.isTrue(bdev.supports("abort"))
        const buffer = yield* DmaBuffer.make(4096)
        const reading = yield* Effect.forkChild(bdev.read(0, buffer), { startImmediately: true })
        yield* until(
          "the read is in flight",
          Effect.map(inFlight, (count) => count === 1)
        )
        yield* settled
        assert.strictEqual(buffer.pins, 1)
        yield* within("the interruption", Fiber.interrupt(reading), abortMillis)
        expectInterrupted(yield* Fiber.await(reading))
        assert.strictEqual(buffer.pins, 0)
        assert.strictEqual(yield* inFlight, 0)
      })
    )

    check("a write through an error bdev over a slow one, interrupted: it ends, and all of it closes", () =>
      Effect.scoped(
        Effect.gen(function* () {
          const base = yield* Bdev.createMalloc({ name: fresh("base"), blockSize, numBlocks: 8192 })
          const slow = yield* Bdev.createDelay({ base, name: fresh("slow") })
          const { name } = yield* Bdev.createError({ base: slow })
          const [part = ""] = yield* Bdev.createSplit({ base: name, count: 2 })
          const bdev = yield* Bdev.open(part, { write: true })
          yield* setLatency(slow, 300_000)
          const writing = yield* Effect.forEach(Array.from({ length: 16 }), (_, index) =>
            Effect.forkChild(bdev.writeBytes(index * blockSize, pattern(blockSize, 1)), { startImmediately: true })
          )
          yield* until(
            "the writes are in flight",
            Effect.map(inFlight, (count) => count === 16)
          )
          yield* settled
          yield* within("the interruption", Fiber.interruptAll(writing), abortMillis)
          // SPDK lost the abort of what its error bdev had handed on, and with it the channel.
          yield* setLatency(slow, 0)
        })
      ).pipe((all) => within("the end of the scope", all, 2 * abortMillis))
    )

    check("more than a ring holds, all interrupted: each can still be aborted", () =>
      Effect.gen(function* () {
        const bdev = yield* slowBdev(slowMicros)
        const buffer = yield* DmaBuffer.make(blockSize)
        const fibers = yield* Effect.forEach(Array.from({ length: 8000 }), (_, index) =>
          Effect.forkChild(bdev.read((index % 8192) * blockSize, buffer), { startImmediately: true })
        )
        yield* until(
          "all of them are in flight",
          Effect.map(inFlight, (count) => count === 8000)
        )
        yield* settled
        yield* within("the interruption", Fiber.interruptAll(fibers), abortMillis)
        for (const fiber of fibers) expectInterrupted(yield* Fiber.await(fiber))
        assert.strictEqual(buffer.pins, 0)
      })
    )

    check("a read that the device keeps is waited for: the fiber ends only when the device lets go", () =>
      Effect.gen(function* () {
        const held = yield* heldReads()
        yield* held.bdev.writeBytes(0, pattern(4096, 1))
        const buffer = yield* DmaBuffer.make(4096)
        const reading = yield* Effect.forkChild(held.bdev.read(0, buffer), { startImmediately: true })
        yield* held.holds(1)
        const interrupting = yield* Effect.forkChild(Fiber.interrupt(reading), { startImmediately: true })
        yield* held.roundTrips(30)
        assert.isUndefined(reading.pollUnsafe(), "the fiber waits for the device")
        assert.isUndefined(interrupting.pollUnsafe())
        assert.strictEqual(buffer.pins, 1, "the memory is the device's")
        yield* held.letGo
        yield* within("the interruption", Fiber.join(interrupting))
        expectInterrupted(yield* Fiber.await(reading))
        assert.strictEqual(buffer.pins, 0)
        // The buffer is as good as new.
        yield* held.bdev.read(0, buffer)
        sameBytes(buffer.bytes, pattern(4096, 1), "the buffer after the interruption")
      })
    )

    check("a write that the device keeps is waited for, and took effect or not, but whole", () =>
      Effect.gen(function* () {
        const held = yield* heldReads("write")
        const buffer = yield* DmaBuffer.make(blockSize)
        buffer.bytes.fill(0x77)
        const writing = yield* Effect.forkChild(held.bdev.write(0, buffer), { startImmediately: true })
        yield* held.holds(1)
        const interrupting = yield* Effect.forkChild(Fiber.interrupt(writing), { startImmediately: true })
        yield* held.roundTrips(20)
        assert.isUndefined(writing.pollUnsafe())
        assert.strictEqual(buffer.pins, 1)
        yield* held.letGo
        yield* within("the interruption", Fiber.join(interrupting))
        const block = yield* held.bdev.readBytes(0, blockSize)
        assert.isTrue(
          block.every((byte) => byte === block[0]),
          "a whole block"
        )
      })
    )

    check("plain reads and writes hold their pooled memory until the device lets go", () =>
      Effect.gen(function* () {
        const held = yield* heldReads("all")
        const spdk = yield* Spdk.Spdk
        const operations = [
          held.bdev.readBytes(0, 4096),
          held.bdev.writeBytes(0, new Uint8Array(4096)),
          Stream.runDrain(held.bdev.stream({ lengthBytes: 4096 })),
          held.bdev.flush(),
          held.bdev.unmap(0, blockSize)
        ]
        const fibers = yield* Effect.forEach(operations, (operation) =>
          Effect.forkChild<Effect.Effect<unknown, unknown>>(operation, { startImmediately: true })
        )
        yield* held.holds(operations.length)
        const slabs = (yield* spdk.usage).slabs
        const interrupting = yield* Effect.forkChild(Fiber.interruptAll(fibers), { startImmediately: true })
        yield* held.roundTrips(20)
        for (const fiber of fibers) assert.isUndefined(fiber.pollUnsafe())
        assert.strictEqual((yield* spdk.usage).slabs, slabs)
        yield* held.letGo
        yield* within("the interruption", Fiber.join(interrupting))
        for (const fiber of fibers) expectInterrupted(yield* Fiber.await(fiber))
      })
    )

    check("vectored and batched I/O pin every buffer, and unpin every one", () =>
      Effect.gen(function* () {
        const held = yield* heldReads()
        const buffers = yield* Effect.forEach(Array.from({ length: 8 }), () => DmaBuffer.make(blockSize))
        const pins = () => buffers.map((buffer) => buffer.pins)
        const none = buffers.map(() => 0)
        const one = buffers.map(() => 1)
        const vectored = yield* Effect.forkChild(held.bdev.readv(0, buffers), { startImmediately: true })
        yield* held.holds(1)
        assert.deepStrictEqual(pins(), one)
        const batch = buffers.map((buffer, index) => ({ offsetBytes: index * blockSize, buffer }))
        const batched = yield* Effect.forkChild(held.bdev.readBatch(batch), { startImmediately: true })
        yield* held.holds(1 + buffers.length)
        assert.deepStrictEqual(
          pins(),
          buffers.map(() => 2)
        )
        const interrupting = yield* Effect.forkChild(Fiber.interruptAll([vectored, batched]), {
          startImmediately: true
        })
        yield* held.roundTrips(20)
        assert.deepStrictEqual(
          pins(),
          buffers.map(() => 2)
        )
        yield* held.letGo
        yield* within("the interruption", Fiber.join(interrupting))
        assert.deepStrictEqual(pins(), none)
      })
    )

    check("before it is submitted: a fiber interrupted before its first step touches nothing", () =>
      Effect.gen(function* () {
        const bdev = yield* mallocOpened()
        const buffer = yield* DmaBuffer.make(blockSize)
        const before = yield* bdev.stats
        for (let round = 0; round < 100; round++) {
          const fiber = yield* Effect.forkChild(bdev.write(0, buffer))
          yield* Fiber.interrupt(fiber)
          expectInterrupted(yield* Fiber.await(fiber))
          assert.strictEqual(buffer.pins, 0)
        }
        const after = yield* bdev.stats
        assert.strictEqual(after.writeOps, before.writeOps)
      })
    )

    check("at submission: interrupted in the turn in which it was submitted", () =>
      Effect.gen(function* () {
        const bdev = yield* mallocOpened()
        const buffer = yield* DmaBuffer.make(blockSize)
        for (let round = 0; round < 500; round++) {
          const fiber = yield* Effect.forkChild(bdev.read(0, buffer), { startImmediately: true })
          yield* Fiber.interrupt(fiber)
          assert.strictEqual(buffer.pins, 0)
        }
        assert.strictEqual(yield* inFlight, 0)
      })
    )

    check("at completion: interrupted in the turns in which its completion arrives", () =>
      seeded((random) =>
        Effect.gen(function* () {
          const bdev = yield* mallocOpened()
          yield* bdev.writeBytes(0, pattern(blockSize, 3))
          const buffer = yield* DmaBuffer.make(blockSize)
          let completed = 0
          const rounds = long ? 20_000 : 1000
          for (let round = 0; round < rounds; round++) {
            const fiber = yield* Effect.forkChild(bdev.read(0, buffer), { startImmediately: true })
            // Some rounds wait for the completion itself and interrupt just after, others before.
            for (let pause = random.below(4); pause > 0; pause--) yield* Effect.yieldNow
            if (random.chance(0.5)) yield* turn
            // However slow the reactor is, and one turn later at most.
            if (random.chance(0.1)) while (buffer.pins > 0) yield* turn
            yield* Fiber.interrupt(fiber)
            const exit = yield* Fiber.await(fiber)
            if (Exit.isSuccess(exit)) {
              completed++
              sameBytes(buffer.bytes, pattern(blockSize, 3), "a completed read")
            } else expectInterrupted(exit)
            assert.strictEqual(buffer.pins, 0)
          }
          assert.isAbove(completed, 0, "some reads complete before their interruption")
          assert.isBelow(completed, rounds, "some are interrupted before their completion")
        })
      )
    )

    check("in the overflow queue: requests that never reached the ring end at once, the others with the device", () =>
      Effect.gen(function* () {
        const held = yield* heldReads()
        const count = 6000
        const buffer = yield* DmaBuffer.make(blockSize)
        const fibers = yield* Effect.forEach(Array.from({ length: count }), (_, index) =>
          Effect.forkChild(held.bdev.read((index % 4096) * blockSize, buffer), { startImmediately: true })
        )
        yield* held.holds(count)
        assert.strictEqual(buffer.pins, count)
        // The latest are the ones that wait on this side of a full ring.
        const late = fibers.slice(count - 500)
        const interrupting = yield* Effect.forkChild(Fiber.interruptAll(late), { startImmediately: true })
        yield* held.roundTrips(10)
        yield* held.letGo
        yield* within("the interruption", Fiber.join(interrupting))
        for (const fiber of late) expectInterrupted(yield* Fiber.await(fiber))
        yield* within("the rest", Fiber.joinAll(fibers.slice(0, count - 500)))
        assert.strictEqual(buffer.pins, 0)
        assert.strictEqual(yield* inFlight, 0)
      })
    )

    check("many interrupted at once, while as many go on", () =>
      Effect.gen(function* () {
        const held = yield* heldReads()
        yield* held.bdev.writeBytes(0, pattern(1000 * blockSize, 4))
        const buffers = yield* Effect.forEach(Array.from({ length: 1000 }), () => DmaBuffer.make(blockSize))
        const fibers = yield* Effect.forEach(buffers, (buffer, index) =>
          Effect.forkChild(held.bdev.read(index * blockSize, buffer), { startImmediately: true })
        )
        yield* held.holds(1000)
        const odd = fibers.filter((_, index) => index % 2 === 1)
        const even = fibers.filter((_, index) => index % 2 === 0)
        const interrupting = yield* Effect.forkChild(Fiber.interruptAll(odd), { startImmediately: true })
        yield* held.roundTrips(5)
        yield* held.letGo
        yield* within("the interruption", Fiber.join(interrupting))
        yield* within("the others", Fiber.joinAll(even))
        const all = pattern(1000 * blockSize, 4)
        for (const [index, buffer] of buffers.entries()) {
          assert.strictEqual(buffer.pins, 0)
          if (index % 2 === 1) continue
          sameBytes(buffer.bytes, all.subarray(index * blockSize, (index + 1) * blockSize), `read ${index}`)
        }
      })
    )

    check("an interrupted batch waits for every one of its entries", () =>
      Effect.gen(function* () {
        const held = yield* heldReads()
        const buffers = yield* Effect.forEach(Array.from({ length: 64 }), () => DmaBuffer.make(blockSize))
        const batch = buffers.map((buffer, index) => ({ offsetBytes: index * blockSize, buffer }))
        const batched = yield* Effect.forkChild(held.bdev.readBatch(batch), { startImmediately: true })
        yield* held.holds(64)
        const interrupting = yield* Effect.forkChild(Fiber.interrupt(batched), { startImmediately: true })
        yield* held.roundTrips(20)
        assert.isUndefined(batched.pollUnsafe())
        yield* held.letGo
        yield* within("the interruption", Fiber.join(interrupting))
        for (const buffer of buffers) assert.strictEqual(buffer.pins, 0)
      })
    )

    check("a reset ends what the device keeps with Aborted", () =>
      Effect.gen(function* () {
        const held = yield* heldReads()
        const buffer = yield* DmaBuffer.make(4096)
        const reading = yield* Effect.forkChild(held.bdev.read(0, buffer), { startImmediately: true })
        const interrupted = yield* Effect.forkChild(held.bdev.read(0, buffer), { startImmediately: true })
        yield* held.holds(2)
        const interrupting = yield* Effect.forkChild(Fiber.interrupt(interrupted), { startImmediately: true })
        yield* held.roundTrips(10)
        assert.strictEqual(buffer.pins, 2)
        yield* within("the reset", held.bdev.reset)
        const exit = yield* within("the read", Fiber.await(reading))
        expectReason(exit, "Aborted")
        yield* within("the interruption", Fiber.join(interrupting))
        expectInterrupted(yield* Fiber.await(interrupted))
        assert.strictEqual(buffer.pins, 0)
      })
    )

    check("a timeout around an I/O ends it and waits for the device", () =>
      Effect.gen(function* () {
        const held = yield* heldReads()
        const buffer = yield* DmaBuffer.make(blockSize)
        // On a clock of its own, so that the time is over when the device has the read, and neither before nor later.
        const clock = yield* TestClock.make()
        const timed = yield* Effect.forkChild(
          Effect.provideService(Effect.timeoutOption(held.bdev.read(0, buffer), "10 millis"), Clock.Clock, clock),
          { startImmediately: true }
        )
        yield* held.holds(1)
        yield* clock.adjust("10 millis")
        yield* held.roundTrips(30)
        assert.isUndefined(timed.pollUnsafe())
        yield* held.letGo
        assert.isTrue(Option.isNone(yield* within("the timeout", Fiber.join(timed))))
        assert.strictEqual(buffer.pins, 0)
      })
    )

    check("a race of two I/Os: the loser's memory is safe before the winner's result is had", () =>
      Effect.gen(function* () {
        const slow = yield* slowBdev(5000)
        const quick = yield* mallocOpened()
        yield* slow.writeBytes(0, pattern(blockSize, 4))
        yield* quick.writeBytes(0, pattern(blockSize, 5))
        for (let round = 0; round < 50; round++) {
          const slowBuffer = yield* DmaBuffer.make(blockSize)
          const quickBuffer = yield* DmaBuffer.make(blockSize)
          const winner = yield* within(
            "the race",
            Effect.race(
              Effect.as(slow.read(0, slowBuffer), slowBuffer),
              Effect.as(quick.read(0, quickBuffer), quickBuffer)
            )
          )
          assert.strictEqual(slowBuffer.pins, 0)
          assert.strictEqual(quickBuffer.pins, 0)
          // The slow one, where the machine stops this program between the two.
          sameBytes(winner.bytes, pattern(blockSize, winner === quickBuffer ? 5 : 4), "the winner")
        }
      })
    )

    check("uninterruptible I/O finishes though its fiber is interrupted", () =>
      Effect.gen(function* () {
        const held = yield* heldReads()
        yield* held.bdev.writeBytes(0, pattern(blockSize, 6))
        const buffer = yield* DmaBuffer.make(blockSize)
        const reading = yield* Effect.forkChild(Effect.uninterruptible(held.bdev.read(0, buffer)), {
          startImmediately: true
        })
        yield* held.holds(1)
        const interrupting = yield* Effect.forkChild(Fiber.interrupt(reading), { startImmediately: true })
        yield* held.roundTrips(10)
        assert.isUndefined(reading.pollUnsafe())
        yield* held.letGo
        yield* within("the interruption", Fiber.join(interrupting))
        sameBytes(buffer.bytes, pattern(blockSize, 6), "the read that could not be interrupted")
      })
    )
  })
