/**
 * The JSON configuration of the SPDK of this process. Like everything SPDK is started with it is said once, whichever
 * thread says it: what its calls made outlives the layers, so a second run of them would only meet what the first one made.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Outside from "./outside.ts"
import type { RpcClient } from "../../Rpc.ts"
import { type ConfigRejected, fail, OptionsClash, type RpcReason, type SpdkError } from "../../SpdkError.ts"
import type { SpdkConfig } from "../../SpdkOptions.ts"
import type { ConfigTurn } from "../libspdk/start.ts"
import { applyConfig } from "../rpc/config.ts"

type ConfigError = SpdkError<RpcReason | ConfigRejected | OptionsClash>

const eagain = -11
const ealready = -114

/** How often is looked whether another thread has finished. */
const pause = "5 millis"

/** Applies the first configuration, accepts the same again, and refuses another with OptionsClash. */
export const applyOnce = (
  rpc: RpcClient["Service"],
  config: SpdkConfig,
  turn: ConfigTurn
): Effect.Effect<void, ConfigError> => {
  const text = JSON.stringify(sorted(config))
  return Effect.uninterruptibleMask((restore) =>
    Effect.suspend((): Effect.Effect<void, ConfigError> => {
      const claim = turn.claim(text)
      if (claim.status === ealready) return Effect.void
      if (claim.status === eagain) {
        return restore(Effect.andThen(Outside.sleep(pause), applyOnce(rpc, config, turn)))
      }
      if (claim.status !== 0) return clash(claim.text, config)
      return Effect.onExit(restore(applyConfig(rpc, config)), (exit) =>
        Effect.sync(() => turn.settle(Exit.isSuccess(exit)))
      )
    })
  )
}

/** The order of the names in an object says nothing. */
const sorted = (value: unknown): unknown => {
  if (Array.isArray(value)) return value.map(sorted)
  if (typeof value !== "object" || value === null) return value
  const entries = Object.entries(value).map(([name, inner]) => [name, sorted(inner)] as const)
  return Object.fromEntries(entries.toSorted(([a], [b]) => (a < b ? -1 : 1)))
}

const clash = (applied: string, requested: SpdkConfig): Effect.Effect<never, SpdkError<OptionsClash>> => {
  // `applyOnce` wrote it, in this process.
  const running: SpdkConfig = JSON.parse(applied)
  return fail(
    new OptionsClash({
      operation: "Spdk.layer",
      option: "config",
      running: summary(running),
      requested: summary(requested)
    })
  )
}

const summary = ({ subsystems }: SpdkConfig): string => {
  const methods = subsystems
    .flatMap(({ config }) => config ?? [])
    .flat()
    .map(({ method }) => method)
  return methods.length === 0 ? "no calls" : methods.join(", ")
}
