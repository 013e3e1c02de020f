/** Random operations on a few blobs beside byte arrays; loads, clean and after a stop, come in between. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type { BlobId, OpenBlob, StoreDriver } from "../src/internal/driver.ts"
import { makeRandom, type Random, rounds, seed } from "./golden/random.ts"
import { contents, create, init, load, malloc, open, pattern, run, write } from "./support/portableDisk.ts"

const clusterBytes = 4096
const unit = 512
const none = new Map<string, Uint8Array>()

interface Known {
  readonly id: BlobId
  bytes: Uint8Array
  readonly isReadOnly: boolean
  readonly isThin: boolean
}

const using = <A, E, R>(store: StoreDriver, id: BlobId, use: (blob: OpenBlob) => Effect.Effect<A, E, R>) =>
  Effect.acquireUseRelease(open(store, id), use, (blob) => Effect.orDie(blob.close))

const range = (random: Random, bytes: Uint8Array): { readonly at: number; readonly length: number } => {
  const units = bytes.length / unit
  const first = random.below(units)
  return { at: first * unit, length: (1 + random.below(Math.min(units - first, 24))) * unit }
}

const resized = (bytes: Uint8Array, length: number): Uint8Array => {
  const next = new Uint8Array(length)
  next.set(bytes.subarray(0, length))
  return next
}

/** One operation on the store and on what is known of it. */
const step = Effect.fnUntraced(function* (store: StoreDriver, known: Array<Known>, random: Random, turn: number) {
  const choice = random.below(12)
  const writable = known.filter((blob) => !blob.isReadOnly && blob.bytes.length > 0)
  if (known.length === 0 || (choice === 0 && known.length < 8)) {
    const isThin = random.below(2) === 0
    const clusters = 1 + random.below(8)
    const id = yield* create(store, { clusters, thin: isThin, extentTable: random.below(3) > 0 })
    // What a thick blob has before it is written is up to the device; this one gives zeroes for what was unmapped.
    known.push({ id, bytes: new Uint8Array(clusters * clusterBytes), isReadOnly: false, isThin })
    return
  }
  const one = random.pick(writable.length > 0 ? writable : known)
  if (choice === 1 && known.length > 4) {
    const exit = yield* Effect.result(store.delete(one.id))
    if (exit._tag === "Success") known.splice(known.indexOf(one), 1)
    else assert.strictEqual(exit.failure.reason._tag, "Busy")
  } else if (one.isReadOnly) {
    assert.deepStrictEqual(yield* contents(store, one.id), one.bytes)
  } else if (choice === 2 && known.length < 8) {
    const id = yield* store.snapshot(one.id, none)
    known.push({ id, bytes: one.bytes.slice(), isReadOnly: true, isThin: one.isThin })
  } else if (choice === 3 && known.length < 8) {
    const below = known.find((blob) => blob.isReadOnly)
    if (below === undefined) return
    known.push({ id: yield* store.clone(below.id, none), bytes: below.bytes.slice(), isReadOnly: false, isThin: true })
  } else if (choice === 4) {
    yield* store.inflate(one.id)
  } else if (choice === 5) {
    const clusters = 1 + random.below(10)
    const before = one.bytes.length
    const after = clusters * clusterBytes
    yield* using(store, one.id, (blob) => Effect.andThen(blob.resize(clusters), blob.sync))
    // A clone that was cut shows its parent again when it grows, as in SPDK.
    if (after > before) yield* using(store, one.id, (blob) => blob.io.writeZeroes(before, after - before))
    one.bytes = resized(one.bytes, clusters * clusterBytes)
  } else if (choice === 6) {
    const { at, length } = range(random, one.bytes)
    yield* using(store, one.id, (blob) => blob.io.writeZeroes(at, length))
    one.bytes.fill(0, at, at + length)
  } else {
    const { at, length } = range(random, one.bytes)
    const data = pattern(length, turn)
    yield* using(store, one.id, (blob) => write(blob, at, data))
    one.bytes.set(data, at)
  }
})

const model = Effect.fnUntraced(function* (round: number) {
  const random = makeRandom(seed + round)
  const disk = yield* malloc(4 * 1024 * 1024)
  let store = yield* init(disk, { clusterSizeBytes: clusterBytes, metadataPages: 64 })
  const known: Array<Known> = []
  for (let turn = 0; turn < 120; turn++) {
    yield* step(store, known, random, turn)
    if (turn % 15 !== 14) continue
    if (random.below(2) === 0) yield* store.unload
    store = yield* load(disk)
    assert.deepStrictEqual(
      yield* store.ids,
      known.map((blob) => blob.id).toSorted((a, b) => a - b)
    )
    for (const blob of known) assert.deepStrictEqual(yield* contents(store, blob.id), blob.bytes, `blob ${blob.id}`)
  }
  while (known.length > 0) {
    const before = known.length
    for (const blob of known.splice(0)) {
      if ((yield* Effect.result(store.delete(blob.id)))._tag === "Failure") known.push(blob)
    }
    assert.isBelow(known.length, before)
  }
  assert.strictEqual((yield* store.info).freeClusters, (yield* store.info).totalClusters)
})

describe("the portable driver", () => {
  for (let round = 0; round < rounds(6, 200); round++) {
    it.live(`does what byte arrays do, EFFECT_SPDK_SEED=${seed} round ${round}`, () => run(model(round)))
  }
})
