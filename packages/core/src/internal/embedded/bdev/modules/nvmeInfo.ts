/**
 * What RPC answers tell of NVMe controllers and namespaces, in SPDK's shape.
 */
import type { NvmeTransportIdFields } from "../../../engine/nvme.ts"
import type { AnaState } from "../../../nvme/wire/logPages.ts"
import type { HostController } from "../../nvme/controller.ts"
import type { NamespaceFacts } from "../../nvme/initialise.ts"

export const describePath = ({ adrfam, subnqn, traddr, trsvcid, trtype }: NvmeTransportIdFields) => ({
  trtype,
  ...(adrfam === undefined ? {} : { adrfam }),
  traddr,
  trsvcid,
  subnqn
})

/** SPDK's names, and its guess before the states are read. */
const anaName = (state: AnaState | undefined): string =>
  state === undefined ? "optimized" : (anaNames[state] ?? state)

const anaNames: Partial<Record<AnaState, string>> = {
  nonOptimized: "non_optimized",
  persistentLoss: "persistent_loss"
}

const hex4 = (value: number): string => `0x${value.toString(16).padStart(4, "0")}`

export const describeNvme = ({ anaStates, facts, transportId }: HostController, namespace: NamespaceFacts) => {
  const identify = facts?.identify
  const vs = facts?.vs ?? 0
  const tertiary = vs & 0xff
  const flag = (value: boolean | undefined): number => (value === true ? 1 : 0)
  return {
    trid: describePath(transportId),
    ctrlr_data: {
      cntlid: identify?.controllerId ?? 0,
      vendor_id: hex4(identify?.pciVendorId ?? 0),
      model_number: identify?.modelNumber ?? "",
      serial_number: identify?.serialNumber ?? "",
      firmware_revision: identify?.firmwareRevision ?? "",
      subnqn: identify?.subnqn ?? "",
      oacs: {
        security: flag(identify?.adminCommands.security),
        format: flag(identify?.adminCommands.formatNvm),
        firmware: flag(identify?.adminCommands.firmware),
        ns_manage: flag(identify?.adminCommands.namespaceManagement)
      },
      multi_ctrlr: identify?.multiPath.multipleControllers ?? false,
      ana_reporting: identify?.multiPath.anaReporting ?? false
    },
    vs: { nvme_version: `${vs >>> 16}.${(vs >>> 8) & 0xff}${tertiary === 0 ? "" : `.${tertiary}`}` },
    ns_data: {
      id: namespace.nsid,
      ...(identify?.multiPath.anaReporting === true ? { ana_state: anaName(anaStates.get(namespace.anaGroup)) } : {}),
      can_share: namespace.isShared
    }
  }
}
