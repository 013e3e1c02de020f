import * as Bdev from "@effect-spdk/core/Bdev"
import { Opcode } from "@effect-spdk/native/Layout"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Stream from "effect/Stream"
import { FakeEngine, type Request } from "./support/fakeEngine.ts"

/** Answers requests from these bytes, the newest first, so that nothing may rely on the order. */
const serve = (engine: FakeEngine, disk: Uint8Array, done: Array<Request>) =>
  Effect.forever(
    Effect.andThen(
      Effect.yieldNow,
      Effect.sync(() => {
        const request = engine.queue.requests.at(-1)
        if (request === undefined) return
        const slab = [...engine.slabs].find(({ slot }) => slot === request.slabSlot)
        if (slab === undefined) throw new Error("a request uses memory that is not there")
        const [at, lengthBytes] = [request.offsetBlocks * 512, request.lengthBlocks * 512]
        const memory = slab.view.subarray(request.slabOffset, request.slabOffset + lengthBytes)
        const blocks = disk.subarray(at, at + lengthBytes)
        if (request.opcode === Opcode.Read) memory.set(blocks)
        else blocks.set(memory)
        done.push(request)
        engine.queue.complete({ id: request.id })
      })
    )
  )

const pattern = (length: number, seed: number) => Uint8Array.from({ length }, (_, i) => (i * 31 + seed * 17) & 0xff)

const chunksOf = (bytes: Uint8Array, lengthBytes: number) =>
  Array.from({ length: Math.ceil(bytes.length / lengthBytes) }, (_, i) =>
    bytes.subarray(i * lengthBytes, (i + 1) * lengthBytes)
  )

const concat = (chunks: ReadonlyArray<Uint8Array>) => Uint8Array.from(chunks.flatMap((chunk) => [...chunk]))

interface Device {
  readonly disk: Uint8Array
  readonly done: Array<Request>
  readonly bdev: Bdev.Bdev
}

const withDisk = <A, E>(
  options: { readonly numBlocks: number; readonly writeUnitBlocks?: number },
  test: (device: Device) => Effect.Effect<A, E>
) => {
  const engine = new FakeEngine(options)
  const disk = pattern(options.numBlocks * 512, 99)
  const done: Array<Request> = []
  return Effect.scoped(
    engine.provide(
      Effect.gen(function* () {
        const server = yield* Effect.forkChild(serve(engine, disk, done))
        const bdev = yield* Bdev.open("fake", { write: true })
        yield* test({ disk, done, bdev })
        yield* Fiber.interrupt(server)
      })
    )
  )
}

describe("a sink on a device with a write unit of several blocks", () => {
  const cases: ReadonlyArray<readonly [offset: number, length: number, chunk: number]> = [
    [0, 4096, 4096],
    [0, 1, 1],
    [5, 4000, 700],
    [512, 2048, 512],
    [1000, 17_000, 3000],
    [4095, 2, 1],
    [4096 * 3, 4096 * 2 + 1, 5000]
  ]
  it.effect.each(cases)(
    "writes whole units from byte %d, %d bytes in chunks of %d, and keeps the rest",
    ([offset, length, chunk]) =>
      withDisk({ numBlocks: 64, writeUnitBlocks: 8 }, ({ bdev, disk, done }) =>
        Effect.gen(function* () {
          const expected = disk.slice()
          const bytes = pattern(length, 1)
          expected.set(bytes, offset)
          const sink = bdev.sink({ offsetBytes: offset, chunkBytes: 8192, concurrency: 3 })
          assert.strictEqual(yield* Stream.run(Stream.fromIterable(chunksOf(bytes, chunk)), sink), length)
          assert.deepStrictEqual(disk, expected)
          const writes = done.filter(({ opcode }) => opcode === Opcode.Write)
          assert.isAbove(writes.length, 0)
          for (const { lengthBlocks, offsetBlocks } of writes) {
            assert.deepStrictEqual([offsetBlocks % 8, lengthBlocks % 8], [0, 0])
          }
        })
      )
  )

  it.effect("writes the last unit as short as the device is", () =>
    withDisk({ numBlocks: 12, writeUnitBlocks: 8 }, ({ bdev, disk }) =>
      Effect.gen(function* () {
        const expected = disk.slice()
        const bytes = pattern(1000, 2)
        expected.set(bytes, 5000)
        yield* Stream.run(Stream.make(bytes), bdev.sink({ offsetBytes: 5000 }))
        assert.deepStrictEqual(disk, expected)
      })
    )
  )
})

describe("a sink", () => {
  it.effect("reads only the blocks that it fills partly", () =>
    withDisk({ numBlocks: 64 }, ({ bdev, done }) =>
      Effect.gen(function* () {
        yield* Stream.run(Stream.make(new Uint8Array(4096)), bdev.sink({ offsetBytes: 512 }))
        assert.deepStrictEqual(
          done.map(({ opcode }) => opcode),
          [Opcode.Write]
        )
        done.length = 0
        yield* Stream.run(Stream.make(new Uint8Array(4096)), bdev.sink({ offsetBytes: 500 }))
        const reads = done.filter(({ opcode }) => opcode === Opcode.Read)
        assert.sameDeepMembers(
          reads.map(({ lengthBlocks, offsetBlocks }) => [offsetBlocks, lengthBlocks]),
          [
            [0, 1],
            [8, 1]
          ]
        )
      })
    )
  )

  it.effect("that is full takes what is empty, and nothing else", () =>
    withDisk({ numBlocks: 8 }, ({ bdev, disk }) =>
      Effect.gen(function* () {
        const bytes = pattern(4096, 3)
        const empty = new Uint8Array(0)
        assert.strictEqual(yield* Stream.run(Stream.make(empty, bytes, empty), bdev.sink()), 4096)
        const more = Stream.make(bytes.subarray(0, 600), new Uint8Array([1]))
        const { reason } = yield* Effect.flip(Stream.run(more, bdev.sink({ offsetBytes: 512, lengthBytes: 600 })))
        assert.strictEqual(reason._tag, "NoSpace")
        const expected = bytes.slice()
        expected.set(bytes.subarray(0, 600), 512)
        assert.deepStrictEqual(disk, expected)
      })
    )
  )
})

describe("a stream", () => {
  const cases: ReadonlyArray<readonly [offset: number, length: number, chunk: number, concurrency: number]> = [
    [0, 32_768, 4096, 4],
    [1, 32_766, 512, 7],
    [511, 2, 1024, 1],
    [3000, 0, 4096, 2],
    [513, 10_000, 1500, 3],
    [32_767, 1, 4096, 4]
  ]
  it.effect.each(cases)(
    "from byte %d gives %d bytes in order, in chunks of %d, %d at a time",
    ([offset, length, chunk, concurrency]) =>
      withDisk({ numBlocks: 64 }, ({ bdev, disk, done }) =>
        Effect.gen(function* () {
          const options = { offsetBytes: offset, lengthBytes: length, chunkBytes: chunk, concurrency }
          const chunks = yield* Stream.runCollect(bdev.stream(options))
          assert.deepStrictEqual(concat(chunks), disk.slice(offset, offset + length))
          const blocks = done.reduce((sum, { lengthBlocks }) => sum + lengthBlocks, 0)
          const touched = length === 0 ? 0 : Math.ceil((offset + length) / 512) - Math.floor(offset / 512)
          assert.strictEqual(blocks, touched, "no block is read twice")
        })
      )
  )
})
