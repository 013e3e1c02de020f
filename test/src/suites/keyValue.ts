/** `BlobKeyValueStore` as programs use it: Effect's own semantics of a `KeyValueStore`, and what survives. */
import * as BlobKeyValueStore from "@effect-spdk/blobstore/BlobKeyValueStore"
import * as Blobstore from "@effect-spdk/blobstore/Blobstore"
import type * as Bdev from "@effect-spdk/core/Bdev"
import * as SpdkError from "@effect-spdk/core/SpdkError"
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Base64 from "effect/encoding/Base64"
import * as Fiber from "effect/Fiber"
import * as KeyValueStore from "effect/persistence/KeyValueStore"
import * as Schema from "effect/Schema"
import { type BlobSuite, device, during, init, KiB, load, MiB } from "../support/blobs.ts"
import { long } from "../support/engines.ts"
import { contract, failsWith, pattern, sameBytes } from "../support/harness.ts"
import { seeded } from "../support/random.ts"

/** Small, so that few values make many segments. */
const small = { segmentSize: 64 * KiB, largeValueSize: 8 * KiB }

const openOn = (store: Blobstore.Blobstore, options: BlobKeyValueStore.Options = {}) =>
  Effect.provideService(BlobKeyValueStore.make({ ...small, ...options }), Blobstore.Blobstore, store)

