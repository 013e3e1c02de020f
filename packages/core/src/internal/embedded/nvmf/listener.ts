/**
 * A listening socket. Subsystems that listen on the same address share it.
 */
import * as Net from "node:net"
import { Connection } from "./connection.ts"
import type { Address, Target } from "./target.ts"

/** More than this and the kernel is asked to refuse. */
const maxConnections = 16_384

export class ListenSocket {
  readonly address: Address
  private readonly server: Net.Server
  users = 0

  constructor(target: Target, address: Address) {
    this.address = address
    this.server = Net.createServer({ noDelay: true, allowHalfOpen: false }, (socket) => {
      const { transport } = target
      if (transport === undefined) socket.destroy()
      else Connection.accept(target, transport, socket, address)
    })
    this.server.maxConnections = maxConnections
  }

  /** `done` gets what the system says when the address cannot be listened on. */
  listen(done: (error: Error | undefined) => void): void {
    const { server } = this
    const onError = (error: Error): void => done(error)
    server.once("error", onError)
    server.listen(
      { host: this.address.traddr, port: Number(this.address.trsvcid), ipv6Only: this.address.adrfam === "IPv6" },
      () => {
        server.removeListener("error", onError)
        // An accept that fails (out of descriptors) concerns the one who wanted in.
        server.on("error", () => {})
        done(undefined)
      }
    )
  }

  close(): void {
    this.server.close()
  }
}
