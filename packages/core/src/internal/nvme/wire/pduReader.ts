/**
 * PDUs out of the chunks of a socket. A header that is whole in its chunk is read there; data goes to its owner in pieces, as the
 * chunks bring it, and is never gathered here. So a reader holds one header at most, whatever the peer says about lengths.
 */
import { crc32c, getU32 } from "./bytes.ts"
import {
  checkCommonHeader,
  commonHeaderBytes,
  digestBytes,
  FatalError,
  hasHeaderDigest,
  headerFault,
  maxHeaderBytes,
  plainFormat,
  PduFault,
  type PduFormat,
  PduType,
  type Receiver,
  sequenceFault,
  transferLength,
  TransferField
} from "./pdu.ts"

/** What is done with PDUs. A fault ends the reading; nothing is called after it. */
export interface PduOwner {
  /**
   * A header, checked: `bytes` from `at` on, valid during this call only. Data of `reader.dataBytes` follows.
   * The first PDU is ICReq or ICResp, and no other is.
   */
  onHeader(reader: PduReader, bytes: Uint8Array, at: number): PduFault | undefined
  /** The next piece of the data of this PDU, valid during this call only. */
  onData(bytes: Uint8Array, start: number, end: number): PduFault | undefined
  /** The end of the PDU. A wrong data digest is no fault of the connection: the command fails. */
  onEnd(isDigestRight: boolean): PduFault | undefined
}

const State = { Header: 0, Padding: 1, Data: 2, Digest: 3, Stopped: 4 } as const

export class PduReader {
  /** Of the PDU that is being read. */
  type = 0
  flags = 0
  dataBytes = 0
  private readonly receiver: Receiver
  private readonly owner: PduOwner
  private format: PduFormat = plainFormat
  /** Set once ICReq or ICResp is read. */
  private isConnected = false
  private state: number = State.Header
  /** What chunks have brought of a header or of a digest. */
  private readonly partial = new Uint8Array(maxHeaderBytes)
  private partialBytes = 0
  /** What is still to come of padding or data. */
  private leftBytes = 0
  private digest = 0

  constructor(receiver: Receiver, owner: PduOwner) {
    this.receiver = receiver
    this.owner = owner
  }

  /** Whether the next bytes are those of a PDU's data. */
  get isInData(): boolean {
    return this.state === State.Data
  }

  /** From the next PDU on. The owner's, when it reads ICReq or ICResp. */
  agree(format: PduFormat): void {
    this.format = format
  }

  /** Nothing more is read or called. */
  stop(): void {
    this.state = State.Stopped
  }

  push(chunk: Uint8Array): PduFault | undefined {
    let at = 0
    while (at < chunk.length) {
      const before = this.state
      if (before === State.Stopped) return undefined
      const next = before === State.Header ? this.readHeader(chunk, at) : this.readBody(chunk, at)
      if (typeof next !== "number") {
        this.stop()
        return next
      }
      at = next
    }
    return undefined
  }

  /** The position after what it took, or a fault. */
  private readHeader(chunk: Uint8Array, start: number): number | PduFault {
    const available = chunk.length - start
    if (this.partialBytes === 0 && available >= commonHeaderBytes) {
      const fault = this.checkCommon(chunk, start)
      if (fault !== undefined) return fault
      const neededBytes = this.neededBytes(chunk, start)
      if (available >= neededBytes) return this.header(chunk, start) ?? start + neededBytes
    }
    const { partial } = this
    let at = start
    while (at < chunk.length) {
      const neededBytes = this.partialBytes < commonHeaderBytes ? commonHeaderBytes : this.neededBytes(partial, 0)
      const end = Math.min(chunk.length, at + neededBytes - this.partialBytes)
      for (; at < end; at++) partial[this.partialBytes++] = chunk[at] ?? 0
      if (this.partialBytes < neededBytes) break
      if (neededBytes === commonHeaderBytes) {
        const fault = this.checkCommon(partial, 0)
        if (fault !== undefined) return fault
      } else {
        this.partialBytes = 0
        return this.header(partial, 0) ?? at
      }
    }
    return at
  }

  private neededBytes(bytes: Uint8Array, at: number): number {
    const headerBytes = bytes[at + 2] ?? 0
    return hasHeaderDigest(bytes[at] ?? 0) ? this.format.headerBytes(headerBytes) : headerBytes
  }

