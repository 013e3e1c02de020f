/** Images that simulations leave: libspdk loads them, and reads what the portable driver reads. */
import * as Blobstore from "@effect-spdk/blobstore/Blobstore"
import * as Bdev from "@effect-spdk/core/Bdev"
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { createHash } from "node:crypto"
import { rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { planOf } from "./simulate/plan.ts"
import { run } from "./simulate/run.ts"
import { libspdk, long, scratch } from "./support/engines.ts"
import { contract } from "./support/harness.ts"

const fileOf = Effect.fnUntraced(function* (name: string, contents: Uint8Array) {
  const path = join(scratch, `${name}.img`)
  yield* Effect.acquireRelease(
    Effect.sync(() => writeFileSync(path, contents)),
    () => Effect.sync(() => rmSync(path))
  )
  return yield* Bdev.createFile({ name, path, blockSize: 512 })
})

/** Every blob: its id, size, xattrs, content and parent. */
const see = (image: Uint8Array, outer: Uint8Array | undefined, driver: Blobstore.DriverKind) =>
  Effect.scoped(
    Effect.gen(function* () {
      if (outer !== undefined) yield* fileOf("outer", outer)
      const name = yield* fileOf(`simulated-${driver}`, image)
      const bdev = yield* Bdev.open(name, { write: true })
      const store = yield* Effect.provideService(Blobstore.load({ driver }), Bdev.Bdev, bdev)
      const seen = Effect.fnUntraced(function* (id: Blobstore.BlobId) {
        const blob = yield* store.open(id)
        const xattrs = [...(yield* blob.xattrs.entries)].map(
          ([key, value]) => `${key}=${Buffer.from(value).toString()}`
        )
        const bytes = blob.sizeBytes === 0 ? new Uint8Array() : yield* blob.readBytes(0, blob.sizeBytes)
        const digest = createHash("sha1").update(bytes).digest("hex")
        const { isReadOnly, isThin, parent } = yield* blob.info
        return { id, sizeBytes: blob.sizeBytes, xattrs: xattrs.toSorted(), digest, isReadOnly, isThin, parent }
      })
      const blobs = yield* Effect.forEach(yield* store.ids, (id) => Effect.scoped(seen(id)))
      const { totalClusters } = yield* store.info
      return { blobs, superBlob: yield* store.superBlob, totalClusters }
    })
  )

libspdk("simulated images", (name, layer) =>
  contract(name, layer, (check) =>
    check(
      "are read alike by both drivers",
      () =>
        Effect.gen(function* () {
          let blobs = 0
          for (let seed = 0; seed < (long ? 2000 : 12); seed++) {
            const { image, outer, violations } = run(planOf(seed, { work: "blobs" }), { image: true })
            assert.deepStrictEqual(violations, [])
            if (image === undefined) throw new Error(`seed ${seed} leaves no image`)
            const portable = yield* see(image, outer, "portable")
            assert.deepStrictEqual(yield* see(image, outer, "libspdk"), portable, `seed ${seed}`)
            blobs += portable.blobs.length
          }
          assert.isAbove(blobs, 0)
        }),
      { timeoutMillis: long ? 1_800_000 : 60_000 }
    )
  )
)
