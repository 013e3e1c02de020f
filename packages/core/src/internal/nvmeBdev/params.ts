/**
 * Options of attached controllers as parameters of SPDK's methods, checked before anything is sent.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import { keyName } from "../../Keyring.ts"
import type {
  AttachOptions,
  ControllerOptions,
  LossOptions,
  PathOptions,
  PolicyOptions
} from "../../NvmeBdevOptions.ts"
import { failInvalid, type InvalidArgument, type SpdkError } from "../../SpdkError.ts"
import { nqnRule } from "../nvme/wire/nqn.ts"
import { resolveTransportId } from "../nvme/transportId.ts"

type Checked<A> = Effect.Effect<A, SpdkError<InvalidArgument>>

const maxInt32 = 0x7fff_ffff
const maxIoQueues = 65_536

export interface PathParams {
  readonly trtype: string
  readonly traddr: string
  readonly adrfam?: string | undefined
  readonly trsvcid?: string | undefined
}

const textOf = (value: string | number | undefined): string | undefined =>
  typeof value === "number" ? String(value) : value

/** The transport id of the path; `subnqn` is left out for discovery. */
export const pathParams = (
  operation: string,
  options: PathOptions,
  subnqn: string | undefined
): Checked<PathParams & { readonly subnqn: string | undefined }> => {
  const { adrfam, traddr, trsvcid, trtype = "TCP" } = options
  const resolved = resolveTransportId({
    trtype,
    traddr,
    ...(adrfam === undefined ? {} : { adrfam }),
    ...(trsvcid === undefined ? {} : { trsvcid: textOf(trsvcid) }),
    ...(subnqn === undefined ? {} : { subnqn })
  })
  if (Result.isFailure(resolved)) {
    const { field, rule, value } = resolved.failure
    return failInvalid(operation, field, rule, value)
  }
  const id = resolved.success
  return Effect.succeed({
    trtype: id.trtype,
    traddr: id.traddr,
    adrfam: id.adrfam,
    trsvcid: id.trsvcid === "" ? undefined : id.trsvcid,
    subnqn: id.trtype === "PCIe" ? undefined : subnqn
  })
}

/** Where the connection comes from. */
export const hostParams = Effect.fnUntraced(function* (operation: string, options: PathOptions) {
  const { hostaddr, priority } = options
  if (hostaddr !== undefined && (hostaddr === "" || /[\s\0]/.test(hostaddr))) {
    return yield* failInvalid(operation, "hostaddr", "is empty or contains white space", hostaddr)
  }
  const hostsvcid = textOf(options.hostsvcid)
  if (hostsvcid !== undefined && !(/^\d{1,5}$/.test(hostsvcid) && Number(hostsvcid) <= 65_535)) {
    return yield* failInvalid(operation, "hostsvcid", "is not the number of a port, 0 to 65535", hostsvcid)
  }
  if (priority !== undefined && !(Number.isInteger(priority) && priority >= 0 && priority <= 999)) {
    return yield* failInvalid(operation, "priority", "is not a whole number from 0 to 999", priority)
  }
  return { hostaddr, hostsvcid, priority: textOf(priority) }
})

export const checkNqn = (operation: string, field: string, nqn: string | undefined): Checked<void> => {
  const rule = nqn === undefined ? undefined : nqnRule(nqn)
  return rule === undefined ? Effect.void : failInvalid(operation, field, rule, nqn)
}

const secondsOf = (
  operation: string,
  field: string,
  input: Duration.Input | undefined
): Checked<number | undefined> => {
  if (input === undefined) return Effect.succeed(undefined)
  const duration = Option.getOrUndefined(Duration.fromInput(input))
  const seconds = duration === undefined ? Number.NaN : Duration.toSeconds(duration)
  return Number.isInteger(seconds) && seconds >= 0 && seconds <= maxInt32
    ? Effect.succeed(seconds)
    : failInvalid(operation, field, "is not a duration of whole seconds", String(input))
}

/** SPDK refuses what does not fit together without a word of why. What is left to its defaults it checks itself. */
export const lossParams = Effect.fnUntraced(function* (operation: string, options: LossOptions) {
  const refuse = (field: string, rule: string) => failInvalid(operation, field, rule, showDuration(options, field))
  const loss = options.lossTimeout === "never" ? -1 : yield* secondsOf(operation, "lossTimeout", options.lossTimeout)
  const delay = yield* secondsOf(operation, "reconnectDelay", options.reconnectDelay)
  const fail = yield* secondsOf(operation, "fastIoFailTimeout", options.fastIoFailTimeout)
  if (loss === 0 && (delay ?? 0) > 0) return yield* refuse("reconnectDelay", "needs a lossTimeout above 0")
  if (loss === 0 && (fail ?? 0) > 0) return yield* refuse("fastIoFailTimeout", "needs a lossTimeout above 0")
  if (loss !== undefined && loss !== 0 && delay === 0) {
    return yield* refuse("reconnectDelay", "is less than one second, the minimum with a lossTimeout")
  }
  if (loss !== undefined && loss > 0 && (delay ?? 0) > loss) {
    return yield* refuse("reconnectDelay", `is longer than the lossTimeout of ${loss} seconds`)
  }
  if (loss !== undefined && loss > 0 && (fail ?? 0) > loss) {
    return yield* refuse("fastIoFailTimeout", `is longer than the lossTimeout of ${loss} seconds`)
  }
  if (fail !== undefined && fail > 0 && delay !== undefined && fail < delay) {
    return yield* refuse("fastIoFailTimeout", `is shorter than the reconnectDelay of ${delay} seconds`)
  }
  return { ctrlr_loss_timeout_sec: loss, reconnect_delay_sec: delay, fast_io_fail_timeout_sec: fail }
})

