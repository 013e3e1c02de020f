/** The RPC socket: SPDK's own rpc.py, second clients, and what may not get in. The layer must serve `socketPath`. */
import * as Bdev from "@effect-spdk/core/Bdev"
import * as DmaBuffer from "@effect-spdk/core/DmaBuffer"
import * as Poller from "@effect-spdk/core/Poller"
import * as Rpc from "@effect-spdk/core/Rpc"
import * as Spdk from "@effect-spdk/core/Spdk"
import * as SpdkThread from "@effect-spdk/core/SpdkThread"
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { execFile } from "node:child_process"
import { statSync } from "node:fs"
import { createConnection } from "node:net"
import { join } from "node:path"
import { type Capabilities, type EngineLayer, scratch } from "../support/engines.ts"
import { blockSize, contract, failsWith, fresh, pattern, sameBytes, within } from "../support/harness.ts"
import { rpcPyTool, titled } from "../support/spdkTools.ts"

export const socketPath = join(scratch, "rpc.sock")

interface Ran {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

/** Asynchronous, because the server is in this process. */
const rpcPy = (...args: ReadonlyArray<string>): Effect.Effect<Ran> =>
  within(
    `rpc.py ${args.join(" ")}`,
    Effect.callback<Ran>((resume) => {
      execFile(rpcPyTool.path, ["-s", socketPath, "-t", "10", ...args], (error, stdout, stderr) => {
        const code = error === null ? 0 : typeof error.code === "number" ? error.code : 1
        resume(Effect.succeed({ code, stdout, stderr }))
      })
    })
  )

const rpcPyJson = (...args: ReadonlyArray<string>): Effect.Effect<unknown> =>
  Effect.map(rpcPy(...args), (ran) => {
    assert.strictEqual(ran.code, 0, ran.stderr)
    return JSON.parse(ran.stdout)
  })

/** Sends bytes as they are and collects what comes back until the other side hangs up or has answered `answers` times. */
const raw = (text: string, done: (received: string) => boolean): Effect.Effect<string> =>
  within(
    "the raw answer",
    Effect.callback<string>((resume) => {
      let received = ""
      const socket = createConnection(socketPath, () => socket.write(text))
      socket.setEncoding("utf8").on("data", (chunk: string) => {
        received += chunk
        if (done(received)) socket.end()
      })
      socket.on("close", () => resume(Effect.succeed(received)))
      socket.on("error", () => {})
      return Effect.sync(() => socket.destroy())
    })
  )

const parses = (text: string): boolean => {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}

export const suite = (name: string, layer: EngineLayer, _capabilities: Capabilities): void =>
  contract(name, layer, (check, it) => {
    check("serves the socket it was told to, for this user only", () =>
      Effect.gen(function* () {
        const spdk = yield* Spdk.Spdk
        assert.strictEqual(spdk.rpcSocket, socketPath)
        const stat = statSync(socketPath)
        assert.isTrue(stat.isSocket())
        assert.strictEqual(stat.mode & 0o077, 0, "nobody else may connect")
      })
    )

    const withRpcPy = (title: string, test: Parameters<typeof check>[1]) =>
      rpcPyTool.missing === undefined ? check(title, test) : it.skip(titled(title, rpcPyTool), () => {})

    withRpcPy("rpc.py lists the methods", () =>
      Effect.gen(function* () {
        const methods = yield* rpcPyJson("rpc_get_methods")
        assert.isTrue(Array.isArray(methods))
        assert.includeMembers(methods as Array<unknown>, ["rpc_get_methods", "bdev_get_bdevs", "bdev_malloc_create"])
      })
    )

    withRpcPy("rpc.py creates, lists and deletes a malloc bdev that this program reads and writes", () =>
      Effect.gen(function* () {
        const bdevName = fresh("bypython")
        const created = yield* rpcPy("bdev_malloc_create", "-b", bdevName, "1", "512")
        assert.strictEqual(created.code, 0, created.stderr)
        assert.strictEqual(created.stdout.trim(), bdevName)
        yield* Effect.scoped(
          Effect.gen(function* () {
            const bdev = yield* Bdev.open(bdevName, { write: true })
            assert.strictEqual(bdev.sizeBytes, 1024 ** 2)
            yield* bdev.writeBytes(0, pattern(blockSize, 1))
            sameBytes(yield* bdev.readBytes(0, blockSize), pattern(blockSize, 1), "the bdev made by rpc.py")
          })
        )
        const listed = yield* rpcPyJson("bdev_get_bdevs", "-b", bdevName)
        const one = Array.isArray(listed) ? (listed[0] as Readonly<Record<string, unknown>>) : {}
        assert.strictEqual(one["name"], bdevName)
        assert.strictEqual(one["block_size"], 512)
        assert.strictEqual(one["num_blocks"], 2048)
        assert.strictEqual(one["product_name"], "Malloc disk")
        const deleted = yield* rpcPy("bdev_malloc_delete", bdevName)
        assert.strictEqual(deleted.code, 0, deleted.stderr)
        const gone = yield* rpcPy("bdev_get_bdevs", "-b", bdevName)
        assert.notStrictEqual(gone.code, 0)
        assert.match(gone.stderr + gone.stdout, /No such device/)
        yield* failsWith(Bdev.find(bdevName), "NotFound")
      })
    )

    withRpcPy("rpc.py sees what this program made", () =>
      Effect.gen(function* () {
        const bdevName = yield* Bdev.createMalloc({ name: fresh("byeffect"), blockSize, numBlocks: 64 })
        const listed = yield* rpcPyJson("bdev_get_bdevs")
        assert.deepStrictEqual(
          (listed as ReadonlyArray<{ readonly name: string }>).map((one) => one.name),
          [bdevName]
        )
        const iostat = yield* rpcPyJson("bdev_get_iostat")
        assert.include(JSON.stringify(iostat), bdevName)
      })
    )

    withRpcPy("rpc.py hears SPDK's errors", () =>
      Effect.gen(function* () {
        const duplicate = yield* Bdev.createMalloc({ name: fresh("taken"), blockSize, numBlocks: 2048 })
        const refused = yield* rpcPy("bdev_malloc_create", "-b", duplicate, "1", "512")
        assert.notStrictEqual(refused.code, 0)
        assert.match(refused.stdout + refused.stderr, /"code": -17/)
        const missing = yield* rpcPy("bdev_malloc_delete", fresh("missing"))
        assert.match(missing.stdout + missing.stderr, /"code": -19/)
      })
    )

    check("a second client of this package sees the same engine", () =>
      Effect.gen(function* () {
        const client = yield* Rpc.make({ address: { path: socketPath } })
        const bdevName = yield* Bdev.createMalloc({ name: fresh("shared"), blockSize, numBlocks: 64 })
        const listed = yield* client.call("bdev_get_bdevs", { name: bdevName })
        assert.include(JSON.stringify(listed), bdevName)
        yield* failsWith(client.call("no_such_method"), "MethodNotFound", { method: "no_such_method" })
        yield* failsWith(client.call("bdev_get_bdevs", { name: "nope" }), "NotFound", { errnoCode: 19 })
        const many = yield* Effect.forEach(
          Array.from({ length: 300 }),
          () => client.call("bdev_get_bdevs", { name: bdevName }),
          { concurrency: "unbounded" }
        )
        assert.strictEqual(many.length, 300)
      })
    )

    check("a remote engine on the socket has the control plane, and says what it has not", () =>
      Effect.gen(function* () {
        const here = yield* Bdev.createMalloc({ name: fresh("here"), blockSize, numBlocks: 64 })
        const remotely = Effect.gen(function* () {
          const spdk = yield* Spdk.Spdk
          assert.strictEqual(spdk.kind, "remote")
          assert.strictEqual((yield* Bdev.find(here)).numBlocks, 64)
          const there = yield* Bdev.createNull({ name: fresh("there"), blockSize, numBlocks: 64 })
          assert.include(
            (yield* Bdev.list).map((bdev) => bdev.name),
            there
          )
          assert.isAtLeast((yield* SpdkThread.list).length, 1)
          yield* failsWith(Effect.scoped(Bdev.open(here)), "NotSupported")
          yield* failsWith(Effect.scoped(DmaBuffer.make(4096)), "NotSupported")
          yield* failsWith(Effect.scoped(SpdkThread.spawn({ name: "far" })), "NotSupported")
          yield* failsWith(Effect.scoped(Poller.make()), "NotSupported")
        }).pipe(Effect.scoped)
        yield* Effect.provide(remotely, Spdk.layerRemote({ path: socketPath }), { local: true })
        assert.deepStrictEqual(
          (yield* Bdev.list).map((bdev) => bdev.name),
          [here]
        )
      })
    )

    check("many clients at once", () =>
      Effect.forEach(
        Array.from({ length: 16 }),
        () =>
          Effect.scoped(
            Effect.gen(function* () {
              const client = yield* Rpc.make({ address: { path: socketPath } })
              for (let round = 0; round < 10; round++) yield* client.call("spdk_get_version")
            })
          ),
        { concurrency: "unbounded", discard: true }
      )
    )

    check("a client that hangs up in the middle of a call disturbs nobody", () =>
      Effect.gen(function* () {
        for (let round = 0; round < 20; round++) {
          const client = yield* Effect.scoped(
            Effect.gen(function* () {
              const client = yield* Rpc.make({ address: { path: socketPath } })
              yield* Effect.forkChild(client.call("bdev_get_bdevs", { name: "nope", timeout: 300 }), {
                startImmediately: true
              })
              yield* client.call("spdk_get_version")
              return client
            })
          )
          yield* failsWith(client.call("spdk_get_version"), "Released")
        }
        yield* (yield* Rpc.RpcClient).call("spdk_get_version")
      })
    )

    check("answers what is no JSON-RPC as SPDK does, and goes on serving others", () =>
      Effect.gen(function* () {
        const ask = (body: unknown) =>
          Effect.map(
            raw(JSON.stringify(body), (received) => parses(received)),
            (text): unknown => JSON.parse(text)
          )
        const refusal = (id: unknown, code: number, message: string) => ({
          jsonrpc: "2.0",
          id,
          error: { code, message }
        })
        const invalid = refusal(null, -32600, "Invalid request")
        assert.deepStrictEqual(
          yield* ask({ jsonrpc: "2.0", id: 1, method: "nope" }),
          refusal(1, -32601, "Method not found")
        )
        assert.deepStrictEqual(yield* ask({ jsonrpc: "1.0", id: 1, method: "spdk_get_version" }), invalid)
        assert.deepStrictEqual(yield* ask({ jsonrpc: "2.0", id: 1 }), invalid)
        assert.deepStrictEqual(yield* ask({ jsonrpc: "2.0", id: {}, method: "spdk_get_version" }), invalid)
        assert.deepStrictEqual(yield* ask({ jsonrpc: "2.0", id: 1, method: "spdk_get_version", extra: 1 }), invalid)
        assert.deepStrictEqual(
          yield* ask({ jsonrpc: "2.0", id: "a", method: "bdev_null_delete", params: { name: "missing" } }),
          refusal("a", -19, "No such device")
        )
        // What cannot be parsed has no end either: SPDK hangs up.
        assert.strictEqual(yield* raw("this is no JSON", () => false), "")
        yield* (yield* Rpc.RpcClient).call("spdk_get_version")
      })
    )

    check("takes requests in pieces, and several in one", () =>
      Effect.gen(function* () {
        const one = JSON.stringify({ jsonrpc: "2.0", id: 'a}{"', method: "spdk_get_version" })
        const two = JSON.stringify({ jsonrpc: "2.0", id: 2, method: "rpc_get_methods" })
        const received = yield* raw(`${one}${two}\n  ${one}`, (text) => (text.match(/"result"/g) ?? []).length === 3)
        assert.strictEqual((received.match(/"result"/g) ?? []).length, 3)
      })
    )
  })
