/**
 * Drivers fail with any `SpdkError`; public operations name the reasons they fail with. This is the step between.
 */
import type { ReasonTag, Released } from "@effect-spdk/core/SpdkError"
import { IoFailed, NotFound, ReadOnly, SpdkError, type SpdkErrorOf, released } from "@effect-spdk/core/SpdkError"
import * as Effect from "effect/Effect"

/** Where a call happens, for its errors. */
export interface Place {
  readonly operation: string
  readonly resource: string
}

/**
 * Narrows the error to these reasons. What a device answers to the writes of metadata can be anything; what is not among
 * the reasons becomes `IoFailed` with the error as its cause.
 */
export const only =
  <const Tags extends ReadonlyArray<ReasonTag>>(place: Place, tags: Tags) =>
  <A, R>(self: Effect.Effect<A, SpdkError, R>): Effect.Effect<A, SpdkErrorOf<Tags[number] | "IoFailed">, R> =>
    Effect.mapError(self, (error) => {
      const named = asCalled(place, error)
      if (isOneOf(named, tags)) return named
      return new SpdkError({ reason: new IoFailed({ ...place, detail: error.message, cause: error }) })
    })

/** A blob that is not there is first missed by some step on the way. */
const asCalled = (place: Place, error: SpdkError): SpdkError => {
  const { reason } = error
  return reason._tag === "NotFound" && reason.resource === place.resource && reason.operation !== place.operation
    ? new SpdkError({ reason: new NotFound({ ...reason, ...place }) })
    : error
}

const isOneOf = <Tags extends ReadonlyArray<ReasonTag>>(
  error: SpdkError,
  tags: Tags
): error is SpdkErrorOf<Tags[number]> => tags.some((tag) => tag === error.reason._tag)

/** SPDK refuses to change the metadata of a read-only blob with EPERM. */
export const permissionIsReadOnly =
  (place: Place) =>
  <A, R>(self: Effect.Effect<A, SpdkError, R>): Effect.Effect<A, SpdkError, R> =>
    Effect.mapError(self, (error) =>
      error.reason._tag === "PermissionDenied"
        ? new SpdkError({ reason: new ReadOnly({ ...place, detail: "the blob is read-only", cause: error }) })
        : error
    )

/** What only looks fails when the engine has closed what lies below: with a device that is gone, for one. */
export const onlyLooks = <A, R>(
  self: Effect.Effect<A, SpdkError, R>
): Effect.Effect<A, SpdkErrorOf<"DeviceRemoved" | "Released">, R> =>
  Effect.catch(self, (error) =>
    isOneOf(error, ["DeviceRemoved", "Released"]) ? Effect.fail(error) : Effect.die(error)
  )

export const releasedBlob = (operation: string, resource: string): SpdkError<Released> =>
  released(operation, "blob", resource)

export const releasedStore = (operation: string, resource: string): SpdkError<Released> =>
  released(operation, "blobstore", resource)

/** What every call on metadata can fail with. */
export const metadataReasons = ["Aborted", "DeviceRemoved", "IoFailed", "NoMemory", "Released", "TimedOut"] as const
