/**
 * A JSON-RPC server on a Unix socket that answers as a test wants, wrongly too.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Fs from "node:fs"
import * as Net from "node:net"
import * as Os from "node:os"
import * as Path from "node:path"
import { make as makeSplitter } from "../../src/internal/rpc/jsonFrames.ts"
import { deadlineIn } from "./deadline.ts"

export interface Request {
  readonly id: number
  readonly method: string
  readonly params?: unknown
  /** Sends any bytes to who asked. */
  readonly send: (text: string | Uint8Array) => void
  readonly succeed: (result: unknown) => void
  readonly fail: (code: number, message: string) => void
  /** Ends the connection. */
  readonly close: () => void
}

export interface FakeServer {
  readonly path: string
  /** Every request that arrived, in order. */
  readonly requests: ReadonlyArray<Request>
  /** Connections that were ever made. */
  readonly connections: () => number
  /** Connections that are open now. */
  readonly open: () => number
}

export const temporaryDirectory: Effect.Effect<string, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => Fs.mkdtempSync(Path.join(Os.tmpdir(), "rpc-test-"))),
  (directory) => Effect.sync(() => Fs.rmSync(directory, { recursive: true, force: true }))
)

interface RawRequest {
  readonly id: number
  readonly method: string
  readonly params?: unknown
}

const serve = (socket: Net.Socket, requests: Array<Request>, onRequest: (request: Request) => void): void => {
  const splitter = makeSplitter()
  const send = (text: string | Uint8Array) => void socket.write(text)
  socket.on("error", () => socket.destroy())
  socket.on("data", (chunk) =>
    splitter.push(chunk, (message) => {
      // The client under test sends nothing else; what it sends is looked at in the tests.
      const raw = message as RawRequest
      const request: Request = {
        ...raw,
        send,
        succeed: (result) => send(JSON.stringify({ jsonrpc: "2.0", id: raw.id, result })),
        fail: (code, text) => send(JSON.stringify({ jsonrpc: "2.0", id: raw.id, error: { code, message: text } })),
        close: () => void socket.destroy()
      }
      requests.push(request)
      onRequest(request)
    })
  )
}

/** Listens at `path`, which must not exist. */
export const listen = (
  path: string,
  onRequest: (request: Request) => void
): Effect.Effect<FakeServer, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<FakeServer & { readonly end: Effect.Effect<void> }>((resume) => {
      const requests: Array<Request> = []
      const sockets = new Set<Net.Socket>()
      let connections = 0
      const server = Net.createServer((socket) => {
        connections++
        sockets.add(socket)
        socket.on("close", () => sockets.delete(socket))
        serve(socket, requests, onRequest)
      })
      const end = Effect.callback<void>((done) => {
        for (const socket of sockets) socket.destroy()
        server.close(() => done(Effect.void))
      })
      server.listen(path, () =>
        resume(Effect.succeed({ path, requests, connections: () => connections, open: () => sockets.size, end }))
      )
    }),
    ({ end }) => end
  )

/** Listens in a directory of its own. */
export const fakeServer = (onRequest: (request: Request) => void): Effect.Effect<FakeServer, never, Scope.Scope> =>
  Effect.flatMap(temporaryDirectory, (directory) => listen(Path.join(directory, "rpc.sock"), onRequest))

/** Waits for what sockets do, with a deadline in real time. */
export const until = (what: string, condition: () => boolean): Effect.Effect<void> =>
  Effect.callback<void>((resume) => {
    const isOver = deadlineIn(10_000)
    const look = () => {
      if (condition()) resume(Effect.void)
      else if (isOver()) resume(Effect.die(new Error(`never happened: ${what}`)))
      else setTimeout(look, 1)
    }
    look()
  })
