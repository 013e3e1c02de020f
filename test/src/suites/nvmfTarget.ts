/** The target: exports and what they tell, and refusals with their reasons. */
import * as Bdev from "@effect-spdk/core/Bdev"
import * as NvmeBdev from "@effect-spdk/core/NvmeBdev"
import * as Rpc from "@effect-spdk/core/Rpc"
import type * as NvmfTarget from "@effect-spdk/nvmf/NvmfTarget"
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { Capabilities, EngineLayer } from "../support/engines.ts"
import { blockSize, contract, failsWith, fresh, pattern, sameBytes, until, within } from "../support/harness.ts"
import { attachedBdev, exported, freePort, freshNqn, makeTarget, pathTo, verifiedRounds } from "../support/nvmf.ts"
import { seeded } from "../support/random.ts"

const deleteByRpc = (nqn: string) =>
  Effect.flatMap(Rpc.RpcClient, (client) => client.call("nvmf_delete_subsystem", { nqn }))

const nqnsOf = (target: NvmfTarget.NvmfTarget["Service"]) =>
  Effect.map(target.subsystems, (all) => all.map((one) => one.nqn))

export const suite = (name: string, layer: EngineLayer, _capabilities: Capabilities): void =>
  contract(name, layer, (check) => {
    check("an export attached in the same process: what is written by one side is read by the other", () =>
      seeded((random) =>
        Effect.gen(function* () {
          const made = yield* exported()
          const { bdev } = yield* attachedBdev(made)
          assert.strictEqual(bdev.sizeBytes, 8192 * blockSize)
          const image = yield* verifiedRounds(bdev, random, 100)
          const below = yield* Bdev.open(made.backing)
          sameBytes(yield* below.readBytes(0, below.sizeBytes), image, "the bdev below")
          const { pollGroups } = yield* made.target.stats
          const completed = pollGroups.reduce((sum, group) => sum + group.completedNvmeIo, 0)
          assert.isAbove(completed, 100)
        })
      )
    )

    check("the target tells what it was told", () =>
      Effect.gen(function* () {
        const target = yield* makeTarget
        const nqn = freshNqn("told")
        const host = freshNqn("host")
        const subsystem = yield* target.subsystem({
          nqn,
          serialNumber: "SN 1",
          modelNumber: "A model",
          maxNamespaces: 7,
          minCntlid: 5,
          maxCntlid: 9
        })
        const backing = yield* Bdev.createMalloc({ name: fresh("told"), blockSize, numBlocks: 64 })
        const nguid = "00112233445566778899AABBCCDDEEFF"
        const namespace = yield* subsystem.addNamespace({
          bdev: yield* Bdev.open(backing),
          nsid: 3,
          nguid,
          eui64: "0011223344556677"
        })
        yield* subsystem.addHost({ nqn: host })
        const port = yield* freePort
        yield* subsystem.addListener({ trsvcid: Number(port) })
        const info = yield* subsystem.info
        assert.deepInclude(info, {
          nqn,
          subtype: "NVMe",
          allowAnyHost: false,
          hosts: [{ nqn: host }],
          serialNumber: "SN 1",
          modelNumber: "A model",
          maxNamespaces: 7,
          minCntlid: 5,
          maxCntlid: 9
        })
        const address = { trtype: "TCP", adrfam: "IPv4", traddr: "127.0.0.1", trsvcid: port }
        assert.deepStrictEqual(info.listeners, [address])
        assert.strictEqual(info.namespaces.length, 1)
        assert.deepInclude(info.namespaces[0], { nsid: 3, bdev: backing, nguid, eui64: "0011223344556677" })
        assert.strictEqual(info.namespaces[0]?.uuid, namespace.uuid)
        assert.notStrictEqual(namespace.uuid, (yield* Bdev.find(backing)).uuid)
        assert.deepStrictEqual(
          (yield* subsystem.listeners).map((one) => one.address),
          [address]
        )
        assert.include(
          (yield* target.transports).map((one) => one.trtype),
          "TCP"
        )
        yield* subsystem.setAllowAnyHost(true)
        assert.isTrue((yield* subsystem.info).allowAnyHost)
      })
    )

    check("hosts that come and go are told of, with their queue pairs", () =>
      Effect.gen(function* () {
        const made = yield* exported()
        const events: Array<string> = []
        const often = Schedule.spaced("10 millis")
        const watching = yield* Effect.forkChild(
          Stream.runForEach(made.subsystem.controllerEvents(often), (event) =>
            Effect.sync(() => events.push(event._tag))
          ),
          { startImmediately: true }
        )
        const hostnqn = freshNqn("host")
        const scope = yield* Scope.make()
        yield* NvmeBdev.attach({ ...pathTo(made), hostnqn }).pipe(Scope.provide(scope))
        yield* until(
          "the host is seen",
          Effect.sync(() => events.length === 1)
        )
        const controllers = yield* made.subsystem.controllers
        assert.deepStrictEqual(
          controllers.map((one) => one.hostNqn),
          [hostnqn]
        )
        const qpairs = yield* made.subsystem.qpairs
        assert.isTrue(qpairs.some((one) => one.qid === 0 && one.hostNqn === hostnqn && one.state === "enabled"))
        yield* within("the detach", Scope.close(scope, Exit.void))
        yield* until(
          "the host is gone",
          Effect.sync(() => events.length === 2)
        )
        assert.deepStrictEqual(events, ["Connected", "Disconnected"])
        yield* Fiber.interrupt(watching)
      })
    )

    check("nobody is let in until told so", () =>
      Effect.gen(function* () {
        const made = yield* exported({ allowAnyHost: false })
        const hostnqn = freshNqn("host")
        const path = { ...pathTo(made), hostnqn }
        yield* failsWith(NvmeBdev.attach(path), "IoFailed")
        yield* Effect.scoped(
          Effect.gen(function* () {
            yield* made.subsystem.addHost({ nqn: hostnqn })
            yield* Effect.scoped(NvmeBdev.attach(path))
            yield* failsWith(made.subsystem.addHost({ nqn: hostnqn }), "AlreadyExists")
          })
        )
        assert.deepStrictEqual((yield* made.subsystem.info).hosts, [])
        yield* failsWith(NvmeBdev.attach(path), "IoFailed")
      })
    )

    check("a namespace is seen by the hosts it is shown to", () =>
      Effect.gen(function* () {
        const made = yield* exported()
        const [insider, outsider] = [freshNqn("insider"), freshNqn("outsider")]
        const hidden = yield* Bdev.createMalloc({ name: fresh("hidden"), blockSize, numBlocks: 64 })
        const namespace = yield* made.subsystem.addNamespace({ bdev: hidden, visibleTo: [insider] })
        const seenBy = (hostnqn: string) =>
          Effect.scoped(Effect.map(NvmeBdev.attach({ ...pathTo(made), hostnqn }), ({ bdevs }) => bdevs.length))
        assert.strictEqual(yield* seenBy(insider), 2)
        assert.strictEqual(yield* seenBy(outsider), 1)
        yield* Effect.scoped(
          Effect.gen(function* () {
            yield* namespace.showTo(outsider)
            assert.strictEqual(yield* seenBy(outsider), 2)
          })
        )
        assert.strictEqual(yield* seenBy(outsider), 1)
      })
    )

    check("the end of a scope takes all along, whatever order it was made in", () =>
      Effect.gen(function* () {
        const target = yield* makeTarget
        const before = yield* nqnsOf(target)
        const backing = yield* Bdev.createMalloc({ name: fresh("ends"), blockSize, numBlocks: 64 })
        yield* Effect.scoped(
          Effect.gen(function* () {
            const subsystem = yield* target.subsystem({ nqn: freshNqn("ends"), allowAnyHost: true })
            const port = yield* freePort
            yield* Effect.all(
              [
                subsystem.addListener({ trsvcid: port }),
                subsystem.addNamespace({ bdev: backing }),
                subsystem.addHost({ nqn: freshNqn("host") })
              ],
              { concurrency: "unbounded" }
            )
            yield* attachedBdev({ nqn: subsystem.nqn, port })
          })
        )
        assert.deepStrictEqual(yield* nqnsOf(target), before)
        assert.isFalse((yield* Bdev.find(backing)).claimed)
      })
    )

    check("what somebody else took away before is no error at the end of a scope", () =>
      Effect.gen(function* () {
        const target = yield* makeTarget
        const backing = yield* Bdev.createMalloc({ name: fresh("gone"), blockSize, numBlocks: 64 })
        yield* Effect.scoped(
          Effect.gen(function* () {
            const subsystem = yield* target.subsystem({ nqn: freshNqn("gone") })
            const inner = yield* Scope.make()
            yield* subsystem.addNamespace({ bdev: backing }).pipe(Scope.provide(inner))
            yield* subsystem.addHost({ nqn: freshNqn("host") }).pipe(Scope.provide(inner))
            yield* subsystem.addListener({ trsvcid: yield* freePort }).pipe(Scope.provide(inner))
            yield* deleteByRpc(subsystem.nqn)
            yield* failsWith(subsystem.info, "NotFound")
            yield* failsWith(subsystem.controllers, "NotFound")
            yield* failsWith(subsystem.qpairs, "NotFound")
            yield* failsWith(subsystem.addNamespace({ bdev: backing }), "NotFound", { resource: subsystem.nqn })
            yield* failsWith(subsystem.addHost({ nqn: freshNqn("host") }), "NotFound")
            yield* failsWith(subsystem.addListener({ trsvcid: yield* freePort }), "NotFound")
            yield* within("the inner scope", Scope.close(inner, Exit.void))
          })
        )
      })
    )

    check("referrals are told of while their scope is open", () =>
      Effect.gen(function* () {
        const target = yield* makeTarget
        const port = yield* freePort
        yield* Effect.scoped(
          Effect.gen(function* () {
            yield* target.addReferral({ traddr: "127.0.0.1", trsvcid: port })
            assert.strictEqual((yield* target.referrals)[0]?.address.trsvcid, port)
            yield* failsWith(target.addReferral({ traddr: "127.0.0.1", trsvcid: port }), "AlreadyExists")
          })
        )
        assert.deepStrictEqual(yield* target.referrals, [])
      })
    )

    check("ANA states by listener and by group", () =>
      Effect.gen(function* () {
        const made = yield* exported({ anaReporting: true, maxNamespaces: 2 })
        const states = Effect.map(made.subsystem.listeners, (all) => (all[0]?.anaStates ?? []).map((one) => one.state))
        assert.deepStrictEqual(yield* states, ["optimized", "optimized"])
        yield* made.listener.setAnaState("non_optimized", { group: 2 })
        assert.deepStrictEqual(yield* states, ["optimized", "non_optimized"])
        yield* made.listener.setAnaState("inaccessible")
        assert.deepStrictEqual(yield* states, ["inaccessible", "inaccessible"])
        yield* failsWith(made.listener.setAnaState("optimized", { group: 3 }), "InvalidArgument", { field: "group" })
        yield* made.namespace.setAnaGroup(2)
        assert.strictEqual((yield* made.subsystem.info).namespaces[0]?.anaGroup, 2)
      })
    )

    check("IPv6", () =>
      Effect.gen(function* () {
        const made = yield* exported()
        const port = yield* freePort
        yield* made.subsystem.addListener({ traddr: "::1", trsvcid: port })
        const { bdev } = yield* attachedBdev({ nqn: made.nqn, port }, { traddr: "::1" })
        yield* bdev.writeBytes(0, pattern(blockSize, 1))
        sameBytes(yield* bdev.readBytes(0, blockSize), pattern(blockSize, 1), "by IPv6")
      })
    )
  })
