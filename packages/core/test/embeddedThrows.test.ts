/** Functions of a user's that throw in the middle of the embedded engine's work: nobody else's work is lost. */
import { Opcode } from "@effect-spdk/native/Layout"
import { type Entry, makeEntry } from "@effect-spdk/native/Queue"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as fs from "node:fs"
import * as net from "node:net"
import * as path from "node:path"
import { MallocModule } from "../src/internal/embedded/bdev/modules/malloc.ts"
import { BdevRegistry } from "../src/internal/embedded/bdev/registry.ts"
import { EngineState } from "../src/internal/embedded/runtime/engineState.ts"
import { MemoryBudget } from "../src/internal/embedded/queue/memory.ts"
import { Notifications } from "../src/internal/embedded/runtime/notifications.ts"
import { HostConnection } from "../src/internal/embedded/nvme/hostConnection.ts"
import { QueuePair } from "../src/internal/embedded/nvme/queuePair.ts"
import { Target } from "../src/internal/embedded/nvmf/target.ts"
import { TargetLink } from "../src/internal/embedded/nvmf/targetLink.ts"
import { EmbeddedReactor } from "../src/internal/embedded/runtime/reactor.ts"
import * as Timers from "../src/internal/embedded/runtime/timers.ts"
import type { Engine } from "../src/internal/engine/engine.ts"
import { encodeIcResp, FatalError } from "../src/internal/nvme/wire/pdu.ts"
import {
  command,
  type Disk,
  makeEngine,
  malloc,
  ok,
  open,
  options,
  read,
  slab,
  transfer,
  turn
} from "./support/embeddedEngine.ts"
import { connected, freePort, icReq, initialized, makeTarget, nqn, until } from "./support/rawNvmeHost.ts"
import { scratchFolder } from "./support/scratch.ts"
import { uncaughtDuring } from "./support/uncaught.ts"

const thrown = new Error("of the test's")

/** Submits them all; every third completion throws. Ends when each has completed, and checks that it was once. */
const submitAll = ({ thread }: Disk, entries: ReadonlyArray<Partial<Entry>>) =>
  Effect.gen(function* () {
    const times = entries.map(() => 0)
    const completion = {
      complete: (index: number) => {
        times[index] = (times[index] ?? 0) + 1
        if (index % 3 === 0) throw thrown
      }
    }
    entries.forEach((entry, index) => thread.queue.submit({ ...makeEntry(), ...entry }, completion, index))
    yield* until("every request to complete", () => times.every((count) => count > 0))
    yield* turn
    assert.deepStrictEqual(
      times,
      times.map(() => 1)
    )
    assert.strictEqual(thread.queue.inFlight, 0)
  })

const thirds = (count: number): ReadonlyArray<Error> => Array.from({ length: Math.ceil(count / 3) }, () => thrown)

describe("completions that throw take nothing from the other requests", () => {
  type Made = Effect.Effect<{ readonly engine: Engine; readonly name: string }, unknown, Scope.Scope>
  const withBdev = (name: string, method?: string, params?: object): Made =>
    Effect.gen(function* () {
      const engine = yield* makeEngine()
      yield* engine.rpc.call("bdev_malloc_create", malloc("m"))
      if (method !== undefined) yield* engine.rpc.call(method, { ...params })
      return { engine, name }
    })
  const latencies = { avg_read_latency: 2000, p99_read_latency: 2000, avg_write_latency: 0, p99_write_latency: 0 }
  const aio: Made = Effect.gen(function* () {
    const filename = path.join(yield* scratchFolder, "disk.img")
    fs.writeFileSync(filename, Buffer.alloc(65_536))
    const engine = yield* makeEngine()
    yield* engine.rpc.call("bdev_aio_create", { name: "a", filename, block_size: 512 })
    return { engine, name: "a" }
  })
  const nvme: Made = Effect.gen(function* () {
    const { port } = yield* makeTarget()
    const engine = yield* makeEngine()
    const address = { trtype: "TCP", adrfam: "IPv4", traddr: "127.0.0.1", trsvcid: String(port) }
    yield* engine.rpc.call("bdev_nvme_attach_controller", { name: "N", ...address, subnqn: nqn })
    return { engine, name: "Nn1" }
  })
  const cases: ReadonlyArray<readonly [name: string, made: Made]> = [
    ["in memory", withBdev("m")],
    ["on another", withBdev("p", "bdev_passthru_create", { name: "p", base_bdev_name: "m" })],
    ["delayed", withBdev("d", "bdev_delay_create", { name: "d", base_bdev_name: "m", ...latencies })],
    ["in a file", aio],
    ["behind a connection", nvme]
  ]
  it.live.each(cases)("%s", ([, made]) =>
    Effect.gen(function* () {
      const { engine, name } = yield* made
      const disk = yield* open(engine, name)
      const memory = yield* slab(engine, 512, 4096)
      const reads = Array.from({ length: 500 }, (_, index) => transfer(disk, Opcode.Read, memory, index % 64))
      // The reset waits for the reads before it.
      const { uncaught } = yield* uncaughtDuring(submitAll(disk, [...reads, command(disk, Opcode.Reset), ...reads]))
      assert.deepStrictEqual(uncaught, thirds(1001))
      assert.deepStrictEqual(yield* read(disk, memory, 0), ok)
    }).pipe(Effect.scoped)
  )

  it.live("that an error bdev held back, or had no memory for", () =>
    Effect.gen(function* () {
      const { engine } = yield* withBdev("EE_m", "bdev_error_create", { base_name: "m" })
      const disk = yield* open(engine, "EE_m")
      const memory = yield* slab(engine, 512, 4096)
      const reads = Array.from({ length: 30 }, (_, index) => transfer(disk, Opcode.Read, memory, index))
      const inject = (error_type: string) =>
        engine.rpc.call("bdev_error_inject_error", { name: "EE_m", io_type: "read", error_type, num: 30 })
      yield* inject("nomem")
      assert.deepStrictEqual((yield* uncaughtDuring(submitAll(disk, reads))).uncaught, thirds(30))
      yield* inject("pending")
      const { uncaught } = yield* uncaughtDuring(submitAll(disk, [...reads, command(disk, Opcode.Reset)]))
      assert.deepStrictEqual(uncaught, thirds(31))
    }).pipe(Effect.scoped)
  )

  it.live("and a thread whose timers they are ends", () =>
    Effect.gen(function* () {
      const engine = yield* makeEngine()
      let completed = 0
      const complete = () => {
        completed++
        throw thrown
      }
      const { uncaught } = yield* uncaughtDuring(
        Effect.scoped(
          Effect.map(engine.spawn({ name: "other", cpuMask: undefined }), ({ queue }) => {
            const entry = { ...makeEntry(), opcode: Opcode.Timer, offsetBlocks: 3_600_000_000 }
            for (let index = 0; index < 5; index++) queue.submit(entry, { complete }, index)
          })
        )
      )
      assert.strictEqual(completed, 5)
      assert.strictEqual(uncaught.length, 5)
    }).pipe(Effect.scoped)
  )
})

