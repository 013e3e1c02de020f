/**
 * Commands of the admin queue, with memory for what they carry.
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type { PassthruCommand, PassthruResult } from "../../NvmeController.ts"
import type { DmaBuffer } from "../../DmaBuffer.ts"
import { Corrupted, DeviceRemoved, type IoReason, released, SpdkError } from "../../SpdkError.ts"
import { type BouncePool, maxBounceBytes } from "../memory/bouncePool.ts"
import type { EngineNvme, NvmeControllerHandle } from "../engine/nvme.ts"
import type { IoError } from "../io/ioCompletion.ts"
import { type DmaBufferImpl, unpin } from "../memory/ioMemory.ts"
import { onlyReasons } from "../common/reasons.ts"
import { completionOf, encodeCommand } from "./passthruCommand.ts"
import type { Malformed } from "./wire/struct.ts"

/** All of `IoReason`. */
export const ioReasons = onlyReasons([
  "Aborted",
  "AlreadyExists",
  "Busy",
  "DeviceRemoved",
  "InvalidArgument",
  "IoFailed",
  "Miscompare",
  "NoMemory",
  "NoSpace",
  "NotFound",
  "NotSupported",
  "PermissionDenied",
  "ReadOnly",
  "Released",
  "TimedOut"
])

export const noData = new Uint8Array(0)

/** What a controller sent, decoded, or `Corrupted`. */
export const decodedOr = <A>(
  operation: string,
  resource: string,
  result: Result.Result<A, Malformed>
): Effect.Effect<A, SpdkError<Corrupted>> =>
  Result.match(result, {
    onSuccess: (value) => Effect.succeed(value),
    onFailure: ({ rule, where }) =>
      Effect.fail(new SpdkError({ reason: new Corrupted({ operation, resource, where, rule }) }))
  })

/** Runs `use` with memory that holds what is to be sent, and answers with what is there afterwards. */
export const withData = <A>(
  bounce: BouncePool,
  command: Pick<PassthruCommand, "data" | "lengthBytes" | "buffer">,
  use: (data: DmaBuffer | undefined) => Effect.Effect<A, IoError>
): Effect.Effect<A & { readonly data: Uint8Array }, IoError> => {
  const { buffer, data, lengthBytes } = command
  if (buffer !== undefined || (data === undefined && lengthBytes === undefined)) {
    return Effect.map(use(buffer), (answer) => ({ ...answer, data: noData }))
  }
  return bounce.lease(Math.max(data?.length ?? 0, lengthBytes ?? 0), (memory) => {
    memory.bytes.fill(0)
    if (data !== undefined) memory.bytes.set(data)
    return Effect.map(use(memory), (answer) => ({
      ...answer,
      data: lengthBytes === undefined ? noData : memory.bytes.slice(0, lengthBytes)
    }))
  })
}

/** Holds the memory until `run` has ended, so that a release waits for it. */
export const pinned = <A, E>(data: DmaBuffer | undefined, run: Effect.Effect<A, E>): Effect.Effect<A, E> => {
  if (data === undefined) return run
  return Effect.uninterruptibleMask((restore) => {
    // Every DmaBuffer is made by this package.
    const { memory } = data as DmaBufferImpl
    memory.pins++
    return Effect.onExit(restore(run), () => Effect.sync(() => unpin(memory)))
  })
}

export class AdminQueue {
  readonly nvme: EngineNvme
  readonly handle: NvmeControllerHandle
  readonly bounce: BouncePool
  /** The transport id, for errors. */
  readonly resource: string
  /** Why nothing is sent any more. */
  gone: "removed" | "released" | undefined

  constructor(nvme: EngineNvme, handle: NvmeControllerHandle, bounce: BouncePool, resource: string) {
    this.nvme = nvme
    this.handle = handle
    this.bounce = bounce
    this.resource = resource
    this.gone = undefined
  }

  /** Of data that is copied. */
  get maxDataBytes(): number {
    return Math.min(this.handle.maxTransferBytes, maxBounceBytes)
  }

  run(operation: string, command: PassthruCommand): Effect.Effect<PassthruResult, SpdkError<IoReason>> {
    return Effect.suspend(() => {
      const refused = this.refused(operation)
      if (refused !== undefined) return Effect.fail(refused)
      const send = (data: DmaBuffer | undefined) =>
        Effect.flatMap(
          pinned(data, ioReasons(this.nvme.admin(this.handle, encodeCommand(command), data))),
          (completion) => completionOf(completion, operation, this.resource)
        )
      return withData(this.bounce, command, send)
    })
  }

  refused(operation: string): IoError | undefined {
    if (this.gone === undefined) return undefined
    const { resource } = this
    return this.gone === "released"
      ? released(operation, "controller", resource)
      : new SpdkError({ reason: new DeviceRemoved({ operation, resource }) })
  }
}
