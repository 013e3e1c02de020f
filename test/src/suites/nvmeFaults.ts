/** NVMe under trouble: resets, lost targets, silence, interruption and release with I/O in flight. Every caller gets an answer. */
import * as Bdev from "@effect-spdk/core/Bdev"
import * as DmaBuffer from "@effect-spdk/core/DmaBuffer"
import * as Nvme from "@effect-spdk/core/Nvme"
import * as Spdk from "@effect-spdk/core/Spdk"
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as net from "node:net"
import { long } from "../support/engines.ts"
import {
  contract,
  expectReasonIn,
  failsWith,
  pattern,
  sameBytes,
  until,
  withLimit,
  within
} from "../support/harness.ts"
import { connected, type NvmeSuite, opened, sharedTarget } from "../support/nvmeSuite.ts"
import { exported, type NvmfTargetFactory } from "../support/nvmfTarget.ts"

/** What I/O may say when its connection goes. */
const lostReasons = ["Aborted", "DeviceRemoved", "IoFailed", "NotFound", "Released", "TimedOut"] as const

/** So many one after the other. */
const connections = long ? 100 : 30

/** Fibers that write and read without end; each ends with its first failure, which they answer with. */
const load = (disk: Nvme.NvmeNamespace, fibers = 16) =>
  Effect.gen(function* () {
    let done = 0
    const buffers = yield* Effect.forEach(Array.from({ length: fibers }), () => DmaBuffer.make(65_536))
    const running = yield* Effect.forEach(buffers, (buffer, i) =>
      Effect.forkScoped(
        Effect.forever(
          Effect.gen(function* () {
            yield* disk.write(i * 65_536, buffer)
            yield* disk.read(i * 65_536, buffer)
            done++
          })
        ),
        { startImmediately: true }
      )
    )
    return { running, done: () => done }
  })

/** On a target of its own, which may come to harm. */
const openedAlone = (factory: NvmfTargetFactory, options?: Nvme.ConnectOptions) =>
  Effect.flatMap(factory, (own) => opened(Effect.succeed(own), options))

/** Takes connections, and says nothing. */
const silentPeer = Effect.acquireRelease(
  Effect.callback<{ readonly port: number; readonly close: () => void }>((resume) => {
    const sockets = new Set<net.Socket>()
    const server = net.createServer((socket) => {
      sockets.add(socket)
      // Who gives up may reset it.
      socket.on("error", () => {}).resume()
    })
    const close = () => {
      server.close()
      for (const socket of sockets) socket.destroy()
    }
    server.listen({ host: "127.0.0.1", port: 0 }, () => {
      const address = server.address()
      resume(Effect.succeed({ port: typeof address === "object" && address !== null ? address.port : 0, close }))
    })
  }),
  ({ close }) => Effect.sync(close)
)

