/**
 * Keeps the queues of one JavaScript thread draining. While requests are in flight it drains once per turn of the event loop,
 * and stays a little while completions keep coming; after some turns without any it sleeps and the reactor wakes it. On the
 * processor of a reactor of its own there is nothing to look for while it runs: there the two hand the processor to each other.
 */
import type { Addon } from "../Addon.ts"
import type { RingQueue } from "../RingQueue.ts"

/** Completions of one turn, after which timers and sockets get theirs. */
const completionsPerTurn = 1024
/** Looks at empty rings before a turn ends: a few microseconds, the time a fast device takes. */
const looksPerTurn = 256
/** Turns without a completion before the thread sleeps. */
const idleTurnsBeforeSleep = 48
/** Times that one turn hands a shared processor over. The reactor keeps it for some ten microseconds, 100 at most. */
const handoversPerTurn = 4

export class Drainer {
  /** A reactor of these queues waits for this processor while this thread has it. */
  sharesProcessor = false
  private readonly addon: Pick<Addon, "giveWay" | "sharesProcessor">
  /** Told when the thread goes to sleep, and when it no longer does. */
  private readonly onSleep: () => void
  private rings: ReadonlyArray<RingQueue> = []
  /** Rings whose SPDK thread is gone, while something submitted to them has not been refused yet. */
  private readonly ended = new Set<RingQueue>()
  private scheduled = false
  private turning = false
  private asleep = false
  private idleTurns = 0

  constructor(addon: Pick<Addon, "giveWay" | "sharesProcessor">, onSleep: () => void) {
    this.addon = addon
    this.onSleep = onSleep
  }

  add(ring: RingQueue): void {
    this.rings = [...this.rings, ring]
  }

  remove(ring: RingQueue): void {
    this.rings = this.rings.filter((other) => other !== ring)
  }

  /** Only a reactor, or something new to do, gets this thread to look at its rings again. */
  get isAsleep(): boolean {
    return this.asleep
  }

  get requestsInFlight(): number {
    let inFlight = 0
    for (const ring of this.rings) inFlight += ring.inFlight
    for (const ring of this.ended) inFlight += ring.inFlight
    return inFlight
  }

  scheduleFor(ring: RingQueue): void {
    if (ring.hasEnded) this.ended.add(ring)
    this.schedule()
  }

  /** From here on reactors wake this thread. */
  listen(): void {
    if (this.scheduled) return
    this.asleep = true
    for (const ring of this.rings) {
      if ((ring.inFlight > 0 || ring.hasPollers) && !ring.sleep()) {
        this.schedule()
        return
      }
    }
    this.onSleep()
  }

  /** A turn drains, whatever woke us: a completion, a tick, or only an event. */
  turnNow(): void {
    if (this.rings.length === 0 || this.scheduled) return
    this.idleTurns = 0
    if (this.asleep) this.rouse()
    this.turn()
  }

  private schedule(): void {
    // A turn finds out by itself whether there has to be another.
    if (this.scheduled || this.turning) return
    this.scheduled = true
    this.idleTurns = 0
    if (this.asleep) this.rouse()
    setImmediate(this.turn)
  }

  private rouse(): void {
    this.asleep = false
    for (const ring of this.rings) ring.wake()
    this.onSleep()
  }

  private readonly turn = (): void => {
    this.scheduled = false
    this.turning = true
    // Until this turn has come to its end: a completion may throw out of it, and others wait behind that one.
    let goesOn = true
    try {
      goesOn = this.drainAll()
    } finally {
      this.turning = false
      if (goesOn) {
        this.scheduled = true
        setImmediate(this.turn)
      } else {
        this.listen()
      }
    }
  }

  /** True when there should be another turn right away. */
  private drainAll(): boolean {
    let completed = 0
    for (const ring of this.ended) {
      completed += ring.drain(completionsPerTurn)
      if (ring.inFlight === 0) this.ended.delete(ring)
    }
    const goesOn = this.sharesProcessor ? this.takeTurns(completed) : this.lookAround(completed)
    return goesOn || this.ended.size > 0
  }

  private lookAround(already: number): boolean {
    let completed = already
    let looks = 0
    let inFlight = true
    while (inFlight && completed < completionsPerTurn && looks < looksPerTurn) {
      inFlight = false
      let drained = 0
      for (const ring of this.rings) {
        drained += ring.drain(completionsPerTurn)
        inFlight ||= ring.inFlight > 0
      }
      completed += drained
      looks = drained > 0 ? 0 : looks + 1
    }
    this.idleTurns = completed > 0 ? 0 : this.idleTurns + 1
    if (this.idleTurns === 1) this.sharesProcessor = this.addon.sharesProcessor()
    return inFlight && !this.sharesProcessor && this.idleTurns < idleTurnsBeforeSleep
  }

  /** Sleeping and being woken would cost as much as what there is to do in between. */
  private takeTurns(already: number): boolean {
    let completed = already + this.drainRings()
    for (let left = handoversPerTurn; left > 0 && this.hasWork(); left--) {
      if (!this.sharesProcessor || completed >= completionsPerTurn) return true
      this.sharesProcessor = this.addon.giveWay()
      const drained = this.drainRings()
      // The reactor has had its time and nothing came: it may take long.
      if (drained === 0 && this.sharesProcessor) return false
      completed += drained
    }
    return this.hasWork()
  }

  private drainRings(): number {
    let drained = 0
    for (const ring of this.rings) drained += ring.drain(completionsPerTurn)
    return drained
  }

  private hasWork(): boolean {
    for (const ring of this.rings) if (ring.inFlight > 0) return true
    return false
  }
}
