/**
 * A disk with a volatile cache, faults and power cuts, for the embedded engine in a `Simulation`. The one thing to know is what a
 * power cut keeps: of every sector of 512 bytes that was written since the last flush, any of the contents it had since then, each
 * sector by itself. Requests are torn that way, and no order holds but the one that flushes make.
 *
 * - A write that has completed is seen by later reads, and survives `cutPower` only after a flush that was submitted later.
 * - A write that fails, is aborted, or is under way when the power goes, has written any part of itself.
 * - A flush that fails has kept any part.
 * - Requests complete in any order, after a latency of the seed's choice.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { DeviceOperation, DeviceRequest, EngineDevice } from "./internal/engineDevice.ts"
import { EngineService } from "./internal/engineService.ts"
import { DiskContents, type DiskWrite } from "./internal/simulation/contents.ts"
import type { Chance, Simulation } from "./Simulation.ts"
import { NotSupported, SpdkError } from "./SpdkError.ts"

/** What a request asks for. @since 0.1.0 @category models */
export type Operation = DeviceOperation

/** A request as `onRequest` sees it. @since 0.1.0 @category models */
export interface Request {
  /** Counted from 1 since the disk was made. */
  readonly number: number
  readonly operation: Operation
  readonly offsetBytes: number
  readonly lengthBytes: number
}

/**
 * What becomes of a request. `errno`: it fails with this number of Linux, 5 for EIO. `retry`: the device has no memory for it, and
 * the engine submits it again. `delay`: it takes so much longer. `misdirect`: a write, or a read, goes elsewhere and succeeds. `flip`: one
 * bit of what a write stores is another. `cut`: the power goes now.
 *
 * @since 0.1.0
 * @category models
 */
export type Fault =
  | { readonly _tag: "Errno"; readonly errno: number }
  | { readonly _tag: "Retry" }
  | { readonly _tag: "Delay"; readonly micros: number }
  | { readonly _tag: "Misdirect"; readonly offsetBytes: number }
  | { readonly _tag: "Flip"; readonly bit: number }
  | { readonly _tag: "Cut" }

/** Chances per request, all 0 by default. They may be changed at any time. @since 0.1.0 @category models */
export interface Faults {
  /** That it fails. */
  error: number
  /** With which errnos. Default EIO alone. */
  errnos: ReadonlyArray<number>
  /** Which requests fail. Default all but resets. */
  operations: ReadonlySet<Operation>
  /** That the device has no memory for it at the moment. */
  retry: number
  /** That it takes `delayMicros` longer. */
  delay: number
  delayMicros: number
}

/** @since 0.1.0 @category options */
export interface Options {
  /** A multiple of the block size. */
  readonly sizeBytes: number
  /** A power of two from 512 on. Default 512. */
  readonly blockSizeBytes?: number | undefined
  /** Names the stream of chance, where a simulation has several disks. Default "disk". */
  readonly name?: string | undefined
  readonly latencyMicros?: { readonly least: number; readonly most: number } | undefined
  readonly faults?: Partial<Faults> | undefined
  /**
   * Aligned units of this size, a multiple of 512, are stored whole or not at all, in the first `upToBytes` of the disk. Default 512: every
   * sector by itself. SPDK's blobstore counts on 4096 for its metadata.
   */
  readonly atomic?: { readonly unitBytes: number; readonly upToBytes?: number | undefined } | undefined
  /** What the disk holds at the beginning. Default zeroes. */
  readonly contents?: Uint8Array | undefined
}

