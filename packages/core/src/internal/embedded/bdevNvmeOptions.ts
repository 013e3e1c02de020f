/**
 * What `bdev_nvme_set_options` sets for all controllers that are attached later.
 */
import type { RpcMethods } from "../../generated/RpcMethods.ts"
import type { LossOptions } from "./bdevNvme.ts"
import { errnoFault, invalidParams, RpcFault } from "./rpcTable.ts"
import { EINVAL, EPERM } from "./status.ts"

type Params = RpcMethods["bdev_nvme_set_options"]

/** What is heeded, with SPDK's defaults. */
const heeded = {
  keep_alive_timeout_ms: 10_000,
  transport_retry_count: 4,
  ctrlr_loss_timeout_sec: 0,
  reconnect_delay_sec: 0,
  fast_io_fail_timeout_sec: 0,
  enable_flush: false
}

/** What this engine cannot do differently: the values that SPDK has by default. */
const fixed: { readonly [name: string]: string | number | boolean } = {
  action_on_timeout: "none",
  timeout_us: 0,
  timeout_admin_us: 0,
  arbitration_burst: 0,
  low_priority_weight: 0,
  medium_priority_weight: 0,
  high_priority_weight: 0,
  nvme_adminq_poll_period_us: 10_000,
  nvme_ioq_poll_period_us: 0,
  io_queue_requests: 512,
  delay_cmd_submit: true,
  bdev_retry_count: 3,
  transport_ack_timeout: 0,
  disable_auto_failback: false,
  generate_uuids: false,
  transport_tos: 0,
  nvme_error_stat: false,
  rdma_srq_size: 0,
  io_path_stat: false,
  allow_accel_sequence: false,
  rdma_max_cq_size: 0,
  rdma_cm_event_timeout_ms: 0,
  rdma_umr_per_io: false,
  tcp_connect_timeout_ms: 0
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
export const lossOf = (given: LossParams, options: NvmeOptions): LossOptions => ({
  lossTimeoutSeconds: given.ctrlr_loss_timeout_sec ?? options.ctrlr_loss_timeout_sec,
  reconnectDelaySeconds: given.reconnect_delay_sec ?? options.reconnect_delay_sec,
  fastFailSeconds: given.fast_io_fail_timeout_sec ?? options.fast_io_fail_timeout_sec
})

/** Timeouts that fit together. */
export const isResilient = ({ fastFailSeconds, lossTimeoutSeconds, reconnectDelaySeconds }: LossOptions): boolean => {
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

const refused = (params: Params): RpcFault | undefined => {
  for (const [name, value] of Object.entries(params)) {
    if (value === undefined || name in heeded) continue
    const isFixed =
      name === "multipath_opts"
        ? isOnlyPolicy(params.multipath_opts)
        : name === "dhchap_digests" || name === "dhchap_dhgroups"
          ? isSame(params[name] ?? [], dhchap[name])
          : fixed[name] === (typeof value === "bigint" ? Number(value) : value)
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
  params: { ...fixed, ...options, ...dhchap, multipath_opts: { policy: "active_passive" } }
})
