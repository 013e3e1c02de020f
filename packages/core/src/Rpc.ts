/**
 * SPDK's JSON-RPC as Effects. Every engine provides an `RpcClient`. `layerUnix` and `layerTcp` make a client of an
 * `spdk_tgt` that runs elsewhere.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import type * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { type RpcMethods, rpcMethods } from "./generated/RpcMethods.ts"
import type { RpcAddress } from "./internal/rpc/connection.ts"
import { makeRpc, socketPathBytes } from "./internal/rpc/make.ts"
import { invalidFromIssue, protocolFromIssue } from "./internal/rpc/schemaIssue.ts"
import { rpcResults } from "./RpcResults.ts"
import {
  type InvalidArgument,
  type RpcProtocol,
  type RpcReason,
  type RpcUnreachable,
  type SpdkError
} from "./SpdkError.ts"

export type { RpcAddress, RpcMethods }

/** The longest path that fits into `sockaddr_un`. @since 0.1.0 @category constants */
export const maxSocketPathBytes: number = socketPathBytes

/** The type of a call's `params` before they are checked against the method. @since 0.1.0 @category models */
export type RpcParams = { readonly [name: string]: unknown } | undefined

/** @since 0.1.0 @category models */
export interface RpcCallOptions {
  /** The time limit for the answer, including the wait for a connection. Overrides the limit of the client. */
  readonly timeout?: Duration.Input | undefined
}

/** @since 0.1.0 @category models */
export interface RpcOptions {
  /** The time limit of calls that set none. Default 60 seconds, as in rpc.py. `Duration.infinity`: no limit. */
  readonly timeout?: Duration.Input | undefined
  /**
   * The schedule of attempts to connect while the server is unreachable. Default: after 50, 100, 200 and 400
   * milliseconds. After a connection breaks, the next call reconnects. Calls in flight on the broken connection fail
   * and are not resent.
   */
  readonly reconnect?: Schedule.Schedule<unknown, SpdkError<RpcUnreachable>> | undefined
  /** The maximum size of an answer in bytes. Default 64 MiB. */
  readonly maxMessageBytes?: number | undefined
}

/**
 * A connection to an SPDK, or its equivalent in the embedded engine. Any number of calls may be in flight at once.
 * Answers may arrive in any order.
 *
 * Interruption of a call abandons the answer. The call still takes effect, because SPDK cannot cancel a request.
 *
 * @since 0.1.0
 * @category services
 */
export class RpcClient extends Context.Service<
  RpcClient,
  {
    /** A text for people: `unix:/run/spdk.sock`, `tcp:127.0.0.1:5260`, `embedded`. */
    readonly address: string
    /**
     * Calls any method by name. This function does not check parameters and does not decode results; `call` of this
     * module does both. This function refuses only calls that cannot be sent, and calls that are known to crash SPDK
     * 26.05:
     *
     * - `InvalidArgument`: a null bdev of block size 0, a split into more parts than blocks, an NVMe command that
     *   transfers more bytes than its buffer has.
     * - `InvalidArgument`, because SPDK could not delete the bdev afterwards: a histogram of an unknown I/O type;
     *   blocks above 4096 bytes with an I/O boundary; blocks above 4096 bytes below a RAID other than raid1; blocks
     *   below a store of logical volumes that do not divide 4096.
     * - `AlreadyExists`: a name or UUID in use, for modules that crash on it (split, passthru, zone_block).
     * - `Busy`: the store of a volume that is being deleted. Also a bdev on a claimed base, because several of SPDK's
     *   modules would create that bdev later. With libspdk in this process also a store of logical volumes on a bdev
     *   that is open for writing, because SPDK overwrites the bdev first.
     * - `NotSupported`: `iobuf_get_stats` after this client deleted a target whose transport another target has too.
     *
     * Two fatal cases are not detected. One is a split without a size whose base appears later with fewer blocks than
     * parts. The other is a store of logical volumes that one client deletes while another lists stores.
     */
    readonly call: (
      method: string,
      params?: RpcParams,
      options?: RpcCallOptions
    ) => Effect.Effect<Schema.Json, SpdkError<RpcReason>>
    /**
     * The claim of a bdev as text, for example `claimed by module raid (exclusive_write)`; `undefined` when the bdev is
     * not claimed. Only engines in this process have this function: SPDK's RPC reports that a bdev is claimed, but not
     * the module.
     */
    readonly claimOf?: (bdev: string) => Effect.Effect<string | undefined>
  }
>()("@effect-spdk/core/RpcClient") {}

