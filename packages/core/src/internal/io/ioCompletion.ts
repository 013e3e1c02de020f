/**
 * What waits for one request. One object per I/O: it is the `Completion` that the queue calls, and the Effect that
 * `Effect.callback` runs, and awaits, when the fiber is interrupted.
 *
 * Everything here runs on the JS thread.
 */
import { type Completion, noRequest, type RequestId } from "@effect-spdk/native/Queue"
import * as Effect from "effect/Effect"
import * as Effectable from "effect/Effectable"
import * as Exit from "effect/Exit"
import { DeviceRemoved, fromCompletion, type IoReason, SpdkError } from "../../SpdkError.ts"
import type { Channel } from "./channels.ts"
import { type Memory, unpin } from "../memory/ioMemory.ts"
import type { IoMap } from "./mappedIo.ts"
import type { OpenTarget } from "./openTarget.ts"

export type IoError = SpdkError<IoReason>

export type Resume = (exit: Effect.Effect<void, IoError>) => void

export class IoCompletion extends Effectable.Class<void> implements Completion {
  private resume: Resume
  private readonly channel: Channel
  private readonly memory: Memory
  private readonly operation: string
  /** `noRequest` once the device has let go. */
  id: RequestId

  constructor(resume: Resume, channel: Channel, memory: Memory, operation: string) {
    super()
    this.resume = resume
    this.channel = channel
    this.memory = memory
    this.operation = operation
    this.id = 0
  }

  complete(_index: number, status: number, detail: number, nvme: number): void {
    const bdev = this.channel.bdev
    this.id = noRequest
    unpin(this.memory)
    bdev.leave(1)
    this.resume(status === 0 ? Exit.void : Exit.fail(ioError(bdev, this.operation, status, detail, nvme)))
  }

  /** The interruption: asks for an abort, and holds the fiber until the device has let go of the memory. */
  asEffect(): Effect.Effect<void> {
    return Effect.callback<void>((resume) => {
      // Looked at here: the fiber may yield before, and the device let go meanwhile.
      if (this.id === noRequest) return resume(Effect.void)
      // How it ends does not matter any more.
      this.resume = () => resume(Effect.void)
      this.channel.queue.abort(this.id)
    })
  }
}

/** Of a request that went through a map. */
export class MappedCompletion extends IoCompletion {
  private readonly map: IoMap

  constructor(resume: Resume, channel: Channel, memory: Memory, operation: string, map: IoMap) {
    super(resume, channel, memory, operation)
    this.map = map
  }

  override complete(index: number, status: number, detail: number, nvme: number): void {
    this.map.leave()
    super.complete(index, status, detail, nvme)
  }
}

/** A device that is gone fails what was in flight with whatever status it finds; the removal says more. */
export const ioError = (
  bdev: OpenTarget,
  operation: string,
  status: number,
  detail: number,
  nvme: number,
  note?: string
): IoError => {
  const error = fromCompletion(status, detail, nvme, { operation, resource: bdev.name, detail: note })
  if (!bdev.removed || error.reason._tag === "DeviceRemoved") return error
  const { errno, errnoCode } = error.reason
  return new SpdkError({
    reason: new DeviceRemoved({
      operation,
      resource: bdev.name,
      detail: note,
      errno,
      errnoCode,
      nvme: error.reason.nvme
    })
  })
}
