/**
 * Get Features and Set Features of the target.
 */
import { getU32 } from "../../nvme/wire/bytes.ts"
import { nsidOf, Sqe } from "../../nvme/wire/command.ts"
import { FeatureId } from "../../nvme/wire/features.ts"
import { allNamespaces } from "../../nvme/wire/logPages.ts"
import { dnr, Status } from "../../nvme/wire/nvmeStatus.ts"
import type { AdminAnswer } from "./adminAnswer.ts"
import type { Controller } from "./controller.ts"

const invalidField = Status.InvalidField | dnr

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
  if (nsid > maxNamespaces && nsid !== allNamespaces) return Status.InvalidNamespaceOrFormat | dnr
  return isDiscovery && !discoveryFeatures.has(feature) ? invalidField : Status.Success
}

export const getFeatures = (controller: Controller, sqe: Uint8Array, roomBytes: number): AdminAnswer => {
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
      return { dword0: ((getU32(sqe, Sqe.cdw11) & 0xffff) | 0x10000) >>> 0 }
    case FeatureId.hostIdentifier:
      // Fabrics know the long form only.
      if ((getU32(sqe, Sqe.cdw11) & 1) === 0 || roomBytes < 16) return invalidField
      return { data: controller.hostId }
    default:
      return plainFeatures.has(feature) ? { dword0: controller.features.get(feature) ?? 0 } : invalidField
  }
}

export const setFeatures = (controller: Controller, sqe: Uint8Array, data: Uint8Array): AdminAnswer => {
  const feature = sqe[Sqe.cdw10] ?? 0
  const value = getU32(sqe, Sqe.cdw11)
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
