import * as Bdev from "@effect-spdk/core/Bdev"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Check from "../src/Check.ts"
import { internalXattr, maskHeaderBytes, maskType } from "../src/internal/format/layout.ts"
import { encodeDescriptors, type MdDescriptor } from "../src/internal/format/descriptor.ts"
import { encodeExtentPage, encodeMdPage } from "../src/internal/format/mdPage.ts"
import { encodeIdXattr } from "../src/internal/format/blobMeta.ts"
import { encodeSuperBlock } from "../src/internal/format/superBlock.ts"
import { onImage } from "./golden/device.ts"
import * as G from "./golden/images.ts"

const tags = (report: Check.Report): ReadonlyArray<string> => [...new Set(report.findings.map(({ _tag }) => _tag))]
const of = <Tag extends Check.Finding["_tag"]>(report: Check.Report, tag: Tag) =>
  report.findings.filter((finding): finding is Extract<Check.Finding, { readonly _tag: Tag }> => finding._tag === tag)
const blob = (page: number): number => 2 ** 32 + page

/** A change of one image, and what it is found to be. */
interface Injected {
  readonly what: string
  readonly name: G.Name
  readonly change: (bytes: Uint8Array) => void
  readonly finds: ReadonlyArray<Check.Finding["_tag"]>
}

/** Another first page for a blob, with other descriptors. */
const rewrite = (
  bytes: Uint8Array,
  page: number,
  change: (descriptors: ReadonlyArray<MdDescriptor>) => ReadonlyArray<MdDescriptor>
): void => {
  const sb = G.superOf(bytes)
  const found = G.blobsOf(bytes).find(({ meta }) => meta.id === blob(page))
  const first = found?.chain[0]
  assert(first !== undefined)
  G.mdBytes(bytes, sb, page).set(encodeMdPage(first, encodeDescriptors(change(first.descriptors))))
}

const withFlags =
  (change: (flags: number) => number) =>
  (descriptors: ReadonlyArray<MdDescriptor>): ReadonlyArray<MdDescriptor> =>
    descriptors.map((one) => (one._tag === "Flags" ? { ...one, invalidFlags: change(one.invalidFlags) } : one))

const flipMask = (type: 0 | 1 | 2, bit: number) => (bytes: Uint8Array) => {
  const mask = G.maskBytes(bytes, G.superOf(bytes), type)
  const at = maskHeaderBytes + (bit >> 3)
  mask[at] = (mask[at] ?? 0) ^ (1 << (bit & 7))
}

const flipInPage = (page: number) => (bytes: Uint8Array) => {
  const at = G.mdBytes(bytes, G.superOf(bytes), page)
  at[30] = (at[30] ?? 0) ^ 4
}

const pagesOf = (name: G.Name, id: number) => {
  const found = G.blobsOf(G.image(name)).find(({ meta }) => meta.id === blob(id))
  assert(found !== undefined)
  return found.meta
}

