/**
 * Runs a program under one seed. The seed decides which fiber runs next, where a fiber yields, the time, random numbers
 * and ids. With `SimulatedDisk` it also decides the latency, order and faults of a disk. Use this module to test
 * services that are built on this SDK; the SDK itself is tested with it. The same seed gives the same run, so one
 * number reproduces a failure.
 *
 * Time is virtual. An hour of `Effect.sleep` takes no real time; a run takes as long as its steps. A run is one
 * synchronous call. It returns when the program has ended, when no task can continue (`deadlock`), or at a limit.
 *
 * Sockets between the embedded NVMe target and the embedded NVMe host are simulated: see `SimulatedNetwork`. Other
 * sockets, files, promises and Node's timers are not simulated. A program that waits for one of them ends as
 * `deadlock`.
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as Bdev from "@effect-spdk/core/Bdev"
 * import * as SimulatedDisk from "@effect-spdk/core/SimulatedDisk"
 * import * as Simulation from "@effect-spdk/core/Simulation"
 * import * as Spdk from "@effect-spdk/core/Spdk"
 *
 * const simulation = Simulation.make({ seed: 7 })
 * const disk = SimulatedDisk.make(simulation, { sizeBytes: 1024 * 1024 })
 * const program = Effect.gen(function*() {
 *   const bdev = yield* Bdev.open(yield* SimulatedDisk.attach(disk), { write: true })
 *   yield* bdev.writeBytes(0, new Uint8Array(4096).fill(1))
 *   yield* bdev.flush()
 * })
 * const outcome = simulation.run(Effect.scoped(program).pipe(Effect.provide(Spdk.layerEmbedded())))
 * // outcome.ending is "done"; simulation.trace is the same for every run with seed 7.
 * ```
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Random from "effect/Random"
import * as Scheduler from "effect/Scheduler"
import { Host } from "./internal/engine/host.ts"
import { type Chance, makeChance } from "./internal/simulation/chance.ts"
import { type Ending, Loop, type SimulatedTimer } from "./internal/simulation/loop.ts"
import { SimulatedSockets } from "./internal/simulation/network.ts"
import type { SimulatedNetwork } from "./SimulatedNetwork.ts"

export type { Chance } from "./internal/simulation/chance.ts"
export type { SimulatedTimer } from "./internal/simulation/loop.ts"

/**
 * How a run ended:
 *
 * - `done`: the program has ended.
 * - `stopped`: `stop` was called, or the power was cut.
 * - `deadlock`: the program waits for an event that cannot occur.
 * - `late`, `endless`: the run reached its limit of time, or of steps.
 * - `threw`: a callback threw into the event loop.
 *
 * @since 0.1.0
 * @category models
 */
export type { Ending }

/** @since 0.1.0 @category options */
export interface Options {
  /** A safe integer, not negative. The seed decides everything in the run. */
  readonly seed: number
  /** The probability that a fiber yields before an operation, once per resumption. Default 0.05. */
  readonly yieldChance?: number | undefined
  /**
   * The probability that an allocation of DMA memory fails with `NoMemory`. Default 0. `memoryFailureChance` changes it
   * later.
   */
  readonly memoryFailureChance?: number | undefined
}

/** @since 0.1.0 @category options */
export interface RunOptions {
  /** The number of event loop tasks after which the run ends as `endless`. Default one million. */
  readonly maxSteps?: number | undefined
  /** The virtual time after which the run ends as `late`. Default one hour. */
  readonly maxTime?: Duration.Input | undefined
}

/** @since 0.1.0 @category models */
export interface Outcome<A, E> {
  readonly ending: Ending
  /** The exit of the program, when the program has ended. */
  readonly exit: Exit.Exit<A, E> | undefined
  /** The thrown value, when `ending` is `threw`. */
  readonly thrown: unknown
  /** The remaining tasks and timers. None remain after a program that releases everything. */
  readonly left: { readonly tasks: number; readonly timers: number }
}

