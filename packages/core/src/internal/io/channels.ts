/**
 * I/O channels: the right to submit to a bdev from one thread. A handle opens one per thread at the first I/O there,
 * and closes them when it closes; an explicit channel belongs to a scope.
 */
import type { Handle, Queue } from "@effect-spdk/native/Queue"
import type * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import { DeviceRemoved, Released, SpdkError } from "../../SpdkError.ts"
import type { SpdkThread } from "../../SpdkThread.ts"
import type { EngineThread } from "../engine/engine.ts"
import type { IoError } from "./ioCompletion.ts"
import { removedOrClosed } from "./ioCheck.ts"
import type { OpenTarget } from "./openTarget.ts"
import { onlyReasons } from "../common/reasons.ts"
import { CurrentThread, engineThreadOf, releasedThread } from "../thread/thread.ts"

export class Channel {
  readonly bdev: OpenTarget
  readonly thread: SpdkThread | undefined
  readonly engineThread: EngineThread
  readonly handle: Handle
  readonly queue: Queue
  readonly slot: number
  readonly generation: number
  closed: boolean

  constructor(bdev: OpenTarget, thread: SpdkThread | undefined, engineThread: EngineThread, handle: Handle) {
    this.bdev = bdev
    this.thread = thread
    this.engineThread = engineThread
    this.handle = handle
    this.queue = engineThread.queue
    this.slot = handle.slot
    this.generation = handle.generation
    this.closed = false
  }

  /** False once it is closed, or its thread released. */
  isUsable(): boolean {
    if (this.closed) return false
    return this.thread === undefined || engineThreadOf(this.bdev.engine, this.thread) !== undefined
  }

  close(): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (this.closed) return Effect.void
      this.closed = true
      return this.bdev.engine.closeChannel(this.engineThread, this.handle)
    })
  }
}

/** The channels of one handle. */
export class BdevChannels {
  private readonly bdev: OpenTarget
  private readonly byThread = new Map<SpdkThread | undefined, Channel>()
  private readonly explicit = new Set<Channel>()
  private readonly opening = new Map<SpdkThread | undefined, Deferred.Deferred<void, IoError>>()
  private lastContext: Context.Context<never> | undefined = undefined
  private last: Channel | undefined = undefined

  constructor(bdev: OpenTarget) {
    this.bdev = bdev
  }

  /** JS thread, per I/O. Undefined when there is none yet, or the thread is released: `open` tells which. */
  of(fiber: Fiber.Fiber<unknown, unknown>): Channel | undefined {
    // Fibers seldom change their context from one I/O to the next, and comparing is cheaper than looking up.
    if (fiber.context !== this.lastContext || this.last === undefined) {
      this.last = this.byThread.get(fiber.getRef(CurrentThread))
      this.lastContext = fiber.context
    }
    const channel = this.last
    return channel !== undefined && channel.isUsable() ? channel : undefined
  }

  /** Fibers that come together on a thread share one opening. */
  open(thread: SpdkThread | undefined, operation: string): Effect.Effect<void, IoError> {
    return Effect.uninterruptibleMask((restore) => {
      const running = this.opening.get(thread)
      if (running !== undefined) return restore(Deferred.await(running))
      if (this.byThread.get(thread)?.isUsable() === true) return Effect.void
      const done = Deferred.makeUnsafe<void, IoError>()
      this.opening.set(thread, done)
      return Effect.flatMap(
        Effect.exit(openChannel(this.bdev, thread, operation, (channel) => this.add(channel))),
        (exit) => {
          this.opening.delete(thread)
          Deferred.doneUnsafe(done, Exit.asVoid(exit))
          return Exit.asVoid(exit)
        }
      )
    })
  }

  /** An explicit channel, which must not outlive the handle: a descriptor waits for its channels. */
  track(channel: Channel): void {
    this.explicit.add(channel)
  }

  untrack(channel: Channel): void {
    this.explicit.delete(channel)
  }

  readonly closeAll: Effect.Effect<void> = Effect.suspend(() => {
    const channels = [...this.byThread.values(), ...this.explicit]
    this.byThread.clear()
    this.explicit.clear()
    this.last = undefined
    this.lastContext = undefined
    return Effect.forEach(channels, (channel) => channel.close(), { discard: true, concurrency: "unbounded" })
  })

  private add(channel: Channel): void {
    // The engine closed the channels of released threads with their thread.
    for (const [thread, old] of this.byThread) {
      if (!old.isUsable()) this.byThread.delete(thread)
    }
    this.byThread.set(channel.thread, channel)
    this.last = undefined
  }
}

/**
 * Counts as a request of the handle until `keep` has the channel, so that a close waits for it and finds it: a descriptor
 * does not close before its channels.
 */
export const openChannel = (
  bdev: OpenTarget,
  thread: SpdkThread | undefined,
  operation: string,
  keep: (channel: Channel) => void
): Effect.Effect<Channel, IoError> =>
  Effect.uninterruptibleMask(() => {
    if (bdev.allowed === 0) return Effect.fail(removedOrClosed(bdev, operation))
    const engineThread = engineThreadOf(bdev.engine, thread)
    if (engineThread === undefined) return Effect.fail(releasedThread(operation, thread))
    bdev.enter(1)
    return bdev.engine.openChannel(engineThread, bdev.descriptor).pipe(
      Effect.mapError((error): SpdkError => {
        switch (error.reason._tag) {
          // Engines call an opening off for one reason: the thread goes away under it.
          case "Aborted":
            return releasedThread(operation, thread ?? engineThread)
          // It was found when it was opened. The Removed event may be on its way still.
          case "NotFound":
            return new SpdkError({ reason: new DeviceRemoved({ operation, resource: bdev.name, cause: error }) })
          default:
            return error
        }
      }),
      openReasons,
      Effect.map((handle) => {
        const channel = new Channel(bdev, thread, engineThread, handle)
        keep(channel)
        return channel
      }),
      Effect.ensuring(Effect.sync(() => bdev.leave(1)))
    )
  })

const openReasons = onlyReasons([
  "Busy",
  "DeviceRemoved",
  "IoFailed",
  "NoMemory",
  "NotSupported",
  "PermissionDenied",
  "Released"
])

export const releasedChannel = (bdev: OpenTarget, operation: string): IoError =>
  new SpdkError({ reason: new Released({ operation, resource: bdev.name, what: "channel" }) })
