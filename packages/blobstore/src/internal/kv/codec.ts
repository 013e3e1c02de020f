/**
 * The log of a key-value store as bytes. Pure: what is decoded may come from a damaged disk or from somebody else, and
 * answers with a `Damage` then. All numbers are little-endian.
 *
 * A segment is a sequence of batches, each at a multiple of the segment's alignment, the rest of the last block
 * undefined. One batch is one durable write. A batch is a header and its records, packed:
 *
 * ```
 * batch   0 magic "EKVB"   4 crc32c of all that follows   8 salt of the segment   16 index in the segment
 *        20 records       24 offset in the segment       28 bytes of records     32 records
 * record  0 crc32c of all that follows   4 bytes of value   8 sequence   16 bytes of key   18 kind   19 encoding
 *        20 key, value
 * ```
 *
 * Salt, index and offset make what an earlier segment left on the same clusters, or a value that happens to hold such
 * bytes, no batch of this one.
 */
import * as Result from "effect/Result"
import { crc32c } from "../format/crc32c.ts"
import { damaged, type Decoded } from "../format/damage.ts"

export const batchHeaderBytes = 32
export const recordHeaderBytes = 20
export const saltBytes = 8
export const maxKeyBytes = 4096

const batchMagic = 0x42564b45
const referenceBytes = 28

export const Kind = { Value: 1, Reference: 2, Tombstone: 3 } as const
export type Kind = (typeof Kind)[keyof typeof Kind]

/** What a value was when it was set: both getters answer by it. Strings with lone surrogates have no UTF-8. */
export const Encoding = { Bytes: 0, Utf8: 1, Utf16: 2 } as const
export type Encoding = (typeof Encoding)[keyof typeof Encoding]

const keyIsUtf16 = 0x10

export interface LogRecord {
  readonly key: string
  /** Grows with every change of the store; the highest of a key counts. */
  readonly sequence: number
  readonly kind: Kind
  readonly encoding: Encoding
  /** The value, an encoded `Reference`, or nothing. */
  readonly value: Uint8Array
}

/** Where a large value lies: in a blob of its own, which carries the token. */
export interface Reference {
  readonly blob: number
  readonly lengthBytes: number
  readonly crc: number
  readonly token: Uint8Array
}

export interface BatchPlace {
  readonly salt: Uint8Array
  readonly index: number
  readonly offsetBytes: number
}

export interface Placed {
  readonly record: LogRecord
  /** In the segment, of the record with its header. */
  readonly offsetBytes: number
  readonly recordBytes: number
}

export interface Batch {
  readonly records: ReadonlyArray<Placed>
  /** Header and records. */
  readonly batchBytes: number
}

/** In Unicode mode a pair is one character, which is no surrogate. */
const loneSurrogate = /\p{Surrogate}/u

const utf8 = new TextEncoder()
// A byte order mark is a character of the text like any other.
const fromUtf8 = new TextDecoder("utf-8", { ignoreBOM: true })
const fromUtf16 = new TextDecoder("utf-16le", { ignoreBOM: true })

const encodeUtf16 = (text: string): Uint8Array => {
  const bytes = new Uint8Array(text.length * 2)
  for (let index = 0; index < text.length; index++) {
    const unit = text.charCodeAt(index)
    bytes[2 * index] = unit & 0xff
    bytes[2 * index + 1] = unit >>> 8
  }
  return bytes
}

/** `TextDecoder` would replace lone surrogates. */
const decodeUtf16 = (bytes: Uint8Array): string => {
  const text = fromUtf16.decode(bytes)
  if (!text.includes("\ufffd")) return text
  let exact = ""
  for (let at = 0; at + 1 < bytes.length; at += 2) {
    exact += String.fromCharCode((bytes[at] ?? 0) | ((bytes[at + 1] ?? 0) << 8))
  }
  return exact
}

export const encodeText = (text: string): { readonly encoding: Encoding; readonly bytes: Uint8Array } =>
  loneSurrogate.test(text)
    ? { encoding: Encoding.Utf16, bytes: encodeUtf16(text) }
    : { encoding: Encoding.Utf8, bytes: utf8.encode(text) }

export const decodeText = (encoding: Encoding, bytes: Uint8Array): string =>
  encoding === Encoding.Utf16 ? decodeUtf16(bytes) : fromUtf8.decode(bytes)

