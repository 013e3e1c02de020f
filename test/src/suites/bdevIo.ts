/** The operations of an open bdev, each against bytes that are known. */
import * as Bdev from "@effect-spdk/core/Bdev"
import * as DmaBuffer from "@effect-spdk/core/DmaBuffer"
import * as SpdkThread from "@effect-spdk/core/SpdkThread"
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Stream from "effect/Stream"
import { KiB } from "../support/blobs.ts"
import { type Capabilities, type EngineLayer, scratchFile } from "../support/engines.ts"
import {
  blockSize,
  contract,
  expectReasonIn,
  failsWith,
  fresh,
  mallocOpened,
  pattern,
  sameBytes,
  within
} from "../support/harness.ts"
import { errorBdev, examined } from "../support/held.ts"
import { seeded } from "../support/random.ts"

const zeroes = (length: number) => new Uint8Array(length)

export const suite = (name: string, layer: EngineLayer, _capabilities: Capabilities): void =>
  contract(name, layer, (check) => {
    check("tells what it is", () =>
      Effect.gen(function* () {
        const bdev = yield* mallocOpened(2048)
        assert.strictEqual(bdev.blockSize, blockSize)
        assert.strictEqual(bdev.numBlocks, 2048)
        assert.strictEqual(bdev.sizeBytes, 2048 * blockSize)
        assert.isTrue(bdev.writable)
        for (const op of ["read", "write", "flush", "unmap", "writeZeroes", "reset", "abort"] as const) {
          assert.isTrue(bdev.supports(op), op)
        }
        const found = yield* Bdev.find(bdev.name)
        assert.strictEqual(found.name, bdev.name)
        assert.strictEqual(found.blockSize, blockSize)
        assert.strictEqual(found.numBlocks, 2048)
        assert.include(
          (yield* Bdev.list).map((one) => one.name),
          bdev.name
        )
      })
    )

    check("reads zeroes before anything is written", () =>
      Effect.gen(function* () {
        const bdev = yield* mallocOpened(256)
        sameBytes(yield* bdev.readBytes(0, bdev.sizeBytes), zeroes(bdev.sizeBytes), "the fresh bdev")
      })
    )

    check("reads back what was written, block by block and over the whole bdev", () =>
      Effect.gen(function* () {
        const bdev = yield* mallocOpened(512)
        const whole = pattern(bdev.sizeBytes, 3)
        const buffer = yield* DmaBuffer.make(bdev.sizeBytes)
        buffer.bytes.set(whole)
        yield* bdev.write(0, buffer)
        buffer.bytes.fill(0)
        yield* bdev.read(0, buffer)
        sameBytes(buffer.bytes, whole, "the whole bdev")
        const block = yield* DmaBuffer.make(blockSize)
        for (const index of [0, 1, 255, 511]) {
          yield* bdev.read(index * blockSize, block)
          sameBytes(block.bytes, whole.subarray(index * blockSize, (index + 1) * blockSize), `block ${index}`)
        }
        block.bytes.fill(0x5a)
        yield* bdev.write(511 * blockSize, block)
        whole.fill(0x5a, 511 * blockSize)
        yield* bdev.read(0, buffer)
        sameBytes(buffer.bytes, whole, "the whole bdev after its last block")
      })
    )

    check("is seen by a second handle, and each handle has its own state", () =>
      Effect.gen(function* () {
        const bdev = yield* mallocOpened()
        const reader = yield* Bdev.open(bdev.name)
        assert.isFalse(reader.writable)
        yield* bdev.writeBytes(0, pattern(blockSize * 3, 4))
        sameBytes(yield* reader.readBytes(0, blockSize * 3), pattern(blockSize * 3, 4), "through the second handle")
        yield* Effect.scoped(Effect.flatMap(Bdev.open(bdev.name), (third) => third.readBytes(0, blockSize)))
        sameBytes(yield* reader.readBytes(0, blockSize), pattern(blockSize * 3, 4).subarray(0, blockSize), "afterwards")
      })
    )

    check("scatters and gathers over buffers of any block-aligned lengths", () =>
      seeded((random) =>
        Effect.gen(function* () {
          const bdev = yield* mallocOpened(4096)
          for (const pieces of [1, 2, 3, 4, 5, 8, 9, 31, 32]) {
            yield* Effect.scoped(
              Effect.gen(function* () {
                const lengths = Array.from({ length: pieces }, () => blockSize * (1 + random.below(6)))
                const total = lengths.reduce((sum, length) => sum + length, 0)
                const offset = blockSize * random.below(2048)
                const bytes = pattern(total, pieces)
                const sources = yield* Effect.forEach(lengths, (length) => DmaBuffer.make(length))
                let at = 0
                for (const source of sources) {
                  source.bytes.set(bytes.subarray(at, at + source.byteLength))
                  at += source.byteLength
                }
                yield* bdev.writev(offset, sources)
                sameBytes(yield* bdev.readBytes(offset, total), bytes, `${pieces} pieces on the bdev`)
                // Another division of the same range.
                const targets = yield* Effect.forEach(lengths.toReversed(), (length) => DmaBuffer.make(length))
                yield* bdev.readv(offset, targets)
                sameBytes(Buffer.concat(targets.map((target) => target.bytes)), bytes, `${pieces} pieces read`)
              })
            )
          }
        })
      )
    )

    check("vectors of slices of one buffer, in any order", () =>
      Effect.gen(function* () {
        const bdev = yield* mallocOpened()
        const buffer = yield* DmaBuffer.make(blockSize * 8)
        yield* bdev.writeBytes(0, pattern(blockSize * 8, 12))
        const order = [5, 0, 7, 2, 6, 1, 4, 3]
        yield* bdev.readv(
          0,
          order.map((index) => buffer.slice(index * blockSize, blockSize))
        )
        for (const [from, to] of order.entries()) {
          sameBytes(
            buffer.bytes.subarray(to * blockSize, (to + 1) * blockSize),
            pattern(blockSize * 8, 12).subarray(from * blockSize, (from + 1) * blockSize),
            `piece ${from}`
          )
        }
      })
    )

    check("unmaps and writes zeroes to exactly the range", () =>
      Effect.gen(function* () {
        const bdev = yield* mallocOpened(256)
        const clears = [
          (offset: number, length: number) => bdev.unmap(offset, length),
          (offset: number, length: number) => bdev.writeZeroes(offset, length)
        ]
        for (const clear of clears) {
          const expected = pattern(bdev.sizeBytes, 6)
          yield* bdev.writeBytes(0, expected)
          yield* clear(blockSize * 10, blockSize * 20)
          expected.fill(0, blockSize * 10, blockSize * 30)
          sameBytes(yield* bdev.readBytes(0, bdev.sizeBytes), expected, "the bdev around the cleared range")
          yield* clear(0, bdev.sizeBytes)
          sameBytes(yield* bdev.readBytes(0, bdev.sizeBytes), zeroes(bdev.sizeBytes), "the cleared bdev")
        }
      })
    )

    check("flushes a range and the whole, and resets without losing what was written", () =>
      Effect.gen(function* () {
        const bdev = yield* mallocOpened(256)
        yield* bdev.writeBytes(0, pattern(bdev.sizeBytes, 8))
        yield* bdev.flush()
        yield* bdev.flush({ offsetBytes: blockSize, lengthBytes: blockSize * 2 })
        yield* bdev.reset
        sameBytes(yield* bdev.readBytes(0, bdev.sizeBytes), pattern(bdev.sizeBytes, 8), "after flush and reset")
      })
    )

    check("plain bytes are copied: changing them afterwards changes nothing", () =>
      Effect.gen(function* () {
        const bdev = yield* mallocOpened()
        const bytes = pattern(blockSize * 4, 5)
        yield* bdev.writeBytes(0, bytes)
        bytes.fill(0)
        const read = yield* bdev.readBytes(0, blockSize * 4)
        sameBytes(read, pattern(blockSize * 4, 5), "what was written")
        read.fill(1)
        sameBytes(yield* bdev.readBytes(0, blockSize * 4), pattern(blockSize * 4, 5), "what is on the bdev")
        const view = pattern(blockSize * 4, 7).subarray(blockSize, blockSize * 2)
        yield* bdev.writeBytes(blockSize * 9, view)
        sameBytes(yield* bdev.readBytes(blockSize * 9, blockSize), view, "a view into a larger array")
      })
    )

    check("plain bytes far larger than a pooled buffer", () =>
      Effect.gen(function* () {
        const bdev = yield* mallocOpened(16_384)
        const bytes = pattern(5 * 1024 ** 2 + blockSize * 3, 11)
        yield* bdev.writeBytes(blockSize, bytes)
        sameBytes(yield* bdev.readBytes(blockSize, bytes.length), bytes, "five megabytes")
      })
    )

    check("64 plain reads and writes of 1 MiB at once share the pool without mixing", () =>
      Effect.gen(function* () {
        const bdev = yield* mallocOpened(65_536)
        const length = 512 * 1024
        yield* Effect.forEach(
          Array.from({ length: 64 }),
          (_, index) =>
            Effect.gen(function* () {
              yield* bdev.writeBytes(index * length, pattern(length, index))
              sameBytes(yield* bdev.readBytes(index * length, length), pattern(length, index), `stripe ${index}`)
            }),
          { concurrency: "unbounded", discard: true }
        )
      })
    )

    check("counts its I/O as SPDK does", () =>
      Effect.gen(function* () {
        const bdev = yield* mallocOpened()
        yield* examined
        const before = yield* bdev.stats
        const buffer = yield* DmaBuffer.make(4096)
        for (let index = 0; index < 10; index++) yield* bdev.write(index * 4096, buffer)
        for (let index = 0; index < 7; index++) yield* bdev.read(index * 4096, buffer)
        yield* bdev.unmap(0, blockSize * 2)
        const after = yield* bdev.stats
        assert.strictEqual(after.writeOps - before.writeOps, 10)
        assert.strictEqual(after.writtenBytes - before.writtenBytes, 40_960)
        assert.strictEqual(after.readOps - before.readOps, 7)
        assert.strictEqual(after.readBytes - before.readBytes, 28_672)
        assert.strictEqual(after.unmapOps - before.unmapOps, 1)
        assert.strictEqual(after.unmappedBytes - before.unmappedBytes, 1024)
      })
    )

    check("an explicit channel does the same, lives as long as its scope, and stays on its thread", () =>
      Effect.gen(function* () {
        const bdev = yield* mallocOpened()
        const thread = yield* SpdkThread.spawn({ name: fresh("channel") })
        const dead = yield* Effect.scoped(
          Effect.gen(function* () {
            const channel = yield* bdev.channel.pipe(SpdkThread.on(thread))
            const buffer = yield* DmaBuffer.make(4096)
            buffer.bytes.set(pattern(4096, 2))
            // Not on the thread any more: the channel is what decides.
            yield* channel.write(0, buffer)
            buffer.bytes.fill(0)
            yield* channel.read(0, buffer)
            sameBytes(buffer.bytes, pattern(4096, 2), "through the channel")
            yield* channel.writev(4096, [buffer.slice(0, 512), buffer.slice(512, 512)])
            yield* channel.unmap(0, 512)
            yield* channel.writeZeroes(512, 512)
            yield* channel.flush()
            yield* channel.reset
            return channel
          })
        )
        const buffer = yield* DmaBuffer.make(4096)
        yield* failsWith(dead.read(0, buffer), "Released", { what: "channel" })
        yield* failsWith(dead.write(0, buffer), "Released", { what: "channel" })
        yield* failsWith(dead.unmap(0, 512), "Released", { what: "channel" })
        yield* bdev.read(0, buffer)
      })
    )

    check("4096-byte blocks are blocks of 4096 bytes", () =>
      Effect.gen(function* () {
        const created = yield* Bdev.createMalloc({ name: fresh("malloc4k"), blockSize: 4096, numBlocks: 128 })
        const bdev = yield* Bdev.open(created, { write: true })
        assert.strictEqual(bdev.blockSize, 4096)
        yield* bdev.writeBytes(4096 * 127, pattern(4096, 1))
        sameBytes(yield* bdev.readBytes(4096 * 127, 4096), pattern(4096, 1), "the last block")
        yield* failsWith(bdev.readBytes(512, 4096), "InvalidArgument", { field: "offsetBytes" })
        yield* failsWith(bdev.readBytes(0, 512), "InvalidArgument")
      })
    )

    check("an injected failure is IoFailed, with the NVMe status that SPDK gives", () =>
      Effect.gen(function* () {
        const device = yield* errorBdev()
        const buffer = yield* DmaBuffer.make(blockSize)
        yield* device.inject({ ioType: "read", errorType: "failure", count: 2 })
        const plain = yield* failsWith(device.bdev.read(0, buffer), "IoFailed")
        assert.isFalse(plain.isRetryable)
        yield* failsWith(device.bdev.readBytes(0, blockSize), "IoFailed")
        yield* device.bdev.read(0, buffer)

        // Media error, unrecovered read error.
        yield* device.inject({ ioType: "read", errorType: "nvme_failure", count: 1, nvmeSct: 2, nvmeSc: 0x81 })
        const media = yield* failsWith(device.bdev.read(0, buffer), "IoFailed")
        assert.deepStrictEqual({ sct: media.nvme?.sct, sc: media.nvme?.sc }, { sct: 2, sc: 0x81 })
        // Generic status, namespace not ready: worth a retry.
        yield* device.inject({ ioType: "write", errorType: "nvme_failure", count: 1, nvmeSct: 0, nvmeSc: 0x82 })
        const notReady = yield* failsWith(device.bdev.write(0, buffer), "IoFailed")
        assert.isTrue(notReady.isRetryable)
        yield* device.bdev.write(0, buffer)
        // Statuses with a reason of their own.
        yield* device.inject({ ioType: "write", errorType: "nvme_failure", count: 1, nvmeSct: 0, nvmeSc: 0x81 })
        yield* failsWith(device.bdev.write(0, buffer), "NoSpace")
        yield* device.inject({ ioType: "write", errorType: "nvme_failure", count: 1, nvmeSct: 0, nvmeSc: 0x20 })
        yield* failsWith(device.bdev.write(0, buffer), "ReadOnly")
        yield* device.inject({ ioType: "unmap", errorType: "nvme_failure", count: 1, nvmeSct: 0, nvmeSc: 7 })
        yield* failsWith(device.bdev.unmap(0, blockSize), "Aborted")
        yield* device.inject({ ioType: "flush", errorType: "failure", count: 1 })
        yield* failsWith(device.bdev.flush(), "IoFailed")
      })
    )

    check("an I/O that the device has no memory for waits and then succeeds", () =>
      Effect.gen(function* () {
        const device = yield* errorBdev()
        const buffer = yield* DmaBuffer.make(blockSize)
        yield* device.inject({ ioType: "read", errorType: "nomem", count: 3 })
        // SPDK retries what a module has no memory for when another I/O of the channel completes.
        yield* Effect.forEach(
          Array.from({ length: 8 }),
          (_, index) => device.bdev.read(index * blockSize, buffer.slice(0, blockSize)),
          { concurrency: "unbounded", discard: true }
        )
      })
    )

    check("corruption that a device injects arrives, so that a checksum can find it", () =>
      Effect.gen(function* () {
        const device = yield* errorBdev()
        yield* device.bdev.writeBytes(0, pattern(blockSize, 21))
        yield* device.inject({
          ioType: "read",
          errorType: "corrupt_data",
          count: 1,
          corruptOffset: 100,
          corruptValue: 0xff
        })
        const expected = pattern(blockSize, 21)
        expected[100] = (expected[100] ?? 0) ^ 0xff
        sameBytes(yield* device.bdev.readBytes(0, blockSize), expected, "the corrupted read")
        sameBytes(yield* device.bdev.readBytes(0, blockSize), pattern(blockSize, 21), "the read after it")
      })
    )

    check("an injection clears", () =>
      Effect.gen(function* () {
        const device = yield* errorBdev()
        yield* device.inject({ ioType: "all", errorType: "failure", count: 1000 })
        yield* failsWith(device.bdev.readBytes(0, blockSize), "IoFailed")
        yield* device.inject({ ioType: "clear", errorType: "failure" })
        yield* device.bdev.readBytes(0, blockSize)
      })
    )

    check("bytes are read and written on blocks larger than common memory is aligned to", () =>
      Effect.gen(function* () {
        for (const size of [128 * KiB, 1024 * KiB]) {
          const path = yield* scratchFile
          const name = yield* Bdev.createFile({ path, size: 4 * size, blockSize: size })
          const bdev = yield* Bdev.open(name, { write: true })
          const bytes = pattern(2 * size, 5)
          yield* bdev.writeBytes(size, bytes)
          const parts = Array.from({ length: 8 }, (_, i) => bdev.readBytes((1 + (i % 2)) * size, size))
          for (const [i, part] of (yield* Effect.all(parts, { concurrency: "unbounded" })).entries()) {
            sameBytes(part, bytes.subarray((i % 2) * size, ((i % 2) + 1) * size), `read ${i}`)
          }
          yield* Stream.run(Stream.make(pattern(70_000, 6)), bdev.sink({ offsetBytes: size + 333 }))
          bytes.set(pattern(70_000, 6), 333)
          const chunks = yield* Stream.runCollect(bdev.stream({ offsetBytes: size, lengthBytes: 2 * size }))
          sameBytes(Buffer.concat([...chunks]), bytes, "the stream")
        }
      })
    )

    check("a block longer than all memory for plain bytes is read, or refused, and waits for nobody", () =>
      Effect.gen(function* () {
        const path = yield* scratchFile
        const size = 64 * 1024 * KiB
        const name = yield* Bdev.createFile({ path, size, blockSize: size })
        const bdev = yield* Bdev.open(name)
        const exit = yield* within("the read", Effect.exit(bdev.readBytes(0, size)))
        if (Exit.isFailure(exit)) expectReasonIn(exit, ["NoMemory"])
      })
    )

    check("a file without fallocate offers no unmap, and one with it unmaps", () =>
      Effect.gen(function* () {
        for (const fallocate of [false, true]) {
          const path = yield* scratchFile
          const name = yield* Bdev.createFile({ path, size: 64 * KiB, fallocate })
          const bdev = yield* Bdev.open(name, { write: true })
          assert.strictEqual(bdev.supports("unmap"), fallocate)
          yield* fallocate ? bdev.unmap(0, 4 * KiB) : failsWith(bdev.unmap(0, 4 * KiB), "NotSupported")
        }
      })
    )
  })
