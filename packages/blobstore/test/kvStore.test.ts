/** The key-value log over a disk that fails and loses power where the tests want it to. */
import type { KeyValueStore } from "effect/persistence/KeyValueStore"
import { IoFailed, SpdkError } from "@effect-spdk/core/SpdkError"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { loadLog } from "../src/internal/kv/load.ts"
import { makeStore } from "../src/internal/kv/store.ts"
import { sweepPoints } from "./golden/random.ts"
import { clusterBytes, type Fault, KvDisk, smallLimits } from "./support/kvDisk.ts"

const load = (disk: KvDisk, name = "test") => Effect.map(loadLog(disk.port, name, smallLimits), makeStore)

/** Uses the store and closes it as a program that ends well does. */
const using = <A, E>(disk: KvDisk, body: (store: KeyValueStore) => Effect.Effect<A, E>, name?: string) =>
  Effect.scoped(Effect.flatMap(load(disk, name), body))

const text = (length: number, fill: string): string => fill.repeat(length)

describe("a key-value log", () => {
  it.effect("gives back after a reload what was set, small and large, strings and bytes", () =>
    Effect.gen(function* () {
      const disk = new KvDisk()
      const bytes = Uint8Array.from({ length: 20_000 }, (_, index) => index % 251)
      yield* using(disk, (store) =>
        Effect.gen(function* () {
          yield* store.set("", "empty key")
          yield* store.set("empty value", "")
          yield* store.set("large", text(100_000, "x"))
          yield* store.set("bytes", bytes)
          yield* store.set("\ud800 lone", "\udfff alone")
          yield* store.set("\ufeffmark", "\ufeffmark")
          yield* store.set("gone", "soon")
          yield* store.remove("gone")
        })
      )
      yield* using(disk, (store) =>
        Effect.gen(function* () {
          assert.strictEqual(yield* store.get(""), "empty key")
          assert.strictEqual(yield* store.get("empty value"), "")
          assert.strictEqual(yield* store.get("large"), text(100_000, "x"))
          assert.deepStrictEqual(yield* store.getUint8Array("bytes"), bytes)
          assert.strictEqual(yield* store.get("\ud800 lone"), "\udfff alone")
          assert.strictEqual(yield* store.get("\ufeffmark"), "\ufeffmark")
          assert.strictEqual(yield* store.get("gone"), undefined)
          assert.strictEqual(yield* store.size, 6)
        })
      )
    })
  )

  it.effect("shares one sync among fibers that set at the same time", () =>
    Effect.gen(function* () {
      const disk = new KvDisk()
      yield* using(disk, (store) =>
        Effect.gen(function* () {
          yield* store.set("first", "makes the segment")
          const before = disk.syncs
          yield* Effect.forEach(
            Array.from({ length: 100 }, (_, index) => `key ${index}`),
            (key) => store.set(key, key),
            { concurrency: "unbounded", discard: true }
          )
          assert.isAtMost(disk.syncs - before, 2)
        })
      )
    })
  )

  it.effect("does not delete the next blob of an id when its first deletion failed after it was done", () =>
    Effect.gen(function* () {
      const disk = new KvDisk()
      const { port } = disk
      let isFailing = true
      const blobs = {
        ...port,
        delete: (id: number) =>
          Effect.andThen(
            port.delete(id),
            Effect.suspend(() =>
              isFailing ? Effect.fail(new SpdkError({ reason: new IoFailed({ operation: "delete" }) })) : Effect.void
            )
          )
      }
      yield* Effect.scoped(
        Effect.gen(function* () {
          const store = makeStore(yield* loadLog(blobs, "test", smallLimits))
          yield* store.set("small", "in a segment")
          yield* store.clear
          isFailing = false
          // Gets the id of that segment.
          yield* store.set("large", text(20_000, "z"))
          // Until the segments before are compacted.
          for (let i = 0; i < 60; i++) yield* store.set("small", text(4000, "s"))
          assert.strictEqual(yield* store.get("large"), text(20_000, "z"))
        })
      )
      yield* using(disk, (store) =>
        Effect.map(store.get("large"), (value) => assert.strictEqual(value, text(20_000, "z")))
      )
    })
  )

  it.effect("loses no increment of fibers that modify one key", () =>
    using(new KvDisk(), (store) =>
      Effect.gen(function* () {
        yield* store.set("count", "0")
        const increment = store.modify("count", (value) => String(Number(value) + 1))
        yield* Effect.all(
          Array.from({ length: 25 }, () => increment),
          { concurrency: "unbounded" }
        )
        assert.strictEqual(yield* store.get("count"), "25")
      })
    )
  )

  it.effect("keeps its space bounded while values are overwritten, and its tombstones too", () =>
    Effect.gen(function* () {
      const disk = new KvDisk()
      yield* using(disk, (store) =>
        Effect.gen(function* () {
          for (let round = 0; round < 3000; round++) {
            yield* store.set(`key ${round % 7}`, text(300, String(round % 10)))
            if (round % 5 === 0) yield* store.remove(`key ${(round + 3) % 7}`)
            yield* store.set(`once ${round}`, "x")
            yield* store.remove(`once ${round}`)
          }
        })
      )
      assert.isAtMost(disk.usedClusters, 8)
      yield* using(disk, (store) =>
        Effect.gen(function* () {
          assert.isFalse((yield* store.keys).some((key) => key.startsWith("once")))
          assert.strictEqual(yield* store.get(`key ${2999 % 7}`), text(300, "9"))
        })
      )
    })
  )

  it.effect("stays usable on a full disk: sets fail with NoSpace, removing makes room", () =>
    Effect.gen(function* () {
      const disk = new KvDisk(6)
      yield* using(disk, (store) =>
        Effect.gen(function* () {
          let stored = 0
          let failure: unknown
          while (failure === undefined && stored < 2000) {
            const exit = yield* Effect.exit(store.set(`key ${stored}`, text(4000, "v")))
            if (Exit.isSuccess(exit)) stored++
            else failure = exit.cause
          }
          assert.match(String(failure), /NoSpace/)
          assert.strictEqual(yield* store.size, stored)
          for (let index = 0; index < stored; index++) yield* store.remove(`key ${index}`)
          assert.strictEqual(yield* store.size, 0)
          for (let index = 0; index < 20; index++) yield* store.set(`again ${index}`, text(4000, "w"))
          assert.strictEqual(yield* store.get("again 19"), text(4000, "w"))
          yield* store.clear
          assert.strictEqual(yield* store.size, 0)
        })
      )
      yield* using(disk, (store) => Effect.map(store.size, (size) => assert.strictEqual(size, 0)))
    })
  )

  it.effect("ends every set that is under way when the scope closes", () =>
    Effect.gen(function* () {
      const wait = (turns: number) => Effect.repeat(Effect.yieldNow, { times: turns })
      for (let turns = 0; turns < 40; turns++) {
        const disk = new KvDisk()
        const scope = yield* Scope.make()
        const store = yield* Scope.provide(load(disk), scope)
        yield* store.set("key", text(20_000, "a"))
        const fiber = yield* Effect.forkChild(Effect.exit(store.set("key", text(20_000, "b"))), {
          startImmediately: true
        })
        yield* wait(turns)
        yield* Scope.close(scope, Exit.void)
        yield* wait(100)
        assert.isDefined(fiber.pollUnsafe(), `after ${turns} turns`)
      }
    })
  )

  it.effect("is apart from stores of other names", () =>
    Effect.gen(function* () {
      const disk = new KvDisk()
      yield* using(disk, (store) => store.set("key", "one"), "one")
      yield* using(disk, (store) => Effect.andThen(store.set("key", "two"), store.set("big", text(50_000, "2"))), "two")
      yield* using(disk, (store) => store.clear, "one")
      yield* using(disk, (store) => Effect.map(store.size, (size) => assert.strictEqual(size, 0)), "one")
      yield* using(
        disk,
        (store) => Effect.map(store.get("big"), (value) => assert.strictEqual(value, text(50_000, "2"))),
        "two"
      )
    })
  )

  it.effect("refuses a key that is too long, and anything after its scope", () =>
    Effect.gen(function* () {
      const disk = new KvDisk()
      const store = yield* using(disk, (opened) =>
        Effect.gen(function* () {
          const error = yield* Effect.flip(opened.set(text(4097, "k"), "v"))
          assert.match(error.message, /InvalidArgument: key .* has 4097 bytes, more than 4096/)
          yield* opened.set(text(4096, "k"), "v")
          return opened
        })
      )
      assert.match((yield* Effect.flip(store.set("late", "v"))).message, /Released/)
      assert.match((yield* Effect.flip(store.get("late"))).message, /Released/)
      assert.match((yield* Effect.flip(store.size)).message, /Released/)
    })
  )
})

