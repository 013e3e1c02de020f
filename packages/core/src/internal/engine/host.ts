/**
 * What the engines take from the machine: the outside world's clock, monotonic time, turns of the event loop, random numbers,
 * memory and sockets. A simulation puts its own in place, so that one seed decides all of it.
 *
 * It is no replacement for Effect's Clock, by which programs and the timers of the embedded engine go, and which tests move.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import { randomBytes, randomUUID } from "node:crypto"
import { machineNetwork, type Network } from "./network.ts"

export interface Host {
  /** Of the world outside. A TestClock does not move it. */
  readonly clock: Clock.Clock
  /** Monotonic, with fractions. Only differences mean something. */
  readonly nowMillis: () => number
  /** Runs `run` after what runs now, and before anything that waits for its turn. */
  readonly soon: (run: () => void) => void
  /** Runs `run` in the next turn of the event loop. */
  readonly nextTurn: (run: () => void) => void
  /** That nobody can guess. */
  readonly randomBytes: (lengthBytes: number) => Uint8Array<ArrayBuffer>
  /** From 0 up to 1, for what anybody may guess. */
  readonly random: () => number
  readonly uuid: () => string
  /** True where an allocation of DMA memory of this length is to fail although there is room for it. */
  readonly refusesMemory: (lengthBytes: number) => boolean
  /** Runs `run` after so long, by the outside world's time, unless the returned function is called before. */
  readonly after: (millis: number, run: () => void) => () => void
  /** Runs what belongs to no fiber of the user's: an engine's own work. */
  readonly fork: <A, E>(effect: Effect.Effect<A, E>) => Fiber.Fiber<A, E>
  readonly network: Network
}

export const machineHost: Host = {
  clock: Context.get(Context.empty(), Clock.Clock),
  nowMillis: () => performance.now(),
  soon: (run) => queueMicrotask(run),
  nextTurn: (run) => void setImmediate(run),
  randomBytes: (lengthBytes) => Uint8Array.from(randomBytes(lengthBytes)),
  random: () => Math.random(),
  uuid: () => randomUUID(),
  refusesMemory: () => false,
  after: (millis, run) => {
    const timeout = setTimeout(run, millis)
    return () => clearTimeout(timeout)
  },
  fork: (effect) => Effect.runFork(effect),
  network: machineNetwork
}

/** Whose time and chance the fiber lives by. Default: the machine's. */
export const Host: Context.Reference<Host> = Context.Reference<Host>("@effect-spdk/core/internal/Host", {
  defaultValue: () => machineHost
})
