/** The batched API: two fibers, so that one batch is under way while the other's completions are handled. */
import type * as Bdev from "@effect-spdk/core/Bdev"
import * as DmaBuffer from "@effect-spdk/core/DmaBuffer"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { type Job, throughput } from "../Job.ts"
import { engineLayer, openBdev } from "./device.ts"
import { type Load, makeLoad, makeOffsets, measureLoad } from "./window.ts"

const batchesAtOnce = 2

const reader = (bdev: Bdev.Bdev, ioBytes: number, batch: number, seed: number, load: Load) =>
  Effect.gen(function* () {
    const nextOffset = makeOffsets(bdev.sizeBytes, ioBytes, seed)
    const memory = yield* DmaBuffer.make(batch * ioBytes)
    const reads = yield* bdev.prepareReads(
      Array.from({ length: batch }, (_, index) => ({ offsetBytes: 0, buffer: memory.slice(index * ioBytes, ioBytes) }))
    )
    yield* Effect.whileLoop({
      while: () => load.running,
      body: () => {
        for (let index = 0; index < batch; index++) reads.offsetsBytes[index] = nextOffset()
        return reads.run
      },
      step: () => {
        load.operations += batch
      }
    })
  })

export const batched = (job: Job & { readonly kind: "batched" }) =>
  Effect.gen(function* () {
    const bdev = yield* openBdev(job.bdev)
    const load = makeLoad()
    const batch = Math.max(1, Math.floor(job.depth / batchesAtOnce))
    const readers = yield* Effect.forkScoped(
      Effect.forEach(
        Array.from({ length: batchesAtOnce }, (_, index) => index + 1),
        (seed) => Effect.scoped(reader(bdev, job.ioBytes, batch, seed, load)),
        { concurrency: "unbounded", discard: true }
      )
    )
    const { operations, seconds } = yield* measureLoad(load, job.seconds)
    yield* Fiber.join(readers)
    return throughput(operations, seconds, job.depth, job.ioBytes)
  }).pipe(Effect.scoped, Effect.provide(engineLayer("libspdk")))
