/**
 * The waist of NVMe: what an engine's driver must offer so that the public `Nvme` module works on it. In libspdk it is
 * lib/nvme by way of the addon, in the embedded engine a host for NVMe/TCP in TypeScript.
 *
 * Commands and completions cross as their bytes, in the layout of the NVMe Base specification, little endian; whoever is
 * above encodes and decodes them. Everything here runs on the JS thread.
 */
import type { Handle } from "@effect-spdk/native/Queue"
import type * as Effect from "effect/Effect"
import type { SpdkError } from "../../SpdkError.ts"
import type { Descriptor, DescriptorEvent, EngineThread } from "./engine.ts"
import type { DmaBuffer } from "../../DmaBuffer.ts"

/** A transport id in SPDK's words: what `spdk_nvme_transport_id` holds. */
export interface NvmeTransportIdFields {
  readonly trtype: "PCIe" | "TCP" | "RDMA" | "VFIOUSER"
  /** Undefined for PCIe and vfio-user. */
  readonly adrfam: "IPv4" | "IPv6" | "IB" | "FC" | "Intra_Host" | undefined
  readonly traddr: string
  readonly trsvcid: string
  readonly subnqn: string
  readonly priority: number
}

/** All resolved: defaults are set by the layer above. Sizes in entries, times in milliseconds. */
export interface NvmeConnectSettings {
  readonly hostnqn: string
  /** 16 bytes. */
  readonly hostId: Uint8Array
  /** "" lets the system choose. */
  readonly sourceAddress: string
  readonly sourcePort: string
  readonly ioQueues: number
  readonly ioQueueSize: number
  readonly adminQueueSize: number
  /** 0: no keep-alive. */
  readonly keepAliveMillis: number
  /** For everything up to the controller being ready; 0: no limit. */
  readonly connectTimeoutMillis: number
  /** How long the device may take for a command of the admin queue before the connection is given up; 0: for ever. */
  readonly adminTimeoutMillis: number
  /** The same for a command of an I/O queue. */
  readonly ioTimeoutMillis: number
  readonly headerDigest: boolean
  readonly dataDigest: boolean
  /** Attempts at a command that the device asks to try again. */
  readonly retries: number
  /** Names of keys in the keyring; undefined: none. */
  readonly psk: string | undefined
  readonly dhchapKey: string | undefined
  readonly dhchapControllerKey: string | undefined
}

/** One command of a queue: 64 bytes. The engine sets the command id and the data pointer, and nothing else. */
export type NvmeCommandBytes = Uint8Array

/** A completion: 16 bytes. A status in them is an answer, not a failure of the Effect. */
export type NvmeCompletionBytes = Uint8Array

export type NvmeControllerEvent =
  /** The completion of an asynchronous event request; the engine has asked for the next one already. */
  | { readonly _tag: "AsyncEvent"; readonly dword0: number }
  /** The connection is lost and what was in flight has been answered. Only `reset` (connects again) and `disconnect` make sense. */
  | { readonly _tag: "Failed"; readonly message: string }
  /** Removed from the machine (hotplug). Only `disconnect` makes sense. */
  | { readonly _tag: "Removed" }

export interface NvmeControllerHandle extends Handle {
  readonly transportId: NvmeTransportIdFields
  /** Controller capabilities (CAP), version (VS). */
  readonly cap: bigint
  readonly vs: number
  /** As granted by the controller. */
  readonly ioQueues: number
  /** The most that one command may carry. */
  readonly maxTransferBytes: number
}

export interface EngineNvme {
  /** Transport ids of what can be connected to: PCIe devices, or what the discovery controller at this address knows. */
  readonly probe: (
    transportId: NvmeTransportIdFields,
    settings: NvmeConnectSettings
  ) => Effect.Effect<ReadonlyArray<NvmeTransportIdFields>, SpdkError>
  /**
   * Connects and initialises: fabrics connect, enable, identify, keep-alive, number of queues, asynchronous events. Interruption
   * and the time limit give up at once, on libspdk within 100 ms; what the driver still holds goes when the target answers or its own limit ends.
   * `onEvent` may run before this has ended.
   */
  readonly connect: (
    transportId: NvmeTransportIdFields,
    settings: NvmeConnectSettings,
    onEvent: (event: NvmeControllerEvent) => void
  ) => Effect.Effect<NvmeControllerHandle, SpdkError>
  /** Closes what is left of it: namespaces, queue pairs. Waits for requests in flight, or ends them. Idempotent. */
  readonly disconnect: (controller: NvmeControllerHandle) => Effect.Effect<void>
  /**
   * A command of the admin queue. `data` is what it reads or writes, which the two low bits of the opcode say. Interruption
   * asks for an abort and waits for the completion.
   */
  readonly admin: (
    controller: NvmeControllerHandle,
    command: NvmeCommandBytes,
    data: DmaBuffer | undefined
  ) => Effect.Effect<NvmeCompletionBytes, SpdkError>
  /** Resets the controller, or connects again. I/O in flight is answered as aborted; queue pairs come back by themselves. */
  readonly reset: (controller: NvmeControllerHandle) => Effect.Effect<void, SpdkError>
  /** Ids of the active namespaces, as of the last identify; a namespace-attribute event brings it up to date. */
  readonly activeNamespaces: (controller: NvmeControllerHandle) => Effect.Effect<ReadonlyArray<number>, SpdkError>
  /**
   * A namespace as a descriptor: `Engine.openChannel` makes a queue pair on a thread, polled there, and requests in blocks go
   * through the ring as a bdev's do. Several opens of one namespace are several descriptors.
   */
  readonly openNamespace: (
    controller: NvmeControllerHandle,
    nsid: number,
    onEvent: (event: DescriptorEvent) => void
  ) => Effect.Effect<Descriptor, SpdkError>
  /** Waits for its channels to close. Idempotent. */
  readonly closeNamespace: (descriptor: Descriptor) => Effect.Effect<void>
  /**
   * Any I/O command by the channel's queue pair (`Opcode.NvmeIo` in the ring): one or two segments, the first one the 64 bytes of
   * the command, over whose first 16 the completion is written; the second one its data.
   */
  readonly passthru: (
    thread: EngineThread,
    channel: Handle,
    command: DmaBuffer,
    data: DmaBuffer | undefined
  ) => Effect.Effect<void, SpdkError>
}