describe("listeners that throw", () => {
  it.live("to the removal of a bdev do not hold it back", () =>
    Effect.gen(function* () {
      const engine = yield* makeEngine()
      yield* engine.rpc.call("bdev_malloc_create", malloc("m"))
      yield* engine.openBdev("m", {
        write: true,
        onEvent: () => {
          throw thrown
        }
      })
      const { uncaught } = yield* uncaughtDuring(engine.rpc.call("bdev_malloc_delete", { name: "m" }))
      assert.deepStrictEqual(uncaught, [thrown])
      assert.strictEqual((yield* engine.usage).descriptors, 0)
    }).pipe(Effect.scoped)
  )

  it.live("to the removal of a bdev do not hold back the end of the engine", () =>
    Effect.gen(function* () {
      const state = new EngineState(options, yield* Timers.make)
      const module = new MallocModule(state.registry)
      for (const name of ["m", "n"]) {
        const geometry = { numBlocks: 8, blockSize: 512, physicalBlockSize: 512, optimalIoBoundaryBlocks: 0 }
        const bdev = module.make({ ...geometry, name, uuid: undefined, numaId: -1 })
        if (typeof bdev === "number") return assert.fail(`no bdev: ${bdev}`)
        // Open: removed only by the end.
        yield* state.openBdev(name, { write: true, onEvent: () => {} })
        state.registry.unregister(bdev, () => {
          throw thrown
        })
      }
      assert.deepStrictEqual((yield* uncaughtDuring(state.release)).uncaught, [thrown, thrown])
      assert.lengthOf(state.registry.all, 0)
    }).pipe(Effect.scoped)
  )

  it.live("to a poller take no turn from the others", () =>
    Effect.gen(function* () {
      const { mainThread, registerPoller } = yield* makeEngine()
      const counts = [0, 0, 0, 0]
      const { uncaught } = yield* uncaughtDuring(
        Effect.scoped(
          Effect.gen(function* () {
            for (const [index, periodMicros] of [0, 0, 1000, 1000].entries()) {
              const onTick = () => {
                counts[index] = (counts[index] ?? 0) + 1
                if (index % 2 === 0) throw thrown
              }
              yield* registerPoller(mainThread, { name: `p${index}`, periodMicros, onTick })
            }
            yield* until("the pollers to run", () => counts.every((count) => count >= 5))
          })
        )
      )
      assert.isAtLeast(uncaught.length, 10)
    }).pipe(Effect.scoped)
  )

  it.live("to the log leave a peer its last word", () =>
    Effect.gen(function* () {
      const { rpc } = yield* makeEngine({
        memoryMiB: 256,
        onLog: () => {
          throw thrown
        }
      })
      const port = yield* freePort
      const { uncaught } = yield* uncaughtDuring(
        Effect.gen(function* () {
          yield* rpc.call("nvmf_create_transport", { trtype: "TCP" })
          yield* rpc.call("nvmf_create_subsystem", { nqn, allow_any_host: true })
          const listen_address = { trtype: "TCP", adrfam: "IPv4", traddr: "127.0.0.1", trsvcid: String(port) }
          yield* rpc.call("nvmf_subsystem_add_listener", { nqn, listen_address })
          const liar = yield* initialized(port)
          liar.send(icReq)
          assert.strictEqual(yield* liar.ended, FatalError.SequenceError)
          yield* connected(port)
        })
      )
      assert.isAtLeast(uncaught.length, 1)
    }).pipe(Effect.scoped)
  )
})

