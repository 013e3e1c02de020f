/**
 * What the addon exports. This file and `Layout.ts` are the contract between TypeScript and C++: a hash of both stands in the addon
 * and here (`internal/abi.ts`), and an addon with another one is not used. Every function returns at once; what takes time is
 * answered by an event that carries the request number the caller chose (`Host` hides that).
 */

export interface StartOptions {
  readonly name: string
  /** Cores in SPDK's list notation, `[0,2]`. */
  readonly cores: string
  readonly rpcSocket: string
  /** Removed when the process exits; "" for none. */
  readonly rpcDirectory: string
  /** A link to the socket, removed when the process exits; "" for none. */
  readonly rpcLink: string
  readonly logLevel: string
  readonly pciAllowed: ReadonlyArray<string>
  readonly pciBlocked: ReadonlyArray<string>
  readonly memoryMiB: number
  readonly hugepages: boolean
  readonly pci: boolean
  readonly adaptive: boolean
  /** SPDK waits for `framework_start_init` before it starts its subsystems. */
  readonly waitForRpc: boolean
  /** A later start with another key is refused with -EEXIST and told this one. */
  readonly key: string
}

export const EventKind = { Reply: 0, Removed: 1, Resized: 2, Log: 3, Progress: 4, Nvme: 5 } as const

export interface AddonEvent {
  readonly kind: number
  readonly id: number
  readonly status: number
  readonly a: number
  readonly b: number
  readonly c: number
  readonly text: string
  /** Not there when there are none. */
  readonly bytes?: Uint8Array
}

/**
 * What a call to a blobstore or a blob takes, by position; addon/spdk/blobstore_calls.cc and blobstore_queries.cc say it of each. What is left out
 * counts as 0 and "".
 */
export interface BlobstoreArguments {
  readonly numbers?: ReadonlyArray<number>
  readonly texts?: ReadonlyArray<string>
  readonly values?: ReadonlyArray<Uint8Array>
}

export interface BlobstoreAnswer {
  /** 0 or a negative errno. */
  readonly status: number
  readonly text: string
  /** Numbers come as 64-bit floating point. Not there when there are none. */
  readonly bytes?: Uint8Array
}

/** What this process (every JavaScript thread of it) holds of SPDK's. */
export interface Usage {
  readonly threads: number
  readonly descriptors: number
  readonly channels: number
  readonly pollers: number
  readonly blobstores: number
  /** Open ones. */
  readonly blobs: number
  /** Connected ones, and those that connect or disconnect. */
  readonly nvmeControllers: number
  readonly slabs: number
  readonly dmaBytes: number
}

/** Where to connect, and as whom. Times in milliseconds, 0 for no limit; "" for texts that are not given. */
export interface NvmeConnectOptions {
  readonly trtype: string
  readonly adrfam: string
  readonly traddr: string
  readonly trsvcid: string
  readonly subnqn: string
  readonly priority: number
  readonly hostnqn: string
  /** 16 bytes. */
  readonly hostId: Uint8Array
  readonly sourceAddress: string
  readonly sourcePort: string
  readonly ioQueues: number
  readonly ioQueueSize: number
  readonly adminQueueSize: number
  readonly keepAliveMillis: number
  readonly connectTimeoutMillis: number
  readonly adminTimeoutMillis: number
  readonly ioTimeoutMillis: number
  readonly headerDigest: boolean
  readonly dataDigest: boolean
  readonly retries: number
  readonly psk: string
  readonly dhchapKey: string
  readonly dhchapControllerKey: string
}

export const PollerAction = { Stats: 0, Pause: 1, Resume: 2, Unregister: 3 } as const
export type PollerAction = (typeof PollerAction)[keyof typeof PollerAction]

export interface Addon {
  /** Of SPDK. */
  readonly version: string
  /** The hash of the sources that it was compiled from; not there in an addon older than that. */
  readonly abi?: string
  /** `events`: there is something to drain. `sharesProcessor`: as of that function, at this moment. */
  attach(onWake: (events: boolean, sharesProcessor: boolean) => void): void
  keepAlive(alive: boolean): void
  /** Whether a reactor that has a queue of this thread runs on the very processor that this thread is on now. */
  sharesProcessor(): boolean
  /**
   * Lets others have the processor that this thread is on, and returns when they let go of it. Reactors of this thread's queues that
   * run there know that it waits. The answer is that of `sharesProcessor`.
   */
  giveWay(): boolean
  drain(): { readonly events: ReadonlyArray<AddonEvent>; readonly droppedLogLines: number }
  start(request: number, options: StartOptions): void
  /** `start` is the request number of that call. */
  release(start: number): void
  /**
   * Who applies SPDK's JSON configuration, in all threads of this process: status 0 says that this start does, and then settles
   * it; -EALREADY that the same text has been applied; -EEXIST that another has, which `text` is; -EAGAIN that somebody is at
   * it. The release of a start, and the end of its thread, gives up what it has claimed.
   */
  claimConfig(start: number, text: string): { readonly status: number; readonly text: string }
  /** When it is not applied, the next claim is as the first. */
  settleConfig(start: number, isApplied: boolean): void
  cores(): ReadonlyArray<number>
  spawn(request: number, name: string, cpuMask: string, sqEntries: number, cqEntries: number): void
  ring(queue: number): ArrayBuffer | undefined
  exit(request: number, queue: number): void
  kick(queue: number): void
  bdevOpen(request: number, name: string, write: boolean): void
  /** For a loaded blobstore: SPDK opens the bdev for writing for nobody else. Given back by `bdevClose`. */
  bdevClaim(request: number, name: string): void
  bdevClaimOf(request: number, name: string): void
  /** Of a bdev, a claim, a blob or an NVMe namespace. */
  bdevClose(request: number, target: number): void
  channelOpen(request: number, queue: number, target: number): void
  channelClose(request: number, queue: number, slot: number, generation: number): void
  pollerRegister(request: number, queue: number, id: number, name: string, periodMicros: number): void
  pollerControl(request: number, queue: number, id: number, action: PollerAction): void
  dmaAllocate(request: number, lengthBytes: number, alignmentBytes: number): void
  dmaAllocateNow(lengthBytes: number, alignmentBytes: number): readonly [slot: number, generation: number] | number
  dmaView(slot: number, generation: number): ArrayBuffer | undefined
  dmaFree(slot: number, generation: number, view: ArrayBufferLike): void
  dmaRenew(slot: number, generation: number, view: ArrayBufferLike): number
  /** `target` is the blobstore, or the blob for names that start with "blob."; 0 for what opens a blobstore. */
  blobstoreCall(
    request: number,
    name: string,
    target: number,
    numbers: ReadonlyArray<number>,
    texts: ReadonlyArray<string>,
    values: ReadonlyArray<Uint8Array>
  ): void
  /** Answers with the controller's number before it is connected. */
  nvmeConnect(request: number, options: NvmeConnectOptions): number
  nvmeCall(request: number, controller: number, name: string): void
  nvmeOpen(request: number, controller: number, nsid: number): void
  /** `lengthBytes` 0: no data. */
  nvmeAdmin(
    request: number,
    controller: number,
    command: Uint8Array,
    slabSlot: number,
    slabGeneration: number,
    offsetBytes: number,
    lengthBytes: number
  ): void
  /** `request` is the number of that `nvmeAdmin`. */
  nvmeAbort(controller: number, request: number): void
  nvmeScan(request: number, trtype: string): void
  usage(): Usage
}
