/**
 * What the engines are started with: the public options after their check, every default filled in.
 */
import * as fs from "node:fs/promises"
import * as os from "node:os"
import * as path from "node:path"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as CpuSet from "../../CpuSet.ts"
import { maxSocketPathBytes } from "../../Rpc.ts"
import { invalid, type InvalidArgument, type SpdkError } from "../../SpdkError.ts"
import { LogLevel, type Options, PciAddress, Polling, SpdkConfig } from "../../SpdkOptions.ts"

/** Which PCI devices libspdk may take. The addresses are in SPDK's notation, `0000:5e:00.0`. */
export type PciAccess =
  | { readonly _tag: "None" }
  | { readonly _tag: "AllowOnly"; readonly addresses: ReadonlyArray<string> }
  | { readonly _tag: "AllExcept"; readonly addresses: ReadonlyArray<string> }

/** One line of SPDK's log, as its log callback has it. */
export interface LogLine {
  readonly level: Exclude<LogLevel, "disabled">
  readonly message: string
  /** The source file as SPDK's build names it, `bdev.c`. */
  readonly file: string
  readonly line: number
  readonly function: string
}

/**
 * Takes log lines in batches, on the JS thread; never throws, never waits. `droppedLines` counts lines that the
 * engine lost since the last batch.
 */
export type OnLog = (batch: ReadonlyArray<LogLine>, droppedLines?: number) => void

export interface ResolvedOptions {
  readonly name: string
  /** Never empty. libspdk: cores that this process may run on. embedded: the numbers of its logical reactors. */
  readonly cores: CpuSet.CpuSet
  /** The DMA memory there is, SPDK's own pools included where there are any. */
  readonly memoryMiB: number
  readonly hugepages: boolean
  readonly pci: PciAccess
  /** Absolute. undefined: libspdk serves a private socket, the embedded engine none. */
  readonly rpcSocket: string | undefined
  readonly logLevel: LogLevel
  readonly polling: Polling
  /**
   * The options that the caller named; the others hold defaults. An SPDK that already runs takes offence at a
   * named option that differs (OptionsClash), not at a default.
   */
  readonly given: ReadonlySet<keyof Options>
  readonly onLog: OnLog
}

type Invalid = SpdkError<InvalidArgument>

const operation = "Spdk.layer"

const refuse = (field: keyof Options, rule: string, value?: unknown): Invalid => invalid(operation, field, rule, value)

/** A field's schema, and the rule that goes on after "field value" when it is not kept. */
const checks = {
  name: [
    Schema.String.check(Schema.isPattern(/^[A-Za-z0-9._-]{1,32}$/)),
    "is not 1 to 32 letters, digits, dots, dashes or underscores"
  ],
  memoryMiB: [
    Schema.Int.check(Schema.isBetween({ minimum: 64, maximum: 1024 * 1024 })),
    "is not an integer from 64 to 1048576"
  ],
  hugepages: [Schema.Boolean, "is not a boolean"],
  pci: [
    Schema.Union([
      Schema.Literal(false),
      Schema.Struct({ allow: Schema.Array(PciAddress) }),
      Schema.Struct({ block: Schema.Array(PciAddress) })
    ]),
    "is neither false nor one list, allow or block, of PCI addresses such as 0000:5e:00.0"
  ],
  logLevel: [LogLevel, `is not one of ${LogLevel.literals.join(", ")}`],
  polling: [Polling, `is not one of ${Polling.literals.join(", ")}`]
} as const

const known: ReadonlySet<string> = new Set([...Object.keys(checks), "cores", "config", "rpcSocket"])

const check = (field: keyof typeof checks, value: unknown): Effect.Effect<void, Invalid> => {
  const [schema, rule] = checks[field]
  const exit = Schema.decodeUnknownExit(Schema.Unknown.pipe(Schema.decodeTo(schema)), { onExcessProperty: "error" })(
    value
  )
  return Exit.isSuccess(exit) ? Effect.void : Effect.fail(refuse(field, rule, value))
}

/** Checks everything that can be checked without starting anything. */
export const resolve = Effect.fnUntraced(function* (
  engine: "libspdk" | "embedded",
  options: Options,
  onLog: OnLog
): Effect.fn.Return<ResolvedOptions, Invalid> {
  const given = new Set<keyof Options>()
  for (const [field, value] of Object.entries(options)) {
    if (!known.has(field)) return yield* Effect.fail(invalid(operation, field, "is not an option"))
    if (value === undefined) continue
    given.add(field as keyof Options)
    if (field in checks) yield* check(field as keyof typeof checks, value)
  }
  return {
    name: options.name ?? "effect-spdk",
    cores: yield* resolveCores(engine, options.cores),
    memoryMiB: options.memoryMiB ?? 512,
    hugepages: options.hugepages ?? false,
    pci: resolvePci(options.pci),
    rpcSocket: options.rpcSocket === undefined ? undefined : yield* resolveSocket(options.rpcSocket),
    logLevel: options.logLevel ?? "notice",
    polling: options.polling ?? "adaptive",
    given,
    onLog
  }
})

