import { assert, describe, it } from "@effect/vitest"
import * as Result from "effect/Result"
import { BitSet } from "../src/internal/format/bitSet.ts"
import {
  applyExtentPage,
  type BlobMeta,
  type ChainMeta,
  encodeIdXattr,
  idXattr,
  maxBlobClusters,
  parseChain,
  serializeChain,
  type StoreLimits
} from "../src/internal/format/blobMeta.ts"
import { crc32c } from "../src/internal/format/crc32c.ts"
import type { Decoded } from "../src/internal/format/damage.ts"
import {
  decodeDescriptors,
  encodeDescriptors,
  type MdDescriptor,
  xattrBytes
} from "../src/internal/format/descriptor.ts"
import { blobIdOfPage, descriptorAreaBytes, maxXattrBytes, pageOfBlobId } from "../src/internal/format/layout.ts"
import { decodeMask, encodeMask, maskPages } from "../src/internal/format/mask.ts"
import {
  asExtentPage,
  decodeExtentPage,
  decodeMdPage,
  encodeMdPage,
  type MdPage
} from "../src/internal/format/mdPage.ts"
import { decodeSuperBlock, encodeSuperBlock, layoutStore, type SuperBlock } from "../src/internal/format/superBlock.ts"
import { decodeText, encodeText } from "../src/internal/format/text.ts"
import { good } from "./golden/images.ts"
import { eachRound, seed } from "./golden/random.ts"

const refuses = <A>(result: Decoded<A>, words: string): void => {
  assert(Result.isFailure(result), `nothing is wrong, but ${words} is expected`)
  assert.include(`${result.failure.where} ${result.failure.rule}`, words)
}

const id = blobIdOfPage(5)
const limits: StoreLimits = { firstCluster: 4, totalClusters: 100, mdPages: 50 }
const page = (descriptors: ReadonlyArray<MdDescriptor>, over: Partial<MdPage> = {}): MdPage => ({
  index: 5,
  id,
  sequence: 0,
  next: undefined,
  descriptors,
  ...over
})
const flags = (invalidFlags: number, dataRoFlags = 0, mdRoFlags = 0): MdDescriptor => ({
  _tag: "Flags",
  invalidFlags,
  dataRoFlags,
  mdRoFlags
})
const thin = flags(1)
const thick = flags(0)
const rle = (...extents: ReadonlyArray<readonly [number, number]>): MdDescriptor => ({
  _tag: "ExtentRle",
  extents: extents.map(([cluster, length]) => ({ cluster, length }))
})
const table = (clusters: number, ...entries: ReadonlyArray<readonly [number, number]>): MdDescriptor => ({
  _tag: "ExtentTable",
  clusters,
  entries: entries.map(([page, count]) => ({ page, count }))
})
const parse = (...descriptors: ReadonlyArray<MdDescriptor>) => parseChain([page(descriptors)], limits)

