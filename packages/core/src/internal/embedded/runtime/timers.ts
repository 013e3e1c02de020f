/**
 * Timers of an engine by the Effect Clock: the machine's, or a TestClock that a test moves. One wake-up is armed for
 * the earliest of them.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FiberSet from "effect/FiberSet"
import type * as Scope from "effect/Scope"

export interface Timer {
  readonly dueMicros: number
  /** Undefined once it has fired or was cancelled. */
  fire: (() => void) | undefined
  /** Orders timers that are due at the same time. */
  readonly sequence: number
}

export interface Timers {
  /** Of the clock; only differences mean something. */
  readonly nowMicros: () => number
  /** Calls `fire` once, not before the call returned. */
  readonly after: (micros: number, fire: () => void) => Timer
  readonly cancel: (timer: Timer) => void
}

interface Alarm {
  readonly nowMicros: () => number
  /** Calls `wake` after about this long. An earlier call replaces a later one; too many calls of `wake` do no harm. */
  readonly set: (micros: number, wake: () => void) => void
  readonly clear: () => void
}

export const make: Effect.Effect<Timers, never, Scope.Scope> = Effect.gen(function* () {
  const clock = yield* Clock.Clock
  const machineClock = Context.get(Context.empty(), Clock.Clock)
  const alarm = clock === machineClock ? machineAlarm() : yield* clockAlarm(clock)
  yield* Effect.addFinalizer(() => Effect.sync(alarm.clear))
  return new TimerHeap(alarm)
})

/** Half a microsecond: clocks that count nanoseconds and milliseconds round differently. */
const toleranceMicros = 0.5

class TimerHeap implements Timers {
  private readonly alarm: Alarm
  private readonly heap: Array<Timer> = []
  private cancelled = 0
  private nextSequence = 0
  private armedMicros = Infinity

  constructor(alarm: Alarm) {
    this.alarm = alarm
  }

  nowMicros = (): number => this.alarm.nowMicros()

  after = (micros: number, fire: () => void): Timer => {
    const timer: Timer = { dueMicros: this.nowMicros() + micros, fire, sequence: this.nextSequence++ }
    this.push(timer)
    this.arm()
    return timer
  }

  cancel = (timer: Timer): void => {
    if (timer.fire === undefined) return
    timer.fire = undefined
    // They leave the heap when their time comes, or when they are most of it.
    if (++this.cancelled > 64 && this.cancelled * 2 > this.heap.length) this.rebuild()
    if (this.heap.length === this.cancelled) this.rebuild()
  }

  private readonly wake = (): void => {
    this.armedMicros = Infinity
    const now = this.nowMicros() + toleranceMicros
    try {
      for (let first = this.heap[0]; first !== undefined && first.dueMicros <= now; first = this.heap[0]) {
        this.pop()
        const fire = first.fire
        if (fire === undefined) this.cancelled--
        else {
          first.fire = undefined
          fire()
        }
      }
    } finally {
      this.arm()
    }
  }

  private arm(): void {
    const first = this.heap[0]
    if (first === undefined || first.dueMicros >= this.armedMicros) return
    this.armedMicros = first.dueMicros
    this.alarm.set(first.dueMicros - this.nowMicros(), this.wake)
  }

  private rebuild(): void {
    const alive = this.heap.filter((timer) => timer.fire !== undefined)
    this.heap.length = 0
    this.cancelled = 0
    for (const timer of alive) this.push(timer)
    if (alive.length === 0) {
      this.armedMicros = Infinity
      this.alarm.clear()
    }
  }

  private push(timer: Timer): void {
    const { heap } = this
    let at = heap.length
    heap.push(timer)
    while (at > 0) {
      const parentAt = (at - 1) >> 1
      const parent = heap[parentAt]
      if (parent === undefined || !isBefore(timer, parent)) break
      heap[at] = parent
      at = parentAt
    }
    heap[at] = timer
  }

  private pop(): void {
    const { heap } = this
    const last = heap.pop()
    if (last === undefined || heap.length === 0) return
    let at = 0
    for (;;) {
      let childAt = at * 2 + 1
      let child = heap[childAt]
      if (child === undefined) break
      const right = heap[childAt + 1]
      if (right !== undefined && isBefore(right, child)) {
        child = right
        childAt++
      }
      if (!isBefore(child, last)) break
      heap[at] = child
      at = childAt
    }
    heap[at] = last
  }
}

const isBefore = (a: Timer, b: Timer): boolean =>
  a.dueMicros < b.dueMicros || (a.dueMicros === b.dueMicros && a.sequence < b.sequence)

/** setTimeout counts whole milliseconds, and may be one late; the fraction of one is waited for turn by turn. */
const machineAlarm = (): Alarm => {
  let timeout: NodeJS.Timeout | undefined
  let immediate: NodeJS.Immediate | undefined
  const clear = () => {
    clearTimeout(timeout)
    clearImmediate(immediate)
    timeout = immediate = undefined
  }
  const nowMicros = () => performance.now() * 1000
  return {
    nowMicros,
    clear,
    set: (micros, wake) => {
      clear()
      const dueMicros = nowMicros() + micros
      const poll = () => {
        immediate = undefined
        if (nowMicros() + toleranceMicros >= dueMicros) wake()
        else immediate = setImmediate(poll)
      }
      // One that is longer than Node's longest is set again when it fires.
      const wholeMillis = Math.min(Math.floor(micros / 1000), 0x7fffffff)
      if (wholeMillis < 1) immediate = setImmediate(poll)
      else {
        timeout = setTimeout(() => {
          timeout = undefined
          wake()
        }, wholeMillis)
      }
    }
  }
}

/** Sleeps by the clock, in fibers that the scope interrupts. */
const clockAlarm = Effect.fnUntraced(function* (clock: Clock.Clock) {
  const fibers = yield* FiberSet.make<void>()
  const run = yield* FiberSet.runtime(fibers)()
  const alarm: Alarm = {
    nowMicros: () => Number(clock.monotonicTimeNanosUnsafe()) / 1000,
    clear: () => {},
    set: (micros, wake) => {
      run(Effect.andThen(clock.sleep(Duration.millis(Math.max(0, micros) / 1000)), Effect.sync(wake)))
    }
  }
  return alarm
})
