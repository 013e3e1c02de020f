/** The engine itself: what it says it is, sharing, release and taking it again, options, metrics of what it holds. */
import * as Bdev from "@effect-spdk/core/Bdev"
import * as DmaBuffer from "@effect-spdk/core/DmaBuffer"
import * as Poller from "@effect-spdk/core/Poller"
import * as Spdk from "@effect-spdk/core/Spdk"
import type * as SpdkOptions from "@effect-spdk/core/SpdkOptions"
import * as SpdkThread from "@effect-spdk/core/SpdkThread"
import { assert, describe, it as plain } from "@effect/vitest"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { type Capabilities, type EngineLayer, memoryMiB, scratch, scratchFile } from "../support/engines.ts"
import {
  blockSize,
  contract,
  failsWith,
  fresh,
  mallocOpened,
  pattern,
  sameBytes,
  until,
  within
} from "../support/harness.ts"

const usage = Effect.flatMap(Effect.service(Spdk.Spdk), (spdk) => spdk.usage)

export const suite = (name: string, layer: EngineLayer, capabilities: Capabilities): void => {
  inOneLayer(name, layer, capabilities)
  describe(`${name}, layers of its own`, () => acrossLayers(layer, capabilities))
}

const inOneLayer = (name: string, layer: EngineLayer, capabilities: Capabilities): void =>
  contract(name, layer, (check) => {
    check("says which engine it is", () =>
      Effect.gen(function* () {
        const spdk = yield* Spdk.Spdk
        assert.strictEqual(spdk.kind, capabilities.engine)
        assert.match(spdk.version, capabilities.engine === "libspdk" ? /^SPDK v\d+\.\d+/ : /embedded/)
        assert.include(spdk.description, capabilities.engine === "libspdk" ? "SPDK" : "embedded")
        assert.notInclude(spdk.description, "\n")
      })
    )

    check("counts what is held, each kind by itself", () =>
      Effect.gen(function* () {
        const start = yield* usage
        const counted = <A, E, R>(what: keyof Spdk.Usage, take: Effect.Effect<A, E, R>, by = 1) =>
          Effect.gen(function* () {
            const before = yield* usage
            const scope = yield* Scope.make()
            const taken = yield* Scope.provide(take, scope)
            assert.strictEqual((yield* usage)[what] - before[what], by, what)
            yield* Scope.close(scope, Exit.void)
            assert.deepStrictEqual(yield* usage, before, `${what} after release`)
            return taken
          })
        yield* counted("threads", SpdkThread.spawn({ name: fresh("counted") }))
        yield* counted("pollers", Poller.make({ period: "1 hour" }))
        yield* counted("slabs", DmaBuffer.make(4096))
        yield* counted("dmaBytes", DmaBuffer.make(8192), 8192)
        const bdev = yield* mallocOpened(64)
        yield* counted("descriptors", Bdev.open(bdev.name))
        yield* counted("channels", bdev.channel)
        assert.isAtLeast((yield* usage).descriptors, start.descriptors + 1)
      })
    )

    check("the main thread is a thread like others, and listed", () =>
      Effect.gen(function* () {
        const spdk = yield* Spdk.Spdk
        assert.strictEqual(yield* spdk.mainThread.call(Effect.succeed(1)), 1)
        assert.include(
          (yield* SpdkThread.list).map((thread) => thread.id),
          spdk.mainThread.id
        )
      })
    )

    check("its time passes, busy or idle", () =>
      Effect.gen(function* () {
        const spdk = yield* Spdk.Spdk
        const total = Effect.map(spdk.reactors, (reactors) =>
          reactors.reduce((sum, reactor) => sum + reactor.busyMillis + reactor.idleMillis, 0)
        )
        const before = yield* total
        yield* until(
          "time passes",
          Effect.map(total, (now) => now > before)
        )
      })
    )

    check("a layer inside a running one has the same contract", () =>
      Effect.gen(function* () {
        const inner = Effect.gen(function* () {
          const bdev = yield* mallocOpened(64)
          yield* bdev.writeBytes(0, pattern(blockSize, 1))
          sameBytes(yield* bdev.readBytes(0, blockSize), pattern(blockSize, 1), "in the inner layer")
        })
        yield* Effect.scoped(inner).pipe(Effect.provide(layer, { local: true }))
        yield* Effect.scoped(inner)
      })
    )
  })