const view = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)

/** A record as it will lie on disk, but for its sequence. */
export interface Draft {
  readonly key: string
  readonly keyEncoding: Encoding
  readonly keyBytes: Uint8Array
  readonly kind: Kind
  readonly encoding: Encoding
  readonly value: Uint8Array
}

export const draftBytes = (draft: Draft): number => recordHeaderBytes + draft.keyBytes.length + draft.value.length

export const makeDraft = (key: string, kind: Kind, encoding: Encoding, value: Uint8Array): Draft => {
  const { bytes, encoding: keyEncoding } = encodeText(key)
  return { key, keyEncoding, keyBytes: bytes, kind, encoding, value }
}

/** A record that was read, to be written elsewhere. */
export const draftOf = (record: LogRecord): Draft => makeDraft(record.key, record.kind, record.encoding, record.value)

const encodeRecord = (into: Uint8Array, offset: number, draft: Draft, sequence: number): number => {
  const recordBytes = draftBytes(draft)
  const record = into.subarray(offset, offset + recordBytes)
  const fields = view(record)
  fields.setUint32(4, draft.value.length, true)
  fields.setBigUint64(8, BigInt(sequence), true)
  fields.setUint16(16, draft.keyBytes.length, true)
  fields.setUint8(18, draft.kind)
  fields.setUint8(19, draft.encoding | (draft.keyEncoding === Encoding.Utf16 ? keyIsUtf16 : 0))
  record.set(draft.keyBytes, recordHeaderBytes)
  record.set(draft.value, recordHeaderBytes + draft.keyBytes.length)
  fields.setUint32(0, crc32c(record.subarray(4)), true)
  return recordBytes
}

const isKind = (value: number): value is Kind => value >= Kind.Value && value <= Kind.Tombstone
const isEncoding = (value: number): value is Encoding => value <= Encoding.Utf16

/** The record that starts at `offset` of `bytes`, with its checksum verified. */
export const decodeRecord = (
  bytes: Uint8Array,
  offset: number
): Decoded<{ record: LogRecord; recordBytes: number }> => {
  const where = "record"
  if (offset < 0 || bytes.length - offset < recordHeaderBytes) return damaged(where, "is cut off", offset)
  const fields = view(bytes)
  const valueBytes = fields.getUint32(offset + 4, true)
  const keyBytes = fields.getUint16(offset + 16, true)
  const recordBytes = recordHeaderBytes + keyBytes + valueBytes
  if (recordBytes > bytes.length - offset) return damaged(where, "is cut off", offset)
  if (crc32c(bytes.subarray(offset + 4, offset + recordBytes)) !== fields.getUint32(offset, true)) {
    return damaged(where, "has a wrong checksum", offset)
  }
  const sequence = Number(fields.getBigUint64(offset + 8, true))
  const kind = fields.getUint8(offset + 18)
  const flags = fields.getUint8(offset + 19)
  const encoding = flags & 0xf
  if (!Number.isSafeInteger(sequence)) return damaged(where, "has a sequence above 2^53", offset)
  if (!isKind(kind) || !isEncoding(encoding) || flags > (keyIsUtf16 | 0xf)) {
    return damaged(where, "is of an unknown kind", offset)
  }
  if (keyBytes > maxKeyBytes) return damaged(where, "has a key that is too long", offset)
  const keyAt = offset + recordHeaderBytes
  const keyEncoding = (flags & keyIsUtf16) === 0 ? Encoding.Utf8 : Encoding.Utf16
  const record: LogRecord = {
    key: decodeText(keyEncoding, bytes.subarray(keyAt, keyAt + keyBytes)),
    sequence,
    kind,
    encoding,
    value: bytes.subarray(keyAt + keyBytes, keyAt + keyBytes + valueBytes)
  }
  return Result.succeed({ record, recordBytes })
}

