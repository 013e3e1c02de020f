import { Opcode } from "@effect-spdk/native/Layout"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { TestClock } from "effect/testing"
import type { LogLine } from "../src/internal/engine/options.ts"
import { aborted, makeEngine, malloc, ok, open, run, slab, start, transfer, turn } from "./support/embeddedEngine.ts"

describe("threads", () => {
  it.effect("have SPDK's names and numbers, and their place among the reactors", () =>
    Effect.gen(function* () {
      const engine = yield* makeEngine()
      assert.include(engine.mainThread, { id: 1, name: "app_thread" })
      const anywhere = yield* engine.spawn({ name: "anywhere", cpuMask: undefined })
      const there = yield* engine.spawn({ name: "there", cpuMask: "0x20" })
      assert.deepStrictEqual([anywhere.id, there.id], [2, 3])
      const reactors = yield* engine.rpc.call("framework_get_reactors")
      assert.deepNestedInclude(reactors, {
        pid: process.pid,
        "reactors[0].lcore": 0,
        "reactors[0].lw_threads[0].name": "app_thread",
        "reactors[0].lw_threads[0].cpumask": "1",
        "reactors[1].lcore": 2,
        "reactors[1].lw_threads[0].name": "anywhere",
        "reactors[1].lw_threads[0].cpumask": "25",
        "reactors[2].lcore": 5,
        "reactors[2].lw_threads[0].name": "there",
        "reactors[2].lw_threads[0].cpumask": "20"
      })
      const { reason } = yield* Effect.flip(Effect.scoped(engine.spawn({ name: "nowhere", cpuMask: "0x2" })))
      assert.include(reason, { _tag: "InvalidArgument", field: "cpus" })
    }).pipe(Effect.scoped)
  )

  it.effect("each have a queue, and count their time", () =>
    Effect.gen(function* () {
      const engine = yield* makeEngine()
      yield* engine.rpc.call("bdev_malloc_create", malloc("m", 2048))
      const thread = yield* engine.spawn({ name: "worker", cpuMask: undefined })
      const disk = yield* open(engine, "m", { thread })
      const memory = yield* slab(engine, 1024 * 1024)
      for (let i = 0; i < 5; i++)
        assert.deepStrictEqual(yield* run(thread.queue, transfer(disk, Opcode.Write, memory, 0)), ok)
      const stats = yield* engine.rpc.call("thread_get_stats")
      assert.deepNestedInclude(stats, { "threads[0].busy": 0, "threads[1].name": "worker" })
      // The line above has looked at it; how large the numbers are is the question here.
      const { threads } = stats as unknown as { threads: ReadonlyArray<{ busy: number; idle: number }> }
      assert.isAbove(threads[1]?.busy ?? 0, 100_000)
      assert.isAtLeast(threads[1]?.idle ?? -1, 0)
      const channels = yield* engine.rpc.call("thread_get_io_channels")
      assert.deepNestedInclude(channels, { "threads[1].io_channels": [{ name: "bdev_m", ref: 1 }] })
    }).pipe(Effect.scoped)
  )
})