const showDuration = (options: LossOptions, field: string): string =>
  String(field === "reconnectDelay" ? options.reconnectDelay : options.fastIoFailTimeout)

export const controllerParams = Effect.fnUntraced(function* (
  operation: string,
  trtype: string,
  options: ControllerOptions
) {
  const { connectTimeout, dhchapControllerKey, dhchapKey, ioQueues, psk } = options
  for (const field of ["headerDigest", "dataDigest"] as const) {
    if (options[field] === true && trtype !== "TCP") {
      return yield* failInvalid(operation, field, `has no effect with ${trtype}`, true)
    }
  }
  if (psk !== undefined && trtype !== "TCP") return yield* failInvalid(operation, "psk", `has no effect with ${trtype}`)
  if (dhchapControllerKey !== undefined && dhchapKey === undefined) {
    return yield* failInvalid(operation, "dhchapControllerKey", "needs dhchapKey")
  }
  if (ioQueues !== undefined && !(Number.isInteger(ioQueues) && ioQueues >= 1 && ioQueues <= maxIoQueues)) {
    return yield* failInvalid(operation, "ioQueues", `is not a whole number from 1 to ${maxIoQueues}`, ioQueues)
  }
  return {
    ...(yield* lossParams(operation, options)),
    hdgst: options.headerDigest,
    ddgst: options.dataDigest,
    fabrics_connect_timeout_us: yield* microsOf(operation, "connectTimeout", connectTimeout),
    num_io_queues: ioQueues,
    psk: psk === undefined ? undefined : keyName(psk),
    dhchap_key: dhchapKey === undefined ? undefined : keyName(dhchapKey),
    dhchap_ctrlr_key: dhchapControllerKey === undefined ? undefined : keyName(dhchapControllerKey),
    allow_unrecognized_csi: options.allowUnrecognizedCsi
  }
})

const microsOf = (operation: string, field: string, input: Duration.Input | undefined): Checked<number | undefined> => {
  if (input === undefined) return Effect.succeed(undefined)
  const duration = Option.getOrUndefined(Duration.fromInput(input))
  const micros = duration === undefined ? Number.NaN : Math.round(Duration.toMillis(duration) * 1000)
  return Number.isSafeInteger(micros) && micros > 0
    ? Effect.succeed(micros)
    : failInvalid(operation, field, "is not a duration above 0", String(input))
}

export const policyParams = Effect.fnUntraced(function* (operation: string, options: PolicyOptions) {
  const { minIo, policy, selector } = options
  if (policy !== "active_active" && selector !== undefined) {
    return yield* failInvalid(operation, "selector", 'is only for the policy "active_active"', selector)
  }
  if (minIo !== undefined && (policy !== "active_active" || (selector ?? "round_robin") !== "round_robin")) {
    return yield* failInvalid(operation, "minIo", 'is only for the selector "round_robin"', minIo)
  }
  if (minIo !== undefined && !(Number.isInteger(minIo) && minIo >= 1 && minIo <= maxInt32)) {
    return yield* failInvalid(operation, "minIo", "is not a whole number above 0", minIo)
  }
  return { policy, selector, minIo }
})

/** SPDK wants the same of every path that it wanted of the first one. */
export const multipathOpts = Effect.fnUntraced(function* (operation: string, options: PolicyOptions | undefined) {
  if (options === undefined) return undefined
  const { minIo, policy, selector } = yield* policyParams(operation, options)
  return { policy, selector, min_io: minIo }
})

/** What belongs to the controller as a whole, and not to one of its paths. */
export const attachParams = Effect.fnUntraced(function* (operation: string, options: AttachOptions) {
  const { maxBdevs, multipath, policy, subnqn, trtype = "TCP" } = options
  if (subnqn === undefined && (trtype === "TCP" || trtype === "RDMA")) {
    return yield* failInvalid(operation, "subnqn", `is missing, and ${trtype} needs one`)
  }
  yield* checkNqn(operation, "hostnqn", options.hostnqn)
  if (maxBdevs !== undefined && !(Number.isInteger(maxBdevs) && maxBdevs >= 1 && maxBdevs <= 0xffff)) {
    return yield* failInvalid(operation, "maxBdevs", "is not a whole number from 1 to 65535", maxBdevs)
  }
  if (policy !== undefined && multipath !== undefined && multipath !== "multipath") {
    return yield* failInvalid(operation, "policy", `has no effect with multipath "${multipath}"`)
  }
  const multipath_opts = yield* multipathOpts(operation, policy)
  return {
    hostnqn: options.hostnqn,
    multipath,
    multipath_opts,
    max_bdevs: maxBdevs,
    prchk_reftag: options.checkReferenceTag,
    prchk_guard: options.checkGuard
  }
})
