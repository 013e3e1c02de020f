/**
 * The RPC client against a real spdk_tgt. Skipped, with the reason, where there is none in PATH.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import { type ChildProcess, spawn } from "node:child_process"
import * as Fs from "node:fs"
import * as Net from "node:net"
import * as Path from "node:path"
import { applyConfig } from "../src/internal/rpc/config.ts"
import * as Rpc from "../src/Rpc.ts"
import { spdkTool, withTool } from "../../../test/src/support/spdkTools.ts"
import { temporaryDirectory } from "./support/fakeRpcServer.ts"

const tool = spdkTool("spdk_tgt")

/** Waits for what is true soon, in real time. */
const patiently = Schedule.spaced("20 millis").pipe(Schedule.upTo({ duration: "30 seconds" }))

/** An spdk_tgt of its own at this address, ended with the scope. It waits for its framework to be started. */
const target = (listen: string): Effect.Effect<ChildProcess, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() =>
      spawn(
        tool.path,
        ["--no-huge", "-s", "512", "-m", "0x1", "--no-pci", "--disable-cpumask-locks", "--wait-for-rpc", "-r", listen],
        { stdio: "ignore" }
      )
    ),
    (child) =>
      Effect.callback<void>((resume) => {
        if (child.exitCode !== null || child.signalCode !== null) return resume(Effect.void)
        child.once("exit", () => resume(Effect.void))
        child.kill("SIGKILL")
      })
  )

/** Smaller pools than spdk_tgt's own, so that 512 MiB do. */
const smallPools = {
  subsystems: [
    {
      subsystem: "iobuf",
      config: [
        {
          method: "iobuf_set_options",
          params: { small_pool_count: 512, large_pool_count: 64, small_bufsize: 8192, large_bufsize: 135_168 }
        }
      ]
    },
    {
      subsystem: "iscsi",
      config: [
        {
          method: "iscsi_set_options",
          params: { max_sessions: 1, pdu_pool_size: 64, immediate_data_pool_size: 64, data_out_pool_size: 64 }
        }
      ]
    }
  ]
}

/** SPDK listens on no TCP port any more; people put a forwarder in front of its socket. */
const forwarder = (path: string): Effect.Effect<number, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.callback<{ readonly port: number; readonly close: () => void }>((resume) => {
        const sockets = new Set<Net.Socket>()
        const server = Net.createServer((outside) => {
          const inside = Net.createConnection(path)
          for (const socket of [inside, outside]) sockets.add(socket.on("error", () => socket.destroy()))
          inside.pipe(outside).pipe(inside)
        })
        const close = () => {
          server.close()
          for (const socket of sockets) socket.destroy()
        }
        server.listen(0, "127.0.0.1", () => {
          const address = server.address()
          if (address !== null && typeof address === "object") resume(Effect.succeed({ port: address.port, close }))
        })
      }),
      ({ close }) => Effect.sync(close)
    ),
    ({ port }) => port
  )

const malloc = { num_blocks: 64, block_size: 512 }

