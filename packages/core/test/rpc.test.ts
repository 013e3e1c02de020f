import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import { TestClock } from "effect/testing"
import * as Net from "node:net"
import * as Path from "node:path"
import * as Rpc from "../src/Rpc.ts"
import type { Reason, SpdkError } from "../src/SpdkError.ts"
import { fakeServer, listen, type Request, temporaryDirectory, until } from "./support/fakeRpcServer.ts"
import { makeRandom, withSeed } from "./support/random.ts"

const connect = (path: string, options: Rpc.RpcOptions = {}) => Rpc.make({ ...options, address: { path } })

const tagOf = <A, R>(call: Effect.Effect<A, SpdkError, R>) => Effect.map(Effect.flip(call), ({ reason }) => reason._tag)

/** Answers every request with its own parameters. */
const echo = (request: Request) => request.succeed(request.params ?? null)

describe("calls", () => {
  it.effect("find their answers by id, in whatever order and pieces these come", () =>
    Effect.gen(function* () {
      const held: Array<Request> = []
      const server = yield* fakeServer((request) => {
        held.push(request)
        if (held.length < 100) return
        const text = held
          .toReversed()
          .map(({ id, params }) => JSON.stringify({ jsonrpc: "2.0", id, result: params }))
          .join("")
        for (let at = 0; at < text.length; at += 13) request.send(text.slice(at, at + 13))
      })
      const client = yield* connect(server.path)
      const numbers = Array.from({ length: 100 }, (_, n) => n)
      const answers = yield* Effect.forEach(numbers, (n) => client.call("echo", { n }), { concurrency: "unbounded" })
      assert.deepStrictEqual(
        answers,
        numbers.map((n) => ({ n }))
      )
      assert.strictEqual(server.connections(), 1)
    })
  )

  it.effect("carry all digits of a bigint, leave out what is undefined, and have no empty params", () =>
    Effect.gen(function* () {
      const raw: Array<string> = []
      const server = yield* fakeServer((request) => {
        raw.push(JSON.stringify(request.params ?? "none"))
        request.succeed(null)
      })
      const client = yield* connect(server.path)
      yield* client.call("m", { size: 2n ** 53n, name: undefined, list: [1, "é", null, { x: undefined }] })
      yield* client.call("m", {})
      yield* client.call("m", { name: undefined })
      yield* client.call("m")
      assert.deepStrictEqual(raw, [`{"size":9007199254740992,"list":[1,"é",null,{}]}`, `"none"`, `"none"`, `"none"`])
    })
  )

  it.effect("refuse parameters that JSON does not have, by name, without sending anything", () =>
    Effect.gen(function* () {
      const server = yield* fakeServer(echo)
      const client = yield* connect(server.path)
      const circular: Record<string, unknown> = {}
      circular["self"] = { inner: circular }
      const deep = Array.from({ length: 70 }).reduce<object>((inner) => ({ inner }), {})
      for (const [params, field, rule] of [
        [{ a: { b: [0, Number.NaN] } }, "a.b.1", "finite"],
        [{ f: () => 1 }, "f", "function"],
        [{ s: Symbol("s") }, "s", "symbol"],
        [{ x: circular }, "x.self.inner", "itself"],
        [{ deep }, "deep", "64 levels"]
      ] as const) {
        const { reason } = yield* Effect.flip(client.call("m", params))
        assert.strictEqual(reason._tag, "InvalidArgument")
        if (reason._tag !== "InvalidArgument") return
        assert.isTrue(reason.field.startsWith(field), reason.field)
        assert.include(reason.rule, rule)
      }
      assert.lengthOf(server.requests, 0)
    })
  )

  it.effect("carry messages far above one socket buffer, both ways", () =>
    Effect.gen(function* () {
      const server = yield* fakeServer(echo)
      const client = yield* connect(server.path)
      const big = "x".repeat(5_000_000)
      assert.deepStrictEqual(yield* client.call("echo", { big }), { big })
    })
  )

  it.effect("ask how much this SPDK takes before they send more than every SPDK does", () =>
    Effect.gen(function* () {
      let version = ""
      const server = yield* fakeServer((request) =>
        request.succeed(request.method === "spdk_get_version" ? { version } : true)
      )
      const client = yield* connect(server.path)
      const call = (length: number) => client.call("m", { text: "x".repeat(length) })
      yield* call(32_000)
      assert.deepStrictEqual(
        server.requests.map(({ method }) => method),
        ["m"]
      )
      for (const [running, largest] of [
        ["SPDK v24.09.1-pre", 32 * 1024],
        ["SPDK v25.09", 32 * 1024],
        ["SPDK v26.05-pre git sha1 deadbeef", 256 * 1024]
      ] as const) {
        version = running
        yield* call(largest - 200)
        const { reason } = yield* Effect.flip(call(largest))
        assert.include(reason.message, `${largest}`)
        assert.strictEqual(reason._tag, "InvalidArgument")
      }
      version = "SPDK v25.09"
      const many = yield* Effect.flip(client.call("m", { list: Array.from({ length: 1020 }, () => 0) }))
      assert.include(many.message, "1024")
      assert.strictEqual(server.connections(), 1)
    })
  )

  it.effect("fail with the reason that belongs to the server's code, and name the resource", () =>
    Effect.gen(function* () {
      const server = yield* fakeServer((request) => request.fail(-17, "File exists"))
      const client = yield* connect(server.path)
      const error = yield* Effect.flip(client.call("bdev_malloc_create", { name: "disk0" }))
      assert.strictEqual(error.message, `bdev_malloc_create on "disk0": AlreadyExists: File exists (EEXIST)`)
    })
  )
})

