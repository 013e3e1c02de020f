/**
 * What SPDK's answers about attached controllers mean: it has few numbers for them, and words only for some.
 */
import * as Effect from "effect/Effect"
import { AlreadyExists, fail, IoFailed, NotFound, PermissionDenied, type RpcReason, SpdkError } from "../SpdkError.ts"

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

/**
 * A connection that does not come about is EIO to SPDK, whatever the reason: nobody listens, the subsystem is not there, the host
 * is not let in, a key is wrong.
 */
export const notConnected = (name: string, address: string) =>
  Effect.mapError((error: Failed): Failed =>
    error.reason._tag === "RpcFailed" && error.reason.errno !== undefined
      ? new SpdkError({
          reason: new IoFailed({
            operation: error.reason.operation,
            resource: name,
            detail: `no connection to ${address}: ${error.reason.rpcMessage}`,
            errno: error.reason.errno,
            errnoCode: error.reason.errnoCode,
            rpcCode: error.reason.code
          })
        })
      : error
  )

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
