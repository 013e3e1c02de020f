/**
 * The engine as a Layer. Every other module of this package needs an engine. Choose one of `layerAuto`, `layer`,
 * `layerEmbedded` and `layerConfig`. `layerRemote` controls an SPDK that runs elsewhere.
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as Spdk from "@effect-spdk/core/Spdk"
 *
 * const program = Effect.gen(function*() {
 *   const spdk = yield* Spdk.Spdk
 *   yield* Effect.log(spdk.description)
 * }).pipe(Effect.provide(Spdk.layerAuto))
 * ```
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as embedded from "./internal/embedded/index.ts"
import type { Engine, EngineKind, EngineUsage } from "./internal/engine/engine.ts"
import { EngineService } from "./internal/engine/service.ts"
import * as framework from "./internal/engine/framework.ts"
import * as libspdk from "./internal/libspdk/engine.ts"
import { makeLogSink } from "./internal/engine/log.ts"
import { applyOnce } from "./internal/engine/configOnce.ts"
import { readConfig, resolve, withoutEffectOnEmbedded } from "./internal/engine/options.ts"
import * as remote from "./internal/engine/remote.ts"
import { applyConfig } from "./internal/rpc/config.ts"
import { makeThread } from "./internal/thread/thread.ts"
import * as usage from "./internal/engine/usage.ts"
import { RpcClient } from "./Rpc.ts"
import * as Rpc from "./Rpc.ts"
import type { ConfigRejected, EngineUnavailable, OptionsClash, RpcReason, SpdkError, StartFailed } from "./SpdkError.ts"
import { type ConfiguredOptions, type EngineChoice, engineConfig, type Options } from "./SpdkOptions.ts"
import * as SpdkOptions from "./SpdkOptions.ts"
import type { Reactor, SpdkThread } from "./SpdkThread.ts"

/**
 * The requirement of every operation that needs a data plane. The layers of this module provide it. Programs do not use
 * it directly.
 *
 * @since 0.1.0
 * @category services
 */
export type { EngineService }

/**
 * The resources that are currently held. Every number is back at its initial value when all resources are released.
 *
 * @since 0.1.0
 * @category models
 */
export interface Usage extends EngineUsage {}

/**
 * A running engine.
 *
 * @since 0.1.0
 * @category services
 */
export class Spdk extends Context.Service<
  Spdk,
  {
    readonly kind: EngineKind
    /** `SPDK v26.05`, or `embedded` with this package's version. */
    readonly version: string
    /** One line for people: the engine, its cores, memory and socket, and the options without effect. */
    readonly description: string
    /** The path of the Unix socket of the RPC server, when the engine serves one. */
    readonly rpcSocket: string | undefined
    readonly rpc: RpcClient["Service"]
    /** The thread of every fiber, unless `SpdkThread.on` or `call` sets another. */
    readonly mainThread: SpdkThread
    readonly reactors: Effect.Effect<ReadonlyArray<Reactor>, SpdkError<RpcReason>>
    readonly usage: Effect.Effect<Usage>
  }
>()("@effect-spdk/core/Spdk") {}

/** The reasons for which an engine does not start. @since 0.1.0 @category errors */
export type StartError = SpdkError<RpcReason | EngineUnavailable | OptionsClash | StartFailed | ConfigRejected>

/** The services that every layer of this module provides. @since 0.1.0 @category models */
export type Services = Spdk | EngineService | RpcClient

/**
 * libspdk in this process. A process has one SPDK, which all layers share. The release of the last layer closes what is
 * still open and leaves SPDK idle. A layer fails with `OptionsClash` when it sets an option that differs from the
 * running SPDK's.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (options: Options = {}): Layer.Layer<Services, StartError> =>
  Layer.effectContext(start("libspdk", options))

/**
 * The engine in TypeScript. It needs no native code and no privileges, and keeps the same contract. Each build of the
 * layer is a separate engine.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerEmbedded = (options: Options = {}): Layer.Layer<Services, StartError> =>
  Layer.effectContext(start("embedded", options))

/**
 * libspdk when its addon loads, otherwise embedded. The Config value `SPDK_ENGINE` (`auto`, `libspdk`, `embedded`)
 * overrides the choice. One log line names the choice and the reason. When libspdk loads but does not start, the layer
 * fails. Data therefore never goes to a different engine because of a transient fault.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerAutoWith = (options: Options = {}): Layer.Layer<Services, StartError | Config.ConfigError> =>
  Layer.effectContext(Effect.flatMap(engineConfig, (choice) => startChosen(choice, options, "SPDK_ENGINE")))

/**
 * `layerAutoWith` with every option at its default.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerAuto: Layer.Layer<Services, StartError | Config.ConfigError> = layerAutoWith()

/**
 * The engine and its options from Config. The default Config, `SpdkOptions.config`, reads the `SPDK_*` variables. A
 * program can pass its own Config, whole or for each field.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerConfig = (
  config: Config.Wrap<ConfiguredOptions> = SpdkOptions.config
): Layer.Layer<Services, StartError | Config.ConfigError> =>
  Layer.effectContext(
    Effect.flatMap(Config.unwrap(config), ({ engine = "auto", ...options }) =>
      startChosen(engine, options, "the configuration")
    )
  )

/**
 * The control plane of an SPDK that runs elsewhere, for example an `spdk_tgt`. RPC calls, and everything built on them,
 * work. Opening bdevs, spawning threads, registering pollers and allocating DMA memory fail with `NotSupported`. The
 * layer fails when the server cannot be reached.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerRemote = (
  address: { readonly path: string } | { readonly host: string; readonly port: number }
): Layer.Layer<Services, SpdkError<RpcReason>> =>
  Layer.effectContext(
    Effect.gen(function* () {
      const rpc = yield* Rpc.make({ address })
      return yield* services(yield* remote.make(rpc), [])
    })
  )

/**
 * The gauges of `layerMetrics`. `spdk_threads`, `spdk_dma_bytes` and others report `Usage`. For each reactor there are
 * `spdk_reactor_busy_millis` and `spdk_reactor_idle_millis`, with the attribute `core`.
 *
 * @since 0.1.0
 * @category metrics
 */
