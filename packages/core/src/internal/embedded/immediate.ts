/**
 * Reads and writes of bdevs in memory, done where they are asked for: a request, its way through the queue and the fiber that
 * waits for it would cost more than the copy.
 *
 * Everything here runs on the JS thread.
 */
import { Opcode } from "@effect-spdk/native/Layout"
import type { Entry, ImmediateTransfers } from "@effect-spdk/native/Queue"
import { sampleEvery } from "./ioStat.ts"
import { isAligned, isInSlab } from "./memory.ts"
import type { EmbeddedQueue, QueueContext } from "./queue.ts"
import type { LogicalThread } from "./thread.ts"

/** So many go on at once, then the next one of those that wait has its turn. */
const inARow = 8

export class Immediate implements ImmediateTransfers {
  private readonly context: QueueContext
  private readonly thread: LogicalThread
  private readonly queue: EmbeddedQueue
  private untilTurn = inARow
  private untilSample = 0

  constructor(context: QueueContext, thread: LogicalThread, queue: EmbeddedQueue) {
    this.context = context
    this.thread = thread
    this.queue = queue
  }

  transfer(entry: Entry): boolean {
    const { queue } = this
    // What was submitted before is done before.
    if (queue.isClosed || queue.hasQueued) return false
    const { handles, reactor, slabs } = this.context
    const { lengthBlocks, lengthBytes, offsetBlocks, opcode, slabOffset } = entry
    const open = handles.findChannel(entry.channelSlot, entry.channelGeneration)
    if (open === undefined || !open.bdev.isImmediate || open.thread !== this.thread || open.state !== "open")
      return false
    const { bdev, channel } = open
    if (channel.isResetting || (opcode === Opcode.Write && !open.descriptor.writable)) return false
    if (!bdev.hasBlocks(offsetBlocks, lengthBlocks) || lengthBytes !== lengthBlocks * bdev.blockSize) return false
    const memory = slabs.find(entry.slabSlot, entry.slabGeneration)
    if (memory === undefined || !isInSlab(memory, slabOffset, lengthBytes)) return false
    if (!isAligned(memory, slabOffset, bdev.properties.alignmentBytes ?? 1)) return false
    const isSampled = this.untilSample-- === 0
    const startMillis = isSampled ? performance.now() : 0
    if (!bdev.transferNow(opcode, offsetBlocks, lengthBlocks, memory.bytes, slabOffset)) {
      this.untilSample++
      return false
    }
    reactor.spent += 1 + (lengthBytes >>> 12)
    channel.stat.count(opcode, lengthBytes, startMillis, true)
    if (isSampled) this.sampled(startMillis)
    return true
  }

  mayGoOn(): boolean {
    return --this.untilTurn > 0 && !this.context.reactor.isExhausted
  }

  afterOthers(goOn: () => void): void {
    this.untilTurn = inARow
    this.context.reactor.post(goOn)
  }

  private sampled(startMillis: number): void {
    this.untilSample = sampleEvery - 1
    this.queue.busyMillis += (performance.now() - startMillis) * sampleEvery
  }
}
