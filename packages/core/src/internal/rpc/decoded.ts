/**
 * Calls whose results are decoded by a Schema of the module that asks, where `RpcResults` has none.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Rpc from "../../Rpc.ts"
import type { RpcReason, SpdkError } from "../../SpdkError.ts"
import { protocolFromIssue } from "./schemaIssue.ts"

/** As `Rpc.callWith`, with the result decoded. An answer in another shape fails with `RpcProtocol`. */
export const callDecoded = <Method extends Rpc.RpcMethod, A, I>(
  rpc: Rpc.RpcClient["Service"],
  schema: Schema.Codec<A, I>,
  method: Method,
  ...args: Rpc.RpcArguments<Method>
): Effect.Effect<A, SpdkError<RpcReason>> =>
  Effect.flatMap(Rpc.callWith(rpc, method, ...args), (result) =>
    Effect.mapError(Schema.decodeUnknownEffect(schema)(result), (error) => protocolFromIssue(method, error.issue))
  )