describe("a chain", () => {
  it("has its flags, extents and xattrs", () => {
    const meta = good(parse(thin, rle([0, 2], [7, 3], [0, 1]), rle([20, 1])))
    assert.deepStrictEqual([...meta.clusters], [0, 0, 7, 8, 9, 0, 20])
    assert.isFalse(meta.useExtentTable)
    assert.deepStrictEqual([meta.dataReadOnly, meta.mdReadOnly], [false, false])
  })

  it("is refused where SPDK refuses it", () => {
    refuses(parseChain([], limits), "has no page")
    refuses(parseChain([page([], { index: 6 })], limits), "not the first")
    refuses(parseChain([page([], { sequence: 1 })], limits), "sequence 1")
    refuses(parseChain([page([], { next: 9 })], limits), "not the last")
    refuses(parseChain([page([], { next: 9 }), page([], { index: 8, sequence: 1 })], limits), "ends its chain")
    const other = page([], { index: 9, sequence: 1, id: blobIdOfPage(9) })
    refuses(parseChain([page([], { next: 9 }), other], limits), "in the chain of")
    refuses(parse(flags(0x10)), "unknown flags 0x10")
    refuses(parse(flags(2 ** 40)), "unknown flags")
    refuses(parse(thick, rle([0, 1])), "is not thin")
    refuses(parse(rle([0, 1]), thin), "is not thin")
    refuses(parse(thin, rle([5, 0])), "without a cluster")
    refuses(parse(thin, rle([5, 1]), table(0)), "extents and an extent table")
    refuses(parse(thin, table(0), rle([5, 1])), "extents and an extent table")
    refuses(parse(thin, table(5, [0, 1]), table(6)), "after one of 5")
    refuses(parse(thick, table(5, [0, 1])), "is not thin")
    refuses(parse(thin, { _tag: "ExtentPage", startCluster: 0, clusters: Uint32Array.of(5) }), "extent page in a chain")
  })

  it("is refused where SPDK would read or write what is not the blob's", () => {
    refuses(parse(thin, rle([3, 1])), "the metadata's")
    refuses(parse(thin, rle([99, 2])), "cluster 100 of 100")
    refuses(parse(thin, rle([4, 0xffffffff])), "of 100")
    refuses(parse(thin, rle([0, 0xffffffff])), `more than ${maxBlobClusters}`)
    refuses(parse(thin, table(2 ** 50)), `more than ${maxBlobClusters}`)
    refuses(parse(thin, table(5, [50, 1])), "extent page 50 of 50")
    refuses(parse(thin, table(513, [7, 1])), "1 extent pages for 513 clusters")
    refuses(parse(thin, table(5, [0, 0xffffffff])), "more than 5 clusters")
  })

  it("takes the first of xattrs of one name, and skips what it does not know", () => {
    const value = (byte: number) => Uint8Array.of(byte)
    const meta = good(
      parse(
        { _tag: "Xattr", name: "a", value: value(1) },
        { _tag: "Unknown", type: 9, length: 3 },
        { _tag: "Xattr", name: "a", value: value(2) },
        { _tag: "XattrInternal", name: "a", value: value(3) }
      )
    )
    assert.deepStrictEqual(meta.xattrs.get("a"), value(1))
    assert.deepStrictEqual(meta.internalXattrs.get("a"), value(3))
    assert.deepStrictEqual(meta.duplicateXattrs, ["a"])
    assert.deepStrictEqual(meta.unknownDescriptors, [9])
  })

  it("is read-only by its flag, and by flags of tomorrow", () => {
    const readOnly = (...all: ReadonlyArray<MdDescriptor>) => {
      const meta = good(parse(...all))
      return [meta.dataReadOnly, meta.mdReadOnly]
    }
    assert.deepStrictEqual(readOnly(flags(0, 1)), [true, true])
    assert.deepStrictEqual(readOnly(flags(0, 2 ** 33)), [true, true])
    assert.deepStrictEqual(readOnly(flags(0, 0, 3)), [false, false])
    assert.deepStrictEqual(readOnly(flags(0, 0, 4)), [false, true])
    assert.deepStrictEqual(readOnly(flags(0, 1), flags(0)), [true, true])
  })
})

describe("extent pages", () => {
  const meta = (): ChainMeta => good(parse(thin, table(1000, [7, 1], [8, 1])))
  const extents = (startCluster: number, length: number, cluster = 10) => ({
    _tag: "ExtentPage" as const,
    startCluster,
    clusters: new Uint32Array(length).fill(cluster)
  })

  it("fill the blob, and tell what a resize that was cut left", () => {
    const blob = meta()
    assert.strictEqual(good(applyExtentPage(blob, 0, extents(0, 512), limits)), 0)
    assert.strictEqual(good(applyExtentPage(blob, 1, extents(512, 500), limits)), 12)
    assert.strictEqual(blob.clusters.length, 1000)
    assert.strictEqual(good(applyExtentPage(blob, 1, extents(512, 8), limits)), -480)
    assert.strictEqual(blob.clusters.length, 520)
  })

  it("are refused when they belong elsewhere", () => {
    refuses(applyExtentPage(meta(), 1, extents(0, 488), limits), "starts at cluster 0")
    refuses(applyExtentPage(meta(), 0, extents(0, 511), limits), "511 clusters instead of 512")
    refuses(applyExtentPage(meta(), 0, extents(0, 512, 100), limits), "100 of 100")
    refuses(applyExtentPage(meta(), 0, extents(0, 512, 3), limits), "the metadata's")
    const full = good(parse(thick, table(5, [7, 1])))
    refuses(applyExtentPage(full, 0, extents(0, 5, 0), limits), "is not thin")
  })

  it("are alone in their page", () => {
    const extent = extents(0, 5)
    assert.deepStrictEqual(good(asExtentPage(page([extent]))), extent)
    refuses(asExtentPage(page([])), "not an extent page")
    refuses(asExtentPage(page([extent, thin])), "more than the clusters")
    refuses(asExtentPage(page([extent], { sequence: 1 })), "in a chain")
    refuses(asExtentPage(page([extent], { next: 3 })), "that continues")
    const bytes = encodeMdPage({ id, sequence: 0, next: undefined }, encodeDescriptors([extent]))
    assert.deepStrictEqual(good(decodeExtentPage(bytes, 7)), extent)
  })
})

