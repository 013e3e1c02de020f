/** The operations of Effect's `KeyValueStore` on a log. */
import { Host } from "@effect-spdk/core/Engine"
import { invalid, type SpdkError } from "@effect-spdk/core/SpdkError"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Base64 from "effect/encoding/Base64"
import * as KeyValueStore from "effect/persistence/KeyValueStore"
import * as Result from "effect/Result"
import { crc32c } from "../format/crc32c.ts"
import {
  decodeRecord,
  decodeText,
  encodeReference,
  encodeText,
  Encoding,
  Kind,
  makeDraft,
  maxKeyBytes,
  type Draft
} from "./codec.ts"
import { makeCommitter, type Outcome } from "./commit.ts"
import type { Entry, Segment, ValueBlob } from "./index.ts"
import { corrupted, endRead, type Log, operationOf, startRead, storeMark, unusable } from "./log.ts"
import { valueXattr } from "./marks.ts"

/** What one read of a blob returns at most. */
export const maxValueBytes = 2 ** 31 - 4096

const tokenBytes = 8
const encoder = new TextEncoder()

interface Stored {
  readonly encoding: Encoding
  readonly bytes: Uint8Array
}

const asString = ({ bytes, encoding }: Stored): string =>
  encoding === Encoding.Bytes ? Base64.encode(bytes) : decodeText(encoding, bytes)

const asBytes = ({ bytes, encoding }: Stored): Uint8Array =>
  encoding === Encoding.Utf16 ? encoder.encode(decodeText(encoding, bytes)) : bytes

const toStored = (value: string | Uint8Array): Stored =>
  typeof value === "string" ? encodeText(value) : { encoding: Encoding.Bytes, bytes: value }

/** Effect's error, with ours as its cause. */
const explain =
  (method: string, key?: string) =>
  <A>(effect: Effect.Effect<A, SpdkError>): Effect.Effect<A, KeyValueStore.KeyValueStoreError> =>
    Effect.mapError(
      effect,
      (cause) =>
        new KeyValueStore.KeyValueStoreError({
          method,
          ...(key === undefined ? {} : { key }),
          message: cause.message,
          cause
        })
    )

const readInline = (log: Log, key: string, entry: Entry, segment: Segment): Effect.Effect<Stored, SpdkError> =>
  Effect.flatMap(segment.blob.read(entry.offsetBytes, entry.recordBytes), (bytes) => {
    const decoded = decodeRecord(bytes, 0)
    const place = `segment ${segment.number}, offset ${entry.offsetBytes}`
    if (Result.isFailure(decoded)) return Effect.fail(corrupted(log.name, decoded.failure, place))
    const { record } = decoded.success
    if (record.key !== key || record.sequence !== entry.sequence) {
      return Effect.fail(corrupted(log.name, { where: "record", rule: "is another one" }, place))
    }
    return Effect.succeed({ encoding: record.encoding, bytes: record.value.slice() })
  })

const readLarge = (log: Log, key: string, entry: Entry, blob: ValueBlob): Effect.Effect<Stored, SpdkError> =>
  Effect.acquireUseRelease(
    log.blobs.open(blob.id),
    (opened) => opened.read(0, blob.lengthBytes),
    (opened) => opened.close
  ).pipe(
    Effect.flatMap((bytes) => {
      if (crc32c(bytes) === blob.crc) return Effect.succeed({ encoding: entry.encoding, bytes })
      const where = `the value of ${JSON.stringify(key)} in blob ${blob.id}`
      return Effect.fail(corrupted(log.name, { where, rule: "has a wrong checksum" }))
    })
  )

/** The value that is durable now, with its sequence. */
const read = (log: Log, key: string): Effect.Effect<(Stored & { readonly sequence: number }) | undefined, SpdkError> =>
  // One step finds the entry and counts the reader, and no interruption comes before the promise to count it back.
  Effect.uninterruptibleMask((restore) => {
    const refused = unusable(log)
    if (refused !== undefined) return Effect.fail(refused)
    const entry = log.index.find(key)
    if (entry === undefined || entry.segment === undefined) return Effect.succeed(undefined)
    const held = entry.blob ?? entry.segment
    const stored =
      entry.blob === undefined ? readInline(log, key, entry, entry.segment) : readLarge(log, key, entry, entry.blob)
    startRead(held)
    const counted = Effect.onExit(restore(stored), () => {
      endRead(held)
      return Effect.void
    })
    return Effect.map(counted, (found) => ({ ...found, sequence: entry.sequence }))
  })

/** A blob that holds the value, durable, and that nothing refers to yet. */
const writeLarge = Effect.fnUntraced(function* (log: Log, value: Uint8Array) {
  const { randomBytes } = yield* Host
  const token = randomBytes(tokenBytes)
  const crc = crc32c(value)
  const id = yield* log.blobs.create(value.length, [storeMark(log.name), [valueXattr, token]])
  yield* Effect.acquireUseRelease(
    log.blobs.open(id),
    (opened) => Effect.andThen(opened.write(0, value), opened.sync),
    (opened) => opened.close
  ).pipe(Effect.onExit((exit) => (exit._tag === "Failure" ? Effect.ignore(log.blobs.delete(id)) : Effect.void)))
  const blob: ValueBlob = { id, lengthBytes: value.length, crc, readers: 0, onIdle: undefined }
  return { blob, reference: encodeReference({ blob: id, lengthBytes: value.length, crc, token }) }
})

