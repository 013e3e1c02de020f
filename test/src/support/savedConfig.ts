/** Configurations as `rpc.py save_config` writes them, and what there is of an engine after one was loaded. */
import type * as Rpc from "@effect-spdk/core/Rpc"
import * as Effect from "effect/Effect"

type Client = Rpc.RpcClient["Service"]

interface Subsystem {
  readonly subsystem: string
  readonly depends_on: ReadonlyArray<string>
}

/** All that the engine would save, subsystem by subsystem. */
export const saveConfig = (client: Client) =>
  Effect.gen(function* () {
    // SPDK's own script reads the same fields.
    const subsystems = (yield* client.call("framework_get_subsystems")) as unknown as ReadonlyArray<Subsystem>
    return {
      subsystems: yield* Effect.forEach(subsystems, ({ subsystem }) =>
        Effect.map(client.call("framework_get_config", { name: subsystem }), (config) => ({ subsystem, config }))
      )
    }
  })

const pick = (value: unknown, fields: ReadonlyArray<string>): unknown => {
  if (typeof value !== "object" || value === null) return value
  return Object.fromEntries(Object.entries(value).filter(([name]) => fields.includes(name)))
}

const byName = (one: unknown, other: unknown): number => (JSON.stringify(one) < JSON.stringify(other) ? -1 : 1)

const each = (list: unknown, fields: ReadonlyArray<string>): ReadonlyArray<unknown> =>
  (Array.isArray(list) ? list : []).map((one) => pick(one, fields)).toSorted(byName)

/** What a configuration has made: bdevs and subsystems, without what is an engine's own. */
export const made = (client: Client) =>
  Effect.gen(function* () {
    const bdevFields = ["name", "aliases", "product_name", "block_size", "num_blocks", "uuid", "claimed", "claim_type"]
    const subsystemFields = ["nqn", "serial_number", "allow_any_host", "hosts", "listen_addresses", "namespaces"]
    const transportFields = ["trtype", "max_queue_depth", "max_io_size", "in_capsule_data_size", "c2h_success"]
    const read = (method: string, fields: ReadonlyArray<string>) =>
      Effect.map(client.call(method), (list) => each(list, fields))
    return {
      bdevs: yield* read("bdev_get_bdevs", bdevFields),
      subsystems: yield* read("nvmf_get_subsystems", subsystemFields),
      transports: yield* read("nvmf_get_transports", transportFields)
    }
  })
