/** The work itself: files into blobs, and back again through handles of their own. */
import type * as Blobstore from "@effect-spdk/blobstore/Blobstore"
import * as Bdev from "@effect-spdk/core/Bdev"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import * as Sink from "effect/Sink"
import * as Stream from "effect/Stream"
import { createHash, type Hash } from "node:crypto"
import type { Catalog, Entry } from "./Catalog.ts"
import * as Chunks from "./Chunks.ts"
import { DemoError } from "./DemoError.ts"
import { Hasher } from "./Hasher.ts"
import type { Progress } from "./Progress.ts"
import type { Source } from "./Sources.ts"
import { writeAll } from "./Writing.ts"

const chunkBytes = 256 * 1024
const chunksAhead = 4

/** Under way at once, of a file that is got back. */
const requestsAtOnce = 4

export type Action = "stored" | "unchanged"

export interface Stored {
  readonly entry: Entry
  readonly action: Action
}

export interface Verified extends Stored {
  readonly sha256OnDevice: string
}

export const isIntact = (file: Verified): boolean => file.entry.sha256 === file.sha256OnDevice

/** A file's bytes, read ahead and hashed as they pass. */
const contents = (file: Source, hash: Hash) =>
  Stream.unwrap(
    Effect.map(FileSystem.FileSystem, (fs) =>
      fs.stream(file.path, { bytesToRead: file.sizeBytes, chunkSize: chunkBytes })
    )
  ).pipe(
    Stream.buffer({ capacity: chunksAhead }),
    Stream.tap((chunk) => Effect.sync(() => hash.update(chunk)))
  )

/** Touched, but with the same bytes: only the time is new. */
const touch = Effect.fnUntraced(function* (store: Blobstore.Blobstore, file: Source, old: Entry) {
  yield* Effect.scoped(
    Effect.gen(function* () {
      const blob = yield* store.open(old.id)
      yield* blob.xattrs.set("mtime", file.mtime)
      yield* blob.sync
    })
  )
  return { ...old, mtime: file.mtime } satisfies Entry
})

/** As far as size and time tell. */
export const isUnchanged = (file: Source, old: Entry | undefined): boolean =>
  old !== undefined && old.sizeBytes === file.sizeBytes && old.mtime === file.mtime

/** Whether a file whose time is another has the bytes that are stored. */
const hasSameBytes = Effect.fnUntraced(function* (file: Source, old: Entry) {
  if (old.sizeBytes !== file.sizeBytes) return false
  const hash = createHash("sha256")
  yield* Stream.run(contents(file, hash), Sink.drain)
  return hash.digest("hex") === old.sha256
})

/** What of a file is stored already, touched where only its time is new; undefined when it has to be written. */
const storedAlready = Effect.fnUntraced(function* (
  store: Blobstore.Blobstore,
  file: Source,
  old: Entry | undefined,
  progress: Progress
) {
  if (old === undefined) return undefined
  if (!isUnchanged(file, old) && !(yield* hasSameBytes(file, old))) return undefined
  progress.add(file.sizeBytes)
  return isUnchanged(file, old) ? old : yield* touch(store, file, old)
})

/** Stores what the catalog does not have already, by size, then time, then hash. */
export const storeAll = Effect.fn("demo.storeAll")(function* (
  store: Blobstore.Blobstore,
  files: ReadonlyArray<Source>,
  catalog: Catalog,
  progress: Progress
) {
  const bdev = yield* Bdev.Bdev
  const checked = yield* Effect.forEach(
    files,
    (file) => {
      const old = catalog.entries.get(file.name)
      return Effect.map(storedAlready(store, file, old, progress), (entry) => ({ file, old, entry }))
    },
    { concurrency: Chunks.filesAtOnce }
  )
  const written = yield* writeAll(
    store,
    bdev,
    checked.filter(({ entry }) => entry === undefined),
    progress
  )
  const byName = new Map(written.map((entry) => [entry.name, entry]))
  return checked.flatMap(({ entry, file }): ReadonlyArray<Stored> => {
    if (entry !== undefined) return [{ entry, action: "unchanged" }]
    const stored = byName.get(file.name)
    return stored === undefined ? [] : [{ entry: stored, action: "stored" }]
  })
})

