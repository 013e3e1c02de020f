/**
 * What SPDK's recovery does not survive. A snapshot that a crash caught half-made is deleted while the store loads, and the
 * deletion takes it off its parent's list of clones, where the recovery has not put it: when another blob put the list there, SPDK
 * follows a null pointer (`bs_blob_list_remove`), and the process is gone. So whatever was left half-done is recovered by
 * the portable driver before SPDK sees it.
 */
import type { Bdev, IoError } from "@effect-spdk/core/Bdev"
import * as DmaBuffer from "@effect-spdk/core/DmaBuffer"
import type { EngineBlobstores, EngineService } from "@effect-spdk/core/Engine"
import type { SpdkError } from "@effect-spdk/core/SpdkError"
import * as Effect from "effect/Effect"
import type { LoadOptions } from "../driver.ts"
import { internalXattr, pageBytes } from "../format/layout.ts"
import type { SuperBlock } from "../format/superBlock.ts"
import { portableDriver } from "../portable/driver.ts"
import { errno } from "./errors.ts"

const partBytes = 2 ** 20
const inFlight = 4

const names = [internalXattr.snapshotInProgress, internalXattr.snapshotPendingRemoval].map((name) => Buffer.from(name))

/** After a clean unload nothing is looked for: SPDK recovers nothing then. */
const isRecovered = (superBlock: SuperBlock, options: LoadOptions): boolean =>
  !superBlock.clean || superBlock.usedBlobIdMaskLength === 0 || options.forceRecover

/**
 * Whether the names of the marks occur anywhere in the metadata. A descriptor lies within a page, and so within a part. A name that
 * is not a mark costs a recovery that finds nothing to mend.
 */
const mentionsLeftovers = (bdev: Bdev, superBlock: SuperBlock): Effect.Effect<boolean, SpdkError, EngineService> =>
  Effect.gen(function* () {
    const { mdLength, mdPageSize, mdStart } = superBlock
    const pages = Math.min(mdLength, Math.max(1, Math.floor(partBytes / mdPageSize)))
    const alignment = Math.max(pageBytes, bdev.info.bufferAlignmentBytes)
    const pool = yield* DmaBuffer.pool({ lengthBytes: pages * mdPageSize, capacity: inFlight, alignment })
    let found = false
    const look = (part: number): Effect.Effect<void, IoError> => {
      if (found) return Effect.void
      const first = part * pages
      const lengthBytes = Math.min(pages, mdLength - first) * mdPageSize
      return Effect.scoped(
        Effect.flatMap(pool.take, (chunk) => {
          const buffer = chunk.slice(0, lengthBytes)
          return Effect.map(bdev.read((mdStart + first) * mdPageSize, buffer), () => {
            const { bytes } = buffer
            const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
            found ||= names.some((name) => text.includes(name))
          })
        })
      )
    }
    const parts = Array.from({ length: Math.ceil(mdLength / pages) }).keys()
    yield* Effect.forEach(parts, (part) => Effect.suspend(() => look(part)), { concurrency: inFlight, discard: true })
    return found
  }).pipe(Effect.scoped)

/**
 * Leaves a store that SPDK can load, or fails as the portable driver's load does. Writes nothing where nothing was left, and
 * nothing where the store is loaded, in whichever thread of this process.
 */
export const recoverLeftovers = (
  blobstores: EngineBlobstores,
  bdev: Bdev,
  superBlock: SuperBlock,
  options: LoadOptions
): Effect.Effect<void, SpdkError, EngineService> => {
  if (!isRecovered(superBlock, options)) return Effect.void
  const recovery: LoadOptions = { ...options, grow: false, onProgress: undefined }
  const mend = Effect.flatMap(isFree(blobstores, bdev, superBlock), (free) =>
    free ? Effect.flatMap(portableDriver.load(bdev, recovery), (store) => store.unload) : Effect.void
  )
  return Effect.flatMap(mentionsLeftovers(bdev, superBlock), (mentioned) =>
    mentioned ? Effect.uninterruptible(mend) : Effect.void
  )
}

/**
 * Whether SPDK could load the store now: it looks at the type, which is made to differ, before it recovers anything, and only
 * after it has seen that nobody has the store loaded.
 */
const isFree = (blobstores: EngineBlobstores, bdev: Bdev, superBlock: SuperBlock): Effect.Effect<boolean> => {
  const type = superBlock.type === "?" ? "!" : "?"
  const args = { numbers: [0, 0, 0, 0], texts: [bdev.name, type] }
  return Effect.flatMap(blobstores.open("load", bdev.name, args, undefined), ({ status, store }) =>
    status === 0 ? Effect.as(blobstores.call(store, "unload"), false) : Effect.succeed(status === errno.ENXIO)
  )
}
