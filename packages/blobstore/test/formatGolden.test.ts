import { assert, describe, it } from "@effect/vitest"
import { eachAllocated, idXattr, serializeChain } from "../src/internal/format/blobMeta.ts"
import { encodeDescriptors } from "../src/internal/format/descriptor.ts"
import { internalXattr, invalidFlag, maskType, mdPageOffset } from "../src/internal/format/layout.ts"
import { encodeMask } from "../src/internal/format/mask.ts"
import { encodeExtentPage, encodeMdPage } from "../src/internal/format/mdPage.ts"
import { encodeSuperBlock, layoutStore, metadataClusters, totalClusters } from "../src/internal/format/superBlock.ts"
import * as G from "./golden/images.ts"

const hexId = (id: number): string => `0x${id.toString(16)}`

const allocated = (clusters: Uint32Array): number => clusters.reduce((sum, cluster) => sum + (cluster === 0 ? 0 : 1), 0)

const ranges = (clusters: Uint32Array): Array<[number, number]> => {
  const found: Array<[number, number]> = []
  for (const [i, cluster] of clusters.entries()) {
    const last = found[found.length - 1]
    if (cluster === 0) continue
    if (last !== undefined && last[1] === i) last[1]++
    else found.push([i, i + 1])
  }
  return found
}

describe.each(G.names)("SPDK's image %s", (name) => {
  const bytes = G.image(name)
  const sb = G.superOf(bytes)

  it("has a super block that is encoded to the same bytes", () => {
    assert.deepStrictEqual(encodeSuperBlock(sb), bytes.slice(0, 4096))
    assert.deepStrictEqual(encodeSuperBlock(sb, bytes), bytes.slice(0, 4096))
    const { clusterSize, ioUnitSize, mdLength, mdPageSize, type } = sb
    const laidOut = layoutStore({
      deviceBytes: bytes.length,
      clusterSize,
      mdPages: mdLength,
      ioUnitSize,
      mdPageSize,
      type
    })
    assert.deepStrictEqual({ ...laidOut, clean: sb.clean, superBlob: sb.superBlob }, sb)
  })

  it("has chains and extent pages that are encoded to the same bytes", () => {
    for (const { chain, difference, meta } of G.blobsOf(bytes)) {
      const areas = G.good(serializeChain(meta))
      // What the table says and the extent page does not is the one thing that a store in the middle of a resize has.
      if (difference >= 0) assert.strictEqual(areas.length, chain.length)
      for (const [i, page] of chain.entries()) {
        const onDisk = G.mdBytes(bytes, sb, page.index)
        const area = areas[i]
        assert(area !== undefined)
        if (difference >= 0) assert.deepStrictEqual(encodeMdPage(page, area), onDisk)
        assert.deepStrictEqual(encodeMdPage(page, encodeDescriptors(page.descriptors)), onDisk)
      }
      for (const [i, index] of meta.extentPages.entries()) {
        if (index === 0 || difference > 0) continue
        const onDisk = G.mdBytes(bytes, sb, index)
        // A snapshot keeps the pages, and in them the id, of the blob it was taken from.
        const writer = Number(new DataView(onDisk.buffer, onDisk.byteOffset).getBigUint64(mdPageOffset.id, true))
        assert.deepStrictEqual(encodeExtentPage(writer, i * 512, meta.clusters), onDisk)
      }
    }
  })

  if (sb.clean)
    it("has masks that are encoded to the same bytes", () => {
      for (const type of [maskType.usedPages, maskType.usedClusters, maskType.usedBlobIds]) {
        const mask = G.maskOf(bytes, sb, type)
        assert.deepStrictEqual(encodeMask(type, mask, G.maskPlace(sb, type).length), G.maskBytes(bytes, sb, type))
      }
    })
})

