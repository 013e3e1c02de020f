/** A target in this process, until SIGTERM. Tells that it listens on standard output. */
import { EngineService } from "@effect-spdk/core/Engine"
import * as Effect from "effect/Effect"
import type { Job } from "../Job.ts"
import { targetCalls } from "../NvmfTarget.ts"
import { javaScriptCore, reactorCore } from "../spawn.ts"
import { engineLayer, placeThread } from "./device.ts"

const terminated = Effect.callback<void>((resume) => {
  process.once("SIGTERM", () => resume(Effect.void))
})

export const nvmfServe = (job: Job & { readonly kind: "nvmf-serve" }) =>
  Effect.gen(function* () {
    const { rpc } = yield* EngineService
    // The one that moves the data has the core that nvmf_tgt has.
    yield* placeThread(job.engine === "embedded" ? reactorCore : javaScriptCore)
    for (const { method, params } of targetCalls(job.port, job.sizeBytes)) yield* rpc.call(method, params)
    console.log(JSON.stringify("listening"))
    yield* terminated
  }).pipe(Effect.provide(engineLayer(job.engine)))
