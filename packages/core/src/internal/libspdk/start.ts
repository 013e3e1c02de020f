/**
 * Taking and giving back a share of this process's one SPDK.
 */
import * as fs from "node:fs/promises"
import * as net from "node:net"
import * as os from "node:os"
import * as path from "node:path"
import type { Host, Reply } from "@effect-spdk/native/Host"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Outside from "../engine/outside.ts"
import * as CpuSet from "../../CpuSet.ts"
import * as Rpc from "../../Rpc.ts"
import type { RpcClient } from "../../Rpc.ts"
import { type InvalidArgument, invalid, OptionsClash, type RpcReason, SpdkError, StartFailed } from "../../SpdkError.ts"
import type { ResolvedOptions } from "../engine/options.ts"
import { makeRpc } from "../rpc/make.ts"
import { hasLog } from "../engine/serverLog.ts"

const operation = "Spdk.layer"

const eexist = -17

export type StartReason = StartFailed | OptionsClash | InvalidArgument | RpcReason

/** Whose turn it is to configure the SPDK of this process: see `Addon.claimConfig`. */
export interface ConfigTurn {
  readonly claim: (text: string) => { readonly status: number; readonly text: string }
  readonly settle: (isApplied: boolean) => void
}

/** Speaks to SPDK before its subsystems start, and starts them (`applyConfig` does). */
export type Configure<E> = (rpc: RpcClient["Service"], turn: ConfigTurn) => Effect.Effect<void, E>

/** What a start needs of the host. */
export type StartHost = Pick<Host, "start" | "release" | "listenToLog" | "watchLog" | "bdevClaimOf"> & {
  readonly addon: Pick<Host["addon"], "claimConfig" | "settleConfig">
}

export interface Started {
  readonly rpc: RpcClient["Service"]
  readonly rpcSocket: string
  /** What SPDK was started with, which is another layer's word where only defaults of this one differ. */
  readonly running: RunningOptions
}

interface RunningOptions extends Pick<ResolvedOptions, "memoryMiB" | "polling"> {
  /** As a list, `[0,2]`. */
  readonly cores: string
}

/** What a running SPDK is compared with, and reported by. */
const comparedFields = ["name", "cores", "memoryMiB", "hugepages", "pci", "rpcSocket", "logLevel", "polling"] as const

const keyOf = (options: ResolvedOptions): string =>
  JSON.stringify({
    name: options.name,
    cores: CpuSet.toList(options.cores),
    memoryMiB: options.memoryMiB,
    hugepages: options.hugepages,
    pci: options.pci,
    rpcSocket: options.rpcSocket ?? "private",
    logLevel: options.logLevel,
    polling: options.polling
  })

/** The first option that was named and differs from the running SPDK's. */
const findClash = (options: ResolvedOptions, runningKey: string): OptionsClash | undefined => {
  const running: Record<string, unknown> = JSON.parse(runningKey)
  const requested: Record<string, unknown> = JSON.parse(keyOf(options))
  for (const option of comparedFields) {
    const ours = JSON.stringify(requested[option])
    const theirs = JSON.stringify(running[option])
    if (options.given.has(option) && ours !== theirs) {
      return new OptionsClash({ operation, option, running: theirs, requested: ours })
    }
  }
  return undefined
}

