/**
 * One connection of a host, which is one queue of a controller: PDUs become commands, commands go to where they are carried out, and
 * their ends become responses. The socket is in targetLink.ts, the places of commands in submissionQueue.ts.
 */
import type { Socket } from "../../engine/network.ts"
import { AdminOpcode, IoOpcode, Sqe, sqeBytes } from "../../nvme/wire/command.ts"
import { dnr, Status } from "../../nvme/wire/nvmeStatus.ts"
import {
  commonHeaderBytes,
  decodeIcReq,
  encodeIcResp,
  FatalError,
  HeaderField,
  headerFault,
  icBytes,
  maxAlignment,
  PduFault,
  PduFlag,
  PduFormat,
  plainFormat,
  PduType,
  sequenceFault,
  type Transfer,
  transferTag,
  writeR2t
} from "../../nvme/wire/pdu.ts"
import type { PduReader } from "../../nvme/wire/pduReader.ts"
import { Deadline } from "../runtime/deadline.ts"
import type { EmbeddedIo, IoOwner } from "../bdev/io.ts"
import { adminCommand } from "./admin.ts"
import { fabricsCommand } from "./connect.ts"
import { type Controller, maxAsyncEvents } from "./controller.ts"
import { ioStatus, startIo } from "./ioCommands.ts"
import type { OutBlock } from "./outBlock.ts"
import { Output } from "./output.ts"
import { type NvmfRequest, Phase, type RequestOwner } from "./request.ts"
import { SubmissionQueue } from "./submissionQueue.ts"
import type { Address, Namespace, Target, TransportOptions } from "./target.ts"
import { TargetLink, type TargetLinkOwner } from "./targetLink.ts"
import { maxH2cData, needsTransfer, sglStatus, transferFault } from "./transfers.ts"

/** In capsules of admin queues: what the transport specification gives them. */
const adminInCapsuleBytes = 8192
/** From the accept to the connect command. */
const connectMicros = 30_000_000
const empty = new Uint8Array(0)

export class Connection implements TargetLinkOwner, IoOwner, RequestOwner {
  readonly target: Target
  readonly transport: TransportOptions
  readonly address: Address
  readonly peer: Address
  controller: Controller | undefined = undefined
  /** -1: not connected yet. */
  queueId = -1
  /** Of what is sent. */
  format: PduFormat = plainFormat
  private readonly link: TargetLink
  private readonly output: Output
  private readonly queue: SubmissionQueue
  /** The request whose capsule or data is being read. */
  private current: NvmfRequest | undefined
  private currentEndsTransfer = false
  private readonly connectDeadline: Deadline

  /** Serves the socket until one side ends it. */
  static accept(target: Target, transport: TransportOptions, socket: Socket, address: Address): Connection {
    return new Connection(target, transport, socket, address)
  }

  private constructor(target: Target, transport: TransportOptions, socket: Socket, address: Address) {
    this.target = target
    this.transport = transport
    this.address = address
    this.queue = new SubmissionQueue(target.data, this)
    this.peer = {
      adrfam: address.adrfam,
      traddr: socket.remoteAddress ?? "",
      trsvcid: String(socket.remotePort ?? "")
    }
    this.link = new TargetLink(target, socket, this)
    this.output = this.link.output
    target.connections.add(this)
    this.connectDeadline = new Deadline(target.registry.context.timers, connectMicros, () => this.destroy())
  }

  // ----- its life -----

  /** Connected: from now on this is a queue of the controller. */
  enable(controller: Controller, queueId: number, queueSize: number): void {
    this.controller = controller
    this.queueId = queueId
    this.queue.connect(queueSize + 1, queueId === 0 ? maxAsyncEvents : 0)
    this.connectDeadline.cancel()
    if (queueId === 0) this.target.stats.adminQueues++
    else this.target.stats.ioQueues++
  }

  /** A disconnect command: the answer goes out, and that is it. */
  closeSoon(): void {
    this.link.endSoon()
  }

  /** The end. What bdevs have of it ends without an answer. */
  destroy(): void {
    this.link.destroy()
  }

  linkClosed(): void {
    this.queue.close()
    this.target.connections.delete(this)
    this.connectDeadline.cancel()
    const { controller } = this
    if (controller === undefined) return
    if (this.queueId === 0) controller.destroy()
    else if (controller.ioQueues.get(this.queueId) === this) controller.ioQueues.delete(this.queueId)
  }

  // ----- responses -----

  /**
   * Ends a command as aborted; false when its bdev cannot. One whose data the host was asked for goes on as well: the data is on
   * its way, and a host that had the response already would be told off for sending it.
   */
  abortCommand(commandId: number): boolean {
    const waiting = this.queue.findWaiting(commandId)
    if (waiting !== undefined) {
      this.respond(waiting, Status.AbortedByRequest)
      this.link.schedule()
      return true
    }
    const request = this.queue.findRunning(commandId)
    if (request === undefined) return false
    const { namespace } = request
    return namespace !== undefined && namespace.bdev.supports("abort") && namespace.bdev.abort(request)
  }

