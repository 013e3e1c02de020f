/**
 * From nothing to a queue that takes commands: the TCP connection, ICReq and ICResp, and the Connect command of fabrics.
 */
import * as Effect from "effect/Effect"
import { fromErrno, NotSupported, SpdkError } from "../../../SpdkError.ts"
import { connectRefusal } from "../../nvme/connectRefusal.ts"
import { connectAuthentication, encodeConnect, encodeConnectData } from "../../nvme/wire/fabrics.ts"
import { isDnr, scOf, sctOf, Status } from "../../nvme/wire/nvmeStatus.ts"
import { EIO, errnoOf } from "../queue/status.ts"
import type { HostController } from "./controller.ts"
import type { HostCommand } from "./hostCommand.ts"
import { limited, lost } from "./hostErrors.ts"
import type { ConnectionFailure, QueuePair } from "./queuePair.ts"

export interface QueueParameters {
  readonly inCapsuleBytes: number
  readonly controllerId: number
  /** Entries. */
  readonly queueSize: number
}

/** The completion's dword 0. The queue is `opening` after it: `start` lets commands pass. */
export const connectQueue = (
  controller: HostController,
  queue: QueuePair,
  operation: string,
  parameters: QueueParameters
): Effect.Effect<{ readonly dword0: number }, SpdkError> => {
  const { resource } = controller
  const { connectTimeoutMillis } = controller.settings
  const connect = Effect.andThen(
    open(controller, queue, operation, parameters.inCapsuleBytes),
    sendConnect(controller, queue, operation, parameters)
  )
  return Effect.onExit(limited(operation, resource, connectTimeoutMillis, connect), (exit) =>
    Effect.sync(() => {
      if (exit._tag === "Failure" && queue.state === "opening") queue.close("down")
    })
  )
}

const open = (
  controller: HostController,
  queue: QueuePair,
  operation: string,
  inCapsuleBytes: number
): Effect.Effect<void, SpdkError> =>
  Effect.callback((resume) => {
    const { address, resource, settings } = controller
    const { dataDigest, headerDigest } = settings
    queue.open({ address, headerDigest, dataDigest, inCapsuleBytes }, (failure) =>
      resume(failure === undefined ? Effect.void : Effect.fail(errorOf(operation, resource, failure)))
    )
  })

const errorOf = (operation: string, resource: string, { error, message }: ConnectionFailure): SpdkError => {
  const errno = error === undefined ? EIO : errnoOf(error)
  return errno === EIO
    ? lost(operation, resource, message)
    : fromErrno(-errno, { operation, resource, detail: message })
}

const sendConnect = (
  { resource, settings, transportId }: HostController,
  queue: QueuePair,
  operation: string,
  { controllerId, queueSize }: QueueParameters
): Effect.Effect<{ readonly dword0: number }, SpdkError> =>
  Effect.callback((resume) => {
    const data = encodeConnectData({
      hostId: settings.hostId,
      controllerId,
      subsystemNqn: transportId.subnqn,
      hostNqn: settings.hostnqn
    })
    const command = queue.take({
      commandDone: (ended) => {
        const answered = answer(ended, operation, resource)
        queue.give(ended)
        resume(answered)
      }
    })
    command.sqe.set(
      encodeConnect({
        recordFormat: 0,
        queueId: queue.id,
        queueSize: queueSize - 1,
        attributes: 0,
        keepAliveMillis: queue.id === 0 ? settings.keepAliveMillis : 0
      })
    )
    command.plain = data
    command.lengthBytes = data.length
    queue.sendFirst(command)
  })

const answer = (
  { dword0, status }: HostCommand,
  operation: string,
  resource: string
): Effect.Effect<{ readonly dword0: number }, SpdkError> => {
  if (status === 0) {
    if (connectAuthentication(dword0) === 0) return Effect.succeed({ dword0 })
    const detail = "the target asks for authentication, which the embedded engine does not have"
    return Effect.fail(new SpdkError({ reason: new NotSupported({ operation, resource, detail }) }))
  }
  const nvme = { sct: sctOf(status), sc: scOf(status), dnr: isDnr(status) }
  if (Status.AbortedSqDeletion === (status & 0x7ff)) {
    return Effect.fail(lost(operation, resource, "the connection was lost"))
  }
  return Effect.fail(connectRefusal(nvme, { operation, resource }))
}
