/**
 * Interruption at every step of an effect: a scheduler makes its fiber yield at each operation, and interrupts it at the n-th.
 * What a fiber holds between two operations shows then, whatever the operations are.
 */
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scheduler from "effect/Scheduler"
import { within } from "./harness.ts"

/** Lets the first fiber that it sees yield before each of its operations, and interrupts it at the `at`-th. */
class StepScheduler extends Scheduler.MixedScheduler {
  private victim: Fiber.Fiber<unknown, unknown> | undefined
  private steps = 0
  /** How often it is asked until the fiber is back from its last yield, where it was. */
  private returning = 0
  private readonly at: number
  private readonly yields: boolean
  interrupted = false

  constructor(at: number, yields: boolean) {
    super()
    this.at = at
    this.yields = yields
  }

  override shouldYield(fiber: Fiber.Fiber<unknown, unknown>): boolean {
    this.victim ??= fiber
    if (fiber !== this.victim) return super.shouldYield(fiber)
    if (this.returning > 0) {
      this.returning--
      return false
    }
    const isLast = ++this.steps === this.at
    if (!isLast && (!this.yields || this.steps > this.at)) return false
    this.returning = 2
    if (isLast) {
      this.interrupted = true
      // It has yielded by then.
      queueMicrotask(() => fiber.interruptUnsafe())
    }
    return true
  }
}

/**
 * Runs `effect` once for each of its steps, interrupted there, and `check` after each time. Ends with the first run that is
 * over before its turn. Answers how many steps there were.
 */
export const interruptedAtEachStep = <A, E, R, E2, R2>(
  effect: Effect.Effect<A, E, R>,
  check: (step: number, exit: Exit.Exit<A, E>) => Effect.Effect<void, E2, R2>,
  { most = 5000, yields = true }: { readonly most?: number; readonly yields?: boolean } = {}
): Effect.Effect<number, E2, R | R2> =>
  Effect.gen(function* () {
    for (let step = 1; step <= most; step++) {
      const scheduler = new StepScheduler(step, yields)
      const fiber = yield* Effect.forkDetach(Effect.provideService(effect, Scheduler.Scheduler, scheduler))
      const exit = yield* within(`the fiber that is interrupted at step ${step} ends`, Fiber.await(fiber), 10_000)
      yield* within(`what must work after an interruption at step ${step}`, check(step, exit), 10_000)
      if (!scheduler.interrupted) return step
    }
    return yield* Effect.die(new Error(`there are more than ${most} steps`))
  })