describe("descriptors", () => {
  const area = (...bytes: ReadonlyArray<number>) => {
    const all = new Uint8Array(descriptorAreaBytes)
    all.set(bytes)
    return all
  }
  const decode = (...bytes: ReadonlyArray<number>) => decodeDescriptors(area(...bytes), "page")

  it("are refused when a length is not one they can have", () => {
    refuses(decode(3, 23), "flags of 23 bytes")
    refuses(decode(1, 0), "extents of 0 bytes")
    refuses(decode(1, 12), "extents of 12 bytes")
    refuses(decode(5, 7), "table of 7 bytes")
    refuses(decode(5, 12), "table of 12 bytes")
    refuses(decode(5, 16, 0, 0, 0, ...Array(8).fill(0), 1, 0, 0, 0, 2), "2 times the same extent page")
    refuses(decode(6, 4), "clusters of 4 bytes")
    refuses(decode(6, 7), "clusters of 7 bytes")
    refuses(decode(2, 3), "xattr of 3 bytes")
    refuses(decode(2, 9, 0, 0, 0, 2, 0, 4, 0), "contradict each other")
    refuses(decode(2, 0xff, 0xff, 0xff, 0xff), "reaches past its end")
    refuses(decode(4, 0xe4, 0x0f), "reaches past its end")
  })

  it("end at padding, or where the page ends", () => {
    assert.deepStrictEqual(good(decode(0, 0, 0, 0, 0, 3, 1)), [])
    assert.deepStrictEqual(good(decode(0, 2, 0, 0, 0, 9, 9, 77, 1)), [{ _tag: "Unknown", type: 77, length: 1 }])
    assert.deepStrictEqual(good(decode(200, 0xff, 0xff, 0xff, 0xff)).length, 1)
  })

  it("have names that end at a NUL, in any bytes", () => {
    const [xattr] = good(decode(2, 10, 0, 0, 0, 5, 0, 1, 0, 0x61, 0xff, 0, 0x62, 0x63, 42))
    assert(xattr?._tag === "Xattr")
    assert.deepStrictEqual([...encodeText(xattr.name)], [0x61, 0xff])
    assert.deepStrictEqual(xattr.value, Uint8Array.of(42))
    for (const text of ["", "photo.jpg", "grüß", "\u{1f600}", "\ufeffbom"]) {
      assert.strictEqual(decodeText(encodeText(text)), text)
    }
    for (const bytes of [[0xff], [0xc3], [0xed, 0xa0, 0x80], [0x61, 0x80, 0x62], [0xef, 0x9e, 0x80]]) {
      assert.deepStrictEqual([...encodeText(decodeText(Uint8Array.from(bytes)))], bytes)
    }
  })
})

