/** SPDK's own blobstore through its driver. The contract suites say what both drivers do; here stands what this one is made of. */
import * as Bdev from "@effect-spdk/core/Bdev"
import * as DmaBuffer from "@effect-spdk/core/DmaBuffer"
import type { EngineService } from "@effect-spdk/core/Engine"
import * as Spdk from "@effect-spdk/core/Spdk"
import type { SpdkError } from "@effect-spdk/core/SpdkError"
import * as SpdkThread from "@effect-spdk/core/SpdkThread"
import { assert, describe, layer, type Vitest } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import { libspdkMissing } from "../../../test/src/support/libspdkMissing.ts"
import type { DriverCreateOptions, DriverInitOptions, DriverLoadOptions, StoreDriver } from "../src/internal/driver.ts"
import { libspdkDriver } from "../src/internal/libspdk/driver.ts"

const mebi = 1024 * 1024
const initOptions: DriverInitOptions = {
  clusterSizeBytes: mebi,
  metadataPages: undefined,
  type: "TEST",
  clearMethod: "none"
}
const loadOptions: DriverLoadOptions = { type: "TEST", forceRecover: false, grow: false, onProgress: undefined }
const blobOptions: DriverCreateOptions = {
  clusters: 4,
  thin: false,
  clearMethod: "default",
  extentTable: true,
  xattrs: new Map(),
  externalSnapshot: undefined
}

const onMalloc = <A, E, R>(
  use: (bdev: Bdev.Bdev, name: string) => Effect.Effect<A, E, R>,
  sizeMiB = 64,
  blockSize = 512
) =>
  Effect.gen(function* () {
    const name = yield* Bdev.createMalloc({ blockSize, size: sizeMiB * mebi })
    return yield* use(yield* Bdev.open(name, { write: true }), name)
  }).pipe(Effect.scoped)

const reasonOf = (effect: Effect.Effect<unknown, { readonly reason: { readonly _tag: string } }, EngineService>) =>
  Effect.map(Effect.flip(effect), (error) => error.reason._tag)

const used = Effect.flatMap(Spdk.Spdk, (spdk) => spdk.usage)

const readBack = (store: StoreDriver, id: number, offset: number, fill: number) =>
  Effect.gen(function* () {
    const blob = yield* store.open(id, { clearMethod: "default" })
    const buffer = yield* DmaBuffer.make(4096)
    yield* blob.io.read(offset, buffer)
    assert.isTrue(buffer.bytes.every((byte) => byte === fill))
    yield* blob.close
  }).pipe(Effect.scoped)

