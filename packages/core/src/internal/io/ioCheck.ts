/**
 * Why a request is refused before it is submitted. The I/O path finds out that something is wrong with a few number
 * comparisons; the functions here run only then, and say what.
 */
import type { Opcode } from "@effect-spdk/native/Layout"
import { Segment } from "@effect-spdk/native/Layout"
import { DeviceRemoved, invalid, NotSupported, ReadOnly, Released, SpdkError } from "../../SpdkError.ts"
import type { IoError } from "./ioCompletion.ts"
import type { DmaBufferImpl } from "../memory/ioMemory.ts"
import type { OpenTarget } from "./openTarget.ts"

/** `opcode` is not among the allowed ones of the bdev. */
export const refusedOpcode = (bdev: OpenTarget, opcode: Opcode, operation: string): IoError => {
  const context = { operation, resource: bdev.name }
  if (bdev.closing || bdev.removed) return removedOrClosed(bdev, operation)
  if ((bdev.supported & (1 << opcode)) === 0) return new SpdkError({ reason: new NotSupported(context) })
  return new SpdkError({ reason: new ReadOnly(context) })
}

/** A range that is not whole blocks inside the bdev. `path` goes before the field's name, `entries[3].`. */
export const refusedRange = (
  bdev: OpenTarget,
  operation: string,
  offsetBytes: number,
  lengthBytes: number,
  lengthField: string,
  path = ""
): IoError => {
  const offsetRule = wholeBlocksRule(bdev.blockSize, offsetBytes)
  if (offsetRule !== undefined) return invalid(operation, `${path}offsetBytes`, offsetRule, offsetBytes, bdev.name)
  const lengthRule =
    lengthBytes === 0 ? "is 0, and an I/O moves at least one block" : wholeBlocksRule(bdev.blockSize, lengthBytes)
  if (lengthRule !== undefined) return invalid(operation, `${path}${lengthField}`, lengthRule, lengthBytes, bdev.name)
  const sizeBytes = bdev.numBlocks * bdev.blockSize
  if (offsetBytes >= sizeBytes) {
    return invalid(
      operation,
      `${path}offsetBytes`,
      `lies past the end of the ${bdev.kind.noun} at ${sizeBytes}`,
      offsetBytes,
      bdev.name
    )
  }
  const rule = `runs past the end of the ${bdev.kind.noun} at ${sizeBytes} when it starts at ${offsetBytes}`
  return invalid(operation, `${path}${lengthField}`, rule, lengthBytes, bdev.name)
}

const wholeBlocksRule = (blockSize: number, bytes: number): string | undefined => {
  if (!Number.isSafeInteger(bytes)) return "is not a safe integer"
  if (bytes < 0) return "is negative"
  return bytes % blockSize === 0 ? undefined : `is not a multiple of the block size ${blockSize}`
}

/** A buffer that cannot be used for I/O with the bdev; undefined when it can. */
export const refusedBuffer = (
  bdev: OpenTarget,
  operation: string,
  buffer: DmaBufferImpl,
  path = "buffer"
): IoError | undefined => {
  // Callers without types do pass other things.
  if (buffer?.memory === undefined) {
    return invalid(
      operation,
      path,
      "is not a DmaBuffer; readBytes and writeBytes take plain memory",
      undefined,
      bdev.name
    )
  }
  if (buffer.memory.released) {
    return new SpdkError({ reason: new Released({ operation, resource: bdev.name, what: "buffer" }) })
  }
  if (buffer.alignment < bdev.bufferAlignment) {
    const rule = `is aligned to ${buffer.alignment} bytes, and the ${bdev.kind.noun} requires ${bdev.bufferAlignment}`
    return invalid(operation, path, rule, undefined, bdev.name)
  }
  return undefined
}

export const refusedBuffers = (
  bdev: OpenTarget,
  operation: string,
  buffers: ReadonlyArray<DmaBufferImpl>
): IoError | undefined => {
  if (!Array.isArray(buffers)) {
    return invalid(operation, "buffers", "is not an array of DmaBuffers", undefined, bdev.name)
  }
  if (buffers.length === 0) return invalid(operation, "buffers", "is empty", undefined, bdev.name)
  if (buffers.length > Segment.max) {
    return invalid(operation, "buffers", `has more than ${Segment.max} elements`, buffers.length, bdev.name)
  }
  for (let i = 0; i < buffers.length; i++) {
    const buffer: DmaBufferImpl | undefined = buffers[i]
    if (buffer === undefined) return invalid(operation, `buffers[${i}]`, "is missing", undefined, bdev.name)
    const refused =
      refusedBuffer(bdev, operation, buffer, `buffers[${i}]`) ??
      (buffer.lengthBytes === 0 || buffer.lengthBytes % bdev.blockSize !== 0
        ? refusedRange(bdev, operation, 0, buffer.lengthBytes, `buffers[${i}].byteLength`)
        : undefined)
    if (refused !== undefined) return refused
  }
  return undefined
}

/** Why nothing is allowed any more. */
export const removedOrClosed = (bdev: OpenTarget, operation: string): SpdkError<DeviceRemoved | Released> =>
  new SpdkError({
    reason: bdev.closing
      ? new Released({ operation, resource: bdev.name, what: "handle" })
      : new DeviceRemoved({ operation, resource: bdev.name })
  })
