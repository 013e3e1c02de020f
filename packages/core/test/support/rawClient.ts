/**
 * A client that sends what it is told, well-formed or not.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Net from "node:net"

export interface RawClient {
  readonly send: (text: string | Uint8Array) => void
  /** The next line, "" when the server hangs up before its end. */
  readonly line: Effect.Effect<string>
  /** Sends and waits for one line. */
  readonly exchange: (text: string) => Effect.Effect<string>
  /** No more will be sent. */
  readonly end: () => void
  /** What came and was not asked for by `line`, once the server has hung up. */
  readonly rest: Effect.Effect<string>
}

export const connect = (socketPath: string): Effect.Effect<RawClient, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<Net.Socket>((resume) => {
      const socket = Net.createConnection({ path: socketPath, allowHalfOpen: true }, () =>
        resume(Effect.succeed(socket))
      )
      socket.on("error", (error) => resume(Effect.die(error)))
    }),
    (socket) => Effect.sync(() => socket.destroy())
  ).pipe(Effect.map(client))

const client = (socket: Net.Socket): RawClient => {
  let received = ""
  let isOver = socket.readableEnded
  const wakes = new Set<() => void>()
  const wake = (): void => {
    for (const one of [...wakes]) one()
  }
  socket.setEncoding("utf8").on("data", (text: string) => {
    received += text
    wake()
  })
  for (const event of ["end", "close", "error"]) {
    socket.on(event, () => {
      isOver = true
      wake()
    })
  }
  const when = (take: () => string | undefined): Effect.Effect<string> =>
    Effect.callback((resume) => {
      const look = (): void => {
        const taken = take()
        if (taken === undefined) return
        wakes.delete(look)
        resume(Effect.succeed(taken))
      }
      wakes.add(look)
      look()
      return Effect.sync(() => wakes.delete(look))
    })
  const line = when(() => {
    const end = received.indexOf("\n")
    if (end === -1) return isOver ? "" : undefined
    const text = received.slice(0, end)
    received = received.slice(end + 1)
    return text
  })
  const send = (text: string | Uint8Array): void => {
    socket.write(text)
  }
  return {
    send,
    line,
    exchange: (text) =>
      Effect.andThen(
        Effect.sync(() => send(text)),
        line
      ),
    end: () => socket.end(),
    rest: when(() => (isOver ? received : undefined))
  }
}
