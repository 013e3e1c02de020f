/**
 * The RPC methods of NVMe bdevs.
 */
import * as Effect from "effect/Effect"
import type { RpcMethods } from "../../../generated/RpcMethods.ts"
import type { NvmeConnectSettings } from "../../engine/nvme.ts"
import type { ChannelThread, Json } from "../bdev/bdev.ts"
import type { LossSettings, NvmeBdevController, NvmePath } from "../bdev/modules/nvme.ts"
import { describePath } from "../bdev/modules/nvmeInfo.ts"
import type { BdevModule } from "../bdev/module.ts"
import type { NvmeModule } from "../bdev/modules/nvmeModule.ts"
import { changedOptions, isOnlyPolicy, isResilient, lossOf, withoutEffect } from "../bdev/modules/nvmeOptions.ts"
import type { BdevRegistry } from "../bdev/registry.ts"
import { DiskChannel } from "../nvme/disk.ts"
import {
  addressFault,
  connectSettings,
  defaultConnectMicros,
  defaultIoQueues,
  transportIdOf
} from "./bdevNvmeConnect.ts"
import { addNvmeDiscovery } from "./bdevNvmeDiscovery.ts"
import { errnoFault, invalidParams, RpcFault, type RpcTable } from "./table.ts"
import { EALREADY, EEXIST, EINVAL, EIO, ENODEV, ERANGE } from "../queue/status.ts"

type Attach = RpcMethods["bdev_nvme_attach_controller"]

const maxNameBytes = 512
/** What the Connect command has room for. */
const maxNqnBytes = 223
const defaultMaxBdevs = 128

/** What this module cannot do is refused. */
const notHere: ReadonlyArray<keyof Attach> = [
  "priority",
  "prchk_reftag",
  "prchk_guard",
  "psk",
  "dhchap_key",
  "dhchap_ctrlr_key",
  "allow_unrecognized_csi"
]

/** NVMe bdevs as a module: attaching a controller makes them, and detaching it deletes them. */
export const nvmeBdevModule = (nvme: NvmeModule, registry: BdevRegistry): BdevModule => ({
  name: "nvme",
  bases: "none",
  create: (table) => addAttach(table, nvme),
  delete: (table) => addDetach(table, nvme),
  others: [
    (table) => addControllers(table, nvme),
    (table) => addIoPaths(table, nvme),
    (table) => addOptions(table, nvme, registry),
    (table) => addNvmeDiscovery(table, nvme)
  ],
  examine: undefined,
  configCalls: (withBatches) => nvme.configCalls(withBatches)
})

const missing = errnoFault(-ENODEV)

const addAttach = (table: RpcTable, module: NvmeModule): void => {
  const { controllers } = module
  table.add("bdev_nvme_attach_controller", (params) =>
    Effect.suspend(() => {
      const loss = lossOf(params, module.options)
      const fault = refused(params, loss, controllers)
      if (fault !== undefined) return Effect.fail(fault)
      const { max_bdevs: maxBdevs = defaultMaxBdevs, multipath: mode = "multipath", name } = params
      const path = pathOf(params, module)
      const known = controllers.get(name)
      if (known !== undefined) known.addPath(path)
      const attached =
        known === undefined ? module.attach({ name, path, loss, mode, isDiscovered: false }) : Effect.succeed(known)
      // As in SPDK this limits what can be answered: the controller stays attached, with all its bdevs.
      return Effect.flatMap(attached, ({ names }) =>
        names.length > maxBdevs ? Effect.fail(errnoFault(-ERANGE)) : Effect.succeed(names)
      )
    })
  )
}

const addDetach = (table: RpcTable, { controllers }: NvmeModule): void =>
  table.add("bdev_nvme_detach_controller", (params) => {
    const { name, ...path } = params
    const controller = controllers.get(name)
    if (controller === undefined || controller.isRemoved) return Effect.fail(missing)
    const matches = controller.paths.filter(
      ({ settings, transportId }) =>
        (path.trtype === undefined || path.trtype.toUpperCase() === transportId.trtype) &&
        (path.adrfam === undefined || path.adrfam.toLowerCase() === transportId.adrfam?.toLowerCase()) &&
        (path.traddr === undefined || path.traddr === transportId.traddr) &&
        (path.trsvcid === undefined || path.trsvcid === transportId.trsvcid) &&
        (path.subnqn === undefined || path.subnqn === transportId.subnqn) &&
        (path.hostaddr === undefined || path.hostaddr === settings.sourceAddress) &&
        (path.hostsvcid === undefined || path.hostsvcid === settings.sourcePort)
    )
    return matches.length === 0 ? Effect.fail(missing) : Effect.as(controller.removePaths(matches), true)
  })

