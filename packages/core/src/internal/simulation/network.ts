/**
 * Sockets between engines of one simulation, with the behaviour of Node's: what is written belongs to the socket until it is told
 * otherwise, events come later and never inside of a call, and what is closed is silent.
 */
import type { CutKind, Faults, Passage, Side, SimulatedNetwork } from "../../SimulatedNetwork.ts"
import type { DialOptions, Listening, ListenOptions, Network, Socket } from "../engine/network.ts"
import type { Chance } from "./chance.ts"
import type { Loop } from "./loop.ts"

/** What is on its way, and what the other side has not read, together: more is not taken. */
const windows = [4096, 65_536, 1_048_576]
const firstLocalPort = 32_768
const localAddress = "127.0.0.1"

export class SimulatedSockets implements SimulatedNetwork, Network {
  readonly faults: Faults = { cut: 0, cutBytes: 65_536, refuse: 0, stall: 0, stallMicros: 1_000_000 }
  latencyMicros = { least: 20, most: 300 }
  onPassage: ((passage: Passage) => void) | undefined = undefined
  readonly loop: Loop
  readonly chance: Chance
  private readonly note: (a: number, b: number) => void
  private listeners = new Map<string, Listener>()
  private links = new Set<Connected>()
  private made = 0
  private stalls: Array<Stall> = []

  constructor(loop: Loop, chance: Chance, note: (a: number, b: number) => void) {
    this.loop = loop
    this.chance = chance
    this.note = note
  }

  get connections(): number {
    return this.links.size
  }

  get listening(): number {
    return this.listeners.size
  }

  readonly stall: SimulatedNetwork["stall"] = (micros, { from, port } = {}) => {
    const now = this.loop.nowMicros
    this.stalls = this.stalls.filter(({ until }) => until > now)
    this.stalls.push({ until: now + micros, port, from })
  }

  readonly cut: SimulatedNetwork["cut"] = (kind, { port } = {}) => {
    for (const link of this.links) if (port === undefined || link.port === port) link.cut(kind)
  }

  readonly connect = (options: DialOptions): Socket => {
    const link = new Connected(this, options, ++this.made)
    this.links.add(link)
    const isRefused = this.chance.is(this.faults.refuse)
    link.toServer.after(() => {
      const listener = isRefused ? undefined : this.listeners.get(keyOf(options))
      this.note(40 + (listener === undefined ? 0 : 1), link.number)
      if (listener === undefined || listener.isFull) link.refuse()
      else link.accept(listener)
    })
    return link.client
  }

  readonly listen = (options: ListenOptions): Listening => {
    const key = keyOf(options)
    const listener = new Listener(this, key, options)
    const isTaken = this.listeners.has(key)
    if (!isTaken) this.listeners.set(key, listener)
    this.loop.add(() => {
      if (isTaken) options.onError(errorOf("EADDRINUSE", `listen EADDRINUSE: address already in use ${key}`))
      else options.onListening()
    })
    return listener
  }

  /** The machine has ended: whatever was open is nobody's. */
  clear(): void {
    this.listeners = new Map()
    this.links = new Set()
    this.stalls = []
    this.onPassage = undefined
  }

  forget(link: Connected): void {
    this.links.delete(link)
  }

  unlisten(key: string, listener: Listener): void {
    if (this.listeners.get(key) === listener) this.listeners.delete(key)
  }

  /** From when on something passes there. */
  passesFrom(port: number, from: Side): number {
    let latest = 0
    for (const stall of this.stalls) {
      if ((stall.port ?? port) === port && (stall.from ?? from) === from) latest = Math.max(latest, stall.until)
    }
    return latest
  }

  passes(link: Connected, from: Side, bytes: Uint8Array): void {
    this.note(from === "client" ? 42 : 43, bytes.length)
    this.onPassage?.({ connection: link.number, port: link.port, from, bytes })
  }
}

interface Stall {
  readonly until: number
  readonly port: number | undefined
  readonly from: Side | undefined
}

const keyOf = ({ host, port }: { readonly host: string; readonly port: number }): string => `${host}:${port}`

const errorOf = (code: string, message: string): Error => Object.assign(new Error(message), { code })

class Listener implements Listening {
  readonly options: ListenOptions
  private readonly network: SimulatedSockets
  private readonly key: string
  private open = 0
  private isClosed = false

