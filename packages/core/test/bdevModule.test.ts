/** A bdev module that is added from outside, with two bases: all of what the engine does with a module reaches it. */
import { assert, describe, it } from "@effect/vitest"
import { Opcode } from "@effect-spdk/native/Layout"
import * as Effect from "effect/Effect"
import { ConcatModule } from "./support/concatModule.ts"
import { control, failed, makeEngine, malloc, ok, open, pattern, read, slab, write } from "./support/embeddedEngine.ts"

const create = { name: "both", raid_level: "concat", base_bdevs: ["one", "two"] }

const engineWithConcat = makeEngine({}, { modules: (registry) => [new ConcatModule(registry)] })

describe("a bdev module with two bases", () => {
  it.effect("waits for its bases, claims them, and reads and writes each of them", () =>
    Effect.gen(function* () {
      const engine = yield* engineWithConcat
      yield* engine.rpc.call("bdev_malloc_create", malloc("one", 8))
      assert.isTrue(yield* engine.rpc.call("bdev_raid_create", create))
      assert.strictEqual((yield* Effect.flip(open(engine, "both"))).reason._tag, "NotFound")
      yield* engine.rpc.call("bdev_malloc_create", malloc("two", 16))
      const disk = yield* open(engine, "both")
      assert.strictEqual(disk.descriptor.info.numBlocks, 24)
      const claimed = yield* Effect.flip(open(engine, "two"))
      assert.include(claimed.message, "claimed by module raid")

      const memory = yield* slab(engine, 1024, 512)
      memory.view.set(pattern(1024, 3))
      for (const offset of [6, 8, 22]) {
        assert.deepStrictEqual(yield* write(disk, memory, offset), ok)
        const back = yield* slab(engine, 1024, 512)
        assert.deepStrictEqual(yield* read(disk, back, offset), ok)
        assert.deepStrictEqual(back.view, memory.view)
      }
      assert.deepStrictEqual(yield* read(disk, memory, 7), failed)
      assert.notDeepEqual(yield* control(disk, Opcode.Unmap, 0, 1), ok)
      const second = yield* open(engine, "two", { write: false })
      const there = yield* slab(engine, 1024, 512)
      assert.deepStrictEqual(yield* read(second, there, 0), ok)
      assert.deepStrictEqual(there.view, pattern(1024, 3))
    }).pipe(Effect.scoped)
  )

  it.effect("is in the saved configuration, goes with a base, and lets go of the others", () =>
    Effect.gen(function* () {
      const engine = yield* engineWithConcat
      yield* engine.rpc.call("bdev_malloc_create", malloc("one", 8))
      yield* engine.rpc.call("bdev_malloc_create", malloc("two", 16))
      yield* engine.rpc.call("bdev_raid_create", create)
      const saved = yield* engine.rpc.call("framework_get_config", { name: "bdev" })
      assert.deepInclude(saved, { method: "bdev_raid_create", params: create })
      yield* engine.rpc.call("bdev_malloc_delete", { name: "two" })
      assert.strictEqual((yield* Effect.flip(open(engine, "both"))).reason._tag, "NotFound")
      yield* open(engine, "one")
    }).pipe(Effect.scoped)
  )

  it.effect("is deleted by its own method, and a second of its name is refused", () =>
    Effect.gen(function* () {
      const engine = yield* engineWithConcat
      yield* engine.rpc.call("bdev_malloc_create", malloc("one", 8))
      yield* engine.rpc.call("bdev_malloc_create", malloc("two", 16))
      yield* engine.rpc.call("bdev_raid_create", create)
      const again = yield* Effect.flip(engine.rpc.call("bdev_raid_create", { ...create, base_bdevs: ["three"] }))
      assert.strictEqual(again.reason._tag, "AlreadyExists")
      assert.isTrue(yield* engine.rpc.call("bdev_raid_delete", { name: "both" }))
      yield* open(engine, "one")
      yield* open(engine, "two")
    }).pipe(Effect.scoped)
  )
})
