/** What a blob carries besides its bytes: size, xattrs, the read-only flag; and the super blob of the store. */
import { assert } from "@effect/vitest"
import * as DmaBuffer from "@effect-spdk/core/DmaBuffer"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { type BlobSuite, closable, device, during, freshStore, init, load, smallClusters } from "../support/blobs.ts"
import { contract, failsWith, pattern, sameBytes } from "../support/harness.ts"

const Photo = Schema.Struct({ name: Schema.String, taken: Schema.Date, tags: Schema.Array(Schema.String) })

export const suite: BlobSuite = (name, layer, _capabilities, driver) =>
  contract(name, layer, (check) => {
    check("xattrs are set, replaced, removed and listed, and are there after a load", () =>
      Effect.gen(function* () {
        const bdev = yield* device()
        const id = yield* during(init(bdev, driver), (store) =>
          Effect.gen(function* () {
            const blob = yield* store.create({
              clusters: 1,
              xattrs: [
                ["first", "1"],
                ["gone", new Uint8Array(3)]
              ]
            })
            yield* blob.xattrs.set("second", pattern(2000, 1))
            yield* blob.xattrs.set("third", pattern(3000, 2))
            yield* blob.xattrs.set("first", "one")
            yield* blob.xattrs.set("empty", new Uint8Array(0))
            yield* blob.xattrs.set("größe", "fünf")
            yield* blob.xattrs.remove("gone")
            yield* failsWith(blob.xattrs.remove("gone"), "NotFound")
            assert.isTrue(Option.isNone(yield* blob.xattrs.get("gone")))
            yield* blob.sync
            yield* blob.xattrs.set("late", "written when the blob closes")
            return blob.id
          })
        )
        const store = yield* load(bdev, driver)
        const blob = yield* store.open(id)
        const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes)
        const entries = yield* blob.xattrs.entries
        assert.deepStrictEqual([...entries.keys()].toSorted(), ["empty", "first", "größe", "late", "second", "third"])
        assert.strictEqual(text(entries.get("first") ?? pattern(1, 1)), "one")
        assert.strictEqual(text(entries.get("größe") ?? pattern(1, 1)), "fünf")
        assert.strictEqual(entries.get("empty")?.length, 0)
        sameBytes(Option.getOrThrow(yield* blob.xattrs.get("second")), pattern(2000, 1), "a large xattr")
        sameBytes(Option.getOrThrow(yield* blob.xattrs.get("third")), pattern(3000, 2), "a larger one")
      })
    )

    check("what is got from xattrs is a copy, and so is what was set", () =>
      Effect.gen(function* () {
        const store = yield* freshStore(driver)
        const mine = pattern(10, 3)
        const blob = yield* store.create({ xattrs: { a: mine } })
        mine.fill(0)
        const got = Option.getOrThrow(yield* blob.xattrs.get("a"))
        sameBytes(got, pattern(10, 3), "after the caller changed its own")
        got.fill(0)
        sameBytes(Option.getOrThrow(yield* blob.xattrs.get("a")), pattern(10, 3), "after the reader changed its own")
      })
    )

    check("hundreds of xattrs make a chain of pages", () =>
      Effect.gen(function* () {
        const bdev = yield* device()
        const names = Array.from({ length: 300 }, (_, index) => `xattr number ${index}`)
        const id = yield* during(init(bdev, driver), (store) =>
          Effect.gen(function* () {
            const blob = yield* store.create({ clusters: 3 })
            for (const [index, one] of names.entries()) yield* blob.xattrs.set(one, pattern(100, index))
            yield* blob.sync
            for (const one of names.slice(0, 250)) yield* blob.xattrs.remove(one)
            return blob.id
          })
        )
        const store = yield* load(bdev, driver)
        const blob = yield* store.open(id)
        const entries = yield* blob.xattrs.entries
        assert.deepStrictEqual([...entries.keys()].toSorted(), names.slice(250).toSorted())
        for (const [index, one] of names.entries()) {
          if (index >= 250) sameBytes(entries.get(one) ?? new Uint8Array(0), pattern(100, index), one)
        }
      })
    )

    check("a schema codes an xattr as JSON", () =>
      Effect.gen(function* () {
        const store = yield* freshStore(driver)
        const blob = yield* store.create()
        const photo = blob.xattrs.schema("photo", Photo)
        assert.isTrue(Option.isNone(yield* photo.get))
        const value = { name: "photo.jpg", taken: new Date(1_700_000_000_000), tags: ["a", "b"] }
        yield* photo.set(value)
        assert.deepStrictEqual(Option.getOrThrow(yield* photo.get), value)
        yield* blob.xattrs.set("photo", "no JSON")
        const exit = yield* Effect.exit(photo.get)
        assert.include(JSON.stringify(exit), "SchemaError")
        // As large as the xattr with its name can be, and one more.
        const most = 4063 - "photo".length
        yield* blob.xattrs.set("photo", "x".repeat(most))
        yield* failsWith(blob.xattrs.set("photo", "x".repeat(most + 1)), "InvalidArgument", { field: "value" })
        yield* failsWith(photo.set({ ...value, name: "x".repeat(5000) }), "InvalidArgument")
      })
    )

    check("resizes up and down; what is cut off is gone and its clusters are free", () =>
      Effect.gen(function* () {
        const bdev = yield* device()
        const bytes = pattern(3 * smallClusters, 4)
        const [id, free] = yield* during(init(bdev, driver), (store) =>
          Effect.gen(function* () {
            const { freeClusters } = yield* store.info
            const blob = yield* store.create({ clusters: 1 })
            yield* blob.resize({ clusters: 5 })
            assert.strictEqual(blob.sizeBytes, 5 * smallClusters)
            yield* blob.writeBytes(0, bytes)
            yield* blob.resize(4 * smallClusters - 100)
            yield* blob.resize(3 * smallClusters - 100)
            assert.strictEqual((yield* blob.info).allocatedClusters, 3)
            assert.strictEqual(blob.sizeBytes, 3 * smallClusters)
            assert.strictEqual((yield* store.info).freeClusters, freeClusters - 3)
            yield* failsWith(blob.readBytes(3 * smallClusters - 1, 2), "InvalidArgument", { field: "lengthBytes" })
            yield* failsWith(blob.resize({ clusters: freeClusters + 1 }), "NoSpace")
            assert.strictEqual(blob.sizeBytes, 3 * smallClusters)
            assert.strictEqual((yield* store.info).freeClusters, freeClusters - 3)
            yield* blob.resize("192 KiB")
            return [blob.id, freeClusters - 3] as const
          })
        )
        const store = yield* load(bdev, driver)
        assert.strictEqual((yield* store.info).freeClusters, free)
        const blob = yield* store.open(id)
        assert.strictEqual(blob.sizeBytes, 3 * smallClusters)
        sameBytes(yield* blob.readBytes(0, bytes.length), bytes, "what is left")
        yield* blob.resize(0)
        assert.strictEqual((yield* store.info).freeClusters, free + 3)
        yield* failsWith(blob.readBytes(0, 1), "InvalidArgument")
      })
    )

    check("resizes while others write: writes inside both sizes are never lost", () =>
      Effect.gen(function* () {
        const store = yield* freshStore(driver)
        const blob = yield* store.create({ clusters: 4 })
        const writes = Effect.forEach(
          Array.from({ length: 40 }, (_, index) => index),
          (index) => blob.writeBytes(index * 3000, pattern(3000, index)),
          { concurrency: 8, discard: true }
        )
        const resizes = Effect.forEach([8, 4, 20, 6, 4], (clusters) => blob.resize({ clusters }), { discard: true })
        yield* Effect.all([writes, resizes], { concurrency: "unbounded" })
        for (let index = 0; index < 40; index++) {
          sameBytes(yield* blob.readBytes(index * 3000, 3000), pattern(3000, index), `write ${index}`)
        }
        assert.strictEqual(blob.sizeBytes, 4 * smallClusters)
      })
    )

    check("errors have one name for a blob and for an operation, whoever finds them", () =>
      Effect.gen(function* () {
        const bdev = yield* device()
        const store = yield* init(bdev, driver)
        const blob = yield* store.create({ clusters: 2, thin: true })
        const resource = `${bdev.name}/0x${blob.id.toString(16)}`
        const at = (operation: string) => ({ operation, resource })
        yield* failsWith(blob.readBytes(-1, 1), "InvalidArgument", at("Blob.readBytes"))
        const buffer = yield* DmaBuffer.make(512)
        yield* failsWith(blob.read(blob.sizeBytes, buffer), "InvalidArgument", at("Blob.read"))
        yield* failsWith(blob.write(1, buffer), "InvalidArgument", at("Blob.write"))
        yield* failsWith(blob.xattrs.set("", "x"), "InvalidArgument", at("Blob.xattrs.set"))
        yield* failsWith(blob.xattrs.remove("none"), "NotFound", at("Blob.xattrs.remove"))
        yield* failsWith(store.delete(blob.id), "Busy", at("Blobstore.delete"))
        yield* failsWith(store.decouple(blob.id), "InvalidArgument", at("Blobstore.decouple"))
        yield* failsWith(store.clone(blob.id), "InvalidArgument", at("Blobstore.clone"))
        yield* blob.setReadOnly
        yield* blob.sync
        yield* failsWith(blob.write(0, buffer), "ReadOnly", at("Blob.write"))
        yield* failsWith(blob.xattrs.set("a", "b"), "ReadOnly", at("Blob.xattrs.set"))
        yield* failsWith(blob.resize({ clusters: 3 }), "ReadOnly", at("Blob.resize"))
        const unknown = blob.id + 7
        const nobody = `${bdev.name}/0x${unknown.toString(16)}`
        yield* failsWith(store.open(unknown), "NotFound", { operation: "Blobstore.open", resource: nobody })
        yield* failsWith(store.delete(unknown), "NotFound", { operation: "Blobstore.delete", resource: nobody })
      })
    )

    check("a blob becomes read-only with sync, for good", () =>
      Effect.gen(function* () {
        const bdev = yield* device()
        const id = yield* during(init(bdev, driver), (store) =>
          Effect.gen(function* () {
            const blob = yield* store.create({ clusters: 2, xattrs: { a: "b" } })
            yield* blob.writeBytes(0, pattern(1000, 5))
            yield* blob.setReadOnly
            yield* blob.sync
            assert.isTrue((yield* blob.info).isReadOnly)
            yield* failsWith(blob.writeBytes(0, pattern(512, 6)), "ReadOnly")
            yield* failsWith(blob.writeZeroes(0, 512), "ReadOnly")
            yield* failsWith(blob.unmap(0, 512), "ReadOnly")
            yield* failsWith(blob.resize({ clusters: 3 }), "ReadOnly")
            yield* failsWith(blob.xattrs.set("a", "c"), "ReadOnly")
            yield* failsWith(blob.xattrs.remove("a"), "ReadOnly")
            yield* blob.setReadOnly
            yield* blob.sync
            return blob.id
          })
        )
        const store = yield* load(bdev, driver)
        const blob = yield* closable(store.open(id))
        assert.isTrue((yield* blob.resource.info).isReadOnly)
        sameBytes(yield* blob.resource.readBytes(0, 1000), pattern(1000, 5), "the read-only blob")
        yield* failsWith(blob.resource.writeBytes(0, pattern(512, 6)), "ReadOnly")
        yield* blob.close
        yield* store.delete(id)
      })
    )

    check("the super blob is set, replaced and taken away", () =>
      Effect.gen(function* () {
        const bdev = yield* device()
        const ids = yield* during(init(bdev, driver), (store) =>
          Effect.gen(function* () {
            const made = yield* Effect.forEach([1, 2], () => store.createId({ clusters: 1 }))
            for (const id of made) {
              yield* store.setSuperBlob(id)
              assert.strictEqual(yield* store.superBlob, id)
            }
            return made
          })
        )
        yield* during(load(bdev, driver), (store) =>
          Effect.gen(function* () {
            assert.strictEqual(yield* store.superBlob, ids[1])
            yield* store.setSuperBlob(undefined)
            assert.isUndefined(yield* store.superBlob)
          })
        )
        const store = yield* load(bdev, driver)
        assert.isUndefined(yield* store.superBlob)
      })
    )
  })
