/**
 * SPDK threads as places where Effects stand. JavaScript has one thread and no closure of it runs on a reactor, so
 * an SpdkThread decides two things: where channels are taken and pollers registered by the Effects that are on it,
 * and in which order the messages to it arrive.
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
import { EngineService } from "./internal/engineService.ts"
import * as framework from "./internal/framework.ts"
import { checkName } from "./internal/names.ts"
import { goneIsReleased, onlyReasons } from "./internal/reasons.ts"
import * as internal from "./internal/thread.ts"
import type { RpcClient } from "./Rpc.ts"
import { Spdk } from "./Spdk.ts"
import { invalid, type RpcReason, type SpdkError, type SpdkErrorOf } from "./SpdkError.ts"

const TypeId = internal.TypeId

/**
 * A thread of the engine. It lives as long as the scope it was spawned in; used afterwards, everything that
 * crosses to it fails with `Released`.
 *
 * @since 0.1.0
 * @category models
 */
export interface SpdkThread {
  readonly [TypeId]: typeof TypeId
  /** As SPDK numbers its threads. */
  readonly id: number
  readonly name: string
  /**
   * Crosses to the thread, runs the effect on it and returns its result. Effects of `call` and `send`, from one fiber
   * or many, start in the order in which they were handed over; they do not wait for each other to finish.
   *
   * The effect runs in the calling fiber: interrupting that interrupts the effect. A call made on the same thread
   * is fine.
   */
  readonly call: <A, E, R>(
    effect: Effect.Effect<A, E, R>
  ) => Effect.Effect<A, E | SpdkErrorOf<"Released" | "NotSupported">, R>
  /**
   * Hands the effect over and returns. It runs on the thread in a fiber of its own, in order with the messages before
   * and after it, and is interrupted, started or not, when the thread's scope closes.
   *
   * Nobody waits for it, so the effect must handle its errors; a defect is logged.
   */
  readonly send: <A, R>(
    effect: Effect.Effect<A, never, R>
  ) => Effect.Effect<void, SpdkErrorOf<"Released" | "NotSupported">, R>
  /** What SPDK counts for this thread. Fails with NotFound once the thread is gone. */
  readonly stats: Effect.Effect<ThreadStats, SpdkError<RpcReason>>
}

/**
 * What `thread_get_stats` tells of one thread.
 *
 * @since 0.1.0
 * @category models
 */
export interface ThreadStats {
  readonly id: number
  readonly name: string
  /** The reactors' cores that the thread may run on. */
  readonly cpus: CpuSet.CpuSet
  readonly busyMillis: number
  readonly idleMillis: number
  readonly activePollers: number
  readonly timedPollers: number
  readonly pausedPollers: number
}

/**
 * What `framework_get_reactors` tells of one reactor: the loop that runs SPDK threads on one core.
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
 * The thread that a fiber is on: `undefined` is the engine's main thread. Child fibers are on the thread of their
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
  /** For people and statistics, 1 to 256 bytes. Two threads may share one. */
  readonly name: string
  /**
   * The cores the thread may run on, as a set or in mask or list notation. At least one of them must have a reactor.
   * Default: all of the engine's.
   */
  readonly cpus?: CpuSet.CpuSet | string | undefined
}

/**
 * Makes a thread. Fails with InvalidArgument for a name or cores that will not do, NoMemory, and NotSupported on a
 * remote engine; asking for the reactors, which `cpus` needs, may fail as any RPC. Its scope's end interrupts the
 * effects it was sent, waits for its requests, closes the channels and pollers that are left on it, and exits it
 * (`spdk_thread_create`, `spdk_thread_exit`).
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
 * Runs an effect on this thread: the channels it takes and the pollers it registers are the thread's. It starts at
 * once; `thread.call` is what crosses and waits its turn.
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
 * The thread that the fiber is on; the engine's main thread unless something else was said.
 *
 * @since 0.1.0
 * @category accessors
 */
export const current: Effect.Effect<SpdkThread, never, Spdk> = Effect.flatMap(internal.CurrentThread, (thread) =>
  thread === undefined ? Effect.map(Spdk, (spdk) => spdk.mainThread) : Effect.succeed(thread)
)

/**
 * Every thread of the engine, SPDK's own included, with its statistics.
 *
 * @since 0.1.0
 * @category accessors
 */
export const list: Effect.Effect<ReadonlyArray<ThreadStats>, SpdkError<RpcReason>, EngineService> = Effect.flatMap(
  EngineService,
  (engine) => framework.threads(engine.rpc)
)

/**
 * The engine's reactors, their cores and the threads on them.
 *
 * @since 0.1.0
 * @category accessors
 */
export const reactors: Effect.Effect<ReadonlyArray<Reactor>, SpdkError<RpcReason>, EngineService> = Effect.flatMap(
  EngineService,
  (engine) => framework.reactors(engine.rpc)
)

/** The part of the set that has reactors, as a mask. */
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
