import { Opcode } from "@effect-spdk/native/Layout"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { TestClock } from "effect/testing"
import type { Engine } from "../src/internal/engine/engine.ts"
import {
  aborted,
  control,
  failed,
  makeEngine,
  malloc,
  ok,
  open,
  pattern,
  read,
  run,
  slab,
  start,
  transfer,
  turn,
  vectored,
  write
} from "./support/embeddedEngine.ts"

const delays = (micros: number) => ({
  avg_read_latency: micros,
  p99_read_latency: micros,
  avg_write_latency: micros,
  p99_write_latency: micros
})

const fill = Effect.fnUntraced(function* (engine: Engine, name: string) {
  const disk = yield* open(engine, name)
  const { blockSizeBytes, numBlocks } = disk.descriptor.info
  const all = yield* slab(engine, blockSizeBytes * numBlocks)
  all.view.set(pattern(all.lengthBytes, 5))
  assert.deepStrictEqual(yield* write(disk, all, 0), ok)
  return { disk, all, blockSizeBytes }
})

describe("a malloc bdev", () => {
  it.effect("keeps what was written, block by block, and is zeroed where nothing was", () =>
    Effect.gen(function* () {
      const engine = yield* makeEngine()
      yield* engine.rpc.call("bdev_malloc_create", malloc("m", 64, 4096))
      const disk = yield* open(engine, "m")
      const memory = yield* slab(engine, 8192)
      yield* read(disk, memory, 3)
      assert.isTrue(memory.view.every((byte) => byte === 0))
      memory.view.set(pattern(8192, 1))
      yield* write(disk, memory, 3)
      memory.view.fill(0xee)
      yield* read(disk, memory, 4)
      assert.deepStrictEqual([...memory.view.subarray(0, 4096)], [...pattern(8192, 1).subarray(4096)])
      assert.isTrue(memory.view.subarray(4096).every((byte) => byte === 0))
    }).pipe(Effect.scoped)
  )

  it.effect("scatters and gathers", () =>
    Effect.gen(function* () {
      const engine = yield* makeEngine()
      yield* engine.rpc.call("bdev_malloc_create", malloc("m"))
      const { all, disk } = yield* fill(engine, "m")
      const other = yield* slab(engine, 4096)
      const segments = [
        { slab: other, offsetBytes: 3072, lengthBytes: 1024 },
        { slab: other, offsetBytes: 0, lengthBytes: 512 },
        { slab: other, offsetBytes: 1024, lengthBytes: 2048 }
      ]
      assert.deepStrictEqual(yield* run(disk.thread.queue, vectored(disk, Opcode.Read, segments, 2)), ok)
      const at = (offset: number, length: number) => [...pattern(all.lengthBytes, 5).subarray(offset, offset + length)]
      assert.deepStrictEqual([...other.view.subarray(3072)], at(1024, 1024))
      assert.deepStrictEqual([...other.view.subarray(0, 512)], at(2048, 512))
      assert.isTrue(
        other.view.subarray(512, 1024).every((byte) => byte === 0),
        "no byte between the pieces"
      )
      assert.deepStrictEqual([...other.view.subarray(1024, 3072)], at(2560, 2048))
      assert.deepStrictEqual(yield* run(disk.thread.queue, vectored(disk, Opcode.Write, segments.toReversed(), 10)), ok)
      yield* read(disk, all, 0)
      assert.deepStrictEqual(
        [...all.view.subarray(5120, 5120 + 3584)],
        [...at(2560, 2048), ...at(2048, 512), ...at(1024, 1024)]
      )
    }).pipe(Effect.scoped)
  )

  it.effect("zeroes by unmap and by write zeroes, and nothing beside", () =>
    Effect.gen(function* () {
      const engine = yield* makeEngine()
      yield* engine.rpc.call("bdev_malloc_create", malloc("m"))
      const { all, disk } = yield* fill(engine, "m")
      assert.deepStrictEqual(yield* control(disk, Opcode.Unmap, 1, 2), ok)
      assert.deepStrictEqual(yield* control(disk, Opcode.WriteZeroes, 5, 1), ok)
      assert.deepStrictEqual(yield* control(disk, Opcode.Flush, 0, 64), ok)
      assert.deepStrictEqual(yield* control(disk, Opcode.Reset), ok)
      yield* read(disk, all, 0)
      const expected = pattern(all.lengthBytes, 5).fill(0, 512, 1536).fill(0, 2560, 3072)
      assert.isTrue(Buffer.from(expected).equals(all.view))
    }).pipe(Effect.scoped)
  )
})

