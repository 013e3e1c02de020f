/** Batches and pressure: many entries in one call, full rings, more in flight than the device has memory for. */
import * as DmaBuffer from "@effect-spdk/core/DmaBuffer"
import * as Spdk from "@effect-spdk/core/Spdk"
import * as SpdkThread from "@effect-spdk/core/SpdkThread"
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { type Capabilities, type EngineLayer, long } from "../support/engines.ts"
import {
  blockSize,
  contract,
  failsWith,
  fresh,
  mallocOpened,
  pattern,
  sameBytes,
  until,
  within
} from "../support/harness.ts"
import { errorBdev, examined, heldReads } from "../support/held.ts"
import { seeded } from "../support/random.ts"

/** Many more than any ring has places. */
const flood = long ? 50_000 : 10_000

export const suite = (name: string, layer: EngineLayer, _capabilities: Capabilities): void =>
  contract(name, layer, (check) => {
    check("a batch writes and reads every entry, wherever it lies", () =>
      seeded((random) =>
        Effect.gen(function* () {
          const bdev = yield* mallocOpened(4096)
          const buffer = yield* DmaBuffer.make(blockSize * 1024)
          const bytes = pattern(buffer.byteLength, 1)
          const places = Array.from({ length: 1024 }, (_, index) => index)
          for (let index = places.length - 1; index > 0; index--) {
            const other = random.below(index + 1)
            const here = places[index] ?? 0
            places[index] = places[other] ?? 0
            places[other] = here
          }
          const entries = places.map((place, index) => ({
            offsetBytes: place * 4 * blockSize,
            buffer: buffer.slice(index * blockSize, blockSize)
          }))
          buffer.bytes.set(bytes)
          yield* bdev.writeBatch(entries)
          buffer.bytes.fill(0)
          yield* bdev.readBatch(entries)
          sameBytes(buffer.bytes, bytes, "the batch")
          const whole = yield* bdev.readBytes(0, bdev.sizeBytes)
          for (const [index, place] of places.entries()) {
            const from = place * 4 * blockSize
            sameBytes(
              whole.subarray(from, from + blockSize),
              bytes.subarray(index * blockSize, (index + 1) * blockSize),
              `entry ${index}`
            )
            assert.isTrue(whole.subarray(from + blockSize, from + 4 * blockSize).every((byte) => byte === 0))
          }
        })
      )
    )

    check("a batch of entries of different lengths, and one of none", () =>
      Effect.gen(function* () {
        const bdev = yield* mallocOpened()
        yield* bdev.readBatch([])
        yield* bdev.writeBatch([])
        const buffers = yield* Effect.forEach([1, 2, 5, 16, 3], (blocks) => DmaBuffer.make(blocks * blockSize))
        let at = 0
        const entries = buffers.map((buffer, index) => {
          buffer.bytes.set(pattern(buffer.byteLength, index))
          const entry = { offsetBytes: at, buffer }
          at += buffer.byteLength + blockSize
          return entry
        })
        yield* bdev.writeBatch(entries)
        for (const [index, { buffer, offsetBytes }] of entries.entries()) {
          sameBytes(
            yield* bdev.readBytes(offsetBytes, buffer.byteLength),
            pattern(buffer.byteLength, index),
            `entry ${index}`
          )
        }
      })
    )

    check("a bad entry fails the batch before anything is submitted", () =>
      Effect.gen(function* () {
        const bdev = yield* mallocOpened(64)
        yield* bdev.writeBytes(0, pattern(bdev.sizeBytes, 1))
        const buffer = yield* DmaBuffer.make(blockSize)
        const good = { offsetBytes: 0, buffer }
        const bad = [
          { offsetBytes: 1, buffer },
          { offsetBytes: bdev.sizeBytes, buffer },
          { offsetBytes: -512, buffer },
          { offsetBytes: 0, buffer: buffer.slice(0, 100) }
        ]
        for (const entry of bad) {
          yield* failsWith(bdev.writeBatch([good, good, entry, good]), "InvalidArgument")
          assert.strictEqual(buffer.pins, 0)
        }
        sameBytes(yield* bdev.readBytes(0, bdev.sizeBytes), pattern(bdev.sizeBytes, 1), "the bdev")
      })
    )

    check("one failing entry fails the batch after every entry is done", () =>
      Effect.gen(function* () {
        const device = yield* errorBdev()
        const buffers = yield* Effect.forEach(Array.from({ length: 100 }), () => DmaBuffer.make(blockSize))
        yield* device.inject({ ioType: "write", errorType: "failure", count: 1 })
        const entries = buffers.map((buffer, index) => ({ offsetBytes: index * blockSize, buffer }))
        for (const [index, buffer] of buffers.entries()) buffer.bytes.fill(index + 1)
        yield* failsWith(device.bdev.writeBatch(entries), "IoFailed")
        for (const buffer of buffers) assert.strictEqual(buffer.pins, 0)
        const whole = yield* device.bdev.readBytes(0, blockSize * 100)
        const written = buffers.filter((_, index) => whole[index * blockSize] === index + 1).length
        assert.strictEqual(written, 99)
        yield* device.bdev.writeBatch(entries)
      })
    )

    check("a batch larger than the ring", () =>
      Effect.gen(function* () {
        const bdev = yield* mallocOpened(4096)
        const buffer = yield* DmaBuffer.make(blockSize)
        buffer.bytes.set(pattern(blockSize, 3))
        const entries = Array.from({ length: flood }, (_, index) => ({
          offsetBytes: (index % 4096) * blockSize,
          buffer
        }))
        yield* within("the batch", bdev.writeBatch(entries))
        assert.strictEqual(buffer.pins, 0)
        for (const block of [0, 1, 4095]) {
          sameBytes(yield* bdev.readBytes(block * blockSize, blockSize), pattern(blockSize, 3), `block ${block}`)
        }
      })
    )

    check("thousands of fibers in flight on one queue: each completes once, with its own bytes", () =>
      Effect.gen(function* () {
        const bdev = yield* mallocOpened(flood)
        const buffer = yield* DmaBuffer.make(flood * blockSize)
        const bytes = pattern(buffer.byteLength, 5)
        buffer.bytes.set(bytes)
        let completed = 0
        const each = (io: (offsetBytes: number, slice: DmaBuffer.DmaBuffer) => Effect.Effect<void, unknown>) =>
          within(
            "the flood",
            Effect.forEach(
              Array.from({ length: flood }),
              (_, index) =>
                Effect.andThen(
                  io(index * blockSize, buffer.slice(index * blockSize, blockSize)),
                  Effect.sync(() => void completed++)
                ),
              { concurrency: "unbounded", discard: true }
            ),
            50_000
          )
        yield* each((offset, slice) => bdev.write(offset, slice))
        assert.strictEqual(completed, flood)
        buffer.bytes.fill(0)
        yield* each((offset, slice) => bdev.read(offset, slice))
        assert.strictEqual(completed, 2 * flood)
        sameBytes(buffer.bytes, bytes, "the flood")
        assert.strictEqual(buffer.pins, 0)
      })
    )

    check("thousands held by the device at once: all are in flight, none is refused, all complete", () =>
      Effect.gen(function* () {
        const held = yield* heldReads()
        const buffer = yield* DmaBuffer.make(blockSize)
        const fibers = yield* Effect.forEach(Array.from({ length: 8000 }), (_, index) =>
          Effect.forkChild(held.bdev.read((index % 4096) * blockSize, buffer), { startImmediately: true })
        )
        yield* held.holds(8000)
        yield* held.roundTrips(10)
        yield* held.letGo
        yield* within("all of them", Fiber.joinAll(fibers))
        assert.strictEqual(buffer.pins, 0)
      })
    )

    check("messages overtake nothing and are not starved when the ring is full of I/O", () =>
      Effect.gen(function* () {
        const bdev = yield* mallocOpened(4096)
        const thread = yield* SpdkThread.spawn({ name: fresh("full") })
        const buffer = yield* DmaBuffer.make(blockSize)
        const flooding = yield* Effect.forkChild(
          Effect.forEach(Array.from({ length: flood }), (_, index) => bdev.read((index % 4096) * blockSize, buffer), {
            concurrency: "unbounded",
            discard: true
          }).pipe(SpdkThread.on(thread)),
          { startImmediately: true }
        )
        for (let round = 0; round < 20; round++) {
          assert.strictEqual(yield* within("a call", thread.call(Effect.succeed(round))), round)
        }
        yield* within("the flood", Fiber.join(flooding))
      })
    )

    check("timers and sockets get their turn while I/O floods", () =>
      Effect.gen(function* () {
        const bdev = yield* mallocOpened(4096)
        const buffer = yield* DmaBuffer.make(blockSize)
        let stop = false
        let reads = 0
        const flooding = yield* Effect.forkChild(
          Effect.forEach(
            Array.from({ length: 64 }),
            (_, index) =>
              Effect.whileLoop({
                while: () => !stop,
                body: () => bdev.read(index * blockSize, buffer),
                step: () => void reads++
              }),
            { concurrency: "unbounded", discard: true }
          ),
          { startImmediately: true }
        )
        const spdk = yield* Spdk.Spdk
        for (let round = 0; round < 20; round++) {
          yield* within("an RPC call", spdk.rpc.call("spdk_get_version"))
          yield* within("a timer", Effect.sleep("1 millis"))
        }
        stop = true
        yield* within("the flood", Fiber.join(flooding))
        assert.isAbove(reads, 0)
      })
    )

    check("16 bdevs on 4 threads, all busy at once", () =>
      seeded((random) =>
        Effect.gen(function* () {
          const threads = yield* Effect.forEach(Array.from({ length: 4 }), () =>
            SpdkThread.spawn({ name: fresh("busy") })
          )
          const bdevs = yield* Effect.forEach(Array.from({ length: 16 }), () => mallocOpened(256))
          yield* Effect.forEach(
            bdevs,
            (bdev, index) => {
              const thread = threads[index % threads.length]
              assert.isDefined(thread)
              return Effect.scoped(
                Effect.gen(function* () {
                  const buffer = yield* DmaBuffer.make(bdev.sizeBytes)
                  const bytes = pattern(bdev.sizeBytes, index)
                  buffer.bytes.set(bytes)
                  const entries = Array.from({ length: 256 }, (_, block) => ({
                    offsetBytes: block * blockSize,
                    buffer: buffer.slice(block * blockSize, blockSize)
                  }))
                  for (let round = 0; round < 5; round++) {
                    yield* bdev.writeBatch(entries)
                    buffer.bytes.fill(random.below(256))
                    yield* bdev.readBatch(entries)
                    sameBytes(buffer.bytes, bytes, `bdev ${index} in round ${round}`)
                  }
                })
              ).pipe(SpdkThread.on(thread))
            },
            { concurrency: "unbounded", discard: true }
          )
        })
      )
    )

    check("statistics count every entry of every batch", () =>
      Effect.gen(function* () {
        const bdev = yield* mallocOpened(4096)
        const buffer = yield* DmaBuffer.make(blockSize)
        const entries = Array.from({ length: 3000 }, (_, index) => ({ offsetBytes: index * blockSize, buffer }))
        yield* examined
        const before = yield* bdev.stats
        yield* bdev.readBatch(entries)
        const after = yield* bdev.stats
        assert.strictEqual(after.readOps - before.readOps, 3000)
        yield* until(
          "nothing is in flight",
          Effect.flatMap(Effect.service(Spdk.Spdk), (spdk) =>
            Effect.map(spdk.usage, (usage) => usage.requestsInFlight === 0)
          )
        )
      })
    )
  })
