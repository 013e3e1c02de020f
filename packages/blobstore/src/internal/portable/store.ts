/** A loaded store: what is used, which blobs are open, and the lock that all changes of metadata take. */
import type { EngineService } from "@effect-spdk/core/Engine"
import type { IoError } from "@effect-spdk/core/Bdev"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import { blobName } from "../blobName.ts"
import type { BlobId, DriverStoreInfo } from "../driver.ts"
import { BitSet } from "../format/bitSet.ts"
import type { StoreLimits } from "../format/blobMeta.ts"
import type { Damage } from "../format/damage.ts"
import { encodeSuperBlock, metadataClusters, type SuperBlock, totalClusters } from "../format/superBlock.ts"
import type { BlobState } from "./blob.ts"
import type { Device } from "./device.ts"

export class Store {
  readonly device: Device
  /** Of the buffers; it closes last. */
  readonly scope: Scope.Closeable
  readonly services: Context.Context<EngineService>
  readonly ioUnitBytes: number
  readonly clusterBytes: number
  readonly pageBytes: number
  readonly usedPages: BitSet
  readonly usedBlobIds: BitSet
  usedClusters: BitSet
  /** Free clusters that read as zeroes, durably: the rest of one that a part is written to needs no more. */
  zeroed: BitSet
  /** Free clusters that hold what somebody wrote: they are cleared before another blob gets them. */
  soiled: BitSet
  /** In more than one blob when the store was recovered: nobody knows whose they are, and they are never given back. */
  disputed: ReadonlySet<number> = new Set()
  disputedPages: ReadonlySet<number> = new Set()
  /** Blobs with clusters that wait until the device has been told that they are not theirs. */
  readonly unsettled = new Set<BlobState>()
  /** As on the device, `clean` included. */
  superBlock: SuperBlock
  superBytes: Uint8Array | undefined
  /** Blobs that cannot be opened, by their first page, as far as somebody has looked. */
  readonly unreadable = new Map<number, Damage>()
  /** First pages that the device may have and must not, and what comes before and after they are cleared. */
  readonly doomed = new Map<
    number,
    { readonly before: Effect.Effect<void, IoError>; readonly after: Effect.Effect<void> }
  >()
  private isExecuting = false
  /** Whether all blobs have been looked at. */
  isVerified = false
  readonly open = new Map<BlobId, BlobState>()
  /** Those of them that somebody above has open. */
  openBlobs = 0
  /** Blobs that nobody has open, and that could not be written when they closed. Whoever opens them gets them from here. */
  readonly kept = new Map<BlobId, BlobState>()
  /** Blobs whose parents are being opened: chains that go round stop here. */
  readonly opening = new Set<BlobId>()
  /** Per snapshot, in the order they became its clones. SPDK keeps a snapshot here when its last clone has gone. */
  readonly clones = new Map<BlobId, Array<BlobId>>()
  /** A write of the super block failed: the device may have the old one or the new one. */
  private superUnsure = false
  /**
   * A failed write of metadata could not be made good, so the device may refer to pages and clusters that no blob in memory
   * has. They stay claimed, and the store stays unclean, so that the next load finds out.
   */
  suspect = false
  private readonly lock = Semaphore.makeUnsafe(1)

  constructor(options: {
    readonly device: Device
    readonly scope: Scope.Closeable
    readonly services: Context.Context<EngineService>
    readonly superBlock: SuperBlock
    readonly superBytes: Uint8Array | undefined
    readonly usedPages?: BitSet
    readonly usedBlobIds?: BitSet
    readonly usedClusters?: BitSet
  }) {
    const { superBlock } = options
    this.device = options.device
    this.scope = options.scope
    this.services = options.services
    this.superBlock = superBlock
    this.superBytes = options.superBytes
    this.ioUnitBytes = superBlock.ioUnitSize
    this.clusterBytes = superBlock.clusterSize
    this.pageBytes = superBlock.mdPageSize
    this.usedPages = options.usedPages ?? new BitSet(superBlock.mdLength)
    this.usedBlobIds = options.usedBlobIds ?? new BitSet(superBlock.mdLength)
    this.usedClusters = options.usedClusters ?? new BitSet(totalClusters(superBlock))
    this.zeroed = new BitSet(this.usedClusters.size)
    this.soiled = new BitSet(this.usedClusters.size)
    if (options.usedClusters === undefined) this.claimMetadata()
  }

  /** The clusters at the front that hold the metadata. */
  claimMetadata(): void {
    for (let i = 0; i < metadataClusters(this.superBlock); i++) this.usedClusters.add(i)
  }

  get limits(): StoreLimits {
    return {
      firstCluster: metadataClusters(this.superBlock),
      totalClusters: totalClusters(this.superBlock),
      mdPages: this.superBlock.mdLength
    }
  }

  /** With those that are free once their blobs are settled. */
  get freeClusters(): number {
    let held = 0
    for (const blob of this.unsettled) held += blob.staleClusters.length
    return this.usedClusters.size - this.usedClusters.count + held
  }

