/** The work itself: files to the device, and back again on a handle of its own. */
import * as Bdev from "@effect-spdk/core/Bdev"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Stream from "effect/Stream"
import { createHash } from "node:crypto"
import { DemoError } from "./DemoError.ts"
import type { Progress } from "./Progress.ts"
import type { Placed } from "./Sources.ts"

const chunkBytes = 128 * 1024

/** Files under way at once, and requests under way in each. */
const filesAtOnce = 4
const requestsPerFile = 8

export interface Written extends Placed {
  readonly sha256: string
}

export interface Verified extends Written {
  readonly sha256OnDevice: string
}

export const isIntact = (file: Verified): boolean => file.sha256 === file.sha256OnDevice

const writeFile = Effect.fnUntraced(function* (bdev: Bdev.Bdev, file: Placed, progress: Progress) {
  const fs = yield* FileSystem.FileSystem
  const hash = createHash("sha256")
  let lengthBytes = 0
  yield* fs.stream(file.path, { bytesToRead: file.sizeBytes, chunkSize: chunkBytes }).pipe(
    Stream.map((chunk) => {
      hash.update(chunk)
      lengthBytes += chunk.length
      progress.add(chunk.length)
      return chunk
    }),
    Stream.run(bdev.sink({ offsetBytes: file.offsetBytes, concurrency: requestsPerFile }))
  )
  if (lengthBytes !== file.sizeBytes) {
    return yield* new DemoError({ message: `${file.label} has changed while it was read` })
  }
  return { ...file, sha256: hash.digest("hex") } satisfies Written
})

/** Writes every file to its place and flushes the device. */
export const writeAll = Effect.fn("demo.writeAll")(function* (
  bdev: Bdev.Bdev,
  files: ReadonlyArray<Placed>,
  progress: Progress
) {
  const written = yield* Effect.forEach(files, (file) => writeFile(bdev, file, progress), { concurrency: filesAtOnce })
  yield* bdev.flush()
  return written
})

const readFile = Effect.fnUntraced(function* (bdev: Bdev.Bdev, file: Written, progress: Progress) {
  const hash = createHash("sha256")
  const range = { offsetBytes: file.offsetBytes, lengthBytes: file.sizeBytes }
  yield* bdev.stream({ ...range, chunkBytes, concurrency: requestsPerFile }).pipe(
    Stream.runForEach((chunk) =>
      Effect.sync(() => {
        hash.update(chunk)
        progress.add(chunk.length)
      })
    )
  )
  return { ...file, sha256OnDevice: hash.digest("hex") } satisfies Verified
})

/** Opens the bdev once more, read-only, and hashes every file from it. */
export const verifyAll = (name: string, files: ReadonlyArray<Written>, progress: Progress) =>
  Effect.scoped(
    Effect.gen(function* () {
      const bdev = yield* Bdev.open(name)
      return yield* Effect.forEach(files, (file) => readFile(bdev, file, progress), { concurrency: filesAtOnce })
    })
  )

/** Flips one byte in the middle of the largest file, as a failing disk might. */
export const corrupt = Effect.fn("demo.corrupt")(function* (bdev: Bdev.Bdev, files: ReadonlyArray<Placed>) {
  const largest = files.reduce((left, right) => (right.sizeBytes > left.sizeBytes ? right : left))
  if (largest.sizeBytes === 0)
    return yield* new DemoError({ message: "there is no byte to corrupt: every file is empty" })
  const positionBytes = largest.offsetBytes + Math.floor(largest.sizeBytes / 2)
  const blockOffsetBytes = positionBytes - (positionBytes % bdev.blockSize)
  const block = yield* bdev.readBytes(blockOffsetBytes, bdev.blockSize)
  const index = positionBytes - blockOffsetBytes
  block[index] = (block[index] ?? 0) ^ 0xff
  yield* bdev.writeBytes(blockOffsetBytes, block)
  return largest
})
