/** Resets of the embedded host's controllers that meet queues whose connection is just being made. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as net from "node:net"
import type { NvmeConnectSettings, NvmeControllerEvent } from "../src/internal/engine/nvme.ts"
import { HostController } from "../src/internal/embedded/nvme/controller.ts"
import { EmbeddedReactor } from "../src/internal/embedded/runtime/reactor.ts"
import * as Timers from "../src/internal/embedded/runtime/timers.ts"
import { hostNqn, makeTarget, nqn, until } from "./support/rawNvmeHost.ts"

const connectTimeoutMillis = 300

const settings: NvmeConnectSettings = {
  hostnqn: hostNqn,
  hostId: new Uint8Array(16).fill(3),
  sourceAddress: "",
  sourcePort: "",
  ioQueues: 4,
  ioQueueSize: 32,
  adminQueueSize: 32,
  keepAliveMillis: 0,
  connectTimeoutMillis,
  adminTimeoutMillis: 2000,
  ioTimeoutMillis: 0,
  headerDigest: false,
  dataDigest: false,
  retries: 0,
  psk: undefined,
  dhchapKey: undefined,
  dhchapControllerKey: undefined
}

/** Hands connections on to the target, but those that `isHeld` says: they are taken, and hear nothing. */
const makeRelay = (port: number, isHeld: (connection: number) => boolean) =>
  Effect.acquireRelease(
    Effect.callback<{ readonly port: number; readonly accepted: () => number; readonly close: () => void }>(
      (resume) => {
        const sockets = new Set<net.Socket>()
        let accepted = 0
        const server = net.createServer((socket) => {
          sockets.add(socket)
          socket.on("error", () => {})
          if (isHeld(accepted++)) return void socket.resume()
          const onward = net.connect(port, "127.0.0.1")
          sockets.add(onward)
          onward.on("error", () => {})
          socket.pipe(onward).pipe(socket)
          socket.on("close", () => onward.destroy())
          onward.on("close", () => socket.destroy())
        })
        server.listen(0, "127.0.0.1", () => {
          const address = server.address()
          const close = () => {
            for (const socket of sockets) socket.destroy()
            server.close()
          }
          const relayPort = typeof address === "object" && address !== null ? address.port : 0
          resume(Effect.succeed({ port: relayPort, accepted: () => accepted, close }))
        })
      }
    ),
    ({ close }) => Effect.sync(close)
  )

const setUp = (isHeld: (connection: number) => boolean, changes: Partial<NvmeConnectSettings> = {}) =>
  Effect.gen(function* () {
    const target = yield* makeTarget()
    const relay = yield* makeRelay(target.port, isHeld)
    const timers = yield* Timers.make
    const waits: Array<number> = []
    const after: Timers.Timers["after"] = (micros, fire) => {
      waits.push(micros)
      return timers.after(micros, fire)
    }
    const context = { reactor: new EmbeddedReactor(), timers: { ...timers, after } }
    const events: Array<NvmeControllerEvent> = []
    const transportId = {
      trtype: "TCP",
      adrfam: "IPv4",
      traddr: "127.0.0.1",
      trsvcid: String(relay.port),
      subnqn: nqn,
      priority: 0
    } as const
    const address = { host: "127.0.0.1", port: relay.port, family: 4, localAddress: "", localPort: 0 } as const
    const controller = new HostController(context, transportId, address, { ...settings, ...changes }, (event) =>
      events.push(event)
    )
    yield* Effect.acquireRelease(controller.connect, () => controller.disconnect)
    return { controller, relay, events, waits }
  })

describe("a reset of the embedded host's controller", () => {
  const isNotUndone = (limitMillis: number): Effect.Effect<void, unknown> =>
    Effect.suspend(() => {
      const started = performance.now()
      let preparedMillis: number | undefined
      const test = Effect.gen(function* () {
        // The admin queue's is the first.
        const changes = { connectTimeoutMillis: limitMillis }
        const { controller, relay, events } = yield* setUp((connection) => connection === 1, changes)
        const queue = controller.takeQueue({ id: 1, name: "t" })
        yield* until("the connection that is held", () => relay.accepted() === 2)
        yield* controller.reset
        assert.strictEqual(queue.state, "up")
        preparedMillis = performance.now() - started
        yield* Effect.sleep(limitMillis * 2)
        assert.deepStrictEqual(events, [])
        assert.strictEqual(controller.state, "ready")
        controller.giveQueue(queue)
      })
      // Where the machine is too slow for the limit nothing is shown.
      return Effect.flatMap(Effect.exit(Effect.scoped(test)), (exit) =>
        exit._tag === "Failure" && (preparedMillis ?? performance.now() - started) > limitMillis && limitMillis < 10_000
          ? isNotUndone(limitMillis * 2)
          : exit
      )
    })

  it.live("is not undone by a connection that was being made when it came", () => isNotUndone(connectTimeoutMillis))

  it.live("goes on when a queue is given back while its connection is made", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { controller, relay } = yield* setUp((connection) => connection === 3)
        const queue = controller.takeQueue({ id: 1, name: "t" })
        yield* until("the queue", () => queue.state === "up")
        const reset = yield* Effect.forkChild(controller.reset)
        yield* until("the connection that is held", () => relay.accepted() === 4)
        controller.giveQueue(queue)
        yield* Fiber.join(reset)
        assert.strictEqual(controller.state, "ready")
      })
    )
  )
})

describe("the limit of time for I/O of the embedded host", () => {
  it.live("is looked after a hundred times a second at most, however short it is, and is not that of Connect", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const changes = { ioTimeoutMillis: 1, connectTimeoutMillis: 10_000 }
        const { controller, events, relay, waits } = yield* setUp((connection) => connection === 1, changes)
        const queue = controller.takeQueue({ id: 1, name: "t" })
        yield* until("the connection that is held", () => relay.accepted() === 2)
        yield* until("some rounds", () => waits.filter((micros) => micros === 10_000).length > 5)
        assert.isAtLeast(Math.min(...waits), 10_000)
        assert.deepStrictEqual(events, [])
        controller.giveQueue(queue)
      })
    )
  )
})
