/**
 * The data plane that every engine offers: a queue of one SpdkThread. All of it runs on the JavaScript side. The
 * libspdk implementation drives rings (`RingQueue`). The embedded implementation runs in this isolate.
 */
import type { Opcode } from "./Layout.ts"

/** A native object. `slot` finds the object. `generation` tells whether the slot still holds the same object. */
export interface Handle {
  readonly slot: number
  readonly generation: number
}

/** A range of DMA memory: `lengthBytes` from `offsetBytes` in a slab. */
export interface SlabRange {
  readonly slab: Handle
  readonly offsetBytes: number
  readonly lengthBytes: number
}

/**
 * A request as passed to `submit`, which copies it, so one object can be reused. `Read` and `Write` transfer as many
 * bytes as the blocks have. They use the slab fields, or `segments` when that is not undefined.
 */
export interface Entry {
  opcode: Opcode
  channelSlot: number
  channelGeneration: number
  slabSlot: number
  slabGeneration: number
  slabOffset: number
  /** In blocks of the bdev. In microseconds for `Timer`. A checked safe integer. */
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
 * The receiver of completions. `complete` runs exactly once per submitted request, on the JS thread, and never before
 * `submit` has returned. `index` is the number that was passed to `submit`. `status` is 0 or a negative errno. `detail`
 * is a `Detail`. `nvme` is as in `Cqe.reasonWord`. `complete` must not throw.
 */
export interface Completion {
  complete(index: number, status: number, detail: number, nvme: number): void
}

/** The opaque id of a request until its completion. An id is never reused while its request is in flight. */
export type RequestId = number

/** Never the id of a request. */
export const noRequest: RequestId = -1

export interface Queue {
  /**
   * Submits one request. Never blocks and never refuses. When the ring is full, the entry waits in order in JavaScript
   * memory. Errors of any kind arrive through `complete`.
   */
  submit(entry: Entry, completion: Completion, index: number): RequestId
  /**
   * Tries to abort a request. The request still completes exactly once, aborted or not. An id that has completed is
   * ignored.
   */
  abort(id: RequestId): void
  /**
   * Between `cork` and `uncork`, the queue may publish entries in groups. For callers that submit many entries at once.
   * Pairs may nest.
   */
  cork(): void
  uncork(): void
  /** The number of requests in flight, including those that wait for a place in the ring. */
  readonly inFlight: number
  /** `undefined` when every device completes later. */
  readonly immediate: ImmediateTransfers | undefined
}

/** Reads and writes of devices that are memory of this process. They need no request and no completion. */
export interface ImmediateTransfers {
  /**
   * Performs the `Read` or `Write` of an entry without `segments`, before the call returns. The transfer may overtake
   * waiting requests, because requests in flight have no order. Returns false, without any effect, when the entry must
   * be submitted. This is the case for another device, for an entry to be refused, and when other requests are due
   * first.
   */
  transfer(entry: Entry): boolean
}