describe("a null bdev", () => {
  it.effect("takes writes and leaves memory as it is", () =>
    Effect.gen(function* () {
      const engine = yield* makeEngine()
      yield* engine.rpc.call("bdev_null_create", { name: "n", num_blocks: 2 ** 40, block_size: 512 })
      const disk = yield* open(engine, "n")
      const memory = yield* slab(engine, 512)
      memory.view.fill(3)
      assert.deepStrictEqual(yield* write(disk, memory, 2 ** 40 - 1), ok)
      assert.deepStrictEqual(yield* read(disk, memory, 2 ** 40 - 1), ok)
      assert.isTrue(memory.view.every((byte) => byte === 3))
      assert.deepStrictEqual(yield* control(disk, Opcode.WriteZeroes, 0, 2 ** 40), ok)
    }).pipe(Effect.scoped)
  )

  it.effect("tells of its growth, also through what is open twice", () =>
    Effect.gen(function* () {
      const engine = yield* makeEngine()
      yield* engine.rpc.call("bdev_null_create", { name: "n", num_blocks: 2048, block_size: 512 })
      const disk = yield* open(engine, "n")
      const other = yield* open(engine, "n", { write: false })
      const memory = yield* slab(engine, 512)
      assert.include(yield* read(disk, memory, 2048), { status: -22 })
      yield* engine.rpc.call("bdev_null_resize", { name: "n", new_size: 2 })
      yield* turn
      for (const { events } of [disk, other]) assert.deepStrictEqual(events, [{ _tag: "Resized", numBlocks: 4096 }])
      assert.deepStrictEqual(yield* read(disk, memory, 2048), ok)
    }).pipe(Effect.scoped)
  )
})