  /** The answer to a command that no request waits for: an asynchronous event. */
  respondLater(commandId: number, status: number, dword0: number): void {
    if (this.link.isClosed) return
    this.writeResponse(commandId, status, dword0, 0)
    this.link.schedule()
  }

  private respond(request: NvmfRequest, status: number, dword0 = 0, dword1 = 0): void {
    const { commandId, hasId } = request
    this.queue.give(request)
    if (this.link.isClosed) return
    if (hasId) this.queue.freeId(commandId)
    this.writeResponse(commandId, status, dword0, dword1)
  }

  private writeResponse(commandId: number, status: number, dword0: number, dword1: number): void {
    this.queue.advance()
    this.output.response(this.format, { commandId, status, dword0, dword1, sqHead: this.queue.head })
  }

  /** Room for the data of a read in what is sent; valid until the next response is written. */
  reserveData(lengthBytes: number): OutBlock {
    return this.output.reserve(Output.dataPduBytes(this.format, lengthBytes))
  }

  // ----- the bdev has ended an I/O -----

  ioDone(io: EmbeddedIo): void {
    // A connection submits nothing else.
    const request = io as NvmfRequest
    const { namespace } = request
    if (namespace === undefined) return
    try {
      this.answer(request, namespace)
    } finally {
      // At the end, because the last one closes the namespace.
      namespace.ioEnded()
    }
  }

  private answer(request: NvmfRequest, namespace: Namespace): void {
    const { isClosed } = this.link
    const status = isClosed ? Status.AbortedSqDeletion : ioStatus(this, request, namespace)
    if (status === undefined) return
    this.target.stats.completed++
    if (isClosed) return this.queue.give(request)
    if (status === Status.Success && request.command === IoOpcode.Read) this.sendRead(request)
    else this.respond(request, status)
    this.link.schedule()
  }

  private sendRead(request: NvmfRequest): void {
    const { blockAt, commandId, lengthBlocks, memory, namespace } = request
    if (memory === undefined || namespace === undefined) return
    const lengthBytes = lengthBlocks * namespace.bdev.blockSize
    const isShort = this.transport.c2h_success
    if (blockAt >= 0) this.output.dataInPlace(this.format, commandId, lengthBytes, isShort)
    else this.output.data(this.format, commandId, memory.bytes.subarray(0, lengthBytes), isShort)
    if (!isShort) return this.respond(request, Status.Success)
    this.queue.give(request)
    this.queue.freeId(commandId)
    this.queue.advance()
  }

  // ----- PDUs -----

  onHeader(reader: PduReader, bytes: Uint8Array, at: number): PduFault | undefined {
    switch (reader.type) {
      case PduType.CapsuleCmd:
        return this.onCommand(reader, bytes, at + commonHeaderBytes)
      case PduType.H2cData:
        return this.onTransfer(reader, bytes, at)
      case PduType.IcReq:
        return this.onInitialize(bytes, at)
      default:
        // The host has given up.
        this.destroy()
        return undefined
    }
  }

  onData(bytes: Uint8Array, start: number, end: number): PduFault | undefined {
    const request = this.current
    if (request === undefined) return undefined
    if (request.earlyStatus === 0) {
      request.seenAtLook = this.target.data.look
      request.buffer ??= this.target.data.takeAnyway(request.neededBytes)
      const { bytes: buffer } = request.buffer
      if (end - start < 64)
        for (let at = start; at < end; at++) buffer[request.receivedBytes + at - start] = bytes[at] ?? 0
      else buffer.set(bytes.subarray(start, end), request.receivedBytes)
    }
    request.receivedBytes += end - start
    return undefined
  }

  onEnd(isDigestRight: boolean): PduFault | undefined {
    const request = this.current
    if (request === undefined) return undefined
    this.current = undefined
    // What was wrong before stays: of a command whose id is another's, nothing else counts.
    if (!isDigestRight && request.earlyStatus === 0) request.earlyStatus = Status.TransientTransportError
    if (request.phase === Phase.Transfer) {
      if (!this.currentEndsTransfer) return undefined
      this.target.data.endTransfer(request)
      request.phase = Phase.Capsule
      request.isTransferred = true
    }
    if (request.earlyStatus !== 0) {
      this.respond(request, request.earlyStatus)
      return undefined
    }
    this.dispatch(request)
    return undefined
  }

  private onInitialize(bytes: Uint8Array, at: number): PduFault | undefined {
    const request = decodeIcReq(bytes, at)
    if (request.version !== 0) {
      return new PduFault(FatalError.UnsupportedParameter, 8, `PFV ${request.version} is not known`)
    }
    if (request.alignment > maxAlignment) return headerFault(10, `HPDA ${request.alignment} is above ${maxAlignment}`)
    const { dataDigest, headerDigest } = request
    const response = encodeIcResp({ version: 0, alignment: 0, headerDigest, dataDigest, maxH2cData })
    this.output.write(response)
    // Alignment to the host is what it has asked for; to us it is 4 bytes.
    this.format = new PduFormat({ headerDigest, dataDigest, alignment: request.alignment })
    this.link.reader.agree(new PduFormat({ headerDigest, dataDigest, alignment: 0 }))
    return undefined
  }

