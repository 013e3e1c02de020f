/**
 * The NVMe driver of the embedded engine: controllers over TCP, by handle.
 */
import { Opcode } from "@effect-spdk/native/Layout"
import { makeEntry } from "@effect-spdk/native/Queue"
import * as Effect from "effect/Effect"
import type { DmaBuffer } from "../../../DmaBuffer.ts"
import { fromCompletion, invalid, NotFound, NotSupported, released, SpdkError } from "../../../SpdkError.ts"
import type { Descriptor } from "../../engine/engine.ts"
import type { EngineNvme, NvmeControllerHandle } from "../../engine/nvme.ts"
import { type DmaBufferImpl, unpin } from "../../memory/ioMemory.ts"
import { cqeBytes, sqeBytes } from "../../nvme/wire/command.ts"
import { discoveryNqn } from "../../nvme/wire/nqn.ts"
import type { EngineState } from "../runtime/engineState.ts"
import type { Host } from "../../engine/host.ts"
import { SlotTable } from "../queue/slots.ts"
import { addressOf } from "./address.ts"
import { coalesced } from "./coalesced.ts"
import { HostController } from "./controller.ts"
import { ioTypesOf, NvmeDisk } from "./disk.ts"
import { readDiscoveryEntries, transportIdsOf } from "./discovery.ts"
import { completionBytes } from "./hostConnection.ts"
import { limited } from "./hostErrors.ts"
import { describeNamespace, isSameNamespace } from "./initialise.ts"

interface OpenNamespace {
  readonly disk: NvmeDisk
  readonly descriptor: Descriptor
}

class OpenController {
  readonly slot: number
  readonly generation: number
  readonly controller: HostController
  readonly namespaces = new Set<OpenNamespace>()

  constructor(slot: number, generation: number, controller: HostController) {
    this.slot = slot
    this.generation = generation
    this.controller = controller
  }
}

const entry = makeEntry()

// Every DmaBuffer is made by this package.
const implOf = (buffer: DmaBuffer): DmaBufferImpl => buffer as DmaBufferImpl

export class EmbeddedNvmeHost implements EngineNvme {
  private readonly state: EngineState
  private readonly controllers: SlotTable<OpenController>

  constructor(state: EngineState, host: Host) {
    this.state = state
    this.controllers = new SlotTable(host)
  }

  readonly probe: EngineNvme["probe"] = (transportId, settings) =>
    Effect.gen({ self: this }, function* () {
      const operation = "Nvme.probe"
      const subnqn = transportId.subnqn === "" ? discoveryNqn : transportId.subnqn
      const id = { ...transportId, subnqn }
      const address = yield* addressOf(operation, id, settings)
      const controller = new HostController(this.state.hostContext, id, address, settings, () => {})
      // Interruptible all the way: who has given up leaves nothing, and is not waited for.
      return yield* limited(operation, controller.resource, settings.connectTimeoutMillis, controller.connect).pipe(
        Effect.andThen(Effect.map(readDiscoveryEntries(controller, operation), transportIdsOf)),
        Effect.ensuring(controller.disconnect)
      )
    })

  readonly connect: EngineNvme["connect"] = (transportId, settings, onEvent) =>
    Effect.gen({ self: this }, function* () {
      const address = yield* addressOf("Nvme.connect", transportId, settings)
      const controller = new HostController(this.state.hostContext, transportId, address, settings, onEvent)
      yield* limited("Nvme.connect", controller.resource, settings.connectTimeoutMillis, controller.connect)
      return this.opened(controller)
    })

  readonly disconnect: EngineNvme["disconnect"] = (handle) =>
    Effect.suspend(() => {
      const open = this.find(handle)
      if (open === undefined) return Effect.void
      this.controllers.free(handle.slot)
      for (const { disk } of open.namespaces) this.remove(disk)
      return open.controller.disconnect
    })

