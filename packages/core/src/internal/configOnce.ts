/**
 * The JSON configuration of the SPDK of this process. Like everything SPDK is started with it is said once: what its
 * calls made outlives the layers, so a second run of them would only meet what the first one made.
 */
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as Semaphore from "effect/Semaphore"
import type { RpcClient } from "../Rpc.ts"
import { type ConfigRejected, fail, OptionsClash, type RpcReason, type SpdkError } from "../SpdkError.ts"
import type { SpdkConfig } from "../SpdkOptions.ts"
import { applyConfig } from "./rpcConfig.ts"

let applied: SpdkConfig | undefined
const oneAtATime = Semaphore.makeUnsafe(1)

/** Applies the first configuration, accepts the same again, and refuses another with OptionsClash. */
export const applyOnce = (
  rpc: RpcClient["Service"],
  config: SpdkConfig
): Effect.Effect<void, SpdkError<RpcReason | ConfigRejected | OptionsClash>> =>
  Effect.suspend((): Effect.Effect<void, SpdkError<RpcReason | ConfigRejected | OptionsClash>> => {
    if (applied === undefined) {
      return Effect.map(applyConfig(rpc, config), () => {
        applied = config
      })
    }
    if (Equal.equals(applied, config)) return Effect.void
    return fail(
      new OptionsClash({
        operation: "Spdk.layer",
        option: "config",
        running: summary(applied),
        requested: summary(config)
      })
    )
  }).pipe(oneAtATime.withPermits(1))

const summary = ({ subsystems }: SpdkConfig): string => {
  const methods = subsystems
    .flatMap(({ config }) => config ?? [])
    .flat()
    .map(({ method }) => method)
  return methods.length === 0 ? "no calls" : methods.join(", ")
}
