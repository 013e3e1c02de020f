/** What the first write to a cluster costs: of a thin blob, and of a blob with a snapshot, whose cluster is copied first. */
import * as DmaBuffer from "@effect-spdk/core/DmaBuffer"
import * as Effect from "effect/Effect"
import { type Job, onLvolBytes, throughput } from "../Job.ts"
import { initStore } from "./blobs.ts"
import { engineLayer } from "./device.ts"

const ioBytes = 4096

export const blobClusters = (job: Job & { readonly kind: "blob-clusters" }) =>
  Effect.gen(function* () {
    const { clusterBytes, clusters, engine, what } = job
    const sizeBytes = clusters * clusterBytes
    const base = { type: "malloc", sizeBytes: onLvolBytes(2 * sizeBytes) } as const
    const store = yield* initStore(engine, base, { clusterSize: clusterBytes })
    const blob = yield* store.create({ clusters, thin: what === "thin" })
    if (what === "copy") yield* store.snapshot(blob.id)
    const buffer = yield* DmaBuffer.make(ioBytes)
    let next = 0
    const begin = performance.now()
    yield* Effect.whileLoop({
      while: () => next < clusters,
      body: () => blob.write(next * clusterBytes, buffer),
      step: () => {
        next++
      }
    })
    return throughput(clusters, (performance.now() - begin) / 1000, 1, ioBytes)
  }).pipe(Effect.scoped, Effect.provide(engineLayer(job.engine)))
