/**
 * Logical threads: each has a queue and pollers of its own, and a place on a logical reactor. All of them run on the
 * JS thread, in turns.
 */
import type { CpuSet } from "../../../CpuSet.ts"
import type { EngineThread } from "../../engine/engine.ts"
import type { Host } from "../../engine/host.ts"
import type { EmbeddedPoller } from "./poller.ts"
import { EmbeddedQueue, type QueueContext } from "../queue/queue.ts"

export class LogicalThread implements EngineThread {
  readonly id: number
  readonly name: string
  /** The cores it may be on, of those there are. */
  readonly cores: CpuSet
  readonly core: number
  readonly queue: EmbeddedQueue
  readonly pollers = new Set<EmbeddedPoller>()
  readonly startMillis: number
  /** What pollers that are gone have taken. */
  goneMillis = 0

  private readonly host: Host

  constructor(context: QueueContext, options: { id: number; name: string; cores: CpuSet; core: number }) {
    this.id = options.id
    this.name = options.name
    this.cores = options.cores
    this.core = options.core
    this.host = context.reactor.host
    this.startMillis = this.host.nowMillis()
    this.queue = new EmbeddedQueue(context, this)
  }

  get ageMillis(): number {
    return this.host.nowMillis() - this.startMillis
  }

  get busyMillis(): number {
    let busy = this.queue.busyMillis + this.goneMillis
    for (const poller of this.pollers) busy += poller.busyMillis
    return busy
  }
}
