/**
 * The event loop of a simulation: what is ready, what is due, and one seed that picks. Nothing here waits: time goes on when a
 * step is taken, and jumps when there is nothing else to do. A run is one call that returns when it has ended.
 */
import type { Chance } from "./chance.ts"

export interface SimulatedTimer {
  readonly dueMicros: number
  readonly sequence: number
  /** Undefined once it has fired or was cancelled. */
  fire: (() => void) | undefined
}

export type Ending = "done" | "stopped" | "deadlock" | "late" | "endless" | "threw"

export interface LoopLimits {
  readonly steps: number
  readonly micros: number
}

export class Loop {
  /** Virtual. */
  nowMicros = 0
  steps = 0
  private readonly chance: Chance
  private readonly note: (a: number, b: number) => void
  private soon: Array<() => void> = []
  private ready: Array<() => void> = []
  private timers: Array<SimulatedTimer> = []
  private sequence = 0
  /** Told by `stop`: everything that was to run is forgotten. */
  private isStopped = false
  thrown: unknown = undefined

  constructor(chance: Chance, note: (a: number, b: number) => void) {
    this.chance = chance
    this.note = note
  }

  /** Before whatever waits for its turn, in order: what microtasks are. */
  readonly addSoon = (task: () => void): void => {
    this.soon.push(task)
  }

  readonly add = (task: () => void): void => {
    this.ready.push(task)
  }

  readonly after = (micros: number, fire: () => void): SimulatedTimer => {
    const timer: SimulatedTimer = { dueMicros: this.nowMicros + Math.max(0, micros), sequence: this.sequence++, fire }
    push(this.timers, timer)
    return timer
  }

  /** Ends the run after the task that runs. */
  readonly stop = (): void => {
    this.isStopped = true
  }

  get pendingTimers(): number {
    return this.timers.reduce((count, timer) => count + (timer.fire === undefined ? 0 : 1), 0)
  }

  get pendingTasks(): number {
    return this.soon.length + this.ready.length
  }

  /** Forgets all that was to run. */
  clear(): void {
    this.soon = []
    this.ready = []
    this.timers = []
    this.isStopped = false
  }

  /** Steps until `isDone`, or until one of the limits, which count from here, is reached. */
  run(isDone: () => boolean, limits: LoopLimits): Ending {
    const lastStep = this.steps + limits.steps
    const lastMicros = this.nowMicros + limits.micros
    for (;;) {
      if (this.isStopped) return "stopped"
      if (isDone()) return "done"
      if (this.steps >= lastStep) return "endless"
      if (this.nowMicros > lastMicros) return "late"
      let task: (() => void) | undefined
      if (this.soon.length > 0) {
        const all = this.soon
        this.soon = []
        task = () => runAll(all)
      } else {
        this.takeDue()
        task = this.pick()
      }
      if (task === undefined) {
        if (!this.jump()) return "deadlock"
        continue
      }
      this.steps++
      this.nowMicros += 1
      try {
        task()
      } catch (error) {
        this.thrown = error
        return "threw"
      }
    }
  }

  private pick(): (() => void) | undefined {
    const { ready } = this
    if (ready.length === 0) return undefined
    const index = ready.length === 1 ? 0 : this.chance.below(ready.length)
    this.note(index, ready.length)
    const task = ready[index]
    // The order of the others stays: what is first come first served in one seed is in another, too.
    ready.splice(index, 1)
    return task
  }

  /** What is due competes with what is ready. */
  private takeDue(): void {
    for (let first = this.timers[0]; first !== undefined && first.dueMicros <= this.nowMicros; first = this.timers[0]) {
      pop(this.timers)
      const timer = first
      if (timer.fire === undefined) continue
      this.ready.push(() => {
        const { fire } = timer
        timer.fire = undefined
        fire?.()
      })
    }
  }

  private jump(): boolean {
    for (let first = this.timers[0]; first !== undefined; first = this.timers[0]) {
      if (first.fire === undefined) {
        pop(this.timers)
        continue
      }
      this.nowMicros = Math.max(this.nowMicros, first.dueMicros)
      return true
    }
    return false
  }
}

const runAll = (tasks: ReadonlyArray<() => void>): void => {
  for (const task of tasks) task()
}

const isBefore = (a: SimulatedTimer, b: SimulatedTimer): boolean =>
  a.dueMicros < b.dueMicros || (a.dueMicros === b.dueMicros && a.sequence < b.sequence)

const push = (heap: Array<SimulatedTimer>, timer: SimulatedTimer): void => {
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

const pop = (heap: Array<SimulatedTimer>): void => {
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
