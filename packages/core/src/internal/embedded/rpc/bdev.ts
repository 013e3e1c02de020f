/**
 * The RPC methods that tell about bdevs of any module.
 */
import * as Effect from "effect/Effect"
import { type EmbeddedBdev, ioTypes, type Json } from "../bdev/bdev.ts"
import type { BdevRegistry } from "../bdev/registry.ts"
import { IoStat, type ResetMode, ticksOf, ticksPerSecond } from "../bdev/ioStat.ts"
import { errnoFault, invalidParams, type RpcFault, type RpcTable, trueOrErrno } from "./table.ts"
import { EINVAL, ENODEV, ETIMEDOUT } from "../queue/status.ts"

export const addBdevMethods = (table: RpcTable, registry: BdevRegistry): void => {
  const isOptional = true
  table.add(
    "bdev_get_bdevs",
    ({ name, timeout }) =>
      name === undefined
        ? Effect.succeed(registry.all.filter(({ state }) => state === "ready").map(describe))
        : Effect.map(appeared(registry, name, Number(timeout ?? 0)), (bdev) => [describe(bdev)]),
    { isOptional }
  )
  table.add(
    "bdev_get_iostat",
    ({ names, per_channel: perChannel = false, reset_mode: mode = "none" }) => {
      if (perChannel && names?.length !== 1) return Effect.fail(errnoFault(-EINVAL))
      const bdevs = names === undefined ? registry.all : names.map((name) => registry.find(name))
      const found = bdevs.filter((bdev): bdev is EmbeddedBdev => bdev?.state === "ready")
      if (names !== undefined && found.length < bdevs.length) return Effect.fail(errnoFault(-ENODEV))
      const head = { tick_rate: ticksPerSecond, ticks: ticksOf(registry.context.reactor.host.nowMillis()) }
      const [first] = found
      return Effect.succeed(
        perChannel && first !== undefined
          ? { ...head, name: first.name, channels: channelStats(first, mode) }
          : { ...head, bdevs: found.map((bdev) => describeStat(bdev, mode)) }
      )
    },
    { isOptional }
  )
  table.add(
    "bdev_reset_iostat",
    ({ mode = "all", name }) => {
      if (mode === "none") return Effect.succeed(true)
      const bdevs = name === undefined ? registry.all : [registry.find(name)]
      for (const bdev of bdevs) {
        if (bdev === undefined || bdev.state !== "ready") return Effect.fail(errnoFault(-ENODEV))
        for (const stat of statsOf(bdev)) stat.reset(mode)
      }
      return Effect.succeed(true)
    },
    { isOptional }
  )
  table.addStartup(
    "bdev_set_options",
    (params) => {
      const before = registry.options
      const options = {
        bdev_io_pool_size: params.bdev_io_pool_size ?? before.bdev_io_pool_size,
        bdev_io_cache_size: params.bdev_io_cache_size ?? before.bdev_io_cache_size,
        bdev_auto_examine: params.bdev_auto_examine ?? before.bdev_auto_examine,
        iobuf_small_cache_size: params.iobuf_small_cache_size ?? before.iobuf_small_cache_size,
        iobuf_large_cache_size: params.iobuf_large_cache_size ?? before.iobuf_large_cache_size
      }
      const { bdev_io_cache_size: cacheSize, bdev_io_pool_size: poolSize } = options
      // One cache for the thread that there is by then, and one for a moment of SPDK's own start.
      if (poolSize < cacheSize * 2) {
        return Effect.fail(invalidParams(`Pool size ${poolSize} too small for cache size ${cacheSize}`))
      }
      registry.options = options
      return Effect.succeed(true)
    },
    { isOptional: true, onInvalid: invalidParams() }
  )
  // A bdev is examined before the call that makes it is answered.
  table.addBare("bdev_wait_for_examine", "bdev_wait_for_examine requires no parameters", () => Effect.succeed(true))
  table.add("bdev_examine", ({ name }) => trueOrErrno(registry.examineByName(name)), {
    onInvalid: invalidParams("spdk_json_decode_object failed")
  })
}

