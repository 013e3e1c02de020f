import { Detail, Opcode } from "@effect-spdk/native/Layout"
import { makeEntry } from "@effect-spdk/native/Queue"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import { TestClock } from "effect/testing"
import * as fs from "node:fs"
import {
  aborted,
  control,
  type Disk,
  makeEngine,
  malloc,
  ok,
  open,
  pattern,
  read,
  run,
  start,
  transfer,
  turn,
  vectored,
  write
} from "./support/embeddedEngine.ts"
import { EBADF, ECANCELED, ENODEV, refused, world } from "./support/embeddedQueue.ts"
import { uncaughtDuring } from "./support/uncaught.ts"

describe("a queue", () => {
  it.effect("completes nothing before submit has returned, everything once, and Nops in their order", () =>
    Effect.gen(function* () {
      const { disk, memory, queue } = yield* world
      const order: Array<number> = []
      let isSubmitting = false
      let left = 5000
      yield* Effect.callback<void>((resume) => {
        const completion = {
          complete(index: number) {
            assert.isFalse(isSubmitting)
            order.push(index)
            // Half of them are submitted by completions.
            if (index < 2500) submit(index + 2500)
            if (--left === 0) resume(Effect.void)
          }
        }
        const submit = (index: number) => {
          isSubmitting = true
          const entry =
            index % 3 === 0 ? { ...makeEntry(), ...transfer(disk, Opcode.Write, memory, index % 50) } : makeEntry()
          queue.submit(entry, completion, index)
          isSubmitting = false
        }
        for (let index = 0; index < 2500; index++) submit(index)
        assert.strictEqual(queue.inFlight, 2500)
      })
      assert.deepStrictEqual(
        order,
        Array.from({ length: 5000 }, (_, index) => index)
      )
      assert.strictEqual(queue.inFlight, 0)
    }).pipe(Effect.scoped)
  )

  it.effect("copies what it is handed", () =>
    Effect.gen(function* () {
      const { disk, memory, queue } = yield* world
      const segments = [{ slab: memory, offsetBytes: 0, lengthBytes: 512 }]
      const entry = { ...makeEntry(), ...vectored(disk, Opcode.Write, segments, 3) }
      memory.view.fill(9)
      const first = start(queue, entry)
      Object.assign(entry, makeEntry())
      segments.length = 0
      assert.deepStrictEqual(yield* first.ended, ok)
      memory.view.fill(0)
      yield* read(disk, memory, 0)
      assert.deepStrictEqual([memory.view[3 * 512 - 1], memory.view[3 * 512], memory.view[4 * 512]], [0, 9, 0])
    }).pipe(Effect.scoped)
  )

  it.live("leaves timers, sockets and others their turns while I/O without end goes on", () =>
    Effect.gen(function* () {
      const { disk, memory, queue } = yield* world
      let reads = 0
      let isOver = false
      const entry = { ...makeEntry(), ...transfer(disk, Opcode.Read, memory, 0) }
      const completion = {
        complete: () => {
          reads++
          if (!isOver) queue.submit(entry, completion, 0)
        }
      }
      for (let i = 0; i < 32; i++) queue.submit(entry, completion, 0)
      yield* Effect.sleep("20 millis")
      yield* Effect.promise(() => fs.promises.readFile(new URL(import.meta.url)))
      for (let i = 0; i < 5; i++) yield* turn
      // The I/O goes on meanwhile, however little time the machine has for it.
      while (reads <= 1000) yield* turn
      isOver = true
      while (queue.inFlight > 0) yield* turn
    }).pipe(Effect.scoped)
  )

  it.live("goes on after a completion that throws", () =>
    Effect.gen(function* () {
      const { queue } = yield* world
      const thrown = new Error("a completion that breaks its contract")
      const complete = () => {
        throw thrown
      }
      const submitBoth = Effect.sync(() => {
        queue.submit(makeEntry(), { complete }, 0)
        return start(queue, {})
      })
      const { uncaught, value: next } = yield* uncaughtDuring(submitBoth)
      assert.deepStrictEqual(uncaught, [thrown])
      // Without another one to wake the queue.
      assert.strictEqual(next.times(), 1)
      assert.deepStrictEqual(yield* run(queue, {}), ok)
      assert.strictEqual(queue.inFlight, 0)
    }).pipe(Effect.scoped)
  )
})

