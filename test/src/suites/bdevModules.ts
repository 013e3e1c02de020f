/** The bdev modules: what each adds, over what it stands on. */
import * as Bdev from "@effect-spdk/core/Bdev"
import * as DmaBuffer from "@effect-spdk/core/DmaBuffer"
import * as Rpc from "@effect-spdk/core/Rpc"
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import { existsSync, readFileSync, statSync, writeFileSync } from "node:fs"
import { type Capabilities, type EngineLayer, scratchFile } from "../support/engines.ts"
import { setLatency } from "../support/held.ts"
import { blockSize, contract, failsWith, fresh, pattern, sameBytes, within } from "../support/harness.ts"

const names = Effect.map(Bdev.list, (bdevs) => bdevs.map((bdev) => bdev.name))

export const suite = (name: string, layer: EngineLayer, capabilities: Capabilities): void =>
  contract(name, layer, (check) => {
    check("malloc: by blocks, by size, by words, with a uuid that is an alias", () =>
      Effect.gen(function* () {
        const uuid = "6f1a2b3c-0000-4000-8000-1234567890ab"
        const byBlocks = yield* Bdev.createMalloc({ name: fresh("malloc"), blockSize: 512, numBlocks: 100, uuid })
        const bySize = yield* Bdev.createMalloc({ name: fresh("malloc"), blockSize: 4096, size: 40_960 })
        const byWords = yield* Bdev.createMalloc({ name: fresh("malloc"), size: "1 MiB" })
        const unnamed = yield* Bdev.createMalloc({ size: "64 KiB" })
        assert.strictEqual((yield* Bdev.find(byBlocks)).sizeBytes, 51_200)
        assert.strictEqual((yield* Bdev.find(bySize)).numBlocks, 10)
        assert.strictEqual((yield* Bdev.find(byWords)).sizeBytes, 1024 ** 2)
        assert.match(unnamed, /^Malloc\d+$/)
        assert.strictEqual((yield* Bdev.find(uuid)).name, byBlocks)
        assert.include((yield* Bdev.find(byBlocks)).aliases, uuid)
        const bdev = yield* Bdev.open(uuid)
        assert.strictEqual(bdev.name, byBlocks)
        assert.strictEqual((yield* Bdev.find(byBlocks)).productName, "Malloc disk")
        yield* failsWith(Bdev.createMalloc({ name: fresh("malloc"), size: "1 MiB", uuid }), "AlreadyExists")
      })
    )

    check("malloc: a bdev of the same name starts zeroed again", () =>
      Effect.gen(function* () {
        const bdevName = fresh("malloc")
        for (let round = 0; round < 3; round++) {
          yield* Effect.scoped(
            Effect.gen(function* () {
              const created = yield* Bdev.createMalloc({ name: bdevName, blockSize, numBlocks: 64 })
              const bdev = yield* Bdev.open(created, { write: true })
              sameBytes(yield* bdev.readBytes(0, bdev.sizeBytes), new Uint8Array(bdev.sizeBytes), `round ${round}`)
              yield* bdev.writeBytes(0, pattern(bdev.sizeBytes, round))
            })
          )
        }
      })
    )

    check("null: takes writes, keeps nothing, has any size", () =>
      Effect.gen(function* () {
        const created = yield* Bdev.createNull({ name: fresh("null"), blockSize: 4096, size: 2 ** 50 })
        const bdev = yield* Bdev.open(created, { write: true })
        assert.strictEqual(bdev.sizeBytes, 2 ** 50)
        assert.strictEqual((yield* Bdev.find(created)).productName, "Null disk")
        const buffer = yield* DmaBuffer.make(4096)
        yield* bdev.write(0, buffer)
        yield* bdev.write(2 ** 50 - 4096, buffer)
        yield* bdev.read(2 ** 49, buffer)
        yield* bdev.writeZeroes(0, 2 ** 20)
        yield* bdev.reset
        assert.isFalse(bdev.supports("flush"))
        yield* failsWith(bdev.flush(), "NotSupported")
        assert.isFalse(bdev.supports("unmap"))
        yield* failsWith(bdev.unmap(0, 4096), "NotSupported")
        yield* failsWith(bdev.read(2 ** 50, buffer), "InvalidArgument", { field: "offsetBytes" })
      })
    )

    check("file: made, extended, kept, emptied, checked", () =>
      Effect.gen(function* () {
        const path = yield* scratchFile
        const size = 64 * 4096
        const withBdev = <A, E, R>(
          options: Partial<Bdev.AioOptions>,
          use: (bdev: Bdev.Bdev) => Effect.Effect<A, E, R>
        ) =>
          Effect.scoped(
            Effect.gen(function* () {
              const created = yield* Bdev.createFile({ path, ...options })
              return yield* use(yield* Bdev.open(created, { write: true }))
            })
          )
        yield* failsWith(
          withBdev({ size, create: "never" }, () => Effect.void),
          "NotFound"
        )
        yield* withBdev({ size }, (bdev) =>
          Effect.gen(function* () {
            assert.strictEqual(bdev.blockSize, 4096)
            assert.strictEqual(bdev.sizeBytes, size)
            yield* bdev.writeBytes(0, pattern(size, 1))
            yield* bdev.flush()
          })
        )
        assert.strictEqual(statSync(path).mode & 0o777, 0o600)
        sameBytes(readFileSync(path), pattern(size, 1), "the file")
        yield* withBdev({ size: size * 2 }, (bdev) =>
          Effect.gen(function* () {
            sameBytes(yield* bdev.readBytes(0, size), pattern(size, 1), "what was there")
            sameBytes(yield* bdev.readBytes(size, size), new Uint8Array(size), "what was added")
          })
        )
        yield* withBdev({ size }, (bdev) => Effect.sync(() => assert.strictEqual(bdev.sizeBytes, size * 2)))
        yield* failsWith(
          withBdev({ size: size * 4, create: "never" }, () => Effect.void),
          "InvalidArgument",
          { field: "size" }
        )
        yield* withBdev({ size, create: "always" }, (bdev) =>
          Effect.gen(function* () {
            assert.strictEqual(bdev.sizeBytes, size)
            sameBytes(yield* bdev.readBytes(0, size), new Uint8Array(size), "the emptied file")
          })
        )
      })
    )

    check("file: what another program wrote is there, and it reads what was flushed", () =>
      Effect.gen(function* () {
        const path = yield* scratchFile
        writeFileSync(path, pattern(256 * blockSize, 3))
        const created = yield* Bdev.createFile({ path, blockSize })
        const bdev = yield* Bdev.open(created, { write: true })
        assert.strictEqual(bdev.numBlocks, 256)
        assert.strictEqual((yield* Bdev.find(created)).productName, "AIO disk")
        sameBytes(yield* bdev.readBytes(0, bdev.sizeBytes), pattern(256 * blockSize, 3), "the file as a bdev")
        yield* bdev.writeBytes(100 * blockSize, pattern(blockSize, 4))
        yield* bdev.flush()
        const expected = pattern(256 * blockSize, 3)
        expected.set(pattern(blockSize, 4), 100 * blockSize)
        sameBytes(readFileSync(path), expected, "the bdev as a file")
      })
    )

    check("file: read-only", () =>
      Effect.gen(function* () {
        const path = yield* scratchFile
        writeFileSync(path, pattern(64 * blockSize, 5))
        const created = yield* Bdev.createFile({ path, blockSize, readonly: true })
        const bdev = yield* Bdev.open(created)
        sameBytes(yield* bdev.readBytes(0, bdev.sizeBytes), pattern(64 * blockSize, 5), "the file")
        const writer = yield* Bdev.open(created, { write: true })
        yield* failsWith(writer.writeBytes(0, new Uint8Array(blockSize)), "IoFailed")
        sameBytes(readFileSync(path), pattern(64 * blockSize, 5), "the file afterwards")
      })
    )

    check("file: read-only makes, empties and extends nothing", () =>
      Effect.gen(function* () {
        const path = yield* scratchFile
        const size = 64 * blockSize
        const options = { path, blockSize, readonly: true }
        yield* failsWith(Bdev.createFile({ ...options, size }), "NotFound")
        assert.isFalse(existsSync(path))
        writeFileSync(path, pattern(size, 5), { mode: 0o400 })
        for (const create of ["missing", "always"] as const) {
          yield* failsWith(Bdev.createFile({ ...options, size: size * 2, create }), "InvalidArgument", {
            field: "create"
          })
        }
        yield* failsWith(Bdev.createFile({ ...options, size: size * 2 }), "InvalidArgument", { field: "size" })
        sameBytes(readFileSync(path), pattern(size, 5), "the file afterwards")
        const bdev = yield* Bdev.open(yield* Bdev.createFile({ ...options, size }))
        assert.strictEqual(bdev.sizeBytes, size)
        assert.isFalse(bdev.writable)
      })
    )

    check("file: unmap and write zeroes punch holes when told to, and are not there otherwise", () =>
      Effect.gen(function* () {
        const path = yield* scratchFile
        const size = 256 * 4096
        const created = yield* Bdev.createFile({ path, size, fallocate: true })
        const bdev = yield* Bdev.open(created, { write: true })
        yield* bdev.writeBytes(0, pattern(size, 6))
        yield* bdev.unmap(4096 * 10, 4096 * 100)
        yield* bdev.writeZeroes(4096 * 200, 4096)
        const expected = pattern(size, 6)
        expected.fill(0, 4096 * 10, 4096 * 110)
        expected.fill(0, 4096 * 200, 4096 * 201)
        sameBytes(yield* bdev.readBytes(0, size), expected, "the bdev with holes")
        const plainPath = yield* scratchFile
        const plainName = yield* Bdev.createFile({ path: plainPath, size })
        const plain = yield* Bdev.open(plainName, { write: true })
        assert.isFalse(plain.supports("unmap"))
        yield* failsWith(plain.unmap(0, 4096), "NotSupported")
      })
    )

    check("file: a file that is not whole blocks, or smaller than one", () =>
      Effect.gen(function* () {
        for (const length of [0, 100, 4097]) {
          const path = yield* scratchFile
          writeFileSync(path, new Uint8Array(length))
          yield* failsWith(Bdev.createFile({ path, blockSize: 4096 }), "InvalidArgument", { field: "path" })
        }
        assert.deepStrictEqual(yield* names, [])
      })
    )

    check("file: 64 MiB in large chunks", () =>
      Effect.gen(function* () {
        const path = yield* scratchFile
        const size = 64 * 1024 ** 2
        const created = yield* Bdev.createFile({ path, size })
        const bdev = yield* Bdev.open(created, { write: true })
        const buffer = yield* DmaBuffer.make(1024 ** 2)
        const bytes = pattern(1024 ** 2, 7)
        buffer.bytes.set(bytes)
        yield* Effect.forEach(Array.from({ length: 64 }), (_, index) => bdev.write(index * 1024 ** 2, buffer), {
          concurrency: 8,
          discard: true
        })
        yield* bdev.flush()
        for (const index of [0, 31, 63]) {
          buffer.bytes.fill(0)
          yield* bdev.read(index * 1024 ** 2, buffer)
          sameBytes(buffer.bytes, bytes, `megabyte ${index}`)
        }
      })
    )

    if (capabilities.uring) {
      check("uring: reads and writes a file", () =>
        Effect.gen(function* () {
          const path = yield* scratchFile
          const size = 64 * 4096
          const created = yield* Bdev.createUring({ path, size })
          const bdev = yield* Bdev.open(created, { write: true })
          yield* bdev.writeBytes(0, pattern(size, 8))
          sameBytes(yield* bdev.readBytes(0, size), pattern(size, 8), "the bdev")
          assert.strictEqual((yield* Bdev.find(created)).productName, "URING bdev")
        })
      )
    } else {
      check("uring: the engine does not have it and says so", () =>
        Effect.gen(function* () {
          const path = yield* scratchFile
          yield* failsWith(Bdev.createUring({ path, size: 4096 }), "MethodNotFound", { method: "bdev_uring_create" })
        })
      )
    }

    check("passthru: hands everything through, and claims what is below", () =>
      Effect.gen(function* () {
        const base = yield* Bdev.createMalloc({ name: fresh("malloc"), blockSize, numBlocks: 64 })
        assert.isFalse((yield* Bdev.find(base)).claimed)
        const created = yield* Bdev.createPassthru({ base, name: fresh("passthru") })
        assert.isTrue((yield* Bdev.find(base)).claimed)
        const bdev = yield* Bdev.open(created, { write: true })
        assert.strictEqual(bdev.sizeBytes, 64 * blockSize)
        yield* bdev.writeBytes(blockSize, pattern(blockSize, 10))
        const below = yield* Bdev.open(base)
        sameBytes(yield* below.readBytes(blockSize, blockSize), pattern(blockSize, 10), "what is below")
        const { message } = yield* failsWith(Bdev.open(base, { write: true }), "Busy", { resource: base })
        assert.include(message, "claimed by module passthru")
      })
    )

    check("split: parts of the base, next to each other, none reaching into another", () =>
      Effect.gen(function* () {
        const base = yield* Bdev.createMalloc({ name: fresh("malloc"), blockSize, numBlocks: 400 })
        const parts = yield* Bdev.createSplit({ base, count: 4 })
        assert.deepStrictEqual(
          parts,
          [0, 1, 2, 3].map((index) => `${base}p${index}`)
        )
        const opened = yield* Effect.forEach(parts, (part) => Bdev.open(part, { write: true }))
        for (const [index, part] of opened.entries()) {
          assert.strictEqual(part.numBlocks, 100)
          yield* part.writeBytes(0, pattern(part.sizeBytes, index))
          yield* failsWith(part.readBytes(part.sizeBytes, blockSize), "InvalidArgument")
        }
        const whole = yield* Bdev.open(base)
        for (let index = 0; index < 4; index++) {
          sameBytes(
            yield* whole.readBytes(index * 100 * blockSize, 100 * blockSize),
            pattern(100 * blockSize, index),
            `part ${index}`
          )
        }
        const [first, second] = opened
        assert.isDefined(first)
        assert.isDefined(second)
        yield* first.writeZeroes(0, first.sizeBytes)
        sameBytes(yield* second.readBytes(0, second.sizeBytes), pattern(second.sizeBytes, 1), "the second part")
      })
    )

    check("split: parts of a size in MiB", () =>
      Effect.gen(function* () {
        const base = yield* Bdev.createMalloc({ name: fresh("malloc"), blockSize, size: "8 MiB" })
        const parts = yield* Bdev.createSplit({ base, count: 2, sizeMiB: 3 })
        for (const part of parts) assert.strictEqual((yield* Bdev.find(part)).sizeBytes, 3 * 1024 ** 2)
      })
    )

    check("delay: completes later, with the same bytes", () =>
      Effect.gen(function* () {
        const base = yield* Bdev.createMalloc({ name: fresh("malloc"), blockSize, numBlocks: 64 })
        const created = yield* Bdev.createDelay({ base, name: fresh("delay"), readMicros: 20_000, writeMicros: 0 })
        const bdev = yield* Bdev.open(created, { write: true })
        yield* bdev.writeBytes(0, pattern(blockSize, 11))
        const started = performance.now()
        sameBytes(yield* bdev.readBytes(0, blockSize), pattern(blockSize, 11), "the delayed read")
        // Never early; how late is the machine's business.
        assert.isAtLeast(performance.now() - started, 19)
        // Those that wait do so side by side: one after another they would take a minute.
        yield* within(
          "3,000 delayed reads",
          Effect.forEach(Array.from({ length: 3000 }), () => bdev.readBytes(0, blockSize), {
            concurrency: "unbounded",
            discard: true
          })
        )
      })
    )

    check("delay: the latency can be changed", () =>
      Effect.gen(function* () {
        const base = yield* Bdev.createMalloc({ name: fresh("malloc"), blockSize, numBlocks: 64 })
        const created = yield* Bdev.createDelay({ base, name: fresh("delay") })
        yield* setLatency(created, 50_000)
        const bdev = yield* Bdev.open(created)
        const started = performance.now()
        yield* within("the slow read", bdev.readBytes(0, blockSize))
        assert.isAtLeast(performance.now() - started, 49)
        yield* setLatency(created, 10)
        yield* within("the quick read", bdev.readBytes(0, blockSize))
      })
    )

    check("a deep stack: each level does its part", () =>
      Effect.gen(function* () {
        const base = yield* Bdev.createMalloc({ name: fresh("malloc"), blockSize, numBlocks: 1024 })
        const parts = yield* Bdev.createSplit({ base, count: 2 })
        const second = parts[1]
        assert.isDefined(second)
        const delay = yield* Bdev.createDelay({ base: second, name: fresh("delay"), readMicros: 100, writeMicros: 100 })
        const passthru = yield* Bdev.createPassthru({ base: delay, name: fresh("passthru") })
        const { inject, name: top } = yield* Bdev.createError({ base: passthru })
        const bdev = yield* Bdev.open(top, { write: true })
        yield* bdev.writeBytes(0, pattern(4096, 12))
        yield* inject({ ioType: "read", errorType: "failure", count: 1 })
        yield* failsWith(bdev.readBytes(0, 4096), "IoFailed")
        sameBytes(yield* bdev.readBytes(0, 4096), pattern(4096, 12), "through the stack")
        const whole = yield* Bdev.open(base)
        sameBytes(yield* whole.readBytes(512 * blockSize, 4096), pattern(4096, 12), "at the bottom")
      })
    )

    check("any module by its RPC methods", () =>
      Effect.gen(function* () {
        const before = yield* names
        yield* Effect.scoped(
          Effect.gen(function* () {
            const created = yield* Bdev.create({
              method: "bdev_null_create",
              params: { name: fresh("any"), num_blocks: 64, block_size: 512 },
              deleteMethod: "bdev_null_delete"
            })
            const bdev = yield* Bdev.open(created)
            yield* bdev.readBytes(0, 512)
            assert.include(yield* names, created)
          })
        )
        assert.deepStrictEqual(yield* names, before)
      })
    )

    check("a module that answers the name of its bdev in a list", () =>
      Effect.gen(function* () {
        const before = yield* names
        const base = yield* Bdev.createMalloc({ name: fresh("base"), blockSize, numBlocks: 64 })
        const part = yield* Effect.scoped(
          Bdev.create({
            method: "bdev_split_create",
            params: { base_bdev: base, split_count: 1 },
            deleteMethod: "bdev_split_delete",
            deleteParams: { base_bdev: base }
          })
        )
        assert.strictEqual(part, `${base}p0`)
        assert.deepStrictEqual(yield* names, [...before, base])
      })
    )

    check("a bdev that somebody else deleted is no error at the end of its scope", () =>
      Effect.gen(function* () {
        const client = yield* Rpc.RpcClient
        const scope = yield* Scope.make()
        const created = yield* Bdev.createNull({ name: fresh("null"), blockSize, numBlocks: 64 }).pipe(
          Scope.provide(scope)
        )
        yield* client.call("bdev_null_delete", { name: created })
        yield* Scope.close(scope, Exit.void)
      })
    )

    check("1,000 bdevs come and go, 16 at a time", () =>
      Effect.gen(function* () {
        yield* Effect.forEach(
          Array.from({ length: 1000 }),
          () =>
            Effect.scoped(
              Effect.gen(function* () {
                const created = yield* Bdev.createNull({ name: fresh("mayfly"), blockSize, numBlocks: 64 })
                yield* Effect.scoped(Effect.flatMap(Bdev.open(created), (bdev) => bdev.readBytes(0, blockSize)))
              })
            ),
          { concurrency: 16, discard: true }
        )
        assert.deepStrictEqual(yield* names, [])
      })
    )

    check("deleted while it is being opened: the open succeeds or is NotFound, never both", () =>
      Effect.gen(function* () {
        const client = yield* Rpc.RpcClient
        for (let round = 0; round < 30; round++) {
          const created = fresh("contested")
          yield* client.call("bdev_null_create", { name: created, num_blocks: 64, block_size: 512 })
          const opening = yield* Effect.forkChild(Effect.scoped(Effect.exit(Bdev.open(created))), {
            startImmediately: true
          })
          yield* within("the delete", client.call("bdev_null_delete", { name: created }))
          const exit = yield* within("the open", Fiber.join(opening))
          if (Exit.isFailure(exit)) yield* failsWith(exit, "NotFound")
        }
      })
    )
  })
