/**
 * One connection of a host: a queue. What the socket brings is taken apart and submitted in drains of the reactor; what is
 * answered there goes out when the drain's work on this connection is over.
 *
 * A peer that breaks the protocol is told why by a termination request, and loses this connection only.
 */
import type { Socket } from "node:net"
import { AdminOpcode, Direction, directionOf, SglType } from "../../nvme/command.ts"
import { dnr, Status } from "../../nvme/nvmeStatus.ts"
import {
  commonHeaderBytes,
  decodeIcReq,
  encodeIcResp,
  encodeTermReq,
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
  transferCommandId,
  TransferField,
  transferLength,
  transferOffset,
  transferTag,
  writeR2t
} from "../../nvme/pdu.ts"
import { type PduOwner, PduReader } from "../../nvme/pduReader.ts"
import type { BdevIo, IoOwner } from "../io.ts"
import { runsPerSlice } from "../reactor.ts"
import type { Runnable } from "../reactor.ts"
import { adminCommand } from "./admin.ts"
import { fabricsCommand } from "./connect.ts"
import { type Controller, maxAsyncEvents } from "./controller.ts"
import { ioStatus, startIo } from "./ioCommands.ts"
import type { OutBlock } from "./outBlock.ts"
import { Output } from "./output.ts"
import { NvmfRequest, Phase } from "./request.ts"
import type { Address, Target, TransportOptions } from "./target.ts"

/** Data that one H2CData may carry. */
const maxH2cData = 131_072
/** In capsules of admin queues: what the transport specification gives them. */
const adminInCapsuleBytes = 8192
/** Taken apart between two looks at what waits to be sent: a few commands, whose answers may be a thousand times as long. */
const sliceBytes = 1024
const dataSliceBytes = 16 * 1024
/** Bytes that wait to be taken apart; the socket is paused above that. */
const maxWaitingChunks = 4
/** One bit for each command id. */
const idBytes = 8192
/** From the accept to the connect command. */
const connectMicros = 30_000_000
const conflict = Status.CommandIdConflict | dnr
const empty = new Uint8Array(0)

export class Connection implements PduOwner, IoOwner, Runnable {
  isScheduled = false
  readonly target: Target
  readonly transport: TransportOptions
  readonly address: Address
  readonly peer: Address
  controller: Controller | undefined = undefined
  queueId = -1
  format: PduFormat = plainFormat
  isClosed = false
  private readonly socket: Socket
  private readonly reader = new PduReader("controller", this)
  private readonly output: Output
  private readonly requests: Array<NvmfRequest> = []
  private readonly free: Array<NvmfRequest> = []
  /** Commands by id, one bit each; made when the queue is connected. */
  private usedIds = empty
  private depth = 1
  private sqHead = 0
  private chunks: Array<Uint8Array> = []
  private chunkAt = 0
  /** The request whose capsule or data is being read. */
  private current: NvmfRequest | undefined
  private currentEndsTransfer = false
  private isEnding = false
  private readonly connectTimer

  /** Serves the socket until one side ends it. */
  static accept(target: Target, transport: TransportOptions, socket: Socket, address: Address): Connection {
    return new Connection(target, transport, socket, address)
  }

  private constructor(target: Target, transport: TransportOptions, socket: Socket, address: Address) {
    this.target = target
    this.transport = transport
    this.socket = socket
    this.address = address
    this.peer = {
      adrfam: address.adrfam,
      traddr: socket.remoteAddress ?? "",
      trsvcid: String(socket.remotePort ?? "")
    }
    this.output = new Output(socket, target.blocks, () => {
      if (this.chunks.length > 0) this.schedule()
    })
    target.connections.add(this)
    socket.on("data", (chunk: Buffer) => this.received(chunk))
    socket.on("error", () => this.destroy())
    socket.on("close", () => this.destroy())
    this.connectTimer = target.registry.context.timers.after(connectMicros, () => this.destroy())
  }

