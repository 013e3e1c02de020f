/** Damaged stores: what loads, what is refused, and that nothing of it is given to others. */
import { assert, describe, it } from "@effect/vitest"
import * as Bdev from "@effect-spdk/core/Bdev"
import type { SpdkError } from "@effect-spdk/core/SpdkError"
import * as Effect from "effect/Effect"
import * as Check from "../src/Check.ts"
import * as Blobstore from "../src/Blobstore.ts"
import { serializeChain } from "../src/internal/format/blobMeta.ts"
import { encodeExtentPage, encodeMdPage } from "../src/internal/format/mdPage.ts"
import { encodeSuperBlock } from "../src/internal/format/superBlock.ts"
import * as L from "../src/internal/format/layout.ts"
import * as G from "./golden/images.ts"
import { contents, create, init, load, malloc, mebibyte, open, pattern, run, write } from "./support/portableDisk.ts"

const clusterBytes = 65_536
const blobs = 4
const long = new Map([
  ["a", pattern(3000, 1)],
  ["b", pattern(3000, 2)]
])

const reasonOf = <A, E extends SpdkError, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.map(Effect.flip(effect), (error) => error.reason)

/** Four blobs with chains of more than one page, as after a clean unload, and the image of that. */
const prepare = Effect.fnUntraced(function* (sizeBytes = 4 * mebibyte) {
  const disk = yield* malloc(sizeBytes)
  const store = yield* init(disk, { clusterSizeBytes: clusterBytes })
  const ids: Array<number> = []
  for (let i = 0; i < blobs; i++) {
    const id = yield* create(store, { clusters: 3, xattrs: long })
    ids.push(id)
    const blob = yield* open(store, id)
    yield* write(blob, 0, pattern(3 * clusterBytes, i))
    yield* blob.close
  }
  yield* store.unload
  return { disk, ids, image: yield* disk.readBytes(0, disk.sizeBytes) }
})

const chainOf = (image: Uint8Array, id: number) => {
  const found = G.blobsOf(image).find(({ meta }) => meta.id === id)
  assert(found !== undefined)
  return found
}

const crashed = (image: Uint8Array): void => {
  image.set(encodeSuperBlock({ ...G.superOf(image), clean: false }, image.slice(0, L.pageBytes)))
}

const messages = (disk: Bdev.Bdev) =>
  Effect.map(Effect.provideService(Check.check, Bdev.Bdev, disk), ({ findings }) =>
    findings.filter(({ severity }) => severity !== "info").map(({ _tag }) => _tag)
  )

