/**
 * Writes: whatever fibers want to change waits in one queue, and one committer at a time takes what has gathered there,
 * writes it as one batch, syncs once, and only then shows it in the index and lets the fibers go on.
 */
import type { SpdkError } from "@effect-spdk/core/SpdkError"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import { batchHeaderBytes, type Draft, draftBytes, encodeBatch, Kind } from "./codec.ts"
import { compact, isCompactionDue } from "./compaction.ts"
import type { Segment, ValueBlob } from "./index.ts"
import {
  createSegment,
  deleteValue,
  ensureSpare,
  isNoSpace,
  type Log,
  rebase,
  retireSegment,
  sealSegment,
  unusable
} from "./log.ts"

/** "stale": the key's value is not the one that `expected` names; nothing was written. */
export type Outcome = "done" | "stale"

export interface LogChange {
  readonly _tag: "Change"
  readonly draft: Draft
  readonly blob: ValueBlob | undefined
  /** Only when the newest record of the key has this sequence. */
  readonly expected: number | undefined
  readonly done: Deferred.Deferred<Outcome, SpdkError>
}

export interface Clear {
  readonly _tag: "Clear"
  readonly done: Deferred.Deferred<Outcome, SpdkError>
}

export interface Committer {
  /** Completes when the change is durable. Who is interrupted while waiting does not take it back. */
  readonly submit: (request: LogChange | Clear) => Effect.Effect<Outcome, SpdkError>
}

const maxBatchBytes = 2 ** 20

interface Numbered {
  readonly change: LogChange
  readonly draft: Draft
  readonly sequence: number
}

export const makeCommitter = (log: Log): Committer => {
  const queue: Array<LogChange | Clear> = []
  let running = false

  const run = Effect.gen(function* () {
    // Everybody who is ready in this turn comes into the first batch.
    yield* Effect.yieldNow
    while (queue.length > 0) {
      const first = queue[0]
      if (first?._tag === "Clear") {
        queue.shift()
        yield* answering([first], clear(log, first))
      } else {
        const group = takeGroup(queue, Math.min(maxBatchBytes, log.limits.segmentBytes))
        yield* answering(group, commit(log, group))
      }
      if (mayHaveGarbage(log) && isCompactionDue(log)) yield* Effect.forkIn(compact(log), log.scope)
    }
    // In the step that has seen the queue empty: who comes later must not count on this fiber.
    running = false
  }).pipe(Effect.uninterruptible)

  return {
    submit: (request) =>
      // From the step on that says so, somebody has to be running.
      Effect.uninterruptibleMask((restore) => {
        const refused = unusable(log)
        if (refused !== undefined) return Effect.fail(refused)
        queue.push(request)
        const answered = restore(Deferred.await(request.done))
        if (running) return answered
        running = true
        return Effect.andThen(
          Effect.forkIn(run, log.scope, { startImmediately: true, uninterruptible: true }),
          answered
        )
      })
  }
}

/** A broken invariant ends those who wait for it, and not those who come after them. */
const answering = (requests: ReadonlyArray<LogChange | Clear>, work: Effect.Effect<void>): Effect.Effect<void> =>
  Effect.catchCause(work, (cause) =>
    Effect.forEach(requests, ({ done }) => Deferred.failCause(done, cause), { discard: true })
  )

/** Looking at all segments takes time when there are thousands: it is worth it when as many changes have come. */
const mayHaveGarbage = (log: Log): boolean => {
  const due = log.nextSequence - log.lookedAt >= log.segments.size
  if (due) log.lookedAt = log.nextSequence
  return due
}

/** The changes at the head of the queue that fit into one batch, and into an empty segment: at least one. */
const takeGroup = (queue: Array<LogChange | Clear>, limitBytes: number): ReadonlyArray<LogChange> => {
  const group: Array<LogChange> = []
  let bytes = batchHeaderBytes
  for (;;) {
    const next = queue[0]
    if (next === undefined || next._tag === "Clear") return group
    bytes += draftBytes(next.draft)
    if (bytes > limitBytes && group.length > 0) return group
    group.push(next)
    queue.shift()
  }
}

