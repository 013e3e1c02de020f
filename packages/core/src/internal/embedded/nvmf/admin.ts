/**
 * The commands of the admin queue, but those of fabrics.
 */
import { u32, u64Number } from "../../nvme/bytes.ts"
import { AdminOpcode, fuseOf, nsidOf, Sqe } from "../../nvme/command.ts"
import { FeatureId } from "../../nvme/features.ts"
import {
  Cns,
  encodeDescriptors,
  encodeNamespaceList,
  identifyBytes,
  identifyController,
  identifyNamespace
} from "../../nvme/identify.ts"
import {
  allNamespaces,
  commandEffectsLog,
  encodeAnaLog,
  encodeChangedNamespaces,
  encodeDiscoveryLog,
  firmwareLog,
  healthLog,
  LogPageId
} from "../../nvme/logPages.ts"
import { dnr, Status } from "../../nvme/nvmeStatus.ts"
import { type Controller, maxAsyncEvents, version } from "./controller.ts"
import type { Namespace } from "./target.ts"

/** A number is a status without anything else. */
export type AdminAnswer =
  | number
  | "later"
  | { readonly dword0: number; readonly data?: Uint8Array | undefined }
  | { readonly data: Uint8Array; readonly dword0?: number }

const firmwareRevision = "embedded"
const invalidField = Status.InvalidField | dnr
const invalidNamespace = Status.InvalidNamespaceOrFormat | dnr
const zeroes = (lengthBytes: number): Uint8Array => new Uint8Array(lengthBytes)

const discoveryOpcodes: ReadonlySet<number> = new Set([
  AdminOpcode.Identify,
  AdminOpcode.GetLogPage,
  AdminOpcode.KeepAlive,
  AdminOpcode.SetFeatures,
  AdminOpcode.GetFeatures,
  AdminOpcode.AsyncEventRequest
])

/** `data` is what the command brought; `sqe` has 64 bytes, `roomBytes` what the host has room for. */
export const adminCommand = (
  controller: Controller,
  sqe: Uint8Array,
  data: Uint8Array,
  roomBytes: number
): AdminAnswer => {
  const opcode = sqe[Sqe.opcode] ?? 0
  const isOfController =
    opcode === AdminOpcode.Abort || opcode === AdminOpcode.AsyncEventRequest || opcode === AdminOpcode.KeepAlive
  if (fuseOf(sqe, 0) !== 0 || (isOfController && nsidOf(sqe, 0) !== 0)) return invalidField
  if (!controller.isEnabled) return Status.CommandSequenceError | dnr
  if (controller.subsystem.options.isDiscovery && !discoveryOpcodes.has(opcode)) return Status.InvalidOpcode | dnr
  switch (opcode) {
    case AdminOpcode.Identify:
      return roomBytes < identifyBytes ? invalidField : identify(controller, sqe)
    case AdminOpcode.GetLogPage:
      return getLogPage(controller, sqe, roomBytes)
    case AdminOpcode.GetFeatures:
      return getFeatures(controller, sqe, roomBytes)
    case AdminOpcode.SetFeatures:
      return setFeatures(controller, sqe, data)
    case AdminOpcode.KeepAlive:
      controller.keptAlive()
      return Status.Success
    case AdminOpcode.AsyncEventRequest:
      return controller.requestAsyncEvent((sqe[2] ?? 0) | ((sqe[3] ?? 0) << 8))
    case AdminOpcode.Abort:
      return abort(controller, u32(sqe, Sqe.cdw10))
    default:
      return Status.InvalidOpcode | dnr
  }
}

const abort = (controller: Controller, dword10: number): AdminAnswer => {
  const queueId = dword10 & 0xffff
  const commandId = dword10 >>> 16
  const queue = queueId === 0 ? controller.admin : controller.ioQueues.get(queueId)
  const isAborted =
    queue !== undefined && ((queueId === 0 && controller.abortAsyncEvent(commandId)) || queue.abortCommand(commandId))
  return { dword0: isAborted ? 0 : 1 }
}

