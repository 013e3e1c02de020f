/** Blobs over another bdev that is not there any more. */
import type { Blob } from "@effect-spdk/blobstore/Blob"
import type * as Blobstore from "@effect-spdk/blobstore/Blobstore"
import * as Bdev from "@effect-spdk/core/Bdev"
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { type BlobSuite, closable, device, during, freshStore, init, load, smallClusters } from "../support/blobs.ts"
import { contract, failsWith, fresh, pattern, sameBytes } from "../support/harness.ts"

const clusters = 4

/** A bdev of four clusters that can be taken away. */
const external = Effect.gen(function* () {
  const bytes = pattern(clusters * smallClusters, 14)
  const numBlocks = bytes.length / 512
  const { close, resource: name } = yield* closable(
    Bdev.createMalloc({ name: fresh("base"), blockSize: 512, numBlocks })
  )
  yield* during(Bdev.open(name, { write: true }), (bdev) => bdev.writeBytes(0, bytes))
  return { name, bytes, takeAway: close }
})

const piece = (cluster: number, seed: number) => ({
  offset: cluster * smallClusters + 10,
  bytes: pattern(700, seed)
})
const inCluster0 = piece(0, 41)
const inCluster1 = piece(1, 42)

type Piece = typeof inCluster0

const write = (store: Blobstore.Blobstore, id: number, { bytes, offset }: Piece) =>
  during(store.open(id), (blob) => blob.writeBytes(offset, bytes))

const reads = (blob: Blob, { bytes, offset }: Piece) =>
  Effect.map(blob.readBytes(offset, bytes.length), (read) => sameBytes(read, bytes, `at ${offset}`))

