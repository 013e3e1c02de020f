/**
 * What a discovery controller knows, as transport ids.
 */
import type * as Effect from "effect/Effect"
import type { SpdkError } from "../../../SpdkError.ts"
import type { NvmeTransportIdFields } from "../../engine/nvme.ts"
import { subsystemOf } from "../../nvme/discovered.ts"
import { readDiscoveryLog } from "../../nvme/discoveryLog.ts"
import { type DiscoveryEntry, DiscoverySubsystemType, LogPageId } from "../../nvme/wire/logPages.ts"
import type { HostController } from "./controller.ts"

/** Every controller takes commands that carry so much. */
const maxReadBytes = 4096

export const readDiscoveryEntries = (
  { admin, resource }: HostController,
  operation: string
): Effect.Effect<ReadonlyArray<DiscoveryEntry>, SpdkError> =>
  readDiscoveryLog<SpdkError>({
    operation,
    resource,
    maxReadBytes,
    read: (offsetBytes, lengthBytes) => admin.getLogPage(operation, LogPageId.discovery, lengthBytes, offsetBytes)
  })

/** The NVM subsystems among the entries, by transports that have a name here. */
export const transportIdsOf = (entries: ReadonlyArray<DiscoveryEntry>): ReadonlyArray<NvmeTransportIdFields> =>
  entries.flatMap((entry) => (entry.subtype === DiscoverySubsystemType.nvme ? transportIdOf(entry) : []))

/** The discovery controllers among the entries, the one that was asked as one of them. */
export const referralsOf = (entries: ReadonlyArray<DiscoveryEntry>): ReadonlyArray<NvmeTransportIdFields> =>
  entries.flatMap((entry) => (entry.subtype === DiscoverySubsystemType.nvme ? [] : transportIdOf(entry)))

const transportIdOf = (entry: DiscoveryEntry): ReadonlyArray<NvmeTransportIdFields> => {
  const { transportId } = subsystemOf(entry)
  return transportId === undefined ? [] : [transportId]
}