describe("NVMe commands by RPC", () => {
  it.effect("are not sent with less memory than they move", () =>
    Effect.gen(function* () {
      const server = yield* fakeServer((request) =>
        request.succeed(
          request.method === "bdev_get_bdevs" ? [{ name: "n1", block_size: 4096, num_blocks: 8, claimed: false }] : true
        )
      )
      const client = yield* connect(server.path)
      const send = (kind: "admin" | "io", words: Readonly<Record<number, number>>, more: object) => {
        const entry = new DataView(new ArrayBuffer(64))
        for (const [number, word] of Object.entries(words)) entry.setUint32(4 * Number(number), word, true)
        return client.call("bdev_nvme_send_cmd", {
          name: "n1",
          cmd_type: kind,
          data_direction: "c2h",
          cmdbuf: Buffer.from(entry.buffer).toString("base64url"),
          ...more
        })
      }
      for (const [call, field, bytes] of [
        [send("admin", { 0: 0x06 }, { data_len: 64 }), "data_len", 4096],
        [send("admin", { 0: 0x06 }, {}), "data_len", 4096],
        [send("io", { 0: 0x0e, 10: 1023 }, { data_len: 4092 }), "data_len", 4096],
        [send("io", { 0: 0x02, 12: 1 }, { data_len: 4096 }), "data_len", 8192],
        [send("io", { 0: 0x11 }, { data: Buffer.alloc(8).toString("base64url") }), "data", 16]
      ] as const) {
        const { reason } = yield* Effect.flip(call)
        if (reason._tag !== "InvalidArgument") return assert.fail(reason.message)
        assert.strictEqual(reason.field, field)
        assert.include(reason.rule, `${bytes} bytes`)
      }
      assert.isFalse(server.requests.some(({ method }) => method === "bdev_nvme_send_cmd"))
      yield* send("admin", { 0: 0x06 }, { data_len: 4096 })
      yield* send("io", { 0: 0x11 }, { data: Buffer.alloc(16).toString("base64url") })
      yield* send("io", { 0: 0x00 }, {})
      assert.lengthOf(
        server.requests.filter(({ method }) => method === "bdev_nvme_send_cmd"),
        3
      )
    })
  )
})