/** A share of SPDK until the scope closes. The first share starts it. */
export const start = Effect.fnUntraced(function* <E = never>(
  host: StartHost,
  options: ResolvedOptions,
  configure: Configure<E> | undefined
): Effect.fn.Return<Started, SpdkError<StartReason> | E, Scope.Scope> {
  yield* checkMemory(options)
  const directory = yield* privateDirectory(options.rpcSocket)
  const socket = path.join(directory, socketName)
  if (options.rpcSocket !== undefined) yield* claimLink(options.rpcSocket)
  const { runningKey, started, turn } = yield* acquire(host, options, directory, socket, configure !== undefined)
  const removeDirectory = Effect.promise(() => fs.rm(directory, { recursive: true, force: true }))
  // After the limit SPDK may still come up, and needs its directory then: whoever shares it next finds its socket there.
  const ready = withinStartLimit(Effect.tapError(Deferred.await(started), () => removeDirectory))

  // A fresh SPDK that waits for its configuration is there as soon as its socket answers; a running one says so.
  const rpcSocket = configure === undefined ? yield* ready : yield* Effect.raceFirst(ready, waitForSocket(socket))
  const rpc = yield* makeRpc(
    { address: { path: rpcSocket } },
    (bdev) =>
      Effect.callback((resume) => host.bdevClaimOf(bdev, ({ text }) => resume(Effect.succeed(text || undefined)))),
    (bdev) => Effect.callback((resume) => host.bdevClaimOf(bdev, ({ a }) => resume(Effect.succeed(a === 1))))
  )
  hasLog(rpc, (listener) => host.watchLog((lines) => listener(lines.map(({ message }) => message))))
  if (configure !== undefined) {
    // SPDK cannot start twice: when it refuses its configuration the release of the share lets it start without.
    yield* Effect.raceFirst(deferUnreachable(configure(rpc, turn)), Effect.andThen(ready, Effect.never))
    yield* ready
  }
  yield* Effect.promise(() => fs.chmod(rpcSocket, 0o600).catch(() => {}))
  if (rpcSocket !== socket) {
    // SPDK ran already, on its own socket.
    yield* removeDirectory
  } else if (options.rpcSocket !== undefined) {
    yield* publishLink(options.rpcSocket, socket)
  }
  const isLinked = rpcSocket === socket || (yield* leadsTo(options.rpcSocket, rpcSocket))
  // `keyOf` wrote it, in this process.
  const running: RunningOptions = JSON.parse(runningKey())
  return { rpc, rpcSocket: isLinked ? (options.rpcSocket ?? rpcSocket) : rpcSocket, running }
})

/** A start takes a fraction of a second; many drives, or all memory in hugepages, take seconds. */
const startLimit = Duration.minutes(2)

/** Nobody waits for ever for an SPDK that does not say a word. */
const withinStartLimit = <A, E>(self: Effect.Effect<A, E>): Effect.Effect<A, E | SpdkError<StartFailed>> =>
  Outside.timeoutOrElse(self, {
    duration: startLimit,
    orElse: () => Effect.fail(startFailed(`SPDK has not started within ${Duration.format(startLimit)}`))
  })

/** How long an SPDK whose socket is gone has to say why. */
const lastWordsLimit = "5 seconds"

/** A connection breaks before the SPDK at its other end has ended and its start can fail with the reason. */
const deferUnreachable = <E>(self: Effect.Effect<void, E>): Effect.Effect<void, E> =>
  Effect.tapError(self, (error) =>
    error instanceof SpdkError && error.reason._tag === "RpcUnreachable" ? Outside.sleep(lastWordsLimit) : Effect.void
  )

const checkMemory = (options: ResolvedOptions): Effect.Effect<void, SpdkError<InvalidArgument>> => {
  const totalMiB = Math.floor(os.totalmem() / 1048576)
  return options.memoryMiB <= totalMiB
    ? Effect.void
    : Effect.fail(
        invalid(operation, "memoryMiB", `is more than the ${totalMiB} MiB that this machine has`, options.memoryMiB)
      )
}

const startFailed = (detail: string, cause?: unknown): SpdkError<StartFailed> =>
  new SpdkError({ reason: new StartFailed({ operation, detail, cause }) })

/**
 * Mode 0700, so that nobody else reaches the socket in it at any moment. Those of killed processes are swept first. A socket's
 * path is short and a process starts SPDK once, so that a TMPDIR that is too long, or not there, gives way to the directory of
 * the socket that was asked for, and that one to /tmp.
 */
