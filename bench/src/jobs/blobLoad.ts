/** The time that loading takes of a store with very many blobs, and how such an image is made. */
import * as Blobstore from "@effect-spdk/blobstore/Blobstore"
import * as Bdev from "@effect-spdk/core/Bdev"
import * as Spdk from "@effect-spdk/core/Spdk"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { open } from "node:fs/promises"
import { type Job, outcome } from "../Job.ts"
import { loadStore } from "./blobs.ts"
import { createBdev, engineLayer } from "./device.ts"

/** Blobs that are made at the same time. */
const madeAtOnce = 32
const clusterBytes = 65_536
const pageBytes = 4096
const copyBytes = 2 ** 20

/** A device for so many blobs of no cluster: a page of metadata each, and a little more. */
export const imageBytes = (blobs: number): number =>
  Math.ceil((blobs * pageBytes * 1.1) / clusterBytes) * clusterBytes + 2 ** 26

/** Makes the image in memory, where syncing costs nothing, and copies it to the file. */
export const blobImage = (job: Job & { readonly kind: "blob-image" }) =>
  Effect.gen(function* () {
    const name = yield* createBdev({ type: "malloc", sizeBytes: imageBytes(job.blobs) })
    const bdev = yield* Bdev.open(name, { write: true })
    const options = { driver: "portable", clusterSize: clusterBytes, metadataPages: job.blobs + 64 } as const
    yield* Effect.scoped(
      Effect.gen(function* () {
        const store = yield* Effect.provideService(Blobstore.init(options), Bdev.Bdev, bdev)
        yield* Effect.forEach(
          Array.from({ length: job.blobs }, (_, index) => index),
          (index) => store.createId({ extentTable: false, xattrs: { name: `blob ${index}` } }),
          { concurrency: madeAtOnce, discard: true }
        )
      })
    )
    const file = yield* Effect.acquireRelease(
      Effect.promise(() => open(job.path, "w")),
      (opened) => Effect.promise(() => opened.close())
    )
    yield* Stream.runForEach(bdev.stream({ chunkBytes: copyBytes }), (chunk) =>
      Effect.promise(() => file.write(chunk, 0, chunk.length))
    )
    return outcome({})
  }).pipe(Effect.scoped, Effect.provide(Spdk.layerEmbedded({ name: "bench", memoryMiB: 2048 })))

export const blobLoad = (job: Job & { readonly kind: "blob-load" }) =>
  Effect.gen(function* () {
    const name = yield* createBdev({ type: "file", path: job.path, sizeBytes: imageBytes(job.blobs) })
    const bdev = yield* Bdev.open(name, { write: true })
    const begin = performance.now()
    const store = yield* loadStore(job.engine, bdev, { forceRecover: job.recover })
    const millis = performance.now() - begin
    const { length } = yield* store.ids
    if (length !== job.blobs) return yield* Effect.die(new Error(`the store has ${length} blobs, not ${job.blobs}`))
    return outcome({ millis })
  }).pipe(Effect.scoped, Effect.provide(engineLayer(job.engine)))
