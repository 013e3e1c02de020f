/** Ports to listen on, which nobody else takes meanwhile: a target that is killed may start again on its own. */
import * as Effect from "effect/Effect"
import { createServer } from "node:net"

/** Below the ports that Linux gives to those who ask for any, a range for each test process that runs at the same time. */
const firstPort = 10_000
const portsEach = 2500
const ranges = 8
const range = Number(process.env["VITEST_POOL_ID"] ?? process.pid) % ranges

/** From anywhere in the range, because other runs of these tests may go on beside this one. */
let next = Math.floor(Math.random() * portsEach)

/** Whether a listener can be made there now. */
export const isFree = (port: number): Effect.Effect<boolean> =>
  Effect.callback<boolean>((resume) => {
    const server = createServer()
    server.once("error", () => resume(Effect.succeed(false)))
    server.listen({ host: "127.0.0.1", port }, () => server.close(() => resume(Effect.succeed(true))))
  })

/** Nobody listens there, and no other call gets it. */
export const freePort: Effect.Effect<number> = Effect.suspend(() => {
  const port = firstPort + range * portsEach + (next++ % portsEach)
  return Effect.flatMap(isFree(port), (free) => (free ? Effect.succeed(port) : freePort))
})
