/**
 * Takes bdevs of a configuration that failed away again.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { RpcClient } from "../../Rpc.ts"
import type { RpcReason, SpdkError } from "../../SpdkError.ts"
import { protocolFromIssue } from "./schemaIssue.ts"

const Bdev = Schema.Struct({
  name: Schema.String,
  product_name: Schema.String,
  driver_specific: Schema.optional(
    Schema.Struct({ split: Schema.optional(Schema.Struct({ base_bdev: Schema.String })) })
  )
})
type Bdev = typeof Bdev.Type

interface Deletion {
  readonly method: string
  readonly params: { readonly [name: string]: string }
}

const byName =
  (method: string) =>
  (bdev: Bdev): Deletion => ({ method, params: { name: bdev.name } })

/**
 * How bdevs go that a configuration made, by product. Products that are not here either go with the bdev below
 * them, as partitions do, or cannot be deleted without their data, as logical volumes.
 */
const deletions: { readonly [productName: string]: (bdev: Bdev) => Deletion | undefined } = {
  "AIO disk": byName("bdev_aio_delete"),
  "Ceph Rbd Disk": byName("bdev_rbd_delete"),
  crypto: byName("bdev_crypto_delete"),
  delay: byName("bdev_delay_delete"),
  "Error Injection Disk": byName("bdev_error_delete"),
  "iSCSI LUN": byName("bdev_iscsi_delete"),
  "Malloc disk": byName("bdev_malloc_delete"),
  "Null disk": byName("bdev_null_delete"),
  "NVMe disk": ({ name }) => ({
    method: "bdev_nvme_detach_controller",
    params: { name: name.replace(/n\d+$/, "") }
  }),
  passthru: byName("bdev_passthru_delete"),
  // The superblock stays unless the call asks for clearing it.
  "Raid Volume": byName("bdev_raid_delete"),
  "Split Disk": ({ driver_specific }) =>
    driver_specific?.split === undefined
      ? undefined
      : { method: "bdev_split_delete", params: { base_bdev: driver_specific.split.base_bdev } },
  "URING bdev": byName("bdev_uring_delete"),
  "xNVMe bdev": byName("bdev_xnvme_delete"),
  zone_block: byName("bdev_zone_block_delete")
}

const getBdevs = (rpc: RpcClient["Service"]): Effect.Effect<ReadonlyArray<Bdev>, SpdkError<RpcReason>> =>
  Effect.flatMap(rpc.call("bdev_get_bdevs"), (result) =>
    Effect.mapError(decodeBdevs(result), (error) => protocolFromIssue("bdev_get_bdevs", error.issue))
  )

const decodeBdevs = Schema.decodeUnknownEffect(Schema.Array(Bdev))

export const listBdevs = (rpc: RpcClient["Service"]): Effect.Effect<ReadonlyArray<string>, SpdkError<RpcReason>> =>
  Effect.map(getBdevs(rpc), (bdevs) => bdevs.map(({ name }) => name))

/**
 * Deletes the bdevs among `made` that are not in `before`, the youngest first, so that what stands on another goes before it.
 * One that SPDK does not give up is left, with a warning in the log.
 */
export const deleteNewBdevs = (
  rpc: RpcClient["Service"],
  before: ReadonlyArray<string>,
  made: ReadonlySet<string>
): Effect.Effect<void, SpdkError<RpcReason>> =>
  Effect.flatMap(getBdevs(rpc), (bdevs) => {
    const isNew = bdevs.filter(({ name }) => made.has(name) && !before.includes(name)).toReversed()
    const calls = new Map<string, Deletion>()
    for (const bdev of isNew) {
      const deletion = deletions[bdev.product_name]?.(bdev)
      // Parts of one split, and namespaces of one controller, go with one call.
      if (deletion !== undefined) calls.set(JSON.stringify(deletion), deletion)
    }
    return Effect.forEach(
      calls.values(),
      ({ method, params }) =>
        Effect.catch(rpc.call(method, params), (error) =>
          Effect.logWarning(`cannot remove the resources of a refused configuration: ${error.message}`)
        ),
      { discard: true }
    )
  })
