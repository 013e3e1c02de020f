/** Whether a flush of a bdev reaches the device below it: the bdevs of SPDK's NVMe module can be told to answer it themselves. */
import type { Engine } from "@effect-spdk/core/Engine"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { stackOf } from "./stack.ts"

const Calls = Schema.Array(
  Schema.Struct({ method: Schema.String, params: Schema.optional(Schema.Record(Schema.String, Schema.Unknown)) })
)

const decodeCalls = Schema.decodeUnknownOption(Calls)

type Client = Engine["rpc"]

/** Whether the bdev is an NVMe namespace, or lies on one. */
const isOnNvme = (rpc: Client, name: string): Effect.Effect<boolean> =>
  Effect.map(stackOf(rpc, name), (levels) => levels.some(({ modules }) => "nvme" in modules))

/** What the module does, as a saved configuration would have it. */
const isFlushEnabled = (rpc: Client): Effect.Effect<boolean> =>
  Effect.map(Effect.option(rpc.call("framework_get_config", { name: "bdev" })), (answer) => {
    const calls = Option.flatMap(answer, decodeCalls)
    if (Option.isNone(calls)) return false
    return calls.value.some(
      ({ method, params }) => method === "bdev_nvme_set_options" && params?.["enable_flush"] === true
    )
  })

/** False for a device with a volatile write cache that no flush reaches. What cannot be asked counts as not flushed. */
export const isFlushed = (
  rpc: Client,
  bdev: { readonly name: string; readonly info: { readonly hasWriteCache: boolean } }
): Effect.Effect<boolean> =>
  bdev.info.hasWriteCache
    ? Effect.flatMap(isOnNvme(rpc, bdev.name), (isNvme) => (isNvme ? isFlushEnabled(rpc) : Effect.succeed(true)))
    : Effect.succeed(true)
