/**
 * The I/O of an open blob. A request inside of one cluster that the blob has is one request of the bdev at another
 * offset; everything else goes piece by piece.
 */
import type { BatchEntry, BdevBatch, BdevIo, IoError } from "@effect-spdk/core/Bdev"
import type { DmaBuffer } from "@effect-spdk/core/DmaBuffer"
import { mapped, type MappedIo } from "@effect-spdk/core/Engine"
import * as Effect from "effect/Effect"
import type { BlobBlockIo } from "../driver.ts"
import { BlobBatch } from "./blobBatch.ts"
import { type BlobState } from "./blob.ts"
import { allocate, release, releasesClusters } from "./clusters.ts"
import * as Check from "./ioCheck.ts"
import { readBacking, source } from "./source.ts"
import type { Store } from "./store.ts"

/** Whether this open of the blob has ended. */
export interface Handle {
  isClosed: boolean
}

/** A part of a request: in one cluster of the blob, or in several that lie side by side on the device. */
interface Piece {
  readonly offsetBytes: number
  readonly lengthBytes: number
  readonly index: number
  /** On the device; 0: none. */
  readonly cluster: number
}

export class PortableBlobIo implements BlobBlockIo {
  private readonly store: Store
  readonly blob: BlobState
  private readonly handle: Handle
  private readonly io: BdevIo
  private readonly inOneCluster: MappedIo

  /** `io` is the bdev, or a channel of it. */
  constructor(store: Store, blob: BlobState, handle: Handle, io: BdevIo) {
    this.store = store
    this.blob = blob
    this.handle = handle
    this.io = io
    this.inOneCluster = mapped(
      io,
      {
        enter: (offsetBytes, lengthBytes, writes) => this.enter(offsetBytes, lengthBytes, writes),
        leave: () => blob.gate.leave()
      },
      {
        read: (offsetBytes, buffer) =>
          blob.gate.shared(() => this.readSlow("Blob.read", offsetBytes, [buffer], "buffer")),
        write: (offsetBytes, buffer) =>
          blob.gate.shared(() => this.writeSlow("Blob.write", offsetBytes, [buffer], "buffer"))
      }
    )
  }

  /** What lies in one cluster goes straight to the bdev; the rest, and what comes during a change of the clusters, does not. */
  read(offsetBytes: number, buffer: DmaBuffer): Effect.Effect<void, IoError> {
    return this.inOneCluster.read(offsetBytes, buffer)
  }

  write(offsetBytes: number, buffer: DmaBuffer): Effect.Effect<void, IoError> {
    return this.inOneCluster.write(offsetBytes, buffer)
  }

  readv(offsetBytes: number, buffers: ReadonlyArray<DmaBuffer>): Effect.Effect<void, IoError> {
    return this.blob.gate.shared(() => {
      const at = this.handle.isClosed ? -1 : this.translate(offsetBytes, Check.totalBytes(buffers))
      return at >= 0 ? this.io.readv(at, buffers) : this.readSlow("Blob.readv", offsetBytes, buffers, "buffers")
    })
  }

  writev(offsetBytes: number, buffers: ReadonlyArray<DmaBuffer>): Effect.Effect<void, IoError> {
    return this.blob.gate.shared(() => {
      const isOpen = !this.handle.isClosed && !this.blob.dataReadOnly
      const at = isOpen ? this.translate(offsetBytes, Check.totalBytes(buffers)) : -1
      return at >= 0 ? this.io.writev(at, buffers) : this.writeSlow("Blob.writev", offsetBytes, buffers, "buffers")
    })
  }

  unmap(offsetBytes: number, lengthBytes: number): Effect.Effect<void, IoError> {
    return Effect.suspend(() => {
      const refused = this.refuse("Blob.unmap", offsetBytes, lengthBytes, true)
      if (refused !== undefined) return Effect.fail(refused)
      const { clusterBytes } = this.store
      // Cluster by cluster: what a piece is, and whether it is given back, is seen when its turn comes.
      return eachPart(offsetBytes, lengthBytes, clusterBytes, (at, length) => this.unmapPart(at, length))
    })
  }

  writeZeroes(offsetBytes: number, lengthBytes: number): Effect.Effect<void, IoError> {
    return this.blob.gate.shared(() => {
      const refused = this.refuse("Blob.writeZeroes", offsetBytes, lengthBytes, true)
      if (refused !== undefined) return Effect.fail(refused)
      return this.eachPiece(offsetBytes, lengthBytes, (piece) =>
        piece.cluster !== 0
          ? this.store.device.zero(this.onDevice(piece), piece.lengthBytes, this.io)
          : this.fill(piece, (at) => this.store.device.zero(at, piece.lengthBytes, this.io))
      )
    })
  }