describe("a call that is given up", () => {
  it.effect("by interruption leaves the connection usable, and its late answer is dropped", () =>
    Effect.gen(function* () {
      const server = yield* fakeServer((request) => {
        if (request.method === "slow") return
        if (server.requests.length === 2) server.requests[0]?.succeed("late")
        request.succeed("quick")
      })
      const client = yield* connect(server.path)
      const slow = yield* Effect.forkChild(client.call("slow"))
      yield* until("the server has the request", () => server.requests.length === 1)
      yield* Fiber.interrupt(slow)
      assert.strictEqual(yield* client.call("quick"), "quick")
      assert.strictEqual(yield* client.call("quick"), "quick")
      assert.strictEqual(server.connections(), 1)
    })
  )

  it.effect("by its deadline fails with TimedOut, and so does the call's own limit", () =>
    Effect.gen(function* () {
      const server = yield* fakeServer((request) => {
        if (request.method === "quick") request.succeed(1)
      })
      const client = yield* connect(server.path, { timeout: "300 millis" })
      const first = yield* Effect.forkChild(client.call("slow"))
      const second = yield* Effect.forkChild(client.call("slow", {}, { timeout: "100 millis" }))
      yield* until("the server has both", () => server.requests.length === 2)
      const limited = yield* Effect.flip(Fiber.join(second))
      assert.strictEqual(limited.message, `slow: TimedOut: no answer within 100 ms (${client.address})`)
      assert.isUndefined(first.pollUnsafe())
      assert.strictEqual(yield* tagOf(Fiber.join(first)), "TimedOut")
      for (const request of server.requests) request.succeed("late")
      assert.strictEqual(yield* client.call("quick"), 1)
      assert.strictEqual(server.connections(), 1)
    })
  )

  it.effect("is refused before it is sent when its deadline is not a duration", () =>
    Effect.gen(function* () {
      const server = yield* fakeServer(() => {})
      const client = yield* connect(server.path)
      // Callers in JavaScript may pass anything.
      const timeout = "soon" as "1 second"
      const { reason } = yield* Effect.flip(client.call("slow", {}, { timeout }))
      assert.include(reason, { _tag: "InvalidArgument", operation: "slow", field: "timeout" })
      assert.strictEqual(server.connections(), 0)
    })
  )

  it.effect("may have no deadline at all", () =>
    Effect.gen(function* () {
      const server = yield* fakeServer(() => {})
      const client = yield* connect(server.path, { timeout: Duration.infinity })
      const call = yield* Effect.forkChild(client.call("slow"))
      yield* until("the server has it", () => server.requests.length === 1)
      yield* TestClock.adjust("1000 hours")
      server.requests[0]?.succeed("at last")
      assert.strictEqual(yield* Fiber.join(call), "at last")
    })
  )

  it.effect("while it waits for the connection is not sent later", () =>
    Effect.gen(function* () {
      const path = Path.join(yield* temporaryDirectory, "late.sock")
      const client = yield* connect(path, { reconnect: Schedule.spaced("200 millis") })
      const given = yield* Effect.forkChild(client.call("given_up"))
      const kept = yield* Effect.forkChild(client.call("kept"))
      yield* Effect.yieldNow
      yield* Fiber.interrupt(given)
      const server = yield* listen(path, echo)
      yield* Fiber.join(kept)
      assert.deepStrictEqual(
        server.requests.map(({ method }) => method),
        ["kept"]
      )
    })
  )
})

