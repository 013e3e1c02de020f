/** NVMe bdevs and discovery services by SPDK's RPC names: what is answered, with its codes. */
import * as Bdev from "@effect-spdk/core/Bdev"
import * as Rpc from "@effect-spdk/core/Rpc"
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { contract, failsWith, fresh, pattern, sameBytes, until } from "../support/harness.ts"
import { freePort } from "../support/nvmf.ts"
import { type NvmeSuite, sharedTarget } from "../support/nvmeSuite.ts"
import { addNamespace, exported, type NvmfTarget } from "../support/nvmfTarget.ts"

const exportedPath = (target: Effect.Effect<NvmfTarget>) =>
  Effect.gen(function* () {
    const running = yield* target
    const subsystem = yield* exported(running)
    const name = fresh("Nvme")
    const address = { name, trtype: "tcp", adrfam: "ipv4", traddr: "127.0.0.1", trsvcid: `${subsystem.port}` }
    yield* Effect.addFinalizer(() => Effect.exit(Rpc.call("bdev_nvme_detach_controller", { name })))
    return { address, name, params: { ...address, subnqn: subsystem.subnqn }, subsystem, target: running }
  })

const has = (name: string) =>
  Effect.map(Effect.exit(Rpc.call("bdev_get_bdevs", { name })), ({ _tag }) => _tag === "Success")

const controllerNames = Effect.map(Rpc.call("bdev_nvme_get_controllers"), (all) =>
  [all].flat().map((one) => (typeof one === "object" && one !== null && "name" in one ? one.name : ""))
)

const discoveries = Effect.map(Rpc.call("bdev_nvme_get_discovery_info"), (all) => [all].flat())

export const suite: NvmeSuite = (name, layer, _capabilities, factory) => {
  const target = sharedTarget(factory)
  contract(name, layer, (check) => {
    check("namespaces are bdevs by SPDK's names, and detach takes them away", () =>
      Effect.gen(function* () {
        const { name, params } = yield* exportedPath(target)
        assert.deepStrictEqual(yield* Rpc.call("bdev_nvme_attach_controller", params), [`${name}n1`])
        yield* Effect.scoped(
          Effect.gen(function* () {
            const bdev = yield* Bdev.open(`${name}n1`, { write: true })
            const bytes = pattern(65_536, 3)
            yield* bdev.writeBytes(4096, bytes)
            sameBytes(yield* bdev.readBytes(4096, bytes.length), bytes, "what was written")
          })
        )
        yield* failsWith(Rpc.call("bdev_nvme_attach_controller", params), "Busy", { errno: "EALREADY" })
        yield* Rpc.call("bdev_nvme_reset_controller", { name })
        yield* failsWith(Rpc.call("bdev_nvme_reset_controller", { name: `${name}x` }), "NotFound")
        yield* failsWith(
          Rpc.call("bdev_nvme_detach_controller", { name, trtype: "TCP", traddr: "127.0.0.2", trsvcid: "4420" }),
          "NotFound"
        )
        yield* Rpc.call("bdev_nvme_detach_controller", { name })
        assert.isFalse(yield* has(`${name}n1`))
        yield* failsWith(Rpc.call("bdev_nvme_detach_controller", { name }), "NotFound")
      })
    )

    check("names that the Connect command has no room for are refused", () =>
      Effect.gen(function* () {
        const { name, params } = yield* exportedPath(target)
        const long = `nqn.2024-01.io.x:${"x".repeat(224 - 17)}`
        for (const names of [{ hostnqn: long }, { subnqn: long }]) {
          yield* failsWith(Rpc.call("bdev_nvme_attach_controller", { ...params, ...names }), "InvalidArgument")
        }
        assert.notInclude(yield* controllerNames, name)
      })
    )

    check("max_bdevs limits what is answered and not what is attached", () =>
      Effect.gen(function* () {
        const { name, params, subsystem, target: running } = yield* exportedPath(target)
        const second = yield* addNamespace(running, subsystem.subnqn, 2)
        yield* failsWith(Rpc.call("bdev_nvme_attach_controller", { ...params, max_bdevs: 0 }), "InvalidArgument")
        assert.isFalse(yield* has(`${name}n1`))
        const { errno } = yield* failsWith(
          Rpc.call("bdev_nvme_attach_controller", { ...params, max_bdevs: 1 }),
          "InvalidArgument"
        )
        assert.strictEqual(errno, "ERANGE")
        assert.include(yield* controllerNames, name)
        assert.isTrue((yield* has(`${name}n1`)) && (yield* has(`${name}n2`)))
        yield* Rpc.call("bdev_nvme_detach_controller", { name })
        yield* running.rpc("nvmf_subsystem_remove_ns", { nqn: subsystem.subnqn, nsid: 2 })
        yield* running.rpc("bdev_malloc_delete", { name: second })
      })
    )

    check("a discovery service attaches, is told of, is one of its name and address, and detaches", () =>
      Effect.gen(function* () {
        const { address, name, subsystem } = yield* exportedPath(target)
        const start = (params: object) => Rpc.call("bdev_nvme_start_discovery", { ...address, ...params })
        yield* start({ wait_for_attach: true })
        const mine = Effect.map(Rpc.call("bdev_nvme_get_controllers"), (all) =>
          JSON.stringify([all].flat().filter((one) => JSON.stringify(one).includes(subsystem.subnqn)))
        )
        assert.include(yield* mine, `"name":"${name}`)
        const [info] = yield* discoveries
        assert.deepInclude(info, {
          name,
          trid: {
            trtype: "TCP",
            adrfam: "IPv4",
            traddr: "127.0.0.1",
            trsvcid: address.trsvcid,
            subnqn: "nqn.2014-08.org.nvmexpress.discovery"
          }
        })
        yield* failsWith(start({ trsvcid: "4420" }), "AlreadyExists")
        yield* failsWith(start({ name: `${name}x` }), "AlreadyExists")
        yield* Rpc.call("bdev_nvme_stop_discovery", { name })
        // Before 26.05 what it has attached goes a little later.
        yield* until(
          "the controller is gone",
          Effect.map(mine, (left) => left === "[]")
        )
        assert.deepStrictEqual(yield* discoveries, [])
        yield* failsWith(Rpc.call("bdev_nvme_stop_discovery", { name }), "NotFound")
      })
    )

    check("a discovery service that nobody answers: TimedOut with a limit, and it goes on without", () =>
      Effect.gen(function* () {
        const { address, name } = yield* exportedPath(target)
        const path = { ...address, trsvcid: yield* freePort }
        yield* failsWith(Rpc.call("bdev_nvme_start_discovery", { ...path, attach_timeout_ms: 1200 }), "TimedOut")
        yield* until(
          "its end",
          Effect.map(discoveries, (all) => all.length === 0)
        )
        yield* Rpc.call("bdev_nvme_start_discovery", path)
        assert.lengthOf(yield* discoveries, 1)
        yield* Rpc.call("bdev_nvme_stop_discovery", { name })
        assert.deepStrictEqual(yield* discoveries, [])
        yield* failsWith(Rpc.call("bdev_nvme_start_discovery", { ...path, adrfam: "?" }), "InvalidArgument")
      })
    )
  })
}