/** Options that no engine takes, and the field that each error must name. */
const badOptions: ReadonlyArray<readonly [what: string, options: Readonly<Record<string, unknown>>, field: RegExp]> = [
  ["a malformed mask", { cores: "0xzz" }, /^cores/],
  ["an empty mask", { cores: "0x0" }, /^cores/],
  ["a backwards range", { cores: "[3-1]" }, /^cores/],
  ["a core above 1023", { cores: "[1024]" }, /^cores/],
  ["an empty name", { name: "" }, /^name/],
  ["a name with a slash", { name: "a/b" }, /^name/],
  ["a name too long", { name: "x".repeat(33) }, /^name/],
  ["no memory at all", { memoryMiB: 0 }, /^memoryMiB/],
  ["half a mebibyte", { memoryMiB: 64.5 }, /^memoryMiB/],
  ["negative memory", { memoryMiB: -256 }, /^memoryMiB/],
  ["memory that is a text", { memoryMiB: "256" }, /^memoryMiB/],
  ["a log level that is none", { logLevel: "loud" }, /^logLevel/],
  ["a polling that is none", { polling: "sometimes" }, /^polling/],
  ["a socket path of 108 bytes", { rpcSocket: `/${"s".repeat(107)}` }, /^rpcSocket/],
  ["an empty socket path", { rpcSocket: "" }, /^rpcSocket/],
  ["an option that is none", { memory: 256 }, /memory/],
  ["allow and block lists at once", { pci: { allow: ["0000:5e:00.0"], block: ["0000:5e:00.0"] } }, /^pci/],
  ["a PCI address that is none", { pci: { allow: ["somewhere"] } }, /^pci/],
  ["a configuration file that is not there", { config: join(scratch, "no-such-file.json") }, /^config/],
  ["a configuration without subsystems", { config: {} }, /^config/],
  ["a configuration whose subsystems are a text", { config: { subsystems: "all" } }, /^config/]
]

