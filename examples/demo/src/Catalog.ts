/**
 * What the store holds: a blob per file, with everything about the file in its xattrs. `sha256` comes last, when the bytes
 * are there, so that a blob without it is what an interrupted run left behind.
 */
import type { BlobId } from "@effect-spdk/blobstore/Blob"
import type * as Blobstore from "@effect-spdk/blobstore/Blobstore"
import * as Effect from "effect/Effect"
import { DemoError } from "./DemoError.ts"

export interface Entry {
  readonly id: BlobId
  readonly name: string
  readonly sizeBytes: number
  /** ISO 8601. */
  readonly mtime: string
  /** Of the bytes as they were when the file was stored, in hex. */
  readonly sha256: string
  /** Counts how often the file was stored: of two blobs of one name, the higher is the file. */
  readonly version: number
}

export interface Catalog {
  readonly entries: ReadonlyMap<string, Entry>
  /** Interrupted and replaced: they can go. */
  readonly leftovers: ReadonlyArray<BlobId>
}

/** Blobs whose xattrs are read at the same time. */
const readsAtOnce = 16

const decoder = new TextDecoder()

const decode = (id: BlobId, xattrs: ReadonlyMap<string, Uint8Array>): Entry | undefined => {
  const text = (name: string): string | undefined => {
    const value = xattrs.get(name)
    return value === undefined ? undefined : decoder.decode(value)
  }
  const name = text("name")
  const mtime = text("mtime")
  const sha256 = text("sha256")
  const sizeBytes = Number(text("size"))
  const version = Number(text("version"))
  if (name === undefined || mtime === undefined || sha256 === undefined) return undefined
  if (!Number.isSafeInteger(sizeBytes) || !Number.isSafeInteger(version)) return undefined
  return { id, name, sizeBytes, mtime, sha256, version }
}

export const read = Effect.fn("demo.catalog")(function* (store: Blobstore.Blobstore) {
  const found = yield* Effect.forEach(
    yield* store.ids,
    (id) =>
      Effect.scoped(
        Effect.gen(function* () {
          const blob = yield* store.open(id)
          return { id, entry: decode(id, yield* blob.xattrs.entries) }
        })
      ),
    { concurrency: readsAtOnce }
  )
  const entries = new Map<string, Entry>()
  const leftovers: Array<BlobId> = []
  for (const { entry, id } of found) {
    const other = entry === undefined ? undefined : entries.get(entry.name)
    if (entry === undefined || (other !== undefined && other.version >= entry.version)) leftovers.push(id)
    else {
      if (other !== undefined) leftovers.push(other.id)
      entries.set(entry.name, entry)
    }
  }
  return { entries, leftovers } satisfies Catalog
})

export const find = (catalog: Catalog, name: string): Effect.Effect<Entry, DemoError> => {
  const entry = catalog.entries.get(name)
  return entry === undefined
    ? Effect.fail(new DemoError({ message: `no such file on the device: ${name}` }))
    : Effect.succeed(entry)
}
