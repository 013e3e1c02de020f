/**
 * A controller that the host is connected to: its admin queue, its I/O queues, keep-alive, asynchronous events, reset. It outlives
 * its connections: `reset` makes new ones.
 *
 * Everything here runs on the JS thread.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Outside from "../../engine/outside.ts"
import type { SpdkError } from "../../../SpdkError.ts"
import type { NvmeConnectSettings, NvmeControllerEvent, NvmeTransportIdFields } from "../../engine/nvme.ts"
import { decodeAsyncEvent } from "../../nvme/wire/asyncEvent.ts"
import { AdminOpcode, Sqe } from "../../nvme/wire/command.ts"
import { setU16 } from "../../nvme/wire/bytes.ts"
import { Cc, Csts, dynamicControllerId } from "../../nvme/wire/fabrics.ts"
import { type AnaState, changedNamespacesBytes, LogPageId } from "../../nvme/wire/logPages.ts"
import { discoveryNqn } from "../../nvme/wire/nqn.ts"
import { Status } from "../../nvme/wire/nvmeStatus.ts"
import type { ChannelThread } from "../bdev/bdev.ts"
import { Deadline } from "../runtime/deadline.ts"
import type { EmbeddedReactor } from "../runtime/reactor.ts"
import type { Timer, Timers } from "../runtime/timers.ts"
import { AdminCommands } from "./adminCommands.ts"
import { connectQueue } from "./connectQueue.ts"
import { coalesced } from "./coalesced.ts"
import type { HostCommand } from "./hostCommand.ts"
import { lost } from "./hostErrors.ts"
import { type ControllerFacts, initialise, readActiveNamespaces, readAnaStates } from "./initialise.ts"
import type { LinkAddress } from "./link.ts"
import { type ConnectionFailure, type QueueOwner, QueuePair } from "./queuePair.ts"

export interface HostContext {
  readonly reactor: EmbeddedReactor
  readonly timers: Timers
}

/** The most asynchronous event requests that are armed. */
const maxAsyncEvents = 4
/** What the specification has for in-capsule data of the admin queue. */
const adminCapsuleBytes = 8192
const shutdownPolls = 200
/** Looks at the I/O queues within the time that a command may take; fewer when that is short, because looking costs time as well. */
const roundsPerLimit = 8
const leastRoundMicros = 10_000

export type ConnectionState = "connecting" | "ready" | "failed" | "closed"

export class HostController implements QueueOwner {
  readonly context: HostContext
  readonly settings: NvmeConnectSettings
  transportId: NvmeTransportIdFields
  address: LinkAddress
  state: ConnectionState = "connecting"
  readonly admin: AdminCommands
  /** Of the last connection. */
  facts: ControllerFacts | undefined = undefined
  activeNamespaces: ReadonlyArray<number> = []
  /** By ANA group, as last read; empty for controllers that report none. */
  anaStates: ReadonlyMap<number, AnaState> = new Map()
  /** After each connection, before any I/O queue takes commands. Its failure is the connection's. */
  beforeIo: Effect.Effect<void, SpdkError> = Effect.void
  /** The controller has told of changed namespaces, which are not read yet. `onNamespaces` follows, or another connection. */
  onNamespacesNotice: () => void = () => {}
  /** After the active namespaces have been read again, by an event or a reset. */
  onNamespaces: () => void = () => {}
  private readonly onEvent: (event: NvmeControllerEvent) => void
  private readonly ioQueues = new Map<number, QueuePair>()
  private readonly queueOf = new Map<ChannelThread, QueuePair>()
  private keepAlive: Timer | undefined = undefined
  private silence: Deadline | undefined = undefined
  private late: Deadline | undefined = undefined
  private ioRound: Timer | undefined = undefined
  private resetting: Deferred.Deferred<void, SpdkError> | undefined = undefined
  private lastFailure = "the connection is lost"
  /** Tells one connection from the next. */
  private era = 0
  /** Dword 0 of the last notice of namespaces. */
  private namespacesNotice = 0

  constructor(
    context: HostContext,
    transportId: NvmeTransportIdFields,
    address: LinkAddress,
    settings: NvmeConnectSettings,
    onEvent: (event: NvmeControllerEvent) => void
  ) {
    this.context = context
    this.transportId = transportId
    this.address = address
    this.settings = settings
    this.onEvent = onEvent
    this.admin = new AdminCommands(
      new QueuePair({
        id: 0,
        depth: settings.adminQueueSize - 1,
        retries: settings.retries,
        reactor: context.reactor,
        owner: this
      }),
      {
        timers: context.timers,
        resource: resourceOf(transportId),
        timeoutMillis: settings.adminTimeoutMillis,
        onTimeout: () =>
          this.fail({ message: "a command of the admin queue was not answered in time", error: undefined })
      }
    )
  }

