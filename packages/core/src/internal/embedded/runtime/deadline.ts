/**
 * How long to wait for a peer. A process that stood still finds its timers due before it has read what arrived meanwhile, so that the
 * end of a deadline is looked at twice, with a turn of the event loop in between.
 */
import type { Timer, Timers } from "./timers.ts"

/** Between the two looks at least: sockets are read, and what they brought is carried out. */
const leastGraceMicros = 20_000
/** And at most, however long the process stood still. */
const mostGraceMicros = 1_000_000

export class Deadline {
  private readonly timers: Timers
  private readonly fire: () => void
  private timer: Timer

  /** `fire` runs once after `micros`, unless the deadline is cancelled. */
  constructor(timers: Timers, micros: number, fire: () => void) {
    this.timers = timers
    this.fire = fire
    this.timer = timers.after(micros, this.isDue)
  }

  cancel(): void {
    this.timers.cancel(this.timer)
  }

  private readonly isDue = (): void => {
    const lateMicros = this.timers.nowMicros() - this.timer.dueMicros
    const graceMicros = Math.min(mostGraceMicros, Math.max(leastGraceMicros, lateMicros))
    this.timer = this.timers.after(graceMicros, this.fire)
  }
}
