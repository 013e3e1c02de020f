/**
 * What the target's Identify command tells: of the controller, its namespaces, and the command sets there are.
 */
import { nsidOf, Sqe } from "../../nvme/wire/command.ts"
import {
  Cns,
  encodeDescriptors,
  encodeNamespaceList,
  identifyBytes,
  identifyController,
  identifyNamespace
} from "../../nvme/wire/identify.ts"
import { dnr, Status } from "../../nvme/wire/nvmeStatus.ts"
import { type AdminAnswer, firmwareRevision, zeroes } from "./adminAnswer.ts"
import { type Controller, maxAsyncEvents, version } from "./controller.ts"
import type { Namespace } from "./target.ts"

const invalidField = Status.InvalidField | dnr
const invalidNamespace = Status.InvalidNamespaceOrFormat | dnr

export const identify = (controller: Controller, sqe: Uint8Array): AdminAnswer => {
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
      if (namespace === undefined) return { data: zeroes(identifyBytes) }
      controller.unseen.delete(nsid)
      return { data: describeNamespace(controller, namespace) }
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
      controller.unseen.delete(nsid)
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

/** NVM command set: WZSL and DMRSL. To Linux a DMRSL says by itself that there is a deallocate. */
const describeNvm = (controller: Controller): Uint8Array => {
  const { subsystem } = controller
  const data = zeroes(identifyBytes)
  const view = new DataView(data.buffer)
  view.setUint8(1, subsystem.options.wzsl)
  view.setUint32(4, hasUnmap(controller) ? subsystem.options.dmrsl : 0, true)
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

/** Whether all namespaces can deallocate; a controller says so once for all of them. */
export const hasUnmap = ({ subsystem }: Controller): boolean =>
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
