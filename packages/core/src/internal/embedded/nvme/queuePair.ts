/**
 * A queue pair of the host: one connection, the commands on it, and those that wait for a place. It outlives its connection:
 * after a reset the same queue pair goes on with another one.
 *
 * Everything here runs on the JS thread. Commands end in a drain of the reactor, each exactly once.
 */
import { isDnr, Status } from "../../nvme/wire/nvmeStatus.ts"
import { setU16 } from "../../nvme/wire/bytes.ts"
import { Sqe } from "../../nvme/wire/command.ts"
import { type EmbeddedReactor, type Runnable, runsPerSlice } from "../runtime/reactor.ts"
import { CommandList, type CommandOwner, HostCommand } from "./hostCommand.ts"
import { HostConnection, type ConnectionFailure } from "./hostConnection.ts"
import type { LinkAddress } from "./link.ts"

/** What a connection is made with. */
export interface QueueConnect {
  readonly address: LinkAddress
  readonly headerDigest: boolean
  readonly dataDigest: boolean
  /** Data up to this length goes with the command. */
  readonly inCapsuleBytes: number
}

export interface QueueOwner {
  /** The connection is gone, and every command that was on it is about to be answered. */
  queueFailed(queue: QueuePair, failure: ConnectionFailure): void
}

/**
 * - `down`: no connection, commands wait for the next one.
 * - `opening`: only the commands of `sendFirst` are sent.
 * - `up`.
 * - `failed`: commands are answered as aborted at once.
 */
type State = "down" | "opening" | "up" | "failed"

type OnReady = (failure: ConnectionFailure | undefined) => void

const closedEarly: ConnectionFailure = { message: "the connection was given up while it was made", error: undefined }

export class QueuePair implements Runnable {
  isScheduled = false
  readonly id: number
  state: State = "down"
  /** How many share it. */
  refs = 0
  private readonly reactor: EmbeddedReactor
  private readonly owner: QueueOwner
  private readonly retries: number
  /** By command id. */
  private readonly sent: Array<HostCommand | undefined>
  private readonly freeIds: Array<number> = []
  private readonly waiting = new CommandList()
  private readonly done = new CommandList()
  private readonly pool: Array<HostCommand> = []
  private connection: HostConnection | undefined = undefined
  /** Whoever waits for the connection to be made. */
  private onReady: OnReady | undefined = undefined
  inFlight = 0
  /** Counts the looks at what takes long: cheaper than a clock per command. */
  private round = 0

  /** `depth`: how many commands are on their way at most. */
  constructor(options: {
    readonly id: number
    readonly depth: number
    readonly retries: number
    readonly reactor: EmbeddedReactor
    readonly owner: QueueOwner
  }) {
    this.id = options.id
    this.reactor = options.reactor
    this.owner = options.owner
    this.retries = options.retries
    this.sent = new Array<HostCommand | undefined>(options.depth).fill(undefined)
    for (let id = options.depth - 1; id >= 0; id--) this.freeIds.push(id)
  }

  /** Nothing is on its way, or waits to be sent. */
  get isIdle(): boolean {
    return this.inFlight === 0 && this.waiting.isEmpty && this.done.isEmpty
  }

  /** A record to fill. Whoever takes one gives it back when it is done. */
  take(owner: CommandOwner): HostCommand {
    const command = this.pool.pop() ?? new HostCommand()
    command.owner = owner
    command.sqe.fill(0)
    return command
  }

  give(command: HostCommand): void {
    command.clear()
    this.pool.push(command)
  }

  submit(command: HostCommand): void {
    if (this.state === "failed") return this.end(command, Status.AbortedSqDeletion)
    command.state = "waiting"
    this.waiting.push(command)
    this.pump()
  }

  /** As soon as the connection takes commands: what opens the queue. */
  sendFirst(command: HostCommand): void {
    if (this.state !== "opening") return this.end(command, Status.AbortedSqDeletion)
    this.send(command)
  }

  /** Makes a connection and calls `done` when commands can be sent by `sendFirst`, or with what came between. */
  open(connect: QueueConnect, done: OnReady): void {
    this.state = "opening"
    this.onReady = done
    const connection = new HostConnection(
      {
        find: (id) => this.sent[id],
        ended: (command, status) => this.ended(command, status),
        opened: () => this.takeOnReady()?.(undefined),
        drained: () => this.pump(),
        failed: (failure) => {
          if (this.connection !== connection) return
          const onReady = this.takeOnReady()
          this.close("down")
          if (onReady === undefined) this.owner.queueFailed(this, failure)
          else onReady(failure)
        }
      },
      this.reactor,
      connect
    )
    this.connection = connection
  }