const suite = () => {
  it.live(
    "starts it by configuration, and speaks with it",
    () =>
      Effect.gen(function* () {
        const path = Path.join(yield* temporaryDirectory, "spdk.sock")
        const child = yield* target(path)
        const client = yield* Rpc.make({ address: { path }, reconnect: patiently })
        const early = yield* Effect.flip(Rpc.callWith(client, "bdev_get_bdevs"))
        assert.strictEqual(early.reason._tag, "RpcFailed", "not before the framework starts")
        yield* applyConfig(client, smallPools)

        const version = yield* Rpc.callWith(client, "spdk_get_version")
        assert.match(version.version, /^SPDK v\d+\.\d+/)
        assert.isAtLeast(version.fields.major, 24)

        const methods = yield* Rpc.callWith(client, "rpc_get_methods")
        assert.include(methods, "bdev_malloc_create")
        assert.include(methods, "spdk_get_version")

        const hundred = yield* Effect.forEach(
          Array.from({ length: 100 }, (_, n) => n),
          (n) => Rpc.callWith(client, "bdev_null_create", { name: `null${n}`, ...malloc }),
          { concurrency: "unbounded" }
        )
        assert.deepStrictEqual(
          hundred,
          Array.from({ length: 100 }, (_, n) => `null${n}`)
        )
        yield* Effect.forEach(hundred, (name) => Rpc.callWith(client, "bdev_null_delete", { name }), {
          concurrency: "unbounded"
        })
        assert.lengthOf(yield* Rpc.callWith(client, "bdev_get_bdevs"), 0)

        yield* overTcp(path)
        yield* errors(client)
        yield* interruption(client)
        yield* deadline(client, child)
        yield* results(client)
        yield* fileResults(client)
        yield* configurations(client)
      }).pipe(Effect.scoped),
    60_000
  )

  it.live(
    "sees it die: what is in flight fails, and so does the next call when nobody starts it again",
    () =>
      Effect.gen(function* () {
        const path = Path.join(yield* temporaryDirectory, "spdk.sock")
        const child = yield* target(path)
        const client = yield* Rpc.make({ address: { path }, reconnect: patiently })
        yield* client.call("spdk_get_version")
        child.kill("SIGSTOP")
        const inFlight = yield* Effect.forkChild(client.call("spdk_get_version"), { startImmediately: true })
        child.kill("SIGKILL")
        assert.strictEqual((yield* Effect.flip(Fiber.join(inFlight))).reason._tag, "RpcUnreachable")
        yield* Effect.callback<void>((resume) => {
          if (child.signalCode !== null) resume(Effect.void)
          else child.once("exit", () => resume(Effect.void))
        })
        const impatient = yield* Rpc.make({ address: { path }, reconnect: Schedule.recurs(1) })
        const { reason } = yield* Effect.flip(impatient.call("spdk_get_version"))
        assert.strictEqual(reason._tag, "RpcUnreachable")
        assert.strictEqual(reason.errno, "ECONNREFUSED")
      }).pipe(Effect.scoped),
    60_000
  )
}

const overTcp = Effect.fnUntraced(function* (path: string) {
  const client = yield* Rpc.make({ address: { host: "127.0.0.1", port: yield* forwarder(path) } })
  const answers = yield* Effect.forEach(Array.from({ length: 50 }), () => Rpc.callWith(client, "spdk_get_version"), {
    concurrency: "unbounded"
  })
  assert.lengthOf(answers, 50)
})

const errors = Effect.fnUntraced(function* (client: Rpc.RpcClient["Service"]) {
  const unknown = yield* Effect.flip(client.call("no_such_method"))
  assert.strictEqual(unknown.reason._tag, "MethodNotFound")

  const undecodable = yield* Effect.flip(
    client.call("bdev_malloc_create", { name: "x", num_blocks: "many", block_size: 512 })
  )
  assert.strictEqual(undecodable.reason._tag, "InvalidArgument")
  assert.strictEqual(undecodable.reason._tag === "InvalidArgument" ? undecodable.reason.field : "", "params")

  const refused = yield* Effect.flip(Rpc.callWith(client, "bdev_malloc_create", { ...malloc, block_size: 17 }))
  assert.strictEqual(refused.reason._tag, "InvalidArgument")
  assert.strictEqual(refused.reason.errno, "EINVAL")

  const nobody = yield* Effect.flip(Rpc.callWith(client, "bdev_malloc_delete", { name: "nobody" }))
  assert.strictEqual(nobody.reason._tag, "NotFound")
  assert.strictEqual(nobody.reason.resource, "nobody")

  yield* Rpc.callWith(client, "bdev_malloc_create", { ...malloc, name: "twice" })
  const twice = yield* Effect.flip(Rpc.callWith(client, "bdev_malloc_create", { ...malloc, name: "twice" }))
  assert.strictEqual(twice.reason._tag, "AlreadyExists")
  yield* Rpc.callWith(client, "bdev_malloc_delete", { name: "twice" })

  const late = yield* Effect.flip(client.call("iobuf_set_options"))
  assert.strictEqual(late.reason._tag, "RpcFailed", "not after the framework has started")
})

const interruption = Effect.fnUntraced(function* (client: Rpc.RpcClient["Service"]) {
  const calls = yield* Effect.forEach(Array.from({ length: 40 }), () =>
    Effect.forkChild(client.call("spdk_get_version"), { startImmediately: true })
  )
  yield* Effect.forEach(
    calls.filter((_, n) => n % 2 === 0),
    Fiber.interrupt,
    { concurrency: "unbounded" }
  )
  const exits = yield* Effect.forEach(calls, Fiber.await)
  assert.lengthOf(exits.filter(Exit.isSuccess), 20)
  assert.lengthOf(exits.filter(Exit.hasInterrupts), 20)
})

