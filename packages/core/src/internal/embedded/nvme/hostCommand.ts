/**
 * A command on its way through a queue pair of the host, with the memory that it reads or writes. Records of the I/O path are
 * used again and again.
 */
import type { EmbeddedIo, IoSegment } from "../bdev/io.ts"
import { isMoved, type SlabMemory } from "../queue/memory.ts"
import { crc32c } from "../../nvme/wire/bytes.ts"
import { AdminOpcode, Direction, directionOf, Sqe, sqeBytes } from "../../nvme/wire/command.ts"
import type { Link } from "./link.ts"

/** Whoever sent a command. Called exactly once, in a drain of the reactor. */
export interface CommandOwner {
  /** Nothing of it may be sent any more. */
  readonly isGone?: boolean
  commandDone(command: HostCommand): void
}

const nobody: CommandOwner = { commandDone: () => {} }

/** A large I/O that several commands carry. */
export interface SplitIo {
  readonly io: EmbeddedIo
  nextBlock: number
  outstanding: number
  /** The first failure. */
  status: number
}

export class HostCommand {
  readonly sqe = new Uint8Array(sqeBytes)
  /** Of the queue pair, while it is sent. */
  commandId = -1
  state: "free" | "waiting" | "sent" | "done" = "free"
  owner: CommandOwner = nobody
  /** When it was sent, in rounds of its queue pair. */
  sentRound = 0
  io: EmbeddedIo | undefined = undefined
  split: SplitIo | undefined = undefined
  /** The data: one of the three, from `dataOffset` on. */
  memory: SlabMemory | undefined = undefined
  segments: ReadonlyArray<IoSegment> | undefined = undefined
  plain: Uint8Array | undefined = undefined
  dataOffset = 0
  lengthBytes = 0
  /** Data that has come, or has been asked for. */
  doneBytes = 0
  /** Whether success means that all data was moved. Of commands that a user has made nobody knows. */
  isExact = true
  /** A data digest was wrong. */
  isDamaged = false
  /** Some of the data had no memory any more: its owner has transferred that to somebody else. */
  isLost = false
  isInCapsule = false
  /** What an R2T has asked for and is not sent yet. */
  owedBytes = 0
  owedOffset = 0
  transferTag = 0
  attempts = 0
  /** The completion; status as in nvmeStatus.ts. */
  dword0 = 0
  dword1 = 0
  status = 0
  /** In the list that it stands in. */
  next: HostCommand | undefined = undefined

  /** For a new life, or another attempt: the command and its data stay. */
  rewind(): void {
    this.doneBytes = 0
    this.isDamaged = false
    this.isLost = false
    this.isInCapsule = false
    this.owedBytes = 0
    this.dword0 = 0
    this.dword1 = 0
    this.status = 0
  }

  clear(): void {
    this.state = "free"
    this.owner = nobody
    this.io = undefined
    this.split = undefined
    this.memory = undefined
    this.segments = undefined
    this.plain = undefined
    this.dataOffset = 0
    this.lengthBytes = 0
    this.isExact = true
    this.attempts = 0
    this.rewind()
  }

  /** One of `Direction`. */
  get direction(): number {
    const opcode = this.sqe[Sqe.opcode] ?? 0
    return directionOf(opcode === AdminOpcode.Fabrics ? (this.sqe[Sqe.fabricsType] ?? 0) : opcode)
  }

  get isToHost(): boolean {
    return (this.direction & Direction.ToHost) !== 0
  }

  get isToController(): boolean {
    return (this.direction & Direction.ToController) !== 0
  }

  /** Takes over data that has come. `at` counts in the data of the command. */
  store(at: number, bytes: Buffer, start: number, end: number): void {
    const { memory, plain, segments } = this
    if (memory !== undefined) {
      if (isMoved(memory)) this.isLost = true
      else bytes.copy(memory.bytes, this.dataOffset + at, start, end)
    } else if (plain !== undefined) {
      bytes.copy(plain, this.dataOffset + at, start, end)
    } else if (segments !== undefined) {
      let from = start
      eachPiece(segments, this.dataOffset + at, end - start, (target, pieceStart, pieceEnd) => {
        if (isMoved(target)) this.isLost = true
        else bytes.copy(target.bytes, pieceStart, from, from + pieceEnd - pieceStart)
        from += pieceEnd - pieceStart
      })
    }
  }

  /** Sends data; the digest of it, when one is wanted. */
  send(link: Link, at: number, lengthBytes: number, isDigested: boolean): number {
    const { memory, plain, segments } = this
    if (memory !== undefined && isMoved(memory)) return this.sendZeroes(link, lengthBytes, isDigested, 0)
    const bytes = memory === undefined ? plain : memory.bytes
    if (bytes !== undefined) {
      const start = this.dataOffset + at
      link.copy(bytes, start, start + lengthBytes)
      return isDigested ? crc32c(bytes, start, start + lengthBytes) : 0
    }
    let digest = 0
    eachPiece(segments ?? [], this.dataOffset + at, lengthBytes, (source, start, end) => {
      if (isMoved(source)) {
        digest = this.sendZeroes(link, end - start, isDigested, digest)
        return
      }
      link.copy(source.bytes, start, end)
      if (isDigested) digest = crc32c(source.bytes, start, end, digest)
    })
    return digest
  }

  /** The target counts on as many bytes as it was told of. */
  private sendZeroes(link: Link, lengthBytes: number, isDigested: boolean, digestBefore: number): number {
    this.isLost = true
    let digest = digestBefore
    for (let left = lengthBytes; left > 0; left -= zeroes.length) {
      const count = Math.min(left, zeroes.length)
      link.copy(zeroes, 0, count)
      if (isDigested) digest = crc32c(zeroes, 0, count, digest)
    }
    return digest
  }
}

const zeroes = new Uint8Array(4096)

const eachPiece = (
  segments: ReadonlyArray<IoSegment>,
  offsetBytes: number,
  lengthBytes: number,
  use: (memory: SlabMemory, start: number, end: number) => void
): void => {
  let skip = offsetBytes
  let left = lengthBytes
  for (const segment of segments) {
    if (left === 0) return
    if (skip >= segment.lengthBytes) {
      skip -= segment.lengthBytes
      continue
    }
    const count = Math.min(left, segment.lengthBytes - skip)
    const start = segment.offsetBytes + skip
    use(segment.memory, start, start + count)
    left -= count
    skip = 0
  }
}

/** First in, first out, by the commands themselves. */
export class CommandList {
  private first: HostCommand | undefined = undefined
  private last: HostCommand | undefined = undefined

  get isEmpty(): boolean {
    return this.first === undefined
  }

  push(command: HostCommand): void {
    command.next = undefined
    if (this.last === undefined) this.first = command
    else this.last.next = command
    this.last = command
  }

  shift(): HostCommand | undefined {
    const { first } = this
    if (first === undefined) return undefined
    this.first = first.next
    if (this.first === undefined) this.last = undefined
    first.next = undefined
    return first
  }

  /** Takes out all that match, in order. */
  take(matches: (command: HostCommand) => boolean): ReadonlyArray<HostCommand> {
    const taken: Array<HostCommand> = []
    let command = this.first
    this.first = this.last = undefined
    while (command !== undefined) {
      const { next } = command
      if (matches(command)) taken.push(command)
      else this.push(command)
      command = next
    }
    return taken
  }
}
