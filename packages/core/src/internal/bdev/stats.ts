/**
 * The I/O counts of one bdev.
 */
import * as Effect from "effect/Effect"
import type { BdevStats } from "../../BdevInfo.ts"
import type { RpcClient } from "../../Rpc.ts"
import * as Rpc from "../../Rpc.ts"
import { NotFound, type RpcReason, SpdkError } from "../../SpdkError.ts"

/** SPDK before 26.05 takes the name of one bdev, and cannot decode a list. */
const read = (rpc: RpcClient["Service"], name: string) => {
  const older: RpcClient["Service"] = {
    ...rpc,
    call: (method, _params, options) => rpc.call(method, { name }, options)
  }
  const readFrom = (client: RpcClient["Service"]) => Rpc.callWith(client, "bdev_get_iostat", { names: [name] })
  return Effect.catchReason(readFrom(rpc), "SpdkError", "InvalidArgument", () => readFrom(older))
}

export const statsOf = (rpc: RpcClient["Service"], name: string): Effect.Effect<BdevStats, SpdkError<RpcReason>> =>
  Effect.flatMap(read(rpc, name), ({ bdevs, tick_rate }) => {
    const stat = bdevs[0]
    // By channel only on request.
    if (stat === undefined || "channels" in stat) {
      return Effect.fail(new SpdkError({ reason: new NotFound({ operation: "bdev_get_iostat", resource: name }) }))
    }
    const micros = (ticks: number) => (ticks / tick_rate) * 1e6
    return Effect.succeed<BdevStats>({
      readBytes: stat.bytes_read,
      readOps: stat.num_read_ops,
      writtenBytes: stat.bytes_written,
      writeOps: stat.num_write_ops,
      unmappedBytes: stat.bytes_unmapped,
      unmapOps: stat.num_unmap_ops,
      readLatencyMicros: micros(stat.read_latency_ticks),
      writeLatencyMicros: micros(stat.write_latency_ticks),
      unmapLatencyMicros: micros(stat.unmap_latency_ticks)
    })
  })