export const suite: NvmeSuite = (name, layer, _capabilities, factory) => {
  const target = sharedTarget(factory)
  contract(name, layer, (check) => {
    check("a reset under I/O answers everything, and what comes after works", () =>
      Effect.gen(function* () {
        const { controller, disk } = yield* opened(target)
        const bytes = pattern(4096, 1)
        yield* disk.writeBytes(4096, bytes)
        for (let round = 0; round < 5; round++) {
          const buffer = yield* DmaBuffer.make(262_144)
          const inFlight = yield* Effect.forEach(
            Array.from({ length: 32 }, (_, i) => i),
            (i) =>
              Effect.forkScoped(disk.read(1024 * 1024 + i * 4096, buffer.slice(i * 4096, 4096)), {
                startImmediately: true
              })
          )
          yield* within("a reset", controller.reset)
          for (const fiber of inFlight) {
            const exit = yield* within("an answer", Fiber.await(fiber))
            if (Exit.isFailure(exit)) expectReasonIn(exit, lostReasons)
          }
          sameBytes(yield* within("a read", disk.readBytes(4096, 4096)), bytes, `after reset ${round}`)
        }
      })
    )

    check("a target that is killed under I/O: every caller gets an answer, and the scope ends", () =>
      Effect.gen(function* () {
        const scope = yield* Effect.scope
        const inner = yield* Scope.fork(scope)
        const { controller, disk, target: own } = yield* Scope.provide(openedAlone(factory), inner)
        const failed = yield* Effect.forkScoped(
          Stream.runHead(Stream.filter(controller.events, ({ _tag }) => _tag === "Failed")),
          { startImmediately: true }
        )
        const work = yield* load(disk)
        yield* until(
          "I/O flows",
          Effect.sync(() => work.done() > 50)
        )
        yield* own.kill
        for (const fiber of work.running) expectReasonIn(yield* within("an answer", Fiber.await(fiber)), lostReasons)
        yield* within("the event of the failure", Fiber.join(failed))
        assert.strictEqual(controller.state, "failed")
        expectReasonIn(yield* Effect.exit(within("an answer", controller.identify)), lostReasons)
        expectReasonIn(yield* Effect.exit(within("an answer", disk.readBytes(0, 512))), lostReasons)
        yield* within("the end of the scope", Scope.close(inner, Exit.void))
      })
    )

    check("a target that falls silent is given up, and the scope ends", () =>
      Effect.gen(function* () {
        const own = yield* factory
        yield* withLimit(1000, (adminTimeout, inTime) =>
          Effect.gen(function* () {
            const options = { keepAlive: adminTimeout / 2, adminTimeout }
            const { controller, disk } = yield* inTime(opened(Effect.succeed(own), options))
            yield* inTime(disk.readBytes(0, 4096))
            const reading = yield* Effect.forkScoped(disk.readBytes(0, 4096), { startImmediately: true })
            yield* inTime(Fiber.join(reading))
            yield* own.freeze
            yield* Effect.addFinalizer(() => own.thaw)
            const silent = yield* Effect.forkScoped(disk.readBytes(0, 4096), { startImmediately: true })
            expectReasonIn(yield* within("an answer", Effect.exit(controller.identify)), lostReasons)
            expectReasonIn(yield* within("an answer", Fiber.await(silent)), lostReasons)
            assert.strictEqual(controller.state, "failed")
            yield* own.thaw
          })
        )
      })
    )

    check("a connection that is lost comes back by reset, with everything that was acknowledged", () =>
      Effect.gen(function* () {
        const { controller, disk, subsystem, target: running } = yield* opened(target)
        const bytes = pattern(65_536, 2)
        yield* disk.writeBytes(0, bytes)
        const { listen, nqn } = {
          nqn: subsystem.subnqn,
          listen: { trtype: "TCP", adrfam: "IPv4", traddr: "127.0.0.1", trsvcid: `${subsystem.port}` }
        }
        yield* running.rpc("nvmf_subsystem_remove_listener", { nqn, listen_address: listen })
        yield* until(
          "the loss is noticed",
          Effect.sync(() => controller.state === "failed"),
          30_000
        )
        yield* running.rpc("nvmf_subsystem_add_listener", { nqn, listen_address: listen })
        yield* within("a reset", controller.reset)
        assert.strictEqual(controller.state, "connected")
        sameBytes(yield* within("a read", disk.readBytes(0, bytes.length)), bytes, "what was acknowledged")
      })
    )

    check("release with I/O in flight waits for it, and the memory is free after it", () =>
      Effect.gen(function* () {
        const { controller } = yield* connected(target)
        const scope = yield* Scope.make()
        const disk = yield* Scope.provide(controller.namespace(1), scope)
        const buffer = yield* DmaBuffer.make(1024 * 1024)
        // Opens the queue pair, so that what comes next is in flight at once.
        yield* disk.read(0, buffer)
        const inFlight = yield* Effect.forEach(
          Array.from({ length: 16 }, (_, i) => i),
          (i) => Effect.forkScoped(disk.read(i * 65_536, buffer.slice(i * 65_536, 65_536)), { startImmediately: true })
        )
        assert.isAbove(buffer.pins, 0)
        yield* within("the release", Scope.close(scope, Exit.void))
        assert.strictEqual(buffer.pins, 0)
        for (const fiber of inFlight) assert.isTrue(Exit.isSuccess(yield* Fiber.await(fiber)))
        yield* failsWith(disk.readBytes(0, 512), "Released")
      })
    )

    check("release of the controller with I/O in flight answers all of it", () =>
      Effect.gen(function* () {
        const scope = yield* Scope.make()
        const { disk } = yield* Scope.provide(opened(target), scope)
        const work = yield* load(disk)
        yield* until(
          "I/O flows",
          Effect.sync(() => work.done() > 10)
        )
        yield* within("the release", Scope.close(scope, Exit.void))
        for (const fiber of work.running) expectReasonIn(yield* within("an answer", Fiber.await(fiber)), lostReasons)
      })
    )

    check("interruption lets go of the memory", () =>
      Effect.gen(function* () {
        const { controller, disk } = yield* opened(target)
        const buffer = yield* DmaBuffer.make(2 * 1024 * 1024)
        for (let round = 0; round < 20; round++) {
          const fibers = yield* Effect.forEach([disk.read(0, buffer), disk.write(0, buffer)], (one) =>
            Effect.forkScoped(one, { startImmediately: true })
          )
          const admin = yield* Effect.forkScoped(controller.identify, { startImmediately: true })
          yield* within("interruption", Fiber.interruptAll([...fibers, admin]))
          assert.strictEqual(buffer.pins, 0)
        }
        assert.strictEqual((yield* controller.identify).serialNumber, "CONTRACT1")
        yield* disk.readBytes(0, 4096)
      })
    )

    check("a namespace that is removed under I/O answers all of it, and others go on", () =>
      Effect.gen(function* () {
        const {
          controller,
          subsystem,
          target: running
        } = yield* connected(target, {
          namespaces: [{ nsid: 1 }, { nsid: 2 }]
        })
        const [one, two] = [yield* controller.namespace(1), yield* controller.namespace(2)]
        const doomed = yield* load(one)
        const other = yield* load(two)
        yield* until(
          "I/O flows",
          Effect.sync(() => doomed.done() > 20 && other.done() > 20)
        )
        yield* running.rpc("nvmf_subsystem_remove_ns", { nqn: subsystem.subnqn, nsid: 1 })
        for (const fiber of doomed.running) {
          expectReasonIn(yield* within("an answer", Fiber.await(fiber)), [...lostReasons, "InvalidArgument"])
        }
        yield* until(
          "the removal is noticed",
          Effect.sync(() => one.isRemoved)
        )
        const before = other.done()
        yield* until(
          "the other goes on",
          Effect.sync(() => other.done() > before + 20)
        )
        for (const fiber of other.running) assert.isUndefined(fiber.pollUnsafe())
        yield* Fiber.interruptAll(other.running)
      })
    )

    check("connecting to nobody fails, and connecting to silence ends in time", () =>
      Effect.gen(function* () {
        const spdk = yield* Spdk.Spdk
        const before = yield* spdk.usage
        const nowhere = yield* Effect.exit(Effect.scoped(Nvme.connect("trtype:TCP traddr:127.0.0.1 trsvcid:1")))
        expectReasonIn(nowhere, ["IoFailed"])
        const closed = Effect.scoped(Nvme.connect("trtype:TCP traddr:127.0.0.1 trsvcid:1"))
        const { errno, isRetryable } = yield* failsWith(closed, "IoFailed")
        assert.deepStrictEqual([errno, isRetryable], ["ECONNREFUSED", true])
        // Those of tests before may still be on their way out; this one is gone when it is answered.
        assert.isAtMost((yield* spdk.usage).nvmeControllers, before.nvmeControllers)
        const own = yield* factory
        const subsystem = yield* exported(own)
        yield* own.freeze
        const connect = Nvme.connect(subsystem.transportId, { connectTimeout: "300 millis" })
        const silent = yield* within("the time limit", Effect.exit(Effect.scoped(connect)))
        expectReasonIn(silent, ["IoFailed", "TimedOut"])
        const given = yield* Effect.forkScoped(Effect.scoped(Nvme.connect(subsystem.transportId)), {
          startImmediately: true
        })
        yield* within("interruption", Fiber.interrupt(given))
        yield* own.thaw
        // Both were answered while the driver still waited for the target.
        yield* until(
          "the driver lets go of what was given up",
          Effect.map(spdk.usage, ({ nvmeControllers }) => nvmeControllers === 0)
        )
      })
    )

    check(
      "probe, connect and discover of a silent discovery service end when they are given up, and leave nothing",
      () =>
        Effect.gen(function* () {
          const spdk = yield* Spdk.Spdk
          const silent = yield* silentPeer
          const id = `trtype:TCP traddr:127.0.0.1 trsvcid:${silent.port}`
          const runs = [
            Effect.asVoid(Nvme.probe(id)),
            Effect.scoped(Effect.asVoid(Nvme.connect(id))),
            Stream.runDrain(Nvme.discover(id))
          ]
          const started = performance.now()
          const exits = yield* Effect.forEach(runs, (run) => Effect.exit(Effect.timeoutOption(run, 50)), {
            concurrency: "unbounded"
          })
          assert.deepStrictEqual(exits.map(Exit.map(Option.isNone)), [
            Exit.succeed(true),
            Exit.succeed(true),
            Exit.succeed(true)
          ])
          // SPDK waits 10 seconds for the first answer. Who has given up does not.
          assert.isBelow(performance.now() - started, 5000)
          silent.close()
          yield* until(
            "the driver lets go of what was given up",
            Effect.map(spdk.usage, ({ nvmeControllers }) => nvmeControllers === 0)
          )
        })
    )

    check(`${connections} connections one after the other leave nothing`, () =>
      Effect.gen(function* () {
        const running = yield* target
        const subsystem = yield* exported(running)
        for (let round = 0; round < connections; round++) {
          yield* Effect.scoped(
            Effect.gen(function* () {
              const controller = yield* Nvme.connect(subsystem.transportId)
              const disk = yield* controller.namespace(1)
              yield* disk.readBytes(0, 512)
            })
          )
        }
        const left = running.rpc("nvmf_subsystem_get_controllers", { nqn: subsystem.subnqn })
        yield* until(
          "the target has no controller left",
          Effect.map(left, (controllers) => Array.isArray(controllers) && controllers.length === 0)
        )
      }).pipe(Effect.provideService(Bdev.ReleaseTimeout, "5 seconds"))
    )
  })
}
