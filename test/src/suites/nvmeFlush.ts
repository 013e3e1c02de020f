/** A flush of an NVMe bdev reaches its controller, so that what blobstores call durable is. The target fails every flush it gets. */
import * as Blobstore from "@effect-spdk/blobstore/Blobstore"
import * as Bdev from "@effect-spdk/core/Bdev"
import * as NvmeBdev from "@effect-spdk/core/NvmeBdev"
import * as Rpc from "@effect-spdk/core/Rpc"
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { contract, failsWith, fresh, pattern } from "../support/harness.ts"
import { type NvmeSuite, sharedTarget } from "../support/nvmeSuite.ts"
import { exported, type NvmfTarget } from "../support/nvmfTarget.ts"

const drivers = ["libspdk", "portable"] as const

/** Opens a namespace on an error bdev of the target. Nothing fails before `failFlushes`. */
const attached = (target: NvmfTarget) =>
  Effect.gen(function* () {
    const subsystem = yield* exported(target, { namespaces: [] })
    const base = fresh("base")
    yield* target.rpc("bdev_malloc_create", { name: base, block_size: 512, num_blocks: 32_768 })
    yield* target.rpc("bdev_error_create", { base_name: base })
    const bdev_name = `EE_${base}`
    yield* target.rpc("nvmf_subsystem_add_ns", { nqn: subsystem.subnqn, namespace: { bdev_name, nsid: 1 } })
    yield* Effect.addFinalizer(() =>
      Effect.exit(
        Effect.forEach(
          [
            ["nvmf_subsystem_remove_ns", { nqn: subsystem.subnqn, nsid: 1 }],
            ["bdev_error_delete", { name: bdev_name }],
            ["bdev_malloc_delete", { name: base }]
          ] as const,
          ([method, params]) => target.rpc(method, params)
        )
      )
    )
    const inject = (io_type: "flush" | "clear") =>
      target.rpc("bdev_error_inject_error", { name: bdev_name, io_type, error_type: "failure", num: 1_000_000 })
    const name = fresh("nvme")
    yield* NvmeBdev.attach({ name, traddr: "127.0.0.1", trsvcid: subsystem.port, subnqn: subsystem.subnqn })
    const bdev = yield* Bdev.open(`${name}n1`, { write: true })
    assert.isTrue(bdev.info.hasWriteCache, "the target has a volatile write cache")
    return { bdev, failFlushes: inject("flush"), letFlushes: inject("clear") }
  })

const setFlush = (enable_flush: boolean) =>
  Effect.flatMap(Rpc.RpcClient, (rpc) => rpc.call("bdev_nvme_set_options", { enable_flush }))

export const suite: NvmeSuite = (name, layer, { engine }, factory) =>
  contract(name, layer, (check) => {
    const target = sharedTarget(factory)

    check("a flush that the controller fails, fails", () =>
      Effect.gen(function* () {
        const { bdev, failFlushes } = yield* attached(yield* target)
        yield* bdev.flush()
        yield* failFlushes
        yield* failsWith(bdev.flush(), "IoFailed")
      })
    )

    for (const driver of drivers) {
      if (driver === "libspdk" && engine !== "libspdk") continue
      check(`a sync of a blob fails when the controller fails the flush, ${driver} driver`, () =>
        Effect.gen(function* () {
          const { bdev, failFlushes, letFlushes } = yield* attached(yield* target)
          const init = Effect.provideService(Blobstore.init({ driver, clusterSize: 65_536 }), Bdev.Bdev, bdev)
          const store = yield* init
          assert.isTrue((yield* store.info).isFlushed)
          const blob = yield* store.create({ clusters: 1 })
          yield* blob.sync
          yield* blob.writeBytes(0, pattern(4096, 1))
          yield* failFlushes
          yield* failsWith(blob.sync, "IoFailed")
          // The end of the store flushes, too.
          yield* letFlushes
        })
      )
    }

    check("whoever turns the flush off is told so by the store", () =>
      Effect.gen(function* () {
        yield* Effect.acquireRelease(setFlush(false), () => Effect.exit(setFlush(true)))
        const { bdev, failFlushes } = yield* attached(yield* target)
        yield* failFlushes
        yield* bdev.flush()
        const init = Blobstore.init({ driver: "portable", clusterSize: 65_536 })
        const store = yield* Effect.provideService(init, Bdev.Bdev, bdev)
        assert.isFalse((yield* store.info).isFlushed)
      })
    )
  })
