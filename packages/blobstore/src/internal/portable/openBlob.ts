/** A blob that somebody has open. */
import type { IoError } from "@effect-spdk/core/Bdev"
import type { SpdkError } from "@effect-spdk/core/SpdkError"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { BlobBlockIo, BlobId, DriverBlobInfo, OpenBlob, Xattrs } from "../driver.ts"
import * as L from "../format/layout.ts"
import { type Handle, PortableBlobIo } from "./blobIo.ts"
import type { BlobState } from "./blob.ts"
import { xattrTooLong } from "./create.ts"
import { busy, closed, notFound, readOnly } from "./errors.ts"
import { closeUnflushed } from "./open.ts"
import { flushLater, persistUnflushed } from "./persist.ts"
import { resize } from "./resize.ts"
import { locking } from "./snapshot.ts"
import type { Store } from "./store.ts"

type Next = Effect.Effect<number | undefined, SpdkError>

export class PortableBlob implements OpenBlob {
  readonly id: BlobId
  readonly io: BlobBlockIo
  readonly channel: Effect.Effect<BlobBlockIo, SpdkError, Scope.Scope>
  readonly sync: Effect.Effect<void, SpdkError>
  readonly setReadOnly: Effect.Effect<void, SpdkError>
  readonly info: Effect.Effect<DriverBlobInfo, SpdkError>
  readonly xattrs: Effect.Effect<Xattrs, SpdkError>
  readonly close: Effect.Effect<void, SpdkError>
  private readonly store: Store
  private readonly blob: BlobState
  private readonly handle: Handle = { isClosed: false }

  constructor(store: Store, blob: BlobState) {
    this.store = store
    this.blob = blob
    this.id = blob.id
    store.openBlobs++
    this.io = new PortableBlobIo(store, blob, this.handle, store.device.bdev)
    this.channel = Effect.map(
      store.device.bdev.channel,
      (channel) => new PortableBlobIo(store, blob, this.handle, channel)
    )
    this.info = Effect.sync(() => blob.info(store.clones.has(blob.id)))
    this.xattrs = Effect.sync(() => blob.xattrs)
    this.sync = this.whileOpen("Blob.sync", () => syncNow(store, blob))
    this.setReadOnly = this.whileOpen("Blob.setReadOnly", () =>
      Effect.sync(() => {
        if ((blob.dataRoFlags & L.dataRoFlag.readOnly) !== 0) return
        blob.dataRoFlags |= L.dataRoFlag.readOnly
        blob.touch()
      })
    )
    this.close = Effect.suspend(() => {
      if (this.handle.isClosed) return Effect.void
      this.handle.isClosed = true
      store.openBlobs--
      const closing = blob.gate.exclusive(store.change(closeUnflushed(store, blob)))
      return Effect.flatMap(closing, (isDue) => (isDue ? flushLater(store, blob) : Effect.void))
    }).pipe(Effect.uninterruptible)
  }

  readonly resize = (clusters: number): Effect.Effect<void, SpdkError> =>
    this.whileOpen("Blob.resize", () => {
      const { blob, store } = this
      if (blob.mdReadOnly) return Effect.fail(readOnly("Blob.resize", blob.name))
      if (clusters === blob.clusterCount && !blob.isUnsettled) return Effect.void
      if (blob.locked) return Effect.fail(busy("Blob.resize", blob.name, "another operation is in progress"))
      const change = store.change(resize(store, blob, clusters, "Blob.resize"))
      if (clusters > blob.clusterCount) return change
      return locking(blob, blob.gate.exclusive(change), () =>
        busy("Blob.resize", blob.name, "another operation is in progress")
      )
    })

  readonly setXattr = (name: string, value: Uint8Array): Effect.Effect<void, SpdkError> =>
    this.whileOpen("Blob.xattrs.set", () => {
      const { blob } = this
      if (blob.mdReadOnly) return Effect.fail(readOnly("Blob.xattrs.set", blob.name))
      const tooLong = xattrTooLong("Blob.xattrs.set", name, value)
      if (tooLong !== undefined) return Effect.fail(tooLong)
      blob.xattrs.set(name, value.slice())
      blob.touch()
      return Effect.void
    })

  readonly removeXattr = (name: string): Effect.Effect<void, SpdkError> =>
    this.whileOpen("Blob.xattrs.remove", () => {
      const { blob } = this
      if (blob.mdReadOnly) return Effect.fail(readOnly("Blob.xattrs.remove", blob.name))
      if (!blob.xattrs.delete(name)) return Effect.fail(notFound("Blob.xattrs.remove", blob.name, `no xattr "${name}"`))
      blob.touch()
      return Effect.void
    })

  readonly nextAllocated = (ioUnit: number): Next => Effect.sync(() => this.next(ioUnit, true))
  readonly nextUnallocated = (ioUnit: number): Next => Effect.sync(() => this.next(ioUnit, false))

  private next(ioUnit: number, isAllocated: boolean): number | undefined {
    const { blob, store } = this
    const unitsPerCluster = store.clusterBytes / store.ioUnitBytes
    const first = Math.floor(ioUnit / unitsPerCluster)
    for (let i = first; i < blob.clusterCount; i++) {
      if ((blob.clusters[i] !== 0) === isAllocated) return i === first ? ioUnit : i * unitsPerCluster
    }
    return undefined
  }

  private whileOpen<A, E>(operation: string, body: () => Effect.Effect<A, E>): Effect.Effect<A, E | IoError> {
    return Effect.suspend((): Effect.Effect<A, E | IoError> =>
      this.handle.isClosed ? Effect.fail(closed(operation, this.blob.name)) : body()
    )
  }
}

const syncNow = (store: Store, blob: BlobState): Effect.Effect<void, IoError> =>
  Effect.suspend(() => {
    let becomesReadOnly = false
    // In turn even when there is nothing to write: somebody else's sync may be half way.
    const written = store.change(
      Effect.suspend(() => {
        // Also when the first write to a cluster, or a close, has written the flag already.
        becomesReadOnly = (blob.dataRoFlags & L.dataRoFlag.readOnly) !== 0
        return persistUnflushed(store, blob)
      })
    )
    // Whatever was written: the data counts, too.
    const flushed = Effect.flatMap(written, (isDue) => (isDue ? flushLater(store, blob) : store.device.flush))
    return Effect.map(flushed, () => {
      // As in SPDK, read-only begins with the sync.
      if (!becomesReadOnly) return
      blob.dataReadOnly = true
      blob.mdReadOnly = true
    })
  })