describe.each(G.whole)("what SPDK says of its image %s", (name) => {
  const bytes = G.image(name)
  const sb = G.superOf(bytes)
  const said = G.said(name)
  const blobs = G.blobsOf(bytes)

  it("is what the super block says", () => {
    assert.strictEqual(sb.clusterSize, said.clusterSize)
    assert.strictEqual(sb.ioUnitSize, said.ioUnitSize)
    assert.strictEqual(sb.type, said.type)
    assert.strictEqual(sb.clean, name !== "unclean")
    assert.strictEqual(sb.superBlob === undefined ? undefined : hexId(sb.superBlob), said.superBlob)
    assert.strictEqual(totalClusters(sb) - metadataClusters(sb), said.totalDataClusters)
  })

  if (sb.clean)
    it("is what the masks say", () => {
      const used = G.maskOf(bytes, sb, maskType.usedClusters)
      assert.strictEqual(totalClusters(sb) - used.count, said.freeClusters)
      const own = new Set(blobs.flatMap(({ meta }) => [...meta.clusters].filter((cluster) => cluster !== 0)))
      const again = new Set<number>()
      for (const { meta } of blobs) eachAllocated(meta, (cluster) => again.add(cluster))
      assert.deepStrictEqual(again, own)
      assert.strictEqual(own.size + metadataClusters(sb), used.count)
      for (const cluster of own) assert(used.has(cluster))
      const pages = blobs.flatMap(({ meta }) => [...meta.pages, ...meta.extentPages.filter((page) => page !== 0)])
      assert.strictEqual(new Set(pages).size, pages.length)
      assert.strictEqual(G.maskOf(bytes, sb, maskType.usedPages).count, pages.length)
    })

  it("is what the blobs say", () => {
    const external = blobs.filter(({ meta }) => (meta.invalidFlags & invalidFlag.externalSnapshot) !== 0)
    assert.strictEqual(external.length, said.lvols?.filter((lvol) => lvol.is_esnap_clone).length ?? 0)
    const found = blobs
      .filter((blob) => !external.includes(blob))
      .map(({ meta }) => {
        const parent = G.good(idXattr(meta, internalXattr.snapshot))
        const clones = blobs.filter((other) => G.good(idXattr(other.meta, internalXattr.snapshot)) === meta.id)
        return {
          id: hexId(meta.id),
          clusters: meta.clusters.length,
          allocated: allocated(meta.clusters),
          thin: (meta.invalidFlags & invalidFlag.thin) !== 0 ? 1 : 0,
          readOnly: meta.dataReadOnly ? 1 : 0,
          snapshot: clones.length > 0 ? 1 : 0,
          clone: parent === undefined ? 0 : 1,
          ...(parent === undefined ? {} : { parent: hexId(parent) }),
          clones: clones.map((clone) => hexId(clone.meta.id)),
          allocatedRanges: ranges(meta.clusters),
          xattrs: Object.fromEntries([...meta.xattrs].map(([key, value]) => [key, G.saidValue(value)]))
        }
      })
    assert.deepStrictEqual<unknown>(found, said.blobs)
  })
})

describe("stores that SPDK was stopped in", () => {
  const only = (name: G.Name, id: number) => {
    const blob = G.blobsOf(G.image(name)).find(({ meta }) => meta.id === 2 ** 32 + id)
    assert(blob !== undefined)
    return blob
  }

  it("have an extent page that is ahead of its table while a blob grows", () => {
    const blob = only("grow-cut", 2)
    assert.strictEqual(blob.difference, 4)
    // SPDK takes the page's word.
    assert.strictEqual(G.said("grow-cut").blobs[1]?.clusters, 9)
    assert.strictEqual(blob.meta.clusters.length, 5)
  })

  it("have an extent page that is behind its table while a blob shrinks", () => {
    const blob = only("shrink-cut", 2)
    assert.strictEqual(blob.difference, -3)
    assert.strictEqual(G.said("shrink-cut").blobs[1]?.clusters, 2)
    assert.strictEqual(blob.meta.clusters.length, 2)
  })

  it("name the clone in a snapshot that is half made, and in one that is half deleted", () => {
    const made = only("snapshot-cut-2", 4)
    assert.strictEqual(G.good(idXattr(made.meta, internalXattr.snapshotInProgress)), 2 ** 32)
    const deleted = G.blobsOf(G.image("delete-cut-2")).find(({ meta }) => meta.internalXattrs.has("SNAPRM"))
    assert(deleted !== undefined)
    assert.strictEqual(G.good(idXattr(deleted.meta, internalXattr.snapshotPendingRemoval)), 2 ** 32)
  })
})

it("the images have what they are there for", () => {
  const longest = (name: G.Name) => Math.max(...G.blobsOf(G.image(name)).map(({ chain }) => chain.length))
  assert.isAtLeast(longest("xattrs"), 4)
  assert.isAtLeast(longest("rle"), 3)
  const large = G.blobsOf(G.image("large")).map(({ meta }) => meta)
  assert.deepStrictEqual(
    large.map(({ clusters, extentPages }) => [clusters.length, extentPages.filter((page) => page !== 0).length]),
    [
      [900, 2],
      [2600, 3],
      [40000, 0],
      [0, 0]
    ]
  )
  const tables = G.blobsOf(G.image("rle")).map(({ meta }) => meta.useExtentTable)
  assert.deepStrictEqual(new Set(tables), new Set([false]))
})
