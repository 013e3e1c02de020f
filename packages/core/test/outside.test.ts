/** Waiting for the outside world ends under a TestClock that nobody moves: every test here has one. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as net from "node:net"
import * as Bdev from "../src/Bdev.ts"
import { Host } from "../src/internal/engine/host.ts"
import * as Outside from "../src/internal/engine/outside.ts"
import { ReleaseTimeout, withinLimit } from "../src/internal/common/release.ts"
import * as Nvme from "../src/Nvme.ts"
import * as Rpc from "../src/Rpc.ts"
import * as Spdk from "../src/Spdk.ts"

/** Listens, accepts and never answers. */
const silent = Effect.acquireRelease(
  Effect.callback<net.Server>((resume) => {
    const server = net.createServer((socket) => socket.on("error", () => {}))
    server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
  }),
  (server) => Effect.sync(() => server.close())
)

const portOf = (server: net.Server): number => {
  const address = server.address()
  return typeof address === "object" && address !== null ? address.port : 0
}

const config = {
  subsystems: [
    {
      subsystem: "bdev",
      config: [{ method: "bdev_malloc_create", params: { name: "configured", num_blocks: 64, block_size: 512 } }]
    }
  ]
}

describe("under a TestClock that nobody moves", () => {
  it.effect("an engine starts with a configuration", () =>
    Effect.gen(function* () {
      assert.strictEqual((yield* Bdev.find("configured")).numBlocks, 64)
    }).pipe(Effect.provide(Spdk.layerEmbedded({ config, logLevel: "error" })))
  )

  it.effect("a peer that says nothing is given up", () =>
    Effect.gen(function* () {
      const port = portOf(yield* silent)
      const id = `trtype:TCP traddr:127.0.0.1 trsvcid:${port} subnqn:nqn.2016-06.io.spdk:silent`
      const error = yield* Effect.flip(Nvme.connect(id, { connectTimeout: "100 millis" }))
      assert.strictEqual(error.reason._tag, "TimedOut")
    }).pipe(Effect.scoped, Effect.provide(Spdk.layerEmbedded({ logLevel: "error" })))
  )

  it.effect("a call to a server that says nothing is given up, and so is one that is not there", () =>
    Effect.gen(function* () {
      const port = portOf(yield* silent)
      const there = yield* Rpc.make({ address: { host: "127.0.0.1", port }, timeout: "50 millis" })
      assert.strictEqual((yield* Effect.flip(there.call("spdk_get_version"))).reason._tag, "TimedOut")
      const gone = yield* Rpc.make({
        address: { path: "/nowhere/rpc.sock" },
        reconnect: Schedule.spaced("5 millis").pipe(Schedule.upTo({ times: 3 }))
      })
      assert.strictEqual((yield* Effect.flip(gone.call("spdk_get_version"))).reason._tag, "RpcUnreachable")
    }).pipe(Effect.scoped)
  )

  it.effect("a release that does not end meets its limit", () =>
    Effect.gen(function* () {
      const exit = yield* Effect.exit(withinLimit("Bdev.close", "b0", Effect.never))
      assert(Exit.isFailure(exit))
      assert.include(String(exit.cause), "TimedOut")
    }).pipe(Effect.provideService(ReleaseTimeout, "20 millis"))
  )

  it.effect("a limit hands on what comes in time, and interrupts what does not", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* Outside.timeoutOption(Effect.succeed(1), "1 minute"), Option.some(1))
      let isInterrupted = false
      const never = Effect.onInterrupt(Effect.never, () => Effect.sync(() => (isInterrupted = true)))
      assert.isTrue(Option.isNone(yield* Outside.timeoutOption(never, "1 millis")))
      assert.isTrue(isInterrupted)
    })
  )

  it.effect("the outside clock is the one of the Host", () =>
    Effect.gen(function* () {
      const { clock } = yield* Host
      const asked: Array<string> = []
      const sleep: typeof clock.sleep = (duration) => Effect.sync(() => void asked.push(String(duration)))
      const host = { ...(yield* Host), clock: { ...clock, sleep } }
      yield* Effect.provideService(Outside.sleep("1 hour"), Host, host)
      assert.lengthOf(asked, 1)
    })
  )
})
