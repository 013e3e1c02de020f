/** What is saved of NVMe-oF targets and NVMe bdevs: the same as SPDK saves, and it loads again. */
import * as Rpc from "@effect-spdk/core/Rpc"
import * as Spdk from "@effect-spdk/core/Spdk"
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import { writeFileSync } from "node:fs"
import { type Capabilities, type EngineLayer, memoryMiB, scratchFile } from "../support/engines.ts"
import { contract, until } from "../support/harness.ts"
import { freePort, freshNqn } from "../support/nvmf.ts"
import { startTarget } from "../support/spdkTarget.ts"

const uuid = "5a1f0a52-94a2-4c4d-8b43-0d8f3e9b6a10"
const disks = [1, 2].map((i) => ({
  name: `disk${i}`,
  num_blocks: 2048,
  block_size: 512,
  uuid: uuid.replace(/.$/, `${i}`)
}))

interface Place {
  readonly nqn: string
  readonly port: string
}

/** Some of everything that a target has. */
const make = ({ nqn, port }: Place) =>
  Effect.gen(function* () {
    const host = `${nqn}-host`
    const address = { trtype: "TCP", adrfam: "IPv4", traddr: "127.0.0.1" }
    yield* Rpc.call("nvmf_create_transport", { trtype: "TCP", max_io_size: 65_536, c2h_success: false })
    yield* Effect.forEach(disks, (disk) => Rpc.call("bdev_malloc_create", disk))
    yield* Rpc.call("nvmf_create_subsystem", {
      nqn,
      serial_number: "SN1",
      model_number: "Model",
      max_namespaces: 5,
      min_cntlid: 3,
      max_cntlid: 90,
      ana_reporting: true
    })
    yield* Rpc.call("nvmf_subsystem_add_ns", { nqn, namespace: { bdev_name: "disk1", anagrpid: 2 } })
    yield* Rpc.call("nvmf_subsystem_add_ns", {
      nqn,
      namespace: { bdev_name: "disk2", nsid: 4, uuid, eui64: "0011223344556677", no_auto_visible: true }
    })
    yield* Rpc.call("nvmf_subsystem_add_host", { nqn, host })
    yield* Rpc.call("nvmf_ns_add_host", { nqn, nsid: 4, host })
    yield* Rpc.call("nvmf_subsystem_add_listener", { nqn, listen_address: { ...address, trsvcid: port } })
    yield* Rpc.call("nvmf_discovery_add_referral", { address: { ...address, trsvcid: "4499" } })
  })

const saved = (name: string) => Rpc.call("framework_get_config", { name })
const inBatches = (name: string) => Rpc.call("framework_get_config", { name, with_batches: true })

/** An embedded engine of its own that loads this before it starts, from a file as it is kept in one. */
const loaded = (subsystems: ReadonlyArray<{ readonly subsystem: string; readonly config: unknown }>) =>
  Effect.gen(function* () {
    const config = yield* scratchFile
    writeFileSync(config, JSON.stringify({ subsystems }))
    const context = yield* Layer.build(Spdk.layerEmbedded({ name: "loaded", memoryMiB, logLevel: "error", config }))
    return <A, E>(effect: Effect.Effect<A, E, Rpc.RpcClient>) => Effect.provide(effect, context)
  })

export const suite = (name: string, layer: EngineLayer, _capabilities: Capabilities): void =>
  contract(name, layer, (check) => {
    check("a target is saved as SPDK saves it, and what SPDK has saved loads", () =>
      Effect.gen(function* () {
        const place = { nqn: freshNqn("saved"), port: yield* freePort }
        const scope = yield* Scope.make()
        const real = yield* Scope.provide(startTarget, scope)
        yield* real.run(make(place))
        const expected = yield* real.run(saved("nvmf"))
        const batches = yield* real.run(inBatches("nvmf"))
        yield* real.kill
        yield* Scope.close(scope, Exit.void)
        yield* make(place)
        assert.deepStrictEqual(yield* saved("nvmf"), expected)
        assert.deepStrictEqual(yield* inBatches("nvmf"), batches)
        yield* Rpc.call("nvmf_delete_subsystem", { nqn: place.nqn })
        yield* Effect.forEach(disks, ({ name: disk }) => Rpc.call("bdev_malloc_delete", { name: disk }))
        const bdevs = disks.map((params) => ({ method: "bdev_malloc_create", params }))
        for (const config of [expected, batches]) {
          yield* Effect.scoped(
            Effect.gen(function* () {
              const run = yield* loaded([
                { subsystem: "bdev", config: bdevs },
                { subsystem: "nvmf", config }
              ])
              assert.deepStrictEqual(yield* run(saved("nvmf")), expected)
              assert.include(JSON.stringify(yield* run(Rpc.call("nvmf_get_subsystems"))), place.port)
            })
          )
        }
      })
    )

    check("attached controllers and discovery services are there again, with their bdevs", () =>
      Effect.gen(function* () {
        const place = { nqn: freshNqn("attached"), port: yield* freePort }
        const target = yield* startTarget
        yield* target.run(make(place))
        const path = { trtype: "TCP", adrfam: "IPv4", traddr: "127.0.0.1", trsvcid: place.port }
        const hostnqn = `${place.nqn}-host`
        yield* Rpc.call("bdev_nvme_set_options", { keep_alive_timeout_ms: 7000 })
        yield* Rpc.call("bdev_nvme_attach_controller", {
          ...path,
          name: "Attached",
          subnqn: place.nqn,
          hostnqn,
          multipath: "failover",
          ctrlr_loss_timeout_sec: 9,
          reconnect_delay_sec: 2,
          ddgst: true,
          num_io_queues: 3
        })
        const config = yield* saved("bdev")
        const batched = yield* inBatches("bdev")
        for (const one of [config, batched]) {
          yield* Effect.scoped(
            Effect.gen(function* () {
              const run = yield* loaded([{ subsystem: "bdev", config: one }])
              assert.deepStrictEqual(yield* run(saved("bdev")), config)
              const names = Effect.map(Rpc.call("bdev_get_bdevs"), (all) => all.map((bdev) => bdev.name).toSorted())
              assert.deepStrictEqual(yield* run(names), ["Attachedn1", "Attachedn4"])
            })
          )
        }
        yield* Rpc.call("bdev_nvme_detach_controller", { name: "Attached" })
        yield* Rpc.call("bdev_nvme_start_discovery", { ...path, name: "Found", hostnqn, wait_for_attach: true })
        const found = yield* saved("bdev")
        assert.include(JSON.stringify(found), "bdev_nvme_start_discovery")
        assert.notInclude(JSON.stringify(found), "bdev_nvme_attach_controller")
        yield* Rpc.call("bdev_nvme_stop_discovery", { name: "Found" })
        yield* Effect.scoped(
          Effect.gen(function* () {
            const run = yield* loaded([{ subsystem: "bdev", config: found }])
            yield* until(
              "the bdevs are found",
              run(Effect.map(Rpc.call("bdev_get_bdevs"), (all) => all.map((bdev) => bdev.name).includes("Found0n1")))
            )
            assert.deepStrictEqual(yield* run(saved("bdev")), found)
          })
        )
      })
    )
  })