describe("timers of a queue", () => {
  it.effect("fire by the clock, the earlier first", () =>
    Effect.gen(function* () {
      const { queue } = yield* makeEngine().pipe(Effect.map((engine) => engine.mainThread))
      const order: Array<number> = []
      for (const micros of [3000, 1000, 2000, 1000, 0]) {
        queue.submit(
          { ...makeEntry(), opcode: Opcode.Timer, offsetBlocks: micros },
          { complete: (index) => order.push(index) },
          micros
        )
      }
      yield* turn
      yield* TestClock.adjust("999 micros")
      assert.deepStrictEqual(order, [0])
      yield* TestClock.adjust("1 micros")
      assert.deepStrictEqual(order, [0, 1000, 1000])
      yield* TestClock.adjust("10 millis")
      assert.deepStrictEqual(order, [0, 1000, 1000, 2000, 3000])
    }).pipe(Effect.scoped)
  )

  it.live("fire on the machine's clock too, not before their time", () =>
    Effect.gen(function* () {
      const { queue } = yield* makeEngine().pipe(Effect.map((engine) => engine.mainThread))
      for (const micros of [0, 200, 1500, 3000]) {
        const startMillis = performance.now()
        assert.deepStrictEqual(yield* run(queue, { opcode: Opcode.Timer, offsetBlocks: micros }), ok)
        assert.isAtLeast((performance.now() - startMillis) * 1000 + 1, micros)
      }
    }).pipe(Effect.scoped)
  )

  it.effect("end by abort, once, and the others fire", () =>
    Effect.gen(function* () {
      const { queue } = yield* makeEngine().pipe(Effect.map((engine) => engine.mainThread))
      const pending = Array.from({ length: 300 }, (_, at) =>
        start(queue, { opcode: Opcode.Timer, offsetBlocks: 1000 + at })
      )
      yield* turn
      for (const [at, { id, times }] of pending.entries()) {
        if (at % 3 === 0) continue
        queue.abort(id)
        queue.abort(id)
        assert.strictEqual(times(), 0, "never inside of abort")
      }
      // Aborts are messages, of which a turn takes as many as there is time for.
      for (let turns = 0; turns < 100 && queue.inFlight > 100; turns++) yield* turn
      assert.strictEqual(queue.inFlight, 100)
      yield* TestClock.adjust("2 millis")
      for (const [at, { ended, times }] of pending.entries()) {
        assert.deepStrictEqual(yield* ended, at % 3 === 0 ? ok : refused(ECANCELED, Detail.None))
        assert.strictEqual(times(), 1)
      }
      assert.strictEqual(queue.inFlight, 0)
    }).pipe(Effect.scoped)
  )
})

