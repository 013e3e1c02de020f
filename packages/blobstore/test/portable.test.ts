import { assert, describe, it } from "@effect/vitest"
import * as Bdev from "@effect-spdk/core/Bdev"
import * as Effect from "effect/Effect"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import type { SpdkError } from "@effect-spdk/core/SpdkError"
import {
  clusterBytes,
  contents,
  create,
  init,
  load,
  malloc,
  mebibyte,
  open,
  pattern,
  read,
  run,
  see,
  write
} from "./support/portableDisk.ts"

const reasonOf = <A, E extends SpdkError, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.map(Effect.flip(effect), (error) => error.reason)

const bytesOf = (text: string) => new TextEncoder().encode(text)

describe("a store of the portable driver", () => {
  it.live("has SPDK's numbers", () =>
    run(
      Effect.gen(function* () {
        const store = yield* init(yield* malloc(), { type: "TESTTYPE" })
        assert.deepStrictEqual(yield* store.info, {
          type: "TESTTYPE",
          clusterSizeBytes: clusterBytes,
          totalClusters: 239,
          freeClusters: 239,
          ioUnitBytes: 512,
          pageBytes: 4096
        })
        const ids = [yield* create(store, { clusters: 3 }), yield* create(store, { clusters: 600, thin: true })]
        // Page 1 has the extents of the first.
        assert.deepStrictEqual(ids, [2 ** 32, 2 ** 32 + 2])
        assert.strictEqual(yield* create(store), 2 ** 32 + 3)
        assert.strictEqual((yield* store.info).freeClusters, 236)
        assert.strictEqual((yield* reasonOf(create(store, { clusters: 237 })))._tag, "NoSpace")
        assert.strictEqual((yield* store.info).freeClusters, 236)
        assert.strictEqual(yield* create(store, { clusters: 236 }), 2 ** 32 + 4)
      })
    )
  )

  it.live("keeps blobs, data and xattrs over an unload, and over none", () =>
    run(
      Effect.gen(function* () {
        const bdev = yield* malloc()
        const store = yield* init(bdev)
        const xattrs = new Map([["name", bytesOf("a")]])
        const id = yield* create(store, { clusters: 4, xattrs })
        const blob = yield* open(store, id)
        const data = pattern(4 * clusterBytes, 1)
        yield* write(blob, 0, data)
        yield* blob.setXattr("long", pattern(3000, 2))
        yield* blob.setXattr("longer", pattern(4000, 3))
        yield* blob.resize(6)
        yield* write(blob, 5 * clusterBytes, data.subarray(0, clusterBytes))
        yield* blob.sync
        yield* blob.close
        yield* store.setSuperBlob(id)
        const seen = yield* see(store)
        // As after a crash: nobody unloads.
        const recovered = yield* load(bdev)
        assert.deepStrictEqual(yield* see(recovered), seen)
        yield* recovered.unload
        const loaded = yield* load(bdev)
        assert.deepStrictEqual(yield* see(loaded), seen)
        assert.deepStrictEqual((yield* contents(loaded, id)).subarray(0, data.length), data)
        yield* loaded.delete(id)
        assert.strictEqual((yield* loaded.info).freeClusters, (yield* loaded.info).totalClusters)
        yield* loaded.unload
        const last = yield* load(bdev)
        assert.deepStrictEqual(yield* last.ids, [])
        yield* last.destroy
        assert.strictEqual((yield* reasonOf(load(bdev)))._tag, "Corrupted")
      })
    )
  )

  it.live("refuses what SPDK refuses", () =>
    run(
      Effect.gen(function* () {
        const bdev = yield* malloc()
        const store = yield* init(bdev, { type: "ONE" })
        const id = yield* create(store, { clusters: 1, xattrs: new Map([["a", bytesOf("b")]]) })
        const blob = yield* open(store, id)
        assert.strictEqual((yield* reasonOf(store.delete(id)))._tag, "Busy")
        assert.strictEqual((yield* reasonOf(store.unload))._tag, "Busy")
        assert.strictEqual((yield* reasonOf(store.destroy))._tag, "Busy")
        assert.strictEqual((yield* reasonOf(store.delete(id + 7)))._tag, "NotFound")
        assert.strictEqual((yield* reasonOf(open(store, 5)))._tag, "NotFound")
        assert.strictEqual((yield* reasonOf(blob.resize(100_000)))._tag, "NoSpace")
        assert.strictEqual((yield* reasonOf(blob.setXattr("x", new Uint8Array(4063))))._tag, "NoMemory")
        assert.strictEqual((yield* reasonOf(blob.removeXattr("x")))._tag, "NotFound")
        assert.strictEqual((yield* reasonOf(store.clone(id, new Map())))._tag, "InvalidArgument")
        assert.strictEqual((yield* reasonOf(store.decouple(id)))._tag, "InvalidArgument")
        yield* blob.setReadOnly
        yield* write(blob, 0, pattern(512, 1))
        yield* blob.sync
        assert.strictEqual((yield* reasonOf(write(blob, 0, pattern(512, 1))))._tag, "ReadOnly")
        assert.strictEqual((yield* reasonOf(blob.io.unmap(0, 512)))._tag, "ReadOnly")
        assert.strictEqual((yield* reasonOf(blob.resize(2)))._tag, "ReadOnly")
        assert.strictEqual((yield* reasonOf(blob.setXattr("x", bytesOf("y"))))._tag, "ReadOnly")
        assert.strictEqual((yield* reasonOf(store.snapshot(id, new Map())))._tag, "InvalidArgument")
        yield* blob.close
        yield* blob.close
        assert.strictEqual((yield* reasonOf(read(blob, 0, 512)))._tag, "Released")
        assert.strictEqual((yield* reasonOf(blob.sync))._tag, "Released")
        yield* store.unload
        assert.strictEqual((yield* reasonOf(load(bdev, { type: "TWO" })))._tag, "WrongType")
        const again = yield* load(bdev, { type: "ONE" })
        const reopened = yield* open(again, id)
        assert.isTrue((yield* reopened.info).isReadOnly)
      })
    )
  )

  it.live("says which argument of a request is wrong", () =>
    run(
      Effect.gen(function* () {
        const store = yield* init(yield* malloc())
        const blob = yield* open(store, yield* create(store, { clusters: 2 }))
        const argument = <A, R>(effect: Effect.Effect<A, SpdkError, R>) =>
          Effect.map(reasonOf(effect), (reason) =>
            reason._tag === "InvalidArgument" ? `${reason.field} ${reason.rule}` : reason._tag
          )
        assert.strictEqual(yield* argument(read(blob, 17, 512)), "offsetBytes is not a multiple of the io unit 512")
        assert.strictEqual(
          yield* argument(read(blob, 2 * clusterBytes, 512)),
          `offsetBytes lies past the end of the blob at ${2 * clusterBytes}`
        )
        assert.strictEqual(
          yield* argument(write(blob, clusterBytes, pattern(clusterBytes + 512, 1))),
          `buffer.byteLength runs past the end of the blob at ${2 * clusterBytes} when it starts at ${clusterBytes}`
        )
        assert.strictEqual(yield* argument(blob.io.unmap(-512, 512)), "offsetBytes is negative")
        assert.strictEqual(
          yield* argument(blob.io.writeZeroes(0, 0)),
          "lengthBytes is 0, and an I/O moves at least one io unit"
        )
        assert.strictEqual(yield* argument(blob.io.readv(0, [])), "buffers is empty")
        assert.strictEqual(
          yield* argument(blob.io.readBatch([{ offsetBytes: 0, buffer: new Uint8Array(512) as never }])),
          "entries[0].buffer is not a DmaBuffer"
        )
      })
    )
  )

  it.live("grows with its device, live and at load", () =>
    run(
      Effect.gen(function* () {
        const bdev = yield* malloc(64 * mebibyte)
        // A store that knows a quarter of the device: as if the device had grown since.
        const small = new Proxy(bdev, {
          get: (target, name) => {
            const value: unknown = name === "sizeBytes" ? 16 * mebibyte : Reflect.get(target, name, target)
            return typeof value === "function" ? value.bind(target) : value
          }
        })
        const store = yield* init(small, { clearMethod: "none" })
        const id = yield* create(store, { clusters: 200 })
        yield* store.unload
        const atLoad = yield* load(bdev, { grow: true })
        assert.strictEqual((yield* atLoad.info).totalClusters, 239 + 768)
        assert.strictEqual((yield* atLoad.info).freeClusters, 39 + 768)
        const large = yield* create(atLoad, { clusters: 800 })
        yield* atLoad.unload
        const loaded = yield* load(bdev)
        assert.deepStrictEqual(yield* loaded.ids, [id, large])
        yield* loaded.grow
        yield* loaded.unload

        const other = yield* init(small, { clearMethod: "none" })
        yield* other.unload
        const live = yield* load(bdev)
        yield* live.grow
        assert.strictEqual((yield* live.info).freeClusters, 239 + 768)
      })
    )
  )

  it.live("lives on a file", () =>
    run(
      Effect.gen(function* () {
        const folder = yield* Effect.acquireRelease(
          Effect.sync(() => fs.mkdtempSync(path.join(os.tmpdir(), "effect-spdk-"))),
          (made) => Effect.sync(() => fs.rmSync(made, { recursive: true }))
        )
        const name = yield* Bdev.createFile({ name: "file", path: path.join(folder, "disk.img"), size: 16 * mebibyte })
        const bdev = yield* Bdev.open(name, { write: true })
        const store = yield* init(bdev)
        const id = yield* create(store, { clusters: 3, thin: true })
        const blob = yield* open(store, id)
        yield* write(blob, clusterBytes + 4096, pattern(4096, 4))
        yield* blob.close
        yield* store.unload
        const loaded = yield* load(bdev)
        const expected = new Uint8Array(3 * clusterBytes)
        expected.set(pattern(4096, 4), clusterBytes + 4096)
        assert.deepStrictEqual(yield* contents(loaded, id), expected)
      })
    )
  )
})