describe("an error bdev", () => {
  const injected = Effect.fnUntraced(function* (params: { readonly [name: string]: unknown }) {
    const engine = yield* makeEngine()
    yield* engine.rpc.call("bdev_malloc_create", malloc("m"))
    const { all } = yield* Effect.scoped(fill(engine, "m"))
    assert.strictEqual(all.view.length, 0)
    yield* engine.rpc.call("bdev_error_create", { base_name: "m" })
    yield* engine.rpc.call("bdev_error_inject_error", { name: "EE_m", ...params })
    const disk = yield* open(engine, "EE_m")
    const memory = yield* slab(engine, 512)
    return { engine, disk, memory, queue: disk.thread.queue }
  })

  it.effect("fails so many, of one kind, and then no more", () =>
    Effect.gen(function* () {
      const { disk, memory } = yield* injected({ io_type: "write", error_type: "failure", num: 2 })
      assert.deepStrictEqual(yield* read(disk, memory, 0), ok)
      assert.deepStrictEqual(yield* write(disk, memory, 0), failed)
      assert.deepStrictEqual(yield* write(disk, memory, 0), failed)
      assert.deepStrictEqual(yield* write(disk, memory, 0), ok)
    }).pipe(Effect.scoped)
  )

  it.effect("gives the NVMe status that it is told, and takes an abort for what it is", () =>
    Effect.gen(function* () {
      const { disk, engine, memory } = yield* injected({
        io_type: "all",
        error_type: "nvme_failure",
        nvme_sct: 2,
        nvme_sc: 0x85
      })
      assert.deepStrictEqual(yield* read(disk, memory, 0), { status: -5, detail: 0, nvme: 0x10285 })
      assert.deepStrictEqual(yield* control(disk, Opcode.Flush), { status: -5, detail: 0, nvme: 0x10285 })
      yield* engine.rpc.call("bdev_error_inject_error", {
        name: "EE_m",
        io_type: "read",
        error_type: "nvme_failure",
        nvme_sc: 7
      })
      assert.deepStrictEqual(yield* read(disk, memory, 0), aborted)
    }).pipe(Effect.scoped)
  )

  it.effect("tries again what it had no memory for", () =>
    Effect.gen(function* () {
      const { disk, memory } = yield* injected({ io_type: "read", error_type: "nomem", num: 3 })
      assert.deepStrictEqual(yield* read(disk, memory, 0), ok)
      assert.deepStrictEqual([...memory.view], [...pattern(512, 5)])
    }).pipe(Effect.scoped)
  )

  it.effect("corrupts one byte of what is read", () =>
    Effect.gen(function* () {
      const { disk, memory } = yield* injected({
        io_type: "read",
        error_type: "corrupt_data",
        corrupt_offset: 100,
        corrupt_value: 0x41
      })
      assert.deepStrictEqual(yield* read(disk, memory, 0), ok)
      const expected = pattern(512, 5)
      expected[100] = (expected[100] ?? 0) ^ 0x41
      assert.deepStrictEqual([...memory.view], [...expected])
      yield* read(disk, memory, 0)
      assert.deepStrictEqual([...memory.view], [...pattern(512, 5)])
    }).pipe(Effect.scoped)
  )

  it.effect("corrupts one byte of what is written, in whichever segment it lies", () =>
    Effect.gen(function* () {
      const { disk, engine, queue } = yield* injected({
        io_type: "write",
        error_type: "corrupt_data",
        corrupt_offset: 600,
        corrupt_value: 1
      })
      const memory = yield* slab(engine, 1024)
      const segments = [
        { slab: memory, offsetBytes: 0, lengthBytes: 512 },
        { slab: memory, offsetBytes: 512, lengthBytes: 512 }
      ]
      yield* run(queue, vectored(disk, Opcode.Write, segments, 0))
      memory.view.fill(0)
      yield* read(disk, memory, 0)
      assert.deepStrictEqual(
        memory.view.findIndex((byte) => byte !== 0),
        600
      )
    }).pipe(Effect.scoped)
  )

  it.effect("holds back, until it is told to go on", () =>
    Effect.gen(function* () {
      const { disk, engine, memory, queue } = yield* injected({ io_type: "read", error_type: "pending", num: 2 })
      const first = start(queue, transfer(disk, Opcode.Read, memory, 0))
      const second = start(queue, transfer(disk, Opcode.Read, memory, 1))
      yield* turn
      queue.abort(first.id)
      yield* turn
      assert.deepStrictEqual([first.times(), second.times()], [0, 0], "which an abort does not change, as in SPDK")
      yield* engine.rpc.call("bdev_error_resume_pending", { name: "EE_m" })
      assert.deepStrictEqual(yield* first.ended, ok)
      assert.deepStrictEqual(yield* second.ended, ok)
    }).pipe(Effect.scoped)
  )

  it.effect("lets go what it holds back when it is reset, and when it is deleted", () =>
    Effect.gen(function* () {
      const { disk, engine, memory, queue } = yield* injected({ io_type: "read", error_type: "pending", num: 99 })
      const first = start(queue, transfer(disk, Opcode.Read, memory, 0))
      yield* turn
      assert.deepStrictEqual(yield* control(disk, Opcode.Reset), ok)
      assert.deepStrictEqual(yield* first.ended, aborted)
      const second = start(queue, transfer(disk, Opcode.Read, memory, 0))
      yield* turn
      yield* engine.rpc.call("bdev_error_delete", { name: "EE_m" })
      assert.deepStrictEqual(yield* second.ended, aborted)
      assert.strictEqual(second.times(), 1)
    }).pipe(Effect.scoped)
  )

  it.effect("waits with its faults for a queue depth", () =>
    Effect.gen(function* () {
      const engine = yield* makeEngine()
      yield* engine.rpc.call("bdev_malloc_create", malloc("m"))
      yield* engine.rpc.call("bdev_delay_create", { name: "d", base_bdev_name: "m", ...delays(1000) })
      yield* engine.rpc.call("bdev_error_create", { base_name: "d" })
      yield* engine.rpc.call("bdev_error_inject_error", {
        name: "EE_d",
        io_type: "read",
        error_type: "failure",
        queue_depth: 2
      })
      const disk = yield* open(engine, "EE_d")
      const memory = yield* slab(engine, 512)
      const requests = [0, 1, 2].map((block) => start(disk.thread.queue, transfer(disk, Opcode.Read, memory, block)))
      yield* turn
      yield* TestClock.adjust("1 millis")
      const ended = yield* Effect.forEach(requests, (request) => request.ended)
      assert.deepStrictEqual(ended, [ok, ok, failed])
    }).pipe(Effect.scoped)
  )
})