const privateDirectory = (rpcSocket: string | undefined): Effect.Effect<string, SpdkError<StartFailed>> =>
  Effect.tryPromise({
    try: async () => {
      const parents = [os.tmpdir(), ...(rpcSocket === undefined ? [] : [path.dirname(rpcSocket)]), "/tmp"]
      const short = parents.filter((parent) => Buffer.byteLength(socketIn(parent, "XXXXXX")) <= Rpc.maxSocketPathBytes)
      let failure: unknown = new Error(`${parents.join(", ")}: too long for the path of a socket`)
      for (const parent of short) {
        try {
          await sweep(parent)
          return await fs.mkdtemp(prefixIn(parent))
        } catch (cause) {
          failure = cause
        }
      }
      throw failure
    },
    catch: (cause) => startFailed(`no private directory for the RPC socket: ${String(cause)}`, cause)
  })

const directoryPrefix = "effect-spdk-"
const socketName = "rpc.sock"

const prefixIn = (parent: string): string => path.join(parent, `${directoryPrefix}${process.pid}-`)
const socketIn = (parent: string, random: string): string => path.join(`${prefixIn(parent)}${random}`, socketName)

/**
 * Removes private directories of this user whose process is gone and whose socket, if there is one, does not answer. Those of
 * other users stay, also for root: they are theirs to remove.
 */
const sweep = async (parent: string): Promise<void> => {
  for (const name of await fs.readdir(parent)) {
    const pid = name.startsWith(directoryPrefix) ? /^(\d+)-/.exec(name.slice(directoryPrefix.length))?.[1] : undefined
    if (pid === undefined || isAlive(Number(pid))) continue
    const directory = path.join(parent, name)
    const found = await fs.lstat(directory).catch(() => undefined)
    if (found?.isDirectory() !== true || found.uid !== process.getuid?.()) continue
    if (await answers(path.join(directory, socketName))) continue
    await fs.rm(directory, { recursive: true, force: true }).catch(() => {})
  }
}

const isAlive = (pid: number): boolean => {
  try {
    return process.kill(pid, 0)
  } catch (error) {
    return !(error instanceof Error && "code" in error && error.code === "ESRCH")
  }
}

/** Refuses a path that something else uses; a link that a dead process left is taken over. */
const claimLink = (link: string): Effect.Effect<void, SpdkError<InvalidArgument>> =>
  Effect.flatMap(
    Effect.promise(async () => {
      const entry = await fs.lstat(link).catch(() => undefined)
      if (entry === undefined)
        return (await fs.stat(path.dirname(link)).catch(() => undefined)) === undefined ? "no-directory" : "free"
      if (!entry.isSymbolicLink() && !entry.isSocket()) return "taken"
      // The SPDK of this process, which a layer before this one has started, is shared with its socket.
      const target = entry.isSymbolicLink() ? await fs.readlink(link).catch(() => "") : ""
      if (path.basename(path.dirname(target)).startsWith(`${directoryPrefix}${process.pid}-`)) return "free"
      if (await answers(link)) return "taken"
      await fs.rm(link, { force: true })
      return "free"
    }),
    (state) => {
      if (state === "free") return Effect.void
      const rule = state === "taken" ? "is in use" : "is in a directory that does not exist"
      return Effect.fail(invalid(operation, "rpcSocket", rule, link))
    }
  )

/** The socket stays in its private directory; others know it by a link, which never points at a half-made one. */
const publishLink = (link: string, socket: string): Effect.Effect<void, SpdkError<InvalidArgument>> =>
  Effect.tryPromise({
    try: () => fs.symlink(socket, link),
    catch: (cause) => invalid(operation, "rpcSocket", `cannot be made: ${String(cause)}`, link)
  })

/** The link may be another process's by now, or none. */
const leadsTo = (link: string | undefined, socket: string): Effect.Effect<boolean> =>
  link === undefined
    ? Effect.succeed(false)
    : Effect.promise(() =>
        fs.readlink(link).then(
          (target) => target === socket,
          () => false
        )
      )

