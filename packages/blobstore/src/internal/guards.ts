/**
 * What SPDK does not check, and then loses data, writes past its memory or never comes back from. Here it is checked for both
 * drivers, so that they refuse the same.
 */
import { Busy, failInvalid, SpdkError } from "@effect-spdk/core/SpdkError"
import * as Effect from "effect/Effect"
import type { BlobId, StoreDriver } from "./driver.ts"
import type { OpenBlobs } from "./openBlobs.ts"
import type { Place } from "./reasons.ts"

export const failBusy = (place: Place, detail: string): Effect.Effect<never, SpdkError<Busy>> =>
  Effect.fail(new SpdkError({ reason: new Busy({ ...place, detail }) }))

/** `setParent`, unless it would make the blob its own ancestor: SPDK then looks for the end of its parents for ever. */
export const adopt = (
  driver: StoreDriver,
  place: Place,
  id: BlobId,
  snapshot: BlobId
): Effect.Effect<void, SpdkError> => {
  const seen = new Set<BlobId>()
  const next = (at: BlobId): Effect.Effect<void, SpdkError> => {
    if (at === id) return failInvalid(place.operation, "snapshot", "lies on top of the blob", snapshot, place.resource)
    if (seen.has(at)) return driver.setParent(id, snapshot)
    seen.add(at)
    return Effect.flatMap(driver.parent(at), (parent) =>
      parent._tag === "Snapshot" ? next(parent.id) : driver.setParent(id, snapshot)
    )
  }
  return next(snapshot)
}

/** Whether the blob has a parent or clones in the store. Of one that cannot be read nobody knows. */
export const isRelated = (driver: StoreDriver, id: BlobId): Effect.Effect<boolean, SpdkError> =>
  Effect.flatMap(driver.parent(id), (parent) =>
    parent._tag === "Snapshot" ? Effect.succeed(true) : Effect.map(driver.clones(id), (clones) => clones.length > 0)
  ).pipe(
    Effect.catchIf(
      ({ reason }) => reason._tag === "Corrupted",
      () => Effect.succeed(false)
    )
  )

/**
 * Runs `remove`, unless the blob is a snapshot with a clone of another size: SPDK hands it the clusters so that it does not
 * load any more.
 */
export const removing = (
  driver: StoreDriver,
  blobs: OpenBlobs,
  place: Place,
  id: BlobId,
  remove: Effect.Effect<void, SpdkError>
): Effect.Effect<void, SpdkError> =>
  Effect.flatMap(driver.clones(id), (clones) => {
    const [clone] = clones
    if (clone === undefined || clones.length > 1 || blobs.isOpen(id)) return remove
    const sizes = Effect.all([blobs.clustersOf(id), blobs.clustersOf(clone)])
    return blobs.whileSized(
      clone,
      Effect.flatMap(sizes, ([own, other]) =>
        own === other ? remove : failBusy(place, "its clone has another size; inflate the clone first")
      )
    )
  })

/** Decoupling a blob larger than its parent, SPDK looks for clusters behind the end of the parent's. */
export const fitsItsParent = (
  driver: StoreDriver,
  blobs: OpenBlobs,
  place: Place,
  id: BlobId
): Effect.Effect<void, SpdkError> =>
  Effect.flatMap(driver.parent(id), (parent) =>
    parent._tag === "Snapshot"
      ? Effect.flatMap(Effect.all([blobs.clustersOf(id), blobs.clustersOf(parent.id)]), ([own, below]) =>
          own <= below
            ? Effect.void
            : failInvalid(place.operation, "id", "is that of a blob larger than its parent", id, place.resource)
        )
      : Effect.void
  )
