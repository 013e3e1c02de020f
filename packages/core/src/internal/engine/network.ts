/**
 * TCP, as far as the embedded target and the embedded host of NVMe use it: Node's sockets, or those of a simulation. The words and
 * what they mean are Node's.
 */
import * as net from "node:net"

/** What `net.Socket` has, and both sides of a connection use. */
export interface Socket {
  readonly connecting: boolean
  readonly destroyed: boolean
  readonly writableEnded: boolean
  readonly remoteAddress?: string | undefined
  readonly remotePort?: number | undefined
  isPaused(): boolean
  /** The bytes are the socket's until `done`, which is also called when it is destroyed. */
  write(bytes: Uint8Array, done: () => void): unknown
  cork(): void
  uncork(): void
  pause(): unknown
  resume(): unknown
  end(): unknown
  destroy(): unknown
  destroySoon(): void
  on(event: "data", listener: (chunk: Buffer) => void): unknown
  on(event: "error", listener: (error: Error) => void): unknown
  on(event: "connect" | "end" | "close", listener: () => void): unknown
  once(event: "finish" | "close", listener: () => void): unknown
}

export interface DialOptions {
  readonly host: string
  readonly port: number
  /** 0: any. */
  readonly family: 4 | 6 | 0
  /** "" lets the system choose. */
  readonly localAddress: string
  /** 0 lets the system choose. */
  readonly localPort: number
  /** What is read goes there, and is only there during `onRead`. Sockets may share it. */
  readonly readBuffer: Buffer
  readonly onRead: (lengthBytes: number, buffer: Buffer) => void
}

export interface ListenOptions {
  readonly host: string
  readonly port: number
  readonly isIpv6: boolean
  readonly maxConnections: number
  readonly onConnection: (socket: Socket) => void
  readonly onListening: () => void
  /** It cannot listen, or a connection could not be accepted. */
  readonly onError: (error: Error) => void
}

export interface Listening {
  /** No further connections. Those that there are go on. */
  close(): void
}

export interface Network {
  readonly connect: (options: DialOptions) => Socket
  readonly listen: (options: ListenOptions) => Listening
}

export const machineNetwork: Network = {
  connect: ({ family, host, localAddress, localPort, onRead, port, readBuffer }) =>
    net.connect({
      host,
      port,
      noDelay: true,
      ...(family === 0 ? {} : { family }),
      ...(localAddress === "" ? {} : { localAddress }),
      ...(localPort === 0 ? {} : { localPort }),
      onread: {
        buffer: readBuffer,
        callback: (lengthBytes, buffer) => {
          // The types know a Uint8Array here; what comes is the buffer that was given.
          onRead(lengthBytes, buffer as Buffer)
          return true
        }
      }
    }),
  listen: ({ host, isIpv6, maxConnections, onConnection, onError, onListening, port }) => {
    const server = net.createServer({ noDelay: true, allowHalfOpen: false }, onConnection)
    server.maxConnections = maxConnections
    server.on("error", onError)
    server.listen({ host, port, ipv6Only: isIpv6 }, onListening)
    return { close: () => void server.close() }
  }
}
