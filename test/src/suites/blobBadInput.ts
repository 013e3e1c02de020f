/** What callers and devices get wrong: each ends in a typed error, and nothing changes. */
import * as Blobstore from "@effect-spdk/blobstore/Blobstore"
import * as Bdev from "@effect-spdk/core/Bdev"
import * as DmaBuffer from "@effect-spdk/core/DmaBuffer"
import * as Rpc from "@effect-spdk/core/Rpc"
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Stream from "effect/Stream"
import { type BlobSuite, closable, device, during, freshStore, init, KiB, load, MiB } from "../support/blobs.ts"
import { contract, expectReasonIn, failsWith, pattern, sameBytes, until } from "../support/harness.ts"
import { errorBdev } from "../support/held.ts"

/** What programs without types pass. */
const wrong = <A>(value: unknown): A => value as A

export const suite: BlobSuite = (name, layer, capabilities, driver) =>
  contract(name, layer, (check) => {
    check("options of a store that make no sense name field and rule", () =>
      Effect.gen(function* () {
        const bdev = yield* device()
        const refuses = (field: string, options: Blobstore.InitOptions) =>
          failsWith(init(bdev, driver, options), "InvalidArgument", { field, operation: "Blobstore.init" })
        for (const clusterSize of [
          0,
          -4096,
          1000,
          4096.5,
          Number.NaN,
          Infinity,
          4 * 1024 * MiB,
          "much",
          "-1 MiB",
          wrong<number>({})
        ]) {
          yield* refuses("clusterSize", { clusterSize })
        }
        for (const metadataPages of [0, -1, 1.5, Number.NaN, 2 ** 32])
          yield* refuses("metadataPages", { metadataPages })
        for (const type of ["seventeen bytes!!", "a\0b", "ü", wrong<string>(5)]) yield* refuses("type", { type })
        yield* refuses("clearMethod", { clearMethod: wrong("shred") })
        yield* refuses("driver", { driver: wrong("magic") })
        yield* failsWith(load(bdev, driver, { type: "seventeen bytes!!" }), "InvalidArgument", { field: "type" })
        yield* failsWith(load(bdev, driver, { grow: wrong(1) }), "InvalidArgument", { field: "grow" })
        yield* failsWith(init(bdev, driver, { clusterSize: 16 * MiB }), "NoSpace")
        if (capabilities.engine === "embedded") yield* failsWith(init(bdev, "libspdk"), "NotSupported")
        const readOnly = yield* Bdev.open(bdev.name)
        yield* failsWith(init(readOnly, driver), "ReadOnly")
        yield* failsWith(load(readOnly, driver), "ReadOnly")
        const make = Blobstore.make({ onEmpty: wrong("maybe") }).pipe(Effect.provideService(Bdev.Bdev, bdev))
        yield* failsWith(make, "InvalidArgument", { field: "onEmpty" })
        sameBytes(yield* bdev.readBytes(0, 4096), new Uint8Array(4096), "the device")
      })
    )

    check("blocks that do not divide a page of metadata are refused before anything is written", () =>
      Effect.gen(function* () {
        for (const blockSize of [1536, 8192]) {
          const bdev = yield* device({ blockSize, sizeBytes: 1024 * blockSize })
          const options = { clusterSize: 16 * blockSize }
          yield* failsWith(init(bdev, driver, options), "InvalidArgument", { field: "bdev" })
          yield* failsWith(load(bdev, driver), "InvalidArgument", { field: "bdev" })
          const made = Effect.provideService(Blobstore.make({ onEmpty: "init", driver }), Bdev.Bdev, bdev)
          yield* failsWith(made, "InvalidArgument", { field: "bdev" })
          sameBytes(yield* bdev.readBytes(0, blockSize), new Uint8Array(blockSize), "the device")
        }
      })
    )

    check("the device of a loaded store is no target of a copy and no parent, by none of its names", () =>
      Effect.gen(function* () {
        const bdev = yield* device()
        const other = yield* device()
        const store = yield* init(bdev, driver)
        yield* init(other, driver)
        const blob = yield* store.create({ clusters: 1 })
        yield* blob.writeBytes(0, pattern(4096, 1))
        const snapshot = yield* store.snapshot(blob.id)
        const thin = yield* store.createId({ clusters: 1, thin: true })
        const { uuid = "" } = yield* Bdev.find(bdev.name)
        for (const target of [bdev.name, uuid, other.name]) {
          const copy = Stream.runDrain(store.shallowCopy(snapshot, target))
          yield* failsWith(copy, "InvalidArgument", { field: "bdev" })
          yield* failsWith(store.setExternalParent(thin, target), "InvalidArgument", { field: "bdev" })
          const create = store.createId({ clusters: 1, externalSnapshot: target })
          yield* failsWith(create, "InvalidArgument", { field: "externalSnapshot" })
        }
        sameBytes(yield* blob.readBytes(0, 4096), pattern(4096, 1), "the blob")
        assert.lengthOf(yield* store.ids, 3)
      })
    )

    check("what is no blobstore, another version, another type or damaged does not load", () =>
      Effect.gen(function* () {
        const bdev = yield* device()
        yield* failsWith(load(bdev, driver), "Corrupted")
        yield* bdev.writeBytes(0, pattern(MiB, 1))
        yield* failsWith(load(bdev, driver), "Corrupted")
        yield* during(init(bdev, driver, { type: "MINE" }), (store) => store.createId({ clusters: 1 }))
        yield* failsWith(load(bdev, driver, { type: "YOURS" }), "WrongType", { expected: "YOURS" })
        const page = yield* bdev.readBytes(0, 4096)
        for (let at = 0; at < 120; at += 3) {
          const damaged = page.slice()
          damaged[at] = (damaged[at] ?? 0) ^ (1 << (at % 8))
          yield* bdev.writeBytes(0, damaged)
          yield* failsWith(load(bdev, driver), "Corrupted")
        }
        yield* bdev.writeBytes(0, page)
        yield* during(load(bdev, driver, { type: "MINE" }), (store) =>
          Effect.map(store.ids, (ids) => assert.strictEqual(ids.length, 1))
        )
      })
    )

    check("a store on a device that has become smaller does not load", () =>
      Effect.gen(function* () {
        const large = yield* device({ sizeBytes: 8 * MiB })
        const small = yield* device({ sizeBytes: 4 * MiB })
        yield* during(init(large, driver), () => Effect.void)
        yield* small.writeBytes(0, yield* large.readBytes(0, 4 * MiB))
        yield* failsWith(load(small, driver), "Corrupted")
      })
    )

    check("a page of metadata with a flipped bit keeps its blob from being opened or the store from loading", () =>
      Effect.gen(function* () {
        const bdev = yield* device()
        const id = yield* during(init(bdev, driver), (store) => store.createId({ clusters: 2, xattrs: { a: "b" } }))
        // Super block, two masks and the ids come before the pages of metadata.
        const whole = yield* bdev.readBytes(0, 64 * KiB)
        const at = Array.from({ length: 16 }, (_, page) => page * 4096).find(
          (offset) =>
            offset > 0 &&
            new DataView(whole.buffer).getUint32(offset + 4, true) === 1 &&
            new DataView(whole.buffer).getUint32(offset, true) === id - 2 ** 32
        )
        assert.isDefined(at)
        for (const byte of [9, 30, 4090]) {
          const damaged = whole.slice()
          damaged[at + byte] = (damaged[at + byte] ?? 0) ^ 4
          yield* bdev.writeBytes(0, damaged)
          const exit = yield* Effect.exit(
            during(load(bdev, driver), (store) => during(store.open(id), () => Effect.void))
          )
          expectReasonIn(exit, ["Corrupted"])
        }
      })
    )

    check("options of blobs that make no sense name field and rule", () =>
      Effect.gen(function* () {
        const store = yield* freshStore(driver)
        const before = yield* store.info
        const refuses = (field: string, options: Blobstore.CreateOptions) =>
          failsWith(store.createId(options), "InvalidArgument", { field })
        for (const size of [-1, 0.5, Number.NaN, Infinity, 2 ** 60, "", "four", wrong<number>(null)])
          yield* refuses("size", { size })
        for (const clusters of [-1, 1.5, Number.NaN, 2 ** 33, wrong<number>("4")])
          yield* refuses("clusters", { clusters })
        yield* refuses("size", { size: 1, clusters: 1 })
        yield* refuses("thin", { thin: wrong("yes") })
        yield* refuses("extentTable", { extentTable: wrong(0) })
        yield* refuses("clearMethod", { clearMethod: wrong("shred") })
        for (const externalSnapshot of ["", "a\0b", "x".repeat(5000), wrong<string>(7)])
          yield* refuses("externalSnapshot", { externalSnapshot })
        for (const one of ["", "a\0b", "x".repeat(4064), "\ud800"])
          yield* refuses("xattrs name", { xattrs: { [one]: "v" } })
        yield* refuses("xattrs name", {
          xattrs: [
            ["a", "1"],
            ["a", "2"]
          ]
        })
        yield* refuses(`xattrs["a"]`, { xattrs: { a: wrong<string>(5) } })
        yield* refuses(`xattrs["a"]`, { xattrs: { a: new Uint8Array(4063) } })
        yield* refuses("xattrs", { xattrs: wrong("name") })
        yield* refuses("xattrs", { xattrs: wrong([["a"]]) })
        yield* failsWith(store.createId({ clusters: before.freeClusters + 1 }), "NoSpace")
        yield* failsWith(store.createId({ clusters: 1, externalSnapshot: "nobody" }), "NotFound")
        assert.deepStrictEqual(yield* store.info, before)
        assert.deepStrictEqual(yield* store.ids, [])
      })
    )

    check("ids that are none are refused, and those of nobody are not found", () =>
      Effect.gen(function* () {
        const store = yield* freshStore(driver)
        for (const id of [0, -1, 1.5, Number.NaN, 2 ** 33, wrong<number>("4294967296")]) {
          yield* failsWith(store.open(id), "InvalidArgument", { field: "id" })
          yield* failsWith(store.delete(id), "InvalidArgument", { field: "id" })
          yield* failsWith(store.snapshot(id), "InvalidArgument", { field: "id" })
          yield* failsWith(store.setSuperBlob(id), "InvalidArgument", { field: "id" })
        }
        const nobody = 2 ** 32 + 77
        yield* failsWith(store.open(nobody), "NotFound")
        yield* failsWith(store.delete(nobody), "NotFound")
        yield* failsWith(store.snapshot(nobody), "NotFound")
        yield* failsWith(store.clone(nobody), "NotFound")
        yield* failsWith(store.inflate(nobody), "NotFound")
        yield* failsWith(store.decouple(nobody), "NotFound")
        yield* failsWith(store.parent(nobody), "NotFound")
        yield* failsWith(store.clones(nobody), "NotFound")
        yield* failsWith(store.setParent(nobody, nobody + 1), "NotFound")
        // A page number that the metadata of this store does not have.
        yield* failsWith(store.open(2 ** 33 - 1), "NotFound")
      })
    )

    check("ranges that are none, or run past the end, reach nothing", () =>
      Effect.gen(function* () {
        const store = yield* freshStore(driver)
        const blob = yield* store.create({ clusters: 2 })
        const size = blob.sizeBytes
        const bytes = pattern(size, 2)
        yield* blob.writeBytes(0, bytes)
        const buffer = yield* DmaBuffer.make(1024)
        const odd = yield* DmaBuffer.make(700)
        for (const offset of [-512, 100, 0.5, Number.NaN, Infinity, 2 ** 53, size, size - 512]) {
          for (const io of [
            blob.read(offset, buffer),
            blob.write(offset, buffer),
            blob.readv(offset, [buffer]),
            blob.unmap(offset, 1024),
            blob.writeZeroes(offset, 1024)
          ]) {
            yield* failsWith(io, "InvalidArgument")
          }
          yield* failsWith(
            blob.readBatch([
              { offsetBytes: 0, buffer },
              { offsetBytes: offset, buffer }
            ]),
            "InvalidArgument"
          )
        }
        yield* failsWith(blob.read(0, odd), "InvalidArgument")
        yield* failsWith(blob.readv(0, []), "InvalidArgument")
        for (const none of [undefined, null, 7, "text", {}, new Uint8Array(512)]) {
          const one = { offsetBytes: 0, buffer: wrong<DmaBuffer.DmaBuffer>(none) }
          const operations: ReadonlyArray<readonly [Effect.Effect<unknown, unknown>, string]> = [
            [blob.read(0, one.buffer), "buffer"],
            [blob.write(0, one.buffer), "buffer"],
            [blob.readv(0, [buffer, one.buffer]), "buffers[1]"],
            [blob.writev(0, [buffer, one.buffer]), "buffers[1]"],
            [blob.readv(0, wrong(none)), "buffers"],
            [blob.writev(0, wrong(none)), "buffers"],
            [blob.readBatch([one]), "entries[0].buffer"],
            [blob.writeBatch([one]), "entries[0].buffer"],
            [blob.prepareReads([one]), "entries[0].buffer"],
            [blob.prepareWrites([one]), "entries[0].buffer"],
            [blob.readBatch(wrong(none)), "entries"],
            [blob.writeBatch(wrong(none)), "entries"],
            [blob.prepareReads(wrong(none)), "entries"],
            [blob.prepareWrites(wrong(none)), "entries"]
          ]
          for (const [io, field] of operations) yield* failsWith(io, "InvalidArgument", { field })
        }
        yield* failsWith(blob.writeBytes(0, wrong(undefined)), "InvalidArgument", { field: "bytes" })
        for (const [offset, length, field] of [
          [-1, 1, "offsetBytes"],
          [0.5, 1, "offsetBytes"],
          [Number.NaN, 1, "offsetBytes"],
          [size + 1, 0, "offsetBytes"],
          [0, -1, "lengthBytes"],
          [0, Number.NaN, "lengthBytes"],
          [size - 1, 2, "lengthBytes"],
          [0, 2 ** 53, "lengthBytes"]
        ] as const) {
          yield* failsWith(blob.readBytes(offset, length), "InvalidArgument", { field })
        }
        yield* failsWith(blob.writeBytes(size - 1, new Uint8Array(2)), "InvalidArgument", { field: "bytes.length" })
        yield* failsWith(blob.writeBytes(0, wrong("text")), "InvalidArgument", { field: "bytes" })
        for (const [field, options] of [
          ["offsetBytes", { offsetBytes: size + 1 }],
          ["lengthBytes", { lengthBytes: size + 1 }],
          ["chunkBytes", { chunkBytes: 0 }],
          ["chunkBytes", { chunkBytes: 4 * MiB }],
          ["concurrency", { concurrency: 0 }]
        ] as const) {
          yield* failsWith(Stream.runDrain(blob.stream(options)), "InvalidArgument", { field })
          yield* failsWith(Stream.run(Stream.make(bytes), blob.sink(options)), "InvalidArgument", { field })
        }
        yield* failsWith(blob.nextAllocated(-1), "InvalidArgument", { field: "offsetBytes" })
        yield* failsWith(blob.resize(-1), "InvalidArgument", { field: "size" })
        yield* failsWith(blob.resize({ clusters: 0.5 }), "InvalidArgument", { field: "clusters" })
        yield* failsWith(blob.resize(wrong({})), "InvalidArgument", { field: "size" })
        for (const one of ["", "a\0b", "x".repeat(4064)]) {
          yield* failsWith(blob.xattrs.set(one, "v"), "InvalidArgument", { field: "name" })
          yield* failsWith(blob.xattrs.get(one), "InvalidArgument", { field: "name" })
          yield* failsWith(blob.xattrs.remove(one), "InvalidArgument", { field: "name" })
        }
        sameBytes(yield* blob.readBytes(0, size), bytes, "the blob")
      })
    )

    check("a blob that is open cannot be deleted, nor opened with another clear method", () =>
      Effect.gen(function* () {
        const store = yield* freshStore(driver)
        const id = yield* store.createId({ clusters: 1 })
        const blob = yield* closable(store.open(id, { clearMethod: "none" }))
        yield* failsWith(store.delete(id), "Busy")
        yield* failsWith(store.open(id, { clearMethod: "unmap" }), "Busy")
        yield* Effect.scoped(store.open(id, { clearMethod: "none" }))
        yield* blob.close
        yield* Effect.scoped(store.open(id, { clearMethod: "unmap" }))
        yield* failsWith(store.open(id, { clearMethod: wrong("shred") }), "InvalidArgument", { field: "clearMethod" })
        yield* store.delete(id)
      })
    )

    check("a device that fails writes fails what needs them, and the store goes on when it recovers", () =>
      Effect.gen(function* () {
        const bad = yield* errorBdev(16_384)
        const store = yield* init(bad.bdev, driver)
        const blob = yield* store.create({ clusters: 4 })
        yield* blob.writeBytes(0, pattern(5000, 3))
        yield* blob.sync
        yield* bad.inject({ ioType: "write", errorType: "failure", count: 1 })
        yield* failsWith(blob.writeBytes(0, pattern(5000, 4)), "IoFailed")
        yield* blob.writeBytes(0, pattern(5000, 4))
        sameBytes(yield* blob.readBytes(0, 5000), pattern(5000, 4), "after the failure")
        yield* bad.inject({ ioType: "read", errorType: "failure", count: 1 })
        yield* failsWith(blob.readBytes(0, 5000), "IoFailed")
        yield* blob.sync
      })
    )

    check("a device that is removed under an open store fails everything, and the scopes still close", () =>
      Effect.gen(function* () {
        const client = yield* Rpc.RpcClient
        const { close, resource } = yield* closable(
          Effect.gen(function* () {
            const bdev = yield* device()
            const store = yield* init(bdev, driver)
            const blob = yield* store.create({ clusters: 8 })
            yield* blob.writeBytes(0, pattern(5000, 5))
            return { bdev, store, blob }
          })
        )
        const { bdev, blob, store } = resource
        const writing = yield* Effect.forkChild(
          Effect.forever(blob.writeBytes(100, pattern(300_000, 6)), { disableYield: false }),
          { startImmediately: true }
        )
        const deleting = yield* Effect.forkChild(
          Effect.ignore(client.call("bdev_malloc_delete", { name: bdev.name })),
          { startImmediately: true }
        )
        yield* until(
          "the removal is known",
          Effect.sync(() => bdev.isRemoved)
        )
        expectReasonIn(yield* Fiber.await(writing), ["DeviceRemoved", "IoFailed", "Aborted"])
        const gone = ["DeviceRemoved", "IoFailed"] as const
        expectReasonIn(yield* Effect.exit(blob.readBytes(0, 512)), gone)
        expectReasonIn(yield* Effect.exit(store.createId({ clusters: 1 })), gone)
        assert.isTrue(Exit.isSuccess(yield* Effect.exit(close)))
        yield* Fiber.join(deleting)
        yield* failsWith(blob.readBytes(0, 512), "Released")
      })
    )
  })