describe("pollers", () => {
  const poller = Effect.fnUntraced(function* (periodMicros: number) {
    const engine = yield* makeEngine()
    const ticks: Array<number> = []
    const made = yield* engine.registerPoller(engine.mainThread, {
      name: "mine",
      periodMicros,
      onTick: (runs) => ticks.push(runs)
    })
    return { engine, made, ticks }
  })

  it.effect("with a period run by the clock, once for each", () =>
    Effect.gen(function* () {
      const { engine, made, ticks } = yield* poller(250)
      yield* TestClock.adjust("249 micros")
      assert.deepStrictEqual(ticks, [])
      yield* TestClock.adjust("1 micros")
      assert.deepStrictEqual(ticks, [1])
      yield* TestClock.adjust("1 second")
      assert.lengthOf(ticks, 4001)
      assert.deepStrictEqual(yield* made.stats, { runs: 4001, busy: 4001 })
      const pollers = yield* engine.rpc.call("thread_get_pollers")
      assert.deepNestedInclude(pollers, {
        "threads[0].timed_pollers": [
          { name: "mine", id: 1, state: "waiting", run_count: 4001, busy_count: 4001, period_ticks: 250_000 }
        ]
      })
    }).pipe(Effect.scoped)
  )

  it.effect("rest while they are paused, and start with a whole period", () =>
    Effect.gen(function* () {
      const { engine, made, ticks } = yield* poller(1000)
      yield* TestClock.adjust("1500 micros")
      yield* made.pause
      yield* made.pause
      assert.deepNestedInclude(yield* engine.rpc.call("thread_get_stats"), {
        "threads[0].timed_pollers_count": 0,
        "threads[0].paused_pollers_count": 1
      })
      yield* TestClock.adjust("10 millis")
      assert.lengthOf(ticks, 1)
      yield* made.resume
      yield* made.resume
      yield* TestClock.adjust("999 micros")
      assert.lengthOf(ticks, 1)
      yield* TestClock.adjust("1 micros")
      assert.lengthOf(ticks, 2)
    }).pipe(Effect.scoped)
  )

  it.live("without a period run once a turn, and leave the turn to others", () =>
    Effect.gen(function* () {
      const { made, ticks } = yield* poller(0)
      for (let i = 0; i < 10; i++) yield* turn
      const before = ticks.length
      assert.isAtLeast(before, 5)
      assert.isAtMost(before, 15)
      yield* made.pause
      for (let i = 0; i < 10; i++) yield* turn
      assert.isAtMost(ticks.length, before + 1)
      yield* made.resume
      for (let i = 0; i < 20 && ticks.length <= before + 5; i++) yield* turn
      assert.isAbove(ticks.length, before + 5)
    }).pipe(Effect.scoped)
  )

  it.effect("are gone with their scope, and with their thread", () =>
    Effect.gen(function* () {
      const engine = yield* makeEngine()
      const scope = yield* Scope.make()
      const thread = yield* Scope.provide(engine.spawn({ name: "worker", cpuMask: undefined }), scope)
      let runs = 0
      const onTick = () => runs++
      yield* engine.registerPoller(thread, { name: "left", periodMicros: 100, onTick })
      yield* Effect.scoped(engine.registerPoller(engine.mainThread, { name: "gone", periodMicros: 100, onTick }))
      assert.strictEqual((yield* engine.usage).pollers, 1)
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual((yield* engine.usage).pollers, 0)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(runs, 0)
      const late = yield* Effect.flip(
        Effect.scoped(engine.registerPoller(thread, { name: "late", periodMicros: 1, onTick }))
      )
      assert.strictEqual(late.reason._tag, "Released")
    }).pipe(Effect.scoped)
  )
})

