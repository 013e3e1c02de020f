/** The part of a `Host` that drives NVMe controllers. Answers and events arrive through the host. */
import type { Addon, AddonEvent, NvmeConnectOptions } from "./Addon.ts"
import type { DeviceEvent, OnReply } from "./Host.ts"

/** The event codes in `AddonEvent.a`. */
const NvmeEventCode = { Async: 0, Failed: 1, Removed: 2 } as const

export type NvmeEvent =
  | { readonly _tag: "AsyncEvent"; readonly dword0: number }
  | { readonly _tag: "Failed"; readonly message: string }
  | { readonly _tag: "Removed" }

/** The data that an admin command reads or writes. */
export interface NvmeData {
  readonly slabSlot: number
  readonly slabGeneration: number
  readonly offsetBytes: number
  readonly lengthBytes: number
}

export type NvmeCall = "giveUp" | "disconnect" | "reset" | "namespaces"

export class HostNvme {
  private readonly addon: Addon
  private readonly ask: (onReply: OnReply) => number
  private readonly devices: Map<number, (event: DeviceEvent) => void>
  private readonly controllers = new Map<number, (event: NvmeEvent) => void>()

  constructor(addon: Addon, ask: (onReply: OnReply) => number, devices: Map<number, (event: DeviceEvent) => void>) {
    this.addon = addon
    this.ask = ask
    this.devices = devices
  }

  /**
   * Returns the controller's number. `call` with "giveUp" takes it even before the answer. reply.text: the description
   * as JSON, or the reason of the failure.
   */
  connect(options: NvmeConnectOptions, onEvent: (event: NvmeEvent) => void, onReply: OnReply): number {
    let id = 0
    const request = this.ask((reply) => {
      if (reply.status !== 0) this.controllers.delete(id)
      onReply(reply)
    })
    id = this.addon.nvmeConnect(request, options)
    this.controllers.set(id, onEvent)
    return id
  }

  /** "namespaces" answers with JSON in reply.text. */
  call(controller: number, name: NvmeCall, onReply: OnReply): void {
    const request = this.ask((reply) => {
      if (name === "disconnect") this.controllers.delete(controller)
      onReply(reply)
    })
    this.addon.nvmeCall(request, controller, name)
  }

  /** reply.a: the namespace, which `Host.bdevClose` closes; reply.text: its description as JSON. */
  open(controller: number, nsid: number, onEvent: (event: DeviceEvent) => void, onReply: OnReply): void {
    const request = this.ask((reply) => {
      if (reply.status === 0) this.devices.set(reply.a, onEvent)
      onReply(reply)
    })
    this.addon.nvmeOpen(request, controller, nsid)
  }

  /** Returns the number that `abort` takes. reply.bytes: the completion. */
  admin(controller: number, command: Uint8Array, data: NvmeData | undefined, onReply: OnReply): number {
    const request = this.ask(onReply)
    const { lengthBytes, offsetBytes, slabGeneration, slabSlot } = data ?? noData
    this.addon.nvmeAdmin(request, controller, command, slabSlot, slabGeneration, offsetBytes, lengthBytes)
    return request
  }

  abort(controller: number, request: number): void {
    this.addon.nvmeAbort(controller, request)
  }

  /** reply.text: the addresses of this machine's devices, one per line. */
  scan(trtype: string, onReply: OnReply): void {
    this.addon.nvmeScan(this.ask(onReply), trtype)
  }

  deliver({ a, b, id, text }: AddonEvent): void {
    const onEvent = this.controllers.get(id)
    switch (a) {
      case NvmeEventCode.Async:
        onEvent?.({ _tag: "AsyncEvent", dword0: b })
        return
      case NvmeEventCode.Failed:
        onEvent?.({ _tag: "Failed", message: text })
        return
      case NvmeEventCode.Removed:
        onEvent?.({ _tag: "Removed" })
        return
    }
  }
}

const noData: NvmeData = { slabSlot: 0, slabGeneration: 0, offsetBytes: 0, lengthBytes: 0 }
