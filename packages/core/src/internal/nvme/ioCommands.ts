/**
 * Commands of the I/O queue that the ring has no opcode for: compare, copy, dataset management, and whatever else. Each takes a
 * lease of memory for its 64 bytes, so this is not the path for millions of reads.
 */
import * as Effect from "effect/Effect"
import type { ByteRange } from "../../BdevIo.ts"
import type { PassthruResult } from "../../NvmeController.ts"
import type { DatasetOptions, NamespaceCommand } from "../../NvmeNamespace.ts"
import type { DmaBuffer } from "../../DmaBuffer.ts"
import { invalid } from "../../SpdkError.ts"
import { maxBounceBytes } from "../memory/bouncePool.ts"
import type { EngineNvme } from "../engine/nvme.ts"
import { channelOf, type IoRoute, openFor } from "../io/io.ts"
import { refusedBuffer, refusedRange } from "../io/ioCheck.ts"
import type { IoError } from "../io/ioCompletion.ts"
import type { DmaBufferImpl } from "../memory/ioMemory.ts"
import { removedOrClosed } from "../io/ioCheck.ts"
import { completionOf, encodeCommand, refusedCommand } from "./passthruCommand.ts"
import { ioReasons, pinned, withData } from "./adminQueue.ts"
import { Cqe, cqeBytes, IoOpcode, sqeBytes } from "./wire/command.ts"
import { type BlockBytes, ioDataBytes, refusedDataLength } from "./dataLength.ts"
import type { IdentifyNamespace } from "./wire/identify.ts"
import { viewOf } from "./wire/struct.ts"

/** What a namespace's commands need to know. */
export interface NamespaceTarget extends IoRoute {
  readonly nvme: EngineNvme
  readonly nsid: number
  readonly maxTransferBytes: number
  readonly blockBytes: BlockBytes
  readonly limits: Pick<IdentifyNamespace, "maxCopyBlocks" | "maxCopySourceBlocks" | "maxCopySources">
}

const operationOf = (name: string): string => `NvmeNamespace.${name}`

/** NLB has 16 bits, and counts from 0. */
const maxBlocks = 65_536

export const ioCommand = (target: NamespaceTarget, command: NamespaceCommand): Effect.Effect<PassthruResult, IoError> =>
  Effect.suspend(() => {
    const operation = operationOf("io")
    const { bdev } = target
    const most =
      command.buffer === undefined ? Math.min(target.maxTransferBytes, maxBounceBytes) : target.maxTransferBytes
    const refused =
      refusedCommand(operation, bdev.name, command, most) ??
      refusedDataLength(operation, bdev.name, command, ioDataBytes(command, target.blockBytes)) ??
      (command.buffer === undefined ? undefined : refusedBuffer(bdev, operation, implOf(command.buffer)))
    if (refused !== undefined) return Effect.fail(refused)
    return withData(bdev.bounce, command, (data) => send(target, operation, command, data))
  })

export const compare = (
  target: NamespaceTarget,
  offsetBytes: number,
  buffer: DmaBuffer
): Effect.Effect<void, IoError> =>
  Effect.suspend(() => {
    const operation = operationOf("compare")
    const { bdev } = target
    const refused =
      refusedBuffer(bdev, operation, implOf(buffer)) ??
      refusedBlocks(target, operation, offsetBytes, buffer.byteLength, "buffer.byteLength") ??
      refusedLength(target, operation, buffer.byteLength)
    if (refused !== undefined) return Effect.fail(refused)
    const blocks = buffer.byteLength / bdev.blockSize
    const fields = { opcode: IoOpcode.Compare, ...lbaWords(offsetBytes / bdev.blockSize), cdw12: blocks - 1 }
    return Effect.asVoid(send(target, operation, fields, buffer))
  })

const maxRanges = 256