describe("a damaged key-value log", () => {
  /** Three acknowledged batches; `damage` gets the segment's bytes. */
  const damaged = (damage: (bytes: Uint8Array) => void, isClosed: boolean) =>
    Effect.gen(function* () {
      const disk = new KvDisk()
      const scope = yield* Scope.make()
      const store = yield* Effect.provideService(load(disk), Scope.Scope, scope)
      for (const key of ["a", "b", "c"]) yield* store.set(key, text(600, key))
      if (isClosed) yield* Scope.close(scope, Exit.void)
      const segment = [...disk.blobs.values()].find((blob) => blob.xattrs.has("kv.segment"))
      if (segment === undefined) return assert.fail("no segment")
      damage(segment.durable)
      disk.powerCut(() => false)
      return yield* Effect.exit(using(disk, (again) => again.keys))
    })

  const flip = (at: number) => (bytes: Uint8Array) => {
    bytes[at] = (bytes[at] ?? 0) ^ 1
  }

  it.effect("fails to load with Corrupted when a batch before the last is damaged", () =>
    Effect.gen(function* () {
      for (const at of [0, 40, 500, 1024, 1100]) {
        const exit = yield* damaged(flip(at), false)
        assert.match(String(exit), /Corrupted/, `byte ${at}`)
      }
    })
  )

  it.effect("takes a damaged last batch for a torn write after a crash, and for damage after an orderly end", () =>
    Effect.gen(function* () {
      const after = yield* damaged(flip(2 * 1024 + 50), false)
      assert.deepStrictEqual(Exit.isSuccess(after) ? after.value.toSorted() : after, ["a", "b"])
      assert.match(String(yield* damaged(flip(2 * 1024 + 50), true)), /Corrupted/)
    })
  )

  it.effect("fails a get, and only that, when a value is damaged under a loaded store", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const disk = new KvDisk()
        const store = yield* load(disk)
        yield* store.set("small", "value")
        yield* store.set("large", text(20_000, "l"))
        yield* store.set("fine", "value")
        for (const blob of disk.blobs.values()) {
          const isLarge = blob.xattrs.has("kv.value")
          if (isLarge || blob.xattrs.has("kv.segment")) flip(isLarge ? 10_000 : 32 + 20 + 5)(blob.cached)
        }
        for (const key of ["small", "large"]) {
          assert.match((yield* Effect.flip(store.get(key))).message, /Corrupted/)
        }
        assert.strictEqual(yield* store.get("fine"), "value")
      })
    )
  )
})

