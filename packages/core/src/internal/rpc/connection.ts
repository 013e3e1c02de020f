/**
 * One connection to an SPDK's RPC server, made when a call needs it and made again when it broke.
 *
 * Everything here runs on the JS thread. A call that was sent is in `pending` until its answer; when its fiber is
 * interrupted before that, its id waits in `forgotten`, so that the late answer can be told from one that nobody
 * asked for.
 */
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import type * as Schedule from "effect/Schedule"
import type * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Net from "node:net"
import * as Outside from "../engine/outside.ts"
import {
  fail,
  failInvalid,
  fromRpcCode,
  Released,
  released,
  RpcProtocol,
  type RpcReason,
  RpcUnreachable,
  SpdkError,
  TimedOut
} from "../../SpdkError.ts"
import { defaultLimits, FrameError, type FrameSplitter, make as makeSplitter } from "./jsonFrames.ts"
import {
  type RpcAnswer,
  decodeAnswer,
  type EncodedParams,
  encodeParams,
  encodeRequest,
  exceeds,
  limitsOfVersion,
  olderLimits
} from "./connectionMessages.ts"

export type RpcAddress = { readonly path: string } | { readonly host: string; readonly port: number }

export interface ConnectionOptions {
  /** Already checked. */
  readonly address: RpcAddress
  readonly timeout: Duration.Duration
  readonly reconnect: Schedule.Schedule<unknown, SpdkError<RpcUnreachable>>
  readonly maxMessageBytes: number
}

export const formatAddress = (address: RpcAddress): string => {
  if ("path" in address) return `unix:${address.path}`
  return `tcp:${address.host.includes(":") ? `[${address.host}]` : address.host}:${address.port}`
}

/** One try to connect ends after this, so that a silent host does not hold up the Schedule. */
const connectLimit = Duration.seconds(10)

/**
 * A message that began before a call was sent and has not ended when the call times out, after this or longer, will
 * not end: a server that stopped in the middle of it would swallow every later answer.
 */
const stuckLimit = Duration.seconds(1)

type CallError = SpdkError<RpcReason>

/** A call, and where the stream of answers stood when it was sent. */
interface Call {
  readonly method: string
  readonly resource: string | undefined
  readonly paramsText: string | undefined
  /** undefined until it is sent. */
  socket: Net.Socket | undefined
  /** The answer that had begun and not ended. */
  unfinished: number | undefined
}

interface Pending {
  readonly call: Call
  readonly resume: (effect: Effect.Effect<Schema.Json, CallError>) => void
}

/** Makes the reason of each call that was in flight when the connection ended. */
type EndReason = (call: { readonly operation: string; readonly resource: string | undefined }) => RpcReason

export class RpcConnection {
  readonly address: string
  private readonly options: ConnectionOptions
  private readonly scope: Scope.Scope
  private socket: Net.Socket | undefined = undefined
  /** Of `socket`. */
  private splitter: FrameSplitter = makeSplitter()
  private attempt: Deferred.Deferred<Net.Socket, SpdkError<RpcUnreachable | Released>> | undefined = undefined
  private readonly pending = new Map<number, Pending>()
  private readonly forgotten = new Set<number>()
  private nextId = 1
  private closed = false

  constructor(options: ConnectionOptions, scope: Scope.Scope) {
    this.options = options
    this.scope = scope
    this.address = formatAddress(options.address)
  }

  call(
    method: string,
    params: { readonly [name: string]: unknown } | undefined,
    timeout: Duration.Input | undefined
  ): Effect.Effect<Schema.Json, CallError> {
    return Effect.suspend(() => {
      const limit = timeout === undefined ? this.options.timeout : Option.getOrUndefined(Duration.fromInput(timeout))
      if (limit === undefined) return failInvalid(method, "timeout", "is not a duration", timeout)
      const encoded = encodeParams(method, params)
      if (Result.isFailure(encoded)) return Effect.fail(encoded.failure)
      const call: Call = {
        method,
        resource: resourceOf(params),
        paramsText: encoded.success.text,
        socket: undefined,
        unfinished: undefined
      }
      // What every release takes goes out at once.
      const fits = exceeds(method, encoded.success, olderLimits) === undefined
      const sent = fits
        ? this.exchange(call)
        : Effect.andThen(this.checkSize(call, encoded.success), this.exchange(call))
      if (!Duration.isFinite(limit)) return sent
      return Outside.timeoutOrElse(sent, { duration: limit, orElse: () => this.timedOut(call, limit) })
    })
  }