  readonly admin: EngineNvme["admin"] = (handle, command, data) =>
    Effect.uninterruptibleMask((restore) => {
      const operation = "NvmeController.admin"
      const open = this.find(handle)
      if (open === undefined) return Effect.fail(released(operation, "controller"))
      const { controller } = open
      if (controller.state === "failed" || controller.state === "closed") {
        return Effect.fail(controller.failure(operation))
      }
      if (command.length !== sqeBytes) return Effect.fail(invalid(operation, "command", "is not 64 bytes long"))
      const buffer = data === undefined ? undefined : implOf(data)
      const memory =
        buffer === undefined ? undefined : this.state.slabs.find(buffer.memory.slot, buffer.memory.generation)
      if (buffer !== undefined && memory === undefined) return Effect.fail(released(operation, "buffer"))
      if (memory !== undefined) memory.pins++
      if (buffer !== undefined) buffer.memory.pins++
      const run = controller.admin.run(
        command,
        (sent) => {
          sent.isExact = false
          sent.memory = memory
          sent.dataOffset = buffer?.offsetBytes ?? 0
          sent.lengthBytes = buffer?.lengthBytes ?? 0
        },
        {
          onInterrupt: (sent) => {
            if (sent.state === "waiting") controller.admin.queue.abortWaiting((one) => one === sent)
            else if (sent.commandId >= 0) controller.sendAbort(0, sent.commandId)
          }
        }
      )
      return restore(run).pipe(
        Effect.map((answer) => {
          const bytes = new Uint8Array(cqeBytes)
          completionBytes(answer, bytes, 0)
          return bytes
        }),
        Effect.onExit(() =>
          Effect.sync(() => {
            if (memory !== undefined) this.state.slabs.unpin(memory)
            if (buffer !== undefined) unpin(buffer.memory)
          })
        )
      )
    })

  readonly reset: EngineNvme["reset"] = (handle) =>
    Effect.suspend(() => {
      const open = this.find(handle)
      return open === undefined ? Effect.fail(released("NvmeController.reset", "controller")) : open.controller.reset
    })

  readonly activeNamespaces: EngineNvme["activeNamespaces"] = (handle) =>
    Effect.suspend(() => {
      const open = this.find(handle)
      return open === undefined
        ? Effect.fail(released("NvmeController.namespaces", "controller"))
        : Effect.succeed(open.controller.activeNamespaces)
    })

  readonly openNamespace: EngineNvme["openNamespace"] = (handle, nsid, onEvent) =>
    Effect.gen({ self: this }, function* () {
      const operation = "NvmeController.namespace"
      const open = this.find(handle)
      if (open === undefined) return yield* Effect.fail(released(operation, "controller"))
      const { controller } = open
      const resource = `namespace ${nsid} of ${controller.resource}`
      const missing = () => Effect.fail(new SpdkError({ reason: new NotFound({ operation, resource }) }))
      if (!controller.activeNamespaces.includes(nsid)) return yield* missing()
      const facts = yield* describeNamespace(controller, operation, nsid)
      if (facts === undefined) return yield* missing()
      if (facts.hasMetadata) {
        const detail = "blocks with metadata: the embedded engine has none"
        return yield* Effect.fail(new SpdkError({ reason: new NotSupported({ operation, resource, detail }) }))
      }
      const { identify } = controller.facts ?? {}
      const disk = new NvmeDisk(
        controller,
        facts,
        {
          name: `${controller.transportId.subnqn}n${nsid}`,
          uuid: facts.uuid ?? "",
          productName: "NVMe disk",
          blockSize: facts.blockSizeBytes,
          numBlocks: facts.numBlocks,
          hasWriteCache: identify?.volatileWriteCache.present === 1,
          optimalIoBoundaryBlocks: facts.optimalIoBoundaryBlocks
        },
        ioTypesOf(controller)
      )
      const namespace: OpenNamespace = {
        disk,
        descriptor: this.state.handles.openUnregistered(disk, true, onEvent)
      }
      open.namespaces.add(namespace)
      return namespace.descriptor
    })

  readonly closeNamespace: EngineNvme["closeNamespace"] = (descriptor) =>
    Effect.andThen(
      Effect.suspend(() => this.state.closeBdev(descriptor)),
      Effect.sync(() => {
        for (const { namespaces } of this.controllers.values()) {
          for (const namespace of namespaces) {
            if (namespace.descriptor === descriptor) namespaces.delete(namespace)
          }
        }
      })
    )