/** mulberry32. */
const random = (seed: number) => {
  let state = seed >>> 0
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), state | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
  return { below: (limit: number) => Math.floor(next() * limit), chance: (p: number) => next() < p }
}

type Value = string | undefined

/** What each key may hold: one value, unless calls on it have failed since. */
class Model {
  readonly possible = new Map<string, Set<Value>>()

  acknowledged(key: string, value: Value): void {
    this.possible.set(key, new Set([value]))
  }

  uncertain(key: string, value: Value): void {
    this.possible.set(key, new Set([...this.of(key), value]))
  }

  of(key: string): Set<Value> {
    return this.possible.get(key) ?? new Set([undefined])
  }

  ended(key: string, value: Value, exit: Exit.Exit<unknown, unknown>): void {
    if (Exit.isSuccess(exit)) this.acknowledged(key, value)
    else this.uncertain(key, value)
  }
}

const keysOfSweep = Array.from({ length: 12 }, (_, index) => `k${index}`)

/** Some rounds of concurrent changes. Returns when they are over, or when the disk is down. */
const churn = (store: KeyValueStore, model: Model, seed: number, rounds: number) =>
  Effect.gen(function* () {
    const { below, chance } = random(seed)
    for (let round = 0; round < rounds; round++) {
      const chosen = new Set(Array.from({ length: 1 + below(5) }, () => `k${below(keysOfSweep.length)}`))
      const calls = [...chosen].map((key) => {
        const length = chance(0.1) ? 9000 + below(9000) : below(3000)
        const value = chance(0.25) ? undefined : `${seed}.${round}.${key}.${text(length, "v")}`
        const call = value === undefined ? store.remove(key) : store.set(key, value)
        return Effect.map(Effect.exit(call), (exit) => model.ended(key, value, exit))
      })
      yield* Effect.all(calls, { concurrency: "unbounded", discard: true })
      if (chance(0.02)) {
        const exit = yield* Effect.exit(store.clear)
        for (const key of keysOfSweep) model.ended(key, undefined, exit)
      }
    }
  })

