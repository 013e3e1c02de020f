/**
 * From the options people write to the settings an engine takes, with everything checked that can be known before the engine.
 */
import { createHash, randomUUID } from "node:crypto"
import * as net from "node:net"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import type { ConnectOptions } from "../../Nvme.ts"
import type { Input } from "../../NvmeTransportId.ts"
import { failInvalid, type SpdkErrorOf } from "../../SpdkError.ts"
import type { NvmeConnectSettings, NvmeTransportIdFields } from "../engine/nvme.ts"
import { parseUuid } from "./wire/identify.ts"
import { isUuid, nqnOfUuid, nqnRule } from "./wire/nqn.ts"
import { parseTransportId, resolveTransportId } from "./transportId.ts"

type Checked<A> = Effect.Effect<A, SpdkErrorOf<"InvalidArgument">>

/** As SPDK. */
const defaults = {
  ioQueues: 128,
  ioQueueSize: 256,
  adminQueueSize: 32,
  keepAliveMillis: 10_000,
  connectTimeoutMillis: 10_000,
  adminTimeoutMillis: 30_000,
  /** As Linux: SPDK has none. */
  ioTimeoutMillis: 30_000,
  retries: 4
} as const

const known: ReadonlySet<string> = new Set([
  "hostnqn",
  "hostId",
  "sourceAddress",
  "sourcePort",
  "ioQueues",
  "ioQueueSize",
  "adminQueueSize",
  "keepAlive",
  "connectTimeout",
  "adminTimeout",
  "ioTimeout",
  "headerDigest",
  "dataDigest",
  "retries",
  "psk",
  "dhchapKey",
  "dhchapControllerKey"
] satisfies ReadonlyArray<keyof ConnectOptions>)

/** One host per process, unless told otherwise: controllers of one host share their reservations. */
const processUuid = randomUUID()

export const checkTransportId = (operation: string, input: Input): Checked<NvmeTransportIdFields> =>
  Result.match(typeof input === "string" ? parseTransportId(input) : resolveTransportId(input), {
    onSuccess: (transportId) => Effect.succeed(transportId),
    onFailure: ({ field, rule, value }) => failInvalid(operation, field, rule, value)
  })

export const checkConnect = Effect.fnUntraced(function* (
  operation: string,
  { trtype }: Pick<NvmeTransportIdFields, "trtype">,
  options: ConnectOptions,
  also: ReadonlyArray<string> = []
): Effect.fn.Return<NvmeConnectSettings, SpdkErrorOf<"InvalidArgument">> {
  for (const field of Object.keys(options)) {
    if (!known.has(field) && !also.includes(field)) return yield* failInvalid(operation, field, "is not an option")
  }
  if (options.hostId !== undefined && !isUuid(options.hostId)) {
    return yield* failInvalid(operation, "hostId", "is not a UUID", options.hostId)
  }
  const hostnqn = options.hostnqn ?? nqnOfUuid(options.hostId ?? processUuid)
  const rule = nqnRule(hostnqn)
  if (rule !== undefined) return yield* failInvalid(operation, "hostnqn", rule, hostnqn)
  const millis = (field: "connectTimeout" | "adminTimeout", otherwise: number) =>
    checkMillis(operation, field, options[field], otherwise)
  const count = (field: "ioQueues" | "ioQueueSize" | "adminQueueSize" | "retries", least: number, most: number) =>
    checkCount(operation, field, options[field] ?? defaults[field], least, most)
  return {
    hostnqn,
    hostId: hostIdOf(options.hostId, hostnqn),
    sourceAddress: yield* checkSource(operation, options.sourceAddress),
    sourcePort:
      options.sourcePort === undefined
        ? ""
        : `${yield* checkCount(operation, "sourcePort", options.sourcePort, 1, 65_535)}`,
    ioQueues: yield* count("ioQueues", 1, 65_535),
    ioQueueSize: yield* count("ioQueueSize", 2, 65_536),
    adminQueueSize: yield* count("adminQueueSize", 2, 4096),
    keepAliveMillis:
      options.keepAlive === false
        ? 0
        : yield* checkMillis(operation, "keepAlive", options.keepAlive, defaults.keepAliveMillis),
    connectTimeoutMillis: yield* millis("connectTimeout", defaults.connectTimeoutMillis),
    adminTimeoutMillis: yield* millis("adminTimeout", defaults.adminTimeoutMillis),
    ioTimeoutMillis: yield* checkIoTimeout(operation, trtype, options.ioTimeout),
    headerDigest: yield* checkFlag(operation, "headerDigest", options.headerDigest),
    dataDigest: yield* checkFlag(operation, "dataDigest", options.dataDigest),
    retries: yield* count("retries", 0, 255),
    psk: yield* checkKey(operation, "psk", options.psk),
    dhchapKey: yield* checkKey(operation, "dhchapKey", options.dhchapKey),
    dhchapControllerKey: yield* checkControllerKey(operation, options)
  }
})

