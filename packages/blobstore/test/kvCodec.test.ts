/** The log's bytes: what they are today they are for ever, and no bytes of anybody else's are taken for them. */
import { assert, describe, it } from "@effect/vitest"
import * as Result from "effect/Result"
import {
  decodeBatch,
  decodeRecord,
  decodeReference,
  encodeBatch,
  encodeReference,
  Encoding,
  Kind,
  makeDraft
} from "../src/internal/kv/codec.ts"
import { decodeEnd, decodeSegmentMark, encodeEnd, encodeSegmentMark } from "../src/internal/kv/marks.ts"
import { scanSegment } from "../src/internal/kv/scan.ts"

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex")
const salt = Uint8Array.from([1, 2, 3, 4, 5, 6, 7, 8])
const alignmentBytes = 512
const text = new TextEncoder()

const drafts = [
  { draft: makeDraft("key", Kind.Value, Encoding.Utf8, text.encode("value")), sequence: 7 },
  { draft: makeDraft("gone", Kind.Tombstone, Encoding.Bytes, new Uint8Array(0)), sequence: 2 ** 33 },
  { draft: makeDraft("\ud800", Kind.Value, Encoding.Bytes, Uint8Array.from([0, 255])), sequence: 9 }
]

/** Computed by another program, with a CRC32C of its own. */
const golden = [
  "454b5642ec17173301020304050607080300000003000000000200004c000000",
  "fae54a50050000000700000000000000030001016b657976616c7565",
  "dc55f4e400000000000000000200000004000300676f6e65",
  "9d8c0df20200000009000000000000000200011000d800ff"
].join("")

describe("the bytes of a key-value log", () => {
  it("are these", () => {
    const { bytes, offsetsBytes } = encodeBatch({ salt, index: 3, offsetBytes: 512 }, drafts, alignmentBytes)
    assert.strictEqual(bytes.length, 512)
    assert.deepStrictEqual(offsetsBytes, [512 + 32, 512 + 60, 512 + 84])
    assert.strictEqual(hex(bytes.subarray(0, 108)), golden)
    assert.isTrue(bytes.subarray(108).every((byte) => byte === 0))
  })

  it("of a reference, a segment's mark and its end are these", () => {
    const reference = { blob: 2 ** 32 + 5, lengthBytes: 1_000_000, crc: 0xdeadbeef, token: salt }
    assert.strictEqual(hex(encodeReference(reference)), "050000000100000040420f0000000000efbeadde0102030405060708")
    assert.deepStrictEqual(Result.getOrThrow(decodeReference(encodeReference(reference))), reference)
    const mark = { number: 3, salt, baseSequence: 2 ** 40, alignmentBytes: 4096 }
    assert.strictEqual(hex(encodeSegmentMark(mark)), "01000000030000000010000000000000000100000102030405060708")
    assert.deepStrictEqual(Result.getOrThrow(decodeSegmentMark(encodeSegmentMark(mark))), mark)
    assert.strictEqual(hex(encodeEnd(4096)), hex(text.encode("4096")))
    assert.strictEqual(Result.getOrThrow(decodeEnd(encodeEnd(4096))), 4096)
  })

  it("decode to what was encoded", () => {
    const segment = new Uint8Array(2048)
    segment.set(encodeBatch({ salt, index: 3, offsetBytes: 512 }, drafts, alignmentBytes).bytes, 512)
    const batch = Result.getOrThrow(decodeBatch(segment, { salt, index: 3, offsetBytes: 512 }))
    assert.deepStrictEqual(
      batch.records.map(({ record }) => [record.key, record.sequence, record.kind, record.encoding, hex(record.value)]),
      [
        ["key", 7, Kind.Value, Encoding.Utf8, hex(text.encode("value"))],
        ["gone", 2 ** 33, Kind.Tombstone, Encoding.Bytes, ""],
        ["\ud800", 9, Kind.Value, Encoding.Bytes, "00ff"]
      ]
    )
    for (const { offsetBytes, record, recordBytes } of batch.records) {
      const alone = segment.slice(offsetBytes, offsetBytes + recordBytes)
      assert.deepStrictEqual(Result.getOrThrow(decodeRecord(alone, 0)).record, record)
    }
  })

  it("are refused at another place, with another salt, number or version", () => {
    const segment = new Uint8Array(2048)
    const { bytes } = encodeBatch({ salt, index: 3, offsetBytes: 512 }, drafts, alignmentBytes)
    segment.set(bytes, 1024)
    const at = (place: { salt: Uint8Array; index: number | undefined; offsetBytes: number }) =>
      Result.isSuccess(decodeBatch(segment, place))
    assert.isFalse(at({ salt, index: 3, offsetBytes: 1024 }))
    segment.set(bytes, 512)
    assert.isTrue(at({ salt, index: undefined, offsetBytes: 512 }))
    assert.isFalse(at({ salt, index: 2, offsetBytes: 512 }))
    assert.isFalse(at({ salt: salt.toReversed(), index: 3, offsetBytes: 512 }))
    const mark = encodeSegmentMark({ number: 1, salt, baseSequence: 0, alignmentBytes: 512 })
    mark[0] = 2
    assert.match(String(Result.isFailure(decodeSegmentMark(mark)) && decodeSegmentMark(mark)), /version 2 and not 1/)
  })
})

