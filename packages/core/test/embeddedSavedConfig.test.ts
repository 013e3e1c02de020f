/** Configurations that real SPDKs have saved, `rpc.py save_config` of a spdk_tgt with a malloc and a null bdev and a target. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as fs from "node:fs"
import { applyConfig } from "../src/internal/rpc/config.ts"
import type { LogLine } from "../src/internal/engine/options.ts"
import { makeEngine } from "./support/embeddedEngine.ts"

const golden = (version: string): unknown =>
  JSON.parse(fs.readFileSync(new URL(`golden/savedConfig-v${version}.json`, import.meta.url), "utf8"))

const startWith = (config: unknown, lines: Array<LogLine> = []) =>
  makeEngine({ memoryMiB: 256, onLog: (some) => lines.push(...some) }, { configure: (rpc) => applyConfig(rpc, config) })

const oneCall = (method: string, params: object) => ({
  subsystems: [{ subsystem: "any", config: [{ method, params }] }]
})

describe("what SPDK has saved", () => {
  it.live.each(["24.09", "26.05"])(
    "by version %s starts the engine, and one warning names what has no effect",
    (version) =>
      Effect.gen(function* () {
        const lines: Array<LogLine> = []
        const { rpc } = yield* startWith(golden(version), lines)
        const bdevs = (yield* rpc.call("bdev_get_bdevs")) as ReadonlyArray<{ readonly name: string }>
        assert.sameMembers(
          bdevs.map(({ name }) => name),
          ["m0", "n0"]
        )
        const subsystems = (yield* rpc.call("nvmf_get_subsystems")) as ReadonlyArray<{ readonly nqn: string }>
        assert.include(
          subsystems.map(({ nqn }) => nqn),
          "nqn.2016-06.io.spdk:a"
        )
        const warnings = lines.filter(({ level }) => level === "warning").map(({ message }) => message)
        assert.strictEqual(warnings.length, 1, warnings.join("\n"))
        for (const name of [
          "iobuf_set_options",
          "sock_set_default_impl",
          "sock_impl_set_options",
          "accel_set_options",
          "bdev_raid_set_options",
          "bdev_nvme_set_hotplug",
          "framework_set_scheduler",
          ...(version === "24.09" ? ["num_shared_buffers of nvmf_create_transport"] : [])
        ]) {
          assert.include(warnings[0], name)
        }
        // These are what SPDK has by default.
        assert.notInclude(warnings[0], "bdev_nvme_set_options")
        assert.notInclude(warnings[0], "iobuf_small_cache_size")
      }).pipe(Effect.scoped)
  )

  it.live.each([
    ["sock_set_default_impl", { impl_name: "ssl" }, "impl_name"],
    ["bdev_nvme_set_hotplug", { enable: true }, "enable"],
    ["framework_set_scheduler", { name: "dynamic" }, "name"],
    ["bdev_nvme_set_options", { generate_uuids: true }, "generate_uuids"],
    ["nvmf_create_transport", { trtype: "TCP", dif_insert_or_strip: true }, "dif_insert_or_strip"],
    ["nvmf_create_transport", { trtype: "TCP", disable_command_passthru: true }, "disable_command_passthru"]
  ] as const)("%s %j is refused by name, because a result would be another", ([method, params, field]) =>
    Effect.gen(function* () {
      const exit = yield* Effect.exit(startWith(oneCall(method, params)))
      assert.isTrue(Exit.isFailure(exit))
      const error = yield* Effect.flip(exit)
      assert.strictEqual(error.reason._tag, "ConfigRejected", error.message)
      assert.include(error.message, `${field}: `)
    }).pipe(Effect.scoped)
  )

  it.live("takes what SPDK's scripts give a transport, and says once what of it has no effect", () =>
    Effect.gen(function* () {
      const lines: Array<LogLine> = []
      const { rpc } = yield* makeEngine({ onLog: (some) => lines.push(...some) })
      const sizes = {
        io_unit_size: 8192,
        num_shared_buffers: 4095,
        buf_cache_size: 32,
        num_cqe: 4096,
        max_srq_depth: 128,
        no_srq: true,
        acceptor_backlog: 100,
        acceptor_poll_rate: 10_000,
        no_wr_batching: true,
        control_msg_num: 32,
        disable_mappable_bar0: true,
        disable_adaptive_irq: true,
        disable_shadow_doorbells: true,
        zcopy: true,
        sock_priority: 2,
        abort_timeout_sec: 5,
        ack_timeout: 3,
        data_wr_pool_size: 4095
      }
      yield* rpc.call("nvmf_create_transport", { trtype: "TCP", max_queue_depth: 64, ...sizes })
      const [transport] = (yield* rpc.call("nvmf_get_transports")) as ReadonlyArray<object>
      assert.include(transport, { max_queue_depth: 64 })
      const warnings = lines.filter(({ level }) => level === "warning")
      assert.strictEqual(warnings.length, 1)
      for (const name of Object.keys(sizes)) assert.include(warnings[0]?.message, `${name} of nvmf_create_transport`)
    }).pipe(Effect.scoped)
  )
})
