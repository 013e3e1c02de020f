/**
 * How many bytes a command moves, by what it says itself. A device does as it is told and not as long as the memory is,
 * so shorter memory is refused.
 */
import type { PassthruCommand } from "../../NvmeController.ts"
import { invalid, type InvalidArgument, type SpdkError } from "../../SpdkError.ts"
import { AdminOpcode, IoOpcode } from "./command.ts"
import { identifyBytes } from "./identifyController.ts"

/** 0 where that cannot be told from the command. */
export const adminDataBytes = ({ cdw10 = 0, cdw11 = 0, opcode }: PassthruCommand): number => {
  switch (opcode) {
    case AdminOpcode.Identify:
      return identifyBytes
    case AdminOpcode.GetLogPage:
      return 4 * ((cdw11 & 0xffff) * 0x1_0000 + (cdw10 >>> 16) + 1)
    default:
      return 0
  }
}

const rangeBytes = 16

/** The same of a command of a namespace whose blocks have that size. */
export const ioDataBytes = (
  { cdw10 = 0, cdw12 = 0, opcode }: Omit<PassthruCommand, "nsid">,
  blockSizeBytes: number
): number => {
  switch (opcode) {
    case IoOpcode.Read:
    case IoOpcode.Write:
    case IoOpcode.Compare:
      return ((cdw12 & 0xffff) + 1) * blockSizeBytes
    case IoOpcode.DatasetManagement:
      return ((cdw10 & 0xff) + 1) * rangeBytes
    case IoOpcode.Copy: {
      // Descriptor formats 1 and 3 have longer reference tags.
      const format = (cdw12 >>> 8) & 0xf
      return ((cdw12 & 0xff) + 1) * (format === 0 || format === 2 ? 32 : 40)
    }
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