/** mulberry32. */
const random = (seed: number) => {
  let state = seed >>> 0
  return (limit: number) => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), state | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * limit)
  }
}

const seed = Number(process.env["EFFECT_SPDK_SEED"] ?? Date.now() % 2 ** 32)

describe("mutated segments", () => {
  /** Five batches in a segment whose rest is noise, as on clusters that were used before. */
  const make = (below: (limit: number) => number) => {
    const segment = Uint8Array.from({ length: 16_384 }, () => below(256))
    const expected: Array<string> = []
    let offsetBytes = 0
    for (let index = 0; index < 5; index++) {
      const batch = Array.from({ length: 1 + below(4) }, (_, position) => {
        const value = Uint8Array.from({ length: below(900) }, () => below(256))
        return { draft: makeDraft(`k${below(9)}`, Kind.Value, Encoding.Bytes, value), sequence: index * 10 + position }
      })
      const { bytes } = encodeBatch({ salt, index, offsetBytes }, batch, alignmentBytes)
      segment.set(bytes, offsetBytes)
      offsetBytes += bytes.length
      for (const { draft, sequence } of batch) expected.push(`${sequence} ${draft.key} ${hex(draft.value)}`)
    }
    return { segment, expected, endBytes: offsetBytes }
  }

  it(`give an error or a part of what was written, never anything else (EFFECT_SPDK_SEED=${seed})`, () => {
    const below = random(seed)
    let refused = 0
    for (let round = 0; round < 2000; round++) {
      const { endBytes, expected, segment } = make(below)
      const changes = below(4)
      for (let change = 0; change < changes; change++) {
        const at = below(endBytes)
        if (below(2) === 0) segment[at] = below(256)
        else segment.copyWithin(at, below(endBytes), below(endBytes))
      }
      const sealed = below(2) === 0
      const scanned = scanSegment(segment, { salt, alignmentBytes }, sealed ? endBytes : undefined)
      if (Result.isFailure(scanned)) {
        refused++
        continue
      }
      const found = scanned.success.records.map(({ record }) => `${record.sequence} ${record.key} ${hex(record.value)}`)
      assert.deepStrictEqual(found, expected.slice(0, found.length), `round ${round} of seed ${seed}`)
      if (changes === 0 || sealed) assert.strictEqual(found.length, expected.length, `round ${round} of seed ${seed}`)
    }
    assert.isAbove(refused, 100)
  })

  it(`of nothing but noise hold nothing (EFFECT_SPDK_SEED=${seed})`, () => {
    const below = random(seed + 1)
    for (let round = 0; round < 200; round++) {
      const noise = Uint8Array.from({ length: 4096 }, () => below(256))
      const scanned = Result.getOrThrow(scanSegment(noise, { salt, alignmentBytes }, undefined))
      assert.strictEqual(scanned.records.length, 0)
      assert.isTrue(Result.isFailure(decodeRecord(noise, below(4096))))
    }
  })
})