  // ----- the queue -----

  /** Connected: from now on this is a queue of the controller. */
  enable(controller: Controller, queueId: number, queueSize: number): void {
    this.controller = controller
    this.queueId = queueId
    this.depth = queueSize + 1 + (queueId === 0 ? maxAsyncEvents : 0)
    this.usedIds = new Uint8Array(idBytes)
    this.target.registry.context.timers.cancel(this.connectTimer)
    if (queueId === 0) this.target.stats.adminQueues++
    else this.target.stats.ioQueues++
  }

  /** A disconnect command: the answer goes out, and that is it. */
  closeSoon(): void {
    this.isEnding = true
  }

  /** The end. What bdevs have of it ends without an answer. */
  destroy(): void {
    if (this.isClosed) return
    this.isClosed = true
    this.reader.stop()
    this.chunks = []
    this.usedIds = empty
    this.output.drop()
    this.socket.destroy()
    this.target.connections.delete(this)
    this.target.registry.context.timers.cancel(this.connectTimer)
    const { controller } = this
    if (controller === undefined) return
    if (this.queueId === 0) controller.destroy()
    else if (controller.ioQueues.get(this.queueId) === this) controller.ioQueues.delete(this.queueId)
  }

  /**
   * Ends a command as aborted; false when its bdev cannot. One whose data the host was asked for goes on as well: the data is on
   * its way, and a host that had the response already would be told off for sending it.
   */
  abortCommand(commandId: number): boolean {
    const request = this.requests.find((one) => one.phase === Phase.Running && one.commandId === commandId)
    if (request === undefined) return false
    const { namespace } = request
    return namespace !== undefined && namespace.bdev.supports("abort") && namespace.bdev.abort(request)
  }

  /** The answer to a command that no request waits for: an asynchronous event. */
  respondLater(commandId: number, status: number, dword0: number): void {
    if (this.isClosed) return
    this.writeResponse(commandId, status, dword0, 0)
    this.schedule()
  }

  private take(): NvmfRequest | undefined {
    const request = this.free.pop()
    if (request !== undefined) return request
    if (this.requests.length >= this.depth) return undefined
    const made = new NvmfRequest(this.requests.length)
    this.requests.push(made)
    return made
  }

  private give(request: NvmfRequest): void {
    request.clear()
    this.free.push(request)
  }

  private respond(request: NvmfRequest, status: number, dword0 = 0, dword1 = 0): void {
    const { commandId } = request
    this.give(request)
    this.writeResponse(commandId, status, dword0, dword1)
  }

  private writeResponse(commandId: number, status: number, dword0: number, dword1: number): void {
    if (this.isClosed) return
    // The id of a conflict is still that of the other command.
    if (status !== conflict) this.clearId(commandId)
    this.advance()
    this.output.response(this.format, { commandId, status, dword0, dword1, sqHead: this.sqHead })
  }

  private clearId(commandId: number): void {
    const at = commandId >>> 3
    this.usedIds[at] = (this.usedIds[at] ?? 0) & ~(1 << (commandId & 7))
  }

  private advance(): void {
    this.sqHead = this.sqHead + 1 >= this.depth ? 0 : this.sqHead + 1
  }

  reserveData(lengthBytes: number): OutBlock {
    return this.output.reserve(Output.dataPduBytes(this.format, lengthBytes))
  }

  // ----- the bdev has ended an I/O -----

  ioDone(io: BdevIo): void {
    // A connection submits nothing else.
    const request = io as NvmfRequest
    const { namespace } = request
    if (namespace === undefined) return
    const status = this.isClosed ? Status.AbortedSqDeletion : ioStatus(this, request, namespace)
    namespace.ioEnded()
    if (status === undefined) return
    this.target.stats.completed++
    if (this.isClosed) return this.give(request)
    if (status === Status.Success && request.command === 0x02) this.sendRead(request)
    else this.respond(request, status)
    this.schedule()
  }