/** Gives each change its sequence, and answers at once those that have nothing to write. */
const number = (log: Log, group: ReadonlyArray<LogChange>): ReadonlyArray<Numbered> => {
  const numbered: Array<Numbered> = []
  const inBatch = new Map<string, Numbered>()
  for (const change of group) {
    const { draft, expected } = change
    const before = inBatch.get(draft.key)
    const current = before?.sequence ?? log.index.find(draft.key)?.sequence
    // What the batch itself removes is there until the batch is durable: a second removal ends no earlier than the first.
    const isThere = before !== undefined || log.index.mayBeThere(draft.key)
    if (expected !== undefined && expected !== current) Deferred.doneUnsafe(change.done, Effect.succeed("stale"))
    else if (draft.kind === Kind.Tombstone && !isThere) Deferred.doneUnsafe(change.done, Effect.succeed("done"))
    else {
      const next = { change, draft, sequence: log.nextSequence++ }
      inBatch.set(draft.key, next)
      numbered.push(next)
    }
  }
  return numbered
}

const commit = Effect.fnUntraced(function* (log: Log, group: ReadonlyArray<LogChange>) {
  const refused = unusable(log)
  if (refused !== undefined) {
    for (const { done } of group) yield* Deferred.fail(done, refused)
    return
  }
  const numbered = number(log, group)
  if (numbered.length === 0) return
  const failure = yield* makeRoom(log, numbered)
  if (failure === undefined) return yield* write(log, numbered)
  const removals = numbered.filter(({ draft }) => draft.kind === Kind.Tombstone)
  const sets = numbered.filter(({ draft }) => draft.kind !== Kind.Tombstone)
  if (sets.length === 0 || !isNoSpace(failure)) return yield* refuse(log, numbered, failure)
  yield* refuse(log, sets, failure)
  // What was removed in the same batch frees space, so that it may go on where sets may not.
  const remaining = removals.filter(({ draft }) => log.index.mayBeThere(draft.key))
  for (const { change } of removals.filter((removal) => !remaining.includes(removal))) {
    Deferred.doneUnsafe(change.done, Effect.succeed("done"))
  }
  if (remaining.length === 0) return
  const still = yield* makeRoom(log, remaining)
  yield* still === undefined ? write(log, remaining) : refuse(log, remaining, still)
})

/** Fails changes of which nothing has been written. */
const refuse = (log: Log, changes: ReadonlyArray<Numbered>, error: SpdkError): Effect.Effect<void> =>
  Effect.forEach(
    changes,
    ({ change }) => {
      const blob = change.blob === undefined ? Effect.void : deleteValue(log, change.blob)
      return Effect.andThen(blob, Deferred.fail(change.done, error))
    },
    { discard: true }
  )

const fits = (log: Log, changes: ReadonlyArray<Numbered>): boolean => {
  const { active } = log
  if (active === undefined || active.sealed) return false
  const bytes = changes.reduce((total, { draft }) => total + draftBytes(draft), batchHeaderBytes)
  const padded = Math.ceil(bytes / active.alignmentBytes) * active.alignmentBytes
  return padded <= active.capacityBytes - active.endBytes
}

/** Sees to an active segment that has room; returns why there is none. */
const makeRoom = Effect.fnUntraced(function* (log: Log, changes: ReadonlyArray<Numbered>) {
  if (fits(log, changes)) return undefined
  const rotated = yield* rotate(log, false)
  if (rotated === undefined || !isNoSpace(rotated)) return rotated
  yield* compact(log)
  const onlyRemoves = changes.every(({ draft }) => draft.kind === Kind.Tombstone)
  return yield* rotate(log, onlyRemoves)
})

/** The next segment becomes the active one. */
const rotate = (log: Log, mayUseSpare: boolean): Effect.Effect<SpdkError | undefined> =>
  Effect.matchEffect(createSegment(log, mayUseSpare), {
    onFailure: (error) => Effect.succeed<SpdkError | undefined>(error),
    onSuccess: (segment) => {
      const previous = log.active
      log.active = segment
      return Effect.as(previous === undefined || previous.sealed ? Effect.void : sealSegment(previous), undefined)
    }
  })

