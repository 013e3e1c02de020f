/**
 * Reads and writes of bdevs in memory, done where they are asked for: a request, its way through the queue and the fiber that
 * waits for it would cost more than the copy. After some of them one goes through the queue all the same, and stands in line
 * with those of everybody else: that is how others have their turns.
 *
 * Everything here runs on the JS thread.
 */
import { Opcode } from "@effect-spdk/native/Layout"
import type { Entry, ImmediateTransfers } from "@effect-spdk/native/Queue"
import { isAligned, isInSlab } from "./memory.ts"
import type { EmbeddedQueue, QueueContext } from "./queue.ts"
import type { LogicalThread } from "../runtime/thread.ts"

/**
 * So many units of the reactor, and what the last transfer takes beyond them, may go by between two requests that the queue has
 * looked at. The reactor's own bound is the queue's to keep: here it would fall on the same fiber turn after turn.
 */
const unitsInARow = 32

export class Immediate implements ImmediateTransfers {
  private readonly context: QueueContext
  private readonly thread: LogicalThread
  private readonly queue: EmbeddedQueue
  private unitsLeft = unitsInARow

  constructor(context: QueueContext, thread: LogicalThread, queue: EmbeddedQueue) {
    this.context = context
    this.thread = thread
    this.queue = queue
  }

  /** The checks are those of the queue, which also has the words for what they refuse. */
  transfer(entry: Entry): boolean {
    const { handles, reactor, slabs } = this.context
    if (this.unitsLeft <= 0 || this.queue.isClosed) return false
    const { lengthBlocks, offsetBlocks, opcode, slabOffset } = entry
    if (opcode !== Opcode.Read && opcode !== Opcode.Write) return false
    const open = handles.findChannel(entry.channelSlot, entry.channelGeneration)
    if (open === undefined || !open.bdev.isImmediate || open.thread !== this.thread || open.state !== "open")
      return false
    const { bdev, channel, descriptor } = open
    if (descriptor.isRemoved || (opcode === Opcode.Write && !descriptor.writable) || channel.isResetting) return false
    if (!bdev.hasBlocks(offsetBlocks, lengthBlocks)) return false
    const lengthBytes = lengthBlocks * bdev.blockSize
    const memory = slabs.find(entry.slabSlot, entry.slabGeneration)
    if (memory === undefined || !isInSlab(memory, slabOffset, lengthBytes)) return false
    if (!isAligned(memory, slabOffset, bdev.properties.alignmentBytes ?? 1)) return false
    const startMillis = channel.stat.sampleStart(opcode)
    if (!bdev.transferNow(opcode, offsetBlocks, lengthBlocks, memory.bytes, slabOffset)) return false
    const units = 1 + (lengthBytes >>> 12)
    reactor.spent += units
    this.unitsLeft -= units
    const millis = channel.stat.count(opcode, lengthBytes, startMillis, true)
    // Inside of a completion or a poller, the time is in theirs.
    if (millis > 0 && !reactor.isTimed) this.queue.countEstimate(millis)
    return true
  }

  /** The queue has looked at a request. */
  othersHadTheirTurn(): void {
    this.unitsLeft = unitsInARow
  }
}