describe("abort", () => {
  const delayed = Effect.gen(function* () {
    const here = yield* world
    const latencies = { avg_read_latency: 1e6, p99_read_latency: 1e6, avg_write_latency: 1e6, p99_write_latency: 1e6 }
    yield* here.engine.rpc.call("bdev_malloc_create", malloc("base"))
    yield* here.engine.rpc.call("bdev_delay_create", { name: "d", base_bdev_name: "base", ...latencies })
    return { ...here, delay: yield* open(here.engine, "d") }
  })

  it.effect("ends I/O that waits in a delay bdev", () =>
    Effect.gen(function* () {
      const { delay, memory, queue } = yield* delayed
      const first = start(queue, transfer(delay, Opcode.Read, memory, 0))
      const second = start(queue, transfer(delay, Opcode.Read, memory, 0))
      yield* turn
      queue.abort(first.id)
      assert.deepStrictEqual(yield* first.ended, aborted)
      assert.strictEqual(second.times(), 0)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* second.ended, ok)
      assert.strictEqual(first.times(), 1)
    }).pipe(Effect.scoped)
  )

  it.effect("ends I/O that the queue has not looked at yet, before the device sees it", () =>
    Effect.gen(function* () {
      const { disk, memory, queue } = yield* world
      memory.view.fill(7)
      const request = start(queue, transfer(disk, Opcode.Write, memory, 0))
      queue.abort(request.id)
      assert.strictEqual(request.times(), 0)
      assert.deepStrictEqual(yield* request.ended, aborted)
      yield* read(disk, memory, 0)
      assert.isTrue(memory.view.every((byte) => byte === 0))
    }).pipe(Effect.scoped)
  )

  it.effect("ignores ids of requests that have completed, also when their record is used again", () =>
    Effect.gen(function* () {
      const { delay, memory, queue } = yield* delayed
      const done = start(queue, {})
      yield* done.ended
      const request = start(queue, transfer(delay, Opcode.Read, memory, 0))
      for (const id of [done.id, 0, -1, 2 ** 52, Number.NaN]) queue.abort(id)
      yield* turn
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* request.ended, ok)
    }).pipe(Effect.scoped)
  )

  it.effect("reaches through passthru and split", () =>
    Effect.gen(function* () {
      const { engine, memory, queue } = yield* delayed
      yield* engine.rpc.call("bdev_malloc_create", malloc("base2"))
      yield* engine.rpc.call("bdev_delay_create", {
        name: "d2",
        base_bdev_name: "base2",
        avg_read_latency: 1e6,
        p99_read_latency: 1e6,
        avg_write_latency: 1e6,
        p99_write_latency: 1e6
      })
      yield* engine.rpc.call("bdev_passthru_create", { name: "p", base_bdev_name: "d2" })
      yield* engine.rpc.call("bdev_split_create", { base_bdev: "p", split_count: 2 })
      const part = yield* open(engine, "pp1")
      const request = start(queue, transfer(part, Opcode.Read, memory, 0))
      yield* turn
      queue.abort(request.id)
      assert.deepStrictEqual(yield* request.ended, aborted)
    }).pipe(Effect.scoped)
  )
})