  private onCommand(reader: PduReader, bytes: Uint8Array, at: number): PduFault | undefined {
    this.target.registry.context.reactor.spent++
    const isAdmin = this.queueId <= 0
    const request = this.queue.take()
    if (request === undefined) return sequenceFault("more commands than the queue has places")
    request.fill(bytes, at)
    this.current = request
    this.currentEndsTransfer = false
    const limitBytes = isAdmin ? adminInCapsuleBytes : this.transport.in_capsule_data_size
    if (reader.dataBytes > limitBytes) {
      return new PduFault(FatalError.LimitExceeded, HeaderField.PduLength, `${reader.dataBytes} bytes in a capsule`)
    }
    request.hasId = this.queue.claimId(request.commandId)
    if (!request.hasId) {
      request.earlyStatus = Status.CommandIdConflict | dnr
      return undefined
    }
    if (isAdmin) request.sqe = bytes.slice(at, at + sqeBytes)
    request.expectedBytes = reader.dataBytes
    // A compare reads what there is beside what the host has sent.
    const copies = !isAdmin && request.command === IoOpcode.Compare ? 2 : 1
    request.neededBytes = copies * (reader.dataBytes || request.sglLength)
    request.earlyStatus = sglStatus(request, reader.dataBytes, this.transport.max_io_size)
    return undefined
  }

  private onTransfer(reader: PduReader, bytes: Uint8Array, at: number): PduFault | undefined {
    const request = this.queue.at(transferTag(bytes, at))
    const isLast = (reader.flags & PduFlag.Last) !== 0
    const fault = transferFault(request, bytes, at, isLast)
    if (fault !== undefined) return fault
    this.current = request
    this.currentEndsTransfer = isLast
    return undefined
  }

  private dispatch(request: NvmfRequest): void {
    if (!request.isTransferred && needsTransfer(request)) return this.askForData(request)
    const { controller } = this
    if (request.sqe !== undefined) return this.dispatchAdmin(request, request.sqe)
    if (controller === undefined) return this.respond(request, Status.CommandSequenceError | dnr)
    if (request.command === AdminOpcode.Fabrics) {
      // Rare, and it wants the whole command only for its type.
      const sqe = new Uint8Array(sqeBytes)
      sqe[Sqe.fabricsType] = request.nsid & 0xff
      return this.respond(request, fabricsCommand(this, sqe, empty).status)
    }
    const status = startIo(this, controller, request)
    if (status !== undefined) this.respond(request, status)
  }

  /** Memory for its data; false when it has to wait for that. `resume` follows then. */
  hasMemory(request: NvmfRequest): boolean {
    const { data } = this.target
    request.buffer ??= data.take(request.neededBytes)
    if (request.buffer !== undefined) return true
    request.phase = Phase.Waiting
    data.wait(request)
    return false
  }

  resume(request: NvmfRequest): void {
    request.phase = Phase.Capsule
    this.dispatch(request)
    this.link.schedule()
  }

  stalled(): void {
    this.link.refuse("no data has come for a transfer, and other hosts wait for its memory")
  }

  private askForData(request: NvmfRequest): void {
    if (!this.hasMemory(request)) return
    request.phase = Phase.Transfer
    this.target.data.startTransfer(request)
    request.expectedBytes = request.sglLength
    request.receivedBytes = 0
    const transfer: Transfer = {
      commandId: request.commandId,
      transferTag: request.slot,
      offsetBytes: 0,
      lengthBytes: request.sglLength
    }
    const block = this.output.reserve(icBytes)
    block.filledBytes = writeR2t(block.bytes, block.filledBytes, this.format, transfer)
  }

  private dispatchAdmin(request: NvmfRequest, sqe: Uint8Array): void {
    const data = request.buffer?.bytes.subarray(0, request.receivedBytes) ?? empty
    if (request.command === AdminOpcode.Fabrics) {
      const { dword0 = 0, dword1 = 0, status } = fabricsCommand(this, sqe, data)
      return this.respond(request, status, dword0, dword1)
    }
    const { controller } = this
    if (controller === undefined) return this.respond(request, Status.CommandSequenceError | dnr)
    const answer = adminCommand(controller, sqe, data, request.sglLength)
    // An asynchronous event request holds no place but its own. Its id is free again too: SPDK's host gives up its requests
    // without a word before it shuts the controller down, and goes on with their ids.
    if (answer === "later") {
      this.queue.freeId(request.commandId)
      return this.queue.give(request)
    }
    if (typeof answer === "number") return this.respond(request, answer)
    if (answer.data !== undefined && request.sglLength > 0) {
      const bytes = answer.data.subarray(0, request.sglLength)
      this.output.data(this.format, request.commandId, bytes, false)
    }
    this.respond(request, Status.Success, answer.dword0 ?? 0)
  }
}
