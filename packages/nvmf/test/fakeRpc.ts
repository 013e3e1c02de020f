/** Stands for an SPDK: answers by method, and remembers what it was asked. */
import * as Rpc from "@effect-spdk/core/Rpc"
import { fromRpcCode, type RpcReason, type SpdkError } from "@effect-spdk/core/SpdkError"
import * as Effect from "effect/Effect"
import type * as Schema from "effect/Schema"

export type Answer = (params: Record<string, unknown>) => Schema.Json | SpdkError<RpcReason>

export const refusal = (method: string, code: number, message: string): SpdkError<RpcReason> =>
  fromRpcCode(method, code, message)

export const fakeRpc = (answers: Readonly<Record<string, Answer>>) => {
  const calls: Array<string> = []
  const client = Rpc.RpcClient.of({
    address: "tcp:192.0.2.1:1",
    call: (method, params = {}) =>
      Effect.suspend(() => {
        calls.push(method)
        const answer = answers[method]
        const result = answer === undefined ? refusal(method, -32601, "Method not found") : answer(params)
        return typeof result === "object" && result !== null && "reason" in result && result instanceof Error
          ? Effect.fail(result)
          : Effect.succeed(result as Schema.Json)
      })
  })
  return { calls, client }
}
