/**
 * A TCP connection to a target, as the queue pair sees it: bytes come in as views that are only valid during the call,
 * and go out by way of chunks that are filled in place and handed to the socket once per group of commands.
 *
 * Everything here runs on the JS thread.
 */
import type { Socket } from "../../engine/network.ts"
import type { EmbeddedReactor } from "../runtime/reactor.ts"

/** Room for some hundred commands, or for a large piece of data. */
const chunkBytes = 128 * 1024

/** Of unsent bytes: who has more to send waits for `linkDrained`. */
const highWaterBytes = 1024 * 1024

const keptChunks = 4

/** How long a peer may take to read what is left when the connection is closed. */
const lingerMillis = 500

export interface LinkOwner {
  linkOpened(): void
  /** Uses the bytes before it returns: the next read overwrites them. */
  linkData(bytes: Buffer): void
  /** There is room again. */
  linkDrained(): void
  /** Once, and nothing after it. The error is undefined when the peer has closed the connection. */
  linkClosed(error: Error | undefined): void
}

export interface LinkAddress {
  readonly host: string
  readonly port: number
  readonly family: 4 | 6 | 0
  /** "" lets the system choose. */
  readonly localAddress: string
  /** 0 lets the system choose. */
  readonly localPort: number
}

// Node reads from one socket at a time, and hands what it has read over before it reads again.
let readBuffer: Buffer | undefined
const sharedReadBuffer = (): Buffer => (readBuffer ??= Buffer.allocUnsafeSlow(256 * 1024))

/** Memory to send from. */
class Chunk {
  readonly bytes = Buffer.allocUnsafeSlow(chunkBytes)
  lengthBytes = 0
}

export class Link {
  /** Where the next bytes to send go, from `at` on. */
  private chunk = new Chunk()
  private at = 0
  private readonly owner: LinkOwner
  private readonly reactor: EmbeddedReactor
  private readonly socket: Socket
  private readonly free: Array<Chunk> = []
  private full: Array<Chunk> = []
  private unsentBytes = 0
  private isFlushPosted = false
  private isWaiting = false
  private isClosed = false
  private error: Error | undefined = undefined

  constructor(owner: LinkOwner, reactor: EmbeddedReactor, address: LinkAddress) {
    this.owner = owner
    this.reactor = reactor
    this.socket = reactor.host.network.connect({
      ...address,
      readBuffer: sharedReadBuffer(),
      onRead: (lengthBytes, buffer) => {
        if (!this.isClosed) this.owner.linkData(buffer.subarray(0, lengthBytes))
      }
    })
    this.socket.on("connect", () => {
      if (!this.isClosed) this.owner.linkOpened()
    })
    this.socket.on("error", (error) => {
      this.error = error
    })
    // The peer's half is closed: there is no answer to come.
    this.socket.on("end", () => this.socket.destroy())
    this.socket.on("close", () => {
      if (this.isClosed) return
      this.isClosed = true
      this.owner.linkClosed(this.error)
    })
  }

  /** Whether there is more to be sent than is good. `linkDrained` follows when there is less. */
  get isFull(): boolean {
    if (this.unsentBytes + this.at < highWaterBytes) return false
    this.isWaiting = true
    return true
  }

  /** What `claim` has made room in. */
  get bytes(): Buffer {
    return this.chunk.bytes
  }

  /** Makes room for so many bytes in one piece and returns where they start in `bytes`. They are sent. */
  claim(lengthBytes: number): number {
    if (this.at + lengthBytes > chunkBytes) this.nextChunk()
    const { at } = this
    this.at += lengthBytes
    if (!this.isFlushPosted) this.postFlush()
    return at
  }

  /** Sends a copy of `bytes` from `start` to `end`. */
  copy(bytes: Uint8Array, start: number, end: number): void {
    let from = start
    while (from < end) {
      if (this.at === chunkBytes) this.nextChunk()
      const count = Math.min(end - from, chunkBytes - this.at)
      this.chunk.bytes.set(from === 0 && count === bytes.length ? bytes : bytes.subarray(from, from + count), this.at)
      this.at += count
      from += count
    }
    if (!this.isFlushPosted) this.postFlush()
  }

  /** Sends what there is, if the peer still takes it, and closes. The owner hears nothing more. */
  end(): void {
    this.flush()
    this.isClosed = true
    const { socket } = this
    if (socket.connecting || socket.destroyed) return void socket.destroy()
    socket.once(
      "close",
      this.reactor.host.after(lingerMillis, () => socket.destroy())
    )
    socket.destroySoon()
  }

  private nextChunk(): void {
    this.chunk.lengthBytes = this.at
    this.full.push(this.chunk)
    this.unsentBytes += this.at
    this.chunk = this.free.pop() ?? new Chunk()
    this.at = 0
  }

  private postFlush(): void {
    this.isFlushPosted = true
    this.reactor.post(this.flush)
  }

  private readonly flush = (): void => {
    this.isFlushPosted = false
    if (this.isClosed) return
    const { full } = this
    if (this.at > 0) this.nextChunk()
    if (full.length === 0) return
    this.full = []
    const { socket } = this
    if (full.length === 1) return this.write(full[0])
    socket.cork()
    for (const chunk of full) this.write(chunk)
    socket.uncork()
  }

  private write(chunk: Chunk | undefined): void {
    if (chunk === undefined) return
    this.socket.write(chunk.bytes.subarray(0, chunk.lengthBytes), () => {
      this.unsentBytes -= chunk.lengthBytes
      if (this.free.length < keptChunks) this.free.push(chunk)
      if (!this.isWaiting || this.isClosed || this.unsentBytes >= highWaterBytes / 2) return
      this.isWaiting = false
      this.owner.linkDrained()
    })
  }
}
