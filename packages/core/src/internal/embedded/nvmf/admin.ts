/**
 * The commands of the admin queue, but those of fabrics. What they tell is in adminIdentify.ts, adminLogPages.ts and adminFeatures.ts.
 */
import { getU16, getU32 } from "../../nvme/wire/bytes.ts"
import { AdminOpcode, fuseOf, nsidOf, Sqe } from "../../nvme/wire/command.ts"
import { identifyBytes } from "../../nvme/wire/identify.ts"
import { dnr, Status } from "../../nvme/wire/nvmeStatus.ts"
import type { AdminAnswer } from "./adminAnswer.ts"
import { getFeatures, setFeatures } from "./adminFeatures.ts"
import { identify } from "./adminIdentify.ts"
import { getLogPage } from "./adminLogPages.ts"
import type { Controller } from "./controller.ts"

const invalidField = Status.InvalidField | dnr

const discoveryOpcodes: ReadonlySet<number> = new Set([
  AdminOpcode.Identify,
  AdminOpcode.GetLogPage,
  AdminOpcode.KeepAlive,
  AdminOpcode.SetFeatures,
  AdminOpcode.GetFeatures,
  AdminOpcode.AsyncEventRequest
])

/** `data` is what the command brought; `sqe` has 64 bytes, `roomBytes` what the host has room for. */
export const adminCommand = (
  controller: Controller,
  sqe: Uint8Array,
  data: Uint8Array,
  roomBytes: number
): AdminAnswer => {
  const opcode = sqe[Sqe.opcode] ?? 0
  const isOfController =
    opcode === AdminOpcode.Abort || opcode === AdminOpcode.AsyncEventRequest || opcode === AdminOpcode.KeepAlive
  if (fuseOf(sqe, 0) !== 0 || (isOfController && nsidOf(sqe, 0) !== 0)) return invalidField
  if (!controller.isEnabled) return Status.CommandSequenceError | dnr
  if (controller.subsystem.options.isDiscovery && !discoveryOpcodes.has(opcode)) return Status.InvalidOpcode | dnr
  switch (opcode) {
    case AdminOpcode.Identify:
      return roomBytes < identifyBytes ? invalidField : identify(controller, sqe)
    case AdminOpcode.GetLogPage:
      return getLogPage(controller, sqe, roomBytes)
    case AdminOpcode.GetFeatures:
      return getFeatures(controller, sqe, roomBytes)
    case AdminOpcode.SetFeatures:
      return setFeatures(controller, sqe, data)
    case AdminOpcode.KeepAlive:
      controller.keptAlive()
      return Status.Success
    case AdminOpcode.AsyncEventRequest:
      return controller.requestAsyncEvent(getU16(sqe, Sqe.commandId))
    case AdminOpcode.Abort:
      return abort(controller, getU32(sqe, Sqe.cdw10))
    default:
      return Status.InvalidOpcode | dnr
  }
}

const abort = (controller: Controller, dword10: number): AdminAnswer => {
  const queueId = dword10 & 0xffff
  const commandId = dword10 >>> 16
  const queue = queueId === 0 ? controller.admin : controller.ioQueues.get(queueId)
  const isAborted =
    queue !== undefined && ((queueId === 0 && controller.abortAsyncEvent(commandId)) || queue.abortCommand(commandId))
  return { dword0: isAborted ? 0 : 1 }
}
