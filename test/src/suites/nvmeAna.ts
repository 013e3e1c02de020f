/** Namespaces that a controller calls inaccessible: I/O waits, and goes on when they can be reached again. */
import * as Bdev from "@effect-spdk/core/Bdev"
import * as NvmeBdev from "@effect-spdk/core/NvmeBdev"
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import { contract, expectReasonIn, fresh, pattern, sameBytes, until, within } from "../support/harness.ts"
import { type NvmeSuite, sharedTarget } from "../support/nvmeSuite.ts"
import { exported, type NvmfTarget } from "../support/nvmfTarget.ts"
import { freePort } from "../support/nvmf.ts"

const attached = (target: Effect.Effect<NvmfTarget>, loss: Partial<NvmeBdev.AttachOptions> = {}) =>
  Effect.gen(function* () {
    const running = yield* target
    const subsystem = yield* exported(running)
    const setAnaAt = (trsvcid: string, ana_state: "optimized" | "inaccessible") =>
      running.rpc("nvmf_subsystem_listener_set_ana_state", {
        nqn: subsystem.subnqn,
        listen_address: { trtype: "TCP", adrfam: "IPv4", traddr: "127.0.0.1", trsvcid },
        ana_state
      })
    const name = fresh("nvme")
    const path = { traddr: "127.0.0.1", trsvcid: subsystem.port, subnqn: subsystem.subnqn }
    const limits = { reconnectDelay: "1 second", lossTimeout: "30 seconds" } as const
    const controller = yield* NvmeBdev.attach({ name, ...path, ...limits, ...loss })
    const bdev = yield* Bdev.open(`${name}n1`, { write: true })
    yield* bdev.writeBytes(0, pattern(4096, 1))
    const setAna = (state: "optimized" | "inaccessible") => setAnaAt(`${subsystem.port}`, state)
    return { bdev, controller, setAna, setAnaAt, subsystem, target: running }
  })

/** The engine knows it too. */
const isAccessible = (controller: NvmeBdev.AttachedController, accessible: boolean) =>
  Effect.map(controller.ioPaths, (threads) =>
    threads.flatMap(({ paths }) => paths).every((path) => path.isAccessible === accessible)
  )

export const suite: NvmeSuite = (name, layer, capabilities, factory) => {
  const target = sharedTarget(factory)
  contract(name, layer, (check) => {
    check("I/O waits while its namespace is inaccessible, and ends when it is not any more", () =>
      Effect.gen(function* () {
        const { bdev, controller, setAna } = yield* attached(target)
        yield* setAna("inaccessible")
        yield* until("the change is known", isAccessible(controller, false))
        const waiting = yield* Effect.forEach([0, 1, 2, 3], (i) =>
          Effect.forkScoped(bdev.writeBytes(i * 4096, pattern(4096, i + 2)), { startImmediately: true })
        )
        // Longer than an answer takes.
        for (let rounds = 0; rounds < 10; rounds++) yield* controller.paths
        for (const fiber of waiting) assert.isUndefined(fiber.pollUnsafe())
        yield* setAna("optimized")
        for (const fiber of waiting) yield* within("a write that waited", Fiber.join(fiber))
        for (const i of [0, 1, 2, 3]) {
          sameBytes(yield* bdev.readBytes(i * 4096, 4096), pattern(4096, i + 2), "what was written after all")
        }
        yield* until("the change is known", isAccessible(controller, true))
      })
    )

    check("what waits for its namespace can be interrupted, and a scope that closes waits no longer than it does", () =>
      Effect.gen(function* () {
        const { bdev, setAna } = yield* attached(target)
        yield* setAna("inaccessible")
        const scope = yield* Scope.make()
        const again = yield* Scope.provide(Bdev.open(bdev.name, { write: true }), scope)
        const waiting = yield* Effect.forkScoped(again.writeBytes(0, pattern(4096, 5)), { startImmediately: true })
        yield* within("the interruption", Fiber.interrupt(waiting))
        yield* within("the end of the scope", Scope.close(scope, Exit.void))
        yield* setAna("optimized")
      })
    )

    if (!capabilities.multipath) {
      check("after the fast-fail timeout I/O to an inaccessible namespace fails, and later it works again", () =>
        Effect.gen(function* () {
          const { bdev, setAna } = yield* attached(target, { fastIoFailTimeout: "1 second" })
          yield* setAna("inaccessible")
          const waited = yield* within("the timeout", Effect.exit(bdev.writeBytes(0, pattern(4096, 5))))
          expectReasonIn(waited, ["IoFailed"])
          expectReasonIn(yield* within("an answer", Effect.exit(bdev.readBytes(0, 4096))), ["IoFailed"])
          yield* setAna("optimized")
          sameBytes(yield* bdev.readBytes(0, 4096), pattern(4096, 1), "what was there before")
        })
      )

      check("with a second path I/O goes there when the first one is inaccessible", () =>
        Effect.gen(function* () {
          const {
            bdev,
            controller,
            setAna,
            subsystem,
            target: running
          } = yield* attached(target, {
            multipath: "failover"
          })
          const trsvcid = yield* freePort
          const listen_address = { trtype: "TCP", adrfam: "IPv4", traddr: "127.0.0.1", trsvcid }
          yield* running.rpc("nvmf_subsystem_add_listener", { nqn: subsystem.subnqn, listen_address })
          yield* controller.addPath({ traddr: "127.0.0.1", trsvcid })
          yield* setAna("inaccessible")
          yield* within("the write", bdev.writeBytes(0, pattern(4096, 6)))
          sameBytes(yield* bdev.readBytes(0, 4096), pattern(4096, 6), "by the second path")
        })
      )
    }
  })
}
