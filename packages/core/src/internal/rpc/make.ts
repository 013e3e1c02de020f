/** How a client of a server is made. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import type { RpcClient, RpcOptions } from "../../Rpc.ts"
import { failInvalid, type InvalidArgument, type SpdkError } from "../../SpdkError.ts"
import type { ClaimOf, HasWriter } from "./claimed.ts"
import { defaultLimits } from "./jsonFrames.ts"
import { type RpcAddress, RpcConnection } from "./connection.ts"
import { makeGuard } from "./guard.ts"

/** Linux has 108 bytes for the path of a socket, and one of them ends it. */
export const socketPathBytes = 107

export const makeRpc = Effect.fnUntraced(function* (
  options: RpcOptions & { readonly address: RpcAddress },
  claimOf?: ClaimOf,
  hasWriter?: HasWriter
): Effect.fn.Return<RpcClient["Service"], SpdkError<InvalidArgument>, Scope.Scope> {
  yield* checkAddress(options.address)
  const maxMessageBytes = options.maxMessageBytes ?? defaultLimits.maxMessageBytes
  if (!Number.isSafeInteger(maxMessageBytes) || maxMessageBytes < 2) {
    return yield* failInvalid("Rpc.make", "maxMessageBytes", "is not a positive integer", maxMessageBytes)
  }
  const timeout = Duration.fromInput(options.timeout ?? "60 seconds")
  if (Option.isNone(timeout)) return yield* failInvalid("Rpc.make", "timeout", "is not a duration", options.timeout)
  const connectionOptions = {
    address: options.address,
    timeout: timeout.value,
    reconnect: options.reconnect ?? defaultReconnect,
    maxMessageBytes
  }
  // A scope of its own: while the client's closes, what came after the client may still have to connect, to delete what it made.
  const { connection } = yield* Effect.acquireRelease(
    Effect.map(Scope.make(), (attempts) => ({ attempts, connection: new RpcConnection(connectionOptions, attempts) })),
    ({ attempts, connection: opened }) =>
      Effect.andThen(
        Effect.sync(() => opened.close()),
        Scope.close(attempts, Exit.void)
      )
  )
  const call: RpcClient["Service"]["call"] = (method, params, callOptions) =>
    connection.call(method, params, callOptions?.timeout)
  const guarded = makeGuard(claimOf, hasWriter)
  return {
    address: connection.address,
    call: (method, params, callOptions) => guarded(method, params, call, call(method, params, callOptions)),
    ...(claimOf === undefined ? {} : { claimOf })
  }
})

const defaultReconnect = Schedule.exponential("50 millis").pipe(Schedule.upTo({ times: 4 }))

const checkAddress = (address: RpcAddress): Effect.Effect<void, SpdkError<InvalidArgument>> => {
  if ("path" in address) {
    const lengthBytes = Buffer.byteLength(address.path)
    if (lengthBytes === 0) return failInvalid("Rpc.make", "path", "is empty", address.path)
    if (address.path.includes("\0")) return failInvalid("Rpc.make", "path", "contains a NUL", address.path)
    if (lengthBytes > socketPathBytes) {
      const rule = `has ${lengthBytes} bytes, and a socket's path has at most ${socketPathBytes}`
      return failInvalid("Rpc.make", "path", rule, address.path)
    }
    return Effect.void
  }
  if (address.host.trim() === "") return failInvalid("Rpc.make", "host", "is empty", address.host)
  if (!Number.isInteger(address.port) || address.port < 1 || address.port > 65_535) {
    return failInvalid("Rpc.make", "port", "is not an integer from 1 to 65535", address.port)
  }
  return Effect.void
}
