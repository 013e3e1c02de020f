/** SPDK's own tools on the embedded target. Skipped where they are not installed. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { spawn } from "node:child_process"
import { spdkTool, titled } from "../../../test/src/support/spdkTools.ts"
import { makeEngine } from "./support/embeddedEngine.ts"
import { freePort } from "./support/rawNvmeHost.ts"

const nqn = "nqn.2024-01.io.x:tools"
const identify = spdkTool("spdk_nvme_identify")
const perf = spdkTool("spdk_nvme_perf")

const run = (name: string, args: ReadonlyArray<string>): Effect.Effect<{ code: number | null; printed: string }> =>
  Effect.callback((resume) => {
    const child = spawn(name, [...args])
    let printed = ""
    const add = (piece: Buffer): void => {
      printed += piece.toString()
    }
    child.stdout.on("data", add)
    child.stderr.on("data", add)
    child.on("close", (code) => resume(Effect.succeed({ code, printed })))
    return Effect.sync(() => child.kill("SIGKILL"))
  })

const serve = Effect.gen(function* () {
  const { rpc } = yield* makeEngine()
  const port = yield* freePort
  yield* rpc.call("bdev_malloc_create", { name: "M0", num_blocks: 16_384, block_size: 512 })
  yield* rpc.call("nvmf_create_transport", { trtype: "TCP" })
  yield* rpc.call("nvmf_create_subsystem", { nqn, allow_any_host: true, serial_number: "TOOLS1" })
  yield* rpc.call("nvmf_subsystem_add_ns", { nqn, namespace: { bdev_name: "M0" } })
  const listen_address = { trtype: "TCP", adrfam: "IPv4", traddr: "127.0.0.1", trsvcid: String(port) }
  yield* rpc.call("nvmf_subsystem_add_listener", { nqn, listen_address })
  return `trtype:TCP adrfam:IPv4 traddr:127.0.0.1 trsvcid:${port} subnqn:${nqn}`
})

const memory = ["--no-huge", "-s", "256"]

describe("SPDK's tools on the embedded target", () => {
  it.live.skipIf(identify.missing !== undefined)(
    titled("spdk_nvme_identify", identify),
    () =>
      Effect.scoped(
        Effect.gen(function* () {
          const { code, printed } = yield* run(identify.path, [...memory, "-r", yield* serve])
          assert.strictEqual(code, 0, printed)
          assert.match(printed, /Serial Number: +TOOLS1/)
          assert.match(printed, /Size \(in LBAs\): +16384/)
          assert.notMatch(printed, /\*ERROR\*/)
        })
      ),
    60_000
  )

  const loads = [
    ["-q", "1", "-o", "4096", "-w", "randread"],
    ["-q", "128", "-o", "4096", "-w", "randrw", "-M", "50", "-H"],
    ["-q", "32", "-o", "131072", "-w", "randwrite", "-H", "-I"]
  ]
  for (const load of loads) {
    it.live.skipIf(perf.missing !== undefined)(
      titled(`spdk_nvme_perf ${load.join(" ")}`, perf),
      () =>
        Effect.scoped(
          Effect.gen(function* () {
            const transport = yield* serve
            const { code, printed } = yield* run(perf.path, [...memory, ...load, "-t", "1", "-r", transport])
            assert.strictEqual(code, 0, printed)
            assert.match(printed, /Total +: +[1-9]/)
            assert.notMatch(printed, /completed with error/)
          })
        ),
      60_000
    )
  }
})