const answers = (socket: string): Promise<boolean> =>
  new Promise((resolve) => {
    const connection = net.connect(socket)
    connection.once("connect", () => {
      connection.destroy()
      resolve(true)
    })
    connection.once("error", () => resolve(false))
  })

const waitForSocket = (socket: string): Effect.Effect<string> =>
  Effect.promise(() => answers(socket)).pipe(
    Effect.flatMap((there) =>
      there ? Effect.succeed(socket) : Effect.andThen(Outside.sleep("5 millis"), waitForSocket(socket))
    )
  )

interface Acquired {
  readonly started: StartDeferred
  readonly runningKey: () => string
  readonly turn: ConfigTurn
}

type StartDeferred = Deferred.Deferred<string, SpdkError<StartFailed | OptionsClash>>

/**
 * Asks for a share; the answer comes through the Deferred. The share goes back with the scope, also before the answer: an
 * SPDK that waits for a configuration starts without it when the one that was to configure it lets go.
 */
const acquire = (
  host: StartHost,
  options: ResolvedOptions,
  directory: string,
  socket: string,
  waitForRpc: boolean
): Effect.Effect<Acquired, never, Scope.Scope> => {
  const ask = (key: string, answer: (reply: Reply) => void): number =>
    host.start(
      {
        name: options.name,
        cores: CpuSet.toList(options.cores),
        rpcSocket: socket,
        rpcDirectory: directory,
        rpcLink: options.rpcSocket ?? "",
        logLevel: options.logLevel,
        pciAllowed: options.pci._tag === "AllowOnly" ? options.pci.addresses : [],
        pciBlocked: options.pci._tag === "AllExcept" ? options.pci.addresses : [],
        memoryMiB: options.memoryMiB,
        hugepages: options.hugepages,
        pci: options.pci._tag !== "None",
        adaptive: options.polling === "adaptive",
        waitForRpc,
        key
      },
      answer
    )

  return Effect.gen(function* () {
    const started: StartDeferred = yield* Deferred.make<string, SpdkError<StartFailed | OptionsClash>>()
    let share: number | undefined
    let released = false
    const key = keyOf(options)
    let runningKey = key
    const settle = (reply: Reply, asked: string): void => {
      if (released) return
      if (reply.status === 0) {
        Deferred.doneUnsafe(started, Effect.succeed(reply.text))
        return
      }
      if (reply.status !== eexist || asked === reply.text) {
        const said = reply.text === "" ? `status ${reply.status}` : reply.text
        // -ENOMEM, of a pool that a subsystem makes at its start.
        const isMemory = /code: -12\b/.test(said)
        const failed = startFailed(isMemory ? `${said}; memoryMiB ${options.memoryMiB} is too little` : said)
        Deferred.doneUnsafe(started, Effect.fail(failed))
        return
      }
      const clash = findClash(options, reply.text)
      if (clash === undefined) {
        // Only defaults differ: take the one that runs.
        runningKey = reply.text
        share = ask(reply.text, (next) => settle(next, reply.text))
      } else {
        Deferred.doneUnsafe(started, Effect.fail(new SpdkError({ reason: clash })))
      }
    }
    yield* Effect.acquireRelease(
      Effect.sync(() => {
        const unlisten = host.listenToLog((lines, dropped) =>
          options.onLog(
            lines.map((line) => ({ ...line, level: levels[line.level] ?? "debug" })),
            dropped
          )
        )
        share = ask(key, (reply) => settle(reply, key))
        return unlisten
      }),
      (unlisten) =>
        Effect.sync(() => {
          unlisten()
          released = true
          if (share !== undefined) host.release(share)
        })
    )
    // Nobody configures before the share is asked for.
    const turn: ConfigTurn = {
      claim: (text) => host.addon.claimConfig(share ?? 0, text),
      settle: (isApplied) => host.addon.settleConfig(share ?? 0, isApplied)
    }
    return { started, runningKey: () => runningKey, turn }
  })
}

const levels = ["error", "warning", "notice", "info", "debug"] as const
