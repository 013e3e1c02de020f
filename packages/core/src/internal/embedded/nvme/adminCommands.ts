/**
 * Commands of the admin queue as Effects, for the host's own use and for its users.
 */
import * as Effect from "effect/Effect"
import { fromNvme, type SpdkError } from "../../../SpdkError.ts"
import { setU32 } from "../../nvme/wire/bytes.ts"
import { AdminOpcode, Sqe } from "../../nvme/wire/command.ts"
import { encodePropertyGet, encodePropertySet, Property } from "../../nvme/wire/fabrics.ts"
import { identifyBytes } from "../../nvme/wire/identify.ts"
import { isDnr, scOf, sctOf, Status } from "../../nvme/wire/nvmeStatus.ts"
import { Deadline } from "../runtime/deadline.ts"
import type { Timers } from "../runtime/timers.ts"
import type { HostCommand } from "./hostCommand.ts"
import { limited, lost } from "./hostErrors.ts"
import type { QueuePair } from "./queuePair.ts"

export interface AdminCompletion {
  readonly dword0: number
  readonly dword1: number
  readonly status: number
}

/** For commands of the host's own when those of its users have no limit: as SPDK's initialisation has it. */
const ownTimeoutMillis = 30_000

export interface AdminCommandsOptions {
  readonly timers: Timers
  /** Of errors. */
  readonly resource: string
  /** 0: no limit. */
  readonly timeoutMillis: number
  /** A command was not answered in time. It is still on its way. */
  readonly onTimeout: () => void
}

export class AdminCommands {
  readonly queue: QueuePair
  private readonly options: AdminCommandsOptions

  constructor(queue: QueuePair, options: AdminCommandsOptions) {
    this.queue = queue
    this.options = options
  }

  /** `done` runs once, with the completion in the command, which is given back after it. */
  await(fill: (sqe: Uint8Array) => void, done: (command: HostCommand) => void): HostCommand {
    const command = this.queue.take({
      commandDone: (ended) => {
        try {
          done(ended)
        } finally {
          this.queue.give(ended)
        }
      }
    })
    fill(command.sqe)
    this.queue.submit(command)
    return command
  }

  /** Nobody waits for it, but an answer has to come. */
  fire(fill: (sqe: Uint8Array) => void): void {
    const deadline = this.startDeadline()
    this.await(fill, () => deadline?.cancel())
  }

  private startDeadline(): Deadline | undefined {
    const { onTimeout, timeoutMillis, timers } = this.options
    return timeoutMillis > 0 ? new Deadline(timers, timeoutMillis * 1000, onTimeout) : undefined
  }

  /**
   * Sends the command as it is. `prepare` gives it its data. With `onInterrupt` an interruption waits for the completion after
   * that has been called, otherwise it leaves the command to itself.
   */
  run(
    sqe: Uint8Array,
    prepare: (command: HostCommand) => void,
    options: { readonly first?: boolean; readonly onInterrupt?: (command: HostCommand) => void } = {}
  ): Effect.Effect<AdminCompletion> {
    return Effect.callback<AdminCompletion>((resume) => {
      const deadline = this.startDeadline()
      let isDone = false
      let whenDone: (() => void) | undefined
      const command = this.queue.take({
        commandDone: (ended) => {
          isDone = true
          deadline?.cancel()
          const { dword0, dword1, status } = ended
          this.queue.give(ended)
          resume(Effect.succeed({ dword0, dword1, status }))
          whenDone?.()
        }
      })
      command.sqe.set(sqe)
      prepare(command)
      if (options.first === true) this.queue.sendFirst(command)
      else this.queue.submit(command)
      return Effect.callback<void>((letGo) => {
        if (isDone || options.onInterrupt === undefined) return letGo(Effect.void)
        whenDone = () => letGo(Effect.void)
        options.onInterrupt(command)
      })
    })
  }

  /** One of the host's own, whose failure is an error, and which always ends. */
  command(operation: string, sqe: Uint8Array, data?: Uint8Array): Effect.Effect<AdminCompletion, SpdkError> {
    const { resource } = this.options
    const run = this.run(sqe, (command) => {
      command.plain = data
      command.lengthBytes = data?.length ?? 0
    })
    return limited(
      operation,
      resource,
      this.options.timeoutMillis || ownTimeoutMillis,
      Effect.flatMap(run, (answer) => checked(operation, resource, answer))
    )
  }

  identify(operation: string, cns: number, nsid: number): Effect.Effect<Uint8Array, SpdkError> {
    const data = new Uint8Array(identifyBytes)
    const sqe = commandOf(AdminOpcode.Identify, nsid, cns)
    return Effect.as(this.command(operation, sqe, data), data)
  }

  getLogPage(operation: string, id: number, lengthBytes: number, offset = 0): Effect.Effect<Uint8Array, SpdkError> {
    const data = new Uint8Array(lengthBytes)
    const dwords = lengthBytes / 4 - 1
    const sqe = commandOf(AdminOpcode.GetLogPage, 0, (id & 0xff) + (dwords & 0xffff) * 0x1_0000)
    setU32(sqe, Sqe.cdw11, dwords >>> 16)
    setU32(sqe, Sqe.cdw12, offset)
    return Effect.as(this.command(operation, sqe, data), data)
  }

  setFeature(operation: string, id: number, value: number): Effect.Effect<AdminCompletion, SpdkError> {
    const sqe = commandOf(AdminOpcode.SetFeatures, 0, id)
    setU32(sqe, Sqe.cdw11, value)
    return this.command(operation, sqe)
  }

  getProperty(operation: string, offset: number, is64 = false): Effect.Effect<bigint, SpdkError> {
    return Effect.map(this.command(operation, encodePropertyGet(offset, is64)), ({ dword0, dword1 }) =>
      is64 ? BigInt(dword0) | (BigInt(dword1) << 32n) : BigInt(dword0)
    )
  }

  getCsts(operation: string): Effect.Effect<number, SpdkError> {
    return Effect.map(this.getProperty(operation, Property.Csts), Number)
  }

  setCc(operation: string, value: number): Effect.Effect<void, SpdkError> {
    return Effect.asVoid(this.command(operation, encodePropertySet(Property.Cc, BigInt(value >>> 0), false)))
  }
}

export const commandOf = (opcode: number, nsid: number, cdw10: number): Uint8Array => {
  const sqe = new Uint8Array(64)
  sqe[Sqe.opcode] = opcode
  setU32(sqe, Sqe.nsid, nsid)
  setU32(sqe, Sqe.cdw10, cdw10)
  return sqe
}

/** The answer of a command that must not fail. A queue that was closed under it says so by this status. */
export const checked = (
  operation: string,
  resource: string,
  answer: AdminCompletion
): Effect.Effect<AdminCompletion, SpdkError> => {
  const { status } = answer
  if (status === 0) return Effect.succeed(answer)
  if (status === Status.AbortedSqDeletion) {
    return Effect.fail(lost(operation, resource, "the connection was lost"))
  }
  return Effect.fail(fromNvme(sctOf(status), scOf(status), isDnr(status), { operation, resource }))
}
