/** A process is killed between a write and its flush. Whoever loads next shows nothing that a power cut could still take back. */
import { assert, describe, it } from "@effect/vitest"
import * as Bdev from "@effect-spdk/core/Bdev"
import * as SimulatedDisk from "@effect-spdk/core/SimulatedDisk"
import * as Simulation from "@effect-spdk/core/Simulation"
import * as Spdk from "@effect-spdk/core/Spdk"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as BlobKeyValueStore from "@effect-spdk/blobstore/BlobKeyValueStore"
import * as Blobstore from "@effect-spdk/blobstore/Blobstore"

const simulation = () => Simulation.make({ seed: 1 })

/** The disk of a process that died when its last write was there, and its flush was not. */
const killed = (change: (store: Blobstore.Blobstore, afterThis: () => void) => Life) => {
  const machine = simulation()
  const disk = SimulatedDisk.make(machine, { sizeBytes: 4 * 2 ** 20 })
  let isArmed = false
  let hasWritten = false
  disk.onRequest = ({ operation }) => {
    if (!isArmed) return undefined
    if (operation === "flush" && hasWritten) disk.killProcess()
    else if (operation !== "read" && operation !== "flush") hasWritten = true
    return undefined
  }
  const arm = () => {
    isArmed = true
  }
  const ending = life(machine, disk, (store) => change(store, arm))
  assert.strictEqual(ending, "stopped")
  disk.onRequest = undefined
  return { machine, disk }
}

type Life = Effect.Effect<unknown, unknown, Blobstore.Blobstore | Scope.Scope>

const life = (
  machine: Simulation.Simulation,
  disk: SimulatedDisk.SimulatedDisk,
  use: (store: Blobstore.Blobstore) => Life
): string =>
  machine.run(
    Effect.scoped(
      Effect.gen(function* () {
        const bdev = yield* Bdev.open(yield* SimulatedDisk.attach(disk), { write: true })
        const made = Blobstore.make({ driver: "portable", onEmpty: "init", clusterSize: "64 KiB" })
        const store = yield* Effect.provideService(made, Bdev.Bdev, bdev)
        return yield* Effect.provideService(use(store), Blobstore.Blobstore, store)
      })
    ).pipe(Effect.provide(Spdk.layerEmbedded()))
  ).ending

/** Loads, and says what would be there after a power cut that keeps nothing of a cache, where that is not what there is now. */
const volatileAfterLoad = ({ disk, machine }: ReturnType<typeof killed>): number => {
  let differing = -1
  const ending = life(machine, disk, () =>
    Effect.sync(() => {
      const kept = disk.durableContents()
      differing = disk.contents().reduce((count, byte, at) => (byte === kept[at] ? count : count + 1), 0)
    })
  )
  assert.strictEqual(ending, "done")
  return differing
}

describe("a store whose process was killed before a flush", () => {
  it("has nothing in the device's cache once it is loaded: a deletion frees clusters for others", () => {
    const left = killed((store, afterThis) =>
      Effect.gen(function* () {
        const id = yield* store.createId({ size: "64 KiB" })
        afterThis()
        yield* store.delete(id)
      })
    )
    assert.strictEqual(volatileAfterLoad(left), 0)
  })

  it("has no value in the device's cache once it is loaded: who has got it goes on getting it", () => {
    const left = killed((_, afterThis) =>
      Effect.gen(function* () {
        const kv = yield* BlobKeyValueStore.make({ segmentSize: "64 KiB" })
        yield* kv.set("key", "old")
        afterThis()
        yield* kv.set("key", "new")
      })
    )
    assert.strictEqual(volatileAfterLoad(left), 0)
  })
})
