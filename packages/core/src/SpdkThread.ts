/**
 * SPDK threads, and the fibers that are on them. JavaScript has one thread, and no closure runs on a reactor. For the
 * Effects on it, an SpdkThread decides two things: the thread of their channels and pollers, and the order of messages.
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as SpdkThread from "@effect-spdk/core/SpdkThread"
 *
 * const program = Effect.gen(function*() {
 *   const storage = yield* SpdkThread.spawn({ name: "storage", cpus: "[1]" })
 *   yield* Effect.log("channels are taken on core 1 here").pipe(SpdkThread.on(storage))
 *   return yield* storage.call(Effect.succeed(42))
 * }).pipe(Effect.scoped)
 * ```
 *
 * @since 0.1.0
 */
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import * as Predicate from "effect/Predicate"
import type * as Scope from "effect/Scope"
import * as CpuSet from "./CpuSet.ts"
import { EngineService } from "./internal/engine/service.ts"
import * as framework from "./internal/engine/framework.ts"
import { checkName } from "./internal/common/names.ts"
import { goneIsReleased, onlyReasons } from "./internal/common/reasons.ts"
import * as internal from "./internal/thread/thread.ts"
import type { RpcClient } from "./Rpc.ts"
import { Spdk } from "./Spdk.ts"
import { invalid, type RpcReason, type SpdkError, type SpdkErrorOf } from "./SpdkError.ts"

const TypeId = internal.TypeId

/**
 * A thread of the engine. The thread lives as long as the scope that spawned it. Afterwards, every operation that
 * crosses to the thread fails with `Released`.
 *
 * @since 0.1.0
 * @category models
 */
export interface SpdkThread {
  readonly [TypeId]: typeof TypeId
  /** SPDK's number of the thread. */
  readonly id: number
  readonly name: string
  /**
   * Crosses to the thread, runs the effect on it and returns its result. The effects of `call` and `send` start in the
   * order of submission, across all fibers. An effect does not wait for earlier ones to finish.
   *
   * The effect runs in the calling fiber: interrupting the fiber interrupts the effect. A call from the same thread is
   * allowed.
   */
  readonly call: <A, E, R>(
    effect: Effect.Effect<A, E, R>
  ) => Effect.Effect<A, E | SpdkErrorOf<"Released" | "NotSupported">, R>
  /**
   * Submits the effect to the thread and returns. The effect runs in its own fiber, in order with the messages before
   * and after it. When the thread's scope closes, the effect is interrupted, started or not.
   *
   * No fiber waits for the effect, so the effect must handle its errors. A defect is logged.
   */
  readonly send: <A, R>(
    effect: Effect.Effect<A, never, R>
  ) => Effect.Effect<void, SpdkErrorOf<"Released" | "NotSupported">, R>
  /** SPDK's statistics of this thread. Fails with `NotFound` after the thread has ended. */
  readonly stats: Effect.Effect<ThreadStats, SpdkError<RpcReason>>
}

/**
 * The statistics of one thread, as `thread_get_stats` reports them.
 *
 * @since 0.1.0
 * @category models
 */
export interface ThreadStats {
  readonly id: number
  readonly name: string
  /** The cores that the thread may run on, among those with a reactor. */
  readonly cpus: CpuSet.CpuSet
  readonly busyMillis: number
  readonly idleMillis: number
  readonly activePollers: number
  readonly timedPollers: number
  readonly pausedPollers: number
}

/**
 * A reactor, as `framework_get_reactors` reports it. A reactor is the loop that runs SPDK threads on one core.
 *
 * @since 0.1.0
 * @category models
 */
export interface Reactor {
  readonly core: number
  readonly busyMillis: number
  readonly idleMillis: number
  readonly threads: ReadonlyArray<{
    readonly id: number
    readonly name: string
    readonly cpus: CpuSet.CpuSet
  }>
}

/**
 * The current SpdkThread of a fiber. `undefined` is the engine's main thread. Child fibers inherit the thread of their
 * parent. `on` and `call` set it.
 *
 * @since 0.1.0
 * @category references
 */
export const CurrentThread: Context.Reference<SpdkThread | undefined> = internal.CurrentThread

/** @since 0.1.0 @category guards */
export const isSpdkThread = (u: unknown): u is SpdkThread => Predicate.hasProperty(u, TypeId)

