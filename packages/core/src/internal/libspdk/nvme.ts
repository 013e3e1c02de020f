/**
 * SPDK's NVMe driver by way of the addon.
 */
import type { NvmeConnectOptions } from "@effect-spdk/native/Addon"
import type { Host, OnReply, Reply } from "@effect-spdk/native/Host"
import type { HostNvme, NvmeData } from "@effect-spdk/native/HostNvme"
import { Opcode } from "@effect-spdk/native/Layout"
import { type Completion, type Handle, makeEntry, noRequest, type RequestId } from "@effect-spdk/native/Queue"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { DmaBuffer } from "../../DmaBuffer.ts"
import { fromCompletion, fromErrno, type SpdkError } from "../../SpdkError.ts"
import type { Descriptor, DescriptorInfo, Engine, EngineThread } from "../engine/engine.ts"
import type {
  EngineNvme,
  NvmeConnectSettings,
  NvmeControllerEvent,
  NvmeControllerHandle,
  NvmeTransportIdFields
} from "../engine/nvme.ts"
import type { DmaBufferImpl } from "../memory/ioMemory.ts"
import { formatTransportId } from "../nvme/transportId.ts"
import * as Outside from "../engine/outside.ts"
import { connectFailure } from "./connectFailure.ts"
import { discoverTransportIds } from "./nvmeProbe.ts"

/** What the driver needs of the host. */
export interface LibspdkNvmeHost extends Pick<Host, "bdevClose"> {
  readonly nvme: HostNvme
}

/** Uninterruptible: the answer may be a resource, and somebody has to take it. */
const ask = (call: (onReply: OnReply) => void): Effect.Effect<Reply> =>
  Effect.uninterruptible(Effect.callback<Reply>((resume) => call((reply) => resume(Effect.succeed(reply)))))

const failed = (operation: string, resource: string, { status, text }: Reply): SpdkError =>
  fromErrno(status, { operation, resource, detail: text === "" ? undefined : text })

const succeeded = (
  operation: string,
  resource: string,
  call: (onReply: OnReply) => void
): Effect.Effect<Reply, SpdkError> =>
  Effect.flatMap(ask(call), (reply) =>
    reply.status === 0 ? Effect.succeed(reply) : Effect.fail(failed(operation, resource, reply))
  )

/** `engine` is the one that this is a part of, once it is made. */
export const makeNvme = (host: LibspdkNvmeHost, engine: () => Engine): EngineNvme => {
  const nvme: EngineNvme = {
    probe: (transportId, settings) =>
      transportId.trtype === "PCIe"
        ? scan(host.nvme, transportId)
        : discoverTransportIds(engine(), nvme, transportId, settings),
    connect: (transportId, settings, onEvent) => connect(host.nvme, transportId, settings, onEvent),
    disconnect: (controller) => Effect.asVoid(ask((onReply) => host.nvme.call(controller.slot, "disconnect", onReply))),
    admin: (controller, command, data) => admin(host.nvme, controller, command, data),
    reset: (controller) =>
      Effect.asVoid(
        succeeded("NvmeController.reset", formatTransportId(controller.transportId), (onReply) =>
          host.nvme.call(controller.slot, "reset", onReply)
        )
      ),
    activeNamespaces: (controller) =>
      Effect.map(
        succeeded("NvmeController.namespaces", formatTransportId(controller.transportId), (onReply) =>
          host.nvme.call(controller.slot, "namespaces", onReply)
        ),
        // Written by our own addon in this process.
        ({ text }): ReadonlyArray<number> => JSON.parse(text)
      ),
    openNamespace: (controller, nsid, onEvent) => {
      const resource = `${formatTransportId(controller.transportId)} nsid:${nsid}`
      return Effect.map(
        succeeded("NvmeController.namespace", resource, (onReply) =>
          host.nvme.open(controller.slot, nsid, onEvent, onReply)
        ),
        ({ a, text }): Descriptor => {
          // Written by our own addon in this process.
          const info: DescriptorInfo = JSON.parse(text)
          return { slot: a, generation: 1, writable: true, info: { ...info, name: resource } }
        }
      )
    },
    closeNamespace: (descriptor) => Effect.asVoid(ask((onReply) => host.bdevClose(descriptor.slot, onReply))),
    passthru
  }
  return nvme
}

const scan = (
  host: HostNvme,
  transportId: NvmeTransportIdFields
): Effect.Effect<ReadonlyArray<NvmeTransportIdFields>, SpdkError> =>
  Effect.map(
    succeeded("Nvme.probe", formatTransportId(transportId), (onReply) => host.scan(transportId.trtype, onReply)),
    ({ text }) =>
      text
        .split("\n")
        .filter((traddr) => traddr !== "" && (transportId.traddr === "" || traddr === transportId.traddr))
        .map((traddr) => ({ ...transportId, traddr }))
  )

/** A setting that the addon does not have would be accepted and ignored: there is no value for it. */
type NotIgnored = { readonly [K in Exclude<keyof NvmeConnectSettings, keyof NvmeConnectOptions>]: never }

/**
 * For what gives up at once, which is all but a step of the driver that holds its thread. SPDK connects to a discovery controller in
 * one such step; what comes of it is let go when it has ended.
 */
const giveUpMillis = 100

