/** Every creation option of every bdev module: what SPDK would not survive, or not keep, is refused by field and rule. */
import * as Bdev from "@effect-spdk/core/Bdev"
import * as Rpc from "@effect-spdk/core/Rpc"
import type { SpdkError } from "@effect-spdk/core/SpdkError"
import type * as Spdk from "@effect-spdk/core/Spdk"
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { spawnSync } from "node:child_process"
import { join } from "node:path"
import { type Capabilities, type EngineLayer, scratch } from "../support/engines.ts"
import { contract, failsWith, fresh, within } from "../support/harness.ts"

type Creation = Effect.Effect<unknown, SpdkError, Spdk.Services | Scope.Scope>

const names = Effect.map(Bdev.list, (bdevs) => bdevs.map((bdev) => bdev.name))

/** Refused with this field, whatever the value, and nothing is made. */
const refuses = (field: string, creations: ReadonlyArray<Creation>) =>
  Effect.gen(function* () {
    const before = yield* names
    for (const creation of creations) yield* failsWith(Effect.scoped(creation), "InvalidArgument", { field })
    assert.deepStrictEqual(yield* names, before)
  })

const noUuids = ["", "x", "6f1a2b3c-0000-4000-8000", "00000000-0000-0000-0000-000000000000"]
const noNames = ["", "a\u0000b", "x\ud800", "\udc00x", "x".repeat(257), "\u00e9".repeat(129), "x".repeat(400_000)]