describe("a delay bdev", () => {
  it.effect("completes by the clock, reads and writes each after their time", () =>
    Effect.gen(function* () {
      const engine = yield* makeEngine()
      yield* engine.rpc.call("bdev_malloc_create", malloc("m"))
      yield* engine.rpc.call("bdev_delay_create", {
        name: "d",
        base_bdev_name: "m",
        ...{ avg_read_latency: 1000, p99_read_latency: 1000, avg_write_latency: 3000, p99_write_latency: 3000 }
      })
      const disk = yield* open(engine, "d")
      const memory = yield* slab(engine, 512)
      const { queue } = engine.mainThread
      const writing = start(queue, transfer(disk, Opcode.Write, memory, 0))
      const reading = start(queue, transfer(disk, Opcode.Read, memory, 1))
      assert.deepStrictEqual(yield* control(disk, Opcode.Flush), ok, "a flush is not delayed")
      yield* TestClock.adjust("999 micros")
      assert.deepStrictEqual([reading.times(), writing.times()], [0, 0])
      yield* TestClock.adjust("1 micros")
      assert.deepStrictEqual([reading.times(), writing.times()], [1, 0])
      yield* TestClock.adjust("2 millis")
      assert.deepStrictEqual([reading.times(), writing.times()], [1, 1])
    }).pipe(Effect.scoped)
  )

  it.effect("keeps their order, also when the latency changes meanwhile", () =>
    Effect.gen(function* () {
      const engine = yield* makeEngine()
      yield* engine.rpc.call("bdev_malloc_create", malloc("m"))
      yield* engine.rpc.call("bdev_delay_create", { name: "d", base_bdev_name: "m", ...delays(5000) })
      const disk = yield* open(engine, "d")
      const memory = yield* slab(engine, 512)
      const { queue } = engine.mainThread
      const slow = start(queue, transfer(disk, Opcode.Read, memory, 0))
      yield* turn
      for (const type of ["avg_read", "p99_read"]) {
        yield* engine.rpc.call("bdev_delay_update_latency", {
          delay_bdev_name: "d",
          latency_type: type,
          latency_us: 1000
        })
      }
      // One in a hundred is of the other kind, and does not wait behind the first.
      const quick = Array.from({ length: 50 }, () => start(queue, transfer(disk, Opcode.Read, memory, 0)))
      yield* turn
      yield* TestClock.adjust("1 millis")
      assert.isBelow(quick.filter((request) => request.times() === 1).length, 25)
      yield* TestClock.adjust("4 millis")
      assert.strictEqual(slow.times(), 1)
      assert.isTrue(quick.every((request) => request.times() === 1))
    }).pipe(Effect.scoped)
  )

  it.effect("a reset aborts what waits", () =>
    Effect.gen(function* () {
      const engine = yield* makeEngine()
      yield* engine.rpc.call("bdev_malloc_create", malloc("m"))
      yield* engine.rpc.call("bdev_delay_create", { name: "d", base_bdev_name: "m", ...delays(5000) })
      const disk = yield* open(engine, "d")
      const memory = yield* slab(engine, 512)
      const request = start(engine.mainThread.queue, transfer(disk, Opcode.Read, memory, 0))
      yield* turn
      assert.deepStrictEqual(yield* control(disk, Opcode.Reset), ok)
      assert.deepStrictEqual(yield* request.ended, aborted)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(request.times(), 1)
    }).pipe(Effect.scoped)
  )
})