/** A stopped process answers nothing before the deadline, however short, and its late answer goes to nobody. */
const deadline = Effect.fnUntraced(function* (client: Rpc.RpcClient["Service"], child: ChildProcess) {
  child.kill("SIGSTOP")
  const timedOut = yield* Effect.flip(client.call("rpc_get_methods", {}, { timeout: "50 millis" }))
  assert.strictEqual(timedOut.reason._tag, "TimedOut")
  child.kill("SIGCONT")
  assert.isAtLeast((yield* Rpc.callWith(client, "spdk_get_version")).fields.major, 24)
})

/** Whatever has a Schema in RpcResults is called, so that the shapes are those of a real SPDK. */
const results = Effect.fnUntraced(function* (client: Rpc.RpcClient["Service"]) {
  assert.strictEqual(yield* Rpc.callWith(client, "bdev_malloc_create", { ...malloc, name: "m", num_blocks: 4096 }), "m")
  assert.strictEqual(
    yield* Rpc.callWith(client, "bdev_null_create", {
      ...malloc,
      name: "n",
      md_size: 8,
      dif_type: 1,
      dif_pi_format: 0
    }),
    "n"
  )
  assert.strictEqual(yield* Rpc.callWith(client, "bdev_passthru_create", { name: "p", base_bdev_name: "m" }), "p")
  const latency = { avg_read_latency: 1, p99_read_latency: 1, avg_write_latency: 1, p99_write_latency: 1 }
  assert.strictEqual(
    yield* Rpc.callWith(client, "bdev_delay_create", { name: "d", base_bdev_name: "p", ...latency }),
    "d"
  )
  assert.isTrue(yield* Rpc.callWith(client, "bdev_error_create", { base_name: "d" }))
  assert.deepStrictEqual(yield* Rpc.callWith(client, "bdev_split_create", { base_bdev: "EE_d", split_count: 2 }), [
    "EE_dp0",
    "EE_dp1"
  ])

  const bdevs = yield* Rpc.callWith(client, "bdev_get_bdevs")
  assert.deepStrictEqual(
    bdevs.map(({ name, product_name }) => [name, product_name]),
    [
      ["m", "Malloc disk"],
      ["n", "Null disk"],
      ["p", "passthru"],
      ["d", "delay"],
      ["EE_d", "Error Injection Disk"],
      ["EE_dp0", "Split Disk"],
      ["EE_dp1", "Split Disk"]
    ]
  )
  const [m, n] = bdevs
  assert.strictEqual(m?.num_blocks, 4096)
  assert.isTrue(m?.claimed)
  assert.isTrue(m?.supported_io_types["read"])
  assert.deepStrictEqual(n?.enabled_dif_check_types, { reftag: true, apptag: false, guard: true })

  const summed = yield* Rpc.callWith(client, "bdev_get_iostat", { names: ["m"] })
  const [total] = summed.bdevs
  assert.isAbove(total?.bytes_read ?? 0, 0)
  // An NVMe-oF namespace holds a channel of its bdev.
  const nqn = "nqn.2026-10.io.spdk:rpc-test"
  yield* Rpc.callWith(client, "nvmf_create_subsystem", { nqn, allow_any_host: true })
  yield* Rpc.callWith(client, "nvmf_subsystem_add_ns", { nqn, namespace: { bdev_name: "EE_dp0", nsid: 1 } })
  const perChannel = yield* Rpc.callWith(client, "bdev_get_iostat", { names: ["EE_dp0"], per_channel: true })
  assert.strictEqual(perChannel.name, "EE_dp0")
  assert.strictEqual(perChannel.channels?.[0]?.bytes_written, 0)
  assert.lengthOf(perChannel.bdevs, 0)
  yield* Rpc.callWith(client, "nvmf_delete_subsystem", { nqn })

  const threads = yield* Rpc.callWith(client, "thread_get_stats")
  assert.include(
    threads.threads.map(({ name }) => name),
    "app_thread"
  )
  const reactors = yield* Rpc.callWith(client, "framework_get_reactors")
  assert.deepStrictEqual(
    reactors.reactors.map(({ lcore }) => lcore),
    [0]
  )

  assert.isTrue(yield* Rpc.callWith(client, "bdev_split_delete", { base_bdev: "EE_d" }))
  assert.isTrue(yield* Rpc.callWith(client, "bdev_error_delete", { name: "EE_d" }))
  assert.isTrue(
    yield* Rpc.callWith(client, "bdev_delay_update_latency", {
      delay_bdev_name: "d",
      latency_type: "avg_read",
      latency_us: 5
    })
  )
  assert.isTrue(yield* Rpc.callWith(client, "bdev_delay_delete", { name: "d" }))
  assert.isTrue(yield* Rpc.callWith(client, "bdev_passthru_delete", { name: "p" }))
  assert.isTrue(yield* Rpc.callWith(client, "bdev_null_resize", { name: "n", new_size: 1 }))
  assert.isTrue(yield* Rpc.callWith(client, "bdev_null_delete", { name: "n" }))
  assert.isTrue(yield* Rpc.callWith(client, "bdev_malloc_delete", { name: "m" }))
})

