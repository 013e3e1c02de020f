/** An RPC client against servers that misbehave: no engine is needed for that. */
import * as Rpc from "@effect-spdk/core/Rpc"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import { createServer, type Server, type Socket } from "node:net"
import { join } from "node:path"
import { scratch } from "./support/engines.ts"
import { failsWith, fresh, until, within } from "./support/harness.ts"

/** A server on a Unix socket that does what the test says with every connection. */
const serve = (
  onConnection: (socket: Socket) => void
): Effect.Effect<{ readonly path: string; readonly server: Server }, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<{ readonly path: string; readonly server: Server; readonly sockets: Set<Socket> }>((resume) => {
      const path = join(scratch, `${fresh("s")}.sock`)
      const sockets = new Set<Socket>()
      const server = createServer((socket) => {
        sockets.add(socket)
        socket.on("error", () => {})
        onConnection(socket)
      }).listen(path, () => resume(Effect.succeed({ path, server, sockets })))
    }),
    ({ server, sockets }) =>
      Effect.callback<void>((resume) => {
        for (const socket of sockets) socket.destroy()
        server.close(() => resume(Effect.void))
      })
  )

const requestId = (data: Buffer): unknown => {
  const parsed: unknown = JSON.parse(data.toString())
  return typeof parsed === "object" && parsed !== null && "id" in parsed ? parsed.id : undefined
}

const connect = (path: string) => Rpc.make({ address: { path } })

describe("an RPC client on the wire", () => {
  it.live("no socket at the path", () =>
    failsWith(
      within(
        "the failure",
        Effect.scoped(Effect.flatMap(connect(join(scratch, "none.sock")), (client) => client.call("any")))
      ),
      "RpcUnreachable"
    )
  )

  it.live("a path that is longer than 107 bytes", () =>
    failsWith(Effect.scoped(connect(`/${"p".repeat(107)}`)), "InvalidArgument", { field: "path" })
  )

  it.live("a port where nobody listens", () =>
    failsWith(
      within(
        "the failure",
        Effect.scoped(
          Effect.flatMap(Rpc.make({ address: { host: "127.0.0.1", port: 1 } }), (client) => client.call("any"))
        )
      ),
      "RpcUnreachable"
    )
  )

  for (const [what, garbage] of [
    ["text", "HTTP/1.1 400 Bad Request\r\n\r\n"],
    ["bytes", "\u0000\u0001\u0002\u0003"],
    ["an array", "[1,2,3]"],
    ["a number", "42 "],
    ["an object that is no answer", '{"hello":"world"}'],
    ["broken JSON", '{"jsonrpc":"2.0","id":}'],
    ["both result and error", '{"jsonrpc":"2.0","id":1,"result":1,"error":{"code":1,"message":"m"}}']
  ] as const) {
    it.live(`a server that answers with ${what}`, () =>
      Effect.gen(function* () {
        const { path } = yield* serve((socket) => void socket.on("data", () => void socket.write(garbage)))
        const client = yield* connect(path)
        yield* failsWith(within("the failure", client.call("any")), "RpcProtocol")
      })
    )
  }

  it.live("a server that hangs up before it answers: the call fails, and is not sent again", () =>
    Effect.gen(function* () {
      let requests = 0
      const { path } = yield* serve(
        (socket) =>
          void socket.on("data", () => {
            requests++
            socket.destroy()
          })
      )
      const client = yield* connect(path)
      const reason = yield* failsWith(within("the failure", client.call("any")), "RpcUnreachable")
      assert.isTrue(reason.isRetryable)
      assert.strictEqual(requests, 1)
    })
  )

  it.live("a server that comes back is connected to again", () =>
    Effect.gen(function* () {
      let connections = 0
      const { path } = yield* serve((socket) => {
        const first = ++connections === 1
        socket.on("data", (data) =>
          first
            ? void socket.destroy()
            : void socket.write(JSON.stringify({ jsonrpc: "2.0", id: requestId(data), result: "again" }))
        )
      })
      const client = yield* connect(path)
      yield* failsWith(client.call("any"), "RpcUnreachable")
      assert.strictEqual(yield* within("the second connection", client.call("any")), "again")
      assert.strictEqual(connections, 2)
    })
  )

  it.live("a server that never answers: the deadline does", () =>
    Effect.gen(function* () {
      const { path } = yield* serve(() => {})
      const client = yield* connect(path)
      yield* failsWith(within("the deadline", client.call("any", undefined, { timeout: "30 millis" })), "TimedOut", {
        limitMillis: 30
      })
    })
  )

  it.live("answers byte by byte, with braces and quotes in their strings", () =>
    Effect.gen(function* () {
      const result = { text: '}{"\\}]', list: [1, { deep: "{" }], unicode: "\u00e9\u{1f600}" }
      const { path } = yield* serve(
        (socket) =>
          void socket.on("data", (data) => {
            for (const byte of Buffer.from(JSON.stringify({ jsonrpc: "2.0", id: requestId(data), result }))) {
              socket.write(Buffer.of(byte))
            }
          })
      )
      const client = yield* connect(path)
      assert.deepStrictEqual(yield* within("the answer", client.call("any")), result)
    })
  )

  it.live("answers in any order go to whom they belong", () =>
    Effect.gen(function* () {
      const { path } = yield* serve((socket) => {
        let waiting: Array<{ readonly id: unknown; readonly method: unknown }> = []
        let text = ""
        socket.on("data", (data) => {
          text += data.toString()
          for (const match of text.matchAll(/\{[^{}]*\}/g)) waiting.push(JSON.parse(match[0]))
          text = text.replaceAll(/\{[^{}]*\}/g, "")
          if (waiting.length < 50) return
          const answers = waiting
            .toReversed()
            .map(({ id, method }) => JSON.stringify({ jsonrpc: "2.0", id, result: method }))
          waiting = []
          socket.write(answers.join(""))
        })
      })
      const client = yield* connect(path)
      yield* within(
        "the answers",
        Effect.forEach(
          Array.from({ length: 50 }),
          (_, index) =>
            Effect.map(client.call(`method${index}`), (answer) => assert.strictEqual(answer, `method${index}`)),
          {
            concurrency: "unbounded",
            discard: true
          }
        )
      )
    })
  )

  it.live("a large answer arrives whole", () =>
    Effect.gen(function* () {
      const text = "x".repeat(8 * 1024 ** 2)
      const { path } = yield* serve(
        (socket) =>
          void socket.on(
            "data",
            (data) => void socket.write(JSON.stringify({ jsonrpc: "2.0", id: requestId(data), result: text }))
          )
      )
      const client = yield* connect(path)
      assert.strictEqual(yield* within("the answer", client.call("any")), text)
    })
  )

  it.live("the end of the client's scope fails what waits and closes the connection", () =>
    Effect.gen(function* () {
      let open = 0
      const { path } = yield* serve((socket) => {
        open++
        // Reads, so that it hears of the end.
        socket.resume()
        socket.on("close", () => open--)
      })
      const fiber = yield* Effect.scoped(
        Effect.gen(function* () {
          const client = yield* connect(path)
          const waiting = yield* Effect.forkDetach(client.call("any"), { startImmediately: true })
          yield* until(
            "the connection",
            Effect.sync(() => open === 1)
          )
          return waiting
        })
      )
      yield* failsWith(within("the failure", Fiber.join(fiber)), "Released")
      yield* until(
        "the connection is closed",
        Effect.sync(() => open === 0)
      )
    })
  )
})