const injected: ReadonlyArray<Injected> = [
  { what: "no signature", name: "empty", change: (b) => b.fill(0, 0, 8), finds: ["SuperBlockDamaged"] },
  {
    what: "a bit of the super block",
    name: "xattrs",
    change: (b) => b.fill(9, 700, 701),
    finds: ["SuperBlockDamaged"]
  },
  {
    what: "another version",
    name: "xattrs",
    change: (b) => b.set(encodeSuperBlock({ ...G.superOf(b), version: 4 })),
    finds: ["SuperBlockDamaged"]
  },
  {
    what: "a store larger than the device",
    name: "xattrs",
    change: (b) => b.set(encodeSuperBlock({ ...G.superOf(b), sizeBytes: b.length + 512 })),
    finds: ["SuperBlockDamaged"]
  },
  {
    what: "a mask behind the end",
    name: "xattrs",
    change: (b) => b.set(encodeSuperBlock({ ...G.superOf(b), mdLength: 2 ** 20 })),
    finds: ["SuperBlockDamaged"]
  },
  {
    what: "a super blob that is none",
    name: "xattrs",
    change: (b) => b.set(encodeSuperBlock({ ...G.superOf(b), superBlob: blob(60) })),
    finds: ["SuperBlobMissing"]
  },
  { what: "the type of a mask", name: "large", change: (b) => b.fill(7, 4096, 4097), finds: ["MaskDamaged"] },
  { what: "a page that is marked", name: "large", change: flipMask(0, 200), finds: ["Lost"] },
  { what: "a page that is not marked", name: "large", change: flipMask(0, 1), finds: ["Missing"] },
  { what: "a cluster that is marked", name: "large", change: flipMask(1, 4000), finds: ["Lost"] },
  {
    what: "a cluster that is not marked",
    name: "rle",
    change: flipMask(1, pagesOf("rle", 0).clusters[77] ?? 0),
    finds: ["Missing"]
  },
  { what: "a blob id that is not marked", name: "xattrs", change: flipMask(2, 0), finds: ["Missing"] },
  {
    what: "a blob id that is marked",
    name: "xattrs",
    change: flipMask(2, 40),
    finds: ["Lost"]
  },
  {
    what: "a first page that is empty",
    name: "snapshots",
    change: (b) => G.mdBytes(b, G.superOf(b), 7).fill(0),
    finds: ["Lost", "PageDamaged"]
  },
  // A first page that is lost loses what the masks have for it, too.
  {
    what: "a bit in a first page",
    name: "snapshots",
    change: flipInPage(4),
    finds: ["PageDamaged", "Lost", "ParentMissing"]
  },
  {
    what: "a bit in a later page",
    name: "xattrs",
    change: flipInPage(pagesOf("xattrs", 0).pages[2] ?? 0),
    finds: ["PageDamaged", "Lost"]
  },
  {
    what: "a bit in an extent page",
    name: "large",
    change: flipInPage(pagesOf("large", 0).extentPages[1] ?? 0),
    finds: ["ExtentPageDamaged", "Lost"]
  },
  {
    what: "a chain that bites its tail",
    name: "rle",
    change: (b) => {
      const page = pagesOf("rle", 0).pages[1] ?? 0
      const bytes = G.mdBytes(b, G.superOf(b), page)
      const area = bytes.slice(16, 4088)
      bytes.set(encodeMdPage({ id: blob(0), sequence: 1, next: page }, area))
    },
    finds: ["BlobDamaged", "Lost"]
  },
  {
    what: "a page of another blob in a chain",
    name: "rle",
    change: (b) => {
      const bytes = G.mdBytes(b, G.superOf(b), pagesOf("rle", 0).pages[1] ?? 0)
      bytes.set(encodeMdPage({ id: blob(1), sequence: 1, next: undefined }, bytes.slice(16, 4088)))
    },
    finds: ["BlobDamaged", "Lost"]
  },
  {
    what: "an unknown flag",
    name: "snapshots",
    change: (b) =>
      rewrite(
        b,
        0,
        withFlags((flags) => flags | 0x10)
      ),
    finds: ["BlobDamaged"]
  },
  {
    what: "the flag of an extent table",
    name: "large",
    change: (b) =>
      rewrite(
        b,
        4,
        withFlags((flags) => flags & ~4)
      ),
    finds: ["FlagsContradict"]
  },
  {
    what: "an xattr twice",
    name: "snapshots",
    change: (b) => rewrite(b, 0, (all) => [...all, { _tag: "Xattr", name: "name", value: Uint8Array.of(1) }]),
    finds: ["XattrRepeated"]
  },
  {
    what: "a descriptor of tomorrow",
    name: "snapshots",
    change: (b) => rewrite(b, 0, (all) => [...all, { _tag: "Unknown", type: 77, length: 3 }]),
    finds: ["DescriptorUnknown"]
  },
  {
    what: "a parent that does not exist",
    name: "snapshots",
    change: (b) =>
      rewrite(b, 0, (all) =>
        all.map((one) =>
          one._tag === "XattrInternal" && one.name === internalXattr.snapshot
            ? { ...one, value: encodeIdXattr(blob(63)) }
            : one
        )
      ),
    finds: ["ParentMissing"]
  },
  {
    what: "a blob that is its own parent",
    name: "snapshots",
    change: (b) =>
      rewrite(b, 4, (all) => [
        ...all.filter((one) => one._tag !== "XattrInternal"),
        { _tag: "XattrInternal", name: internalXattr.snapshot, value: encodeIdXattr(blob(4)) }
      ]),
    finds: ["ParentCycle"]
  },
  {
    what: "a parent that can be written",
    name: "snapshots",
    change: (b) => rewrite(b, 4, (all) => all.map((one) => (one._tag === "Flags" ? { ...one, dataRoFlags: 0 } : one))),
    finds: ["ParentWritable"]
  },
  {
    what: "a mark of a leftover that names nobody",
    name: "snapshots",
    change: (b) =>
      rewrite(b, 4, (all) => [
        ...all,
        { _tag: "XattrInternal", name: internalXattr.snapshotPendingRemoval, value: encodeIdXattr(blob(62)) }
      ]),
    finds: ["LeftoverDamaged"]
  },
  {
    what: "an external snapshot without a name",
    name: "lvol",
    change: (b) =>
      rewrite(
        b,
        1,
        withFlags((flags) => flags | 8)
      ),
    finds: ["FlagsContradict"]
  },
  {
    what: "a cluster of another blob",
    name: "large",
    change: (b) => {
      const clusters = Uint32Array.from(pagesOf("large", 4).clusters)
      clusters[700] = pagesOf("large", 0).clusters[5] ?? 0
      const page = pagesOf("large", 4).extentPages[1] ?? 0
      G.mdBytes(b, G.superOf(b), page).set(encodeExtentPage(blob(4), 512, clusters))
    },
    finds: ["UsedTwice", "Lost"]
  },
  {
    what: "a page that nobody refers to",
    name: "large",
    change: (b) =>
      G.mdBytes(b, G.superOf(b), 99).set(
        encodeMdPage({ id: blob(3), sequence: 4, next: undefined }, new Uint8Array(0))
      ),
    finds: ["StalePages"]
  },
  {
    what: "no clean flag",
    name: "large",
    change: (b) => b.set(encodeSuperBlock({ ...G.superOf(b), clean: false })),
    finds: ["Unclean"]
  }
]

