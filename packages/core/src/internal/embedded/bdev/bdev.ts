/**
 * What all bdevs have in common: their properties, channels, statistics and the order of things around a reset.
 * A module is a subclass that says what it supports and does the I/O.
 */
import { type DeviceOpcode, Opcode, operations, type TransferOpcode } from "@effect-spdk/native/Layout"
import type * as Schema from "effect/Schema"
import type { BdevDescriptor } from "./descriptor.ts"
import type { EmbeddedIo } from "./io.ts"
import { IoStat } from "./ioStat.ts"
import type { EmbeddedReactor } from "../runtime/reactor.ts"
import { aborted, type IoStatus } from "../queue/status.ts"
import { emulateWriteZeroes } from "./writeZeroes.ts"

/** spdk_bdev_io_type, in its order. */
export const ioTypes = [
  "read",
  "write",
  "unmap",
  "flush",
  "reset",
  "nvme_admin",
  "nvme_io",
  "nvme_io_md",
  "write_zeroes",
  "zcopy",
  "get_zone_info",
  "zone_management",
  "zone_append",
  "compare",
  "compare_and_write",
  "abort",
  "seek_hole",
  "seek_data",
  "copy",
  "nvme_iov_md",
  "nvme_nssr",
  "write_uncorrectable"
] as const
export type IoType = (typeof ioTypes)[number]

const ioTypeOf = (opcode: Opcode): IoType | null => operations[opcode].ioType

/** What a channel needs to know of its thread. */
export interface ChannelThread {
  readonly id: number
  readonly name: string
}

export interface BdevProperties {
  readonly name: string
  /** Lower case. */
  readonly uuid: string
  readonly productName: string
  readonly blockSize: number
  readonly numBlocks: number
  readonly physicalBlockSize?: number
  readonly hasWriteCache: boolean
  readonly alignmentBytes?: number
  readonly optimalIoBoundaryBlocks?: number
  readonly numaId?: number | undefined
  readonly preferredWriteAlignment?: number
  readonly preferredWriteGranularity?: number
  readonly optimalWriteSize?: number
  readonly preferredUnmapAlignment?: number
  readonly preferredUnmapGranularity?: number
}

export type Json = Schema.Json

export abstract class EmbeddedBdev {
  abstract readonly moduleName: string
  /** What the module does itself. The layer above adds write_zeroes to whatever can write. */
  abstract readonly moduleIoTypes: ReadonlySet<IoType>
  /** Whether every I/O ends before `submit` returns. */
  abstract readonly isImmediate: boolean
  readonly reactor: EmbeddedReactor
  readonly properties: BdevProperties
  readonly name: string
  readonly blockSize: number
  numBlocks: number
  readonly aliases: Array<string> = []
  readonly descriptors = new Set<BdevDescriptor>()
  readonly channels = new Map<ChannelThread, EmbeddedChannel>()
  /** The module that has the only right to write. */
  claimedBy: string | undefined = undefined
  state: "ready" | "unregistering" | "removing" = "ready"
  /** What channels that are gone have counted, and all errors. */
  readonly stat: IoStat
  /** The errno or 0 that the end of the removal reports. */
  onRemoved: ((errno: number) => void) | undefined = undefined
  /** Set while the removal waits for channels. */
  onChannelGone: (() => void) | undefined = undefined
  private resetInProgress: EmbeddedIo | undefined = undefined
  private queuedResets: Array<EmbeddedIo> = []
  private supportedMask = 0

  constructor(reactor: EmbeddedReactor, properties: BdevProperties) {
    this.reactor = reactor
    this.stat = new IoStat(reactor.host.nowMillis)
    this.properties = properties
    this.name = properties.name
    this.blockSize = properties.blockSize
    this.numBlocks = properties.numBlocks
  }

  /** Does the I/O, and calls `finish` of it once. */
  abstract submit(io: EmbeddedIo): void

  /**
   * Reads into or writes from one piece of memory, checked, before it returns; false, and nothing has happened, when this is
   * no bdev that can.
   */
  transferNow(
    _opcode: TransferOpcode,
    _offsetBlocks: number,
    _lengthBlocks: number,
    _bytes: Uint8Array,
    _offset: number
  ): boolean {
    return false
  }

  /** After the last channel and descriptor are gone: gives back what the module holds. */
  abstract destruct(): void

  /** Ends an I/O that this bdev has as aborted, if it can. */
  abort(_io: EmbeddedIo): boolean {
    return false
  }

  /** The removal has begun: what will not end by itself has to be ended. */
  onUnregister(): void {}

  makeChannel(thread: ChannelThread): EmbeddedChannel {
    return new EmbeddedChannel(this, thread)
  }

  /** `driver_specific` of bdev_get_bdevs. */
  driverSpecific(): { readonly [name: string]: Json } {
    return {}
  }

  /** `memory_domains` of bdev_get_bdevs. */
  memoryDomains(): ReadonlyArray<{ readonly dma_device_type: string }> {
    return []
  }

