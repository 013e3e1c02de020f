/**
 * The public handle over a connected controller, and its life.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import type {
  AdminError,
  ControllerCapabilities,
  ControllerEvent,
  ControllerState,
  NvmeController,
  NvmeFeatures,
  NvmeLogPages,
  OpenNamespaceError,
  PassthruCommand,
  PassthruResult,
  QueryError,
  ResetError
} from "../../NvmeController.ts"
import type { IdentifyController } from "../../NvmeData.ts"
import type { NvmeNamespace } from "../../NvmeNamespace.ts"
import {
  type Corrupted,
  failInvalid,
  type ErrnoReason,
  invalid,
  NotSupported,
  SpdkError,
  type SpdkErrorOf
} from "../../SpdkError.ts"
import { bouncePoolOf } from "../memory/bouncePool.ts"
import type { Engine } from "../engine/engine.ts"
import type {
  EngineNvme,
  NvmeConnectSettings,
  NvmeControllerEvent,
  NvmeControllerHandle,
  NvmeTransportIdFields
} from "../engine/nvme.ts"
import { openDescriptor } from "../io/openBlocks.ts"
import { onlyReasons } from "../common/reasons.ts"
import { withinLimit } from "../common/release.ts"
import { refusedCommand } from "./passthruCommand.ts"
import { AdminQueue, decodedOr, ioReasons } from "./adminQueue.ts"
import { decodeAsyncEvent } from "./wire/asyncEvent.ts"
import { AdminOpcode } from "./wire/command.ts"
import { adminDataBytes, refusedDataLength } from "./dataLength.ts"
import { ControllerEvents } from "./controllerEvents.ts"
import { makeFeatures, refusedFeature } from "./featureAccess.ts"
import { Cns, identifyBytes, identifyController } from "./wire/identify.ts"
import { makeLogPages } from "./logReader.ts"
import { isNsid, namespaceInfo, NvmeNamespaceImpl } from "./namespaceHandle.ts"
import { formatTransportId } from "./transportId.ts"
import { NvmeControllerTypeId } from "./typeIds.ts"

export const controlReasons = onlyReasons([
  "Aborted",
  "AlreadyExists",
  "Busy",
  "Corrupted",
  "DeviceRemoved",
  "InvalidArgument",
  "IoFailed",
  "NoMemory",
  "NoSpace",
  "NotFound",
  "NotSupported",
  "PermissionDenied",
  "ReadOnly",
  "Released",
  "TimedOut"
])

export type ControlError = SpdkError<ErrnoReason | Corrupted>

/** The engine's driver, or NotSupported. */
export const driverOf = (engine: Engine, operation: string): Effect.Effect<EngineNvme, SpdkErrorOf<"NotSupported">> =>
  engine.nvme === undefined
    ? Effect.fail(
        new SpdkError({
          reason: new NotSupported({
            operation,
            resource: engine.kind,
            detail: `the engine has no NVMe driver: ${engine.description}`
          })
        })
      )
    : Effect.succeed(engine.nvme)

/** By opcode: what a command would break if the engine did not know of it. */
const ownCommands: ReadonlyMap<number, string> = new Map([
  [0x00, "deletes a submission queue"],
  [0x01, "creates a submission queue"],
  [0x04, "deletes a completion queue"],
  [0x05, "creates a completion queue"],
  [AdminOpcode.Abort, "aborts a command by a number that only the driver knows"],
  [AdminOpcode.AsyncEventRequest, "asks for an asynchronous event"],
  [0x7c, "hands the device memory for doorbells"],
  [AdminOpcode.Fabrics, "is a Fabrics command"]
])

/** CAP: NVMe Base specification 2.1, section 3.1.4.1. */
export const decodeCapabilities = (cap: bigint): ControllerCapabilities => {
  const bits = (shift: number, width: number) => Number((cap >> BigInt(shift)) & ((1n << BigInt(width)) - 1n))
  return {
    maxQueueEntries: bits(0, 16) + 1,
    contiguousQueues: bits(16, 1) === 1,
    readyTimeoutMillis: bits(24, 8) * 500,
    subsystemReset: bits(36, 1) === 1,
    minPageBytes: 2 ** (12 + bits(48, 4)),
    maxPageBytes: 2 ** (12 + bits(52, 4))
  }
}