  /** The device has grown, and these are all the clusters now. */
  growClusters(clusters: number): void {
    const grown = (bits: BitSet) => BitSet.fromBytes(bits.toBytes(), clusters)
    this.usedClusters = grown(this.usedClusters)
    this.zeroed = grown(this.zeroed)
    this.soiled = grown(this.soiled)
  }

  info(): DriverStoreInfo {
    const { superBlock } = this
    return {
      type: superBlock.type,
      clusterSizeBytes: this.clusterBytes,
      totalClusters: totalClusters(superBlock) - metadataClusters(superBlock),
      freeClusters: this.freeClusters,
      ioUnitBytes: this.ioUnitBytes,
      pageBytes: this.pageBytes
    }
  }

  /**
   * One change of metadata at a time. Waiting for the turn can be interrupted; a change that has begun goes on to its end,
   * which the device bounds.
   */
  change<A, E, R>(body: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> {
    return this.lock.withPermit(Effect.uninterruptible(body))
  }

  nameOf(id: BlobId): string {
    return blobName(this.device.bdev.name, id)
  }

  pageOffset(page: number): number {
    return (this.superBlock.mdStart + page) * this.pageBytes
  }

  readPage(page: number): Effect.Effect<Uint8Array, IoError> {
    return this.device.read(this.pageOffset(page), this.pageBytes)
  }

  /** A page of metadata as a write; what a larger page has after the first 4096 bytes is 0. */
  pageWrite(page: number, bytes: Uint8Array): { readonly offsetBytes: number; readonly bytes: Uint8Array } {
    if (bytes.length === this.pageBytes) return { offsetBytes: this.pageOffset(page), bytes }
    const whole = new Uint8Array(this.pageBytes)
    whole.set(bytes)
    return { offsetBytes: this.pageOffset(page), bytes: whole }
  }

  zeroPages(pages: ReadonlyArray<number>): Effect.Effect<void, IoError> {
    return this.device.zeroAll(
      pages.filter((page) => !this.disputedPages.has(page)).map((page) => this.pageOffset(page)),
      this.pageBytes
    )
  }

  releasePages(pages: Iterable<number>): void {
    for (const page of pages) if (!this.disputedPages.has(page)) this.usedPages.delete(page)
  }

  /** Writes the super block with these changes and waits until it is durable. */
  writeSuper(changes: Partial<SuperBlock>): Effect.Effect<void, IoError> {
    return Effect.suspend(() => {
      const next = { ...this.superBlock, ...changes }
      const bytes = encodeSuperBlock(next, this.superBytes)
      return this.device.write(0, bytes).pipe(
        Effect.andThen(this.device.flush),
        Effect.andThen(
          Effect.sync(() => {
            this.superBlock = next
            this.superBytes = bytes
            this.superUnsure = false
          })
        ),
        Effect.onError(() =>
          Effect.sync(() => {
            this.superUnsure = true
          })
        )
      )
    })
  }

  /** Whether the device says that the masks are right. */
  get isClean(): boolean {
    return this.superBlock.clean && !this.superUnsure
  }

  /**
   * Before anything else of the metadata changes: from now on a load has to recover, and what is doomed goes first, because it may
   * lead to pages that others are about to change.
   */
  get markDirty(): Effect.Effect<void, IoError> {
    return Effect.suspend(() => {
      const unclean = this.superBlock.clean || this.superUnsure ? this.writeSuper({ clean: false }) : Effect.void
      return this.doomed.size === 0 || this.isExecuting ? unclean : Effect.andThen(unclean, this.execute)
    })
  }

  /** Takes from the device what is not to be there. The first failure ends it. */
  readonly execute: Effect.Effect<void, IoError> = Effect.suspend(() => {
    this.isExecuting = true
    return Effect.forEach(
      [...this.doomed],
      ([root, { before, after }]) =>
        before.pipe(
          Effect.andThen(this.zeroPages([root])),
          Effect.andThen(this.device.flush),
          Effect.andThen(Effect.sync(() => void this.doomed.delete(root))),
          Effect.andThen(after)
        ),
      { discard: true }
    ).pipe(
      Effect.ensuring(
        Effect.sync(() => {
          this.isExecuting = false
        })
      )
    )
  })

  fail(): void {
    this.suspect = true
  }

  addClone(blob: BlobState): void {
    if (typeof blob.parentId === "number") this.addCloneOf(blob.parentId, blob.id)
  }

  addCloneOf(snapshot: BlobId, id: BlobId): void {
    const clones = this.clones.get(snapshot)
    if (clones === undefined) this.clones.set(snapshot, [id])
    else if (!clones.includes(id)) clones.push(id)
  }

  removeClone(blob: BlobState): void {
    const clones = typeof blob.parentId === "number" ? this.clones.get(blob.parentId) : undefined
    const index = clones?.indexOf(blob.id) ?? -1
    if (index >= 0) clones?.splice(index, 1)
  }
}
