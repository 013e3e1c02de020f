/** Keep-alive of the embedded host and target: who stood still reads what has come before it gives anybody up. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as net from "node:net"
import type { NvmeConnectSettings, NvmeControllerEvent } from "../src/internal/engine/nvme.ts"
import { Deadline } from "../src/internal/embedded/runtime/deadline.ts"
import { HostController } from "../src/internal/embedded/nvme/controller.ts"
import { EmbeddedReactor } from "../src/internal/embedded/runtime/reactor.ts"
import * as Timers from "../src/internal/embedded/runtime/timers.ts"
import { AdminOpcode } from "../src/internal/nvme/wire/command.ts"
import { capsule, command, hostNqn, makeTarget, nqn, until, withQueue } from "./support/rawNvmeHost.ts"

/** The process does nothing. */
const standStill = (millis: number) =>
  Effect.sync(() => void Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, millis))

/** A clock that a test moves, and that fires late when it is told to. */
const makeClock = () => {
  let now = 0
  let timers: Array<{ readonly dueMicros: number; fire: (() => void) | undefined; readonly sequence: number }> = []
  const clock: Timers.Timers = {
    nowMicros: () => now,
    after: (micros, fire) => {
      const timer = { dueMicros: now + micros, fire, sequence: 0 }
      timers.push(timer)
      return timer
    },
    cancel: (timer) => {
      timer.fire = undefined
    }
  }
  const moveTo = (micros: number) => {
    now = micros
    const due = timers.filter((timer) => timer.dueMicros <= now)
    timers = timers.filter((timer) => timer.dueMicros > now)
    for (const { fire } of due) fire?.()
  }
  return { clock, moveTo }
}

describe("a deadline", () => {
  it("is looked at twice, so that what has come is read in between", () => {
    const { clock, moveTo } = makeClock()
    let fired = 0
    const deadline = new Deadline(clock, 1_000_000, () => fired++)
    moveTo(1_000_000)
    assert.strictEqual(fired, 0)
    moveTo(1_020_000)
    assert.strictEqual(fired, 1)
    deadline.cancel()
    moveTo(9_000_000)
    assert.strictEqual(fired, 1)
  })

  it("gives as long as the process stood still, up to a second", () => {
    const { clock, moveTo } = makeClock()
    let fired = 0
    const short = new Deadline(clock, 1_000_000, () => fired++)
    moveTo(1_400_000)
    moveTo(1_799_000)
    assert.strictEqual(fired, 0)
    short.cancel()
    moveTo(2_000_000)
    assert.strictEqual(fired, 0)
    const long = new Deadline(clock, 1_000_000, () => fired++)
    moveTo(90_000_000)
    assert.strictEqual(fired, 0)
    moveTo(91_000_000)
    assert.strictEqual(fired, 1)
    long.cancel()
  })
})

const settings: NvmeConnectSettings = {
  hostnqn: hostNqn,
  hostId: new Uint8Array(16).fill(3),
  sourceAddress: "",
  sourcePort: "",
  ioQueues: 1,
  ioQueueSize: 32,
  adminQueueSize: 32,
  keepAliveMillis: 600,
  connectTimeoutMillis: 10_000,
  adminTimeoutMillis: 30_000,
  ioTimeoutMillis: 0,
  headerDigest: false,
  dataDigest: false,
  retries: 0,
  psk: undefined,
  dhchapKey: undefined,
  dhchapControllerKey: undefined
}