/** The calls that make the bdevs that there are. */
export const bdevConfig = (registry: BdevRegistry, withBatches: boolean): ReadonlyArray<Json> => [
  { method: "bdev_set_options", params: { ...registry.options } },
  ...registry.modules.flatMap((module) => module.configCalls(withBatches)),
  { method: "bdev_wait_for_examine" }
]

/** The bdev of this name, once there is one. -ENODEV at once, or -ETIMEDOUT. */
const appeared = (registry: BdevRegistry, name: string, timeoutMillis: number): Effect.Effect<EmbeddedBdev, RpcFault> =>
  Effect.callback((resume) => {
    const look = (): EmbeddedBdev | undefined => {
      const bdev = registry.find(name)
      return bdev?.state === "ready" ? bdev : undefined
    }
    const there = look()
    if (there !== undefined) return resume(Effect.succeed(there))
    if (timeoutMillis === 0) return resume(Effect.fail(errnoFault(-ENODEV)))
    const { timers } = registry.context
    const stop = () => {
      unwatch()
      timers.cancel(timer)
    }
    const unwatch = registry.watch(() => {
      const bdev = look()
      if (bdev === undefined) return
      stop()
      resume(Effect.succeed(bdev))
    })
    const timer = timers.after(timeoutMillis * 1000, () => {
      unwatch()
      resume(Effect.fail(errnoFault(-ETIMEDOUT)))
    })
    return Effect.sync(stop)
  })

const describe = (bdev: EmbeddedBdev) => {
  const domains = bdev.memoryDomains()
  const { properties } = bdev
  return {
    name: bdev.name,
    aliases: [...bdev.aliases],
    product_name: properties.productName,
    block_size: bdev.blockSize,
    num_blocks: bdev.numBlocks,
    preferred_write_alignment: properties.preferredWriteAlignment ?? 0,
    preferred_write_granularity: properties.preferredWriteGranularity ?? 0,
    optimal_write_size: properties.optimalWriteSize ?? 0,
    preferred_unmap_alignment: properties.preferredUnmapAlignment ?? 0,
    preferred_unmap_granularity: properties.preferredUnmapGranularity ?? 0,
    uuid: properties.uuid,
    ...(properties.numaId === undefined ? {} : { numa_id: properties.numaId }),
    assigned_rate_limits: { rw_ios_per_sec: 0, rw_mbytes_per_sec: 0, r_mbytes_per_sec: 0, w_mbytes_per_sec: 0 },
    claimed: bdev.claimedBy !== undefined,
    ...(bdev.claimedBy === undefined ? {} : { claim_type: "exclusive_write" }),
    zoned: false,
    supported_io_types: Object.fromEntries(ioTypes.map((type) => [type, bdev.supports(type)])),
    ...(domains.length === 0 ? {} : { memory_domains: domains }),
    driver_specific: bdev.driverSpecific()
  }
}

const statsOf = (bdev: EmbeddedBdev): ReadonlyArray<IoStat> => [
  bdev.stat,
  ...[...bdev.channels.values()].map((channel) => channel.stat)
]

/** What has been counted until now; the counters are reset by `mode` after that. */
const bdevStat = (bdev: EmbeddedBdev, mode: ResetMode): IoStat => {
  const total = new IoStat()
  for (const stat of statsOf(bdev)) {
    total.add(stat)
    stat.reset(mode)
  }
  return total
}

const describeStat = (bdev: EmbeddedBdev, mode: ResetMode) => {
  const specific = bdev.statSpecific()
  return {
    name: bdev.name,
    ...bdevStat(bdev, mode).toJson(),
    ...(specific === undefined ? {} : { driver_specific: specific })
  }
}

const channelStats = (bdev: EmbeddedBdev, mode: ResetMode) =>
  [...bdev.channels.values()].map(({ stat, thread }) => {
    const json = { thread_id: thread.id, ...stat.toJson() }
    stat.reset(mode)
    return json
  })
