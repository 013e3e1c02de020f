/**
 * The waist: what an engine must offer so that everything else in this package works on it. Both engines
 * (internal/libspdk, internal/embedded) fulfil it; public modules know nothing below it.
 */
import type { BlobstoreAnswer, BlobstoreArguments } from "@effect-spdk/native/Addon"
import type { Handle, Queue } from "@effect-spdk/native/Queue"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { RpcClient } from "../../Rpc.ts"
import type { SpdkError } from "../../SpdkError.ts"
import type { EngineDevice } from "./device.ts"
import type { EngineNvme } from "./nvme.ts"

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

/** The properties of an open descriptor, in SPDK's terms. */
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
  /** The supported operations (`spdk_bdev_io_type_supported`), by SPDK's names: read, write, unmap, flush, reset, write_zeroes, abort, ... */
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

/** A loaded blobstore of SPDK's. */
export interface BlobstoreHandle {
  readonly slot: number
  /** The bdev it is on. */
  readonly bdev: string
}

export type { BlobstoreAnswer, BlobstoreArguments }

/** Calls that are answered with what was opened. */
export type BlobstoreStart = "init" | "load" | "loadAndGrow"

/** Calls to a blobstore, in the words of SPDK's functions. The first ones answer what is in memory. */
export type BlobstoreCall =
  | "info"
  | "super"
  | "clones"
  | "unload"
  | "destroy"
  | "grow"
  | "create"
  | "delete"
  | "ids"
  | "setSuper"
  | "snapshot"
  | "clone"
  | "inflate"
  | "decouple"
  | "parent"
  | "setParent"
  | "setExternalParent"
  | "shallowCopy"

export type BlobCall =
  | "info"
  | "xattrs"
  | "nextAllocated"
  | "nextUnallocated"
  | "resize"
  | "sync"
  | "setReadOnly"
  | "setXattr"
  | "removeXattr"

/**
 * SPDK's blobstore. What a call takes and answers, by position, is said where it is carried out, in
 * addon/spdk/blobstore_calls.cc and blobstore_queries.cc of @effect-spdk/native. Nothing here fails: an answer carries its status, 0 or a negative
 * errno, and whoever asked knows what that means for the call. -ESHUTDOWN says that the bdev under the blobstore is gone,
 * -EBADF that the handle is.
 *
 * Calls are uninterruptible: their answer may be a resource.
 */
export interface EngineBlobstores {
  readonly open: (
    call: BlobstoreStart,
    bdev: string,
    args: BlobstoreArguments,
    onProgress: ((done: number) => void) | undefined
  ) => Effect.Effect<BlobstoreAnswer & { readonly store: BlobstoreHandle }>
  readonly call: (
    store: BlobstoreHandle,
    call: BlobstoreCall,
    args?: BlobstoreArguments,
    onProgress?: (done: number) => void
  ) => Effect.Effect<BlobstoreAnswer>
  /**
   * A blob as a descriptor: it takes channels (`Engine.openChannel`) and requests in io units as a bdev does in blocks, and
   * its events arrive like a bdev's. Undefined when the status is not 0.
   */
  readonly openBlob: (
    store: BlobstoreHandle,
    id: number,
    clearMethod: number,
    onEvent: (event: DescriptorEvent) => void
  ) => Effect.Effect<BlobstoreAnswer & { readonly descriptor: Descriptor | undefined }>
  /** Waits for its channels, then closes it, whatever the status. */
  readonly closeBlob: (descriptor: Descriptor) => Effect.Effect<BlobstoreAnswer>
  readonly callBlob: (
    descriptor: Descriptor,
    call: BlobCall,
    args?: BlobstoreArguments
  ) => Effect.Effect<BlobstoreAnswer>
}

/** A blobstore that TypeScript has loaded on this engine's bdevs. */
export interface LoadedInTypeScript {
  readonly openBlobs: number
}

/** The resources that are currently held. Every number is back at its initial value when all resources are released. */
export interface EngineUsage {
  readonly threads: number
  readonly descriptors: number
  readonly channels: number
  readonly pollers: number
  /** Of both drivers. */
  readonly blobstores: number
  /** Open blobs. A blob with several handles counts once. */
  readonly blobs: number
  /** Connected ones, and those that connect or disconnect. */
  readonly nvmeControllers: number
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
  /** Fails with NotFound, Busy (claimed, and by whom), PermissionDenied as SPDK's errno says. `onEvent` runs on the JS thread. */
  readonly openBdev: (
    name: string,
    options: { readonly write: boolean; readonly onEvent: (event: DescriptorEvent) => void }
  ) => Effect.Effect<Descriptor, SpdkError>
  /** Waits for its channels to close. Idempotent; a no-op after removal. */
  readonly closeBdev: (descriptor: Descriptor) => Effect.Effect<void>
  /**
   * For a loaded blobstore: until what is returned has run, or the bdev is removed, nobody opens the bdev for writing or claims
   * it. Who has it open goes on. `Busy`, naming the claimer, when it is claimed.
   */
  readonly claimBdev: (name: string, operation: string) => Effect.Effect<Effect.Effect<void>, SpdkError>
  readonly openChannel: (thread: EngineThread, descriptor: Descriptor) => Effect.Effect<Handle, SpdkError>
  /** Waits for its requests, then puts the channel. Idempotent; a no-op after removal. */
  readonly closeChannel: (thread: EngineThread, channel: Handle) => Effect.Effect<void>
  /** `onTick` runs on the JS thread, at most one undelivered tick, with the runs it stands for. periodMicros 0 is a busy poller. Scoped: unregisters. */
  readonly registerPoller: (
    thread: EngineThread,
    options: { readonly name: string; readonly periodMicros: number; readonly onTick: (runs: number) => void }
  ) => Effect.Effect<EnginePoller, SpdkError, Scope.Scope>
  readonly usage: Effect.Effect<EngineUsage>
  /** Those that are loaded now: `usage` counts them beside the engine's own. */
  readonly loadedInTypeScript: Set<LoadedInTypeScript>
  /** SPDK's own blobstore, where it is in this process. */
  readonly blobstores?: EngineBlobstores
  /** Makes a bdev of an object of this process, until the scope ends, where the engine can. */
  readonly attachDevice?: (name: string, device: EngineDevice) => Effect.Effect<void, SpdkError, Scope.Scope>
  /** The NVMe driver. */
  readonly nvme?: EngineNvme
}
