/**
 * Write zeroes for modules that can only write: SPDK's bdev layer writes a buffer of zeroes as often as it takes.
 */
import { Opcode } from "@effect-spdk/native/Layout"
import { EmbeddedIo, type IoOwner } from "./io.ts"
import { SlabMemory } from "../queue/memory.ts"
import { failed, success } from "../queue/status.ts"

const zeroBytes = 1024 * 1024
let zeroes: SlabMemory | undefined

/** Shared by all: who wants to change what it writes takes a copy of it, see `isShared`. */
const zeroMemory = (blockSize: number): SlabMemory => {
  if (zeroes === undefined || zeroes.lengthBytes < blockSize) {
    const lengthBytes = Math.max(zeroBytes, blockSize)
    zeroes = new SlabMemory(0, 0, lengthBytes, lengthBytes)
  }
  return zeroes
}

export const isShared = (memory: SlabMemory): boolean => memory === zeroes

const writer: IoOwner = {
  ioDone(write) {
    const { parent } = write
    if (parent === undefined) return
    parent.doneBytes += write.lengthBlocks * parent.channel.bdev.blockSize
    if (write.status.errno !== 0) parent.finish(failed)
    else next(parent, write)
  }
}

export const emulateWriteZeroes = (io: EmbeddedIo): void => {
  io.doneBytes = 0
  const write = new EmbeddedIo()
  write.owner = writer
  write.parent = io
  next(io, write)
}

const next = (io: EmbeddedIo, write: EmbeddedIo): void => {
  const { blockSize } = io.channel.bdev
  const doneBlocks = io.doneBytes / blockSize
  if (doneBlocks === io.lengthBlocks) return io.finish(success)
  const memory = zeroMemory(blockSize)
  write.opcode = Opcode.Write
  write.offsetBlocks = io.offsetBlocks + doneBlocks
  write.lengthBlocks = Math.min(io.lengthBlocks - doneBlocks, Math.floor(memory.lengthBytes / blockSize))
  write.memory = memory
  write.memoryOffset = 0
  io.channel.submit(write)
}
