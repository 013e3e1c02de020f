/**
 * How many bytes a command moves, by what it says itself: NVMe Base specification 2.1, chapters 5 and 7, NVM Command Set
 * specification 1.1 and Zoned Namespace Command Set specification 1.2. A device does as it is told and not as long as the memory is,
 * so shorter memory is refused.
 */
import type { PassthruCommand } from "../../NvmeController.ts"
import { invalid, type InvalidArgument, type SpdkError } from "../../SpdkError.ts"
import { AdminOpcode, IoOpcode } from "./wire/command.ts"
import { FeatureId, FeatureSelect } from "./wire/features.ts"
import { identifyBytes } from "./wire/identifyController.ts"

/** A number of dwords that counts from 0. All 32 bits of a dword count, whatever sign they are given with. */
const dwords = (fromZero: number): number => 4 * ((fromZero >>> 0) + 1)

/** 0 where that cannot be told from the command. */
export const adminDataBytes = (command: PassthruCommand): number => {
  const { cdw10 = 0, cdw11 = 0, cdw12 = 0, opcode } = command
  switch (opcode) {
    case AdminOpcode.Identify:
    case AdminOpcode.NamespaceAttachment:
      return identifyBytes
    case AdminOpcode.NamespaceManagement:
      return (cdw10 & 0xf) === 0 ? identifyBytes : 0
    case AdminOpcode.GetLogPage:
      return 4 * ((cdw11 & 0xffff) * 0x1_0000 + (cdw10 >>> 16) + 1)
    case AdminOpcode.FirmwareImageDownload:
      return dwords(cdw10)
    case AdminOpcode.GetLbaStatus:
      return dwords(cdw12)
    case AdminOpcode.DirectiveSend:
    case AdminOpcode.DirectiveReceive:
      return directivesWithoutData.has(directiveOf(opcode, cdw11)) ? 0 : dwords(cdw10)
    case AdminOpcode.SecuritySend:
    case AdminOpcode.SecurityReceive:
      return cdw11 >>> 0
    case AdminOpcode.GetFeatures:
      return ((cdw10 >>> 8) & 7) === FeatureSelect.supported ? 0 : featureBytes(cdw10 & 0xff, cdw11, false)
    case AdminOpcode.SetFeatures:
      return featureBytes(cdw10 & 0xff, cdw11, true)
    case AdminOpcode.Fabrics:
      return fabricsBytes(command)
    default:
      return 0
  }
}

/** Opcode, directive type and operation in one number. */
const directiveOf = (opcode: number, cdw11: number): number => (opcode << 16) | (cdw11 & 0xffff)

const directivesWithoutData: ReadonlySet<number> = new Set([
  // Identify: enable. Streams: release identifier, release resources, and allocate resources, which answers in a dword.
  directiveOf(AdminOpcode.DirectiveSend, 0x0001),
  directiveOf(AdminOpcode.DirectiveSend, 0x0101),
  directiveOf(AdminOpcode.DirectiveSend, 0x0102),
  directiveOf(AdminOpcode.DirectiveReceive, 0x0103)
])

/** The data structures of features, in Set Features as in Get Features. The others are one dword. */
const featureData: { readonly [feature: number]: number } = {
  [FeatureId.lbaRangeType]: 4096,
  [FeatureId.autonomousPowerStates]: 256,
  [FeatureId.timestamp]: 8,
  // Predictable latency mode.
  0x13: 512,
  [FeatureId.hostBehavior]: 512,
  // Enhanced controller, controller and namespace metadata.
  0x7d: 4096,
  0x7e: 4096,
  0x7f: 4096
}

const featureBytes = (feature: number, cdw11: number, isSet: boolean): number => {
  if (feature === FeatureId.hostIdentifier) return (cdw11 & 1) === 1 ? 16 : 8
  // Only its attributes are data; the memory itself is given by address.
  if (feature === FeatureId.hostMemoryBuffer) return isSet ? 0 : 4096
  return featureData[feature] ?? 0
}

/** The type of a fabrics command is the first byte of what is the namespace id elsewhere. */
const fabricsBytes = ({ cdw11 = 0, nsid = 0 }: PassthruCommand): number => {
  switch (nsid & 0xff) {
    // Connect.
    case 0x01:
      return 1024
    // Authentication, to the controller and from it.
    case 0x05:
    case 0x06:
      return cdw11 >>> 0
    default:
      return 0
  }
}

const rangeBytes = 16

/** Set zone descriptor extension, the one send action with data, which counts in pieces of this. */
const zoneExtensionAction = 0x10
const zoneExtensionUnit = 64

/** Protection information is made and taken away by the controller: it does not cross. */
const protectionAction = 2 ** 29

/** How long the blocks of a namespace are. */
export interface BlockBytes {
  readonly blockSize: number
  /** What one block moves: more than its size where metadata follows the data of each block. */
  readonly extendedBlockSize: number
}

/** The same of a command of a namespace. */
export const ioDataBytes = (
  { cdw10 = 0, cdw11 = 0, cdw12 = 0, cdw13 = 0, opcode }: Omit<PassthruCommand, "nsid">,
  { blockSize, extendedBlockSize }: BlockBytes
): number => {
  switch (opcode) {
    case IoOpcode.Read:
    case IoOpcode.Write:
    case IoOpcode.Compare:
    case IoOpcode.ZoneAppend:
      return ((cdw12 & 0xffff) + 1) * ((cdw12 & protectionAction) === 0 ? extendedBlockSize : blockSize)
    case IoOpcode.DatasetManagement:
      return ((cdw10 & 0xff) + 1) * rangeBytes
    case IoOpcode.Copy: {
      // Descriptor formats 1 and 3 have longer reference tags.
      const format = (cdw12 >>> 8) & 0xf
      return ((cdw12 & 0xff) + 1) * (format === 0 || format === 2 ? 32 : 40)
    }
    case IoOpcode.ReservationRegister:
    case IoOpcode.ReservationAcquire:
      return 16
    case IoOpcode.ReservationRelease:
      return 8
    case IoOpcode.ReservationReport:
      return dwords(cdw10)
    case IoOpcode.IoManagementReceive:
      return dwords(cdw11)
    case IoOpcode.IoManagementSend:
      // Placement identifiers of a reclaim unit handle update.
      return (cdw10 & 0xff) === 1 ? 2 * ((cdw10 >>> 16) + 1) : 0
    case IoOpcode.ZoneManagementSend:
      return (cdw13 & 0xff) === zoneExtensionAction ? zoneExtensionUnit : 0
    case IoOpcode.ZoneManagementReceive:
      return dwords(cdw12)
    default:
      return 0
  }
}

/** Why a command with too little memory is not sent. */
export const refusedDataLength = (
  operation: string,
  resource: string,
  { buffer, data, lengthBytes }: PassthruCommand,
  neededBytes: number
): SpdkError<InvalidArgument> | undefined => {
  const length = buffer?.byteLength ?? data?.length ?? lengthBytes ?? 0
  if (length >= neededBytes) return undefined
  const field = buffer !== undefined ? "buffer.byteLength" : data !== undefined ? "data.length" : "lengthBytes"
  return invalid(operation, field, `is less than the ${neededBytes} bytes that the command moves`, length, resource)
}