describe("the end of the engine", () => {
  it.effect("ends what is in flight and takes everything back, in no time", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const engine = yield* Scope.provide(makeEngine(), scope)
      const { rpc } = engine
      yield* rpc.call("bdev_malloc_create", malloc("m"))
      yield* rpc.call("bdev_malloc_create", malloc("n"))
      const hour = 3_600_000_000
      yield* rpc.call("bdev_delay_create", {
        name: "d",
        base_bdev_name: "m",
        avg_read_latency: hour,
        p99_read_latency: hour,
        avg_write_latency: hour,
        p99_write_latency: hour
      })
      yield* rpc.call("bdev_error_create", { base_name: "n" })
      yield* rpc.call("bdev_error_inject_error", { name: "EE_n", io_type: "read", error_type: "pending", num: 1 })
      yield* rpc.call("bdev_passthru_create", { name: "waits", base_bdev_name: "never" })
      const thread = yield* Scope.provide(engine.spawn({ name: "worker", cpuMask: undefined }), scope)
      const memory = yield* engine.memory.allocate(512, 512)
      const slow = yield* Scope.provide(open(engine, "d", { thread }), scope)
      const held = yield* engine.openBdev("EE_n", { write: true, onEvent: () => {} })
      const channel = yield* engine.openChannel(engine.mainThread, held)
      yield* Scope.provide(engine.registerPoller(thread, { name: "p", periodMicros: 0, onTick: () => {} }), scope)
      const requests = [
        start(engine.mainThread.queue, { ...transfer({ ...slow, channel }, Opcode.Read, memory, 0) }),
        start(engine.mainThread.queue, { opcode: Opcode.Timer, offsetBlocks: hour })
      ]
      yield* turn
      assert.strictEqual((yield* engine.usage).requestsInFlight, 2)
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(yield* Effect.forEach(requests, ({ ended }) => ended), [
        aborted,
        { status: -125, detail: 0, nvme: 0 }
      ])
      assert.strictEqual(memory.view.length, 0)
      assert.deepStrictEqual(yield* engine.usage, {
        threads: 1,
        descriptors: 0,
        channels: 0,
        pollers: 0,
        blobstores: 0,
        blobs: 0,
        nvmeControllers: 0,
        slabs: 0,
        dmaBytes: 0,
        requestsInFlight: 0
      })
      assert.deepStrictEqual(yield* rpc.call("bdev_get_bdevs"), [])
    })
  )

  it.effect("aborts what a delay bdev still has", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const engine = yield* Scope.provide(makeEngine(), scope)
      yield* engine.rpc.call("bdev_malloc_create", malloc("m"))
      const hour = 3_600_000_000
      yield* engine.rpc.call("bdev_delay_create", {
        name: "d",
        base_bdev_name: "m",
        avg_read_latency: hour,
        p99_read_latency: hour,
        avg_write_latency: hour,
        p99_write_latency: hour
      })
      const descriptor = yield* engine.openBdev("d", { write: true, onEvent: () => {} })
      const channel = yield* engine.openChannel(engine.mainThread, descriptor)
      const memory = yield* engine.memory.allocate(512, 512)
      const disk = { engine, thread: engine.mainThread, descriptor, channel, events: [] }
      const request = start(engine.mainThread.queue, transfer(disk, Opcode.Read, memory, 0))
      yield* turn
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(yield* request.ended, aborted)
    })
  )

  it.effect("does not touch another engine of the same program", () =>
    Effect.gen(function* () {
      const one = yield* makeEngine()
      const scope = yield* Scope.make()
      const two = yield* Scope.provide(makeEngine(), scope)
      for (const engine of [one, two]) yield* engine.rpc.call("bdev_malloc_create", malloc("m"))
      const memory = yield* slab(one, 512)
      const disk = yield* open(one, "m")
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(yield* run(one.mainThread.queue, transfer(disk, Opcode.Write, memory, 0)), ok)
    }).pipe(Effect.scoped)
  )
})

describe("the log", () => {
  it.effect("gets what is urgent enough, by a level that RPC changes", () =>
    Effect.gen(function* () {
      const lines: Array<LogLine> = []
      const { rpc } = yield* makeEngine({ logLevel: "error", onLog: (batch) => lines.push(...batch) })
      yield* rpc.call("bdev_malloc_create", malloc("m"))
      const clash = Effect.ignore(rpc.call("bdev_malloc_create", malloc("m")))
      yield* clash
      assert.deepInclude(lines[0], { level: "error", message: "Bdev name m already exists" })
      const silent: Array<LogLine> = []
      const quiet = yield* makeEngine({ logLevel: "disabled", onLog: (batch) => silent.push(...batch) })
      yield* quiet.rpc.call("bdev_malloc_create", malloc("m"))
      yield* Effect.ignore(quiet.rpc.call("bdev_malloc_create", malloc("m")))
      assert.lengthOf(silent, 0)
      assert.strictEqual((yield* Effect.flip(quiet.rpc.call("log_get_print_level"))).reason._tag, "RpcFailed")
      yield* quiet.rpc.call("log_set_print_level", { level: "DEBUG" })
      yield* Effect.ignore(quiet.rpc.call("bdev_malloc_create", malloc("m")))
      assert.lengthOf(silent, 1)
      assert.strictEqual(yield* quiet.rpc.call("log_get_print_level"), "DEBUG")
    }).pipe(Effect.scoped)
  )
})