describe("check of what SPDK wrote", () => {
  it.effect.each(G.whole)("%s is clean", (name) =>
    onImage(G.image(name), () =>
      Effect.gen(function* () {
        const report = yield* Check.check
        assert.deepStrictEqual(tags(report), name === "unclean" ? ["Unclean"] : [])
        assert.isTrue(report.isClean)
        const said = G.said(name)
        const store = report.store
        assert(store !== undefined)
        assert.strictEqual(store.clusters - store.usedClusters, said.freeClusters)
        assert.strictEqual(store.blobs, said.lvols === undefined ? said.blobs.length : said.lvols.length + 1)
      })
    )
  )

  it.effect.each(G.cut)("%s has what was cut, and no error", (name) =>
    onImage(G.image(name), () =>
      Effect.gen(function* () {
        const report = yield* Check.check
        assert.isFalse(report.hasErrors)
        const found = tags(report)
        if (name === "grow-cut" || name === "shrink-cut") assert.deepStrictEqual(found, ["SizeDiffers", "Unclean"])
        else if (found.includes("Leftover")) assert.strictEqual(of(report, "Leftover").length, 1)
        else assert.include(["snapshot-cut-1", "delete-cut-5"], name)
      })
    )
  )

  it.effect("tells which way a snapshot that was cut goes", () =>
    Effect.gen(function* () {
      const leftover = (name: G.Name) =>
        onImage(G.image(name), () => Effect.map(Check.check, (report) => of(report, "Leftover")[0]))
      const pick = (found: Check.Leftover | undefined) => [found?.of, found?.recovery, (found?.sharedClusters ?? 0) > 0]
      assert.deepStrictEqual(pick(yield* leftover("snapshot-cut-2")), ["snapshot", "drop", true])
      assert.deepStrictEqual(pick(yield* leftover("snapshot-cut-3")), ["snapshot", "keep", false])
      assert.deepStrictEqual(pick(yield* leftover("delete-cut-2")), ["delete", "keep", true])
      assert.deepStrictEqual(pick(yield* leftover("delete-cut-3")), ["delete", "drop", true])
    })
  )
})

