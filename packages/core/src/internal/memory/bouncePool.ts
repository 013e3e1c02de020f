/**
 * DMA memory for I/O on plain `Uint8Array`s. Users never see it, so its slabs need no renewal between leases.
 *
 * One pool per engine, as long as a handle is open. It holds at most `maxBytes`, in size classes that are powers of two;
 * who comes when that is leased waits, in order of arrival. A lease lasts for device I/O only, never for a user's Effect,
 * so that waiting always ends.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { SpdkErrorOf } from "../../SpdkError.ts"
import type { Engine, EngineMemory } from "../engine/engine.ts"
import { bufferOf, type DmaBufferImpl, freeMemory, Memory } from "./ioMemory.ts"
import { onlyReasons } from "../common/reasons.ts"

/** The largest lease. */
export const maxBounceBytes = 4 * 2 ** 20
const minBounceBytes = 4096
const maxBytes = 32 * 2 ** 20

type LeaseError = SpdkErrorOf<"InvalidArgument" | "NoMemory">

/** Memories of one length and one alignment. */
interface SizeClass {
  readonly bytes: number
  readonly alignment: number
  /** Those that nobody has leased. */
  readonly idle: Array<Memory>
}

interface Waiter {
  readonly sizeClass: SizeClass
  memory: Memory | undefined
  resume: (exit: Effect.Effect<void>) => void
}

/** What memory is aligned to, unless a bdev asks for more: large alignments are hard to find in a heap that is in use. */
const commonAlignment = 65_536

const bytesOfClass = (lengthBytes: number): number => Math.max(minBounceBytes, 2 ** Math.ceil(Math.log2(lengthBytes)))

export class BouncePool {
  private readonly engineMemory: EngineMemory
  private readonly common = new Map<number, SizeClass>()
  /** Aligned to their whole length: no bdev requires more than its block size, and a lease is at least one block long. */
  private readonly wide = new Map<number, SizeClass>()
  private readonly waiters = new Set<Waiter>()
  private idleBytes = 0
  private leasedBytes = 0
  private closed = false

  constructor(engineMemory: EngineMemory) {
    this.engineMemory = engineMemory
  }

  /**
   * Runs `use` with a buffer of exactly `lengthBytes`: at most `maxBounceBytes`, or one block that is longer. Its content is
   * undefined. `alignment` is a power of two, at most `lengthBytes`.
   */
  lease<A, E>(
    lengthBytes: number,
    use: (buffer: DmaBufferImpl) => Effect.Effect<A, E>,
    alignment = 1
  ): Effect.Effect<A, E | LeaseError> {
    const sizeClass = this.classOf(bytesOfClass(lengthBytes), alignment > commonAlignment)
    return Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(this.take(sizeClass, restore), (memory) =>
        Effect.onExit(restore(use(bufferOf(memory, lengthBytes))), () => this.giveBack(sizeClass, memory))
      )
    )
  }

  private classOf(bytes: number, isWide: boolean): SizeClass {
    const classes = isWide ? this.wide : this.common
    const known = classes.get(bytes)
    if (known !== undefined) return known
    const made: SizeClass = { bytes, alignment: isWide ? bytes : Math.min(bytes, commonAlignment), idle: [] }
    classes.set(bytes, made)
    return made
  }

  /** What is longer than all that the pool holds is leased alone. */
  private hasRoom(bytes: number): boolean {
    return this.leasedBytes === 0 || this.leasedBytes + bytes <= maxBytes
  }

  /** What is leased is freed at the end of its lease. */
  readonly close: Effect.Effect<void> = Effect.suspend(() => {
    this.closed = true
    return this.freeIdle
  })

  private take(
    sizeClass: SizeClass,
    restore: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  ): Effect.Effect<Memory, LeaseError> {
    return Effect.suspend(() => {
      // Those who wait already come first.
      if (this.waiters.size > 0 || !this.hasRoom(sizeClass.bytes)) return this.wait(sizeClass, restore)
      this.leasedBytes += sizeClass.bytes
      return this.takeReserved(sizeClass, restore)
    })
  }

  /** Its bytes are counted as leased already. */
  private takeReserved(
    sizeClass: SizeClass,
    restore: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  ): Effect.Effect<Memory, LeaseError> {
    const idle = sizeClass.idle.pop()
    if (idle !== undefined) {
      this.idleBytes -= sizeClass.bytes
      return Effect.succeed(idle)
    }
    const makeRoom = this.idleBytes + this.leasedBytes > maxBytes ? this.freeIdle : Effect.void
    return Effect.andThen(makeRoom, this.allocate(sizeClass)).pipe(
      Effect.catch((error) => {
        // The engine has no room. Somebody else's lease may fit, or be freed to make some.
        if (error.reason._tag === "NoMemory") {
          if (this.idleBytes > 0) return this.takeReserved(sizeClass, restore)
          if (this.leasedBytes > sizeClass.bytes) {
            this.leasedBytes -= sizeClass.bytes
            return this.wait(sizeClass, restore)
          }
        }
        // Those who wait for this reservation, which now never becomes a lease, try for themselves.
        return Effect.andThen(this.returnReservation(sizeClass.bytes), Effect.fail(error))
      })
    )
  }

  private allocate({ alignment, bytes }: SizeClass): Effect.Effect<Memory, LeaseError> {
    const allocate = Effect.map(
      onlyReasons(["InvalidArgument", "NoMemory"])(this.engineMemory.allocate(bytes, alignment)),
      (slab) => new Memory(slab)
    )
    return Effect.catch(allocate, (error) =>
      this.idleBytes === 0 ? Effect.fail(error) : Effect.andThen(this.freeIdle, allocate)
    )
  }

  private wait(
    sizeClass: SizeClass,
    restore: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  ): Effect.Effect<Memory, LeaseError> {
    return Effect.suspend(() => {
      const waiter: Waiter = { sizeClass, memory: undefined, resume: () => {} }
      const turn = Effect.callback<void>((resume) => {
        waiter.resume = resume
        this.waiters.add(waiter)
      })
      const cancel = Effect.suspend(() => {
        // Not among the waiters any more: the turn came, and the interruption with it.
        if (this.waiters.delete(waiter)) return Effect.void
        return this.returnReservation(sizeClass.bytes)
      })
      return Effect.flatMap(
        Effect.onInterrupt(restore(turn), () => cancel),
        () => this.takeReserved(sizeClass, restore)
      )
    })
  }

  private giveBack(sizeClass: SizeClass, memory: Memory): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (this.closed) {
        this.leasedBytes -= sizeClass.bytes
        return freeMemory(this.engineMemory, memory, "BouncePool.close")
      }
      sizeClass.idle.push(memory)
      this.idleBytes += sizeClass.bytes
      return this.returnReservation(sizeClass.bytes)
    })
  }

  private returnReservation(bytes: number): Effect.Effect<void> {
    return Effect.sync(() => {
      this.leasedBytes -= bytes
      // A snapshot: who finds the engine without memory waits again.
      for (const waiter of Array.from(this.waiters)) {
        if (!this.hasRoom(waiter.sizeClass.bytes)) return
        this.waiters.delete(waiter)
        this.leasedBytes += waiter.sizeClass.bytes
        waiter.resume(Effect.void)
      }
    })
  }

  private readonly freeIdle: Effect.Effect<void> = Effect.suspend(() => {
    const memories = [...this.common.values(), ...this.wide.values()].flatMap(({ idle }) => idle.splice(0))
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
