/** SPDK's own `nvmf_tgt` in a process of its own, controlled over its RPC socket as somebody's target is. */
import * as Rpc from "@effect-spdk/core/Rpc"
import * as Spdk from "@effect-spdk/core/Spdk"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import { spawn } from "node:child_process"
import { scratchFile } from "./engines.ts"
import { within } from "./harness.ts"
import { nvmfTgtTool } from "./nvmfTarget.ts"

export interface SpdkTarget {
  readonly kill: Effect.Effect<void>
  /** Runs with the RPC of this process, whatever is around it. */
  readonly run: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, Exclude<R, Rpc.RpcClient>>
}

/** Started, and ready for calls. The end of the scope kills it. */
export const startTarget = Effect.gen(function* () {
  const socket = yield* scratchFile
  const args = ["-m", "0x1", "--no-huge", "-s", "512", "--no-pci", "--disable-cpumask-locks", "-r", socket]
  const child = yield* Effect.acquireRelease(
    Effect.sync(() => spawn(nvmfTgtTool.path, args, { stdio: "ignore" })),
    (started) => Effect.sync(() => void started.kill("SIGKILL"))
  )
  // The first call waits until the socket is there.
  const remote = Spdk.layerRemote({ path: socket })
  const context = yield* within(
    "the start of nvmf_tgt",
    Effect.retry(Layer.build(remote), Schedule.spaced("200 millis")),
    30_000
  )
  const target: SpdkTarget = {
    kill: Effect.callback<void>((resume) => {
      child.once("exit", () => resume(Effect.void))
      child.kill("SIGKILL")
    }),
    run: (effect) => Effect.provideService(effect, Rpc.RpcClient, Context.get(context, Rpc.RpcClient))
  }
  return target
})
