import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { TestClock } from "effect/testing"
import { makeEngine, malloc, open, read, slab, turn, write } from "./support/embeddedEngine.ts"

describe("RPC inside the program", () => {
  it.effect("fails as over a socket: by code, with the names", () =>
    Effect.gen(function* () {
      const { rpc } = yield* makeEngine()
      const tagOf = (method: string, params?: { readonly [name: string]: unknown }) =>
        Effect.map(Effect.flip(rpc.call(method, params)), (error) => error.reason._tag)
      assert.strictEqual(yield* tagOf("bdev_raid_get_bdevs", { category: "all" }), "MethodNotFound")
      assert.strictEqual(yield* tagOf("bdev_malloc_create"), "InvalidArgument")
      assert.strictEqual(yield* tagOf("bdev_malloc_create", { num_blocks: "1", block_size: 512 }), "InvalidArgument")
      assert.strictEqual(
        yield* tagOf("bdev_malloc_create", { num_blocks: 1, block_size: 512, nope: 1 }),
        "InvalidArgument"
      )
      assert.strictEqual(yield* tagOf("bdev_malloc_delete", { name: "nope" }), "NotFound")
      assert.strictEqual(yield* tagOf("bdev_split_create", { base_bdev: "x", split_count: 0 }), "InvalidArgument")
      yield* rpc.call("bdev_malloc_create", malloc("m"))
      const error = yield* Effect.flip(rpc.call("bdev_malloc_create", malloc("m")))
      assert.include(error.reason, { _tag: "AlreadyExists", resource: "m", errno: "EEXIST", rpcCode: -17 })
      assert.strictEqual(yield* tagOf("bdev_set_options", {}), "RpcFailed")
    }).pipe(Effect.scoped)
  )

  it.effect("refuses metadata by name instead of leaving it out", () =>
    Effect.gen(function* () {
      const { rpc } = yield* makeEngine()
      for (const params of [
        { ...malloc("m"), md_size: 8 },
        { ...malloc("m"), dif_type: 1 }
      ]) {
        const { reason } = yield* Effect.flip(rpc.call("bdev_malloc_create", params))
        assert.strictEqual(reason._tag, "InvalidArgument")
        assert.match(reason.message, /md_size|dif_type/)
      }
      assert.deepStrictEqual(yield* rpc.call("bdev_get_bdevs"), [])
    }).pipe(Effect.scoped)
  )

  it.effect("refuses options of NVMe bdevs and targets that would change nothing, by name", () =>
    Effect.gen(function* () {
      const { rpc } = yield* makeEngine(undefined, { waitsForStart: true })
      const refused = (method: string, params: { readonly [name: string]: unknown }) =>
        Effect.gen(function* () {
          const { message, reason } = yield* Effect.flip(rpc.call(method, params))
          assert.strictEqual(reason._tag, "InvalidArgument")
          return message
        })
      const options = {
        timeout_us: 5,
        action_on_timeout: "reset",
        io_path_stat: true,
        bdev_retry_count: -1,
        dhchap_digests: ["sha256"],
        multipath_opts: { policy: "active_active" },
        transport_retry_count: 256
      }
      for (const [name, value] of Object.entries(options)) {
        assert.include(yield* refused("bdev_nvme_set_options", { [name]: value }), name)
      }
      yield* refused("bdev_nvme_set_options", { ctrlr_loss_timeout_sec: -2 })
      // What is saved of the defaults is taken, before the start and after it.
      yield* rpc.call("bdev_nvme_set_options", {
        keep_alive_timeout_ms: 5000,
        io_queue_requests: 512,
        dhchap_digests: ["sha256", "sha384", "sha512"],
        multipath_opts: { policy: "active_passive" }
      })
      assert.include(yield* refused("nvmf_set_config", { discovery_filter: "address" }), "discovery_filter")
      assert.include(yield* refused("nvmf_set_config", { admin_cmd_passthru: { sanitize: true } }), "sanitize")
      yield* rpc.call("nvmf_set_config", { discovery_filter: "match_any", admin_cmd_passthru: { sanitize: false } })
      yield* rpc.call("nvmf_set_crdt", { crdt1: 10, crdt2: 20, crdt3: 30 })
      yield* rpc.call("framework_start_init")
      const saved = JSON.stringify(yield* rpc.call("framework_get_config", { name: "nvmf" }))
      assert.include(saved, '{"crdt1":10,"crdt2":20,"crdt3":30}')
      assert.include(
        JSON.stringify(yield* rpc.call("framework_get_config", { name: "bdev" })),
        '"keep_alive_timeout_ms":5000'
      )
      yield* rpc.call("bdev_nvme_set_options", { keep_alive_timeout_ms: 10_000 })
      assert.strictEqual((yield* Effect.flip(rpc.call("nvmf_set_crdt", { crdt1: 1 }))).reason._tag, "RpcFailed")
    }).pipe(Effect.scoped)
  )

  it.effect("hands out copies", () =>
    Effect.gen(function* () {
      const { rpc } = yield* makeEngine()
      yield* rpc.call("bdev_malloc_create", malloc("m"))
      const first: unknown = yield* rpc.call("bdev_get_bdevs")
      // The shape is SPDK's.
      const listed = first as Array<{ name: string }>
      listed.length = 0
      assert.lengthOf(yield* Effect.map(rpc.call("bdev_get_bdevs"), (all) => [all].flat()), 1)
    }).pipe(Effect.scoped)
  )

  it.effect("names what can be called, and what can be called now", () =>
    Effect.gen(function* () {
      const { rpc } = yield* makeEngine()
      const all = yield* rpc.call("rpc_get_methods")
      const current = yield* rpc.call("rpc_get_methods", { current: true, include_aliases: true })
      assert.includeMembers([all].flat(), [
        "bdev_get_bdevs",
        "rpc_get_methods",
        "framework_start_init",
        "bdev_set_options"
      ])
      assert.deepStrictEqual(
        [all]
          .flat()
          .filter((name) => ![current].flat().includes(name))
          .toSorted(),
        [
          "accel_set_options",
          "bdev_set_options",
          "framework_start_init",
          "iobuf_set_options",
          "iscsi_set_options",
          "nvmf_set_config",
          "nvmf_set_crdt",
          "nvmf_set_max_subsystems",
          "sock_impl_set_options",
          "sock_set_default_impl"
        ]
      )
    }).pipe(Effect.scoped)
  )

  it.effect("waits for a bdev that is named with a timeout", () =>
    Effect.gen(function* () {
      const { rpc } = yield* makeEngine()
      const found = yield* Effect.forkChild(rpc.call("bdev_get_bdevs", { name: "late", timeout: 1000 }), {
        startImmediately: true
      })
      const missed = yield* Effect.forkChild(rpc.call("bdev_get_bdevs", { name: "never", timeout: 1000 }), {
        startImmediately: true
      })
      yield* TestClock.adjust("999 millis")
      assert.isUndefined(found.pollUnsafe())
      yield* rpc.call("bdev_malloc_create", malloc("late"))
      assert.deepNestedInclude({ answer: yield* Fiber.join(found) }, { "answer[0].name": "late" })
      assert.isUndefined(missed.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      assert.strictEqual((yield* Effect.flip(Fiber.join(missed))).reason._tag, "TimedOut")
    }).pipe(Effect.scoped)
  )

  it.effect("ends by the caller's own limit, and by interruption", () =>
    Effect.gen(function* () {
      const { rpc } = yield* makeEngine()
      const forever = { name: "never", timeout: 1e9 }
      const limited = yield* Effect.forkChild(rpc.call("bdev_get_bdevs", forever, { timeout: "2 seconds" }), {
        startImmediately: true
      })
      yield* TestClock.adjust("2 seconds")
      const { reason } = yield* Effect.flip(Fiber.join(limited))
      assert.include(reason, { _tag: "TimedOut", limitMillis: 2000, resource: "never" })
      const interrupted = yield* Effect.forkChild(rpc.call("bdev_get_bdevs", forever), { startImmediately: true })
      yield* Fiber.interrupt(interrupted)
      assert.isTrue(Exit.hasInterrupts(yield* Fiber.await(interrupted)))
    }).pipe(Effect.scoped)
  )

  it.effect("deletes a bdev when whoever has it open has let go, and answers then", () =>
    Effect.gen(function* () {
      const engine = yield* makeEngine()
      yield* engine.rpc.call("bdev_malloc_create", malloc("m"))
      const disk = yield* open(engine, "m")
      const deleted = yield* Effect.forkChild(engine.rpc.call("bdev_malloc_delete", { name: "m" }), {
        startImmediately: true
      })
      const again = yield* Effect.flip(engine.rpc.call("bdev_malloc_delete", { name: "m" }))
      assert.strictEqual(again.reason._tag, "NotFound")
      assert.strictEqual(yield* Fiber.join(deleted), true)
      assert.deepStrictEqual(disk.events, [{ _tag: "Removed" }])
    }).pipe(Effect.scoped)
  )
})

describe("statistics", () => {
  const statOf = (answer: unknown): Record<string, number> => {
    // The shape is SPDK's; the golden lists compare it.
    const { bdevs } = answer as { bdevs: [Record<string, number>] }
    return bdevs[0]
  }

  it.effect("count I/O by kind and bytes, survive the channel, and can be reset", () =>
    Effect.gen(function* () {
      const engine = yield* makeEngine()
      yield* engine.rpc.call("bdev_malloc_create", malloc("m"))
      yield* Effect.scoped(
        Effect.gen(function* () {
          const disk = yield* open(engine, "m")
          const memory = yield* slab(engine, 1024)
          for (let i = 0; i < 3; i++) yield* write(disk, memory, 0)
          yield* read(disk, memory, 0)
          const perChannel = yield* engine.rpc.call("bdev_get_iostat", { names: ["m"], per_channel: true })
          assert.deepNestedInclude(perChannel, {
            name: "m",
            "channels[0].thread_id": 1,
            "channels[0].num_write_ops": 3
          })
        })
      )
      const stat = statOf(yield* engine.rpc.call("bdev_get_iostat", { names: ["m"] }))
      assert.include(stat, {
        bytes_read: 1024,
        num_read_ops: 1,
        bytes_written: 3072,
        num_write_ops: 3,
        num_unmap_ops: 0
      })
      // The first of each channel is always timed.
      assert.isAbove(stat["write_latency_ticks"] ?? 0, 0)
      assert.isAtMost(stat["min_write_latency_ticks"] ?? 0, stat["max_write_latency_ticks"] ?? 0)
      yield* engine.rpc.call("bdev_reset_iostat", { name: "m", mode: "maxmin" })
      assert.include(statOf(yield* engine.rpc.call("bdev_get_iostat")), {
        num_write_ops: 3,
        max_write_latency_ticks: 0
      })
      yield* engine.rpc.call("bdev_get_iostat", { reset_mode: "all" })
      assert.include(statOf(yield* engine.rpc.call("bdev_get_iostat")), { num_write_ops: 0, write_latency_ticks: 0 })
    }).pipe(Effect.scoped)
  )

  it.effect("count errors by SPDK's names", () =>
    Effect.gen(function* () {
      const engine = yield* makeEngine()
      const { rpc } = engine
      yield* rpc.call("bdev_malloc_create", malloc("m"))
      yield* rpc.call("bdev_error_create", { base_name: "m" })
      const disk = yield* open(engine, "EE_m")
      const memory = yield* slab(engine, 512)
      yield* rpc.call("bdev_error_inject_error", { name: "EE_m", io_type: "read", error_type: "failure", num: 2 })
      yield* read(disk, memory, 0)
      yield* read(disk, memory, 0)
      yield* rpc.call("bdev_error_inject_error", {
        name: "EE_m",
        io_type: "read",
        error_type: "nvme_failure",
        nvme_sct: 2,
        nvme_sc: 0x81
      })
      assert.deepStrictEqual(yield* read(disk, memory, 0), { status: -5, detail: 0, nvme: 0x10281 })
      const stat = yield* rpc.call("bdev_get_iostat", { names: ["EE_m"] })
      assert.deepNestedInclude(stat, { "bdevs[0].io_error": { failed: 2, nvme_error: 1 }, "bdevs[0].num_read_ops": 0 })
    }).pipe(Effect.scoped)
  )
})

describe("what happened", () => {
  it.effect("is told in order, from an id on, so many at a time", () =>
    Effect.gen(function* () {
      const { rpc } = yield* makeEngine()
      yield* rpc.call("bdev_null_create", { name: "n", num_blocks: 2048, block_size: 512 })
      yield* rpc.call("bdev_null_resize", { name: "n", new_size: 2 })
      yield* rpc.call("bdev_null_delete", { name: "n" })
      const all = [
        { type: "bdev_register", ctx: "n", id: 0 },
        { type: "bdev_resize", ctx: "n", id: 1 },
        { type: "bdev_unregister", ctx: "n", id: 2 }
      ]
      assert.deepStrictEqual(yield* rpc.call("notify_get_notifications"), all)
      assert.deepStrictEqual(yield* rpc.call("notify_get_notifications", { id: 1, max: 1 }), all.slice(1, 2))
      assert.deepStrictEqual(yield* rpc.call("notify_get_notifications", { id: 99 }), [])
    }).pipe(Effect.scoped)
  )

  it.effect("is kept for the last 1024 events", () =>
    Effect.gen(function* () {
      const { rpc } = yield* makeEngine()
      for (let i = 0; i < 600; i++) {
        yield* rpc.call("bdev_null_create", { name: "n", num_blocks: 8, block_size: 512 })
        yield* rpc.call("bdev_null_delete", { name: "n" })
        // Removals take turns; a loop that takes none would keep the others out.
        if (i % 100 === 0) yield* turn
      }
      const events = [yield* rpc.call("notify_get_notifications")].flat()
      assert.lengthOf(events, 1024)
      assert.deepInclude(events[0], { id: 176 })
    }).pipe(Effect.scoped)
  )
})