describe("packing a chain", () => {
  const meta = (over: Partial<BlobMeta> = {}): BlobMeta => ({
    id,
    invalidFlags: 0,
    dataRoFlags: 0,
    mdRoFlags: 0,
    clusters: [],
    extentPages: [],
    useExtentTable: false,
    xattrs: new Map(),
    internalXattrs: new Map(),
    ...over
  })
  const pages = (blob: BlobMeta) =>
    good(serializeChain(blob)).map((area) => good(decodeDescriptors(area, "page")).map(({ _tag }) => _tag))
  /** An xattr that leaves so many bytes of the first page, after the flags. */
  const leaving = (bytes: number) => new Map([["x", new Uint8Array(descriptorAreaBytes - 29 - 10 - bytes)]])

  it("starts a page when an xattr does not fit", () => {
    const xattrs = new Map([...leaving(10), ["y", new Uint8Array(0)]])
    assert.deepStrictEqual(pages(meta({ xattrs })), [["Flags", "Xattr", "Xattr"]])
    assert.deepStrictEqual(pages(meta({ xattrs: new Map([...leaving(9), ["y", new Uint8Array(0)]]) })), [
      ["Flags", "Xattr"],
      ["Xattr"]
    ])
    assert.deepStrictEqual(pages(meta({ xattrs: new Map([["y", new Uint8Array(maxXattrBytes - 1)]]) })), [
      ["Flags"],
      ["Xattr"]
    ])
    assert.strictEqual(xattrBytes("y", new Uint8Array(maxXattrBytes - 1)), descriptorAreaBytes)
    refuses(serializeChain(meta({ xattrs: new Map([["y", new Uint8Array(maxXattrBytes)]]) })), "does not fit")
  })

  it("splits extents and tables where SPDK does", () => {
    const clusters = [10, 20]
    assert.deepStrictEqual(pages(meta({ clusters, xattrs: leaving(21) })), [["Flags", "Xattr", "ExtentRle"]])
    const split = [["Flags", "Xattr", "ExtentRle"], ["ExtentRle"]]
    assert.deepStrictEqual(pages(meta({ clusters, xattrs: leaving(20) })), split)
    assert.deepStrictEqual(pages(meta({ clusters, xattrs: leaving(12) })), [["Flags", "Xattr"], ["ExtentRle"]])
    const tabled = { clusters, extentPages: [7], useExtentTable: true }
    assert.deepStrictEqual(pages(meta({ ...tabled, xattrs: leaving(21) })), [["Flags", "Xattr", "ExtentTable"]])
    // A table of nothing, and another with the entry.
    assert.deepStrictEqual(pages(meta({ ...tabled, xattrs: leaving(13) })), [
      ["Flags", "Xattr", "ExtentTable"],
      ["ExtentTable"]
    ])
    assert.deepStrictEqual(pages(meta({ ...tabled, xattrs: leaving(12) })), [["Flags", "Xattr"], ["ExtentTable"]])
    // SPDK forgets the table of a blob without clusters when there is no room for it.
    assert.deepStrictEqual(pages(meta({ useExtentTable: true, xattrs: leaving(12) })), [["Flags", "Xattr"]])
    assert.deepStrictEqual(pages(meta({ useExtentTable: true })), [["Flags", "ExtentTable"]])
    assert.deepStrictEqual(pages(meta()), [["Flags"]])
  })

  it("names blobs in eight bytes", () => {
    const named = meta({ internalXattrs: new Map([["SNAP", encodeIdXattr(id)]]) })
    assert.strictEqual(good(idXattr(named, "SNAP")), id)
    assert.isUndefined(good(idXattr(named, "SNAPTMP")))
    refuses(idXattr(meta({ internalXattrs: new Map([["SNAP", new Uint8Array(7)]]) }), "SNAP"), "is no id")
    assert.strictEqual(pageOfBlobId(id), 5)
    for (const none of [5, 2 ** 33, 2 ** 32 + 0xffffffff, -1, 0.5]) assert.isUndefined(pageOfBlobId(none))
  })
})

describe("metadata pages", () => {
  const bytes = encodeMdPage({ id, sequence: 3, next: 9 }, new Uint8Array(0))

  it("continue inside of the metadata", () => {
    assert.deepStrictEqual(good(decodeMdPage(bytes, 4, 10)), page([], { index: 4, sequence: 3, next: 9 }))
    refuses(decodeMdPage(bytes, 4, 9), "continues at page 9 of 9")
    refuses(decodeMdPage(bytes.subarray(1), 4), "cut off")
    refuses(decodeMdPage(new Uint8Array(4096), 4), "wrong CRC")
  })

  it("share no memory with what they were decoded from", () => {
    const value = Uint8Array.of(1, 2, 3)
    const area = encodeDescriptors([{ _tag: "Xattr", name: "a", value }])
    const source = encodeMdPage({ id, sequence: 0, next: undefined }, area)
    const [xattr] = good(decodeMdPage(source, 5)).descriptors
    source.fill(0xee)
    assert.deepStrictEqual(xattr, { _tag: "Xattr", name: "a", value })
  })
})

