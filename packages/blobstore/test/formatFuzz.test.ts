import { assert, describe, it } from "@effect/vitest"
import * as Result from "effect/Result"
import {
  applyExtentPage,
  limitsOf,
  maxBlobClusters,
  parseChain,
  serializeChain
} from "../src/internal/format/blobMeta.ts"
import { pageCrc } from "../src/internal/format/crc32c.ts"
import type { Damage } from "../src/internal/format/damage.ts"
import { blobIdOfPage, maskType, pageBytes } from "../src/internal/format/layout.ts"
import { decodeMask } from "../src/internal/format/mask.ts"
import { decodeExtentPage, decodeMdPage, encodeMdPage, isZeroPage, type MdPage } from "../src/internal/format/mdPage.ts"
import {
  decodeSuperBlock,
  encodeSuperBlock,
  metadataClusters,
  totalClusters
} from "../src/internal/format/superBlock.ts"
import * as G from "./golden/images.ts"
import { eachRound, makeRandom, mutate, type Random, rounds, seed } from "./golden/random.ts"

/** By the polynomial, a bit at a time: shares nothing with the library. */
const table = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte
  for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ ((crc & 1) * 0x82f63b78)
  return crc >>> 0
})
const slowCrc = (bytes: Uint8Array): number => {
  let crc = 0xffffffff
  for (let i = 0; i < pageBytes - 4; i++) crc = (crc >>> 8) ^ (table[(crc ^ (bytes[i] ?? 0)) & 0xff] ?? 0)
  return ~crc >>> 0
}

const storedCrc = (bytes: Uint8Array): number =>
  new DataView(bytes.buffer, bytes.byteOffset).getUint32(pageBytes - 4, true)
const seal = (bytes: Uint8Array): void =>
  new DataView(bytes.buffer, bytes.byteOffset).setUint32(pageBytes - 4, pageCrc(bytes), true)

const stores = G.names.map((name) => {
  const bytes = G.image(name)
  const sb = G.superOf(bytes)
  const pages: Array<{ readonly index: number; readonly bytes: Uint8Array }> = []
  for (let index = 0; index < sb.mdLength; index++) {
    const page = G.mdBytes(bytes, sb, index)
    if (!isZeroPage(page)) pages.push({ index, bytes: page })
  }
  return { name, bytes, sb, pages }
})
const withPages = stores.filter(({ pages }) => pages.length > 0)

const refused = (result: Result.Result<unknown, Damage>): boolean => {
  if (Result.isSuccess(result)) return false
  assert.isAbove(result.failure.where.length, 0)
  assert.isAbove(result.failure.rule.length, 0)
  return true
}

/** A mutated page of an image; `sealed` ones have the CRC of what they became. */
const mutatedPage = (random: Random, sealed: boolean) => {
  const store = random.pick(withPages)
  const page = random.pick(store.pages)
  const bytes = Uint8Array.from(page.bytes)
  mutate(random, bytes, 1 + random.below(4))
  if (sealed) seal(bytes)
  return { ...store, index: page.index, page: bytes }
}

