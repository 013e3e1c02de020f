/**
 * Commands as people give them, to their 64 bytes, and completions back. Used by the admin queue and by passthru.
 */
import * as Effect from "effect/Effect"
import type { PassthruCommand } from "../../NvmeController.ts"
import { isDmaBuffer } from "../../DmaBuffer.ts"
import { fromNvme, invalid, type InvalidArgument, type Released, released, type SpdkError } from "../../SpdkError.ts"
import type { IoError } from "../io/ioCompletion.ts"
import { Cqe, Direction, directionOf, Sqe, sqeBytes } from "./wire/command.ts"
import { getU16, getU32 } from "./wire/bytes.ts"
import { isDnr, scOf, sctOf, statusOfField } from "./wire/nvmeStatus.ts"
import { viewOf } from "./wire/struct.ts"

/** All that a command says but its id and where its data is. */
export interface CommandFields {
  readonly opcode: number
  readonly nsid?: number | undefined
  readonly cdw2?: number | undefined
  readonly cdw3?: number | undefined
  readonly cdw10?: number | undefined
  readonly cdw11?: number | undefined
  readonly cdw12?: number | undefined
  readonly cdw13?: number | undefined
  readonly cdw14?: number | undefined
  readonly cdw15?: number | undefined
}

const words = ["cdw10", "cdw11", "cdw12", "cdw13", "cdw14", "cdw15"] as const

/** Dwords are taken as 32 bits, signed or not. */
export const encodeCommand = (fields: CommandFields, into: Uint8Array = new Uint8Array(sqeBytes)): Uint8Array => {
  into.fill(0, 0, sqeBytes)
  const view = viewOf(into)
  view.setUint8(Sqe.opcode, fields.opcode)
  view.setUint32(Sqe.nsid, fields.nsid ?? 0, true)
  view.setUint32(8, fields.cdw2 ?? 0, true)
  view.setUint32(12, fields.cdw3 ?? 0, true)
  words.forEach((word, i) => view.setUint32(Sqe.cdw10 + 4 * i, fields[word] ?? 0, true))
  return into
}

export interface CompletionWords {
  readonly dword0: number
  readonly dword1: number
}

/** A status other than success is an error here. */
export const completionOf = (
  bytes: Uint8Array,
  operation: string,
  resource: string
): Effect.Effect<CompletionWords, IoError> => {
  const status = statusOfField(getU16(bytes, Cqe.status))
  return sctOf(status) === 0 && scOf(status) === 0
    ? Effect.succeed({ dword0: getU32(bytes, Cqe.dword0), dword1: getU32(bytes, Cqe.dword1) })
    : Effect.fail(fromNvme(sctOf(status), scOf(status), isDnr(status), { operation, resource }))
}

/** Why a command of the user's is not sent. */
export const refusedCommand = (
  operation: string,
  resource: string,
  command: PassthruCommand,
  maxDataBytes: number
): SpdkError<InvalidArgument | Released> | undefined => {
  const refuse = (field: string, rule: string, value?: unknown) => invalid(operation, field, rule, value, resource)
  const { buffer, data, lengthBytes, opcode } = command
  if (!Number.isInteger(opcode) || opcode < 0 || opcode > 0xff) {
    return refuse("opcode", "is not a whole number from 0 to 255", opcode)
  }
  for (const word of ["nsid", "cdw2", "cdw3", ...words] as const) {
    const value = command[word]
    if (value !== undefined && (!Number.isInteger(value) || value < 0 || value > 0xffff_ffff)) {
      return refuse(word, "is not an unsigned number of 32 bits", value)
    }
  }
  const direction = directionOf(opcode)
  if (data !== undefined && !(data instanceof Uint8Array)) return refuse("data", "is not a Uint8Array")
  if (buffer !== undefined && !isDmaBuffer(buffer)) return refuse("buffer", "is not a DmaBuffer")
  if (buffer?.isReleased === true) return released(operation, "buffer", resource)
  if (direction === Direction.None && (data ?? lengthBytes ?? buffer) !== undefined) {
    return refuse("opcode", "is of a command without data, and data is given", opcode)
  }
  if (buffer !== undefined && (data ?? lengthBytes) !== undefined) {
    return refuse("buffer", "comes together with data or lengthBytes")
  }
  if (data !== undefined && direction === Direction.ToHost) {
    return refuse("data", "is given for a command that reads; give lengthBytes", data.length)
  }
  if (lengthBytes !== undefined && direction === Direction.ToController) {
    return refuse("lengthBytes", "is given for a command that writes; give data", lengthBytes)
  }
  const length = buffer?.byteLength ?? data?.length ?? lengthBytes
  if (length !== undefined && (!Number.isInteger(length) || length < 4 || length % 4 !== 0 || length > maxDataBytes)) {
    const field = buffer !== undefined ? "buffer.byteLength" : data !== undefined ? "data.length" : "lengthBytes"
    return refuse(field, `is not a multiple of 4 from 4 to ${maxDataBytes}`, length)
  }
  return undefined
}
