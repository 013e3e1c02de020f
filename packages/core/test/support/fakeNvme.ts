/**
 * An NVMe driver whose controller is the test: what it answers to which command, and what it reports, is up to the test. For
 * controllers that lie, and for moments that no real one can be brought to at will.
 */
import type { DmaBuffer } from "@effect-spdk/core/DmaBuffer"
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type { Engine } from "../../src/internal/engine/engine.ts"
import type {
  EngineNvme,
  NvmeConnectSettings,
  NvmeControllerEvent,
  NvmeControllerHandle,
  NvmeTransportIdFields
} from "../../src/internal/engine/nvme.ts"
import { EngineService } from "../../src/internal/engine/service.ts"
import { encodeNamespaceList, identifyController, identifyNamespace } from "../../src/internal/nvme/wire/identify.ts"
import type { DescriptorEvent } from "../../src/internal/engine/engine.ts"
import { SpdkError } from "../../src/SpdkError.ts"
import { FakeEngine } from "./fakeEngine.ts"

export interface FakeCommand {
  readonly opcode: number
  readonly nsid: number
  readonly cdw10: number
  readonly cdw11: number
  readonly offsetBytes: number
  /** What the command reads or writes. */
  readonly bytes: Uint8Array
}

/** Status type and code in one number, and dword 0. */
export interface FakeAnswer {
  readonly status?: number
  readonly dword0?: number
}

export const commandOf = (command: Uint8Array, data: DmaBuffer | undefined): FakeCommand => {
  const view = new DataView(command.buffer, command.byteOffset, command.byteLength)
  return {
    opcode: view.getUint8(0),
    nsid: view.getUint32(4, true),
    cdw10: view.getUint32(40, true),
    cdw11: view.getUint32(44, true),
    offsetBytes: view.getUint32(48, true),
    bytes: data === undefined ? new Uint8Array(0) : data.bytes
  }
}

const completion = ({ dword0 = 0, status = 0 }: FakeAnswer): Uint8Array => {
  const bytes = new Uint8Array(16)
  const view = new DataView(bytes.buffer)
  view.setUint32(0, dword0, true)
  view.setUint16(14, status << 1, true)
  return bytes
}

export class FakeNvme implements EngineNvme {
  readonly log: Array<string> = []
  readonly admins: Array<FakeCommand> = []
  readonly ios: Array<FakeCommand> = []
  settings: NvmeConnectSettings | undefined
  namespaceIds: ReadonlyArray<number> = [1]
  probed: ReadonlyArray<NvmeTransportIdFields> = []
  maxTransferBytes = 131_072
  onConnect: Effect.Effect<void, SpdkError> = Effect.void
  onReset: Effect.Effect<void, SpdkError> = Effect.void
  onDisconnect: Effect.Effect<void> = Effect.void
  onAdmin: Effect.Effect<void> = Effect.void
  onOpenNamespace: Effect.Effect<void> = Effect.void
  answer: (command: FakeCommand) => FakeAnswer = (command) => this.identify(command)
  answerIo: (command: FakeCommand) => FakeAnswer = () => ({})
  tell: (event: NvmeControllerEvent) => void = () => {}
  tellNamespace: (event: DescriptorEvent) => void = () => {}
  private slots = 0

  /** A controller like any. */
  readonly identify = ({ bytes, cdw10, opcode }: FakeCommand): FakeAnswer => {
    if (opcode !== 0x06) return { status: 0x001 }
    const cns = cdw10 & 0xff
    if (cns === 0)
      bytes.set(identifyNamespace.encode({ numBlocks: 2048n, lbaFormatDescriptors: [{ blockSizeExponent: 9 }] }))
    else if (cns === 1) bytes.set(identifyController.encode({ serialNumber: "FAKE", anaGroups: 4, maxNamespaceId: 8 }))
    else if (cns === 2) bytes.set(encodeNamespaceList(this.namespaceIds))
    else return { status: 0x002 }
    return {}
  }