export const suite: BlobSuite = (name, layer, _capabilities, driver) =>
  contract(name, layer, (check) => {
    check("a blob whose bdev is gone is listed, described and deleted, and not opened", () =>
      Effect.gen(function* () {
        const { name: other, takeAway } = yield* external
        const bdev = yield* device()
        const id = yield* during(init(bdev, driver), (store) => store.createId({ clusters, externalSnapshot: other }))
        yield* takeAway
        const store = yield* load(bdev, driver)
        assert.deepStrictEqual(yield* store.ids, [id])
        assert.deepStrictEqual(yield* store.parent(id), { _tag: "External", bdev: other })
        assert.deepStrictEqual(yield* store.clones(id), [])
        // Whoever opens it wants to read it.
        yield* failsWith(store.open(id), "NotFound")
        yield* store.delete(id)
        assert.deepStrictEqual(yield* store.ids, [])
      })
    )

    /** A blob on a snapshot over a bdev: cluster 0 is the snapshot's, cluster 1 the blob's, the others are gone. */
    const degraded = Effect.gen(function* () {
      const { name: other, takeAway } = yield* external
      const bdev = yield* device()
      const { id, snapshot } = yield* during(init(bdev, driver), (made) =>
        Effect.gen(function* () {
          const blob = yield* made.createId({ clusters, externalSnapshot: other, xattrs: { name: "degraded" } })
          yield* write(made, blob, inCluster0)
          const below = yield* made.snapshot(blob)
          yield* write(made, blob, inCluster1)
          return { id: blob, snapshot: below }
        })
      )
      yield* takeAway
      return { bdev, id, snapshot, other, store: yield* load(bdev, driver) }
    })

    check("what lies on a snapshot over it is opened, and has what is its own and the snapshot's", () =>
      Effect.gen(function* () {
        const { id, other, snapshot, store } = yield* degraded
        const blob = yield* store.open(id)
        assert.strictEqual(Buffer.from(Option.getOrThrow(yield* blob.xattrs.get("name"))).toString(), "degraded")
        assert.deepStrictEqual((yield* blob.info).parent, { _tag: "Snapshot", id: snapshot })
        assert.deepStrictEqual(yield* store.parent(snapshot), { _tag: "External", bdev: other })
        yield* reads(blob, inCluster0)
        yield* reads(blob, inCluster1)
        yield* failsWith(blob.readBytes(2 * smallClusters, 512), "IoFailed")
        // A read that only in part is of what is gone fails too.
        yield* failsWith(blob.readBytes(smallClusters, 2 * smallClusters), "IoFailed")
        // The cluster cannot be copied first.
        yield* failsWith(blob.writeBytes(2 * smallClusters, pattern(512, 3)), "IoFailed")
        assert.strictEqual((yield* blob.info).allocatedClusters, 1)
        const again = { ...inCluster0, bytes: pattern(700, 43) }
        yield* blob.writeBytes(again.offset, again.bytes)
        yield* reads(blob, again)
        yield* blob.xattrs.set("more", "text")
        yield* blob.sync
        assert.strictEqual((yield* blob.info).allocatedClusters, 2)
      })
    )

    check("it is not inflated, nor decoupled, and what it has stays", () =>
      Effect.gen(function* () {
        const { id, other, snapshot, store } = yield* degraded
        yield* failsWith(store.inflate(id), "IoFailed")
        yield* failsWith(store.decouple(id), "NotFound")
        const blob = yield* store.open(id)
        yield* reads(blob, inCluster0)
        yield* reads(blob, inCluster1)
        assert.deepStrictEqual(yield* store.parent(id), { _tag: "Snapshot", id: snapshot })
        yield* failsWith(store.inflate(snapshot), "IoFailed")
        yield* failsWith(store.decouple(snapshot), "IoFailed")
        assert.deepStrictEqual(yield* store.parent(snapshot), { _tag: "External", bdev: other })
      })
    )

    check("a blob that cannot be opened is snapshotted, and lies on the snapshot then", () =>
      Effect.gen(function* () {
        const { name: other, takeAway } = yield* external
        const store = yield* freshStore(driver)
        const id = yield* store.createId({ clusters, externalSnapshot: other })
        yield* write(store, id, inCluster0)
        yield* takeAway
        yield* failsWith(store.open(id), "NotFound")
        const snapshot = yield* store.snapshot(id)
        assert.deepStrictEqual(yield* store.parent(snapshot), { _tag: "External", bdev: other })
        assert.deepStrictEqual(yield* store.parent(id), { _tag: "Snapshot", id: snapshot })
        const blob = yield* store.open(id)
        yield* reads(blob, inCluster0)
        yield* failsWith(blob.readBytes(smallClusters, 512), "IoFailed")
      })
    )

    check("another bdev is put under it, and it is whole again", () =>
      Effect.gen(function* () {
        const first = yield* external
        const second = yield* external
        const store = yield* freshStore(driver)
        const id = yield* store.createId({ clusters, externalSnapshot: first.name })
        yield* write(store, id, inCluster0)
        yield* first.takeAway
        yield* store.setExternalParent(id, second.name)
        const expected = second.bytes.slice()
        // What lay around the piece is of the first bdev, and of the same bytes.
        expected.set(inCluster0.bytes, inCluster0.offset)
        const blob = yield* store.open(id)
        sameBytes(yield* blob.readBytes(0, expected.length), expected, "over the other bdev")
      })
    )

    check("a snapshot over it is not deleted from under its clone, until another bdev is under it", () =>
      Effect.gen(function* () {
        const { id, other, snapshot, store } = yield* degraded
        yield* failsWith(store.delete(snapshot), "NotFound")
        assert.deepStrictEqual(yield* store.parent(id), { _tag: "Snapshot", id: snapshot })
        assert.deepStrictEqual(yield* store.parent(snapshot), { _tag: "External", bdev: other })
        const back = yield* external
        yield* store.setExternalParent(snapshot, back.name)
        yield* store.delete(snapshot)
        assert.deepStrictEqual(yield* store.parent(id), { _tag: "External", bdev: back.name })
        const expected = back.bytes.slice()
        for (const { bytes, offset } of [inCluster0, inCluster1]) expected.set(bytes, offset)
        const blob = yield* store.open(id)
        sameBytes(yield* blob.readBytes(0, expected.length), expected, "over the other bdev")
      })
    )

    check("a blob that is read through while its bdev goes fails where it has nothing of its own", () =>
      Effect.gen(function* () {
        const { name: other, takeAway } = yield* external
        const store = yield* freshStore(driver)
        const blob = yield* store.create({ clusters, externalSnapshot: other })
        yield* blob.writeBytes(inCluster0.offset, inCluster0.bytes)
        yield* takeAway
        yield* failsWith(blob.readBytes(smallClusters, 512), "IoFailed")
        yield* failsWith(blob.writeBytes(smallClusters, pattern(512, 3)), "IoFailed")
        yield* reads(blob, inCluster0)
        const snapshot = yield* store.snapshot(blob.id)
        yield* reads(blob, inCluster0)
        yield* failsWith(blob.readBytes(smallClusters, 512), "IoFailed")
        assert.deepStrictEqual(yield* store.parent(snapshot), { _tag: "External", bdev: other })
      })
    )
  })
