/**
 * The places of a queue: a record for each command that it may have, and which command ids are in use.
 */
import type { DataPool } from "./dataPool.ts"
import { NvmfRequest, Phase, type RequestOwner } from "./request.ts"

/** One bit for each command id. */
const idBytes = 8192
const none = new Uint8Array(0)

export class SubmissionQueue {
  /** Head pointer, as responses tell it. */
  head = 0
  /** By slot, which is also the transfer tag of an R2T. */
  private readonly requests: Array<NvmfRequest> = []
  private readonly free: Array<NvmfRequest> = []
  /** Made when the queue is connected: the connect command has the queue to itself. */
  private usedIds = none
  private depth = 1
  /** Entries, as the host has them. */
  private size = 1
  private readonly pool: DataPool
  private readonly owner: RequestOwner

  constructor(pool: DataPool, owner: RequestOwner) {
    this.pool = pool
    this.owner = owner
  }

  /** `size` is the host's; `extra`: places beside, for commands that stay. */
  connect(size: number, extra: number): void {
    this.size = size
    this.depth = size + extra
    this.usedIds = new Uint8Array(idBytes)
  }

  /** Ids are of no more use; records are, until their I/O has ended. The others give back what they hold. */
  close(): void {
    this.usedIds = none
    for (const request of this.requests) if (request.phase !== Phase.Running) this.give(request)
  }

  /** Undefined when all places are taken. */
  take(): NvmfRequest | undefined {
    const request = this.free.pop()
    if (request !== undefined) return request
    if (this.requests.length >= this.depth) return undefined
    const made = new NvmfRequest(this.requests.length, this.owner)
    this.requests.push(made)
    return made
  }

  give(request: NvmfRequest): void {
    const { buffer, phase } = request
    if (phase === Phase.Free) return
    if (phase === Phase.Waiting) this.pool.cancel(request)
    if (phase === Phase.Transfer) this.pool.endTransfer(request)
    request.clear()
    if (buffer !== undefined) this.pool.give(buffer)
    this.free.push(request)
  }

  at(slot: number): NvmfRequest | undefined {
    return this.requests[slot]
  }

  /** The command of this id that a bdev has. */
  findRunning(commandId: number): NvmfRequest | undefined {
    return this.requests.find((one) => one.phase === Phase.Running && one.commandId === commandId)
  }

  /** The command of this id that waits for memory. */
  findWaiting(commandId: number): NvmfRequest | undefined {
    return this.requests.find((one) => one.phase === Phase.Waiting && one.commandId === commandId)
  }

  /** False when a command on its way has this id. */
  claimId(commandId: number): boolean {
    const at = commandId >>> 3
    const bit = 1 << (commandId & 7)
    const used = this.usedIds[at] ?? 0
    if ((used & bit) !== 0) return false
    this.usedIds[at] = used | bit
    return true
  }

  freeId(commandId: number): void {
    const at = commandId >>> 3
    this.usedIds[at] = (this.usedIds[at] ?? 0) & ~(1 << (commandId & 7))
  }

  advance(): void {
    this.head = this.head + 1 >= this.size ? 0 : this.head + 1
  }
}
