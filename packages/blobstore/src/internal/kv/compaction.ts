/**
 * Takes what is still needed out of segments that are mostly garbage. A copy is the same record with the same sequence, so
 * that at any moment of a crash there is the old segment, or the new one, or both, and all three mean the same.
 */
import type { SpdkError } from "@effect-spdk/core/SpdkError"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { batchHeaderBytes, type Draft, draftBytes, draftOf, encodeBatch } from "./codec.ts"
import type { Segment } from "./index.ts"
import { corrupted, createSegment, ensureSpare, type Log, retireSegment, sealSegment } from "./log.ts"
import { scanSegment } from "./scan.ts"

const maxBatchBytes = 2 ** 20

/** Sealed segments with enough garbage, those with the least to copy first. */
const candidates = (log: Log): ReadonlyArray<Segment> => {
  const maxLiveBytes = log.limits.segmentBytes * (1 - log.limits.garbageRatio)
  return [...log.segments]
    .filter((segment) => segment !== log.active && segment.sealed && segment.liveBytes <= maxLiveBytes)
    .toSorted((left, right) => left.liveBytes - right.liveBytes)
}

/** As many as fit together into one new segment, with room for the padding of batches. */
const chooseVictims = (log: Log): ReadonlyArray<Segment> => {
  const victims: Array<Segment> = []
  let bytes = 0
  for (const segment of candidates(log)) {
    bytes += segment.liveBytes
    if (bytes > log.limits.segmentBytes * maxFill) break
    victims.push(segment)
  }
  return victims
}

const maxFill = 0.9

/** One victim for one new segment gains nothing, unless the victim is all garbage. */
const isWorthIt = (victims: ReadonlyArray<Segment>): boolean => victims.length > 1 || victims[0]?.liveBytes === 0

export const isCompactionDue = (log: Log): boolean => !log.closed && isWorthIt(chooseVictims(log))

interface Kept {
  readonly from: Segment
  readonly draft: Draft
  readonly sequence: number
}

/** What of a victim is still needed, read from disk and verified. */
const keptOf = Effect.fnUntraced(function* (log: Log, victim: Segment) {
  if (victim.liveBytes === 0) return []
  const bytes = yield* victim.blob.read(0, victim.endBytes)
  const scanned = scanSegment(bytes, victim, victim.endBytes)
  if (Result.isFailure(scanned))
    return yield* Effect.fail(corrupted(log.name, scanned.failure, `segment ${victim.number}`))
  const kept: Array<Kept> = []
  for (const { record } of scanned.success.records) {
    if (log.index.mustKeep(victim, record.key, record.sequence)) {
      kept.push({ from: victim, draft: draftOf(record), sequence: record.sequence })
    }
  }
  return kept
})

const batchesOf = (kept: ReadonlyArray<Kept>): ReadonlyArray<ReadonlyArray<Kept>> => {
  const batches: Array<Array<Kept>> = []
  let bytes = maxBatchBytes
  for (const one of kept) {
    bytes += draftBytes(one.draft)
    const last = batches.at(-1)
    if (last === undefined || bytes > maxBatchBytes) {
      batches.push([one])
      bytes = batchHeaderBytes + draftBytes(one.draft)
    } else last.push(one)
  }
  return batches
}

/** Writes copies into a new segment, durable and sealed when it returns. */
const copyInto = Effect.fnUntraced(function* (segment: Segment, kept: ReadonlyArray<Kept>) {
  const offsets: Array<number> = []
  for (const batch of batchesOf(kept)) {
    const place = { salt: segment.salt, index: segment.nextIndex, offsetBytes: segment.endBytes }
    const { bytes, offsetsBytes } = encodeBatch(place, batch, segment.alignmentBytes)
    yield* segment.blob.write(segment.endBytes, bytes)
    segment.endBytes += bytes.length
    segment.nextIndex++
    for (const offset of offsetsBytes) offsets.push(offset)
  }
  yield* segment.blob.sync
  yield* sealSegment(segment)
  return offsets
})

const replace = Effect.fnUntraced(function* (log: Log, victims: ReadonlyArray<Segment>, kept: ReadonlyArray<Kept>) {
  const segment = yield* createSegment(log, true)
  const copied = yield* Effect.exit(copyInto(segment, kept))
  if (copied._tag === "Failure") {
    for (const { draft, sequence } of kept) log.index.addUncertain(segment, draft.key, sequence)
    yield* retireSegment(log, segment)
    return yield* Effect.failCause(copied.cause)
  }
  for (const [position, { draft, from, sequence }] of kept.entries()) {
    log.index.move(draft.key, sequence, from, segment, copied.value[position] ?? 0)
  }
  for (const victim of victims) yield* retireSegment(log, victim)
})

const step = Effect.fnUntraced(function* (log: Log) {
  const victims = chooseVictims(log)
  const kept: Array<Kept> = []
  for (const victim of victims) for (const one of yield* keptOf(log, victim)) kept.push(one)
  if (kept.length === 0) for (const victim of victims) yield* retireSegment(log, victim)
  else yield* replace(log, victims, kept)
})

/**
 * Compacts until nothing is worth it. An error ends it and changes nothing: what could not be copied or deleted stays where it
 * is, and whoever reads it meets the error.
 */
export const compact = (log: Log): Effect.Effect<void> =>
  Effect.gen(function* () {
    let count = Number.POSITIVE_INFINITY
    // A segment that cannot be deleted would be a victim for ever.
    while (isCompactionDue(log) && log.segments.size < count) {
      count = log.segments.size
      yield* step(log)
    }
    yield* ensureSpare(log)
  }).pipe(
    Effect.catch((error: SpdkError) => Effect.logWarning("compaction of a key-value store failed", error.message)),
    log.structure.withPermits(1),
    Effect.uninterruptible
  )
