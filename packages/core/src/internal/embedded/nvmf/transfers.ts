/**
 * Which way the data of a command goes, and the checks of what its host says about it: in the command, and in the PDUs that bring it.
 */
import { AdminOpcode, Direction, directionOf, SglType } from "../../nvme/wire/command.ts"
import { dnr, Status } from "../../nvme/wire/nvmeStatus.ts"
import {
  FatalError,
  HeaderField,
  headerFault,
  PduFault,
  transferCommandId,
  TransferField,
  transferLength,
  transferOffset
} from "../../nvme/wire/pdu.ts"
import type { NvmfRequest } from "./request.ts"
import { Phase } from "./request.ts"

/** Data that one H2CData may carry. */
export const maxH2cData = 131_072

/** Of a fabrics command by the two low bits of its type, which is where other commands have their namespace. */
const directionOfRequest = ({ command, nsid }: NvmfRequest): number =>
  command === AdminOpcode.Fabrics ? nsid & 3 : directionOf(command)

/** What is wrong with the data pointer, a status. Memory is only taken for what has passed here. */
export const sglStatus = (request: NvmfRequest, inCapsuleBytes: number, maxTransferBytes: number): number => {
  const direction = directionOfRequest(request)
  if (direction === Direction.None) return Status.Success
  if (request.sglType === SglType.InCapsule && direction !== Direction.ToHost) {
    if (request.sglOffset !== 0) return Status.SglOffsetInvalid | dnr
    return request.sglLength === inCapsuleBytes ? Status.Success : Status.DataSglLengthInvalid | dnr
  }
  if (request.sglType !== SglType.Transport) return Status.SglDescriptorTypeInvalid | dnr
  if (request.sglLength > maxTransferBytes) return Status.DataSglLengthInvalid | dnr
  return direction === Direction.ToHost || inCapsuleBytes === 0 ? Status.Success : Status.DataSglLengthInvalid | dnr
}

/** Whether the host has to be asked for the data. */
export const needsTransfer = (request: NvmfRequest): boolean =>
  directionOfRequest(request) === Direction.ToController &&
  request.sglType === SglType.Transport &&
  request.sglLength > 0

/** What is wrong with the header of H2CData for this request; undefined for data that is expected. */
export const transferFault = (
  request: NvmfRequest | undefined,
  bytes: Uint8Array,
  at: number,
  isLast: boolean
): PduFault | undefined => {
  if (request === undefined || request.phase !== Phase.Transfer) {
    return headerFault(TransferField.TransferTag, "data that the target did not request")
  }
  if (transferCommandId(bytes, at) !== request.commandId) {
    return headerFault(TransferField.CommandId, "data for another command")
  }
  const lengthBytes = transferLength(bytes, at)
  const offsetBytes = transferOffset(bytes, at)
  if (lengthBytes > maxH2cData) {
    return new PduFault(FatalError.LimitExceeded, TransferField.Length, `${lengthBytes} bytes in one PDU`)
  }
  const leftBytes = request.expectedBytes - request.receivedBytes
  if (offsetBytes !== request.receivedBytes) {
    return new PduFault(FatalError.DataOutOfRange, TransferField.Offset, `data at offset ${offsetBytes}`)
  }
  if (lengthBytes > leftBytes) {
    return new PduFault(FatalError.DataOutOfRange, TransferField.Length, "more data than was asked for")
  }
  return isLast === (lengthBytes === leftBytes)
    ? undefined
    : headerFault(HeaderField.Flags, "LAST_PDU on the wrong PDU")
}