/** @since 0.1.0 @category models */
export interface SimulatedDisk {
  readonly name: string
  readonly sizeBytes: number
  readonly faults: Faults
  /** How many requests there were. */
  readonly requests: number
  /** How many of them have not ended. */
  readonly inFlight: number
  /** Sees every request before it begins. What it returns comes before the chances of `faults`. */
  onRequest: ((request: Request) => Fault | undefined) | undefined
  /**
   * The machine loses its power: the run ends as `stopped`, and the disk holds what survived. `keep` is the chance of each unflushed
   * sector to have the newest of its contents; the rest have any of them. Default: of the seed's choice.
   */
  readonly cutPower: (keep?: number) => void
  /**
   * The disk alone loses its power and has it back at once: requests under way fail with EIO, and of what was not flushed `keep`
   * says what is left, as for `cutPower`. The run goes on, and the bdev stays.
   */
  readonly losePower: (keep?: number) => void
  /** The process is killed, and the disk stays on: the run ends as `stopped`, and what had completed is there. */
  readonly killProcess: () => void
  /** Takes the bdev away, as when the device is unplugged: requests under way fail. */
  readonly unplug: () => void
  /**
   * Makes the disk larger, with zeroes at its end. Bdevs that are attached keep the size they have; those that are attached later have
   * the new one.
   */
  readonly enlarge: (sizeBytes: number) => void
  /** What a read would return now, as a copy. */
  readonly contents: () => Uint8Array
  /** What would survive if nothing were kept of what was not flushed, as a copy. */
  readonly durableContents: () => Uint8Array
  /** Replaces what the disk holds, durably. */
  readonly restore: (contents: Uint8Array) => void
  /** Flips one bit, durably, as decay does. */
  readonly flipBit: (offsetBytes: number, bit: number) => void
}

/** @since 0.1.0 @category constructors */
export const make = (simulation: Simulation, options: Options): SimulatedDisk => new Disk(simulation, options)

/**
 * Makes a bdev of the disk on the engine, for as long as the scope lasts, and returns its name. A disk may be attached to several
 * engines at once, as when two processes open one image. Fails with `NotSupported` on engines that are not embedded.
 *
 * @since 0.1.0
 * @category constructors
 */
export const attach = (
  disk: SimulatedDisk,
  options: { readonly name?: string | undefined } = {}
): Effect.Effect<string, SpdkError, EngineService | Scope.Scope> =>
  Effect.gen(function* () {
    const name = options.name ?? disk.name
    const { attachDevice } = yield* EngineService
    if (attachDevice === undefined || !(disk instanceof Disk)) {
      const detail = "a simulated disk needs the embedded engine"
      return yield* new SpdkError({
        reason: new NotSupported({ operation: "SimulatedDisk.attach", resource: name, detail })
      })
    }
    yield* attachDevice(name, disk)
    return name
  })

const EIO = 5
const ENODEV = 19
const defaultOperations: ReadonlySet<Operation> = new Set<Operation>(["read", "write", "flush", "unmap", "writeZeroes"])
const codes: { readonly [Operation in DeviceOperation]: number } = {
  read: 1,
  write: 2,
  flush: 3,
  unmap: 4,
  writeZeroes: 5,
  reset: 6
}

/** A request that the disk has. */
interface Active {
  readonly request: DeviceRequest
  readonly write: DiskWrite | undefined
  readonly offsetBytes: number
}

class Disk implements SimulatedDisk, EngineDevice {
  readonly name: string
  readonly uuid: string
  readonly productName = "Simulated disk"
  readonly blockSizeBytes: number
  numBlocks: number
  readonly faults: Faults
  onRequest: ((request: Request) => Fault | undefined) | undefined = undefined
  requests = 0
  private readonly simulation: Simulation
  private readonly chance: Chance
  private readonly data: DiskContents
  private readonly latency: { readonly least: number; readonly most: number }
  private active = new Map<DeviceRequest, Active>()
  private removals = new Set<() => void>()
  /** Of the machine: what an earlier one has begun is nobody's any more. */
  private boot = 0
  /** The machine has stopped: what it still submits in this turn reaches nobody. */
  private isDown = false

