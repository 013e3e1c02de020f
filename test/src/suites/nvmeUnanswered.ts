/**
 * NVMe commands that the target does not answer, while its connections stay: it falls silent in the middle of one, or ends the
 * conversation with a termination request. Every caller gets an answer in bounded time, and scopes close.
 */
import * as Nvme from "@effect-spdk/core/Nvme"
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import { contract, expectReasonIn, pattern, sameBytes, until, withLimit, within } from "../support/harness.ts"
import { makeProxy, type Verdict } from "../support/nvmeProxy.ts"
import { type NvmeSuite, sharedTarget } from "../support/nvmeSuite.ts"
import { addNamespace, exported, type NvmfTarget } from "../support/nvmfTarget.ts"

const opcodes = { read: 0x02, getLogPage: 0x02, identify: 0x06, abort: 0x08 } as const
const changedNamespaces = 0x04

/** What a caller hears when the connection is given up. */
const lostReasons = ["Aborted", "DeviceRemoved", "IoFailed", "Released", "TimedOut"] as const

/** What the tests begin with; `withLimit` gives more where the machine is too slow for it. */
const limitMillis = 300

const faults = ["swallow", "half", "terminate", "terminateBare"] as const satisfies ReadonlyArray<Verdict>

/** A subsystem behind a proxy, and a controller of it. */
const behindProxy = (target: Effect.Effect<NvmfTarget>, options: Nvme.ConnectOptions) =>
  Effect.gen(function* () {
    const running = yield* target
    const subsystem = yield* exported(running)
    const proxy = yield* makeProxy(subsystem.port)
    const controller = yield* Nvme.connect(
      `trtype:TCP adrfam:IPv4 traddr:127.0.0.1 trsvcid:${proxy.port} subnqn:${subsystem.subnqn}`,
      options
    )
    return { target: running, subsystem, proxy, controller }
  })

/** A queue pair may hear of it, and answer, before the controller does. */
const failed = (controller: Nvme.NvmeController) =>
  until(
    "the controller is given up",
    Effect.sync(() => controller.state === "failed")
  )

