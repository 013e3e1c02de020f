/** Attached controllers: options, paths, keys, discovery. */
import * as Bdev from "@effect-spdk/core/Bdev"
import * as NvmeBdev from "@effect-spdk/core/NvmeBdev"
import * as Rpc from "@effect-spdk/core/Rpc"
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { type Capabilities, type EngineLayer, long } from "../support/engines.ts"
import { blockSize, contract, failsWith, fresh, pattern, sameBytes, until, within } from "../support/harness.ts"
import { attachedBdev, exported, freePort, freshNqn, pathTo, untilConnected, verifiedRounds } from "../support/nvmf.ts"
import { seeded } from "../support/random.ts"
import { attachesWithPolicy } from "../support/spdkVersion.ts"
import { authentication, keyring } from "./nvmeBdevKeys.ts"

const badOptions: ReadonlyArray<readonly [Partial<NvmeBdev.AttachOptions>, string]> = [
  [{ name: "" }, "name"],
  [{ traddr: "" }, "traddr"],
  [{ traddr: "::1", adrfam: "IPv4" }, "traddr"],
  [{ trsvcid: 0 }, "trsvcid"],
  [{ trsvcid: 70_000 }, "trsvcid"],
  [{ subnqn: undefined }, "subnqn"],
  [{ subnqn: "n".repeat(224) }, "subnqn"],
  [{ hostnqn: "me" }, "hostnqn"],
  [{ hostaddr: "" }, "hostaddr"],
  [{ hostsvcid: "x" }, "hostsvcid"],
  [{ priority: -1 }, "priority"],
  [{ ioQueues: 0 }, "ioQueues"],
  [{ ioQueues: 65_537 }, "ioQueues"],
  [{ maxBdevs: 0 }, "maxBdevs"],
  [{ connectTimeout: 0 }, "connectTimeout"],
  [{ lossTimeout: "1500 millis" }, "lossTimeout"],
  [{ lossTimeout: "10 seconds", reconnectDelay: 0 }, "reconnectDelay"],
  [{ lossTimeout: "10 seconds", reconnectDelay: "11 seconds" }, "reconnectDelay"],
  [{ lossTimeout: 0, reconnectDelay: "1 second" }, "reconnectDelay"],
  [{ lossTimeout: 0, fastIoFailTimeout: "1 second" }, "fastIoFailTimeout"],
  [{ lossTimeout: "never", reconnectDelay: "5 seconds", fastIoFailTimeout: "2 seconds" }, "fastIoFailTimeout"],
  [{ lossTimeout: "5 seconds", reconnectDelay: "1 second", fastIoFailTimeout: "6 seconds" }, "fastIoFailTimeout"],
  [{ dhchapControllerKey: "key" }, "dhchapControllerKey"],
  [{ policy: { policy: "active_passive", selector: "round_robin" } }, "selector"],
  [{ policy: { policy: "active_active", selector: "queue_depth", minIo: 3 } }, "minIo"],
  [{ policy: { policy: "active_active", minIo: 0 } }, "minIo"],
  [{ policy: { policy: "active_active" }, multipath: "failover" }, "policy"]
]

const detachByRpc = (name: string) =>
  Effect.flatMap(Rpc.RpcClient, (client) => client.call("bdev_nvme_detach_controller", { name }))

/** Half of the requests write the block's next version, the others expect its last one. */
const rewriteOrCheck = (bdev: Bdev.Bdev, versions: Uint32Array, block: number, write: boolean) =>
  Effect.suspend((): Effect.Effect<void, Bdev.IoError> => {
    const offset = block * bdev.blockSize
    const version = versions[block] ?? 0
    if (!write) {
      return Effect.map(bdev.readBytes(offset, bdev.blockSize), (bytes) => {
        const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4)
        const expected = version === 0 ? 0 : (block << 16) | version
        if (words.some((word) => word !== expected)) assert.fail(`block ${block} is not at version ${version}`)
      })
    }
    versions[block] = version + 1
    const words = new Uint32Array(bdev.blockSize / 4).fill((block << 16) | (version + 1))
    return bdev.writeBytes(offset, new Uint8Array(words.buffer))
  })

