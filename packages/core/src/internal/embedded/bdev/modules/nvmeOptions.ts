/**
 * What `bdev_nvme_set_options` sets for all controllers that are attached later.
 */
import type { RpcMethods } from "../../../../generated/RpcMethods.ts"
import type { LossSettings } from "./nvme.ts"
import { errnoFault, invalidParams, RpcFault } from "../../rpc/table.ts"
import { EINVAL, EPERM } from "../../queue/status.ts"

type Params = RpcMethods["bdev_nvme_set_options"]

/** What is heeded, with SPDK's defaults but for the flush, which reaches the controller on both engines unless it is turned off. */
const heeded = {
  keep_alive_timeout_ms: 10_000,
  transport_retry_count: 4,
  ctrlr_loss_timeout_sec: 0,
  reconnect_delay_sec: 0,
  fast_io_fail_timeout_sec: 0,
  enable_flush: true
}

type Settings = { readonly [name: string]: string | number | boolean }

/** What this engine cannot do differently, and somebody would see: the values that SPDK has by default. */
const fixed: Settings = {
  action_on_timeout: "none",
  timeout_us: 0,
  timeout_admin_us: 0,
  bdev_retry_count: 3,
  disable_auto_failback: false,
  generate_uuids: false,
  nvme_error_stat: false,
  io_path_stat: false,
  tcp_connect_timeout_ms: 0
}

/** What has nothing to act on here and changes no result, with SPDK's defaults. Other values are accepted, with a warning. */
const inert: Settings = {
  arbitration_burst: 0,
  low_priority_weight: 0,
  medium_priority_weight: 0,
  high_priority_weight: 0,
  nvme_adminq_poll_period_us: 10_000,
  nvme_ioq_poll_period_us: 0,
  io_queue_requests: 0,
  delay_cmd_submit: true,
  transport_ack_timeout: 0,
  transport_tos: 0,
  rdma_srq_size: 0,
  allow_accel_sequence: false,
  rdma_max_cq_size: 0,
  rdma_cm_event_timeout_ms: 0,
  rdma_umr_per_io: false
}

/** All of them, which is what a saved configuration has. */
const dhchap = {
  dhchap_digests: ["sha256", "sha384", "sha512"],
  dhchap_dhgroups: ["null", "ffdhe2048", "ffdhe3072", "ffdhe4096", "ffdhe6144", "ffdhe8192"]
}

const maxUint8 = 0xff

export type NvmeOptions = typeof heeded

export const defaultOptions: NvmeOptions = heeded

type LossParams = Pick<Params, "ctrlr_loss_timeout_sec" | "reconnect_delay_sec" | "fast_io_fail_timeout_sec">

/** What is not given is as the options of the module have it. */
export const lossOf = (given: LossParams, options: NvmeOptions): LossSettings => ({
  lossTimeoutSeconds: given.ctrlr_loss_timeout_sec ?? options.ctrlr_loss_timeout_sec,
  reconnectDelaySeconds: given.reconnect_delay_sec ?? options.reconnect_delay_sec,
  fastFailSeconds: given.fast_io_fail_timeout_sec ?? options.fast_io_fail_timeout_sec
})

/** Timeouts that fit together. */
export const isResilient = ({ fastFailSeconds, lossTimeoutSeconds, reconnectDelaySeconds }: LossSettings): boolean => {
  if (lossTimeoutSeconds < -1) return false
  if (lossTimeoutSeconds === 0) return reconnectDelaySeconds === 0 && fastFailSeconds === 0
  if (reconnectDelaySeconds === 0) return false
  if (fastFailSeconds !== 0 && fastFailSeconds < reconnectDelaySeconds) return false
  return (
    lossTimeoutSeconds === -1 || (reconnectDelaySeconds <= lossTimeoutSeconds && fastFailSeconds <= lossTimeoutSeconds)
  )
}

/** The one way of several paths that there is here. */
export const isOnlyPolicy = (options: Params["multipath_opts"]): boolean =>
  options === undefined ||
  ((options.policy ?? "active_passive") === "active_passive" &&
    options.selector === undefined &&
    options.min_io === undefined)

const isSame = (given: ReadonlyArray<string>, all: ReadonlyArray<string>): boolean =>
  given.length === all.length && all.every((one) => given.includes(one))

const unsupported = (name: string, value: unknown): RpcFault =>
  invalidParams(`${name}: the embedded engine's NVMe bdevs cannot be set to ${show(value)}`)

const show = (value: unknown): string =>
  typeof value === "bigint" ? `${value}` : (JSON.stringify(value) ?? String(value))

const plain = (value: unknown): unknown => (typeof value === "bigint" ? Number(value) : value)

/** Those of the parameters that are accepted without effect. */
export const withoutEffect = (params: Params): ReadonlyArray<string> =>
  Object.entries(params)
    .filter(([name, value]) => value !== undefined && name in inert && plain(value) !== inert[name])
    .map(([name]) => `${name} of bdev_nvme_set_options`)

const refused = (params: Params): RpcFault | undefined => {
  for (const [name, value] of Object.entries(params)) {
    if (value === undefined || name in heeded || name in inert) continue
    const isFixed =
      name === "multipath_opts"
        ? isOnlyPolicy(params.multipath_opts)
        : name === "dhchap_digests" || name === "dhchap_dhgroups"
          ? isSame(params[name] ?? [], dhchap[name])
          : fixed[name] === plain(value)
    if (!isFixed) return unsupported(name, value)
  }
  return undefined
}

/** The options as they are then, or why not. SPDK takes none while there are controllers. */
export const changedOptions = (
  before: NvmeOptions,
  params: Params,
  hasControllers: boolean
): NvmeOptions | RpcFault => {
  const fault = refused(params)
  if (fault !== undefined) return fault
  const given = Object.fromEntries(
    Object.entries(params).filter(([name, value]) => name in heeded && value !== undefined)
  )
  const options: NvmeOptions = { ...before, ...given }
  if (!isResilient(lossOf(options, options))) return errnoFault(-EINVAL)
  if (options.transport_retry_count > maxUint8)
    return unsupported("transport_retry_count", options.transport_retry_count)
  return hasControllers ? new RpcFault(-EPERM, "RPC not permitted with nvme controllers already attached") : options
}

export const optionsCall = (options: NvmeOptions) => ({
  method: "bdev_nvme_set_options",
  params: { ...fixed, ...inert, ...options, ...dhchap, multipath_opts: { policy: "active_passive" } }
})
