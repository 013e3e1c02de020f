/**
 * One read or write of a file at a time, whole: the system may do less than it was asked for, and then the rest is
 * asked for, so that a full disk or the end of the file shows. Objects are used again and again.
 */
import { Opcode, operations } from "@effect-spdk/native/Layout"
import * as fs from "node:fs"
import type { EmbeddedIo } from "../io.ts"
import { errnoFailure, errnoOf, failed, type IoStatus, success } from "../../queue/status.ts"

export type TransferEnd = (transfer: FileTransfer, io: EmbeddedIo, status: IoStatus) => void

const zeroes = new Uint8Array(1024 * 1024)

export class FileTransfer {
  private readonly fd: number
  private readonly onEnd: TransferEnd
  private io: EmbeddedIo | undefined = undefined
  private isWrite = false
  private position = 0
  private leftBytes = 0
  private doneBytes = 0

  constructor(fd: number, onEnd: TransferEnd) {
    this.fd = fd
    this.onEnd = onEnd
  }

  start(io: EmbeddedIo, position: number, lengthBytes: number): void {
    this.io = io
    this.isWrite = io.opcode !== Opcode.Read
    this.position = position
    this.leftBytes = lengthBytes
    this.doneBytes = 0
    this.next(io)
  }

  private next(io: EmbeddedIo): void {
    try {
      this.ask(io)
    } catch (error) {
      // Node refuses memory that its owner has transferred to somebody else in the meantime. Later, because nothing
      // may end inside of `start`.
      setImmediate(() => this.end(io, errnoFailure(errnoOf(error))))
    }
  }

  private ask(io: EmbeddedIo): void {
    const { memory } = io
    if (operations[io.opcode].data === "none") {
      fs.write(this.fd, zeroes, 0, Math.min(this.leftBytes, zeroes.length), this.position, this.onDone)
    } else if (memory !== undefined) {
      const offset = io.memoryOffset + this.doneBytes
      if (this.isWrite) fs.write(this.fd, memory.bytes, offset, this.leftBytes, this.position, this.onDone)
      else fs.read(this.fd, memory.bytes, offset, this.leftBytes, this.position, this.onDone)
    } else if (this.isWrite) {
      fs.writev(this.fd, this.pieces(io), this.position, this.onDone)
    } else {
      fs.readv(this.fd, this.pieces(io), this.position, this.onDone)
    }
  }

  private readonly onDone = (error: NodeJS.ErrnoException | null, bytes: number): void => {
    const { io } = this
    if (io === undefined) return
    // Over by a signal is not over.
    if (error !== null && error.code === "EINTR") return this.next(io)
    if (error !== null) return this.end(io, errnoFailure(errnoOf(error)))
    this.leftBytes -= bytes
    if (this.leftBytes === 0) return this.end(io, success)
    // The file is shorter than the bdev.
    if (bytes === 0) return this.end(io, failed)
    this.doneBytes += bytes
    this.position += bytes
    this.next(io)
  }

  private end(io: EmbeddedIo, status: IoStatus): void {
    this.io = undefined
    this.onEnd(this, io, status)
  }

  /** What is left of the segments. */
  private pieces(io: EmbeddedIo): Array<Uint8Array> {
    const pieces: Array<Uint8Array> = []
    let skip = this.doneBytes
    for (const { lengthBytes, memory, offsetBytes } of io.segments ?? []) {
      if (skip < lengthBytes) pieces.push(memory.bytes.subarray(offsetBytes + skip, offsetBytes + lengthBytes))
      skip = Math.max(0, skip - lengthBytes)
    }
    return pieces
  }
}
