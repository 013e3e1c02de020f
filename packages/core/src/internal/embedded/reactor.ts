/**
 * The one event loop of an engine: what all of its logical threads run on. Work is done in drains of bounded length:
 * the first follows in a microtask, so that one I/O at a time is quick, and after a bound the rest waits for the
 * next turn of Node's loop, so that timers and sockets get theirs.
 *
 * Everything here runs on the JS thread.
 */

/** Something with a list of work. */
export interface Runnable {
  /** Whether it stands in the reactor's list. The reactor's own. */
  isScheduled: boolean
  /** Does some of its work; true when there is more. What may throw schedules itself again. */
  run(): boolean
}

/** About a millisecond of small I/O. One unit is an I/O of up to 4 KiB, or a message. */
const unitsPerTurn = 1024

/** How much of the list one runnable does before the next one's turn. */
export const runsPerSlice = 64

export class Reactor {
  /** Units spent in this turn. Whoever works adds to it. */
  spent = 0
  /** Whether what runs now counts as somebody's busy time as a whole. */
  isTimed = false
  private readonly ready: Array<Runnable> = []
  private messages: Array<() => void> = []
  private readonly everyTurn = new Set<() => void>()
  private isDraining = false
  private isArmed = false
  private isTurning = false

  get isExhausted(): boolean {
    return this.spent >= unitsPerTurn
  }

  /** Runs `message` in a drain, after those posted before. Never at once. */
  post(message: () => void): void {
    this.messages.push(message)
    this.arm()
  }

  schedule(runnable: Runnable): void {
    if (runnable.isScheduled) return
    runnable.isScheduled = true
    this.ready.push(runnable)
    this.arm()
  }

  /** Runs `callback` once in every turn of Node's loop, which it keeps turning, until the returned function is called. */
  onEveryTurn(callback: () => void): () => void {
    this.everyTurn.add(callback)
    this.keepTurning()
    return () => {
      this.everyTurn.delete(callback)
    }
  }

  private arm(): void {
    if (this.isDraining || this.isArmed) return
    this.isArmed = true
    if (this.isExhausted) setImmediate(this.nextTurn)
    else queueMicrotask(this.drain)
  }

  private readonly nextTurn = (): void => {
    this.spent = 0
    this.drain()
  }

  private readonly drain = (): void => {
    this.isArmed = false
    this.isDraining = true
    try {
      while (!this.isExhausted && (this.messages.length > 0 || this.ready.length > 0)) {
        if (this.messages.length > 0) this.runMessages()
        const runnable = this.ready.shift()
        if (runnable === undefined) continue
        runnable.isScheduled = false
        if (runnable.run()) this.schedule(runnable)
      }
    } finally {
      // Also when somebody's completion has thrown: the work of the others goes on.
      this.isDraining = false
      if (this.messages.length > 0 || this.ready.length > 0) this.arm()
    }
  }

  private runMessages(): void {
    const messages = this.messages
    this.messages = []
    for (let i = 0; i < messages.length; i++) {
      this.spent++
      try {
        messages[i]?.()
      } catch (error) {
        this.messages = messages.slice(i + 1).concat(this.messages)
        throw error
      }
    }
  }

  private keepTurning(): void {
    if (this.isTurning || this.everyTurn.size === 0) return
    this.isTurning = true
    setImmediate(() => {
      this.isTurning = false
      for (const callback of this.everyTurn) callback()
      this.keepTurning()
    })
  }
}
