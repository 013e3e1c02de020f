/**
 * The RPC client of the engine itself: the method table without a socket. Parameters and results cross as JSON text,
 * so that a program finds the same here as with a server.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as Schema from "effect/Schema"
import type { RpcCallOptions, RpcClient, RpcParams } from "../../../Rpc.ts"
import { fail, fromRpcCode, MethodNotFound, type RpcReason, SpdkError, TimedOut } from "../../../SpdkError.ts"
import { resourceOf } from "../../rpc/connection.ts"
import type { ClaimOf } from "../../rpc/claimed.ts"
import { makeGuard } from "../../rpc/guard.ts"
import { currentLimits, encodeParams, exceeds } from "../../rpc/connectionMessages.ts"
import { methodNotFound, type RpcFault, type RpcTable } from "./table.ts"

export const address = "embedded"

const defaultTimeout = Duration.seconds(60)

export const makeClient = (table: RpcTable, claimOf: ClaimOf): RpcClient["Service"] => {
  const guarded = makeGuard(claimOf)
  const ask: RpcClient["Service"]["call"] = (method, params, options) => call(table, method, params, options)
  return {
    address,
    claimOf,
    call: (method, params, options) =>
      guarded(method, params, (asked, askedParams) => ask(asked, askedParams, options), ask(method, params, options))
  }
}

/** "This SPDK" would be the wrong one to blame for a method that only this engine lacks. */
const faultError = (fault: RpcFault, method: string, resource: string | undefined): SpdkError<RpcReason> =>
  fault.code === methodNotFound.code
    ? new SpdkError({
        reason: new MethodNotFound({
          operation: method,
          resource,
          rpcCode: fault.code,
          method,
          detail: `the embedded engine has no method "${method}"`
        })
      })
    : fromRpcCode(method, fault.code, fault.message, undefined, resource)

const call = (
  table: RpcTable,
  method: string,
  params: RpcParams,
  options: RpcCallOptions | undefined
): Effect.Effect<Schema.Json, SpdkError<RpcReason>> =>
  Effect.suspend(() => {
    const resource = resourceOf(params)
    const limit = options?.timeout === undefined ? defaultTimeout : Duration.fromInputUnsafe(options.timeout)
    const encoded = Effect.flatMap(Effect.fromResult(encodeParams(method, params)), (params) => {
      // What this engine's socket takes, and libspdk.
      const error = exceeds(method, params, currentLimits)
      return error === undefined ? Effect.succeed(params) : Effect.fail(error)
    })
    const answered = encoded.pipe(
      Effect.flatMap(({ text }) =>
        table
          .call(method, text === undefined ? undefined : JSON.parse(text))
          .pipe(Effect.mapError((fault) => faultError(fault, method, resource)))
      ),
      // Nobody gets at the engine's own objects. What came from JSON.stringify is Json.
      Effect.map((result) => JSON.parse(JSON.stringify(result)) as Schema.Json)
    )
    const timedOut = () =>
      fail(new TimedOut({ operation: method, resource, limitMillis: Duration.toMillis(limit), detail: address }))
    return Effect.flatMap(Effect.forkChild(answered, { startImmediately: true }), (fiber) => {
      // Most methods have answered by now, and need no clock.
      const exit = fiber.pollUnsafe()
      if (exit !== undefined) return exit
      const joined = Effect.onInterrupt(Fiber.join(fiber), () => Fiber.interrupt(fiber))
      return Duration.isFinite(limit) ? Effect.timeoutOrElse(joined, { duration: limit, orElse: timedOut }) : joined
    })
  })
