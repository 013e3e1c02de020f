/**
 * The data plane as every engine offers it: a queue of one SpdkThread. JavaScript side only; the libspdk
 * implementation drives rings (`RingQueue`), the embedded one runs in this isolate.
 */
import type { Opcode } from "./Layout.ts"

/** A native object: `slot` finds it, `generation` tells whether it is still the one that was meant. */
export interface Handle {
  readonly slot: number
  readonly generation: number
}

/** A piece of DMA memory: `lengthBytes` from `offsetBytes` in a slab. */
export interface SlabRange {
  readonly slab: Handle
  readonly offsetBytes: number
  readonly lengthBytes: number
}

/**
 * A request as it is handed to `submit`, which copies it: one object may be filled again and again.
 * `Read` and `Write` use the slab fields, for as many bytes as the blocks have, or `segments` when it is not undefined.
 */
export interface Entry {
  opcode: Opcode
  channelSlot: number
  channelGeneration: number
  slabSlot: number
  slabGeneration: number
  slabOffset: number
  /** In blocks of the bdev; in microseconds for `Timer`. Checked safe integer. */
  offsetBlocks: number
  lengthBlocks: number
  segments: ReadonlyArray<SlabRange> | undefined
}

export const makeEntry = (): Entry => ({
  opcode: 0,
  channelSlot: 0,
  channelGeneration: 0,
  slabSlot: 0,
  slabGeneration: 0,
  slabOffset: 0,
  offsetBlocks: 0,
  lengthBlocks: 0,
  segments: undefined
})

/**
 * Whoever waits for requests. `complete` runs exactly once per submitted request, on the JS thread, never
 * before `submit` has returned. `index` is the number that was given to `submit`. `status` is 0 or a
 * negative errno, `detail` a `Detail`, `nvme` as in `Cqe.reasonWord`. It must not throw.
 */
export interface Completion {
  complete(index: number, status: number, detail: number, nvme: number): void
}

/** Names a request until its completion; opaque, and never reused while the request is in flight. */
export type RequestId = number

/** Never the id of a request. */
export const noRequest: RequestId = -1

export interface Queue {
  /**
   * Submits one request. Never blocks and never refuses: when the ring is full the entry waits in order on
   * this side. Errors of any kind arrive through `complete`.
   */
  submit(entry: Entry, completion: Completion, index: number): RequestId
  /** Tries to abort a request. The request still completes exactly once, aborted or not. Ignores ids that have completed. */
  abort(id: RequestId): void
  /** Between `cork` and `uncork` entries may be handed over in groups: for whoever submits many in one go. Pairs nest. */
  cork(): void
  uncork(): void
  /** Requests submitted and not completed, those waiting for a place in the ring included. */
  readonly inFlight: number
  /** Undefined where every device answers later. */
  readonly immediate: ImmediateTransfers | undefined
}

/** Reads and writes of devices that are nothing but memory of this process: no request is made of them, and no completion. */
export interface ImmediateTransfers {
  /**
   * Does the `Read` or `Write` of an entry without `segments` before it returns, also before what waits in the queue: requests
   * in flight have no order. False, and nothing has happened, when it has to be submitted: the device is another one, it is
   * to be refused, or it is the turn of others.
   */
  transfer(entry: Entry): boolean
}
