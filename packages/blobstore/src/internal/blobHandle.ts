/**
 * The handle of an open blob. I/O goes to the driver as it is; what changes metadata waits for its end when its fiber is
 * interrupted, because half-done metadata is worth nothing.
 */
import type { BatchEntry, BdevBatch, IoError } from "@effect-spdk/core/Bdev"
import type { DmaBuffer } from "@effect-spdk/core/DmaBuffer"
import { invalid, type SpdkError } from "@effect-spdk/core/SpdkError"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type * as Sink from "effect/Sink"
import type * as Stream from "effect/Stream"
import type {
  Blob,
  BlobInfo,
  BlobIo,
  BlobRangeOptions,
  BlobXattrs,
  InfoError,
  LookError,
  ReleasedError,
  ResizeError,
  SetReadOnlyError,
  SyncError
} from "../Blob.ts"
import { BlobTypeId } from "./blobTypeId.ts"
import { makeXattrs } from "./blobXattrs.ts"
import { sinkRange, streamRange } from "./blobStream.ts"
import type { BufferPool } from "./bufferPool.ts"
import { type ByteTarget, readBytes, writeBytes } from "./byteIo.ts"
import type { BlobBlockIo, BlobId } from "./driver.ts"
import type { EdgeLocks } from "./edgeLocks.ts"
import type { SharedBlob } from "./openBlobs.ts"
import { checkClusters } from "./options.ts"
import { metadataReasons, only, onlyLooks, permissionIsReadOnly, type Place, releasedBlob } from "./reasons.ts"
import { releasedIo } from "./releasedIo.ts"

const ioReasons = [
  ...metadataReasons,
  "AlreadyExists",
  "Busy",
  "InvalidArgument",
  "Miscompare",
  "NoSpace",
  "NotFound",
  "NotSupported",
  "PermissionDenied",
  "ReadOnly"
] as const

/** What a handle knows of its store. */
export interface StoreContext {
  readonly ioUnitBytes: number
  readonly clusterBytes: number
  readonly pool: BufferPool
  /** Runs a call of the driver to its end; fails with Released when the store is closed. */
  readonly run: <A, E>(operation: string, call: Effect.Effect<A, E>) => Effect.Effect<A, E | ReleasedError>
}

class Target implements ByteTarget {
  io: BlobBlockIo
  isReleased = false
  readonly resource: string
  readonly ioUnitBytes: number
  readonly pool: BufferPool
  readonly shared: SharedBlob
  private readonly clusterBytes: number
  private lastClusters: number | undefined

  constructor(io: BlobBlockIo, shared: SharedBlob, store: StoreContext, resource: string) {
    this.io = io
    this.shared = shared
    this.resource = resource
    this.ioUnitBytes = store.ioUnitBytes
    this.clusterBytes = store.clusterBytes
    this.pool = store.pool
  }

  get edges(): EdgeLocks {
    return this.shared.edges
  }

  /** After the release, what it was then. */
  get sizeBytes(): number {
    return (this.lastClusters ?? this.shared.clusters) * this.clusterBytes
  }

  release(): void {
    if (this.isReleased) return
    this.lastClusters = this.shared.clusters
    this.isReleased = true
    this.io = releasedIo(this.resource)
  }
}

/** Callers without types do pass other things. */
const noEntries = ({ resource }: Target, operation: string): Effect.Effect<never, IoError> =>
  Effect.fail(invalid(operation, "entries", "is not an array", undefined, resource))

class BlobIoImpl implements BlobIo {
  protected readonly target: Target

  constructor(target: Target) {
    this.target = target
  }

  read(offsetBytes: number, buffer: DmaBuffer): Effect.Effect<void, IoError> {
    return this.target.io.read(offsetBytes, buffer)
  }

  write(offsetBytes: number, buffer: DmaBuffer): Effect.Effect<void, IoError> {
    return this.target.io.write(offsetBytes, buffer)
  }

  readv(offsetBytes: number, buffers: ReadonlyArray<DmaBuffer>): Effect.Effect<void, IoError> {
    return this.target.io.readv(offsetBytes, buffers)
  }