export const datasetManagement = (
  target: NamespaceTarget,
  ranges: ReadonlyArray<ByteRange>,
  options: DatasetOptions
): Effect.Effect<void, IoError> =>
  Effect.suspend(() => {
    const operation = operationOf("datasetManagement")
    const { bdev } = target
    if (ranges.length < 1 || ranges.length > maxRanges) {
      return Effect.fail(invalid(operation, "ranges", `are not 1 to ${maxRanges}`, ranges.length, bdev.name))
    }
    const data = new Uint8Array(16 * ranges.length)
    const view = viewOf(data)
    for (const [i, { lengthBytes, offsetBytes }] of ranges.entries()) {
      const refused = refusedBlocks(target, operation, offsetBytes, lengthBytes, "lengthBytes", `ranges[${i}].`)
      if (refused !== undefined) return Effect.fail(refused)
      const blocks = lengthBytes / bdev.blockSize
      if (blocks > 0xffff_ffff) {
        const rule = "is more than the 2^32 - 1 blocks of one range"
        return Effect.fail(invalid(operation, `ranges[${i}].lengthBytes`, rule, lengthBytes, bdev.name))
      }
      view.setUint32(16 * i + 4, blocks, true)
      view.setBigUint64(16 * i + 8, BigInt(offsetBytes / bdev.blockSize), true)
    }
    const { deallocate = false, integralRead = false, integralWrite = false } = options
    for (const [field, flag] of Object.entries({ deallocate, integralRead, integralWrite })) {
      if (typeof flag !== "boolean") return Effect.fail(invalid(operation, field, "is not a boolean", flag, bdev.name))
    }
    const cdw11 = (integralRead ? 1 : 0) + (integralWrite ? 2 : 0) + (deallocate ? 4 : 0)
    const fields = { opcode: IoOpcode.DatasetManagement, cdw10: ranges.length - 1, cdw11 }
    return Effect.asVoid(withData(bdev.bounce, { data }, (memory) => send(target, operation, fields, memory)))
  })

/** Of a source range entry, descriptor format 0. */
const sourceBytes = 32

export const copy = (
  target: NamespaceTarget,
  sources: ReadonlyArray<ByteRange>,
  destinationOffsetBytes: number
): Effect.Effect<void, IoError> =>
  Effect.suspend(() => {
    const operation = operationOf("copy")
    const { bdev, limits } = target
    const refused = refusedCopy(target, operation, sources, destinationOffsetBytes)
    if (refused !== undefined) return Effect.fail(refused)
    const data = new Uint8Array(sourceBytes * sources.length)
    const view = viewOf(data)
    let total = 0
    for (const [i, { lengthBytes, offsetBytes }] of sources.entries()) {
      const blocks = lengthBytes / bdev.blockSize
      total += blocks
      // 0 is no limit told.
      const most = limits.maxCopySourceBlocks === 0 ? maxBlocks : Math.min(maxBlocks, limits.maxCopySourceBlocks)
      if (blocks > most) {
        const rule = `is more than the ${most} blocks that the namespace copies from one range`
        return Effect.fail(invalid(operation, `sources[${i}].lengthBytes`, rule, lengthBytes, bdev.name))
      }
      view.setBigUint64(sourceBytes * i + 8, BigInt(offsetBytes / bdev.blockSize), true)
      view.setUint16(sourceBytes * i + 16, blocks - 1, true)
    }
    if (limits.maxCopyBlocks !== 0 && total > limits.maxCopyBlocks) {
      const rule = `are more than the ${limits.maxCopyBlocks} blocks of one copy`
      return Effect.fail(invalid(operation, "sources", rule, total, bdev.name))
    }
    const fields = {
      opcode: IoOpcode.Copy,
      ...lbaWords(destinationOffsetBytes / bdev.blockSize),
      cdw12: sources.length - 1
    }
    return Effect.asVoid(withData(bdev.bounce, { data }, (memory) => send(target, operation, fields, memory)))
  })

