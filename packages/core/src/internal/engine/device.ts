/**
 * Devices that are objects of this process, under the bdevs of an engine that can have them.
 */

export type DeviceOperation = "read" | "write" | "flush" | "unmap" | "writeZeroes" | "reset"

/** One request to a device. Exactly one of `end`, `retry` and `abort` takes effect; what comes after does nothing. */
export interface DeviceRequest {
  readonly operation: DeviceOperation
  readonly offsetBytes: number
  readonly lengthBytes: number
  /** Copies what is to be written, as it is now. False when the request has ended, or its memory is not there any more. */
  readonly take: (into: Uint8Array) => boolean
  /** Copies what was read to where it is wanted. False as with `take`. */
  readonly give: (from: Uint8Array) => boolean
  /** 0, or a positive errno of Linux. */
  readonly end: (errno: number) => void
  /** There is no memory for it: the engine submits it again a little later. */
  readonly retry: () => void
  /** As by an abort. Only in `EngineDevice.detached`. */
  readonly abort: () => void
}

export interface EngineDevice {
  readonly uuid: string
  readonly productName: string
  readonly blockSizeBytes: number
  readonly numBlocks: number
  readonly submit: (request: DeviceRequest) => void
  /** Whether the device lets go of a request that it has not done. It must not touch it afterwards. */
  readonly aborts: (request: DeviceRequest) => boolean
  /** The bdev is there. `remove` takes it away, as when the device is unplugged. */
  readonly attached: (remove: () => void) => void
  /** The bdev goes. These requests have to be ended. */
  readonly detached: (requests: ReadonlyArray<DeviceRequest>) => void
}