/**
 * One seeded world. Several runs follow each other in a world, like the lives of a machine between power cuts. Time,
 * random streams and disks continue from run to run. Fibers do not.
 *
 * @since 0.1.0
 * @category models
 */
export interface Simulation {
  readonly seed: number
  /** The random stream of this name. Each name has its own stream. */
  readonly chance: (name: string) => Chance
  /** Virtual microseconds since the simulation was made. A step takes one microsecond. */
  readonly nowMicros: () => number
  /** Calls `fire` after this much virtual time. */
  readonly after: (micros: number, fire: () => void) => SimulatedTimer
  /**
   * The network between the embedded NVMe target and host. The network continues from run to run. Open connections do
   * not.
   */
  readonly network: SimulatedNetwork
  /** Stops the machine for this much virtual time. Nothing runs in that time. Then everything that became due runs. */
  readonly standStill: (micros: number) => void
  /** Ends the current run, as if the process were killed. No finalizer runs, and no fiber continues. */
  readonly stop: () => void
  /** Adds two numbers to the trace. */
  readonly note: (a: number, b: number) => void
  /** A hash over the events of the world. The same seed and program give the same hash. */
  readonly trace: string
  readonly steps: number
  memoryFailureChance: number
  yieldChance: number
  /** Runs the program until it ends or cannot continue. Not inside another run. */
  readonly run: <A, E>(program: Effect.Effect<A, E>, options?: RunOptions) => Outcome<A, E>
}

/**
 * Makes a world with this seed.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (options: Options): Simulation => new World(options)

/** 2026-01-01 in Unix milliseconds: the start time of every simulation. */
const epochMillis = 1_767_225_600_000

class World implements Simulation {
  readonly seed: number
  memoryFailureChance: number
  yieldChance: number
  readonly network: SimulatedSockets
  private readonly root: Chance
  private readonly loop: Loop
  private readonly services: Context.Context<never>
  private hashA = 0x811c9dc5
  private hashB = 0x9e3779b9
  private isRunning = false

  constructor({ memoryFailureChance = 0, seed, yieldChance = 0.05 }: Options) {
    if (!Number.isSafeInteger(seed) || seed < 0) throw new RangeError(`the seed ${seed} is no whole number from 0 on`)
    this.seed = seed
    this.memoryFailureChance = memoryFailureChance
    this.yieldChance = yieldChance
    this.root = makeChance(seed)
    this.loop = new Loop(this.root.fork("order"), this.note)
    this.network = new SimulatedSockets(this.loop, this.root.fork("network"), this.note)
    this.services = this.makeServices()
  }

  readonly chance = (name: string): Chance => this.root.fork(name)
  readonly nowMicros = (): number => this.loop.nowMicros
  readonly after = (micros: number, fire: () => void): SimulatedTimer => this.loop.after(micros, fire)
  readonly stop = (): void => this.loop.stop()
  readonly standStill = (micros: number): void => {
    this.loop.nowMicros += Math.max(0, micros)
  }

  readonly note = (a: number, b: number): void => {
    this.hashA = Math.imul(this.hashA ^ a, 0x01000193)
    this.hashB = Math.imul(this.hashB ^ b ^ (this.hashA >>> 15), 0x85ebca6b)
  }

  get trace(): string {
    const hex = (word: number) => (word >>> 0).toString(16).padStart(8, "0")
    return `${hex(this.hashA)}${hex(this.hashB)}`
  }

  get steps(): number {
    return this.loop.steps
  }

  readonly run = <A, E>(program: Effect.Effect<A, E>, options: RunOptions = {}): Outcome<A, E> => {
    if (this.isRunning) throw new Error("a simulation runs one program at a time")
    const { loop } = this
    this.isRunning = true
    let exit: Exit.Exit<A, E> | undefined
    try {
      loop.add(() => {
        const fiber = Effect.runForkWith(this.services)(program)
        fiber.addObserver((ended) => {
          exit = ended
        })
      })
      const ending = loop.run(() => exit !== undefined, {
        steps: options.maxSteps ?? 1_000_000,
        micros: options.maxTime === undefined ? 3.6e9 : Duration.toMillis(options.maxTime) * 1000
      })
      if (ending === "done") settle(loop)
      const left = { tasks: loop.pendingTasks, timers: loop.pendingTimers }
      return { ending, exit, thrown: loop.thrown, left }
    } finally {
      loop.clear()
      this.network.clear()
      this.isRunning = false
    }
  }