describe("closing", () => {
  it.effect("a channel waits for what the device has", () =>
    Effect.gen(function* () {
      const { engine, memory, queue } = yield* world
      const latencies = { avg_read_latency: 1e6, p99_read_latency: 1e6, avg_write_latency: 1e6, p99_write_latency: 1e6 }
      yield* engine.rpc.call("bdev_malloc_create", malloc("base"))
      yield* engine.rpc.call("bdev_delay_create", { name: "d", base_bdev_name: "base", ...latencies })
      const scope = yield* Scope.make()
      const disk = yield* Scope.provide(open(engine, "d"), scope)
      const request = start(queue, transfer(disk, Opcode.Read, memory, 0))
      yield* turn
      const closed = yield* Effect.forkChild(Scope.close(scope, Exit.void), { startImmediately: true })
      yield* turn
      assert.isUndefined(closed.pollUnsafe())
      assert.include(yield* engine.usage, { channels: 4, descriptors: 4 })
      assert.deepStrictEqual(yield* read(disk, memory, 0), refused(EBADF, Detail.StaleChannel), "takes no more")
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(closed)
      assert.deepStrictEqual(yield* request.ended, ok)
      assert.include(yield* engine.usage, { channels: 3, descriptors: 3 })
    }).pipe(Effect.scoped)
  )

  it.effect("a channel refuses what the queue has not looked at yet, as the reactor's does", () =>
    Effect.gen(function* () {
      const { engine, memory, queue } = yield* world
      const scope = yield* Scope.make()
      const disk: Disk = yield* Scope.provide(open(engine, "m"), scope)
      const request = start(queue, transfer(disk, Opcode.Write, memory, 0))
      const closed = yield* Effect.forkChild(Scope.close(scope, Exit.void), { startImmediately: true })
      const late = start(queue, transfer(disk, Opcode.Write, memory, 0))
      yield* Fiber.join(closed)
      for (const { ended } of [request, late]) assert.deepStrictEqual(yield* ended, refused(EBADF, Detail.StaleChannel))
      yield* engine.closeChannel(engine.mainThread, disk.channel)
      yield* engine.closeBdev(disk.descriptor)
      assert.include(yield* engine.usage, { channels: 3, descriptors: 3 })
    }).pipe(Effect.scoped)
  )

  it.effect("a thread cancels timers, refuses what comes, waits for I/O and puts its channels", () =>
    Effect.gen(function* () {
      const { engine, memory } = yield* world
      const scope = yield* Scope.make()
      const thread = yield* Scope.provide(engine.spawn({ name: "worker", cpuMask: "0x4" }), scope)
      const descriptor = yield* engine.openBdev("m", { write: true, onEvent: () => {} })
      const channel = yield* engine.openChannel(thread, descriptor)
      const timer = start(thread.queue, { opcode: Opcode.Timer, offsetBlocks: 1e9 })
      yield* turn
      assert.include(yield* engine.usage, { threads: 2, channels: 4, requestsInFlight: 1 })
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(yield* timer.ended, refused(ECANCELED, Detail.None))
      assert.deepStrictEqual(yield* run(thread.queue, {}), refused(ECANCELED, Detail.Closing))
      assert.include(yield* engine.usage, { threads: 1, channels: 3, requestsInFlight: 0 })
      const { reason } = yield* Effect.flip(engine.openChannel(thread, descriptor))
      assert.include(reason, { _tag: "Released", what: "thread" })
      yield* engine.closeChannel(thread, channel)
      yield* engine.closeBdev(descriptor)
      assert.deepStrictEqual(yield* write(yield* open(engine, "m"), memory, 0), ok)
    }).pipe(Effect.scoped)
  )

  it.effect("ten thousand handles leaves nothing", () =>
    Effect.gen(function* () {
      const engine = yield* makeEngine()
      yield* engine.rpc.call("bdev_malloc_create", malloc("m"))
      const before = yield* engine.usage
      const names = new Set<string>()
      for (let i = 0; i < 10_000; i++) {
        const descriptor = yield* engine.openBdev("m", { write: true, onEvent: () => {} })
        const channel = yield* engine.openChannel(engine.mainThread, descriptor)
        const memory = yield* engine.memory.allocate(512, 512)
        names.add(`${channel.slot}/${channel.generation}`)
        assert.isBelow(channel.slot, 2)
        yield* engine.closeChannel(engine.mainThread, channel)
        yield* engine.closeBdev(descriptor)
        engine.memory.free(memory)
      }
      assert.strictEqual(names.size, 10_000, "no name comes twice")
      assert.deepStrictEqual(yield* engine.usage, before)
    }).pipe(Effect.scoped)
  )
})

describe("control of a removed bdev", () => {
  it.effect("answers removed until the handle is closed", () =>
    Effect.gen(function* () {
      const { disk, engine, memory, queue } = yield* world
      yield* engine.rpc.call("bdev_malloc_delete", { name: "m" })
      assert.deepStrictEqual(disk.events, [{ _tag: "Removed" }])
      assert.deepStrictEqual(yield* read(disk, memory, 0), refused(ENODEV, Detail.Removed))
      assert.deepStrictEqual(yield* control(disk, Opcode.Reset), refused(ENODEV, Detail.Removed))
      assert.include(yield* engine.usage, { channels: 1, descriptors: 1 })
      yield* engine.closeChannel(engine.mainThread, disk.channel)
      assert.deepStrictEqual(
        yield* run(queue, transfer(disk, Opcode.Read, memory, 0)),
        refused(EBADF, Detail.StaleChannel)
      )
      memory.view.set(pattern(4096, 1))
    }).pipe(Effect.scoped)
  )
})
