/** The state of one key-value store, and the life of its segments: made, sealed, retired. */
import { Host } from "@effect-spdk/core/Engine"
import { Corrupted, IoFailed, released, SpdkError } from "@effect-spdk/core/SpdkError"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import type * as Semaphore from "effect/Semaphore"
import type { Damage } from "../format/damage.ts"
import { saltBytes } from "./codec.ts"
import type { KvIndex, Segment, ValueBlob } from "./index.ts"
import {
  decodeSegmentMark,
  encodeEnd,
  encodeSegmentMark,
  endXattr,
  segmentXattr,
  type SegmentMark,
  spareXattr,
  storeXattr
} from "./marks.ts"
import type { KvBlob, KvBlobs } from "./port.ts"

export interface Limits {
  readonly segmentBytes: number
  /** From this length on a value gets a blob of its own. */
  readonly largeValueBytes: number
  /** A sealed segment with a larger part of garbage is worth compaction. */
  readonly garbageRatio: number
}

export interface Log {
  readonly blobs: KvBlobs
  readonly name: string
  readonly limits: Limits
  readonly index: KvIndex
  /** All that are on disk, the active one included. */
  readonly segments: Set<Segment>
  /** undefined until something is written. */
  active: Segment | undefined
  /** An empty blob that only what frees space may take, so that a full device is no trap. */
  spare: number | undefined
  nextNumber: number
  nextSequence: number
  baseSequence: number
  /** `nextSequence` when segments were last searched for garbage. */
  lookedAt: number
  closed: boolean
  /** Why nobody knows what the next load will find: nothing is answered any more. */
  failure: Cause.Cause<SpdkError> | undefined
  /** Of what runs in the background; its end waits for it. */
  readonly scope: Scope.Scope
  /** Held by who makes or retires segments beside the committer: compaction and clear. */
  readonly structure: Semaphore.Semaphore
}

export const operationOf = (name: string): string => `BlobKeyValueStore "${name}"`

export const corrupted = (name: string, { rule, where }: Damage, place?: string): SpdkError<Corrupted> =>
  new SpdkError({
    reason: new Corrupted({
      operation: operationOf(name),
      where: place === undefined ? where : `${place}, ${where},`,
      rule
    })
  })

/** Why the store answers nothing, or nothing any more. */
export const unusable = (log: Log): SpdkError | undefined => {
  const operation = operationOf(log.name)
  if (log.closed) return released(operation, "key-value store")
  if (log.failure === undefined) return undefined
  const detail = "a clear failed half way: close the key-value store and open it again to find out what is left"
  return new SpdkError({ reason: new IoFailed({ operation, detail, cause: Cause.squash(log.failure) }) })
}

/** No clusters, or no pages of metadata, which SPDK calls memory. */
export const isNoSpace = (error: SpdkError): boolean =>
  error.reason._tag === "NoSpace" || error.reason._tag === "NoMemory"

const encoder = new TextEncoder()

export const storeMark = (name: string): readonly [string, Uint8Array] => [storeXattr, encoder.encode(name)]

export const openedSegment = (blob: KvBlob, mark: Omit<SegmentMark, "baseSequence">): Segment => ({
  number: mark.number,
  salt: mark.salt,
  alignmentBytes: mark.alignmentBytes,
  blob,
  capacityBytes: blob.sizeBytes,
  endBytes: 0,
  nextIndex: 0,
  sealed: false,
  liveBytes: 0,
  keys: [],
  limbo: [],
  mayBeGone: false,
  readers: 0,
  onIdle: undefined
})

/** The spare becomes a segment in one durable step. */
const useSpare = (log: Log, id: number, mark: Uint8Array): Effect.Effect<KvBlob, SpdkError> =>
  Effect.flatMap(log.blobs.open(id), (blob) =>
    blob.setXattr(segmentXattr, mark).pipe(
      Effect.andThen(blob.removeXattr(spareXattr)),
      Effect.andThen(blob.sync),
      Effect.as(blob),
      Effect.tapError(() => blob.close)
    )
  )

