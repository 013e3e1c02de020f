/**
 * A disk with a volatile cache, faults and power cuts, for the embedded engine in a `Simulation`. A sector has 512
 * bytes. Of each sector that was written since the last flush, a power cut keeps any of the contents since then,
 * independently of other sectors. Requests are torn in this way. Only flushes order writes.
 *
 * - A completed write is visible to later reads. It survives `cutPower` only after a flush that was submitted later.
 * - A write that fails, is aborted, or is in flight at the power cut has written any part of itself.
 * - A flush that fails has kept any part.
 * - Requests complete in any order, after a latency that the seed chooses.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { DeviceOperation, DeviceRequest, EngineDevice } from "./internal/engine/device.ts"
import { EngineService } from "./internal/engine/service.ts"
import { DiskContents, type DiskWrite } from "./internal/simulation/contents.ts"
import type { Chance, Simulation } from "./Simulation.ts"
import { NotSupported, SpdkError } from "./SpdkError.ts"

/** The operation of a request. @since 0.1.0 @category models */
export type Operation = DeviceOperation

/** A request as passed to `onRequest`. @since 0.1.0 @category models */
export interface Request {
  /** The number of the request, counted from 1 since the disk was made. */
  readonly number: number
  readonly operation: Operation
  readonly offsetBytes: number
  readonly lengthBytes: number
}

/**
 * The fault of a request:
 *
 * - `Errno`: the request fails with this Linux errno, for example 5 for EIO.
 * - `Retry`: the device has no memory for the request, and the engine submits it again.
 * - `Delay`: the request takes `micros` longer.
 * - `Misdirect`: a read or a write uses another offset and succeeds.
 * - `Flip`: a write stores one flipped bit.
 * - `Cut`: the power is cut now.
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

/**
 * Probabilities for each request, all 0 by default. A program may change them at any time.
 *
 * @since 0.1.0
 * @category models
 */
export interface Faults {
  /** The probability that a request fails. */
  error: number
  /** The errnos of failed requests. Default: only EIO. */
  errnos: ReadonlyArray<number>
  /** The operations that may fail. Default: all but resets. */
  operations: ReadonlySet<Operation>
  /** The probability that the device has no memory for the request at the moment. */
  retry: number
  /** The probability that a request takes `delayMicros` longer. */
  delay: number
  delayMicros: number
}

/** @since 0.1.0 @category options */
export interface Options {
  /** A multiple of the block size. */
  readonly sizeBytes: number
  /** A power of two, at least 512. Default 512. */
  readonly blockSizeBytes?: number | undefined
  /** The name of the disk's random stream, for simulations with several disks. Default "disk". */
  readonly name?: string | undefined
  readonly latencyMicros?: { readonly least: number; readonly most: number } | undefined
  readonly faults?: Partial<Faults> | undefined
  /**
   * The unit of atomic writes in the first `upToBytes` of the disk, a multiple of 512. An aligned unit is stored whole
   * or not at all. Default 512: each sector by itself. SPDK's blobstore needs 4096 for its metadata.
   */
  readonly atomic?: { readonly unitBytes: number; readonly upToBytes?: number | undefined } | undefined
  /** The initial content of the disk. Default: zeroes. */
  readonly contents?: Uint8Array | undefined
}

/** @since 0.1.0 @category models */
export interface SimulatedDisk {
  readonly name: string
  readonly sizeBytes: number
  readonly faults: Faults
  /** The number of requests so far. */
  readonly requests: number
  /** The number of requests in flight. */
  readonly inFlight: number
  /**
   * Called with each request before it begins. A returned fault takes precedence over the probabilities of `faults`.
   */
  onRequest: ((request: Request) => Fault | undefined) | undefined
  /**
   * Cuts the power of the machine. The run ends as `stopped`, and the disk holds the content that survived. `keep` is
   * the probability that an unflushed sector has its newest content. Each other unflushed sector has any of its
   * contents. Default: the seed chooses.
   */
  readonly cutPower: (keep?: number) => void
  /**
   * Cuts the power of the disk alone, and restores it at once. Requests in flight fail with EIO. `keep` decides over
   * unflushed sectors, as for `cutPower`. The run continues, and the bdev stays.
   */
  readonly losePower: (keep?: number) => void
  /** Kills the process while the disk stays on. The run ends as `stopped`. Completed writes are on the disk. */
  readonly killProcess: () => void
  /** Removes the bdev, as when the device is unplugged. Requests in flight fail. */
  readonly unplug: () => void
  /**
   * Makes the disk larger, with zeroes at its end. Attached bdevs keep their size. Bdevs that are attached later have
   * the new size.
   */
  readonly enlarge: (sizeBytes: number) => void
  /** A copy of the content that a read would return now. */
  readonly contents: () => Uint8Array
  /** A copy of the content that survives when every unflushed write is lost. */
  readonly durableContents: () => Uint8Array
  /** Replaces the content of the disk, durably. */
  readonly restore: (contents: Uint8Array) => void
  /** Flips one bit, durably, like a decayed medium. */
  readonly flipBit: (offsetBytes: number, bit: number) => void
}

/** @since 0.1.0 @category constructors */
export const make = (simulation: Simulation, options: Options): SimulatedDisk => new Disk(simulation, options)

/**
 * Attaches the disk to the engine as a bdev for the life of the scope, and returns the name of the bdev. Several
 * engines may attach one disk at once, like two processes that open one image. Fails with `NotSupported` on engines
 * other than the embedded one.
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

/** A request in flight on the disk. */
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
  /** The number of the machine's boot. A request of an earlier boot completes for no one. */
  private boot = 0
  /** The machine has stopped. Requests that it still submits in this turn never complete. */
  private isDown = false

  constructor(simulation: Simulation, options: Options) {
    const { atomic, blockSizeBytes = 512, contents, faults, latencyMicros, name = "disk", sizeBytes } = options
    if (!Number.isInteger(Math.log2(blockSizeBytes)) || blockSizeBytes < 512) {
      throw new RangeError(`the block size ${blockSizeBytes} is not a power of two, at least 512`)
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

  /** Reads the memory of writes in flight for the last time. */
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

  /** `undefined` when the memory is gone. */
  private takeFrom(request: DeviceRequest): Uint8Array | undefined {
    const bytes = new Uint8Array(request.lengthBytes)
    return request.operation !== "write" || request.take(bytes) ? bytes : undefined
  }
}

const uuidOf = (chance: Chance): string => {
  const hex = Array.from({ length: 4 }, () => chance.bits().toString(16).padStart(8, "0")).join("")
  return [hex.slice(0, 8), hex.slice(8, 12), `4${hex.slice(13, 16)}`, `8${hex.slice(17, 20)}`, hex.slice(20)].join("-")
}
