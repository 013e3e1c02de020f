/**
 * The libspdk engine, by way of the addon in @effect-spdk/native.
 */
import * as Host from "@effect-spdk/native/Host"
import { PollerAction } from "@effect-spdk/native/Addon"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { EngineUnavailable, fromErrno, SpdkError, StartFailed } from "../../SpdkError.ts"
import { claimedBusy } from "../rpc/claimed.ts"
import type { Descriptor, DescriptorInfo, Engine, EngineThread, LoadedInTypeScript } from "../engine/engine.ts"
import type { ResolvedOptions } from "../engine/options.ts"
import { withinLimit } from "../common/release.ts"
import { withLoaded } from "../engine/usage.ts"
import { makeBlobstores } from "./blobstores.ts"
import { makeMemory } from "./memory.ts"
import { makeNvme } from "./nvme.ts"
import { type Configure, start, type StartReason } from "./start.ts"

export type Probe =
  | { readonly available: true; readonly version: string }
  | { readonly available: false; readonly lookedFor: ReadonlyArray<string>; readonly reason: string }

/** Whether the addon loads. Starts nothing. */
export const probe: Effect.Effect<Probe> = Effect.sync(() => {
  const found = Host.get()
  return found._tag === "Loaded"
    ? { available: true, version: found.host.addon.version }
    : { available: false, lookedFor: found.lookedFor, reason: found.reason }
})

/** A queue of the host, with what the contract knows of it. */
interface LibspdkThread extends EngineThread {
  readonly hostQueue: Host.HostQueue
}

/** A control call: quick, answered exactly once, and never given up, because its answer may be a resource. */
const ask = (
  operation: string,
  resource: string | undefined,
  call: (onReply: Host.OnReply) => void
): Effect.Effect<Host.Reply, SpdkError> =>
  Effect.uninterruptible(
    Effect.callback<Host.Reply, SpdkError>((resume) =>
      call((reply) => {
        resume(
          reply.status === 0
            ? Effect.succeed(reply)
            : Effect.fail(fromErrno(reply.status, { operation, resource, detail: reply.text || undefined }))
        )
      })
    )
  )

/** SPDK refuses what is claimed with EPERM; the text of the reply then says who has it. */
const namingClaimer = (operation: string, name: string, call: (onReply: Host.OnReply) => void) =>
  Effect.mapError(ask(operation, name, call), (error) =>
    error.reason._tag === "PermissionDenied" && error.reason.detail !== undefined
      ? claimedBusy(operation, name, error.reason.detail)
      : error
  )

/** A close: there is nothing it can fail with that its caller could mend. */
const askToClose = (call: (onReply: Host.OnReply) => void): Effect.Effect<void> =>
  Effect.callback<void>((resume) => call(() => resume(Effect.void)))

export const make = Effect.fnUntraced(function* <E = never>(
  options: ResolvedOptions,
  configure?: Configure<E>
): Effect.fn.Return<Engine, SpdkError<StartReason | EngineUnavailable> | E, Scope.Scope> {
  const found = Host.get()
  if (found._tag === "Missing") {
    return yield* Effect.fail(
      new SpdkError({
        reason: new EngineUnavailable({
          operation: "Spdk.layer",
          engine: "libspdk",
          lookedFor: found.lookedFor,
          detail: found.reason
        })
      })
    )
  }
  const { host } = found
  const { rpc, rpcSocket, running } = yield* start(host, options, configure)
  const threads = new Map<EngineThread, LibspdkThread>()
  const spawn = makeSpawn(host, threads)
  const mainThread = yield* spawn({ name: `${options.name}.main`, cpuMask: undefined }).pipe(
    Effect.mapError(
      (cause) =>
        new SpdkError({ reason: new StartFailed({ operation: "Spdk.layer", detail: "no main thread", cause }) })
    )
  )
  const loadedInTypeScript = new Set<LoadedInTypeScript>()
  const engine: Engine = {
    kind: "libspdk",
    version: host.addon.version,
    description: `libspdk, ${host.addon.version}, cores ${running.cores}, ${running.memoryMiB} MiB, ${running.polling} polling, RPC on ${rpcSocket}`,
    rpcSocket,
    rpc,
    memory: makeMemory(host),
    mainThread,
    spawn,
    ...makeBdevs(host, threads),
    registerPoller: makeRegisterPoller(host, threads),
    blobstores: makeBlobstores(host),
    nvme: makeNvme(host, () => engine),
    usage: Effect.sync(() =>
      withLoaded({ ...host.usage(), requestsInFlight: host.requestsInFlight }, loadedInTypeScript)
    ),
    loadedInTypeScript
  }
  return engine
})