const identify = (controller: Controller, sqe: Uint8Array): AdminAnswer => {
  const cns = sqe[Sqe.cdw10] ?? 0
  const { isDiscovery, maxNamespaces } = controller.subsystem.options
  const nsid = nsidOf(sqe, 0)
  if (cns === Cns.controller) return { data: describeController(controller) }
  if (isDiscovery) return invalidField
  const isUnknown = nsid === 0 || nsid > maxNamespaces
  const namespace = controller.namespace(nsid)
  // Command set identifier: only NVM.
  const isOtherSet = (sqe[Sqe.cdw11 + 3] ?? 0) !== 0
  switch (cns) {
    case Cns.namespace:
      if (isUnknown) return invalidNamespace
      return { data: namespace === undefined ? zeroes(identifyBytes) : describeNamespace(controller, namespace) }
    case Cns.activeNamespacesForCommandSet:
    case Cns.activeNamespaces:
      if (nsid >= 0xfffffffe) return invalidNamespace
      if (cns === Cns.activeNamespacesForCommandSet && isOtherSet) return invalidField
      return {
        data: encodeNamespaceList(
          controller.subsystem
            .sortedNamespaces()
            .filter((one) => one.nsid > nsid && one.isVisibleTo(controller.hostNqn))
            .map((one) => one.nsid)
        )
      }
    case Cns.descriptors:
      if (isUnknown) return invalidNamespace
      if (namespace === undefined) return invalidField
      return { data: encodeDescriptors(namespace.ids) }
    case Cns.namespaceForCommandSet:
      return namespace === undefined ? invalidNamespace : { data: zeroes(identifyBytes) }
    case Cns.controllerForCommandSet:
      return isOtherSet ? invalidField : { data: describeNvm(controller) }
    case Cns.independentNamespace:
      return namespace === undefined ? invalidNamespace : { data: describeIndependent(namespace) }
    case Cns.commandSets: {
      const data = zeroes(identifyBytes)
      data[0] = 1
      return { data }
    }
    default:
      return invalidField
  }
}

/** NVM command set: WZSL and DMRSL. */
const describeNvm = ({ subsystem }: Controller): Uint8Array => {
  const data = zeroes(identifyBytes)
  const view = new DataView(data.buffer)
  view.setUint8(1, subsystem.options.wzsl)
  view.setUint32(4, subsystem.options.dmrsl, true)
  return data
}

/** NSFEAT, NMIC, NSTAT: shared, ready. */
const describeIndependent = (namespace: Namespace): Uint8Array => {
  const data = zeroes(identifyBytes)
  data[1] = 1
  new DataView(data.buffer).setUint32(8, namespace.anaGroup, true)
  data[14] = 1
  return data
}

const hasUnmap = ({ subsystem }: Controller): boolean =>
  [...subsystem.namespaces.values()].every(({ bdev }) => bdev.supports("unmap"))

const describeController = (controller: Controller): Uint8Array => {
  const { id, subsystem, target, transport } = controller
  const { anaReporting, isDiscovery, maxNamespaces, modelNumber, nqn, serialNumber } = subsystem.options
  const common = {
    firmwareRevision,
    maxDataTransfer: Math.log2(transport.max_io_size / 4096),
    controllerId: id,
    version,
    asyncEventLimit: maxAsyncEvents - 1,
    errorLogEntries: 0,
    maxCommands: transport.max_queue_depth,
    warningTemperatureKelvin: 0x157,
    criticalTemperatureKelvin: 0x175,
    sgls: { support: 1, offset: 1 },
    subnqn: nqn
  }
  if (isDiscovery) {
    return identifyController.encode({
      ...common,
      controllerType: 2,
      asyncEvents: { discoveryLogChange: true },
      logPages: { extendedData: true }
    })
  }
  const ana = {
    anaTransitionSeconds: 10,
    anaCapabilities: { optimized: true, nonOptimized: true, inaccessible: true, groupIdStable: true },
    maxAnaGroupId: maxNamespaces,
    anaGroups: maxNamespaces,
    maxAllowedNamespaces: maxNamespaces
  }
  return identifyController.encode({
    ...common,
    controllerType: 1,
    serialNumber,
    modelNumber,
    recommendedArbitrationBurst: 6,
    multiPath: { multiplePorts: true, multipleControllers: true, anaReporting },
    asyncEvents: { namespaceAttribute: true, anaChange: anaReporting },
    attributes: { hostId128: true },
    abortLimit: 3,
    firmwareUpdates: { firstSlotReadOnly: 1, slots: 1 },
    logPages: { commandEffects: true, extendedData: true },
    keepAliveGranularity: transport.kas,
    submissionEntry: { required: 6, maximum: 6 },
    completionEntry: { required: 4, maximum: 4 },
    maxNamespaceId: maxNamespaces,
    nvmCommands: { compare: true, datasetManagement: hasUnmap(controller), writeZeroes: true },
    volatileWriteCache: { present: 1, flushAll: 2 },
    ...(anaReporting ? ana : {}),
    ioCommandCapsuleSize: 4 + Math.floor(transport.in_capsule_data_size / 16),
    ioResponseCapsuleSize: 1,
    maxSglDescriptors: 1,
    commandRetryDelays: target.retryDelays
  })
}

