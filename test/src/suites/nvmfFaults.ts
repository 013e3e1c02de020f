/** Parts of a target that go away while a host uses them: each I/O is answered, each acknowledged write is there, each scope closes. */
import * as Bdev from "@effect-spdk/core/Bdev"
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { cuttable } from "../support/cuttable.ts"
import { type Capabilities, type EngineLayer, long } from "../support/engines.ts"
import { blockSize, contract, expectReasonIn, fresh, until, within } from "../support/harness.ts"
import { progress, startLoad, verifyLoad } from "../support/load.ts"
import { attachedBdev, exported, freePort, freshNqn, makeTarget, untilConnected } from "../support/nvmf.ts"

/** Connects again within a second, and gives up late. */
const patient = { lossTimeout: "30 seconds", reconnectDelay: "1 second" } as const

/** SPDK takes a second for each. */
const cuts = Number(process.env["EFFECT_SPDK_CUTS"] ?? (long ? 100 : 3))

export const suite = (name: string, layer: EngineLayer, capabilities: Capabilities): void =>
  contract(name, layer, (check) => {
    check(
      "a listener is removed and added under load: I/O waits, and goes on",
      () =>
        Effect.gen(function* () {
          const made = yield* exported()
          const port = yield* freePort
          const listening = yield* Scope.make()
          yield* made.subsystem.addListener({ trsvcid: port }).pipe(Scope.provide(listening))
          const { bdev, controller } = yield* attachedBdev({ nqn: made.nqn, port }, patient)
          const states: Array<string> = []
          yield* Effect.forkChild(
            Stream.runForEach(controller.pathEvents(Schedule.spaced("20 millis")), (event) =>
              Effect.sync(() => states.push(event.path.state))
            ),
            { startImmediately: true }
          )
          const running = yield* startLoad(bdev)
          yield* progress(running, 100)
          yield* within("the removal", Scope.close(listening, Exit.void))
          yield* until(
            "the connection is lost",
            Effect.map(controller.paths, ([path]) => path?.state !== "enabled")
          )
          // While there is nobody to connect to, which the looks cannot miss.
          yield* until(
            "the loss is told of",
            Effect.sync(() => states.length > 1)
          )
          yield* made.subsystem.addListener({ trsvcid: port })
          yield* progress(running, 100)
          yield* running.stop
          yield* verifyLoad(running.load, yield* Bdev.open(made.backing))
          assert.strictEqual(running.load.failed, 0, [...running.load.reasons].join(", "))
          // Looked at every 20 milliseconds, which I/O may be quicker than.
          yield* until(
            "the path is told of as enabled again",
            Effect.sync(() => states.at(-1) === "enabled")
          )
          assert.strictEqual(states[0], "enabled")
          assert.isAtLeast(states.length, 3)
        }),
      { timeoutMillis: 120_000 }
    )

    check("a subsystem that a host uses ends: the host's I/O is answered, both scopes close", () =>
      Effect.gen(function* () {
        const target = yield* makeTarget
        const backing = yield* Bdev.createMalloc({ name: fresh("backing"), blockSize, numBlocks: 1024 })
        const exporting = yield* Scope.make()
        const subsystem = yield* target
          .subsystem({ nqn: freshNqn("ends"), allowAnyHost: true })
          .pipe(Scope.provide(exporting))
        yield* subsystem.addNamespace({ bdev: backing }).pipe(Scope.provide(exporting))
        const port = yield* freePort
        yield* subsystem.addListener({ trsvcid: port }).pipe(Scope.provide(exporting))
        const attaching = yield* Scope.make()
        const { bdev } = yield* attachedBdev({ nqn: subsystem.nqn, port }).pipe(Scope.provide(attaching))
        const running = yield* startLoad(bdev)
        yield* progress(running, 100)
        yield* within("the end of the subsystem", Scope.close(exporting, Exit.void))
        // Writes that the target had answered before its end may still succeed here: their answers are on their way.
        yield* until(
          "the host's I/O fails",
          Effect.sync(() => running.load.failed > 0)
        )
        yield* running.stop
        assert.notInclude([...running.load.reasons], "no SpdkError")
        expectReasonIn(yield* Effect.exit(within("an answer", bdev.writeBytes(0, new Uint8Array(blockSize)))), [
          "Aborted",
          "DeviceRemoved",
          "IoFailed"
        ])
        yield* within("the detach", Scope.close(attaching, Exit.void))
        yield* verifyLoad(running.load, yield* Bdev.open(backing))
        assert.isFalse((yield* target.subsystems).some((one) => one.nqn === subsystem.nqn))
      })
    )

    check(
      `the connection is cut ${cuts} times under load: no write fails, each one is there`,
      () =>
        Effect.gen(function* () {
          const made = yield* exported()
          const wire = yield* cuttable(made.port)
          const { bdev, controller } = yield* attachedBdev({ nqn: made.nqn, port: wire.port }, patient)
          const running = yield* startLoad(bdev)
          yield* progress(running, 100)
          for (let count = 0; count < cuts; count++) {
            // The admin queue and an I/O queue at least, two sockets each.
            assert.isAtLeast(yield* wire.cut, 4, `cut ${count}`)
            // More than what may have been answered already.
            yield* progress(running, 50)
          }
          yield* running.stop
          assert.strictEqual(running.load.failed, 0, [...running.load.reasons].join(", "))
          yield* verifyLoad(running.load, yield* Bdev.open(made.backing))
          // I/O may be quicker than the end of the reset that brought it back.
          yield* until(
            "the path is enabled",
            Effect.map(controller.paths, (paths) => paths.length === 1 && paths[0]?.state === "enabled")
          )
        }),
      { timeoutMillis: 60_000 + cuts * 5000 }
    )

    if (capabilities.multipath) {
      check(
        "one path of two is dropped under load: no write fails, each one is there",
        () =>
          Effect.gen(function* () {
            const made = yield* exported({ anaReporting: true })
            const port = yield* freePort
            const second = yield* Scope.make()
            yield* made.subsystem.addListener({ trsvcid: port }).pipe(Scope.provide(second))
            const { bdev, controller } = yield* attachedBdev(made, { ...patient, fastIoFailTimeout: "20 seconds" })
            yield* controller.addPath({ traddr: "127.0.0.1", trsvcid: port, ...patient })
            yield* controller.setPolicy({ policy: "active_active" })
            assert.strictEqual((yield* controller.paths).length, 2)
            const running = yield* startLoad(bdev)
            yield* progress(running, 200)
            yield* untilConnected(controller, 2)
            yield* within("the drop", Scope.close(second, Exit.void))
            yield* progress(running, 200)
            yield* made.subsystem.addListener({ trsvcid: port })
            yield* until(
              "both paths are there again",
              Effect.map(controller.paths, (paths) => paths.every((path) => path.state === "enabled")),
              30_000
            )
            yield* progress(running, 200)
            yield* running.stop
            yield* verifyLoad(running.load, yield* Bdev.open(made.backing))
            assert.strictEqual(running.load.failed, 0, [...running.load.reasons].join(", "))
          }),
        { timeoutMillis: 120_000 }
      )

      check("a path that becomes inaccessible is left for the other one", () =>
        Effect.gen(function* () {
          const made = yield* exported({ anaReporting: true })
          const port = yield* freePort
          const second = yield* made.subsystem.addListener({ trsvcid: port, anaState: "inaccessible" })
          const { bdev, controller } = yield* attachedBdev(made)
          yield* controller.addPath({ traddr: "127.0.0.1", trsvcid: port })
          const running = yield* startLoad(bdev)
          yield* progress(running, 100)
          const current = Effect.map(controller.ioPaths, (threads) =>
            threads
              .flatMap((thread) => thread.paths)
              .flatMap((path) => (path.isCurrent ? [path.transport.trsvcid] : []))
          )
          assert.deepStrictEqual(yield* current, [made.port])
          const other = (yield* made.subsystem.listeners).find((one) => one.address.trsvcid === port)
          assert.strictEqual(other?.anaStates?.[0]?.state, "inaccessible")
          yield* second.setAnaState("optimized")
          yield* made.listener.setAnaState("inaccessible")
          yield* progress(running, 100)
          yield* until(
            "the other path is taken",
            Effect.map(current, (paths) => paths.length === 1 && paths[0] === port)
          )
          yield* running.stop
          yield* verifyLoad(running.load, yield* Bdev.open(made.backing))
          assert.strictEqual(running.load.failed, 0, [...running.load.reasons].join(", "))
        })
      )
    }
  })