const makeSpawn =
  (host: Host.Host, threads: Map<EngineThread, LibspdkThread>): Engine["spawn"] =>
  ({ cpuMask, name }) =>
    Effect.acquireRelease(
      Effect.callback<LibspdkThread, SpdkError>((resume) =>
        host.spawn(name, cpuMask ?? "", (reply, queue) => {
          if (queue === undefined) {
            return resume(Effect.fail(fromErrno(reply.status, { operation: "SpdkThread.spawn", resource: name })))
          }
          const thread: LibspdkThread = { id: queue.threadId, name, queue: queue.ring, hostQueue: queue }
          threads.set(thread, thread)
          resume(Effect.succeed(thread))
        })
      ),
      (thread) =>
        withinLimit(
          "SpdkThread.spawn",
          name,
          Effect.andThen(
            askToClose((onReply) => host.exit(thread.hostQueue, onReply)),
            Effect.sync(() => void threads.delete(thread))
          )
        )
    )

const makeBdevs = (
  host: Host.Host,
  threads: Map<EngineThread, LibspdkThread>
): Pick<Engine, "openBdev" | "closeBdev" | "claimBdev" | "openChannel" | "closeChannel"> => ({
  openBdev: (name, { onEvent, write }) =>
    Effect.map(
      namingClaimer("Bdev.open", name, (onReply) => host.bdevOpen(name, write, onEvent, onReply)),
      (reply): Descriptor => {
        // Written by our own addon in this process.
        const info: DescriptorInfo = JSON.parse(reply.text)
        return { slot: reply.a, generation: 1, info, writable: write }
      }
    ),
  claimBdev: (name, operation) =>
    Effect.map(
      namingClaimer(operation, name, (onReply) => host.bdevClaim(name, onReply)),
      (reply) => askToClose((onReply) => host.bdevClose(reply.a, onReply))
    ),
  closeBdev: (descriptor) => askToClose((onReply) => host.bdevClose(descriptor.slot, onReply)),
  openChannel: (thread, descriptor) => {
    const found = threads.get(thread)
    if (found === undefined) return Effect.fail(fromErrno(-125, { operation: "Bdev.channel", resource: thread.name }))
    return Effect.map(
      ask("Bdev.channel", descriptor.info.name, (onReply) =>
        host.channelOpen(found.hostQueue, descriptor.slot, onReply)
      ),
      (reply) => ({ slot: reply.a, generation: reply.b })
    )
  },
  closeChannel: (thread, channel) => {
    const found = threads.get(thread)
    if (found === undefined) return Effect.void
    return askToClose((onReply) => host.channelClose(found.hostQueue, channel.slot, channel.generation, onReply))
  }
})

const makeRegisterPoller =
  (host: Host.Host, threads: Map<EngineThread, LibspdkThread>): Engine["registerPoller"] =>
  (thread, { name, onTick, periodMicros }) => {
    const found = threads.get(thread)
    if (found === undefined) return Effect.fail(fromErrno(-125, { operation: "Poller.make", resource: name }))
    const { hostQueue } = found
    const acquire = Effect.callback<number, SpdkError>((resume) => {
      const id = host.pollerRegister(hostQueue, name, periodMicros, onTick, (reply) =>
        resume(
          reply.status === 0
            ? Effect.succeed(id)
            : Effect.fail(fromErrno(reply.status, { operation: "Poller.make", resource: name }))
        )
      )
    })
    return Effect.map(
      Effect.acquireRelease(acquire, (id) =>
        askToClose((onReply) => host.pollerControl(hostQueue, id, PollerAction.Unregister, onReply))
      ),
      (id) => {
        let last = { runs: 0, busy: 0 }
        const control = (action: PollerAction) =>
          Effect.callback<{ readonly runs: number; readonly busy: number }>((resume) =>
            host.pollerControl(hostQueue, id, action, (reply) => {
              // A poller that is gone keeps its last counts.
              if (reply.status === 0) last = { runs: reply.a, busy: reply.b }
              resume(Effect.succeed(last))
            })
          )
        return {
          pause: Effect.asVoid(control(PollerAction.Pause)),
          resume: Effect.asVoid(control(PollerAction.Resume)),
          stats: control(PollerAction.Stats)
        }
      }
    )
  }