  constructor(simulation: Simulation, options: Options) {
    const { atomic, blockSizeBytes = 512, contents, faults, latencyMicros, name = "disk", sizeBytes } = options
    if (!Number.isInteger(Math.log2(blockSizeBytes)) || blockSizeBytes < 512) {
      throw new RangeError(`the block size ${blockSizeBytes} is no power of two from 512 on`)
    }
    if (!Number.isSafeInteger(sizeBytes) || sizeBytes <= 0 || sizeBytes % blockSizeBytes !== 0) {
      throw new RangeError(`the size ${sizeBytes} is no multiple of ${blockSizeBytes} bytes`)
    }
    if (atomic !== undefined && (atomic.unitBytes % 512 !== 0 || atomic.unitBytes <= 0)) {
      throw new RangeError(`the atomic unit ${atomic.unitBytes} is no multiple of 512 bytes`)
    }
    this.simulation = simulation
    this.name = name
    this.blockSizeBytes = blockSizeBytes
    this.numBlocks = sizeBytes / blockSizeBytes
    this.chance = simulation.chance(`disk ${name}`)
    this.uuid = uuidOf(simulation.chance(`uuid ${name}`))
    this.latency = latencyMicros ?? { least: 5, most: 200 }
    this.faults = {
      error: 0,
      errnos: [EIO],
      operations: defaultOperations,
      retry: 0,
      delay: 0,
      delayMicros: 1_000_000,
      ...faults
    }
    this.data = new DiskContents(sizeBytes, this.chance, {
      unitBytes: atomic?.unitBytes ?? 512,
      limitBytes: atomic?.upToBytes ?? sizeBytes
    })
    if (contents !== undefined) this.data.restore(contents)
  }

  get sizeBytes(): number {
    return this.numBlocks * this.blockSizeBytes
  }

  get inFlight(): number {
    return this.active.size
  }

  submit(request: DeviceRequest): void {
    if (this.isDown) return
    const { lengthBytes, offsetBytes, operation } = request
    const number = ++this.requests
    const { boot } = this
    this.simulation.note(codes[operation], offsetBytes + lengthBytes / 512)
    const fault = this.onRequest?.({ number, operation, offsetBytes, lengthBytes }) ?? this.chosenFault(operation)
    if (fault?._tag === "Cut") return this.cutPower()
    // Who looked at the request has killed the machine that it is from.
    if (boot !== this.boot) return
    if (fault?._tag === "Retry") return request.retry()
    const at = fault?._tag === "Misdirect" ? fault.offsetBytes : offsetBytes
    const write = this.beginWrite(request, at, fault)
    this.active.set(request, { request, write, offsetBytes: at })
    const extra = fault?._tag === "Delay" ? fault.micros : 0
    const micros = this.chance.between(this.latency.least, this.latency.most) + extra
    const before = this.data.mark()
    this.simulation.after(micros, () => {
      if (boot === this.boot) this.finish(request, fault?._tag === "Errno" ? fault.errno : 0, before)
    })
  }

  aborts(request: DeviceRequest): boolean {
    const active = this.active.get(request)
    if (active === undefined || this.chance.is(0.5)) return false
    this.active.delete(request)
    if (active.write !== undefined) this.data.abandon(active.write, () => this.taken(active))
    return true
  }

  attached(remove: () => void): void {
    this.isDown = false
    this.removals.add(remove)
  }

  detached(requests: ReadonlyArray<DeviceRequest>): void {
    for (const request of requests) {
      const active = this.active.get(request)
      this.active.delete(request)
      if (active?.write !== undefined) this.data.abandon(active.write, () => this.taken(active))
      request.end(ENODEV)
    }
  }

  readonly cutPower = (keep: number = this.chance.pick([0, 0.5, 0.5, 0.9, 1])): void => {
    this.abandonAll()
    this.data.cut(keep)
    this.simulation.stop()
  }

  readonly losePower = (keep: number = this.chance.pick([0, 0.5, 0.5, 0.9, 1])): void => {
    const ended = [...this.active.values()]
    this.active = new Map()
    for (const active of ended) {
      if (active.write !== undefined) this.data.abandon(active.write, () => this.taken(active))
    }
    this.data.cut(keep)
    for (const { request } of ended) request.end(EIO)
  }

