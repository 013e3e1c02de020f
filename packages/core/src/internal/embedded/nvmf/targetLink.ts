/**
 * The socket of one connection, as the target sees it. What comes is read in slices, in drains of the reactor, and not faster than the
 * answers to it are taken; what is answered goes out when the drain's work on this connection is over.
 *
 * A peer that breaks the protocol is told why by a termination request, and loses this connection only.
 */
import type { Socket } from "../../engine/network.ts"
import { encodeTermReq, type PduFault, PduType } from "../../nvme/wire/pdu.ts"
import { type PduOwner, PduReader } from "../../nvme/wire/pduReader.ts"
import { type Runnable, runsPerSlice } from "../runtime/reactor.ts"
import type { Timer } from "../runtime/timers.ts"
import { Output } from "./output.ts"
import type { Target } from "./target.ts"

/** Taken apart between two looks at what waits to be sent: a few commands, whose answers may be a thousand times as long. */
const sliceBytes = 1024
const dataSliceBytes = 16 * 1024
/** Pieces of the socket's that wait to be taken apart; the socket is paused above that. */
const maxWaitingChunks = 4
/** How long the peer may take to read the last word. */
const lastWordMicros = 1_000_000

export interface TargetLinkOwner extends PduOwner {
  /** Once, and no PDU after it. */
  linkClosed(): void
}

export class TargetLink implements Runnable {
  isScheduled = false
  isClosed = false
  readonly output: Output
  readonly reader: PduReader
  private readonly owner: TargetLinkOwner
  private readonly target: Target
  private readonly socket: Socket
  /** For the log. A socket that is closed has forgotten it. */
  private readonly peerName: string
  private chunks: Array<Uint8Array> = []
  /** Where the first chunk goes on. */
  private chunkAt = 0
  private isEnding = false
  private lastWordTimer: Timer | undefined = undefined

  constructor(target: Target, socket: Socket, owner: TargetLinkOwner) {
    this.owner = owner
    this.target = target
    this.socket = socket
    this.peerName = `${socket.remoteAddress ?? ""} port ${socket.remotePort ?? ""}`
    this.reader = new PduReader("controller", owner)
    this.output = new Output(socket, target.blocks, () => {
      if (this.chunks.length > 0) this.schedule()
    })
    socket.on("data", (chunk: Buffer) => this.received(chunk))
    socket.on("error", () => this.destroy())
    socket.on("close", () => this.destroy())
  }

  schedule(): void {
    if (!this.isScheduled) this.target.registry.context.reactor.schedule(this)
  }

  run(): boolean {
    try {
      this.read()
    } catch (error) {
      // The reader does not know any more where in the stream it is, nor the host what became of its command.
      this.destroy()
      throw error
    }
    return !this.isClosed && this.send()
  }

  /** Some of what has come. */
  private read(): void {
    const { output, reader } = this
    const { reactor } = this.target.registry.context
    for (let runs = 0; runs < runsPerSlice && !this.isClosed && !output.isFull && !reactor.isExhausted; runs++) {
      const chunk = this.chunks[0]
      if (chunk === undefined) break
      const end = Math.min(chunk.length, this.chunkAt + (reader.isInData ? dataSliceBytes : sliceBytes))
      const fault = reader.push(this.chunkAt === 0 && end === chunk.length ? chunk : chunk.subarray(this.chunkAt, end))
      this.chunkAt = end
      if (end === chunk.length) {
        this.chunks.shift()
        this.chunkAt = 0
      }
      if (fault !== undefined) this.terminate(fault)
    }
  }

  /** What there is to say. True when there is more to read. */
  private send(): boolean {
    const { output, socket } = this
    if (socket.writableEnded) {
      // Answers of I/O that took longer than the connection.
      output.drop()
      return false
    }
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

  /** Nothing more is read; what has been written goes out. A peer that does not read it loses it. */
  endSoon(): void {
    if (this.isClosed || this.isEnding) return
    const { timers } = this.target.registry.context
    this.reader.stop()
    this.chunks = []
    this.isEnding = true
    this.lastWordTimer = timers.after(lastWordMicros, () => this.destroy())
    this.socket.once("finish", () => this.destroy())
    this.schedule()
  }

  destroy(): void {
    if (this.isClosed) return
    this.isClosed = true
    this.reader.stop()
    this.chunks = []
    this.output.drop()
    this.socket.destroy()
    if (this.lastWordTimer !== undefined) this.target.registry.context.timers.cancel(this.lastWordTimer)
    this.owner.linkClosed()
  }

  private received(chunk: Uint8Array): void {
    if (this.isClosed || this.isEnding) return
    this.chunks.push(chunk)
    if (this.chunks.length > maxWaitingChunks) this.socket.pause()
    this.schedule()
  }

  /** Ends the connection of a host that keeps others waiting. */
  refuse(why: string): void {
    if (this.isClosed || this.isEnding) return
    this.target.registry.context.log("notice", `nvmf: the connection of ${this.peerName} is closed: ${why}`)
    this.destroy()
  }

  /** Says why, and ends the connection. */
  private terminate(fault: PduFault): void {
    this.target.registry.context.log(
      "notice",
      `nvmf: the connection of ${this.peerName} broke the protocol: ${fault.message}`
    )
    this.output.write(encodeTermReq(PduType.C2hTermReq, fault))
    this.endSoon()
  }
}