/** An empty segment, durable. `mayUseSpare` when its use will free space. */
export const createSegment = Effect.fnUntraced(function* (log: Log, mayUseSpare: boolean) {
  const { randomBytes } = yield* Host
  /** Each with a number of its own: a blob whose creation failed, and its deletion too, is a segment to the next load. */
  const nextMark = () => ({
    number: log.nextNumber++,
    salt: randomBytes(saltBytes),
    baseSequence: log.baseSequence,
    alignmentBytes: Math.max(512, log.blobs.blockBytes)
  })
  const { spare } = log
  const mark = nextMark()
  const xattrs = [storeMark(log.name), [segmentXattr, encodeSegmentMark(mark)]] as const
  const segment = yield* log.blobs.create(log.limits.segmentBytes, xattrs).pipe(
    // What nobody has open stays until the next load.
    Effect.flatMap((id) => Effect.onError(log.blobs.open(id), () => Effect.ignore(log.blobs.delete(id)))),
    Effect.map((blob) => openedSegment(blob, mark)),
    Effect.catch((error) => {
      if (!isNoSpace(error) || !mayUseSpare || spare === undefined) return Effect.fail(error)
      log.spare = undefined
      const another = nextMark()
      return Effect.map(useSpare(log, spare, encodeSegmentMark(another)), (blob) => openedSegment(blob, another))
    })
  )
  log.segments.add(segment)
  return segment
}, Effect.uninterruptible)

/** From now on, and durably, records with a lower sequence than `baseSequence` are void. */
export const rebase = ({ alignmentBytes, blob, number, salt }: Segment, baseSequence: number) =>
  Effect.andThen(
    blob.setXattr(segmentXattr, encodeSegmentMark({ number, salt, baseSequence, alignmentBytes })),
    blob.sync
  )

/** Makes the spare where there is room for one. */
export const ensureSpare = (log: Log): Effect.Effect<void> =>
  Effect.suspend(() =>
    log.spare !== undefined
      ? Effect.void
      : Effect.ignore(
          Effect.map(
            log.blobs.create(log.limits.segmentBytes, [storeMark(log.name), [spareXattr, new Uint8Array([1])]]),
            (id) => {
              log.spare = id
            }
          )
        )
  )

/**
 * Records where a segment ends, so that from then on a damaged batch before that end is damage and not the rest of a torn
 * write. Without the record nothing is lost but this certainty, so that a failure is no failure.
 */
export const sealSegment = (segment: Segment): Effect.Effect<void> =>
  Effect.suspend(() => {
    segment.sealed = true
    return Effect.ignore(
      Effect.andThen(segment.blob.setXattr(endXattr, encodeEnd(segment.endBytes)), segment.blob.sync)
    )
  })

type Read = Segment | ValueBlob

/** From here on the segment, or blob, is not deleted. In the step in which it was found, and paired with `endRead`. */
export const startRead = (read: Read): void => {
  read.readers++
}

export const endRead = (read: Read): void => {
  read.readers--
  if (read.readers === 0) read.onIdle?.()
}

const idle = (read: Read): Effect.Effect<void> =>
  Effect.callback<void>((resume) => {
    if (read.readers === 0) resume(Effect.void)
    else read.onIdle = () => resume(Effect.void)
  })

/**
 * Deletes the blob of a value that nothing refers to, once nobody reads it any more. What cannot be deleted is an orphan that
 * the next load removes.
 */
export const deleteValue = (log: Log, blob: ValueBlob): Effect.Effect<void> =>
  Effect.uninterruptible(Effect.andThen(idle(blob), Effect.ignore(log.blobs.delete(blob.id))))

/** A deletion that failed may have been done all the same, and the id given to somebody else since. */
const deleteSegment = ({ blobs }: Log, segment: Segment): Effect.Effect<void, SpdkError> =>
  Effect.suspend(() => {
    const { blob, mayBeGone, salt } = segment
    segment.mayBeGone = true
    if (!mayBeGone) return blobs.delete(blob.id)
    // Where there is no blob of the id, the device may have it still: it stays among the segments.
    return Effect.flatMap(blobs.xattrs(blob.id), (xattrs) => {
      const mark = xattrs.get(segmentXattr)
      const found = mark === undefined ? undefined : Result.getOrUndefined(decodeSegmentMark(mark))
      return found !== undefined && Buffer.compare(found.salt, salt) === 0 ? blobs.delete(blob.id) : Effect.void
    })
  })

/** Deletes a segment of which nothing is needed. When that fails it stays in `segments`, and a later compaction tries again. */
export const retireSegment = (log: Log, segment: Segment): Effect.Effect<void> =>
  Effect.gen(function* () {
    segment.sealed = true
    yield* idle(segment)
    yield* segment.blob.close
    yield* deleteSegment(log, segment)
    log.index.drop(segment)
    log.segments.delete(segment)
    if (segment.limbo.length > 0) {
      const inUse = new Set([...log.index.values()].map(([, entry]) => entry.blob))
      for (const blob of segment.limbo) if (!inUse.has(blob)) yield* deleteValue(log, blob)
    }
  }).pipe(Effect.ignore, Effect.uninterruptible)
