/**
 * The PDUs of the NVMe/TCP transport specification 1.0 and 1.1: layout, encoding, and the checks of what a peer sends. Nothing
 * here knows sockets. Encoders write into the caller's bytes, because some of them run per I/O.
 */
import { crc32c, setU16, setU32, getU16, getU32 } from "./bytes.ts"

export const PduType = {
  IcReq: 0x00,
  IcResp: 0x01,
  H2cTermReq: 0x02,
  C2hTermReq: 0x03,
  CapsuleCmd: 0x04,
  CapsuleResp: 0x05,
  H2cData: 0x06,
  C2hData: 0x07,
  R2t: 0x09
} as const

/** Flags of the common header. */
export const PduFlag = {
  HeaderDigest: 0x01,
  DataDigest: 0x02,
  /** Of the data PDUs: the last one of a transfer. */
  Last: 0x04,
  /** Of C2HData: stands for the response capsule, which does not follow. */
  Success: 0x08
} as const

/** Fatal error status of a termination request. */
export const FatalError = {
  InvalidHeaderField: 0x01,
  SequenceError: 0x02,
  HeaderDigestError: 0x03,
  DataOutOfRange: 0x04,
  /** More data than MAXH2CDATA (to a host), more R2T than MAXR2T (to a controller). */
  LimitExceeded: 0x05,
  UnsupportedParameter: 0x06
} as const

export const commonHeaderBytes = 8
export const digestBytes = 4
export const icBytes = 128
/** CapsuleResp, H2CData, C2HData, R2T and the termination requests. */
export const shortHeaderBytes = 24
export const capsuleCmdBytes = 72
/** A termination request quotes at most so much of the header at fault. */
export const maxQuotedBytes = 128
/** The header that is longest, with its digest. */
export const maxHeaderBytes = icBytes + digestBytes

/** What is wrong with a PDU, as a termination request says it. `field` is the offset of the field at fault in the header. */
export class PduFault {
  readonly _tag = "PduFault"
  readonly fatalError: number
  readonly field: number
  readonly message: string
  /** The header at fault, as far as it was there. */
  header: Uint8Array = new Uint8Array(0)

  constructor(fatalError: number, field: number, message: string) {
    this.fatalError = fatalError
    this.field = field
    this.message = message
  }
}

export const headerFault = (field: number, message: string): PduFault =>
  new PduFault(FatalError.InvalidHeaderField, field, message)

export const sequenceFault = (message: string): PduFault => new PduFault(FatalError.SequenceError, 0, message)

/** What the two sides have agreed on: where data stands in the PDUs of one direction. */
export class PduFormat {
  readonly headerDigest: boolean
  readonly dataDigest: boolean
  /** Data starts at a multiple of this. */
  readonly alignmentBytes: number
  /** Where in-capsule data starts, and the data of data PDUs. */
  readonly capsuleDataOffset: number
  readonly dataOffset: number

  /** `alignment` is HPDA or CPDA: dwords, 0's based. */
  constructor(options: { readonly headerDigest: boolean; readonly dataDigest: boolean; readonly alignment: number }) {
    this.headerDigest = options.headerDigest
    this.dataDigest = options.dataDigest
    this.alignmentBytes = (options.alignment + 1) * 4
    this.capsuleDataOffset = this.aligned(capsuleCmdBytes)
    this.dataOffset = this.aligned(shortHeaderBytes)
  }

  /** Of a header without data behind it. */
  headerBytes(lengthBytes: number): number {
    return this.headerDigest ? lengthBytes + digestBytes : lengthBytes
  }

  private aligned(lengthBytes: number): number {
    return Math.ceil(this.headerBytes(lengthBytes) / this.alignmentBytes) * this.alignmentBytes
  }
}

/** Before anything is agreed on. */
export const plainFormat = new PduFormat({ headerDigest: false, dataDigest: false, alignment: 0 })

const headerBytesOf: ReadonlyArray<number | undefined> = [
  icBytes,
  icBytes,
  shortHeaderBytes,
  shortHeaderBytes,
  capsuleCmdBytes,
  shortHeaderBytes,
  shortHeaderBytes,
  shortHeaderBytes,
  undefined,
  shortHeaderBytes
]

