import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as fs from "node:fs"
import * as net from "node:net"
import * as path from "node:path"
import { start, type StartHost } from "../src/internal/libspdk/start.ts"
import { resolve } from "../src/internal/options.ts"

const neverConfigured = { addon: { claimConfig: () => ({ status: 0, text: "" }), settleConfig: () => {} } }

/** An SPDK that waits for its configuration, and dies of the first call. */
const makeDying = (text: string) => {
  const seen = { directory: "", released: 0 }
  const host: StartHost = {
    start: (options, onReply) => {
      seen.directory = options.rpcDirectory
      const server = net.createServer((socket) => {
        socket.on("error", () => {})
        socket.on("data", () => {
          socket.destroy()
          server.close()
          fs.rmSync(options.rpcSocket, { force: true })
          // Its thread ends after its sockets are gone.
          setTimeout(() => onReply({ status: -5, a: 0, b: 0, text }), 20)
        })
      })
      server.listen(path.join(options.rpcDirectory, "rpc.sock"))
      return 1
    },
    release: () => void seen.released++,
    listenToLog: () => () => {},
    ...neverConfigured
  }
  return { host, seen }
}

describe("SPDK that dies while it is configured", () => {
  it.live("fails the start with its own reason, not with the connection that broke", () =>
    Effect.gen(function* () {
      const { host, seen } = makeDying("the nvmf subsystem did not start")
      const options = yield* resolve("embedded", {}, () => {})
      const error = yield* start(host, options, (rpc) => rpc.call("framework_start_init")).pipe(
        Effect.scoped,
        Effect.flip
      )
      assert.strictEqual(error.reason._tag, "StartFailed")
      assert.include(error.message, "the nvmf subsystem did not start")
      assert.isFalse(fs.existsSync(seen.directory))
      assert.strictEqual(seen.released, 1)
    })
  )
})

describe("a share of an SPDK that somebody else started", () => {
  it.live("is described by what runs, not by the defaults that were not asked for", () =>
    Effect.gen(function* () {
      const asked: Array<string> = []
      const host: StartHost = {
        start: ({ key }, onReply) => {
          const runs = { ...JSON.parse(key), cores: "[2-3]", memoryMiB: 2048, polling: "busy" }
          const isFirst = asked.push(key) === 1
          queueMicrotask(() =>
            onReply({
              status: isFirst ? -17 : 0,
              a: 0,
              b: 0,
              text: isFirst ? JSON.stringify(runs) : "/nowhere/rpc.sock"
            })
          )
          return asked.length
        },
        release: () => {},
        listenToLog: () => () => {},
        ...neverConfigured
      }
      const options = yield* resolve("embedded", {}, () => {})
      const { rpcSocket, running } = yield* Effect.scoped(start(host, options, undefined))
      assert.strictEqual(rpcSocket, "/nowhere/rpc.sock")
      assert.deepInclude(running, { cores: "[2-3]", memoryMiB: 2048, polling: "busy" })
      assert.lengthOf(asked, 2)
      assert.include(asked[1], '"memoryMiB":2048')
    })
  )
})