describe("a queue pair of the host", () => {
  it.live("answers all commands, whatever the owner of one throws", () =>
    Effect.gen(function* () {
      const reactor = new EmbeddedReactor()
      const queue = new QueuePair({ id: 1, depth: 8, retries: 0, reactor, owner: { queueFailed: () => {} } })
      let answered = 0
      const commandDone = () => {
        if (++answered % 3 === 0) throw thrown
      }
      const { uncaught } = yield* uncaughtDuring(
        Effect.gen(function* () {
          for (let count = 0; count < 300; count++) queue.submit(queue.take({ commandDone }))
          queue.close("failed")
          yield* until("the commands to be answered", () => answered >= 300)
        })
      )
      assert.strictEqual(answered, 300)
      assert.strictEqual(uncaught.length, 100)
    })
  )

  it.live("gives up a connection when what came on it was not read to its end", () =>
    Effect.gen(function* () {
      const response = { version: 0, alignment: 0, headerDigest: false, dataDigest: false, maxH2cData: 131_072 }
      const server = net.createServer((socket) => {
        socket.on("error", () => {})
        socket.write(encodeIcResp(response))
      })
      yield* Effect.acquireRelease(
        Effect.callback<void>((resume) => void server.listen(0, "127.0.0.1", () => resume(Effect.void))),
        () => Effect.sync(() => server.close())
      )
      const address = server.address()
      const port = typeof address === "object" && address !== null ? address.port : 0
      const failures: Array<string> = []
      const { uncaught } = yield* uncaughtDuring(
        Effect.gen(function* () {
          const connection = new HostConnection(
            {
              find: () => undefined,
              ended: () => {},
              opened: () => {
                throw thrown
              },
              drained: () => {},
              failed: ({ message }) => void failures.push(message)
            },
            new EmbeddedReactor(),
            {
              address: { host: "127.0.0.1", port, family: 4, localAddress: "", localPort: 0 },
              headerDigest: false,
              dataDigest: false,
              inCapsuleBytes: 0
            }
          )
          yield* until("the connection to fail", () => failures.length > 0)
          connection.close()
        })
      )
      assert.deepStrictEqual(uncaught, [thrown])
      assert.deepStrictEqual(failures, ["the data from the target could not be read completely"])
    }).pipe(Effect.scoped)
  )
})

/** Connections of a target that has no more than that. */
const links = Effect.gen(function* () {
  const timers = yield* Timers.make
  const context = {
    reactor: new EmbeddedReactor(),
    timers,
    budget: new MemoryBudget(1024 * 1024),
    notifications: new Notifications(),
    log: () => {}
  }
  const target = new Target(new BdevRegistry(context))
  const seen: Array<{ readonly link: TargetLink; readonly events: Array<string> }> = []
  const server = net.createServer((socket) => {
    const events: Array<string> = []
    const link: TargetLink = new TargetLink(target, socket, {
      onHeader: (reader) => {
        events.push(`header ${reader.type}`)
        if (seen[0]?.link === link) throw thrown
        link.output.write(Uint8Array.of(1))
        return undefined
      },
      onData: () => undefined,
      onEnd: () => undefined,
      linkClosed: () => void events.push("closed")
    })
    seen.push({ link, events })
  })
  yield* Effect.acquireRelease(
    Effect.callback<void>((resume) => void server.listen(0, "127.0.0.1", () => resume(Effect.void))),
    () => Effect.sync(() => server.close())
  )
  const address = server.address()
  return { seen, port: typeof address === "object" && address !== null ? address.port : 0 }
})

describe("a connection of the target", () => {
  it.live("ends when what came on it was not read to its end, and no other does", () =>
    Effect.gen(function* () {
      const { port, seen } = yield* links
      const hosts = yield* Effect.acquireRelease(
        Effect.sync(() => [0, 1].map(() => net.connect(port, "127.0.0.1"))),
        (sockets) => Effect.sync(() => sockets.forEach((socket) => socket.destroy()))
      )
      let isClosed = false
      let answers = 0
      hosts[0]?.on("close", () => (isClosed = true)).on("error", () => {})
      hosts[1]?.on("data", (bytes: Buffer) => (answers += bytes.length))
      const { uncaught } = yield* uncaughtDuring(
        Effect.gen(function* () {
          yield* until("the connections", () => seen.length === 2)
          // In this order, so that they are read in one drain.
          for (const host of hosts) host.write(icReq)
          yield* until("the first connection to end and the second to be answered", () => isClosed && answers > 0)
        })
      )
      assert.deepStrictEqual(uncaught, [thrown])
      assert.deepStrictEqual(
        seen.map(({ events }) => events),
        [["header 0", "closed"], ["header 0"]]
      )
      seen[1]?.link.destroy()
    }).pipe(Effect.scoped)
  )
})
