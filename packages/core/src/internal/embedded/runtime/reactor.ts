/**
 * The one event loop of an engine: what all of its logical threads run on. Work is done in drains of bounded length:
 * the first follows in a microtask, so that one I/O at a time is quick, and after a bound the rest waits for the
 * next turn of Node's loop, so that timers and sockets get theirs.
 *
 * Everything here runs on the JS thread.
 */
import { type Host, machineHost } from "../../engine/host.ts"
import { callAll } from "./uncaught.ts"

/** Something with a list of work. */
export interface Runnable {
  /** Whether it stands in the reactor's list. The reactor's own. */
  isScheduled: boolean
  /** Does some of its work; true when there is more. What may throw schedules itself again. */
  run(): boolean
}

/** About a millisecond of small I/O. One unit is an I/O of up to 4 KiB, or a message. */
const unitsPerTurn = 1024

/** How much of the list one runnable does before the next one's turn, and how many messages go between two of them. */
export const runsPerSlice = 64

/**
 * Nobody knows what a message takes. The clock does, but one look at it takes as long as several that are quick: so they are looked
 * at in groups, as large as the last ones were quick. The first look of a drain only begins to measure.
 */
const mostMessagesPerLook = 64
/** What should be between two looks. */
const unitsPerLook = unitsPerTurn / 8
const unitsPerMilli = unitsPerTurn

const none: ReadonlyArray<() => void> = []

export class EmbeddedReactor {
  readonly host: Host
  /** Units spent in this turn. Whoever works adds to it. */
  spent = 0
  /** Whether what runs now counts as somebody's busy time as a whole. */
  isTimed = false
  private readonly ready: Array<Runnable> = []
  private messages: Array<() => void> = []
  /** Messages that are being run, and the next of them. */
  private batch = none
  private batchAt = 0
  /** The last look at the clock in this drain, 0 before the first. */
  private lookedMillis = 0
  private lookedSpent = 0
  private untilLook = 0
  /** By what the last ones took. */
  private messagesPerLook = 8
  /** False at the start of a drain when messages took the whole of the last turn, or one of them threw in the last drain. */
  private areMessagesFirst = true
  private readonly everyTurn = new Set<() => void>()
  private isDraining = false
  private isArmed = false
  private isTurning = false

  constructor(host: Host = machineHost) {
    this.host = host
  }

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
    if (this.isExhausted) this.host.nextTurn(this.nextTurn)
    else this.host.soon(this.drain)
  }

  private readonly nextTurn = (): void => {
    this.spent = 0
    this.drain()
  }

  private readonly drain = (): void => {
    this.isArmed = false
    this.isDraining = true
    this.lookedMillis = 0
    this.untilLook = this.messagesPerLook
    try {
      while (this.hasWork && !this.isExhausted) {
        if (this.areMessagesFirst) {
          // Behind one that throws it is the others' turn.
          this.areMessagesFirst = false
          this.runMessages()
        }
        this.areMessagesFirst = !this.isExhausted
        if (this.areMessagesFirst && this.ready.length > 0) this.runReady()
      }
    } finally {
      // Also when something has thrown: the work of the others goes on.
      this.isDraining = false
      if (this.hasWork) this.arm()
    }
  }

  private get hasWork(): boolean {
    return this.messages.length > 0 || this.ready.length > 0 || this.batchAt < this.batch.length
  }

  private runReady(): void {
    const runnable = this.ready.shift()
    if (runnable === undefined) return
    runnable.isScheduled = false
    if (runnable.run()) this.schedule(runnable)
  }

  /** Some of them. One that throws has had its turn. */
  private runMessages(): void {
    if (this.batchAt === this.batch.length) {
      if (this.messages.length === 0) return
      this.batch = this.messages
      this.messages = []
      this.batchAt = 0
    }
    const { batch } = this
    const start = this.batchAt
    const end = Math.min(batch.length, start + Math.min(runsPerSlice, this.untilLook))
    let at = start
    try {
      while (at < end && this.spent < unitsPerTurn) {
        this.spent++
        batch[at++]?.()
      }
    } finally {
      const isDone = at === batch.length
      // What has run holds on to nothing.
      if (isDone) this.batch = none
      this.batchAt = isDone ? 0 : at
    }
    this.untilLook -= at - start
    if (this.untilLook === 0) this.look()
  }

  /** What was done since the last look costs what it took, when that is more than it has said. */
  private look(): void {
    const nowMillis = this.host.nowMillis()
    if (this.lookedMillis > 0) {
      const units = (nowMillis - this.lookedMillis) * unitsPerMilli
      this.spent = Math.max(this.spent, this.lookedSpent + units)
      const fitting = Math.floor((this.messagesPerLook * unitsPerLook) / (units + 1))
      this.messagesPerLook = Math.max(1, Math.min(mostMessagesPerLook, fitting))
    }
    this.lookedMillis = nowMillis
    this.lookedSpent = this.spent
    this.untilLook = this.messagesPerLook
  }

  private keepTurning(): void {
    if (this.isTurning || this.everyTurn.size === 0) return
    this.isTurning = true
    this.host.nextTurn(() => {
      this.isTurning = false
      callAll(this.everyTurn)
      this.keepTurning()
    })
  }
}