  /** Ends everything. What is in flight fails with Released, and so does what comes later. */
  close(): void {
    this.closed = true
    if (this.socket !== undefined) this.end(this.socket, (call) => new Released({ ...call, what: "RPC client" }))
  }

  /**
   * A request that is too large would end the connection for everybody: how much this SPDK takes is asked of it first, each
   * time, because another one may have taken its place. A server that is no SPDK has no limit.
   */
  private checkSize(call: Call, encoded: EncodedParams): Effect.Effect<void, CallError> {
    const asked: Call = { ...call, method: "spdk_get_version", paramsText: undefined }
    const limits = Effect.map(this.exchange(asked), limitsOfVersion).pipe(
      Effect.catch((error) => {
        const { reason } = error
        const isGone = reason._tag === "RpcUnreachable" || reason._tag === "Released"
        return isGone ? fail(readdress(reason, call)) : Effect.succeed(undefined)
      })
    )
    return Effect.flatMap(limits, (known) => {
      const error = known === undefined ? undefined : exceeds(call.method, encoded, known)
      return error === undefined ? Effect.void : Effect.fail(error)
    })
  }

  private exchange(call: Call): Effect.Effect<Schema.Json, CallError> {
    const connected = Effect.mapError(
      this.connected,
      ({ reason }) => new SpdkError({ reason: readdress(reason, call) })
    )
    return Effect.flatMap(connected, (socket) =>
      Effect.callback<Schema.Json, CallError>((resume) => {
        // It broke between the connection and this line. Nothing is sent, so that going round again is safe.
        if (this.socket !== socket) return resume(this.exchange(call))
        const id = this.nextId++
        this.pending.set(id, { call, resume })
        call.socket = socket
        call.unfinished = this.splitter.unfinished()
        socket.write(encodeRequest(id, call.method, call.paramsText))
        return Effect.sync(() => {
          if (this.pending.delete(id)) this.forgotten.add(id)
        })
      })
    )
  }

  private timedOut(call: Call, limit: Duration.Duration): Effect.Effect<never, SpdkError<TimedOut>> {
    return Effect.suspend(() => {
      const isStuck =
        call.unfinished !== undefined &&
        call.socket === this.socket &&
        call.unfinished === this.splitter.unfinished() &&
        Duration.isGreaterThanOrEqualTo(limit, stuckLimit)
      if (isStuck && call.socket !== undefined) this.endBroken(call.socket, "stopped in the middle of a message")
      const limitMillis = Duration.toMillis(limit)
      return fail(new TimedOut({ operation: call.method, resource: call.resource, limitMillis, detail: this.address }))
    })
  }

  /** The open socket; whoever comes first makes the attempt, and all who come meanwhile wait for the same one. */
  private get connected(): Effect.Effect<Net.Socket, SpdkError<RpcUnreachable | Released>> {
    return Effect.uninterruptibleMask((restore) => {
      if (this.closed) return Effect.fail(released("Rpc.connect", "RPC client"))
      if (this.socket !== undefined) return Effect.succeed(this.socket)
      if (this.attempt !== undefined) return restore(Deferred.await(this.attempt))
      const attempt = Deferred.makeUnsafe<Net.Socket, SpdkError<RpcUnreachable | Released>>()
      const retried = Effect.retry(this.connectOnce, {
        schedule: this.options.reconnect,
        while: ({ reason }) => reason.errno !== "EACCES"
      })
      const establish = Outside.scheduled(retried).pipe(
        Effect.onExit((exit) =>
          Effect.sync(() => {
            this.attempt = undefined
            // Only the end of the scope interrupts it.
            const result = Exit.hasInterrupts(exit) ? Exit.fail(released("Rpc.connect", "RPC client")) : exit
            Deferred.doneUnsafe(attempt, result)
          })
        )
      )
      this.attempt = attempt
      return Effect.andThen(
        Effect.forkIn(establish, this.scope, { startImmediately: true }),
        restore(Deferred.await(attempt))
      )
    })
  }

