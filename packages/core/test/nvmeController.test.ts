import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { DmaBuffer } from "../src/index.ts"
import { EngineService } from "../src/internal/engine/service.ts"
import { encodeDiscoveryLog } from "../src/internal/nvme/wire/logPages.ts"
import { encodeAsyncEvent } from "../src/internal/nvme/wire/asyncEvent.ts"
import { identifyNamespace } from "../src/internal/nvme/wire/identify.ts"
import * as Nvme from "../src/Nvme.ts"
import { IoFailed, SpdkError } from "../src/SpdkError.ts"
import { FakeEngine } from "./support/fakeEngine.ts"
import { entry, type FakeNvme, reasonOf, somewhere, withFakeNvme } from "./support/fakeNvme.ts"

/** A log page out of these bytes. */
const servesLog = (nvme: FakeNvme, page: () => Uint8Array) => {
  nvme.answer = (command) => {
    if (command.opcode !== 0x02) return nvme.identify(command)
    const bytes = page()
    command.bytes.set(bytes.subarray(command.offsetBytes, command.offsetBytes + command.bytes.length))
    return {}
  }
}

describe("NvmeController", () => {
  it.effect("tells what the engine found", () =>
    withFakeNvme((nvme) =>
      Effect.gen(function* () {
        const controller = yield* Nvme.connect(somewhere, { hostnqn: "nqn.2016-06.io.spdk:me", keepAlive: false })
        assert.strictEqual(controller.version, "1.4.0")
        assert.deepStrictEqual(controller.capabilities, {
          maxQueueEntries: 128,
          contiguousQueues: true,
          readyTimeoutMillis: 15_000,
          subsystemReset: false,
          minPageBytes: 4096,
          maxPageBytes: 4096
        })
        assert.strictEqual((yield* controller.identify).serialNumber, "FAKE")
        assert.strictEqual(nvme.settings?.keepAliveMillis, 0)
        assert.strictEqual(nvme.settings?.adminQueueSize, 32)
        assert.strictEqual(nvme.settings?.ioTimeoutMillis, 30_000)
        yield* Effect.scoped(Nvme.connect(somewhere, { ioTimeout: Infinity }))
        assert.strictEqual(nvme.settings?.ioTimeoutMillis, 0)
        assert.strictEqual(nvme.settings?.hostId.length, 16)
      })
    )
  )

  it.effect("has one host id per host name", () =>
    withFakeNvme((nvme) =>
      Effect.gen(function* () {
        const idOf = (options: Nvme.ConnectOptions) =>
          Effect.map(Effect.scoped(Nvme.connect(somewhere, options)), () =>
            Buffer.from(nvme.settings?.hostId ?? []).toString("hex")
          )
        const uuid = "11112222-3333-4444-8555-666677778888"
        assert.strictEqual(yield* idOf({ hostId: uuid }), uuid.replaceAll("-", ""))
        assert.strictEqual(nvme.settings?.hostnqn, `nqn.2014-08.org.nvmexpress:uuid:${uuid}`)
        assert.strictEqual(
          yield* idOf({ hostnqn: `nqn.2014-08.org.nvmexpress:uuid:${uuid}` }),
          uuid.replaceAll("-", "")
        )
        const named = yield* idOf({ hostnqn: "nqn.2016-06.io.spdk:me" })
        assert.strictEqual(yield* idOf({ hostnqn: "nqn.2016-06.io.spdk:me" }), named)
        assert.notStrictEqual(yield* idOf({ hostnqn: "nqn.2016-06.io.spdk:you" }), named)
        assert.strictEqual(yield* idOf({}), yield* idOf({}))
      })
    )
  )

  it.effect("is not supported by an engine without a driver", () =>
    Effect.gen(function* () {
      for (const attempt of [
        Effect.asVoid(Effect.scoped(Nvme.connect(somewhere))),
        Effect.asVoid(Nvme.probe(somewhere)),
        Stream.runDrain(Nvme.discover(somewhere)),
        Stream.runDrain(Nvme.hotplug())
      ]) {
        assert.strictEqual((yield* reasonOf(attempt))._tag, "NotSupported")
      }
    }).pipe(Effect.provideService(EngineService, new FakeEngine()))
  )

  it.effect("calls lies corrupted, and says where", () =>
    withFakeNvme((nvme) =>
      Effect.gen(function* () {
        const controller = yield* Nvme.connect(somewhere)
        nvme.answer = ({ bytes }) => {
          bytes.set(identifyNamespace.encode({ numBlocks: 1n, lbaFormatDescriptors: [{ blockSizeExponent: 3 }] }))
          return {}
        }
        const lie = yield* reasonOf(Effect.scoped(controller.namespace(1)))
        if (lie._tag !== "Corrupted") assert.fail(lie.message)
        assert.match(lie.message, /identify data of the namespace has blocks of 2\^3 bytes/)
        assert.deepStrictEqual(nvme.log, ["connect", "open 1", "close"], "and closes what it had opened")
        servesLog(nvme, () => new Uint8Array(4096).fill(0xff))
        assert.strictEqual((yield* reasonOf(controller.logPages.discovery))._tag, "Corrupted")
      })
    )
  )

  it.effect("holds the memory of a command that is in flight, and takes none that is released", () =>
    withFakeNvme((nvme) =>
      Effect.gen(function* () {
        const controller = yield* Nvme.connect(somewhere)
        const gate = yield* Deferred.make<void>()
        nvme.onAdmin = Deferred.await(gate)
        const scope = yield* Scope.make()
        const buffer = yield* Scope.provide(DmaBuffer.make(4096), scope)
        const asking = yield* Effect.forkChild(controller.admin({ opcode: 0x06, cdw10: 1, buffer }), {
          startImmediately: true
        })
        assert.strictEqual(buffer.pins, 1)
        const releasing = yield* Effect.forkChild(Scope.close(scope, Exit.void), { startImmediately: true })
        assert.isUndefined(releasing.pollUnsafe(), "the release waits")
        yield* Deferred.succeed(gate, undefined)
        yield* Fiber.join(asking)
        yield* Fiber.join(releasing)
        const gone = yield* reasonOf(controller.admin({ opcode: 0x06, cdw10: 1, buffer }))
        assert.strictEqual(gone._tag, "Released", gone.message)
      })
    )
  )

  it.effect("reads long log pages in pieces, in whole pages", () =>
    withFakeNvme((nvme) =>
      Effect.gen(function* () {
        nvme.maxTransferBytes = 10_000
        const controller = yield* Nvme.connect(somewhere)
        const page = Uint8Array.from({ length: 20_000 }, (_, i) => i % 251)
        servesLog(nvme, () => page)
        nvme.admins.length = 0
        const bytes = yield* controller.logPages.raw({ logPage: 0xc0, lengthBytes: 19_000, offsetBytes: 8 })
        assert.deepStrictEqual(bytes, page.subarray(8, 19_008))
        assert.deepStrictEqual(
          nvme.admins.map(({ bytes: { length }, offsetBytes }) => [offsetBytes, length]),
          [
            [8, 8192],
            [8200, 8192],
            [16_392, 2616]
          ]
        )
        // NUMD is split over two dwords, and counts from 0.
        assert.deepStrictEqual(
          nvme.admins.map(({ cdw10, cdw11 }) => [(cdw10 >>> 16) + cdw11 * 65_536 + 1, cdw10 & 0xff]),
          [
            [2048, 0xc0],
            [2048, 0xc0],
            [654, 0xc0]
          ]
        )
      })
    )
  )

  it.effect("reads the discovery log of one generation, or says that it cannot", () =>
    withFakeNvme((nvme) =>
      Effect.gen(function* () {
        const controller = yield* Nvme.connect(somewhere)
        let reads = 0
        let changes = 3
        servesLog(nvme, () => {
          if (++reads % 3 === 2 && changes > 0) changes--
          return encodeDiscoveryLog(BigInt(changes), [entry(`disk${changes}`), entry("other")])
        })
        const found = yield* controller.logPages.discovery
        assert.deepStrictEqual(
          found.map(({ subnqn }) => subnqn),
          ["nqn.2016-06.io.spdk:disk0", "nqn.2016-06.io.spdk:other"]
        )
        let generation = 0n
        servesLog(nvme, () => encodeDiscoveryLog(++generation, [entry("x")]))
        const busy = yield* reasonOf(controller.logPages.discovery)
        assert.strictEqual(busy._tag, "Busy", busy.message)
      })
    )
  )

  it.effect("keeps the newest events for who reads late, and ends them with the controller", () =>
    withFakeNvme((nvme) =>
      Effect.gen(function* () {
        const scope = yield* Scope.make()
        const controller = yield* Scope.provide(Nvme.connect(somewhere), scope)
        const seen: Array<string> = []
        let isOpen = false
        const fiber = yield* Effect.forkChild(
          Stream.runForEach(controller.events, (event) =>
            Effect.andThen(
              Effect.repeat(Effect.yieldNow, { until: () => isOpen }),
              Effect.sync(() => void seen.push(event._tag === "ErrorReported" ? `${event.info}` : event._tag))
            )
          ),
          { startImmediately: true }
        )
        for (let i = 0; i < 1000; i++) nvme.tell({ _tag: "AsyncEvent", dword0: encodeAsyncEvent(0, i % 256, 1) })
        nvme.tell({ _tag: "Failed", message: "cut" })
        assert.strictEqual(controller.state, "failed")
        isOpen = true
        yield* Scope.close(scope, Exit.void)
        yield* Fiber.join(fiber)
        assert.isAtMost(seen.length, 260)
        assert.strictEqual(seen.at(-1), "Failed")
        assert.strictEqual(seen.at(-2), `${999 % 256}`)
        // Who comes too late gets an end, and not silence.
        assert.deepStrictEqual(yield* Stream.runCollect(controller.events), [])
        nvme.tell({ _tag: "AsyncEvent", dword0: 2 })
      })
    )
  )

  it.effect("tells which namespaces came and went, however many notices there were", () =>
    withFakeNvme((nvme) =>
      Effect.gen(function* () {
        const controller = yield* Nvme.connect(somewhere)
        const fiber = yield* Effect.forkChild(
          Stream.runCollect(
            Stream.take(
              Stream.filter(controller.events, ({ _tag }) => _tag !== "NamespaceAttributeChanged"),
              3
            )
          ),
          { startImmediately: true }
        )
        nvme.namespaceIds = [2, 9]
        for (let i = 0; i < 5; i++) nvme.tell({ _tag: "AsyncEvent", dword0: encodeAsyncEvent(2, 0, 4) })
        assert.deepStrictEqual(yield* Fiber.join(fiber), [
          { _tag: "NamespaceRemoved", nsid: 1 },
          { _tag: "NamespaceAdded", nsid: 2 },
          { _tag: "NamespaceAdded", nsid: 9 }
        ])
      })
    )
  )

  it.effect("recovers by reset, and says so", () =>
    withFakeNvme((nvme) =>
      Effect.gen(function* () {
        const controller = yield* Nvme.connect(somewhere)
        const events = yield* Effect.forkChild(Stream.runCollect(Stream.take(controller.events, 2)), {
          startImmediately: true
        })
        nvme.tell({ _tag: "Failed", message: "cut" })
        nvme.onReset = Effect.fail(new SpdkError({ reason: new IoFailed({ operation: "reset" }) }))
        assert.strictEqual((yield* reasonOf(controller.reset))._tag, "IoFailed")
        assert.strictEqual(controller.state, "failed")
        nvme.onReset = Effect.void
        yield* controller.reset
        assert.strictEqual(controller.state, "connected")
        assert.deepStrictEqual(yield* Fiber.join(events), [{ _tag: "Failed", message: "cut" }, { _tag: "Recovered" }])
      })
    )
  )

  it.effect("that leaves the machine fails everything with DeviceRemoved, and still closes", () =>
    withFakeNvme((nvme) =>
      Effect.gen(function* () {
        const scope = yield* Scope.make()
        const controller = yield* Scope.provide(Nvme.connect(somewhere), scope)
        nvme.tell({ _tag: "Removed" })
        assert.deepStrictEqual(yield* Stream.runCollect(controller.events), [{ _tag: "Removed" }])
        for (const attempt of [
          Effect.asVoid(controller.identify),
          Effect.asVoid(controller.namespaces),
          controller.reset,
          Effect.asVoid(Effect.scoped(controller.namespace(1)))
        ]) {
          assert.strictEqual((yield* reasonOf(attempt))._tag, "DeviceRemoved")
        }
        yield* Scope.close(scope, Exit.void)
        assert.deepStrictEqual(nvme.log, ["connect", "disconnect"])
      })
    )
  )

  it.effect("closes namespaces before it disconnects, and each of them once", () =>
    withFakeNvme((nvme, engine) =>
      Effect.gen(function* () {
        const scope = yield* Scope.make()
        const later = yield* Scope.make()
        const controller = yield* Scope.provide(Nvme.connect(somewhere), scope)
        const disk = yield* Scope.provide(controller.namespace(1), later)
        const buffer = yield* DmaBuffer.make(512)
        const reading = yield* Effect.forkChild(disk.read(0, buffer), { startImmediately: true })
        yield* Effect.repeat(Effect.yieldNow, { until: () => engine.queue.inFlight === 1 })
        const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void), { startImmediately: true })
        assert.deepStrictEqual(nvme.log, ["connect", "open 1"], "waits for the read")
        assert.strictEqual((yield* reasonOf(disk.read(0, buffer)))._tag, "Released")
        engine.queue.complete()
        yield* Fiber.join(reading)
        yield* Fiber.join(closing)
        yield* Scope.close(later, Exit.void)
        assert.deepStrictEqual(nvme.log, ["connect", "open 1", "close", "disconnect"])
      })
    )
  )

  it.effect("a namespace that opens while its controller is released is closed again", () =>
    withFakeNvme((nvme) =>
      Effect.gen(function* () {
        const scope = yield* Scope.make()
        const controller = yield* Scope.provide(Nvme.connect(somewhere), scope)
        const gate = yield* Deferred.make<void>()
        nvme.onOpenNamespace = Deferred.await(gate)
        const opening = yield* Effect.forkChild(reasonOf(Effect.scoped(controller.namespace(1))), {
          startImmediately: true
        })
        yield* Scope.close(scope, Exit.void)
        yield* Deferred.succeed(gate, undefined)
        assert.strictEqual((yield* Fiber.join(opening))._tag, "Released")
        assert.deepStrictEqual(nvme.log, ["connect", "disconnect", "open 1", "close"])
      })
    )
  )

  it.effect("connecting that fails or is interrupted leaves nothing", () =>
    withFakeNvme((nvme, engine) =>
      Effect.gen(function* () {
        nvme.onConnect = Effect.fail(new SpdkError({ reason: new IoFailed({ operation: "connect" }) }))
        assert.strictEqual((yield* reasonOf(Effect.scoped(Nvme.connect(somewhere))))._tag, "IoFailed")
        nvme.onConnect = Effect.never
        const fiber = yield* Effect.forkChild(Effect.scoped(Nvme.connect(somewhere)), { startImmediately: true })
        yield* Fiber.interrupt(fiber)
        assert.deepStrictEqual(nvme.log, [])
        assert.strictEqual(engine.slabs.size, 0)
      })
    )
  )
})
