/**
 * Files into blobs: each chunk is read into memory of the device, hashed from there and written from there, with other chunks
 * of this and of other files on their way.
 */
import type { Blob } from "@effect-spdk/blobstore/Blob"
import type * as Blobstore from "@effect-spdk/blobstore/Blobstore"
import type { Bdev } from "@effect-spdk/core/Bdev"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import type { Entry } from "./Catalog.ts"
import * as Chunks from "./Chunks.ts"
import { DemoError } from "./DemoError.ts"
import { Hasher } from "./Hasher.ts"
import type { Progress } from "./Progress.ts"
import { mtimeOf, type Source } from "./Sources.ts"

/** Files of a group share the flushes that make them durable. While one group is flushed, the other is written. */
const groupFiles = 64
const groupBytes = 2 ** 30
const groupsAtOnce = 2

/** Written between flushes in any case, so that the disk is at work all along, and the flush at the end of a group is short. */
const flushBytes = 64 * 2 ** 20

export interface Wanted {
  readonly file: Source
  /** What it replaces. */
  readonly old: Entry | undefined
}

interface Writer {
  readonly store: Blobstore.Blobstore
  readonly bdev: Bdev
  readonly free: Chunks.Buffers
  readonly progress: Progress
  /** Since the last flush in `writeChunk`. */
  unflushedBytes: number
}

const hasChanged = (file: Source): DemoError => new DemoError({ message: `${file.name} has changed while it was read` })

/** Fills the start of the chunk's buffer from the file. Node cannot call a read back: the memory has to stay until it ends. */
const readChunk = Effect.fnUntraced(function* (file: Source, opened: FileSystem.File, chunk: Chunks.Chunk) {
  const bytes = Chunks.bytesOf(chunk)
  for (let done = 0; done < bytes.length;) {
    const position = BigInt(chunk.offsetBytes + done)
    const count = yield* Effect.uninterruptible(opened.read(bytes.subarray(done), { position }))
    if (count === 0) return yield* hasChanged(file)
    done += count
  }
})

const writeChunk = Effect.fnUntraced(function* (writer: Writer, blob: Blob, chunk: Chunks.Chunk) {
  const units = Chunks.unitsOf(chunk, blob.ioUnitBytes)
  units.bytes.fill(0, chunk.lengthBytes)
  yield* blob.write(chunk.offsetBytes, units)
  writer.unflushedBytes += units.byteLength
  if (writer.unflushedBytes < flushBytes) return
  writer.unflushedBytes = 0
  yield* writer.bdev.flush()
})

/** Makes the blob and writes the bytes; nothing of it is durable, and the blob does not count, until `sha256` is. */
const writeData = Effect.fnUntraced(function* (writer: Writer, { file, old }: Wanted) {
  const fs = yield* FileSystem.FileSystem
  const hasher = yield* Hasher
  const { mtime, name, sizeBytes } = file
  const version = (old?.version ?? 0) + 1
  const blob = yield* writer.store.create({
    size: sizeBytes,
    extentTable: false,
    xattrs: { name, size: String(sizeBytes), mtime, version: String(version) }
  })
  const sha256 = yield* Effect.scoped(
    Effect.gen(function* () {
      const hash = yield* hasher.sha256(sizeBytes)
      const opened = yield* fs.open(file.path)
      yield* Chunks.transfer(writer.free, sizeBytes, {
        load: (chunk) => readChunk(file, opened, chunk),
        pass: (chunk) => {
          writer.progress.add(chunk.lengthBytes)
          return hash.update(Chunks.bytesOf(chunk))
        },
        use: (chunk) => writeChunk(writer, blob, chunk)
      })
      const info = yield* opened.stat
      if (Number(info.size) !== sizeBytes || mtimeOf(info) !== mtime) return yield* hasChanged(file)
      return yield* hash.digest
    })
  )
  const entry: Entry = { id: blob.id, name, sizeBytes, mtime, sha256, version }
  return { blob, entry }
})

/** First the bytes become durable, then the hashes that say so, and only then the old blobs go. */
const writeGroup = Effect.fnUntraced(function* (writer: Writer, group: ReadonlyArray<Wanted>) {
  const entries = yield* Effect.scoped(
    Effect.gen(function* () {
      const written = yield* Effect.forEach(group, (wanted) => writeData(writer, wanted), {
        concurrency: Chunks.filesAtOnce
      })
      yield* writer.bdev.flush()
      // All at once: they share flushes, as closing one after the other would not.
      yield* Effect.forEach(
        written,
        ({ blob, entry }) => Effect.andThen(blob.xattrs.set("sha256", entry.sha256), blob.sync),
        { concurrency: "unbounded", discard: true }
      )
      return written.map(({ entry }) => entry)
    })
  )
  for (const { old } of group) if (old !== undefined) yield* writer.store.delete(old.id)
  return entries
})

const groupsOf = (wanted: ReadonlyArray<Wanted>): ReadonlyArray<ReadonlyArray<Wanted>> => {
  const groups: Array<Array<Wanted>> = []
  let bytes = 0
  for (const one of wanted) {
    const last = groups.at(-1)
    bytes += one.file.sizeBytes
    if (last !== undefined && last.length < groupFiles && bytes <= groupBytes) last.push(one)
    else {
      groups.push([one])
      bytes = one.file.sizeBytes
    }
  }
  return groups
}

/** Stores these files, durably, and returns what they are stored as. */
export const writeAll = Effect.fn("demo.writeAll")(function* (
  store: Blobstore.Blobstore,
  bdev: Bdev,
  wanted: ReadonlyArray<Wanted>,
  progress: Progress
) {
  if (wanted.length === 0) return []
  return yield* Effect.scoped(
    Effect.gen(function* () {
      const free = yield* Chunks.makeBuffers
      const writer: Writer = { store, bdev, free, progress, unflushedBytes: 0 }
      const groups = yield* Effect.forEach(groupsOf(wanted), (group) => writeGroup(writer, group), {
        concurrency: groupsAtOnce
      })
      return groups.flat()
    })
  )
})
