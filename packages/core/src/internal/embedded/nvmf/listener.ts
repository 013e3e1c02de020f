/**
 * A listening socket. Subsystems that listen on the same address share it.
 */
import type { Listening } from "../../engine/network.ts"
import { Connection } from "./connection.ts"
import type { Address, Target } from "./target.ts"

/** More than this and the kernel is asked to refuse. */
const maxConnections = 16_384

export class ListenSocket {
  readonly address: Address
  /** Subsystems that listen here, or are about to. */
  users = 0
  private readonly server: Listening
  /** Who asked before it was known; undefined once it listens. */
  private waiting: Array<(error: Error | undefined) => void> | undefined = []

  constructor(target: Target, address: Address) {
    this.address = address
    this.server = target.registry.context.reactor.host.network.listen({
      host: address.traddr,
      port: Number(address.trsvcid),
      isIpv6: address.adrfam === "IPv6",
      maxConnections,
      onConnection: (socket) => {
        const { transport } = target
        if (transport === undefined) socket.destroy()
        else Connection.accept(target, transport, socket, address)
      },
      onListening: () => this.known(undefined),
      // Later errors are accepts that fail (out of descriptors): they concern the one who wanted in.
      onError: (error) => this.known(error)
    })
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