  get isDiscovery(): boolean {
    return this.transportId.subnqn === discoveryNqn
  }

  /** Fails and leaves nothing open, also when it is interrupted. */
  readonly connect: Effect.Effect<void, SpdkError> = Effect.suspend(() => this.establish("Nvme.connect")).pipe(
    Effect.onExit((exit) => Effect.sync(() => (exit._tag === "Failure" ? this.shut() : undefined)))
  )

  /** Connects again. One at a time: who comes later waits for the one that runs. */
  readonly reset: Effect.Effect<void, SpdkError> = Effect.uninterruptibleMask((restore) => {
    if (this.state === "closed") return Effect.fail(lost("NvmeController.reset", this.resource, "is disconnected"))
    if (this.resetting !== undefined) return restore(Deferred.await(this.resetting))
    const done = Deferred.makeUnsafe<void, SpdkError>()
    this.resetting = done
    this.takeDown("down")
    this.state = "connecting"
    return restore(this.establish("NvmeController.reset")).pipe(
      Effect.onExit((exit) =>
        Effect.suspend(() => {
          this.resetting = undefined
          if (exit._tag === "Failure" && this.state !== "closed") {
            this.state = "failed"
            this.takeDown("failed")
          }
          return Deferred.done(done, exit)
        })
      )
    )
  })

  /** Tells the controller to shut down when that is possible, and closes. What is in flight is answered as aborted. */
  readonly disconnect: Effect.Effect<void> = Effect.uninterruptibleMask((restore) => {
    if (this.state === "closed") return Effect.void
    const isReady = this.state === "ready"
    this.state = "closed"
    for (const queue of this.ioQueues.values()) queue.close("failed")
    const facts = this.facts
    const shutdown =
      !isReady || facts === undefined || this.isDiscovery ? Effect.void : Effect.ignore(this.shutdown(facts.cc))
    return Effect.ensuring(
      restore(Effect.asVoid(Outside.timeoutOption(shutdown, "2 seconds"))),
      Effect.sync(() => this.shut())
    )
  })

  /** The queue pair for this thread: its own while there are enough, then one that is shared. */
  takeQueue(thread: ChannelThread): QueuePair {
    let queue = this.queueOf.get(thread)
    if (queue === undefined) {
      queue = this.newQueue() ?? this.leastUsed()
      this.queueOf.set(thread, queue)
    }
    queue.refs++
    return queue
  }

  giveQueue(queue: QueuePair): void {
    if (--queue.refs > 0) return
    queue.close("failed")
    this.ioQueues.delete(queue.id)
    for (const [thread, one] of this.queueOf) if (one === queue) this.queueOf.delete(thread)
  }

  /** Asks for an abort of commands that are on their way, and answers those that wait. */
  abort(queue: QueuePair, matches: (command: HostCommand) => boolean): void {
    queue.abortWaiting(matches)
    if (this.state !== "ready") return
    for (const id of queue.idsOf(matches)) this.sendAbort(queue.id, id)
  }

  /** Ends what has not been sent yet. */
  endWaiting(matches: (command: HostCommand) => boolean): void {
    for (const queue of this.ioQueues.values()) queue.abortWaiting(matches, Status.AbortedSqDeletion)
  }

  sendAbort(queueId: number, commandId: number): void {
    this.admin.fire((sqe) => {
      sqe[Sqe.opcode] = AdminOpcode.Abort
      setU16(sqe, Sqe.cdw10, queueId)
      setU16(sqe, Sqe.cdw10 + 2, commandId)
    })
  }

  queueFailed(_queue: QueuePair, failure: ConnectionFailure): void {
    this.fail(failure)
  }

  /** The connection is of no more use. */
  fail(failure: ConnectionFailure): void {
    if (this.state !== "ready") return
    this.state = "failed"
    this.lastFailure = failure.message
    this.takeDown("failed")
    this.onEvent({ _tag: "Failed", message: failure.message })
  }

  failure(operation: string): SpdkError {
    return lost(operation, this.resource, this.lastFailure)
  }

  get resource(): string {
    return resourceOf(this.transportId)
  }

