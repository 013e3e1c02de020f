/**
 * A command of a queue, from its capsule to its response. Records are used again and again; a queue has as many as its depth.
 */
import { getU32, getU64Number } from "../../nvme/wire/bytes.ts"
import { commandIdOf, nsidOf, Sqe, sglLengthOf, sglOffsetOf, sglTypeOf } from "../../nvme/wire/command.ts"
import { EmbeddedIo } from "../bdev/io.ts"
import type { SlabMemory } from "../queue/memory.ts"
import type { DataTransfer, DataWaiter } from "./dataPool.ts"
import type { Namespace } from "./target.ts"

/** `Waiting`: for memory. */
export const Phase = { Free: 0, Capsule: 1, Waiting: 2, Transfer: 3, Running: 4 } as const

/** Whoever goes on with requests that have waited for memory. */
export interface RequestOwner {
  resume(request: NvmfRequest): void
  /** Its host owes data for too long. */
  stalled(): void
}

export class NvmfRequest extends EmbeddedIo implements DataWaiter, DataTransfer {
  readonly slot: number
  private readonly queueOwner: RequestOwner
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
  /** What the host was asked for has come. */
  isTransferred = false
  /** What was wrong already when the capsule came. */
  earlyStatus = 0
  /** Of what the host sends. */
  expectedBytes = 0
  receivedBytes = 0
  /** Of memory, for what the host sends or the bdev reads. */
  neededBytes = 0
  seenAtLook = 0
  /** What the host sends, or the bdev reads when it does not do so at once. Of the target's pool. */
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

  constructor(slot: number, owner: RequestOwner) {
    super()
    this.slot = slot
    this.queueOwner = owner
  }

  granted(memory: SlabMemory): void {
    this.buffer = memory
    this.queueOwner.resume(this)
  }

  stalled(): void {
    this.queueOwner.stalled()
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
    this.isTransferred = false
    this.expectedBytes = 0
    this.receivedBytes = 0
    this.neededBytes = 0
    this.blockAt = -1
  }

  clear(): void {
    this.phase = Phase.Free
    this.memory = undefined
    this.buffer = undefined
    this.sqe = undefined
    this.namespace = undefined
    this.expected = undefined
    this.blockRanges = undefined
  }
}
