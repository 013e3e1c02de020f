/**
 * The exports of the addon. This file and `Layout.ts` are the contract between TypeScript and C++. The addon and this
 * package (`internal/abi.ts`) each contain a hash of both files. An addon with another hash is refused. Every function
 * returns at once. The result of a longer operation arrives as an event with the caller's request number; `Host` hides
 * the numbers.
 */

export interface StartOptions {
  readonly name: string
  /** Cores in SPDK's list notation, `[0,2]`. */
  readonly cores: string
  readonly rpcSocket: string
  /** The directory is removed when the process exits. "": none. */
  readonly rpcDirectory: string
  /** A link to the socket, which is removed when the process exits. "": none. */
  readonly rpcLink: string
  readonly logLevel: string
  readonly pciAllowed: ReadonlyArray<string>
  readonly pciBlocked: ReadonlyArray<string>
  readonly memoryMiB: number
  readonly hugepages: boolean
  readonly pci: boolean
  readonly adaptive: boolean
  /** Makes SPDK wait for `framework_start_init` before it starts its subsystems. */
  readonly waitForRpc: boolean
  /** A later start with a different key fails with -EEXIST and receives this key. */
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
  /** Absent when there are none. */
  readonly bytes?: Uint8Array
}

/**
 * The arguments of a call to a blobstore or a blob, by position. addon/spdk/blobstore_calls.cc and blobstore_queries.cc
 * describe them for each call. An absent argument is 0 or "".
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
  /** Numbers are 64-bit floating point. Absent when there are none. */
  readonly bytes?: Uint8Array
}

/** The SPDK resources that this process holds, over all its JavaScript threads. */
export interface Usage {
  readonly threads: number
  readonly descriptors: number
  readonly channels: number
  readonly pollers: number
  readonly blobstores: number
  /** Open blobs. */
  readonly blobs: number
  /** Connected controllers, including those that are connecting or disconnecting. */
  readonly nvmeControllers: number
  readonly slabs: number
  readonly dmaBytes: number
}

/**
 * The address of the controller and the identity of the host. Times are in milliseconds; 0 is no limit. A text that is
 * not given is "".
 */
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
  /** The version of SPDK. */
  readonly version: string
  /** The hash of the sources that the addon was compiled from. Absent in an older addon. */
  readonly abi?: string
  /** `events`: there are events to drain. `sharesProcessor`: the current result of that function. */
  attach(onWake: (events: boolean, sharesProcessor: boolean) => void): void
  keepAlive(alive: boolean): void
  /** Whether a reactor with a queue of this thread runs on the processor that this thread runs on now. */
  sharesProcessor(): boolean
  /**
   * Yields this thread's processor to other threads, and returns when they yield it. Reactors of this thread's queues
   * on that processor know that this thread waits. Returns the same as `sharesProcessor`.
   */
  giveWay(): boolean
  drain(): { readonly events: ReadonlyArray<AddonEvent>; readonly droppedLogLines: number }
  start(request: number, options: StartOptions): void
  /** `start` is the request number of the call to `start`. */
  release(start: number): void
  /**
   * Claims the right to apply SPDK's JSON configuration, across all threads of this process. The release of a start,
   * and the end of its thread, release the claim. The status is one of:
   *
   * - 0: this start applies the configuration, then calls `settleConfig`.
   * - -EALREADY: the same text has been applied.
   * - -EEXIST: another text has been applied, returned as `text`.
   * - -EAGAIN: another start is applying one.
   */
  claimConfig(start: number, text: string): { readonly status: number; readonly text: string }
  /** With `isApplied` false, the next claim starts anew. */
  settleConfig(start: number, isApplied: boolean): void
  cores(): ReadonlyArray<number>
  spawn(request: number, name: string, cpuMask: string, sqEntries: number, cqEntries: number): void
  ring(queue: number): ArrayBuffer | undefined
  exit(request: number, queue: number): void
  kick(queue: number): void
  bdevOpen(request: number, name: string, write: boolean): void
  /**
   * Claims the bdev for a loaded blobstore. SPDK then opens the bdev for writing for no other user. `bdevClose`
   * releases the claim.
   */
  bdevClaim(request: number, name: string): void
  bdevClaimOf(request: number, name: string): void
  /** Closes a bdev, a claim, a blob or an NVMe namespace. */
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
  /** `target` is the blobstore, or the blob for names that start with "blob."; 0 for calls that open a blobstore. */
  blobstoreCall(
    request: number,
    name: string,
    target: number,
    numbers: ReadonlyArray<number>,
    texts: ReadonlyArray<string>,
    values: ReadonlyArray<Uint8Array>
  ): void
  /** Returns the controller's number before the controller is connected. */
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
  /** `request` is the request number of the call to `nvmeAdmin`. */
  nvmeAbort(controller: number, request: number): void
  nvmeScan(request: number, trtype: string): void
  usage(): Usage
}
