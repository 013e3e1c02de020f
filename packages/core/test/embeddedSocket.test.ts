import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import * as fs from "node:fs"
import * as Net from "node:net"
import * as path from "node:path"
import { makeEngine, turn } from "./support/embeddedEngine.ts"
import { connect } from "./support/rawClient.ts"
import { scratchFolder } from "./support/scratch.ts"

const served = Effect.gen(function* () {
  const rpcSocket = path.join(yield* scratchFolder, "rpc.sock")
  const engine = yield* makeEngine({ rpcSocket })
  return { engine, rpcSocket }
})

const result = (value: unknown, id: unknown = 1): string => JSON.stringify({ jsonrpc: "2.0", id, result: value })
const fault = (code: number, message: string, id: unknown = null): string =>
  JSON.stringify({ jsonrpc: "2.0", id, error: { code, message } })
const invalid = fault(-32600, "Invalid request")
const ask = (more: object = {}): string => JSON.stringify({ jsonrpc: "2.0", id: 1, method: "log_get_level", ...more })

describe("what the socket answers, as SPDK's does", () => {
  const answers: ReadonlyArray<readonly [request: string, answer: string]> = [
    [ask(), result("NOTICE")],
    [ask({ id: "x" }), result("NOTICE", "x")],
    [ask({ id: 1.5 }), result("NOTICE", 1.5)],
    [ask({ jsonrpc: undefined }), result("NOTICE")],
    [ask({ params: null }), result("NOTICE")],
    [ask({ params: [] }), fault(-32602, "log_get_level requires no parameters", 1)],
    [ask({ params: 1 }), fault(-32600, "Invalid request", 1)],
    [ask({ params: "x" }), fault(-32600, "Invalid request", 1)],
    [ask({ method: "nope" }), fault(-32601, "Method not found", 1)],
    [ask({ method: "nope", id: undefined }), fault(-32601, "Method not found")],
    [ask({ method: "__proto__" }), fault(-32601, "Method not found", 1)],
    [ask({ method: 1 }), invalid],
    [ask({ method: undefined }), invalid],
    [ask({ jsonrpc: "1.0" }), invalid],
    [ask({ jsonrpc: 2 }), invalid],
    [ask({ id: {} }), invalid],
    [ask({ id: [1] }), invalid],
    [ask({ id: true }), invalid],
    [ask({ more: 1 }), invalid],
    ["{}", invalid],
    ["[]", invalid],
    ["1 ", invalid],
    ["-1.5e+3\n", invalid],
    ['"abc"', invalid],
    ["true", invalid],
    ["null", invalid],
    ["[1,2]", `[${invalid},${invalid}]`],
    [
      `[${ask()},${ask({ method: "nope", id: 2 })},5,${ask({ id: undefined })}]`,
      `[${result("NOTICE")},${fault(-32601, "Method not found", 2)},${invalid}]`
    ],
    [ask({ method: "bdev_get_bdevs", params: { name: "a\0b" } }), fault(-32603, "spdk_json_decode_object failed", 1)],
    ['{"method":"bdev_get_bdevs","id":1,"params":{"timeout":1e2}}', result([])]
  ]
  it.live.each(answers)("%s: %s", ([request, answer]) =>
    Effect.gen(function* () {
      const client = yield* connect((yield* served).rpcSocket)
      assert.strictEqual(yield* client.exchange(request), answer)
      assert.strictEqual(yield* client.exchange(ask({ id: 9 })), result("NOTICE", 9), "it goes on")
    }).pipe(Effect.scoped)
  )

  const hangUps: ReadonlyArray<readonly [name: string, bytes: string | Uint8Array]> = [
    ["words", "garbage"],
    ["single quotes", "{'method':1}"],
    ["a comma too much", '{"method":"log_get_level",}'],
    ["a number with a zero before it", '{"method":"log_get_level","id":01}'],
    ["comments", "// comment\n{}"],
    ["bytes that are no UTF-8", Uint8Array.from([0x22, 0xff, 0xfe, 0x22])],
    ["65 arrays in each other", "[".repeat(65)],
    ["100 objects in each other", '{"a":'.repeat(100)],
    ["more than 8192 values", ask({ params: Array.from({ length: 9000 }, () => 1) })],
    ["a request without end", `{"method":"${"y".repeat(300_000)}`],
    ["a closing bracket", "]"],
    ["a literal that is none", "nulL"]
  ]
  it.live.each(hangUps)("hangs up on %s", ([, bytes]) =>
    Effect.gen(function* () {
      const { rpcSocket } = yield* served
      const other = yield* connect(rpcSocket)
      const client = yield* connect(rpcSocket)
      client.send(bytes)
      assert.strictEqual(yield* client.rest, "")
      assert.strictEqual(yield* other.exchange(ask()), result("NOTICE"), "others are served on")
    }).pipe(Effect.scoped)
  )

  it.live("says nothing to notifications that succeed", () =>
    Effect.gen(function* () {
      const client = yield* connect((yield* served).rpcSocket)
      client.send(ask({ id: undefined }) + `[${ask({ id: null })}]`)
      assert.strictEqual(yield* client.exchange(ask({ id: 2 })), result("NOTICE", 2))
    }).pipe(Effect.scoped)
  )

  it.live("takes requests in any pieces, and several at once", () =>
    Effect.gen(function* () {
      const client = yield* connect((yield* served).rpcSocket)
      const text = `${ask()}\n\t ${ask({ id: 'ü☃\\"}{' })}7 ${ask({ id: 3 })}`
      for (const byte of Buffer.from(text)) {
        client.send(Uint8Array.of(byte))
        yield* turn
      }
      assert.strictEqual(yield* client.line, result("NOTICE"))
      assert.strictEqual(yield* client.line, result("NOTICE", 'ü☃\\"}{'))
      assert.strictEqual(yield* client.line, invalid)
      assert.strictEqual(yield* client.line, result("NOTICE", 3))
      client.send(Array.from({ length: 1000 }, (_, id) => ask({ id })).join(""))
      for (let id = 0; id < 1000; id++) assert.strictEqual(yield* client.line, result("NOTICE", id))
    }).pipe(Effect.scoped)
  )

  it.live("answers a batch when its last call has ended, in the order in which they ended", () =>
    Effect.gen(function* () {
      const client = yield* connect((yield* served).rpcSocket)
      const slow = { method: "bdev_get_bdevs", params: { name: "x", timeout: 20 } }
      assert.strictEqual(
        yield* client.exchange(`[${ask(slow)},${ask({ id: 2 })}]`),
        `[${result("NOTICE", 2)},${fault(-110, "Connection timed out", 1)}]`
      )
    }).pipe(Effect.scoped)
  )

  it.live("answers what was asked before a client stops sending, then hangs up", () =>
    Effect.gen(function* () {
      const client = yield* connect((yield* served).rpcSocket)
      client.send(ask({ method: "bdev_get_bdevs", params: { name: "x", timeout: 20 } }) + ask({ id: 2 }))
      client.end()
      const lines = (yield* client.rest).split("\n")
      assert.deepStrictEqual(lines, [result("NOTICE", 2), fault(-110, "Connection timed out", 1), ""])
    }).pipe(Effect.scoped)
  )

  it.live("serves a hundred clients at once", () =>
    Effect.gen(function* () {
      const { rpcSocket } = yield* served
      const clients = yield* Effect.forEach(Array.from({ length: 100 }), () => connect(rpcSocket))
      const answers = yield* Effect.forEach(clients, (client, id) => client.exchange(ask({ id })), {
        concurrency: "unbounded"
      })
      assert.deepStrictEqual(
        answers,
        clients.map((_, id) => result("NOTICE", id))
      )
    }).pipe(Effect.scoped)
  )

  it.live("survives random bytes", () =>
    Effect.gen(function* () {
      const { rpcSocket } = yield* served
      const alphabet = '{}[]",:\\ntrufalse0123456789.eE+-\n \x00é'
      let seed = 20261122
      const below = (limit: number): number => {
        seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0
        return seed % limit
      }
      for (let round = 0; round < 60; round++) {
        const client = yield* connect(rpcSocket)
        for (let piece = 0; piece < 4; piece++) {
          const mutated = [...ask()]
          for (let i = 0; i < 3; i++) mutated[below(mutated.length)] = alphabet[below(alphabet.length)] ?? ""
          client.send(
            below(2) === 0
              ? mutated.join("")
              : Array.from({ length: 40 }, () => alphabet[below(alphabet.length)]).join("")
          )
        }
        client.end()
        yield* client.rest
      }
      const client = yield* connect(rpcSocket)
      assert.strictEqual(yield* client.exchange(ask()), result("NOTICE"))
    }).pipe(Effect.scoped)
  )
})