  constructor(network: SimulatedSockets, key: string, options: ListenOptions) {
    this.network = network
    this.key = key
    this.options = options
  }

  get isFull(): boolean {
    return this.open >= this.options.maxConnections
  }

  close(): void {
    this.isClosed = true
    this.network.unlisten(this.key, this)
  }

  accepted(socket: SimulatedSocket): void {
    if (this.isClosed) return void socket.destroy()
    this.open++
    socket.once("close", () => this.open--)
    this.options.onConnection(socket)
  }
}

/** The two ends of a connection, and what is between them. */
class Connected {
  readonly number: number
  readonly port: number
  readonly client: SimulatedSocket
  readonly server: SimulatedSocket
  readonly toServer: Pipe
  readonly toClient: Pipe
  /** Until it is cut. */
  bytesLeft: number
  readonly cutKind: CutKind
  private readonly network: SimulatedSockets

  constructor(network: SimulatedSockets, options: DialOptions, number: number) {
    const { chance, faults } = network
    this.network = network
    this.number = number
    this.port = options.port
    this.bytesLeft = chance.is(faults.cut) ? Math.floor(faults.cutBytes ** chance.next()) : Infinity
    this.cutKind = chance.is(0.5) ? "reset" : "end"
    const localPort = options.localPort === 0 ? firstLocalPort + (number % 20_000) : options.localPort
    const address = options.localAddress === "" ? localAddress : options.localAddress
    this.client = new SimulatedSocket(network, this, options.host, options.port)
    this.server = new SimulatedSocket(network, this, address, localPort)
    this.toServer = new Pipe(network, this, "client")
    this.toClient = new Pipe(network, this, "server")
    this.client.joined(this.toServer, this.toClient, options)
    this.server.joined(this.toClient, this.toServer, undefined)
  }

  ends(from: Side): { readonly sender: SimulatedSocket; readonly receiver: SimulatedSocket } {
    const { client, server } = this
    return from === "client" ? { sender: client, receiver: server } : { sender: server, receiver: client }
  }

  refuse(): void {
    this.toClient.after(() =>
      this.client.fails(errorOf("ECONNREFUSED", `connect ECONNREFUSED ${this.client.remoteAddress}:${this.port}`))
    )
    this.server.destroy()
  }

  accept(listener: Listener): void {
    this.toClient.after(() => this.client.opened())
    this.server.opened()
    listener.accepted(this.server)
  }

  /** Something between them ends it. */
  cut(kind: CutKind): void {
    for (const pipe of [this.toServer, this.toClient]) {
      pipe.stop()
      const { receiver } = this.ends(pipe.from)
      pipe.after(() => (kind === "reset" ? receiver.reset() : receiver.ended()))
    }
  }

  closed(): void {
    if (this.client.isClosed && this.server.isClosed) this.network.forget(this)
  }
}

interface Writing {
  readonly bytes: Uint8Array
  readonly done: () => void
}

/** One direction. What arrives later was sent later. */
class Pipe {
  readonly from: Side
  /** What has been taken from the sender, and the receiver has not had. */
  private heldBytes = 0
  private readonly network: SimulatedSockets
  private readonly link: Connected
  private readonly latencyMicros: number
  private readonly windowBytes: number
  /** The chance of a piece to be less than what there is. */
  private readonly pieces: number
  private writes: Array<Writing> = []
  private writtenAt = 0
  private lastDueMicros = 0
  private isTaking = false
  private isEnding = false
  private isStopped = false

  constructor(network: SimulatedSockets, link: Connected, from: Side) {
    const { chance, latencyMicros } = network
    this.network = network
    this.link = link
    this.from = from
    this.latencyMicros = chance.between(latencyMicros.least, latencyMicros.most)
    this.windowBytes = chance.pick(windows)
    this.pieces = chance.pick([0, 0.02, 0.1, 0.5])
  }

  get isIdle(): boolean {
    return this.writes.length === 0
  }

  write(writing: Writing): void {
    this.writes.push(writing)
    this.take()
  }

  /** After what has been written. */
  end(): void {
    this.isEnding = true
    this.take()
  }

  /** What has been taken arrives; the rest does not. */
  drop(): ReadonlyArray<Writing> {
    const { writes } = this
    this.writes = []
    this.writtenAt = 0
    return writes
  }

