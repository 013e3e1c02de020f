/**
 * What modules need of the bdev below, and of the names that they will give, looked at before SPDK does. SPDK's modules wait for a
 * base that does not exist and answer as if all were done; after a refusal some keep the wish in mind and make the bdev
 * later; and the split module frees its base under its first parts when a later one cannot be made.
 */
import * as Effect from "effect/Effect"
import { setTimeout } from "node:timers/promises"
import * as Rpc from "../../Rpc.ts"
import type { RpcClient } from "../../Rpc.ts"
import type { BdevRecord } from "../../RpcResults.ts"
import { AlreadyExists, fail, failInvalid, type RpcReason, type SpdkError } from "../../SpdkError.ts"
import { byType, claimedBusy } from "../rpc/claimed.ts"
import { checkName } from "../common/names.ts"

/** The bdev below, which nobody has claimed. */
export const requireBase = Effect.fnUntraced(function* (
  operation: string,
  base: string
): Effect.fn.Return<BdevRecord, SpdkError<RpcReason>, RpcClient> {
  yield* checkName(operation, base, "base")
  const [found] = yield* Rpc.call("bdev_get_bdevs", { name: base })
  if (found === undefined) return yield* failInvalid(operation, "base", "is not what the server answers", base)
  if (!found.claimed) return found
  const { claimOf } = yield* Rpc.RpcClient
  const by = claimOf === undefined ? undefined : yield* claimOf(found.name)
  return yield* Effect.fail(claimedBusy(operation, base, by ?? byType(found.claim_type)))
})

/** That none of these names, nor the UUID, is a bdev's. */
export const requireFree = Effect.fnUntraced(function* (
  operation: string,
  names: ReadonlyArray<string>,
  uuid: string | undefined
): Effect.fn.Return<void, SpdkError<RpcReason>, RpcClient> {
  const wanted = new Set(uuid === undefined ? names : [...names, uuid.toLowerCase()])
  for (const { aliases, name } of yield* Rpc.call("bdev_get_bdevs")) {
    const taken = [name, ...aliases].find((one) => wanted.has(one))
    if (taken === undefined) continue
    return yield* fail(new AlreadyExists({ operation, resource: taken, errno: "EEXIST", errnoCode: 17 }))
  }
})

/** Of the machine: a test's clock does not move SPDK. */
const pause = Effect.promise(() => setTimeout(1))

/** How often a base is looked at that somebody may have claimed in the meantime. */
const maxLooks = 100

/** SPDK answers the deletion of a split before the parts are gone, and lets go of the base after that. */
export const untilGone = (
  rpc: RpcClient["Service"],
  base: string,
  parts: ReadonlyArray<string>
): Effect.Effect<void, SpdkError<RpcReason>> =>
  Effect.gen(function* () {
    const gone = new Set(parts)
    for (let looks = 0; looks < maxLooks;) {
      const bdevs = yield* Rpc.callWith(rpc, "bdev_get_bdevs")
      const areGone = !bdevs.some(({ name }) => gone.has(name))
      if (areGone && bdevs.find(({ name }) => name === base)?.claimed !== true) return
      if (areGone) looks++
      yield* pause
    }
  })
