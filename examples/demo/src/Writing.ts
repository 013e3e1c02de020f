/**
 * Files into blobs, as fast as one JavaScript thread can hash them: each chunk is read into memory of the device, hashed there
 * and written from there, with other chunks of this and of other files on their way.
 */
import type { Blob } from "@effect-spdk/blobstore/Blob"
import type * as Blobstore from "@effect-spdk/blobstore/Blobstore"
import type { Bdev } from "@effect-spdk/core/Bdev"
import * as DmaBuffer from "@effect-spdk/core/DmaBuffer"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"
import { createHash } from "node:crypto"
import type { Entry } from "./Catalog.ts"
import { DemoError } from "./DemoError.ts"
import type { Progress } from "./Progress.ts"
import type { Source } from "./Sources.ts"

const chunkBytes = 512 * 1024
const buffers = 24

/** Chunks of one file under way: read ahead, and being written. */
const chunksAtOnce = 4

/** Files of a group share flushes. While one group is flushed, the other is written. */
const groupFiles = 64
const groupBytes = 256 * 2 ** 20
const groupsAtOnce = 2
const filesAtOnce = 32

export interface Wanted {
  readonly file: Source
  /** What it replaces. */
  readonly old: Entry | undefined
}

interface Chunk {
  readonly offsetBytes: number
  readonly lengthBytes: number
  readonly buffer: DmaBuffer.DmaBuffer
}

interface Writer {
  readonly store: Blobstore.Blobstore
  readonly bdev: Bdev
  readonly free: Queue.Queue<DmaBuffer.DmaBuffer>
  readonly progress: Progress
}

const hasChanged = (file: Source): DemoError => new DemoError({ message: `${file.name} has changed while it was read` })

/** Fills the start of a buffer, and zeroes it up to the next io unit. */
const readChunk = Effect.fnUntraced(function* (
  { free }: Writer,
  file: Source,
  opened: FileSystem.File,
  offsetBytes: number
) {
  const lengthBytes = Math.min(chunkBytes, file.sizeBytes - offsetBytes)
  const buffer = yield* Queue.take(free)
  for (let done = 0; done < lengthBytes;) {
    const into = buffer.bytes.subarray(done, lengthBytes)
    const count = yield* opened.read(into, { position: BigInt(offsetBytes + done) })
    if (count === 0) return yield* hasChanged(file)
    done += count
  }
  return { offsetBytes, lengthBytes, buffer } satisfies Chunk
})

const writeChunk = ({ free }: Writer, blob: Blob, { buffer, lengthBytes, offsetBytes }: Chunk) => {
  const paddedBytes = Math.ceil(lengthBytes / blob.ioUnitBytes) * blob.ioUnitBytes
  buffer.bytes.fill(0, lengthBytes, paddedBytes)
  return Effect.andThen(blob.write(offsetBytes, buffer.slice(0, paddedBytes)), Queue.offer(free, buffer))
}

/** Makes the blob and writes the bytes; nothing of it is durable, and the blob does not count, until `sha256` is. */
const writeData = Effect.fnUntraced(function* (writer: Writer, { file, old }: Wanted) {
  const fs = yield* FileSystem.FileSystem
  const { mtime, name, sizeBytes } = file
  const version = (old?.version ?? 0) + 1
  const blob = yield* writer.store.create({
    size: sizeBytes,
    extentTable: false,
    xattrs: { name, size: String(sizeBytes), mtime, version: String(version) }
  })
  const hash = createHash("sha256")
  yield* Effect.scoped(
    Effect.gen(function* () {
      const opened = yield* fs.open(file.path)
      yield* Stream.range(0, Math.ceil(sizeBytes / chunkBytes) - 1).pipe(
        Stream.mapEffect((index) => readChunk(writer, file, opened, index * chunkBytes), { concurrency: chunksAtOnce }),
        Stream.tap(({ buffer, lengthBytes }) =>
          Effect.sync(() => {
            hash.update(buffer.bytes.subarray(0, lengthBytes))
            writer.progress.add(lengthBytes)
          })
        ),
        Stream.mapEffect((chunk) => writeChunk(writer, blob, chunk), { concurrency: chunksAtOnce }),
        Stream.runDrain
      )
      const { size } = yield* opened.stat
      if (Number(size) !== sizeBytes) return yield* hasChanged(file)
    })
  )
  const entry: Entry = { id: blob.id, name, sizeBytes, mtime, sha256: hash.digest("hex"), version }
  return { blob, entry }
})

/** First the bytes become durable, then the hashes that say so, and only then the old blobs go. */
const writeGroup = Effect.fnUntraced(function* (writer: Writer, group: ReadonlyArray<Wanted>) {
  const entries = yield* Effect.scoped(
    Effect.gen(function* () {
      const written = yield* Effect.forEach(group, (wanted) => writeData(writer, wanted), { concurrency: filesAtOnce })
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
      const free = yield* Queue.unbounded<DmaBuffer.DmaBuffer>()
      for (let index = 0; index < buffers; index++) yield* Queue.offer(free, yield* DmaBuffer.make(chunkBytes))
      const writer: Writer = { store, bdev, free, progress }
      const groups = yield* Effect.forEach(groupsOf(wanted), (group) => writeGroup(writer, group), {
        concurrency: groupsAtOnce
      })
      return groups.flat()
    })
  )
})