  private makeServices(): Context.Context<never> {
    const { loop } = this
    const clock = clockOf(loop)
    const numbers = this.root.fork("numbers")
    const ids = this.root.fork("ids")
    const memory = this.root.fork("memory")
    const bytes = (lengthBytes: number): Uint8Array<ArrayBuffer> =>
      Uint8Array.from({ length: lengthBytes }, () => ids.below(256))
    return Context.empty().pipe(
      Context.add(Scheduler.Scheduler, this.makeScheduler()),
      Context.add(Clock.Clock, clock),
      Context.add(Random.Random, {
        nextIntUnsafe: () => Math.floor((numbers.next() - 0.5) * 2 * Number.MAX_SAFE_INTEGER),
        nextDoubleUnsafe: numbers.next
      }),
      Context.add(Host, {
        clock,
        nowMillis: () => loop.nowMicros / 1000,
        soon: loop.addSoon,
        nextTurn: loop.add,
        random: numbers.next,
        randomBytes: bytes,
        uuid: () => uuidOf(bytes(16)),
        refusesMemory: () => memory.is(this.memoryFailureChance),
        after: (millis, run) => {
          const timer = loop.after(millis * 1000, run)
          return () => {
            timer.fire = undefined
          }
        },
        fork: (effect) => Effect.runForkWith(this.services)(effect),
        network: this.network
      })
    )
  }

  private makeScheduler(): Scheduler.Scheduler {
    const { loop } = this
    const yields = this.root.fork("yields")
    // How many operations until the next yield: one draw for many of them.
    let left = 0
    let chance = -1
    const draw = (): void => {
      chance = this.yieldChance
      left = chance <= 0 ? Infinity : Math.floor(Math.log(1 - yields.next()) / Math.log(1 - Math.min(chance, 0.999)))
    }
    return {
      executionMode: "async",
      shouldYield: (fiber: Fiber.Fiber<unknown, unknown>) => {
        if (chance !== this.yieldChance) draw()
        if (left-- > 0) return fiber.currentOpCount >= fiber.cache.maxOpsBeforeYield
        draw()
        return true
      },
      makeDispatcher: () => ({ scheduleTask: (task) => loop.add(task), flush: () => {} })
    }
  }
}

/** Runs the tasks that the end of the program has left ready, up to a limit. Timers without a waiter stay. */
const settle = (loop: Loop): void => {
  let left = 10_000
  loop.run(() => loop.pendingTasks === 0 || left-- === 0, { steps: 10_000, micros: 1e9 })
}

const clockOf = (loop: Loop): Clock.Clock => {
  const millis = () => epochMillis + Math.floor(loop.nowMicros / 1000)
  const monotonic = () => BigInt(Math.floor(loop.nowMicros)) * 1000n
  const nanos = () => BigInt(epochMillis) * 1_000_000n + monotonic()
  return {
    currentTimeMillisUnsafe: millis,
    currentTimeMillis: Effect.sync(millis),
    currentTimeNanosUnsafe: nanos,
    currentTimeNanos: Effect.sync(nanos),
    monotonicTimeNanosUnsafe: monotonic,
    monotonicTimeNanos: Effect.sync(monotonic),
    sleep: (duration) =>
      Effect.callback<void>((resume) => {
        const millis = Duration.toMillis(duration)
        if (millis === Infinity) return
        const timer = loop.after(millis * 1000, () => resume(Effect.void))
        return Effect.sync(() => {
          timer.fire = undefined
        })
      })
  }
}

const uuidOf = (bytes: Uint8Array): string => {
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80
  const hex = Buffer.from(bytes).toString("hex")
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-")
}