  private get connectOnce(): Effect.Effect<Net.Socket, SpdkError<RpcUnreachable>> {
    const unreachable = (cause: NodeJS.ErrnoException | undefined) =>
      new SpdkError({
        reason: new RpcUnreachable({ operation: "Rpc.connect", address: this.address, errno: cause?.code, cause })
      })
    const open = Effect.callback<Net.Socket, SpdkError<RpcUnreachable>>((resume) => {
      const socket = Net.createConnection(this.options.address)
      const onError = (cause: NodeJS.ErrnoException) => resume(Effect.fail(unreachable(cause)))
      socket.once("error", onError)
      socket.once("connect", () => {
        socket.off("error", onError)
        this.adopt(socket)
        resume(Effect.succeed(socket))
      })
      return Effect.sync(() => socket.destroy())
    })
    return Outside.timeoutOrElse(open, {
      duration: connectLimit,
      orElse: () => Effect.fail(unreachable(undefined))
    })
  }

  private adopt(socket: Net.Socket): void {
    const splitter = makeSplitter({ ...defaultLimits, maxMessageBytes: this.options.maxMessageBytes })
    this.splitter = splitter
    const onEnd = (cause?: NodeJS.ErrnoException) =>
      this.end(
        socket,
        (call) =>
          new RpcUnreachable({
            ...call,
            address: this.address,
            detail: `the connection to ${this.address} broke before the answer`,
            errno: cause?.code,
            cause
          })
      )
    socket.setNoDelay(true)
    socket.on("data", (chunk: Buffer) => {
      try {
        splitter.push(chunk, (message) => this.answered(socket, decodeAnswer(message)))
      } catch (error) {
        if (!(error instanceof FrameError)) throw error
        this.endBroken(socket, error.message)
      }
    })
    socket.on("error", onEnd)
    socket.on("end", () => onEnd())
    socket.on("close", () => onEnd())
    this.socket = socket
  }

  private answered(socket: Net.Socket, answer: RpcAnswer): void {
    if (answer._tag === "Broken") return this.endBroken(socket, answer.rule)
    const pending = this.pending.get(answer.id)
    if (pending === undefined) {
      if (!this.forgotten.delete(answer.id))
        this.endBroken(socket, `answered id ${answer.id}, which belongs to no request`)
      return
    }
    this.pending.delete(answer.id)
    const { method, resource } = pending.call
    pending.resume(
      answer._tag === "Result"
        ? Effect.succeed(answer.result)
        : Effect.fail(fromRpcCode(method, answer.code, answer.message, answer.data, resource))
    )
  }

  private endBroken(socket: Net.Socket, rule: string): void {
    this.end(socket, (call) => new RpcProtocol({ ...call, rule: `the server at ${this.address} ${rule}` }))
  }

  /** Gives up a socket and fails each call in flight on it, once. The next call connects again. */
  private end(socket: Net.Socket, reason: EndReason): void {
    if (this.socket !== socket) return
    this.socket = undefined
    socket.destroy()
    const inFlight = [...this.pending.values()]
    this.pending.clear()
    this.forgotten.clear()
    for (const { call, resume } of inFlight) {
      resume(fail(reason({ operation: call.method, resource: call.resource })))
    }
  }
}

/** The reason of the attempt that all who waited share, in the words of one of them. */
const readdress = (
  reason: RpcUnreachable | Released,
  { method: operation, resource }: Call
): RpcUnreachable | Released =>
  reason._tag === "Released"
    ? new Released({ operation, resource, what: reason.what })
    : new RpcUnreachable({ operation, resource, address: reason.address, errno: reason.errno, cause: reason.cause })

/** The parameter that says what a call is about, for its errors. */
export const resourceOf = (params: { readonly [name: string]: unknown } | undefined): string | undefined => {
  if (params === undefined) return undefined
  for (const key of ["name", "bdev_name", "base_bdev_name", "base_bdev", "nqn", "lvs_name", "filename"]) {
    const value = params[key]
    if (typeof value === "string") return value
  }
  return undefined
}
