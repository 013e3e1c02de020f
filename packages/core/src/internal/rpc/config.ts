/**
 * Loads SPDK's JSON configuration, `{ subsystems: [{ subsystem, config: [{ method, params }] }] }`, into a running
 * SPDK as `rpc.py load_config` does: first the calls that are allowed before the framework starts, then the start,
 * then the others.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import type { RpcClient } from "../../Rpc.ts"
import { ConfigRejected, fail, type RpcReason, type SpdkError } from "../../SpdkError.ts"
import { SpdkConfig } from "../../SpdkOptions.ts"
import { deleteNewBdevs, listBdevs } from "./configRollback.ts"
import { invalidFromIssue, protocolFromIssue } from "./schemaIssue.ts"

interface IndexedCall {
  readonly method: string
  readonly params: { readonly [name: string]: Schema.Json } | undefined
  /** Position among the calls of all subsystems, batches flattened. */
  readonly index: number
}

type ConfigError = SpdkError<RpcReason | ConfigRejected>

/**
 * Calls what the configuration says, in its order. When SPDK refuses a call, the bdevs that the earlier calls made
 * are deleted again as far as SPDK can, and the error is ConfigRejected with the refusal as its cause. Nothing is
 * called when a method is unknown, or belongs before a start that has happened already.
 */
export const applyConfig = Effect.fn("Spdk.applyConfig")(function* (
  rpc: RpcClient["Service"],
  config: unknown
): Effect.fn.Return<void, ConfigError> {
  const calls = yield* flatten(config)
  yield* checkKnown(calls, yield* methods(rpc, {}))
  const allowed = yield* methods(rpc, { current: true })
  const isStartup = allowed.has("framework_start_init")
  if (!isStartup) yield* checkInTime(calls, allowed)
  const before = allowed.has("bdev_get_bdevs") ? yield* listBdevs(rpc) : []
  const made = new Set<string>()
  yield* run(rpc, calls, allowed, isStartup, made).pipe(
    Effect.onExit((exit) => (Exit.isSuccess(exit) ? Effect.void : rollBack(rpc, before, made)))
  )
})

const flatten = (config: unknown): Effect.Effect<ReadonlyArray<IndexedCall>, ConfigError> =>
  Schema.decodeUnknownEffect(SpdkConfig)(config).pipe(
    Effect.mapError((error) => invalidFromIssue("Spdk.applyConfig", "config", error.issue)),
    Effect.map(({ subsystems }) =>
      subsystems
        .flatMap((subsystem) => subsystem.config ?? [])
        .flat()
        .map(({ method, params }, index) => ({ method, params, index }))
    )
  )

const decodeMethods = Schema.decodeUnknownEffect(Schema.Array(Schema.String))

const methods = (
  rpc: RpcClient["Service"],
  params: { readonly current?: boolean }
): Effect.Effect<ReadonlySet<string>, ConfigError> =>
  rpc.call("rpc_get_methods", { ...params, include_aliases: true }).pipe(
    Effect.flatMap((result) =>
      Effect.mapError(decodeMethods(result), (error) => protocolFromIssue("rpc_get_methods", error.issue))
    ),
    Effect.map((names) => new Set(names))
  )

const checkKnown = (calls: ReadonlyArray<IndexedCall>, known: ReadonlySet<string>) =>
  Effect.forEach(
    calls.filter(({ method }) => !known.has(method)).slice(0, 1),
    (call) => reject(call, methodNotFound, "this SPDK has no such method"),
    { discard: true }
  )

const checkInTime = (calls: ReadonlyArray<IndexedCall>, allowed: ReadonlySet<string>) =>
  Effect.forEach(
    calls.filter(({ method }) => !allowed.has(method)).slice(0, 1),
    (call) => reject(call, invalidState, "the method may only be called before the framework starts"),
    { discard: true }
  )

/** JSON-RPC's code for an unknown method, and SPDK's for a method in the wrong state. */
const methodNotFound = -32601
const invalidState = -1

const run = Effect.fnUntraced(function* (
  rpc: RpcClient["Service"],
  calls: ReadonlyArray<IndexedCall>,
  allowed: ReadonlySet<string>,
  isStartup: boolean,
  made: Set<string>
): Effect.fn.Return<void, ConfigError> {
  if (!isStartup) return yield* runAll(rpc, calls, made)
  yield* runAll(
    rpc,
    calls.filter(({ method }) => allowed.has(method)),
    made
  )
  // The configuration itself may have held framework_start_init.
  const stillStartup = (yield* methods(rpc, { current: true })).has("framework_start_init")
  if (stillStartup) yield* rpc.call("framework_start_init")
  yield* runAll(
    rpc,
    calls.filter(({ method }) => !allowed.has(method)),
    made
  )
})

const runAll = (
  rpc: RpcClient["Service"],
  calls: ReadonlyArray<IndexedCall>,
  made: Set<string>
): Effect.Effect<void, ConfigError> =>
  Effect.forEach(
    calls,
    (call) =>
      rpc.call(call.method, call.params).pipe(
        Effect.tap((result) => Effect.sync(() => noteNames(made, call, result))),
        // The server may have done it all the same.
        Effect.onInterrupt(() => Effect.sync(() => noteNames(made, call, undefined))),
        Effect.catch((error): Effect.Effect<never, ConfigError> => {
          const code = codeOf(error.reason)
          return code === undefined ? Effect.fail(error) : reject(call, code, undefined, error)
        })
      ),
    { discard: true }
  )

/** The names of bdevs that a call has made: what it answered, what it was told, and what SPDK makes of that. */
const noteNames = (made: Set<string>, { params }: IndexedCall, result: Schema.Json | undefined): void => {
  const answered = Array.isArray(result) ? result : [result]
  for (const name of [...answered, params?.["name"]]) {
    if (typeof name === "string") made.add(name)
  }
  const { base_bdev: splitBase, base_name: errorBase, split_count: parts } = params ?? {}
  if (typeof errorBase === "string") made.add(`EE_${errorBase}`)
  if (typeof splitBase !== "string" || typeof parts !== "number") return
  for (let part = 0; part < parts; part++) made.add(`${splitBase}p${part}`)
}

const reject = (call: IndexedCall, code: number, detail: string | undefined, cause?: SpdkError<RpcReason>) =>
  fail(
    new ConfigRejected({
      operation: "Spdk.applyConfig",
      method: call.method,
      index: call.index,
      code,
      detail: detail ?? cause?.message,
      cause
    })
  )

/** The code that the server refused with, undefined when it did not refuse. */
const codeOf = (reason: RpcReason): number | undefined => ("code" in reason ? reason.code : reason.rpcCode)

const rollBack = (
  rpc: RpcClient["Service"],
  before: ReadonlyArray<string>,
  made: ReadonlySet<string>
): Effect.Effect<void> =>
  methods(rpc, { current: true }).pipe(
    // Before the framework starts there are no bdevs.
    Effect.flatMap((allowed) => (allowed.has("bdev_get_bdevs") ? deleteNewBdevs(rpc, before, made) : Effect.void)),
    Effect.catchCause((cause) => Effect.logWarning(`a refused configuration left bdevs behind: ${Cause.pretty(cause)}`))
  )
