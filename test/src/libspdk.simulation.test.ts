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

/** Every blob: its id, size, xattrs and content. */
const see = (image: Uint8Array, driver: Blobstore.DriverKind) =>
  Effect.scoped(
    Effect.gen(function* () {
      const path = join(scratch, `simulated-${driver}.img`)
      yield* Effect.acquireRelease(
        Effect.sync(() => writeFileSync(path, image)),
        () => Effect.sync(() => rmSync(path))
      )
      const name = yield* Bdev.createFile({ name: `simulated-${driver}`, path, blockSize: 512 })
      const bdev = yield* Bdev.open(name, { write: true })
      const store = yield* Effect.provideService(Blobstore.load({ driver }), Bdev.Bdev, bdev)
      const seen = Effect.fnUntraced(function* (id: Blobstore.BlobId) {
        const blob = yield* store.open(id)
        const xattrs = [...(yield* blob.xattrs.entries)].map(
          ([key, value]) => `${key}=${Buffer.from(value).toString()}`
        )
        const bytes = blob.sizeBytes === 0 ? new Uint8Array() : yield* blob.readBytes(0, blob.sizeBytes)
        const digest = createHash("sha1").update(bytes).digest("hex")
        return { id, sizeBytes: blob.sizeBytes, xattrs: xattrs.toSorted(), digest }
      })
      return yield* Effect.forEach(yield* store.ids, (id) => Effect.scoped(seen(id)))
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
            const { image, violations } = run(planOf(seed, { work: "blobs" }), { image: true })
            assert.deepStrictEqual(violations, [])
            if (image === undefined) throw new Error(`seed ${seed} leaves no image`)
            const portable = yield* see(image, "portable")
            assert.deepStrictEqual(yield* see(image, "libspdk"), portable, `seed ${seed}`)
            blobs += portable.length
          }
          assert.isAbove(blobs, 0)
        }),
      { timeoutMillis: long ? 1_800_000 : 60_000 }
    )
  )
)
