/**
 * The RPC methods about the engine itself: version, reactors, threads, log, notifications.
 */
import * as Effect from "effect/Effect"
import * as CpuSet from "../../../CpuSet.ts"
import type { LogLevel } from "../../../SpdkOptions.ts"
import type { ChannelThread, Json } from "../bdev/bdev.ts"
import type { BdevRegistry } from "../bdev/registry.ts"
import { ticksPerSecond } from "../bdev/ioStat.ts"
import { notificationTypes } from "../runtime/notifications.ts"
import type { EmbeddedPoller } from "../runtime/poller.ts"
import type { Target } from "../nvmf/target.ts"
import { bdevConfig } from "./bdev.ts"
import { nvmfConfig } from "./nvmfConfig.ts"
import { invalidParams, RpcFault, type RpcTable } from "./table.ts"
import { EINVAL, strerror } from "../queue/status.ts"
import type { LogicalThread } from "../runtime/thread.ts"

export interface FrameworkContext {
  readonly registry: BdevRegistry
  readonly nvmf: Target
  readonly version: string
  readonly cores: CpuSet.CpuSet
  readonly startMillis: number
  readonly threads: () => ReadonlyArray<LogicalThread>
  /** What reaches the log, and what SPDK would keep in syslog, where this engine has none. */
  readonly printLevel: { current: LogLevel }
  /** Ends the service on the socket, after the answer is out. */
  readonly stopServing: () => void
}

/** Milliseconds as ticks. */
const ticks = (millis: number): number => Math.max(0, Math.round(millis * 1e6))

const maskOf = (cores: CpuSet.CpuSet): string => CpuSet.toMask(cores).replace(/^0x/, "")

export const addFramework = (table: RpcTable, context: FrameworkContext): void => {
  addRpc(table, context)
  addThreads(table, context)
  addConfig(table, context)
  addLog(table, context)
  addNotify(table, context)
}

const addRpc = (table: RpcTable, context: FrameworkContext): void => {
  table.add("rpc_get_methods", ({ current = false }) => Effect.succeed(table.names(current)), {
    isOptional: true,
    onInvalid: invalidParams()
  })
  const [major = 0, minor = 0, patch = 0] = context.version.split(".").map(Number)
  table.addBare("spdk_get_version", "spdk_get_version method requires no parameters", () =>
    Effect.succeed({
      version: `effect-spdk embedded ${context.version}`,
      // SPDK's is that of the tree that it was built from: a package from a registry knows none.
      fields: { major, minor, patch, suffix: "", commit: "" }
    })
  )
  table.add(
    "spdk_kill_instance",
    () => {
      context.stopServing()
      return Effect.succeed(true)
    },
    { onInvalid: invalidParams() }
  )
}

const addThreads = (table: RpcTable, context: FrameworkContext): void => {
  const { cores, threads } = context
  table.addBare("framework_get_reactors", "`framework_get_reactors` requires no arguments", () =>
    Effect.succeed({
      tick_rate: ticksPerSecond,
      pid: process.pid,
      reactors: [...cores].map((core) => describeReactor(context, core))
    })
  )
  const perThread =
    <A>(describe: (thread: LogicalThread) => A) =>
    () =>
      Effect.succeed({ tick_rate: ticksPerSecond, threads: threads().map(describe) })
  table.addBare("thread_get_stats", "'thread_get_stats' requires no arguments", perThread(describeThread))
  table.addBare("thread_get_pollers", "'thread_get_pollers' requires no arguments", perThread(describePollers))
  table.addBare("thread_get_io_channels", "'thread_get_io_channels' requires no arguments", () =>
    Effect.succeed({ tick_rate: ticksPerSecond, threads: channelHolders(context).map(describeChannels(context)) })
  )
  table.addBare("framework_get_scheduler", "'rpc_get_scheduler' requires no arguments", () =>
    Effect.succeed({
      scheduler_name: "static",
      scheduler_period: 0,
      isolated_core_mask: "0",
      scheduling_core: CpuSet.first(cores) ?? 0
    })
  )
}

const describeReactor = ({ cores, registry, startMillis, threads }: FrameworkContext, core: number) => {
  const now = registry.context.reactor.host.nowMillis()
  const here = threads().filter((thread) => thread.core === core)
  const busyMillis = here.reduce((sum, thread) => sum + thread.busyMillis, 0)
  return {
    lcore: core,
    numa_id: 0,
    tid: process.pid,
    busy: ticks(busyMillis),
    idle: ticks(now - startMillis - busyMillis),
    in_interrupt: false,
    irq: 0,
    sys: 0,
    usr: 0,
    lw_threads: here.map((thread) => ({
      name: thread.name,
      id: thread.id,
      cpumask: maskOf(CpuSet.intersection(cores, thread.cores)),
      elapsed: ticks(now - thread.startMillis)
    }))
  }
}

/** Those that have queues, and the target's, which has channels and no queue. */
const channelHolders = ({ registry, threads }: FrameworkContext): ReadonlyArray<ChannelThread> => [
  ...new Set<ChannelThread>([...threads(), ...registry.all.flatMap((bdev) => [...bdev.channels.keys()])])
]

