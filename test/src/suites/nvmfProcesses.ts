/**
 * A target in another process, SPDK's own: controlled over its socket, used from here, changed and killed under load. SPDK's
 * initiator waits in its reactor for what it asks when namespaces change, so that a target on the same reactor could not answer.
 */
import * as Bdev from "@effect-spdk/core/Bdev"
import * as Nvme from "@effect-spdk/core/Nvme"
import * as NvmeBdev from "@effect-spdk/core/NvmeBdev"
import * as Rpc from "@effect-spdk/core/Rpc"
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Logger from "effect/Logger"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { type Capabilities, type EngineLayer, scratchFile } from "../support/engines.ts"
import {
  blockSize,
  contract,
  expectReasonIn,
  failsWith,
  fresh,
  pattern,
  sameBytes,
  until,
  within
} from "../support/harness.ts"
import { progress, startLoad, verifyLoad } from "../support/load.ts"
import { attachedBdev, exported, freePort, freshNqn, makeTarget, pathTo, verifiedRounds } from "../support/nvmf.ts"
import { seeded } from "../support/random.ts"
import { startTarget } from "../support/spdkTarget.ts"
import { canMask } from "../support/spdkVersion.ts"

const deleteMalloc = (name: string) =>
  Effect.flatMap(Rpc.RpcClient, (client) => client.call("bdev_malloc_delete", { name }))

const uuid = "5a1f0a52-94a2-4c4d-8b43-0d8f3e9b6a10"

/** A file exported by a target that was just started. */
const exportFile = (path: string, nqn: string, port: string) =>
  Effect.gen(function* () {
    const target = yield* makeTarget
    const bdev = yield* Bdev.createFile({ name: "file", path, blockSize: 512, size: "4 MiB" })
    const subsystem = yield* target.subsystem({ nqn, allowAnyHost: true })
    yield* subsystem.addNamespace({ bdev, uuid })
    yield* subsystem.addListener({ trsvcid: port })
  })