export const metrics = usage.metrics

/** Copies the engine's counters to `metrics`, once. @since 0.1.0 @category metrics */
export const updateMetrics: Effect.Effect<void, SpdkError<RpcReason>, Spdk> = Effect.flatMap(Spdk, (spdk) =>
  Effect.flatMap(spdk.usage, usage.updateUsage).pipe(
    Effect.andThen(Effect.flatMap(spdk.reactors, usage.updateReactors))
  )
)

/**
 * Updates `metrics` by a schedule, every five seconds by default. Updates add no cost to I/O. A failed update is
 * logged, and the next one tries again.
 *
 * @since 0.1.0
 * @category metrics
 */
export const layerMetrics = (
  schedule: Schedule.Schedule<unknown> = Schedule.spaced("5 seconds")
): Layer.Layer<never, never, Spdk> =>
  Layer.effectDiscard(
    updateMetrics.pipe(
      Effect.catch((error) => Effect.logWarning("The metrics of SPDK could not be read", error)),
      Effect.repeat(schedule),
      Effect.forkScoped
    )
  )

const startChosen = Effect.fnUntraced(function* (choice: EngineChoice, options: Options, asker: string) {
  if (choice !== "auto") {
    yield* logChoice(choice, `${asker} asks for it`, options)
    return yield* start(choice, options)
  }
  const found = yield* libspdk.probe
  if (found.available) {
    yield* logChoice("libspdk", `its addon loads (${found.version})`, options)
    return yield* start("libspdk", options)
  }
  yield* logChoice(
    "embedded",
    `libspdk is not available: ${found.reason}; looked for ${found.lookedFor.join(", ")}`,
    options
  )
  return yield* start("embedded", options)
})

const logChoice = (engine: "libspdk" | "embedded", why: string, options: Options): Effect.Effect<void> => {
  const note = engine === "embedded" ? describeWithoutEffect(withoutEffectOnEmbedded(options)) : ""
  return Effect.logInfo(`effect-spdk takes the ${engine} engine, because ${why}${note}`)
}

const describeWithoutEffect = (fields: ReadonlyArray<string>): string =>
  fields.length === 0 ? "" : `; options without effect: ${fields.join(", ")}`

const start = Effect.fnUntraced(function* (
  kind: "libspdk" | "embedded",
  options: Options
): Effect.fn.Return<Context.Context<Services>, StartError, Scope.Scope> {
  const config = yield* readConfig(options.config)
  const resolved = yield* resolve(kind, options, yield* makeLogSink)
  if (kind === "embedded") {
    const engine = yield* embedded.make(resolved, {
      configure: config === undefined ? undefined : (rpc) => applyConfig(rpc, config)
    })
    return yield* services(engine, withoutEffectOnEmbedded(options))
  }
  const engine = yield* libspdk.make(
    resolved,
    config === undefined ? undefined : (rpc, turn) => applyOnce(rpc, config, turn)
  )
  return yield* services(engine, [])
})

const services = (
  engine: Engine,
  withoutEffect: ReadonlyArray<string>
): Effect.Effect<Context.Context<Services>, never, Scope.Scope> =>
  Effect.map(makeThread(engine, engine.mainThread), (mainThread) =>
    Context.empty().pipe(
      Context.add(Spdk, {
        kind: engine.kind,
        version: engine.version,
        description: `${engine.description}${describeWithoutEffect(withoutEffect)}`,
        rpcSocket: engine.rpcSocket,
        rpc: engine.rpc,
        mainThread,
        reactors: framework.reactors(engine.rpc),
        usage: engine.usage
      }),
      Context.add(EngineService, engine),
      Context.add(RpcClient, engine.rpc)
    )
  )
