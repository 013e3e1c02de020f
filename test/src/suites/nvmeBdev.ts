/** NVMe bdevs by SPDK's RPC names: attach, what they tell, lost and found controllers, detach. */
import * as Bdev from "@effect-spdk/core/Bdev"
import * as Rpc from "@effect-spdk/core/Rpc"
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as DmaBuffer from "@effect-spdk/core/DmaBuffer"
import { contract, failsWith, fresh, pattern, sameBytes, until, within } from "../support/harness.ts"
import { type NvmeSuite, sharedTarget } from "../support/nvmeSuite.ts"
import { addNamespace, exported, type NvmfTarget } from "../support/nvmfTarget.ts"

const attached = (target: Effect.Effect<NvmfTarget>, loss: object = {}) =>
  Effect.gen(function* () {
    const running = yield* target
    const subsystem = yield* exported(running)
    const name = fresh("Nvme")
    const params = {
      name,
      trtype: "tcp",
      adrfam: "ipv4",
      traddr: "127.0.0.1",
      trsvcid: `${subsystem.port}`,
      subnqn: subsystem.subnqn,
      ...loss
    }
    const bdevs = yield* Rpc.call("bdev_nvme_attach_controller", params)
    yield* Effect.addFinalizer(() => Effect.exit(Rpc.call("bdev_nvme_detach_controller", { name })))
    const listener = {
      nqn: subsystem.subnqn,
      listen_address: { trtype: "TCP", adrfam: "IPv4", traddr: "127.0.0.1", trsvcid: params.trsvcid }
    }
    return { bdevs, listener, name, params, subsystem, target: running }
  })

const has = (name: string) =>
  Effect.map(Effect.exit(Rpc.call("bdev_get_bdevs", { name })), ({ _tag }) => _tag === "Success")

export const suite: NvmeSuite = (name, layer, _capabilities, factory) => {
  const target = sharedTarget(factory)
  contract(name, layer, (check) => {
    check("namespaces are bdevs by SPDK's names, and detach takes them away", () =>
      Effect.gen(function* () {
        const { bdevs, name, params } = yield* attached(target)
        assert.deepStrictEqual(bdevs, [`${name}n1`])
        yield* Effect.scoped(
          Effect.gen(function* () {
            const bdev = yield* Bdev.open(`${name}n1`, { write: true })
            const bytes = pattern(65_536, 3)
            yield* bdev.writeBytes(4096, bytes)
            sameBytes(yield* bdev.readBytes(4096, bytes.length), bytes, "what was written")
          })
        )
        yield* failsWith(Rpc.call("bdev_nvme_attach_controller", params), "Busy")
        yield* failsWith(Rpc.call("bdev_nvme_attach_controller", { ...params, name: `${name}x` }), "AlreadyExists")
        yield* Rpc.call("bdev_nvme_reset_controller", { name })
        yield* Rpc.call("bdev_nvme_detach_controller", { name })
        assert.isFalse(yield* has(`${name}n1`))
        yield* failsWith(Rpc.call("bdev_nvme_detach_controller", { name }), "NotFound")
      })
    )

    check("a namespace that is added at run time becomes a bdev, and one that is removed goes", () =>
      Effect.gen(function* () {
        const { name, subsystem, target: running } = yield* attached(target)
        const second = yield* addNamespace(running, subsystem.subnqn, 2)
        yield* until("the second bdev", has(`${name}n2`))
        yield* running.rpc("nvmf_subsystem_remove_ns", { nqn: subsystem.subnqn, nsid: 2 })
        yield* until(
          "the end of the second bdev",
          Effect.map(has(`${name}n2`), (there) => !there)
        )
        yield* running.rpc("bdev_malloc_delete", { name: second })
      })
    )

    check("I/O waits for a controller that is lost and comes back", () =>
      Effect.gen(function* () {
        const loss = { ctrlr_loss_timeout_sec: 20, reconnect_delay_sec: 1 }
        const { listener, name, target: running } = yield* attached(target, loss)
        const bdev = yield* Bdev.open(`${name}n1`, { write: true })
        const buffer = yield* DmaBuffer.make(4096)
        buffer.bytes.set(pattern(4096, 9))
        yield* running.rpc("nvmf_subsystem_remove_listener", listener)
        const waiting = yield* Effect.forkChild(Effect.forEach([0, 1, 2, 3], (i) => bdev.write(i * 4096, buffer)))
        yield* running.rpc("nvmf_subsystem_add_listener", listener)
        yield* within("the writes", Fiber.join(waiting))
        sameBytes(yield* bdev.readBytes(8192, 4096), pattern(4096, 9), "what was acknowledged")
      })
    )

    check("a controller that does not come back takes its bdevs with it", () =>
      Effect.gen(function* () {
        const loss = { ctrlr_loss_timeout_sec: 1, reconnect_delay_sec: 1 }
        const { listener, name, target: running } = yield* attached(target, loss)
        yield* running.rpc("nvmf_subsystem_remove_listener", listener)
        yield* until(
          "the end of the bdev",
          Effect.map(has(`${name}n1`), (there) => !there)
        )
        yield* failsWith(Rpc.call("bdev_nvme_detach_controller", { name }), "NotFound")
      })
    )
  })
}