  readonly probe: EngineNvme["probe"] = () => Effect.sync(() => this.probed)

  readonly connect: EngineNvme["connect"] = (transportId, settings, onEvent) =>
    Effect.map(
      Effect.suspend(() => this.onConnect),
      (): NvmeControllerHandle => {
        this.log.push("connect")
        this.settings = settings
        this.tell = onEvent
        return {
          slot: ++this.slots,
          generation: 1,
          transportId,
          // 128 entries, contiguous queues, ready within 15 seconds, pages of 4 KiB.
          cap: 0x20_1e01_007fn,
          vs: 0x10400,
          ioQueues: 4,
          maxTransferBytes: this.maxTransferBytes
        }
      }
    )

  readonly disconnect: EngineNvme["disconnect"] = () => Effect.andThen(this.note("disconnect"), this.onDisconnect)

  readonly admin: EngineNvme["admin"] = (_controller, command, data) =>
    Effect.suspend(() => {
      // As a device, it has the memory from here on.
      const decoded = commandOf(command, data)
      this.admins.push(decoded)
      return Effect.map(this.onAdmin, () => completion(this.answer(decoded)))
    })

  readonly reset: EngineNvme["reset"] = () => Effect.andThen(this.note("reset"), this.onReset)

  readonly activeNamespaces: EngineNvme["activeNamespaces"] = () => Effect.sync(() => this.namespaceIds)

  readonly openNamespace: EngineNvme["openNamespace"] = (_controller, nsid, onEvent) =>
    Effect.map(
      Effect.suspend(() => this.onOpenNamespace),
      () => {
        this.log.push(`open ${nsid}`)
        this.tellNamespace = onEvent
        return {
          slot: ++this.slots,
          generation: 1,
          writable: true,
          info: {
            name: `fake ${nsid}`,
            productName: "Fake namespace",
            blockSizeBytes: 512,
            numBlocks: 2048,
            bufferAlignmentBytes: 4,
            writeUnitBlocks: 1,
            optimalIoBoundaryBlocks: 0,
            hasWriteCache: false,
            supportedIoTypes: ["read", "write", "flush", "unmap", "write_zeroes"]
          }
        }
      }
    )

  readonly closeNamespace: EngineNvme["closeNamespace"] = () => this.note("close")

  readonly passthru: EngineNvme["passthru"] = (_thread, _channel, command, data) =>
    Effect.sync(() => {
      const decoded = commandOf(command.bytes, data)
      this.ios.push({ ...decoded, bytes: decoded.bytes.slice() })
      command.bytes.set(completion(this.answerIo(decoded)))
    })

  private readonly note = (event: string) => Effect.sync(() => void this.log.push(event))
}

/** Runs a test with a fake driver on a fake engine. */
export const withFakeNvme = <A, E, R>(test: (nvme: FakeNvme, engine: FakeEngine) => Effect.Effect<A, E, R>) =>
  Effect.suspend(() => {
    const nvme = new FakeNvme()
    const engine: FakeEngine & Engine = Object.assign(new FakeEngine(), { nvme })
    return Effect.provideService(Effect.scoped(test(nvme, engine)), EngineService, engine)
  })

export const somewhere = "trtype:TCP traddr:192.0.2.1 trsvcid:4420 subnqn:nqn.2016-06.io.spdk:fake"

export const reasonOf = <A, E, R>(effect: Effect.Effect<A, SpdkError | E, R>) =>
  Effect.map(Effect.flip(effect), (error) => {
    if (!(error instanceof SpdkError)) assert.fail(String(error))
    return error.reason
  })

/** An entry of a discovery log. */
export const entry = (name: string) => ({
  trtype: 3,
  adrfam: 1,
  subtype: 2,
  traddr: "192.0.2.9",
  trsvcid: "4420",
  subnqn: `nqn.2016-06.io.spdk:${name}`
})
