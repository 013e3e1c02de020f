/**
 * A namespace of a connected controller as a bdev: I/O in blocks becomes commands of the NVM command set, split where one would
 * carry more than the controller takes.
 *
 * Everything here runs on the JS thread.
 */
import { Opcode } from "@effect-spdk/native/Layout"
import { setU16, setU32, setU64Number } from "../../nvme/wire/bytes.ts"
import { IoOpcode, Sqe, sqeBytes } from "../../nvme/wire/command.ts"
import { isDnr, scOf, sctOf, Status, wordOfStatus } from "../../nvme/wire/nvmeStatus.ts"
import { EmbeddedBdev, EmbeddedChannel, type BdevProperties, type ChannelThread, type IoType } from "../bdev/bdev.ts"
import type { EmbeddedIo } from "../bdev/io.ts"
import { aborted, EIO, ENODEV, failed, type IoStatus, nvmeFailure, success } from "../queue/status.ts"
import type { HostController } from "./controller.ts"
import type { CommandOwner, HostCommand, SplitIo } from "./hostCommand.ts"
import { completionBytes } from "./hostConnection.ts"
import type { NamespaceFacts } from "./initialise.ts"
import type { QueuePair } from "./queuePair.ts"

/** NLB has 16 bits, and counts from 0. */
const maxBlocks = 65_536
/** A range of dataset management. */
const rangeBytes = 16
const maxRangeBlocks = 0xffff_ffff
const deallocate = 0x4
/** Commands of one large I/O that are on their way together. */
const maxPieces = 16
/** Status word: do not retry. */
const dnrWord = 0x2_0000

export class DiskChannel extends EmbeddedChannel {
  readonly queue: QueuePair
  private readonly controller: HostController

  constructor(bdev: NvmeDisk, thread: ChannelThread) {
    super(bdev, thread)
    this.controller = bdev.controller
    this.queue = this.controller.takeQueue(thread)
  }

  override destroy(): void {
    this.controller.giveQueue(this.queue)
  }
}

/** What the words of a failed completion are worth. */
export const ioStatusOf = (status: number): IoStatus => {
  if (status === 0) return success
  const plain = nvmeFailure(sctOf(status), scOf(status))
  if (plain === aborted) return aborted
  return isDnr(status) ? { errno: -EIO, nvme: wordOfStatus(status) | dnrWord, counter: "nvme_error" } : plain
}

/** What ends I/O of a disk that is gone. */
export const removed: IoStatus = { errno: -ENODEV, nvme: 0, counter: "failed" }

export class NvmeDisk extends EmbeddedBdev implements CommandOwner {
  readonly moduleName: string = "nvme"
  readonly moduleIoTypes: ReadonlySet<IoType>
  readonly isImmediate = false
  readonly controller: HostController
  readonly nsid: number
  readonly facts: NamespaceFacts
  /** Another volume, or none, has its place. */
  isGone = false

  constructor(
    controller: HostController,
    facts: NamespaceFacts,
    properties: BdevProperties,
    ioTypes: ReadonlySet<IoType>
  ) {
    super(controller.context.reactor, properties)
    this.controller = controller
    this.facts = facts
    this.nsid = facts.nsid
    this.moduleIoTypes = ioTypes
  }

  override makeChannel(thread: ChannelThread): EmbeddedChannel {
    return new DiskChannel(this, thread)
  }

  /** Another volume, or none, has its place: nothing of this one is sent from now on. */
  discard(): void {
    this.isGone = true
    this.controller.endWaiting((command) => command.owner === this)
  }

  submit(io: EmbeddedIo): void {
    if (this.isGone) return io.finish(removed)
    switch (io.opcode) {
      case Opcode.Read:
      case Opcode.Write:
      case Opcode.WriteZeroes:
        return io.lengthBlocks <= this.mostBlocks(io) ? this.piece(io, undefined, 0, io.lengthBlocks) : this.split(io)
      case Opcode.Unmap:
        return io.lengthBlocks <= maxRangeBlocks ? this.piece(io, undefined, 0, io.lengthBlocks) : this.split(io)
      case Opcode.Flush:
        return this.piece(io, undefined, 0, 0)
      case Opcode.NvmeIo:
        return this.passthru(io)
      case Opcode.Reset:
        return io.finish(failed)
      default:
        return io.refuse(io.opcode)
    }
  }

  commandDone(command: HostCommand): void {
    const { io, split, status } = command
    const { queue } = channelOf(io)
    if (io === undefined) return
    if (io.opcode === Opcode.NvmeIo) return this.passthruDone(io, command)
    queue.give(command)
    if (split === undefined) return this.ended(io, status)
    split.outstanding--
    if (status !== 0 && split.status === 0) split.status = status
    this.pieces(split)
  }

  override abort(io: EmbeddedIo): boolean {
    const { queue } = channelOf(io)
    this.controller.abort(queue, (command) => command.io === io)
    return true
  }

  /** An I/O has ended, as the device says. */
  protected ended(io: EmbeddedIo, status: number): void {
    io.finish(this.isGone && status !== 0 ? removed : ioStatusOf(status))
  }

