/** What a target refuses, with the reason, and that nothing is left of it. */
import * as Bdev from "@effect-spdk/core/Bdev"
import * as NvmeBdev from "@effect-spdk/core/NvmeBdev"
import * as NvmfTarget from "@effect-spdk/nvmf/NvmfTarget"
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { createServer } from "node:net"
import type { Capabilities, EngineLayer } from "../support/engines.ts"
import { blockSize, contract, failsWith, fresh } from "../support/harness.ts"
import { exported, freePort, freshNqn, makeTarget, pathTo } from "../support/nvmf.ts"

/** Somebody else has this port. */
const occupied = Effect.acquireRelease(
  Effect.callback<{ readonly port: string; readonly close: () => void }>((resume) => {
    const server = createServer()
    server.listen({ host: "127.0.0.1", port: 0 }, () => {
      const address = server.address()
      const port = typeof address === "object" && address !== null ? String(address.port) : ""
      resume(Effect.succeed({ port, close: () => server.close() }))
    })
  }),
  ({ close }) => Effect.sync(close)
)

const nqnsOf = (target: NvmfTarget.NvmfTarget["Service"]) =>
  Effect.map(target.subsystems, (all) => all.map((one) => one.nqn))

export const suite = (name: string, layer: EngineLayer, _capabilities: Capabilities): void =>
  contract(name, layer, (check) => {
    check("duplicates are AlreadyExists: a name, a namespace, an address, a host", () =>
      Effect.gen(function* () {
        const made = yield* exported()
        yield* failsWith(made.target.subsystem({ nqn: made.nqn }), "AlreadyExists", { resource: made.nqn })
        // What was there is untouched.
        assert.strictEqual((yield* made.subsystem.info).namespaces.length, 1)
        yield* failsWith(made.subsystem.addNamespace({ bdev: made.backing }), "AlreadyExists", {
          detail: `it is namespace 1 of ${made.nqn} already`
        })
        const other = yield* made.target.subsystem({ nqn: freshNqn("other") })
        yield* failsWith(other.addNamespace({ bdev: made.backing }), "AlreadyExists", {
          detail: `it is namespace 1 of ${made.nqn} already`
        })
        const second = yield* Bdev.createMalloc({ name: fresh("second"), blockSize, numBlocks: 64 })
        yield* failsWith(made.subsystem.addNamespace({ bdev: second, nsid: 1 }), "AlreadyExists")
        yield* failsWith(made.subsystem.addListener({ trsvcid: made.port }), "AlreadyExists")
        // Several subsystems share an address.
        yield* other.addListener({ trsvcid: made.port })
      })
    )

    check("an address that is not to be had: Busy in use, InvalidArgument elsewhere's", () =>
      Effect.gen(function* () {
        const made = yield* exported()
        const { port } = yield* occupied
        const busy = yield* failsWith(made.subsystem.addListener({ trsvcid: port }), "Busy", { errno: "EADDRINUSE" })
        assert.isTrue(busy.isRetryable)
        yield* failsWith(made.subsystem.addListener({ traddr: "192.0.2.77", trsvcid: port }), "InvalidArgument", {
          field: "traddr"
        })
        assert.strictEqual((yield* made.subsystem.info).listeners.length, 1)
      })
    )

    check("what is not there is NotFound, and what others have is Busy", () =>
      Effect.gen(function* () {
        const made = yield* exported()
        yield* failsWith(made.subsystem.addNamespace({ bdev: "no such bdev" }), "NotFound", {
          resource: "no such bdev"
        })
        const claimed = yield* Bdev.createMalloc({ name: fresh("claimed"), blockSize, numBlocks: 64 })
        yield* Bdev.createPassthru({ base: claimed, name: fresh("passthru") })
        yield* failsWith(made.subsystem.addNamespace({ bdev: claimed }), "Busy", {
          resource: claimed,
          detail: "claimed by module passthru (exclusive_write)"
        })
        yield* failsWith(made.subsystem.addHost({ nqn: freshNqn("host"), psk: "no such key" }), "NotFound", {
          resource: "no such key"
        })
        const nobody = yield* failsWith(NvmeBdev.attach({ ...pathTo(made), subnqn: freshNqn("nobody") }), "IoFailed")
        assert.include(nobody.message, "no such subsystem")
        assert.notInclude(nobody.message, "this host")
        const closed = yield* made.target.subsystem({ nqn: freshNqn("closed"), allowAnyHost: false })
        yield* closed.addListener({ trsvcid: made.port })
        const stranger = yield* failsWith(NvmeBdev.attach({ ...pathTo(made), subnqn: closed.nqn }), "IoFailed")
        assert.include(stranger.message, "does not allow this host")
        assert.isFalse(nobody.isRetryable)
      })
    )

    check("a full subsystem is NoSpace", () =>
      Effect.gen(function* () {
        const made = yield* exported({ maxNamespaces: 1 })
        const second = yield* Bdev.createMalloc({ name: fresh("second"), blockSize, numBlocks: 64 })
        yield* failsWith(made.subsystem.addNamespace({ bdev: second }), "NoSpace")
      })
    )

    check("bad input is refused by field and rule, before the engine sees it", () =>
      Effect.gen(function* () {
        const { subsystem, target } = yield* exported({ maxNamespaces: 4 })
        const before = yield* nqnsOf(target)
        const nqn = freshNqn("bad")
        const subsystems: ReadonlyArray<readonly [Partial<NvmfTarget.SubsystemOptions>, string]> = [
          [{ nqn: "" }, "nqn"],
          [{ nqn: "disk" }, "nqn"],
          [{ nqn: "nqn.2026-13.com.example:x" }, "nqn"],
          [{ nqn: "nqn.2026-01.com.example" }, "nqn"],
          [{ nqn: "nqn.2026-01.com..example:x" }, "nqn"],
          [{ nqn: "nqn.2026-01.com.-example:x" }, "nqn"],
          [{ nqn: `nqn.2026-01.com.example:${"x".repeat(223)}` }, "nqn"],
          [{ nqn: "nqn.2014-08.org.nvmexpress:uuid:not-a-uuid" }, "nqn"],
          [{ serialNumber: "x".repeat(21) }, "serialNumber"],
          [{ serialNumber: "" }, "serialNumber"],
          [{ serialNumber: "ä" }, "serialNumber"],
          [{ modelNumber: "x".repeat(41) }, "modelNumber"],
          [{ maxNamespaces: 0 }, "maxNamespaces"],
          [{ maxNamespaces: 1.5 }, "maxNamespaces"],
          [{ minCntlid: 0 }, "minCntlid"],
          [{ maxCntlid: 65_520 }, "maxCntlid"],
          [{ minCntlid: 9, maxCntlid: 5 }, "minCntlid"],
          [{ writeZeroesSizeLimit: 256 }, "writeZeroesSizeLimit"]
        ]
        for (const [options, field] of subsystems) {
          yield* failsWith(target.subsystem({ nqn, ...options }), "InvalidArgument", { field })
        }
        const backing = yield* Bdev.createMalloc({ name: fresh("bad"), blockSize, numBlocks: 64 })
        const namespaces: ReadonlyArray<readonly [Partial<NvmfTarget.NamespaceOptions>, string]> = [
          [{ bdev: "" }, "bdev"],
          [{ nsid: 0 }, "nsid"],
          [{ nsid: 5 }, "nsid"],
          [{ uuid: "1234" }, "uuid"],
          [{ nguid: "12" }, "nguid"],
          [{ nguid: "0".repeat(32) }, "nguid"],
          [{ eui64: "x".repeat(16) }, "eui64"],
          [{ anaGroup: 1 }, "anaGroup"],
          [{ visibleTo: ["nobody"] }, "visibleTo"]
        ]
        for (const [options, field] of namespaces) {
          yield* failsWith(subsystem.addNamespace({ bdev: backing, ...options }), "InvalidArgument", { field })
        }
        const listeners: ReadonlyArray<readonly [NvmfTarget.ListenerOptions, string]> = [
          [{ trsvcid: 0 }, "trsvcid"],
          [{ trsvcid: "65536" }, "trsvcid"],
          [{ trsvcid: "http" }, "trsvcid"],
          [{ traddr: "" }, "traddr"],
          // SPDK takes them, and lets nobody in.
          [{ traddr: "0.0.0.0" }, "traddr"],
          [{ traddr: "::" }, "traddr"],
          [{ traddr: "0:0:0:0:0:0:0:0" }, "traddr"],
          [{ traddr: "::1", adrfam: "IPv4" }, "traddr"],
          [{ adrfam: "IB" }, "adrfam"],
          [{ anaState: "inaccessible" }, "anaState"],
          [{ trtype: "VFIOUSER" }, "traddr"]
        ]
        for (const [options, field] of listeners) {
          yield* failsWith(subsystem.addListener(options), "InvalidArgument", { field })
        }
        yield* failsWith(subsystem.addHost({ nqn: "me" }), "InvalidArgument", { field: "nqn" })
        yield* failsWith(subsystem.addHost({ nqn, dhchapControllerKey: "key" }), "InvalidArgument", {
          field: "dhchapControllerKey"
        })
        yield* failsWith(target.addReferral({ traddr: "127.0.0.1", subnqn: "x" }), "InvalidArgument", {
          field: "subnqn"
        })
        // SPDK would keep them for ever.
        for (const [traddr, adrfam] of [
          ["localhost", "IPv4"],
          ["127.0.0.256", undefined],
          ["fe80::1%lo", undefined]
        ] as const) {
          yield* failsWith(target.addReferral({ traddr, adrfam }), "InvalidArgument", { field: "traddr" })
        }
        yield* failsWith(subsystem.addListener({ trsvcid: yield* freePort, secureChannel: true }), "InvalidArgument", {
          field: "secureChannel"
        })
        assert.deepStrictEqual(yield* nqnsOf(target), before)
        assert.strictEqual((yield* subsystem.info).namespaces.length, 1)
        assert.strictEqual((yield* subsystem.info).listeners.length, 1)
      })
    )

    check("transports: options are typed, a second user shares it, another wish is OptionsClash", () =>
      Effect.gen(function* () {
        yield* makeTarget
        yield* NvmfTarget.make()
        yield* failsWith(NvmfTarget.make({ transports: [{ trtype: "TCP", maxQueueDepth: 17 }] }), "OptionsClash", {
          option: "max_queue_depth",
          running: "128",
          requested: "17"
        })
        yield* failsWith(NvmfTarget.make({ transports: [{ trtype: "TCP", maxQueueDepth: -1 }] }), "InvalidArgument", {
          field: "maxQueueDepth"
        })
        // What programs without types pass.
        for (const transports of ["TCP", {}, 5, null]) {
          const made = NvmfTarget.make({ transports: transports as never })
          yield* failsWith(made, "InvalidArgument", { field: "transports" })
        }
        yield* failsWith(NvmfTarget.make({ transports: [null as never] }), "InvalidArgument", { field: "transports" })
        yield* failsWith(
          NvmfTarget.make({ transports: [{ trtype: "TCP", maskedCommands: "compare" as never }] }),
          "InvalidArgument",
          { field: "maskedCommands" }
        )
        yield* failsWith(NvmfTarget.make({ drainTimeout: "no duration" as "1 second" }), "InvalidArgument", {
          field: "drainTimeout"
        })
      })
    )
  })