/** Whether PDUs of this type carry a header digest when one is agreed on. */
export const hasHeaderDigest = (type: number): boolean => type >= PduType.CapsuleCmd

const toController =
  (1 << PduType.IcReq) | (1 << PduType.H2cTermReq) | (1 << PduType.CapsuleCmd) | (1 << PduType.H2cData)
const toHost =
  (1 << PduType.IcResp) |
  (1 << PduType.C2hTermReq) |
  (1 << PduType.CapsuleResp) |
  (1 << PduType.C2hData) |
  (1 << PduType.R2t)

/** Whom PDUs are sent to. */
export type Receiver = "controller" | "host"

/** Offsets in the common header, which is what `PduFault.field` counts in. */
export const HeaderField = { Type: 0, Flags: 1, HeaderLength: 2, DataOffset: 3, PduLength: 4 } as const

/** Checks the 8 bytes of a common header, all that can be said about them alone. */
export const checkCommonHeader = (
  bytes: Uint8Array,
  at: number,
  receiver: Receiver,
  format: PduFormat
): PduFault | undefined => {
  const type = bytes[at] ?? 0
  const headerBytes = type > PduType.R2t ? undefined : headerBytesOf[type]
  const accepted = receiver === "controller" ? toController : toHost
  if (headerBytes === undefined || (accepted & (1 << type)) === 0) {
    return headerFault(HeaderField.Type, `PDU type 0x${type.toString(16)} is none that a ${receiver} takes`)
  }
  if (bytes[at + 2] !== headerBytes) {
    return headerFault(HeaderField.HeaderLength, `HLEN ${bytes[at + 2]} of a PDU whose header has ${headerBytes} bytes`)
  }
  const pduBytes = getU32(bytes, at + 4)
  if (!hasHeaderDigest(type)) return checkUndigested(type, pduBytes)
  const flags = bytes[at + 1] ?? 0
  if (((flags & PduFlag.HeaderDigest) !== 0) !== format.headerDigest) {
    return headerFault(HeaderField.Flags, `HDGSTF is ${format.headerDigest ? "not " : ""}set`)
  }
  const fullHeaderBytes = format.headerBytes(headerBytes)
  if (type === PduType.CapsuleResp || type === PduType.R2t) {
    return pduBytes === fullHeaderBytes ? undefined : lengthFault(pduBytes)
  }
  // Only a capsule may come without data.
  if (pduBytes === fullHeaderBytes && type === PduType.CapsuleCmd) return undefined
  return checkData(bytes, at, { fullHeaderBytes, format })
}

const lengthFault = (pduBytes: number): PduFault => headerFault(HeaderField.PduLength, `PLEN ${pduBytes} cannot be`)

const checkUndigested = (type: number, pduBytes: number): PduFault | undefined => {
  const isTermination = type === PduType.H2cTermReq || type === PduType.C2hTermReq
  const isRight = isTermination
    ? pduBytes >= shortHeaderBytes && pduBytes <= shortHeaderBytes + maxQuotedBytes
    : pduBytes === icBytes
  return isRight ? undefined : lengthFault(pduBytes)
}

const checkData = (
  bytes: Uint8Array,
  at: number,
  { format, fullHeaderBytes }: { readonly fullHeaderBytes: number; readonly format: PduFormat }
): PduFault | undefined => {
  const pduBytes = getU32(bytes, at + 4)
  const dataOffset = bytes[at + 3] ?? 0
  const trailerBytes = format.dataDigest ? digestBytes : 0
  if ((((bytes[at + 1] ?? 0) & PduFlag.DataDigest) !== 0) !== format.dataDigest) {
    return headerFault(HeaderField.Flags, `DDGSTF is ${format.dataDigest ? "not " : ""}set`)
  }
  if (pduBytes <= fullHeaderBytes + trailerBytes) return lengthFault(pduBytes)
  if (dataOffset < fullHeaderBytes || dataOffset % format.alignmentBytes !== 0) {
    return headerFault(HeaderField.DataOffset, `PDO ${dataOffset} is inside of the header or not aligned`)
  }
  // Zero bytes of data in a PDU that should have some are a lie about its length.
  return pduBytes > dataOffset + trailerBytes ? undefined : lengthFault(pduBytes)
}