  private checkCommon(bytes: Uint8Array, at: number): PduFault | undefined {
    const fault = checkCommonHeader(bytes, at, this.receiver, this.format) ?? this.checkSequence(bytes[at] ?? 0)
    return fault === undefined ? undefined : quoting(fault, bytes, at, commonHeaderBytes)
  }

  private checkSequence(type: number): PduFault | undefined {
    if (type === PduType.H2cTermReq || type === PduType.C2hTermReq) return undefined
    const isFirst = type === PduType.IcReq || type === PduType.IcResp
    if (isFirst !== this.isConnected) return undefined
    return sequenceFault(isFirst ? "the connection is initialized already" : "the connection is not initialized")
  }

  private header(bytes: Uint8Array, at: number): PduFault | undefined {
    const headerBytes = bytes[at + 2] ?? 0
    const fault = this.checkHeader(bytes, at, headerBytes) ?? this.owner.onHeader(this, bytes, at)
    if (fault !== undefined) return quoting(fault, bytes, at, headerBytes)
    if (this.state === State.Stopped) return undefined
    if (this.dataBytes === 0) return this.owner.onEnd(true)
    this.digest = 0
    this.leftBytes = this.dataBytes
    this.state = State.Data
    if (hasHeaderDigest(this.type)) {
      const paddingBytes = (bytes[at + 3] ?? 0) - this.neededBytes(bytes, at)
      if (paddingBytes > 0) {
        this.leftBytes = paddingBytes
        this.state = State.Padding
      }
    }
    return undefined
  }

  private checkHeader(bytes: Uint8Array, at: number, headerBytes: number): PduFault | undefined {
    const type = bytes[at] ?? 0
    const pduBytes = getU32(bytes, at + 4)
    this.type = type
    this.flags = bytes[at + 1] ?? 0
    if (!hasHeaderDigest(type)) {
      this.isConnected = true
      this.dataBytes = pduBytes - headerBytes
      return undefined
    }
    const { dataDigest, headerDigest } = this.format
    if (headerDigest && crc32c(bytes, at, at + headerBytes) !== getU32(bytes, at + headerBytes)) {
      const message = "the header digest is wrong"
      return new PduFault(FatalError.HeaderDigestError, getU32(bytes, at + headerBytes), message)
    }
    const hasData = pduBytes > this.neededBytes(bytes, at)
    this.dataBytes = hasData ? pduBytes - (bytes[at + 3] ?? 0) - (dataDigest ? digestBytes : 0) : 0
    const isData = type === PduType.H2cData || type === PduType.C2hData
    if (isData && transferLength(bytes, at) !== this.dataBytes) {
      const claimed = transferLength(bytes, at)
      return headerFault(TransferField.Length, `DATAL ${claimed} of a PDU with ${this.dataBytes} bytes of data`)
    }
    return undefined
  }

  private readBody(chunk: Uint8Array, start: number): number | PduFault {
    if (this.state === State.Digest) return this.readDigest(chunk, start)
    const end = Math.min(chunk.length, start + this.leftBytes)
    this.leftBytes -= end - start
    if (this.state === State.Padding) {
      if (this.leftBytes === 0) {
        this.leftBytes = this.dataBytes
        this.state = State.Data
      }
      return end
    }
    const hasDigest = this.format.dataDigest && hasHeaderDigest(this.type)
    if (hasDigest) this.digest = crc32c(chunk, start, end, this.digest)
    const fault = this.owner.onData(chunk, start, end)
    if (fault !== undefined) return fault
    if (this.leftBytes > 0) return end
    if (hasDigest) {
      this.state = State.Digest
      return end
    }
    return this.ended(true) ?? end
  }

  private readDigest(chunk: Uint8Array, start: number): number | PduFault {
    const { partial } = this
    let at = start
    while (at < chunk.length && this.partialBytes < digestBytes) partial[this.partialBytes++] = chunk[at++] ?? 0
    if (this.partialBytes < digestBytes) return at
    this.partialBytes = 0
    return this.ended(getU32(partial, 0) === this.digest) ?? at
  }

  private ended(isDigestRight: boolean): PduFault | undefined {
    if (this.state !== State.Stopped) this.state = State.Header
    return this.owner.onEnd(isDigestRight)
  }
}

/** A copy, because the chunk is gone by the time the fault is sent. */
const quoting = (fault: PduFault, bytes: Uint8Array, at: number, lengthBytes: number): PduFault => {
  if (fault.header.length === 0) fault.header = bytes.slice(at, at + lengthBytes)
  return fault
}
