/**
 * One connection of the host: what is said on it, PDU by PDU, and the refusal of everything that a controller must not say.
 * A peer that lies ends its connection, with a termination request that says why.
 *
 * Everything here runs on the JS thread.
 */
import { setU32, getU16, getU32 } from "../../nvme/wire/bytes.ts"
import { Cqe, cqeBytes, SglType, writeSgl } from "../../nvme/wire/command.ts"
import { Status, statusOfField } from "../../nvme/wire/nvmeStatus.ts"
import {
  capsuleCmdBytes,
  commonHeaderBytes,
  decodeIcResp,
  digestBytes,
  encodeIcReq,
  encodeTermReq,
  FatalError,
  headerFault,
  maxAlignment,
  PduFault,
  PduFlag,
  PduFormat,
  PduType,
  plainFormat,
  termFatalError,
  termField,
  transferCommandId,
  TransferField,
  transferLength,
  transferOffset,
  transferTag,
  writeCapsuleCmd,
  writeDataHeader
} from "../../nvme/wire/pdu.ts"
import { PduReader, type PduOwner } from "../../nvme/wire/pduReader.ts"
import type { EmbeddedReactor } from "../runtime/reactor.ts"
import { CommandList, type HostCommand } from "./hostCommand.ts"
import { Link, type LinkOwner } from "./link.ts"
import type { QueueConnect } from "./queuePair.ts"

/** The end of a connection. `error` is the socket's, when it is one. */
export interface ConnectionFailure {
  readonly message: string
  readonly error: Error | undefined
}

export interface ConnectionOwner {
  /** The command of this id that is on its way. */
  readonly find: (commandId: number) => HostCommand | undefined
  readonly ended: (command: HostCommand, status: number) => void
  /** Commands can be sent. */
  readonly opened: () => void
  /** There is room for more commands. */
  readonly drained: () => void
  /** Once. */
  readonly failed: (failure: ConnectionFailure) => void
}

/** The least that the specification has for MAXH2CDATA. */
const leastH2cData = 4096

// Encoded as soon as it is filled.
const transfer = { commandId: 0, transferTag: 0, offsetBytes: 0, lengthBytes: 0 }

export class HostConnection implements LinkOwner, PduOwner {
  private readonly owner: ConnectionOwner
  private readonly connect: QueueConnect
  private readonly link: Link
  private readonly reader: PduReader
  /** Of what is sent. */
  private format: PduFormat = plainFormat
  private maxH2cData = leastH2cData
  private isClosed = false
  /** Commands with data that R2Ts have asked for, while the connection is full. */
  private readonly owing = new CommandList()
  /** Of the PDU that is being read. */
  private command: HostCommand | undefined = undefined
  private dataAt = 0
  private isLast = false

  constructor(owner: ConnectionOwner, reactor: EmbeddedReactor, connect: QueueConnect) {
    this.owner = owner
    this.connect = connect
    this.reader = new PduReader("host", this)
    this.link = new Link(this, reactor, connect.address)
  }

  get isFull(): boolean {
    return this.link.isFull
  }

  close(): void {
    this.isClosed = true
    this.reader.stop()
    this.link.end()
  }

  /** Its id is set. */
  sendCommand(command: HostCommand): void {
    const { format, link } = this
    const { lengthBytes, sqe } = command
    command.isInCapsule = lengthBytes > 0 && lengthBytes <= this.connect.inCapsuleBytes && command.isToController
    writeSgl(sqe, 0, command.isInCapsule ? SglType.InCapsule : SglType.Transport, lengthBytes)
    const dataBytes = command.isInCapsule ? lengthBytes : 0
    const at = link.claim(dataBytes > 0 ? format.capsuleDataOffset : format.headerBytes(capsuleCmdBytes))
    link.bytes.set(sqe, at + commonHeaderBytes)
    writeCapsuleCmd(link.bytes, at, format, dataBytes)
    if (dataBytes === 0) return
    command.doneBytes = lengthBytes
    this.sendData(command, 0, lengthBytes)
  }

  linkOpened(): void {
    const { dataDigest, headerDigest } = this.connect
    const bytes = encodeIcReq({ version: 0, alignment: 0, headerDigest, dataDigest, maxR2t: 1 })
    this.link.copy(bytes, 0, bytes.length)
  }