  readonly killProcess = (): void => {
    this.abandonAll()
    this.simulation.stop()
  }

  readonly unplug = (): void => {
    for (const remove of this.removals) remove()
    this.removals.clear()
  }

  readonly enlarge = (sizeBytes: number): void => {
    if (!Number.isSafeInteger(sizeBytes) || sizeBytes < this.sizeBytes || sizeBytes % this.blockSizeBytes !== 0) {
      throw new RangeError(`the size ${sizeBytes} is less than ${this.sizeBytes}, or no whole blocks`)
    }
    this.data.enlarge(sizeBytes)
    this.numBlocks = sizeBytes / this.blockSizeBytes
  }

  readonly contents = (): Uint8Array => this.data.visible.slice()
  readonly durableContents = (): Uint8Array => this.data.durable.slice()
  readonly restore = (contents: Uint8Array): void => this.data.restore(contents)
  readonly flipBit = (offsetBytes: number, bit: number): void => this.data.flip(offsetBytes, bit)

  /** The memory of writes under way is read for the last time. */
  private abandonAll(): void {
    for (const active of this.active.values()) {
      if (active.write !== undefined) this.data.abandon(active.write, () => this.taken(active))
    }
    this.active = new Map()
    this.removals = new Set()
    this.boot++
    this.isDown = true
  }

  private chosenFault(operation: Operation): Fault | undefined {
    const { chance, faults } = this
    if (chance.is(faults.retry) && operation !== "reset") return { _tag: "Retry" }
    if (faults.operations.has(operation) && chance.is(faults.error)) {
      return { _tag: "Errno", errno: chance.pick(faults.errnos) }
    }
    return chance.is(faults.delay) ? { _tag: "Delay", micros: faults.delayMicros } : undefined
  }

  private beginWrite(request: DeviceRequest, offsetBytes: number, fault: Fault | undefined): DiskWrite | undefined {
    const { lengthBytes, operation } = request
    if (operation !== "write" && operation !== "unmap" && operation !== "writeZeroes") return undefined
    const flip = fault?._tag === "Flip" ? fault.bit : undefined
    const write = this.data.begin(offsetBytes, lengthBytes, flip)
    // Now, later, or some of it now and some later: a device reads the memory when it likes.
    const share = fault?._tag === "Errno" ? 0 : this.chance.pick([0, 0, 0.5, 1])
    if (share > 0) this.data.apply(write, this.takeFrom(request), share)
    return write
  }

  private finish(request: DeviceRequest, errno: number, before: number): void {
    const active = this.active.get(request)
    if (active === undefined) return
    this.active.delete(request)
    this.simulation.note(codes[request.operation] + 16, errno)
    if (errno !== 0) {
      if (active.write !== undefined) this.data.abandon(active.write, () => this.taken(active))
      else if (request.operation === "flush") this.data.flushSome(before)
      return request.end(errno)
    }
    const { write } = active
    if (write !== undefined) {
      this.data.apply(write, this.takeFrom(request), 1)
      this.data.complete(write)
    } else if (request.operation === "read") {
      const { offsetBytes } = active
      request.give(this.data.visible.subarray(offsetBytes, offsetBytes + request.lengthBytes))
    } else if (request.operation === "flush") this.data.flush(before)
    request.end(0)
  }

  private taken({ request }: Active): Uint8Array | undefined {
    return this.takeFrom(request)
  }

  /** Undefined where the memory is gone. */
  private takeFrom(request: DeviceRequest): Uint8Array | undefined {
    const bytes = new Uint8Array(request.lengthBytes)
    return request.operation !== "write" || request.take(bytes) ? bytes : undefined
  }
}

const uuidOf = (chance: Chance): string => {
  const hex = Array.from({ length: 4 }, () => chance.bits().toString(16).padStart(8, "0")).join("")
  return [hex.slice(0, 8), hex.slice(8, 12), `4${hex.slice(13, 16)}`, `8${hex.slice(17, 20)}`, hex.slice(20)].join("-")
}