export const suite = (name: string, layer: EngineLayer, capabilities: Capabilities): void =>
  contract(name, layer, (check) => {
    check("names and UUIDs", () =>
      Effect.gen(function* () {
        const base = yield* Bdev.createNull({ size: "1 MiB" })
        const path = join(scratch, "options")
        yield* refuses(
          "name",
          noNames.flatMap((bad) => [
            Bdev.createMalloc({ name: bad, size: "1 MiB" }),
            Bdev.createNull({ name: bad, size: "1 MiB" }),
            Bdev.createFile({ name: bad, path, size: "1 MiB" }),
            Bdev.createUring({ name: bad, path, size: "1 MiB" }),
            Bdev.createPassthru({ name: bad, base }),
            Bdev.createDelay({ name: bad, base })
          ])
        )
        yield* refuses(
          "base",
          noNames.flatMap((bad) => [
            Bdev.createPassthru({ base: bad }),
            Bdev.createDelay({ base: bad }),
            Bdev.createError({ base: bad }),
            Bdev.createSplit({ base: bad, count: 1 })
          ])
        )
        yield* refuses(
          "uuid",
          noUuids.flatMap((uuid) => [
            Bdev.createMalloc({ uuid, size: "1 MiB" }),
            Bdev.createNull({ uuid, size: "1 MiB" }),
            Bdev.createFile({ uuid, path, size: "1 MiB" }),
            Bdev.createPassthru({ uuid, base }),
            Bdev.createDelay({ uuid, base })
          ])
        )
        const longest = "\u00e9".repeat(128)
        assert.strictEqual(yield* Bdev.createNull({ name: longest, size: "1 MiB" }), longest)
      })
    )

    check("malloc: block sizes, boundaries, physical blocks", () =>
      Effect.gen(function* () {
        yield* refuses(
          "physicalBlockSize",
          [0, -512, 512, 4097, 6144, 0.5, NaN, 2 ** 32].map((physicalBlockSize) =>
            Bdev.createMalloc({ size: "1 MiB", blockSize: 4096, physicalBlockSize })
          )
        )
        yield* refuses(
          "optimalIoBoundaryBlocks",
          [0, -1, 1.5, NaN, 2 ** 32].map((optimalIoBoundaryBlocks) =>
            Bdev.createMalloc({ size: "1 MiB", optimalIoBoundaryBlocks })
          )
        )
        yield* refuses("blockSize", [Bdev.createNull({ size: "1 MiB", blockSize: 4096n as never })])
        yield* refuses("physicalBlockSize", [Bdev.createMalloc({ size: "1 MiB", physicalBlockSize: 4096n as never })])
        // SPDK could delete no bdev after it.
        yield* refuses("optimalIoBoundaryBlocks", [
          Bdev.createMalloc({ size: "1 MiB", blockSize: 8192, optimalIoBoundaryBlocks: 1 })
        ])
        const made = yield* Bdev.createMalloc({
          size: "1 MiB",
          blockSize: 512,
          physicalBlockSize: 16_384,
          optimalIoBoundaryBlocks: 1
        })
        assert.strictEqual((yield* Bdev.open(made)).info.optimalIoBoundaryBlocks, 1)
      })
    )

    check("malloc: NoMemory says which option bounds the memory", () =>
      Effect.gen(function* () {
        const { message } = yield* failsWith(Effect.scoped(Bdev.createMalloc({ size: "64 GiB" })), "NoMemory")
        assert.match(message, /68719476736 bytes.*memoryMiB/)
      })
    )

    check("files: paths that are no disk", () =>
      Effect.gen(function* () {
        const fifo = join(scratch, "fifo")
        spawnSync("mkfifo", [fifo])
        const bad = ["", "a\u0000b", "x\ud800", "x".repeat(5000), "x".repeat(400_000), "/dev/zero", fifo]
        yield* refuses(
          "path",
          bad.flatMap((path) => [
            Bdev.createFile({ path }),
            Bdev.createFile({ path, size: "1 MiB" }),
            Bdev.createUring({ path })
          ])
        )
        yield* refuses(
          "blockSize",
          [0, 1, 511, 1536, -512, NaN, 2 ** 32].map((blockSize) =>
            Bdev.createFile({ path: join(scratch, "blocks"), size: "1 MiB", blockSize })
          )
        )
      })
    )

    check("delay: latencies", () =>
      Effect.gen(function* () {
        const base = yield* Bdev.createNull({ size: "1 MiB" })
        for (const field of ["readMicros", "readP99Micros", "writeMicros", "writeP99Micros"] as const) {
          yield* refuses(
            field,
            [-1, 0.5, NaN, 86_400_000_001, 2 ** 60].map((micros) => Bdev.createDelay({ base, [field]: micros }))
          )
        }
        // SPDK's modules look at a new bdev, and its deletion waits for them: not for a day.
        const day = 86_400_000_000
        yield* within(
          "the end of the scope",
          Effect.scoped(Bdev.createDelay({ base, readMicros: day, writeMicros: day }))
        )
        yield* refuses("readP99Micros", [Bdev.createDelay({ base, readMicros: 2, readP99Micros: 1 })])
        yield* refuses("writeP99Micros", [Bdev.createDelay({ base, writeMicros: 2, writeP99Micros: 1 })])
      })
    )

    check("error: injections", () =>
      Effect.gen(function* () {
        const base = yield* Bdev.createNull({ size: "1 MiB" })
        const { inject } = yield* Bdev.createError({ base })
        const of = (more: Partial<Bdev.Injection>) => inject({ ioType: "read", errorType: "failure", ...more })
        yield* refuses("count", [of({ count: -1 }), of({ count: 0.5 }), of({ count: 2 ** 32 })])
        yield* refuses("queueDepth", [of({ queueDepth: -1 }), of({ queueDepth: 2 ** 53 })])
        yield* refuses("corruptOffset", [of({ corruptOffset: -1 }), of({ corruptOffset: NaN })])
        yield* refuses("corruptValue", [
          of({ errorType: "corrupt_data" }),
          of({ errorType: "corrupt_data", corruptValue: 0 }),
          of({ errorType: "corrupt_data", corruptValue: 256 })
        ])
        yield* refuses("nvmeSct", [of({ errorType: "nvme_failure", nvmeSct: 8 }), of({ nvmeSct: 1 })])
        yield* refuses("nvmeSc", [
          of({ errorType: "nvme_failure" }),
          of({ errorType: "nvme_failure", nvmeSc: 256 }),
          of({ nvmeSc: 1 })
        ])
        yield* of({ count: 2 ** 32 - 1 })
      })
    )

    check("split: counts and sizes, before SPDK divides by them", () =>
      Effect.gen(function* () {
        const base = yield* Bdev.createMalloc({ size: "4 MiB" })
        const split = (count: number, sizeMiB?: number) => Bdev.createSplit({ base, count, sizeMiB })
        yield* refuses("count", [
          split(1025),
          split(0),
          split(-1),
          split(1.5),
          split(NaN),
          split(2 ** 32),
          split(5, 1),
          split(2, 3)
        ])
        yield* refuses("sizeMiB", [
          split(1, 0),
          split(1, 0.5),
          split(1, -1),
          split(1, 5),
          split(1, 2 ** 33),
          split(1, 2 ** 44)
        ])
        assert.lengthOf(yield* Effect.scoped(split(1024)), 1024)
        assert.lengthOf(yield* Effect.scoped(split(4, 1)), 4)
        assert.isFalse((yield* Bdev.find(base)).claimed)
        const odd = yield* Bdev.createNull({ blockSize: 1536, numBlocks: 10_000 })
        yield* refuses("sizeMiB", [Bdev.createSplit({ base: odd, count: 1, sizeMiB: 1 })])
      })
    )

    check("an alias or a UUID as base is as good as the name", () =>
      Effect.gen(function* () {
        const base = yield* Bdev.createMalloc({ name: fresh("base"), size: "4 MiB" })
        const { uuid = "" } = yield* Bdev.find(base)
        assert.deepStrictEqual(yield* Effect.scoped(Bdev.createSplit({ base: uuid, count: 2 })), [
          `${base}p0`,
          `${base}p1`
        ])
        yield* failsWith(Rpc.call("bdev_split_create", { base_bdev: uuid, split_count: 2 }), "InvalidArgument", {
          field: "base_bdev"
        })
        for (const make of [Bdev.createPassthru, Bdev.createDelay]) {
          const over = yield* make({ base: uuid })
          yield* Effect.scoped(Bdev.open(over))
          yield* Rpc.call(make === Bdev.createDelay ? "bdev_delay_delete" : "bdev_passthru_delete", { name: over })
        }
        yield* Effect.scoped(Effect.flatMap(Bdev.createError({ base: uuid }), ({ name }) => Bdev.open(name)))
      })
    )

    check("split: the base is removed before the scope of the split ends", () =>
      Effect.gen(function* () {
        const base = fresh("base")
        yield* Rpc.call("bdev_malloc_create", { name: base, num_blocks: 1024, block_size: 4096 })
        yield* Effect.scoped(
          Effect.andThen(Bdev.createSplit({ base, count: 2 }), Rpc.call("bdev_malloc_delete", { name: base }))
        )
        assert.notInclude(yield* names, base)
      })
    )

    check("a name that a module would give is taken: nothing is made, and the base is free afterwards", () =>
      Effect.gen(function* () {
        const base = yield* Bdev.createMalloc({ name: fresh("base"), size: "1 MiB" })
        // libspdk frees the base under the parts before this one.
        yield* Effect.scoped(
          Effect.gen(function* () {
            yield* Bdev.createNull({ name: `${base}p2`, size: "1 MiB" })
            yield* failsWith(Bdev.createSplit({ base, count: 4 }), "AlreadyExists")
            yield* Bdev.createNull({ name: `EE_${base}`, size: "1 MiB" })
            yield* failsWith(Bdev.createError({ base }), "AlreadyExists")
            const taken = yield* Bdev.createNull({ name: fresh("taken"), size: "1 MiB" })
            yield* failsWith(Bdev.createPassthru({ base, name: taken }), "AlreadyExists")
            yield* failsWith(Bdev.createDelay({ base, name: taken }), "AlreadyExists")
            const uuid = (yield* Bdev.find(taken)).uuid
            yield* failsWith(Bdev.createPassthru({ base, uuid }), "AlreadyExists")
          })
        )
        assert.isFalse((yield* Bdev.find(base)).claimed)
        assert.lengthOf(yield* Effect.scoped(Bdev.createSplit({ base, count: 4 })), 4)
      })
    )

    check("a claimed base: nothing is made, now or when a bdev of its name comes again", () =>
      Effect.gen(function* () {
        const base = fresh("base")
        const delayed = fresh("delay")
        yield* Effect.scoped(
          Effect.gen(function* () {
            yield* Bdev.createMalloc({ name: base, size: "1 MiB" })
            yield* Bdev.createPassthru({ base })
            yield* failsWith(Bdev.createPassthru({ base, name: fresh("second") }), "Busy")
            yield* failsWith(Bdev.createDelay({ base, name: delayed }), "Busy")
            yield* failsWith(Bdev.createError({ base }), "Busy")
            yield* failsWith(Bdev.createSplit({ base, count: 2 }), "Busy")
          })
        )
        yield* Bdev.createMalloc({ name: base, size: "1 MiB" })
        assert.deepStrictEqual(yield* names, [base])
        yield* Effect.scoped(Bdev.createDelay({ base, name: delayed }))
      })
    )

    if (capabilities.uring) {
      check("uring: what is no file is refused in the words of a file", () =>
        failsWith(Effect.scoped(Bdev.createUring({ path: join(scratch, "gone", "x"), size: "1 MiB" })), "NotFound")
      )
    }
  })