const refusedCopy = (
  target: NamespaceTarget,
  operation: string,
  sources: ReadonlyArray<ByteRange>,
  destinationOffsetBytes: number
): IoError | undefined => {
  const most = Math.min(maxRanges, target.limits.maxCopySources + 1)
  if (sources.length < 1 || sources.length > most) {
    return invalid(operation, "sources", `are not 1 to ${most}`, sources.length, target.bdev.name)
  }
  let total = 0
  for (const [i, { lengthBytes, offsetBytes }] of sources.entries()) {
    const refused = refusedBlocks(target, operation, offsetBytes, lengthBytes, "lengthBytes", `sources[${i}].`)
    if (refused !== undefined) return refused
    total += lengthBytes
  }
  const refused = refusedBlocks(target, operation, destinationOffsetBytes, total, "sources")
  return refused?.reason._tag === "InvalidArgument" && refused.reason.field === "offsetBytes"
    ? invalid(operation, "destinationOffsetBytes", refused.reason.rule, destinationOffsetBytes, target.bdev.name)
    : refused
}

/** `refusedRange` explains; whether there is something to explain is said here. */
const refusedBlocks = (
  { bdev }: NamespaceTarget,
  operation: string,
  offsetBytes: number,
  lengthBytes: number,
  lengthField: string,
  path = ""
): IoError | undefined => {
  const isRange =
    Number.isSafeInteger(offsetBytes) &&
    Number.isSafeInteger(lengthBytes) &&
    offsetBytes >= 0 &&
    lengthBytes > 0 &&
    offsetBytes % bdev.blockSize === 0 &&
    lengthBytes % bdev.blockSize === 0 &&
    offsetBytes + lengthBytes <= bdev.numBlocks * bdev.blockSize
  return isRange ? undefined : refusedRange(bdev, operation, offsetBytes, lengthBytes, lengthField, path)
}

const refusedLength = (target: NamespaceTarget, operation: string, lengthBytes: number): IoError | undefined => {
  const { bdev, maxTransferBytes } = target
  const most = Math.min(maxTransferBytes, maxBlocks * bdev.blockSize)
  return lengthBytes <= most
    ? undefined
    : invalid(operation, "buffer.byteLength", `is more than the ${most} bytes of one command`, lengthBytes, bdev.name)
}

const lbaWords = (block: number) => ({ cdw10: block % 2 ** 32, cdw11: Math.floor(block / 2 ** 32) })

// Every DmaBuffer is made by this package; what is none fails the check of `memory`.
const implOf = (buffer: DmaBuffer): DmaBufferImpl => buffer as DmaBufferImpl

/** By the channel of the fiber's thread, or the target's own. Holds the handle and the memory until the command has ended. */
const send = (
  target: NamespaceTarget,
  operation: string,
  fields: NamespaceCommand,
  data: DmaBuffer | undefined
): Effect.Effect<{ readonly dword0: number; readonly dword1: number }, IoError> =>
  Effect.suspend(() => {
    const { bdev, nsid, nvme } = target
    if (bdev.closing || bdev.removed) return Effect.fail(removedOrClosed(bdev, operation))
    const channel = channelOf(target)
    if (channel === undefined) return Effect.andThen(openFor(target, operation), send(target, operation, fields, data))
    return bdev.bounce.lease(sqeBytes, (command) => {
      encodeCommand({ ...fields, nsid }, command.bytes)
      const run = ioReasons(nvme.passthru(channel.engineThread, channel.handle, command, data))
      return Effect.flatMap(held(target, data, run), () => {
        const completion = command.bytes.slice(0, cqeBytes)
        return completionOf(completion.subarray(0, Cqe.status + 2), operation, bdev.name)
      })
    })
  })

const held = <A>(
  { bdev }: NamespaceTarget,
  data: DmaBuffer | undefined,
  run: Effect.Effect<A, IoError>
): Effect.Effect<A, IoError> =>
  Effect.uninterruptibleMask((restore) => {
    bdev.enter(1)
    return Effect.onExit(restore(pinned(data, run)), () => Effect.sync(() => bdev.leave(1)))
  })
