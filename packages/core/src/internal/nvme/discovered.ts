/**
 * Entries of the discovery log as transport ids.
 */
import * as Result from "effect/Result"
import type { DiscoveredSubsystem, DiscoveryEntry } from "../../NvmeData.ts"
import type { NvmeTransportIdFields } from "../engine/nvme.ts"
import { DiscoveryAddressFamily, DiscoverySubsystemType, DiscoveryTransport } from "./wire/logPages.ts"
import { resolveTransportId } from "./transportId.ts"

const nameOf = <Names extends Readonly<Record<string, number>>>(names: Names, code: number): string | undefined =>
  Object.entries(names).find(([, value]) => value === code)?.[0]

const types: Readonly<Record<number, DiscoveredSubsystem["type"]>> = {
  [DiscoverySubsystemType.referral]: "referral",
  [DiscoverySubsystemType.nvme]: "nvme",
  [DiscoverySubsystemType.currentDiscovery]: "discovery"
}

export const subsystemOf = (entry: DiscoveryEntry): DiscoveredSubsystem => ({
  transportId: transportIdOf(entry),
  type: types[entry.subtype] ?? "other",
  subnqn: entry.subnqn,
  entry
})

/** Undefined when nothing here can connect by it. */
const transportIdOf = (entry: DiscoveryEntry): NvmeTransportIdFields | undefined => {
  const resolved = resolveTransportId({
    trtype: nameOf(DiscoveryTransport, entry.trtype),
    adrfam: nameOf(DiscoveryAddressFamily, entry.adrfam),
    traddr: entry.traddr,
    trsvcid: entry.trsvcid,
    subnqn: entry.subnqn
  })
  return Result.isSuccess(resolved) ? resolved.success : undefined
}