describe("the connection", () => {
  it.effect("that breaks fails each call in flight once, and the next call makes it again", () =>
    Effect.gen(function* () {
      const server = yield* fakeServer((request) => {
        if (request.method === "again") return request.succeed("ok")
        if (server.requests.length === 20) request.close()
      })
      const client = yield* connect(server.path)
      const counts = Array.from({ length: 20 }, () => 0)
      const tags = yield* Effect.forEach(
        counts,
        (_, index) =>
          tagOf(client.call("m")).pipe(Effect.tap(() => Effect.sync(() => (counts[index] = (counts[index] ?? 0) + 1)))),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(new Set(tags), new Set(["RpcUnreachable"]))
      assert.deepStrictEqual(
        counts,
        counts.map(() => 1)
      )
      assert.strictEqual(yield* client.call("again"), "ok")
      assert.strictEqual(server.connections(), 2)
      assert.lengthOf(
        server.requests.filter(({ method }) => method === "m"),
        20,
        "nothing is sent twice"
      )
    })
  )

  it.effect("that ends in the middle of an answer fails the call as unreachable, retryable", () =>
    Effect.gen(function* () {
      const server = yield* fakeServer((request) => {
        request.send(`{"jsonrpc":"2.0","id":${request.id},"resu`)
        request.close()
      })
      const client = yield* connect(server.path)
      const error = yield* Effect.flip(client.call("m"))
      assert.strictEqual(error.reason._tag, "RpcUnreachable")
      assert.isTrue(error.isRetryable)
      assert.include(error.message, "broke before the answer")
    })
  )

  it.effect("is tried by the Schedule, and then fails with the system's error", () =>
    Effect.gen(function* () {
      const path = Path.join(yield* temporaryDirectory, "nobody.sock")
      let tries = 0
      const reconnect = Schedule.recurs(3).pipe(Schedule.tap(() => Effect.sync(() => tries++)))
      const client = yield* connect(path, { reconnect })
      const [first, second] = yield* Effect.all([Effect.flip(client.call("a")), Effect.flip(client.call("b"))], {
        concurrency: "unbounded"
      })
      assert.strictEqual(first.message, `a: RpcUnreachable: cannot reach the RPC server at unix:${path} (ENOENT)`)
      assert.strictEqual(second.reason.operation, "b")
      assert.strictEqual(tries, 3, "calls that come together share the tries")
      yield* Effect.flip(client.call("c"))
      assert.strictEqual(tries, 6, "the next call tries anew")
    })
  )

  it.effect("comes up while calls wait for it", () =>
    Effect.gen(function* () {
      const path = Path.join(yield* temporaryDirectory, "late.sock")
      const scope = yield* Effect.scope
      let tries = 0
      const reconnect = Schedule.recurs(100).pipe(
        Schedule.tap(() =>
          ++tries === 3
            ? Scope.provide(
                listen(path, (request) => request.succeed(request.method)),
                scope
              )
            : Effect.void
        )
      )
      const client = yield* connect(path, { reconnect })
      const answers = yield* Effect.all([client.call("a"), client.call("b")], { concurrency: "unbounded" })
      assert.deepStrictEqual(answers, ["a", "b"])
      assert.strictEqual(tries, 3)
    })
  )

  it.effect("that never comes up holds a call no longer than its deadline", () =>
    Effect.gen(function* () {
      const path = Path.join(yield* temporaryDirectory, "nobody.sock")
      const client = yield* connect(path, { timeout: "100 millis", reconnect: Schedule.spaced("1 minute") })
      const call = yield* Effect.forkChild(client.call("m"))
      yield* Effect.yieldNow
      assert.strictEqual(yield* tagOf(Fiber.join(call)), "TimedOut")
    })
  )

  it.effect("closes with its scope: what is in flight fails with Released, and so does what comes later", () =>
    Effect.gen(function* () {
      const server = yield* fakeServer(() => {})
      const scope = yield* Scope.make()
      const client = yield* Scope.provide(connect(server.path), scope)
      const call = yield* Effect.forkChild(client.call("m"))
      yield* until("the server has it", () => server.requests.length === 1)
      yield* Scope.close(scope, Exit.void)
      const error = yield* Effect.flip(Fiber.join(call))
      assert.strictEqual(error.message, "m: Released: the RPC client has already been released")
      assert.strictEqual(yield* tagOf(client.call("m")), "Released")
      yield* until("the server sees the end", () => server.open() === 0)
    })
  )

  it.effect("that is being made when its scope closes leaves no socket and nobody waiting", () =>
    Effect.gen(function* () {
      const path = Path.join(yield* temporaryDirectory, "nobody.sock")
      const scope = yield* Scope.make()
      const client = yield* Scope.provide(connect(path, { reconnect: Schedule.spaced("1 hour") }), scope)
      const call = yield* Effect.forkChild(client.call("m"))
      yield* Effect.yieldNow
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual(yield* tagOf(Fiber.join(call)), "Released")
    })
  )

  it.effect("is made again for what its own scope still has to undo", () =>
    Effect.gen(function* () {
      const server = yield* fakeServer((request) => (request.method === "m" ? request.close() : request.succeed("ok")))
      const scope = yield* Scope.make()
      const client = yield* Scope.provide(connect(server.path, { timeout: "3 seconds" }), scope)
      assert.strictEqual(yield* tagOf(client.call("m")), "RpcUnreachable")
      yield* Scope.addFinalizer(scope, Effect.orDie(client.call("undo")))
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual(server.requests.at(-1)?.method, "undo")
      yield* until("the server sees the end", () => server.open() === 0)
    })
  )

  it.effect("works over TCP", () =>
    Effect.gen(function* () {
      const port = yield* Effect.acquireRelease(
        Effect.callback<{ readonly port: number; readonly server: Net.Server }>((resume) => {
          const server = Net.createServer((socket) =>
            socket.on("data", () => socket.write(`{"jsonrpc":"2.0","id":1,"result":"over tcp"}`))
          )
          server.listen(0, "127.0.0.1", () => {
            const address = server.address()
            if (address !== null && typeof address === "object") resume(Effect.succeed({ port: address.port, server }))
          })
        }),
        ({ server }) => Effect.sync(() => server.close())
      )
      const client = yield* Rpc.make({ address: { host: "127.0.0.1", port: port.port } })
      assert.strictEqual(client.address, `tcp:127.0.0.1:${port.port}`)
      assert.strictEqual(yield* client.call("m"), "over tcp")
    })
  )
})

const answer = (id: number, rest: string) => `{"jsonrpc":"2.0","id":${id},${rest}}`

describe("a server that breaks the protocol", () => {
  const cases: ReadonlyArray<readonly [name: string, says: (id: number) => string, rule: string]> = [
    ["speaks HTTP", () => "HTTP/1.1 400 Bad Request\r\n\r\n", "not a JSON object"],
    ["sends a broken object", () => "{nope}", "not JSON"],
    ["sends a batch", () => "[]", "not a JSON object"],
    ["names no id", () => `{"jsonrpc":"2.0","result":1}`, "without the id"],
    ["sends a notification", () => `{"jsonrpc":"2.0","method":"hello"}`, "without the id"],
    ["has an id of text", (id) => `{"jsonrpc":"2.0","id":"${id}","result":1}`, "without the id"],
    ["speaks another version", (id) => `{"jsonrpc":"1.0","id":${id},"result":1}`, `"jsonrpc" is not "2.0"`],
    ["leaves out the version", (id) => `{"id":${id},"result":1}`, `"jsonrpc" is not "2.0"`],
    ["answers an id nobody asked for", (id) => answer(id + 1000, `"result":1`), "belongs to no request"],
    ["answers neither result nor error", (id) => answer(id, `"x":1`), "neither result nor error"],
    ["sends an error of no shape", (id) => answer(id, `"error":"no"`), "without code and message"],
    [
      "cannot say whom an error is for",
      () => `{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"Parse error"}}`,
      "Parse error, code -32700"
    ],
    ["sends more than the bound", (id) => answer(id, `"result":"${"x".repeat(2000)}"`), "more than 1000 bytes"],
    ["never ends a message", () => `{"a":"${"x".repeat(2000)}`, "more than 1000 bytes"],
    ["nests without end", () => `{"a":${"[".repeat(500)}`, "deeper than"]
  ]

  it.effect.each(cases)("%s: what is in flight fails, and the next call has a new connection", ([, says, rule]) =>
    Effect.gen(function* () {
      const server = yield* fakeServer((request) => {
        if (server.connections() > 1) return request.succeed("fine")
        if (server.requests.length === 2) request.send(says(request.id))
      })
      const client = yield* connect(server.path, { maxMessageBytes: 1000 })
      const errors = yield* Effect.all([Effect.flip(client.call("a")), Effect.flip(client.call("b"))], {
        concurrency: "unbounded"
      })
      for (const { message, reason } of errors) {
        assert.strictEqual(reason._tag, "RpcProtocol")
        assert.include(message, rule)
        assert.include(message, server.path)
      }
      assert.strictEqual(yield* client.call("c"), "fine")
      yield* until("the bad connection is closed", () => server.open() === 1)
      assert.strictEqual(server.connections(), 2)
    })
  )

  it.effect("after answers that are good: those count", () =>
    Effect.gen(function* () {
      const server = yield* fakeServer((request) => {
        if (server.requests.length < 3) return
        const [first] = server.requests
        request.send(`${answer(first?.id ?? 0, `"result":"good"`)}${answer(first?.id ?? 0, `"result":"again"`)}`)
      })
      const client = yield* connect(server.path)
      const exits = yield* Effect.forEach(["a", "b", "c"], (method) => Effect.exit(client.call(method)), {
        concurrency: "unbounded"
      })
      assert.deepStrictEqual(exits[0], Exit.succeed("good"))
      for (const exit of exits.slice(1)) assert.isTrue(Exit.isFailure(exit))
    })
  )

  it.effect("stopping in the middle of a message, does not swallow answers for ever", () =>
    Effect.gen(function* () {
      const server = yield* fakeServer((request) => {
        const isFirst = server.connections() === 1
        if (isFirst && request.method === "half") {
          // In one piece with a good answer, so that it has arrived when that has.
          request.send(`${answer(request.id, `"result":"good"`)}{"jsonrpc":"2.0","id":1,"result":{"a":`)
        } else if (request.method !== "before") request.succeed("fine")
      })
      const client = yield* connect(server.path, { timeout: "2 seconds" })
      const before = yield* Effect.forkChild(client.call("before"))
      yield* until("the server has it", () => server.requests.length === 1)
      assert.strictEqual(yield* client.call("half"), "good")
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual(yield* tagOf(Fiber.join(before)), "TimedOut")
      assert.strictEqual(server.open(), 1, "its answer may be the one that is coming")

      const swallowed = yield* Effect.forkChild(client.call("swallowed"))
      yield* until("the server has it", () => server.requests.length === 3)
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual(yield* tagOf(Fiber.join(swallowed)), "TimedOut")
      assert.strictEqual(yield* client.call("next"), "fine")
      assert.strictEqual(server.connections(), 2)
    })
  )

  it.effect("by answering a call of an earlier connection", () =>
    Effect.gen(function* () {
      const earlier = ["in flight", "given up"] as const
      for (const which of earlier) {
        const server = yield* fakeServer((request) => {
          if (request.method === "close") request.close()
          if (request.method === "next") request.send(answer(server.requests[0]?.id ?? 0, `"result":"old"`))
        })
        const client = yield* connect(server.path)
        const old = yield* Effect.forkChild(client.call("old"))
        yield* until("the server has it", () => server.requests.length === 1)
        if (which === "given up") yield* Fiber.interrupt(old)
        assert.strictEqual(yield* tagOf(client.call("close")), "RpcUnreachable")
        const { message } = yield* Effect.flip(client.call("next"))
        assert.include(message, "belongs to no request", which)
      }
    })
  )

  it.effect("at random: every call ends, and the client lives on", () =>
    Effect.gen(function* () {
      const seeds: Array<number> = []
      withSeed((seed) => seeds.push(seed))
      const random = makeRandom(seeds[0] ?? 0)
      let isTame = false
      const server = yield* fakeServer((request) => {
        if (isTame) return request.succeed("tame")
        const good = new TextEncoder().encode(answer(request.id, `"result":{"a":[1,"}",null]}`))
        if (random.chance(0.6)) good[random.below(good.length)] = random.below(256)
        request.send(random.chance(0.2) ? good.subarray(0, random.below(good.length)) : good)
        if (random.chance(0.3)) request.close()
      })
      const client = yield* connect(server.path, { timeout: "1 second" })
      const tags = new Set<Reason["_tag"] | "Success">()
      const clock = yield* Effect.forkChild(
        Effect.forever(
          Effect.andThen(
            until("a turn", () => true),
            TestClock.adjust("20 millis")
          )
        )
      )
      for (let round = 0; round < 60; round++) {
        const ended = yield* Effect.forEach(
          [1, 2, 3, 4],
          () =>
            Effect.match(client.call("m"), {
              onFailure: ({ reason }) => reason._tag,
              onSuccess: () => "Success" as const
            }),
          { concurrency: "unbounded" }
        )
        for (const tag of ended) tags.add(tag)
      }
      isTame = true
      // What is left of a half message, or of answers to calls that were given up, may cost this connection.
      const tame = yield* Effect.retry(client.call("m"), { times: 3 })
      yield* Fiber.interrupt(clock)
      assert.strictEqual(tame, "tame")
      for (const tag of tags) {
        assert.include(["Success", "RpcProtocol", "RpcUnreachable", "TimedOut", "RpcFailed"], tag, `seed ${seeds[0]}`)
      }
      assert.isTrue(tags.has("Success") && tags.has("RpcProtocol"), `seed ${seeds[0]}`)
    })
  )
})

describe("an address that cannot be one", () => {
  const cases: ReadonlyArray<readonly [Rpc.RpcAddress, field: string, rule: string]> = [
    [{ path: "" }, "path", "empty"],
    [{ path: "/tmp/a\0b" }, "path", "NUL"],
    [{ path: `/${"x".repeat(107)}` }, "path", "108 bytes"],
    [{ path: `/${"é".repeat(54)}` }, "path", "109 bytes"],
    [{ host: " ", port: 1 }, "host", "empty"],
    [{ host: "localhost", port: 0 }, "port", "1 to 65535"],
    [{ host: "localhost", port: 65_536 }, "port", "1 to 65535"],
    [{ host: "localhost", port: 1.5 }, "port", "1 to 65535"]
  ]
  it.effect.each(cases)("%o is refused, with field and rule", ([address, field, rule]) =>
    Effect.gen(function* () {
      const { reason } = yield* Effect.flip(Rpc.make({ address }))
      assert.strictEqual(reason.field, field)
      assert.include(reason.rule, rule)
    })
  )

  it.effect("107 bytes of path are not too long", () =>
    Effect.gen(function* () {
      const client = yield* connect(`/${"x".repeat(106)}`, { reconnect: Schedule.recurs(0) })
      assert.strictEqual(yield* tagOf(client.call("m")), "RpcUnreachable")
    })
  )
})
