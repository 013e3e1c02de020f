/** What an open blob keeps in this process's memory. */
import * as Effect from "effect/Effect"
import { type Job, outcome } from "../Job.ts"
import { initStore } from "./blobs.ts"
import { engineLayer } from "./device.ts"

const clusterBytes = 65_536

const residentBytes = Effect.sync(() => {
  globalThis.gc?.()
  return process.memoryUsage.rss()
})

export const blobMemory = (job: Job & { readonly kind: "blob-memory" }) =>
  Effect.gen(function* () {
    const base = { type: "malloc", sizeBytes: 96 * 2 ** 20 } as const
    const store = yield* initStore(job.engine, base, { clusterSize: clusterBytes, metadataPages: 2 * job.blobs + 64 })
    const ids = yield* Effect.forEach(Array.from({ length: job.blobs }), () => store.createId({ extentTable: false }), {
      concurrency: 16
    })
    // What the first open of all allocates is not of the blobs.
    yield* Effect.scoped(Effect.forEach(ids, (id) => store.open(id), { concurrency: 16, discard: true }))
    const before = yield* residentBytes
    yield* Effect.forEach(ids, (id) => store.open(id), { concurrency: 16, discard: true })
    return outcome({ bytesPerBlob: Math.max(0, (yield* residentBytes) - before) / job.blobs })
  }).pipe(Effect.scoped, Effect.provide(engineLayer(job.engine)))