  linkData(bytes: Buffer): void {
    let fault: PduFault | undefined
    try {
      fault = this.reader.push(bytes)
    } catch (error) {
      // The reader does not know any more where in the stream it is.
      this.fail("the data from the target could not be read completely")
      throw error
    }
    if (fault !== undefined) this.refuse(fault)
  }

  linkDrained(): void {
    while (!this.link.isFull) {
      const command = this.owing.shift()
      if (command === undefined) break
      this.pay(command)
    }
    this.owner.drained()
  }

  linkClosed(error: Error | undefined): void {
    this.fail(error === undefined ? "the target has closed the connection" : error.message, error)
  }

  onHeader(reader: PduReader, bytes: Uint8Array, at: number): PduFault | undefined {
    this.command = undefined
    switch (reader.type) {
      case PduType.IcResp:
        return this.agree(bytes, at)
      case PduType.CapsuleResp:
        return this.complete(bytes, at + commonHeaderBytes)
      case PduType.C2hData:
        return this.receive(bytes, at)
      case PduType.R2t:
        return this.ready(bytes, at)
      default:
        // C2HTermReq: the reader lets nothing else through.
        this.fail(
          `the target ended the connection with a termination request: fatal error ${termFatalError(bytes, at)}, ` +
            `field ${termField(bytes, at)}`
        )
        return undefined
    }
  }

  onData(bytes: Uint8Array, start: number, end: number): PduFault | undefined {
    const { command } = this
    // What follows the header of a termination request is for nobody.
    if (command === undefined) return undefined
    // The reader hands on what it was given by linkData.
    command.store(this.dataAt, bytes as Buffer, start, end)
    this.dataAt += end - start
    return undefined
  }

  onEnd(isDigestRight: boolean): PduFault | undefined {
    const { command } = this
    if (command === undefined) return undefined
    this.command = undefined
    if (!isDigestRight) command.isDamaged = true
    if (this.isLast) this.end(command, 0)
    return undefined
  }

  private agree(bytes: Uint8Array, at: number): PduFault | undefined {
    const response = decodeIcResp(bytes, at)
    const { dataDigest, headerDigest } = this.connect
    if (response.version !== 0) {
      return new PduFault(FatalError.UnsupportedParameter, 8, `PFV ${response.version} is not known`)
    }
    if (response.alignment > maxAlignment) return headerFault(10, `CPDA ${response.alignment} is above ${maxAlignment}`)
    if ((response.headerDigest && !headerDigest) || (response.dataDigest && !dataDigest)) {
      return headerFault(11, "digests are enabled that were not asked for")
    }
    if (response.maxH2cData < leastH2cData || response.maxH2cData % 4 !== 0) {
      return headerFault(12, `MAXH2CDATA ${response.maxH2cData} is below ${leastH2cData} or no multiple of 4`)
    }
    const digests = { headerDigest: response.headerDigest, dataDigest: response.dataDigest }
    this.maxH2cData = response.maxH2cData
    this.format = new PduFormat({ ...digests, alignment: response.alignment })
    this.reader.agree(new PduFormat({ ...digests, alignment: 0 }))
    this.owner.opened()
    return undefined
  }

  /** A completion. */
  private complete(bytes: Uint8Array, at: number): PduFault | undefined {
    const commandId = getU16(bytes, at + Cqe.commandId)
    const command = this.owner.find(commandId)
    if (command === undefined) {
      return headerFault(
        commonHeaderBytes + Cqe.commandId,
        `a completion for command ${commandId}, which is not on its way`
      )
    }
    command.dword0 = getU32(bytes, at + Cqe.dword0)
    command.dword1 = getU32(bytes, at + Cqe.dword1)
    this.end(command, statusOfField(getU16(bytes, at + Cqe.status)))
    return undefined
  }

  private end(command: HostCommand, status: number): void {
    if (command.owedBytes > 0) this.owing.take((one) => one === command)
    // Success without the data, or with data that is not what was sent, is none.
    const isShort = command.isExact && command.doneBytes < command.lengthBytes
    if (status !== 0) this.owner.ended(command, status)
    else if (command.isLost) this.owner.ended(command, Status.DataTransferError)
    else if (command.isDamaged) this.owner.ended(command, Status.TransientTransportError)
    else this.owner.ended(command, isShort ? Status.DataTransferError : 0)
  }