  /** `driver_specific` of bdev_get_iostat; undefined for modules that tell nothing there. */
  statSpecific(): { readonly [name: string]: Json } | undefined {
    return undefined
  }

  supports(type: IoType): boolean {
    return this.moduleIoTypes.has(type) || (type === "write_zeroes" && this.moduleIoTypes.has("write"))
  }

  /** `supports`, quick enough for every I/O. */
  supportsOpcode(opcode: DeviceOpcode): boolean {
    if (this.supportedMask === 0) {
      for (const code of Object.values(Opcode)) {
        const type = ioTypeOf(code)
        if (type !== null && this.supports(type)) this.supportedMask |= 1 << code
      }
    }
    return (this.supportedMask & (1 << opcode)) !== 0
  }

  /** Whether it is a range of this bdev. Anything that is no number is none. */
  hasBlocks(offsetBlocks: number, lengthBlocks: number): boolean {
    return (
      lengthBlocks > 0 &&
      offsetBlocks >= 0 &&
      lengthBlocks <= this.numBlocks - offsetBlocks &&
      Number.isInteger(lengthBlocks) &&
      Number.isInteger(offsetBlocks)
    )
  }

  /** The channel of a thread, made when it is the first. Every call wants one `putChannel`. */
  getChannel(thread: ChannelThread): EmbeddedChannel {
    let channel = this.channels.get(thread)
    if (channel === undefined) {
      channel = this.makeChannel(thread)
      channel.isResetting = this.resetInProgress !== undefined
      this.channels.set(thread, channel)
    }
    channel.refs++
    return channel
  }

  putChannel(channel: EmbeddedChannel): void {
    if (--channel.refs > 0) return
    this.channels.delete(channel.thread)
    this.stat.add(channel.stat)
    channel.destroy()
    this.onChannelGone?.()
  }

  /** During a reset all new I/O is aborted, and further resets share the end of the one that runs. */
  startReset(io: EmbeddedIo): void {
    if (this.resetInProgress !== undefined) {
      this.queuedResets.push(io)
      return
    }
    this.resetInProgress = io
    for (const channel of this.channels.values()) {
      channel.isResetting = true
      channel.abortWaiting()
    }
    this.submit(io)
  }

  endReset(io: EmbeddedIo, status: IoStatus): void {
    if (this.resetInProgress !== io) return
    this.resetInProgress = undefined
    for (const channel of this.channels.values()) channel.isResetting = false
    const queued = this.queuedResets
    this.queuedResets = []
    for (const reset of queued) this.reactor.post(() => reset.finish(status))
  }
}

/** The way of one thread to one bdev. */
export class EmbeddedChannel {
  readonly bdev: EmbeddedBdev
  readonly thread: ChannelThread
  refs = 0
  outstanding = 0
  isResetting = false
  readonly stat: IoStat
  /** I/O that its module had no memory for. */
  private waiting: Array<EmbeddedIo> = []

  constructor(bdev: EmbeddedBdev, thread: ChannelThread) {
    this.bdev = bdev
    this.thread = thread
    this.stat = new IoStat(bdev.reactor.host.nowMillis)
  }

  /** Only in a drain of the reactor. The I/O may have ended when this returns. */
  submit(io: EmbeddedIo): void {
    const { bdev } = this
    io.channel = this
    this.outstanding++
    if (io.opcode === Opcode.Reset) return bdev.startReset(io)
    if (this.isResetting) {
      io.startMillis = 0
      return io.finish(aborted)
    }
    io.startMillis = bdev.isImmediate ? this.stat.sampleStart(io.opcode) : bdev.reactor.host.nowMillis()
    if (io.opcode === Opcode.WriteZeroes && !bdev.moduleIoTypes.has("write_zeroes")) return emulateWriteZeroes(io)
    bdev.submit(io)
  }

  /** Called by the I/O. */
  end(io: EmbeddedIo, status: IoStatus): void {
    this.outstanding--
    const { bdev } = this
    if (io.opcode === Opcode.Reset) bdev.endReset(io, status)
    else if (status.errno === 0) {
      this.stat.count(io.opcode, io.lengthBlocks * bdev.blockSize, io.startMillis, bdev.isImmediate)
    } else bdev.stat.countError(status)
  }

  /** What SPDK does with an I/O that a module has no memory for: tries again a little later. */
  retryLater(io: EmbeddedIo): void {
    this.waiting.push(io)
    if (this.waiting.length > 1) return
    this.bdev.reactor.host.nextTurn(() =>
      this.bdev.reactor.post(() => {
        const waiting = this.waiting
        this.waiting = []
        for (const again of waiting) this.bdev.submit(again)
      })
    )
  }

  abortWaiting(): void {
    const waiting = this.waiting
    this.waiting = []
    for (const io of waiting) io.finish(aborted)
  }

  /** The last reference is gone. */
  destroy(): void {}
}