/** The options among these that mean nothing without SPDK's hardware access. */
export const withoutEffectOnEmbedded = (options: Options): ReadonlyArray<keyof Options> => {
  const fields: Array<keyof Options> = []
  if (options.hugepages === true) fields.push("hugepages")
  if (options.pci !== undefined && options.pci !== false) fields.push("pci")
  if (options.polling === "busy") fields.push("polling")
  return fields
}

/** The configuration, from its file where it is a path. */
export const readConfig = Effect.fnUntraced(function* (
  config: Options["config"]
): Effect.fn.Return<SpdkConfig | undefined, Invalid> {
  if (config === undefined) return undefined
  if (typeof config !== "string") return yield* decodeConfig(config, undefined)
  const text = yield* Effect.tryPromise({
    try: () => fs.readFile(config, "utf8"),
    catch: (cause) => refuse("config", `cannot be read: ${messageOf(cause)}`, config)
  })
  const json = yield* Effect.try({
    try: (): unknown => JSON.parse(text),
    catch: (cause) => refuse("config", `is not a file of JSON: ${messageOf(cause)}`, config)
  })
  return yield* decodeConfig(json, config)
})

const decodeConfig = (json: unknown, file: string | undefined): Effect.Effect<SpdkConfig, Invalid> =>
  Effect.mapError(Schema.decodeUnknownEffect(SpdkConfig)(json), (error) =>
    refuse("config", `is not an SPDK configuration: ${error.message}`, file)
  )

const messageOf = (cause: unknown): string => (cause instanceof Error ? cause.message : String(cause))

const resolveCores = Effect.fnUntraced(function* (
  engine: "libspdk" | "embedded",
  input: Options["cores"]
): Effect.fn.Return<CpuSet.CpuSet, Invalid> {
  const allowed = engine === "libspdk" ? yield* allowedCores : undefined
  if (input === undefined) {
    return CpuSet.makeUnsafe([allowed === undefined ? 0 : ([...allowed].at(-1) ?? 0)])
  }
  if (typeof input !== "string" && !CpuSet.isCpuSet(input)) {
    return yield* Effect.fail(refuse("cores", "is neither a CpuSet nor a core mask or list", input))
  }
  const cores =
    typeof input === "string"
      ? yield* Effect.fromResult(
          Result.mapError(CpuSet.parse(input), ({ reason }) => refuse("cores", reason.rule, input))
        )
      : input
  if (CpuSet.isEmpty(cores)) return yield* Effect.fail(refuse("cores", "names no core", `${input}`))
  const missing = allowed === undefined ? undefined : CpuSet.first(CpuSet.difference(cores, allowed))
  if (missing !== undefined) {
    const rule = `names core ${missing}, which is not among the cores ${allowed} that this process may run on`
    return yield* Effect.fail(refuse("cores", rule, `${input}`))
  }
  return cores
})

/** The kernel's word where there is one, which containers and `taskset` narrow. */
const allowedCores: Effect.Effect<CpuSet.CpuSet> = Effect.promise(async () => {
  const status = await fs.readFile("/proc/self/status", "utf8").catch(() => "")
  const list = /^Cpus_allowed_list:\s*(\S+)$/m.exec(status)?.[1]
  return Result.getOrElse(CpuSet.fromList(`[${list ?? `0-${os.cpus().length - 1}`}]`), () => CpuSet.makeUnsafe([0]))
})

const resolvePci = (pci: Options["pci"]): PciAccess => {
  if (pci === undefined || pci === false) return { _tag: "None" }
  // SPDK takes an empty list of allowed devices for no list, and opens all of them.
  if ("allow" in pci && pci.allow.length === 0) return { _tag: "None" }
  return "allow" in pci ? { _tag: "AllowOnly", addresses: pci.allow } : { _tag: "AllExcept", addresses: pci.block }
}

const resolveSocket = (socket: string): Effect.Effect<string, Invalid> => {
  const reason = (rule: string) => Effect.fail(refuse("rpcSocket", rule, socket))
  if (typeof socket !== "string") return reason("is not a path")
  if (socket === "") return reason("is empty")
  if (socket.includes("\0")) return reason("contains a NUL character")
  const absolute = path.resolve(socket)
  const length = Buffer.byteLength(absolute)
  return length > maxSocketPathBytes
    ? reason(`is longer than the ${maxSocketPathBytes} bytes of a Unix socket's path: ${absolute} has ${length}`)
    : Effect.succeed(absolute)
}
