/** Random I/O on one thick blob, by fibers that await one `blob.read` or `blob.write` after the other. */
import type * as Blob from "@effect-spdk/blobstore/Blob"
import * as DmaBuffer from "@effect-spdk/core/DmaBuffer"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { type Job, onLvolBytes, throughput } from "../Job.ts"
import { initStore } from "./blobs.ts"
import { engineLayer } from "./device.ts"
import { type Load, makeLoad, makeOffsets, measureLoad } from "./window.ts"

type BlobJob = Job & { readonly kind: "blob-fibers" }

const loop = (blob: Blob.Blob, job: BlobJob, seed: number, load: Load) =>
  Effect.gen(function* () {
    const buffer = yield* DmaBuffer.make(job.ioBytes)
    const nextOffset = makeOffsets(job.sizeBytes, job.ioBytes, seed)
    const once =
      job.operation === "read" ? () => blob.read(nextOffset(), buffer) : () => blob.write(nextOffset(), buffer)
    yield* Effect.whileLoop({
      while: () => load.running,
      body: once,
      step: () => {
        load.operations++
      }
    })
  })

export const blobFibers = (job: BlobJob) =>
  Effect.gen(function* () {
    const base = { type: "malloc", sizeBytes: onLvolBytes(job.sizeBytes) } as const
    const store = yield* initStore(job.engine, base, { clusterSize: job.clusterBytes })
    const blob = yield* store.create({ size: job.sizeBytes })
    const load = makeLoad()
    const loops = yield* Effect.forkScoped(
      Effect.forEach(
        Array.from({ length: job.depth }, (_, index) => index + 1),
        (seed) => Effect.scoped(loop(blob, job, seed, load)),
        { concurrency: "unbounded", discard: true }
      )
    )
    const { operations, seconds } = yield* measureLoad(load, job.seconds)
    yield* Fiber.join(loops)
    return throughput(operations, seconds, job.depth, job.ioBytes)
  }).pipe(Effect.scoped, Effect.provide(engineLayer(job.engine)))
