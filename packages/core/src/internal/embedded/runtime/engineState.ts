/**
 * What an embedded engine is made of, and the calls of `Engine` on it.
 */
import type { Handle } from "@effect-spdk/native/Queue"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as CpuSet from "../../../CpuSet.ts"
import { DeviceRemoved, fromErrno, invalid, released, SpdkError } from "../../../SpdkError.ts"
import type { LogLevel } from "../../../SpdkOptions.ts"
import { claimedBusy } from "../../rpc/claimed.ts"
import type {
  Descriptor,
  Engine,
  EnginePoller,
  EngineThread,
  EngineUsage,
  LoadedInTypeScript
} from "../../engine/engine.ts"
import type { LogLine } from "../../engine/options.ts"
import { type Host, machineHost } from "../../engine/host.ts"
import { withinLimit } from "../../common/release.ts"
import { BdevRegistry } from "../bdev/registry.ts"
import { withLoaded } from "../../engine/usage.ts"
import type { EmbeddedOptions } from "./engine.ts"
import { Handles, type OpenDescriptor } from "../queue/handles.ts"
import type { HostContext } from "../nvme/controller.ts"
import { EmbeddedNvmeHost } from "../nvme/host.ts"
import { MemoryBudget, SlabTable } from "../queue/memory.ts"
import { Notifications } from "./notifications.ts"
import { EmbeddedPoller } from "./poller.ts"
import { EPERM } from "../queue/status.ts"
import { EmbeddedReactor } from "./reactor.ts"
import { LogicalThread } from "./thread.ts"
import type { Timers } from "./timers.ts"
import { callAll } from "./uncaught.ts"

/** From the most urgent on. */
const severities: ReadonlyArray<LogLevel> = ["disabled", "error", "warning", "notice", "info", "debug"]

export class EngineState {
  readonly printLevel: { current: LogLevel }
  readonly threads = new Set<LogicalThread>()
  readonly registry: BdevRegistry
  readonly slabs: SlabTable
  readonly mainThread: LogicalThread
  private readonly options: EmbeddedOptions
  private readonly timers: Timers
  private readonly reactor: EmbeddedReactor
  readonly handles: Handles
  readonly nvme: EmbeddedNvmeHost
  private nextThreadId = 1
  private nextPollerId = 1
  private pollerCount = 0

  constructor(options: EmbeddedOptions, timers: Timers, host: Host = machineHost) {
    const budget = new MemoryBudget(options.memoryMiB * 1024 * 1024)
    this.options = options
    this.timers = timers
    this.printLevel = { current: options.logLevel }
    this.reactor = new EmbeddedReactor(host)
    this.slabs = new SlabTable(budget, host)
    this.registry = new BdevRegistry({
      reactor: this.reactor,
      timers,
      budget,
      notifications: new Notifications(),
      log: (level, message) => this.log(level, message)
    })
    this.handles = new Handles(this.registry)
    this.nvme = new EmbeddedNvmeHost(this, host)
    const first = CpuSet.first(options.cores) ?? 0
    this.mainThread = this.addThread("app_thread", CpuSet.makeUnsafe([first]), first)
  }

  get hostContext(): HostContext {
    return this.registry.context
  }

  readonly spawn: Engine["spawn"] = ({ cpuMask, name }) =>
    Effect.acquireRelease(
      Effect.suspend(() => this.makeThread(name, cpuMask)),
      (thread) => withinLimit("SpdkThread.spawn", name, this.closeThread(thread))
    )

  readonly openBdev: Engine["openBdev"] = (name, { onEvent, write }) =>
    Effect.suspend(() => {
      const opened = this.handles.openDescriptor(name, write, onEvent)
      if (typeof opened !== "number") return Effect.succeed<Descriptor>(opened)
      return Effect.fail(
        opened === -EPERM
          ? claimedBusy("Bdev.open", name, this.claimOf(name))
          : fromErrno(opened, { operation: "Bdev.open", resource: name })
      )
    })

