/** Every write of an operation fails once, and after every one the power is lost: what is loaded is old or new. */
import { assert, describe, it } from "@effect/vitest"
import { Bdev } from "@effect-spdk/core/Bdev"
import type { EngineService } from "@effect-spdk/core/Engine"
import type { SpdkError } from "@effect-spdk/core/SpdkError"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { check } from "../src/Check.ts"
import type { BlobId, OpenBlob, StoreDriver } from "../src/internal/driver.ts"
import { cut, image, type Name, said } from "./golden/images.ts"
import { isLong, makeRandom, seed } from "./golden/random.ts"
import { faultyBdev } from "./support/faultyBdev.ts"
import { create, init, load, malloc, open, pattern, run, see, write } from "./support/portableDisk.ts"

type Io<A> = Effect.Effect<A, SpdkError, EngineService>

const clusterBytes = 4096
const diskBytes = 2 * 1024 * 1024

interface Made {
  readonly thick: BlobId
  readonly thin: BlobId
  readonly snapshot: BlobId
  readonly plain: BlobId
}

const none = new Map<string, Uint8Array>()

/** A thick blob, and a thin one with a snapshot and clusters of its own. */
const prepare = Effect.fnUntraced(function* (bdev: Bdev, extentTable: boolean) {
  const store = yield* init(bdev, { clusterSizeBytes: clusterBytes, metadataPages: 48 })
  const thick = yield* create(store, { clusters: 4, extentTable, xattrs: new Map([["name", pattern(3000, 1)]]) })
  const thin = yield* create(store, { clusters: 12, thin: true, extentTable })
  yield* using(store, thick, (blob) => write(blob, 0, pattern(4 * clusterBytes, 1)))
  yield* using(store, thin, (blob) => write(blob, clusterBytes, pattern(3 * clusterBytes, 2)))
  const snapshot = yield* store.snapshot(thin, none)
  yield* using(store, thin, (blob) => write(blob, 2 * clusterBytes, pattern(clusterBytes, 3)))
  const plain = yield* create(store, { clusters: 700, thin: true, extentTable })
  yield* using(store, plain, (blob) => write(blob, 2 * clusterBytes, pattern(2 * clusterBytes, 4)))
  yield* using(store, plain, (blob) => write(blob, 600 * clusterBytes, pattern(2 * clusterBytes, 4)))
  yield* store.unload
  return { thick, thin, snapshot, plain }
})

const using = <A>(store: StoreDriver, id: BlobId, use: (blob: OpenBlob) => Io<A>): Io<A> =>
  Effect.flatMap(open(store, id), (blob) => Effect.tap(use(blob), () => blob.close))

interface Scenario {
  readonly name: string
  readonly change: (store: StoreDriver, made: Made) => Io<unknown>
  /** What has to be old or new; everything when not given. */
  readonly seen?: (state: Effect.Success<ReturnType<typeof see>>) => unknown
}

const bytesOf: Scenario["seen"] = (state) => state.blobs.map(({ bytes, id }) => ({ bytes, id }))

const scenarios: ReadonlyArray<Scenario> = [
  { name: "create", change: (store) => create(store, { clusters: 5, xattrs: new Map([["x", pattern(4000, 4)]]) }) },
  { name: "create thin", change: (store) => create(store, { clusters: 5, thin: true, extentTable: false }) },
  { name: "delete", change: (store, { thick }) => store.delete(thick) },
  { name: "delete a clone", change: (store, { thin }) => store.delete(thin) },
  { name: "delete a snapshot with a clone", change: (store, { snapshot }) => store.delete(snapshot) },
  {
    name: "grow a blob",
    change: (store, { thick }) => using(store, thick, (blob) => Effect.andThen(blob.resize(9), blob.sync))
  },
  {
    name: "shrink a blob",
    change: (store, { thick }) => using(store, thick, (blob) => Effect.andThen(blob.resize(1), blob.sync))
  },
  {
    name: "xattrs",
    change: (store, { thick }) =>
      using(store, thick, (blob) =>
        Effect.all([blob.setXattr("a", pattern(2500, 5)), blob.setXattr("b", pattern(2500, 6)), blob.sync])
      )
  },
  {
    name: "read-only",
    change: (store, { thick }) => using(store, thick, (blob) => Effect.andThen(blob.setReadOnly, blob.sync))
  },
  { name: "snapshot of a thick blob", change: (store, { thick }) => store.snapshot(thick, none) },
  { name: "snapshot of a clone", change: (store, { thin }) => store.snapshot(thin, none) },
  { name: "clone", change: (store, { snapshot }) => store.clone(snapshot, none) },
  { name: "inflate", change: (store, { thin }) => store.inflate(thin), seen: bytesOf },
  { name: "decouple", change: (store, { thin }) => store.decouple(thin), seen: bytesOf },
  { name: "super blob", change: (store, { thick }) => store.setSuperBlob(thick) },
  {
    name: "a first write",
    change: (store, { thin }) => using(store, thin, (blob) => write(blob, clusterBytes, pattern(clusterBytes, 7))),
    seen: bytesOf
  },
  {
    name: "a first write without a parent",
    change: (store, { thin }) => using(store, thin, (blob) => write(blob, 11 * clusterBytes, pattern(512, 7))),
    seen: bytesOf
  },
  {
    name: "unmapping a cluster",
    change: (store, { plain }) => using(store, plain, (blob) => blob.io.unmap(2 * clusterBytes, clusterBytes)),
    seen: bytesOf
  },
  {
    name: "growing over extent pages",
    change: (store, { plain }) => using(store, plain, (blob) => Effect.andThen(blob.resize(1200), blob.sync))
  },
  {
    name: "shrinking over extent pages",
    change: (store, { plain }) => using(store, plain, (blob) => Effect.andThen(blob.resize(3), blob.sync))
  },
  {
    name: "set parent",
    change: (store, { plain, snapshot }) =>
      Effect.andThen(
        using(store, plain, (blob) => Effect.andThen(blob.resize(12), blob.sync)),
        store.setParent(plain, snapshot)
      ),
    seen: () => "loads"
  },
  {
    name: "delete a snapshot of another size",
    change: (store, { thin, snapshot }) =>
      Effect.andThen(
        using(store, thin, (blob) => Effect.andThen(blob.resize(14), blob.sync)),
        store.delete(snapshot)
      ),
    seen: () => "loads"
  },
  { name: "unload", change: (store) => Effect.andThen(create(store, { clusters: 2 }), store.unload) }
]