const connect = (
  host: HostNvme,
  transportId: NvmeTransportIdFields,
  settings: NvmeConnectSettings,
  onEvent: (event: NvmeControllerEvent) => void
): Effect.Effect<NvmeControllerHandle, SpdkError> =>
  Effect.callback<NvmeControllerHandle, SpdkError>((resume) => {
    const resource = formatTransportId(transportId)
    let answered = false
    let wanted = true
    const options: NvmeConnectOptions & NotIgnored = {
      ...transportId,
      ...settings,
      adrfam: transportId.adrfam ?? "",
      psk: settings.psk ?? "",
      dhchapKey: settings.dhchapKey ?? "",
      dhchapControllerKey: settings.dhchapControllerKey ?? ""
    }
    let released = (): void => {}
    const id = host.connect(options, onEvent, (reply) => {
      answered = true
      if (!wanted) {
        if (reply.status !== 0) return released()
        // It was through before the driver heard that nobody wants it.
        return host.call(id, "disconnect", () => released())
      }
      resume(
        reply.status === 0
          ? Effect.succeed(handleOf(id, transportId, reply))
          : Effect.fail(connectFailure(reply.status, reply.text, { operation: "Nvme.connect", resource }))
      )
    })
    const letGo = Effect.callback<void>((done) => {
      released = () => done(Effect.void)
      wanted = false
      if (answered) return host.call(id, "disconnect", () => released())
      host.call(id, "giveUp", () => {})
    })
    return Effect.asVoid(Outside.timeoutOption(letGo, giveUpMillis))
  })

interface ControllerFacts {
  /** 64 bits do not fit into a number. */
  readonly cap: string
  readonly vs: number
  readonly ioQueues: number
  readonly maxTransferBytes: number
}

const handleOf = (slot: number, transportId: NvmeTransportIdFields, { text }: Reply): NvmeControllerHandle => {
  // Written by our own addon in this process.
  const { cap, ioQueues, maxTransferBytes, vs }: ControllerFacts = JSON.parse(text)
  return { slot, generation: 1, transportId, cap: BigInt(cap), vs, ioQueues, maxTransferBytes }
}

// Every DmaBuffer is made by this package.
const implOf = (buffer: DmaBuffer): DmaBufferImpl => buffer as DmaBufferImpl

const dataOf = (buffer: DmaBuffer): NvmeData => {
  const { lengthBytes, memory, offsetBytes } = implOf(buffer)
  return { slabSlot: memory.slot, slabGeneration: memory.generation, offsetBytes, lengthBytes }
}

const admin = (
  host: HostNvme,
  controller: NvmeControllerHandle,
  command: Uint8Array,
  data: DmaBuffer | undefined
): Effect.Effect<Uint8Array, SpdkError> =>
  Effect.callback<Uint8Array, SpdkError>((resume) => {
    let onEnd = (reply: Reply): void => {
      resume(
        reply.status === 0 && reply.bytes !== undefined
          ? Effect.succeed(reply.bytes)
          : Effect.fail(failed("NvmeController.admin", formatTransportId(controller.transportId), reply))
      )
    }
    let ended = false
    const request = host.admin(controller.slot, command, data === undefined ? undefined : dataOf(data), (reply) => {
      ended = true
      onEnd(reply)
    })
    return Effect.callback<void>((done) => {
      if (ended) return done(Effect.void)
      // The device may use the memory until then.
      onEnd = () => done(Effect.void)
      host.abort(controller.slot, request)
    })
  })

const entry = makeEntry()

class PassthruCompletion implements Completion {
  private resume: (exit: Effect.Effect<void, SpdkError>) => void
  id: RequestId = 0

  constructor(resume: (exit: Effect.Effect<void, SpdkError>) => void) {
    this.resume = resume
  }

  complete(_index: number, status: number, detail: number, nvme: number): void {
    this.id = noRequest
    this.resume(
      status === 0 ? Exit.void : Effect.fail(fromCompletion(status, detail, nvme, { operation: "NvmeNamespace.io" }))
    )
  }

  /** Asks for an abort, and holds the fiber until the device has let go of the memory. */
  abort(thread: EngineThread): Effect.Effect<void> {
    return Effect.callback<void>((done) => {
      // Looked at here: the fiber may yield before, and the device let go meanwhile.
      if (this.id === noRequest) return done(Effect.void)
      this.resume = () => done(Effect.void)
      thread.queue.abort(this.id)
    })
  }
}

const passthru = (
  thread: EngineThread,
  channel: Handle,
  command: DmaBuffer,
  data: DmaBuffer | undefined
): Effect.Effect<void, SpdkError> =>
  Effect.callback<void, SpdkError>((resume) => {
    const first = implOf(command)
    entry.opcode = Opcode.NvmeIo
    entry.channelSlot = channel.slot
    entry.channelGeneration = channel.generation
    entry.slabSlot = 0
    entry.slabGeneration = 0
    entry.slabOffset = 0
    entry.offsetBlocks = 0
    entry.lengthBlocks = 0
    entry.segments = data === undefined ? [first] : [first, implOf(data)]
    const completion = new PassthruCompletion(resume)
    completion.id = thread.queue.submit(entry, completion, 0)
    entry.segments = undefined
    return Effect.suspend(() => completion.abort(thread))
  })
