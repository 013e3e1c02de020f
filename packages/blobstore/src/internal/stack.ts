/** A bdev and those that it lies on, from the top, as SPDK describes them. */
import type { Engine } from "@effect-spdk/core/Engine"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"

export interface Level {
  /** The name itself, also where an alias or a UUID was asked for. */
  readonly name: string
  /** By module, what it says of the bdev. */
  readonly modules: Readonly<Record<string, unknown>>
}

/** More than anybody stacks. */
const mostLevels = 16

const Bdevs = Schema.Array(
  Schema.Struct({
    name: Schema.String,
    driver_specific: Schema.optional(Schema.Record(Schema.String, Schema.Unknown))
  })
)
const OnBase = Schema.Struct({ base_bdev_name: Schema.String })

const decodeBdevs = Schema.decodeUnknownOption(Bdevs)
const decodeOnBase = Schema.decodeUnknownOption(OnBase)

/** Ends where a bdev is not there, or where its module does not say what is below it: RAID has several, logical volumes a store. */
export const stackOf = (rpc: Engine["rpc"], name: string, levels = mostLevels): Effect.Effect<ReadonlyArray<Level>> =>
  Effect.flatMap(Effect.option(rpc.call("bdev_get_bdevs", { name })), (answer) => {
    const bdev = Option.getOrUndefined(Option.flatMap(answer, decodeBdevs))?.[0]
    if (bdev === undefined) return Effect.succeed([])
    const level: Level = { name: bdev.name, modules: bdev.driver_specific ?? {} }
    const below = Object.values(level.modules).flatMap((one) => Option.toArray(decodeOnBase(one)))[0]
    return below === undefined || levels === 1
      ? Effect.succeed([level])
      : Effect.map(stackOf(rpc, below.base_bdev_name, levels - 1), (rest) => [level, ...rest])
  })