  private sendRead(request: NvmfRequest): void {
    const { blockAt, commandId, lengthBlocks, memory, namespace } = request
    if (memory === undefined || namespace === undefined) return
    const lengthBytes = lengthBlocks * namespace.bdev.blockSize
    const isShort = this.transport.c2h_success
    if (blockAt >= 0) this.output.dataInPlace(this.format, commandId, lengthBytes, isShort)
    else this.output.data(this.format, commandId, memory.bytes.subarray(0, lengthBytes), isShort)
    this.give(request)
    if (isShort) {
      this.clearId(commandId)
      this.advance()
    } else this.writeResponse(commandId, Status.Success, 0, 0)
  }

  // ----- the socket -----

  private received(chunk: Uint8Array): void {
    if (this.isClosed) return
    this.chunks.push(chunk)
    if (this.chunks.length > maxWaitingChunks) this.socket.pause()
    this.schedule()
  }

  private schedule(): void {
    if (!this.isScheduled) this.target.registry.context.reactor.schedule(this)
  }

  run(): boolean {
    const { output, socket } = this
    const { reactor } = this.target.registry.context
    for (let runs = 0; runs < runsPerSlice && !this.isClosed && !output.isFull && !reactor.isExhausted; runs++) {
      const chunk = this.chunks[0]
      if (chunk === undefined) break
      const end = Math.min(chunk.length, this.chunkAt + (this.reader.isInData ? dataSliceBytes : sliceBytes))
      const fault = this.reader.push(
        this.chunkAt === 0 && end === chunk.length ? chunk : chunk.subarray(this.chunkAt, end)
      )
      this.chunkAt = end
      if (end === chunk.length) {
        this.chunks.shift()
        this.chunkAt = 0
      }
      if (fault !== undefined) this.terminate(fault)
    }
    if (this.isClosed) return false
    output.flush()
    if (this.isEnding) {
      socket.end()
      return false
    }
    const isWaiting = this.chunks.length > 0
    if (!isWaiting && socket.isPaused()) socket.resume()
    // When it is full, what the socket takes goes on.
    return isWaiting && !output.isFull
  }

  /** Says why, and ends the connection. */
  private terminate(fault: PduFault): void {
    this.target.registry.context.log(
      "notice",
      `nvmf: the connection of ${this.peer.traddr} port ${this.peer.trsvcid} broke the protocol: ${fault.message}`
    )
    this.output.write(encodeTermReq(PduType.C2hTermReq, fault))
    this.output.flush()
    this.socket.end()
    this.destroySoon()
  }

  /** The peer gets to read the last word; one that does not, loses it. */
  private destroySoon(): void {
    const { timers } = this.target.registry.context
    this.reader.stop()
    this.chunks = []
    this.isEnding = true
    const timer = timers.after(1_000_000, () => this.destroy())
    this.socket.once("finish", () => {
      timers.cancel(timer)
      this.destroy()
    })
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
      const { bytes: buffer } = request.room(request.expectedBytes)
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
    if (!isDigestRight) request.earlyStatus = Status.TransientTransportError
    if (request.phase === Phase.Transfer && !this.currentEndsTransfer) return undefined
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
    this.reader.agree(new PduFormat({ headerDigest, dataDigest, alignment: 0 }))
    return undefined
  }

