/** Snapshots, clones, and what cuts them loose or ties them together. */
import type * as Blobstore from "@effect-spdk/blobstore/Blobstore"
import * as Bdev from "@effect-spdk/core/Bdev"
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { type BlobSuite, device, during, freshStore, init, load, smallClusters, zeroes } from "../support/blobs.ts"
import { contract, failsWith, fresh, pattern, sameBytes } from "../support/harness.ts"

export const suite: BlobSuite = (name, layer, _capabilities, driver) =>
  contract(name, layer, (check) => {
    const cluster = (index: number, seed: number) => [index * smallClusters, pattern(smallClusters, seed)] as const

    check("a snapshot keeps what the blob had, takes no space, and the blob goes on", () =>
      Effect.gen(function* () {
        const store = yield* freshStore(driver)
        const blob = yield* store.create({ clusters: 4, xattrs: { name: "origin" } })
        const old = pattern(blob.sizeBytes, 1)
        yield* blob.writeBytes(0, old)
        const { freeClusters } = yield* store.info
        const id = yield* store.snapshot(blob.id, { xattrs: { of: "monday" } })
        assert.strictEqual((yield* store.info).freeClusters, freeClusters)
        assert.deepInclude(yield* blob.info, { isClone: true, isThin: true, isSnapshot: false, allocatedClusters: 0 })
        assert.deepStrictEqual((yield* blob.info).parent, { _tag: "Snapshot", id })
        sameBytes(yield* blob.readBytes(0, old.length), old, "the blob through its snapshot")
        const expected = old.slice()
        expected.set(pattern(1000, 2), smallClusters + 77)
        yield* blob.writeBytes(smallClusters + 77, pattern(1000, 2))
        sameBytes(yield* blob.readBytes(0, old.length), expected, "the blob after a write")
        assert.strictEqual((yield* store.info).freeClusters, freeClusters - 1)
        const snapshot = yield* store.open(id)
        assert.deepInclude(yield* snapshot.info, {
          isSnapshot: true,
          isReadOnly: true,
          isClone: false,
          clusters: 4,
          allocatedClusters: 4
        })
        sameBytes(yield* snapshot.readBytes(0, old.length), old, "the snapshot")
        assert.deepStrictEqual([...(yield* snapshot.xattrs.entries).keys()], ["of"])
        assert.deepStrictEqual([...(yield* blob.xattrs.entries).keys()], ["name"])
        yield* failsWith(snapshot.writeBytes(0, pattern(10, 3)), "ReadOnly")
        yield* failsWith(snapshot.resize({ clusters: 5 }), "ReadOnly")
        yield* failsWith(snapshot.xattrs.set("a", "b"), "ReadOnly")
        assert.deepStrictEqual(yield* store.clones(id), [blob.id])
        assert.deepStrictEqual(yield* store.parent(blob.id), { _tag: "Snapshot", id })
        assert.deepStrictEqual(yield* store.parent(id), { _tag: "None" })
      })
    )

    check("a chain of snapshots reads each cluster where it was written last, also after a load", () =>
      Effect.gen(function* () {
        const bdev = yield* device()
        const expected = zeroes(6 * smallClusters)
        const states: Array<readonly [id: number, bytes: Uint8Array]> = []
        const id = yield* during(init(bdev, driver), (store) =>
          Effect.gen(function* () {
            const blob = yield* store.create({ clusters: 6, thin: true })
            for (let round = 1; round <= 4; round++) {
              for (const index of [round, (round * 3) % 6]) {
                const [offset, bytes] = cluster(index, round * 10 + index)
                yield* blob.writeBytes(offset, bytes)
                expected.set(bytes, offset)
              }
              states.push([yield* store.snapshot(blob.id), expected.slice()])
            }
            return blob.id
          })
        )
        const store = yield* load(bdev, driver)
        for (const [snapshot, bytes] of states) {
          const opened = yield* store.open(snapshot)
          sameBytes(yield* opened.readBytes(0, bytes.length), bytes, `snapshot ${snapshot}`)
        }
        const blob = yield* store.open(id)
        sameBytes(yield* blob.readBytes(0, expected.length), expected, "the blob")
        assert.deepStrictEqual(
          yield* Effect.forEach(states, ([snapshot]) => store.parent(snapshot)),
          states.map((_, index): Blobstore.Parent => {
            const before = states[index - 1]
            return before === undefined ? { _tag: "None" } : { _tag: "Snapshot", id: before[0] }
          })
        )
      })
    )

    check("clones of one snapshot go their own ways", () =>
      Effect.gen(function* () {
        const store = yield* freshStore(driver)
        const blob = yield* store.create({ clusters: 3 })
        const base = pattern(blob.sizeBytes, 4)
        yield* blob.writeBytes(0, base)
        const snapshot = yield* store.snapshot(blob.id)
        const ids = yield* Effect.forEach(["a", "b"], (clone) => store.clone(snapshot, { xattrs: { clone } }))
        assert.deepStrictEqual((yield* store.clones(snapshot)).toSorted(), [blob.id, ...ids].toSorted())
        const clones = yield* Effect.forEach(ids, (id) => store.open(id))
        for (const [index, clone] of clones.entries()) yield* clone.writeBytes(...cluster(index, 50 + index))
        for (const [index, clone] of clones.entries()) {
          const expected = base.slice()
          const [offset, bytes] = cluster(index, 50 + index)
          expected.set(bytes, offset)
          sameBytes(yield* clone.readBytes(0, expected.length), expected, `clone ${index}`)
          assert.deepInclude(yield* clone.info, { isClone: true, allocatedClusters: 1 })
        }
        sameBytes(yield* blob.readBytes(0, base.length), base, "the blob")
        yield* failsWith(store.delete(snapshot), "Busy")
        yield* failsWith(store.clone(blob.id), "InvalidArgument")
      })
    )

    check("a snapshot with one clone can be deleted: the clone gets its clusters", () =>
      Effect.gen(function* () {
        const store = yield* freshStore(driver)
        const { freeClusters } = yield* store.info
        const id = yield* store.createId({ clusters: 3 })
        const bytes = pattern(3 * smallClusters, 5)
        yield* during(store.open(id), (blob) => blob.writeBytes(0, bytes))
        const snapshot = yield* store.snapshot(id)
        yield* during(store.open(id), (blob) => blob.writeBytes(...cluster(1, 6)))
        bytes.set(cluster(1, 6)[1], smallClusters)
        yield* store.delete(snapshot)
        assert.deepStrictEqual(yield* store.ids, [id])
        assert.strictEqual((yield* store.info).freeClusters, freeClusters - 3)
        const blob = yield* store.open(id)
        sameBytes(yield* blob.readBytes(0, bytes.length), bytes, "the blob without its snapshot")
        assert.deepInclude(yield* blob.info, { isClone: false, allocatedClusters: 3 })
        assert.deepStrictEqual((yield* blob.info).parent, { _tag: "None" })
      })
    )

    check("sizes that were changed and not synced are whole in a snapshot, also after a load", () =>
      Effect.gen(function* () {
        const bdev = yield* device()
        const [ids, bytes] = yield* during(init(bdev, driver), (store) =>
          Effect.gen(function* () {
            const blob = yield* store.create({ clusters: 4 })
            yield* blob.resize({ clusters: 9 })
            const written = pattern(blob.sizeBytes, 30)
            yield* blob.writeBytes(0, written)
            const large = yield* store.snapshot(blob.id)
            yield* blob.resize({ clusters: 26 })
            yield* blob.resize({ clusters: 5 })
            yield* blob.resize({ clusters: 3 })
            assert.strictEqual((yield* blob.info).clusters, 3)
            return [[large, yield* store.snapshot(blob.id), blob.id], written] as const
          })
        )
        const store = yield* load(bdev, driver)
        for (const [index, id] of ids.entries()) {
          const blob = yield* store.open(id)
          const expected = index === 0 ? bytes : bytes.subarray(0, 3 * smallClusters)
          sameBytes(yield* blob.readBytes(0, blob.sizeBytes), expected, `blob ${index}`)
        }
      })
    )

    check("a snapshot and a clone of another size: neither deleted nor decoupled, but inflated", () =>
      Effect.gen(function* () {
        const bdev = yield* device()
        const [id, bytes] = yield* during(init(bdev, driver), (store) =>
          Effect.gen(function* () {
            const blob = yield* store.create({ clusters: 4, thin: true })
            yield* blob.writeBytes(...cluster(1, 31))
            const snapshot = yield* store.snapshot(blob.id)
            yield* blob.resize({ clusters: 6 })
            yield* blob.writeBytes(...cluster(5, 32))
            yield* failsWith(store.decouple(blob.id), "InvalidArgument", { field: "id" })
            yield* failsWith(store.delete(snapshot), "Busy")
            yield* blob.resize({ clusters: 3 })
            yield* failsWith(store.delete(snapshot), "Busy")
            yield* store.inflate(blob.id)
            yield* store.delete(snapshot)
            return [blob.id, yield* blob.readBytes(0, blob.sizeBytes)] as const
          })
        )
        const store = yield* load(bdev, driver)
        const blob = yield* store.open(id)
        const expected = zeroes(3 * smallClusters)
        expected.set(cluster(1, 31)[1], smallClusters)
        sameBytes(bytes, expected, "before the load")
        sameBytes(yield* blob.readBytes(0, blob.sizeBytes), expected, "after it")
      })
    )

    check("inflate gives a clone everything, decouple only what its parent has", () =>
      Effect.gen(function* () {
        const store = yield* freshStore(driver)
        const make = Effect.gen(function* () {
          const blob = yield* store.create({ clusters: 5, thin: true })
          const expected = zeroes(blob.sizeBytes)
          const write = (index: number, seed: number) => {
            const [offset, bytes] = cluster(index, seed)
            expected.set(bytes, offset)
            return blob.writeBytes(offset, bytes)
          }
          yield* write(0, 7)
          const grandparent = yield* store.snapshot(blob.id)
          yield* write(1, 8)
          const parent = yield* store.snapshot(blob.id)
          yield* write(2, 9)
          return { blob, expected, parent, grandparent }
        })
        const one = yield* make
        yield* store.decouple(one.blob.id)
        assert.deepStrictEqual((yield* one.blob.info).parent, { _tag: "Snapshot", id: one.grandparent })
        assert.strictEqual((yield* one.blob.info).allocatedClusters, 2)
        sameBytes(yield* one.blob.readBytes(0, one.expected.length), one.expected, "the decoupled blob")
        assert.deepStrictEqual(yield* store.clones(one.parent), [])
        assert.deepStrictEqual((yield* store.clones(one.grandparent)).toSorted(), [one.blob.id, one.parent].toSorted())
        const other = yield* make
        yield* store.inflate(other.blob.id)
        assert.deepInclude(yield* other.blob.info, { isClone: false, isThin: false, allocatedClusters: 5 })
        assert.deepStrictEqual((yield* other.blob.info).parent, { _tag: "None" })
        sameBytes(yield* other.blob.readBytes(0, other.expected.length), other.expected, "the inflated blob")
        yield* failsWith(store.decouple(other.blob.id), "InvalidArgument")
      })
    )

    check("inflate on a store without enough room fails with NoSpace and changes nothing", () =>
      Effect.gen(function* () {
        const store = yield* freshStore(driver)
        const blob = yield* store.create({ clusters: 10, thin: true })
        yield* blob.writeBytes(...cluster(0, 10))
        yield* store.createId({ clusters: (yield* store.info).freeClusters - 3 })
        yield* failsWith(store.inflate(blob.id), "NoSpace")
        assert.strictEqual((yield* store.info).freeClusters, 3)
        assert.deepInclude(yield* blob.info, { isThin: true, allocatedClusters: 1 })
        yield* blob.writeBytes(...cluster(1, 11))
      })
    )

    check("setParent ties a thin blob to a snapshot, and refuses what does not fit", () =>
      Effect.gen(function* () {
        const store = yield* freshStore(driver)
        const base = yield* store.create({ clusters: 3 })
        const bytes = pattern(base.sizeBytes, 12)
        yield* base.writeBytes(0, bytes)
        const snapshot = yield* store.snapshot(base.id)
        const child = yield* store.create({ clusters: 3, thin: true })
        yield* child.writeBytes(...cluster(2, 13))
        bytes.set(cluster(2, 13)[1], 2 * smallClusters)
        yield* store.setParent(child.id, snapshot)
        assert.deepStrictEqual((yield* child.info).parent, { _tag: "Snapshot", id: snapshot })
        sameBytes(yield* child.readBytes(0, bytes.length), bytes, "the child")
        yield* failsWith(store.setParent(child.id, snapshot), "AlreadyExists")
        yield* failsWith(store.setParent(child.id, child.id), "InvalidArgument", { field: "snapshot" })
        yield* failsWith(store.setParent(child.id, base.id), "InvalidArgument")
        // Its own child, grandchild and so on.
        const above = yield* store.snapshot(child.id)
        yield* failsWith(store.setParent(above, above), "InvalidArgument", { field: "snapshot" })
        const top = yield* store.snapshot(child.id)
        yield* failsWith(store.setParent(above, top), "InvalidArgument", { rule: "lies on top of the blob" })
        const smaller = yield* store.createId({ clusters: 2, thin: true })
        yield* failsWith(store.setParent(smaller, snapshot), "InvalidArgument")
        const thick = yield* store.createId({ clusters: 3 })
        yield* failsWith(store.setParent(thick, snapshot), "InvalidArgument")
      })
    )

    check("a shallow copy writes the blob's own clusters to a bdev, and tells how far it is", () =>
      Effect.gen(function* () {
        const store = yield* freshStore(driver)
        const blob = yield* store.create({ clusters: 6, thin: true })
        for (const index of [1, 4, 5]) yield* blob.writeBytes(...cluster(index, 20 + index))
        const target = yield* device({ sizeBytes: 6 * smallClusters })
        const mark = pattern(target.sizeBytes, 16)
        yield* target.writeBytes(0, mark)
        yield* failsWith(Stream.runDrain(store.shallowCopy(blob.id, target.name)), "PermissionDenied")
        const snapshot = yield* store.snapshot(blob.id)
        const copyTo = yield* Bdev.createMalloc({
          name: fresh("copy"),
          blockSize: 512,
          numBlocks: (6 * smallClusters) / 512
        })
        const progress = yield* Stream.runCollect(store.shallowCopy(snapshot, copyTo))
        assert.deepStrictEqual(progress.at(-1), { copiedClusters: 3, totalClusters: 3 })
        const copied = yield* Bdev.open(copyTo)
        const expected = zeroes(6 * smallClusters)
        for (const index of [1, 4, 5]) expected.set(cluster(index, 20 + index)[1], index * smallClusters)
        sameBytes(yield* copied.readBytes(0, expected.length), expected, "the copy")
        const small = yield* Bdev.createMalloc({ name: fresh("small"), blockSize: 512, numBlocks: 128 })
        yield* failsWith(Stream.runDrain(store.shallowCopy(snapshot, small)), "InvalidArgument")
        yield* failsWith(Stream.runDrain(store.shallowCopy(snapshot, fresh("nobody"))), "NotFound")
      })
    )
  })