const describeNamespace = (controller: Controller, namespace: Namespace): Uint8Array => {
  const { bdev, ids } = namespace
  const { properties } = bdev
  const numBlocks = BigInt(bdev.numBlocks)
  const maxBlocks = controller.transport.max_io_size / bdev.blockSize
  const physicalBlocks = Math.max(1, (properties.physicalBlockSize ?? bdev.blockSize) / bdev.blockSize)
  const granularity = (properties.preferredWriteGranularity || physicalBlocks) - 1
  const isReachable = controller.anaStatus(namespace) === Status.Success
  return identifyNamespace.encode({
    numBlocks,
    capacityBlocks: numBlocks,
    usedBlocks: isReachable ? numBlocks : 0n,
    features: { atomicWriteUnits: true, optimalPerformance: true },
    sharing: { shared: true },
    atomicWritePowerFailBlocks: granularity,
    preferredWriteGranularity: granularity,
    preferredWriteAlignment: (properties.preferredWriteAlignment || granularity + 1) - 1,
    preferredDeallocateGranularity: (properties.preferredUnmapGranularity || granularity + 1) - 1,
    preferredDeallocateAlignment: (properties.preferredUnmapAlignment || granularity + 1) - 1,
    optimalWriteSize: (properties.optimalWriteSize || maxBlocks) - 1,
    optimalIoBoundaryBlocks: Math.min(properties.optimalIoBoundaryBlocks ?? 0, maxBlocks),
    anaGroupId: controller.subsystem.options.anaReporting ? namespace.anaGroup : 0,
    nguid: ids.nguid,
    eui64: ids.eui64,
    lbaFormatDescriptors: [{ blockSizeExponent: Math.log2(bdev.blockSize) }]
  })
}

/** The bits of CDW10 of Get Log Page. */
const retainBit = 0x8000
const groupsOnlyBit = 0x100

const getLogPage = (controller: Controller, sqe: Uint8Array, roomBytes: number): AdminAnswer => {
  const dword10 = u32(sqe, Sqe.cdw10)
  const logPage = dword10 & 0xff
  const offset = u64Number(sqe, Sqe.cdw12)
  const lengthBytes = ((dword10 >>> 16) + (u32(sqe, Sqe.cdw11) & 0xffff) * 0x10000 + 1) * 4
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
  const groups = []
  for (let groupId = 1; groupId <= subsystem.options.maxNamespaces; groupId++) {
    const members = subsystem
      .sortedNamespaces()
      .filter((one) => one.anaGroup === groupId && one.isVisibleTo(hostNqn))
      .map((one) => one.nsid)
    if (members.length === 0) continue
    groups.push({
      groupId,
      state: isListening ? (listener.anaStates[groupId - 1] ?? "optimized") : ("inaccessible" as const),
      changeCount: listener?.anaChangeCount ?? 0n,
      namespaceIds: groupsOnly ? [] : members
    })
  }
  return encodeAnaLog({ changeCount: listener?.anaChangeCount ?? 0n, groups })
}