/** SPDK counts it in ticks, in a number that holds little more. */
const longestIoTimeoutMillis = 3_600_000

/**
 * A connection that is given up brings no data any more. A device of this machine writes into memory until it is reset, and its
 * commands cannot be answered before it is.
 */
const checkIoTimeout = Effect.fnUntraced(function* (
  operation: string,
  trtype: NvmeTransportIdFields["trtype"],
  value: Duration.Input | undefined
) {
  const isNetwork = trtype === "TCP" || trtype === "RDMA"
  const millis = yield* checkMillis(operation, "ioTimeout", value, isNetwork ? defaults.ioTimeoutMillis : 0)
  if (isNetwork && millis > longestIoTimeoutMillis) {
    return yield* failInvalid(operation, "ioTimeout", "is more than an hour; infinity is no limit", millis)
  }
  if (millis === 0 || isNetwork) return millis
  return yield* failInvalid(
    operation,
    "ioTimeout",
    "is for connections over a network: a local device has no limit",
    millis
  )
})

const checkCount = (operation: string, field: string, value: number, least: number, most: number): Checked<number> =>
  Number.isInteger(value) && value >= least && value <= most
    ? Effect.succeed(value)
    : failInvalid(operation, field, `is not a whole number from ${least} to ${most}`, value)

/** Infinity is 0 to an engine: no limit. */
const checkMillis = (
  operation: string,
  field: string,
  value: Duration.Input | undefined,
  otherwise: number
): Checked<number> => {
  if (value === undefined) return Effect.succeed(otherwise)
  const duration = Duration.fromInput(value)
  if (Option.isNone(duration)) return failInvalid(operation, field, "is not a duration", value)
  if (!Duration.isFinite(duration.value)) {
    return field === "keepAlive"
      ? failInvalid(operation, field, "is infinite; false is no keep-alive", "Infinity")
      : Effect.succeed(0)
  }
  const millis = Math.ceil(Duration.toMillis(duration.value))
  return millis >= 1 && millis < 2 ** 31
    ? Effect.succeed(millis)
    : failInvalid(operation, field, "is not between a millisecond and 24 days", millis)
}

const checkFlag = (operation: string, field: string, flag: boolean | undefined): Checked<boolean> =>
  flag === undefined || typeof flag === "boolean"
    ? Effect.succeed(flag ?? false)
    : failInvalid(operation, field, "is not a boolean", flag)

/** The name of a key in the keyring, never the key. */
const checkKey = (operation: string, field: string, name: string | undefined): Checked<string | undefined> =>
  name === undefined || (typeof name === "string" && name !== "" && !name.includes("\0") && name.length <= 255)
    ? Effect.succeed(name)
    : failInvalid(operation, field, "is not the name of a key, 1 to 255 characters")

const checkControllerKey = (operation: string, options: ConnectOptions): Checked<string | undefined> =>
  options.dhchapControllerKey !== undefined && options.dhchapKey === undefined
    ? failInvalid(
        operation,
        "dhchapControllerKey",
        "needs dhchapKey, because the host authenticates before the controller"
      )
    : checkKey(operation, "dhchapControllerKey", options.dhchapControllerKey)

const checkSource = (operation: string, address: string | undefined): Checked<string> =>
  address === undefined
    ? Effect.succeed("")
    : net.isIP(address) !== 0
      ? Effect.succeed(address)
      : failInvalid(operation, "sourceAddress", "is not an IP address", address)

/** Of a host whose name is no UUID, an id that is the same each time: targets want one id per name. */
const hostIdOf = (hostId: string | undefined, hostnqn: string): Uint8Array => {
  const uuid = hostId ?? hostnqn.slice(-36)
  return isUuid(uuid) ? parseUuid(uuid) : new Uint8Array(createHash("sha256").update(hostnqn).digest().subarray(0, 16))
}