/** One batch, padded with zeroes to a multiple of `alignmentBytes`; where its records lie is counted from the segment's start. */
export const encodeBatch = (
  place: BatchPlace,
  drafts: ReadonlyArray<{ readonly draft: Draft; readonly sequence: number }>,
  alignmentBytes: number
): { readonly bytes: Uint8Array; readonly offsetsBytes: ReadonlyArray<number> } => {
  const payloadBytes = drafts.reduce((total, { draft }) => total + draftBytes(draft), 0)
  const batchBytes = batchHeaderBytes + payloadBytes
  const bytes = new Uint8Array(Math.ceil(batchBytes / alignmentBytes) * alignmentBytes)
  const fields = view(bytes)
  fields.setUint32(0, batchMagic, true)
  bytes.set(place.salt, 8)
  fields.setUint32(16, place.index, true)
  fields.setUint32(20, drafts.length, true)
  fields.setUint32(24, place.offsetBytes, true)
  fields.setUint32(28, payloadBytes, true)
  let at = batchHeaderBytes
  const offsetsBytes = drafts.map(({ draft, sequence }) => {
    const start = at
    at += encodeRecord(bytes, at, draft, sequence)
    return place.offsetBytes + start
  })
  fields.setUint32(4, crc32c(bytes.subarray(8, batchBytes)), true)
  return { bytes, offsetsBytes }
}

/**
 * The batch at `place.offsetBytes` of a segment's bytes. With an `index` of undefined any batch of this segment at that offset
 * is accepted, whatever its number.
 */
export const decodeBatch = (
  segment: Uint8Array,
  place: Omit<BatchPlace, "index"> & { readonly index: number | undefined }
): Decoded<Batch & { readonly index: number }> => {
  const { offsetBytes, salt } = place
  const where = `batch at ${offsetBytes}`
  if (offsetBytes < 0 || segment.length - offsetBytes < batchHeaderBytes) return damaged(where, "is cut off")
  const fields = view(segment)
  if (fields.getUint32(offsetBytes, true) !== batchMagic) return damaged(where, "has no magic number")
  for (let index = 0; index < saltBytes; index++) {
    if (segment[offsetBytes + 8 + index] !== salt[index]) return damaged(where, "is of another segment")
  }
  const index = fields.getUint32(offsetBytes + 16, true)
  if (place.index !== undefined && index !== place.index) return damaged(where, `is not number ${place.index}`)
  if (fields.getUint32(offsetBytes + 24, true) !== offsetBytes) return damaged(where, "belongs elsewhere")
  const batchBytes = batchHeaderBytes + fields.getUint32(offsetBytes + 28, true)
  if (batchBytes > segment.length - offsetBytes) return damaged(where, "is cut off")
  if (crc32c(segment.subarray(offsetBytes + 8, offsetBytes + batchBytes)) !== fields.getUint32(offsetBytes + 4, true)) {
    return damaged(where, "has a wrong checksum")
  }
  const count = fields.getUint32(offsetBytes + 20, true)
  const records: Array<Placed> = []
  const batch = segment.subarray(0, offsetBytes + batchBytes)
  let at = offsetBytes + batchHeaderBytes
  while (at < batch.length) {
    const decoded = decodeRecord(batch, at)
    if (Result.isFailure(decoded)) return Result.fail(decoded.failure)
    records.push({ record: decoded.success.record, offsetBytes: at, recordBytes: decoded.success.recordBytes })
    at += decoded.success.recordBytes
  }
  return records.length === count
    ? Result.succeed({ records, batchBytes, index })
    : damaged(where, `has ${records.length} records where its header says ${count}`)
}

export const encodeReference = (reference: Reference): Uint8Array => {
  const bytes = new Uint8Array(referenceBytes)
  const fields = view(bytes)
  fields.setBigUint64(0, BigInt(reference.blob), true)
  fields.setBigUint64(8, BigInt(reference.lengthBytes), true)
  fields.setUint32(16, reference.crc, true)
  bytes.set(reference.token, 20)
  return bytes
}

export const decodeReference = (bytes: Uint8Array): Decoded<Reference> => {
  if (bytes.length !== referenceBytes)
    return damaged("reference", `has ${bytes.length} bytes instead of ${referenceBytes}`)
  const fields = view(bytes)
  const blob = Number(fields.getBigUint64(0, true))
  const lengthBytes = Number(fields.getBigUint64(8, true))
  if (!Number.isSafeInteger(blob) || !Number.isSafeInteger(lengthBytes)) {
    return damaged("reference", "has a number above 2^53")
  }
  return Result.succeed({ blob, lengthBytes, crc: fields.getUint32(16, true), token: bytes.slice(20) })
}