/** The bytes of a stored file, hashed and counted as they pass. */
const stored = (store: Blobstore.Blobstore, entry: Entry, hash: Hash, progress: Progress) =>
  Stream.unwrap(
    Effect.map(store.open(entry.id), (blob) =>
      blob.stream({ lengthBytes: entry.sizeBytes, chunkBytes, concurrency: requestsAtOnce })
    )
  ).pipe(
    Stream.tap((chunk) =>
      Effect.sync(() => {
        hash.update(chunk)
        progress.add(chunk.length)
      })
    )
  )

const verifyOne = Effect.fnUntraced(function* (
  store: Blobstore.Blobstore,
  free: Chunks.Buffers,
  file: Stored,
  progress: Progress
) {
  const { id, sizeBytes } = file.entry
  const hasher = yield* Hasher
  const sha256OnDevice = yield* Effect.scoped(
    Effect.gen(function* () {
      const hash = yield* hasher.sha256(sizeBytes)
      const blob = yield* store.open(id)
      yield* Chunks.transfer(free, sizeBytes, {
        load: (chunk) => blob.read(chunk.offsetBytes, Chunks.unitsOf(chunk, blob.ioUnitBytes)),
        pass: (chunk) => {
          progress.add(chunk.lengthBytes)
          return hash.update(Chunks.bytesOf(chunk))
        },
        use: () => Effect.void
      })
      return yield* hash.digest
    })
  )
  return { ...file, sha256OnDevice } satisfies Verified
})

/** Opens every blob once more, reads it and hashes it. */
export const verifyAll = Effect.fn("demo.verifyAll")(function* (
  store: Blobstore.Blobstore,
  files: ReadonlyArray<Stored>,
  progress: Progress
) {
  return yield* Effect.scoped(
    Effect.flatMap(Chunks.makeBuffers, (free) =>
      Effect.forEach(files, (file) => verifyOne(store, free, file, progress), { concurrency: Chunks.filesAtOnce })
    )
  )
})

/** Where a stored file goes below `folder`; the names on a device may be anybody's. */
const targetOf = Effect.fnUntraced(function* (folder: string, name: string) {
  const path = yield* Path.Path
  const target = path.resolve(folder, path.isAbsolute(name) ? `.${name}` : name)
  const relative = path.relative(folder, target)
  if (relative === "" || relative.startsWith("..") || path.isAbsolute(relative)) {
    return yield* new DemoError({ message: `${name} would lie outside of ${folder}` })
  }
  return target
})

/** Writes a stored file below `folder`, and gives it its name only when its hash is right. Returns its path. */
export const get = Effect.fn("demo.get")(function* (
  store: Blobstore.Blobstore,
  entry: Entry,
  folder: string,
  progress: Progress
) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const target = yield* targetOf(folder, entry.name)
  const partial = `${target}.partial`
  const hash = createHash("sha256")
  yield* fs.makeDirectory(path.dirname(target), { recursive: true })
  yield* Effect.scoped(
    Effect.gen(function* () {
      yield* Effect.addFinalizer(() => Effect.ignore(fs.remove(partial, { force: true })))
      yield* Stream.run(stored(store, entry, hash, progress), fs.sink(partial))
      if (hash.digest("hex") !== entry.sha256) {
        return yield* new DemoError({ message: `${entry.name} has changed on the device: its SHA-256 is another one` })
      }
      const mtime = new Date(entry.mtime)
      yield* fs.utimes(partial, mtime, mtime)
      yield* fs.rename(partial, target)
    })
  )
  return target
})

/** Flips one byte in the middle of the largest file, as a failing disk might. */
export const corrupt = Effect.fn("demo.corrupt")(function* (store: Blobstore.Blobstore, files: ReadonlyArray<Stored>) {
  const entries = files.map(({ entry }) => entry)
  const largest = entries.reduce((left, right) => (right.sizeBytes > left.sizeBytes ? right : left))
  if (largest.sizeBytes === 0) {
    return yield* new DemoError({ message: "there is no byte to corrupt: every file is empty" })
  }
  const position = Math.floor(largest.sizeBytes / 2)
  yield* Effect.scoped(
    Effect.gen(function* () {
      const blob = yield* store.open(largest.id)
      const bytes = yield* blob.readBytes(position, 1)
      yield* blob.writeBytes(
        position,
        bytes.map((byte) => byte ^ 0xff)
      )
      yield* blob.sync
    })
  )
  return largest
})