const writeCommon = (bytes: Uint8Array, at: number, typeAndFlags: number, headerBytes: number, dataOffset: number) => {
  bytes[at] = typeAndFlags & 0xff
  bytes[at + 1] = typeAndFlags >>> 8
  bytes[at + 2] = headerBytes
  bytes[at + 3] = dataOffset
}

const writeHeaderDigest = (bytes: Uint8Array, at: number, headerBytes: number): void =>
  setU32(bytes, at + headerBytes, crc32c(bytes, at, at + headerBytes))

/** The flags of a header, from what was agreed on. */
const flagsOf = (format: PduFormat, hasData: boolean): number =>
  (format.headerDigest ? PduFlag.HeaderDigest : 0) | (hasData && format.dataDigest ? PduFlag.DataDigest : 0)

export interface IcReq {
  readonly version: number
  /** HPDA: how the data of PDUs to the host is aligned; dwords, 0's based. */
  readonly alignment: number
  readonly headerDigest: boolean
  readonly dataDigest: boolean
  /** R2Ts that the host takes for one command; in the PDU 0's based. */
  readonly maxR2t: number
}

export interface IcResp {
  readonly version: number
  /** CPDA: how the data of PDUs to the controller is aligned; dwords, 0's based. */
  readonly alignment: number
  readonly headerDigest: boolean
  readonly dataDigest: boolean
  /** Bytes of data in one H2CData. */
  readonly maxH2cData: number
}

const encodeIc = (type: number, pdu: Omit<IcReq, "maxR2t">, last: number): Uint8Array => {
  const bytes = new Uint8Array(icBytes)
  writeCommon(bytes, 0, type, icBytes, 0)
  setU32(bytes, 4, icBytes)
  setU16(bytes, 8, pdu.version)
  bytes[10] = pdu.alignment
  bytes[11] = (pdu.headerDigest ? 1 : 0) | (pdu.dataDigest ? 2 : 0)
  setU32(bytes, 12, last)
  return bytes
}

const decodeIc = (bytes: Uint8Array, at: number): Omit<IcReq, "maxR2t"> => {
  const digests = bytes[at + 11] ?? 0
  return {
    version: getU16(bytes, at + 8),
    alignment: bytes[at + 10] ?? 0,
    headerDigest: (digests & 1) !== 0,
    dataDigest: (digests & 2) !== 0
  }
}

export const encodeIcReq = (pdu: IcReq): Uint8Array => encodeIc(PduType.IcReq, pdu, pdu.maxR2t - 1)
export const encodeIcResp = (pdu: IcResp): Uint8Array => encodeIc(PduType.IcResp, pdu, pdu.maxH2cData)

export const decodeIcReq = (bytes: Uint8Array, at: number): IcReq => ({
  ...decodeIc(bytes, at),
  maxR2t: getU32(bytes, at + 12) + 1
})
export const decodeIcResp = (bytes: Uint8Array, at: number): IcResp => ({
  ...decodeIc(bytes, at),
  maxH2cData: getU32(bytes, at + 12)
})

/** The largest HPDA and CPDA that the specification has. */
export const maxAlignment = 31

/** A termination request to the other side than `receiver` of the PDU at fault. */
export const encodeTermReq = (type: 0x02 | 0x03, fault: PduFault): Uint8Array => {
  const quoted = fault.header.subarray(0, maxQuotedBytes)
  const bytes = new Uint8Array(shortHeaderBytes + quoted.length)
  writeCommon(bytes, 0, type, shortHeaderBytes, 0)
  setU32(bytes, 4, bytes.length)
  setU16(bytes, 8, fault.fatalError)
  setU32(bytes, 10, fault.field)
  bytes.set(quoted, shortHeaderBytes)
  return bytes
}

/** Fields of a termination request's header. */
export const termFatalError = (bytes: Uint8Array, at: number): number => getU16(bytes, at + 8)
export const termField = (bytes: Uint8Array, at: number): number => getU32(bytes, at + 10)

/**
 * The header of a command capsule around the command, which stands at `at + commonHeaderBytes` already and with it all that the
 * digest covers. Returns where the data goes, or the end when there is none.
 */
