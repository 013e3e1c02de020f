/**
 * What the RPC methods of the NVMe-oF target have in common: the answers SPDK gives, and how they find what they are about.
 */
import * as Effect from "effect/Effect"
import type { Subsystem, Target } from "../nvmf/target.ts"
import { type MethodAnswer, invalidParams, RpcFault } from "./table.ts"

export const invalid = invalidParams()
export const internal = (message = "Internal error"): RpcFault => new RpcFault(-32603, message)
export const noTarget = internal("Unable to find a target.")

export const answerTrue: MethodAnswer = Effect.succeed(true)

/** The only target has this name; no name means it too. */
export const isTarget = (target: Target, name: string | undefined): boolean =>
  name === undefined || name === target.name

/** Runs on a subsystem; SPDK says "Invalid parameters" when there is none. */
export const onSubsystem = (
  target: Target,
  params: { readonly nqn: string; readonly tgt_name?: string | undefined },
  run: (subsystem: Subsystem) => MethodAnswer
): MethodAnswer => {
  if (!isTarget(target, params.tgt_name)) return Effect.fail(noTarget)
  const subsystem = target.subsystems.get(params.nqn)
  return subsystem === undefined ? Effect.fail(invalid) : run(subsystem)
}