const acrossLayers = (layer: EngineLayer, capabilities: Capabilities): void => {
  const start = (options: SpdkOptions.Options) =>
    capabilities.engine === "libspdk" ? Spdk.layer(options) : Spdk.layerEmbedded(options)
  const useful = Effect.gen(function* () {
    const spdk = yield* Spdk.Spdk
    const bdev = yield* mallocOpened(64)
    yield* bdev.writeBytes(0, pattern(4096, 1))
    sameBytes(yield* bdev.readBytes(0, 4096), pattern(4096, 1), "the bdev")
    return spdk.version
  }).pipe(Effect.scoped)

  plain.live("is taken, released and taken again, twenty times", () =>
    Effect.gen(function* () {
      for (let round = 0; round < 20; round++) {
        yield* within(`round ${round}`, useful.pipe(Effect.provide(layer, { local: true })))
      }
    })
  )

  plain.live("many layers at once, released in any order", () =>
    within(
      "all of them",
      Effect.forEach(Array.from({ length: 12 }), () => useful.pipe(Effect.provide(layer, { local: true })), {
        concurrency: "unbounded",
        discard: true
      })
    )
  )

  plain.live("a layer whose build is interrupted is no obstacle to the next", () =>
    Effect.gen(function* () {
      for (let round = 0; round < 10; round++) {
        const fiber = yield* Effect.forkChild(useful.pipe(Effect.provide(layer, { local: true })), {
          startImmediately: true
        })
        for (let pause = 0; pause < round; pause++) yield* Effect.yieldNow
        yield* within("the interruption", Fiber.interrupt(fiber))
      }
      yield* within("the next", useful.pipe(Effect.provide(layer, { local: true })))
    })
  )

  plain.live(
    "releases what a program forgot: bdevs made by plain RPC calls are the program's, handles are the layer's",
    () =>
      Effect.gen(function* () {
        const leftBehind = fresh("leftbehind")
        const scope = yield* Scope.make()
        const program = Effect.gen(function* () {
          const spdk = yield* Spdk.Spdk
          yield* spdk.rpc.call("bdev_null_create", { name: leftBehind, num_blocks: 64, block_size: 512 })
          // Opened in a scope that outlives the layer.
          const bdev = yield* Bdev.open(leftBehind).pipe(Scope.provide(scope))
          yield* bdev.readBytes(0, 512)
          yield* spdk.rpc.call("bdev_null_delete", { name: leftBehind })
        })
        yield* within("the program", program.pipe(Effect.provide(layer, { local: true })))
        yield* within("the late close", Scope.close(scope, Exit.void))
        yield* within("the next", useful.pipe(Effect.provide(layer, { local: true })))
      })
  )

  if (capabilities.engine === "libspdk") {
    plain.live("other options while it runs fail with OptionsClash, which names the option and both values", () =>
      Effect.gen(function* () {
        const build = (options: SpdkOptions.Options) => Effect.scoped(Layer.build(start(options)))
        const reason = yield* failsWith(build({ name: "contract", memoryMiB: memoryMiB * 2 }), "OptionsClash", {
          option: "memoryMiB"
        })
        assert.include(reason.running, `${memoryMiB}`)
        assert.include(reason.requested, `${memoryMiB * 2}`)
        yield* failsWith(build({ name: "another" }), "OptionsClash", { option: "name" })
        yield* failsWith(build({ polling: "busy" }), "OptionsClash", { option: "polling" })
        // Defaults do not clash.
        yield* build({})
        yield* build({ name: "contract", memoryMiB })
      })
    )

    plain.live("a core that does not exist", () =>
      failsWith(Effect.scoped(Layer.build(start({ cores: "[1000]" }))), "InvalidArgument", { field: "cores" })
    )
  }

  for (const [what, options, field] of badOptions) {
    plain.live(`bad option: ${what}`, () =>
      Effect.gen(function* () {
        // Programs without types pass anything.
        const reason = yield* failsWith(
          Effect.scoped(Layer.build(start(options as SpdkOptions.Options))),
          "InvalidArgument"
        )
        assert.match(reason.field, field)
        assert.isNotEmpty(reason.rule)
      })
    )
  }

  plain.live("a configuration file that is no JSON", () =>
    Effect.gen(function* () {
      const path = yield* scratchFile
      writeFileSync(path, "{ not json")
      yield* failsWith(Effect.scoped(Layer.build(start({ config: path }))), "InvalidArgument", { field: "config" })
    })
  )

  plain.live("options from Config", () =>
    Effect.gen(function* () {
      const env = { SPDK_ENGINE: capabilities.engine, SPDK_NAME: "contract", SPDK_MEMORY_MIB: `${memoryMiB}` }
      const provider = ConfigProvider.layer(ConfigProvider.fromEnv({ env }))
      const kind = yield* Effect.map(Spdk.Spdk, (spdk) => spdk.kind).pipe(
        Effect.provide(Spdk.layerConfig().pipe(Layer.provide(provider)))
      )
      assert.strictEqual(kind, capabilities.engine)
      const auto = yield* Effect.map(Spdk.Spdk, (spdk) => spdk.kind).pipe(
        Effect.provide(Spdk.layerAutoWith({ name: "contract", memoryMiB }).pipe(Layer.provide(provider)))
      )
      assert.strictEqual(auto, capabilities.engine)
    })
  )

  plain.live("an engine that Config does not know", () =>
    Effect.gen(function* () {
      const provider = ConfigProvider.layer(ConfigProvider.fromEnv({ env: { SPDK_ENGINE: "warp" } }))
      const error = yield* Effect.flip(Effect.scoped(Layer.build(Spdk.layerAuto.pipe(Layer.provide(provider)))))
      assert.strictEqual(error._tag, "ConfigError")
    })
  )
}
