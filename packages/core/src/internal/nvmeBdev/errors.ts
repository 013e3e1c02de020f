/**
 * What SPDK's answers about attached controllers mean: it has few numbers for them, and words only for some.
 */
import * as Effect from "effect/Effect"
import {
  AlreadyExists,
  fail,
  IoFailed,
  NotFound,
  PermissionDenied,
  type RpcReason,
  SpdkError
} from "../../SpdkError.ts"
import type { RpcClient } from "../../Rpc.ts"
import { refusalIn } from "../libspdk/connectFailure.ts"
import { gatherLog } from "../engine/serverLog.ts"
import { tryConnect } from "../rpc/tryConnect.ts"

type Failed = SpdkError<RpcReason>

/** "Controller Nvme0 does not exist" comes with EINVAL, and before SPDK 26.05 with that number without its sign. */
const isMissing = ({ reason }: Failed): boolean =>
  (reason._tag === "InvalidArgument" && /does not exist/.test(reason.detail ?? "")) ||
  (reason._tag === "RpcFailed" && /does not exist/.test(reason.rpcMessage))

export const missingIsNotFound = (name: string) => Effect.mapError((error: Failed) => missing(error, name))

const missing = (error: Failed, name: string): Failed =>
  isMissing(error)
    ? new SpdkError({ reason: new NotFound({ operation: error.reason.operation, resource: name }) })
    : error

/** The answer has no room for the names of all bdevs. */
export const isTooMany = (error: Failed): boolean => error.reason.errno === "ERANGE"

/** A path that the controller has already comes with EALREADY. */
export const takenIsAlreadyExists = (name: string) =>
  Effect.mapError((error: Failed): Failed =>
    error.reason._tag === "Busy" && error.reason.errno === "EALREADY"
      ? new SpdkError({
          reason: new AlreadyExists({
            operation: error.reason.operation,
            resource: name,
            detail: error.reason.detail,
            errno: error.reason.errno
          })
        })
      : error
  )

/** Where a controller was to be attached, as SPDK is told. */
interface Path {
  readonly trtype: string
  readonly traddr: string
  readonly trsvcid?: string | undefined
}

const showPath = ({ traddr, trsvcid }: Path): string => (trsvcid === undefined ? traddr : `${traddr}:${trsvcid}`)

/** What SPDK says to all of it. */
const wordless = "Input/output error"

/** What is known of the way to the target beyond SPDK's answer. The embedded engine has told it already. */
const lookAt = (rpcAddress: string, { traddr, trsvcid, trtype }: Path, words: string) =>
  // An SPDK that is reached by TCP is on another machine, whose ways are not ours.
  words === wordless && trtype === "TCP" && trsvcid !== undefined && !rpcAddress.startsWith("tcp:")
    ? tryConnect(traddr, Number(trsvcid))
    : Effect.succeed(undefined)

const listening = "something listens there, which has no such subsystem, does not let this host in, or broke off"

/**
 * A connection that does not come about is EIO to SPDK, whatever the reason: nobody listens, the subsystem is not there, the host
 * is not let in, a key is wrong. Whether somebody listens can be found out afterwards.
 */
export const notConnected =
  (name: string, rpc: RpcClient["Service"], path: Path) =>
  <A, R>(call: Effect.Effect<A, Failed, R>): Effect.Effect<A, Failed, R> =>
    Effect.suspend(() => {
      const log = gatherLog(rpc)
      return Effect.ensuring(
        Effect.catch(call, (error) => explainConnection(error, name, rpc.address, path, log.messages)),
        Effect.sync(log.stop)
      )
    })

const explainConnection = (
  error: Failed,
  name: string,
  rpcAddress: string,
  path: Path,
  messages: ReadonlyArray<string>
): Effect.Effect<never, Failed> => {
  const { reason } = error
  if (reason._tag !== "RpcFailed" || reason.errno === undefined) return Effect.fail(error)
  const { code: rpcCode, errno, errnoCode, operation, rpcMessage } = reason
  return Effect.flatMap(lookAt(rpcAddress, path, rpcMessage), (tried) => {
    // SPDK has logged it by the time that somebody else has been connected.
    const refusal = refusalIn(messages, { operation, resource: name })?.reason.detail
    const words = tried === undefined ? rpcMessage : (tried.error?.message ?? `${rpcMessage}; ${refusal ?? listening}`)
    const cause = tried?.error
    return fail<RpcReason>(
      new IoFailed({
        operation,
        resource: name,
        detail: `no connection to ${showPath(path)}: ${words}`,
        errno: cause?.code ?? errno,
        errnoCode: cause?.errno === undefined ? errnoCode : Math.abs(cause.errno),
        rpcCode
      })
    )
  })
}

/**
 * Path statistics that are not switched on come as EPERM with words, which elsewhere means the wrong state.
 */
export const disabledIsPermissionDenied = (name: string) =>
  Effect.catch((error: Failed) =>
    error.reason._tag === "RpcFailed" && error.reason.code === -1
      ? fail<RpcReason>(
          new PermissionDenied({
            operation: error.reason.operation,
            resource: name,
            detail: "path statistics are off: call bdev_nvme_set_options with io_path_stat before the first controller"
          })
        )
      : Effect.fail(error)
  )
