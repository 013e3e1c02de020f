/** I/O to NVMe namespaces: what bdevs have too, and what only NVMe has. */
import * as Nvme from "@effect-spdk/core/Nvme"
import * as DmaBuffer from "@effect-spdk/core/DmaBuffer"
import * as SpdkThread from "@effect-spdk/core/SpdkThread"
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { long } from "../support/engines.ts"
import { contract, failsWith, pattern, sameBytes, within } from "../support/harness.ts"
import { makeProxy } from "../support/nvmeProxy.ts"
import { exported } from "../support/nvmfTarget.ts"
import { type NvmeSuite, opened, sharedTarget } from "../support/nvmeSuite.ts"
import { readsLimits, tellsMiscompare } from "../support/spdkVersion.ts"
import { seeded } from "../support/random.ts"

const block = 512
const writeZeroes = 0x08
/** Of the long form of the random workload. */
const longMillis = 10 * 60_000

export const suite: NvmeSuite = (name, layer, capabilities, factory) => {
  const target = sharedTarget(factory)
  contract(name, layer, (check) => {
    check("reads what was written, in sizes from one block to beyond one command", () =>
      Effect.gen(function* () {
        const { controller, disk } = yield* opened(target)
        const most = controller.maxTransferBytes
        for (const lengthBytes of [block, 4096, 8192 + block, most - block, most, most + block, 3 * most + 1024]) {
          const buffer = yield* DmaBuffer.make(lengthBytes)
          const bytes = pattern(lengthBytes, lengthBytes)
          buffer.bytes.set(bytes)
          yield* disk.write(block, buffer)
          buffer.bytes.fill(0)
          yield* disk.read(block, buffer)
          sameBytes(buffer.bytes, bytes, `${lengthBytes} bytes`)
          sameBytes(yield* disk.readBytes(block, lengthBytes), bytes, `${lengthBytes} bytes as plain memory`)
        }
      })
    )

    // The embedded host takes no notice of limits, and its target none of its own.
    if (capabilities.engine === "libspdk") {
      check("zeroes are written in commands as large as the controller takes", () =>
        Effect.gen(function* () {
          yield* readsLimits
          const { port, subnqn } = yield* exported(yield* target, { wzsl: 1 })
          const proxy = yield* makeProxy(port)
          const controller = yield* Nvme.connect(
            `trtype:TCP adrfam:IPv4 traddr:127.0.0.1 trsvcid:${proxy.port} subnqn:${subnqn}`
          )
          const disk = yield* controller.namespace(1)
          yield* disk.writeBytes(0, pattern(65_536, 1))
          let commands = 0
          proxy.decide = ({ opcode, queueId }) => {
            if (queueId > 0 && opcode === writeZeroes) commands++
            return "pass"
          }
          yield* disk.writeZeroes(0, 65_536)
          assert.strictEqual(commands, 8)
          sameBytes(yield* disk.readBytes(0, 65_536), new Uint8Array(65_536), "the zeroes")
        })
      )
    }

    check("reads and writes scattered memory in any pieces", () =>
      Effect.gen(function* () {
        const { disk } = yield* opened(target)
        const lengths = [1, 16, 3, 200, 7].map((blocks) => blocks * block)
        const buffers = yield* Effect.forEach(lengths, (length) => DmaBuffer.make(length))
        const total = lengths.reduce((sum, length) => sum + length, 0)
        const bytes = pattern(total, 5)
        yield* disk.writeBytes(0, bytes)
        yield* disk.readv(0, buffers)
        sameBytes(Buffer.concat(buffers.map((buffer) => buffer.bytes)), bytes, "the pieces")
        const turned = buffers.toReversed()
        yield* disk.writev(total, turned)
        const written = yield* disk.readBytes(total, total)
        sameBytes(written, Buffer.concat(turned.map((buffer) => buffer.bytes)), "the pieces written")
      })
    )

    check("random I/O at many sizes and depths agrees with a model", () =>
      seeded((random) =>
        Effect.gen(function* () {
          const { disk } = yield* opened(target, { namespaces: [{ nsid: 1, numBlocks: 8192 }] })
          const model = new Uint8Array(disk.sizeBytes)
          const end = Date.now() + (long ? longMillis : 0)
          for (let round = 0; round < 30 || Date.now() < end; round++) {
            // Regions of one round are apart, so that they may run together in any order.
            const region = disk.sizeBytes / 16
            yield* Effect.forEach(
              Array.from({ length: 16 }, (_, i) => i),
              (i) => {
                const lengthBlocks = 1 + random.below(random.chance(0.2) ? region / block : 16)
                const offsetBlocks = random.below(region / block - lengthBlocks + 1)
                const offsetBytes = i * region + offsetBlocks * block
                const lengthBytes = lengthBlocks * block
                const part = model.subarray(offsetBytes, offsetBytes + lengthBytes)
                if (random.chance(0.5)) {
                  return Effect.map(disk.readBytes(offsetBytes, lengthBytes), (bytes) =>
                    sameBytes(bytes, part, `${lengthBytes} bytes at ${offsetBytes} in round ${round}`)
                  )
                }
                if (random.chance(0.15)) {
                  part.fill(0)
                  return disk.writeZeroes(offsetBytes, lengthBytes)
                }
                part.set(pattern(lengthBytes, random.word()))
                return disk.writeBytes(offsetBytes, part.slice())
              },
              { concurrency: "unbounded", discard: true }
            )
          }
          sameBytes(yield* disk.readBytes(0, disk.sizeBytes), model, "the whole namespace")
        })
      )
    )

    check("batches read and write many at the cost of one", () =>
      Effect.gen(function* () {
        const { disk } = yield* opened(target)
        const buffers = yield* Effect.forEach(Array.from({ length: 300 }), () => DmaBuffer.make(4096))
        const entries = buffers.map((buffer, i) => ({ offsetBytes: i * 4096, buffer }))
        buffers.forEach((buffer, i) => buffer.bytes.set(pattern(4096, i)))
        yield* disk.writeBatch(entries)
        const reads = yield* disk.prepareReads(entries)
        for (let run = 0; run < 3; run++) {
          for (const buffer of buffers) buffer.bytes.fill(0)
          yield* reads.run
          buffers.forEach((buffer, i) => sameBytes(buffer.bytes, pattern(4096, i), `entry ${i} of run ${run}`))
        }
      })
    )

    check("streams and sinks move bytes that are no whole blocks", () =>
      Effect.gen(function* () {
        const { disk } = yield* opened(target)
        const bytes = pattern(1_000_003, 8)
        const chunks = Array.from({ length: 11 }, (_, i) => bytes.subarray(i * 100_000, (i + 1) * 100_000))
        const moved = yield* Stream.run(Stream.fromIterable(chunks), disk.sink({ offsetBytes: 77 }))
        assert.strictEqual(moved, bytes.length)
        const back = yield* Stream.runCollect(disk.stream({ offsetBytes: 77, lengthBytes: bytes.length }))
        sameBytes(Buffer.concat(back), bytes, "the stream")
      })
    )

    check("flush, unmap and write zeroes", () =>
      Effect.gen(function* () {
        const { disk } = yield* opened(target)
        yield* disk.writeBytes(0, pattern(65_536, 3))
        yield* disk.flush()
        yield* disk.writeZeroes(4096, 8192)
        sameBytes(yield* disk.readBytes(4096, 8192), new Uint8Array(8192), "the zeroes")
        sameBytes(yield* disk.readBytes(0, 4096), pattern(65_536, 3).subarray(0, 4096), "what lies before")
        // More blocks than one command can name.
        yield* disk.writeZeroes(0, disk.sizeBytes)
        sameBytes(yield* disk.readBytes(disk.sizeBytes - 65_536, 65_536), new Uint8Array(65_536), "the end")
        yield* disk.writeBytes(0, pattern(4096, 3))
        yield* disk.unmap(0, disk.sizeBytes)
        // A malloc bdev reads zeroes where it was unmapped.
        sameBytes(yield* disk.readBytes(0, 4096), new Uint8Array(4096), "what was unmapped")
      })
    )

    check("compare tells whether the content is the same", () =>
      Effect.gen(function* () {
        if (capabilities.engine === "libspdk") yield* tellsMiscompare
        const { disk } = yield* opened(target)
        const buffer = yield* DmaBuffer.make(8192)
        buffer.bytes.set(pattern(8192, 4))
        yield* disk.write(4096, buffer)
        yield* disk.compare(4096, buffer)
        buffer.bytes[8191] = (buffer.bytes[8191] ?? 0) ^ 1
        const { nvme } = yield* failsWith(disk.compare(4096, buffer), "Miscompare")
        assert.deepStrictEqual([nvme?.sct, nvme?.sc], [2, 0x85])
      })
    )

    check("dataset management deallocates what it was told, and nothing else", () =>
      Effect.gen(function* () {
        const { disk } = yield* opened(target)
        const bytes = pattern(64 * 1024, 6)
        yield* disk.writeBytes(0, bytes)
        const ranges = [0, 2, 5].map((i) => ({ offsetBytes: i * 8192, lengthBytes: 8192 }))
        yield* disk.datasetManagement(ranges, { integralRead: true })
        sameBytes(yield* disk.readBytes(0, bytes.length), bytes, "after advice")
        yield* disk.datasetManagement(ranges, { deallocate: true })
        const after = yield* disk.readBytes(0, bytes.length)
        for (const [i, { lengthBytes, offsetBytes }] of ranges.entries()) {
          const found = after.subarray(offsetBytes, offsetBytes + lengthBytes)
          // A controller carries out as many ranges as it says (DMRL), of nvmf_tgt one, and ignores the others.
          const isKept = i > 0 && found.some((byte) => byte !== 0)
          if (!isKept) bytes.fill(0, offsetBytes, offsetBytes + lengthBytes)
        }
        sameBytes(after, bytes, "the ranges and what lies around them")
      })
    )

    check("copy moves blocks inside of the device, where it can", () =>
      Effect.gen(function* () {
        const { controller, disk } = yield* opened(target)
        const { nvmCommands } = yield* controller.identify
        const bytes = pattern(16_384, 7)
        yield* disk.writeBytes(0, bytes)
        const copied = disk.copy([{ offsetBytes: 4096, lengthBytes: 8192 }], 1024 * 1024)
        if (!nvmCommands.copy) {
          yield* failsWith(copied, "NotSupported")
          return
        }
        yield* copied
        sameBytes(yield* disk.readBytes(1024 * 1024, 8192), bytes.subarray(4096, 12_288), "the copy")
      })
    )

    check("any command of the I/O queue goes through as it is", () =>
      Effect.gen(function* () {
        const { disk } = yield* opened(target)
        const bytes = pattern(4096, 9)
        yield* disk.io({ opcode: 0x01, cdw10: 8, cdw12: 7, data: bytes })
        sameBytes(yield* disk.readBytes(4096, 4096), bytes, "what a write command wrote")
        const { data } = yield* disk.io({ opcode: 0x02, cdw10: 8, cdw12: 7, lengthBytes: 4096 })
        sameBytes(data, bytes, "what a read command read")
        const buffer = yield* DmaBuffer.make(4096)
        yield* disk.io({ opcode: 0x02, cdw10: 8, cdw12: 7, buffer })
        sameBytes(buffer.bytes, bytes, "what it read into a buffer")
        yield* disk.io({ opcode: 0x00 })
        const beyond = yield* failsWith(
          disk.io({ opcode: 0x02, cdw10: 0xffff_ffff, cdw12: 7, lengthBytes: 4096 }),
          "InvalidArgument"
        )
        assert.deepStrictEqual([beyond.nvme?.sct, beyond.nvme?.sc], [0, 0x80])
        const unknown = yield* failsWith(disk.io({ opcode: 0x7c }), "NotSupported")
        assert.deepStrictEqual([unknown.nvme?.sct, unknown.nvme?.sc], [0, 1])
      })
    )

    check("a thread of one's own has a queue pair of its own", () =>
      Effect.gen(function* () {
        const { disk } = yield* opened(target)
        const thread = yield* SpdkThread.spawn({ name: "second" })
        const bytes = pattern(65_536, 10)
        yield* disk.writeBytes(0, bytes).pipe(SpdkThread.on(thread))
        const channel = yield* disk.channel.pipe(SpdkThread.on(thread))
        assert.strictEqual(channel.thread, thread)
        sameBytes(yield* channel.readBytes(0, 65_536), bytes, "by the channel")
        const { data } = yield* channel.io({ opcode: 0x02, cdw10: 0, cdw12: 7, lengthBytes: 4096 })
        sameBytes(data, bytes.subarray(0, 4096), "by a command through the channel")
        sameBytes(yield* disk.readBytes(0, 65_536), bytes, "by the main thread")
      })
    )

    check("several namespaces and handles at once keep apart", () =>
      Effect.gen(function* () {
        const { controller, disk } = yield* opened(target, {
          namespaces: [{ nsid: 1 }, { nsid: 2, blockSize: 4096, numBlocks: 2048 }]
        })
        const second = yield* controller.namespace(2)
        const again = yield* controller.namespace(1)
        assert.deepStrictEqual([disk.blockSize, second.blockSize], [512, 4096])
        const work = (handle: typeof disk, seed: number, offsetBytes: number) =>
          Effect.gen(function* () {
            for (let round = 0; round < 20; round++) {
              yield* handle.writeBytes(offsetBytes, pattern(16_384, seed + round))
              sameBytes(yield* handle.readBytes(offsetBytes, 16_384), pattern(16_384, seed + round), `handle ${seed}`)
            }
          })
        yield* within(
          "three handles at work",
          Effect.all([work(disk, 100, 0), work(second, 200, 0), work(again, 300, 1024 * 1024)], {
            concurrency: "unbounded"
          })
        )
      })
    )

    check("digests over headers and data change nothing but the wire", () =>
      Effect.gen(function* () {
        for (const digests of [
          { headerDigest: true },
          { dataDigest: true },
          { headerDigest: true, dataDigest: true }
        ]) {
          const { disk } = yield* opened(target, digests)
          const bytes = pattern(300_032, 11)
          yield* disk.writeBytes(512, bytes)
          sameBytes(yield* disk.readBytes(512, bytes.length), bytes, JSON.stringify(digests))
        }
      })
    )

    check("more requests than a queue has entries wait for their turn", () =>
      Effect.gen(function* () {
        const { disk } = yield* opened(target, { ioQueueSize: 8, ioQueues: 1 })
        const bytes = pattern(4096, 12)
        yield* within(
          "500 writes and reads",
          Effect.forEach(
            Array.from({ length: 500 }, (_, i) => i * 4096),
            (offsetBytes) => Effect.andThen(disk.writeBytes(offsetBytes, bytes), disk.readBytes(offsetBytes, 4096)),
            { concurrency: "unbounded", discard: true }
          )
        )
      })
    )
  })
}
