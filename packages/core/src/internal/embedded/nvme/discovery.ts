/**
 * The discovery log of a discovery controller, page by page, read again when it has changed in between.
 */
import * as Effect from "effect/Effect"
import { IoFailed, SpdkError } from "../../../SpdkError.ts"
import type { NvmeTransportIdFields } from "../../engineNvme.ts"
import {
  decodeDiscoveryEntry,
  decodeDiscoveryHeader,
  DiscoveryAddressFamily,
  type DiscoveryEntry,
  discoveryEntryBytes,
  discoveryHeaderBytes,
  DiscoverySubsystemType,
  DiscoveryTransport,
  LogPageId
} from "../../nvme/logPages.ts"
import type { HostController } from "./controller.ts"
import { orFailed } from "./initialise.ts"

const attempts = 8
const entriesPerPage = 4

const keyOf = <K extends string>(table: { readonly [key in K]: number }, value: number): K | undefined =>
  // Object.keys loses the type of the keys.
  (Object.keys(table) as Array<K>).find((key) => table[key] === value)

export const readDiscoveryLog = Effect.fnUntraced(function* (
  controller: HostController,
  operation: string
): Effect.fn.Return<ReadonlyArray<DiscoveryEntry>, SpdkError> {
  const { admin, resource } = controller
  const readHeader = Effect.flatMap(admin.getLogPage(operation, LogPageId.discovery, discoveryHeaderBytes), (bytes) =>
    orFailed(operation, resource, decodeDiscoveryHeader(bytes))
  )
  for (let attempt = 0; attempt < attempts; attempt++) {
    const header = yield* readHeader
    const entries: Array<DiscoveryEntry> = []
    while (entries.length < header.records) {
      const count = Math.min(entriesPerPage, header.records - entries.length)
      const offset = discoveryHeaderBytes + entries.length * discoveryEntryBytes
      const bytes = yield* admin.getLogPage(operation, LogPageId.discovery, count * discoveryEntryBytes, offset)
      for (let i = 0; i < count; i++) {
        const entry = bytes.subarray(i * discoveryEntryBytes, (i + 1) * discoveryEntryBytes)
        entries.push(yield* orFailed(operation, resource, decodeDiscoveryEntry(entry)))
      }
    }
    if ((yield* readHeader).generation === header.generation) return entries
  }
  const detail = `the discovery log has changed during each of ${attempts} readings`
  return yield* Effect.fail(new SpdkError({ reason: new IoFailed({ operation, resource, detail }) }))
})

/** The NVM subsystems among the entries, by transports that have a name here. */
export const transportIdsOf = (entries: ReadonlyArray<DiscoveryEntry>): ReadonlyArray<NvmeTransportIdFields> =>
  entries.flatMap((entry) => (entry.subtype === DiscoverySubsystemType.nvme ? transportIdOf(entry) : []))

/** The discovery controllers among the entries, the one that was asked as one of them. */
export const referralsOf = (entries: ReadonlyArray<DiscoveryEntry>): ReadonlyArray<NvmeTransportIdFields> =>
  entries.flatMap((entry) => (entry.subtype === DiscoverySubsystemType.nvme ? [] : transportIdOf(entry)))

const transportIdOf = (entry: DiscoveryEntry): ReadonlyArray<NvmeTransportIdFields> => {
  const trtype = keyOf({ TCP: DiscoveryTransport.TCP, RDMA: DiscoveryTransport.RDMA }, entry.trtype)
  const { subnqn, traddr, trsvcid } = entry
  return trtype === undefined
    ? []
    : [{ trtype, adrfam: keyOf(DiscoveryAddressFamily, entry.adrfam), traddr, trsvcid, subnqn, priority: 0 }]
}
