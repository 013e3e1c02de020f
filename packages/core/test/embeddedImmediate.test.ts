/** What a disk in memory answers where it is asked, and what goes through the queue all the same. */
import { Opcode } from "@effect-spdk/native/Layout"
import { type Entry, makeEntry } from "@effect-spdk/native/Queue"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Bdev from "../src/Bdev.ts"
import * as DmaBuffer from "../src/DmaBuffer.ts"
import * as Spdk from "../src/Spdk.ts"
import * as SpdkThread from "../src/SpdkThread.ts"
import {
  type Disk,
  makeEngine,
  malloc,
  ok,
  open,
  pattern,
  slab,
  start,
  transfer,
  vectored
} from "./support/embeddedEngine.ts"

const immediately = (disk: Disk, entry: Partial<Entry>): boolean => {
  const { immediate } = disk.thread.queue
  return immediate !== undefined && immediate.transfer({ ...makeEntry(), ...entry })
}

const world = Effect.gen(function* () {
  const engine = yield* makeEngine()
  yield* engine.rpc.call("bdev_malloc_create", malloc("m"))
  const disk = yield* open(engine, "m")
  const readOnly = yield* open(engine, "m", { write: false })
  const memory = yield* slab(engine, 4096, 4096)
  return { engine, disk, readOnly, memory }
})

describe("a transfer at once", () => {
  it.effect("moves the bytes before it returns, and counts", () =>
    Effect.gen(function* () {
      const { disk, engine, memory } = yield* world
      memory.view.set(pattern(4096, 1))
      assert.isTrue(immediately(disk, transfer(disk, Opcode.Write, memory, 8)))
      memory.view.fill(0)
      for (let time = 0; time < 40; time++) assert.isTrue(immediately(disk, transfer(disk, Opcode.Read, memory, 8)))
      assert.deepStrictEqual(memory.view, pattern(4096, 1))
      const stat = yield* engine.rpc.call("bdev_get_iostat", { names: ["m"] })
      const counted = JSON.stringify(stat)
      assert.include(counted, `"bytes_read":${40 * 4096},"num_read_ops":40,"bytes_written":4096,"num_write_ops":1`)
      assert.strictEqual(disk.thread.queue.inFlight, 0)
    })
  )

  it.effect("does not overtake what was submitted before it", () =>
    Effect.gen(function* () {
      const { disk, engine, memory } = yield* world
      const other = yield* slab(engine, 512, 512)
      other.view.fill(7)
      const range = { slab: other, offsetBytes: 0, lengthBytes: 512 }
      const before = start(disk.thread.queue, vectored(disk, Opcode.Write, [range], 0))
      assert.isFalse(immediately(disk, transfer(disk, Opcode.Read, memory, 0)))
      assert.deepStrictEqual(yield* before.ended, ok)
      assert.isTrue(immediately(disk, transfer(disk, Opcode.Read, memory, 0)))
      assert.deepStrictEqual(memory.view.subarray(0, 512), other.view)
    })
  )

  it.effect("is refused, and moves nothing, where a request would be refused", () =>
    Effect.gen(function* () {
      const { disk, engine, memory, readOnly } = yield* world
      const good = transfer(disk, Opcode.Write, memory, 0)
      memory.view.fill(9)
      const bad: ReadonlyArray<readonly [string, Disk, Partial<Entry>]> = [
        ["another channel", disk, { channelGeneration: (good.channelGeneration ?? 0) + 1 }],
        ["a handle that only reads", readOnly, transfer(readOnly, Opcode.Write, memory, 0)],
        ["past the end", disk, { offsetBlocks: 57 }],
        ["before the start", disk, { offsetBlocks: -1 }],
        ["no number", disk, { offsetBlocks: Number.NaN }],
        ["half a block", disk, { offsetBlocks: 0.5 }],
        ["other lengths", disk, { lengthBytes: 512 }],
        ["no blocks", disk, { lengthBlocks: 0, lengthBytes: 0 }],
        ["another slab", disk, { slabGeneration: memory.generation + 1 }],
        ["past the slab", disk, { slabOffset: 512 }]
      ]
      for (const [what, at, entry] of bad) assert.isFalse(immediately(at, { ...good, ...entry }), what)
      const thread = yield* engine.spawn({ name: "other", cpuMask: undefined })
      const elsewhere = yield* open(engine, "m", { thread })
      assert.isFalse(immediately(disk, transfer(elsewhere, Opcode.Write, memory, 0)), "a channel of another thread")
      yield* engine.rpc.call("bdev_malloc_delete", { name: "m" })
      assert.isFalse(immediately(disk, good), "a disk that is gone")
    })
  )
})

describe("fibers on a disk in memory", () => {
  const ended = Effect.gen(function* () {
    const created = yield* Bdev.createMalloc({ blockSize: 512, numBlocks: 4096 })
    const bdev = yield* Bdev.open(created)
    const counts = new Array<number>(16).fill(0)
    const readers = yield* Effect.forEach(counts, (_, index) =>
      Effect.forkScoped(
        Effect.gen(function* () {
          const buffer = yield* DmaBuffer.make(512)
          while (true) {
            yield* bdev.read(index * 512, buffer)
            counts[index] = (counts[index] ?? 0) + 1
          }
        })
      )
    )
    let turns = 0
    const timer = setInterval(() => turns++, 1)
    yield* Effect.callback<void>((resume) => {
      setTimeout(() => resume(Effect.void), 100)
    })
    clearInterval(timer)
    yield* Fiber.interruptAll(readers)
    return { counts, turns, stats: yield* SpdkThread.list }
  })

  it.live("let timers and each other have their turns, and the time counts as busy", () =>
    Effect.gen(function* () {
      const { counts, stats, turns } = yield* Effect.scoped(ended)
      assert.isAbove(turns, 5)
      assert.isAbove(Math.min(...counts), 100)
      assert.isBelow(Math.max(...counts), 2 * Math.min(...counts))
      assert.isTrue(stats.some(({ busyMillis }) => busyMillis > 0))
    }).pipe(Effect.provide(Spdk.layerEmbedded()))
  )
})
