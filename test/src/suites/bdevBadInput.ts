/** Every mistake a caller can make with a bdev, by name, and the reason, field and rule that answer it. */
import * as Bdev from "@effect-spdk/core/Bdev"
import * as DmaBuffer from "@effect-spdk/core/DmaBuffer"
import type { SpdkError } from "@effect-spdk/core/SpdkError"
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { type Capabilities, type EngineLayer, scratch, scratchFile } from "../support/engines.ts"
import { blockSize, contract, failsWith, fresh, mallocOpened, pattern, sameBytes } from "../support/harness.ts"

/** Offsets that are no offset, and what is wrong with each. */
const badOffsets: ReadonlyArray<readonly [value: number, rule: RegExp]> = [
  [1, /multiple of the block size 512/],
  [511, /multiple of the block size 512/],
  [513, /multiple of the block size 512/],
  [-512, /is negative/],
  [-1, /is negative/],
  [0.5, /integer/i],
  [NaN, /integer/i],
  [Infinity, /integer/i],
  [2 ** 53, /integer/i],
  [2 ** 60, /integer/i]
]

export const suite = (name: string, layer: EngineLayer, _capabilities: Capabilities): void =>
  contract(name, layer, (check) => {
    check("offsets: unaligned, negative, fractional, not a number, beyond 2^53", () =>
      Effect.gen(function* () {
        const bdev = yield* mallocOpened()
        const buffer = yield* DmaBuffer.make(blockSize)
        for (const [offset, rule] of badOffsets) {
          const operations = {
            read: bdev.read(offset, buffer),
            write: bdev.write(offset, buffer),
            readv: bdev.readv(offset, [buffer]),
            writev: bdev.writev(offset, [buffer]),
            unmap: bdev.unmap(offset, blockSize),
            writeZeroes: bdev.writeZeroes(offset, blockSize),
            flush: bdev.flush({ offsetBytes: offset, lengthBytes: blockSize }),
            readBytes: bdev.readBytes(offset, blockSize),
            writeBytes: bdev.writeBytes(offset, new Uint8Array(blockSize))
          }
          for (const [operation, effect] of Object.entries(operations)) {
            const reason = yield* failsWith(effect, "InvalidArgument", { field: "offsetBytes" })
            assert.match(reason.rule, rule, `${operation}(${offset}): ${reason.message}`)
            assert.include(reason.operation, operation, reason.message)
            assert.strictEqual(reason.resource, bdev.name)
          }
          const good = { offsetBytes: 0, buffer }
          const field = "entries[1].offsetBytes"
          const entries = [good, { offsetBytes: offset, buffer }]
          for (const batch of [bdev.readBatch(entries), bdev.writeBatch(entries)]) {
            const reason = yield* failsWith(batch, "InvalidArgument", { field })
            assert.match(reason.rule, rule, reason.message)
          }
        }
      })
    )

    check("what is no buffer, no list and no bytes is named, whatever it is", () =>
      Effect.gen(function* () {
        const bdev = yield* mallocOpened(64)
        const buffer = yield* DmaBuffer.make(blockSize)
        for (const none of [undefined, null, 7, "text", {}, new Uint8Array(blockSize)]) {
          // As from a caller without types.
          const bad = none as never
          const one = { offsetBytes: 0, buffer: bad }
          const operations: ReadonlyArray<readonly [Effect.Effect<unknown, SpdkError>, string]> = [
            [bdev.read(0, bad), "buffer"],
            [bdev.write(0, bad), "buffer"],
            [bdev.readv(0, [buffer, bad]), "buffers[1]"],
            [bdev.writev(0, [buffer, bad]), "buffers[1]"],
            [bdev.readv(0, bad), "buffers"],
            [bdev.writev(0, bad), "buffers"],
            [bdev.readBatch([{ offsetBytes: 0, buffer }, one]), "entries[1].buffer"],
            [bdev.writeBatch([{ offsetBytes: 0, buffer }, one]), "entries[1].buffer"],
            [bdev.prepareReads([one]), "entries[0].buffer"],
            [bdev.prepareWrites([one]), "entries[0].buffer"],
            [bdev.readBatch(bad), "entries"],
            [bdev.writeBatch(bad), "entries"],
            [bdev.prepareReads(bad), "entries"],
            [bdev.prepareWrites(bad), "entries"]
          ]
          for (const [effect, field] of operations) yield* failsWith(effect, "InvalidArgument", { field })
          if (!(none instanceof Uint8Array)) {
            yield* failsWith(bdev.writeBytes(0, bad), "InvalidArgument", { field: "bytes" })
          }
        }
        for (const none of [undefined, null]) {
          yield* failsWith(bdev.readBatch([none as never]), "InvalidArgument", { field: "entries[0]" })
        }
        for (const none of [null, 7, "text"]) {
          yield* failsWith(bdev.flush(none as never), "InvalidArgument", { field: "range" })
        }
      })
    )

    check("ranges past the end, by one block and by far, and nothing is written", () =>
      Effect.gen(function* () {
        const bdev = yield* mallocOpened(64)
        yield* bdev.writeBytes(0, pattern(bdev.sizeBytes, 1))
        const two = yield* DmaBuffer.make(blockSize * 2)
        const last = bdev.sizeBytes - blockSize
        const outside = /past the end of the bdev at 32768/
        for (const offset of [last, bdev.sizeBytes, bdev.sizeBytes * 1000, Number.MAX_SAFE_INTEGER - 511]) {
          const operations = [
            bdev.read(offset, two),
            bdev.write(offset, two),
            bdev.readv(offset, [two.slice(0, 512), two.slice(512, 512)]),
            bdev.writev(offset, [two]),
            bdev.unmap(offset, blockSize * 2),
            bdev.writeZeroes(offset, blockSize * 2),
            bdev.flush({ offsetBytes: offset, lengthBytes: blockSize * 2 }),
            bdev.readBytes(offset, blockSize * 2),
            bdev.writeBytes(offset, new Uint8Array(blockSize * 2))
          ]
          for (const effect of operations) {
            const reason = yield* failsWith(effect, "InvalidArgument")
            assert.match(reason.rule, outside, reason.message)
          }
        }
        sameBytes(yield* bdev.readBytes(0, bdev.sizeBytes), pattern(bdev.sizeBytes, 1), "the bdev afterwards")
      })
    )

    check("lengths: not a multiple of the block size, nothing, negative, not a number", () =>
      Effect.gen(function* () {
        const bdev = yield* mallocOpened()
        const odd = yield* DmaBuffer.make(1000)
        for (const effect of [bdev.read(0, odd), bdev.write(0, odd)]) {
          const reason = yield* failsWith(effect, "InvalidArgument", { field: "buffer.byteLength", value: 1000 })
          assert.match(reason.rule, /multiple of the block size 512/, reason.message)
        }
        yield* failsWith(bdev.writeBytes(0, new Uint8Array(1000)), "InvalidArgument", { field: "bytes.length" })
        yield* failsWith(bdev.writeBytes(0, new Uint8Array(0)), "InvalidArgument", { field: "bytes.length" })
        const none = (yield* DmaBuffer.make(blockSize)).slice(0, 0)
        yield* failsWith(bdev.read(0, none), "InvalidArgument", { field: "buffer.byteLength" })
        yield* failsWith(bdev.readBatch([{ offsetBytes: 0, buffer: none }]), "InvalidArgument", {
          field: "entries[0].buffer.byteLength"
        })
        for (const length of [0, 1, 511, 513, -512, -1, 0.5, NaN, Infinity, 2 ** 53]) {
          for (const effect of [
            bdev.unmap(0, length),
            bdev.writeZeroes(0, length),
            bdev.flush({ offsetBytes: 0, lengthBytes: length }),
            bdev.readBytes(0, length)
          ])
            yield* failsWith(effect, "InvalidArgument", { field: "lengthBytes" })
        }
      })
    )

    check("vectors: empty, of too many pieces, with one piece that is not whole blocks", () =>
      Effect.gen(function* () {
        const bdev = yield* mallocOpened()
        const buffer = yield* DmaBuffer.make(blockSize * 128)
        const vectors = [
          (offset: number, buffers: ReadonlyArray<DmaBuffer.DmaBuffer>) => bdev.readv(offset, buffers),
          (offset: number, buffers: ReadonlyArray<DmaBuffer.DmaBuffer>) => bdev.writev(offset, buffers)
        ]
        for (const vectored of vectors) {
          yield* failsWith(vectored(0, []), "InvalidArgument", { field: "buffers" })
          const many = Array.from({ length: 65 }, (_, index) => buffer.slice(index * blockSize, blockSize))
          yield* failsWith(vectored(0, many), "InvalidArgument", { field: "buffers" })
          yield* vectored(0, many.slice(0, 64))
          yield* failsWith(vectored(0, [buffer.slice(0, blockSize), buffer.slice(0, 100)]), "InvalidArgument", {
            field: "buffers[1].byteLength"
          })
          yield* failsWith(vectored(0, [buffer.slice(0, 0)]), "InvalidArgument", { field: "buffers[0].byteLength" })
        }
      })
    )

    check("a read-only handle that is written to", () =>
      Effect.gen(function* () {
        const writable = yield* mallocOpened()
        yield* writable.writeBytes(0, pattern(blockSize, 1))
        const bdev = yield* Bdev.open(writable.name)
        const buffer = yield* DmaBuffer.make(blockSize)
        const writes = [
          bdev.write(0, buffer),
          bdev.writev(0, [buffer]),
          bdev.writeBytes(0, new Uint8Array(blockSize)),
          bdev.writeBatch([{ offsetBytes: 0, buffer }]),
          bdev.unmap(0, blockSize),
          bdev.writeZeroes(0, blockSize),
          bdev.flush(),
          Stream.run(Stream.make(new Uint8Array(blockSize)), bdev.sink())
        ]
        for (const effect of writes) yield* failsWith(effect, "ReadOnly")
        sameBytes(yield* bdev.readBytes(0, blockSize), pattern(blockSize, 1), "the untouched block")
      })
    )

    check("a handle whose scope is closed", () =>
      Effect.gen(function* () {
        const created = yield* Bdev.createMalloc({ name: fresh("malloc"), blockSize, numBlocks: 64 })
        const buffer = yield* DmaBuffer.make(blockSize)
        const bdev = yield* Effect.scoped(Bdev.open(created, { write: true }))
        const operations = [
          bdev.read(0, buffer),
          bdev.write(0, buffer),
          bdev.readv(0, [buffer]),
          bdev.writev(0, [buffer]),
          bdev.flush(),
          bdev.unmap(0, blockSize),
          bdev.writeZeroes(0, blockSize),
          bdev.reset,
          bdev.readBytes(0, blockSize),
          bdev.writeBytes(0, new Uint8Array(blockSize)),
          bdev.readBatch([{ offsetBytes: 0, buffer }]),
          bdev.writeBatch([{ offsetBytes: 0, buffer }]),
          Stream.runDrain(bdev.stream()),
          Stream.run(Stream.make(new Uint8Array(blockSize)), bdev.sink()),
          Effect.scoped(bdev.channel)
        ]
        for (const effect of operations) yield* failsWith(effect, "Released", { what: "handle" })
        assert.strictEqual(buffer.pins, 0)
      })
    )

    check("a bdev that is not there", () =>
      Effect.gen(function* () {
        const missing = fresh("missing")
        yield* failsWith(Bdev.open(missing), "NotFound", { resource: missing })
        yield* failsWith(Bdev.find(missing), "NotFound", { resource: missing })
        for (const bad of ["", "x".repeat(300), "a\u0000b"]) {
          yield* failsWith(Bdev.open(bad), "InvalidArgument", { field: "name" })
        }
      })
    )

    check("a name that is taken, and a claimed bdev opened for writing", () =>
      Effect.gen(function* () {
        const base = yield* Bdev.createMalloc({ name: fresh("base"), blockSize, numBlocks: 64 })
        yield* failsWith(Bdev.createMalloc({ name: base, blockSize, numBlocks: 64 }), "AlreadyExists")
        yield* Bdev.createPassthru({ base: base, name: fresh("passthru") })
        yield* failsWith(Bdev.open(base, { write: true }), "Busy")
        const reader = yield* Bdev.open(base)
        yield* reader.readBytes(0, blockSize)
        yield* failsWith(Bdev.createPassthru({ base: base, name: fresh("passthru") }), "Busy")
      })
    )

    check("sizes and block sizes that no bdev can have", () =>
      Effect.gen(function* () {
        const name = fresh("bad")
        for (const bad of [0, -1, 1.5, NaN, Infinity, 2 ** 53]) {
          yield* failsWith(Bdev.createMalloc({ name, blockSize, numBlocks: bad }), "InvalidArgument", {
            field: "numBlocks"
          })
          yield* failsWith(Bdev.createNull({ name, blockSize, numBlocks: bad }), "InvalidArgument", {
            field: "numBlocks"
          })
        }
        for (const bad of [0, -512, 100, 1000, 513, NaN, 2 ** 40]) {
          yield* failsWith(Bdev.createMalloc({ name, blockSize: bad, numBlocks: 64 }), "InvalidArgument", {
            field: "blockSize"
          })
          yield* failsWith(Bdev.createNull({ name, blockSize: bad, numBlocks: 64 }), "InvalidArgument", {
            field: "blockSize"
          })
        }
        for (const bad of ["", "many", "12 parsecs", "-1 MiB", "1.0001 KiB"]) {
          yield* failsWith(Bdev.createMalloc({ name, blockSize, size: bad }), "InvalidArgument", { field: "size" })
        }
        yield* failsWith(Bdev.createMalloc({ name, blockSize, size: 1000 }), "InvalidArgument", { field: "size" })
        assert.notInclude(
          (yield* Bdev.list).map((one) => one.name),
          name
        )
      })
    )

    check("a malloc bdev larger than the memory", () =>
      Effect.gen(function* () {
        const name = fresh("huge")
        yield* failsWith(Bdev.createMalloc({ name, blockSize, size: 64 * 1024 ** 3 }), "NoMemory")
        assert.notInclude(
          (yield* Bdev.list).map((one) => one.name),
          name
        )
      })
    )

    check("files that cannot be bdevs", () =>
      Effect.gen(function* () {
        const name = fresh("file")
        yield* failsWith(Bdev.createFile({ name, path: join(scratch, "not", "there"), blockSize }), "NotFound")
        yield* failsWith(
          Bdev.createFile({ name, path: join(scratch, "not", "there"), blockSize, size: 4096 }),
          "NotFound"
        )
        yield* failsWith(Bdev.createFile({ name, path: scratch, blockSize }), "InvalidArgument", { field: "path" })
        yield* failsWith(Bdev.createFile({ name, path: scratch, blockSize, size: 4096 }), "InvalidArgument", {
          field: "path"
        })
        yield* failsWith(Bdev.createFile({ name, path: "", blockSize }), "InvalidArgument", { field: "path" })
        yield* failsWith(
          Bdev.createFile({ name, path: join(scratch, "f"), blockSize: 100, size: 4096 }),
          "InvalidArgument",
          {
            field: "blockSize"
          }
        )
        const kept = yield* scratchFile
        writeFileSync(kept, pattern(4096, 1))
        yield* failsWith(Bdev.createFile({ name, path: kept, create: "always" }), "InvalidArgument", {
          field: "create"
        })
        yield* failsWith(
          // As a configuration may have it, which no compiler reads.
          Bdev.createFile({ name, path: kept, size: 8192, create: "Never" as "never" }),
          "InvalidArgument",
          { field: "create" }
        )
        sameBytes(readFileSync(kept), pattern(4096, 1), "the file")
        assert.notInclude(
          (yield* Bdev.list).map((one) => one.name),
          name
        )
      })
    )

    check("modules over a base that is not there", () =>
      Effect.gen(function* () {
        const missing = fresh("missing")
        yield* failsWith(Bdev.createPassthru({ base: missing, name: fresh("p") }), "NotFound")
        yield* failsWith(Bdev.createDelay({ base: missing, name: fresh("d") }), "NotFound")
        yield* failsWith(Bdev.createError({ base: missing }), "NotFound")
        yield* failsWith(Bdev.createSplit({ base: missing, count: 2 }), "NotFound")
        assert.deepStrictEqual(yield* Bdev.list, [])
      })
    )

    check("any other module by a method that is not there", () =>
      failsWith(
        Effect.scoped(Bdev.create({ method: "bdev_no_such_create", params: {}, deleteMethod: "bdev_no_such_delete" })),
        "MethodNotFound",
        { method: "bdev_no_such_create" }
      )
    )

    check("a method that makes no bdev with a name: nothing can be deleted for it", () =>
      failsWith(
        Effect.scoped(Bdev.create({ method: "spdk_get_version", deleteMethod: "bdev_malloc_delete" })),
        "InvalidArgument",
        { field: "name" }
      )
    )

    check("streams over ranges that do not fit", () =>
      Effect.gen(function* () {
        const bdev = yield* mallocOpened(64)
        const drain = (options: Parameters<typeof bdev.stream>[0]) => Stream.runDrain(bdev.stream(options))
        for (const offsetBytes of [-1, 0.5, NaN, bdev.sizeBytes + 1]) {
          yield* failsWith(drain({ offsetBytes }), "InvalidArgument", { field: "offsetBytes" })
          const sink = Stream.run(Stream.make(new Uint8Array(1)), bdev.sink({ offsetBytes }))
          yield* failsWith(sink, "InvalidArgument", { field: "offsetBytes" })
        }
        yield* failsWith(drain({ offsetBytes: -512 }), "InvalidArgument", { field: "offsetBytes" })
        yield* failsWith(drain({ lengthBytes: bdev.sizeBytes + 512 }), "InvalidArgument", { field: "lengthBytes" })
        for (const chunkBytes of [0, -512, 1.5, NaN, 5 * 1024 ** 2]) {
          yield* failsWith(drain({ chunkBytes }), "InvalidArgument", { field: "chunkBytes" })
        }
        for (const concurrency of [0, -1, 1.5, NaN]) {
          yield* failsWith(drain({ concurrency }), "InvalidArgument", { field: "concurrency" })
        }
      })
    )
  })
