/** The same things on either engine: some of every bdev module that both have, and a target over one of them. */
import * as Rpc from "@effect-spdk/core/Rpc"
import * as Effect from "effect/Effect"
import { writeFileSync } from "node:fs"
import { scratchFile } from "./engines.ts"
import { fresh } from "./harness.ts"
import { freePort, freshNqn } from "./nvmf.ts"

/** The end of the scope takes all of it away. Answers with the address of the target. */
export const furnish = Effect.gen(function* () {
  const client = yield* Rpc.RpcClient
  const malloc = fresh("m")
  const empty = fresh("n")
  const slow = fresh("d")
  const file = fresh("f")
  const parts = fresh("s")
  const image = yield* scratchFile
  writeFileSync(image, Buffer.alloc(1024 * 1024))
  const nqn = freshNqn("saved")
  const port = yield* freePort
  const make = (method: string, params: Rpc.RpcParams, undo: readonly [method: string, params: Rpc.RpcParams]) =>
    Effect.acquireRelease(client.call(method, params), () => Effect.ignore(client.call(undo[0], undo[1])))
  yield* make("bdev_malloc_create", { name: malloc, num_blocks: 4096, block_size: 512 }, [
    "bdev_malloc_delete",
    { name: malloc }
  ])
  yield* make("bdev_null_create", { name: empty, num_blocks: 1024, block_size: 4096 }, [
    "bdev_null_delete",
    { name: empty }
  ])
  yield* make("bdev_aio_create", { name: file, filename: image, block_size: 512 }, ["bdev_aio_delete", { name: file }])
  yield* make("bdev_malloc_create", { name: parts, num_blocks: 4096, block_size: 512 }, [
    "bdev_malloc_delete",
    { name: parts }
  ])
  yield* make("bdev_split_create", { base_bdev: parts, split_count: 2 }, ["bdev_split_delete", { base_bdev: parts }])
  yield* make(
    "bdev_delay_create",
    {
      name: slow,
      base_bdev_name: `${parts}p0`,
      avg_read_latency: 10,
      p99_read_latency: 20,
      avg_write_latency: 10,
      p99_write_latency: 20
    },
    ["bdev_delay_delete", { name: slow }]
  )
  yield* make("bdev_passthru_create", { name: `${file}pt`, base_bdev_name: file }, [
    "bdev_passthru_delete",
    { name: `${file}pt` }
  ])
  yield* make("bdev_error_create", { base_name: `${parts}p1` }, ["bdev_error_delete", { name: `EE_${parts}p1` }])
  const transports = yield* client.call("nvmf_get_transports")
  if (Array.isArray(transports) && transports.length === 0) {
    yield* client.call("nvmf_create_transport", { trtype: "TCP", max_io_size: 65_536 })
  }
  yield* make("nvmf_create_subsystem", { nqn, serial_number: "SN1", allow_any_host: true }, [
    "nvmf_delete_subsystem",
    { nqn }
  ])
  yield* client.call("nvmf_subsystem_add_ns", { nqn, namespace: { bdev_name: malloc } })
  yield* client.call("nvmf_subsystem_add_listener", {
    nqn,
    listen_address: { trtype: "TCP", adrfam: "IPv4", traddr: "127.0.0.1", trsvcid: `${port}` }
  })
  return { nqn, port: `${port}` }
})