describe("a damaged store", () => {
  for (const isClean of [false, true]) {
    it.live(`with a blob whose deletion was cut loads, and the deletion is finished, unloaded ${isClean}`, () =>
      run(
        Effect.gen(function* () {
          const { disk, ids, image } = yield* prepare()
          const [first = 0, cut = 0, third = 0] = ids
          const { chain } = chainOf(image, cut)
          assert.isAbove(chain.length, 1)
          for (const { index } of chain.slice(1)) G.mdBytes(image, G.superOf(image), index).fill(0)
          if (!isClean) crashed(image)
          yield* disk.writeBytes(0, image)
          const store = yield* load(disk)
          const listed = yield* reasonOf(store.ids)
          assert.strictEqual(listed._tag, "Corrupted")
          assert.include(listed.resource, `0x${cut.toString(16)}`)
          assert.strictEqual((yield* reasonOf(open(store, cut)))._tag, "Corrupted")
          assert.deepStrictEqual(yield* contents(store, third), pattern(3 * clusterBytes, 2))
          // Nothing that is made now is written where the chain leads to.
          const made = yield* create(store, { clusters: 3, xattrs: long })
          yield* store.unload
          const again = yield* load(disk)
          assert.strictEqual((yield* reasonOf(again.ids))._tag, "Corrupted")
          yield* again.delete(cut)
          assert.notInclude(yield* again.ids, cut)
          yield* again.unload
          const last = yield* load(disk)
          assert.deepStrictEqual(
            yield* last.ids,
            ids
              .filter((id) => id !== cut)
              .concat(made)
              .toSorted((a, b) => a - b)
          )
          assert.deepStrictEqual(yield* contents(last, first), pattern(3 * clusterBytes, 0))
          const { freeClusters, totalClusters } = yield* last.info
          assert.strictEqual(totalClusters - freeClusters, 4 * 3)
          yield* last.unload
          assert.deepStrictEqual(yield* messages(disk), [])
        })
      )
    )
  }

  it.live("is refused when a chain leads in a circle or out of the metadata, and says so at once", () =>
    run(
      Effect.gen(function* () {
        const { disk, ids, image } = yield* prepare()
        const { chain } = chainOf(image, ids[1] ?? 0)
        const [root] = chain
        assert(root !== undefined)
        const at = G.mdBytes(image, G.superOf(image), root.index)
        const area = at.slice(L.mdPageOffset.descriptors, L.mdPageOffset.next)
        for (const next of [root.index, 0x7fffffff]) {
          at.set(encodeMdPage({ id: root.id, sequence: 0, next }, area))
          crashed(image)
          yield* disk.writeBytes(0, image)
          assert.strictEqual((yield* reasonOf(load(disk)))._tag, "Corrupted")
          const report = yield* Effect.provideService(Check.repair, Bdev.Bdev, disk)
          assert.isTrue(report.after.hasErrors)
          assert.deepStrictEqual(report.actions, [])
        }
      })
    )
  )

  it.live("in which two blobs have the same clusters never gives them to a third", () =>
    run(
      Effect.gen(function* () {
        const { disk, ids, image } = yield* prepare(2 * mebibyte)
        const [, one = 0, other = 0] = ids
        const sb = G.superOf(image)
        const { meta } = chainOf(image, one)
        const [page = 0] = chainOf(image, other).meta.extentPages
        G.mdBytes(image, sb, page).set(encodeExtentPage(other, 0, chainOf(image, one).meta.clusters))
        crashed(image)
        yield* disk.writeBytes(0, image)
        const repaired = yield* Effect.provideService(Check.repair, Bdev.Bdev, disk)
        assert.deepStrictEqual(repaired.actions, [])
        const store = yield* load(disk)
        yield* store.delete(other)
        for (;;) {
          const made = yield* Effect.result(create(store, { clusters: 1 }))
          if (made._tag === "Failure") break
          const blob = yield* open(store, made.success)
          yield* write(blob, 0, pattern(clusterBytes, 9))
          yield* blob.close
        }
        assert.deepStrictEqual(yield* contents(store, one), pattern(3 * clusterBytes, 1))
        assert.strictEqual(meta.clusters.length, 3)
        yield* store.unload
        // The next load looks again.
        assert.isFalse(G.superOf(yield* disk.readBytes(0, disk.sizeBytes)).clean)
      })
    )
  )

  it.live("that has lost a blob its masks know is not clean, and repair frees nothing", () =>
    run(
      Effect.gen(function* () {
        const { disk, ids, image } = yield* prepare()
        const { chain } = chainOf(image, ids[1] ?? 0)
        const bytes = G.mdBytes(image, G.superOf(image), chain[0]?.index ?? 0)
        bytes[100] = (bytes[100] ?? 0) ^ 1
        crashed(image)
        yield* disk.writeBytes(0, image)
        assert.deepStrictEqual(yield* messages(disk), ["BlobLost"])
        const { actions, after } = yield* Effect.provideService(Check.repair, Bdev.Bdev, disk)
        assert.deepStrictEqual(actions, [])
        assert.isFalse(after.isClean)
        assert.deepStrictEqual(yield* disk.readBytes(0, disk.sizeBytes), image)
      })
    )
  )

  it.live("a load drops no snapshot whose clone's id belongs to another blob now", () =>
    run(
      Effect.gen(function* () {
        const disk = yield* malloc(4 * mebibyte)
        const store = yield* init(disk, { clusterSizeBytes: clusterBytes })
        const id = yield* create(store, { clusters: 2, thin: true })
        const blob = yield* open(store, id)
        yield* write(blob, 0, pattern(clusterBytes, 1))
        const snapshot = yield* store.snapshot(id, new Map())
        yield* blob.close
        const clone = yield* store.clone(snapshot, new Map())
        yield* store.delete(id)
        yield* store.unload
        // As if the deletion of the snapshot had been cut while the first blob was its clone.
        const image = yield* disk.readBytes(0, disk.sizeBytes)
        const { chain, meta } = chainOf(image, snapshot)
        const sb = G.superOf(image)
        assert.strictEqual(chain.length, 1)
        const marked = { ...meta, internalXattrs: new Map(meta.internalXattrs).set("SNAPRM", idBytes(id)) }
        G.mdBytes(image, sb, chain[0]?.index ?? 0).set(
          encodeMdPage(
            { id: snapshot, sequence: 0, next: undefined },
            G.good(serializeChain(marked))[0] ?? new Uint8Array(0)
          )
        )
        crashed(image)
        yield* disk.writeBytes(0, image)
        const marks = yield* load(disk)
        assert.strictEqual(yield* create(marks, { clusters: 1 }), id)
        yield* marks.unload
        const last = yield* load(disk, { forceRecover: true })
        assert.include(yield* last.ids, snapshot)
        assert.deepStrictEqual((yield* contents(last, clone)).subarray(0, clusterBytes), pattern(clusterBytes, 1))
      })
    )
  )
})

const idBytes = (id: number): Uint8Array => {
  const bytes = new Uint8Array(8)
  L.writeU64(L.viewOf(bytes), 0, id)
  return bytes
}

describe("io units and blocks", () => {
  it.live("of 4,096 bytes work on blocks of 512, and those of 512 are refused on blocks of 4,096", () =>
    run(
      Effect.gen(function* () {
        const disk = (blockSize: number) =>
          Effect.flatMap(Bdev.createMalloc({ size: 4 * mebibyte, blockSize }), (name) =>
            Bdev.open(name, { write: true })
          )
        const onBdev = <A, E, R>(bdev: Bdev.Bdev, effect: Effect.Effect<A, E, R>) =>
          Effect.scoped(Effect.provideService(effect, Bdev.Bdev, bdev))
        const sizes = [512, 4096] as const
        for (const from of sizes) {
          const made = yield* disk(from)
          yield* onBdev(made, Effect.asVoid(Blobstore.init({ clusterSize: clusterBytes })))
          for (const to of sizes) {
            const other = yield* disk(to)
            yield* other.writeBytes(0, yield* made.readBytes(0, made.sizeBytes))
            const loaded = onBdev(
              other,
              Effect.map(Blobstore.load(), (store) => store.driver)
            )
            if (from >= to) {
              assert.strictEqual(yield* loaded, "portable")
              continue
            }
            const reason = yield* reasonOf(loaded)
            assert.strictEqual(reason._tag === "InvalidArgument" ? reason.field : reason._tag, "bdev")
          }
        }
      })
    )
  )
})