  readBatch(entries: ReadonlyArray<BatchEntry>): Effect.Effect<void, IoError> {
    return Effect.flatMap(this.prepare(entries, false, "Blob.readBatch"), (batch) => batch.run)
  }

  writeBatch(entries: ReadonlyArray<BatchEntry>): Effect.Effect<void, IoError> {
    return Effect.flatMap(this.prepare(entries, true, "Blob.writeBatch"), (batch) => batch.run)
  }

  prepareReads(entries: ReadonlyArray<BatchEntry>): Effect.Effect<BdevBatch, IoError> {
    return this.prepare(entries, false, "Blob.prepareReads")
  }

  prepareWrites(entries: ReadonlyArray<BatchEntry>): Effect.Effect<BdevBatch, IoError> {
    return this.prepare(entries, true, "Blob.prepareWrites")
  }

  private enter(offsetBytes: number, lengthBytes: number, writes: boolean): number {
    if (this.handle.isClosed || (writes && this.blob.dataReadOnly)) return -1
    const at = this.translate(offsetBytes, lengthBytes)
    return at >= 0 && this.blob.gate.tryEnter() ? at : -1
  }

  /** Where whole io units inside one cluster of the blob lie on the device; -1 when it is not that simple. */
  translate(offsetBytes: number, lengthBytes: number): number {
    const { blob } = this
    const { clusterBytes, ioUnitBytes } = this.store
    const index = Math.floor(offsetBytes / clusterBytes)
    const inside = offsetBytes - index * clusterBytes
    // What is no number, negative or past the end fails one of these.
    if (!(index >= 0 && index < blob.clusterCount && lengthBytes > 0 && inside + lengthBytes <= clusterBytes)) return -1
    if (inside % ioUnitBytes !== 0 || lengthBytes % ioUnitBytes !== 0) return -1
    const cluster = blob.clusters[index] ?? 0
    return cluster === 0 ? -1 : cluster * clusterBytes + inside
  }

  refuse(
    operation: string,
    offsetBytes: number,
    lengthBytes: number,
    writes: boolean,
    lengthField = "lengthBytes",
    path = ""
  ): IoError | undefined {
    const { blob, handle, store } = this
    if (handle.isClosed) return Check.refusedClosed(operation, blob)
    if (writes && blob.dataReadOnly) return Check.refusedReadOnly(operation, blob)
    return Check.refusedRange(store, blob, operation, offsetBytes, lengthBytes, lengthField, path)
  }

  private prepare(
    entries: ReadonlyArray<BatchEntry>,
    writes: boolean,
    operation: string
  ): Effect.Effect<BdevBatch, IoError> {
    return Effect.suspend(() => {
      for (const [i, entry] of entries.entries()) {
        const path = `entries[${i}].`
        const length = entry?.buffer?.byteLength ?? 0
        const refused =
          Check.refusedBuffers(this.blob, operation, [entry?.buffer], `${path}buffer`) ??
          this.refuse(operation, entry.offsetBytes, length, writes, "buffer.byteLength", path)
        if (refused !== undefined) return Effect.fail(refused)
      }
      // Where the entries lie is set at each run. Until then they stand where any of them fits.
      const parked = entries.map(({ buffer }) => ({ offsetBytes: 0, buffer }))
      const prepared = writes ? this.io.prepareWrites(parked) : this.io.prepareReads(parked)
      return Effect.map(prepared, (inner) => new BlobBatch(this, entries, inner, writes))
    })
  }

  private readSlow(operation: string, offsetBytes: number, buffers: ReadonlyArray<DmaBuffer>, field: string) {
    const refused =
      Check.refusedBuffers(this.blob, operation, buffers, field) ??
      this.refuse(operation, offsetBytes, Check.totalBytes(buffers), false, Check.lengthField(field))
    if (refused !== undefined) return Effect.fail(refused)
    // The array may change while the pieces are under way.
    const parts = buffers.slice()
    return this.eachPiece(offsetBytes, Check.totalBytes(parts), (piece) => {
      const slices = Check.cut(parts, piece.offsetBytes - offsetBytes, piece.lengthBytes)
      if (piece.cluster !== 0) return transferClusters(this.io, "read", this.onDevice(piece), slices)
      const from = source(this.blob, piece.index)
      let at = piece.offsetBytes
      return Effect.forEach(
        slices.map((slice) => {
          const offset = at
          at += slice.byteLength
          return { offset, slice }
        }),
        ({ offset, slice }) => readBacking(this.store, from, offset, slice, this.io),
        { discard: true }
      )
    })
  }

