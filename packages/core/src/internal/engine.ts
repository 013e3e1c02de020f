/**
 * The waist: what an engine must offer so that everything else in this package works on it. Both engines
 * (internal/libspdk, internal/embedded) fulfil it; public modules know nothing below it.
 */
import type { Handle, Queue } from "@effect-spdk/native/Queue"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { RpcClient } from "../Rpc.ts"
import type { SpdkError } from "../SpdkError.ts"

export type EngineKind = "libspdk" | "embedded" | "remote"

/** One DMA allocation. `view` is detached (length 0) by `free`. */
export interface Slab extends Handle {
  readonly lengthBytes: number
  readonly alignmentBytes: number
  readonly view: Uint8Array
}

export interface EngineMemory {
  /** Zeroed. Fails with NoMemory; never returns less than was asked for. */
  readonly allocate: (lengthBytes: number, alignmentBytes: number) => Effect.Effect<Slab, SpdkError>
  /**
   * Detaches the view at once; the memory itself goes back once nothing in flight uses it. Idempotent.
   * The caller (DmaBuffer) already waits for its I/O before it calls this: this is the second net.
   */
  readonly free: (slab: Slab) => void
  /** A fresh view over the same memory under a new generation, for pools; the old view is detached. */
  readonly renew: (slab: Slab) => Slab
}

/** What opening a descriptor tells, all in SPDK's terms. */
export interface DescriptorInfo {
  readonly name: string
  readonly productName: string
  readonly blockSizeBytes: number
  readonly numBlocks: number
  /** Required alignment of memory, in bytes. */
  readonly bufferAlignmentBytes: number
  readonly writeUnitBlocks: number
  readonly optimalIoBoundaryBlocks: number
  readonly hasWriteCache: boolean
  /** The operations spdk_bdev_io_type_supported answers yes to, by their SPDK names: read, write, unmap, flush, reset, write_zeroes, abort, ... */
  readonly supportedIoTypes: ReadonlyArray<string>
}

export type DescriptorEvent = { readonly _tag: "Removed" } | { readonly _tag: "Resized"; readonly numBlocks: number }

export interface Descriptor extends Handle {
  readonly info: DescriptorInfo
  readonly writable: boolean
}

export interface EngineThread {
  readonly id: number
  readonly name: string
  readonly queue: Queue
}

export interface EnginePoller {
  readonly pause: Effect.Effect<void>
  readonly resume: Effect.Effect<void>
  /** runs: how often the poller function ran; busy: how often it delivered work. */
  readonly stats: Effect.Effect<{ readonly runs: number; readonly busy: number }>
}

/** What is held right now; every number is back at its start when everything is released. */
export interface EngineUsage {
  readonly threads: number
  readonly descriptors: number
  readonly channels: number
  readonly pollers: number
  readonly slabs: number
  readonly dmaBytes: number
  readonly requestsInFlight: number
}

export interface Engine {
  readonly kind: EngineKind
  /** "SPDK v26.05" or "embedded" with the package's version. */
  readonly version: string
  /** One line for people: which engine, its cores, memory, socket. */
  readonly description: string
  /** Where others may connect, when a socket is served. */
  readonly rpcSocket: string | undefined
  readonly rpc: RpcClient["Service"]
  readonly memory: EngineMemory
  /** The thread every fiber is on unless told otherwise. Lives as long as the engine. */
  readonly mainThread: EngineThread
  /** Scoped: release waits for its requests, closes what is left on it, exits it. */
  readonly spawn: (options: {
    readonly name: string
    /** A mask in SPDK notation, `0x3`, or undefined for any core. Already checked against the reactors. */
    readonly cpuMask: string | undefined
  }) => Effect.Effect<EngineThread, SpdkError, Scope.Scope>
  /** Fails with NotFound, Busy (claimed), PermissionDenied as SPDK's errno says. `onEvent` runs on the JS thread. */
  readonly openBdev: (
    name: string,
    options: { readonly write: boolean; readonly onEvent: (event: DescriptorEvent) => void }
  ) => Effect.Effect<Descriptor, SpdkError>
  /** Waits for its channels to close. Idempotent; a no-op after removal. */
  readonly closeBdev: (descriptor: Descriptor) => Effect.Effect<void>
  readonly openChannel: (thread: EngineThread, descriptor: Descriptor) => Effect.Effect<Handle, SpdkError>
  /** Waits for its requests, then puts the channel. Idempotent; a no-op after removal. */
  readonly closeChannel: (thread: EngineThread, channel: Handle) => Effect.Effect<void>
  /** `onTick` runs on the JS thread, at most one undelivered tick, with the runs it stands for. periodMicros 0 is a busy poller. Scoped: unregisters. */
  readonly registerPoller: (
    thread: EngineThread,
    options: { readonly name: string; readonly periodMicros: number; readonly onTick: (runs: number) => void }
  ) => Effect.Effect<EnginePoller, SpdkError, Scope.Scope>
  readonly usage: Effect.Effect<EngineUsage>
}
