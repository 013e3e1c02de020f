/**
 * Transports are made once and stay as long as their SPDK: it has no way to take one down.
 */
import { callDecoded } from "@effect-spdk/core/Engine"
import * as Rpc from "@effect-spdk/core/Rpc"
import { failInvalid, type InvalidArgument, OptionsClash, type RpcReason, SpdkError } from "@effect-spdk/core/SpdkError"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Info from "../NvmfInfo.ts"
import type { MaskedCommand, TransportOptions } from "../NvmfTransport.ts"

type Client = Rpc.RpcClient["Service"]
type Params = Rpc.RpcMethods["nvmf_create_transport"]

const uint16 = 0xffff
const uint32 = 0xffff_ffff
const int32 = 0x7fff_ffff

/** The parameter's name and the largest value it takes; none for flags. */
const common = {
  maxQueueDepth: ["max_queue_depth", uint16],
  maxIoQpairsPerController: ["max_io_qpairs_per_ctrlr", uint16 - 1],
  inCapsuleDataSize: ["in_capsule_data_size", uint32],
  maxIoSize: ["max_io_size", uint32],
  maxAdminQueueDepth: ["max_aq_depth", uint32],
  iobufSmallCacheSize: ["iobuf_small_cache_size", uint32],
  iobufLargeCacheSize: ["iobuf_large_cache_size", uint32],
  zcopy: ["zcopy"],
  difInsertOrStrip: ["dif_insert_or_strip"],
  abortTimeoutSeconds: ["abort_timeout_sec", uint32],
  acceptorPollRateMicros: ["acceptor_poll_rate", uint32],
  ackTimeoutMillis: ["ack_timeout", uint32],
  disableCommandPassthru: ["disable_command_passthru"],
  keepAliveGranularity: ["kas", uint16],
  minKeepAliveMillis: ["min_kato", uint32]
} as const

type Table = Readonly<Record<string, readonly [string, number?]>>

const tables: Readonly<Record<TransportOptions["trtype"], Table>> = {
  TCP: {
    ...common,
    c2hSuccess: ["c2h_success"],
    sockPriority: ["sock_priority", uint32],
    controlMessageCount: ["control_msg_num", uint16]
  },
  RDMA: {
    ...common,
    numCqe: ["num_cqe", int32],
    maxSrqDepth: ["max_srq_depth", uint32],
    noSrq: ["no_srq"],
    acceptorBacklog: ["acceptor_backlog", int32],
    noWrBatching: ["no_wr_batching"],
    dataWrPoolSize: ["data_wr_pool_size", uint32]
  },
  VFIOUSER: {
    ...common,
    disableMappableBar0: ["disable_mappable_bar0"],
    disableAdaptiveIrq: ["disable_adaptive_irq"],
    disableShadowDoorbells: ["disable_shadow_doorbells"]
  }
}

const maskable: ReadonlyArray<MaskedCommand> = ["nvmcmps", "nvmdsmsv", "nvmwzsv", "reservs", "nvmcpys"]

const operation = "NvmfTarget.make"

/** The parameters by their names, checked. */
export const transportParams = (options: TransportOptions): Effect.Effect<Params, SpdkError<InvalidArgument>> => {
  if (typeof options !== "object" || options === null) {
    return failInvalid(operation, "transports", "has an element that is not an object of options", options)
  }
  const table: Table | undefined = Object.hasOwn(tables, options.trtype) ? tables[options.trtype] : undefined
  if (table === undefined) {
    return failInvalid(operation, "trtype", `is none of ${Object.keys(tables).join(", ")}`, options.trtype)
  }
  const { maskFusedCompareAndWrite = false, maskedCommands = [] } = options
  const flag = flagRule(maskFusedCompareAndWrite)
  if (flag !== undefined) return failInvalid(operation, "maskFusedCompareAndWrite", flag, maskFusedCompareAndWrite)
  if (!Array.isArray(maskedCommands)) {
    return failInvalid(operation, "maskedCommands", "is not an array", maskedCommands)
  }
  const unknown = maskedCommands.find((one) => !maskable.includes(one))
  if (unknown !== undefined) {
    return failInvalid(operation, "maskedCommands", `has an element that is not one of ${maskable.join(", ")}`, unknown)
  }
  const params: Record<string, unknown> = { trtype: options.trtype }
  for (const [field, value] of Object.entries(options)) {
    if (field === "trtype" || field === "maskedCommands" || field === "maskFusedCompareAndWrite") continue
    if (value === undefined) continue
    const entry = Object.hasOwn(table, field) ? table[field] : undefined
    if (entry === undefined) return failInvalid(operation, field, `is not an option of ${options.trtype}`)
    const [name, maximum] = entry
    const rule = maximum === undefined ? flagRule(value) : numberRule(value, maximum)
    if (rule !== undefined) return failInvalid(operation, field, rule, value)
    params[name] = value
  }
  return Effect.succeed({
    ...params,
    trtype: options.trtype,
    masked_oncs: options.maskedCommands,
    masked_fuses: maskFusedCompareAndWrite ? ["fcws"] : undefined
  })
}

