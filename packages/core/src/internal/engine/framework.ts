/**
 * Threads and reactors as SPDK's RPC methods `thread_get_stats` and `framework_get_reactors` tell them.
 */
import * as Effect from "effect/Effect"
import * as CpuSet from "../../CpuSet.ts"
import type { RpcClient } from "../../Rpc.ts"
import * as Rpc from "../../Rpc.ts"
import { NotFound, type RpcReason, SpdkError } from "../../SpdkError.ts"
import type { Reactor, ThreadStats } from "../../SpdkThread.ts"

type Client = RpcClient["Service"]

export const threads = (rpc: Client): Effect.Effect<ReadonlyArray<ThreadStats>, SpdkError<RpcReason>> =>
  Effect.flatMap(Rpc.callWith(rpc, "thread_get_stats"), (result) =>
    Effect.forEach(result.threads, (thread) =>
      Effect.map(Effect.fromResult(CpuSet.fromMask(thread.cpumask)), (cpus) => ({
        id: thread.id,
        name: thread.name,
        cpus,
        busyMillis: ticksToMillis(thread.busy, result.tick_rate),
        idleMillis: ticksToMillis(thread.idle, result.tick_rate),
        activePollers: thread.active_pollers_count,
        timedPollers: thread.timed_pollers_count,
        pausedPollers: thread.paused_pollers_count
      }))
    )
  )

export const threadStats = (
  rpc: Client,
  thread: { readonly id: number; readonly name: string }
): Effect.Effect<ThreadStats, SpdkError<RpcReason>> =>
  Effect.flatMap(threads(rpc), (all) => {
    const found = all.find((stats) => stats.id === thread.id)
    return found === undefined
      ? Effect.fail(new SpdkError({ reason: new NotFound({ operation: "SpdkThread.stats", resource: thread.name }) }))
      : Effect.succeed(found)
  })

export const reactors = (rpc: Client): Effect.Effect<ReadonlyArray<Reactor>, SpdkError<RpcReason>> =>
  Effect.flatMap(Rpc.callWith(rpc, "framework_get_reactors"), (result) =>
    Effect.forEach(result.reactors, (reactor) =>
      Effect.map(
        Effect.forEach(reactor.lw_threads, (thread) =>
          Effect.map(Effect.fromResult(CpuSet.fromMask(thread.cpumask)), (cpus) => ({
            id: thread.id,
            name: thread.name,
            cpus
          }))
        ),
        (onReactor) => ({
          core: reactor.lcore,
          busyMillis: ticksToMillis(reactor.busy, result.tick_rate),
          idleMillis: ticksToMillis(reactor.idle, result.tick_rate),
          threads: onReactor
        })
      )
    )
  )

// Ticks pass 2^53 after about a month. A double carries them with an error far below a millisecond.
const ticksToMillis = (ticks: number, ticksPerSecond: number): number => (ticks / ticksPerSecond) * 1000