const fileResults = Effect.fnUntraced(function* (client: Rpc.RpcClient["Service"]) {
  const filename = Path.join(yield* temporaryDirectory, "disk.img")
  Fs.writeFileSync(filename, new Uint8Array(1 << 20))
  assert.strictEqual(yield* Rpc.callWith(client, "bdev_aio_create", { name: "a", filename, block_size: 512 }), "a")
  assert.isTrue(yield* Rpc.callWith(client, "bdev_aio_rescan", { name: "a" }))
  assert.strictEqual(yield* Rpc.callWith(client, "bdev_null_create", { ...malloc, name: "b" }), "b")
  const raid = { name: "r", raid_level: "raid0", strip_size_kb: 4, base_bdevs: ["a", "b"] } as const
  assert.isTrue(yield* Rpc.callWith(client, "bdev_raid_create", raid))
  const [record] = yield* Rpc.callWith(client, "bdev_get_bdevs", { name: "r" })
  assert.strictEqual(record?.product_name, "Raid Volume")
  assert.isTrue(yield* Rpc.callWith(client, "bdev_raid_delete", { name: "r" }))
  assert.isTrue(yield* Rpc.callWith(client, "bdev_null_delete", { name: "b" }))
  assert.isTrue(yield* Rpc.callWith(client, "bdev_aio_delete", { name: "a" }))
  if (!(yield* Rpc.callWith(client, "rpc_get_methods")).includes("bdev_uring_create")) return
  assert.strictEqual(yield* Rpc.callWith(client, "bdev_uring_create", { name: "u", filename, block_size: 512 }), "u")
  const [uring] = yield* Rpc.callWith(client, "bdev_get_bdevs", { name: "u" })
  assert.strictEqual(uring?.product_name, "URING bdev")
  assert.isTrue(yield* Rpc.callWith(client, "bdev_uring_delete", { name: "u" }))
}, Effect.scoped)

const config = (...calls: ReadonlyArray<unknown>) => ({ subsystems: [{ subsystem: "bdev", config: calls }] })

const configurations = Effect.fnUntraced(function* (client: Rpc.RpcClient["Service"]) {
  const create = (name: string) => ({ method: "bdev_malloc_create", params: { ...malloc, name } })
  const stacked = [
    create("base"),
    { method: "bdev_passthru_create", params: { name: "top", base_bdev_name: "base" } },
    { method: "bdev_split_create", params: { base_bdev: "top", split_count: 2 } },
    { method: "bdev_error_create", params: { base_name: "topp0" } }
  ]
  yield* Rpc.callWith(client, "bdev_malloc_create", { ...malloc, name: "before" })

  const { reason } = yield* Effect.flip(applyConfig(client, config(...stacked, create("before"))))
  assert.strictEqual(reason._tag, "ConfigRejected")
  if (reason._tag !== "ConfigRejected") return
  assert.deepStrictEqual([reason.method, reason.index, reason.code], ["bdev_malloc_create", 4, -17])
  const names = Effect.map(Rpc.callWith(client, "bdev_get_bdevs"), (bdevs) => bdevs.map(({ name }) => name))
  assert.deepStrictEqual(yield* names, ["before"], "what the configuration had made is gone")

  yield* applyConfig(client, config(...stacked))
  assert.deepStrictEqual(yield* names, ["before", "base", "top", "topp0", "topp1", "EE_topp0"])

  const saved = yield* client.call("framework_get_config", { name: "bdev" })
  const again = yield* Effect.flip(applyConfig(client, { subsystems: [{ subsystem: "bdev", config: saved }] }))
  assert.strictEqual(again.reason._tag, "ConfigRejected")
  assert.lengthOf(yield* names, 6, "a refused configuration takes nothing that was there before")
})

// The reporter of the contract suites counts suites by this form of name.
withTool(tool, "libspdk RPC with a real spdk_tgt", () => describe("RPC with a real spdk_tgt", suite))
