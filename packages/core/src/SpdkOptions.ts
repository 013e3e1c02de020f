/**
 * How an engine is started. The same options start either engine: those that describe hardware (hugepages, PCI,
 * polling) have nothing to act on in the embedded one, which accepts them, so that a program runs unchanged on
 * a laptop, and says which of them had no effect.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Schema from "effect/Schema"
import * as CpuSet from "./CpuSet.ts"

/** SPDK's log levels. @since 0.1.0 @category models */
export const LogLevel = Schema.Literals(["disabled", "error", "warning", "notice", "info", "debug"])
export type LogLevel = typeof LogLevel.Type

/** What a reactor does without work: waits in short bounded naps, or spins. @since 0.1.0 @category models */
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
 * SPDK's JSON configuration, as its `save_config` writes and its `--json` reads it. An array in `config` is a batch.
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
 * Every option has a default.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** 1 to 32 letters, digits, dots, dashes and underscores: names SPDK's shared memory and logs. Default `effect-spdk`. */
  readonly name?: string | undefined
  /**
   * The cores that reactors run on, as a set or in SPDK's notation, `0x3` or `[0-1]`. libspdk refuses a core that
   * this process may not run on; its default is the last one it may. In the embedded engine reactors are logical,
   * any core will do, and the default is core 0.
   */
  readonly cores?: CpuSet.CpuSet | string | undefined
  /** How much DMA memory there is, 64 to 1,048,576. SPDK's own pools take about 400 of it. Default 512. */
  readonly memoryMiB?: number | undefined
  /** Takes the memory from hugepages, which real devices need. Default false. Hardware: no effect on embedded. */
  readonly hugepages?: boolean | undefined
  /**
   * Which PCI devices SPDK may take: none, only these, or all but these. An empty `allow` allows none, an empty `block` all.
   * Default false. Hardware: no effect on embedded.
   */
  readonly pci?:
    | false
    | { readonly allow: ReadonlyArray<string> }
    | { readonly block: ReadonlyArray<string> }
    | undefined
  /**
   * An SPDK JSON configuration, or the path of a file with one. Its calls are made in order, those that belong before
   * the start of the framework first; the first that is refused fails the layer. The SPDK of a process takes one
   * configuration in its life.
   *
   * Either engine starts with what the other has saved. Settings that the embedded engine has nothing for (pools, sockets,
   * accelerators, the scheduler) are accepted and named in one warning. What would change a result there is refused by name.
   */
  readonly config?: SpdkConfig | string | undefined
  /**
   * Where to serve SPDK's JSON-RPC, a Unix socket's path of at most 107 bytes. Default: libspdk serves a socket that
   * only this user can find and open; the embedded engine serves none.
   */
  readonly rpcSocket?: string | undefined
  /** The least urgent lines of SPDK that reach Effect's Logger. Default `notice`. */
  readonly logLevel?: LogLevel | undefined
  /** Default `adaptive`: an idle reactor costs a few percent of its core. Hardware: no effect on embedded. */
  readonly polling?: Polling | undefined
}

/** Which engine to take; `auto` is libspdk where its addon loads, embedded elsewhere. @since 0.1.0 @category models */
export const EngineChoice = Schema.Literals(["auto", "libspdk", "embedded"])
export type EngineChoice = typeof EngineChoice.Type

/** @since 0.1.0 @category models */
export interface ConfiguredOptions extends Options {
  /** Default `auto`. */
  readonly engine?: EngineChoice | undefined
}

/**
 * `SPDK_ENGINE` alone.
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
 * Every option from Config: `SPDK_ENGINE`, `SPDK_NAME`, `SPDK_CORES`, `SPDK_MEMORY_MIB`, `SPDK_HUGEPAGES`,
 * `SPDK_PCI_ALLOW` or `SPDK_PCI_BLOCK` (comma-separated addresses; an empty allow list takes no device, an empty block list every one),
 * `SPDK_CONFIG` (a path), `SPDK_RPC_SOCKET`, `SPDK_LOG_LEVEL`, `SPDK_POLLING`. What is not set takes its default.
 *
 * @since 0.1.0
 * @category config
 */
export const config: Config.Config<ConfiguredOptions> = Config.map(variables, toOptions)