describe(`mutated bytes (seed ${seed})`, () => {
  it("have the CRC that SPDK would compute", () => {
    for (const { bytes, pages } of stores) {
      for (const page of [bytes, ...pages.map((page) => page.bytes)]) {
        assert.strictEqual(storedCrc(page), slowCrc(page))
        assert.strictEqual(pageCrc(page), slowCrc(page))
      }
    }
  })

  it("are never good with a wrong CRC", () => {
    let wrong = 0
    eachRound(rounds(4000, 400_000), (random) => {
      const { index, page, sb } = mutatedPage(random, false)
      const superBlock = Uint8Array.from(page)
      superBlock.set(encodeSuperBlock(sb).subarray(0, 12))
      for (const bytes of [page, superBlock]) {
        if (storedCrc(bytes) === slowCrc(bytes)) continue
        wrong++
        assert(refused(decodeMdPage(bytes, index, sb.mdLength)))
        assert(refused(decodeExtentPage(bytes, index)))
        assert(refused(decodeSuperBlock(bytes, 2 ** 40)))
      }
    })
    assert.isAbove(wrong, 1000)
  })

  it("with the right CRC are refused, or are a chain that can be written and read again", () => {
    let good = 0
    eachRound(rounds(4000, 400_000), (random) => {
      const { index, page, sb } = mutatedPage(random, true)
      const decoded = decodeMdPage(page, index, sb.mdLength)
      if (refused(decoded) || Result.isFailure(decoded)) return
      const alone: MdPage = { ...decoded.success, id: blobIdOfPage(index), sequence: 0, next: undefined }
      const parsed = parseChain([alone], random.below(2) === 0 ? limitsOf(sb) : undefined)
      if (refused(parsed) || Result.isFailure(parsed)) return
      good++
      const meta = parsed.success
      assert.isAtMost(meta.clusters.length, maxBlobClusters)
      const areas = serializeChain(meta)
      if (refused(areas) || Result.isFailure(areas)) return assert.fail("what fits into a page fits again")
      assert.isAtMost(areas.success.length, 2)
      const chain = areas.success.map((area, i) => {
        const next = i + 1 < areas.success.length ? sb.mdLength : undefined
        const at = i === 0 ? index : sb.mdLength
        return G.good(decodeMdPage(encodeMdPage({ id: meta.id, sequence: i, next }, area), at))
      })
      const again = G.good(parseChain(chain))
      assert.strictEqual(Buffer.compare(Buffer.from(again.clusters.buffer), Buffer.from(meta.clusters.buffer)), 0)
      const rest = {
        clusters: 0,
        pages: 0,
        runs: 0,
        duplicateXattrs: 0,
        unknownDescriptors: 0,
        dataReadOnly: 0,
        mdReadOnly: 0
      }
      assert.deepStrictEqual({ ...again, ...rest }, { ...meta, ...rest })
    })
    assert.isAbove(good, 100)
  })

  it("of extent pages with the right CRC are refused, or fill the blob", () => {
    const large = stores.find(({ name }) => name === "large")
    assert(large !== undefined)
    const limits = limitsOf(large.sb)
    const blob = G.blobsOf(large.bytes)[1]
    assert(blob !== undefined)
    let good = 0
    eachRound(rounds(3000, 300_000), (random) => {
      const slot = random.pick([0, 1, 5])
      const index = blob.meta.extentPages[slot] ?? 0
      const bytes = Uint8Array.from(G.mdBytes(large.bytes, large.sb, index))
      mutate(random, bytes, 1 + random.below(3))
      seal(bytes)
      const page = decodeExtentPage(bytes, index)
      if (refused(page) || Result.isFailure(page)) return
      const meta = { ...blob.meta, clusters: blob.meta.clusters.slice() }
      if (refused(applyExtentPage(meta, slot, page.success, limits))) return
      good++
      assert.isAtMost(meta.clusters.length, blob.meta.clusters.length)
      for (const cluster of meta.clusters) {
        assert(cluster === 0 || (cluster >= limits.firstCluster && cluster < limits.totalClusters))
      }
    })
    assert.isAbove(good, 10)
  })

  it("of super blocks with the right CRC are refused, or describe ranges that the device has", () => {
    let good = 0
    eachRound(rounds(4000, 400_000), (random) => {
      const bytes = Uint8Array.from(random.pick(stores).bytes.subarray(0, pageBytes))
      mutate(random, bytes, 1 + random.below(2))
      seal(bytes)
      const deviceBytes = random.pick([0, 4096, 2 ** 24 - 1, 2 ** 24, 2 ** 40])
      const decoded = decodeSuperBlock(bytes, deviceBytes)
      if (refused(decoded) || Result.isFailure(decoded)) return
      good++
      const sb = decoded.success
      assert.isAtMost(sb.sizeBytes, deviceBytes)
      assert.isAtMost(metadataClusters(sb), totalClusters(sb))
      for (const end of [sb.usedPageMaskStart + sb.usedPageMaskLength, sb.mdStart + sb.mdLength]) {
        assert.isAtMost(end * sb.mdPageSize, deviceBytes)
      }
      assert.deepStrictEqual(G.good(decodeSuperBlock(encodeSuperBlock(sb, bytes), deviceBytes)), sb)
    })
    assert.isAbove(good, 50)
  })

  it("of masks are refused, or have only the bits that there are", () => {
    let good = 0
    const types = [maskType.usedPages, maskType.usedClusters, maskType.usedBlobIds]
    eachRound(rounds(2000, 100_000), (random) => {
      const { bytes, sb } = random.pick(stores)
      const type = random.pick(types)
      const mask = Uint8Array.from(G.maskBytes(bytes, sb, type))
      mutate(random, mask, random.below(3))
      const { bits } = G.maskPlace(sb, type)
      const decoded = decodeMask(mask, type, bits)
      if (refused(decoded) || Result.isFailure(decoded)) return
      good++
      assert.strictEqual(decoded.success.size, bits)
      assert.isAtMost(decoded.success.count, bits)
      let counted = 0
      for (let at = decoded.success.firstSet(); at >= 0; at = decoded.success.firstSet(at + 1)) counted++
      assert.strictEqual(counted, decoded.success.count)
    })
    assert.isAbove(good, 50)
  })

  it("that are random, or of any length, are refused", () => {
    eachRound(rounds(1000, 100_000), (random) => {
      const bytes = new Uint8Array(random.below(2) === 0 ? pageBytes : random.below(pageBytes + 1))
      for (let i = 0; i < bytes.length; i++) bytes[i] = random.word()
      if (bytes.length === pageBytes && random.below(2) === 0) seal(bytes)
      else assert(refused(decodeMdPage(bytes, 0)))
      assert(refused(decodeSuperBlock(bytes, 2 ** 40)))
      // A random page with its CRC may say nothing at all, which is well-formed.
      const page = decodeMdPage(bytes, 0)
      if (Result.isSuccess(page)) refused(parseChain([page.success]))
      for (const type of [maskType.usedPages, maskType.usedBlobIds]) assert(refused(decodeMask(bytes, type, 77_777)))
    })
  })

  it("are made the same way by the same seed", () => {
    const one = mutatedPage(makeRandom(7), true).page
    assert.deepStrictEqual(mutatedPage(makeRandom(7), true).page, one)
    assert.notDeepEqual(mutatedPage(makeRandom(8), true).page, one)
  })
})
