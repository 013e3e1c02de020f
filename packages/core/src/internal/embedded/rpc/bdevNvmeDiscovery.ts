/**
 * The RPC methods of discovery services.
 */
import * as Effect from "effect/Effect"
import { discoveryNqn } from "../../nvme/wire/nqn.ts"
import { DiscoveryService, isSameId } from "../bdev/modules/nvmeDiscovery.ts"
import type { NvmeModule } from "../bdev/modules/nvmeModule.ts"
import { lossOf } from "../bdev/modules/nvmeOptions.ts"
import { addressFault, connectSettings, transportIdOf } from "./bdevNvmeConnect.ts"
import { errnoFault, type RpcTable, trueOrErrno } from "./table.ts"
import { EEXIST, ENOENT } from "../queue/status.ts"

/** SPDK starts services without the options of `bdev_nvme_set_options`. */
const noLoss = { ctrlr_loss_timeout_sec: 0, reconnect_delay_sec: 0, fast_io_fail_timeout_sec: 0 }

export const addNvmeDiscovery = (table: RpcTable, module: NvmeModule): void => {
  const { discoveries } = module
  table.add("bdev_nvme_start_discovery", (params) => {
    const fault = addressFault(params)
    if (fault !== undefined) return Effect.fail(fault)
    const { attach_timeout_ms: limit = 0, name } = params
    const transportId = transportIdOf(params, discoveryNqn)
    const isTaken = [...discoveries.values()].some(
      (one) =>
        one.name === name || [one.inUse, ...one.referrals].some((id) => id !== undefined && isSameId(id, transportId))
    )
    if (isTaken) return Effect.fail(errnoFault(-EEXIST))
    const isAwaited = params.wait_for_attach === true || Number(limit) !== 0
    const service = new DiscoveryService(module, {
      name,
      transportId,
      loss: lossOf(params, { ...module.options, ...noLoss }),
      isAwaited,
      settings: connectSettings(module, params.hostnqn)
    })
    discoveries.set(name, service)
    const started = service.start(Number(limit))
    return isAwaited
      ? Effect.flatMap(started, trueOrErrno)
      : Effect.as(Effect.forkDetach(started, { startImmediately: true }), true)
  })
  table.add("bdev_nvme_stop_discovery", ({ name }) => {
    const service = discoveries.get(name)
    return service === undefined ? Effect.fail(errnoFault(-ENOENT)) : Effect.flatMap(service.stopOnce, trueOrErrno)
  })
  table.addBlind("bdev_nvme_get_discovery_info", () =>
    Effect.succeed([...discoveries.values()].map((one) => one.describe()))
  )
}
