/** What SPDK wrote, loaded by the portable driver: it says of the blobs what SPDK said. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { image, type Name, said, type SaidBlob, saidValue, whole } from "./golden/images.ts"
import { contents, load, malloc, open, run } from "./support/portableDisk.ts"

const hex = (id: number): string => `0x${id.toString(16)}`

/** `delete-cut-2`: SPDK lets snapshot and clone share clusters; here they are the snapshot's again. */
const differs: ReadonlySet<Name> = new Set(["delete-cut-2"])

const check = Effect.fnUntraced(function* (name: Name) {
  const bytes = image(name)
  const bdev = yield* malloc(bytes.length)
  yield* bdev.writeBytes(0, bytes)
  const store = yield* load(bdev)
  const expected = said(name)
  const info = yield* store.info
  assert.strictEqual(info.type, expected.type)
  assert.strictEqual(info.clusterSizeBytes, expected.clusterSize)
  assert.strictEqual(info.totalClusters, expected.totalDataClusters)
  assert.strictEqual(info.ioUnitBytes, expected.ioUnitSize)
  const superBlob = yield* store.superBlob
  assert.strictEqual(superBlob === undefined ? undefined : hex(superBlob), expected.superBlob)
  const ids = yield* store.ids
  // SPDK's blob API does not list blobs on external snapshots.
  const listed = expected.blobs.map((blob) => blob.id)
  if (name !== "lvol") assert.deepStrictEqual(ids.map(hex), listed)
  for (const id of ids) {
    const one = expected.blobs.find((blob) => blob.id === hex(id))
    if (one === undefined) continue
    const blob = yield* open(store, id)
    const seen = yield* blob.info
    const found: Omit<SaidBlob, "allocatedRanges" | "allocated"> = {
      id: hex(id),
      clusters: seen.clusters,
      thin: seen.isThin ? 1 : 0,
      readOnly: seen.isReadOnly ? 1 : 0,
      snapshot: seen.isSnapshot ? 1 : 0,
      clone: seen.isClone ? 1 : 0,
      ...(seen.parent._tag === "Snapshot" ? { parent: hex(seen.parent.id) } : {}),
      clones: (yield* store.clones(id)).map(hex),
      xattrs: Object.fromEntries([...(yield* blob.xattrs)].map(([key, value]) => [key, saidValue(value)]))
    }
    yield* blob.close
    const { allocated, allocatedRanges: _, ...rest } = one
    if (!differs.has(name)) {
      assert.deepStrictEqual({ ...found, allocated: seen.allocatedClusters }, { ...rest, allocated })
    }
    if (seen.clusters <= info.totalClusters) yield* contents(store, id)
  }
  if (!differs.has(name)) assert.strictEqual(info.freeClusters, expected.freeClusters)
  yield* store.unload
  const again = yield* load(bdev)
  assert.deepStrictEqual(yield* again.ids, ids)
  assert.deepStrictEqual(yield* again.info, info)
  yield* again.unload
  const recovered = yield* load(bdev, { forceRecover: true })
  assert.deepStrictEqual(yield* recovered.ids, ids)
  assert.deepStrictEqual(yield* recovered.info, info)
})

describe("the portable driver loads", () => {
  for (const name of whole) it.live(`${name} of SPDK`, () => run(check(name)))
})