  private readonly establish = (operation: string): Effect.Effect<void, SpdkError> =>
    Effect.gen({ self: this }, function* () {
      const era = ++this.era
      const { admin, settings } = this
      const { dword0 } = yield* connectQueue(this, admin.queue, operation, {
        inCapsuleBytes: adminCapsuleBytes,
        controllerId: dynamicControllerId,
        queueSize: settings.adminQueueSize
      })
      admin.queue.start()
      const facts = yield* initialise(this, operation, dword0 & 0xffff)
      this.facts = facts
      this.activeNamespaces = this.isDiscovery ? [] : yield* readActiveNamespaces(this, operation)
      yield* this.beforeIo
      for (const queue of this.ioQueues.values()) yield* this.openWanted(queue, operation)
      if (era !== this.era || this.state !== "connecting") return yield* Effect.fail(this.failure(operation))
      this.state = "ready"
      // Some places of the queue are left for commands.
      const events = Math.min(facts.identify.asyncEventLimit + 1, maxAsyncEvents, settings.adminQueueSize - 3)
      for (let i = 0; i < events; i++) this.armEvent(era)
      this.armKeepAlive(era)
      this.armIoLimit(era)
      this.onNamespaces()
    }).pipe(
      Effect.onExit((exit) =>
        Effect.sync(() => {
          if (exit._tag === "Failure") this.admin.queue.close("failed")
        })
      )
    )

  private openQueue(queue: QueuePair, operation: string): Effect.Effect<void, SpdkError> {
    const { facts, settings } = this
    if (facts === undefined) return Effect.fail(this.failure(operation))
    return Effect.map(
      connectQueue(this, queue, operation, {
        inCapsuleBytes: facts.inCapsuleBytes,
        controllerId: facts.controllerId,
        queueSize: Math.min(settings.ioQueueSize, facts.maxQueueEntries)
      }),
      () => queue.start()
    )
  }

  /** One that was given back meanwhile is missed by nobody. */
  private openWanted(queue: QueuePair, operation: string): Effect.Effect<void, SpdkError> {
    return Effect.catch(this.openQueue(queue, operation), (error) =>
      this.ioQueues.get(queue.id) === queue ? Effect.fail(error) : Effect.void
    )
  }

  private newQueue(): QueuePair | undefined {
    const { facts, settings } = this
    if (facts === undefined) return undefined
    let id = 1
    while (this.ioQueues.has(id)) id++
    if (id > facts.ioQueues) return undefined
    const depth = Math.min(settings.ioQueueSize, facts.maxQueueEntries) - 1
    const { reactor } = this.context
    const queue = new QueuePair({ id, depth, retries: settings.retries, reactor, owner: this })
    this.ioQueues.set(id, queue)
    if (this.state === "failed" || this.state === "closed") queue.close("failed")
    if (this.state !== "ready") return queue
    const opened = Effect.catch(this.openQueue(queue, "NvmeNamespace.channel"), (error) =>
      Effect.sync(() => {
        // Without it the namespace is out of reach from its thread.
        if (this.ioQueues.get(id) === queue) this.fail({ message: error.message, error: undefined })
      })
    )
    this.context.reactor.host.fork(opened)
    return queue
  }

  private leastUsed(): QueuePair {
    let best: QueuePair | undefined
    for (const queue of this.ioQueues.values()) if (best === undefined || queue.refs < best.refs) best = queue
    if (best !== undefined) return best
    // No queues at all: whatever is sent is answered as aborted.
    const queue = new QueuePair({ id: 0xffff, depth: 1, retries: 0, reactor: this.context.reactor, owner: this })
    queue.close("failed")
    return queue
  }

  private takeDown(state: "down" | "failed"): void {
    this.era++
    if (this.keepAlive !== undefined) this.context.timers.cancel(this.keepAlive)
    this.silence?.cancel()
    this.late?.cancel()
    if (this.ioRound !== undefined) this.context.timers.cancel(this.ioRound)
    this.admin.queue.close("failed")
    for (const queue of this.ioQueues.values()) queue.close(state)
  }

  private shut(): void {
    this.state = "closed"
    this.takeDown("failed")
  }

  private shutdown(cc: number): Effect.Effect<void, SpdkError> {
    const { admin } = this
    return Effect.gen(function* () {
      yield* admin.setCc("NvmeController.disconnect", (cc & ~Cc.shutdownMask) | 0x4000)
      for (let i = 0; i < shutdownPolls; i++) {
        const csts = yield* admin.getCsts("NvmeController.disconnect")
        if ((csts & Csts.shutdownMask) === Csts.shutdownComplete) return
        yield* Outside.sleep("10 millis")
      }
    })
  }