describe("split bdevs", () => {
  it.effect("are parts of their base, side by side", () =>
    Effect.gen(function* () {
      const engine = yield* makeEngine()
      yield* engine.rpc.call("bdev_malloc_create", malloc("m", 100))
      const names = yield* engine.rpc.call("bdev_split_create", { base_bdev: "m", split_count: 3 })
      assert.deepStrictEqual(names, ["mp0", "mp1", "mp2"])
      const memory = yield* slab(engine, 33 * 512)
      for (const [at, name] of ["mp0", "mp1", "mp2"].entries()) {
        const part = yield* open(engine, name)
        assert.strictEqual(part.descriptor.info.numBlocks, 33)
        memory.view.fill(at + 1)
        assert.deepStrictEqual(yield* write(part, memory, 0), ok)
        const one = yield* slab(engine, 512)
        assert.include(yield* read(part, one, 33), { status: -22 })
      }
      const base = yield* open(engine, "m", { write: false })
      const all = yield* slab(engine, 100 * 512)
      yield* read(base, all, 0)
      const firsts = Array.from({ length: 100 }, (_, block) => all.view[block * 512])
      assert.deepStrictEqual(firsts, [...Array(33).fill(1), ...Array(33).fill(2), ...Array(33).fill(3), 0])
    }).pipe(Effect.scoped)
  )
})

describe("claims and removal", () => {
  it.effect("a base is open for reading only while something stands on it", () =>
    Effect.gen(function* () {
      const engine = yield* makeEngine()
      yield* engine.rpc.call("bdev_malloc_create", malloc("m"))
      yield* engine.rpc.call("bdev_passthru_create", { name: "p", base_bdev_name: "m" })
      const refused = yield* Effect.flip(Effect.scoped(open(engine, "m")))
      assert.include(refused.reason, { _tag: "Busy", resource: "m", errno: "EPERM" })
      yield* Effect.scoped(open(engine, "m", { write: false }))
      yield* engine.rpc.call("bdev_passthru_delete", { name: "p" })
      yield* Effect.scoped(open(engine, "m"))
      const unknown = yield* Effect.flip(Effect.scoped(open(engine, "nope")))
      assert.strictEqual(unknown.reason._tag, "NotFound")
    }).pipe(Effect.scoped)
  )

  it.effect("goes up through everything that stands on what is removed", () =>
    Effect.gen(function* () {
      const engine = yield* makeEngine()
      yield* engine.rpc.call("bdev_malloc_create", malloc("m"))
      yield* engine.rpc.call("bdev_passthru_create", { name: "p", base_bdev_name: "m" })
      yield* engine.rpc.call("bdev_delay_create", { name: "d", base_bdev_name: "p", ...delays(1000) })
      yield* engine.rpc.call("bdev_error_create", { base_name: "d" })
      yield* engine.rpc.call("bdev_split_create", { base_bdev: "EE_d", split_count: 2 })
      const top = yield* open(engine, "EE_dp1")
      const memory = yield* slab(engine, 512)
      const request = start(engine.mainThread.queue, transfer(top, Opcode.Write, memory, 0))
      yield* turn
      const deleted = yield* Effect.forkChild(engine.rpc.call("bdev_malloc_delete", { name: "m" }), {
        startImmediately: true
      })
      yield* turn
      assert.deepStrictEqual(top.events, [{ _tag: "Removed" }])
      assert.include(yield* write(top, memory, 0), { status: -19 })
      assert.isUndefined(deleted.pollUnsafe(), "I/O in flight is waited for")
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(yield* request.ended, ok)
      assert.strictEqual(yield* Fiber.join(deleted), true)
      assert.deepStrictEqual(yield* engine.rpc.call("bdev_get_bdevs"), [])
      assert.include(yield* engine.usage, { channels: 0, descriptors: 0 })
    }).pipe(Effect.scoped)
  )

  it.effect("of one half leaves the other half and the base", () =>
    Effect.gen(function* () {
      const engine = yield* makeEngine()
      yield* engine.rpc.call("bdev_malloc_create", malloc("a"))
      yield* engine.rpc.call("bdev_malloc_create", malloc("b"))
      yield* engine.rpc.call("bdev_passthru_create", { name: "p", base_bdev_name: "a" })
      const other = yield* open(engine, "b")
      const mine = yield* open(engine, "p")
      yield* engine.rpc.call("bdev_passthru_delete", { name: "p" })
      const memory = yield* slab(engine, 512)
      assert.deepStrictEqual(mine.events, [{ _tag: "Removed" }])
      assert.deepStrictEqual(other.events, [])
      assert.deepStrictEqual(yield* write(other, memory, 0), ok)
      assert.deepStrictEqual(yield* write(yield* open(engine, "a"), memory, 0), ok)
    }).pipe(Effect.scoped)
  )
})