  /** The header of C2HData. */
  private receive(bytes: Uint8Array, at: number): PduFault | undefined {
    const commandId = transferCommandId(bytes, at)
    const command = this.owner.find(commandId)
    if (command === undefined || !command.isToHost) {
      return headerFault(TransferField.CommandId, `data for command ${commandId}, which is no read on its way`)
    }
    const isLast = (this.reader.flags & PduFlag.Last) !== 0
    const isSuccess = (this.reader.flags & PduFlag.Success) !== 0
    if (isSuccess && !isLast) return headerFault(1, "SUCCESS without LAST_PDU")
    const offset = transferOffset(bytes, at)
    const length = transferLength(bytes, at)
    if (length > command.lengthBytes - command.doneBytes) {
      return new PduFault(
        FatalError.DataOutOfRange,
        0,
        `${length} bytes of data at ${offset} of ${command.lengthBytes}`
      )
    }
    if (offset !== command.doneBytes) {
      return headerFault(TransferField.Offset, `data at ${offset} instead of ${command.doneBytes}`)
    }
    this.command = command
    this.dataAt = offset
    this.isLast = isSuccess
    command.doneBytes += length
    return undefined
  }

  private ready(bytes: Uint8Array, at: number): PduFault | undefined {
    const commandId = transferCommandId(bytes, at)
    const command = this.owner.find(commandId)
    if (command === undefined || !command.isToController || command.isInCapsule) {
      return headerFault(TransferField.CommandId, `R2T for command ${commandId}, which has no data to send`)
    }
    if (command.owedBytes > 0) {
      return new PduFault(
        FatalError.LimitExceeded,
        0,
        `a second R2T for command ${commandId} before the data of the first`
      )
    }
    const offset = transferOffset(bytes, at)
    const length = transferLength(bytes, at)
    if (offset !== command.doneBytes) {
      return headerFault(TransferField.Offset, `R2T for data at ${offset} instead of ${command.doneBytes}`)
    }
    if (length === 0 || length > command.lengthBytes - offset) {
      return new PduFault(
        FatalError.DataOutOfRange,
        0,
        `R2T for ${length} bytes at ${offset} of ${command.lengthBytes}`
      )
    }
    command.owedBytes = length
    command.owedOffset = offset
    command.transferTag = transferTag(bytes, at)
    command.doneBytes += length
    if (this.link.isFull) this.owing.push(command)
    else this.pay(command)
    return undefined
  }

  /** Sends what an R2T has asked for, in one or more H2CData. */
  private pay(command: HostCommand): void {
    const { format, link } = this
    while (command.owedBytes > 0) {
      const lengthBytes = Math.min(command.owedBytes, this.maxH2cData)
      const offsetBytes = command.owedOffset
      command.owedBytes -= lengthBytes
      command.owedOffset += lengthBytes
      transfer.commandId = command.commandId
      transfer.transferTag = command.transferTag
      transfer.offsetBytes = offsetBytes
      transfer.lengthBytes = lengthBytes
      const flags = command.owedBytes === 0 ? PduFlag.Last : 0
      const at = link.claim(format.dataOffset)
      writeDataHeader(link.bytes, at, format, { type: PduType.H2cData, flags, transfer })
      this.sendData(command, offsetBytes, lengthBytes)
      if (command.owedBytes > 0 && link.isFull) return this.owing.push(command)
    }
  }

  private sendData(command: HostCommand, offsetBytes: number, lengthBytes: number): void {
    const { dataDigest } = this.format
    const digest = command.send(this.link, offsetBytes, lengthBytes, dataDigest)
    if (!dataDigest) return
    const at = this.link.claim(digestBytes)
    setU32(this.link.bytes, at, digest)
  }

  /** Tells the peer what is wrong with what it has sent. */
  private refuse(fault: PduFault): void {
    if (this.isClosed) return
    const bytes = encodeTermReq(PduType.H2cTermReq, fault)
    this.link.copy(bytes, 0, bytes.length)
    this.fail(`the target broke the protocol: ${fault.message}`)
  }

  private fail(message: string, error?: Error): void {
    if (this.isClosed) return
    this.close()
    this.owner.failed({ message, error })
  }
}

/** A completion as its 16 bytes. */
export const completionBytes = (
  command: Pick<HostCommand, "dword0" | "dword1" | "status">,
  bytes: Uint8Array,
  at: number
): void => {
  setU32(bytes, at + Cqe.dword0, command.dword0)
  setU32(bytes, at + Cqe.dword1, command.dword1)
  bytes.fill(0, at + Cqe.sqHead, at + cqeBytes)
  setU32(bytes, at + Cqe.commandId, (command.status << 17) >>> 0)
}
