/**
 * JSON-RPC 2.0 as SPDK's server reads it: single requests, batches, notifications, and what it takes offence at.
 */
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import { invalidRequest, type RpcFault, type RpcTable } from "./table.ts"

type Id = string | number | null

type Response =
  | { readonly jsonrpc: "2.0"; readonly id: Id; readonly result: unknown }
  | { readonly jsonrpc: "2.0"; readonly id: Id; readonly error: { readonly code: number; readonly message: string } }

/** The text to answer with, undefined when a request wants no answer. `value` comes from JSON.parse. */
export const answer = (table: RpcTable, value: unknown): Effect.Effect<string | undefined> => {
  if (!Array.isArray(value)) return Effect.map(answerOne(table, value), (response) => response && encode(response))
  if (value.length === 0) return Effect.succeed(encode(faultOf(null, invalidRequest)))
  const responses: Array<Response> = []
  // In the order in which they finish.
  return Effect.as(
    Effect.forEach(
      value,
      (one: unknown) =>
        Effect.map(answerOne(table, one), (response) => {
          if (response !== undefined) responses.push(response)
        }),
      { concurrency: "unbounded", discard: true }
    ),
    responses
  ).pipe(Effect.map((all) => (all.length === 0 ? undefined : encode(all))))
}

const known = new Set(["jsonrpc", "method", "params", "id"])

const answerOne = (table: RpcTable, value: unknown): Effect.Effect<Response | undefined> => {
  if (!Predicate.isReadonlyObject(value) || Array.isArray(value)) return Effect.succeed(faultOf(null, invalidRequest))
  const { id, jsonrpc, method, params } = {
    id: undefined,
    jsonrpc: undefined,
    method: undefined,
    params: undefined,
    ...value
  }
  const isShaped =
    Object.keys(value).every((key) => known.has(key)) && (jsonrpc === undefined || jsonrpc === "2.0") && isId(id)
  if (!isShaped || typeof method !== "string") return Effect.succeed(faultOf(null, invalidRequest))
  const answered: Id = id ?? null
  if (params !== undefined && params !== null && typeof params !== "object") {
    return Effect.succeed(faultOf(answered, invalidRequest))
  }
  return Effect.match(table.call(method, params ?? undefined), {
    // A notification is answered only when it fails.
    onSuccess: (result) => (answered === null ? undefined : { jsonrpc: "2.0", id: answered, result }),
    onFailure: (fault) => faultOf(answered, fault)
  })
}

const isId = (id: unknown): id is Id | undefined =>
  id === undefined || id === null || typeof id === "string" || typeof id === "number"

const faultOf = (id: Id, { code, message }: RpcFault): Response => ({ jsonrpc: "2.0", id, error: { code, message } })

const encode = (response: Response | ReadonlyArray<Response>): string => `${JSON.stringify(response)}\n`