const check = (store: KeyValueStore, model: Model, when: string, settle: boolean) =>
  Effect.gen(function* () {
    for (const key of keysOfSweep) {
      const value = yield* store.get(key)
      const allowed = [...model.of(key)].map((one) => one?.slice(0, 20))
      assert.isTrue(
        model.of(key).has(value),
        `${when}: ${key} is ${value?.slice(0, 20)}, not one of ${allowed.join(", ")}`
      )
      if (settle) model.acknowledged(key, value)
    }
    const present = new Set(yield* store.keys)
    assert.strictEqual(present.size, yield* store.size)
  })

/** Changes with one fault, then power is lost; then again without. */
const life = (seed: number, fault: Fault | undefined) =>
  Effect.gen(function* () {
    const disk = new KvDisk(64)
    const { chance } = random(seed ^ 0x5bd1e995)
    const model = new Model()
    const when = `seed ${seed}, ${fault?.kind} at ${fault?.at}`
    disk.fault = fault
    const first = yield* Scope.make()
    const opened = yield* Effect.exit(Effect.provideService(load(disk), Scope.Scope, first))
    if (Exit.isSuccess(opened)) {
      yield* churn(opened.value, model, seed, 60)
      if (fault?.kind === "error") yield* check(opened.value, model, `${when}, before power is lost`, false)
    }
    const operations = disk.operations
    disk.powerCut(() => chance(0.5))
    yield* using(disk, (store) =>
      Effect.gen(function* () {
        yield* check(store, model, `${when}, after the power cut`, true)
        yield* churn(store, model, seed + 1, 40)
      })
    )
    yield* using(disk, (store) => check(store, model, `${when}, at the end`, true))
    return operations
  })

describe("a key-value log whose disk fails", () => {
  for (const kind of ["crash", "error"] as const) {
    it.effect(
      `has every acknowledged value after a ${kind} at any operation`,
      () =>
        Effect.gen(function* () {
          for (const seed of [1, 2]) {
            const operations = yield* life(seed, undefined)
            assert.isAbove(operations, 100)
            for (const at of sweepPoints(operations, 2)) yield* life(seed, { at, kind })
          }
        }),
      240_000
    )
  }

  it.effect(
    "leaves no blob that nobody needs",
    () =>
      Effect.gen(function* () {
        for (const at of [3, 7, 20, 40, 80, 120]) {
          const disk = new KvDisk(256)
          disk.fault = { at, kind: "crash" }
          const model = new Model()
          const opened = yield* Effect.exit(Effect.provideService(load(disk), Scope.Scope, yield* Scope.make()))
          if (Exit.isSuccess(opened)) yield* churn(opened.value, model, at, 60)
          disk.powerCut(() => true)
          yield* using(disk, (store) => store.clear)
          assert.isAtMost(disk.usedClusters, 2, `after a crash at ${at}`)
        }
      }),
    120_000
  )

  it.effect("says after a failed clear what the next load says, or nothing until then", () =>
    Effect.gen(function* () {
      const keys = ["a", "b", "large"]
      for (const kind of ["error", "late", "crash"] as const) {
        let failures = 0
        let refusals = 0
        for (let after = 1; ; after++) {
          const disk = new KvDisk()
          const store = yield* Effect.provideService(load(disk), Scope.Scope, yield* Scope.make())
          for (const key of keys) yield* store.set(key, text(key === "large" ? 9000 : 100, key))
          disk.fault = { at: disk.operations + after, kind }
          const cleared = yield* Effect.exit(store.clear)
          const seen = yield* Effect.exit(store.keys)
          const isOver = disk.operations < disk.fault.at
          disk.powerCut(() => true)
          const found = yield* using(disk, (again) => again.keys)
          const when = `${kind} at operation ${after}`
          if (Exit.isSuccess(cleared)) assert.deepStrictEqual(found, [], when)
          else failures++
          if (Exit.isSuccess(seen)) assert.deepStrictEqual(found.toSorted(), seen.value.toSorted(), when)
          else {
            refusals++
            assert.match(String(seen), /IoFailed.*a clear failed half way/, when)
          }
          if (isOver) break
        }
        assert.isAbove(failures, 0, kind)
        if (kind === "crash") assert.isAbove(refusals, 0)
      }
    })
  )

  it("has clusters that hold a segment", () => {
    assert.strictEqual(smallLimits.segmentBytes % clusterBytes, 0)
  })
})
