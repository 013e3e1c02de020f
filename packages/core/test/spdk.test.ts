import * as Rpc from "@effect-spdk/core/Rpc"
import * as Spdk from "@effect-spdk/core/Spdk"
import * as SpdkOptions from "@effect-spdk/core/SpdkOptions"
import { assert, describe, it } from "@effect/vitest"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Metric from "effect/Metric"
import * as References from "effect/References"
import * as TestClock from "effect/testing/TestClock"
import * as fs from "node:fs"
import * as path from "node:path"
import { applyOnce } from "../src/internal/engine/configOnce.ts"
import type { ConfigTurn } from "../src/internal/libspdk/start.ts"
import { makeLogSink } from "../src/internal/engine/log.ts"
import { scratchFolder } from "./support/scratch.ts"

interface LogEntry {
  readonly level: string
  readonly message: string
  readonly annotations: Record<string, unknown>
}

/** A logger that keeps what it is given, the least urgent lines too. */
const makeCapture = () => {
  const entries: Array<LogEntry> = []
  const logger = Logger.make<unknown, void>(({ fiber, logLevel, message }) => {
    entries.push({
      level: logLevel,
      message: Array.isArray(message) ? message.join(" ") : `${message}`,
      annotations: { ...fiber.getRef(References.CurrentLogAnnotations) }
    })
  })
  const layer = Layer.merge(Logger.layer([logger]), Layer.succeed(References.MinimumLogLevel)("All"))
  return { entries, layer }
}

const socketIn = (folder: string) => path.join(folder, "spdk.sock")

const refusalOf = (options: unknown) =>
  // Callers in JavaScript may pass anything.
  Layer.build(Spdk.layerEmbedded(options as SpdkOptions.Options)).pipe(Effect.scoped, Effect.flip)

const withEnv = (env: Record<string, string>) => ConfigProvider.layer(ConfigProvider.fromEnv({ env }))

const mallocConfig = (name: string) => ({
  subsystems: [
    {
      subsystem: "bdev",
      config: [{ method: "bdev_malloc_create", params: { name, num_blocks: 64, block_size: 512 } }]
    }
  ]
})

const onceConfig = mallocConfig("Once")

const unknownMethod = { subsystem: "bdev", config: [{ method: "bdev_unheard_of" }] }

describe("options", () => {
  const cases: ReadonlyArray<readonly [field: string, value: unknown, rule: RegExp]> = [
    ["name", "", /1 to 32 letters/],
    ["name", "a/b", /1 to 32 letters/],
    ["name", "a".repeat(33), /1 to 32 letters/],
    ["cores", "", /hexadecimal core mask/],
    ["cores", "0xzz", /hexadecimal core mask/],
    ["cores", "[1-", /brackets/],
    ["cores", "[5-2]", /backwards/],
    ["cores", "[1024]", /above 1023/],
    ["cores", "0x0", /names no core/],
    ["cores", 3, /neither a CpuSet nor/],
    ["memoryMiB", 0, /integer from 64/],
    ["memoryMiB", 100.5, /integer from 64/],
    ["memoryMiB", "256", /integer from 64/],
    ["hugepages", "yes", /boolean/],
    ["pci", true, /neither false nor one list/],
    ["pci", { allow: ["nonsense"] }, /neither false nor one list/],
    ["pci", { allow: [], block: [] }, /neither false nor one list/],
    ["config", 7, /not an SPDK configuration/],
    ["config", { subsystems: [{ subsystem: "bdev", config: [{ params: {} }] }] }, /not an SPDK configuration/],
    ["config", "/nonexistent/spdk.json", /cannot be read.*ENOENT/],
    ["rpcSocket", "", /empty/],
    ["rpcSocket", 7, /not a path/],
    ["rpcSocket", "/tmp/a\0b", /NUL/],
    ["rpcSocket", `/tmp/${"a".repeat(103)}`, /longer than the 107 bytes/],
    ["logLevel", "loud", /error, warning, notice/],
    ["polling", "lazy", /adaptive, busy/],
    ["cpus", "0x1", /not an option/]
  ]
  it.effect.each(cases)("refuses %s %j by field and rule", ([field, value, rule]) =>
    Effect.gen(function* () {
      const { reason } = yield* refusalOf({ [field]: value })
      if (reason._tag !== "InvalidArgument") return assert.fail(reason.message)
      assert.strictEqual(reason.field, field)
      assert.match(reason.rule, rule)
      assert.include(reason.message, field)
    })
  )

  it.effect("refuses a configuration file that is not JSON", () =>
    Effect.gen(function* () {
      const file = path.join(yield* scratchFolder, "spdk.json")
      fs.writeFileSync(file, "{ subsystems: ")
      const { reason } = yield* refusalOf({ config: file })
      if (reason._tag !== "InvalidArgument") return assert.fail(reason.message)
      assert.strictEqual(reason.field, "config")
      assert.match(reason.rule, /not a file of JSON/)
      assert.strictEqual(reason.value, file)
    }).pipe(Effect.scoped)
  )

  it.effect("takes what describes hardware, and says that it has no effect on embedded", () =>
    Effect.gen(function* () {
      const spdk = yield* Spdk.Spdk
      assert.strictEqual(spdk.kind, "embedded")
      assert.match(spdk.description, /options without effect: hugepages, pci, polling/)
    }).pipe(Effect.provide(Spdk.layerEmbedded({ hugepages: true, pci: { allow: ["0000:5e:00.0"] }, polling: "busy" })))
  )

  it.effect("does not speak of options that have their default", () =>
    Effect.gen(function* () {
      const spdk = yield* Spdk.Spdk
      assert.notInclude(spdk.description, "no use")
    }).pipe(Effect.provide(Spdk.layerEmbedded({ hugepages: false, pci: false, polling: "adaptive" })))
  )

  it.effect("gives the reactors the cores that were asked for, which need not exist on embedded", () =>
    Effect.gen(function* () {
      const spdk = yield* Spdk.Spdk
      const reactors = yield* spdk.reactors
      assert.deepStrictEqual(
        reactors.map((reactor) => reactor.core),
        [1, 300]
      )
    }).pipe(Effect.provide(Spdk.layerEmbedded({ cores: "[1,300]" })))
  )
})

