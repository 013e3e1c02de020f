/**
 * One JavaScript thread's end of the addon. The host sends control calls, matches their answers, reports device events,
 * and drains its queues.
 */
import {
  type Addon,
  type AddonEvent,
  type BlobstoreArguments,
  EventKind,
  load,
  type LoadResult,
  PollerAction,
  type StartOptions,
  type Usage
} from "./Addon.ts"
import { HostNvme } from "./HostNvme.ts"
import { Drainer } from "./internal/drainer.ts"
import { following } from "./internal/numbers.ts"
import { Control } from "./Layout.ts"
import { RingQueue } from "./RingQueue.ts"

const sqEntries = 1024
const cqEntries = 4096

/** An answer to a control call. */
export interface Reply {
  /** 0 or a negative errno. */
  readonly status: number
  readonly a: number
  readonly b: number
  readonly text: string
  /** Present for calls on blobstores, and for the completion of an NVMe command. */
  readonly bytes?: Uint8Array
}

export type OnReply = (reply: Reply) => void

export type DeviceEvent = { readonly _tag: "Removed" } | { readonly _tag: "Resized"; readonly numBlocks: number }

export interface LogLine {
  /** SPDK's level: 0 error, 1 warning, 2 notice, 3 info, 4 debug. */
  readonly level: number
  readonly message: string
  readonly file: string
  readonly line: number
  readonly function: string
}

export type OnLog = (lines: ReadonlyArray<LogLine>, droppedLines: number) => void

/** A queue and the SPDK thread that serves it. */
export interface HostQueue {
  readonly id: number
  /** SPDK's number of the thread. */
  readonly threadId: number
  readonly ring: RingQueue
}

export class Host {
  readonly addon: Addon
  readonly nvme: HostNvme
  private readonly replies = new Map<number, OnReply>()
  /** Request numbers of starts. A start keeps its number after its answer, until it is released. */
  private readonly shares = new Set<number>()
  private readonly progress = new Map<number, (done: number) => void>()
  private readonly devices = new Map<number, (event: DeviceEvent) => void>()
  private readonly queues = new Map<number, HostQueue>()
  private readonly drainer: Drainer
  /** Pollers that are not paused. A due tick keeps the event loop alive, like a timer of Node's. */
  private readonly duePollers = new Map<number, HostQueue>()
  private logListeners: ReadonlyArray<OnLog> = []
  private readonly logWatchers = new Set<OnLog>()
  private nextRequest = 1
  private nextPoller = 1
  private alive = false

  constructor(addon: Addon) {
    this.addon = addon
    this.nvme = new HostNvme(addon, (onReply) => this.ask(onReply), this.devices)
    this.drainer = new Drainer(addon, () => this.holdLoop())
    addon.attach((events, sharesProcessor) => this.onWake(events, sharesProcessor))
  }

  /** Returns the number of the start, which `release` takes. */
  start(options: StartOptions, onReply: OnReply): number {
    const start = this.ask((reply) => {
      if (reply.status !== 0) this.shares.delete(start)
      onReply(reply)
    })
    this.shares.add(start)
    this.addon.start(start, options)
    return start
  }

  /** Releases the share of a start, also before its answer. A start that was refused or failed has no share. */
  release(start: number): void {
    this.shares.delete(start)
    this.addon.release(start)
  }

  /**
   * Adds a listener to SPDK's log. One SPDK has one log, so only the oldest listener receives lines. Otherwise every
   * layer would print every line.
   */
  listenToLog(listener: OnLog): () => void {
    this.logListeners = [...this.logListeners, listener]
    return () => {
      this.logListeners = this.logListeners.filter((other) => other !== listener)
    }
  }

  /**
   * Adds a watcher, for callers that look for a line. Every watcher receives all lines, in addition to the listener.
   */
  watchLog(watcher: OnLog): () => void {
    this.logWatchers.add(watcher)
    return () => this.logWatchers.delete(watcher)
  }

  /** `cpuMask` is in SPDK's notation, `0x3`; "" allows any core. */
  spawn(name: string, cpuMask: string, onReply: (reply: Reply, queue: HostQueue | undefined) => void): void {
    const request = this.ask((reply) => {
      const memory = reply.status === 0 ? this.addon.ring(reply.a) : undefined
      if (memory === undefined) return onReply(reply, undefined)
      const id = reply.a
      const ring: RingQueue = new RingQueue(memory, {
        schedule: () => this.drainer.scheduleFor(ring),
        kick: () => this.addon.kick(id)
      })
      const queue: HostQueue = { id, threadId: reply.b, ring }
      this.queues.set(id, queue)
      this.drainer.add(ring)
      onReply(reply, queue)
    })
    this.addon.spawn(request, name, cpuMask, sqEntries, cqEntries)
  }

