/** What the system says to somebody who connects to an address for a moment. */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as net from "node:net"
import * as Outside from "../engine/outside.ts"

const limitMillis = 1000

export interface TriedConnection {
  /** Undefined: somebody listens there. */
  readonly error: NodeJS.ErrnoException | undefined
}

/** Undefined when nothing was heard in time. */
export const tryConnect = (host: string, port: number): Effect.Effect<TriedConnection | undefined> =>
  Effect.map(
    Outside.timeoutOption(
      Effect.callback<TriedConnection>((resume) => {
        const socket = net.connect({ host, port })
        const end = (error: NodeJS.ErrnoException | undefined): void => {
          socket.destroy()
          resume(Effect.succeed({ error }))
        }
        socket.once("connect", () => end(undefined))
        // Later ones too: an "error" that nobody hears ends the process.
        socket.on("error", end)
        return Effect.sync(() => socket.destroy())
      }),
      limitMillis
    ),
    Option.getOrUndefined
  )