export const writeCapsuleCmd = (bytes: Uint8Array, at: number, format: PduFormat, dataBytes: number): number => {
  const hasData = dataBytes > 0
  const dataOffset = hasData ? format.capsuleDataOffset : format.headerBytes(capsuleCmdBytes)
  writeCommon(
    bytes,
    at,
    PduType.CapsuleCmd | (flagsOf(format, hasData) << 8),
    capsuleCmdBytes,
    hasData ? dataOffset : 0
  )
  setU32(bytes, at + 4, hasData ? dataOffset + dataBytes + (format.dataDigest ? digestBytes : 0) : dataOffset)
  if (format.headerDigest) writeHeaderDigest(bytes, at, capsuleCmdBytes)
  zeroPadding(bytes, at + format.headerBytes(capsuleCmdBytes), at + dataOffset)
  return at + dataOffset
}

/** The header of a response capsule around the completion at `at + commonHeaderBytes`. Returns its end. */
export const writeCapsuleResp = (bytes: Uint8Array, at: number, format: PduFormat): number => {
  const pduBytes = format.headerBytes(shortHeaderBytes)
  writeCommon(bytes, at, PduType.CapsuleResp | (flagsOf(format, false) << 8), shortHeaderBytes, 0)
  setU32(bytes, at + 4, pduBytes)
  if (format.headerDigest) writeHeaderDigest(bytes, at, shortHeaderBytes)
  return at + pduBytes
}

/** The fields of H2CData and C2HData (which has no transfer tag) and R2T. */
export interface Transfer {
  commandId: number
  transferTag: number
  offsetBytes: number
  lengthBytes: number
}

export const transferCommandId = (bytes: Uint8Array, at: number): number => getU16(bytes, at + 8)
export const transferTag = (bytes: Uint8Array, at: number): number => getU16(bytes, at + 10)
export const transferOffset = (bytes: Uint8Array, at: number): number => getU32(bytes, at + 12)
export const transferLength = (bytes: Uint8Array, at: number): number => getU32(bytes, at + 16)

/** Offsets for faults of transfers. */
export const TransferField = { CommandId: 8, TransferTag: 10, Offset: 12, Length: 16 } as const

const writeTransfer = (bytes: Uint8Array, at: number, transfer: Transfer): void => {
  setU16(bytes, at + 8, transfer.commandId)
  setU16(bytes, at + 10, transfer.transferTag)
  setU32(bytes, at + 12, transfer.offsetBytes)
  setU32(bytes, at + 16, transfer.lengthBytes)
  setU32(bytes, at + 20, 0)
}

/** A data PDU up to its data; returns where the data starts. `flags` are `Last` and `Success`. */
export const writeDataHeader = (
  bytes: Uint8Array,
  at: number,
  format: PduFormat,
  options: { readonly type: 0x06 | 0x07; readonly flags: number; readonly transfer: Transfer }
): number => {
  const { dataOffset } = format
  const flags = options.flags | flagsOf(format, true)
  writeCommon(bytes, at, options.type | (flags << 8), shortHeaderBytes, dataOffset)
  setU32(bytes, at + 4, dataOffset + options.transfer.lengthBytes + (format.dataDigest ? digestBytes : 0))
  writeTransfer(bytes, at, options.transfer)
  if (format.headerDigest) writeHeaderDigest(bytes, at, shortHeaderBytes)
  zeroPadding(bytes, at + format.headerBytes(shortHeaderBytes), at + dataOffset)
  return at + dataOffset
}

/** Returns its end. */
export const writeR2t = (bytes: Uint8Array, at: number, format: PduFormat, transfer: Transfer): number => {
  const pduBytes = format.headerBytes(shortHeaderBytes)
  writeCommon(bytes, at, PduType.R2t | (flagsOf(format, false) << 8), shortHeaderBytes, 0)
  setU32(bytes, at + 4, pduBytes)
  writeTransfer(bytes, at, transfer)
  if (format.headerDigest) writeHeaderDigest(bytes, at, shortHeaderBytes)
  return at + pduBytes
}

const zeroPadding = (bytes: Uint8Array, start: number, end: number): void => {
  for (let at = start; at < end; at++) bytes[at] = 0
}
