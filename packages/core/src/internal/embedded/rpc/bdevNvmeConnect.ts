/**
 * Where the RPC methods of NVMe bdevs and of discovery services are told to connect to, and as whom.
 */
import type { RpcMethods } from "../../../generated/RpcMethods.ts"
import type { NvmeConnectSettings, NvmeTransportIdFields } from "../../engine/nvme.ts"
import type { NvmeModule } from "../bdev/modules/nvmeModule.ts"
import { RpcFault } from "./table.ts"
import { EINVAL } from "../queue/status.ts"

type Attach = RpcMethods["bdev_nvme_attach_controller"]

export const defaultIoQueues = 127
export const defaultConnectMicros = 500_000
const queueEntries = 128

const families = { ipv4: "IPv4", ipv6: "IPv6" } as const

export const transportIdOf = (
  params: Pick<Attach, "adrfam" | "traddr" | "trsvcid">,
  subnqn: string
): NvmeTransportIdFields => {
  const family = params.adrfam?.toLowerCase()
  return {
    trtype: "TCP",
    adrfam: family === "ipv4" || family === "ipv6" ? families[family] : undefined,
    traddr: params.traddr,
    trsvcid: params.trsvcid ?? "",
    subnqn,
    priority: 0
  }
}

/** As SPDK connects when it is told no more than whose name to use. */
export const connectSettings = (
  { hostId, hostNqn, options }: NvmeModule,
  hostnqn: string | undefined
): NvmeConnectSettings => ({
  hostnqn: hostnqn ?? hostNqn,
  hostId,
  sourceAddress: "",
  sourcePort: "",
  ioQueues: defaultIoQueues,
  ioQueueSize: queueEntries,
  adminQueueSize: 32,
  keepAliveMillis: options.keep_alive_timeout_ms,
  connectTimeoutMillis: defaultConnectMicros / 1000,
  adminTimeoutMillis: 0,
  ioTimeoutMillis: 0,
  headerDigest: false,
  dataDigest: false,
  retries: options.transport_retry_count,
  psk: undefined,
  dhchapKey: undefined,
  dhchapControllerKey: undefined
})

/** What of the address this host cannot use. */
export const addressFault = ({ adrfam, trtype }: Pick<Attach, "adrfam" | "trtype">): RpcFault | undefined => {
  if (trtype.toUpperCase() !== "TCP") return new RpcFault(-EINVAL, `Failed to parse trtype: ${trtype}`)
  return adrfam === undefined || Object.hasOwn(families, adrfam.toLowerCase())
    ? undefined
    : new RpcFault(-EINVAL, `Failed to parse adrfam: ${adrfam}`)
}