class NvmeControllerImpl implements NvmeController {
  readonly [NvmeControllerTypeId] = NvmeControllerTypeId
  readonly capabilities: ControllerCapabilities
  readonly identify: Effect.Effect<IdentifyController, QueryError>
  readonly logPages: NvmeLogPages
  readonly features: NvmeFeatures
  state: ControllerState = "connected"
  readonly queue: AdminQueue
  readonly open = new Set<Effect.Effect<void>>()
  private readonly engine: Engine
  private readonly sources: ControllerEvents

  constructor(engine: Engine, queue: AdminQueue, sources: ControllerEvents) {
    this.engine = engine
    this.queue = queue
    this.sources = sources
    this.capabilities = decodeCapabilities(queue.handle.cap)
    const operation = "NvmeController.identify"
    const { resource } = queue
    this.identify = Effect.flatMap(
      queue.run(operation, { opcode: AdminOpcode.Identify, cdw10: Cns.controller, lengthBytes: identifyBytes }),
      ({ data }) => decodedOr(operation, resource, identifyController.decode(data))
    )
    this.logPages = makeLogPages(queue, this.identify)
    this.features = makeFeatures(queue)
  }

  get transportId(): NvmeTransportIdFields {
    return this.queue.handle.transportId
  }

  get version(): string {
    const { vs } = this.queue.handle
    return `${vs >>> 16}.${(vs >>> 8) & 0xff}.${vs & 0xff}`
  }

  get ioQueues(): number {
    return this.queue.handle.ioQueues
  }

  get maxTransferBytes(): number {
    return this.queue.handle.maxTransferBytes
  }

  get events(): Stream.Stream<ControllerEvent> {
    return this.sources.stream
  }

  get namespaces(): Effect.Effect<ReadonlyArray<number>, AdminError> {
    return this.whenUsable("NvmeController.namespaces", () =>
      ioReasons(this.queue.nvme.activeNamespaces(this.queue.handle))
    )
  }

  admin(command: PassthruCommand): Effect.Effect<PassthruResult, AdminError> {
    return Effect.suspend(() => {
      const operation = "NvmeController.admin"
      const { maxDataBytes, resource } = this.queue
      const own = ownCommands.get(command.opcode)
      if (own !== undefined) {
        return failInvalid(operation, "opcode", `${own}, which only the engine does`, command.opcode, resource)
      }
      const most = command.buffer === undefined ? maxDataBytes : this.maxTransferBytes
      const refused =
        refusedCommand(operation, resource, command, most) ??
        refusedDataLength(operation, resource, command, adminDataBytes(command)) ??
        refusedFeature(operation, resource, command)
      return refused === undefined ? this.queue.run(operation, command) : Effect.fail(refused)
    })
  }

  namespace(nsid: number): Effect.Effect<NvmeNamespace, OpenNamespaceError, Scope.Scope> {
    const operation = "NvmeController.namespace"
    return Effect.suspend(() => {
      if (!isNsid(nsid)) {
        const rule = "is not a whole number from 1 to 2^32 - 2"
        return Effect.fail(invalid(operation, "nsid", rule, nsid, this.queue.resource))
      }
      return this.whenUsable(operation, () => this.openNamespace(operation, nsid))
    })
  }

  get reset(): Effect.Effect<void, ResetError> {
    const operation = "NvmeController.reset"
    return Effect.suspend(() => {
      const refused = this.queue.refused(operation)
      if (refused !== undefined) return controlReasons(Effect.fail(refused))
      return Effect.map(controlReasons(this.queue.nvme.reset(this.queue.handle)), () => {
        if (this.state !== "failed") return
        this.state = "connected"
        this.sources.publish({ _tag: "Recovered" })
      })
    })
  }

  toJSON(): unknown {
    return { _id: "NvmeController", transportId: this.queue.resource, state: this.state }
  }

  private whenUsable<A, E, R>(
    operation: string,
    run: () => Effect.Effect<A, E, R>
  ): Effect.Effect<A, E | AdminError, R> {
    return Effect.suspend((): Effect.Effect<A, E | AdminError, R> => {
      const refused = this.queue.refused(operation)
      return refused === undefined ? run() : Effect.fail(refused)
    })
  }