export const suite = (name: string, layer: EngineLayer, capabilities: Capabilities): void =>
  contract(name, layer, (check) => {
    check("bad input is refused by field and rule, before the engine sees it", () =>
      Effect.gen(function* () {
        const path = { traddr: "127.0.0.1", subnqn: freshNqn("nobody") }
        for (const [options, field] of badOptions) {
          yield* failsWith(NvmeBdev.attach({ ...path, ...options }), "InvalidArgument", { field })
        }
        yield* failsWith(NvmeBdev.attach({ ...path, trtype: "RDMA", headerDigest: true }), "InvalidArgument", {
          field: "headerDigest"
        })
        yield* failsWith(NvmeBdev.attach({ traddr: "not pci", trtype: "PCIe" }), "InvalidArgument", {
          field: "traddr"
        })
        yield* failsWith(NvmeBdev.discover({ traddr: "127.0.0.1", trsvcid: "x" }), "InvalidArgument", {
          field: "trsvcid"
        })
        yield* failsWith(NvmeBdev.discover({ traddr: "127.0.0.1", attachTimeout: 0 }), "InvalidArgument", {
          field: "attachTimeout"
        })
        assert.deepStrictEqual(yield* NvmeBdev.list, [])
      })
    )

    check("nobody listens: IoFailed, and nothing is left", () =>
      Effect.gen(function* () {
        const port = yield* freePort
        const failed = yield* failsWith(
          NvmeBdev.attach({ traddr: "127.0.0.1", trsvcid: port, subnqn: freshNqn("nobody") }),
          "IoFailed"
        )
        assert.include(failed.message, `127.0.0.1:${port}`)
        assert.strictEqual(failed.errno, "ECONNREFUSED")
        assert.isTrue(failed.isRetryable)
        assert.deepStrictEqual(yield* NvmeBdev.list, [])
      })
    )

    check("a name, and a path, that is there already is AlreadyExists, and what is there stays", () =>
      Effect.gen(function* () {
        const made = yield* exported()
        const { bdev, controller } = yield* attachedBdev(made)
        yield* failsWith(NvmeBdev.attach({ ...pathTo(made), name: controller.name }), "AlreadyExists")
        yield* failsWith(controller.addPath({ traddr: "127.0.0.1", trsvcid: made.port }), "AlreadyExists")
        assert.strictEqual((yield* controller.paths).length, 1)
        yield* bdev.writeBytes(0, pattern(blockSize, 1))
      })
    )

    check("more namespaces than maxBdevs: InvalidArgument, and nothing is left", () =>
      Effect.gen(function* () {
        const made = yield* exported({ maxNamespaces: 2 })
        const second = yield* Bdev.createMalloc({ name: fresh("second"), blockSize, numBlocks: 64 })
        yield* made.subsystem.addNamespace({ bdev: second })
        yield* failsWith(NvmeBdev.attach({ ...pathTo(made), maxBdevs: 1 }), "InvalidArgument", { field: "maxBdevs" })
        assert.deepStrictEqual(yield* NvmeBdev.list, [])
        const controller = yield* NvmeBdev.attach({ ...pathTo(made), maxBdevs: 2 })
        assert.deepStrictEqual(controller.bdevs, [`${controller.name}n1`, `${controller.name}n2`])
      })
    )

    check("the paths of a bdev are told of by thread while a channel is open, and its I/O goes there", () =>
      Effect.gen(function* () {
        const made = yield* exported()
        const controller = yield* NvmeBdev.attach(pathTo(made))
        const name = `${controller.name}n1`
        const paths = Effect.map(controller.ioPaths, (threads) => threads.flatMap((thread) => thread.paths))
        yield* Effect.scoped(
          Effect.gen(function* () {
            const bdev = yield* Bdev.open(name, { write: true })
            yield* bdev.writeBytes(0, pattern(blockSize, 1))
            const [path] = yield* controller.paths
            assert.deepStrictEqual(yield* paths, [
              {
                bdev: name,
                cntlid: path?.cntlid ?? 0,
                isCurrent: true,
                isConnected: true,
                isAccessible: true,
                transport: { trtype: "TCP", adrfam: "IPv4", traddr: "127.0.0.1", trsvcid: made.port }
              }
            ])
            const named = yield* Rpc.call("bdev_nvme_get_io_paths", { name: "nobody" })
            assert.deepNestedInclude({ named }, { "named.poll_groups[0].io_paths": [] })
          })
        )
        yield* until(
          "the channel is closed",
          Effect.map(paths, (all) => all.length === 0)
        )
      })
    )

    check("options of the module: checked, and fixed while a controller is attached", () =>
      Effect.gen(function* () {
        const made = yield* exported()
        const set = (options: Rpc.RpcMethods["bdev_nvme_set_options"]) => Rpc.call("bdev_nvme_set_options", options)
        const saved = Effect.map(
          Rpc.call("framework_get_config", { name: "bdev" }),
          (calls) => [calls].flat().find((one) => JSON.stringify(one).includes("bdev_nvme_set_options")) ?? null
        )
        yield* failsWith(set({ ctrlr_loss_timeout_sec: 5 }), "InvalidArgument")
        yield* failsWith(set({ ctrlr_loss_timeout_sec: 0, reconnect_delay_sec: 1 }), "InvalidArgument")
        yield* Effect.acquireRelease(
          set({ ctrlr_loss_timeout_sec: 20, reconnect_delay_sec: 1, keep_alive_timeout_ms: 5000 }),
          () => Effect.orDie(set({ ctrlr_loss_timeout_sec: 0, reconnect_delay_sec: 0, keep_alive_timeout_ms: 10_000 }))
        )
        assert.deepNestedInclude(
          { saved: yield* saved },
          { "saved.params.ctrlr_loss_timeout_sec": 20, "saved.params.keep_alive_timeout_ms": 5000 }
        )
        yield* Effect.scoped(
          Effect.gen(function* () {
            const { controller } = yield* attachedBdev(made)
            yield* failsWith(set({ keep_alive_timeout_ms: 6000 }), "RpcFailed", { code: -1 })
            const config = JSON.stringify(yield* Rpc.call("framework_get_config", { name: "bdev" }))
            const attach = new RegExp(`bdev_nvme_attach_controller","params":{"name":"${controller.name}"[^}]*`).exec(
              config
            )
            assert.include(attach?.[0], '"ctrlr_loss_timeout_sec":20')
          })
        )
      })
    )

    check("detached by somebody else: paths are NotFound, events end the path, the scope closes", () =>
      Effect.gen(function* () {
        const made = yield* exported()
        const scope = yield* Scope.make()
        const controller = yield* NvmeBdev.attach(pathTo(made)).pipe(Scope.provide(scope))
        const seen: Array<string> = []
        const events = yield* Effect.forkChild(
          controller.pathEvents(Schedule.spaced("10 millis")).pipe(
            Stream.tap((event) => Effect.sync(() => seen.push(event._tag))),
            Stream.takeUntil((event) => event._tag === "PathLost"),
            Stream.runDrain
          ),
          { startImmediately: true }
        )
        yield* until(
          "the path is seen",
          Effect.sync(() => seen.includes("PathFound"))
        )
        yield* detachByRpc(controller.name)
        yield* within("the events", Fiber.join(events))
        assert.deepStrictEqual(
          // It may be seen on its way out.
          seen.filter((tag) => tag !== "PathChanged"),
          ["PathFound", "PathLost"]
        )
        yield* failsWith(controller.paths, "NotFound")
        yield* within("the scope", Scope.close(scope, Exit.void))
      })
    )

    check("a layer provides the bdev of an export", () =>
      Effect.gen(function* () {
        const made = yield* exported()
        const program = Effect.gen(function* () {
          const bdev = yield* Bdev.Bdev
          yield* bdev.writeBytes(0, pattern(4096, 7))
          return yield* bdev.readBytes(0, 4096)
        })
        sameBytes(yield* Effect.provide(program, NvmeBdev.layer(pathTo(made))), pattern(4096, 7), "by the layer")
        yield* Effect.provide(program, NvmeBdev.layer(pathTo(made)))
        assert.deepStrictEqual(yield* NvmeBdev.list, [])
      })
    )

    check("a reset under the handle: I/O goes on", () =>
      seeded((random) =>
        Effect.gen(function* () {
          const made = yield* exported({ numBlocks: 512 })
          const { bdev, controller } = yield* attachedBdev(made)
          yield* verifiedRounds(bdev, random, 20)
          yield* within("the reset", controller.reset())
          yield* verifiedRounds(bdev, random, 20)
        })
      )
    )

    check(
      "verified random I/O by an export of this process, on one reactor",
      () =>
        seeded((random) =>
          Effect.gen(function* () {
            const made = yield* exported({ numBlocks: 4096 })
            const { bdev } = yield* attachedBdev(made)
            const versions = new Uint32Array(bdev.numBlocks)
            const total = long ? 1_000_000 : 20_000
            const batch = 64
            let done = 0
            while (done < total) {
              const blocks = new Set(Array.from({ length: batch }, () => random.below(bdev.numBlocks)))
              yield* Effect.forEach(blocks, (block) => rewriteOrCheck(bdev, versions, block, random.chance(0.5)), {
                concurrency: "unbounded",
                discard: true
              })
              done += blocks.size
            }
            assert.isAtLeast(done, total)
          })
        ),
      { timeoutMillis: long ? 1_800_000 : 60_000 }
    )

    if (capabilities.keys) {
      keyring(check)
      authentication(check)
    }

    if (capabilities.multipath) {
      check("statistics by path: PermissionDenied while they are off, counts of both paths when they are on", () =>
        Effect.gen(function* () {
          yield* attachesWithPolicy
          const made = yield* exported()
          yield* Effect.scoped(
            Effect.gen(function* () {
              const { bdev, controller } = yield* attachedBdev(made)
              yield* failsWith(controller.pathStats(bdev.name), "PermissionDenied", { resource: bdev.name })
            })
          )
          const switchOn = (io_path_stat: boolean) => Rpc.call("bdev_nvme_set_options", { io_path_stat })
          yield* Effect.acquireRelease(switchOn(true), () => Effect.orDie(switchOn(false)))
          const port = yield* freePort
          yield* made.subsystem.addListener({ trsvcid: port })
          yield* Effect.scoped(
            Effect.gen(function* () {
              const { bdev, controller } = yield* attachedBdev(made, { policy: { policy: "active_active" } })
              yield* controller.addPath({ traddr: "127.0.0.1", trsvcid: port })
              yield* controller.setPolicy({ policy: "active_active", selector: "round_robin", minIo: 1 })
              // Opens the channel.
              yield* bdev.readBytes(0, blockSize)
              yield* untilConnected(controller, 2)
              for (let at = 0; at < 10; at++) yield* bdev.writeBytes(at * blockSize, pattern(blockSize, at))
              const stats = yield* controller.pathStats(bdev.name)
              assert.deepStrictEqual(
                stats.map((one) => one.transportId.trsvcid).toSorted(),
                [made.port, port].toSorted()
              )
              assert.strictEqual(
                stats.reduce((sum, one) => sum + one.counters.bytesWritten, 0),
                10 * blockSize
              )
              assert.isTrue(stats.every((one) => one.counters.writeOps > 0))
            })
          )
        })
      )

      check("the preferred path is the one that is taken", () =>
        Effect.gen(function* () {
          const made = yield* exported()
          const port = yield* freePort
          yield* made.subsystem.addListener({ trsvcid: port })
          const { bdev, controller } = yield* attachedBdev(made)
          yield* controller.addPath({ traddr: "127.0.0.1", trsvcid: port })
          yield* bdev.writeBytes(0, pattern(blockSize, 1))
          yield* untilConnected(controller, 2)
          const second = (yield* controller.paths).find((path) => path.transportId.trsvcid === port)
          yield* controller.setPreferredPath({ bdev: bdev.name, cntlid: second?.cntlid ?? 0 })
          yield* bdev.writeBytes(0, pattern(blockSize, 2))
          const current = (yield* controller.ioPaths)
            .flatMap((thread) => thread.paths)
            .flatMap((path) => (path.isCurrent ? [path.transport.trsvcid] : []))
          assert.deepStrictEqual(current, [port])
          yield* failsWith(controller.setPolicy({ policy: "active_passive", minIo: 2 }), "InvalidArgument", {
            field: "minIo"
          })
        })
      )
    }
  })
