/**
 * `DmaBuffer.pool`: equal slabs, leased in order of arrival. Each lease has a `Memory` of its own over a renewed slab, so
 * buffers and views of an earlier lease stay released.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { DmaBuffer, DmaPool } from "../../DmaBuffer.ts"
import { Released, SpdkError, type SpdkErrorOf } from "../../SpdkError.ts"
import type { EngineMemory, Slab } from "../engine/engine.ts"
import { bufferOf, Memory, releaseMemory } from "./ioMemory.ts"
import { onlyReasons } from "../common/reasons.ts"

type TakeError = SpdkErrorOf<"Released">

interface Taker {
  slab: Slab | undefined
  resume: (exit: Effect.Effect<void, TakeError>) => void
}

const takeOperation = "DmaPool.take"

const releasedPool = () => new SpdkError({ reason: new Released({ operation: takeOperation, what: "pool" }) })

class DmaPoolImpl implements DmaPool {
  readonly lengthBytes: number
  readonly capacity: number
  private readonly engineMemory: EngineMemory
  private readonly idle: Array<Slab> = []
  private readonly takers = new Set<Taker>()
  private closed = false

  constructor(engineMemory: EngineMemory, lengthBytes: number, capacity: number) {
    this.engineMemory = engineMemory
    this.lengthBytes = lengthBytes
    this.capacity = capacity
  }

  get available(): number {
    return this.idle.length
  }

  get take(): Effect.Effect<DmaBuffer, TakeError, Scope.Scope> {
    return Effect.map(
      Effect.uninterruptibleMask((restore) =>
        Effect.flatMap(this.takeSlab(restore), (slab) =>
          Effect.acquireRelease(
            Effect.sync(() => new Memory(slab)),
            (memory) => releaseMemory(memory, "DmaPool.release", () => this.giveBack(slab))
          )
        )
      ),
      (memory) => bufferOf(memory, this.lengthBytes)
    )
  }

  /** Takes a slab that has no views any more. */
  put(slab: Slab): void {
    if (this.closed) return this.engineMemory.free(slab)
    for (const taker of this.takers) {
      this.takers.delete(taker)
      taker.slab = slab
      return taker.resume(Effect.void)
    }
    this.idle.push(slab)
  }

  close(): void {
    this.closed = true
    for (const slab of this.idle.splice(0)) this.engineMemory.free(slab)
    for (const taker of this.takers) {
      this.takers.delete(taker)
      taker.resume(Effect.fail(releasedPool()))
    }
  }

  private giveBack(slab: Slab): void {
    if (this.closed) this.engineMemory.free(slab)
    else this.put(this.engineMemory.renew(slab))
  }

  private takeSlab(
    restore: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  ): Effect.Effect<Slab, TakeError> {
    return Effect.suspend(() => {
      if (this.closed) return Effect.fail(releasedPool())
      const slab = this.idle.pop()
      if (slab !== undefined) return Effect.succeed(slab)
      const taker: Taker = { slab: undefined, resume: () => {} }
      const turn = Effect.callback<void, TakeError>((resume) => {
        taker.resume = resume
        this.takers.add(taker)
      })
      const cancel = Effect.sync(() => {
        this.takers.delete(taker)
        // The turn came, and the interruption with it.
        if (taker.slab !== undefined) this.put(taker.slab)
      })
      return Effect.flatMap(
        Effect.onInterrupt(restore(turn), () => cancel),
        () => (taker.slab === undefined ? Effect.die(new Error("a turn without a slab")) : Effect.succeed(taker.slab))
      )
    })
  }
}

export const makePool = (
  engineMemory: EngineMemory,
  lengthBytes: number,
  alignment: number,
  capacity: number
): Effect.Effect<DmaPool, SpdkErrorOf<"InvalidArgument" | "NoMemory" | "NotSupported">, Scope.Scope> =>
  Effect.gen(function* () {
    // The finalizer stands first, so that a NoMemory half-way gives back what there is.
    const pool = new DmaPoolImpl(engineMemory, lengthBytes, capacity)
    yield* Effect.addFinalizer(() => Effect.sync(() => pool.close()))
    for (let i = 0; i < capacity; i++) {
      yield* Effect.uninterruptible(
        Effect.map(
          onlyReasons(["InvalidArgument", "NoMemory", "NotSupported"])(engineMemory.allocate(lengthBytes, alignment)),
          (slab) => pool.put(slab)
        )
      )
    }
    return pool
  })
