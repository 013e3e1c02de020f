/**
 * The key-value store on the portable driver on a device whose writes fail: from the N-th on, as when power is lost, or only the
 * N-th. Then it is loaded from what the device holds, and every acknowledged value must be there, exactly.
 */
import * as BlobKeyValueStore from "@effect-spdk/blobstore/BlobKeyValueStore"
import * as Blobstore from "@effect-spdk/blobstore/Blobstore"
import * as Bdev from "@effect-spdk/core/Bdev"
import * as Spdk from "@effect-spdk/core/Spdk"
import { assert, layer } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { KeyValueStore } from "effect/persistence/KeyValueStore"
import * as Scope from "effect/Scope"
import { sweepPoints } from "./golden/random.ts"
import { type Faults, faultyBdev } from "./support/faultyBdev.ts"

const options = { segmentSize: "64 KiB", largeValueSize: "8 KiB" }
const keys = Array.from({ length: 6 }, (_, index) => `key ${index}`)

const openOn = (bdev: Bdev.Bdev, onEmpty: "init" | "fail") =>
  Effect.gen(function* () {
    const store = yield* Effect.provideService(
      Blobstore.make({ onEmpty, driver: "portable", clusterSize: "64 KiB" }),
      Bdev.Bdev,
      bdev
    )
    return yield* Effect.provideService(BlobKeyValueStore.make(options), Blobstore.Blobstore, store)
  })

type Value = string | undefined

/** What each key may hold after a restart. */
type Possible = Map<string, ReadonlySet<Value>>

/** Without a fault nothing fails. */
let failures: Array<string> = []

const note = (possible: Possible, key: string, value: Value, exit: Exit.Exit<unknown, unknown>): void => {
  const before = possible.get(key) ?? new Set<Value>([undefined])
  if (Exit.isFailure(exit)) failures.push(Cause.pretty(exit.cause))
  possible.set(key, Exit.isSuccess(exit) ? new Set([value]) : new Set([...before, value]))
}

/** The same changes every time: small and large values, removals, a clear, several at once. */
const change = (kv: KeyValueStore, possible: Possible) =>
  Effect.gen(function* () {
    for (let round = 0; round < 32; round++) {
      const calls = keys
        .filter((_, index) => (index + round) % 3 !== 0)
        .map((key, index) => {
          const isLarge = (round + index) % 7 === 0
          const value = (round * 5 + index) % 6 === 0 ? undefined : `${key} ${round} `.repeat(isLarge ? 1500 : 350)
          const call = value === undefined ? kv.remove(key) : kv.set(key, value)
          return Effect.map(Effect.exit(call), (exit) => note(possible, key, value, exit))
        })
      yield* Effect.all(calls, { concurrency: "unbounded", discard: true })
      if (round === 21) {
        const exit = yield* Effect.exit(kv.clear)
        for (const key of keys) note(possible, key, undefined, exit)
      }
    }
  })

const check = (kv: KeyValueStore, possible: Possible, when: string) =>
  Effect.gen(function* () {
    for (const key of keys) {
      const value = yield* kv.get(key)
      const allowed = possible.get(key) ?? new Set([undefined])
      const shown = [...allowed].map((one) => one?.slice(0, 10)).join(", ")
      assert.isTrue(allowed.has(value), `${when}: ${key} is ${value?.slice(0, 10)}, not one of ${shown}`)
    }
  })

let disks = 0

/** One life with a fault, which may end badly, and one without. Returns how many changes the device has seen. */
const sweep = (failAt: number | undefined, once: boolean) =>
  Effect.scoped(
    Effect.gen(function* () {
      const name = yield* Bdev.createMalloc({ name: `crash${disks++}`, size: "4 MiB", blockSize: 512 })
      const disk = yield* Bdev.open(name, { write: true })
      const when = `${once ? "only" : "from"} change ${failAt} on`
      yield* Effect.scoped(openOn(disk, "init"))
      const faulty = faultyBdev(disk, { cache: !once })
      const faults: Faults = faulty.faults
      faults.failAt = failAt
      faults.once = once
      const possible: Possible = new Map()
      failures = []
      const scope = yield* Scope.make()
      const opened = yield* Effect.exit(Effect.provideService(openOn(faulty.bdev, "fail"), Scope.Scope, scope))
      if (Exit.isSuccess(opened)) {
        yield* change(opened.value, possible)
        if (once) yield* check(opened.value, possible, `${when}, before the end`)
      }
      const closed = yield* Effect.exit(Scope.close(scope, Exit.void))
      if (failAt === undefined) {
        assert.deepStrictEqual(failures, [])
        assert.isTrue(Exit.isSuccess(closed), String(closed))
      }
      // Of what was not flushed, every other request has reached the device.
      let kept = 0
      if (!once && failAt !== undefined) yield* faults.powerCut(() => kept++ % 2 === failAt % 2)
      const again = yield* Effect.exit(
        Effect.scoped(Effect.flatMap(openOn(disk, "fail"), (kv) => check(kv, possible, when)))
      )
      if (Exit.isFailure(again)) assert.fail(`${when}: ${Cause.pretty(again.cause)}`)
      yield* Effect.scoped(
        Effect.gen(function* () {
          const kv = yield* openOn(disk, "fail")
          yield* kv.set("key 0", "afterwards")
          assert.strictEqual(yield* kv.get("key 0"), "afterwards")
          yield* kv.clear
        })
      )
      return faults.changes
    })
  )

layer(Spdk.layerEmbedded({ logLevel: "error" }), { excludeTestServices: true })(
  "a key-value store on a device that fails",
  (it) => {
    for (const once of [false, true]) {
      it.effect(
        once
          ? "has what it acknowledged after any single failed write"
          : "has what it acknowledged wherever power is lost",
        () =>
          Effect.gen(function* () {
            const changes = yield* sweep(undefined, once)
            assert.isAbove(changes, 100)
            for (const failAt of sweepPoints(changes, 3)) yield* sweep(failAt, once)
          }),
        240_000
      )
    }
  }
)
