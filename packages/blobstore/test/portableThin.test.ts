import { assert, describe, it } from "@effect/vitest"
import type * as Bdev from "@effect-spdk/core/Bdev"
import * as DmaBuffer from "@effect-spdk/core/DmaBuffer"
import type { SpdkError } from "@effect-spdk/core/SpdkError"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type { StoreDriver } from "../src/internal/driver.ts"
import {
  clusterBytes,
  contents,
  create,
  init,
  load,
  malloc,
  open,
  pattern,
  read,
  run,
  see,
  write
} from "./support/portableDisk.ts"

const reasonOf = <A, E extends SpdkError, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.map(Effect.flip(effect), (error) => error.reason)

const none = new Map<string, Uint8Array>()
const whole = (seed: number) => pattern(clusterBytes, seed)

/** Unloads and loads; what the store tells does not change by it. */
const again = Effect.fnUntraced(function* (store: StoreDriver, bdev: Bdev.Bdev) {
  const before = yield* see(store)
  yield* store.unload
  const loaded = yield* load(bdev)
  assert.deepStrictEqual(yield* see(loaded), before)
  return loaded
})

describe("thin blobs of the portable driver", () => {
  for (const extentTable of [true, false]) {
    it.live(`get clusters by writes and give them back by unmaps, extent table ${extentTable}`, () =>
      run(
        Effect.gen(function* () {
          const bdev = yield* malloc()
          const store = yield* init(bdev)
          const id = yield* create(store, { clusters: 700, thin: true, extentTable })
          const blob = yield* open(store, id)
          const free = (yield* store.info).freeClusters
          assert.deepStrictEqual(yield* read(blob, 600 * clusterBytes, 1024), new Uint8Array(1024))
          assert.strictEqual(yield* blob.nextAllocated(0), undefined)
          yield* write(blob, 2 * clusterBytes + 512, pattern(1024, 1))
          yield* write(blob, 4 * clusterBytes, whole(2))
          // Over the edge of a cluster, and of an extent page.
          yield* write(blob, 512 * clusterBytes - 512, pattern(1024, 3))
          assert.strictEqual((yield* store.info).freeClusters, free - 4)
          assert.strictEqual((yield* blob.info).allocatedClusters, 4)
          assert.strictEqual(yield* blob.nextAllocated(0), 2 * 128)
          assert.strictEqual(yield* blob.nextUnallocated(2 * 128 + 1), 3 * 128)
          const expected = new Uint8Array(clusterBytes)
          expected.set(pattern(1024, 1), 512)
          assert.deepStrictEqual(yield* read(blob, 2 * clusterBytes, clusterBytes), expected)
          yield* blob.io.unmap(2 * clusterBytes, 2 * clusterBytes)
          yield* blob.io.unmap(4 * clusterBytes, 512)
          assert.strictEqual((yield* blob.info).allocatedClusters, 3)
          yield* blob.io.writeZeroes(5 * clusterBytes, clusterBytes)
          assert.strictEqual((yield* blob.info).allocatedClusters, 4)
          yield* blob.close
          const loaded = yield* again(store, bdev)
          const reopened = yield* open(loaded, id)
          assert.deepStrictEqual(yield* read(reopened, 2 * clusterBytes, clusterBytes), new Uint8Array(clusterBytes))
          assert.deepStrictEqual(yield* read(reopened, 512 * clusterBytes - 512, 1024), pattern(1024, 3))
          yield* reopened.close
          yield* loaded.delete(id)
          assert.strictEqual((yield* loaded.info).freeClusters, (yield* loaded.info).totalClusters)
        })
      )
    )
  }

  it.live("allocate once for writers that meet, and let none of their bytes go", () =>
    run(
      Effect.gen(function* () {
        const store = yield* init(yield* malloc())
        const blob = yield* open(store, yield* create(store, { clusters: 4, thin: true }))
        const units = Array.from({ length: 4 * 128 }, (_, i) => i)
        yield* Effect.forEach(units, (unit) => write(blob, unit * 512, pattern(512, unit)), {
          concurrency: 64,
          discard: true
        })
        assert.strictEqual((yield* blob.info).allocatedClusters, 4)
        for (const unit of units) assert.deepStrictEqual(yield* read(blob, unit * 512, 512), pattern(512, unit))
      })
    )
  )

  it.live("fail a write when the store is full, and nothing else", () =>
    run(
      Effect.gen(function* () {
        const store = yield* init(yield* malloc())
        yield* create(store, { clusters: 238 })
        const blob = yield* open(store, yield* create(store, { clusters: 4, thin: true }))
        yield* write(blob, 0, pattern(512, 1))
        assert.strictEqual((yield* reasonOf(write(blob, clusterBytes, pattern(512, 1))))._tag, "NoSpace")
        assert.deepStrictEqual(yield* read(blob, 0, 512), pattern(512, 1))
        yield* blob.io.unmap(0, clusterBytes)
        yield* write(blob, clusterBytes, pattern(512, 2))
        assert.deepStrictEqual(yield* read(blob, 0, 512), new Uint8Array(512))
      })
    )
  )

  it.live("read and write batches over clusters they have and have not", () =>
    run(
      Effect.gen(function* () {
        const store = yield* init(yield* malloc())
        const blob = yield* open(store, yield* create(store, { clusters: 4, thin: true }))
        const buffers = yield* Effect.forEach([1, 2, 3], (seed) =>
          Effect.map(DmaBuffer.make(1024), (buffer) => {
            buffer.bytes.set(pattern(1024, seed))
            return buffer
          })
        )
        const entries = buffers.map((buffer, i) => ({ offsetBytes: (i + 1) * clusterBytes - 512, buffer }))
        yield* blob.io.writeBatch(entries)
        for (const buffer of buffers) buffer.bytes.fill(0)
        const batch = yield* blob.io.prepareReads(entries)
        yield* batch.run
        for (const [i, buffer] of buffers.entries()) assert.deepStrictEqual(buffer.bytes.slice(), pattern(1024, i + 1))
        batch.offsetsBytes.set([0, 1024, 2048])
        yield* batch.run
        assert.deepStrictEqual(buffers[0]?.bytes.slice(), new Uint8Array(1024))
        batch.offsetsBytes[1] = 4 * clusterBytes
        const reason = yield* reasonOf(batch.run)
        assert.strictEqual(reason._tag === "InvalidArgument" ? reason.field : reason._tag, "entries[1].offsetBytes")
      })
    )
  )
})