const empty = new Uint8Array(0)

const checkKey = (log: Log, draft: Draft): Effect.Effect<void, SpdkError> =>
  draft.keyBytes.length <= maxKeyBytes
    ? Effect.void
    : Effect.fail(
        invalid(operationOf(log.name), "key", `has ${draft.keyBytes.length} bytes, more than ${maxKeyBytes}`, draft.key)
      )

export const makeStore = (log: Log): KeyValueStore.KeyValueStore => {
  const { submit } = makeCommitter(log)

  const change = (draft: Draft, blob: ValueBlob | undefined, expected: number | undefined) =>
    submit({ _tag: "Change", draft, blob, expected, done: Deferred.makeUnsafe() })

  const putLarge = (key: string, value: Stored, expected: number | undefined): Effect.Effect<Outcome, SpdkError> =>
    // Between the blob and its reference nothing may stop, or the blob would stay until the next load.
    Effect.uninterruptible(
      Effect.flatMap(writeLarge(log, value.bytes), ({ blob, reference }) =>
        Effect.tap(change(makeDraft(key, Kind.Reference, value.encoding, reference), blob, expected), (outcome) =>
          outcome === "stale" ? Effect.ignore(log.blobs.delete(blob.id)) : Effect.void
        )
      )
    )

  const put = (key: string, value: string | Uint8Array, expected?: number): Effect.Effect<Outcome, SpdkError> =>
    Effect.suspend(() => {
      const stored = toStored(value)
      const isLarge = stored.bytes.length >= log.limits.largeValueBytes
      const draft = makeDraft(key, Kind.Value, stored.encoding, isLarge ? empty : stored.bytes.slice())
      if (stored.bytes.length > maxValueBytes) {
        const rule = `has ${stored.bytes.length} bytes, more than ${maxValueBytes}`
        return Effect.fail(invalid(operationOf(log.name), "value", rule))
      }
      const refused = unusable(log)
      if (refused !== undefined) return Effect.fail(refused)
      return Effect.andThen(
        checkKey(log, draft),
        isLarge ? putLarge(key, stored, expected) : change(draft, undefined, expected)
      )
    })

  const remove = (key: string): Effect.Effect<void, SpdkError> =>
    Effect.suspend(() => {
      const draft = makeDraft(key, Kind.Tombstone, Encoding.Bytes, empty)
      return Effect.andThen(checkKey(log, draft), Effect.asVoid(change(draft, undefined, undefined)))
    })

  const clear = Effect.suspend(() => Effect.asVoid(submit({ _tag: "Clear", done: Deferred.makeUnsafe() })))

  /** Again whenever somebody else has set the key in between. */
  const modify = <A extends string | Uint8Array>(
    key: string,
    f: (value: A) => A,
    from: (stored: Stored) => A
  ): Effect.Effect<A | undefined, SpdkError> =>
    Effect.flatMap(read(log, key), (stored): Effect.Effect<A | undefined, SpdkError> => {
      if (stored === undefined) return Effect.succeed(undefined)
      const value = f(from(stored))
      return Effect.flatMap(put(key, value, stored.sequence), (outcome) =>
        outcome === "done" ? Effect.succeed(value) : modify(key, f, from)
      )
    })

  const look = <A>(f: () => A): Effect.Effect<A, SpdkError> =>
    Effect.suspend(() => {
      const refused = unusable(log)
      return refused === undefined ? Effect.sync(f) : Effect.fail(refused)
    })

  const clearPrefix = (prefix: string): Effect.Effect<void, SpdkError> =>
    prefix === ""
      ? clear
      : Effect.flatMap(
          look(() => log.index.keys().filter((key) => key.startsWith(prefix))),
          (keys) => Effect.forEach(keys, remove, { concurrency: "unbounded", discard: true })
        )

  return KeyValueStore.make({
    get: (key) => explain("get", key)(Effect.map(read(log, key), (stored) => stored && asString(stored))),
    getUint8Array: (key) =>
      explain("getUint8Array", key)(Effect.map(read(log, key), (stored) => stored && asBytes(stored))),
    set: (key, value) => explain("set", key)(Effect.asVoid(put(key, value))),
    remove: (key) => explain("remove", key)(remove(key)),
    clear: explain("clear")(clear),
    clearPrefix: (prefix) => explain("clearPrefix", prefix)(clearPrefix(prefix)),
    has: (key) => explain("has", key)(look(() => log.index.find(key) !== undefined)),
    isEmpty: explain("isEmpty")(look(() => log.index.size === 0)),
    size: explain("size")(look(() => log.index.size)),
    keys: explain("keys")(look(() => log.index.keys())),
    modify: (key, f) => explain("modify", key)(modify(key, f, asString)),
    modifyUint8Array: (key, f) => explain("modifyUint8Array", key)(modify(key, f, asBytes))
  })
}