describe("check finds", () => {
  it.effect.each(injected)("$what", ({ change, finds, name }) => {
    const bytes = G.image(name)
    change(bytes)
    return onImage(
      bytes,
      (read) =>
        Effect.gen(function* () {
          const report = yield* Check.check
          for (const tag of finds) assert.include(tags(report), tag)
          assert.strictEqual(tags(report).length, finds.length, tags(report).join(" "))
          for (const finding of report.findings) assert.isAbove(finding.message.length, 10)
          const codec = Schema.toCodecJson(Check.Report)
          const json: unknown = JSON.parse(JSON.stringify(Schema.encodeSync(codec)(report)))
          assert.deepStrictEqual(Schema.decodeUnknownSync(codec)(json), report)
          assert.isTrue(Buffer.from(bytes).equals(read()), "check writes nothing")
        }),
      { readonly: true }
    )
  })

  it.effect("no blobstore on a device that is shorter than a super block", () =>
    onImage(new Uint8Array(512), () =>
      Effect.map(Check.check, (report) => {
        assert.deepStrictEqual(tags(report), ["SuperBlockDamaged"])
        assert.isUndefined(report.store)
      })
    )
  )
})

describe("dump", () => {
  it.effect.each(G.whole)("of %s has what SPDK says, as JSON too", (name) =>
    onImage(G.image(name), () =>
      Effect.gen(function* () {
        const dumped = yield* Check.dump
        const codec = Schema.toCodecJson(Check.Dump)
        const json: unknown = JSON.parse(JSON.stringify(Schema.encodeSync(codec)(dumped)))
        assert.deepStrictEqual(Schema.decodeUnknownSync(codec)(json), dumped)
        const said = G.said(name)
        const inside = dumped.blobs.filter((one) => !one.externalSnapshot)
        assert.deepStrictEqual<unknown>(
          inside.map((one) => [
            `0x${one.id.toString(16)}`,
            one.clusters,
            one.allocatedClusters,
            one.thin ? 1 : 0,
            one.readOnly ? 1 : 0,
            Object.fromEntries(Object.entries(one.xattrs).map(([key, value]) => [key, G.saidValue(value)]))
          ]),
          said.blobs.map((one) => [one.id, one.clusters, one.allocated, one.thin, one.readOnly, one.xattrs])
        )
        for (const one of inside) {
          assert.strictEqual(
            one.extents.reduce((sum, extent) => sum + extent.length, 0),
            one.clusters
          )
        }
      })
    )
  )
})

it.effect("a report counts what it leaves out", () => {
  const bytes = G.image("large")
  const mask = G.maskBytes(bytes, G.superOf(bytes), maskType.usedClusters)
  for (let i = maskHeaderBytes; i < maskHeaderBytes + 512; i++) mask[i] = 0x55
  return onImage(bytes, () =>
    Effect.map(Check.check, (report) => {
      assert.strictEqual(report.findings.length, 1000)
      assert.isAbove(report.omitted, 100)
      assert.isFalse(report.isClean)
    })
  )
})

it.effect("a device that fails is an error, not a finding", () =>
  onImage(G.image("empty"), () =>
    Effect.gen(function* () {
      const bdev = yield* Bdev.Bdev
      const failing = {
        ...bdev,
        sizeBytes: bdev.sizeBytes,
        name: bdev.name,
        readBytes: () => bdev.readBytes(bdev.sizeBytes, 512)
      }
      const error = yield* Check.check.pipe(Effect.provideService(Bdev.Bdev, failing), Effect.flip)
      assert.strictEqual(error.reason._tag, "InvalidArgument")
    })
  )
)
