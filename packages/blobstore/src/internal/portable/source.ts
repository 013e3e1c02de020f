/** Where the bytes of a cluster come from: the blob itself, a blob below it, a bdev at the bottom, or nowhere. */
import type { Bdev, BdevIo, IoError } from "@effect-spdk/core/Bdev"
import type { DmaBuffer } from "@effect-spdk/core/DmaBuffer"
import * as Effect from "effect/Effect"
import type { BlobState } from "./blob.ts"
import { unreadable } from "./errors.ts"
import type { Store } from "./store.ts"

type Source =
  | { readonly _tag: "Cluster"; readonly cluster: number }
  | { readonly _tag: "External"; readonly bdev: Bdev }
  | { readonly _tag: "Missing"; readonly name: string }
  | { readonly _tag: "Zeroes" }

const zeroes: Source = { _tag: "Zeroes" }

/** A blob that has been grown after its snapshot reads as zeroes past the end of that. */
export const source = (top: BlobState, index: number): Source => {
  for (let blob = top; ;) {
    if (index >= blob.clusterCount) return zeroes
    const cluster = blob.clusters[index] ?? 0
    if (cluster !== 0) return { _tag: "Cluster", cluster }
    const { backing } = blob
    if (backing === undefined) return zeroes
    if (backing._tag !== "Blob") return backing
    blob = backing.blob
  }
}

/** Reads whole io units inside one cluster. `offsetBytes` is the blob's; `io` the bdev of the store or a channel of it. */
export const readBacking = (
  store: Store,
  from: Source,
  offsetBytes: number,
  buffer: DmaBuffer,
  io: BdevIo = store.device.bdev
): Effect.Effect<void, IoError> => {
  if (from._tag === "Cluster") {
    return io.read(from.cluster * store.clusterBytes + (offsetBytes % store.clusterBytes), buffer)
  }
  if (from._tag === "Missing") return Effect.fail(unreadable(from.name))
  return from._tag === "External" ? readExternal(from.bdev, offsetBytes, buffer) : Effect.sync(() => fillZero(buffer))
}

const fillZero = (buffer: DmaBuffer): void => {
  buffer.bytes.fill(0)
}

/** Past its end an external snapshot reads as zeroes. */
const readExternal = (bdev: Bdev, offsetBytes: number, buffer: DmaBuffer): Effect.Effect<void, IoError> => {
  const length = Math.max(0, Math.min(buffer.byteLength, bdev.sizeBytes - offsetBytes))
  if (length === buffer.byteLength) return readPresent(bdev, offsetBytes, buffer)
  buffer.bytes.fill(0, length)
  return length === 0 ? Effect.void : readPresent(bdev, offsetBytes, buffer.slice(0, length))
}

/** The blob is there, so that it is not what was removed. */
const readPresent = (bdev: Bdev, offsetBytes: number, buffer: DmaBuffer): Effect.Effect<void, IoError> =>
  Effect.mapError(bdev.read(offsetBytes, buffer), (error) =>
    error.reason._tag === "DeviceRemoved" ? unreadable(bdev.name) : error
  )
