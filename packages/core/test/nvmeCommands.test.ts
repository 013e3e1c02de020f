import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import { DmaBuffer } from "../src/index.ts"
import { encodeAsyncEvent } from "../src/internal/nvme/wire/asyncEvent.ts"
import { identifyController } from "../src/internal/nvme/wire/identify.ts"
import { encodeDiscoveryLog } from "../src/internal/nvme/wire/logPages.ts"
import * as Nvme from "../src/Nvme.ts"
import { entry, reasonOf, somewhere, withFakeNvme } from "./support/fakeNvme.ts"

describe("NvmeNamespace commands", () => {
  const open = Effect.gen(function* () {
    const controller = yield* Nvme.connect(somewhere)
    return yield* controller.namespace(1)
  })

  it.effect("are those of the specification", () =>
    withFakeNvme((nvme) =>
      Effect.gen(function* () {
        const disk = yield* open
        const buffer = yield* DmaBuffer.make(4096)
        yield* disk.compare(1024, buffer)
        yield* disk.datasetManagement(
          [
            { offsetBytes: 512, lengthBytes: 1024 },
            { offsetBytes: 8192, lengthBytes: 512 }
          ],
          { deallocate: true, integralRead: true }
        )
        yield* disk.copy([{ offsetBytes: 1024, lengthBytes: 2048 }], 4096)
        const [compare, dataset, copy] = nvme.ios
        assert.deepStrictEqual([compare?.opcode, compare?.nsid, compare?.cdw10, compare?.offsetBytes], [5, 1, 2, 7])
        assert.deepStrictEqual([dataset?.opcode, dataset?.cdw10, dataset?.cdw11], [9, 1, 5])
        const ranges = new DataView(dataset?.bytes.buffer ?? new ArrayBuffer(0))
        assert.deepStrictEqual(
          [ranges.getUint32(4, true), ranges.getBigUint64(8, true), ranges.getUint32(20, true)],
          [2, 1n, 1]
        )
        assert.strictEqual(ranges.getBigUint64(24, true), 16n)
        assert.deepStrictEqual([copy?.opcode, copy?.cdw10, copy?.offsetBytes], [0x19, 8, 0])
        const source = new DataView(copy?.bytes.buffer ?? new ArrayBuffer(0))
        assert.deepStrictEqual([source.getBigUint64(8, true), source.getUint16(16, true)], [2n, 3])
      })
    )
  )

  it.effect("answer with the device's status", () =>
    withFakeNvme((nvme) =>
      Effect.gen(function* () {
        const disk = yield* open
        const buffer = yield* DmaBuffer.make(512)
        nvme.answerIo = () => ({ status: 0x4285 })
        const differs = yield* reasonOf(disk.compare(0, buffer))
        assert.deepStrictEqual([differs._tag, differs.nvme], ["Miscompare", { sct: 2, sc: 0x85, dnr: true }])
        nvme.answerIo = () => ({ dword0: 0xffff_fffe })
        assert.strictEqual((yield* disk.io({ opcode: 0x80 })).dword0, 0xffff_fffe)
        assert.strictEqual(buffer.pins, 0)
      })
    )
  )

  it.effect("are refused once the namespace has gone", () =>
    withFakeNvme((nvme) =>
      Effect.gen(function* () {
        const disk = yield* open
        const events = yield* Effect.forkChild(Stream.runCollect(disk.events), { startImmediately: true })
        nvme.tellNamespace({ _tag: "Resized", numBlocks: 4096 })
        assert.strictEqual(disk.numBlocks, 4096)
        nvme.tellNamespace({ _tag: "Removed" })
        assert.deepStrictEqual(yield* Fiber.join(events), [{ _tag: "Resized", numBlocks: 4096 }, { _tag: "Removed" }])
        const buffer = yield* DmaBuffer.make(512)
        assert.strictEqual((yield* reasonOf(disk.compare(0, buffer)))._tag, "DeviceRemoved")
        assert.strictEqual((yield* reasonOf(disk.io({ opcode: 0 })))._tag, "DeviceRemoved")
        assert.strictEqual(nvme.ios.length, 0)
      })
    )
  )
})

describe("discovery", () => {
  it.effect("finds, loses, and looks again at notices and ticks", () =>
    withFakeNvme((nvme) =>
      Effect.gen(function* () {
        let names: ReadonlyArray<string> = ["a", "b"]
        let generation = 1n
        nvme.answer = (command) => {
          if (command.opcode === 0x09) return {}
          if (command.opcode === 0x06) {
            command.bytes.set(identifyController.encode({ asyncEvents: { discoveryLogChange: true } }))
            return {}
          }
          const page = encodeDiscoveryLog(generation, names.map(entry))
          command.bytes.set(page.subarray(command.offsetBytes, command.offsetBytes + command.bytes.length))
          return {}
        }
        const seen: Array<string> = []
        const fiber = yield* Effect.forkChild(
          Stream.runForEach(Nvme.discover(somewhere, { schedule: Schedule.spaced("1 minute") }), (event) =>
            Effect.sync(() => void seen.push(`${event._tag} ${event.subsystem.subnqn.at(-1)}`))
          )
        )
        const sees = (count: number) => Effect.repeat(Effect.yieldNow, { until: () => seen.length >= count })
        yield* sees(2)
        assert.deepStrictEqual(seen, ["Found a", "Found b"])
        names = ["b", "c"]
        generation = 2n
        nvme.tell({ _tag: "AsyncEvent", dword0: encodeAsyncEvent(2, 0xf0, 0x70) })
        yield* sees(4)
        assert.deepStrictEqual(seen.slice(2), ["Lost a", "Found c"])
        names = []
        yield* TestClock.adjust("1 minute")
        yield* sees(6)
        assert.deepStrictEqual(seen.slice(4), ["Lost b", "Lost c"])
        nvme.tell({ _tag: "Failed", message: "cut" })
        const exit = yield* Fiber.await(fiber)
        assert.isTrue(Exit.isFailure(exit))
        assert.include(nvme.log, "disconnect")
        const set = nvme.admins.find(({ opcode }) => opcode === 0x09)
        assert.deepStrictEqual([set?.cdw10, set?.cdw11], [0x0b, 0x8000_0000])
      })
    )
  )

  it.effect("of this machine's devices follows what probing finds", () =>
    withFakeNvme((nvme) =>
      Effect.gen(function* () {
        const device = (traddr: string) => ({
          trtype: "PCIe" as const,
          adrfam: undefined,
          traddr,
          trsvcid: "",
          subnqn: "",
          priority: 0
        })
        nvme.probed = [device("0000:5e:00.0")]
        const seen: Array<string> = []
        yield* Effect.forkScoped(
          Stream.runForEach(Nvme.hotplug(), (event) =>
            Effect.sync(() => void seen.push(`${event._tag} ${event.transportId.traddr}`))
          )
        )
        const sees = (count: number) => Effect.repeat(Effect.yieldNow, { until: () => seen.length >= count })
        yield* sees(1)
        nvme.probed = [device("0000:5f:00.0")]
        yield* TestClock.adjust("1 second")
        yield* sees(3)
        assert.deepStrictEqual(seen, ["Found 0000:5e:00.0", "Lost 0000:5e:00.0", "Found 0000:5f:00.0"])
      })
    )
  )
})