describe("snapshots of the portable driver", () => {
  for (const thin of [true, false]) {
    it.live(`keep what was there, of a ${thin ? "thin" : "thick"} blob`, () =>
      run(
        Effect.gen(function* () {
          const bdev = yield* malloc()
          const store = yield* init(bdev)
          const id = yield* create(store, { clusters: 8, thin })
          const blob = yield* open(store, id)
          yield* write(blob, 0, whole(1))
          yield* write(blob, clusterBytes, whole(2))
          const snapshot = yield* store.snapshot(id, new Map([["label", pattern(8, 1)]]))
          yield* write(blob, 512, pattern(512, 3))
          yield* write(blob, clusterBytes, whole(4))
          const first = whole(1)
          first.set(pattern(512, 3), 512)
          assert.deepStrictEqual(yield* read(blob, 0, clusterBytes), first)
          assert.deepStrictEqual((yield* contents(store, snapshot)).subarray(0, clusterBytes), whole(1))
          assert.deepStrictEqual(yield* store.parent(id), { _tag: "Snapshot", id: snapshot })
          assert.deepStrictEqual(yield* store.clones(snapshot), [id])
          assert.isTrue((yield* blob.info).isClone)
          assert.strictEqual((yield* blob.info).allocatedClusters, 2)
          const clone = yield* store.clone(snapshot, none)
          assert.strictEqual((yield* reasonOf(store.delete(snapshot)))._tag, "Busy")
          const second = yield* store.snapshot(id, none)
          assert.deepStrictEqual(yield* store.clones(snapshot), [clone, second])
          yield* blob.close
          const loaded = yield* again(store, bdev)
          const bytes = yield* contents(loaded, id)
          yield* loaded.delete(clone)
          // One clone each: the clusters move up.
          yield* loaded.delete(snapshot)
          assert.deepStrictEqual(yield* contents(loaded, id), bytes)
          yield* loaded.delete(second)
          assert.deepStrictEqual(yield* contents(loaded, id), bytes)
          assert.deepStrictEqual(yield* loaded.parent(id), { _tag: "None" })
          const last = yield* again(loaded, bdev)
          yield* last.delete(id)
          assert.strictEqual((yield* last.info).freeClusters, (yield* last.info).totalClusters)
        })
      )
    )
  }

  it.live("inflate, decouple and change parents", () =>
    run(
      Effect.gen(function* () {
        const bdev = yield* malloc()
        const store = yield* init(bdev)
        const id = yield* create(store, { clusters: 4, thin: true })
        const blob = yield* open(store, id)
        yield* write(blob, 0, whole(1))
        const bottom = yield* store.snapshot(id, none)
        yield* write(blob, clusterBytes, whole(2))
        const middle = yield* store.snapshot(id, none)
        yield* blob.close
        const bytes = yield* contents(store, id)
        yield* store.decouple(id)
        assert.deepStrictEqual(yield* store.parent(id), { _tag: "Snapshot", id: bottom })
        assert.deepStrictEqual(yield* contents(store, id), bytes)
        assert.strictEqual((yield* see(store)).blobs[0]?.allocatedClusters, 1)
        yield* store.setParent(id, middle)
        assert.deepStrictEqual(yield* store.clones(middle), [id])
        assert.deepStrictEqual(yield* contents(store, id), bytes)
        assert.strictEqual((yield* reasonOf(store.setParent(id, middle)))._tag, "AlreadyExists")
        assert.strictEqual((yield* reasonOf(store.setParent(bottom, id)))._tag, "InvalidArgument")
        assert.strictEqual((yield* reasonOf(store.setParent(bottom, middle)))._tag, "InvalidArgument")
        const clone = yield* store.clone(middle, none)
        yield* store.inflate(clone)
        assert.deepStrictEqual(yield* contents(store, clone), bytes)
        assert.deepStrictEqual(yield* store.parent(clone), { _tag: "None" })
        assert.strictEqual((yield* see(store)).blobs.find((one) => one.id === clone)?.allocatedClusters, 4)
        yield* again(store, bdev)
      })
    )
  )

  it.live("stand on another bdev, and are copied to one", () =>
    run(
      Effect.gen(function* () {
        const bdev = yield* malloc()
        const base = yield* malloc(2 * clusterBytes, "base")
        yield* base.writeBytes(0, pattern(2 * clusterBytes, 9))
        const store = yield* init(bdev)
        const id = yield* create(store, { clusters: 3, externalSnapshot: "base" })
        const blob = yield* open(store, id)
        const expected = new Uint8Array(3 * clusterBytes)
        expected.set(pattern(2 * clusterBytes, 9))
        assert.deepStrictEqual(yield* read(blob, 0, expected.length), expected)
        yield* write(blob, 512, pattern(512, 1))
        expected.set(pattern(512, 1), 512)
        assert.deepStrictEqual(yield* read(blob, 0, expected.length), expected)
        assert.deepStrictEqual(yield* store.parent(id), { _tag: "External", bdev: "base" })
        const snapshot = yield* store.snapshot(id, none)
        assert.deepStrictEqual(yield* store.parent(snapshot), { _tag: "External", bdev: "base" })
        yield* blob.close
        const loaded = yield* again(store, bdev)
        assert.deepStrictEqual(yield* contents(loaded, id), expected)
        const target = yield* malloc(4 * clusterBytes, "target")
        const seen: Array<number> = []
        yield* loaded.shallowCopy(snapshot, "target", (done) => void seen.push(done))
        assert.deepStrictEqual(seen, [1])
        assert.deepStrictEqual(yield* target.readBytes(0, clusterBytes), expected.subarray(0, clusterBytes))
        assert.strictEqual((yield* reasonOf(loaded.shallowCopy(id, "target", () => {})))._tag, "PermissionDenied")
        yield* loaded.inflate(id)
        yield* loaded.delete(snapshot)
        assert.deepStrictEqual(yield* contents(loaded, id), expected)
        const thin = yield* create(loaded, { clusters: 2, thin: true })
        yield* loaded.setExternalParent(thin, "base")
        assert.deepStrictEqual(yield* contents(loaded, thin), pattern(2 * clusterBytes, 9))
        assert.strictEqual((yield* reasonOf(loaded.setExternalParent(thin, "base")))._tag, "AlreadyExists")
        assert.strictEqual((yield* reasonOf(loaded.setExternalParent(thin, "no such")))._tag, "NotFound")
        yield* again(loaded, bdev)
      })
    )
  )

  it.live("hold back I/O while they are made, and lose none of it", () =>
    run(
      Effect.gen(function* () {
        const store = yield* init(yield* malloc())
        const id = yield* create(store, { clusters: 16, thin: true })
        const blob = yield* open(store, id)
        const writer = (index: number) =>
          Effect.forEach(
            Array.from({ length: 24 }, (_, i) => i),
            (i) => write(blob, (index * 24 + i) * 2048, pattern(2048, index * 24 + i)),
            { discard: true }
          )
        const writers = yield* Effect.forEach(
          Array.from({ length: 16 }, (_, i) => i),
          (index) => Effect.forkChild(writer(index))
        )
        const snapshots = []
        for (let i = 0; i < 5; i++) snapshots.push(yield* store.snapshot(id, none))
        yield* Effect.forEach(writers, Fiber.join)
        for (let i = 0; i < 16 * 24; i++) assert.deepStrictEqual(yield* read(blob, i * 2048, 2048), pattern(2048, i))
        yield* blob.close
        const bytes = yield* contents(store, id)
        for (const snapshot of snapshots) yield* store.delete(snapshot)
        assert.deepStrictEqual(yield* contents(store, id), bytes)
      })
    )
  )
})