/**
 * Makes a client of the server at this address. The first call connects. The end of the scope closes the connection and
 * fails calls in flight with `Released`.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (
  options: RpcOptions & { readonly address: RpcAddress }
): Effect.Effect<RpcClient["Service"], SpdkError<InvalidArgument>, Scope.Scope> => makeRpc(options)

/** A client on a Unix socket. SPDK's default path is `/var/tmp/spdk.sock`. @since 0.1.0 @category layers */
export const layerUnix = (
  options: RpcOptions & { readonly path: string }
): Layer.Layer<RpcClient, SpdkError<InvalidArgument>> =>
  Layer.effect(RpcClient, make({ ...options, address: { path: options.path } }))

/**
 * A client over TCP. SPDK itself listens only on Unix sockets. Use this client with a forwarder such as socat or ssh.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerTcp = (
  options: RpcOptions & { readonly host: string; readonly port: number }
): Layer.Layer<RpcClient, SpdkError<InvalidArgument>> =>
  Layer.effect(RpcClient, make({ ...options, address: { host: options.host, port: options.port } }))

/** The methods of SPDK v26.05. @since 0.1.0 @category models */
export type RpcMethod = keyof RpcMethods

/** The result of a method: decoded when RpcResults has its Schema, otherwise JSON. @since 0.1.0 @category models */
export type RpcResult<Method extends RpcMethod> = Method extends keyof typeof rpcResults
  ? (typeof rpcResults)[Method]["Type"]
  : Schema.Json

/** Parameters are optional when the method requires none. @since 0.1.0 @category models */
export type RpcArguments<Method extends RpcMethod> = {} extends RpcMethods[Method]
  ? [params?: RpcMethods[Method] | undefined, options?: RpcCallOptions | undefined]
  : [params: RpcMethods[Method], options?: RpcCallOptions | undefined]

/**
 * The Schema of a method's parameters, built at the first use.
 *
 * @since 0.1.0
 * @category schemas
 */
export const paramsSchema = <Method extends RpcMethod>(method: Method): Schema.Codec<RpcMethods[Method]> =>
  rpcMethods[method]()

/**
 * Calls a method of SPDK. Parameters are checked before the call is sent. Invalid parameters fail with
 * `InvalidArgument`, which names the parameter. A result of the wrong shape fails with `RpcProtocol`.
 *
 * For a method or parameter that SPDK v26.05 does not have, use `call` of the `RpcClient`.
 *
 * @since 0.1.0
 * @category calls
 */
export const call = <Method extends RpcMethod>(
  method: Method,
  ...args: RpcArguments<Method>
): Effect.Effect<RpcResult<Method>, SpdkError<RpcReason>, RpcClient> =>
  Effect.flatMap(RpcClient, (client) => callWith(client, method, ...args))

/** `call` on the given client. @since 0.1.0 @category calls */
export const callWith = <Method extends RpcMethod>(
  client: RpcClient["Service"],
  method: Method,
  ...[params, options]: RpcArguments<Method>
): Effect.Effect<RpcResult<Method>, SpdkError<RpcReason>> =>
  Effect.suspend(() => {
    const checked = checkerOf(method)(params ?? {})
    if (Result.isFailure(checked)) return Effect.fail(invalidFromIssue(method, "", checked.failure.issue))
    // An interface lacks the index signature that every object type has.
    const sent = client.call(method, params as RpcParams, options)
    return Effect.flatMap(sent, (result) => decodeResult(method, result))
  }).pipe(Effect.withSpan("Rpc.call", { kind: "client", attributes: { "rpc.system": "spdk", "rpc.method": method } }))

type Checker = (params: unknown) => Result.Result<unknown, Schema.SchemaError>

const checkers = new Map<RpcMethod, Checker>()

const checkerOf = (method: RpcMethod): Checker => {
  let checker = checkers.get(method)
  if (checker === undefined) {
    checker = Schema.decodeUnknownResult(paramsSchema(method), { onExcessProperty: "error" })
    checkers.set(method, checker)
  }
  return checker
}

const hasResultSchema = (method: string): method is keyof typeof rpcResults => Object.hasOwn(rpcResults, method)

const decodeResult = <Method extends RpcMethod>(
  method: Method,
  result: Schema.Json
): Effect.Effect<RpcResult<Method>, SpdkError<RpcProtocol>> => {
  const schema: Schema.Codec<unknown> = hasResultSchema(method) ? rpcResults[method] : Schema.Json
  return Schema.decodeUnknownEffect(schema)(result).pipe(
    Effect.mapError((error) => protocolFromIssue(method, error.issue)),
    // The schema is the one that RpcResult looks up; TypeScript does not relate the two lookups.
    Effect.map((decoded) => decoded as RpcResult<Method>)
  )
}