  /** The queue is connected: commands go. */
  start(): void {
    this.state = "up"
    this.pump()
  }

  /**
   * Gives up the connection; what is on it is answered as aborted. `down` keeps what waits for the next connection, `failed`
   * answers that too, and whatever comes.
   */
  close(state: "down" | "failed"): void {
    this.connection?.close()
    this.connection = undefined
    this.state = state
    const onReady = this.takeOnReady()
    // Later: whoever hears of it may open or close this queue again.
    if (onReady !== undefined) this.reactor.post(() => onReady(closedEarly))
    for (const command of this.sent) {
      if (command !== undefined) this.ended(command, Status.AbortedSqDeletion)
    }
    if (state === "down") return
    for (let command = this.waiting.shift(); command !== undefined; command = this.waiting.shift()) {
      this.end(command, Status.AbortedSqDeletion)
    }
  }

  /** Answers commands that have not been sent. */
  abortWaiting(matches: (command: HostCommand) => boolean, status: number = Status.AbortedByRequest): void {
    for (const command of this.waiting.take(matches)) this.end(command, status)
  }

  /** Ids of commands on their way. */
  idsOf(matches: (command: HostCommand) => boolean): ReadonlyArray<number> {
    return this.sent.flatMap((command, id) => (command !== undefined && matches(command) ? [id] : []))
  }

  /**
   * Begins the next round. Says whether a command that is on its way has been for `rounds` of them; the one that opens the queue has
   * a limit of its own.
   */
  nextRound(rounds: number): boolean {
    this.round++
    return this.isLate(rounds)
  }

  /** Whether one still is. */
  isLate(rounds: number): boolean {
    if (this.state !== "up" || this.inFlight === 0) return false
    return this.sent.some((command) => command !== undefined && command.sentRound < this.round - rounds)
  }

  /** Ends commands, in a drain. */
  run(): boolean {
    try {
      for (let count = 0; count < runsPerSlice && !this.reactor.isExhausted; count++) {
        const command = this.done.shift()
        if (command === undefined) break
        this.reactor.spent++
        if (this.isRetried(command)) {
          command.attempts++
          command.rewind()
          this.submit(command)
        } else command.owner.commandDone(command)
      }
    } finally {
      // Here, so that what an owner throws leaves neither those that are done nor those that wait behind.
      if (!this.done.isEmpty) this.reactor.schedule(this)
      this.pump()
    }
    return false
  }

  /** Whoever waits for the connection is told once. */
  private takeOnReady(): OnReady | undefined {
    const { onReady } = this
    this.onReady = undefined
    return onReady
  }

  private isRetried(command: HostCommand): boolean {
    const { attempts, status } = command
    if (status === 0 || attempts >= this.retries || isDnr(status) || this.state !== "up") return false
    if (command.owner.isGone === true) return false
    switch (status) {
      case Status.NamespaceNotReady:
      case Status.CommandInterrupted:
      case Status.TransientTransportError:
      case Status.InternalPathError:
        return true
      default:
        return false
    }
  }

  private pump(): void {
    if (this.state !== "up" || this.connection === undefined) return
    while (this.freeIds.length > 0 && !this.waiting.isEmpty && !this.connection.isFull) {
      const command = this.waiting.shift()
      if (command !== undefined) this.send(command)
    }
  }

  private send(command: HostCommand): void {
    const id = this.freeIds.pop()
    const { connection } = this
    if (id === undefined || connection === undefined) return this.end(command, Status.AbortedSqDeletion)
    this.sent[id] = command
    this.inFlight++
    command.commandId = id
    command.state = "sent"
    command.sentRound = this.round
    setU16(command.sqe, Sqe.commandId, id)
    connection.sendCommand(command)
  }

  /** It has been sent, and is not on its way any more. */
  private ended(command: HostCommand, status: number): void {
    this.sent[command.commandId] = undefined
    this.freeIds.push(command.commandId)
    this.inFlight--
    command.commandId = -1
    this.end(command, status)
  }

  private end(command: HostCommand, status: number): void {
    command.status = status
    command.state = "done"
    this.done.push(command)
    this.reactor.schedule(this)
  }
}

export type { ConnectionFailure }
