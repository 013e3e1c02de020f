/** Writes one blob from its start to its end on a new file, as the demo does with files, and syncs it. */
import * as DmaBuffer from "@effect-spdk/core/DmaBuffer"
import * as Effect from "effect/Effect"
import { rmSync } from "node:fs"
import { type Job, onLvolBytes, throughput } from "../Job.ts"
import { initStore } from "./blobs.ts"
import { engineLayer } from "./device.ts"

export const blobSequential = (job: Job & { readonly kind: "blob-sequential" }) =>
  Effect.gen(function* () {
    const { depth, ioBytes, path, sizeBytes } = job
    yield* Effect.addFinalizer(() => Effect.sync(() => rmSync(path, { force: true })))
    const base = { type: "new-file", path, sizeBytes: onLvolBytes(sizeBytes) } as const
    const store = yield* initStore(job.engine, base, { clusterSize: job.clusterBytes })
    const blob = yield* store.create({ size: sizeBytes })
    let next = 0
    const writer = Effect.gen(function* () {
      const buffer = yield* DmaBuffer.make(ioBytes)
      buffer.bytes.fill(0x5a)
      yield* Effect.whileLoop({
        while: () => next < sizeBytes,
        body: () => {
          const offsetBytes = next
          next += ioBytes
          return blob.write(offsetBytes, buffer)
        },
        step: () => {}
      })
    })
    const begin = performance.now()
    yield* Effect.forEach(Array.from({ length: depth }), () => Effect.scoped(writer), {
      concurrency: "unbounded",
      discard: true
    })
    yield* blob.sync
    return throughput(sizeBytes / ioBytes, (performance.now() - begin) / 1000, depth, ioBytes)
  }).pipe(Effect.scoped, Effect.provide(engineLayer(job.engine)))