/** Features that are one dword, and the bits of it that mean something. */
const plainFeatures: ReadonlyMap<number, number> = new Map([
  [FeatureId.arbitration, 0xffffff07],
  [FeatureId.temperatureThreshold, 0x003fffff],
  [FeatureId.errorRecovery, 0x1ffff],
  [FeatureId.volatileWriteCache, 1],
  [FeatureId.writeAtomicity, 1],
  [FeatureId.asyncEvents, 0xffff_ffff]
])
const discoveryFeatures: ReadonlySet<number> = new Set([FeatureId.keepAlive, FeatureId.asyncEvents])

const checkFeature = (controller: Controller, feature: number, nsid: number): number => {
  const { isDiscovery, maxNamespaces } = controller.subsystem.options
  if (nsid > maxNamespaces && nsid !== allNamespaces) return invalidNamespace
  return isDiscovery && !discoveryFeatures.has(feature) ? invalidField : Status.Success
}

const getFeatures = (controller: Controller, sqe: Uint8Array, roomBytes: number): AdminAnswer => {
  const feature = sqe[Sqe.cdw10] ?? 0
  // Nothing is saved, and what the defaults were is not kept: only the current value can be asked for.
  if (((sqe[Sqe.cdw10 + 1] ?? 0) & 7) !== 0) return invalidField
  const status = checkFeature(controller, feature, nsidOf(sqe, 0))
  if (status !== Status.Success) return status
  const queues = controller.transport.max_io_qpairs_per_ctrlr - 1
  switch (feature) {
    case FeatureId.numberOfQueues:
      return { dword0: (queues | (queues << 16)) >>> 0 }
    case FeatureId.keepAlive:
      return { dword0: controller.keepAliveMillis }
    case FeatureId.powerManagement:
    case FeatureId.interruptCoalescing:
      return { dword0: 0 }
    case FeatureId.interruptVector:
      return { dword0: ((u32(sqe, Sqe.cdw11) & 0xffff) | 0x10000) >>> 0 }
    case FeatureId.hostIdentifier:
      // Fabrics know the long form only.
      if ((u32(sqe, Sqe.cdw11) & 1) === 0 || roomBytes < 16) return invalidField
      return { data: controller.hostId }
    default:
      return plainFeatures.has(feature) ? { dword0: controller.features.get(feature) ?? 0 } : invalidField
  }
}

const setFeatures = (controller: Controller, sqe: Uint8Array, data: Uint8Array): AdminAnswer => {
  const feature = sqe[Sqe.cdw10] ?? 0
  const value = u32(sqe, Sqe.cdw11)
  const nsid = nsidOf(sqe, 0)
  if (((sqe[Sqe.cdw10 + 3] ?? 0) & 0x80) !== 0) return Status.FeatureNotSaveable | dnr
  const status = checkFeature(controller, feature, nsid)
  if (status !== Status.Success) return status
  if (nsid !== 0 && nsid !== allNamespaces && feature !== FeatureId.errorRecovery) {
    return Status.FeatureNotNamespaceSpecific | dnr
  }
  switch (feature) {
    case FeatureId.numberOfQueues: {
      if ((value & 0xffff) === 0xffff || value >>> 16 === 0xffff) return invalidField
      if (controller.ioQueues.size > 0) return Status.CommandSequenceError | dnr
      const queues = controller.transport.max_io_qpairs_per_ctrlr - 1
      return { dword0: (queues | (queues << 16)) >>> 0 }
    }
    case FeatureId.keepAlive:
      if (value === 0) return Status.KeepAliveInvalid | dnr
      controller.setKeepAlive(value)
      return Status.Success
    case FeatureId.powerManagement:
      return (value & 0x1f) === 0 ? Status.Success : invalidField
    case FeatureId.hostIdentifier:
      // Set by connect, and only there.
      return data.length === 0 ? invalidField : Status.CommandSequenceError | dnr
    case FeatureId.interruptCoalescing:
      return Status.FeatureNotChangeable | dnr
    default: {
      const bits = plainFeatures.get(feature)
      if (bits === undefined) return invalidField
      controller.features.set(feature, (value & bits) >>> 0)
      return Status.Success
    }
  }
}