describe("the socket itself", () => {
  it.live("is its user's alone, and gone when the engine is", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const rpcSocket = path.join(yield* scratchFolder, "rpc.sock")
      const engine = yield* Scope.provide(makeEngine({ rpcSocket }), scope)
      assert.strictEqual(engine.rpcSocket, rpcSocket)
      assert.strictEqual(fs.statSync(rpcSocket).mode & 0o777, 0o600)
      const client = yield* connect(rpcSocket)
      yield* Scope.close(scope, Exit.void)
      assert.isFalse(fs.existsSync(rpcSocket))
      assert.strictEqual(yield* client.rest, "")
    }).pipe(Effect.scoped)
  )

  it.live("is refused when somebody serves it already", () =>
    Effect.gen(function* () {
      const { rpcSocket } = yield* served
      const { reason } = yield* Effect.flip(Effect.scoped(makeEngine({ rpcSocket })))
      assert.include(reason, { _tag: "StartFailed", resource: rpcSocket })
      assert.match(reason.message, /another process serves this socket/)
      const client = yield* connect(rpcSocket)
      assert.strictEqual(yield* client.exchange(ask()), result("NOTICE"), "the first is not disturbed")
    }).pipe(Effect.scoped)
  )

  it.live("is not made of a file, which stays", () =>
    Effect.gen(function* () {
      const rpcSocket = path.join(yield* scratchFolder, "file")
      fs.writeFileSync(rpcSocket, "precious")
      const { reason } = yield* Effect.flip(Effect.scoped(makeEngine({ rpcSocket })))
      assert.strictEqual(reason._tag, "StartFailed")
      assert.strictEqual(fs.readFileSync(rpcSocket, "utf8"), "precious")
    }).pipe(Effect.scoped)
  )

  it.live("takes the place of one that a dead process has left", () =>
    Effect.gen(function* () {
      const rpcSocket = path.join(yield* scratchFolder, "stale.sock")
      yield* Effect.callback<void>((resume) => {
        const server = Net.createServer().listen(rpcSocket, () => {
          // The file of a process that was killed: closing the handle under the name keeps the name.
          fs.renameSync(rpcSocket, `${rpcSocket}.kept`)
          server.close(() => resume(Effect.void))
        })
      })
      fs.renameSync(`${rpcSocket}.kept`, rpcSocket)
      assert.isTrue(fs.lstatSync(rpcSocket).isSocket())
      yield* makeEngine({ rpcSocket })
      const client = yield* connect(rpcSocket)
      assert.strictEqual(yield* client.exchange(ask()), result("NOTICE"))
    }).pipe(Effect.scoped)
  )

  it.live("cannot be where there is no folder, and cannot have a path of 108 bytes", () =>
    Effect.gen(function* () {
      const made = yield* scratchFolder
      const nowhere = yield* Effect.flip(Effect.scoped(makeEngine({ rpcSocket: path.join(made, "a", "b") })))
      assert.strictEqual(nowhere.reason._tag, "StartFailed")
      // libuv says EACCES of a folder that is missing.
      assert.include(["EACCES", "ENOENT"], nowhere.reason.errno)
      const long = `/tmp/${"x".repeat(103)}`
      const tooLong = yield* Effect.flip(Effect.scoped(makeEngine({ rpcSocket: long })))
      assert.include(tooLong.reason, { _tag: "InvalidArgument", field: "rpcSocket", value: long })
    }).pipe(Effect.scoped)
  )

  it.live("stops serving by spdk_kill_instance, which is answered", () =>
    Effect.gen(function* () {
      const { engine, rpcSocket } = yield* served
      const client = yield* connect(rpcSocket)
      const kill = ask({ method: "spdk_kill_instance", params: { sig_name: "SIGTERM" } })
      assert.strictEqual(yield* client.exchange(kill), result(true))
      assert.strictEqual(yield* client.rest, "")
      assert.isFalse(fs.existsSync(rpcSocket))
      assert.strictEqual(yield* engine.rpc.call("log_get_level"), "NOTICE", "the engine itself goes on")
    }).pipe(Effect.scoped)
  )
})
