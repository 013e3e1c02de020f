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
  /** Subsystems that listen here, or are about to. */
  users = 0
  private readonly server: Net.Server
  /** Who asked before it was known; undefined once it listens. */
  private waiting: Array<(error: Error | undefined) => void> | undefined = []

  constructor(target: Target, address: Address) {
    this.address = address
    this.server = Net.createServer({ noDelay: true, allowHalfOpen: false }, (socket) => {
      const { transport } = target
      if (transport === undefined) socket.destroy()
      else Connection.accept(target, transport, socket, address)
    })
    this.server.maxConnections = maxConnections
    const port = Number(address.trsvcid)
    // Later errors are accepts that fail (out of descriptors): they concern the one who wanted in.
    this.server.on("error", (error) => this.known(error))
    this.server.listen({ host: address.traddr, port, ipv6Only: address.adrfam === "IPv6" }, () => this.known(undefined))
  }

  /** `done` gets what the system says when the address cannot be listened on. */
  whenListening(done: (error: Error | undefined) => void): void {
    if (this.waiting === undefined) done(undefined)
    else this.waiting.push(done)
  }

  close(): void {
    this.server.close()
  }

  private known(error: Error | undefined): void {
    const { waiting } = this
    if (error === undefined) this.waiting = undefined
    else if (waiting !== undefined) this.waiting = []
    for (const done of waiting ?? []) done(error)
  }
}