const tests = (it: Vitest.MethodsNonLive<Layer.Success<ReturnType<typeof Spdk.layer>>>): void => {
  it.effect("keeps bytes, sizes and xattrs over an unload", () =>
    onMalloc((bdev) =>
      Effect.gen(function* () {
        const store = yield* libspdkDriver.init(bdev, initOptions)
        assert.deepStrictEqual(yield* store.info, {
          type: "TEST",
          clusterSizeBytes: mebi,
          totalClusters: 63,
          freeClusters: 63,
          ioUnitBytes: 512,
          pageBytes: 4096
        })
        const binary = Uint8Array.from({ length: 4000 }, (_, i) => i & 255)
        const xattrs = new Map([
          ["név", binary],
          ["b", new Uint8Array([0])]
        ])
        const id = yield* store.create({ ...blobOptions, xattrs })
        const blob = yield* store.open(id, { clearMethod: "default" })
        const buffer = yield* DmaBuffer.make(4096)
        buffer.bytes.fill(7)
        yield* blob.io.write(mebi - 2048, buffer)
        yield* blob.setXattr("empty", new Uint8Array(0))
        yield* blob.setXattr("b", new Uint8Array([1, 2]))
        yield* blob.resize(6)
        buffer.bytes.fill(8)
        yield* blob.io.write(5 * mebi, buffer)
        yield* blob.sync
        assert.strictEqual(yield* reasonOf(store.unload), "Busy")
        yield* blob.close
        yield* blob.close
        yield* store.setSuperBlob(id)
        yield* store.unload

        const progress: Array<number> = []
        const again = yield* libspdkDriver.load(bdev, { ...loadOptions, onProgress: (done) => progress.push(done) })
        assert.deepStrictEqual(progress, [1])
        assert.deepStrictEqual(yield* again.ids, [id])
        assert.strictEqual(yield* again.superBlob, id)
        yield* readBack(again, id, mebi - 2048, 7)
        yield* readBack(again, id, 5 * mebi, 8)
        const opened = yield* again.open(id, { clearMethod: "default" })
        assert.deepStrictEqual(
          new Map([...(yield* opened.xattrs)].map(([name, value]) => [name, [...value]])),
          new Map([
            ["név", [...binary]],
            ["b", [1, 2]],
            ["empty", []]
          ])
        )
        assert.strictEqual((yield* opened.info).clusters, 6)
        yield* opened.removeXattr("empty")
        assert.strictEqual(yield* reasonOf(opened.removeXattr("empty")), "NotFound")
        yield* opened.close
        assert.strictEqual(yield* reasonOf(opened.sync), "Released")
        yield* again.destroy
        assert.strictEqual(yield* reasonOf(libspdkDriver.load(bdev, loadOptions)), "Corrupted")
      })
    )
  )

  it.effect("says what it finds where it cannot load", () =>
    onMalloc((bdev) =>
      Effect.gen(function* () {
        const store = yield* libspdkDriver.init(bdev, initOptions)
        assert.strictEqual(yield* reasonOf(libspdkDriver.load(bdev, loadOptions)), "Busy")
        yield* store.unload
        const other = yield* Effect.flip(libspdkDriver.load(bdev, { ...loadOptions, type: "OTHER" }))
        assert.include(other.reason, { _tag: "WrongType", expected: "OTHER", found: "TEST" })
        const superBlock = yield* bdev.readBytes(0, 4096)
        const flipped = superBlock.slice()
        flipped[100] = 255 - (flipped[100] ?? 0)
        yield* bdev.writeBytes(0, flipped)
        const damaged = yield* Effect.flip(libspdkDriver.load(bdev, loadOptions))
        assert.include(damaged.reason, { _tag: "Corrupted", where: "super block", rule: "has a wrong CRC" })
        yield* bdev.writeBytes(0, superBlock)
        yield* (yield* libspdkDriver.load(bdev, loadOptions)).unload
        const large = libspdkDriver.init(bdev, { ...initOptions, clusterSizeBytes: 128 * mebi })
        assert.strictEqual(yield* reasonOf(large), "NoSpace")
      })
    )
  )

  it.effect("snapshots and clones", () =>
    onMalloc((bdev) =>
      Effect.gen(function* () {
        const store = yield* libspdkDriver.init(bdev, initOptions)
        const id = yield* store.create(blobOptions)
        const blob = yield* store.open(id, { clearMethod: "default" })
        const buffer = yield* DmaBuffer.make(4096)
        buffer.bytes.fill(1)
        yield* blob.io.write(0, buffer)
        const snapshot = yield* store.snapshot(id, new Map([["of", new Uint8Array([9])]]))
        buffer.bytes.fill(2)
        yield* blob.io.write(0, buffer)
        yield* readBack(store, snapshot, 0, 1)
        assert.include(yield* blob.info, { isClone: true, isThin: true, isSnapshot: false, allocatedClusters: 1 })
        assert.deepStrictEqual((yield* blob.info).parent, { _tag: "Snapshot", id: snapshot })
        assert.deepStrictEqual(yield* store.parent(snapshot), { _tag: "None" })
        const clone = yield* store.clone(snapshot, new Map())
        assert.deepStrictEqual([...(yield* store.clones(snapshot))].toSorted(), [id, clone].toSorted())
        assert.strictEqual(yield* reasonOf(store.clones(snapshot + 100)), "NotFound")
        assert.strictEqual(yield* reasonOf(store.delete(snapshot)), "Busy")
        assert.strictEqual(yield* reasonOf(store.clone(id, new Map())), "InvalidArgument")
        assert.strictEqual(yield* blob.nextAllocated(1), 1)
        assert.strictEqual(yield* blob.nextUnallocated(0), mebi / 512)
        assert.strictEqual(yield* blob.nextAllocated(mebi / 512), undefined)
        yield* store.decouple(clone)
        assert.deepStrictEqual(yield* store.parent(clone), { _tag: "None" })
        assert.strictEqual(yield* reasonOf(store.decouple(clone)), "InvalidArgument")
        yield* store.setParent(clone, snapshot)
        assert.deepStrictEqual(yield* store.parent(clone), { _tag: "Snapshot", id: snapshot })
        yield* store.inflate(clone)
        yield* readBack(store, clone, 0, 1)
        const opened = yield* store.open(snapshot, { clearMethod: "default" })
        assert.strictEqual(yield* reasonOf(opened.io.write(0, buffer)), "ReadOnly")
        assert.strictEqual(yield* reasonOf(opened.setXattr("a", new Uint8Array([1]))), "ReadOnly")
        yield* opened.close
        const copyName = yield* Bdev.createMalloc({ blockSize: 512, size: 4 * mebi })
        yield* store.shallowCopy(snapshot, copyName, () => {})
        const copy = yield* Bdev.open(copyName, {})
        assert.strictEqual((yield* copy.readBytes(0, 512))[0], 1)
        const otherBlocks = yield* Bdev.createMalloc({ blockSize: 4096, size: 4 * mebi })
        assert.strictEqual(yield* reasonOf(store.shallowCopy(snapshot, otherBlocks, () => {})), "InvalidArgument")
        assert.strictEqual(yield* reasonOf(store.shallowCopy(clone, copyName, () => {})), "PermissionDenied")
        yield* blob.setReadOnly
        assert.strictEqual(yield* reasonOf(blob.io.write(0, buffer)), "ReadOnly")
        assert.isTrue((yield* blob.info).isReadOnly)
        yield* blob.sync
        assert.strictEqual(yield* reasonOf(blob.resize(8)), "ReadOnly")
        yield* blob.close
        yield* store.delete(snapshot)
        yield* readBack(store, id, 0, 2)
        yield* store.unload
      }).pipe(Effect.scoped)
    )
  )

  it.effect("external snapshots, there and missing", () =>
    onMalloc((bdev) =>
      Effect.gen(function* () {
        const store = yield* libspdkDriver.init(bdev, initOptions)
        const scope = yield* Scope.make()
        const below = yield* Scope.provide(Bdev.createMalloc({ name: "below", blockSize: 512, size: 4 * mebi }), scope)
        yield* Effect.scoped(
          Effect.gen(function* () {
            const opened = yield* Bdev.open(below, { write: true })
            yield* opened.writeBytes(mebi, new Uint8Array(4096).fill(6))
          })
        )
        const id = yield* store.create({ ...blobOptions, thin: true, externalSnapshot: below })
        assert.deepStrictEqual(yield* store.parent(id), { _tag: "External", bdev: below })
        yield* readBack(store, id, mebi, 6)
        const absent = { ...blobOptions, thin: true, externalSnapshot: "absent" }
        assert.strictEqual(yield* reasonOf(store.create(absent)), "NotFound")

        // It is taken away while it is read through.
        const blob = yield* store.open(id, { clearMethod: "default" })
        const buffer = yield* DmaBuffer.make(4096)
        buffer.bytes.fill(5)
        yield* blob.io.write(0, buffer)
        yield* blob.io.read(mebi, buffer)
        yield* Scope.close(scope, Exit.void)
        assert.strictEqual(yield* reasonOf(blob.io.read(mebi, buffer)), "IoFailed")
        yield* blob.io.read(0, buffer)
        assert.strictEqual(buffer.bytes[0], 5)
        yield* blob.close
        assert.strictEqual(yield* reasonOf(store.open(id, { clearMethod: "default" })), "NotFound")
        assert.deepStrictEqual(yield* store.ids, [id])
        assert.deepStrictEqual(yield* store.parent(id), { _tag: "External", bdev: below })
        yield* store.unload
        const again = yield* libspdkDriver.load(bdev, loadOptions)
        assert.deepStrictEqual(yield* again.ids, [id])
        yield* again.delete(id)
        yield* again.unload
      }).pipe(Effect.scoped)
    )
  )

  it.effect("reads and writes from several threads, in batches, and stops at the end of the blob", () =>
    onMalloc((bdev) =>
      Effect.gen(function* () {
        const store = yield* libspdkDriver.init(bdev, initOptions)
        const blob = yield* store.open(yield* store.create(blobOptions), { clearMethod: "default" })
        const thread = yield* SpdkThread.spawn({ name: "other" })
        const buffers = yield* Effect.forEach(Array.from({ length: 16 }), () => DmaBuffer.make(4096))
        buffers.forEach(({ bytes }, i) => bytes.fill(i + 1))
        const entries = buffers.map((buffer, i) => ({ offsetBytes: i * 4096 + mebi - 32768, buffer }))
        yield* blob.io.writeBatch(entries)
        const mine = yield* blob.channel.pipe(SpdkThread.on(thread))
        const back = yield* DmaBuffer.make(16 * 4096)
        yield* mine.read(mebi - 32768, back)
        assert.isTrue(buffers.every((_, i) => back.bytes[i * 4096] === i + 1))
        yield* blob.io.readv(mebi, buffers.slice(0, 2)).pipe(SpdkThread.on(thread))
        yield* blob.io.unmap(0, mebi)
        yield* blob.io.writeZeroes(0, 4 * mebi)
        const past = yield* Effect.flip(blob.io.read(4 * mebi - 512, back))
        assert.include(past.reason, { _tag: "InvalidArgument", operation: "Blob.read" })
        assert.include(past.message, "past the end of the blob")
        const prepared = yield* blob.io.prepareReads(entries)
        yield* prepared.run
        assert.strictEqual(yield* reasonOf(blob.io.read(100, back)), "InvalidArgument")
        // Waits for what is in flight.
        const reading = yield* Effect.forkChild(blob.io.read(0, back))
        yield* Effect.yieldNow
        yield* blob.close
        yield* Fiber.join(reading)
        assert.strictEqual(yield* reasonOf(blob.io.read(0, back)), "Released")
        yield* store.unload
      }).pipe(Effect.scoped)
    )
  )

  it.effect("says why it does not unload: open blobs are counted, and a failed write is none", () =>
    Effect.gen(function* () {
      const base = yield* Bdev.createMalloc({ blockSize: 512, size: 16 * mebi })
      const bad = yield* Bdev.createError({ base })
      const bdev = yield* Bdev.open(bad.name, { write: true })
      const store = yield* libspdkDriver.init(bdev, initOptions)
      const ids = [yield* store.create(blobOptions), yield* store.create(blobOptions)]
      const blobs = yield* Effect.forEach(ids, (id) => store.open(id, { clearMethod: "default" }))
      const messageOf = (effect: Effect.Effect<void, SpdkError>) =>
        Effect.map(Effect.flip(effect), ({ message }) => message)
      assert.include(yield* messageOf(store.unload), "2 blobs are open")
      assert.include(yield* messageOf(store.destroy), "2 blobs are open")
      yield* Effect.forEach(blobs, (blob) => blob.close)
      yield* bad.inject({ ioType: "write", errorType: "failure", count: 1000 })
      const error = yield* Effect.flip(store.unload)
      assert.strictEqual(error.reason._tag, "IoFailed")
      assert.include(error.message, "the next load recovers it")
      assert.notInclude(error.message, "open")
      yield* bad.inject({ ioType: "clear", errorType: "failure" })
      const again = yield* libspdkDriver.load(bdev, loadOptions)
      assert.deepStrictEqual(yield* again.ids, ids)
      yield* again.unload
    }).pipe(Effect.scoped)
  )

  it.effect("tells of a bdev that is removed", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const name = yield* Scope.provide(Bdev.createMalloc({ blockSize: 512, size: 16 * mebi }), scope)
      const bdev = yield* Bdev.open(name, { write: true })
      const store = yield* libspdkDriver.init(bdev, initOptions)
      const blob = yield* store.open(yield* store.create(blobOptions), { clearMethod: "default" })
      const buffer = yield* DmaBuffer.make(4096)
      yield* blob.io.write(0, buffer)
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual(yield* reasonOf(blob.io.write(0, buffer)), "DeviceRemoved")
      assert.strictEqual(yield* reasonOf(store.create(blobOptions)), "DeviceRemoved")
      assert.strictEqual(yield* reasonOf(blob.sync), "DeviceRemoved")
      assert.strictEqual(yield* reasonOf(store.info), "DeviceRemoved")
      yield* blob.close
      assert.strictEqual(yield* reasonOf(store.unload), "DeviceRemoved")
      assert.include(yield* used, { blobstores: 0, blobs: 0 })
    }).pipe(Effect.scoped)
  )
}

const withSpdk = () => layer(Spdk.layer({ memoryMiB: 768, logLevel: "disabled" }))("", tests)

// Skipped under a name that says why, and counted; where SPDK is found, a skipped suite fails the run.
if (libspdkMissing === undefined) describe("libspdk driver", withSpdk)
else describe.skip(`libspdk driver [skipped: ${libspdkMissing}]`, withSpdk)
