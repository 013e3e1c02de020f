/**
 * A command of a queue, from its capsule to its response. Records are used again and again; a queue has as many as its depth.
 */
import { getU32, getU64Number } from "../../nvme/bytes.ts"
import { commandIdOf, nsidOf, Sqe, sglLengthOf, sglOffsetOf, sglTypeOf } from "../../nvme/command.ts"
import { BdevIo } from "../io.ts"
import { SlabMemory } from "../memory.ts"
import type { Namespace } from "./target.ts"

export const Phase = { Free: 0, Capsule: 1, Transfer: 2, Running: 3 } as const

export class NvmfRequest extends BdevIo {
  readonly slot: number
  phase: number = Phase.Free
  commandId = 0
  command = 0
  flags = 0
  nsid = 0
  firstBlock = 0
  dword10 = 0
  dword11 = 0
  dword12 = 0
  sglType = 0
  sglLength = 0
  sglOffset = 0
  /** Whether the command id is its own: that of a conflict is another's. */
  hasId = false
  /** What was wrong already when the capsule came. */
  earlyStatus = 0
  /** Of what the host sends. */
  expectedBytes = 0
  receivedBytes = 0
  /** What the host sends, or the bdev reads when it does not do so at once. */
  buffer: SlabMemory | undefined = undefined
  /** Of the admin queue: the whole command. */
  sqe: Uint8Array | undefined = undefined
  namespace: Namespace | undefined = undefined
  /** Of a compare: what the host has sent. */
  expected: Uint8Array | undefined = undefined
  /** Of dataset management: pairs of first block and count. */
  blockRanges: ReadonlyArray<readonly [number, number]> | undefined = undefined
  rangeIndex = 0
  /** Where the data of a read goes in the connection's block; -1: into `buffer`. */
  blockAt = -1

  constructor(slot: number) {
    super()
    this.slot = slot
  }

  fill(bytes: Uint8Array, at: number): void {
    this.phase = Phase.Capsule
    this.command = bytes[at] ?? 0
    this.flags = bytes[at + 1] ?? 0
    this.commandId = commandIdOf(bytes, at)
    this.nsid = nsidOf(bytes, at)
    this.firstBlock = getU64Number(bytes, at + Sqe.cdw10)
    this.dword10 = getU32(bytes, at + Sqe.cdw10)
    this.dword11 = getU32(bytes, at + Sqe.cdw11)
    this.dword12 = getU32(bytes, at + Sqe.cdw12)
    this.sglType = sglTypeOf(bytes, at)
    this.sglLength = sglLengthOf(bytes, at)
    this.sglOffset = sglOffsetOf(bytes, at)
    this.hasId = false
    this.earlyStatus = 0
    this.expectedBytes = 0
    this.receivedBytes = 0
    this.blockAt = -1
  }

  /** Memory of at least this size, kept for the next command. */
  room(lengthBytes: number): SlabMemory {
    let { buffer } = this
    if (buffer === undefined || buffer.lengthBytes < lengthBytes) {
      buffer = new SlabMemory(0, 0, 2 ** Math.ceil(Math.log2(Math.max(4096, lengthBytes))), 4096)
      this.buffer = buffer
    }
    return buffer
  }

  clear(): void {
    this.phase = Phase.Free
    this.memory = undefined
    this.sqe = undefined
    this.namespace = undefined
    this.expected = undefined
    this.blockRanges = undefined
  }
}
