/** A TCP port in front of another one, whose connections can be cut as a network does it: both ends see a reset, without a word. */
import * as Effect from "effect/Effect"
import * as net from "node:net"

export const cuttable = (to: string) =>
  Effect.acquireRelease(
    Effect.callback<{ readonly port: string; readonly cut: Effect.Effect<number>; readonly close: () => void }>(
      (resume) => {
        const sockets = new Set<net.Socket>()
        const cut = (): number => {
          const { size } = sockets
          for (const socket of sockets) socket.resetAndDestroy()
          sockets.clear()
          return size
        }
        const server = net.createServer({ noDelay: true }, (near) => {
          const far = net.connect({ host: "127.0.0.1", port: Number(to), noDelay: true })
          for (const [socket, other] of [
            [near, far],
            [far, near]
          ] as const) {
            sockets.add(socket)
            socket.on("error", () => {})
            socket.on("close", () => {
              sockets.delete(socket)
              other.destroy()
            })
            socket.pipe(other)
          }
        })
        server.listen({ host: "127.0.0.1", port: 0 }, () => {
          const address = server.address()
          const port = typeof address === "object" && address !== null ? String(address.port) : ""
          const close = (): void => {
            server.close()
            cut()
          }
          resume(Effect.succeed({ port, cut: Effect.sync(cut), close }))
        })
      }
    ),
    ({ close }) => Effect.sync(close)
  )
