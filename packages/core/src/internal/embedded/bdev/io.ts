/**
 * One I/O of one bdev, what SPDK calls spdk_bdev_io. Records are used again and again: whoever takes one from a pool
 * fills it, submits it to a channel, and has it back when `ioDone` is called.
 */
import { type DeviceOpcode, Opcode } from "@effect-spdk/native/Layout"
import type { EmbeddedChannel } from "./bdev.ts"
import type { SlabMemory } from "../queue/memory.ts"
import { failed, type IoStatus, success } from "../queue/status.ts"

/** Whoever submitted an I/O. Called exactly once, in a drain of the reactor; it may submit more. */
export interface IoOwner {
  ioDone(io: EmbeddedIo): void
}

/** A piece of memory, checked. */
export interface IoSegment {
  readonly memory: SlabMemory
  readonly offsetBytes: number
  readonly lengthBytes: number
}

const nobody: IoOwner = { ioDone: () => {} }

export class EmbeddedIo {
  opcode: DeviceOpcode = Opcode.Read
  offsetBlocks = 0
  lengthBlocks = 0
  /** Of `Read` and `Write`: one piece of memory, or `segments`. */
  memory: SlabMemory | undefined = undefined
  memoryOffset = 0
  segments: ReadonlyArray<IoSegment> | undefined = undefined
  owner: IoOwner = nobody
  /** What this I/O is a part of, when the owner is a bdev that stands on another. */
  parent: EmbeddedIo | undefined = undefined
  status: IoStatus = success
  /** performance.now() of the start, 0 when this I/O is not timed. */
  startMillis = 0
  /** For the bdev module that has the I/O: a class of its own, a time, and the I/O of the bdev below. */
  kind = 0
  dueMicros = 0
  child: EmbeddedIo | undefined = undefined
  /** Bytes done so far, for modules that need several steps. */
  doneBytes = 0
  // Every channel sets itself before its bdev sees the I/O.
  channel!: EmbeddedChannel

  /** The end of an I/O that a module does not have: the type shows at compile time that its switch has all others. */
  refuse(_opcode: never): void {
    this.finish(failed)
  }

  /** The module's word that the I/O has ended. It must not touch the memory any more. */
  finish(status: IoStatus): void {
    this.status = status
    this.channel.end(this, status)
    this.owner.ioDone(this)
  }
}

/** I/O of bdevs that stand on others. */
export class IoPool {
  private readonly free: Array<EmbeddedIo> = []

  /** The same I/O for the bdev below, some blocks further on. */
  take(owner: IoOwner, parent: EmbeddedIo, offsetBlocks: number): EmbeddedIo {
    const io = this.free.pop() ?? new EmbeddedIo()
    io.opcode = parent.opcode
    io.offsetBlocks = offsetBlocks
    io.lengthBlocks = parent.lengthBlocks
    io.memory = parent.memory
    io.memoryOffset = parent.memoryOffset
    io.segments = parent.segments
    io.owner = owner
    io.parent = parent
    return io
  }

  give(io: EmbeddedIo): void {
    io.memory = undefined
    io.segments = undefined
    io.parent = undefined
    io.child = undefined
    this.free.push(io)
  }
}