const describeChannels =
  ({ registry }: FrameworkContext) =>
  (thread: ChannelThread): Json => ({
    name: thread.name,
    io_channels: registry.all.flatMap((bdev) => {
      const channel = bdev.channels.get(thread)
      return channel === undefined ? [] : [{ name: `bdev_${bdev.name}`, ref: channel.refs }]
    })
  })

/** What takes requests from the thread's queue is its first poller, as on libspdk. Those of the user count from 1. */
const queuePollerId = 0

const isTimed = (poller: EmbeddedPoller): boolean => poller.periodMicros > 0

const pollersOf = (thread: LogicalThread) => {
  const waiting = [...thread.pollers].filter((poller) => poller.state === "waiting")
  return {
    active: waiting.filter((poller) => !isTimed(poller)),
    timed: waiting.filter(isTimed),
    paused: [...thread.pollers].filter((poller) => poller.state === "paused")
  }
}

const describeThread = (thread: LogicalThread) => {
  const { active, paused, timed } = pollersOf(thread)
  return {
    name: thread.name,
    id: thread.id,
    cpumask: maskOf(thread.cores),
    busy: ticks(thread.busyMillis),
    idle: ticks(thread.ageMillis - thread.busyMillis),
    active_pollers_count: active.length + 1,
    timed_pollers_count: timed.length,
    paused_pollers_count: paused.length
  }
}

const describePollers = (thread: LogicalThread): Json => {
  const { active, paused, timed } = pollersOf(thread)
  const describe = (poller: EmbeddedPoller): Json => ({
    name: poller.name,
    id: poller.id,
    state: poller.state,
    run_count: poller.runs,
    busy_count: poller.runs,
    ...(isTimed(poller) ? { period_ticks: ticks(poller.periodMicros / 1000) } : {})
  })
  return {
    name: thread.name,
    id: thread.id,
    active_pollers: [
      {
        name: "effect_spdk_queue",
        id: queuePollerId,
        state: "waiting",
        run_count: thread.queue.runs,
        busy_count: thread.queue.runs
      },
      ...active.map(describe)
    ],
    timed_pollers: timed.map(describe),
    paused_pollers: paused.map(describe)
  }
}

const addConfig = (table: RpcTable, { nvmf, registry }: FrameworkContext): void => {
  table.addStartup(
    "framework_start_init",
    () => {
      table.start()
      return Effect.succeed(true)
    },
    { isOptional: true, onInvalid: invalidParams("framework_start_init requires no parameters") }
  )
  table.addBlind("framework_wait_init", () => Effect.succeed(true))
  table.addBare("framework_get_subsystems", "'framework_get_subsystems' requires no arguments", () =>
    Effect.succeed([
      { subsystem: "bdev", depends_on: [] },
      { subsystem: "nvmf", depends_on: ["bdev"] }
    ])
  )
  table.add(
    "framework_get_config",
    ({ name, with_batches: withBatches = false }) => {
      if (name === "bdev") return Effect.succeed(bdevConfig(registry, withBatches))
      if (name === "nvmf") return Effect.succeed(nvmfConfig(nvmf, withBatches))
      return Effect.fail(invalidParams(`Subsystem '${name}' not found`))
    },
    { onInvalid: invalidParams("Invalid arguments") }
  )
}

const levels: { readonly [Name in "ERROR" | "WARNING" | "NOTICE" | "INFO" | "DEBUG"]: LogLevel } = {
  ERROR: "error",
  WARNING: "warning",
  NOTICE: "notice",
  INFO: "info",
  DEBUG: "debug"
}

const addLog = (table: RpcTable, { printLevel }: FrameworkContext): void => {
  const answerLevel = (level: LogLevel) => {
    const found = Object.entries(levels).find(([, value]) => value === level)
    // As in SPDK, "disabled" has no name.
    return found === undefined ? Effect.fail(new RpcFault(-32603, "invalid log level")) : Effect.succeed(found[0])
  }
  let level: LogLevel = "notice"
  table.add("log_set_level", (params) => {
    level = levels[params.level]
    return Effect.succeed(true)
  })
  table.addBare("log_get_level", "log_get_level requires no parameters", () => answerLevel(level))
  table.add("log_set_print_level", (params) => {
    printLevel.current = levels[params.level]
    return Effect.succeed(true)
  })
  table.addBare("log_get_print_level", "log_get_print_level requires no parameters", () =>
    answerLevel(printLevel.current)
  )
}

const addNotify = (table: RpcTable, { registry }: FrameworkContext): void => {
  table.addBare("notify_get_types", "No parameters required", () => Effect.succeed([...notificationTypes]))
  table.add(
    "notify_get_notifications",
    ({ id = 0, max = Infinity }) =>
      Effect.succeed(
        registry.context.notifications.since(Number(id), Number(max)).map(({ ctx, id, type }) => ({ type, ctx, id }))
      ),
    { isOptional: true, onInvalid: invalidParams(strerror(EINVAL)) }
  )
}
