/**
 * I/O statistics of a bdev, as bdev_get_iostat tells them. Ticks are nanoseconds.
 */
import { type DeviceOpcode, Opcode } from "@effect-spdk/native/Layout"
import { machineHost } from "../../engine/host.ts"
import type { IoStatus } from "../queue/status.ts"

export const ticksPerSecond = 1_000_000_000

export const ticksOf = (millis: number): number => Math.round(millis * 1e6)

/** Reading the clock twice costs more than a copy of 512 bytes: of I/O that ends at once, one in so many is timed. */
const sampleEvery = 16

class OperationStat {
  bytes = 0
  operations = 0
  /** How many there were when one was timed last. */
  timedOperations = 0
  latencyTicks = 0
  maxTicks = 0
  minTicks = Infinity

  add(other: OperationStat): void {
    this.bytes += other.bytes
    this.operations += other.operations
    this.latencyTicks += other.latencyTicks
    this.maxTicks = Math.max(this.maxTicks, other.maxTicks)
    this.minTicks = Math.min(this.minTicks, other.minTicks)
  }
}

/** What SPDK counts; undefined: nothing. */
const counterOf: Readonly<Record<DeviceOpcode, "read" | "written" | "unmapped" | undefined>> = {
  [Opcode.Read]: "read",
  [Opcode.Write]: "written",
  [Opcode.Flush]: undefined,
  [Opcode.Unmap]: "unmapped",
  [Opcode.WriteZeroes]: undefined,
  [Opcode.Reset]: undefined,
  [Opcode.NvmeIo]: undefined
}

export type ResetMode = "all" | "maxmin" | "error" | "none"

export class IoStat {
  readonly read = new OperationStat()
  readonly written = new OperationStat()
  readonly unmapped = new OperationStat()
  readonly errors = new Map<string, number>()
  private readonly nowMillis: () => number

  constructor(nowMillis: () => number = machineHost.nowMillis) {
    this.nowMillis = nowMillis
  }

  /** When the I/O that starts now is one to be timed: now, in milliseconds. Otherwise 0. */
  sampleStart(opcode: DeviceOpcode): number {
    const stat = this.of(opcode)
    return stat !== undefined && stat.operations % sampleEvery === 0 ? this.nowMillis() : 0
  }

  /**
   * `startMillis` 0 is an I/O that was not timed; of those that are sampled, one that was stands for those since the last, too.
   * Returns the milliseconds of all that it stands for.
   */
  count(opcode: DeviceOpcode, bytes: number, startMillis: number, isSampled: boolean): number {
    const stat = this.of(opcode)
    if (stat === undefined) return 0
    stat.bytes += bytes
    stat.operations++
    if (startMillis === 0) return 0
    const millis = this.nowMillis() - startMillis
    const ticks = Math.max(1, Math.round(millis * 1e6))
    const operations = isSampled ? stat.operations - stat.timedOperations : 1
    stat.timedOperations = stat.operations
    stat.latencyTicks += ticks * operations
    if (ticks > stat.maxTicks) stat.maxTicks = ticks
    if (ticks < stat.minTicks) stat.minTicks = ticks
    return millis * operations
  }

  private of(opcode: DeviceOpcode): OperationStat | undefined {
    const counter = counterOf[opcode]
    return counter === undefined ? undefined : this[counter]
  }

  countError(status: IoStatus): void {
    if (status.counter !== undefined) this.errors.set(status.counter, (this.errors.get(status.counter) ?? 0) + 1)
  }

  add(other: IoStat): void {
    this.read.add(other.read)
    this.written.add(other.written)
    this.unmapped.add(other.unmapped)
    for (const [name, count] of other.errors) this.errors.set(name, (this.errors.get(name) ?? 0) + count)
  }

  reset(mode: ResetMode): void {
    if (mode === "error" || mode === "all") this.errors.clear()
    if (mode === "error" || mode === "none") return
    for (const stat of [this.read, this.written, this.unmapped]) {
      stat.maxTicks = 0
      stat.minTicks = Infinity
      if (mode === "all") stat.bytes = stat.operations = stat.timedOperations = stat.latencyTicks = 0
    }
  }

  toJson() {
    const { read, unmapped, written } = this
    return {
      bytes_read: read.bytes,
      num_read_ops: read.operations,
      bytes_written: written.bytes,
      num_write_ops: written.operations,
      bytes_unmapped: unmapped.bytes,
      num_unmap_ops: unmapped.operations,
      bytes_copied: 0,
      num_copy_ops: 0,
      read_latency_ticks: read.latencyTicks,
      max_read_latency_ticks: read.maxTicks,
      min_read_latency_ticks: finite(read.minTicks),
      write_latency_ticks: written.latencyTicks,
      max_write_latency_ticks: written.maxTicks,
      min_write_latency_ticks: finite(written.minTicks),
      unmap_latency_ticks: unmapped.latencyTicks,
      max_unmap_latency_ticks: unmapped.maxTicks,
      min_unmap_latency_ticks: finite(unmapped.minTicks),
      copy_latency_ticks: 0,
      max_copy_latency_ticks: 0,
      min_copy_latency_ticks: 0,
      io_error: Object.fromEntries(this.errors)
    }
  }
}

const finite = (ticks: number): number => (ticks === Infinity ? 0 : ticks)
