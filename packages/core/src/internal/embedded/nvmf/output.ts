/**
 * What a connection sends: responses are written one after the other into a block, and go to the socket together, once per
 * drain. Blocks come back when the socket has taken them.
 */
import type { Socket } from "../../engine/network.ts"
import { crc32c, setU32 } from "../../nvme/wire/bytes.ts"
import {
  digestBytes,
  type PduFormat,
  PduFlag,
  PduType,
  type Transfer,
  writeCapsuleResp,
  writeDataHeader
} from "../../nvme/wire/pdu.ts"
import { writeCqe } from "../../nvme/wire/command.ts"
import { commonHeaderBytes, shortHeaderBytes } from "../../nvme/wire/pdu.ts"
import type { BlockPool, OutBlock } from "./outBlock.ts"

/** No more commands are read while blocks of this size wait for the socket: small answers hold large blocks. */
const maxHeldBytes = 8 * 1024 * 1024
/** Nor while all connections together hold as much, and this one some of it. */
const maxSharedBytes = 256 * 1024 * 1024

export class Output {
  private readonly socket: Socket
  private readonly blocks: BlockPool
  private block: OutBlock | undefined
  private full: Array<OutBlock> = []
  /** Of all blocks that the socket has not taken yet. */
  private heldBytes = 0
  private readonly onSent: () => void
  private readonly transfer: Transfer = { commandId: 0, transferTag: 0, offsetBytes: 0, lengthBytes: 0 }
  private readonly cqe = { dword0: 0, dword1: 0, sqHead: 0, commandId: 0, status: 0 }

  /** `onSent` runs whenever the socket has taken some of it. */
  constructor(socket: Socket, blocks: BlockPool, onSent: () => void) {
    this.socket = socket
    this.blocks = blocks
    this.onSent = onSent
  }

  get isFull(): boolean {
    const { blocks, heldBytes } = this
    return heldBytes > maxHeldBytes || (heldBytes > 0 && blocks.takenBytes > maxSharedBytes)
  }

  /** A block with room for so much behind what it holds. */
  reserve(lengthBytes: number): OutBlock {
    let { block } = this
    if (block !== undefined && block.lengthBytes - block.filledBytes >= lengthBytes) return block
    if (block !== undefined) this.full.push(block)
    block = this.blocks.take(lengthBytes)
    this.heldBytes += block.lengthBytes
    this.block = block
    return block
  }

  write(bytes: Uint8Array): void {
    const block = this.reserve(bytes.length)
    block.bytes.set(bytes, block.filledBytes)
    block.filledBytes += bytes.length
  }

  /** Room for one C2HData with so much data, digest included. */
  static dataPduBytes(format: PduFormat, lengthBytes: number): number {
    return format.dataOffset + lengthBytes + (format.dataDigest ? digestBytes : 0)
  }

  /**
   * Writes the header in front of data that is in the block already, `format.dataOffset` behind its fill, and the digest behind
   * it. With `isSuccess` no response follows.
   */
  dataInPlace(format: PduFormat, commandId: number, lengthBytes: number, isSuccess: boolean): void {
    const { block, transfer } = this
    if (block === undefined) return
    transfer.commandId = commandId
    transfer.lengthBytes = lengthBytes
    const flags = PduFlag.Last | (isSuccess ? PduFlag.Success : 0)
    const start = writeDataHeader(block.bytes, block.filledBytes, format, { type: PduType.C2hData, flags, transfer })
    let end = start + lengthBytes
    if (format.dataDigest) {
      setU32(block.bytes, end, crc32c(block.bytes, start, end))
      end += digestBytes
    }
    block.filledBytes = end
  }

  data(format: PduFormat, commandId: number, bytes: Uint8Array, isSuccess: boolean): void {
    const block = this.reserve(Output.dataPduBytes(format, bytes.length))
    block.bytes.set(bytes, block.filledBytes + format.dataOffset)
    this.dataInPlace(format, commandId, bytes.length, isSuccess)
  }

  response(
    format: PduFormat,
    fields: { commandId: number; status: number; dword0: number; dword1: number; sqHead: number }
  ): void {
    const block = this.reserve(format.headerBytes(shortHeaderBytes))
    const { cqe } = this
    cqe.commandId = fields.commandId
    cqe.status = fields.status
    cqe.dword0 = fields.dword0
    cqe.dword1 = fields.dword1
    cqe.sqHead = fields.sqHead
    writeCqe(block.bytes, block.filledBytes + commonHeaderBytes, cqe)
    block.filledBytes = writeCapsuleResp(block.bytes, block.filledBytes, format)
  }

  /** To the socket with it. */
  flush(): void {
    const { block, full, socket } = this
    if (block === undefined) return
    this.block = undefined
    if (full.length > 0) {
      this.full = []
      socket.cork()
      for (const one of full) this.send(one)
    }
    if (block.filledBytes > 0) this.send(block)
    else this.give(block)
    if (full.length > 0) socket.uncork()
  }

  /** Nothing more is sent. */
  drop(): void {
    for (const one of this.full.splice(0)) this.give(one)
    if (this.block !== undefined) this.give(this.block)
    this.block = undefined
  }

  private send(block: OutBlock): void {
    // Also called when the socket is destroyed.
    this.socket.write(block.bytes.subarray(0, block.filledBytes), () => {
      this.give(block)
      this.onSent()
    })
  }

  private give(block: OutBlock): void {
    this.heldBytes -= block.lengthBytes
    this.blocks.give(block)
  }
}
