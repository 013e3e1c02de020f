/** Whether a flush of a bdev reaches the device below it: the bdevs of SPDK's NVMe module can be told to answer it themselves. */
import type { Engine } from "@effect-spdk/core/Engine"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"

/** Bdevs on bdevs on bdevs: more than anybody stacks. */
const mostLevels = 16

const Bdevs = Schema.Array(
  Schema.Struct({ driver_specific: Schema.optional(Schema.Record(Schema.String, Schema.Unknown)) })
)
const OnBase = Schema.Struct({ base_bdev_name: Schema.String })
const Calls = Schema.Array(
  Schema.Struct({ method: Schema.String, params: Schema.optional(Schema.Record(Schema.String, Schema.Unknown)) })
)

const decodeBdevs = Schema.decodeUnknownOption(Bdevs)
const decodeOnBase = Schema.decodeUnknownOption(OnBase)
const decodeCalls = Schema.decodeUnknownOption(Calls)

type Client = Engine["rpc"]

/** Whether the bdev is an NVMe namespace, or lies on one. */
const isOnNvme = (rpc: Client, name: string, levels = mostLevels): Effect.Effect<boolean> =>
  Effect.flatMap(Effect.option(rpc.call("bdev_get_bdevs", { name })), (answer) => {
    const found = Option.flatMap(answer, decodeBdevs)
    const modules = Option.isSome(found) ? (found.value[0]?.driver_specific ?? {}) : {}
    if ("nvme" in modules) return Effect.succeed(true)
    const below = Object.values(modules).flatMap((one) => Option.toArray(decodeOnBase(one)))[0]
    return below === undefined || levels === 0 ? Effect.succeed(false) : isOnNvme(rpc, below.base_bdev_name, levels - 1)
  })

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
