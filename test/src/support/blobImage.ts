/** A blobstore with one of everything, and a record of what a blobstore holds: two that hold the same have equal records. */
import * as Blobstore from "@effect-spdk/blobstore/Blobstore"
import * as Bdev from "@effect-spdk/core/Bdev"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { createHash } from "node:crypto"
import { pattern } from "./bytes.ts"

export const imageBlockSize = 4096
export const imageClusterBytes = 64 * 1024
export const imageBytes = 32 * 2 ** 20

/** The store on this file, made when there is none. */
export const storeOnFile = (path: string, driver: "libspdk" | "portable") =>
  Blobstore.layer({ onEmpty: "init", driver, clusterSize: imageClusterBytes }).pipe(
    Layer.provide(Bdev.layerFile({ path, blockSize: imageBlockSize, size: imageBytes }))
  )

const xattrsOf = (seed: number, count: number): Readonly<Record<string, Uint8Array>> =>
  Object.fromEntries(
    Array.from({ length: count }, (_, index) => [
      `attribute-${index}`,
      pattern(1 + ((seed * 37 + index * 53) % 200), index)
    ])
  )

/** Everything is synced when it returns. */
export const writeEverything = Effect.gen(function* () {
  const store = yield* Blobstore.Blobstore
  const plain = yield* store.create({ clusters: 5, xattrs: xattrsOf(1, 3) })
  yield* plain.writeBytes(0, pattern(5 * imageClusterBytes, 1))
  // The chain of metadata takes several pages.
  const named = yield* store.create({ clusters: 1, xattrs: xattrsOf(2, 90) })
  yield* named.writeBytes(0, pattern(imageClusterBytes, 2))
  yield* named.sync
  const thin = yield* store.create({ clusters: 20, thin: true, xattrs: xattrsOf(3, 1) })
  yield* thin.writeBytes(3 * imageClusterBytes + 100, pattern(1000, 3))
  yield* thin.writeBytes(17 * imageClusterBytes - 5, pattern(10, 4))
  const runs = yield* store.create({ clusters: 4, extentTable: false })
  yield* runs.writeBytes(0, pattern(4 * imageClusterBytes, 5))
  // A snapshot, what its blob has written since, and a second clone of it.
  const snapshot = yield* store.snapshot(plain.id, { xattrs: xattrsOf(4, 2) })
  yield* plain.writeBytes(imageClusterBytes + 17, pattern(5000, 6))
  yield* plain.resize({ clusters: 7 })
  yield* plain.writeBytes(6 * imageClusterBytes, pattern(imageClusterBytes, 7))
  const second = yield* store.clone(snapshot, { xattrs: xattrsOf(5, 1) })
  const clone = yield* store.open(second)
  yield* clone.writeBytes(2 * imageClusterBytes, pattern(3, 8))
  // One that was there, so that ids have a hole.
  const gone = yield* store.createId({ clusters: 3 })
  const last = yield* store.create({ clusters: 2, thin: true })
  yield* store.delete(gone)
  yield* last.xattrs.set("set later", "and changed")
  yield* last.xattrs.set("set later", "and changed again")
  yield* Effect.forEach([plain, thin, runs, clone, last], (blob) => blob.sync)
  yield* store.setSuperBlob(named.id)
}).pipe(Effect.scoped)

export interface BlobRecord {
  readonly id: number
  readonly clusters: number
  readonly allocatedClusters: number
  readonly isReadOnly: boolean
  readonly isThin: boolean
  readonly isSnapshot: boolean
  readonly isClone: boolean
  readonly parent: string
  readonly clones: ReadonlyArray<number>
  readonly xattrs: Readonly<Record<string, string>>
  /** SHA-256 of all that it reads. */
  readonly content: string
}

export interface StoreRecord {
  readonly freeClusters: number
  readonly totalClusters: number
  readonly superBlob: number | null
  readonly blobs: ReadonlyArray<BlobRecord>
}

export const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex")

const recordBlob = Effect.fnUntraced(function* (id: number) {
  const store = yield* Blobstore.Blobstore
  const blob = yield* store.open(id)
  const info = yield* blob.info
  const xattrs = [...(yield* blob.xattrs.entries)].toSorted(([a], [b]) => (a < b ? -1 : 1))
  const content = info.sizeBytes === 0 ? new Uint8Array() : yield* blob.readBytes(0, info.sizeBytes)
  const record: BlobRecord = {
    id,
    clusters: info.clusters,
    allocatedClusters: info.allocatedClusters,
    isReadOnly: info.isReadOnly,
    isThin: info.isThin,
    isSnapshot: info.isSnapshot,
    isClone: info.isClone,
    parent: JSON.stringify(info.parent),
    clones: info.isSnapshot ? (yield* store.clones(id)).toSorted((a, b) => a - b) : [],
    xattrs: Object.fromEntries(xattrs.map(([name, value]) => [name, Buffer.from(value).toString("base64")])),
    content: sha256(content)
  }
  return record
}, Effect.scoped)

export const recordStore = Effect.gen(function* () {
  const store = yield* Blobstore.Blobstore
  const { freeClusters, totalClusters } = yield* store.info
  const record: StoreRecord = {
    freeClusters,
    totalClusters,
    superBlob: (yield* store.superBlob) ?? null,
    blobs: yield* Effect.forEach(yield* store.ids, recordBlob)
  }
  return record
})
