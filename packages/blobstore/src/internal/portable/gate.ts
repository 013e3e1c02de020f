/**
 * Who may do I/O on a blob: any number of requests, or one change of its clusters. Requests that come during a change
 * wait, and the change waits for the requests in flight.
 *
 * Who holds a gate may wait for the store's lock; who holds the lock never waits for a gate.
 */
import * as Effect from "effect/Effect"
import * as Semaphore from "effect/Semaphore"

export class Gate {
  private inFlight = 0
  private frozen = false
  private onIdle: (() => void) | undefined
  private readonly waiting: Array<() => void> = []
  private readonly turn = Semaphore.makeUnsafe(1)

  /**
   * Runs one request. `body` is evaluated when it is in, so what it looks up stays as it is until the request has ended.
   * The two inner functions share whether it got in: a fiber can be interrupted before that.
   */
  shared<A, E>(body: () => Effect.Effect<A, E>): Effect.Effect<A, E> {
    return Effect.suspend(() => {
      let entered = false
      return Effect.onExit(
        Effect.suspend(() => {
          if (this.frozen) return Effect.flatMap(this.thawed, () => this.shared(body))
          entered = true
          this.inFlight++
          return body()
        }),
        () => {
          if (entered) this.leave()
          return Effect.void
        }
      )
    })
  }

  /** Lets a request in at once, or answers false: `shared` is for those that have to wait. Whoever was let in leaves. */
  tryEnter(): boolean {
    if (this.frozen) return false
    this.inFlight++
    return true
  }

  leave(): void {
    if (--this.inFlight === 0 && this.onIdle !== undefined) this.onIdle()
  }

  /** Runs a change. Waiting for it can be interrupted. */
  exclusive<A, E, R>(body: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> {
    const frozen = Effect.acquireUseRelease(
      Effect.sync(() => {
        this.frozen = true
      }),
      () => Effect.andThen(this.drained, body),
      () => Effect.sync(() => this.thaw())
    )
    return this.turn.withPermit(frozen)
  }

  private thaw(): void {
    this.frozen = false
    for (const resume of this.waiting.splice(0)) resume()
  }

  private readonly drained: Effect.Effect<void> = Effect.callback<void>((resume) => {
    if (this.inFlight === 0) {
      resume(Effect.void)
      return
    }
    this.onIdle = () => {
      this.onIdle = undefined
      resume(Effect.void)
    }
    return Effect.sync(() => {
      this.onIdle = undefined
    })
  })

  private readonly thawed: Effect.Effect<void> = Effect.callback<void>((resume) => {
    if (!this.frozen) {
      resume(Effect.void)
      return
    }
    const wake = () => resume(Effect.void)
    this.waiting.push(wake)
    return Effect.sync(() => {
      const index = this.waiting.indexOf(wake)
      if (index >= 0) this.waiting.splice(index, 1)
    })
  })
}