  private onCommand(reader: PduReader, bytes: Uint8Array, at: number): PduFault | undefined {
    this.target.registry.context.reactor.spent++
    const isAdmin = this.queueId <= 0
    const request = this.take()
    if (request === undefined) return sequenceFault("more commands than the queue has places")
    request.fill(bytes, at)
    this.current = request
    this.currentEndsTransfer = false
    const limitBytes = isAdmin ? adminInCapsuleBytes : this.transport.in_capsule_data_size
    if (reader.dataBytes > limitBytes) {
      return new PduFault(FatalError.LimitExceeded, HeaderField.PduLength, `${reader.dataBytes} bytes in a capsule`)
    }
    const idAt = request.commandId >>> 3
    const idBit = 1 << (request.commandId & 7)
    if (((this.usedIds[idAt] ?? 0) & idBit) !== 0) {
      request.earlyStatus = conflict
      return undefined
    }
    this.usedIds[idAt] = (this.usedIds[idAt] ?? 0) | idBit
    if (isAdmin) request.sqe = bytes.slice(at, at + 64)
    request.expectedBytes = reader.dataBytes
    request.earlyStatus = this.checkSgl(request, reader.dataBytes)
    return undefined
  }

  private checkSgl(request: NvmfRequest, inCapsuleBytes: number): number {
    const isFabrics = request.command === AdminOpcode.Fabrics
    const direction = isFabrics ? fabricsDirection(request.nsid) : directionOf(request.command)
    if (direction === Direction.None) return 0
    if (request.sglType === SglType.InCapsule && direction !== Direction.ToHost) {
      if (request.sglOffset !== 0) return Status.SglOffsetInvalid | dnr
      return request.sglLength === inCapsuleBytes ? 0 : Status.DataSglLengthInvalid | dnr
    }
    if (request.sglType !== SglType.Transport) return Status.SglDescriptorTypeInvalid | dnr
    if (direction === Direction.ToHost) return 0
    return request.sglLength <= this.transport.max_io_size && inCapsuleBytes === 0
      ? 0
      : Status.DataSglLengthInvalid | dnr
  }

  private onTransfer(reader: PduReader, bytes: Uint8Array, at: number): PduFault | undefined {
    const request = this.requests[transferTag(bytes, at)]
    if (request === undefined || request.phase !== Phase.Transfer) {
      return headerFault(TransferField.TransferTag, "data that nobody has asked for")
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
    const isLast = (reader.flags & PduFlag.Last) !== 0
    if (isLast !== (lengthBytes === leftBytes)) return headerFault(HeaderField.Flags, "LAST_PDU on the wrong PDU")
    this.current = request
    this.currentEndsTransfer = isLast
    return undefined
  }

  private dispatch(request: NvmfRequest): void {
    if (request.phase === Phase.Capsule && this.needsTransfer(request)) return this.askForData(request)
    const { controller } = this
    if (request.sqe !== undefined) return this.dispatchAdmin(request, request.sqe)
    if (controller === undefined) return this.respond(request, Status.CommandSequenceError | dnr)
    if (request.command === AdminOpcode.Fabrics) {
      // Rare, and it wants the whole command only for its type.
      const sqe = new Uint8Array(64)
      sqe[4] = request.nsid & 0xff
      return this.respond(request, fabricsCommand(this, sqe, empty).status)
    }
    const status = startIo(this, controller, request)
    if (status !== undefined) this.respond(request, status)
  }

  private needsTransfer(request: NvmfRequest): boolean {
    const isFabrics = request.command === AdminOpcode.Fabrics
    const direction = isFabrics ? fabricsDirection(request.nsid) : directionOf(request.command)
    return direction === Direction.ToController && request.sglType === SglType.Transport && request.sglLength > 0
  }

  private askForData(request: NvmfRequest): void {
    request.phase = Phase.Transfer
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
    const data = request.receivedBytes === 0 ? empty : request.room(0).bytes.subarray(0, request.receivedBytes)
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
      this.clearId(request.commandId)
      return this.give(request)
    }
    if (typeof answer === "number") return this.respond(request, answer)
    if (answer.data !== undefined && request.sglLength > 0) {
      const bytes = answer.data.subarray(0, request.sglLength)
      this.output.data(this.format, request.commandId, bytes, false)
    }
    this.respond(request, Status.Success, answer.dword0 ?? 0)
  }
}

/** By the two low bits of the type of a fabrics command, which is where other commands have their namespace. */
const fabricsDirection = (nsid: number): number => nsid & 3
