/**
 * Reads and writes of something that lies on a bdev at other offsets, a blob of the portable driver for one: one request of
 * the bdev, without an Effect of its own around it.
 *
 * Everything here runs on the JS thread.
 */
import { Opcode, type TransferOpcode } from "@effect-spdk/native/Layout"
import * as Effect from "effect/Effect"
import type { BdevIo } from "../../BdevIo.ts"
import type { DmaBuffer } from "../../DmaBuffer.ts"
import { BdevIoImpl } from "./bdevHandle.ts"
import { channelOf, type IoRoute, openFor, startTransfer } from "./io.ts"
import type { IoError } from "./ioCompletion.ts"
import type { DmaBufferImpl } from "../memory/ioMemory.ts"

/** What is asked per I/O. Neither function may throw. */
export interface IoMap {
  /**
   * Where on the bdev these bytes lie, side by side, and the request counts as in flight; or -1, and nothing has changed:
   * `otherwise` has to do it.
   */
  readonly enter: (offsetBytes: number, lengthBytes: number, writes: boolean) => number
  /** A request that entered has ended, and the device has let go of its memory. */
  readonly leave: () => void
}

export interface MappedIo {
  readonly read: (offsetBytes: number, buffer: DmaBuffer) => Effect.Effect<void, IoError>
  readonly write: (offsetBytes: number, buffer: DmaBuffer) => Effect.Effect<void, IoError>
}

/** `otherwise` does what the map knows no place for. */
export const mapped = (io: BdevIo, map: IoMap, otherwise: MappedIo): MappedIo => {
  const target = BdevIoImpl.targetOf(io)
  if (target === undefined) return mappedForeign(io, map, otherwise)
  const { read, write } = target.bdev.operations
  return {
    read: (offsetBytes, buffer) =>
      transferMapped(target, map, Opcode.Read, offsetBytes, buffer, read, () => otherwise.read(offsetBytes, buffer)),
    write: (offsetBytes, buffer) =>
      transferMapped(target, map, Opcode.Write, offsetBytes, buffer, write, () => otherwise.write(offsetBytes, buffer))
  }
}

/** Over something that somebody else has made of a bdev. */
const mappedForeign = (io: BdevIo, map: IoMap, otherwise: MappedIo): MappedIo => {
  const through =
    (kind: "read" | "write") =>
    (offsetBytes: number, buffer: DmaBuffer): Effect.Effect<void, IoError> =>
      Effect.suspend(() => {
        let entered = false
        return Effect.onExit(
          // Whether it has entered is known to both: a fiber can be interrupted before it does.
          Effect.suspend(() => {
            const at = map.enter(offsetBytes, buffer?.byteLength ?? 0, kind === "write")
            entered = at >= 0
            return entered ? io[kind](at, buffer) : otherwise[kind](offsetBytes, buffer)
          }),
          () => {
            if (entered) map.leave()
            return Effect.void
          }
        )
      })
  return { read: through("read"), write: through("write") }
}

const transferMapped = (
  target: IoRoute,
  map: IoMap,
  opcode: TransferOpcode,
  offsetBytes: number,
  buffer: DmaBuffer,
  operation: string,
  otherwise: () => Effect.Effect<void, IoError>
): Effect.Effect<void, IoError> =>
  Effect.callback((resume) => {
    // First, because what opens a channel would come back without having entered.
    if (channelOf(target) === undefined) {
      resume(
        Effect.andThen(
          openFor(target, operation),
          transferMapped(target, map, opcode, offsetBytes, buffer, operation, otherwise)
        )
      )
      return
    }
    // Callers without types do pass other things; what knows no place for them says so.
    const at = map.enter(offsetBytes, buffer?.byteLength ?? 0, opcode === Opcode.Write)
    if (at < 0) {
      resume(otherwise())
      return
    }
    // Every DmaBuffer is made by this package; what is none is refused.
    const completion = startTransfer(target, opcode, at, buffer as DmaBufferImpl, operation, resume, map)
    if (completion === undefined) map.leave()
    return completion
  })