describe("config", () => {
  it.effect("makes its calls before the layer is ready", () =>
    Effect.gen(function* () {
      const rpc = yield* Rpc.RpcClient
      const bdevs = yield* rpc.call("bdev_get_bdevs")
      assert.include(JSON.stringify(bdevs), `"name":"FromConfig"`)
    }).pipe(Effect.provide(Spdk.layerEmbedded({ config: mallocConfig("FromConfig") })))
  )

  it.effect("is read from a file", () =>
    Effect.gen(function* () {
      const file = path.join(yield* scratchFolder, "spdk.json")
      fs.writeFileSync(file, JSON.stringify(mallocConfig("FromFile")))
      const bdevs = yield* Effect.provide(
        Effect.flatMap(Rpc.RpcClient, (rpc) => rpc.call("bdev_get_bdevs")),
        Spdk.layerEmbedded({ config: file })
      )
      assert.include(JSON.stringify(bdevs), `"name":"FromFile"`)
    }).pipe(Effect.scoped)
  )

  it.effect("fails the layer with the call that was refused", () =>
    Effect.gen(function* () {
      const [subsystem] = mallocConfig("Twice").subsystems
      const { reason } = yield* refusalOf({ config: { subsystems: [subsystem, subsystem] } })
      if (reason._tag !== "ConfigRejected") return assert.fail(reason.message)
      assert.strictEqual(reason.method, "bdev_malloc_create")
      assert.strictEqual(reason.index, 1)
      assert.isBelow(reason.code, 0)
    })
  )
})

/** The addon's rule, for one thread. */
const makeTurn = () => {
  let claimed: string | undefined
  let applied: string | undefined
  const turn: ConfigTurn = {
    claim: (text) => {
      if (claimed !== undefined) return { status: -11, text: "" }
      if (applied !== undefined) return applied === text ? { status: -114, text: "" } : { status: -17, text: applied }
      claimed = text
      return { status: 0, text: "" }
    },
    settle: (isApplied) => {
      if (isApplied) applied = claimed
      claimed = undefined
    }
  }
  return turn
}

