/** A range of a bdev as a Stream of bytes, and as the Sink of one. */
import * as DmaBuffer from "@effect-spdk/core/DmaBuffer"
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Stream from "effect/Stream"
import { createHash } from "node:crypto"
import type { Capabilities, EngineLayer } from "../support/engines.ts"
import {
  blockSize,
  contract,
  expectInterrupted,
  failsWith,
  mallocOpened,
  pattern,
  sameBytes,
  within
} from "../support/harness.ts"
import { errorBdev, examined, heldReads } from "../support/held.ts"
import { seeded } from "../support/random.ts"

const collect = <E, R>(stream: Stream.Stream<Uint8Array, E, R>) =>
  Effect.map(Stream.runCollect(stream), (chunks) => new Uint8Array(Buffer.concat(chunks)))

export const suite = (name: string, layer: EngineLayer, _capabilities: Capabilities): void =>
  contract(name, layer, (check) => {
    check("streams the whole bdev in order, whatever chunk size and concurrency", () =>
      Effect.gen(function* () {
        const bdev = yield* mallocOpened(2048 + 7)
        const bytes = pattern(bdev.sizeBytes, 1)
        yield* bdev.writeBytes(0, bytes)
        for (const chunkBytes of [blockSize, 4096, 65_536, 1024 ** 2, 4 * 1024 ** 2]) {
          for (const concurrency of [1, 3, 16]) {
            sameBytes(
              yield* collect(bdev.stream({ chunkBytes, concurrency })),
              bytes,
              `the stream in chunks of ${chunkBytes}, ${concurrency} at once`
            )
          }
        }
        sameBytes(yield* collect(bdev.stream()), bytes, "the stream by default")
      })
    )

    check("streams exactly the range, to the byte", () =>
      seeded((random) =>
        Effect.gen(function* () {
          const bdev = yield* mallocOpened(1024)
          const bytes = pattern(bdev.sizeBytes, 2)
          yield* bdev.writeBytes(0, bytes)
          for (let round = 0; round < 40; round++) {
            const offsetBytes = random.below(bdev.sizeBytes)
            const lengthBytes = 1 + random.below(bdev.sizeBytes - offsetBytes)
            sameBytes(
              yield* collect(bdev.stream({ offsetBytes, lengthBytes, chunkBytes: 8192 })),
              bytes.subarray(offsetBytes, offsetBytes + lengthBytes),
              `${lengthBytes} bytes from ${offsetBytes}`
            )
          }
          sameBytes(yield* collect(bdev.stream({ lengthBytes: 0 })), new Uint8Array(0), "no bytes")
        })
      )
    )

    check("a chunk is the consumer's to keep", () =>
      Effect.gen(function* () {
        const bdev = yield* mallocOpened(1024)
        const bytes = pattern(bdev.sizeBytes, 3)
        yield* bdev.writeBytes(0, bytes)
        const kept: Array<Uint8Array> = []
        yield* bdev
          .stream({ chunkBytes: 4096, concurrency: 4 })
          .pipe(Stream.runForEach((chunk) => Effect.sync(() => void kept.push(chunk))))
        sameBytes(new Uint8Array(Buffer.concat(kept)), bytes, "the chunks after the stream")
      })
    )

    check("a sink writes a stream of any chunks, and leaves what lies beyond its last byte", () =>
      seeded((random) =>
        Effect.gen(function* () {
          const bdev = yield* mallocOpened(2048)
          for (let round = 0; round < 30; round++) {
            const before = pattern(bdev.sizeBytes, 100 + round)
            yield* bdev.writeBytes(0, before)
            const offsetBytes = random.below(blockSize * 1024)
            const bytes = pattern(1 + random.below(400_000), round)
            const chunks: Array<Uint8Array> = []
            for (let at = 0; at < bytes.length;) {
              const length = random.chance(0.1) ? 0 : 1 + random.below(random.pick([3, 513, 70_000]))
              chunks.push(bytes.slice(at, at + length))
              at += length
            }
            const chunkBytes = blockSize * random.pick([1, 3, 256])
            const concurrency = 1 + random.below(8)
            const sink = bdev.sink({ offsetBytes, chunkBytes, concurrency })
            assert.strictEqual(yield* Stream.run(Stream.fromIterable(chunks), sink), bytes.length)
            before.set(bytes, offsetBytes)
            sameBytes(
              yield* bdev.readBytes(0, bdev.sizeBytes),
              before,
              `round ${round}: ${bytes.length} from ${offsetBytes}`
            )
          }
        })
      )
    )

    check("a sink of nothing writes nothing", () =>
      Effect.gen(function* () {
        const bdev = yield* mallocOpened(64)
        yield* bdev.writeBytes(0, pattern(bdev.sizeBytes, 1))
        yield* Stream.run(Stream.empty, bdev.sink())
        yield* Stream.run(Stream.make(new Uint8Array(0)), bdev.sink())
        sameBytes(yield* bdev.readBytes(0, bdev.sizeBytes), pattern(bdev.sizeBytes, 1), "the bdev")
      })
    )

    check("a sink that the device is too small for fails with NoSpace", () =>
      Effect.gen(function* () {
        const bdev = yield* mallocOpened(64)
        const much = Stream.fromIterable(Array.from({ length: 100 }, () => new Uint8Array(1000)))
        yield* failsWith(within("the failure", Stream.run(much, bdev.sink())), "NoSpace")
        const tail = Stream.run(Stream.make(new Uint8Array(blockSize + 1)), bdev.sink({ offsetBytes: 63 * blockSize }))
        yield* failsWith(within("the failure", tail), "NoSpace")
        const whole = Stream.run(Stream.make(new Uint8Array(bdev.sizeBytes), new Uint8Array(0)), bdev.sink())
        assert.strictEqual(yield* within("the whole", whole), bdev.sizeBytes)
      })
    )

    check("a sink that gets more than its range writes what fits, fails with NoSpace, and touches nothing beyond", () =>
      Effect.gen(function* () {
        const bdev = yield* mallocOpened(64)
        const before = pattern(bdev.sizeBytes, 1)
        yield* bdev.writeBytes(0, before)
        const bytes = pattern(3000, 2)
        const sink = bdev.sink({ offsetBytes: 700, lengthBytes: 2000 })
        yield* failsWith(within("the failure", Stream.run(Stream.make(bytes), sink)), "NoSpace")
        before.set(bytes.subarray(0, 2000), 700)
        sameBytes(yield* bdev.readBytes(0, bdev.sizeBytes), before, "the bdev")
      })
    )

    check("copies one bdev to another, stream to sink", () =>
      Effect.gen(function* () {
        const source = yield* mallocOpened(8192)
        const target = yield* mallocOpened(8192)
        const bytes = pattern(source.sizeBytes, 4)
        yield* source.writeBytes(0, bytes)
        yield* Stream.run(source.stream({ chunkBytes: 100 * blockSize, concurrency: 8 }), target.sink())
        const hash = (data: Uint8Array) => createHash("sha256").update(data).digest("hex")
        assert.strictEqual(hash(yield* target.readBytes(0, target.sizeBytes)), hash(bytes))
      })
    )

    check("an error of the device ends the stream with that error, after the bytes before it", () =>
      Effect.gen(function* () {
        const device = yield* errorBdev()
        yield* device.inject({ ioType: "read", errorType: "nvme_failure", count: 1, nvmeSct: 2, nvmeSc: 0x81 })
        const reason = yield* failsWith(Stream.runDrain(device.bdev.stream({ chunkBytes: 4096 })), "IoFailed")
        assert.strictEqual(reason.nvme?.sct, 2)
        yield* device.inject({ ioType: "write", errorType: "failure", count: 1 })
        yield* failsWith(Stream.run(Stream.make(new Uint8Array(8192)), device.bdev.sink()), "IoFailed")
        yield* Stream.runDrain(device.bdev.stream())
      })
    )

    check("a consumer that stops early leaves nothing in flight", () =>
      Effect.gen(function* () {
        const bdev = yield* mallocOpened(4096)
        for (let take = 0; take < 20; take++) {
          const chunks = yield* bdev
            .stream({ chunkBytes: blockSize, concurrency: 8 })
            .pipe(Stream.take(take), Stream.runCollect)
          assert.strictEqual(chunks.length, take)
        }
      })
    )

    check("interrupted in the middle, it waits for what the device keeps", () =>
      Effect.gen(function* () {
        const held = yield* heldReads()
        const streaming = yield* Effect.forkChild(
          Stream.runDrain(held.bdev.stream({ chunkBytes: 4096, concurrency: 4 })),
          { startImmediately: true }
        )
        yield* held.holds(4)
        const interrupting = yield* Effect.forkChild(Fiber.interrupt(streaming), { startImmediately: true })
        yield* held.roundTrips(20)
        assert.isUndefined(streaming.pollUnsafe())
        yield* held.letGo
        yield* within("the interruption", Fiber.join(interrupting))
        expectInterrupted(yield* Fiber.await(streaming))
      })
    )

    check("a slow consumer holds the producer back: no more than `concurrency` reads run ahead", () =>
      Effect.gen(function* () {
        const bdev = yield* mallocOpened(1024)
        yield* examined
        const before = (yield* bdev.stats).readOps
        let taken = 0
        yield* bdev.stream({ chunkBytes: blockSize, concurrency: 4 }).pipe(
          Stream.take(40),
          Stream.runForEach(() =>
            Effect.gen(function* () {
              taken++
              const reads = (yield* bdev.stats).readOps - before
              // One more set may wait in the pipe between the reads and the consumer.
              assert.isAtMost(reads, taken + 2 * 4)
            })
          )
        )
        assert.strictEqual(taken, 40)
      })
    )

    check("a buffer taken inside a stream lives as long as the stream", () =>
      Effect.gen(function* () {
        const bdev = yield* mallocOpened(64)
        yield* bdev.writeBytes(0, pattern(bdev.sizeBytes, 9))
        const stream = Stream.unwrap(
          Effect.map(DmaBuffer.make(blockSize), (buffer) =>
            Stream.range(0, 63).pipe(
              Stream.mapEffect((block) =>
                Effect.as(bdev.read(block * blockSize, buffer), buffer).pipe(Effect.map((read) => read.bytes.slice()))
              )
            )
          )
        )
        sameBytes(yield* collect(stream), pattern(bdev.sizeBytes, 9), "the stream")
      })
    )
  })