  readonly passthru: EngineNvme["passthru"] = (thread, channel, command, data) =>
    Effect.callback((resume) => {
      const operation = "NvmeNamespace.io"
      entry.opcode = Opcode.NvmeIo
      entry.channelSlot = channel.slot
      entry.channelGeneration = channel.generation
      entry.offsetBlocks = 0
      entry.lengthBlocks = 0
      entry.segments = data === undefined ? [implOf(command)] : [implOf(command), implOf(data)]
      let isDone = false
      let whenDone: (() => void) | undefined
      const id = thread.queue.submit(
        entry,
        {
          complete: (_index, status, detail, nvme) => {
            isDone = true
            resume(status === 0 ? Effect.void : Effect.fail(fromCompletion(status, detail, nvme, { operation })))
            whenDone?.()
          }
        },
        0
      )
      return Effect.callback<void>((letGo) => {
        if (isDone) return letGo(Effect.void)
        whenDone = () => letGo(Effect.void)
        thread.queue.abort(id)
      })
    })

  /** The end of the engine: what is still connected. */
  readonly closeAll: Effect.Effect<void> = Effect.suspend(() =>
    Effect.forEach(
      this.controllers.values(),
      ({ controller, namespaces }) => {
        for (const { disk } of namespaces) this.remove(disk)
        return controller.disconnect
      },
      { concurrency: "unbounded", discard: true }
    )
  )

  private opened(controller: HostController): NvmeControllerHandle {
    const open = this.controllers.open((slot, generation) => new OpenController(slot, generation, controller))
    controller.beforeIo = this.compare(open)
    controller.onNamespaces = coalesced(() => this.state.hostContext.reactor.host, this.namespacesChanged(open))
    const { facts, transportId } = controller
    return {
      slot: open.slot,
      generation: open.generation,
      transportId,
      cap: facts?.cap ?? 0n,
      vs: facts?.vs ?? 0,
      ioQueues: facts?.ioQueues ?? 0,
      maxTransferBytes: facts?.maxTransferBytes ?? 0
    }
  }

  private find(handle: NvmeControllerHandle): OpenController | undefined {
    return this.controllers.find(handle.slot, handle.generation)
  }

  /** What is connected now may have other volumes in the places of those that were there: no I/O goes to them. */
  private compare({ controller, namespaces }: OpenController): Effect.Effect<void, SpdkError> {
    return Effect.suspend(() =>
      Effect.forEach(
        [...namespaces].filter(({ disk }) => disk.state === "ready"),
        ({ disk }) =>
          controller.activeNamespaces.includes(disk.nsid)
            ? Effect.map(describeNamespace(controller, "NvmeController.reset", disk.nsid), (facts) => {
                if (facts === undefined || !isSameNamespace(disk.facts, facts)) this.remove(disk)
              })
            : Effect.sync(() => this.remove(disk)),
        { discard: true }
      )
    )
  }

  /** Tells those who hold namespaces what has become of them. */
  private namespacesChanged({ controller, namespaces }: OpenController): Effect.Effect<void> {
    return Effect.suspend(() => {
      const ready = [...namespaces].filter(({ disk }) => disk.state === "ready")
      const active = ready.filter(({ disk }) => controller.activeNamespaces.includes(disk.nsid))
      for (const { disk } of ready.filter((one) => !active.includes(one))) this.remove(disk)
      return Effect.forEach(
        active,
        ({ disk }) =>
          Effect.map(describeNamespace(controller, "NvmeController.events", disk.nsid), (facts) => {
            if (disk.state !== "ready") return
            if (facts === undefined || !isSameNamespace(disk.facts, facts)) this.remove(disk)
            else this.state.registry.resizeTo(disk, facts.numBlocks)
          }).pipe(Effect.ignore),
        { concurrency: "unbounded", discard: true }
      )
    })
  }

  private remove(disk: NvmeDisk): void {
    disk.discard()
    this.state.registry.unregister(disk)
  }
}