describe("the configuration of a process's one SPDK", () => {
  it.effect("is applied once, accepted again, and not replaced by another", () =>
    Effect.gen(function* () {
      const { call } = yield* Rpc.RpcClient
      const called: Array<string> = []
      const rpc: Rpc.RpcClient["Service"] = {
        address: "counted",
        call: (method, params, options) => {
          called.push(method)
          return call(method, params, options)
        }
      }
      const turn = makeTurn()
      const { reason: refusal } = yield* Effect.flip(applyOnce(rpc, { subsystems: [unknownMethod] }, turn))
      assert.strictEqual(refusal._tag, "ConfigRejected")
      const both = Effect.all([applyOnce(rpc, onceConfig, turn), applyOnce(rpc, onceConfig, turn)], {
        concurrency: "unbounded"
      })
      const forked = yield* Effect.forkChild(both)
      yield* Effect.yieldNow
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(forked)
      assert.lengthOf(
        called.filter((method) => method === "bdev_malloc_create"),
        1
      )
      const before = called.length
      yield* applyOnce(rpc, { subsystems: [{ config: onceConfig.subsystems[0]?.config, subsystem: "bdev" }] }, turn)
      const { reason } = yield* Effect.flip(applyOnce(rpc, mallocConfig("Other"), turn))
      assert.strictEqual(called.length, before)
      if (reason._tag !== "OptionsClash") return assert.fail(reason.message)
      assert.strictEqual(reason.option, "config")
    }).pipe(Effect.provide(Spdk.layerEmbedded()))
  )
})

describe("the choice of the engine", () => {
  it.effect("logs in one line what it took and why", () =>
    Effect.gen(function* () {
      const capture = makeCapture()
      yield* Layer.build(Spdk.layerAutoWith({ hugepages: true })).pipe(
        Effect.scoped,
        Effect.provide(Layer.merge(capture.layer, withEnv({ SPDK_ENGINE: "embedded" })))
      )
      const lines = capture.entries.filter((entry) => entry.message.includes("takes the"))
      assert.strictEqual(lines.length, 1)
      assert.strictEqual(lines[0]?.level, "Info")
      assert.match(
        lines[0]?.message ?? "",
        /takes the embedded engine, because SPDK_ENGINE asks for it; options without effect: hugepages/
      )
    })
  )

  it.effect("refuses another value of SPDK_ENGINE by name", () =>
    Effect.gen(function* () {
      const error = yield* Layer.build(Spdk.layerAuto).pipe(
        Effect.scoped,
        Effect.flip,
        Effect.provide(withEnv({ SPDK_ENGINE: "kernel" }))
      )
      assert.strictEqual(error._tag, "ConfigError")
      assert.match(error.message, /"auto" \| "libspdk" \| "embedded"[^]*SPDK_ENGINE/)
    })
  )

  it.effect("reads every option from Config", () =>
    Effect.gen(function* () {
      const options = yield* SpdkOptions.config.pipe(
        Effect.provide(
          withEnv({
            SPDK_ENGINE: "libspdk",
            SPDK_NAME: "storage",
            SPDK_CORES: "[0-2,5]",
            SPDK_MEMORY_MIB: "1024",
            SPDK_HUGEPAGES: "true",
            SPDK_PCI_ALLOW: "0000:5e:00.0,5f:00.0",
            SPDK_CONFIG: "/etc/spdk.json",
            SPDK_RPC_SOCKET: "/run/spdk.sock",
            SPDK_LOG_LEVEL: "debug",
            SPDK_POLLING: "busy"
          })
        )
      )
      assert.deepStrictEqual(
        { ...options, cores: `${options.cores}` },
        {
          engine: "libspdk",
          name: "storage",
          cores: "[0-2,5]",
          memoryMiB: 1024,
          hugepages: true,
          pci: { allow: ["0000:5e:00.0", "5f:00.0"] },
          config: "/etc/spdk.json",
          rpcSocket: "/run/spdk.sock",
          logLevel: "debug",
          polling: "busy"
        }
      )
    })
  )

  it.effect("starts from Config", () =>
    Effect.gen(function* () {
      const spdk = yield* Spdk.Spdk
      assert.strictEqual(spdk.kind, "embedded")
      assert.deepStrictEqual(
        (yield* spdk.reactors).map((reactor) => reactor.core),
        [0, 1]
      )
    }).pipe(
      Effect.provide(Spdk.layerConfig().pipe(Layer.provide(withEnv({ SPDK_ENGINE: "embedded", SPDK_CORES: "0x3" }))))
    )
  )

  it.effect("refuses both PCI lists at once", () =>
    Effect.gen(function* () {
      const env = { SPDK_ENGINE: "embedded", SPDK_PCI_ALLOW: "5e:00.0", SPDK_PCI_BLOCK: "5f:00.0" }
      const error = yield* Layer.build(Spdk.layerConfig()).pipe(
        Effect.scoped,
        Effect.flip,
        Effect.provide(withEnv(env))
      )
      if (error._tag !== "SpdkError" || error.reason._tag !== "InvalidArgument") return assert.fail(error.message)
      assert.strictEqual(error.reason.field, "pci")
    })
  )
})

