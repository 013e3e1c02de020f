/** An NVMe/TCP target to talk to: `nvmeTarget.mjs port delayMicros`. Says "ready", takes "add" and "remove", and lives until it is killed or its input ends. */
import * as Host from "@effect-spdk/native/Host"
import { mkdtempSync } from "node:fs"
import { connect } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { startOptions } from "./startOptions.mjs"

const [port, delayMicros] = process.argv.slice(2)
const subnqn = "nqn.2016-06.io.spdk:raw"
const result = Host.get()
if (result._tag === "Missing") throw new Error(result.reason)
const { host } = result
const directory = mkdtempSync(join(tmpdir(), "espdk-target-"))
const rpcSocket = join(directory, "rpc.sock")

const rpc = (method, params) =>
  new Promise((resolve, reject) => {
    const connection = connect(rpcSocket, () =>
      connection.write(JSON.stringify({ jsonrpc: "2.0", id: 1, method, params }))
    )
    connection.once("error", reject)
    connection.once("data", (text) => {
      connection.destroy()
      const { error, result } = JSON.parse(String(text))
      if (error === undefined) resolve(result)
      else reject(new Error(`${method}: ${JSON.stringify(error)}`))
    })
  })

await new Promise((resolve, reject) =>
  host.start(startOptions("target", directory, `[${host.addon.cores()[0]}]`), ({ status, text }) =>
    status === 0 ? resolve() : reject(new Error(text))
  )
)
// The same volumes each time: a host that connects again goes on with no others.
const uuids = { fast: "6f1b2c3d-0000-4000-8000-000000000001", slow: "6f1b2c3d-0000-4000-8000-000000000002" }
await rpc("bdev_malloc_create", { name: "fast", num_blocks: 65_536, block_size: 512, uuid: uuids.fast })
await rpc("bdev_malloc_create", { name: "under", num_blocks: 2048, block_size: 512 })
await rpc("bdev_delay_create", {
  base_bdev_name: "under",
  name: "slow",
  uuid: uuids.slow,
  avg_read_latency: Number(delayMicros),
  p99_read_latency: Number(delayMicros),
  avg_write_latency: Number(delayMicros),
  p99_write_latency: Number(delayMicros)
})
await rpc("nvmf_create_transport", { trtype: "TCP", io_unit_size: 131_072 })
await rpc("nvmf_create_subsystem", { nqn: subnqn, allow_any_host: true })
for (const bdev_name of ["fast", "slow"]) await rpc("nvmf_subsystem_add_ns", { nqn: subnqn, namespace: { bdev_name } })
await rpc("nvmf_subsystem_add_listener", {
  nqn: subnqn,
  listen_address: { trtype: "TCP", adrfam: "IPv4", traddr: "127.0.0.1", trsvcid: port }
})
// "remove" and "add" take its first namespace away and bring it back, in the order in which they come.
let changes = Promise.resolve()
process.stdin.on("data", (text) => {
  for (const word of String(text).trim().split("\n")) {
    const change =
      word === "add"
        ? ["nvmf_subsystem_add_ns", { nqn: subnqn, namespace: { bdev_name: "fast", nsid: 1 } }]
        : ["nvmf_subsystem_remove_ns", { nqn: subnqn, nsid: 1 }]
    // One that is there already, or is not there, is no news.
    changes = changes.then(() => rpc(...change)).catch(() => {})
  }
})
process.stdin.once("end", () => process.exit(0))
console.log("ready")