  writev(offsetBytes: number, buffers: ReadonlyArray<DmaBuffer>): Effect.Effect<void, IoError> {
    return this.target.io.writev(offsetBytes, buffers)
  }

  unmap(offsetBytes: number, lengthBytes: number): Effect.Effect<void, IoError> {
    return this.target.io.unmap(offsetBytes, lengthBytes)
  }

  writeZeroes(offsetBytes: number, lengthBytes: number): Effect.Effect<void, IoError> {
    return this.target.io.writeZeroes(offsetBytes, lengthBytes)
  }

  readBatch(entries: ReadonlyArray<BatchEntry>): Effect.Effect<void, IoError> {
    return Array.isArray(entries) ? this.target.io.readBatch(entries) : noEntries(this.target, "Blob.readBatch")
  }

  writeBatch(entries: ReadonlyArray<BatchEntry>): Effect.Effect<void, IoError> {
    return Array.isArray(entries) ? this.target.io.writeBatch(entries) : noEntries(this.target, "Blob.writeBatch")
  }

  prepareReads(entries: ReadonlyArray<BatchEntry>): Effect.Effect<BdevBatch, IoError> {
    return Array.isArray(entries) ? this.target.io.prepareReads(entries) : noEntries(this.target, "Blob.prepareReads")
  }

  prepareWrites(entries: ReadonlyArray<BatchEntry>): Effect.Effect<BdevBatch, IoError> {
    return Array.isArray(entries) ? this.target.io.prepareWrites(entries) : noEntries(this.target, "Blob.prepareWrites")
  }

  readBytes(offsetBytes: number, lengthBytes: number): Effect.Effect<Uint8Array, IoError> {
    return readBytes(this.target, offsetBytes, lengthBytes)
  }

  writeBytes(offsetBytes: number, bytes: Uint8Array): Effect.Effect<void, IoError> {
    return writeBytes(this.target, offsetBytes, bytes)
  }

  stream(options?: BlobRangeOptions): Stream.Stream<Uint8Array, IoError> {
    return streamRange(this.target, options)
  }

  sink(options?: BlobRangeOptions): Sink.Sink<number, Uint8Array, never, IoError> {
    return sinkRange(this.target, options)
  }
}

export class BlobImpl extends BlobIoImpl implements Blob {
  readonly [BlobTypeId] = BlobTypeId
  readonly xattrs: BlobXattrs
  private readonly store: StoreContext
  private readonly channels = new Set<Target>()

  constructor(shared: SharedBlob, store: StoreContext, resource: string) {
    super(new Target(shared.open.io, shared, store, resource))
    this.store = store
    this.xattrs = makeXattrs({
      resource,
      open: (operation) => Effect.suspend(() => this.released(operation) ?? Effect.succeed(shared.open)),
      change: (operation, call) => this.change(operation, call)
    })
  }

  get id(): BlobId {
    return this.target.shared.open.id
  }

  get ioUnitBytes(): number {
    return this.target.ioUnitBytes
  }

  get clusterBytes(): number {
    return this.store.clusterBytes
  }

  get sizeBytes(): number {
    return this.target.sizeBytes
  }

  get info(): Effect.Effect<BlobInfo, InfoError> {
    return Effect.suspend(() => {
      const released = this.released("Blob.info")
      if (released !== undefined) return released
      const { clusterBytes } = this
      return Effect.map(onlyLooks(this.target.shared.open.info), (info) => {
        const allocatedBytes = info.allocatedClusters * clusterBytes
        return { ...info, sizeBytes: info.clusters * clusterBytes, allocatedBytes }
      })
    })
  }

  resize(size: number | string | { readonly clusters: number }): Effect.Effect<void, ResizeError> {
    const place = this.place("Blob.resize")
    const wanted = typeof size === "object" && size !== null ? { clusters: size.clusters } : { size }
    return Effect.flatMap(
      typeof size === "object" && size?.clusters === undefined
        ? Effect.fail(invalid(place.operation, "size", "has neither bytes nor clusters", undefined, place.resource))
        : checkClusters(place, wanted, this.store.clusterBytes),
      (clusters) => this.change(place.operation, this.target.shared.resize(clusters))
    ).pipe(
      permissionIsReadOnly(place),
      only(place, [...metadataReasons, "Busy", "InvalidArgument", "NoSpace", "ReadOnly"])
    )
  }

