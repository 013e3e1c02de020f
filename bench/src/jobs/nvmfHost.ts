/** The Nvme module as a program uses it: every fiber awaits one `namespace.read` after the other. */
import * as DmaBuffer from "@effect-spdk/core/DmaBuffer"
import * as Nvme from "@effect-spdk/core/Nvme"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { type Job, throughput } from "../Job.ts"
import { javaScriptCore } from "../spawn.ts"
import { engineLayer, placeJavaScript } from "./device.ts"
import { type Load, makeLoad, makeOffsets, measureLoad } from "./window.ts"

const reader = (disk: Nvme.NvmeNamespace, ioBytes: number, seed: number, load: Load) =>
  Effect.gen(function* () {
    const buffer = yield* DmaBuffer.make(ioBytes)
    const nextOffset = makeOffsets(disk.sizeBytes, ioBytes, seed)
    yield* Effect.whileLoop({
      while: () => load.running,
      body: () => disk.read(nextOffset(), buffer),
      step: () => {
        load.operations++
      }
    })
  })

export const nvmfHost = (job: Job & { readonly kind: "nvmf-host" }) =>
  Effect.gen(function* () {
    if (job.address === undefined) return yield* Effect.die("no target")
    const { nqn, port, traddr } = job.address
    yield* placeJavaScript
    const controller = yield* Nvme.connect({ trtype: "TCP", traddr, trsvcid: String(port), subnqn: nqn })
    const disk = yield* controller.namespace(1)
    const load = makeLoad()
    const readers = yield* Effect.forkScoped(
      Effect.forEach(
        Array.from({ length: job.depth }, (_, index) => index + 1),
        (seed) => Effect.scoped(reader(disk, job.ioBytes, seed, load)),
        { concurrency: "unbounded", discard: true }
      )
    )
    const { operations, seconds } = yield* measureLoad(load, job.seconds)
    yield* Fiber.join(readers)
    return throughput(operations, seconds, job.depth, job.ioBytes)
    // The target has the other core to itself, as it has when spdk_nvme_perf is the host: this process lives on one.
  }).pipe(Effect.scoped, Effect.provide(engineLayer(job.engine, { core: javaScriptCore })))
