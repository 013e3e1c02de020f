/**
 * Bdevs whose device is an object of this process. It gets each request once, and ends each once, whenever it likes.
 */
import { type DeviceOpcode, Opcode } from "@effect-spdk/native/Layout"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { fromErrno, type SpdkError } from "../../../../SpdkError.ts"
import type { DeviceOperation, DeviceRequest, EngineDevice } from "../../../engine/device.ts"
import { withinLimit } from "../../../common/release.ts"
import { EmbeddedBdev, type IoType, type Json } from "../bdev.ts"
import type { BdevRegistry } from "../registry.ts"
import type { EmbeddedIo } from "../io.ts"
import { isMoved } from "../../queue/memory.ts"
import { aborted, ENODEV, errnoFailure, failed, success } from "../../queue/status.ts"

export const moduleName = "device"

const moduleIoTypes: ReadonlySet<IoType> = new Set<IoType>([
  "read",
  "write",
  "unmap",
  "flush",
  "reset",
  "write_zeroes",
  "abort"
])

/** undefined: no device has it. */
const operations: Readonly<Record<DeviceOpcode, DeviceOperation | undefined>> = {
  [Opcode.Read]: "read",
  [Opcode.Write]: "write",
  [Opcode.Flush]: "flush",
  [Opcode.Unmap]: "unmap",
  [Opcode.WriteZeroes]: "writeZeroes",
  [Opcode.Reset]: "reset",
  [Opcode.NvmeIo]: undefined
}

class Request implements DeviceRequest {
  readonly operation: DeviceOperation
  readonly offsetBytes: number
  readonly lengthBytes: number
  private readonly bdev: DeviceBdev
  private io: EmbeddedIo | undefined

  constructor(bdev: DeviceBdev, operation: DeviceOperation, io: EmbeddedIo) {
    this.bdev = bdev
    this.operation = operation
    this.io = io
    this.offsetBytes = io.offsetBlocks * bdev.blockSize
    this.lengthBytes = io.lengthBlocks * bdev.blockSize
  }

  take(into: Uint8Array): boolean {
    return this.transfer((bytes, at) => into.set(bytes, at))
  }

  give(from: Uint8Array): boolean {
    return this.transfer((bytes, at) => bytes.set(from.subarray(at, at + bytes.length)))
  }

  end(errno: number): void {
    const { bdev, io } = this
    if (io === undefined) return
    this.io = undefined
    bdev.ended(io)
    // In a drain, like the end of all I/O.
    bdev.reactor.post(() => io.finish(errno === 0 ? success : errnoFailure(errno)))
  }

  retry(): void {
    const { bdev, io } = this
    if (io === undefined) return
    this.io = undefined
    bdev.ended(io)
    io.channel.retryLater(io)
  }

  abort(): void {
    const { bdev, io } = this
    if (io === undefined) return
    this.io = undefined
    bdev.ended(io)
    io.finish(aborted)
  }

  private transfer(piece: (bytes: Uint8Array, at: number) => void): boolean {
    const { io } = this
    if (io === undefined) return false
    const { memory, segments } = io
    if (memory !== undefined) {
      if (isMoved(memory)) return false
      piece(memory.bytes.subarray(io.memoryOffset, io.memoryOffset + this.lengthBytes), 0)
      return true
    }
    if (segments?.some((segment) => isMoved(segment.memory)) === true) return false
    let at = 0
    for (const { lengthBytes, memory, offsetBytes } of segments ?? []) {
      piece(memory.bytes.subarray(offsetBytes, offsetBytes + lengthBytes), at)
      at += lengthBytes
    }
    return true
  }
}

class DeviceBdev extends EmbeddedBdev {
  readonly moduleName = moduleName
  readonly moduleIoTypes = moduleIoTypes
  readonly isImmediate = false
  private readonly device: EngineDevice
  private isDetached = false
  private readonly requests = new Map<EmbeddedIo, Request>()

  constructor(registry: BdevRegistry, name: string, device: EngineDevice) {
    super(registry.context.reactor, {
      name,
      uuid: device.uuid.toLowerCase(),
      productName: device.productName,
      blockSize: device.blockSizeBytes,
      numBlocks: device.numBlocks,
      physicalBlockSize: device.blockSizeBytes,
      hasWriteCache: true
    })
    this.device = device
  }

  submit(io: EmbeddedIo): void {
    // Users hear of the removal a turn later.
    if (this.isDetached) return io.finish(errnoFailure(ENODEV))
    const operation = operations[io.opcode]
    if (operation === undefined) return io.finish(failed)
    const request = new Request(this, operation, io)
    this.requests.set(io, request)
    this.device.submit(request)
  }

  override abort(io: EmbeddedIo): boolean {
    const request = this.requests.get(io)
    if (request === undefined || !this.device.aborts(request)) return false
    request.abort()
    return true
  }

  override onUnregister(): void {
    this.isDetached = true
    this.device.detached([...this.requests.values()])
  }

  ended(io: EmbeddedIo): void {
    this.requests.delete(io)
  }

  destruct(): void {}

  override driverSpecific(): { readonly [name: string]: Json } {
    return {}
  }
}

/** Registers the device as a bdev of this name, until the scope ends or the device is removed. */
export const attachDevice = (
  registry: BdevRegistry,
  name: string,
  device: EngineDevice
): Effect.Effect<void, SpdkError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.suspend(() => {
      const bdev = new DeviceBdev(registry, name, device)
      const errno = registry.register(bdev)
      if (errno !== 0) return Effect.fail(fromErrno(errno, { operation: "SimulatedDisk.attach", resource: name }))
      device.attached(() => registry.unregister(bdev))
      return Effect.succeed(bdev)
    }),
    (bdev) =>
      withinLimit(
        "SimulatedDisk.attach",
        name,
        Effect.callback<void>((resume) => {
          if (bdev.state !== "ready") return resume(Effect.void)
          registry.unregister(bdev, () => resume(Effect.void))
        })
      )
  )