  /** Completes every request of the queue, then ends its SPDK thread. */
  exit(queue: HostQueue, onReply: OnReply): void {
    queue.ring.close()
    const request = this.ask((reply) => {
      this.queues.delete(queue.id)
      this.drainer.remove(queue.ring)
      for (const [poller, owner] of this.duePollers) if (owner === queue) this.duePollers.delete(poller)
      try {
        // Its last completions were published before the answer; what has none is cancelled after them.
        queue.ring.end()
        queue.ring.drain(Infinity)
        queue.ring.drain(Infinity)
      } finally {
        onReply(reply)
      }
    })
    this.addon.exit(request, queue.id)
  }

  /** reply.a: the descriptor; reply.text: its description as JSON. */
  bdevOpen(name: string, write: boolean, onEvent: (event: DeviceEvent) => void, onReply: OnReply): void {
    const request = this.ask((reply) => {
      if (reply.status === 0) this.devices.set(reply.a, onEvent)
      onReply(reply)
    })
    this.addon.bdevOpen(request, name, write)
  }

  /** reply.a: the claim, which `bdevClose` releases. reply.text, after a failure: the holder of the claim. */
  bdevClaim(name: string, onReply: OnReply): void {
    const request = this.ask((reply) => {
      // The bdev's events are for those who do I/O.
      if (reply.status === 0) this.devices.set(reply.a, () => {})
      onReply(reply)
    })
    this.addon.bdevClaim(request, name)
  }

  /**
   * reply.text: the holder of the bdev's claim; empty when the bdev is not claimed. reply.a: 1 when the bdev is not
   * claimed and is open for writing.
   */
  bdevClaimOf(name: string, onReply: OnReply): void {
    this.addon.bdevClaimOf(this.ask(onReply), name)
  }

  /** Closes a bdev, a claim, a blob or an NVMe namespace. */
  bdevClose(descriptor: number, onReply: OnReply): void {
    const request = this.ask((reply) => {
      this.devices.delete(descriptor)
      onReply(reply)
    })
    this.addon.bdevClose(request, descriptor)
  }

  /** `onProgress` may run several times before the answer. */
  blobstoreCall(
    name: string,
    target: number,
    { numbers = [], texts = [], values = [] }: BlobstoreArguments,
    onReply: OnReply,
    onProgress?: (done: number) => void
  ): void {
    const request = this.ask((reply) => {
      this.progress.delete(request)
      onReply(reply)
    })
    if (onProgress !== undefined) this.progress.set(request, onProgress)
    this.addon.blobstoreCall(request, name, target, numbers, texts, values)
  }

  /** reply.a: the blob, which `bdevClose` closes; reply.text: its description as JSON. */
  blobOpen(
    store: number,
    { numbers = [] }: BlobstoreArguments,
    onEvent: (event: DeviceEvent) => void,
    onReply: OnReply
  ): void {
    const request = this.ask((reply) => {
      if (reply.status === 0) this.devices.set(reply.a, onEvent)
      onReply(reply)
    })
    this.addon.blobstoreCall(request, "open", store, numbers, [], [])
  }

  /** reply.a: slot, reply.b: generation. */
  channelOpen(queue: HostQueue, descriptor: number, onReply: OnReply): void {
    this.addon.channelOpen(this.ask(onReply), queue.id, descriptor)
  }

  channelClose(queue: HostQueue, slot: number, generation: number, onReply: OnReply): void {
    this.addon.channelClose(this.ask(onReply), queue.id, slot, generation)
  }

  /** Returns the poller's number on its queue. */
  pollerRegister(
    queue: HostQueue,
    name: string,
    periodMicros: number,
    onTick: (runs: number) => void,
    onReply: OnReply
  ): number {
    const id = this.nextPoller
    this.nextPoller = following(id, (other) => this.hasPoller(other))
    queue.ring.onTick(id, onTick)
    const request = this.ask((reply) => {
      if (reply.status === 0) {
        this.duePollers.set(id, queue)
        this.drainer.listen()
      } else {
        queue.ring.offTick(id)
      }
      onReply(reply)
    })
    this.addon.pollerRegister(request, queue.id, id, name, periodMicros)
    return id
  }

