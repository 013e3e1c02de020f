/**
 * DMA memory for I/O on plain `Uint8Array`s. Users never see it, so its slabs need no renewal between leases.
 *
 * One pool per engine, as long as a handle is open. It holds at most `maxBytes`, in size classes that are powers of two;
 * who comes when that is leased waits, in order of arrival. A lease lasts for device I/O only, never for a user's Effect,
 * so that waiting always ends.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { SpdkErrorOf } from "../SpdkError.ts"
import type { Engine, EngineMemory } from "./engine.ts"
import { bufferOf, type DmaBufferImpl, freeMemory, Memory } from "./ioMemory.ts"
import { onlyReasons } from "./reasons.ts"

/** The largest lease. */
export const maxBounceBytes = 4 * 2 ** 20
const minBounceBytes = 4096
const maxBytes = 32 * 2 ** 20

type LeaseError = SpdkErrorOf<"InvalidArgument" | "NoMemory">

interface Waiter {
  readonly classBytes: number
  memory: Memory | undefined
  resume: (exit: Effect.Effect<void>) => void
}

/** No bdev requires more than its block size, and a lease is at least one block long. */
const alignmentOf = (classBytes: number): number => Math.min(classBytes, 65_536)

const classOf = (lengthBytes: number): number => Math.max(minBounceBytes, 2 ** Math.ceil(Math.log2(lengthBytes)))

export class BouncePool {
  private readonly engineMemory: EngineMemory
  private readonly idle = new Map<number, Array<Memory>>()
  private readonly waiters = new Set<Waiter>()
  private idleBytes = 0
  private leasedBytes = 0
  private closed = false

  constructor(engineMemory: EngineMemory) {
    this.engineMemory = engineMemory
  }

  /** Runs `use` with a buffer of exactly `lengthBytes`, at most `maxBounceBytes`. Its content is undefined. */
  lease<A, E>(
    lengthBytes: number,
    use: (buffer: DmaBufferImpl) => Effect.Effect<A, E>
  ): Effect.Effect<A, E | LeaseError> {
    const classBytes = classOf(lengthBytes)
    return Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(this.take(classBytes, restore), (memory) =>
        Effect.onExit(restore(use(bufferOf(memory, lengthBytes))), () => this.giveBack(classBytes, memory))
      )
    )
  }

  /** What is leased is freed at the end of its lease. */
  readonly close: Effect.Effect<void> = Effect.suspend(() => {
    this.closed = true
    return this.freeIdle
  })

  private take(
    classBytes: number,
    restore: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  ): Effect.Effect<Memory, LeaseError> {
    return Effect.suspend(() => {
      // Those who wait already come first.
      if (this.waiters.size > 0 || this.leasedBytes + classBytes > maxBytes) return this.wait(classBytes, restore)
      this.leasedBytes += classBytes
      return this.takeReserved(classBytes, restore)
    })
  }

  /** `classBytes` are counted as leased already. */
  private takeReserved(
    classBytes: number,
    restore: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  ): Effect.Effect<Memory, LeaseError> {
    const idle = this.idle.get(classBytes)?.pop()
    if (idle !== undefined) {
      this.idleBytes -= classBytes
      return Effect.succeed(idle)
    }
    const makeRoom = this.idleBytes + this.leasedBytes > maxBytes ? this.freeIdle : Effect.void
    return Effect.andThen(makeRoom, this.allocate(classBytes)).pipe(
      Effect.catch((error) => {
        // The engine has no room. Somebody else's lease may fit, or be freed to make some.
        if (error.reason._tag === "NoMemory") {
          if (this.idleBytes > 0) return this.takeReserved(classBytes, restore)
          if (this.leasedBytes > classBytes) {
            this.leasedBytes -= classBytes
            return this.wait(classBytes, restore)
          }
        }
        // Those who wait for this reservation, which now never becomes a lease, try for themselves.
        return Effect.andThen(this.returnReservation(classBytes), Effect.fail(error))
      })
    )
  }

  private allocate(classBytes: number): Effect.Effect<Memory, LeaseError> {
    const allocate = Effect.map(
      onlyReasons(["InvalidArgument", "NoMemory"])(this.engineMemory.allocate(classBytes, alignmentOf(classBytes))),
      (slab) => new Memory(slab)
    )
    return Effect.catch(allocate, (error) =>
      this.idleBytes === 0 ? Effect.fail(error) : Effect.andThen(this.freeIdle, allocate)
    )
  }

  private wait(
    classBytes: number,
    restore: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  ): Effect.Effect<Memory, LeaseError> {
    return Effect.suspend(() => {
      const waiter: Waiter = { classBytes, memory: undefined, resume: () => {} }
      const turn = Effect.callback<void>((resume) => {
        waiter.resume = resume
        this.waiters.add(waiter)
      })
      const cancel = Effect.suspend(() => {
        // Not among the waiters any more: the turn came, and the interruption with it.
        if (this.waiters.delete(waiter)) return Effect.void
        return this.returnReservation(classBytes)
      })
      return Effect.flatMap(
        Effect.onInterrupt(restore(turn), () => cancel),
        () => this.takeReserved(classBytes, restore)
      )
    })
  }

  private giveBack(classBytes: number, memory: Memory): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (this.closed) {
        this.leasedBytes -= classBytes
        return freeMemory(this.engineMemory, memory, "BouncePool.close")
      }
      const idle = this.idle.get(classBytes)
      if (idle === undefined) this.idle.set(classBytes, [memory])
      else idle.push(memory)
      this.idleBytes += classBytes
      return this.returnReservation(classBytes)
    })
  }

  private returnReservation(classBytes: number): Effect.Effect<void> {
    return Effect.sync(() => {
      this.leasedBytes -= classBytes
      // A snapshot: who finds the engine without memory waits again.
      for (const waiter of Array.from(this.waiters)) {
        if (this.leasedBytes + waiter.classBytes > maxBytes) return
        this.waiters.delete(waiter)
        this.leasedBytes += waiter.classBytes
        waiter.resume(Effect.void)
      }
    })
  }

  private readonly freeIdle: Effect.Effect<void> = Effect.suspend(() => {
    const memories = [...this.idle.values()].flat()
    this.idle.clear()
    this.idleBytes = 0
    return Effect.forEach(memories, (memory) => freeMemory(this.engineMemory, memory, "BouncePool.close"), {
      discard: true
    })
  })
}

interface Shared {
  readonly pool: BouncePool
  users: number
}

const pools = new WeakMap<Engine, Shared>()

/** The engine's pool; its memory goes back when the last scope that asked for it closes. */
export const bouncePoolOf = (engine: Engine): Effect.Effect<BouncePool, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => {
        const shared = pools.get(engine) ?? { pool: new BouncePool(engine.memory), users: 0 }
        pools.set(engine, shared)
        shared.users++
        return shared
      }),
      (shared) =>
        Effect.suspend(() => {
          if (--shared.users > 0) return Effect.void
          pools.delete(engine)
          return shared.pool.close
        })
    ),
    (shared) => shared.pool
  )