describe("the log", () => {
  const line = { level: "notice", message: "Reactor started\n", file: "reactor.c", line: 12, function: "run" } as const

  it.effect("reaches the Logger with its level, source and function", () =>
    Effect.gen(function* () {
      const capture = makeCapture()
      yield* Effect.gen(function* () {
        const onLog = yield* makeLogSink
        onLog([line, { ...line, level: "error" }, { ...line, level: "warning" }])
        onLog([
          { ...line, level: "info" },
          { ...line, level: "debug" }
        ])
      }).pipe(Effect.scoped, Effect.provide(capture.layer))
      assert.deepStrictEqual(
        capture.entries.map((entry) => entry.level),
        ["Info", "Error", "Warn", "Debug", "Trace"]
      )
      assert.deepStrictEqual(capture.entries[0], {
        level: "Info",
        message: "Reactor started",
        annotations: { "spdk.source": "reactor.c:12", "spdk.function": "run" }
      })
    })
  )

  it.effect("counts what it cannot hold, and what the engine lost", () =>
    Effect.gen(function* () {
      const capture = makeCapture()
      yield* Effect.gen(function* () {
        const onLog = yield* makeLogSink
        onLog(
          Array.from({ length: 1100 }, () => line),
          5
        )
      }).pipe(Effect.scoped, Effect.provide(capture.layer))
      assert.strictEqual(capture.entries.length, 1025)
      assert.strictEqual(capture.entries.at(-1)?.message, "81 lines of SPDK's log were dropped")
      assert.strictEqual(capture.entries.at(-1)?.level, "Warn")
    })
  )
})

describe("a remote engine", () => {
  it.live("has the control plane, and names itself where it has no data plane", () =>
    Effect.gen(function* () {
      const socket = socketIn(yield* scratchFolder)
      yield* Layer.build(Spdk.layerEmbedded({ rpcSocket: socket }))
      yield* Effect.gen(function* () {
        const spdk = yield* Spdk.Spdk
        assert.strictEqual(spdk.kind, "remote")
        assert.strictEqual(spdk.rpcSocket, socket)
        assert.isNotEmpty(yield* spdk.reactors)
        const { reason } = yield* Effect.flip(spdk.mainThread.call(Effect.void))
        assert.strictEqual(reason._tag, "NotSupported")
        assert.include(reason.message, "remote")
        assert.include(reason.message, socket)
      }).pipe(Effect.provide(Spdk.layerRemote({ path: socket })))
    }).pipe(Effect.scoped)
  )

  it.live("fails the layer when nobody answers", () =>
    Effect.gen(function* () {
      const socket = socketIn(yield* scratchFolder)
      const { reason } = yield* Effect.flip(Layer.build(Spdk.layerRemote({ path: socket })))
      assert.strictEqual(reason._tag, "RpcUnreachable")
      assert.include(reason.message, socket)
    }).pipe(Effect.scoped)
  )
})

describe("metrics", () => {
  it.effect("follow what the engine holds", () =>
    Effect.gen(function* () {
      const spdk = yield* Spdk.Spdk
      yield* Spdk.updateMetrics
      assert.strictEqual((yield* Metric.value(Spdk.metrics.threads)).value, (yield* spdk.usage).threads)
      const idle = Metric.withAttributes(Spdk.metrics.reactorIdleMillis, { core: "7" })
      const [reactor] = yield* spdk.reactors
      assert.isAtMost((yield* Metric.value(idle)).value, reactor?.idleMillis ?? -1)
      assert.include(
        (yield* Metric.snapshot).map((metric) => metric.id),
        "spdk_reactor_busy_millis"
      )
    }).pipe(Effect.provide(Spdk.layerEmbedded({ cores: "[7]" })))
  )
})