  private writeSlow(operation: string, offsetBytes: number, buffers: ReadonlyArray<DmaBuffer>, field: string) {
    const refused =
      Check.refusedBuffers(this.blob, operation, buffers, field) ??
      this.refuse(operation, offsetBytes, Check.totalBytes(buffers), true, Check.lengthField(field))
    if (refused !== undefined) return Effect.fail(refused)
    const parts = buffers.slice()
    return this.eachPiece(offsetBytes, Check.totalBytes(parts), (piece) => {
      const slices = Check.cut(parts, piece.offsetBytes - offsetBytes, piece.lengthBytes)
      return piece.cluster !== 0
        ? transferClusters(this.io, "write", this.onDevice(piece), slices)
        : this.fill(piece, (at) => transferClusters(this.io, "write", at, slices))
    })
  }

  /** A write to a cluster that the blob does not have yet. One that covers the cluster is its first content. */
  private fill(piece: Piece, write: (at: number) => Effect.Effect<void, IoError>): Effect.Effect<void, IoError> {
    const { blob, store } = this
    const isWhole = piece.lengthBytes === store.clusterBytes
    return Effect.flatMap(allocate(store, blob, piece.index, isWhole ? write : undefined), (filled) =>
      isWhole && filled
        ? Effect.void
        : Effect.suspend(() => write(this.onDevice({ ...piece, cluster: blob.clusters[piece.index] ?? 0 })))
    )
  }

  private unmapPart(offsetBytes: number, lengthBytes: number): Effect.Effect<void, IoError> {
    const { blob, store } = this
    if (lengthBytes === store.clusterBytes && releasesClusters(blob)) {
      const index = offsetBytes / store.clusterBytes
      // Asked once more with the gate: while it was waited for, the blob may have been inflated.
      const released = blob.gate.exclusive(
        Effect.suspend(() =>
          releasesClusters(blob) ? Effect.as(release(store, blob, index), true) : Effect.succeed(false)
        )
      )
      return Effect.flatMap(released, (done) => (done ? Effect.void : this.unmapInPlace(offsetBytes, lengthBytes)))
    }
    return this.unmapInPlace(offsetBytes, lengthBytes)
  }

  private unmapInPlace(offsetBytes: number, lengthBytes: number): Effect.Effect<void, IoError> {
    const { blob, store } = this
    return blob.gate.shared(() => {
      const at = this.translate(offsetBytes, lengthBytes)
      return at >= 0 ? store.device.unmap(at, lengthBytes, this.io) : Effect.void
    })
  }

  private onDevice(piece: Piece): number {
    const { clusterBytes } = this.store
    return piece.cluster * clusterBytes + (piece.offsetBytes - piece.index * clusterBytes)
  }

  /** One after the other, as SPDK does. What is a piece is decided when it begins. */
  private eachPiece(
    offsetBytes: number,
    lengthBytes: number,
    run: (piece: Piece) => Effect.Effect<void, IoError>
  ): Effect.Effect<void, IoError> {
    const end = offsetBytes + lengthBytes
    const next = (at: number): Effect.Effect<void, IoError> => {
      const piece = this.pieceAt(at, end)
      const after = at + piece.lengthBytes
      return after >= end ? run(piece) : Effect.flatMap(run(piece), () => next(after))
    }
    return next(offsetBytes)
  }

  /** The next part: in one cluster, or in several when they follow each other on the device, too. */
  private pieceAt(offsetBytes: number, end: number): Piece {
    const { blob } = this
    const { clusterBytes } = this.store
    const index = Math.floor(offsetBytes / clusterBytes)
    const cluster = blob.clusters[index] ?? 0
    let last = index
    if (cluster !== 0) {
      while ((last + 1) * clusterBytes < end && blob.clusters[last + 1] === cluster + (last + 1 - index)) last++
    }
    const lengthBytes = Math.min(end, (last + 1) * clusterBytes) - offsetBytes
    return { offsetBytes, lengthBytes, index, cluster }
  }
}

const transferClusters = (io: BdevIo, kind: "read" | "write", at: number, buffers: ReadonlyArray<DmaBuffer>) => {
  const [first] = buffers
  if (buffers.length === 1 && first !== undefined) return kind === "read" ? io.read(at, first) : io.write(at, first)
  return kind === "read" ? io.readv(at, buffers) : io.writev(at, buffers)
}

/** The parts of a range that end where clusters do, one after the other. */
const eachPart = (
  offsetBytes: number,
  lengthBytes: number,
  clusterBytes: number,
  run: (offsetBytes: number, lengthBytes: number) => Effect.Effect<void, IoError>
): Effect.Effect<void, IoError> => {
  const end = offsetBytes + lengthBytes
  const next = (at: number): Effect.Effect<void, IoError> => {
    const after = Math.min(end, (Math.floor(at / clusterBytes) + 1) * clusterBytes)
    const part = run(at, after - at)
    return after >= end ? part : Effect.flatMap(part, () => next(after))
  }
  return next(offsetBytes)
}