  get sync(): Effect.Effect<void, SyncError> {
    const place = this.place("Blob.sync")
    return this.change(place.operation, this.target.shared.open.sync).pipe(
      only(place, [...metadataReasons, "Busy", "NoSpace"])
    )
  }

  get setReadOnly(): Effect.Effect<void, SetReadOnlyError> {
    const place = this.place("Blob.setReadOnly")
    const { open } = this.target.shared
    // A second time would change metadata that must not change any more.
    const set = Effect.flatMap(open.info, ({ isReadOnly }) => (isReadOnly ? Effect.void : open.setReadOnly))
    return this.change(place.operation, set).pipe(
      permissionIsReadOnly(place),
      only(place, [...metadataReasons, "Busy", "ReadOnly"])
    )
  }

  nextAllocated(offsetBytes: number): Effect.Effect<Option.Option<number>, LookError> {
    return this.next("Blob.nextAllocated", offsetBytes, (ioUnit) => this.target.shared.open.nextAllocated(ioUnit))
  }

  nextUnallocated(offsetBytes: number): Effect.Effect<Option.Option<number>, LookError> {
    return this.next("Blob.nextUnallocated", offsetBytes, (ioUnit) => this.target.shared.open.nextUnallocated(ioUnit))
  }

  get channel(): Effect.Effect<BlobIo, IoError, Scope.Scope> {
    return Effect.suspend(() => {
      const { resource, shared } = this.target
      const released = this.released("Blob.channel")
      if (released !== undefined) return released
      return Effect.uninterruptible(
        Effect.flatMap(only(this.place("Blob.channel"), ioReasons)(shared.open.channel), (io) => {
          const target = new Target(io, shared, this.store, resource)
          this.channels.add(target)
          // Runs before the driver closes the channel.
          const detach = Effect.sync(() => {
            this.channels.delete(target)
            target.release()
          })
          return Effect.as(
            Effect.addFinalizer(() => detach),
            new BlobIoImpl(target)
          )
        })
      )
    })
  }

  /** From now on everything fails with Released. */
  readonly detach = (): void => {
    this.target.release()
    for (const channel of this.channels) channel.release()
    this.channels.clear()
  }

  toJSON(): unknown {
    const { id, sizeBytes, clusterBytes, ioUnitBytes } = this
    return { _id: "Blob", id, sizeBytes, clusterBytes, ioUnitBytes, isReleased: this.target.isReleased }
  }

  private place(operation: string): Place {
    return { operation, resource: this.target.resource }
  }

  private released(operation: string): Effect.Effect<never, ReleasedError> | undefined {
    return this.target.isReleased ? Effect.fail(releasedBlob(operation, this.target.resource)) : undefined
  }

  private change<A>(operation: string, call: Effect.Effect<A, SpdkError>): Effect.Effect<A, SpdkError> {
    return Effect.suspend(() => this.released(operation) ?? this.store.run(operation, call))
  }

  private next(
    operation: string,
    offsetBytes: number,
    find: (ioUnit: number) => Effect.Effect<number | undefined, SpdkError>
  ): Effect.Effect<Option.Option<number>, LookError> {
    return Effect.suspend((): Effect.Effect<Option.Option<number>, LookError> => {
      const released = this.released(operation)
      if (released !== undefined) return released
      if (!Number.isSafeInteger(offsetBytes) || offsetBytes < 0) {
        const rule = "is not a whole number of bytes"
        return Effect.fail(invalid(operation, "offsetBytes", rule, offsetBytes, this.target.resource))
      }
      const { ioUnitBytes, sizeBytes } = this
      if (offsetBytes >= sizeBytes) return Effect.succeedNone
      return Effect.map(onlyLooks(find(Math.floor(offsetBytes / ioUnitBytes))), (found) =>
        Option.map(Option.fromUndefinedOr(found), (ioUnit) => Math.max(offsetBytes, ioUnit * ioUnitBytes))
      )
    })
  }
}
