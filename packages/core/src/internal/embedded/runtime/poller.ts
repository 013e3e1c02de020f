/**
 * Pollers: functions that a thread calls again and again, by the clock or once in every turn of Node's loop.
 */
import type { EmbeddedReactor } from "./reactor.ts"
import type { Timer, Timers } from "./timers.ts"

export interface EmbeddedPollerOptions {
  readonly id: number
  readonly name: string
  /** 0: in every turn. */
  readonly periodMicros: number
  readonly onTick: (runs: number) => void
}

export class EmbeddedPoller {
  readonly id: number
  readonly name: string
  readonly periodMicros: number
  /** SPDK's word for what it does. */
  state: "waiting" | "paused" | "unregistered" = "waiting"
  runs = 0
  busyMillis = 0
  private readonly onTick: (runs: number) => void
  private readonly reactor: EmbeddedReactor
  private readonly timers: Timers
  private timer: Timer | undefined = undefined
  private stopTurning: (() => void) | undefined = undefined

  constructor(reactor: EmbeddedReactor, timers: Timers, options: EmbeddedPollerOptions) {
    this.reactor = reactor
    this.timers = timers
    this.id = options.id
    this.name = options.name
    this.periodMicros = options.periodMicros
    this.onTick = options.onTick
    this.start()
  }

  pause(): void {
    if (this.state !== "waiting") return
    this.state = "paused"
    this.stop()
  }

  /** A period from now on, as in SPDK. */
  resume(): void {
    if (this.state !== "paused") return
    this.state = "waiting"
    this.start()
  }

  unregister(): void {
    this.state = "unregistered"
    this.stop()
  }

  private start(): void {
    if (this.periodMicros === 0) this.stopTurning = this.reactor.onEveryTurn(this.run)
    else this.arm()
  }

  private stop(): void {
    if (this.timer !== undefined) this.timers.cancel(this.timer)
    this.stopTurning?.()
    this.stopTurning = undefined
  }

  private arm(): void {
    this.timer = this.timers.after(this.periodMicros, this.run)
  }

  private readonly run = (): void => {
    if (this.state !== "waiting") return
    if (this.periodMicros > 0) this.arm()
    this.runs++
    const startMillis = this.reactor.host.nowMillis()
    this.reactor.isTimed = true
    try {
      this.onTick(1)
    } finally {
      this.reactor.isTimed = false
      this.busyMillis += this.reactor.host.nowMillis() - startMillis
    }
  }
}
