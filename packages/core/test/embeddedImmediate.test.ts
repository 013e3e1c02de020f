/** What a disk in memory answers where it is asked, and what goes through the queue all the same. */
import { Opcode } from "@effect-spdk/native/Layout"
import { type Entry, makeEntry } from "@effect-spdk/native/Queue"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Bdev from "../src/Bdev.ts"
import * as DmaBuffer from "../src/DmaBuffer.ts"
import { EmbeddedQueue } from "../src/internal/embedded/queue/queue.ts"
import * as Spdk from "../src/Spdk.ts"
import * as SpdkThread from "../src/SpdkThread.ts"
import {
  control,
  type Disk,
  makeEngine,
  malloc,
  ok,
  open,
  pattern,
  run,
  slab,
  transfer
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
      for (let time = 0; time < 10; time++) assert.isTrue(immediately(disk, transfer(disk, Opcode.Read, memory, 8)))
      assert.deepStrictEqual(memory.view, pattern(4096, 1))
      const stat = yield* engine.rpc.call("bdev_get_iostat", { names: ["m"] })
      const counted = JSON.stringify(stat)
      assert.include(counted, `"bytes_read":${10 * 4096},"num_read_ops":10,"bytes_written":4096,"num_write_ops":1`)
      assert.strictEqual(disk.thread.queue.inFlight, 0)
    })
  )

  it.effect("goes by the queue in between, so that others have their turns, however many wait there", () =>
    Effect.gen(function* () {
      const { disk, memory } = yield* world
      const { queue } = disk.thread
      const entry = transfer(disk, Opcode.Read, memory, 0)
      const counts = { atOnce: 0, queued: 0 }
      const reader = Effect.gen(function* () {
        for (let time = 0; time < 200; time++) {
          if (immediately(disk, entry)) counts.atOnce++
          else {
            counts.queued++
            assert.deepStrictEqual(yield* run(queue, entry), ok)
          }
        }
      })
      // What the queue has to do anyway must not keep the readers in it.
      yield* Effect.all([control(disk, Opcode.Flush), control(disk, Opcode.Flush), reader, reader, reader], {
        concurrency: "unbounded"
      })
      assert.isAbove(counts.queued, 10)
      assert.isAbove(counts.atOnce, 5 * counts.queued)
    })
  )

  it.effect("is refused after a large one, until the queue has had its turn", () =>
    Effect.gen(function* () {
      const engine = yield* makeEngine()
      yield* engine.rpc.call("bdev_malloc_create", malloc("large", 16_384))
      const disk = yield* open(engine, "large")
      const memory = yield* slab(engine, 2 ** 20)
      const entry = transfer(disk, Opcode.Read, memory, 0)
      assert.deepStrictEqual(
        Array.from({ length: 4 }, () => immediately(disk, entry)),
        [true, false, false, false]
      )
      assert.deepStrictEqual(yield* run(disk.thread.queue, entry), ok)
      assert.isTrue(immediately(disk, entry))
    })
  )

  it.effect("counts the time of every disk and kind, and each that was timed for no more than there were", () =>
    Effect.gen(function* () {
      const { disk, engine, memory } = yield* world
      yield* engine.rpc.call("bdev_malloc_create", malloc("n"))
      const other = yield* open(engine, "n")
      const statOf = (name: string) =>
        Effect.map(engine.rpc.call("bdev_get_iostat", { names: [name] }), (answer) => {
          const { bdevs } = answer as { bdevs: ReadonlyArray<{ [counter: string]: number }> }
          return bdevs[0] ?? {}
        })
      assert.isTrue(immediately(disk, transfer(disk, Opcode.Read, memory, 0)))
      const first = yield* statOf("m")
      assert.isAbove(first["read_latency_ticks"] ?? 0, 0)
      assert.strictEqual(first["read_latency_ticks"], first["max_read_latency_ticks"])
      for (let time = 0; time < 4; time++) {
        assert.isTrue(immediately(disk, transfer(disk, Opcode.Read, memory, 0)))
        assert.isTrue(immediately(other, transfer(other, Opcode.Write, memory, 0)))
        assert.isTrue(immediately(other, transfer(other, Opcode.Read, memory, 0)))
      }
      const copied = yield* statOf("n")
      assert.isAbove(copied["write_latency_ticks"] ?? 0, 0)
      assert.isAbove(copied["read_latency_ticks"] ?? 0, 0)
    })
  )

  it.effect("one that took long does not make the thread busier than time went by", () =>
    Effect.gen(function* () {
      const engine = yield* makeEngine()
      yield* engine.rpc.call("bdev_malloc_create", malloc("large", 65_536))
      const disk = yield* open(engine, "large")
      const memory = yield* slab(engine, 32 * 2 ** 20)
      const small = { ...transfer(disk, Opcode.Read, memory, 0), lengthBlocks: 1 }
      const { queue } = disk.thread
      if (!(queue instanceof EmbeddedQueue)) return assert.fail("a queue of another engine")
      const startMillis = performance.now()
      const busyBefore = queue.busyMillis
      for (let time = 0; time < 16; time++) assert.isTrue(immediately(disk, small))
      // The one in so many that is timed, and that stands for the others.
      assert.isTrue(immediately(disk, transfer(disk, Opcode.Read, memory, 0)))
      const busyMillis = queue.busyMillis - busyBefore
      assert.isAbove(busyMillis, 0)
      assert.isAtMost(busyMillis, performance.now() - startMillis)
    })
  )

  it.effect("is refused from the word that the disk is gone", () =>
    Effect.gen(function* () {
      const { engine, memory } = yield* world
      yield* engine.rpc.call("bdev_malloc_create", malloc("going"))
      const told: Array<boolean> = []
      const thread = engine.mainThread
      const descriptor = yield* Effect.acquireRelease(
        engine.openBdev("going", {
          write: true,
          onEvent: () => told.push(immediately(disk, transfer(disk, Opcode.Write, memory, 0)))
        }),
        (opened) => engine.closeBdev(opened)
      )
      const channel = yield* Effect.acquireRelease(engine.openChannel(thread, descriptor), (opened) =>
        engine.closeChannel(thread, opened)
      )
      const disk: Disk = { engine, thread, descriptor, channel, events: [] }
      yield* engine.rpc.call("bdev_malloc_delete", { name: "going" })
      assert.deepStrictEqual(told, [false])
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
        ["no blocks", disk, { lengthBlocks: 0 }],
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
    // Comes back at all only when timers have turns.
    yield* Effect.callback<void>((resume) => {
      let turns = 0
      const timer = setInterval(() => {
        if (++turns < 10 || Math.max(...counts) < 1000) return
        clearInterval(timer)
        resume(Effect.void)
      }, 1)
    })
    yield* Fiber.interruptAll(readers)
    return { counts, stats: yield* SpdkThread.list }
  })

  it.live("let timers and each other have their turns, and the time counts as busy, once", () =>
    Effect.gen(function* () {
      const startMillis = performance.now()
      const { counts, stats } = yield* Effect.provide(Effect.scoped(ended), Spdk.layerEmbedded())
      assert.isBelow(Math.max(...counts), 2 * Math.min(...counts))
      const busyMillis = stats.reduce((sum, thread) => sum + thread.busyMillis, 0)
      assert.isAbove(busyMillis, 0)
      assert.isBelow(busyMillis, performance.now() - startMillis)
    })
  )

  it.live("leave its turns to the queue of another thread", () =>
    Effect.gen(function* () {
      const large = yield* Bdev.open(yield* Bdev.createMalloc({ blockSize: 512, numBlocks: 4096 }))
      const small = yield* Bdev.open(yield* Bdev.createMalloc({ blockSize: 512, numBlocks: 64 }), { write: true })
      const [here, there] = yield* Effect.all([SpdkThread.spawn({ name: "here" }), SpdkThread.spawn({ name: "there" })])
      const readers = yield* Effect.forEach(new Array(16).fill(65_536), (lengthBytes: number) =>
        Effect.forkScoped(
          SpdkThread.on(here)(
            Effect.gen(function* () {
              const buffer = yield* DmaBuffer.make(lengthBytes)
              while (true) yield* large.read(0, buffer)
            })
          )
        )
      )
      const flushes = Effect.repeat(small.flush(), { times: 50 })
      const ended = yield* Effect.timeoutOption(SpdkThread.on(there)(flushes), "20 seconds")
      yield* Fiber.interruptAll(readers)
      assert.isTrue(Option.isSome(ended))
    }).pipe(Effect.scoped, Effect.provide(Spdk.layerEmbedded()))
  )
})
