/** What is said on the wire, PDU by PDU, held against what the two sides have agreed on. */
import type { Passage } from "@effect-spdk/core/SimulatedNetwork"

const capsuleCmd = 4
const capsuleResp = 5
const fabricsOpcode = 0x7f
const connectType = 1

interface Direction {
  bytes: Buffer
}

interface Queue {
  readonly client: Direction
  readonly server: Direction
  id: number
  /** As the host has asked for; undefined before the Connect command. */
  entries: number | undefined
}

export class Wire {
  /** Connect commands of admin queues: one for each controller that was connected, or connected again. */
  adminConnects = 0
  private readonly queues = new Map<number, Queue>()
  private readonly violated: (message: string) => void

  constructor(violated: (message: string) => void) {
    this.violated = violated
  }

  readonly onPassage = ({ bytes, connection, from }: Passage): void => {
    let queue = this.queues.get(connection)
    if (queue === undefined) {
      queue = { client: { bytes: Buffer.alloc(0) }, server: { bytes: Buffer.alloc(0) }, id: -1, entries: undefined }
      this.queues.set(connection, queue)
    }
    const direction = queue[from]
    direction.bytes = Buffer.concat([direction.bytes, bytes])
    for (;;) {
      const { bytes: all } = direction
      if (all.length < 8) return
      const length = all.readUInt32LE(4)
      if (length < 8) return this.violated(`connection ${connection}: a PDU of ${length} bytes from the ${from}`)
      if (all.length < length) return
      direction.bytes = all.subarray(length)
      this.look(queue, connection, all)
    }
  }

  private look(queue: Queue, connection: number, pdu: Buffer): void {
    const type = pdu.readUInt8(0)
    if (type === capsuleCmd && pdu.readUInt8(8) === fabricsOpcode && pdu.readUInt8(12) === connectType) {
      queue.id = pdu.readUInt16LE(8 + 42)
      queue.entries = pdu.readUInt16LE(8 + 44) + 1
      if (queue.id === 0) this.adminConnects++
    } else if (type === capsuleResp && queue.entries !== undefined) {
      const head = pdu.readUInt16LE(8 + 8)
      if (head >= queue.entries) {
        this.violated(`connection ${connection}: SQHD ${head} of a queue with ${queue.entries} entries`)
      }
    }
  }
}
