/**
 * Delay bdevs: what the base has done completes later. One I/O in a hundred takes the p99 latency.
 */
import { type DeviceOpcode, Opcode } from "@effect-spdk/native/Layout"
import * as Effect from "effect/Effect"
import { type EmbeddedBdev, type EmbeddedChannel, type ChannelThread, ioTypes, type Json } from "../bdev.ts"
import { method } from "../module.ts"
import type { BdevRegistry } from "../registry.ts"
import { allIoTypes, propertiesOfBase, StackedBdev, StackedChannel } from "../stacked.ts"
import type { EmbeddedIo } from "../io.ts"
import { NamedModule } from "../namedModule.ts"
import { invalidParams, nameOrErrno, whenGone } from "../../rpc/table.ts"
import { aborted, EINVAL, ENODEV, type IoStatus } from "../../queue/status.ts"
import type { Timer, Timers } from "../../runtime/timers.ts"
import * as Uuid from "../uuid.ts"

const moduleName = "delay"

const namespace = "4009b574-6430-4f1b-bc40-ace811091027"

/** The number is `kind` of an I/O; 0 is not delayed. */
export const latencyTypes = ["none", "avg_read", "p99_read", "avg_write", "p99_write"] as const
export type LatencyType = Exclude<(typeof latencyTypes)[number], "none">

export type Latencies = { [Type in LatencyType]: number }

/** The kind of an I/O that takes the average latency; the one after it is that of the p99 latency. */
const averageKindOf: Readonly<Record<DeviceOpcode, number>> = {
  [Opcode.Read]: latencyTypes.indexOf("avg_read"),
  [Opcode.Write]: latencyTypes.indexOf("avg_write"),
  [Opcode.Flush]: 0,
  [Opcode.Unmap]: 0,
  [Opcode.WriteZeroes]: 0,
  [Opcode.Reset]: 0,
  [Opcode.NvmeIo]: 0
}

/** I/O of one kind that waits, in the order in which the base completed it. */
class DelayLine {
  private readonly timers: Timers
  private readonly bdev: EmbeddedBdev
  private waiting: Array<EmbeddedIo> = []
  private timer: Timer | undefined = undefined

  constructor(timers: Timers, bdev: EmbeddedBdev) {
    this.timers = timers
    this.bdev = bdev
  }

  add(io: EmbeddedIo, latencyMicros: number): void {
    io.dueMicros = this.timers.nowMicros() + latencyMicros
    this.waiting.push(io)
    if (this.waiting.length === 1) this.arm(latencyMicros)
  }

  /** Removes it, when it is here. */
  take(io: EmbeddedIo): boolean {
    const index = this.waiting.indexOf(io)
    if (index === -1) return false
    this.waiting.splice(index, 1)
    return true
  }

  takeAll(): ReadonlyArray<EmbeddedIo> {
    const all = this.waiting
    this.waiting = []
    if (this.timer !== undefined) this.timers.cancel(this.timer)
    return all
  }

  private arm(micros: number): void {
    if (this.timer !== undefined) this.timers.cancel(this.timer)
    this.timer = this.timers.after(micros, () => this.bdev.reactor.post(this.finishDue))
  }

  /** Only from the head on: as in SPDK, an I/O that got a longer latency before holds back those behind it. */
  private readonly finishDue = (): void => {
    const now = this.timers.nowMicros() + 0.5
    let count = 0
    for (const io of this.waiting) {
      if (io.dueMicros > now) break
      count++
    }
    const due = this.waiting.splice(0, count)
    const first = this.waiting[0]
    if (first !== undefined) this.arm(first.dueMicros - now)
    for (const io of due) io.finish(io.status)
  }
}

class DelayChannel extends StackedChannel {
  readonly lines: ReadonlyArray<DelayLine>

  constructor(bdev: DelayBdev, thread: ChannelThread, timers: Timers) {
    super(bdev, thread)
    this.lines = latencyTypes.map(() => new DelayLine(timers, bdev))
  }
}

export class DelayBdev extends StackedBdev {
  readonly moduleName = moduleName
  readonly latencies: Latencies
  private readonly onDestruct: () => void