describe("the super block", () => {
  const deviceBytes = 2 ** 24
  const options = { deviceBytes, clusterSize: 65536, mdPages: 40, ioUnitSize: 512, mdPageSize: 4096, type: "T" }
  const laidOut = layoutStore(options)
  assert(laidOut !== undefined)
  const decode = (over: Partial<SuperBlock>) => decodeSuperBlock(encodeSuperBlock({ ...laidOut, ...over }), deviceBytes)

  it("is refused when it contradicts itself or the device", () => {
    refuses(decode({ version: 0 }), "version 0")
    refuses(decode({ version: 4 }), "version 4")
    refuses(decode({ sizeBytes: deviceBytes + 1 }), "larger than the device")
    refuses(decode({ mdPageSize: 4097 }), "metadata pages of 4097")
    refuses(decode({ clusterSize: 0 }), "clusters of 0")
    refuses(decode({ clusterSize: 4097 }), "clusters of 4097")
    refuses(decode({ ioUnitSize: 65537 }), "io units of 65537")
    refuses(decode({ ioUnitSize: 513 }), "io units of 513")
    refuses(decode({ mdLength: 0 }), "no metadata")
    refuses(decode({ usedPageMaskStart: 0 }), "over what lies before")
    refuses(decode({ usedClusterMaskStart: 1 }), "over what lies before")
    refuses(decode({ mdLength: 4096 }), "beyond the end")
    refuses(decode({ usedBlobIdMaskStart: 100 }), "behind the metadata")
    refuses(decode({ usedClusterMaskLength: 0 }), "0 pages for the used cluster mask")
    refuses(decodeSuperBlock(new Uint8Array(100), deviceBytes), "cut off")
    refuses(decodeSuperBlock(new Uint8Array(4096), deviceBytes), "signature")
  })

  it("of an older version has no blob ids, and the defaults of its time", () => {
    const old = {
      version: 1,
      usedBlobIdMaskStart: 0,
      usedBlobIdMaskLength: 0,
      sizeBytes: 0,
      ioUnitSize: 0,
      mdPageSize: 0
    }
    const bytes = encodeSuperBlock({ ...laidOut, ...old })
    const sb = good(decodeSuperBlock(bytes, deviceBytes))
    assert.deepStrictEqual([sb.sizeBytes, sb.ioUnitSize, sb.mdPageSize], [deviceBytes, 4096, 4096])
    // As SPDK marks it dirty: the size is filled in, the others are not.
    const again = encodeSuperBlock({ ...sb, clean: true }, bytes)
    const view = new DataView(again.buffer)
    assert.deepStrictEqual(
      [view.getUint32(80, true), view.getUint32(88, true), view.getUint32(92, true)],
      [2 ** 24, 0, 0]
    )
  })

  it("leaves room to grow, and refuses a device that is too small", () => {
    const many = layoutStore({ ...options, mdPages: 200 })
    assert.strictEqual(many?.usedBlobIdMaskStart, 3)
    assert.isUndefined(layoutStore({ ...options, mdPages: 4096 }))
    assert.strictEqual(layoutStore({ ...options, mdPages: undefined })?.mdLength, 256)
  })
})

describe("masks", () => {
  it("may be longer than the clusters that there are, and in no other way", () => {
    const bits = new BitSet(100)
    for (const i of [0, 31, 32, 63, 99]) bits.add(i)
    const mask = encodeMask(1, bits, 1)
    assert.strictEqual(mask.length, 4096)
    assert.strictEqual(good(decodeMask(mask, 1, 100)).count, 5)
    assert.strictEqual(good(decodeMask(mask, 1, 64)).count, 4)
    refuses(decodeMask(mask, 1, 101), "holds 100 bits instead of 101")
    refuses(decodeMask(encodeMask(0, bits, 1), 0, 64), "holds 100 bits instead of 64")
    refuses(decodeMask(mask, 0, 100), "type 1 instead of 0")
    refuses(decodeMask(mask.subarray(0, 17), 1, 100), "does not fit")
    refuses(decodeMask(new Uint8Array(4), 1, 100), "cut off")
    assert.deepStrictEqual([maskPages((4096 - 5) * 8, 4096), maskPages((4096 - 5) * 8 + 1, 4096)], [1, 2])
  })
})

it("CRC32C is that of the world, and goes on where it stopped", () => {
  const bytes = new TextEncoder().encode("123456789")
  assert.strictEqual(crc32c(bytes), 0xe3069283)
  assert.strictEqual(crc32c(bytes.subarray(4), crc32c(bytes.subarray(0, 4))), 0xe3069283)
})

it(`a bit set does what a set does (seed ${seed})`, () => {
  eachRound(60, (random) => {
    const size = random.pick([1, 31, 32, 33, 64, 200, 1000])
    const bits = new BitSet(size)
    const model = new Set<number>()
    for (let i = 0; i < 200; i++) {
      const at = random.below(size + 2) - 1
      const inside = at >= 0 && at < size
      if (random.below(3) > 0) {
        assert.strictEqual(bits.add(at), inside && !model.has(at))
        if (inside) model.add(at)
      } else assert.strictEqual(bits.delete(at), model.delete(at))
      assert.strictEqual(bits.has(at), model.has(at))
    }
    const all = Array.from({ length: size }, (_, i) => i)
    const from = random.below(size + 1)
    assert.strictEqual(bits.firstSet(from), all.find((i) => i >= from && model.has(i)) ?? -1)
    assert.strictEqual(bits.firstClear(from), all.find((i) => i >= from && !model.has(i)) ?? -1)
    assert.strictEqual(bits.count, model.size)
    for (const again of [BitSet.fromBytes(bits.toBytes(), size), bits.copy()]) {
      assert.deepStrictEqual([...again.words], [...bits.words])
      assert.strictEqual(again.count, bits.count)
    }
    const ones = new Uint8Array(Math.ceil(size / 8) + 3).fill(0xff)
    assert.strictEqual(BitSet.fromBytes(ones, size).count, size)
    assert.strictEqual(BitSet.fromBytes(ones, size).firstClear(), -1)
  })
})