export const suite: NvmeSuite = (name, layer, _capabilities, factory) => {
  const target = sharedTarget(factory)
  contract(name, layer, (check) => {
    for (const fault of faults) {
      check(`reads that end in "${fault}" are answered, and a reset brings everything back`, () =>
        withLimit(limitMillis, (ioTimeout, inTime) =>
          Effect.gen(function* () {
            const { controller, proxy } = yield* behindProxy(target, { ioTimeout })
            const disk = yield* controller.namespace(1)
            const bytes = pattern(65_536, 3)
            yield* inTime(disk.writeBytes(0, bytes))
            proxy.decide = ({ opcode, queueId }) => (queueId > 0 && opcode === opcodes.read ? fault : "pass")
            const reads = yield* Effect.forEach([0, 1, 2, 3, 4, 5, 6, 7], (i) =>
              Effect.forkScoped(disk.readBytes(i * 4096, 4096), { startImmediately: true })
            )
            for (const read of reads) {
              expectReasonIn(yield* within("an answer", Fiber.await(read), 9000 + ioTimeout), lostReasons)
            }
            yield* failed(controller)
            proxy.decide = () => "pass"
            yield* within("a reset", controller.reset, 10_000)
            sameBytes(yield* inTime(disk.readBytes(0, bytes.length)), bytes, "what was written")
          })
        )
      )

      check(
        `a command of the admin queue that ends in "${fault}" is answered, and a reset brings everything back`,
        () =>
          withLimit(limitMillis, (adminTimeout, inTime) =>
            Effect.gen(function* () {
              const { controller, proxy } = yield* inTime(behindProxy(target, { adminTimeout }))
              const disk = yield* inTime(controller.namespace(1))
              yield* disk.readBytes(0, 4096)
              proxy.decide = ({ opcode, queueId }) => (queueId === 0 && opcode === opcodes.identify ? fault : "pass")
              const answer = within("an answer", Effect.exit(controller.identify), 9000 + adminTimeout)
              expectReasonIn(yield* answer, lostReasons)
              yield* failed(controller)
              proxy.decide = () => "pass"
              yield* inTime(within("a reset", controller.reset, 10_000))
              yield* disk.readBytes(0, 4096)
            })
          )
      )

      check(`a scope closes in time over a read that ended in "${fault}"`, () =>
        withLimit(limitMillis, (limit, inTime) =>
          Effect.gen(function* () {
            const scope = yield* Scope.fork(yield* Effect.scope)
            const { controller, proxy } = yield* inTime(
              Scope.provide(behindProxy(target, { ioTimeout: limit, adminTimeout: limit }), scope)
            )
            const disk = yield* inTime(Scope.provide(controller.namespace(1), scope))
            yield* inTime(disk.readBytes(0, 4096))
            let isThere = false
            proxy.decide = ({ opcode, queueId }) => {
              if (queueId === 0 || opcode !== opcodes.read) return "pass"
              isThere = true
              return fault
            }
            const read = yield* Effect.forkScoped(disk.readBytes(0, 4096), { startImmediately: true })
            yield* inTime(
              until(
                "the read is on its way",
                Effect.sync(() => isThere)
              )
            )
            yield* within("the end of the scope", Scope.close(scope, Exit.void), 9000 + limit)
            expectReasonIn(yield* within("an answer", Fiber.await(read)), lostReasons)
          })
        )
      )
    }

    check("an interruption ends also when neither the command nor its abort is answered", () =>
      withLimit(limitMillis, (adminTimeout, inTime) =>
        Effect.gen(function* () {
          const { controller, proxy } = yield* inTime(behindProxy(target, { ioTimeout: Infinity, adminTimeout }))
          const disk = yield* inTime(controller.namespace(1))
          yield* disk.readBytes(0, 4096)
          let reads = 0
          proxy.decide = ({ opcode, queueId }) => {
            if (queueId === 0) return opcode === opcodes.abort ? "swallow" : "pass"
            reads++
            return "swallow"
          }
          const read = yield* Effect.forkScoped(disk.readBytes(0, 4096), { startImmediately: true })
          yield* until(
            "the read is on its way",
            Effect.sync(() => reads > 0)
          )
          yield* within("the interruption", Fiber.interrupt(read), 9000 + adminTimeout)
          yield* failed(controller)
        })
      )
    )

    check("commands within their limit go on, however long they take together", () =>
      withLimit(2 * limitMillis, (ioTimeout, inTime) =>
        Effect.gen(function* () {
          const { controller, proxy } = yield* behindProxy(target, { ioTimeout })
          const disk = yield* controller.namespace(1)
          yield* inTime(disk.readBytes(0, 4096))
          proxy.decide = ({ opcode, queueId }) => (queueId > 0 && opcode === opcodes.read ? "hold" : "pass")
          for (let i = 0; i < 3; i++) {
            yield* inTime(
              Effect.gen(function* () {
                const read = yield* Effect.forkScoped(disk.readBytes(0, 4096), { startImmediately: true })
                yield* Effect.sleep(0.4 * ioTimeout)
                yield* proxy.release
                yield* within("an answer", Fiber.join(read))
              })
            )
          }
          assert.strictEqual(controller.state, "connected")
        })
      )
    )

    const heldLog = (options: Nvme.ConnectOptions) =>
      Effect.gen(function* () {
        const all = yield* behindProxy(target, options)
        let isThere = false
        all.proxy.decide = ({ dword10, opcode, queueId }) => {
          if (queueId !== 0 || opcode !== opcodes.getLogPage || (dword10 & 0xff) !== changedNamespaces) return "pass"
          isThere = true
          return "hold"
        }
        yield* addNamespace(all.target, all.subsystem.subnqn, 2)
        yield* until(
          "the log is asked for",
          Effect.sync(() => isThere)
        )
        return all
      })

    check("a log of changed namespaces that comes too late writes to nobody's memory", () =>
      // Engines wait for what they ask for by themselves no longer than for a connection.
      withLimit(limitMillis, (connectTimeout, inTime) =>
        Effect.gen(function* () {
          const { controller, proxy } = yield* inTime(heldLog({ connectTimeout }))
          yield* Effect.sleep(1.2 * connectTimeout)
          yield* proxy.release
          proxy.decide = () => "pass"
          yield* Effect.sleep("200 millis")
          if (controller.state === "failed") yield* inTime(within("a reset", controller.reset, 10_000))
          yield* until(
            "the new namespace is there",
            Effect.map(Effect.orDie(controller.namespaces), (ids) => ids.includes(2))
          )
          yield* Effect.scoped(Effect.flatMap(controller.namespace(2), (disk) => disk.readBytes(0, 4096)))
        })
      )
    )

    check("a scope closes while the log of changed namespaces is waited for", () =>
      withLimit(2 * limitMillis, (adminTimeout, inTime) =>
        Effect.gen(function* () {
          const scope = yield* Scope.fork(yield* Effect.scope)
          const { proxy } = yield* inTime(Scope.provide(heldLog({ adminTimeout }), scope))
          const closing = yield* Effect.forkScoped(Scope.close(scope, Exit.void), { startImmediately: true })
          yield* Effect.sleep(1.25 * adminTimeout)
          yield* proxy.release
          yield* within("the end of the scope", Fiber.join(closing), 10_000)
        })
      )
    )
  })
}
