/**
 * The RPC methods on a Unix socket, for rpc.py and everything else that speaks to SPDK. Only the user who runs the
 * engine may connect.
 */
import * as fs from "node:fs"
import * as Net from "node:net"
import { isMainThread } from "node:worker_threads"
import * as Effect from "effect/Effect"
import * as FiberSet from "effect/FiberSet"
import type * as Scope from "effect/Scope"
import { invalid, type InvalidArgument, SpdkError, StartFailed } from "../../../SpdkError.ts"
import { answer } from "./requests.ts"
import { FrameFault, FrameReader } from "./frames.ts"
import type { RpcTable } from "./table.ts"

const maxPathBytes = 107
const maxConnections = 1024
/** A client that asks on and does not take its answers is read no further. */
const maxUnansweredRequests = 256
const maxUnsentBytes = 4 * 1024 * 1024

export interface RpcServer {
  /** Ends the service: no new connections, and those there are close once they have their answers. */
  readonly stop: () => void
}

/** Serves until the scope closes. Fails when the path is no socket's, or somebody else serves it. */
export const serve = Effect.fnUntraced(function* (
  path: string,
  table: RpcTable
): Effect.fn.Return<RpcServer, SpdkError<InvalidArgument | StartFailed>, Scope.Scope> {
  const lengthBytes = Buffer.byteLength(path)
  if (lengthBytes > maxPathBytes) {
    const rule = `has ${lengthBytes} bytes, and a socket's path has at most ${maxPathBytes}`
    return yield* Effect.fail(invalid("Spdk.layer", "rpcSocket", rule, path))
  }
  const run = yield* FiberSet.makeRuntime<never>()
  const connections = new Set<Connection>()
  const server = Net.createServer({ allowHalfOpen: true }, (socket) => {
    const connection = new Connection(socket, (value) =>
      run(Effect.map(answer(table, value), (text) => connection.answered(text)))
    )
    connections.add(connection)
    socket.on("close", () => connections.delete(connection))
  })
  server.maxConnections = maxConnections
  yield* freePath(path)
  const stop = () => {
    // Also removes the path.
    server.close()
    for (const connection of connections) connection.endWhenAnswered()
  }
  yield* Effect.acquireRelease(listen(server, path), () =>
    Effect.sync(() => {
      server.close()
      for (const connection of connections) connection.destroy()
    })
  )
  return { stop }
})

const startFailed = (path: string, detail: string, cause: unknown): SpdkError<StartFailed> =>
  new SpdkError({
    reason: new StartFailed({
      operation: "Spdk.layer",
      resource: path,
      detail,
      ...(cause instanceof Error && "code" in cause ? { errno: String(cause.code), cause } : {})
    })
  })

/** Removes what a process that is gone has left behind, and nothing else. */
const freePath = (path: string): Effect.Effect<void, SpdkError<StartFailed>> =>
  Effect.flatMap(
    Effect.try({
      try: () => fs.lstatSync(path, { throwIfNoEntry: false }),
      catch: (cause) => startFailed(path, "the path cannot be looked at", cause)
    }),
    (stat) => {
      if (stat === undefined) return Effect.void
      if (!stat.isSocket()) return Effect.fail(startFailed(path, "there is something that is not a socket", undefined))
      return Effect.andThen(
        checkDead(path),
        Effect.sync(() => fs.rmSync(path, { force: true }))
      )
    }
  )

/** Fails unless nobody listens. */
const checkDead = (path: string): Effect.Effect<void, SpdkError<StartFailed>> =>
  Effect.callback((resume) => {
    const probe = Net.createConnection(path)
    const alive = (cause: unknown) => {
      probe.destroy()
      resume(Effect.fail(startFailed(path, "another process serves this socket", cause)))
    }
    probe.once("connect", () => alive(undefined))
    probe.once("error", (error) => {
      if ("code" in error && error.code === "ECONNREFUSED") resume(Effect.void)
      else alive(error)
    })
    return Effect.sync(() => probe.destroy())
  })

const listen = (server: Net.Server, path: string): Effect.Effect<void, SpdkError<StartFailed>> =>
  Effect.callback((resume) => {
    const refuse = (error: unknown) => {
      server.close()
      resume(Effect.fail(startFailed(path, "the socket cannot be served", error)))
    }
    server.once("error", refuse)
    server.once("listening", () => {
      try {
        fs.chmodSync(path, 0o600)
        resume(Effect.void)
      } catch (error) {
        refuse(error)
      }
    })
    // The socket is made in this call. A worker cannot change the mask; there chmod has to do.
    const mask = isMainThread ? process.umask(0o177) : undefined
    try {
      server.listen(path)
    } finally {
      if (mask !== undefined) process.umask(mask)
    }
  })

/** One client. */
class Connection {
  private readonly socket: Net.Socket
  private readonly frames = new FrameReader()
  private readonly onRequest: (value: unknown) => void
  private unanswered = 0
  /** No more requests are taken. */
  private isEnding = false

  constructor(socket: Net.Socket, onRequest: (value: unknown) => void) {
    this.socket = socket
    this.onRequest = onRequest
    socket.on("data", (chunk: Buffer) => this.received(chunk))
    socket.on("drain", () => this.control())
    socket.on("end", () => this.endWhenAnswered())
    // The client is gone; its requests take effect, and their answers go nowhere.
    socket.on("error", () => socket.destroy())
  }

  answered(text: string | undefined): void {
    this.unanswered--
    if (text !== undefined && !this.socket.destroyed) this.socket.write(text)
    this.control()
  }

  endWhenAnswered(): void {
    this.isEnding = true
    this.control()
  }

  destroy(): void {
    this.socket.destroy()
  }

  private received(chunk: Buffer): void {
    if (this.isEnding) return
    try {
      this.frames.push(chunk, (value) => {
        this.unanswered++
        this.onRequest(value)
      })
    } catch (error) {
      if (!(error instanceof FrameFault)) throw error
      // What cannot be parsed has no end either. SPDK hangs up, before it sends what it had to say.
      this.socket.destroy()
    }
    this.control()
  }

  private control(): void {
    const { socket } = this
    if (socket.destroyed) return
    if (this.isEnding) {
      if (this.unanswered === 0 && !socket.writableEnded) socket.end(() => socket.destroy())
      return
    }
    const isFull = this.unanswered >= maxUnansweredRequests || socket.writableLength >= maxUnsentBytes
    if (isFull !== socket.isPaused()) {
      if (isFull) socket.pause()
      else socket.resume()
    }
  }
}