  readonly claimBdev: Engine["claimBdev"] = (name, operation) =>
    Effect.suspend(() => {
      const { registry } = this
      let isHeld = false
      const letGo = () => {
        if (!isHeld) return
        isHeld = false
        registry.release(claimed.bdev)
        registry.close(claimed)
      }
      const opened = registry.open(name, false, (event) => {
        if (event === "removed") letGo()
      })
      if (typeof opened === "number") return Effect.fail(fromErrno(opened, { operation, resource: name }))
      const claimed = opened
      if (registry.claim(claimed, "blobstore") !== 0) {
        registry.close(claimed)
        return Effect.fail(claimedBusy(operation, name, this.claimOf(name)))
      }
      isHeld = true
      return Effect.succeed(Effect.sync(letGo))
    })

  claimOf(name: string): string | undefined {
    const module = this.registry.find(name)?.claimedBy
    return module === undefined ? undefined : `claimed by module ${module} (exclusive_write)`
  }

  readonly closeBdev: Engine["closeBdev"] = ({ generation, slot }) =>
    Effect.callback((resume) => this.handles.closeDescriptor(slot, generation, () => resume(Effect.void)))

  readonly openChannel: Engine["openChannel"] = (thread, { generation, info, slot }) =>
    Effect.suspend((): Effect.Effect<Handle, SpdkError> => {
      const operation = "Bdev.channel"
      const owner = this.find(thread)
      if (owner === undefined) return Effect.fail(released(operation, "thread", thread.name))
      const descriptor = this.handles.findDescriptor(slot, generation)
      if (descriptor?.isRemoved) return Effect.fail(deviceRemoved(operation, descriptor))
      if (descriptor === undefined || descriptor.isClosing) return Effect.fail(released(operation, "bdev", info.name))
      return Effect.succeed(this.handles.openChannel(owner, descriptor))
    })

  readonly closeChannel: Engine["closeChannel"] = (_thread, { generation, slot }) =>
    Effect.callback((resume) => this.handles.closeChannel(slot, generation, () => resume(Effect.void)))

  readonly registerPoller: Engine["registerPoller"] = (thread, options) =>
    Effect.map(
      Effect.acquireRelease(
        Effect.suspend(() => this.makePoller(thread, options)),
        ({ owner, poller }) => Effect.sync(() => this.removePoller(owner, poller))
      ),
      ({ poller }): EnginePoller => ({
        pause: Effect.sync(() => poller.pause()),
        resume: Effect.sync(() => poller.resume()),
        // A tick is delivered when the function runs: there is no other side that could be behind.
        stats: Effect.sync(() => ({ runs: poller.runs, busy: poller.runs }))
      })
    )

  readonly loadedInTypeScript = new Set<LoadedInTypeScript>()

  readonly usage: Effect.Effect<EngineUsage> = Effect.sync(() => {
    const held = {
      threads: this.threads.size,
      descriptors: this.handles.descriptorCount,
      channels: this.handles.channelCount,
      pollers: this.pollerCount,
      blobstores: 0,
      blobs: 0,
      nvmeControllers: 0,
      slabs: this.slabs.count,
      dmaBytes: this.slabs.bytes,
      requestsInFlight: [...this.threads].reduce((sum, thread) => sum + thread.queue.inFlight, 0)
    }
    return withLoaded(held, this.loadedInTypeScript)
  })

  /** Ends what is in flight, and gives everything back. */
  readonly release: Effect.Effect<void> = Effect.suspend(() => {
    const threads = [...this.threads]
    for (const thread of threads) {
      for (const poller of [...thread.pollers]) this.removePoller(thread, poller)
      thread.queue.abortSubmitted()
    }
    return Effect.forEach(threads, (thread) => this.closeQueue(thread), {
      concurrency: "unbounded",
      discard: true
    }).pipe(
      // At the same time: what a bdev holds back ends with the bdev.
      Effect.zip(this.removeAllBdevs, { concurrent: true }),
      Effect.zip(this.nvme.closeAll, { concurrent: true }),
      Effect.andThen(Effect.sync(() => this.slabs.freeAll()))
    )
  })

