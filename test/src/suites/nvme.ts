/** NVMe controllers: identify, log pages, features, admin commands, events, reset, discovery. */
import * as Nvme from "@effect-spdk/core/Nvme"
import * as NvmeTransportId from "@effect-spdk/core/NvmeTransportId"
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { contract, failsWith, fresh, until, within } from "../support/harness.ts"
import { connected, type NvmeSuite, sharedTarget } from "../support/nvmeSuite.ts"
import { identifyOutput, identifyTool, valueOf } from "../support/nvmeIdentify.ts"
import { addNamespace, exported, type NvmfTarget } from "../support/nvmfTarget.ts"
import { titled } from "../support/spdkTools.ts"

const hostnqn = "nqn.2016-06.io.spdk:host-of-the-suite"
const uuid = "11112222-3333-4444-8555-666677778888"

/** Collects a stream's events from now on, in a fiber of the scope. */
const gathered = <A, R>(stream: Stream.Stream<A, never, R>) =>
  Effect.gen(function* () {
    const events: Array<A> = []
    const fiber = yield* Effect.forkScoped(
      Stream.runForEach(stream, (event) => Effect.sync(() => void events.push(event))),
      { startImmediately: true }
    )
    return { events, fiber }
  })

const saysWhatIdentifyPrints = (target: Effect.Effect<NvmfTarget>) =>
  Effect.gen(function* () {
    const { controller, subsystem } = yield* connected(target, { serial: "SN-42", model: "Printed" })
    const printed = yield* identifyOutput(subsystem.transportId)
    const said = (label: string, section?: string) => valueOf(printed, label, section)
    const yes = (flag: boolean) => (flag ? "Supported" : "Not Supported")
    const identify = yield* controller.identify
    assert.strictEqual(identify.serialNumber, said("Serial Number"))
    assert.strictEqual(identify.modelNumber, said("Model Number"))
    assert.strictEqual(identify.firmwareRevision, said("Firmware Version"))
    assert.strictEqual(identify.subnqn, said("Subsystem NQN"))
    assert.strictEqual(identify.pciVendorId.toString(16).padStart(4, "0"), said("Vendor ID"))
    assert.strictEqual(`${identify.maxNamespaceId}`, said("Max Number of Namespaces"))
    assert.strictEqual(`${identify.abortLimit + 1}`, said("Abort Command Limit"))
    assert.strictEqual(`${identify.asyncEventLimit + 1}`, said("Async Event Request Limit"))
    assert.strictEqual(`${identify.errorLogEntries + 1}`, said("Error Log Page Entries Supported"))
    assert.strictEqual(`${identify.keepAliveGranularity * 100} ms`, said("Keep Alive Granularity"))
    assert.strictEqual(`${controller.capabilities.maxQueueEntries}`, said("Maximum Queue Entries"))
    assert.strictEqual(`${controller.capabilities.readyTimeoutMillis} ms`, said("Reset Timeout"))
    assert.strictEqual(yes(identify.nvmCommands.compare), said("Compare Command"))
    assert.strictEqual(yes(identify.nvmCommands.datasetManagement), said("Dataset Management Command"))
    assert.strictEqual(yes(identify.nvmCommands.writeZeroes), said("Write Zeroes Command"))
    assert.strictEqual(yes(identify.nvmCommands.copy), said("Copy"))
    assert.strictEqual(yes(identify.asyncEvents.namespaceAttribute), said("Namespace Attribute Notices"))
    assert.strictEqual(yes(identify.asyncEvents.anaChange), said("ANA Change Notices"))
    const { info } = yield* controller.namespace(1)
    const inNamespace = "Active Namespaces"
    assert.strictEqual(`${info.numBlocks}`, said("Size (in LBAs)", inNamespace).split(" ")[0])
    assert.strictEqual(info.nguid, said("NGUID", inNamespace))
    assert.strictEqual(info.uuid, said("UUID", inNamespace))
    assert.strictEqual(`${info.identify.anaGroupId}`, said("ANA group ID", inNamespace))
  })