export const suite: BlobSuite = (name, layer, _capabilities, driver) =>
  contract(name, layer, (check) => {
    const freshStore = Effect.flatMap(device({ sizeBytes: 16 * MiB }), (bdev) => init(bdev, driver))
    const fresh = Effect.flatMap(freshStore, openOn)

    /** One life of a key-value store on a device that lives on. */
    const life = <A, E, R>(
      bdev: Bdev.Bdev,
      how: "init" | "load",
      use: (kv: KeyValueStore.KeyValueStore, store: Blobstore.Blobstore) => Effect.Effect<A, E, R>
    ) =>
      during(how === "init" ? init(bdev, driver) : load(bdev, driver), (store) =>
        during(openOn(store), (kv) => use(kv, store))
      )

    check("what is set is got, and counted once however often it is set", () =>
      Effect.gen(function* () {
        const kv = yield* fresh
        assert.isTrue(yield* kv.isEmpty)
        yield* kv.set("key", "value")
        assert.strictEqual(yield* kv.get("key"), "value")
        assert.strictEqual(yield* kv.size, 1)
        yield* kv.set("key", "value-2")
        assert.strictEqual(yield* kv.get("key"), "value-2")
        assert.strictEqual(yield* kv.size, 1)
        assert.isFalse(yield* kv.isEmpty)
        assert.isTrue(yield* kv.has("key"))
        assert.isFalse(yield* kv.has("other"))
        assert.deepStrictEqual(yield* kv.keys, ["key"])
      })
    )

    check("bytes come back as bytes, and as Base64 where a string is asked for", () =>
      Effect.gen(function* () {
        const kv = yield* fresh
        const bytes = new Uint8Array([0, 42, 255, 128])
        yield* kv.set("binary", bytes)
        assert.strictEqual(yield* kv.get("binary"), Base64.encode(bytes))
        assert.deepStrictEqual(yield* kv.getUint8Array("binary"), bytes)
      })
    )

    check("a string that looks like Base64 is that string", () =>
      Effect.gen(function* () {
        const kv = yield* fresh
        yield* kv.set("string", "Zm9v")
        assert.strictEqual(yield* kv.get("string"), "Zm9v")
        assert.deepStrictEqual(yield* kv.getUint8Array("string"), new TextEncoder().encode("Zm9v"))
      })
    )

    check("what is removed is gone, and removing what is not there is no error", () =>
      Effect.gen(function* () {
        const kv = yield* fresh
        yield* kv.set("a", "1")
        yield* kv.remove("a")
        yield* kv.remove("a")
        assert.strictEqual(yield* kv.get("a"), undefined)
        assert.strictEqual(yield* kv.getUint8Array("a"), undefined)
        assert.strictEqual(yield* kv.size, 0)
      })
    )

    check("clear takes everything, clearPrefix what starts so", () =>
      Effect.gen(function* () {
        const kv = yield* fresh
        for (const key of ["a/1", "a/2", "b/1"]) yield* kv.set(key, key)
        yield* kv.clearPrefix("a/")
        assert.deepStrictEqual(yield* kv.keys, ["b/1"])
        yield* kv.set("large", "x".repeat(50_000))
        yield* kv.clear
        assert.strictEqual(yield* kv.size, 0)
        assert.strictEqual(yield* kv.get("b/1"), undefined)
        yield* kv.set("b/1", "again")
        assert.strictEqual(yield* kv.get("b/1"), "again")
      })
    )

    check("modify changes what is there, answers undefined where nothing is, and loses no change", () =>
      Effect.gen(function* () {
        const kv = yield* fresh
        assert.strictEqual(yield* kv.modify("count", (value) => `${value}!`), undefined)
        assert.isFalse(yield* kv.has("count"))
        yield* kv.set("count", "0")
        const increment = kv.modify("count", (value) => String(Number(value) + 1))
        yield* Effect.all(
          Array.from({ length: 20 }, () => increment),
          { concurrency: "unbounded" }
        )
        assert.strictEqual(yield* kv.get("count"), "20")
        yield* kv.set("bytes", new Uint8Array([1, 2]))
        yield* kv.modifyUint8Array("bytes", (bytes) => bytes.map((byte) => byte * 2))
        assert.deepStrictEqual(yield* kv.getUint8Array("bytes"), new Uint8Array([2, 4]))
      })
    )

    check("prefixes and schemas of Effect work on it", () =>
      Effect.gen(function* () {
        const kv = yield* fresh
        const users = KeyValueStore.toSchemaStore(
          KeyValueStore.prefix(kv, "user/"),
          Schema.Struct({ name: Schema.String, age: Schema.Number })
        )
        yield* users.set("1", { name: "Ada", age: 36 })
        assert.isTrue(yield* kv.has("user/1"))
        const found = yield* users.get("1")
        assert.deepStrictEqual(found._tag === "Some" ? found.value : found, { name: "Ada", age: 36 })
      })
    )

    check("any string is a key, up to its limit, and a longer one is refused", () =>
      Effect.gen(function* () {
        const kv = yield* fresh
        const keys = ["", "a\0b", "ключ", "\ud800", "\ufeff", "../../etc", "k".repeat(BlobKeyValueStore.maxKeyBytes)]
        for (const key of keys) yield* kv.set(key, `of ${key}`)
        for (const key of keys) assert.strictEqual(yield* kv.get(key), `of ${key}`)
        assert.strictEqual(yield* kv.size, keys.length)
        const error = yield* Effect.flip(kv.set("k".repeat(BlobKeyValueStore.maxKeyBytes + 1), ""))
        assert.strictEqual(error.method, "set")
        assert.isTrue(SpdkError.isSpdkError(error.cause) && error.cause.reason._tag === "InvalidArgument")
      })
    )

    check("values of every size are there in the next life, and the store unloads clean", () =>
      Effect.gen(function* () {
        const bdev = yield* device({ sizeBytes: 16 * MiB })
        const sizes = [0, 1, 100, 4095, 4096, 8 * KiB - 1, 8 * KiB, 65_536, 300_000, 2 * MiB + 1]
        yield* life(bdev, "init", (kv) =>
          Effect.forEach(sizes, (size) => kv.set(`size ${size}`, pattern(size, size)), { concurrency: "unbounded" })
        )
        yield* life(bdev, "load", (kv) =>
          Effect.gen(function* () {
            assert.strictEqual(yield* kv.size, sizes.length)
            for (const size of sizes) {
              const bytes = yield* kv.getUint8Array(`size ${size}`)
              sameBytes(bytes ?? new Uint8Array(0), pattern(size, size), `the value of ${size} bytes`)
            }
          })
        )
      })
    )

    check("stores of several names, and blobs of nobody's, live side by side", () =>
      Effect.gen(function* () {
        const store = yield* freshStore
        const blob = yield* store.create({ clusters: 1, xattrs: { name: "mine" } })
        const one = yield* openOn(store, { name: "one" })
        const two = yield* openOn(store, { name: "two" })
        yield* one.set("key", "1")
        yield* two.set("key", "2")
        yield* one.clear
        assert.strictEqual(yield* two.get("key"), "2")
        assert.include(yield* store.ids, blob.id)
        yield* failsWith(Effect.scoped(openOn(store, { name: "one" })), "Busy", { resource: "one" })
      })
    )

    check("a store is found again by any name", () =>
      Effect.gen(function* () {
        const store = yield* freshStore
        for (const name of ["\ufeffmark", "mark", "n\0n", "\u00e9"]) {
          yield* during(openOn(store, { name }), (kv) => kv.set("key", name))
        }
        for (const name of ["\ufeffmark", "mark", "n\0n", "\u00e9"]) {
          yield* during(openOn(store, { name }), (kv) =>
            Effect.map(kv.get("key"), (value) => assert.strictEqual(value, name))
          )
        }
      })
    )

    check("more values than a segment holds are set at the same time", () =>
      Effect.gen(function* () {
        const kv = yield* fresh
        const keys = Array.from({ length: 200 }, (_, index) => `key ${index}`)
        yield* Effect.forEach(keys, (key) => kv.set(key, key.repeat(150)), { concurrency: "unbounded", discard: true })
        for (const key of keys) assert.strictEqual(yield* kv.get(key), key.repeat(150))
      })
    )

    check("a store opens while another one deletes blobs, and does not keep it from that", () =>
      Effect.gen(function* () {
        const store = yield* freshStore
        const busy = yield* openOn(store, { name: "busy" })
        const large = pattern(20_000, 1)
        const keys = Array.from({ length: 16 }, (_, index) => `key ${index}`)
        const setAll = Effect.forEach(keys, (key) => busy.set(key, large), { concurrency: 4, discard: true })
        yield* setAll
        const before = (yield* store.ids).length
        const writer = yield* Effect.forkChild(Effect.forever(setAll), { startImmediately: true })
        for (let round = 0; round < 40; round++) yield* Effect.scoped(openOn(store, { name: "other" }))
        yield* Fiber.interrupt(writer)
        // What was begun ends before this does.
        yield* busy.set("last", "change")
        // The other one has left its spare segment, and the log may have one more.
        assert.isAtMost((yield* store.ids).length, before + 2)
      })
    )

    check("options that cannot be are refused", () =>
      Effect.gen(function* () {
        const store = yield* freshStore
        const refused = (options: BlobKeyValueStore.Options, field: string) =>
          failsWith(Effect.scoped(openOn(store, options)), "InvalidArgument", { field })
        yield* refused({ name: "" }, "name")
        yield* refused({ name: "n".repeat(256) }, "name")
        yield* refused({ name: "\ud800" }, "name")
        yield* refused({ segmentSize: "1 KiB" }, "segmentSize")
        yield* refused({ largeValueSize: "32 KiB" }, "largeValueSize")
        yield* refused({ garbageRatio: 0 }, "garbageRatio")
        yield* openOn(store, { name: "fine", garbageRatio: 0.9, largeValueSize: "16 KiB" })
      })
    )

    check("a full device refuses sets, goes on removing, and then sets again", () =>
      Effect.gen(function* () {
        const store = yield* Effect.flatMap(device({ sizeBytes: 2 * MiB }), (bdev) => init(bdev, driver))
        const kv = yield* openOn(store)
        let count = 0
        let tag: string | undefined
        while (tag === undefined && count < 2000) {
          const exit = yield* Effect.result(kv.set(`key ${count}`, pattern(3000, count)))
          if (exit._tag === "Success") count++
          else tag = SpdkError.isSpdkError(exit.failure.cause) ? exit.failure.cause.reason._tag : "other"
        }
        assert.strictEqual(tag, "NoSpace")
        for (let index = 0; index < count; index++) yield* kv.remove(`key ${index}`)
        assert.isTrue(yield* kv.isEmpty)
        for (let index = 0; index < 20; index++) yield* kv.set(`again ${index}`, pattern(3000, index))
      })
    )

    check("a full device without a spare segment is cleared, for good", () =>
      Effect.gen(function* () {
        const bdev = yield* device({ sizeBytes: 2 * MiB })
        yield* life(bdev, "init", (kv, store) =>
          Effect.gen(function* () {
            const fill = (at: number): Effect.Effect<number> =>
              Effect.flatMap(Effect.exit(kv.set(`key ${at}`, pattern(3000, at))), (exit) =>
                exit._tag === "Success" ? fill(at + 1) : Effect.succeed(at)
              )
            yield* fill(0)
            // Somebody else takes what there is left, and what the key-value store gives back.
            yield* store.createId({ clusters: (yield* store.info).freeClusters })
            const removeAll = (at: number): Effect.Effect<unknown> =>
              Effect.flatMap(Effect.exit(kv.remove(`key ${at}`)), (exit) =>
                exit._tag === "Success" && at < 200 ? removeAll(at + 7) : Effect.void
              )
            yield* removeAll(0)
            yield* store.createId({ clusters: (yield* store.info).freeClusters })
            yield* kv.clear
            assert.isTrue(yield* kv.isEmpty)
            yield* kv.set("again", "value")
          })
        )
        yield* life(bdev, "load", (kv) => Effect.map(kv.keys, (keys) => assert.deepStrictEqual(keys, ["again"])))
      })
    )

    check(
      "does what a Map does, from life to life, with many fibers at once",
      () =>
        seeded((random) =>
          Effect.gen(function* () {
            const bdev = yield* device({ sizeBytes: 16 * MiB })
            const model = new Map<string, Uint8Array>()
            const round = (kv: KeyValueStore.KeyValueStore) =>
              Effect.gen(function* () {
                const keys = new Set(Array.from({ length: 1 + random.below(8) }, () => `key ${random.below(40)}`))
                const calls = [...keys].map((key) => {
                  if (random.chance(0.3)) {
                    model.delete(key)
                    return kv.remove(key)
                  }
                  const value = pattern(random.chance(0.1) ? random.below(60_000) : random.below(3000), random.word())
                  model.set(key, value)
                  return kv.set(key, value)
                })
                yield* Effect.all(calls, { concurrency: "unbounded", discard: true })
                if (random.chance(0.01)) {
                  model.clear()
                  yield* kv.clear
                }
                const key = random.pick([...keys])
                assert.deepStrictEqual(yield* kv.getUint8Array(key), model.get(key))
              })
            const lives = long ? 30 : 4
            for (let index = 0; index < lives; index++) {
              yield* life(bdev, index === 0 ? "init" : "load", (kv) =>
                Effect.gen(function* () {
                  assert.deepStrictEqual([...(yield* kv.keys)].toSorted(), [...model.keys()].toSorted())
                  for (const [key, value] of model) {
                    sameBytes((yield* kv.getUint8Array(key)) ?? new Uint8Array(0), value, key)
                  }
                  for (let step = 0; step < 60; step++) yield* round(kv)
                })
              )
            }
          })
        ),
      { timeoutMillis: 120_000 }
    )
  })
