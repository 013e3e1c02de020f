/**
 * The log pages of the target.
 */
import { getU32, getU64Number } from "../../nvme/wire/bytes.ts"
import { nsidOf, Sqe } from "../../nvme/wire/command.ts"
import {
  allNamespaces,
  commandEffectsLog,
  encodeAnaLog,
  encodeChangedNamespaces,
  encodeDiscoveryLog,
  firmwareLog,
  healthLog,
  LogPageId
} from "../../nvme/wire/logPages.ts"
import { dnr, Status } from "../../nvme/wire/nvmeStatus.ts"
import { type AdminAnswer, firmwareRevision, zeroes } from "./adminAnswer.ts"
import { hasUnmap } from "./adminIdentify.ts"
import type { Controller } from "./controller.ts"

const invalidField = Status.InvalidField | dnr

/** The bits of CDW10 of Get Log Page. */
const retainBit = 0x8000
const groupsOnlyBit = 0x100

/** `roomBytes` is the host's, and not above what one command may carry. */
export const getLogPage = (controller: Controller, sqe: Uint8Array, roomBytes: number): AdminAnswer => {
  const dword10 = getU32(sqe, Sqe.cdw10)
  const logPage = dword10 & 0xff
  const offset = getU64Number(sqe, Sqe.cdw12)
  const lengthBytes = ((dword10 >>> 16) + (getU32(sqe, Sqe.cdw11) & 0xffff) * 0x10000 + 1) * 4
  if (offset % 4 !== 0 || lengthBytes > roomBytes) return invalidField
  const nsid = nsidOf(sqe, 0)
  if (logPage !== LogPageId.health && nsid !== 0 && nsid !== allNamespaces) return invalidField
  const page = readLogPage(controller, logPage, (dword10 & groupsOnlyBit) !== 0)
  if (page === undefined) return Status.InvalidLogPage | dnr
  if (offset > page.length) return invalidField
  if ((dword10 & retainBit) === 0) controller.unmask(logPage)
  if (logPage === LogPageId.changedNamespaces) controller.changedNamespaces = []
  const data = zeroes(lengthBytes)
  data.set(page.subarray(offset, offset + lengthBytes))
  return { data }
}

const readLogPage = (controller: Controller, logPage: number, groupsOnly: boolean): Uint8Array | undefined => {
  const { hostNqn, subsystem, target } = controller
  const { anaReporting, isDiscovery } = subsystem.options
  if (logPage === LogPageId.supported) return supportedLogs(controller)
  if (isDiscovery) {
    return logPage === LogPageId.discovery
      ? encodeDiscoveryLog(target.generation, target.discoveryEntries(hostNqn))
      : undefined
  }
  switch (logPage) {
    case LogPageId.error:
      return zeroes(64)
    case LogPageId.health:
      return healthLog.encode({})
    case LogPageId.firmware:
      return firmwareLog.encode({ slots: { active: 1 }, revisions: [firmwareRevision] })
    case LogPageId.changedNamespaces:
      return encodeChangedNamespaces(controller.changedNamespaces)
    case LogPageId.commandEffects:
      return commandEffects(controller)
    case LogPageId.ana:
      return anaReporting ? anaLog(controller, groupsOnly) : undefined
    default:
      return undefined
  }
}

const supportedLogs = ({ subsystem }: Controller): Uint8Array => {
  const { anaReporting, isDiscovery } = subsystem.options
  const page = zeroes(1024)
  const logs = isDiscovery
    ? [LogPageId.discovery]
    : [
        LogPageId.error,
        LogPageId.health,
        LogPageId.firmware,
        LogPageId.changedNamespaces,
        LogPageId.commandEffects,
        ...(anaReporting ? [LogPageId.ana] : [])
      ]
  for (const log of [LogPageId.supported, ...logs]) page[log * 4] = 1
  return page
}

const commandEffects = (controller: Controller): Uint8Array => {
  const supported = { supported: 1 }
  const changes = { supported: 1, changesBlocks: 1 }
  const admin = Array.from({ length: 0x19 }, (): { readonly supported?: number } => ({}))
  for (const opcode of [2, 6, 8, 9, 10, 12, 24]) admin[opcode] = supported
  const io = [changes, changes, supported, {}, {}, supported, {}, {}, changes, hasUnmap(controller) ? changes : {}]
  return commandEffectsLog.encode({ admin, io })
}

const anaLog = ({ hostNqn, listener, subsystem }: Controller, groupsOnly: boolean): Uint8Array => {
  const isListening = listener !== undefined && subsystem.listeners.includes(listener)
  const changeCount = listener?.anaChangeCount ?? 0n
  const members = new Map<number, Array<number>>()
  for (const namespace of subsystem.sortedNamespaces()) {
    if (!namespace.isVisibleTo(hostNqn)) continue
    const ids = members.get(namespace.anaGroup)
    if (ids === undefined) members.set(namespace.anaGroup, [namespace.nsid])
    else ids.push(namespace.nsid)
  }
  const groups = [...members]
    .toSorted(([a], [b]) => a - b)
    .map(([groupId, ids]) => ({
      groupId,
      state: isListening ? (listener.anaStates[groupId - 1] ?? "optimized") : ("inaccessible" as const),
      changeCount,
      namespaceIds: groupsOnly ? [] : ids
    }))
  return encodeAnaLog({ changeCount, groups })
}
