/** The port of the log, on a `Blobstore`. */
import type { SpdkError } from "@effect-spdk/core/SpdkError"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type { Blob } from "../../Blob.ts"
import type { Blobstore } from "../../Blobstore.ts"
import { EdgeLocks } from "../edgeLocks.ts"
import type { KvBlob, KvBlobs } from "./port.ts"

const opened = (blob: Blob, scope: Scope.Closeable): KvBlob => ({
  id: blob.id,
  sizeBytes: blob.sizeBytes,
  read: (offsetBytes, lengthBytes) =>
    lengthBytes === 0 ? Effect.succeed(new Uint8Array(0)) : blob.readBytes(offsetBytes, lengthBytes),
  write: (offsetBytes, bytes) => blob.writeBytes(offsetBytes, bytes),
  sync: blob.sync,
  setXattr: (name, value) => blob.xattrs.set(name, value),
  removeXattr: (name) => blob.xattrs.remove(name),
  close: Scope.close(scope, Exit.void)
})

/**
 * By blobs of a store. A key-value store that opens looks into the blobs of all others, and while it does so they could not
 * delete them.
 */
const turnsOf = new WeakMap<Blobstore, EdgeLocks>()

/** What is still open when `scope` closes is closed by it. */
export const makeBlobs = Effect.fnUntraced(function* (store: Blobstore, scope: Scope.Scope) {
  const { clusterSizeBytes, ioUnitBytes } = yield* store.info
  const turns = turnsOf.get(store) ?? new EdgeLocks()
  turnsOf.set(store, turns)
  const open = (id: number): Effect.Effect<KvBlob, SpdkError> =>
    Effect.uninterruptible(
      Effect.flatMap(Scope.fork(scope), (child) =>
        store.open(id).pipe(
          Effect.provideService(Scope.Scope, child),
          Effect.map((blob) => opened(blob, child)),
          Effect.onExit((exit) => (Exit.isFailure(exit) ? Scope.close(child, exit) : Effect.void))
        )
      )
    )
  const blobs: KvBlobs = {
    blockBytes: ioUnitBytes,
    clusterBytes: clusterSizeBytes,
    ids: store.ids,
    // Of fixed size, so that they need no pages of extents, and as many fit as there are clusters.
    create: (sizeBytes, xattrs) => store.createId({ size: sizeBytes, xattrs, extentTable: false }),
    xattrs: (id) => turns.hold([id], Effect.scoped(Effect.flatMap(store.open(id), (blob) => blob.xattrs.entries))),
    open,
    delete: (id) => turns.hold([id], store.delete(id))
  }
  return blobs
})
