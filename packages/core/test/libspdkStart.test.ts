import { assert, describe, it } from "@effect/vitest"
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as fs from "node:fs"
import * as net from "node:net"
import * as path from "node:path"
import { Host } from "../src/internal/engine/host.ts"
import { start, type StartHost } from "../src/internal/libspdk/start.ts"
import { resolve } from "../src/internal/engine/options.ts"

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
    bdevClaimOf: () => {},
    listenToLog: () => () => {},
    watchLog: () => () => {},
    ...neverConfigured
  }
  return { host, seen }
}

const directory = Effect.acquireRelease(
  Effect.sync(() => fs.mkdtempSync("/tmp/start-")),
  (made) => Effect.sync(() => fs.rmSync(made, { recursive: true, force: true }))
)

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

describe("an SPDK that never answers", () => {
  it.effect("fails the start after a limit of the machine's time, and gives the share back", () =>
    Effect.gen(function* () {
      const seen = { directory: "", released: 0 }
      const host: StartHost = {
        start: ({ rpcDirectory }) => {
          seen.directory = rpcDirectory
          return 1
        },
        release: () => void seen.released++,
        bdevClaimOf: () => {},
        listenToLog: () => () => {},
        watchLog: () => () => {},
        ...neverConfigured
      }
      const options = yield* resolve("embedded", {}, () => {})
      const waited: Array<number> = []
      // The outside clock runs at once; Effect's is a TestClock that nobody moves.
      const outside = yield* Host
      const clock: Clock.Clock = {
        ...outside.clock,
        currentTimeMillisUnsafe: () => outside.clock.currentTimeMillisUnsafe(),
        sleep: (duration) => Effect.sync(() => void waited.push(Duration.toMillis(duration)))
      }
      const error = yield* start(host, options, undefined).pipe(
        Effect.scoped,
        Effect.flip,
        Effect.provideService(Host, { ...outside, clock })
      )
      assert.strictEqual(error.reason._tag, "StartFailed")
      assert.include(error.message, "has not started within 2m")
      assert.deepStrictEqual(waited, [120_000])
      assert.strictEqual(seen.released, 1)
      // SPDK may still take it.
      assert.isTrue(fs.existsSync(seen.directory))
      fs.rmSync(seen.directory, { recursive: true })
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
        bdevClaimOf: () => {},
        listenToLog: () => () => {},
        watchLog: () => () => {},
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

/** An SPDK that starts at once, and where its socket would be. */
const makeQuick = () => {
  const seen = { directory: "" }
  const host: StartHost = {
    start: (options, onReply) => {
      seen.directory = options.rpcDirectory
      queueMicrotask(() => onReply({ status: 0, a: 0, b: 0, text: options.rpcSocket }))
      return 1
    },
    release: () => {},
    bdevClaimOf: () => {},
    listenToLog: () => () => {},
    watchLog: () => () => {},
    ...neverConfigured
  }
  return { host, seen }
}

const withTmpdir = <A, E, R>(tmpdir: string, effect: Effect.Effect<A, E, R>) =>
  Effect.acquireUseRelease(
    Effect.sync(() => {
      const before = process.env["TMPDIR"]
      process.env["TMPDIR"] = tmpdir
      return before
    }),
    () => effect,
    (before) =>
      Effect.sync(() => {
        if (before === undefined) delete process.env["TMPDIR"]
        else process.env["TMPDIR"] = before
      })
  )

describe("the private directory of the socket", () => {
  it.live("is elsewhere when TMPDIR is too long for a socket's path, or not there", () =>
    Effect.gen(function* () {
      const root = yield* directory
      const long = path.join(root, "x".repeat(120))
      fs.mkdirSync(long)
      const rpcSocket = path.join(root, "short.sock")
      for (const tmpdir of [long, path.join(root, "not there")]) {
        const { host, seen } = makeQuick()
        const options = yield* resolve("embedded", { rpcSocket }, () => {})
        const started = yield* withTmpdir(tmpdir, Effect.scoped(start(host, options, undefined)))
        assert.strictEqual(started.rpcSocket, rpcSocket)
        assert.strictEqual(path.dirname(seen.directory), root)
        fs.rmSync(rpcSocket, { force: true })
        const unnamed = makeQuick()
        yield* withTmpdir(
          tmpdir,
          Effect.scoped(start(unnamed.host, yield* resolve("embedded", {}, () => {}), undefined))
        )
        assert.strictEqual(path.dirname(unnamed.seen.directory), "/tmp")
        fs.rmSync(unnamed.seen.directory, { recursive: true, force: true })
      }
    })
  )

  it.live("of a process that is gone is removed when it is this user's, and no other", () =>
    Effect.gen(function* () {
      const root = yield* directory
      // No process has this number: pids end at 2^22.
      const mine = path.join(root, "effect-spdk-99999999-mine")
      const theirs = path.join(root, "effect-spdk-99999999-theirs")
      const link = path.join(root, "effect-spdk-99999999-link")
      const target = path.join(root, "target")
      for (const made of [mine, theirs, target]) fs.mkdirSync(made)
      fs.symlinkSync(target, link)
      // Only root can give a directory away.
      const isRoot = process.getuid?.() === 0
      if (isRoot) fs.chownSync(theirs, 65_534, 65_534)
      const { host } = makeQuick()
      yield* withTmpdir(root, Effect.scoped(start(host, yield* resolve("embedded", {}, () => {}), undefined)))
      assert.isFalse(fs.existsSync(mine))
      assert.strictEqual(fs.existsSync(theirs), isRoot)
      assert.isTrue(fs.existsSync(link))
      assert.isTrue(fs.existsSync(target))
    })
  )
})

describe("a named socket", () => {
  it.live("is shared by the layers of one process, which the SPDK behind it outlives", () =>
    Effect.gen(function* () {
      const root = yield* directory
      const rpcSocket = path.join(root, "spdk.sock")
      const options = yield* resolve("embedded", { rpcSocket }, () => {})
      const first = makeQuick()
      const running = yield* withTmpdir(root, Effect.scoped(start(first.host, options, undefined)))
      assert.strictEqual(running.rpcSocket, rpcSocket)
      const target = path.join(first.seen.directory, "rpc.sock")
      const server = net.createServer().listen(target)
      const host: StartHost = {
        ...first.host,
        start: (_, onReply) => {
          queueMicrotask(() => onReply({ status: 0, a: 0, b: 0, text: target }))
          return 1
        }
      }
      const again = yield* withTmpdir(root, Effect.scoped(start(host, options, undefined)))
      assert.strictEqual(again.rpcSocket, rpcSocket)
      const unnamed = yield* withTmpdir(
        root,
        Effect.scoped(start(host, yield* resolve("embedded", {}, () => {}), undefined))
      )
      assert.strictEqual(unnamed.rpcSocket, target)
      server.close()
    })
  )
})

describe("PCI devices", () => {
  it.live("an empty list of allowed devices allows none, an empty list of blocked ones all", () =>
    Effect.gen(function* () {
      for (const [pci, expected] of [
        [{ allow: [] }, false],
        [false, false],
        [{ block: [] }, true],
        [{ allow: ["0000:5e:00.0"] }, true]
      ] as const) {
        let asked: boolean | undefined
        const { host } = makeQuick()
        const looking: StartHost = {
          ...host,
          start: (options, onReply) => {
            asked = options.pci
            return host.start(options, onReply)
          }
        }
        const root = yield* directory
        yield* withTmpdir(root, Effect.scoped(start(looking, yield* resolve("embedded", { pci }, () => {}), undefined)))
        assert.strictEqual(asked, expected, JSON.stringify(pci))
      }
    })
  )
})
