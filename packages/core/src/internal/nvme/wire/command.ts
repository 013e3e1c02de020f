/**
 * Submission and completion queue entries: where their fields are, and the opcodes. Functions take the bytes of a chunk and the
 * position of the entry in it, because they run per I/O.
 */
import { setU16, setU32, getU16, getU32, getU64Number } from "./bytes.ts"
import { statusField } from "./nvmeStatus.ts"

export const sqeBytes = 64
export const cqeBytes = 16

export const AdminOpcode = {
  GetLogPage: 0x02,
  Identify: 0x06,
  Abort: 0x08,
  SetFeatures: 0x09,
  GetFeatures: 0x0a,
  AsyncEventRequest: 0x0c,
  NamespaceManagement: 0x0d,
  FirmwareImageDownload: 0x11,
  NamespaceAttachment: 0x15,
  KeepAlive: 0x18,
  DirectiveSend: 0x19,
  DirectiveReceive: 0x1a,
  Fabrics: 0x7f,
  SecuritySend: 0x81,
  SecurityReceive: 0x82,
  GetLbaStatus: 0x86
} as const

export const IoOpcode = {
  Flush: 0x00,
  Write: 0x01,
  Read: 0x02,
  WriteUncorrectable: 0x04,
  Compare: 0x05,
  WriteZeroes: 0x08,
  DatasetManagement: 0x09,
  Verify: 0x0c,
  ReservationRegister: 0x0d,
  ReservationReport: 0x0e,
  ReservationAcquire: 0x11,
  IoManagementReceive: 0x12,
  ReservationRelease: 0x15,
  Copy: 0x19,
  IoManagementSend: 0x1d,
  ZoneManagementSend: 0x79,
  ZoneManagementReceive: 0x7a,
  ZoneAppend: 0x7d
} as const

/** The two low bits of an opcode: which way the data goes. */
export const Direction = { None: 0, ToController: 1, ToHost: 2, Both: 3 } as const
export const directionOf = (opcode: number): number => opcode & 3

/** Where fields stand in a submission queue entry. */
export const Sqe = {
  opcode: 0,
  flags: 1,
  commandId: 2,
  /** In a fabrics command byte 4 is its type. */
  nsid: 4,
  fabricsType: 4,
  sgl: 24,
  cdw10: 40,
  cdw11: 44,
  cdw12: 48,
  cdw13: 52,
  cdw14: 56,
  cdw15: 60
} as const

export const commandIdOf = (bytes: Uint8Array, at: number): number => getU16(bytes, at + Sqe.commandId)
export const nsidOf = (bytes: Uint8Array, at: number): number => getU32(bytes, at + Sqe.nsid)
/** 1 and 2 are the halves of a fused pair. */
export const fuseOf = (bytes: Uint8Array, at: number): number => (bytes[at + Sqe.flags] ?? 0) & 3

/** PSDT for "SGLs, metadata contiguous", which fabrics want in every command. */
export const sglFlag = 0x40

/** Type and subtype of the SGL descriptors of NVMe/TCP. */
export const SglType = {
  /** In the capsule, at an offset. */
  InCapsule: 0x01,
  /** By data PDUs. */
  Transport: 0x5a
} as const

export const sglTypeOf = (bytes: Uint8Array, at: number): number => bytes[at + Sqe.sgl + 15] ?? 0
export const sglLengthOf = (bytes: Uint8Array, at: number): number => getU32(bytes, at + Sqe.sgl + 8)
/** Of `InCapsule`: the offset in the capsule's data. */
export const sglOffsetOf = (bytes: Uint8Array, at: number): number => getU64Number(bytes, at + Sqe.sgl)

/** The data pointer of a command of `lengthBytes`, and the flag that says it is one. */
export const writeSgl = (bytes: Uint8Array, at: number, type: 0x01 | 0x5a, lengthBytes: number): void => {
  bytes[at + Sqe.flags] = ((bytes[at + Sqe.flags] ?? 0) & 0x3f) | sglFlag
  setU32(bytes, at + Sqe.sgl, 0)
  setU32(bytes, at + Sqe.sgl + 4, 0)
  setU32(bytes, at + Sqe.sgl + 8, lengthBytes)
  setU32(bytes, at + Sqe.sgl + 12, type * 0x1000000)
}

/** Where fields stand in a completion queue entry. */
export const Cqe = { dword0: 0, dword1: 4, sqHead: 8, sqId: 10, commandId: 12, status: 14 } as const

export interface CompletionFields {
  readonly dword0: number
  readonly dword1: number
  readonly sqHead: number
  readonly commandId: number
  /** As in nvmeStatus.ts. */
  readonly status: number
}

export const writeCqe = (bytes: Uint8Array, at: number, cqe: CompletionFields): void => {
  setU32(bytes, at + Cqe.dword0, cqe.dword0)
  setU32(bytes, at + Cqe.dword1, cqe.dword1)
  setU16(bytes, at + Cqe.sqHead, cqe.sqHead)
  setU16(bytes, at + Cqe.sqId, 0)
  setU16(bytes, at + Cqe.commandId, cqe.commandId)
  setU16(bytes, at + Cqe.status, statusField(cqe.status))
}