  /** reply.a: runs, reply.b: busy runs. */
  pollerControl(queue: HostQueue, id: number, action: PollerAction, onReply: OnReply): void {
    if (action === PollerAction.Unregister) queue.ring.offTick(id)
    if (action === PollerAction.Unregister || action === PollerAction.Pause) this.duePollers.delete(id)
    if (action === PollerAction.Resume && queue.ring.hasTick(id)) this.duePollers.set(id, queue)
    this.addon.pollerControl(this.ask(onReply), queue.id, id, action)
  }

  /** For large allocations, which take long to zero. reply.a: slot, reply.b: generation. */
  dmaAllocate(lengthBytes: number, alignmentBytes: number, onReply: OnReply): void {
    this.addon.dmaAllocate(this.ask(onReply), lengthBytes, alignmentBytes)
  }

  /** The number of requests of this JavaScript thread in flight. */
  get requestsInFlight(): number {
    return this.drainer.requestsInFlight
  }

  usage(): Usage {
    return this.addon.usage()
  }

  private ask(onReply: OnReply): number {
    const request = this.nextRequest
    this.nextRequest = following(request, (id) => this.replies.has(id) || this.shares.has(id))
    this.replies.set(request, onReply)
    this.holdLoop()
    return request
  }

  private hasPoller(id: number): boolean {
    for (const { ring } of this.queues.values()) if (ring.hasTick(id)) return true
    return false
  }

  /** Keeps the event loop alive while an answer, a completion or a tick is due. */
  private holdLoop(): void {
    const alive =
      this.replies.size > 0 || this.duePollers.size > 0 || (this.drainer.isAsleep && this.requestsInFlight > 0)
    if (alive === this.alive) return
    this.alive = alive
    this.addon.keepAlive(alive)
  }

  private onWake(events: boolean, sharesProcessor: boolean): void {
    this.drainer.sharesProcessor = sharesProcessor
    try {
      if (events) this.deliverAll()
    } finally {
      // Also behind a listener that threw: a completion may have come with what it was told, and nobody wakes us for that again.
      this.drainer.turnNow()
    }
  }

  private deliverAll(): void {
    const { droppedLogLines, events } = this.addon.drain()
    const lines: Array<LogLine> = []
    for (const event of events) {
      try {
        this.deliver(event, lines)
      } catch (error) {
        // Whoever waits for one of the other events must not suffer for it.
        setImmediate(() => {
          throw error
        })
      }
    }
    this.holdLoop()
    if (lines.length > 0 || droppedLogLines > 0) {
      this.logListeners[0]?.(lines, droppedLogLines)
      for (const watcher of this.logWatchers) watcher(lines, droppedLogLines)
    }
  }

  private deliver(event: AddonEvent, lines: Array<LogLine>): void {
    switch (event.kind) {
      case EventKind.Reply: {
        const onReply = this.replies.get(event.id)
        this.replies.delete(event.id)
        onReply?.(event)
        return
      }
      case EventKind.Nvme:
        this.nvme.deliver(event)
        return
      case EventKind.Progress:
        this.progress.get(event.id)?.(event.a)
        return
      case EventKind.Removed:
        this.devices.get(event.id)?.({ _tag: "Removed" })
        return
      case EventKind.Resized:
        this.devices.get(event.id)?.({ _tag: "Resized", numBlocks: event.a })
        return
      case EventKind.Log: {
        const [file = "", name = "", message = ""] = event.text.split("\0")
        lines.push({ level: event.status, message, file, line: event.a, function: name })
        return
      }
    }
  }
}

export type HostResult =
  | { readonly _tag: "Loaded"; readonly host: Host; readonly path: string }
  | Extract<LoadResult, { _tag: "Missing" }>

/**
 * The key under which a thread's host is stored on `globalThis`. A hot reload or a test runner that resets modules
 * evaluates this module again in the same thread, but the addon attaches only once.
 */
const place = Symbol.for("@effect-spdk/native/Host")

interface Kept {
  /** The layout of the rings and calls that this host's copy of the module uses. */
  readonly layout: number
  readonly result: HostResult
}

/** The host of this JavaScript thread, shared by all copies of this module. The addon attaches once to each thread. */
export const get = (): HostResult => {
  const kept: Kept | undefined = Reflect.get(globalThis, place)
  if (kept?.layout === Control.magic) return kept.result
  if (kept?.result._tag === "Loaded") {
    const reason =
      "another version of @effect-spdk/native has the addon in this thread; restart the process to use this one"
    return { _tag: "Missing", lookedFor: [kept.result.path], reason }
  }
  const loaded = load()
  const result: HostResult =
    loaded._tag === "Loaded" ? { _tag: "Loaded", host: new Host(loaded.addon), path: loaded.path } : loaded
  Reflect.set(globalThis, place, { layout: Control.magic, result } satisfies Kept)
  return result
}