const flagRule = (value: unknown): string | undefined =>
  typeof value === "boolean" ? undefined : "is neither true nor false"

const numberRule = (value: unknown, maximum: number): string | undefined =>
  typeof value === "number" && Number.isInteger(value) && value >= 0 && value <= maximum
    ? undefined
    : `is not a whole number from 0 to ${maximum}`

export const listTransports = (rpc: Client): Effect.Effect<ReadonlyArray<Info.TransportInfo>, SpdkError<RpcReason>> =>
  callDecoded(rpc, Schema.Array(Info.TransportInfo), "nvmf_get_transports")

/** Makes it when it is not there; whoever comes later has to want what it is. */
export const ensureTransport = Effect.fnUntraced(function* (
  rpc: Client,
  options: TransportOptions
): Effect.fn.Return<void, SpdkError<RpcReason | OptionsClash>> {
  const params = yield* transportParams(options)
  const find = Effect.map(listTransports(rpc), (all) => all.find((one) => one.trtype === options.trtype))
  const running = yield* find
  if (running !== undefined) return yield* compare(params, running)
  const exit = yield* Effect.result(Rpc.callWith(rpc, "nvmf_create_transport", yield* withDefaultMask(rpc, params)))
  if (Result.isSuccess(exit)) return
  // Somebody else was faster, or it failed.
  const made = yield* find
  if (made === undefined) return yield* Effect.fail(exit.failure)
  yield* compare(params, made)
})

/** The release in which a Reservation Acquire that preempts and aborts, without a registration, became the target's end. */
const firstFaulty = 2605

/**
 * One command of any host that is let in kills such a target, so that reservations are not offered unless somebody asks for all
 * commands. Releases before have neither the fault nor the mask.
 */
const withDefaultMask = (rpc: Client, params: Params): Effect.Effect<Params, SpdkError<RpcReason>> => {
  if (params.masked_oncs !== undefined) return Effect.succeed(params)
  const asked = Effect.map(Rpc.callWith(rpc, "spdk_get_version"), ({ version }) => version)
  // Who does not know its version is no SPDK.
  const known = Effect.catch(asked, (error) =>
    error.reason._tag === "MethodNotFound" ? Effect.succeed("") : Effect.fail(error)
  )
  return Effect.flatMap(known, (version) => {
    const [, major, minor] = /^SPDK v(\d+)\.(\d+)/.exec(version) ?? []
    if (major === undefined || Number(major) * 100 + Number(minor) < firstFaulty) return Effect.succeed(params)
    return Effect.as(
      Effect.logInfo(
        `${operation}: the ${params.trtype} transport offers no reservations, because one command of a host ends a target ` +
          `of ${version}; maskedCommands: [] offers them`
      ),
      { ...params, masked_oncs: ["reservs"] }
    )
  })
}

const compare = (params: Params, running: Info.TransportInfo): Effect.Effect<void, SpdkError<OptionsClash>> => {
  for (const [name, requested] of Object.entries(params)) {
    const actual = running[name]
    if (actual === undefined || requested === undefined || actual === requested) continue
    return Effect.fail(
      new SpdkError({
        reason: new OptionsClash({
          operation,
          resource: running.trtype,
          option: name,
          running: String(actual),
          requested: String(requested)
        })
      })
    )
  }
  return Effect.void
}