  private openNamespace(
    operation: string,
    nsid: number
  ): Effect.Effect<NvmeNamespace, OpenNamespaceError, Scope.Scope> {
    const { nvme, handle, resource } = this.queue
    const name = `${resource} nsid:${nsid}`
    const opened = Effect.acquireRelease(
      Effect.flatMap(
        openDescriptor({
          engine: this.engine,
          open: (onEvent) => controlReasons(nvme.openNamespace(handle, nsid, onEvent)),
          close: (descriptor) => nvme.closeNamespace(descriptor),
          operation: "NvmeNamespace",
          noun: "namespace"
        }),
        (namespace) => {
          // The controller may have been released meanwhile, and does not know of this one.
          const refused = this.queue.refused(operation)
          if (refused !== undefined) return Effect.andThen(namespace.close, Effect.fail(refused))
          this.open.add(namespace.close)
          return Effect.succeed(namespace)
        }
      ),
      (namespace) => {
        this.open.delete(namespace.close)
        return withinLimit("NvmeNamespace.close", name, namespace.close)
      }
    )
    return Effect.flatMap(opened, ({ blocks }) =>
      Effect.map(namespaceInfo(this.queue, operation, nsid), (info) => new NvmeNamespaceImpl(blocks, this.queue, info))
    )
  }
}

/** Connects; the scope disconnects. */
export const connectController = (
  engine: Engine,
  operation: string,
  transportId: NvmeTransportIdFields,
  settings: NvmeConnectSettings
): Effect.Effect<NvmeControllerImpl, ControlError, Scope.Scope> =>
  Effect.gen(function* () {
    const nvme = yield* driverOf(engine, operation)
    const bounce = yield* bouncePoolOf(engine)
    const sources = new ControllerEvents()
    const resource = formatTransportId(transportId)
    const namespacesChanged = yield* Queue.sliding<void>(1)
    // The engine may tell of an event before the handle is in ours.
    const early: Array<NvmeControllerEvent> = []
    let onEvent = (event: NvmeControllerEvent): void => {
      early.push(event)
    }
    const acquire = Effect.map(
      controlReasons(nvme.connect(transportId, settings, (event) => onEvent(event))),
      (handle) => new NvmeControllerImpl(engine, new AdminQueue(nvme, handle, bounce, resource), sources)
    )
    const controller = yield* Effect.acquireRelease(
      acquire,
      (connected) => {
        const { queue } = connected
        return withinLimit("NvmeController.close", resource, close(nvme, queue.handle, connected, sources))
      },
      { interruptible: true }
    )
    const known = yield* Effect.orElseSucceed(controller.namespaces, (): ReadonlyArray<number> => [])
    yield* Effect.forkScoped(watchNamespaces(controller, sources, namespacesChanged, known))
    onEvent = (event) => onControllerEvent(controller, sources, namespacesChanged, event)
    early.forEach(onEvent)
    return controller
  })

const close = (
  nvme: EngineNvme,
  handle: NvmeControllerHandle,
  controller: NvmeControllerImpl,
  sources: ControllerEvents
): Effect.Effect<void> =>
  Effect.suspend(() => {
    controller.state = "released"
    controller.queue.gone = "released"
    const namespaces = [...controller.open]
    controller.open.clear()
    return Effect.forEach(namespaces, (one) => one, { discard: true, concurrency: "unbounded" }).pipe(
      Effect.andThen(nvme.disconnect(handle)),
      Effect.andThen(Effect.sync(() => sources.publish("closed")))
    )
  })

const onControllerEvent = (
  controller: NvmeControllerImpl,
  sources: ControllerEvents,
  namespacesChanged: Queue.Queue<void>,
  event: NvmeControllerEvent
): void => {
  if (controller.state === "released") return
  switch (event._tag) {
    case "AsyncEvent": {
      const decoded = decodeAsyncEvent(event.dword0)
      sources.publish(decoded)
      if (decoded._tag === "NamespaceAttributeChanged") Queue.offerUnsafe(namespacesChanged, undefined)
      return
    }
    case "Failed":
      controller.state = "failed"
      sources.publish(event)
      return
    case "Removed":
      controller.state = "removed"
      controller.queue.gone = "removed"
      sources.publish(event)
      return
  }
}

/** Finds out what a notice was about: a notice says that something has changed, and not what. */
const watchNamespaces = (
  controller: NvmeControllerImpl,
  sources: ControllerEvents,
  namespacesChanged: Queue.Queue<void>,
  known: ReadonlyArray<number>
): Effect.Effect<void> => {
  let before = new Set(known)
  const look = Effect.map(Effect.exit(controller.namespaces), (exit) => {
    // A controller that is gone has said so itself.
    if (Exit.isFailure(exit)) return
    const now = new Set(exit.value)
    for (const nsid of before) if (!now.has(nsid)) sources.publish({ _tag: "NamespaceRemoved", nsid })
    for (const nsid of now) if (!before.has(nsid)) sources.publish({ _tag: "NamespaceAdded", nsid })
    before = now
  })
  return Effect.forever(Effect.andThen(Queue.take(namespacesChanged), look))
}