  /** Nothing of what is sent arrives any more. */
  stop(): void {
    this.isStopped = true
  }

  /** After everything that is on its way. */
  after(arrive: () => void): void {
    const { chance, loop } = this.network
    const stalled = Math.max(loop.nowMicros, this.network.passesFrom(this.link.port, this.from))
    this.lastDueMicros = Math.max(
      this.lastDueMicros,
      stalled + this.latencyMicros + chance.below(this.latencyMicros + 1)
    )
    this.arrivals.push(arrive)
    loop.after(this.lastDueMicros - loop.nowMicros, this.arrives)
  }

  /** The receiver has read so much, or will not. */
  taken(lengthBytes: number): void {
    this.heldBytes -= lengthBytes
    this.take()
  }

  private readonly arrivals: Array<() => void> = []

  /** Timers that are due together fire in any order; what they bring is in order. A stall has room for one more. */
  private readonly arrives = (): void => {
    this.arrivals.shift()?.()
  }

  private take(): void {
    if (this.isTaking || (this.writes.length === 0 && !this.isEnding) || this.heldBytes >= this.windowBytes) return
    this.isTaking = true
    this.network.loop.add(this.takeSome)
  }

  private readonly takeSome = (): void => {
    const { link, network } = this
    const { chance, faults } = network
    const { receiver, sender } = link.ends(this.from)
    this.isTaking = false
    if (sender.connecting) return
    if (faults.cut === 0) link.bytesLeft = Infinity
    const first = this.writes[0]
    if (first === undefined) {
      if (!this.isEnding) return
      this.isEnding = false
      if (!this.isStopped) this.after(() => receiver.ended())
      return sender.finished()
    }
    const most = Math.min(this.windowBytes - this.heldBytes, first.bytes.length - this.writtenAt, link.bytesLeft)
    if (most <= 0) return
    const length = chance.is(this.pieces) ? Math.min(most, chance.between(1, chance.pick([1, 16, 100, 4096]))) : most
    // A copy, made now: who changes what it has written, changes what is sent.
    const bytes = Buffer.from(first.bytes.subarray(this.writtenAt, this.writtenAt + length))
    this.writtenAt += length
    link.bytesLeft -= length
    if (chance.is(faults.stall)) {
      this.lastDueMicros = Math.max(this.lastDueMicros, network.loop.nowMicros + chance.below(faults.stallMicros))
    }
    if (!this.isStopped) {
      this.heldBytes += length
      this.after(() => {
        // A cut loses what is on its way.
        if (this.isStopped) return
        network.passes(link, this.from, bytes)
        receiver.arrived(bytes)
      })
    }
    if (link.bytesLeft === 0) {
      link.bytesLeft = Infinity
      this.after(() => link.cut(link.cutKind))
    }
    if (this.writtenAt === first.bytes.length) {
      this.writes.shift()
      this.writtenAt = 0
      first.done()
    }
    this.take()
  }
}

type Listeners = { [event: string]: Array<(value: never) => void> }

class SimulatedSocket implements Socket {
  readonly remoteAddress: string
  readonly remotePort: number
  connecting = true
  destroyed = false
  writableEnded = false
  /** "close" has been told. */
  isClosed = false
  private readonly network: SimulatedSockets
  private readonly link: Connected
  private out: Pipe | undefined = undefined
  private in: Pipe | undefined = undefined
  private options: DialOptions | undefined = undefined
  private readonly listeners: Listeners = {}
  private unread: Array<Buffer> = []
  private isStopped = false
  private isReading = false
  private hasEnd = false
  private isFinished = false
  private isEndTold = false

  constructor(network: SimulatedSockets, link: Connected, address: string, port: number) {
    this.network = network
    this.link = link
    this.remoteAddress = address
    this.remotePort = port
  }

  joined(out: Pipe, into: Pipe, options: DialOptions | undefined): void {
    this.out = out
    this.in = into
    this.options = options
  }

  // ----- what the engine calls -----

  on(event: string, listener: (value: never) => void): this {
    ;(this.listeners[event] ??= []).push(listener)
    return this
  }

  once(event: string, listener: (value: never) => void): this {
    const once = (value: never) => {
      const all = this.listeners[event]
      this.listeners[event] = all?.filter((one) => one !== once) ?? []
      listener(value)
    }
    return this.on(event, once)
  }

