/** From the blobs of a store back to the state of a key-value store, whatever a crash left behind. */
import type { SpdkError } from "@effect-spdk/core/SpdkError"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import type { Decoded } from "../format/damage.ts"
import { decodeReference, Kind, type Placed, type Reference } from "./codec.ts"
import { KvIndex, type Segment, type ValueBlob } from "./index.ts"
import {
  corrupted,
  ensureSpare,
  type Limits,
  type Log,
  openedSegment,
  retireSegment,
  sealSegment,
  storeMark
} from "./log.ts"
import {
  decodeEnd,
  decodeSegmentMark,
  endXattr,
  segmentXattr,
  type SegmentMark,
  spareXattr,
  storeXattr,
  valueXattr
} from "./marks.ts"
import type { KvBlobs } from "./port.ts"
import { type ScannedLog, scanSegment } from "./scan.ts"

/** Blobs whose metadata is read at the same time. */
const readsAtOnce = 16

interface FoundSegment {
  readonly id: number
  readonly mark: SegmentMark
  readonly end: number | undefined
}

interface Found {
  readonly segments: Array<FoundSegment>
  /** Tokens by blob. */
  readonly values: Map<number, string>
  readonly spares: Array<number>
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("hex")

/** Undefined for a blob that has gone since it was listed: it was somebody else's. */
const xattrsOf = (blobs: KvBlobs, id: number): Effect.Effect<ReadonlyMap<string, Uint8Array> | undefined, SpdkError> =>
  Effect.catchIf(
    blobs.xattrs(id),
    ({ reason }) => reason._tag === "NotFound",
    () => Effect.undefined
  )

/** Blobs of this name among all blobs of the store. */
const find = Effect.fnUntraced(function* (blobs: KvBlobs, name: string) {
  const found: Found = { segments: [], values: new Map(), spares: [] }
  const wanted = hex(storeMark(name)[1])
  const decoded = <A>(id: number, result: Decoded<A>): Effect.Effect<A, SpdkError> =>
    Result.isSuccess(result)
      ? Effect.succeed(result.success)
      : Effect.fail(corrupted(name, result.failure, `blob ${id}`))
  const look = Effect.fnUntraced(function* (id: number) {
    const xattrs = yield* xattrsOf(blobs, id)
    const store = xattrs?.get(storeXattr)
    if (xattrs === undefined || store === undefined || hex(store) !== wanted) return
    const segment = xattrs.get(segmentXattr)
    const end = xattrs.get(endXattr)
    const token = xattrs.get(valueXattr)
    if (segment !== undefined) {
      const mark = yield* decoded(id, decodeSegmentMark(segment))
      found.segments.push({ id, mark, end: end === undefined ? undefined : yield* decoded(id, decodeEnd(end)) })
    } else if (token !== undefined) found.values.set(id, hex(token))
    else if (xattrs.has(spareXattr)) found.spares.push(id)
  })
  yield* Effect.forEach(yield* blobs.ids, look, { concurrency: readsAtOnce, discard: true })
  found.segments.sort((left, right) => left.mark.number - right.mark.number)
  return found
})

const emptyLog = (blobs: KvBlobs, name: string, limits: Limits, found: Found, scope: Scope.Scope): Log => ({
  active: undefined,
  blobs,
  name,
  limits,
  index: new KvIndex(),
  segments: new Set(),
  spare: found.spares[0],
  nextNumber: (found.segments.at(-1)?.mark.number ?? 0) + 1,
  nextSequence: 1,
  baseSequence: found.segments.reduce((base, { mark }) => Math.max(base, mark.baseSequence), 0),
  lookedAt: 0,
  closed: false,
  failure: undefined,
  scope,
  structure: Semaphore.makeUnsafe(1)
})

/** Opens and reads one segment. */
const readSegment = Effect.fnUntraced(function* (blobs: KvBlobs, name: string, { end, id, mark }: FoundSegment) {
  const blob = yield* blobs.open(id)
  const segment = openedSegment(blob, mark)
  const scanned = scanSegment(yield* blob.read(0, end ?? segment.capacityBytes), segment, end)
  if (Result.isFailure(scanned)) {
    return yield* Effect.fail(corrupted(name, scanned.failure, `segment ${mark.number} in blob ${id}`))
  }
  segment.endBytes = scanned.success.endBytes
  segment.nextIndex = scanned.success.nextIndex
  // Batches that start where this device cannot write go on being read, and no new ones are added.
  segment.sealed = end !== undefined || segment.alignmentBytes % blobs.blockBytes !== 0
  return [segment, scanned.success] as const
})

/** References to the same blob share one object, so that its readers are counted together. */
const makeResolver = () => {
  const known = new Map<string, { readonly blob: ValueBlob; readonly reference: Reference }>()
  return {
    known,
    resolve: (reference: Reference): ValueBlob => {
      const key = `${reference.blob} ${hex(reference.token)}`
      const before = known.get(key)
      if (before !== undefined) return before.blob
      const { blob: id, crc, lengthBytes } = reference
      const blob: ValueBlob = { id, crc, lengthBytes, readers: 0, onIdle: undefined }
      known.set(key, { blob, reference })
      return blob
    }
  }
}

type Resolver = ReturnType<typeof makeResolver>

const addRecords = (
  log: Log,
  segment: Segment,
  records: ReadonlyArray<Placed>,
  resolver: Resolver
): Effect.Effect<void, SpdkError> => {
  for (const { offsetBytes, record, recordBytes } of records) {
    const { encoding, key, kind, sequence, value } = record
    log.nextSequence = Math.max(log.nextSequence, sequence + 1)
    if (sequence < log.baseSequence) continue
    let blob: ValueBlob | undefined
    if (kind === Kind.Reference) {
      const reference = decodeReference(value)
      if (Result.isFailure(reference)) {
        return Effect.fail(
          corrupted(log.name, reference.failure, `segment ${segment.number}, record at ${offsetBytes}`)
        )
      }
      blob = resolver.resolve(reference.success)
    }
    log.index.add(segment, { key, sequence, kind, encoding, offsetBytes, recordBytes, blob })
  }
  return Effect.void
}

/** Every large value must be there; every other blob of one is what a crash left over, and goes. */
const checkValues = Effect.fnUntraced(function* (log: Log, found: Found, resolver: Resolver) {
  const used = new Set<number>()
  const references = new Map([...resolver.known.values()].map(({ blob, reference }) => [blob, reference]))
  for (const [key, { blob }] of log.index.values()) {
    const reference = blob === undefined ? undefined : references.get(blob)
    if (reference === undefined) continue
    if (found.values.get(reference.blob) !== hex(reference.token)) {
      const where = `the value of ${JSON.stringify(key)}`
      return yield* Effect.fail(corrupted(log.name, { where, rule: `lies in blob ${reference.blob}, which is gone` }))
    }
    used.add(reference.blob)
  }
  for (const id of found.values.keys()) if (!used.has(id)) yield* log.blobs.delete(id)
})

const hasBatchBehindEnd = (segment: Segment): Effect.Effect<boolean, SpdkError> =>
  Effect.map(segment.blob.read(0, segment.capacityBytes), (bytes) => {
    const scanned = scanSegment(bytes, segment, undefined)
    return Result.isFailure(scanned) || scanned.success.endBytes > segment.endBytes
  })

/** The segment that was written to last goes on being written, when there is room and the device can. */
const resume = Effect.fnUntraced(function* (log: Log, last: Segment, wasSealed: boolean) {
  const hasRoom = last.endBytes + 2 * last.alignmentBytes <= last.capacityBytes
  if (!hasRoom || last.alignmentBytes % log.blobs.blockBytes !== 0) {
    if (!wasSealed) yield* sealSegment(last)
    return
  }
  if (wasSealed) {
    // A batch behind the end is one whose write failed: without the end it would be there again.
    if (yield* hasBatchBehindEnd(last)) return
    yield* last.blob.removeXattr(endXattr)
    yield* last.blob.sync
  }
  last.sealed = false
  log.active = last
})

/**
 * Loads the key-value store of this name, or starts one. What a crash left unfinished is removed. The end of the scope lets
 * what is under way finish and closes all blobs.
 */
export const loadLog = Effect.fnUntraced(function* (blobs: KvBlobs, name: string, limits: Limits) {
  const outer = yield* Effect.scope
  const background = yield* Scope.make()
  const found = yield* find(blobs, name)
  const log = emptyLog(blobs, name, limits, found, background)
  yield* Scope.addFinalizer(outer, closeLog(log, background))
  const resolver = makeResolver()
  for (const one of found.segments) {
    const [segment, scanned]: readonly [Segment, ScannedLog] = yield* readSegment(blobs, name, one)
    const twice = [...log.segments].find((other) => other.number === segment.number)
    if (twice !== undefined) {
      yield* segment.blob.close
      const rule = `is in blob ${twice.blob.id} and in blob ${one.id}`
      return yield* Effect.fail(corrupted(name, { where: `segment ${segment.number}`, rule }))
    }
    log.segments.add(segment)
    yield* addRecords(log, segment, scanned.records, resolver)
  }
  log.nextSequence = Math.max(log.nextSequence, log.baseSequence, 1)
  yield* checkValues(log, found, resolver)
  const newest = found.segments.at(-1)
  for (const segment of log.segments) {
    if (segment.number === newest?.mark.number) yield* resume(log, segment, newest.end !== undefined)
    else if (segment.liveBytes === 0) yield* retireSegment(log, segment)
    else if (!segment.sealed) yield* sealSegment(segment)
  }
  for (const id of found.spares.slice(1)) yield* blobs.delete(id)
  yield* ensureSpare(log)
  return log
})

const closeLog = (log: Log, background: Scope.Closeable): Effect.Effect<void> =>
  Effect.gen(function* () {
    log.closed = true
    yield* Scope.close(background, Exit.void)
    if (log.active !== undefined && !log.active.sealed) yield* sealSegment(log.active)
    for (const segment of log.segments) yield* segment.blob.close
  })