export const suite = (name: string, layer: EngineLayer, capabilities: Capabilities): void =>
  contract(name, layer, (check) => {
    check("the same program exports in another process, and the bytes are the same", () =>
      seeded((random) =>
        Effect.gen(function* () {
          const other = yield* startTarget
          const made = yield* other.run(exported())
          const { bdev } = yield* attachedBdev(made, { headerDigest: true, dataDigest: true })
          yield* verifiedRounds(bdev, random, 100)
          const [controller] = yield* made.subsystem.controllers
          assert.isAbove(controller?.ioQpairs ?? 0, 0)
        })
      )
    )

    check("a host that preempts and aborts a reservation does not end the target", () =>
      Effect.gen(function* () {
        const other = yield* startTarget
        const made = yield* other.run(exported())
        const controller = yield* Nvme.connect({
          trtype: "TCP",
          traddr: "127.0.0.1",
          trsvcid: made.port,
          subnqn: made.subsystem.nqn
        })
        const disk = yield* controller.namespace(1)
        for (const action of [0, 1, 2]) {
          const acquire = disk.io({ opcode: 0x11, cdw10: action, data: new Uint8Array(16) })
          const exit = yield* Effect.exit(within("the answer", acquire))
          // Before 26.05 SPDK has no mask; its target is not ended by the command, and answers that another host may hold the namespace.
          // The target is the one on PATH, which may be newer.
          expectReasonIn(exit, canMask() ? ["NotSupported"] : ["Busy", "InvalidArgument", "IoFailed", "NotSupported"])
        }
        yield* disk.readBytes(0, 512)
        assert.lengthOf((yield* made.subsystem.info).namespaces, 1)
      })
    )

    check("a namespace that a host uses is removed: the host hears of it, its I/O is answered, and it comes back", () =>
      Effect.gen(function* () {
        const other = yield* startTarget
        const made = yield* other.run(exported({ maxNamespaces: 4 }))
        const second = yield* other.run(Bdev.createMalloc({ name: fresh("second"), blockSize, numBlocks: 1024 }))
        const inner = yield* Scope.make()
        yield* made.subsystem.addNamespace({ bdev: second }).pipe(Scope.provide(inner))
        const controller = yield* NvmeBdev.attach(pathTo(made))
        assert.strictEqual(controller.bdevs.length, 2)
        const opened = yield* Scope.make()
        const bdev = yield* Bdev.open(`${controller.name}n2`, { write: true }).pipe(Scope.provide(opened))
        const events = yield* Effect.forkChild(Stream.runCollect(bdev.events), { startImmediately: true })
        const running = yield* startLoad(bdev)
        yield* progress(running, 100)
        yield* within("the removal", Scope.close(inner, Exit.void))
        assert.deepStrictEqual(
          (yield* within("the event", Fiber.join(events))).map((event) => event._tag),
          ["Removed"]
        )
        yield* until(
          "its I/O fails",
          Effect.sync(() => running.load.failed > 0)
        )
        yield* running.stop
        assert.notInclude([...running.load.reasons], "no SpdkError")
        yield* within("the close", Scope.close(opened, Exit.void))
        yield* until(
          "the bdev is gone",
          Effect.map(controller.currentBdevs, (bdevs) => bdevs.length === 1)
        )
        yield* made.subsystem.addNamespace({ bdev: second, nsid: 2 })
        yield* until(
          "the namespace is seen again",
          Effect.map(controller.currentBdevs, (bdevs) => bdevs.length === 2)
        )
        yield* verifyLoad(running.load, yield* Bdev.open(`${controller.name}n2`))
      })
    )

    check("a bdev that is exported is deleted: the namespace goes with it, the host hears of it", () =>
      Effect.gen(function* () {
        const other = yield* startTarget
        const made = yield* other.run(exported())
        const { bdev } = yield* attachedBdev(made)
        const events = yield* Effect.forkChild(Stream.runCollect(bdev.events), { startImmediately: true })
        yield* other.run(deleteMalloc(made.backing))
        yield* within("the event", Fiber.join(events))
        yield* failsWith(bdev.readBytes(0, blockSize), "DeviceRemoved")
        assert.deepStrictEqual((yield* made.subsystem.info).namespaces, [])
      })
    )

    check("discovery: finds and loses subsystems and their bdevs, and detaches all at its end", () =>
      Effect.gen(function* () {
        const other = yield* startTarget
        const made = yield* other.run(exported())
        const scope = yield* Scope.make()
        const discovery = yield* NvmeBdev.discover({ traddr: "127.0.0.1", trsvcid: made.port }).pipe(
          Scope.provide(scope)
        )
        const events: Array<string> = []
        yield* Effect.forkChild(
          Stream.runForEach(discovery.events(Schedule.spaced("20 millis")), (event) =>
            Effect.sync(() => events.push("bdev" in event ? event._tag : `${event._tag} ${event.transportId.subnqn}`))
          ),
          { startImmediately: true }
        )
        yield* until(
          "the bdev is found",
          Effect.map(discovery.bdevs, (bdevs) => bdevs.length === 1)
        )
        const [found = ""] = yield* discovery.bdevs
        const bdev = yield* Scope.provide(Bdev.open(found, { write: true }), scope)
        yield* bdev.writeBytes(0, pattern(blockSize, 3))
        yield* until(
          "the events say so",
          Effect.sync(() => events.includes("BdevFound") && events.includes(`SubsystemFound ${made.nqn}`))
        )
        // A second subsystem, at the same address, comes and goes.
        const second = yield* Scope.make()
        const more = yield* Scope.provide(other.run(exported({ port: made.port })), second)
        yield* until(
          "the second bdev is found",
          Effect.map(discovery.bdevs, (bdevs) => bdevs.length === 2)
        )
        // The events come of looks: what comes and goes between two of them is none.
        yield* until(
          "the events say that, too",
          Effect.sync(
            () =>
              events.includes(`SubsystemFound ${more.nqn}`) &&
              events.filter((event) => event === "BdevFound").length === 2
          )
        )
        yield* within("the end of the second one", Scope.close(second, Exit.void))
        yield* until(
          "the second subsystem is lost",
          Effect.sync(() => events.includes(`SubsystemLost ${more.nqn}`) && events.includes("BdevLost"))
        )
        assert.strictEqual((yield* discovery.info).transportId.trsvcid, made.port)
        yield* failsWith(NvmeBdev.discover({ name: discovery.name, traddr: "127.0.0.1" }), "AlreadyExists")
        yield* within("the end of discovery", Scope.close(scope, Exit.void))
        yield* failsWith(discovery.info, "NotFound")
        yield* until(
          "its bdevs are gone",
          Effect.map(Bdev.list, (all) => !all.some((one) => one.name === found))
        )
      })
    )

    check(
      "discovery: a target that is killed and started again is followed again, and its bdev has never been away",
      () =>
        Effect.gen(function* () {
          const [path, port, nqn] = [yield* scratchFile, yield* freePort, freshNqn("again")]
          const dead = yield* Scope.make()
          const first = yield* startTarget.pipe(Scope.provide(dead))
          yield* first.run(exportFile(path, nqn, port)).pipe(Scope.provide(dead))
          const discovery = yield* NvmeBdev.discover({
            traddr: "127.0.0.1",
            trsvcid: port,
            lossTimeout: "never",
            reconnectDelay: "1 second",
            attachTimeout: "20 seconds"
          })
          const [name = ""] = yield* discovery.bdevs
          const bdev = yield* Bdev.open(name, { write: true })
          yield* first.kill
          yield* within("the end of what it had", Scope.close(dead, Exit.void))
          const second = yield* startTarget
          yield* second.run(exportFile(path, nqn, port))
          yield* within("a write", bdev.writeBytes(0, pattern(blockSize, 5)), 30_000)
          yield* second.run(exported({ port }))
          yield* until(
            "what is new is found",
            Effect.map(discovery.bdevs, (bdevs) => bdevs.length === 2),
            30_000
          )
          sameBytes(yield* bdev.readBytes(0, blockSize), pattern(blockSize, 5), "what was written meanwhile")
        }),
      { timeoutMillis: 120_000 }
    )

    // SPDK v26.05 itself crashes here, also as nvmf_tgt without this library: it fails a discovery controller that it has let go.
    if (capabilities.engine === "embedded") {
      check(
        "discovery: what a killed target had is lost, and found again when it is started again",
        () =>
          Effect.gen(function* () {
            const [path, port, nqn] = [yield* scratchFile, yield* freePort, freshNqn("again")]
            const dead = yield* Scope.make()
            const first = yield* startTarget.pipe(Scope.provide(dead))
            yield* first.run(exportFile(path, nqn, port)).pipe(Scope.provide(dead))
            const discovery = yield* NvmeBdev.discover({
              traddr: "127.0.0.1",
              trsvcid: port,
              lossTimeout: "2 seconds",
              reconnectDelay: "1 second",
              attachTimeout: "20 seconds"
            })
            assert.lengthOf(yield* discovery.bdevs, 1)
            yield* first.kill
            yield* within("the end of what it had", Scope.close(dead, Exit.void))
            yield* until(
              "the bdev is lost",
              Effect.map(discovery.bdevs, (bdevs) => bdevs.length === 0),
              30_000
            )
            const second = yield* startTarget
            yield* second.run(exportFile(path, nqn, port))
            yield* until(
              "the bdev is found again",
              Effect.map(discovery.bdevs, (bdevs) => bdevs.length === 1),
              30_000
            )
            const [name = ""] = yield* discovery.bdevs
            const bdev = yield* Bdev.open(name, { write: true })
            yield* bdev.writeBytes(0, pattern(blockSize, 5))
            sameBytes(yield* bdev.readBytes(0, blockSize), pattern(blockSize, 5), "what was found again")
          }),
        { timeoutMillis: 120_000 }
      )
    }

    check("failover: a second address for one connection, taken when the first one is gone", () =>
      Effect.gen(function* () {
        const other = yield* startTarget
        const made = yield* other.run(exported())
        const port = yield* freePort
        yield* made.subsystem.addListener({ trsvcid: port })
        const first = yield* Scope.make()
        const third = yield* freePort
        yield* made.subsystem.addListener({ trsvcid: third }).pipe(Scope.provide(first))
        const { bdev, controller } = yield* attachedBdev(
          { nqn: made.nqn, port: third },
          { multipath: "failover", lossTimeout: "30 seconds", reconnectDelay: "1 second" }
        )
        yield* controller.addPath({ traddr: "127.0.0.1", trsvcid: port })
        const [only] = yield* controller.paths
        assert.deepStrictEqual(
          only?.alternates?.map((id) => id.trsvcid),
          [port]
        )
        yield* bdev.writeBytes(0, pattern(blockSize, 1))
        yield* within("the drop", Scope.close(first, Exit.void))
        yield* within("the write by the other address", bdev.writeBytes(0, pattern(blockSize, 2)))
        sameBytes(yield* bdev.readBytes(0, blockSize), pattern(blockSize, 2), "by the other address")
        assert.strictEqual((yield* controller.paths)[0]?.transportId.trsvcid, port)
      })
    )

    check(
      "a target is killed and started again under load: I/O waits, goes on, and each acknowledged write is there",
      () =>
        Effect.gen(function* () {
          const [path, port, nqn] = [yield* scratchFile, yield* freePort, freshNqn("killed")]
          const dead = yield* Scope.make()
          const first = yield* startTarget.pipe(Scope.provide(dead))
          yield* first.run(exportFile(path, nqn, port)).pipe(Scope.provide(dead))
          const { bdev } = yield* attachedBdev({ nqn, port }, { lossTimeout: "60 seconds", reconnectDelay: "1 second" })
          const running = yield* startLoad(bdev)
          yield* progress(running, 100)
          yield* first.kill
          yield* within("the end of what it had", Scope.close(dead, Exit.void))
          const second = yield* startTarget
          yield* second.run(exportFile(path, nqn, port))
          yield* progress(running, 100)
          yield* running.stop
          yield* verifyLoad(running.load, bdev)
          assert.strictEqual(running.load.failed, 0, [...running.load.reasons].join(", "))
        }),
      { timeoutMillis: 120_000 }
    )

    check("what a killed target had is given up at the end of its scope, and the log names it", () =>
      Effect.gen(function* () {
        const dead = yield* Scope.make()
        const other = yield* startTarget
        const made = yield* other.run(exported()).pipe(Scope.provide(dead))
        yield* made.target.addReferral({ traddr: "127.0.0.1", trsvcid: made.port }).pipe(Scope.provide(dead))
        const inner = yield* Scope.make()
        yield* made.subsystem.addHost({ nqn: freshNqn("host") }).pipe(Scope.provide(inner))
        yield* other.kill
        const lines: Array<string> = []
        const logger = Logger.make(({ message }) => lines.push(String(message)))
        yield* Effect.provide(
          Effect.forEach([inner, dead], (scope) => within("the end of a scope", Scope.close(scope, Exit.void)), {
            discard: true
          }),
          Logger.layer([logger])
        )
        const operations = ["NvmfSubsystem.removeHost", "NvmfTarget.deleteSubsystem", "Bdev.delete"]
        for (const one of [...operations, "NvmfTarget.removeReferral"]) {
          assert.isTrue(
            lines.some((line) => line.startsWith(one)),
            `${one} in ${lines.join("\n")}`
          )
        }
      })
    )

    check(
      "a target that is killed and stays away: I/O fails when its time is over, and the bdev is removed after its own",
      () =>
        Effect.gen(function* () {
          const dead = yield* Scope.make()
          const other = yield* startTarget.pipe(Scope.provide(dead))
          const made = yield* other.run(exported()).pipe(Scope.provide(dead))
          const { bdev } = yield* attachedBdev(made, {
            lossTimeout: "3 seconds",
            reconnectDelay: "1 second",
            fastIoFailTimeout: "1 second"
          })
          const events = yield* Effect.forkChild(Stream.runCollect(bdev.events), { startImmediately: true })
          const running = yield* startLoad(bdev)
          yield* progress(running, 100)
          yield* other.kill
          yield* until(
            "I/O fails",
            Effect.andThen(
              Effect.sleep("20 millis"),
              Effect.sync(() => running.load.failed > 0)
            )
          )
          assert.deepStrictEqual(
            (yield* within("the removal", Fiber.join(events))).map((event) => event._tag),
            ["Removed"]
          )
          yield* running.stop
        }),
      { timeoutMillis: 120_000 }
    )
  })
