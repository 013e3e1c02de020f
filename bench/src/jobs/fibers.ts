/** The Effect API as a program uses it: every fiber awaits one `bdev.read` after the other. */
import type * as Bdev from "@effect-spdk/core/Bdev"
import * as DmaBuffer from "@effect-spdk/core/DmaBuffer"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { type Job, throughput } from "../Job.ts"
import { engineLayer, openBdev } from "./device.ts"
import { type Load, makeLoad, makeOffsets, measureLoad } from "./window.ts"

const reader = (bdev: Bdev.Bdev, ioBytes: number, seed: number, load: Load) =>
  Effect.gen(function* () {
    const buffer = yield* DmaBuffer.make(ioBytes)
    const nextOffset = makeOffsets(bdev.sizeBytes, ioBytes, seed)
    yield* Effect.whileLoop({
      while: () => load.running,
      body: () => bdev.read(nextOffset(), buffer),
      step: () => {
        load.operations++
      }
    })
  })

/** Starts the fibers; they end with the load. */
export const startReaders = (bdev: Bdev.Bdev, ioBytes: number, depth: number, load: Load) =>
  Effect.forkScoped(
    Effect.forEach(
      Array.from({ length: depth }, (_, index) => index + 1),
      (seed) => Effect.scoped(reader(bdev, ioBytes, seed, load)),
      { concurrency: "unbounded", discard: true }
    )
  )

export const fibers = (job: Job & { readonly kind: "fibers" }) =>
  Effect.gen(function* () {
    const bdev = yield* openBdev(job.bdev)
    const load = makeLoad()
    const readers = yield* startReaders(bdev, job.ioBytes, job.depth, load)
    const { operations, seconds } = yield* measureLoad(load, job.seconds)
    yield* Fiber.join(readers)
    return throughput(operations, seconds, job.depth, job.ioBytes)
  }).pipe(Effect.scoped, Effect.provide(engineLayer(job.engine)))