const write = Effect.fnUntraced(function* (log: Log, changes: ReadonlyArray<Numbered>) {
  const segment = log.active
  if (segment === undefined) return
  const place = { salt: segment.salt, index: segment.nextIndex, offsetBytes: segment.endBytes }
  const { bytes, offsetsBytes } = encodeBatch(place, changes, segment.alignmentBytes)
  const written = yield* Effect.exit(Effect.andThen(segment.blob.write(segment.endBytes, bytes), segment.blob.sync))
  if (written._tag === "Failure") {
    // Nobody knows what is on disk now: nothing more goes to this segment, and its blobs stay as long as it does.
    for (const { change, draft, sequence } of changes) {
      log.index.addUncertain(segment, draft.key, sequence)
      if (change.blob !== undefined) segment.limbo.push(change.blob)
    }
    yield* sealSegment(segment)
    for (const { change } of changes) yield* Deferred.failCause(change.done, written.cause)
    return
  }
  segment.endBytes += bytes.length
  segment.nextIndex++
  for (const [position, { change, draft, sequence }] of changes.entries()) {
    const { encoding, key, kind } = draft
    const offsetBytes = offsetsBytes[position] ?? 0
    const recordBytes = draftBytes(draft)
    const { blob } = change
    const old = log.index.add(segment, { key, sequence, kind, encoding, offsetBytes, recordBytes, blob })
    if (old === undefined) Deferred.doneUnsafe(change.done, Effect.succeed("done"))
    else {
      // Its space is free when the set returns; other sets do not wait for that.
      const freed = Effect.andThen(deleteValue(log, old), Deferred.succeed(change.done, "done"))
      // What is forked in a scope that closes never begins.
      if (log.closed) yield* freed
      else yield* Effect.forkIn(freed, log.scope, { startImmediately: true, uninterruptible: true })
    }
  }
})

/**
 * The segment that will say what is void: a new one or, on a full device, the newest that there is, because the next load counts on
 * the newest one to have been told. Undefined when nothing is stored.
 */
const segmentToClear = (log: Log): Effect.Effect<Segment | undefined, SpdkError> =>
  Effect.catch(createSegment(log, true), (error) => {
    if (!isNoSpace(error)) return Effect.fail(error)
    const newest = [...log.segments].toSorted((left, right) => left.number - right.number).at(-1)
    return Effect.succeed(newest)
  })

/**
 * A segment comes to say that whatever has a lower sequence is void; after that the others can go. A new one is made first,
 * saying nothing, so that all that decides is one write in its place, which is taken back when nobody knows whether it is there.
 */
const clear = (log: Log, { done }: Clear): Effect.Effect<void> =>
  Effect.gen(function* () {
    const refused = unusable(log)
    if (refused !== undefined) return yield* Effect.asVoid(Deferred.fail(done, refused))
    const created = yield* Effect.exit(segmentToClear(log))
    if (created._tag === "Failure") return yield* Effect.asVoid(Deferred.failCause(done, created.cause))
    const segment = created.value
    // There has never been anything, or nothing is left of it.
    if (segment === undefined) return yield* Effect.asVoid(Deferred.succeed(done, "done"))
    const before = log.baseSequence
    const raised = yield* Effect.exit(rebase(segment, log.nextSequence))
    if (raised._tag === "Failure") {
      const lowered = yield* Effect.exit(rebase(segment, before))
      if (lowered._tag === "Failure") log.failure = raised.cause
      else if (segment.endBytes === 0) yield* retireSegment(log, segment)
      return yield* Effect.asVoid(Deferred.failCause(done, raised.cause))
    }
    log.baseSequence = log.nextSequence
    log.active = segment
    const blobs = [...log.index.clear(), ...segment.limbo.splice(0)]
    for (const one of [...log.segments]) {
      one.keys.length = 0
      one.liveBytes = 0
      if (one !== segment) yield* retireSegment(log, one)
    }
    for (const blob of blobs) yield* deleteValue(log, blob)
    yield* ensureSpare(log)
    yield* Deferred.succeed(done, "done")
  }).pipe(log.structure.withPermits(1))
