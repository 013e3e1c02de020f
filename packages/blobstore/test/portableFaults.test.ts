/** What fails half-way leaves the memory and the device in step, and nothing of one blob in another. */
import { assert, describe, it } from "@effect/vitest"
import * as Bdev from "@effect-spdk/core/Bdev"
import * as DmaBuffer from "@effect-spdk/core/DmaBuffer"
import type { SpdkError } from "@effect-spdk/core/SpdkError"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { check } from "../src/Check.ts"
import type { OpenBlob, StoreDriver } from "../src/internal/driver.ts"
import { faultyBdev } from "./support/faultyBdev.ts"
import {
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
  write
} from "./support/portableDisk.ts"

const clusterBytes = 4096
const small = { clusterSizeBytes: clusterBytes, metadataPages: 32 }
const none = new Map<string, Uint8Array>()
const whole = (seed: number) => pattern(clusterBytes, seed)
const zeroes = new Uint8Array(clusterBytes)

const reasonOf = <A, E extends SpdkError, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.map(Effect.flip(effect), (error) => error.reason._tag)

/** Loads what is on the disk as after a crash, and once more after an unload; nothing may be wrong with it. */
const sound = Effect.fnUntraced(function* (disk: Bdev.Bdev) {
  const store = yield* load(disk)
  for (const id of yield* store.ids) yield* contents(store, id)
  yield* store.unload
  const { findings } = yield* Effect.provideService(check, Bdev.Bdev, disk)
  const wrong = findings.filter(({ severity }) => severity !== "info").map(({ message }) => message)
  assert.deepStrictEqual(wrong, [])
  return yield* load(disk)
})

/** No metadata page is left. */
const fillPages = Effect.fnUntraced(function* (store: StoreDriver) {
  const ids = []
  for (;;) {
    const made = yield* Effect.result(create(store))
    if (made._tag === "Failure") return ids
    ids.push(made.success)
  }
})

const turns = (count: number) => Effect.forEach(Array.from({ length: Math.max(0, count) }), () => Effect.yieldNow)

const free = (store: StoreDriver) => Effect.map(store.info, ({ freeClusters }) => freeClusters)

const twoPages = new Map([
  ["a", pattern(2500, 1)],
  ["b", pattern(2500, 2)]
])

