/**
 * What SPDK's recovery does not survive. A snapshot that a crash caught half-made is deleted while the store loads, and the
 * deletion takes it off its parent's list of clones, where the recovery has not put it: when another blob put the list there, SPDK
 * follows a null pointer (`bs_blob_list_remove`), and the process is gone. So whatever was left half-done is recovered by
 * the portable driver before SPDK sees it.
 */
import type { Bdev } from "@effect-spdk/core/Bdev"
import type { EngineBlobstores, EngineService } from "@effect-spdk/core/Engine"
import type { SpdkError } from "@effect-spdk/core/SpdkError"
import * as Effect from "effect/Effect"
import type { DriverLoadOptions } from "../driver.ts"
import type { SuperBlock } from "../format/superBlock.ts"
import { portableDriver } from "../portable/driver.ts"
import { errno } from "./errors.ts"

/**
 * Leaves a store that SPDK can load, or fails as the portable driver's load does. Nobody else may have the store loaded. A mention
 * that is no mark costs a recovery that finds nothing to mend, and writes nothing but that the store is clean.
 */
export const recoverLeftovers = (
  bdev: Bdev,
  options: DriverLoadOptions
): Effect.Effect<void, SpdkError, EngineService> => {
  const recovery: DriverLoadOptions = { ...options, grow: false, onProgress: undefined }
  return Effect.uninterruptible(Effect.flatMap(portableDriver.load(bdev, recovery), (store) => store.unload))
}

/**
 * ENXIO when SPDK could load the store now, else what it would answer: it looks at the type, which is made to differ, before it
 * reads any metadata, and only after it has seen that nobody has the store loaded, in whichever thread of this process.
 */
export const readiness = (blobstores: EngineBlobstores, bdev: Bdev, superBlock: SuperBlock): Effect.Effect<number> => {
  const type = superBlock.type === "?" ? "!" : "?"
  const args = { numbers: [0, 0, 0, 0], texts: [bdev.name, type] }
  return Effect.uninterruptible(
    Effect.flatMap(blobstores.open("load", bdev.name, args, undefined), ({ status, store }) =>
      status === 0 ? Effect.as(blobstores.call(store, "unload"), errno.EBUSY) : Effect.succeed(status)
    )
  )
}