  private readonly removeAllBdevs: Effect.Effect<void> = Effect.callback((resume) => {
    const bdevs = this.registry.all
    let left = bdevs.length
    if (left === 0) resume(Effect.void)
    for (const bdev of bdevs) {
      // Those that stand on others go by themselves when their base does; whoever is first asks.
      const onRemoved = bdev.onRemoved
      const oneLess = () => {
        if (--left === 0) resume(Effect.void)
      }
      const done = () => callAll([() => onRemoved?.(0), oneLess])
      if (bdev.state === "ready") this.registry.unregister(bdev, done)
      else bdev.onRemoved = done
    }
    this.handles.closeAll()
  })

  private makeThread(name: string, cpuMask: string | undefined): Effect.Effect<LogicalThread, SpdkError> {
    const operation = "SpdkThread.spawn"
    let cores = this.options.cores
    if (cpuMask !== undefined) {
      const parsed = CpuSet.fromMask(cpuMask)
      if (Result.isFailure(parsed)) return Effect.fail(invalid(operation, "cpus", parsed.failure.reason.rule, cpuMask))
      cores = CpuSet.intersection(cores, parsed.success)
    }
    if (CpuSet.isEmpty(cores)) return Effect.fail(invalid(operation, "cpus", "names no core of this engine", cpuMask))
    return Effect.succeed(this.addThread(name, cores, this.leastUsedCore(cores)))
  }

  private addThread(name: string, cores: CpuSet.CpuSet, core: number): LogicalThread {
    const { handles, reactor, slabs, timers } = this
    const thread = new LogicalThread(
      { handles, reactor, slabs, timers },
      { id: this.nextThreadId++, name, cores, core }
    )
    this.threads.add(thread)
    return thread
  }

  private leastUsedCore(cores: CpuSet.CpuSet): number {
    let best = CpuSet.first(cores) ?? 0
    let fewest = Infinity
    for (const core of cores) {
      const count = [...this.threads].filter((thread) => thread.core === core).length
      if (count < fewest) {
        best = core
        fewest = count
      }
    }
    return best
  }

  private closeThread(thread: LogicalThread): Effect.Effect<void> {
    return Effect.andThen(
      this.closeQueue(thread),
      Effect.sync(() => this.threads.delete(thread))
    )
  }

  private closeQueue(thread: LogicalThread): Effect.Effect<void> {
    return Effect.callback((resume) => {
      for (const poller of [...thread.pollers]) this.removePoller(thread, poller)
      thread.queue.close(() => {
        this.handles.closeChannelsOf(thread)
        resume(Effect.void)
      })
    })
  }

  private find(thread: EngineThread): LogicalThread | undefined {
    return thread instanceof LogicalThread && this.threads.has(thread) && !thread.queue.isClosed ? thread : undefined
  }

  private makePoller(
    thread: EngineThread,
    options: { readonly name: string; readonly periodMicros: number; readonly onTick: (runs: number) => void }
  ): Effect.Effect<{ readonly owner: LogicalThread; readonly poller: EmbeddedPoller }, SpdkError> {
    const owner = this.find(thread)
    if (owner === undefined) return Effect.fail(released("Poller.make", "thread", thread.name))
    const poller = new EmbeddedPoller(this.reactor, this.timers, { ...options, id: this.nextPollerId++ })
    owner.pollers.add(poller)
    this.pollerCount++
    return Effect.succeed({ owner, poller })
  }

  private removePoller(thread: LogicalThread, poller: EmbeddedPoller): void {
    if (!thread.pollers.delete(poller)) return
    this.pollerCount--
    thread.goneMillis += poller.busyMillis
    poller.unregister()
  }

  private log(level: LogLine["level"], message: string): void {
    if (severities.indexOf(level) > severities.indexOf(this.printLevel.current)) return
    callAll([() => this.options.onLog([{ level, message, file: "embedded", line: 0, function: "" }])])
  }
}

const deviceRemoved = (operation: string, descriptor: OpenDescriptor): SpdkError =>
  new SpdkError({ reason: new DeviceRemoved({ operation, resource: descriptor.info.name }) })
