/**
 * The options of an engine. Both engines accept the same options, so a program runs unchanged on a laptop. Options for
 * hardware (hugepages, PCI, polling) have no effect in the embedded engine, which reports the options that it ignored.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Schema from "effect/Schema"
import * as CpuSet from "./CpuSet.ts"

/** SPDK's log levels. @since 0.1.0 @category models */
export const LogLevel = Schema.Literals(["disabled", "error", "warning", "notice", "info", "debug"])
export type LogLevel = typeof LogLevel.Type

/**
 * The behaviour of an idle reactor: `adaptive` sleeps for short, bounded times; `busy` spins.
 *
 * @since 0.1.0
 * @category models
 */
export const Polling = Schema.Literals(["adaptive", "busy"])
export type Polling = typeof Polling.Type

/** The address of a PCI function: `0000:5e:00.0` or `5e:00.0`. @since 0.1.0 @category models */
export const PciAddress = Schema.String.check(
  Schema.isPattern(/^([0-9a-f]{1,8}:)?[0-9a-f]{1,2}:[0-9a-f]{1,2}\.[0-7]$/i)
)

const ConfigCall = Schema.Struct({
  method: Schema.NonEmptyString,
  params: Schema.optional(Schema.Record(Schema.String, Schema.Json))
})

/**
 * SPDK's JSON configuration, as SPDK's `save_config` writes it and `--json` reads it. An array in `config` is a batch.
 *
 * @since 0.1.0
 * @category models
 */
export const SpdkConfig = Schema.Struct({
  subsystems: Schema.Array(
    Schema.Struct({
      subsystem: Schema.String,
      config: Schema.optional(Schema.NullOr(Schema.Array(Schema.Union([ConfigCall, Schema.Array(ConfigCall)]))))
    })
  )
})
export type SpdkConfig = typeof SpdkConfig.Type

/**
 * The options of an engine. Every option has a default.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /**
   * The name of SPDK's shared memory and of its logs: 1 to 32 letters, digits, dots, dashes and underscores. Default
   * `effect-spdk`.
   */
  readonly name?: string | undefined
  /**
   * The cores of the reactors, as a set or in SPDK's notation, `0x3` or `[0-1]`. libspdk refuses a core outside this
   * process's CPU affinity. Its default is the last core of the affinity. In the embedded engine reactors are logical:
   * any core is accepted, and the default is core 0.
   */
  readonly cores?: CpuSet.CpuSet | string | undefined
  /** The amount of DMA memory, 64 to 1,048,576. SPDK's own pools take about 400 MiB of it. Default 512. */
  readonly memoryMiB?: number | undefined
  /**
   * Allocates DMA memory from hugepages, which real devices need. Default false. Hardware option: no effect on the
   * embedded engine.
   */
  readonly hugepages?: boolean | undefined
  /**
   * The PCI devices that SPDK may use: none, only these, or all but these. An empty `allow` permits none, an empty
   * `block` permits all. Default false, none. Hardware option: no effect on the embedded engine.
   */
  readonly pci?:
    | false
    | { readonly allow: ReadonlyArray<string> }
    | { readonly block: ReadonlyArray<string> }
    | undefined
  /**
   * An SPDK JSON configuration, or the path of a file with one. The calls run in order; calls that must precede the
   * start of the framework run first. The layer fails at the first call that is refused. The SPDK of a process accepts
   * one configuration in its life.
   *
   * Either engine starts with a configuration that the other saved. The embedded engine accepts settings that it has no
   * use for (pools, sockets, accelerators, the scheduler) and names them in one warning. It refuses, by name, settings
   * that would change a result.
   */
  readonly config?: SpdkConfig | string | undefined
  /**
   * The path of the Unix socket for SPDK's JSON-RPC, at most 107 bytes. Default: libspdk serves a socket that only this
   * user can find and open. The embedded engine serves none by default.
   */
  readonly rpcSocket?: string | undefined
  /** The least urgent level of SPDK's log that reaches Effect's Logger. Default `notice`. */
  readonly logLevel?: LogLevel | undefined
  /**
   * Default `adaptive`: an idle reactor costs a few percent of its core. Hardware option: no effect on the embedded
   * engine.
   */
  readonly polling?: Polling | undefined
}

/** The engine to use. `auto` is libspdk when its addon loads, otherwise embedded. @since 0.1.0 @category models */
export const EngineChoice = Schema.Literals(["auto", "libspdk", "embedded"])
export type EngineChoice = typeof EngineChoice.Type

/** @since 0.1.0 @category models */
export interface ConfiguredOptions extends Options {
  /** Default `auto`. */
  readonly engine?: EngineChoice | undefined
}

/**
 * The Config of `SPDK_ENGINE` alone.
 *
 * @since 0.1.0
 * @category config
 */
export const engineConfig: Config.Config<EngineChoice> = Config.schema(EngineChoice, "SPDK_ENGINE").pipe(
  Config.withDefault("auto")
)

const optional = <A>(config: Config.Config<A>): Config.Config<A | undefined> => Config.withDefault(config, undefined)

const variables = Config.all({
  engine: engineConfig,
  name: optional(Config.String("SPDK_NAME")),
  cores: optional(Config.schema(CpuSet.CpuSetFromString, "SPDK_CORES")),
  memoryMiB: optional(Config.Int("SPDK_MEMORY_MIB")),
  hugepages: optional(Config.Boolean("SPDK_HUGEPAGES")),
  allow: optional(Config.Array(PciAddress, "SPDK_PCI_ALLOW")),
  block: optional(Config.Array(PciAddress, "SPDK_PCI_BLOCK")),
  config: optional(Config.NonEmptyString("SPDK_CONFIG")),
  rpcSocket: optional(Config.NonEmptyString("SPDK_RPC_SOCKET")),
  logLevel: optional(Config.schema(LogLevel, "SPDK_LOG_LEVEL")),
  polling: optional(Config.schema(Polling, "SPDK_POLLING"))
})

const toOptions = ({ allow, block, ...rest }: Config.Success<typeof variables>): ConfiguredOptions => {
  if (allow === undefined) return { ...rest, pci: block === undefined ? undefined : { block } }
  // Both lists at once are not of the type, and the check of the options refuses them by name.
  return { ...rest, pci: block === undefined ? { allow } : { allow, block } }
}

/**
 * Every option from Config. A variable that is not set takes its default.
 *
 * - `SPDK_ENGINE`, `SPDK_NAME`, `SPDK_CORES`, `SPDK_MEMORY_MIB`, `SPDK_HUGEPAGES`, `SPDK_RPC_SOCKET`, `SPDK_LOG_LEVEL`,
 *   `SPDK_POLLING`
 * - `SPDK_PCI_ALLOW` or `SPDK_PCI_BLOCK`: addresses separated by commas. An empty allow list permits no device, an
 *   empty block list permits every device.
 * - `SPDK_CONFIG`: a path.
 *
 * @since 0.1.0
 * @category config
 */
export const config: Config.Config<ConfiguredOptions> = Config.map(variables, toOptions)
