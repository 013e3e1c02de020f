/**
 * One lock per io unit that a write covers in part: it reads the unit, changes its own bytes and writes it back, and a second
 * one in between would lose the first one's bytes. Whole units take no lock.
 */
import * as Effect from "effect/Effect"
import * as Semaphore from "effect/Semaphore"

interface Lock {
  readonly semaphore: Semaphore.Semaphore
  /** Who holds it and who waits. */
  users: number
}

export class EdgeLocks {
  private readonly locks = new Map<number, Lock>()

  /** Runs `use` while nobody else changes a part of these units. They come in ascending order, so that nobody waits in a circle. */
  hold<A, E, R>(units: ReadonlyArray<number>, use: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> {
    return units.reduceRight((held, unit) => this.holdOne(unit, held), use)
  }

  private holdOne<A, E, R>(unit: number, use: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> {
    return Effect.uninterruptibleMask((restore) => {
      const lock = this.locks.get(unit) ?? { semaphore: Semaphore.makeUnsafe(1), users: 0 }
      this.locks.set(unit, lock)
      lock.users++
      return Effect.onExit(restore(lock.semaphore.withPermit(use)), () => {
        if (--lock.users === 0) this.locks.delete(unit)
        return Effect.void
      })
    })
  }
}
