/** A loaded store has its bdev for itself: whoever else wants to write there is refused, and told who has it. */
import * as Check from "@effect-spdk/blobstore/Check"
import * as Bdev from "@effect-spdk/core/Bdev"
import * as Rpc from "@effect-spdk/core/Rpc"
import * as NvmfTarget from "@effect-spdk/nvmf/NvmfTarget"
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Stream from "effect/Stream"
import { type BlobSuite, closable, device, during, freshStore, init, load, smallClusters } from "../support/blobs.ts"
import { blockSize, contract, failsWith, fresh, pattern, sameBytes } from "../support/harness.ts"
import { freshNqn } from "../support/nvmf.ts"

const byStore = { detail: "claimed by module blobstore (exclusive_write)" }

/** Everything that would write beside the store. */
const refuses = (name: string) =>
  Effect.gen(function* () {
    const named = { resource: name, ...byStore }
    yield* failsWith(Bdev.open(name, { write: true }), "Busy", named)
    yield* failsWith(Bdev.createPassthru({ base: name }), "Busy", named)
    yield* failsWith(Bdev.createSplit({ base: name, count: 2 }), "Busy", named)
    yield* failsWith(Bdev.createDelay({ base: name, name: fresh("delay") }), "Busy", named)
    yield* failsWith(Bdev.createError({ base: name }), "Busy", named)
    yield* failsWith(Rpc.call("bdev_passthru_create", { base_bdev_name: name, name: fresh("raw") }), "Busy", named)
    const bases = { name: fresh("raid"), raid_level: "raid1", base_bdevs: [name] } as const
    yield* failsWith(Rpc.call("bdev_raid_create", bases), "Busy", named)
    const volumes = { bdev_name: name, lvs_name: fresh("volumes") }
    yield* failsWith(Rpc.call("bdev_lvol_create_lvstore", volumes), "Busy", named)
    const target = yield* NvmfTarget.make({})
    const subsystem = yield* target.subsystem({ nqn: freshNqn("claimed") })
    yield* failsWith(subsystem.addNamespace({ bdev: name }), "Busy", named)
    const rpc = yield* Rpc.RpcClient
    const namespace = { bdev_name: name }
    yield* failsWith(rpc.call("nvmf_subsystem_add_ns", { nqn: subsystem.nqn, namespace }), "Busy", named)
  })

/** What was refused has left nothing behind that keeps others off. */
const takes = (name: string) =>
  Effect.gen(function* () {
    yield* Effect.scoped(Bdev.open(name, { write: true }))
    yield* Effect.scoped(Bdev.createPassthru({ base: name }))
    yield* Effect.scoped(Bdev.createSplit({ base: name, count: 2 }))
  })

export const suite: BlobSuite = (name, layer, _capabilities, driver) =>
  contract(name, layer, (check) => {
    check("exports, bdevs on top, handles for writing and second stores are refused, and work after the end", () =>
      Effect.gen(function* () {
        const bdev = yield* device()
        // Open before the claim: it goes on.
        const second = yield* Bdev.open(bdev.name, { write: true })
        yield* during(init(bdev, driver), (store) =>
          Effect.gen(function* () {
            assert.isTrue((yield* Bdev.find(bdev.name)).claimed)
            yield* Effect.scoped(refuses(bdev.name))
            yield* failsWith(load(bdev, driver), "Busy")
            yield* failsWith(load(second, "portable"), "Busy")
            yield* failsWith(init(second, driver), "Busy")
            yield* failsWith(Effect.provideService(Check.repair, Bdev.Bdev, second), "Busy", byStore)
            // Who only reads is let in.
            const reader = yield* Bdev.open(bdev.name)
            yield* Effect.provideService(Check.check, Bdev.Bdev, reader)
            const blob = yield* store.create({ clusters: 1 })
            yield* blob.writeBytes(0, pattern(smallClusters, 1))
            sameBytes(yield* blob.readBytes(0, smallClusters), pattern(smallClusters, 1), "beside all of that")
          })
        )
        assert.isFalse((yield* Bdev.find(bdev.name)).claimed)
        yield* takes(bdev.name)
        yield* during(load(second, driver), () => Effect.void)
      })
    )

    check("a bdev that is claimed already: no store is loaded, and the claimer is named", () =>
      Effect.gen(function* () {
        const bdev = yield* device()
        yield* during(init(bdev, driver), () => Effect.void)
        const { close } = yield* closable(Bdev.createPassthru({ base: bdev.name }))
        const byPassthru = { detail: "claimed by module passthru (exclusive_write)" }
        yield* failsWith(load(bdev, driver), "Busy", byPassthru)
        yield* failsWith(init(bdev, driver), "Busy", byPassthru)
        yield* failsWith(Effect.provideService(Check.repair, Bdev.Bdev, bdev), "Busy", byPassthru)
        yield* close
        yield* during(load(bdev, driver), () => Effect.void)
      })
    )

    check("a copy to a bdev that is claimed is refused, and names the claimer", () =>
      Effect.gen(function* () {
        const store = yield* freshStore(driver)
        const blob = yield* store.create({ clusters: 1 })
        const snapshot = yield* store.snapshot(blob.id)
        const target = yield* Bdev.createMalloc({ name: fresh("target"), blockSize: 512, numBlocks: 4096 })
        yield* Bdev.createPassthru({ base: target })
        const { message } = yield* failsWith(Stream.runDrain(store.shallowCopy(snapshot, target)), "Busy")
        assert.include(message, "claimed by module passthru")
      })
    )

    check("a load that fails, one that is interrupted, and a store that is destroyed let go of the bdev", () =>
      Effect.gen(function* () {
        const bdev = yield* device()
        yield* failsWith(load(bdev, driver), "Corrupted")
        yield* takes(bdev.name)
        yield* during(init(bdev, driver), (store) =>
          Effect.gen(function* () {
            yield* store.destroy
            yield* takes(bdev.name)
          })
        )
        const fiber = yield* Effect.forkChild(Effect.scoped(init(bdev, driver)), { startImmediately: true })
        yield* Effect.yieldNow
        yield* Fiber.interrupt(fiber)
        yield* takes(bdev.name)
      })
    )

    check("a bdev that is removed under its store goes, and its name is free for another", () =>
      Effect.gen(function* () {
        const disk = fresh("disk")
        const create = closable(Bdev.createMalloc({ name: disk, blockSize, numBlocks: 16_384 }))
        const { close } = yield* create
        const bdev = yield* Bdev.open(disk, { write: true })
        yield* during(init(bdev, driver), () => close)
        yield* create
        yield* takes(disk)
        yield* failsWith(load(bdev, driver), "DeviceRemoved")
        yield* takes(disk)
      })
    )
  })