  isPaused(): boolean {
    return this.isStopped
  }

  pause(): void {
    this.isStopped = true
  }

  resume(): void {
    this.isStopped = false
    this.readSoon()
  }

  cork(): void {}
  uncork(): void {}

  write(bytes: Uint8Array, done: () => void): void {
    if (this.destroyed) return this.network.loop.addSoon(done)
    if (this.writableEnded) {
      this.network.loop.addSoon(done)
      return this.network.loop.addSoon(() => this.fails(errorOf("ERR_STREAM_WRITE_AFTER_END", "write after end")))
    }
    this.out?.write({ bytes, done })
  }

  end(): void {
    if (this.writableEnded || this.destroyed) return
    this.writableEnded = true
    this.out?.end()
  }

  destroySoon(): void {
    if (this.destroyed) return
    this.end()
    if (this.isFinished) this.destroy()
    else this.once("finish", () => this.destroy())
  }

  destroy(): void {
    this.fails(undefined)
  }

  // ----- what happens to it -----

  opened(): void {
    if (this.destroyed) return
    this.connecting = false
    this.emit("connect")
    // What was written meanwhile, and what has come.
    this.out?.taken(0)
    this.readSoon()
  }

  arrived(bytes: Buffer): void {
    if (this.destroyed) {
      this.in?.taken(bytes.length)
      // Nobody reads it, as the peer is told.
      const { peer } = this
      return this.out?.after(() => peer.reset())
    }
    this.unread.push(bytes)
    this.readSoon()
  }

  ended(): void {
    this.hasEnd = true
    this.readSoon()
  }

  /** The peer is gone, with what it had not read; what has come is lost, or not. */
  reset(): void {
    if (this.destroyed) return
    if (this.network.chance.is(0.5)) this.unread = []
    this.fails(errorOf("ECONNRESET", "read ECONNRESET"))
  }

  finished(): void {
    this.isFinished = true
    if (this.destroyed) return
    this.emit("finish")
    if (this.isEndTold) this.destroy()
  }

  fails(error: Error | undefined): void {
    if (this.destroyed) return
    this.destroyed = true
    this.connecting = false
    const { in: into, network, out } = this
    const { loop } = network
    for (const { done } of out?.drop() ?? []) loop.addSoon(done)
    if (out !== undefined && !this.isFinished) {
      const { peer } = this
      // Closed with something unread, TCP resets; otherwise it ends.
      const hasUnread = this.unread.length > 0
      out.after(() => (hasUnread ? peer.reset() : peer.ended()))
    }
    for (const bytes of this.unread) into?.taken(bytes.length)
    this.unread = []
    loop.add(() => {
      if (error !== undefined) this.emit("error", error)
      this.isClosed = true
      this.emit("close")
      this.link.closed()
    })
  }

  private get peer(): SimulatedSocket {
    const { client, server } = this.link
    return client === this ? server : client
  }

  private readSoon(): void {
    if (this.isReading || (this.unread.length === 0 && !this.hasEnd)) return
    this.isReading = true
    this.network.loop.add(this.read)
  }

  private readonly read = (): void => {
    this.isReading = false
    if (this.destroyed || this.connecting || this.isStopped) return
    const bytes = this.unread.shift()
    if (bytes === undefined) return this.readEnd()
    this.in?.taken(bytes.length)
    const { options } = this
    if (options === undefined) this.emit("data", bytes)
    else {
      const { onRead, readBuffer } = options
      for (let at = 0; at < bytes.length && !this.destroyed; at += readBuffer.length) {
        const length = bytes.copy(readBuffer, 0, at)
        onRead(length, readBuffer)
        // Whoever keeps it has something else.
        readBuffer.fill(0xdb, 0, length)
      }
    }
    this.readSoon()
  }

  private readEnd(): void {
    if (!this.hasEnd || this.isEndTold) return
    this.isEndTold = true
    this.emit("end")
    if (this.destroyed) return
    if (this.isFinished) this.destroy()
    else this.end()
  }

  private emit(event: string, value?: unknown): void {
    // Listeners of an event take what it brings.
    for (const listener of [...(this.listeners[event] ?? [])]) listener(value as never)
  }
}