export const suite: NvmeSuite = (name, layer, capabilities, factory) => {
  const target = sharedTarget(factory)
  contract(name, layer, (check, it) => {
    check("a controller says what the target was told", () =>
      Effect.gen(function* () {
        const { controller, subsystem } = yield* connected(target, { serial: "SN0815", model: "A model" })
        const identify = yield* controller.identify
        assert.strictEqual(identify.serialNumber, "SN0815")
        assert.strictEqual(identify.modelNumber, "A model")
        assert.strictEqual(identify.subnqn, subsystem.subnqn)
        assert.strictEqual(identify.controllerType, 1)
        assert.strictEqual(controller.state, "connected")
        assert.match(controller.version, /^[12]\.\d\.\d$/)
        assert.strictEqual(NvmeTransportId.format(controller.transportId), subsystem.transportId)
        assert.isAtLeast(controller.ioQueues, 1)
        assert.isAtLeast(controller.capabilities.maxQueueEntries, 2)
        assert.strictEqual(controller.capabilities.minPageBytes, 4096)
        const told = identify.maxDataTransfer === 0 ? Infinity : 4096 * 2 ** identify.maxDataTransfer
        assert.isAtMost(controller.maxTransferBytes, told)
        assert.isAtLeast(controller.maxTransferBytes, 4096)
        assert.isTrue(Nvme.isNvmeController(controller))
      })
    )

    const asPrinted = titled("identify says what spdk_nvme_identify prints", identifyTool)
    if (identifyTool.missing === undefined) check(asPrinted, () => saysWhatIdentifyPrints(target))
    else it.skip(asPrinted, () => {})

    check("namespaces have the sizes and names that the target gave them", () =>
      Effect.gen(function* () {
        const running = yield* target
        const subsystem = yield* exported(running, { namespaces: [] })
        const bdev_name = fresh("ns")
        yield* running.rpc("bdev_malloc_create", { name: bdev_name, block_size: 4096, num_blocks: 1024, uuid })
        yield* Effect.addFinalizer(() => running.rpc("bdev_malloc_delete", { name: bdev_name }))
        const namespace = {
          bdev_name,
          nsid: 3,
          nguid: "0123456789ABCDEF0123456789ABCDEF",
          eui64: "FEDCBA9876543210"
        }
        yield* running.rpc("nvmf_subsystem_add_ns", { nqn: subsystem.subnqn, namespace })
        const controller = yield* Nvme.connect(subsystem.transportId)
        assert.deepStrictEqual(yield* controller.namespaces, [3])
        const { info } = yield* controller.namespace(3)
        assert.deepStrictEqual(
          [info.nsid, info.blockSize, info.numBlocks, info.sizeBytes, info.metadataBytes],
          [3, 4096, 1024, 4096 * 1024, 0]
        )
        assert.deepStrictEqual([info.nguid, info.eui64, info.uuid], [namespace.nguid, namespace.eui64, uuid])
        yield* failsWith(controller.namespace(4), "NotFound")
      })
    )

    check("log pages decode, and the same bytes are there raw", () =>
      Effect.gen(function* () {
        const { controller } = yield* connected(target, { namespaces: [{ nsid: 1 }, { nsid: 2 }] })
        const { logPages } = controller
        const health = yield* logPages.health()
        assert.isFalse(health.criticalWarning.readOnly)
        const firmware = yield* logPages.firmware
        const { firmwareRevision } = yield* controller.identify
        assert.strictEqual(firmware.revisions[firmware.slots.active - 1], firmwareRevision)
        assert.deepStrictEqual(yield* logPages.errors(4), [])
        assert.deepStrictEqual((yield* logPages.changedNamespaces).namespaceIds, [])
        const effects = yield* logPages.commandEffects
        assert.strictEqual(effects.admin[0x06]?.supported, 1)
        assert.strictEqual(effects.io[0x02]?.supported, 1)
        assert.strictEqual(effects.io[0x01]?.changesBlocks, 1)
        const ana = yield* logPages.ana
        assert.deepStrictEqual(
          ana.groups.flatMap(({ namespaceIds, state }) => namespaceIds.map((nsid) => [nsid, state])),
          [
            [1, "optimized"],
            [2, "optimized"]
          ]
        )
        const whole = yield* logPages.raw({ logPage: 3, lengthBytes: 512 })
        const part = yield* logPages.raw({ logPage: 3, lengthBytes: 8, offsetBytes: 8 })
        assert.deepStrictEqual(part, whole.slice(8, 16))
        const unknown = yield* failsWith(logPages.raw({ logPage: 0xc7, lengthBytes: 512 }), "InvalidArgument")
        assert.isDefined(unknown.nvme, unknown.message)
      })
    )

    check("features are read and set", () =>
      Effect.gen(function* () {
        const { controller } = yield* connected(target, { hostnqn, hostId: uuid })
        const { features } = controller
        assert.strictEqual(yield* features.hostIdentifier, uuid)
        const queues = yield* features.get("numberOfQueues")
        assert.isAtLeast(queues.submission + 1, controller.ioQueues)
        const { enabled } = yield* features.get("volatileWriteCache")
        assert.isBoolean(enabled)
        const before = yield* features.get("asyncEvents")
        yield* features.set("asyncEvents", { ...before, anaChange: !before.anaChange })
        assert.strictEqual((yield* features.get("asyncEvents")).anaChange, !before.anaChange)
        yield* features.set("asyncEvents", before)
        assert.deepStrictEqual(yield* features.get("asyncEvents"), before)
        const raw = yield* features.getRaw({ feature: 0x0b })
        assert.strictEqual((raw.dword0 & 0x100) !== 0, before.namespaceAttribute)
        assert.isDefined((yield* failsWith(features.getRaw({ feature: 0xc1 }), "InvalidArgument")).nvme)
      })
    )

    check("admin commands go through as they are", () =>
      Effect.gen(function* () {
        const { controller } = yield* connected(target)
        const { data } = yield* controller.admin({ opcode: 0x06, cdw10: 1, lengthBytes: 4096 })
        const { serialNumber } = yield* controller.identify
        assert.strictEqual(new TextDecoder().decode(data.subarray(4, 24)).trimEnd(), serialNumber)
        const keepAlive = yield* controller.admin({ opcode: 0x18 })
        assert.strictEqual(keepAlive.data.length, 0)
        const refused = yield* failsWith(controller.admin({ opcode: 0xc2, lengthBytes: 16 }), "NotSupported")
        assert.deepStrictEqual([refused.nvme?.sct, refused.nvme?.sc], [0, 1])
        const lost = yield* failsWith(
          controller.admin({ opcode: 0x06, nsid: 999, cdw10: 0x3, lengthBytes: 4096 }),
          "NotFound"
        )
        assert.deepStrictEqual([lost.nvme?.sct, lost.nvme?.sc], [0, 0x0b])
      })
    )

    check("many commands at once are answered each with its own", () =>
      Effect.gen(function* () {
        const { controller } = yield* connected(target, { namespaces: [1, 2, 3].map((nsid) => ({ nsid })) })
        const answers = yield* Effect.forEach(
          Array.from({ length: 200 }, (_, i) => (i % 3) + 1),
          (nsid) =>
            Effect.map(controller.admin({ opcode: 0x06, nsid, cdw10: 0x3, lengthBytes: 4096 }), ({ data }) => ({
              nsid,
              hex: Buffer.from(data).toString("hex")
            })),
          { concurrency: "unbounded" }
        )
        const seen = new Map(answers.map(({ hex, nsid }) => [nsid, hex]))
        for (const { hex, nsid } of answers) assert.strictEqual(hex, seen.get(nsid))
        assert.strictEqual(new Set(seen.values()).size, 3)
      })
    )

    check("namespaces that come and go are told", () =>
      Effect.gen(function* () {
        const { controller, subsystem, target: running } = yield* connected(target)
        const { events } = yield* gathered(controller.events)
        const has = (tag: string, nsid: number) =>
          Effect.sync(() => events.some((event) => event._tag === tag && "nsid" in event && event.nsid === nsid))
        yield* controller.identify
        yield* addNamespace(running, subsystem.subnqn, 7)
        yield* until("NamespaceAdded", has("NamespaceAdded", 7))
        assert.deepStrictEqual(yield* controller.namespaces, [1, 7])
        const seven = yield* controller.namespace(7)
        yield* seven.readBytes(0, 512)
        const ofSeven = yield* gathered(seven.events)
        yield* running.rpc("nvmf_subsystem_remove_ns", { nqn: subsystem.subnqn, nsid: 7 })
        yield* until("NamespaceRemoved", has("NamespaceRemoved", 7))
        assert.deepStrictEqual(yield* controller.namespaces, [1])
        yield* within("the end of the namespace's events", Fiber.await(ofSeven.fiber))
        assert.deepStrictEqual(ofSeven.events, [{ _tag: "Removed" }])
        assert.isTrue(seven.isRemoved)
        yield* failsWith(seven.readBytes(0, 512), "DeviceRemoved")
        assert.isTrue(events.some(({ _tag }) => _tag === "NamespaceAttributeChanged"))
      })
    )

    check("a namespace that grows is told, and larger", () =>
      Effect.gen(function* () {
        const running = yield* target
        const subsystem = yield* exported(running, { namespaces: [] })
        const bdev_name = fresh("ns")
        yield* running.rpc("bdev_null_create", { name: bdev_name, block_size: 512, num_blocks: 2048 })
        yield* Effect.addFinalizer(() => running.rpc("bdev_null_delete", { name: bdev_name }))
        yield* running.rpc("nvmf_subsystem_add_ns", { nqn: subsystem.subnqn, namespace: { bdev_name, nsid: 1 } })
        const controller = yield* Nvme.connect(subsystem.transportId)
        const disk = yield* controller.namespace(1)
        const { events } = yield* gathered(disk.events)
        yield* failsWith(disk.readBytes(2048 * 512, 512), "InvalidArgument")
        yield* running.rpc("bdev_null_resize", { name: bdev_name, new_size: 2 })
        yield* until(
          "Resized",
          Effect.sync(() => events.length > 0)
        )
        assert.deepStrictEqual(events, [{ _tag: "Resized", numBlocks: 4096 }])
        assert.strictEqual(disk.numBlocks, 4096)
        assert.strictEqual((yield* disk.identify).numBlocks, 4096)
        yield* disk.readBytes(2048 * 512, 512)
      })
    )

    check("a reset keeps the controller and its namespaces", () =>
      Effect.gen(function* () {
        const { controller } = yield* connected(target)
        const disk = yield* controller.namespace(1)
        const bytes = new Uint8Array(4096).fill(0x5a)
        yield* disk.writeBytes(0, bytes)
        for (let round = 0; round < 3; round++) {
          yield* within("a reset", controller.reset)
          assert.deepStrictEqual(yield* within("a read", disk.readBytes(0, 4096)), bytes)
          assert.strictEqual((yield* controller.identify).serialNumber, "CONTRACT1")
        }
      })
    )

    check("two controllers of one subsystem see the same namespace", () =>
      Effect.gen(function* () {
        const { controller, subsystem } = yield* connected(target)
        const other = yield* Nvme.connect(subsystem.transportId)
        const ids = yield* Effect.forEach([controller, other], ({ identify }) => identify)
        assert.notStrictEqual(ids[0]?.controllerId, ids[1]?.controllerId)
        const [here, there] = [yield* controller.namespace(1), yield* other.namespace(1)]
        const bytes = new Uint8Array(512).fill(9)
        yield* here.writeBytes(1024, bytes)
        assert.deepStrictEqual(yield* there.readBytes(1024, 512), bytes)
      })
    )

    check("the end of a controller's scope ends its namespaces, its events and itself", () =>
      Effect.gen(function* () {
        const running = yield* target
        const subsystem = yield* exported(running)
        const scope = yield* Scope.make()
        const controller = yield* Scope.provide(Nvme.connect(subsystem.transportId), scope)
        // In a scope of its own, which ends later.
        const disk = yield* controller.namespace(1)
        yield* disk.readBytes(0, 512)
        const { fiber } = yield* gathered(controller.events)
        yield* Scope.close(scope, Exit.void)
        assert.strictEqual(controller.state, "released")
        yield* failsWith(controller.identify, "Released", { what: "controller" })
        yield* failsWith(controller.namespace(1), "Released")
        yield* failsWith(controller.reset, "Released")
        yield* failsWith(disk.readBytes(0, 512), "Released")
        assert.isTrue(Exit.isSuccess(yield* within("the end of the events", Fiber.await(fiber))))
        const left = running.rpc("nvmf_subsystem_get_controllers", { nqn: subsystem.subnqn })
        yield* until(
          "the target has no controller left",
          Effect.map(left, (controllers) => Array.isArray(controllers) && controllers.length === 0)
        )
      })
    )

    check("discovery finds what is there, what comes and what goes", () =>
      Effect.gen(function* () {
        const running = yield* target
        const subsystem = yield* exported(running, { discovery: true })
        const service = `trtype:TCP traddr:127.0.0.1 trsvcid:${subsystem.port}`
        const found = yield* Nvme.probe(service)
        assert.include(
          found.map(({ subnqn }) => subnqn),
          subsystem.subnqn
        )
        const { events } = yield* gathered(Stream.orDie(Nvme.discover(service)))
        const has = (tag: string, subnqn: string) =>
          Effect.sync(() => events.some((event) => event._tag === tag && event.subsystem.subnqn === subnqn))
        yield* until("Found of what was there", has("Found", subsystem.subnqn))
        const late = yield* Effect.scoped(
          Effect.gen(function* () {
            const second = yield* exported(running)
            yield* until("Found of what came", has("Found", second.subnqn))
            return second.subnqn
          })
        )
        yield* until("Lost of what went", has("Lost", late))
        assert.isFalse(yield* has("Lost", subsystem.subnqn))
        const first = events.find((event) => event.subsystem.subnqn === subsystem.subnqn)
        assert.strictEqual(first?.subsystem.transportId?.trsvcid, `${subsystem.port}`)
      })
    )

    check("layers compose: a controller, and a namespace of it", () =>
      Effect.gen(function* () {
        const { subsystem } = yield* connected(target)
        const Disk = Nvme.layerNamespace({ nsid: 1 }).pipe(
          Layer.provideMerge(Nvme.layerController({ transportId: subsystem.transportId, headerDigest: true }))
        )
        const program = Effect.gen(function* () {
          const disk = yield* Nvme.NvmeNamespace
          const controller = yield* Nvme.NvmeController
          assert.isTrue(Nvme.isNvmeNamespace(disk))
          yield* disk.readBytes(0, 512)
          return controller
        })
        const controller = yield* Effect.provide(program, Disk)
        assert.strictEqual(controller.state, "released")
      })
    )

    check("devices of this machine are looked for where the engine has PCIe", () =>
      Effect.gen(function* () {
        const looks = Stream.runDrain(Nvme.hotplug({ schedule: Schedule.recurs(2) }))
        if (capabilities.engine === "libspdk") yield* within("three looks", looks)
        else yield* failsWith(looks, "NotSupported")
      })
    )

    check("a host that is not allowed is refused, and then allowed", () =>
      Effect.gen(function* () {
        const running = yield* target
        const subsystem = yield* exported(running, { hosts: ["nqn.2016-06.io.spdk:somebody-else"] })
        const refused = yield* failsWith(
          Effect.scoped(Nvme.connect(subsystem.transportId, { hostnqn })),
          "PermissionDenied"
        )
        assert.isFalse(refused.isRetryable)
        const nobody = `${subsystem.transportId}-nobody`
        yield* failsWith(Effect.scoped(Nvme.connect(nobody, { hostnqn })), "NotFound")
        yield* running.rpc("nvmf_subsystem_add_host", { nqn: subsystem.subnqn, host: hostnqn })
        const controller = yield* Nvme.connect(subsystem.transportId, { hostnqn })
        assert.strictEqual(controller.state, "connected")
      })
    )
  })
}
