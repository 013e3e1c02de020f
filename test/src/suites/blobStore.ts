/** The life of a store and of its blobs: made, loaded, shared, closed, deleted. */
import type * as Blob from "@effect-spdk/blobstore/Blob"
import * as Blobstore from "@effect-spdk/blobstore/Blobstore"
import * as Bdev from "@effect-spdk/core/Bdev"
import * as Rpc from "@effect-spdk/core/Rpc"
import * as Spdk from "@effect-spdk/core/Spdk"
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Stream from "effect/Stream"
import {
  type BlobSuite,
  closable,
  device,
  during,
  freshStore,
  init,
  KiB,
  load,
  MiB,
  smallClusters
} from "../support/blobs.ts"
import { scratchFile } from "../support/engines.ts"
import { contract, failsWith, fresh, pattern, sameBytes, until } from "../support/harness.ts"
import { truncateSync } from "node:fs"

const zeroStart = (bdev: Bdev.Bdev) => bdev.writeBytes(0, new Uint8Array(4096))

export const suite: BlobSuite = (name, layer, capabilities, driver) =>
  contract(name, layer, (check) => {
    check("a fresh store tells what it is", () =>
      Effect.gen(function* () {
        const store = yield* freshStore(driver, { sizeBytes: 8 * MiB, store: { type: "TEST" } })
        assert.strictEqual(store.driver, driver)
        const info = yield* store.info
        assert.strictEqual(info.type, "TEST")
        assert.strictEqual(info.clusterSizeBytes, smallClusters)
        assert.strictEqual(info.ioUnitBytes, 512)
        assert.strictEqual(info.pageBytes, 4096)
        // 128 clusters: one page of metadata each, and the super block and the masks make 9 clusters of 16 pages.
        assert.strictEqual(info.totalClusters, 119)
        assert.strictEqual(info.freeClusters, 119)
        assert.deepStrictEqual(yield* store.ids, [])
        assert.isUndefined(yield* store.superBlob)
      })
    )

    check("stores and open blobs are counted, by the metrics as well", () =>
      Effect.gen(function* () {
        const spdk = yield* Spdk.Spdk
        const counts = Effect.gen(function* () {
          yield* Spdk.updateMetrics
          const { blobs, blobstores } = yield* spdk.usage
          assert.strictEqual((yield* Metric.value(Spdk.metrics.blobstores)).value, blobstores)
          assert.strictEqual((yield* Metric.value(Spdk.metrics.blobs)).value, blobs)
          return { blobs, blobstores }
        })
        assert.deepStrictEqual(yield* counts, { blobs: 0, blobstores: 0 })
        const bdev = yield* device()
        const { close, resource: store } = yield* closable(init(bdev, driver))
        const blob = yield* closable(store.create({ clusters: 1 }))
        assert.deepStrictEqual(yield* counts, { blobs: 1, blobstores: 1 })
        const other = yield* closable(store.open(blob.resource.id))
        const snapshot = yield* store.snapshot(blob.resource.id)
        assert.deepStrictEqual(yield* counts, { blobs: 1, blobstores: 1 })
        yield* store.open(snapshot)
        assert.deepStrictEqual(yield* counts, { blobs: 2, blobstores: 1 })
        yield* blob.close
        assert.deepStrictEqual(yield* counts, { blobs: 2, blobstores: 1 })
        yield* other.close
        assert.deepStrictEqual(yield* counts, { blobs: 1, blobstores: 1 })
        yield* close
        assert.deepStrictEqual(yield* counts, { blobs: 0, blobstores: 0 })
        yield* failsWith(load(bdev, driver, { type: "ANOTHER" }), "WrongType")
        assert.deepStrictEqual(yield* counts, { blobs: 0, blobstores: 0 })
      })
    )

    check("the metadata takes what its number of pages says", () =>
      Effect.gen(function* () {
        const few = yield* freshStore(driver, { store: { metadataPages: 4 } })
        assert.strictEqual((yield* few.info).totalClusters, 127)
        for (let count = 0; count < 4; count++) yield* few.createId({ extentTable: false })
        yield* failsWith(few.createId({ extentTable: false }), "NoMemory")
      })
    )

    check("blobs get ids in the order of their pages, and are listed in it", () =>
      Effect.gen(function* () {
        const store = yield* freshStore(driver)
        const ids = yield* Effect.forEach([1, 2, 3], () => store.createId({ clusters: 1, extentTable: false }))
        assert.deepStrictEqual(ids, [2 ** 32, 2 ** 32 + 1, 2 ** 32 + 2])
        assert.deepStrictEqual(yield* store.ids, ids)
        yield* store.delete(2 ** 32 + 1)
        assert.deepStrictEqual([...(yield* Stream.runCollect(store.list))], [2 ** 32, 2 ** 32 + 2])
        assert.strictEqual(yield* store.createId({ clusters: 1, extentTable: false }), 2 ** 32 + 1)
      })
    )

    check("a blob takes clusters when it is made and gives them back when it is deleted", () =>
      Effect.gen(function* () {
        const store = yield* freshStore(driver)
        const { freeClusters } = yield* store.info
        const id = yield* store.createId({ size: 3 * smallClusters - 1 })
        assert.strictEqual((yield* store.info).freeClusters, freeClusters - 3)
        const info = yield* during(store.open(id), (blob) => blob.info)
        assert.deepInclude(info, {
          id,
          clusters: 3,
          allocatedClusters: 3,
          sizeBytes: 3 * smallClusters,
          allocatedBytes: 3 * smallClusters,
          isReadOnly: false,
          isThin: false,
          isSnapshot: false,
          isClone: false
        })
        assert.deepStrictEqual(info.parent, { _tag: "None" })
        yield* store.delete(id)
        assert.strictEqual((yield* store.info).freeClusters, freeClusters)
        yield* failsWith(store.open(id), "NotFound")
        yield* failsWith(store.delete(id), "NotFound")
      })
    )

    check("the sizes people write are rounded up to clusters", () =>
      Effect.gen(function* () {
        const store = yield* freshStore(driver)
        for (const [options, clusters] of [
          [{ size: "1 MiB" }, 16],
          [{ size: 1 }, 1],
          [{ size: 0 }, 0],
          [{ clusters: 7 }, 7],
          [{}, 0]
        ] as const) {
          const blob = yield* store.create(options)
          assert.strictEqual(blob.sizeBytes, clusters * smallClusters, JSON.stringify(options))
        }
      })
    )

    check("everything is there after the store was closed and loaded", () =>
      Effect.gen(function* () {
        const bdev = yield* device()
        const bytes = pattern(100_000, 1)
        const [id, info] = yield* during(init(bdev, driver, { type: "KEEP" }), (store) =>
          Effect.gen(function* () {
            const blob = yield* store.create({ size: "256 KiB", xattrs: { name: "photo.jpg", raw: pattern(40, 2) } })
            yield* blob.writeBytes(1234, bytes)
            yield* blob.sync
            yield* store.setSuperBlob(blob.id)
            return [blob.id, yield* store.info] as const
          })
        )
        const store = yield* load(bdev, driver, { type: "KEEP" })
        assert.deepStrictEqual(yield* store.info, info)
        assert.deepStrictEqual(yield* store.ids, [id])
        assert.strictEqual(yield* store.superBlob, id)
        const blob = yield* store.open(id)
        sameBytes(yield* blob.readBytes(1234, bytes.length), bytes, "the blob")
        const xattrs = yield* blob.xattrs.entries
        assert.deepStrictEqual([...xattrs.keys()].toSorted(), ["name", "raw"])
        assert.deepStrictEqual(xattrs.get("name"), new TextEncoder().encode("photo.jpg"))
        assert.deepStrictEqual(xattrs.get("raw"), pattern(40, 2))
      })
    )

    check("loading by force finds the same as the masks say, and progress is told", () =>
      Effect.gen(function* () {
        const bdev = yield* device()
        const [ids, info] = yield* during(init(bdev, driver), (store) =>
          Effect.gen(function* () {
            for (let clusters = 0; clusters < 5; clusters++)
              yield* store.createId({ clusters, thin: clusters % 2 === 1 })
            return [yield* store.ids, yield* store.info] as const
          })
        )
        const heard: Array<Blobstore.LoadProgress> = []
        const onProgress = (progress: Blobstore.LoadProgress) => heard.push(progress)
        const store = yield* load(bdev, driver, { forceRecover: true, onProgress })
        assert.deepStrictEqual(yield* store.ids, ids)
        assert.deepStrictEqual(yield* store.info, info)
        assert.isAbove(heard.length, 0)
        for (const { done, total } of heard) if (total !== undefined) assert.isAtMost(done, total)
      })
    )

    check("one blob is opened once, whoever asks, and closes with the last", () =>
      Effect.gen(function* () {
        const store = yield* freshStore(driver)
        const id = yield* store.createId({ clusters: 2 })
        const first = yield* closable(store.open(id))
        const second = yield* closable(store.open(id))
        yield* first.resource.writeBytes(10, pattern(1000, 3))
        sameBytes(yield* second.resource.readBytes(10, 1000), pattern(1000, 3), "through the other handle")
        yield* first.resource.resize({ clusters: 5 })
        assert.strictEqual(second.resource.sizeBytes, 5 * smallClusters)
        yield* failsWith(store.delete(id), "Busy")
        yield* first.close
        yield* failsWith(first.resource.readBytes(0, 1), "Released", { what: "blob" })
        yield* failsWith(first.resource.sync, "Released")
        yield* failsWith(first.resource.info, "Released")
        yield* failsWith(first.resource.xattrs.get("name"), "Released")
        yield* failsWith(Stream.runDrain(first.resource.stream()), "Released")
        assert.strictEqual(first.resource.sizeBytes, 5 * smallClusters)
        sameBytes(yield* second.resource.readBytes(10, 1000), pattern(1000, 3), "after the first has closed")
        yield* failsWith(store.delete(id), "Busy")
        yield* second.close
        yield* store.delete(id)
        yield* failsWith(second.resource.readBytes(0, 1), "Released")
      })
    )

    check("many fibers open, use and close the same blobs at once", () =>
      Effect.gen(function* () {
        const store = yield* freshStore(driver)
        const ids = yield* Effect.forEach([1, 2, 3], () => store.createId({ clusters: 1 }))
        yield* Effect.forEach(
          Array.from({ length: 60 }, (_, index) => index),
          (index) =>
            during(store.open(ids[index % 3] ?? 0), (blob) =>
              Effect.gen(function* () {
                yield* blob.writeBytes(index * 100, pattern(100, index))
                yield* Effect.yieldNow
                sameBytes(yield* blob.readBytes(index * 100, 100), pattern(100, index), `slice ${index}`)
              })
            ),
          { concurrency: 20, discard: true }
        )
        yield* Effect.forEach(ids, (id) => store.delete(id), { discard: true })
      })
    )

    check("closing the store closes its blobs, and then everything is Released", () =>
      Effect.gen(function* () {
        const bdev = yield* device()
        const opened = yield* closable(init(bdev, driver))
        const store = opened.resource
        const blob = yield* store.create({ clusters: 2 })
        const channel = yield* blob.channel
        yield* blob.writeBytes(5, pattern(9000, 4))
        yield* opened.close
        yield* failsWith(blob.readBytes(0, 512), "Released")
        yield* failsWith(channel.readBytes(0, 512), "Released")
        yield* failsWith(blob.resize({ clusters: 1 }), "Released")
        yield* failsWith(store.createId(), "Released", { what: "blobstore" })
        yield* failsWith(store.info, "Released")
        yield* failsWith(Stream.runDrain(store.list), "Released")
        yield* failsWith(store.destroy, "Released")
        const again = yield* load(bdev, driver)
        const same = yield* again.open(blob.id)
        sameBytes(yield* same.readBytes(5, 9000), pattern(9000, 4), "the blob that was open at the end")
      })
    )

    check("closing the store waits for the I/O in flight and for the calls that run", () =>
      Effect.gen(function* () {
        const bdev = yield* device()
        const opened = yield* closable(init(bdev, driver))
        const store = opened.resource
        const blob = yield* store.create({ clusters: 16 })
        const writing = yield* Effect.forkChild(blob.writeBytes(3, pattern(MiB - 3, 5)), { startImmediately: true })
        const creating = yield* Effect.forkChild(store.createId({ clusters: 1 }), { startImmediately: true })
        yield* opened.close
        const id = yield* Fiber.join(creating)
        yield* Fiber.await(writing)
        const again = yield* load(bdev, driver)
        assert.deepStrictEqual(yield* again.ids, [blob.id, id].toSorted())
      })
    )

    check("a bdev holds one store at a time", () =>
      Effect.gen(function* () {
        const bdev = yield* device()
        yield* during(init(bdev, driver), (store) =>
          Effect.gen(function* () {
            yield* failsWith(load(bdev, driver), "Busy")
            yield* failsWith(init(bdev, driver), "Busy")
            yield* failsWith(load(bdev, "portable"), "Busy")
            const again = yield* Bdev.open(bdev.name)
            yield* failsWith(init(again, driver), "ReadOnly")
            yield* store.createId({ clusters: 1 })
          })
        )
        const store = yield* load(bdev, driver)
        assert.strictEqual((yield* store.ids).length, 1)
      })
    )

    // Every layer of the embedded engine has bdevs of its own.
    if (capabilities.engine === "libspdk") {
      check("a bdev holds one store at a time, by whichever layer of the process it is opened", () =>
        Effect.gen(function* () {
          const bdev = yield* device()
          const other = yield* Layer.build(Layer.fresh(layer))
          const open = Effect.provide(Bdev.open(bdev.name, { write: true }), other)
          const same = yield* open
          yield* during(init(bdev, driver), (store) =>
            Effect.gen(function* () {
              yield* failsWith(open, "Busy")
              yield* failsWith(load(same, "portable"), "Busy")
              yield* failsWith(init(same, "portable"), "Busy")
              yield* failsWith(load(same, "libspdk"), "Busy")
              yield* store.createId({ clusters: 1 })
            }).pipe(Effect.provide(other))
          )
          const store = yield* load(bdev, driver)
          assert.strictEqual((yield* store.ids).length, 1)
        })
      )
    }

    check("destroys only when nothing is open, and then nothing loads it", () =>
      Effect.gen(function* () {
        const bdev = yield* device()
        const store = yield* init(bdev, driver)
        yield* during(store.create({ clusters: 1 }), () => failsWith(store.destroy, "Busy"))
        yield* store.destroy
        yield* failsWith(store.createId(), "Released")
        yield* failsWith(load(bdev, driver), "Corrupted")
        const again = yield* init(bdev, driver)
        assert.deepStrictEqual(yield* again.ids, [])
      })
    )

    check("the layer initialises what is empty, loads what is there, and leaves alone what is damaged", () =>
      Effect.gen(function* () {
        const bdev = yield* device()
        const Store = (onEmpty: "init" | "fail") =>
          Blobstore.layer({ onEmpty, driver, clusterSize: smallClusters }).pipe(
            Layer.provide(Layer.succeed(Bdev.Bdev, bdev))
          )
        const ids = Effect.flatMap(Blobstore.Blobstore, (store) => store.ids)
        const create = Effect.flatMap(Blobstore.Blobstore, (store) => store.createId({ clusters: 1 }))
        yield* failsWith(ids.pipe(Effect.provide(Store("fail"))), "Corrupted")
        const id = yield* create.pipe(Effect.provide(Store("init")))
        assert.deepStrictEqual(yield* ids.pipe(Effect.provide(Store("init"))), [id])
        assert.deepStrictEqual(yield* ids.pipe(Effect.provide(Store("fail"))), [id])
        const page = yield* bdev.readBytes(0, 4096)
        for (const at of [0, 30, 100, 4093]) {
          const damaged = page.slice()
          damaged[at] = (damaged[at] ?? 0) ^ 0x10
          yield* bdev.writeBytes(0, damaged)
          yield* failsWith(ids.pipe(Effect.provide(Store("init"))), "Corrupted")
          sameBytes(yield* bdev.readBytes(0, 4096), damaged, "the damaged super block")
        }
        yield* bdev.writeBytes(0, page)
        assert.deepStrictEqual(yield* ids.pipe(Effect.provide(Store("init"))), [id])
        yield* zeroStart(bdev)
        assert.deepStrictEqual(yield* ids.pipe(Effect.provide(Store("init"))), [])
      })
    )

    check("grows with its device, live and at load", () =>
      Effect.gen(function* () {
        const client = yield* Rpc.RpcClient
        const path = yield* scratchFile
        const disk = yield* Bdev.createFile({ name: fresh("file"), path, blockSize: 512, size: 8 * MiB })
        const bdev = yield* Bdev.open(disk, { write: true })
        const enlarge = (sizeBytes: number) =>
          Effect.gen(function* () {
            truncateSync(path, sizeBytes)
            yield* client.call("bdev_aio_rescan", { name: disk })
            yield* until(
              "the bdev is larger",
              Effect.sync(() => bdev.sizeBytes === sizeBytes)
            )
          })
        const bytes = pattern(smallClusters, 8)
        const [id, grown] = yield* during(init(bdev, driver), (store) =>
          Effect.gen(function* () {
            const before = yield* store.info
            const blob = yield* store.create({ clusters: before.freeClusters })
            yield* blob.writeBytes(0, bytes)
            yield* failsWith(blob.resize({ clusters: before.freeClusters + 1 }), "NoSpace")
            // No room was gained: nothing changes.
            yield* store.grow
            assert.strictEqual((yield* store.info).totalClusters, before.totalClusters)
            yield* enlarge(12 * MiB)
            yield* store.grow
            const after = yield* store.info
            assert.strictEqual(after.totalClusters, before.totalClusters + 64)
            assert.strictEqual(after.freeClusters, 64)
            yield* blob.resize({ clusters: before.freeClusters + 10 })
            yield* blob.sync
            return [blob.id, after.totalClusters] as const
          })
        )
        yield* enlarge(16 * MiB)
        yield* during(load(bdev, driver), (store) =>
          Effect.gen(function* () {
            assert.strictEqual((yield* store.info).totalClusters, grown, "a plain load does not grow")
          })
        )
        const store = yield* load(bdev, driver, { grow: true })
        assert.strictEqual((yield* store.info).totalClusters, grown + 64)
        assert.strictEqual((yield* store.info).freeClusters, 54 + 64)
        const blob = yield* store.open(id)
        sameBytes(yield* blob.readBytes(0, bytes.length), bytes, "the blob after growing twice")
      })
    )

    check("holds on to nothing after a store that did not load", () =>
      Effect.gen(function* () {
        const spdk = yield* Spdk.Spdk
        const bdev = yield* device()
        const attempts = Effect.gen(function* () {
          yield* bdev.writeBytes(0, new Uint8Array(4096))
          yield* Effect.scoped(failsWith(load(bdev, driver), "Corrupted"))
          yield* Effect.scoped(failsWith(init(bdev, driver, { clusterSize: 64 * MiB }), "NoSpace"))
          yield* during(init(bdev, driver, { type: "A" }), () => Effect.void)
          yield* Effect.scoped(failsWith(load(bdev, driver, { type: "B" }), "WrongType"))
          return yield* spdk.usage
        })
        // The first time, the bdev opens a channel and memory of its own.
        const usage = yield* attempts
        assert.deepStrictEqual(yield* attempts, usage)
        yield* during(load(bdev, driver), (store) =>
          Effect.map(store.info, (info) => assert.strictEqual(info.type, "A"))
        )
      })
    )

    check("a blob of thousands of clusters keeps them through a load", () =>
      Effect.gen(function* () {
        const bdev = yield* device({ sizeBytes: 16 * MiB })
        const extentTables = [true, false]
        const ids = yield* during(init(bdev, driver, { clusterSize: 4 * KiB, metadataPages: 256 }), (store) =>
          Effect.forEach(extentTables, (extentTable) =>
            Effect.gen(function* () {
              const blob: Blob.Blob = yield* store.create({ clusters: 1300, extentTable })
              for (const cluster of [0, 511, 512, 1023, 1024, 1299]) {
                yield* blob.writeBytes(cluster * 4 * KiB + 7, pattern(100, cluster + 1))
              }
              yield* blob.resize({ clusters: 1400 })
              return blob.id
            })
          )
        )
        const store = yield* load(bdev, driver)
        for (const id of ids) {
          const blob = yield* store.open(id)
          assert.strictEqual(blob.sizeBytes, 1400 * 4 * KiB)
          for (const cluster of [0, 511, 512, 1023, 1024, 1299]) {
            sameBytes(
              yield* blob.readBytes(cluster * 4 * KiB + 7, 100),
              pattern(100, cluster + 1),
              `cluster ${cluster}`
            )
          }
        }
      })
    )
  })