const addControllers = (table: RpcTable, { controllers }: NvmeModule): void => {
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

const refused = (
  params: Attach,
  loss: LossSettings,
  controllers: ReadonlyMap<string, NvmeBdevController>
): RpcFault | undefined => {
  const { name } = params
  const trouble = (errno: number, message: string): RpcFault => new RpcFault(-errno, message)
  for (const field of notHere) {
    if (params[field] !== undefined && params[field] !== false) {
      return invalidParams(`${field}: the embedded engine does not have it`)
    }
  }
  if (!isOnlyPolicy(params.multipath_opts)) {
    return invalidParams("multipath_opts: the embedded engine does not have it")
  }
  const address = addressFault(params)
  if (address !== undefined) return address
  for (const field of ["subnqn", "hostnqn"] as const) {
    const nqn = params[field] ?? ""
    if (Buffer.byteLength(nqn) > maxNqnBytes) return trouble(EINVAL, `${field} too long: ${nqn}`)
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
  return isNamed && isResilient(loss) ? undefined : errnoFault(-EINVAL)
}

const pathOf = (params: Attach, module: NvmeModule): NvmePath => {
  const settings: NvmeConnectSettings = {
    ...connectSettings(module, params.hostnqn),
    sourceAddress: params.hostaddr ?? "",
    sourcePort: params.hostsvcid ?? "",
    ioQueues: Math.min(params.num_io_queues ?? defaultIoQueues, 65_535),
    connectTimeoutMillis: Math.max(1, Number(params.fabrics_connect_timeout_us ?? defaultConnectMicros) / 1000),
    headerDigest: params.hdgst ?? false,
    dataDigest: params.ddgst ?? false
  }
  return { transportId: transportIdOf(params, params.subnqn ?? ""), settings }
}

/** The paths of the bdevs, by the thread that has a channel. Of a controller only the path in use is connected. */
const addIoPaths = (table: RpcTable, { controllers }: NvmeModule): void =>
  table.add(
    "bdev_nvme_get_io_paths",
    ({ name }) => {
      const threads = new Map<ChannelThread, Array<Json>>()
      for (const controller of controllers.values()) {
        for (const bdev of controller.bdevs.values()) {
          for (const [thread, channel] of bdev.channels) {
            const paths = threads.get(thread) ?? []
            threads.set(thread, paths)
            if (name !== undefined && name !== bdev.name) continue
            const isConnected = channel instanceof DiskChannel && channel.queue.state === "up"
            paths.push(describeIoPath(controller, bdev.name, bdev.facts.anaGroup, isConnected))
          }
        }
      }
      return Effect.succeed({
        poll_groups: [...threads].map(([thread, paths]) => ({ thread: thread.name, io_paths: paths }))
      })
    },
    { isOptional: true, onInvalid: invalidParams("bdev_nvme_get_io_paths requires no parameters") }
  )

const describeIoPath = (
  { controller }: NvmeBdevController,
  bdevName: string,
  anaGroup: number,
  connected: boolean
): Json => {
  const { subnqn: _, ...transport } = describePath(controller.transportId)
  const state = controller.anaStates.get(anaGroup) ?? "optimized"
  return {
    bdev_name: bdevName,
    cntlid: controller.facts?.identify.controllerId ?? 0,
    current: connected,
    connected,
    accessible: state === "optimized" || state === "nonOptimized",
    transport
  }
}

const addOptions = (table: RpcTable, module: NvmeModule, registry: BdevRegistry): void =>
  table.addAnytime(
    "bdev_nvme_set_options",
    (params) => {
      const changed = changedOptions(module.options, params, module.controllers.size > 0)
      if (changed instanceof RpcFault) return Effect.fail(changed)
      module.options = changed
      registry.withoutEffect.note(...withoutEffect(params))
      return Effect.succeed(true)
    },
    { isOptional: true }
  )

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