  constructor(registry: BdevRegistry, base: EmbeddedBdev, config: DelayConfig, onDestruct: () => void) {
    super(
      registry,
      [base],
      {
        ...propertiesOfBase(base),
        name: config.name,
        uuid: Uuid.normalize(config.uuid) ?? Uuid.derive(namespace, Uuid.toBytes(base.properties.uuid)),
        productName: "delay"
      },
      allIoTypes(base, ioTypes)
    )
    this.latencies = { ...config.latencies }
    this.onDestruct = onDestruct
  }

  override get isImmediate(): boolean {
    return false
  }

  override submit(io: EmbeddedIo): void {
    io.kind = 0
    const kind = averageKindOf[io.opcode]
    if (kind !== 0) {
      const isP99 = this.reactor.host.random() < 0.01
      io.kind = kind + (isP99 ? 1 : 0)
    } else if (io.opcode === Opcode.Reset) {
      for (const channel of this.channels.values()) {
        for (const line of delayChannelOf(channel).lines) finishAborted(line.takeAll())
      }
    }
    this.passDown(io, io.offsetBlocks)
  }

  protected override baseDone(io: EmbeddedIo, status: IoStatus): void {
    const type = latencyTypes[io.kind]
    const latency = type === undefined || type === "none" ? 0 : this.latencies[type]
    const line = delayChannelOf(io.channel).lines[io.kind]
    if (latency === 0 || line === undefined) return io.finish(status)
    io.status = status
    line.add(io, latency)
  }

  override abort(io: EmbeddedIo): boolean {
    if (delayChannelOf(io.channel).lines[io.kind]?.take(io)) {
      io.finish(aborted)
      return true
    }
    return super.abort(io)
  }

  override makeChannel(thread: ChannelThread): EmbeddedChannel {
    return new DelayChannel(this, thread, this.registry.context.timers)
  }

  destruct(): void {
    this.onDestruct()
  }

  override driverSpecific() {
    return { delay: this.values() }
  }

  values() {
    return {
      name: this.name,
      base_bdev_name: this.base.name,
      uuid: this.properties.uuid,
      avg_read_latency: this.latencies.avg_read,
      p99_read_latency: this.latencies.p99_read,
      avg_write_latency: this.latencies.avg_write,
      p99_write_latency: this.latencies.p99_write
    }
  }
}

// makeChannel of a delay bdev makes nothing else.
const delayChannelOf = (channel: EmbeddedChannel): DelayChannel => channel as DelayChannel

const finishAborted = (ios: ReadonlyArray<EmbeddedIo>): void => {
  for (const io of ios) io.finish(aborted)
}

interface DelayConfig {
  readonly name: string
  readonly baseName: string
  readonly uuid: string | undefined
  readonly latencies: Readonly<Latencies>
}

export class DelayModule extends NamedModule<DelayConfig, DelayBdev> {
  readonly name = moduleName

  readonly create = method("bdev_delay_create", (params) => {
    const config = {
      name: params.name,
      baseName: params.base_bdev_name,
      uuid: params.uuid,
      latencies: {
        avg_read: Number(params.avg_read_latency),
        p99_read: Number(params.p99_read_latency),
        avg_write: Number(params.avg_write_latency),
        p99_write: Number(params.p99_write_latency)
      }
    }
    const { avg_read, avg_write, p99_read, p99_write } = config.latencies
    const errno = p99_read < avg_read || p99_write < avg_write ? -EINVAL : this.configure(config)
    return nameOrErrno(errno, params.name)
  })

  readonly delete = method("bdev_delay_delete", ({ name }) => whenGone((done) => this.forget(name, done)))

  readonly others = [
    method("bdev_delay_update_latency", (params) =>
      this.updateLatency(params.delay_bdev_name, params.latency_type, Number(params.latency_us)) === 0
        ? Effect.succeed(true)
        : Effect.fail(invalidParams("The requested bdev does not exist."))
    )
  ]

  /** For I/O that the base completes from now on. 0 or -ENODEV. */
  private updateLatency(name: string, type: LatencyType, micros: number): number {
    for (const bdev of this.bdevs) {
      if (bdev.name !== name) continue
      bdev.latencies[type] = micros
      return 0
    }
    return -ENODEV
  }

  protected makeBdev(config: DelayConfig, base: EmbeddedBdev, onDestruct: () => void): DelayBdev {
    return new DelayBdev(this.registry, base, config, onDestruct)
  }

  configCalls(): ReadonlyArray<Json> {
    return [...this.bdevs].map((bdev) => ({ method: "bdev_delay_create", params: bdev.values() }))
  }
}