/** One count of the sweep: whether the operation was through before its turn to fail came. */
const attempt = Effect.fnUntraced(function* (
  disk: Bdev,
  before: Uint8Array,
  scenario: Scenario,
  made: Made,
  failAt: number,
  mode: Mode
) {
  const once = mode === "one write fails"
  yield* disk.writeBytes(0, before)
  const { bdev, faults } = faultyBdev(disk, { cache: mode === "the cache is lost" })
  const store = yield* load(bdev)
  faults.failAt = failAt
  faults.once = once
  const exit = yield* Effect.exit(scenario.change(store, made))
  const isDone = faults.changes < failAt
  // With one failure only the program goes on: what it can close is closed.
  if (once && scenario.name !== "unload") {
    yield* Effect.exit(store.unload)
  }
  yield* faults.powerCut(() => random.below(2) === 0)
  if (isDone) assert.isTrue(Exit.isSuccess(exit), "without a failure it succeeds")
  return isDone
})

type Mode = "power is lost" | "the cache is lost" | "one write fails"

const random = makeRandom(seed)

const sweep = Effect.fnUntraced(function* (scenario: Scenario, extentTable: boolean, mode: Mode) {
  const disk = yield* malloc(diskBytes)
  const made = yield* prepare(disk, extentTable)
  const before = yield* disk.readBytes(0, diskBytes)
  const look = scenario.seen ?? ((state: unknown) => state)
  const seenNow = Effect.gen(function* () {
    const store = yield* load(disk)
    const state = yield* see(store)
    yield* store.unload
    const { findings } = yield* Effect.provideService(check, Bdev, disk)
    // Pages that nothing refers to may be left over.
    const wrong = findings.filter((finding) => finding.severity !== "info")
    assert.deepStrictEqual(
      wrong.map((finding) => finding.message),
      []
    )
    return look(state)
  })
  const old = yield* seenNow
  assert.isTrue(yield* attempt(disk, before, scenario, made, 1_000_000, "power is lost"))
  const changed = yield* seenNow
  // The short slice leaves out some of the many writes of the long scenarios.
  for (let failAt = 1; ; failAt += isLong || failAt < 12 ? 1 : 1 + random.below(3)) {
    const isDone = yield* attempt(disk, before, scenario, made, failAt, mode)
    const state = yield* seenNow
    const isOld = isEqual(state, old)
    if (!isOld) assert.deepStrictEqual(state, changed, `write ${failAt} fails, seed ${seed}`)
    assert.deepStrictEqual(yield* seenNow, state, `write ${failAt} fails, loaded once more`)
    if (isDone) {
      // What is durable when it returns survives the loss of the cache.
      if (scenario.seen === undefined) assert.deepStrictEqual(state, changed)
      return failAt
    }
    assert.isBelow(failAt, 200)
  }
})

const isEqual = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b)

const modes: ReadonlyArray<Mode> = ["power is lost", "the cache is lost", "one write fails"]

for (const mode of modes) {
  describe(`${mode} in`, () => {
    for (const scenario of scenarios) {
      for (const extentTable of [true, false]) {
        it.live(`${scenario.name}, extent table ${extentTable}`, () =>
          run(
            Effect.gen(function* () {
              assert.isAbove(yield* sweep(scenario, extentTable, mode), 1)
            })
          )
        )
      }
    }
  })
}

describe("the portable driver recovers", () => {
  const loaded = Effect.fnUntraced(function* (name: Name) {
    const bytes = image(name)
    const bdev = yield* malloc(bytes.length)
    yield* bdev.writeBytes(0, bytes)
    const store = yield* load(bdev)
    const state = yield* see(store)
    yield* store.unload
    const again = yield* load(bdev)
    assert.deepStrictEqual(yield* see(again), state)
    yield* again.unload
    const recovered = yield* load(bdev, { forceRecover: true })
    assert.deepStrictEqual(yield* see(recovered), state)
    return state
  })
  for (const name of cut) {
    it.live(`${name} of SPDK`, () =>
      run(
        Effect.gen(function* () {
          const state = yield* loaded(name)
          const listed = said(name).blobs.map((blob) => blob.id)
          assert.deepStrictEqual(
            state.blobs.map((blob) => `0x${blob.id.toString(16)}`),
            listed
          )
        })
      )
    )
  }
})
