/**
 * The RPC methods of NVMe bdevs.
 */
import * as Effect from "effect/Effect"
import { randomUUID } from "node:crypto"
import type { RpcMethods } from "../../generated/RpcMethods.ts"
import type { SpdkError } from "../../SpdkError.ts"
import type { NvmeConnectSettings, NvmeTransportIdFields } from "../engineNvme.ts"
import { parseUuid } from "../nvme/identify.ts"
import { nqnOfUuid } from "../nvme/nqn.ts"
import { type LossOptions, NvmeBdevController, type NvmePath } from "./bdevNvme.ts"
import { describePath } from "./bdevNvmeInfo.ts"
import type { BdevRegistry } from "./bdevRegistry.ts"
import { addressOf } from "./nvme/address.ts"
import { errnoFault, invalidParams, RpcFault, type RpcTable } from "./rpcTable.ts"
import { EEXIST, EINVAL, EIO, ENODEV, ENOTSUP } from "./status.ts"

type Attach = RpcMethods["bdev_nvme_attach_controller"]

const EALREADY = 114
const maxNameBytes = 512
const defaultIoQueues = 127
const queueEntries = 128
const keepAliveMillis = 10_000
const defaultRetries = 4

/** What this module cannot do is refused. */
const notHere: ReadonlyArray<keyof Attach> = [
  "priority",
  "prchk_reftag",
  "prchk_guard",
  "psk",
  "dhchap_key",
  "dhchap_ctrlr_key",
  "allow_unrecognized_csi",
  "multipath_opts"
]

const families = { ipv4: "IPv4", ipv6: "IPv6" } as const

export const addBdevNvme = (table: RpcTable, registry: BdevRegistry): void => {
  const controllers = new Map<string, NvmeBdevController>()
  const hostUuid = randomUUID()
  const missing = errnoFault(-ENODEV)
  table.add("bdev_nvme_attach_controller", (params) =>
    Effect.suspend(() => {
      const fault = refused(params, controllers)
      if (fault !== undefined) return Effect.fail(fault)
      const path = pathOf(params, hostUuid)
      const known = controllers.get(params.name)
      if (known !== undefined) {
        known.paths.push(path)
        return Effect.succeed([...known.bdevs.values()].map(({ name }) => name))
      }
      return attach(registry, controllers, params.name, path, lossOf(params))
    })
  )
  table.add("bdev_nvme_detach_controller", (params) => {
    const { name, ...path } = params
    const controller = controllers.get(name)
    if (controller === undefined || controller.isRemoved) return Effect.fail(missing)
    const matches = controller.paths.filter(
      ({ transportId }) =>
        (path.traddr === undefined || path.traddr === transportId.traddr) &&
        (path.trsvcid === undefined || path.trsvcid === transportId.trsvcid) &&
        (path.subnqn === undefined || path.subnqn === transportId.subnqn)
    )
    if (matches.length === 0) return Effect.fail(missing)
    // Only some of its paths, and not the one in use.
    if (matches.length < controller.paths.length && controller.paths[0] !== matches[0]) {
      for (const one of matches) controller.paths.splice(controller.paths.indexOf(one), 1)
      return Effect.succeed(true)
    }
    if (matches.length < controller.paths.length) {
      return Effect.fail(invalidParams("the path in use: the embedded engine gives it up only with the controller"))
    }
    return Effect.as(controller.remove, true)
  })
  table.add("bdev_nvme_reset_controller", ({ cntlid, name }) => {
    const controller = controllers.get(name)
    if (controller === undefined || controller.isRemoved) return Effect.fail(missing)
    if (cntlid !== undefined && cntlid !== controller.controller.facts?.controllerId) return Effect.fail(missing)
    return Effect.mapBoth(controller.reset, { onFailure: () => errnoFault(-EIO), onSuccess: () => true })
  })
  table.add(
    "bdev_nvme_get_controllers",
    ({ name }) => {
      if (name !== undefined && !controllers.has(name)) {
        return Effect.fail(new RpcFault(-EINVAL, `Controller ${name} does not exist`))
      }
      return Effect.succeed(
        [...controllers.values()].filter((one) => name === undefined || one.name === name).map(describeController)
      )
    },
    { isOptional: true }
  )
}

const attach = (
  registry: BdevRegistry,
  controllers: Map<string, NvmeBdevController>,
  name: string,
  path: NvmePath,
  loss: LossOptions
): Effect.Effect<ReadonlyArray<string>, RpcFault> =>
  Effect.flatMap(
    Effect.mapError(addressOf("bdev_nvme_attach_controller", path.transportId, path.settings), faultOf),
    (address) => {
      const controller = new NvmeBdevController(registry, name, { path, loss, address }, () => {
        if (controllers.get(name) === controller) controllers.delete(name)
      })
      controllers.set(name, controller)
      return Effect.onExit(
        Effect.mapError(controller.connect, () => errnoFault(-EIO)),
        (exit) => (exit._tag === "Failure" ? controller.remove : Effect.void)
      )
    }
  )

const faultOf = ({ message, reason }: SpdkError): RpcFault =>
  new RpcFault(reason._tag === "NotSupported" ? -ENOTSUP : -EINVAL, message)

