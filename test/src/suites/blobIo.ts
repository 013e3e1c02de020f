/** The I/O of a blob, against bytes that are known: by DMA buffers, at any byte, as streams, in batches, on threads. */
import type * as Blob from "@effect-spdk/blobstore/Blob"
import * as DmaBuffer from "@effect-spdk/core/DmaBuffer"
import * as SpdkThread from "@effect-spdk/core/SpdkThread"
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { type BlobSuite, during, filled, freshStore, KiB, MiB, smallClusters, zeroes } from "../support/blobs.ts"
import { contract, failsWith, fresh, pattern, sameBytes } from "../support/harness.ts"
import { seeded } from "../support/random.ts"

export const suite: BlobSuite = (name, layer, _capabilities, driver) =>
  contract(name, layer, (check) => {
    const blobOf = (clusters: number, options: { readonly thin?: boolean; readonly blockSize?: number } = {}) =>
      Effect.gen(function* () {
        const store = yield* freshStore(driver, { blockSize: options.blockSize ?? 512 })
        return yield* store.create({ clusters, thin: options.thin ?? false })
      })

    check("reads back what was written, over the borders of clusters that do not follow each other", () =>
      Effect.gen(function* () {
        const store = yield* freshStore(driver)
        const blob = yield* store.create({ clusters: 2 })
        const other = yield* store.create({ clusters: 1 })
        yield* blob.resize({ clusters: 4 })
        const bytes = pattern(4 * smallClusters, 1)
        yield* blob.write(0, yield* filled(bytes))
        yield* other.write(0, yield* filled(pattern(smallClusters, 2)))
        const buffer = yield* DmaBuffer.make(4 * smallClusters)
        yield* blob.read(0, buffer)
        sameBytes(buffer.bytes, bytes, "the whole blob")
        const piece = yield* DmaBuffer.make(smallClusters)
        yield* blob.read(2 * smallClusters - 512, piece)
        sameBytes(piece.bytes, bytes.subarray(2 * smallClusters - 512, 3 * smallClusters - 512), "over the border")
        yield* other.read(0, piece)
        sameBytes(piece.bytes, pattern(smallClusters, 2), "the blob in between")
      })
    )

    check("a thin blob reads zeroes where nobody has written, and takes a cluster at the first write", () =>
      Effect.gen(function* () {
        const store = yield* freshStore(driver)
        const { freeClusters } = yield* store.info
        const blob = yield* store.create({ clusters: 64, thin: true })
        assert.strictEqual((yield* store.info).freeClusters, freeClusters)
        sameBytes(yield* blob.readBytes(0, blob.sizeBytes), zeroes(blob.sizeBytes), "the fresh blob")
        assert.strictEqual((yield* blob.info).allocatedClusters, 0)
        yield* blob.writeBytes(5 * smallClusters + 100, pattern(10, 3))
        assert.strictEqual((yield* blob.info).allocatedClusters, 1)
        assert.strictEqual((yield* store.info).freeClusters, freeClusters - 1)
        const expected = zeroes(2 * smallClusters)
        expected.set(pattern(10, 3), smallClusters + 100)
        sameBytes(yield* blob.readBytes(4 * smallClusters, 2 * smallClusters), expected, "around the write")
      })
    )

    check("a thin blob on a full store fails its first writes with NoSpace, and keeps what it has", () =>
      Effect.gen(function* () {
        const store = yield* freshStore(driver)
        const blob = yield* store.create({ clusters: 4, thin: true })
        yield* blob.writeBytes(0, pattern(512, 4))
        yield* store.createId({ clusters: (yield* store.info).freeClusters })
        const buffer = yield* filled(pattern(512, 5))
        yield* failsWith(blob.write(2 * smallClusters, buffer), "NoSpace")
        yield* blob.write(512, buffer)
        sameBytes(yield* blob.readBytes(0, 512), pattern(512, 4), "what was there")
        sameBytes(yield* blob.readBytes(512, 512), pattern(512, 5), "a write to a cluster it has")
        sameBytes(yield* blob.readBytes(2 * smallClusters, 512), zeroes(512), "the write that failed")
      })
    )

    check("tells where it has clusters", () =>
      Effect.gen(function* () {
        const blob = yield* blobOf(8, { thin: true })
        const allocated = (offset: number) =>
          Effect.map(blob.nextAllocated(offset), (found) => (found._tag === "Some" ? found.value : -1))
        const unallocated = (offset: number) =>
          Effect.map(blob.nextUnallocated(offset), (found) => (found._tag === "Some" ? found.value : -1))
        assert.strictEqual(yield* allocated(0), -1)
        assert.strictEqual(yield* unallocated(17), 17)
        for (const cluster of [2, 3, 6]) yield* blob.writeBytes(cluster * smallClusters, pattern(1, cluster))
        assert.strictEqual(yield* allocated(0), 2 * smallClusters)
        assert.strictEqual(yield* allocated(2 * smallClusters + 13), 2 * smallClusters + 13)
        assert.strictEqual(yield* unallocated(2 * smallClusters), 4 * smallClusters)
        assert.strictEqual(yield* allocated(4 * smallClusters), 6 * smallClusters)
        assert.strictEqual(yield* allocated(7 * smallClusters), -1)
        assert.strictEqual(yield* unallocated(8 * smallClusters - 1), 8 * smallClusters - 1)
        assert.strictEqual(yield* allocated(8 * smallClusters), -1)
        const thick = yield* blobOf(2)
        assert.strictEqual(yield* Effect.map(thick.nextUnallocated(0), (found) => found._tag), "None")
        assert.deepStrictEqual(yield* Effect.map(thick.nextAllocated(100), (found) => found._tag), "Some")
      })
    )

    check("scatters and gathers over clusters and pieces of any length", () =>
      seeded((random) =>
        Effect.gen(function* () {
          const blob = yield* blobOf(8)
          for (const pieces of [1, 2, 5, 17, 64]) {
            yield* Effect.scoped(
              Effect.gen(function* () {
                const lengths = Array.from({ length: pieces }, () => 512 * (1 + random.below(8)))
                const total = lengths.reduce((sum, length) => sum + length, 0)
                const offset = 512 * random.below((8 * smallClusters - total) / 512)
                const bytes = pattern(total, pieces)
                const buffers = yield* Effect.forEach(lengths, (length) => DmaBuffer.make(length))
                let at = 0
                for (const buffer of buffers) {
                  buffer.bytes.set(bytes.subarray(at, at + buffer.byteLength))
                  at += buffer.byteLength
                }
                yield* blob.writev(offset, buffers)
                sameBytes(yield* blob.readBytes(offset, total), bytes, `${pieces} pieces in the blob`)
                const back = yield* Effect.forEach(lengths.toReversed(), (length) => DmaBuffer.make(length))
                yield* blob.readv(offset, back)
                sameBytes(Buffer.concat(back.map((buffer) => buffer.bytes)), bytes, `${pieces} pieces read`)
              })
            )
          }
        })
      )
    )

    check("unmaps and writes zeroes to exactly the range, and unmapped clusters of a thin blob are free", () =>
      Effect.gen(function* () {
        const store = yield* freshStore(driver)
        for (const thin of [false, true]) {
          const blob = yield* store.create({ clusters: 6, thin })
          const expected = pattern(blob.sizeBytes, 6)
          yield* blob.writeBytes(0, expected)
          yield* blob.writeZeroes(smallClusters - 1024, smallClusters + 2048)
          expected.fill(0, smallClusters - 1024, 2 * smallClusters + 1024)
          sameBytes(yield* blob.readBytes(0, blob.sizeBytes), expected, "around the zeroes")
          yield* blob.unmap(3 * smallClusters, 2 * smallClusters)
          expected.fill(0, 3 * smallClusters, 5 * smallClusters)
          sameBytes(yield* blob.readBytes(0, blob.sizeBytes), expected, "around the unmapped range")
          assert.strictEqual((yield* blob.info).clusters, 6)
        }
      })
    )

    check("reads and writes any bytes: every alignment at every border", () =>
      seeded((random) =>
        Effect.gen(function* () {
          const blob = yield* blobOf(12, { blockSize: 4096 })
          assert.strictEqual(blob.ioUnitBytes, 4096)
          const model = pattern(blob.sizeBytes, 7)
          yield* blob.writeBytes(0, model)
          const edges = [-4097, -4096, -4095, -1, 0, 1, 4095, 4096]
          const around = edges.map((edge) => 4 * smallClusters + edge)
          for (const start of around) {
            for (const length of [1, 2, 4095, 4096, 4097, 8193, smallClusters, 300 * KiB]) {
              const bytes = pattern(length, random.word())
              yield* blob.writeBytes(start, bytes)
              model.set(bytes, start)
              const from = Math.max(0, start - random.below(5000))
              const to = Math.min(model.length, start + length + random.below(5000))
              sameBytes(yield* blob.readBytes(from, to - from), model.subarray(from, to), `${start}+${length}`)
            }
          }
          sameBytes(yield* blob.readBytes(0, model.length), model, "the whole blob")
          assert.strictEqual((yield* blob.readBytes(blob.sizeBytes, 0)).length, 0)
          yield* blob.writeBytes(blob.sizeBytes, new Uint8Array(0))
        })
      )
    )

    check("writes at the same time that share io units and no byte lose nothing", () =>
      seeded((random) =>
        Effect.gen(function* () {
          const blob = yield* blobOf(1, { blockSize: 4096 })
          const model = pattern(blob.sizeBytes, 8)
          yield* blob.writeBytes(0, model)
          for (let round = 0; round < 4; round++) {
            const pieces: Array<readonly [number, Uint8Array]> = []
            for (let at = 0; at < model.length;) {
              const length = Math.min(1 + random.below(random.chance(0.1) ? 9000 : 700), model.length - at)
              pieces.push([at, pattern(length, random.word())])
              at += length
            }
            yield* Effect.forEach(
              pieces,
              ([at, bytes]) => {
                model.set(bytes, at)
                return blob.writeBytes(at, bytes)
              },
              { concurrency: "unbounded", discard: true }
            )
            sameBytes(yield* blob.readBytes(0, model.length), model, `round ${round}`)
          }
        })
      )
    )

    check("two sinks and a writer meet inside one io unit", () =>
      Effect.gen(function* () {
        const blob = yield* blobOf(2, { blockSize: 4096 })
        const left = pattern(10_001, 9)
        const middle = pattern(100, 10)
        const right = pattern(9_999, 11)
        yield* Effect.all(
          [
            Stream.run(Stream.make(left.subarray(0, 5000), left.subarray(5000)), blob.sink({ chunkBytes: 4096 })),
            blob.writeBytes(10_001, middle),
            Stream.run(Stream.make(right), blob.sink({ offsetBytes: 10_101 }))
          ],
          { concurrency: "unbounded" }
        )
        sameBytes(yield* blob.readBytes(0, 20_100), Buffer.concat([left, middle, right]), "all three")
      })
    )

    check("streams what was sunk, at any byte and in any chunks", () =>
      seeded((random) =>
        Effect.gen(function* () {
          const blob = yield* blobOf(16)
          for (let round = 0; round < 12; round++) {
            const offsetBytes = random.below(400_000)
            const bytes = pattern(1 + random.below(500_000), round)
            const chunks: Array<Uint8Array> = []
            for (let at = 0; at < bytes.length;) {
              const length = 1 + random.below(random.chance(0.5) ? 300_000 : 3000)
              chunks.push(bytes.subarray(at, at + length))
              at += length
            }
            const concurrency = 1 + random.below(8)
            const chunkBytes = 512 * (1 + random.below(200))
            const options = { offsetBytes, chunkBytes, concurrency }
            const written = yield* Stream.run(Stream.fromIterable(chunks), blob.sink(options))
            assert.strictEqual(written, bytes.length)
            const read = yield* Stream.runCollect(blob.stream({ ...options, lengthBytes: bytes.length }))
            sameBytes(Buffer.concat([...read]), bytes, JSON.stringify(options))
          }
        })
      )
    )

    check("a sink that is fed more than fits writes what fits and fails with NoSpace", () =>
      Effect.gen(function* () {
        const blob = yield* blobOf(1)
        const bytes = pattern(smallClusters + 1, 12)
        yield* failsWith(Stream.run(Stream.make(bytes), blob.sink()), "NoSpace")
        sameBytes(yield* blob.readBytes(0, smallClusters), bytes.subarray(0, smallClusters), "what fits")
        yield* failsWith(
          Stream.run(Stream.make(bytes.subarray(0, 11)), blob.sink({ offsetBytes: 5, lengthBytes: 10 })),
          "NoSpace"
        )
        const none = yield* Stream.runCollect(blob.stream({ offsetBytes: smallClusters }))
        assert.strictEqual(none.length, 0)
      })
    )

    check("a stream reads no further ahead than it was told", () =>
      Effect.gen(function* () {
        const blob = yield* blobOf(16)
        const bytes = pattern(MiB, 13)
        yield* blob.writeBytes(0, bytes)
        const first = yield* Stream.runCollect(Stream.take(blob.stream({ chunkBytes: 512, concurrency: 2 }), 3))
        sameBytes(Buffer.concat([...first]), bytes.subarray(0, 1536), "three chunks of many")
      })
    )

    check("batches read and write many places at the cost of one Effect", () =>
      Effect.gen(function* () {
        const blob = yield* blobOf(16)
        const count = 100
        const buffers = yield* Effect.forEach(Array.from({ length: count }), (_, index) =>
          filled(pattern(4096, index + 1))
        )
        const entries = buffers.map((buffer, index) => ({ offsetBytes: ((index * 37) % count) * 8192, buffer }))
        yield* blob.writeBatch(entries)
        for (const buffer of buffers) buffer.bytes.fill(0)
        yield* blob.readBatch(entries)
        for (const [index, buffer] of buffers.entries())
          sameBytes(buffer.bytes, pattern(4096, index + 1), `entry ${index}`)
        const reads = yield* blob.prepareReads(entries)
        for (let round = 1; round <= 3; round++) {
          for (let index = 0; index < count; index++) reads.offsetsBytes[index] = ((index * 37 + round) % count) * 8192
          yield* reads.run
          assert.isTrue(reads.statuses.every((status) => status === 0))
          sameBytes(
            buffers[round]?.bytes ?? zeroes(0),
            yield* blob.readBytes(((round * 37 + round) % count) * 8192, 4096),
            `round ${round}`
          )
        }
        const writes = yield* blob.prepareWrites(entries.slice(0, 4))
        writes.offsetsBytes.set([0, 4096, 8192, 12_288])
        yield* writes.run
        sameBytes(yield* blob.readBytes(4096, 4096), buffers[1]?.bytes ?? zeroes(0), "a prepared write")
        reads.offsetsBytes[7] = blob.sizeBytes
        yield* failsWith(reads.run, "InvalidArgument")
      })
    )

    check("threads have channels of their own, implied and explicit", () =>
      Effect.gen(function* () {
        const blob = yield* blobOf(16)
        const threads = yield* Effect.forEach([1, 2, 3], () => SpdkThread.spawn({ name: fresh("blob") }))
        const slice = (index: number) => index * 4 * smallClusters
        yield* Effect.forEach(
          threads,
          (thread, index) => blob.writeBytes(slice(index) + 3, pattern(100_000, index)).pipe(SpdkThread.on(thread)),
          { concurrency: "unbounded", discard: true }
        )
        yield* Effect.forEach(
          threads,
          (thread, index) =>
            during(blob.channel.pipe(SpdkThread.on(thread)), (channel) =>
              Effect.gen(function* () {
                sameBytes(
                  yield* channel.readBytes(slice(index) + 3, 100_000),
                  pattern(100_000, index),
                  `slice ${index}`
                )
                const buffer = yield* filled(pattern(4096, 20 + index))
                yield* channel.write(slice(index), buffer)
                yield* channel.read(slice(index), buffer)
                sameBytes(buffer.bytes, pattern(4096, 20 + index), "by the channel")
              })
            ),
          { concurrency: "unbounded", discard: true }
        )
        const gone = yield* Effect.scoped(blob.channel)
        yield* failsWith(gone.readBytes(0, 512), "Released")
        yield* failsWith(gone.read(0, yield* DmaBuffer.make(512)), "Released")
        sameBytes(yield* blob.readBytes(slice(1), 4096), pattern(4096, 21), "from the main thread")
      })
    )

    check("first writes to one thin blob from several threads at once give each cluster once", () =>
      Effect.gen(function* () {
        const store = yield* freshStore(driver)
        const { freeClusters } = yield* store.info
        const blob: Blob.Blob = yield* store.create({ clusters: 32, thin: true })
        const threads = yield* Effect.forEach([1, 2], () => SpdkThread.spawn({ name: fresh("thin") }))
        const pieces = Array.from({ length: 128 }, (_, index) => index)
        yield* Effect.forEach(
          pieces,
          (index) => {
            const write = blob.writeBytes(index * 16 * KiB, pattern(16 * KiB, index + 1))
            const thread = threads[index % 3]
            return thread === undefined ? write : write.pipe(SpdkThread.on(thread))
          },
          { concurrency: "unbounded", discard: true }
        )
        for (const index of pieces) {
          sameBytes(yield* blob.readBytes(index * 16 * KiB, 16 * KiB), pattern(16 * KiB, index + 1), `piece ${index}`)
        }
        assert.strictEqual((yield* blob.info).allocatedClusters, 32)
        assert.strictEqual((yield* store.info).freeClusters, freeClusters - 32)
      })
    )
  })