  destruct(): void {
    // The controller holds what there is to give back.
  }

  private mostBlocks(io: EmbeddedIo): number {
    if (io.opcode === Opcode.WriteZeroes) return maxBlocks
    if (io.opcode === Opcode.Unmap) return maxRangeBlocks
    const most = this.controller.facts?.maxTransferBytes ?? this.blockSize
    return Math.max(1, Math.min(maxBlocks, Math.floor(most / this.blockSize)))
  }

  private split(io: EmbeddedIo): void {
    this.pieces({ io, nextBlock: 0, outstanding: 0, status: 0 })
  }

  /** Sends what fits of the rest; after a failure, nothing more. */
  private pieces(split: SplitIo): void {
    const { io } = split
    if (this.isGone && split.nextBlock < io.lengthBlocks && split.status === 0) split.status = Status.AbortedSqDeletion
    while (split.status === 0 && split.nextBlock < io.lengthBlocks && split.outstanding < maxPieces) {
      const count = Math.min(this.mostBlocks(io), io.lengthBlocks - split.nextBlock)
      const from = split.nextBlock
      split.nextBlock += count
      split.outstanding++
      this.piece(io, split, from, count)
    }
    if (split.outstanding === 0) this.ended(io, split.status)
  }

  private piece(io: EmbeddedIo, split: SplitIo | undefined, fromBlock: number, blocks: number): void {
    const { queue } = channelOf(io)
    const command = queue.take(this)
    const { sqe } = command
    command.io = io
    command.split = split
    const block = io.offsetBlocks + fromBlock
    setU32(sqe, Sqe.nsid, this.nsid)
    switch (io.opcode) {
      case Opcode.Read:
      case Opcode.Write:
        sqe[Sqe.opcode] = io.opcode === Opcode.Read ? IoOpcode.Read : IoOpcode.Write
        range(sqe, block, blocks)
        command.memory = io.memory
        command.segments = io.segments
        command.dataOffset = (io.memory === undefined ? 0 : io.memoryOffset) + fromBlock * this.blockSize
        command.lengthBytes = blocks * this.blockSize
        break
      case Opcode.WriteZeroes:
        sqe[Sqe.opcode] = IoOpcode.WriteZeroes
        range(sqe, block, blocks)
        break
      case Opcode.Unmap: {
        sqe[Sqe.opcode] = IoOpcode.DatasetManagement
        setU32(sqe, Sqe.cdw11, deallocate)
        const data = new Uint8Array(rangeBytes)
        setU32(data, 4, blocks)
        setU64Number(data, 8, block)
        command.plain = data
        command.lengthBytes = rangeBytes
        break
      }
      case Opcode.Flush:
        sqe[Sqe.opcode] = IoOpcode.Flush
        break
      case Opcode.Reset:
      case Opcode.NvmeIo:
        break
      default:
        return io.refuse(io.opcode)
    }
    queue.submit(command)
  }

  /** The first segment holds the command, the rest its data. */
  private passthru(io: EmbeddedIo): void {
    const [head, ...data] = io.segments ?? []
    if (head === undefined || head.lengthBytes !== sqeBytes || data.length > 1) return io.finish(failed)
    const { queue } = channelOf(io)
    const command = queue.take(this)
    command.io = io
    command.isExact = false
    command.sqe.set(head.memory.bytes.subarray(head.offsetBytes, head.offsetBytes + sqeBytes))
    command.segments = data
    command.lengthBytes = data[0]?.lengthBytes ?? 0
    queue.submit(command)
  }

  /** A status of the device is an answer. Without an answer the I/O has failed. */
  private passthruDone(io: EmbeddedIo, command: HostCommand): void {
    const head = io.segments?.[0]
    const { queue } = channelOf(io)
    const { status } = command
    if (head !== undefined) completionBytes(command, head.memory.bytes, head.offsetBytes)
    queue.give(command)
    if (status !== Status.AbortedSqDeletion) io.finish(success)
    else io.finish(this.isGone ? removed : ioStatusOf(status))
  }
}

// makeChannel of this class makes nothing else, and I/O is submitted by a channel of its bdev.
const channelOf = (io: EmbeddedIo | undefined): DiskChannel => io?.channel as DiskChannel

const range = (sqe: Uint8Array, block: number, blocks: number): void => {
  setU64Number(sqe, Sqe.cdw10, block)
  setU16(sqe, Sqe.cdw12, blocks - 1)
}

/** What a namespace of this controller can do as a bdev. */
export const ioTypesOf = (controller: HostController): ReadonlySet<IoType> => {
  const commands = controller.facts?.identify.nvmCommands
  return new Set<IoType>([
    "read",
    "write",
    "flush",
    "nvme_io",
    "abort",
    ...(commands?.datasetManagement === true ? (["unmap"] as const) : []),
    ...(commands?.writeZeroes === true ? (["write_zeroes"] as const) : []),
    ...(commands?.compare === true ? (["compare"] as const) : []),
    ...(commands?.copy === true ? (["copy"] as const) : [])
  ])
}