const refused = (params: Attach, controllers: ReadonlyMap<string, NvmeBdevController>): RpcFault | undefined => {
  const { name, trtype } = params
  const trouble = (errno: number, message: string): RpcFault => new RpcFault(-errno, message)
  for (const field of notHere) {
    if (params[field] !== undefined && params[field] !== false) {
      return invalidParams(`${field}: the embedded engine does not have it`)
    }
  }
  if (trtype.toUpperCase() !== "TCP") return trouble(EINVAL, `Failed to parse trtype: ${trtype}`)
  if (params.adrfam !== undefined && !Object.hasOwn(families, params.adrfam.toLowerCase())) {
    return trouble(EINVAL, `Failed to parse adrfam: ${params.adrfam}`)
  }
  if (params.max_bdevs === 0) return trouble(EINVAL, "max_bdevs cannot be zero")
  const known = controllers.get(name)
  if (known !== undefined) {
    if (params.multipath === "disable") {
      return trouble(EALREADY, `A controller named ${name} already exists and multipath is disabled`)
    }
    const isSame = known.paths.some(
      ({ transportId }) => transportId.traddr === params.traddr && transportId.trsvcid === (params.trsvcid ?? "")
    )
    if (isSame) return trouble(EALREADY, `A controller named ${name} already exists with the specified network path`)
    const { subnqn } = known.controller.transportId
    if (subnqn !== params.subnqn) {
      return trouble(EINVAL, `A controller named ${name} already exists, but uses a different subnqn (${subnqn})`)
    }
    if (params.multipath !== "failover") {
      return invalidParams("multipath: further paths of the embedded engine are for failover")
    }
  }
  const queues = params.num_io_queues ?? defaultIoQueues
  if (queues === 0 || queues > 65_536) return trouble(EINVAL, "num_io_queues out of bounds, min: 1 max: 65536")
  for (const { paths } of controllers.values()) {
    for (const { transportId } of paths) {
      const { subnqn, traddr, trsvcid } = transportId
      if (traddr === params.traddr && trsvcid === params.trsvcid && subnqn === params.subnqn) return errnoFault(-EEXIST)
    }
  }
  const isNamed = name.length > 0 && name.length < maxNameBytes
  return isNamed && isResilient(lossOf(params)) ? undefined : errnoFault(-EINVAL)
}

const lossOf = (params: Attach): LossOptions => ({
  lossTimeoutSeconds: params.ctrlr_loss_timeout_sec ?? 0,
  reconnectDelaySeconds: params.reconnect_delay_sec ?? 0,
  fastFailSeconds: params.fast_io_fail_timeout_sec ?? 0
})

/** Timeouts that fit together. */
const isResilient = ({ fastFailSeconds, lossTimeoutSeconds, reconnectDelaySeconds }: LossOptions): boolean => {
  if (lossTimeoutSeconds < -1) return false
  if (lossTimeoutSeconds === 0) return reconnectDelaySeconds === 0 && fastFailSeconds === 0
  if (reconnectDelaySeconds === 0) return false
  if (fastFailSeconds !== 0 && fastFailSeconds < reconnectDelaySeconds) return false
  return (
    lossTimeoutSeconds === -1 || (reconnectDelaySeconds <= lossTimeoutSeconds && fastFailSeconds <= lossTimeoutSeconds)
  )
}

const pathOf = (params: Attach, hostUuid: string): NvmePath => {
  const family = params.adrfam?.toLowerCase()
  const transportId: NvmeTransportIdFields = {
    trtype: "TCP",
    adrfam: family === "ipv4" || family === "ipv6" ? families[family] : undefined,
    traddr: params.traddr,
    trsvcid: params.trsvcid ?? "",
    subnqn: params.subnqn ?? "",
    priority: 0
  }
  const settings: NvmeConnectSettings = {
    hostnqn: params.hostnqn ?? nqnOfUuid(hostUuid),
    hostId: parseUuid(hostUuid),
    sourceAddress: params.hostaddr ?? "",
    sourcePort: params.hostsvcid ?? "",
    ioQueues: Math.min(params.num_io_queues ?? defaultIoQueues, 65_535),
    ioQueueSize: queueEntries,
    adminQueueSize: 32,
    keepAliveMillis,
    connectTimeoutMillis: Math.max(1, Number(params.fabrics_connect_timeout_us ?? 500_000) / 1000),
    adminTimeoutMillis: 0,
    headerDigest: params.hdgst ?? false,
    dataDigest: params.ddgst ?? false,
    retries: defaultRetries,
    psk: undefined,
    dhchapKey: undefined,
    dhchapControllerKey: undefined
  }
  return { transportId, settings }
}

const describeController = ({ controller, name, paths, state }: NvmeBdevController) => {
  const [, ...others] = paths
  const { facts, settings, transportId } = controller
  return {
    name,
    ctrlrs: [
      {
        state,
        trid: describePath(transportId),
        ...(others.length === 0 ? {} : { alternate_trids: others.map((path) => describePath(path.transportId)) }),
        cntlid: facts?.identify.controllerId ?? 0,
        host: {
          nqn: settings.hostnqn,
          addr: settings.sourceAddress,
          svcid: settings.sourcePort,
          no_shn_notification: false
        }
      }
    ]
  }
}
