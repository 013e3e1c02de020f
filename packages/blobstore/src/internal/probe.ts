/**
 * Whether a device holds a blobstore, so that nobody initialises what can be repaired.
 */
import type { Bdev, IoError } from "@effect-spdk/core/Bdev"
import * as Effect from "effect/Effect"

const superBlockBytes = 4096
const signature = Buffer.from("SPDKBLOB")
const highestVersion = 3

/** True when the first page is no super block, and nothing that was one. */
export const isEmpty = (bdev: Bdev): Effect.Effect<boolean, IoError> => {
  const lengthBytes = Math.ceil(superBlockBytes / bdev.blockSize) * bdev.blockSize
  // Too small for a super block. Initialising says so.
  if (lengthBytes > bdev.sizeBytes) return Effect.succeed(true)
  return Effect.map(
    bdev.readBytes(0, lengthBytes),
    (bytes) => !isSuperBlock(Buffer.from(bytes.buffer, bytes.byteOffset))
  )
}

/** A damaged signature does not make a device empty when the fields behind it are those of a super block. */
const isSuperBlock = (page: Buffer): boolean => {
  if (page.subarray(0, signature.length).equals(signature)) return true
  const version = page.readUInt32LE(8)
  const lengthBytes = page.readUInt32LE(12)
  const versionFits = version >= 1 && version <= highestVersion
  return versionFits && lengthBytes === superBlockBytes
}