  private armEvent(era: number): void {
    this.admin.await(
      (sqe) => (sqe[Sqe.opcode] = AdminOpcode.AsyncEventRequest),
      (command) => {
        if (era !== this.era || command.status !== 0) return
        this.armEvent(era)
        const { dword0 } = command
        if (decodeAsyncEvent(dword0)._tag !== "NamespaceAttributeChanged") {
          return this.onEvent({ _tag: "AsyncEvent", dword0 })
        }
        this.namespacesNotice = dword0
        this.onNamespacesNotice()
        this.namespacesChanged()
      }
    )
  }

  /** After a notice. The log has to be read before the controller tells of the next change. */
  private readonly namespacesChanged = coalesced(
    () => this.context.reactor.host,
    Effect.suspend(() => {
      const { era, namespacesNotice: dword0 } = this
      const operation = "NvmeController.events"
      const readLog = this.admin.getLogPage(operation, LogPageId.changedNamespaces, changedNamespacesBytes)
      const update = Effect.map(readActiveNamespaces(this, operation), (ids) => {
        if (era !== this.era) return
        this.activeNamespaces = ids
      })
      return Effect.andThen(
        Effect.andThen(Effect.ignore(readLog), Effect.ignore(update)),
        Effect.sync(() => {
          if (era !== this.era) return
          // Also when the list could not be read: what is known of each namespace may be old.
          this.onNamespaces()
          this.onEvent({ _tag: "AsyncEvent", dword0 })
        })
      )
    })
  )

  /** Reads the ANA states. The controller does not tell of the next change before that. */
  readonly readAna: Effect.Effect<void> = Effect.suspend(() => {
    const { era } = this
    if (this.facts?.identify.multiPath.anaReporting !== true) return Effect.void
    return Effect.ignore(
      Effect.map(readAnaStates(this, "NvmeController.events"), (states) => {
        if (era === this.era) this.anaStates = states
      })
    )
  })

  /** No command of an I/O queue is on its way or waits to be sent; or another connection has come, or none. */
  readonly settled: Effect.Effect<void> = Effect.suspend(() => {
    const { era } = this
    const isSettled = () => era !== this.era || [...this.ioQueues.values()].every((queue) => queue.isIdle)
    return Effect.whileLoop({
      while: () => !isSettled(),
      body: () => Outside.sleep("1 millis"),
      step: () => {}
    })
  })

  private armIoLimit(era: number): void {
    const limitMicros = this.settings.ioTimeoutMillis * 1000
    if (limitMicros === 0) return
    const rounds = Math.max(1, Math.min(roundsPerLimit, Math.floor(limitMicros / leastRoundMicros)))
    const roundMicros = Math.max(leastRoundMicros, limitMicros / rounds)
    const queues = () => [...this.ioQueues.values()]
    const look = () => {
      if (era !== this.era) return
      const isLate = queues().filter((queue) => queue.nextRound(rounds)).length > 0
      if (!isLate) {
        this.ioRound = this.context.timers.after(roundMicros, look)
        return
      }
      // The answer may have come while this process stood still.
      this.late = new Deadline(this.context.timers, 0, () => {
        if (era !== this.era) return
        if (queues().some((queue) => queue.isLate(rounds))) {
          this.fail({ message: "a command of an I/O queue was not answered in time", error: undefined })
        } else this.ioRound = this.context.timers.after(roundMicros, look)
      })
    }
    this.ioRound = this.context.timers.after(roundMicros, look)
  }

  /** Twice within the time that the controller waits. It has that time, from each of them, to answer. */
  private armKeepAlive(era: number): void {
    const { keepAliveMillis } = this.settings
    if (keepAliveMillis === 0) return
    const { timers } = this.context
    const limitMicros = keepAliveMillis * 1000
    let isAnswered = true
    const beat = () => {
      if (era !== this.era) return
      this.keepAlive = timers.after(limitMicros / 2, beat)
      if (!isAnswered) return
      isAnswered = false
      this.silence = new Deadline(timers, limitMicros, () => {
        if (era === this.era) this.fail({ message: "the controller does not answer keep-alive", error: undefined })
      })
      this.admin.await(
        (sqe) => (sqe[Sqe.opcode] = AdminOpcode.KeepAlive),
        (command) => {
          if (era !== this.era) return
          this.silence?.cancel()
          isAnswered = true
          if (command.status !== 0) this.fail({ message: "keep-alive was refused", error: undefined })
        }
      )
    }
    this.keepAlive = timers.after(limitMicros / 2, beat)
  }
}

const resourceOf = ({ subnqn, traddr, trsvcid }: NvmeTransportIdFields): string => `${subnqn} at ${traddr}:${trsvcid}`