/** @since 0.1.0 @category models */
export interface SpawnOptions {
  /** A name for people and statistics, 1 to 256 bytes. Two threads may have the same name. */
  readonly name: string
  /**
   * The cores that the thread may run on, as a set or in mask or list notation. At least one of them must have a
   * reactor. Default: all cores of the engine.
   */
  readonly cpus?: CpuSet.CpuSet | string | undefined
}

/**
 * Creates a thread (`spdk_thread_create`). Fails with `InvalidArgument` for an invalid name or invalid cores, with
 * `NoMemory`, and with `NotSupported` on a remote engine. With `cpus`, the call asks SPDK for its reactors, which can
 * fail with any reason of an RPC.
 *
 * The end of the scope interrupts the effects that were sent to the thread and waits for its requests. Then it closes
 * the remaining channels and pollers, and ends the thread (`spdk_thread_exit`).
 *
 * @since 0.1.0
 * @category constructors
 */
export const spawn: (
  options: SpawnOptions
) => Effect.Effect<SpdkThread, SpdkError<RpcReason>, EngineService | Scope.Scope> = Effect.fn("SpdkThread.spawn")(
  function* (options: SpawnOptions) {
    const engine = yield* EngineService
    const name = yield* checkName("SpdkThread.spawn", options.name)
    const cpuMask = options.cpus === undefined ? undefined : yield* checkCpus(engine.rpc, options.cpus)
    const thread = yield* engine
      .spawn({ name, cpuMask })
      .pipe(
        goneIsReleased(internal.releasedThread("SpdkThread.spawn", engine.mainThread)),
        onlyReasons(["InvalidArgument", "NoMemory", "NotSupported", "Released"])
      )
    return yield* internal.makeThread(engine, thread)
  }
)

/**
 * Runs an effect with this thread as its current SpdkThread. The effect's channels open, and its pollers register, on
 * this thread. The effect starts at once. `thread.call`, in contrast, crosses to the thread and waits its turn.
 *
 * @since 0.1.0
 * @category combinators
 */
export const on: {
  (thread: SpdkThread): <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  <A, E, R>(self: Effect.Effect<A, E, R>, thread: SpdkThread): Effect.Effect<A, E, R>
} = dual(2, <A, E, R>(self: Effect.Effect<A, E, R>, thread: SpdkThread): Effect.Effect<A, E, R> =>
  Effect.provideService(self, internal.CurrentThread, thread)
)

/**
 * The fiber's current SpdkThread. The engine's main thread unless `on` or `call` set another.
 *
 * @since 0.1.0
 * @category accessors
 */
export const current: Effect.Effect<SpdkThread, never, Spdk> = Effect.flatMap(internal.CurrentThread, (thread) =>
  thread === undefined ? Effect.map(Spdk, (spdk) => spdk.mainThread) : Effect.succeed(thread)
)

/**
 * All threads of the engine with their statistics, SPDK's own threads included.
 *
 * @since 0.1.0
 * @category accessors
 */
export const list: Effect.Effect<ReadonlyArray<ThreadStats>, SpdkError<RpcReason>, EngineService> = Effect.flatMap(
  EngineService,
  (engine) => framework.threads(engine.rpc)
)

/**
 * The engine's reactors with their cores and current threads.
 *
 * @since 0.1.0
 * @category accessors
 */
export const reactors: Effect.Effect<ReadonlyArray<Reactor>, SpdkError<RpcReason>, EngineService> = Effect.flatMap(
  EngineService,
  (engine) => framework.reactors(engine.rpc)
)

/** The cores of the set that have reactors, as a mask. */
const checkCpus = Effect.fnUntraced(function* (rpc: RpcClient["Service"], input: CpuSet.CpuSet | string) {
  const refuse = (rule: string) => invalid("SpdkThread.spawn", "cpus", rule, `${input}`)
  const cpus = yield* CpuSet.isCpuSet(input)
    ? Effect.succeed(input)
    : Effect.mapError(Effect.fromResult(CpuSet.parse(input)), ({ reason }) => refuse(reason.rule))
  if (CpuSet.isEmpty(cpus)) return yield* Effect.fail(refuse("names no core"))
  const cores = CpuSet.makeUnsafe((yield* framework.reactors(rpc)).map((reactor) => reactor.core))
  const shared = CpuSet.intersection(cpus, cores)
  if (CpuSet.isEmpty(shared)) {
    return yield* Effect.fail(
      refuse(`names no core with a reactor: there is none on core ${CpuSet.first(cpus)}, only on ${cores}`)
    )
  }
  return CpuSet.toMask(shared)
})