describe("a change that fails half-way, of the portable driver", () => {
  for (const extentTable of [true, false]) {
    it.live(`unmapping clusters beside an inflate leaves no hole, extent table ${extentTable}`, () =>
      run(
        Effect.gen(function* () {
          const disk = yield* malloc(2 * mebibyte)
          const store = yield* init(disk, { ...small, metadataPages: 64 })
          for (let delay = -12; delay < 12; delay++) {
            const id = yield* create(store, { clusters: 4, thin: true, extentTable })
            const blob = yield* open(store, id)
            yield* write(blob, 0, pattern(4 * clusterBytes, 7))
            const unmap = Effect.andThen(turns(-delay), blob.io.unmap(0, clusterBytes))
            yield* Effect.all([unmap, Effect.andThen(turns(delay), store.inflate(id))], { concurrency: 2 })
            assert.strictEqual((yield* blob.info).allocatedClusters, 4)
            assert.deepStrictEqual(
              yield* read(blob, 3 * clusterBytes, clusterBytes),
              pattern(4 * clusterBytes, 7).slice(3 * clusterBytes)
            )
            yield* blob.close
          }
          yield* sound(disk)
        })
      )
    )
  }

  it.live("a shrink without a metadata page leaves the old size", () =>
    run(
      Effect.gen(function* () {
        const disk = yield* malloc(4 * mebibyte)
        const store = yield* init(disk, { ...small, metadataPages: 16 })
        const id = yield* create(store, { clusters: 600, thin: true, xattrs: twoPages })
        const blob = yield* open(store, id)
        yield* write(blob, 0, whole(1))
        yield* write(blob, 599 * clusterBytes, whole(2))
        const [spare] = yield* fillPages(store)
        const before = yield* free(store)
        for (let i = 0; i < 2; i++) {
          assert.strictEqual(yield* reasonOf(blob.resize(500)), "NoMemory")
          assert.strictEqual((yield* blob.info).clusters, 600)
        }
        yield* write(blob, 10 * clusterBytes, whole(3))
        // As after a crash: nobody unloads.
        const again = yield* load(disk)
        const seen = yield* contents(again, id)
        assert.deepStrictEqual(seen.subarray(599 * clusterBytes), whole(2))
        assert.deepStrictEqual(seen.subarray(10 * clusterBytes, 11 * clusterBytes), whole(3))
        // What is there now is the first store's still.
        yield* store.delete(spare ?? 0)
        yield* blob.resize(500)
        assert.strictEqual(yield* free(store), before)
        yield* blob.close
        const loaded = yield* sound(disk)
        assert.strictEqual((yield* contents(loaded, id)).length, 500 * clusterBytes)
      })
    )
  )

  it.live("every write of a shrink fails once, and another shrink finishes it", () =>
    run(
      Effect.gen(function* () {
        for (let failAt = 1; ; failAt++) {
          const disk = yield* malloc(4 * mebibyte)
          const { bdev, faults } = faultyBdev(disk)
          const store = yield* init(bdev, small)
          const id = yield* create(store, { clusters: 600, thin: true, xattrs: twoPages })
          const blob = yield* open(store, id)
          yield* write(blob, 0, whole(1))
          yield* write(blob, 599 * clusterBytes, whole(2))
          const before = yield* free(store)
          faults.failAt = faults.changes + failAt
          faults.once = true
          const exit = yield* Effect.exit(blob.resize(500))
          const { clusters } = yield* blob.info
          if (Exit.isFailure(exit) && clusters === 600) {
            assert.deepStrictEqual(yield* read(blob, 599 * clusterBytes, clusterBytes), whole(2))
          } else assert.strictEqual(clusters, 500)
          const isDone = faults.changes < faults.failAt
          faults.failAt = undefined
          yield* write(blob, 10 * clusterBytes, whole(3))
          yield* blob.resize(500)
          assert.strictEqual(yield* free(store), before)
          assert.deepStrictEqual(
            (yield* contents(yield* sound(disk), id)).subarray(10 * clusterBytes, 11 * clusterBytes),
            whole(3)
          )
          if (isDone) return assert.isAbove(failAt, 4)
        }
      })
    )
  )

  const beside = (name: string, letGo: (store: StoreDriver, id: number) => Effect.Effect<void, SpdkError>) =>
    it.live(`${name} waits for a read through the parent`, () =>
      run(
        Effect.gen(function* () {
          const base = yield* Bdev.createMalloc({ size: 2 * mebibyte, blockSize: 512 })
          const slow = yield* Bdev.createDelay({ base, name: "slow", readMicros: 500 })
          const store = yield* init(yield* Bdev.open(slow, { write: true }), small)
          const bottom = yield* create(store, { clusters: 1, thin: true })
          const first = yield* open(store, bottom)
          yield* write(first, 0, whole(1))
          const deep = yield* store.snapshot(bottom, none)
          const middle = yield* store.snapshot(bottom, none)
          const buffers = yield* Effect.forEach(Array.from({ length: 8 }), () => DmaBuffer.make(512))
          const reader = yield* Effect.forkChild(first.io.readv(0, buffers), { startImmediately: true })
          yield* letGo(store, middle)
          yield* store.delete(deep)
          const other = yield* open(store, yield* create(store, { clusters: 8 }))
          yield* Effect.forEach([0, 1, 2, 3, 4, 5, 6, 7], (i) => write(other, i * clusterBytes, whole(9)))
          yield* Fiber.join(reader)
          for (const [i, { bytes }] of buffers.entries()) {
            assert.deepStrictEqual(bytes.slice(), whole(1).slice(i * 512, (i + 1) * 512))
          }
        })
      )
    )
  beside("inflating what lies between", (store, id) => store.inflate(id))
  beside("decoupling what lies between", (store, id) => store.decouple(id))

  for (const extentTable of [true, false]) {
    for (const fill of ["a piece of a cluster", "a whole cluster"] as const) {
      it.live(`no failed first write of ${fill} leaks or shows, extent table ${extentTable}`, () =>
        run(
          Effect.gen(function* () {
            const data = fill === "a whole cluster" ? whole(1) : pattern(512, 1)
            for (let failAt = 1; ; failAt++) {
              const disk = yield* malloc(mebibyte)
              const { bdev, faults } = faultyBdev(disk)
              const store = yield* init(bdev, small)
              const blob = yield* open(store, yield* create(store, { clusters: 4, thin: true, extentTable }))
              const before = yield* free(store)
              faults.failAt = faults.changes + failAt
              // Down for a while, over many attempts.
              const failed = yield* Effect.forEach([1, 2, 3, 4, 5], () => Effect.exit(write(blob, clusterBytes, data)))
              if (failed.every(Exit.isSuccess)) return assert.isAbove(failAt, 2)
              faults.failAt = undefined
              const { allocatedClusters } = yield* blob.info
              assert.strictEqual(yield* free(store), before - allocatedClusters)
              const thin = yield* open(store, yield* create(store, { clusters: 2, thin: true, extentTable }))
              yield* write(thin, 0, pattern(512, 5))
              assert.deepStrictEqual(yield* read(thin, 512, 3584), zeroes.slice(512))
              const thick = yield* open(store, yield* create(store, { clusters: 8, extentTable }))
              assert.deepStrictEqual(yield* read(thick, 0, 8 * clusterBytes), new Uint8Array(8 * clusterBytes))
              yield* write(blob, clusterBytes, data)
              assert.deepStrictEqual(yield* read(blob, clusterBytes, data.length), data)
              yield* blob.sync
              yield* Effect.forEach([blob, thin, thick], (one: OpenBlob) => one.close)
              const loaded = yield* sound(disk)
              assert.strictEqual(yield* free(loaded), yield* free(store))
            }
          })
        )
      )
    }
  }

  it.live("a write that meets an allocation is not acknowledged and lost", () =>
    run(
      Effect.gen(function* () {
        const base = yield* Bdev.createMalloc({ size: 2 * mebibyte, blockSize: 512 })
        const bad = yield* Bdev.createError({ base })
        const slow = yield* Bdev.createDelay({ base: bad.name, name: "slowly", writeMicros: 2000 })
        const store = yield* init(yield* Bdev.open(slow, { write: true }), small)
        const blob = yield* open(store, yield* create(store, { clusters: 4, thin: true }))
        yield* write(blob, 0, whole(9))
        // The first one is the extent page's.
        yield* bad.inject({ ioType: "write", errorType: "failure", count: 1 })
        const first = yield* Effect.forkChild(write(blob, clusterBytes, pattern(512, 0)))
        // With each turn of the loop another write comes to the cluster.
        const others = []
        for (let unit = 1; unit < 8; unit++) {
          others.push(yield* Effect.forkChild(write(blob, clusterBytes + unit * 512, pattern(512, unit))))
          for (let i = 0; i < 8; i++) yield* Effect.promise(() => new Promise((next) => setImmediate(next)))
        }
        assert.isTrue(Exit.isFailure(yield* Fiber.await(first)))
        yield* Effect.forEach(others, Fiber.join)
        const seen = yield* read(blob, clusterBytes, clusterBytes)
        for (let unit = 1; unit < 8; unit++) {
          assert.deepStrictEqual(seen.slice(unit * 512, (unit + 1) * 512), pattern(512, unit))
        }
      })
    )
  )

  it.live("what a crash left in free clusters does not come up in another blob", () =>
    run(
      Effect.gen(function* () {
        for (let failAt = 1; failAt < 12; failAt++) {
          const disk = yield* malloc(mebibyte)
          const { bdev, faults } = faultyBdev(disk)
          const store = yield* init(bdev, small)
          const blob = yield* open(store, yield* create(store, { clusters: 4, thin: true }))
          faults.failAt = faults.changes + failAt
          yield* Effect.exit(write(blob, 0, pattern(4 * clusterBytes, 1)))
          yield* Effect.exit(blob.close)
          const loaded = yield* sound(disk)
          const thin = yield* open(loaded, yield* create(loaded, { clusters: 4, thin: true }))
          yield* Effect.forEach([0, 1, 2, 3], (i) => write(thin, i * clusterBytes, pattern(512, 5)))
          const seen = yield* read(thin, 0, 4 * clusterBytes)
          for (let i = 0; i < 4; i++) seen.fill(0, i * clusterBytes, i * clusterBytes + 512)
          assert.deepStrictEqual(seen, new Uint8Array(4 * clusterBytes))
        }
        // Straight from the recovery, without a clean unload in between.
        const disk = yield* malloc(mebibyte)
        const { bdev, faults } = faultyBdev(disk)
        const store = yield* init(bdev, small)
        const blob = yield* open(store, yield* create(store, { clusters: 4, thin: true }))
        faults.failAt = faults.changes + 2
        yield* Effect.exit(write(blob, 0, whole(1)))
        const loaded = yield* load(disk)
        const thick = yield* open(loaded, yield* create(loaded, { clusters: 16 }))
        assert.deepStrictEqual(yield* read(thick, 0, 16 * clusterBytes), new Uint8Array(16 * clusterBytes))
      })
    )
  )

  it.live("a piece of a cluster that nobody cleared reads as zeroes", () =>
    run(
      Effect.gen(function* () {
        const store = yield* init(yield* malloc(mebibyte), small)
        const old = yield* create(store, { clusters: 8, clearMethod: "none" })
        const blob = yield* open(store, old)
        yield* write(blob, 0, pattern(8 * clusterBytes, 1))
        yield* blob.close
        yield* store.delete(old)
        const thin = yield* open(store, yield* create(store, { clusters: 8, thin: true }))
        yield* Effect.forEach([0, 1, 2, 3, 4, 5, 6, 7], (i) => write(thin, i * clusterBytes, pattern(512, 5)))
        for (let i = 0; i < 8; i++) {
          assert.deepStrictEqual(yield* read(thin, i * clusterBytes + 512, 3584), zeroes.slice(512))
        }
      })
    )
  )

  for (const extentTable of [true, false]) {
    it.live(`a create that fails gives back what it took, extent table ${extentTable}`, () =>
      run(
        Effect.gen(function* () {
          for (const once of [true, false]) {
            for (let failAt = 1; ; failAt++) {
              const disk = yield* malloc(mebibyte)
              const { bdev, faults } = faultyBdev(disk, { cache: true })
              const store = yield* init(bdev, small)
              const before = yield* free(store)
              faults.failAt = faults.changes + failAt
              faults.once = once
              const exit = yield* Effect.exit(create(store, { clusters: 20, extentTable, xattrs: twoPages }))
              faults.failAt = undefined
              if (Exit.isSuccess(exit)) {
                assert.isAbove(failAt, 1)
                break
              }
              if (once) assert.strictEqual(yield* free(store), before)
              assert.deepStrictEqual(yield* store.ids, [])
              yield* store.unload
              const loaded = yield* sound(disk)
              const [left] = yield* loaded.ids
              assert.strictEqual(yield* free(loaded), left === undefined ? before : before - 20)
            }
          }
        })
      )
    )
  }

  it.live("a snapshot's failed removal is taken back before anything is put on it", () =>
    run(
      Effect.gen(function* () {
        for (let failAt = 1; ; failAt++) {
          const disk = yield* malloc(mebibyte)
          const { bdev, faults } = faultyBdev(disk)
          const store = yield* init(bdev, small)
          const id = yield* create(store, { clusters: 4, thin: true })
          const blob = yield* open(store, id)
          yield* write(blob, 0, pattern(4 * clusterBytes, 1))
          const snapshot = yield* store.snapshot(id, none)
          yield* write(blob, clusterBytes, whole(2))
          faults.failAt = faults.changes + failAt
          faults.once = true
          const exit = yield* Effect.exit(store.delete(snapshot))
          if (Exit.isSuccess(exit)) return assert.isAbove(failAt, 3)
          faults.failAt = undefined
          if ((yield* store.ids).includes(snapshot)) {
            const clone = yield* store.clone(snapshot, none)
            yield* store.inflate(id)
            yield* blob.close
            yield* store.delete(id)
            const loaded = yield* sound(disk)
            assert.deepStrictEqual(yield* contents(loaded, clone), pattern(4 * clusterBytes, 1))
          } else yield* sound(disk)
        }
      })
    )
  )
})