/** Hands on what both say, and keeps the target's words back while `isSilent`. */
const makeRelay = (port: number) =>
  Effect.acquireRelease(
    Effect.callback<{ readonly port: number; silence: (isSilent: boolean) => void; readonly close: () => void }>(
      (resume) => {
        const sockets = new Set<net.Socket>()
        const targets = new Set<net.Socket>()
        const server = net.createServer((socket) => {
          const onward = net.connect(port, "127.0.0.1")
          for (const one of [socket, onward]) sockets.add(one.on("error", () => {}))
          targets.add(onward)
          socket.pipe(onward)
          onward.on("data", (bytes) => socket.write(bytes))
          socket.on("close", () => onward.destroy())
          onward.on("close", () => socket.destroy())
        })
        server.listen(0, "127.0.0.1", () => {
          const address = server.address()
          resume(
            Effect.succeed({
              port: typeof address === "object" && address !== null ? address.port : 0,
              silence: (isSilent) => {
                for (const target of targets) target[isSilent ? "pause" : "resume"]()
              },
              close: () => {
                for (const socket of sockets) socket.destroy()
                server.close()
              }
            })
          )
        })
      }
    ),
    ({ close }) => Effect.sync(close)
  )

const connected = (keepAliveMillis: number) =>
  Effect.gen(function* () {
    const target = yield* makeTarget()
    const relay = yield* makeRelay(target.port)
    const context = { reactor: new EmbeddedReactor(), timers: yield* Timers.make }
    const events: Array<NvmeControllerEvent> = []
    const trsvcid = String(relay.port)
    const transportId = {
      trtype: "TCP",
      adrfam: "IPv4",
      traddr: "127.0.0.1",
      trsvcid,
      subnqn: nqn,
      priority: 0
    } as const
    const address = { host: "127.0.0.1", port: relay.port, family: 4, localAddress: "", localPort: 0 } as const
    const controller = new HostController(context, transportId, address, { ...settings, keepAliveMillis }, (event) =>
      events.push(event)
    )
    yield* Effect.acquireRelease(controller.connect, () => controller.disconnect)
    return { context, controller, events, relay }
  })

/** By the engine's own clock, which is the machine's here. */
const after = (timers: Timers.Timers, millis: number) =>
  Effect.callback<void>((resume) => {
    const timer = timers.after(millis * 1000, () => resume(Effect.void))
    return Effect.sync(() => timers.cancel(timer))
  })

describe("the embedded host", () => {
  it.live("keeps a controller that is silent for less than the keep-alive time", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { context, controller, events, relay } = yield* connected(600)
        yield* after(context.timers, 290)
        relay.silence(true)
        yield* after(context.timers, 500)
        relay.silence(false)
        yield* until("an answer to keep-alive", () => Effect.as(controller.admin.getCsts("test"), true))
        assert.strictEqual(controller.state, "ready")
        assert.deepStrictEqual(events, [])
      })
    )
  )

  it.live("gives up one that is silent for longer", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { controller, events, relay } = yield* connected(200)
        relay.silence(true)
        yield* until("the end", () => controller.state === "failed")
        assert.deepInclude(events[0], { _tag: "Failed", message: "the controller does not answer keep-alive" })
      })
    )
  )

  it.live("keeps a controller although it stood still itself for longer", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { context, controller, events } = yield* connected(200)
        for (let round = 0; round < 3; round++) {
          yield* after(context.timers, 101)
          yield* standStill(320)
        }
        yield* Effect.as(controller.admin.getCsts("test"), true)
        assert.strictEqual(controller.state, "ready")
        assert.deepStrictEqual(events, [])
      })
    )
  )
})

describe("the embedded target", () => {
  it.live("reads the keep-alives that have come while it stood still before it gives their host up", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { port } = yield* makeTarget({ transport: { kas: 1, min_kato: 100 } })
        const { admin } = yield* withQueue(port, { keepAliveMillis: 200 })
        for (let commandId = 1; commandId < 4; commandId++) {
          admin.send(capsule(command({ opcode: AdminOpcode.KeepAlive, commandId, nsid: 0, lengthBytes: 0 })))
          yield* standStill(350)
          assert.deepInclude(yield* admin.response, { commandId, status: 0 })
        }
      })
    )
  )

  it.live("gives up a host that sends none", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { port } = yield* makeTarget({ transport: { kas: 1, min_kato: 100 } })
        const { admin } = yield* withQueue(port, { keepAliveMillis: 100 })
        yield* until("the end", () => admin.isEnded)
      })
    )
  )
})
