/** A host of an NVMe/TCP target that sends what it is told to, right or wrong, and an embedded target for it. */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as net from "node:net"
import { setU16, setU32, setU64, getU16, getU32 } from "../../src/internal/nvme/wire/bytes.ts"
import { Sqe, sqeBytes, writeSgl } from "../../src/internal/nvme/wire/command.ts"
import {
  Cc,
  dynamicControllerId,
  encodeConnect,
  encodeConnectData,
  encodePropertySet,
  Property
} from "../../src/internal/nvme/wire/fabrics.ts"
import {
  capsuleCmdBytes,
  encodeIcReq,
  PduFlag,
  PduType,
  plainFormat,
  shortHeaderBytes,
  termFatalError,
  writeCapsuleCmd,
  writeDataHeader
} from "../../src/internal/nvme/wire/pdu.ts"
import { makeEngine } from "./embeddedEngine.ts"
import { deadlineIn } from "./deadline.ts"

export const nqn = "nqn.2024-01.io.x:s1"
export const hostNqn = "nqn.2024-01.io.x:host"

/** A port that nobody listens on now. */
export const freePort = Effect.callback<number>((resume) => {
  const server = net.createServer()
  server.listen(0, "127.0.0.1", () => {
    const address = server.address()
    server.close(() => resume(Effect.succeed(typeof address === "object" && address !== null ? address.port : 0)))
  })
})

/** An embedded engine that exports the malloc bdev M0 of 1 MiB, or the bdev of this name that `more` has made on M0. */
export const makeTarget = (
  options: {
    readonly bdev?: readonly [name: string, method: string, params: object]
    /** Of `nvmf_create_transport`. */
    readonly transport?: object
  } = {}
) =>
  Effect.gen(function* () {
    const { rpc } = yield* makeEngine({ memoryMiB: 256 })
    const port = yield* freePort
    yield* rpc.call("bdev_malloc_create", { name: "M0", num_blocks: 2048, block_size: 512 })
    const [bdevName = "M0", method, params] = options.bdev ?? []
    if (method !== undefined) yield* rpc.call(method, { ...params })
    yield* rpc.call("nvmf_create_transport", { trtype: "TCP", ...options.transport })
    yield* rpc.call("nvmf_create_subsystem", { nqn, allow_any_host: true })
    yield* rpc.call("nvmf_subsystem_add_ns", { nqn, namespace: { bdev_name: bdevName } })
    const listen_address = { trtype: "TCP", adrfam: "IPv4", traddr: "127.0.0.1", trsvcid: String(port) }
    yield* rpc.call("nvmf_subsystem_add_listener", { nqn, listen_address })
    return { port, rpc }
  })

export const icReq = encodeIcReq({ version: 0, alignment: 0, headerDigest: false, dataDigest: false, maxR2t: 1 })

/** A capsule, with the data in it. */
export const capsule = (sqe: Uint8Array, data: Uint8Array = new Uint8Array(0)): Uint8Array => {
  const bytes = new Uint8Array(capsuleCmdBytes + data.length)
  bytes.set(sqe, 8)
  bytes.set(data, writeCapsuleCmd(bytes, 0, plainFormat, data.length))
  return bytes
}

export interface CommandFields {
  readonly opcode: number
  readonly commandId: number
  readonly nsid?: number
  readonly firstBlock?: number
  readonly blocks?: number
  readonly dword10?: number
  readonly lengthBytes?: number
}

/** A command whose data goes by data PDUs. */
export const command = (fields: CommandFields): Uint8Array => {
  const { blocks = 1, commandId, dword10, firstBlock = 0, lengthBytes = blocks * 512, nsid = 1, opcode } = fields
  const sqe = new Uint8Array(sqeBytes)
  sqe[Sqe.opcode] = opcode
  setU16(sqe, Sqe.commandId, commandId)
  setU32(sqe, Sqe.nsid, nsid)
  writeSgl(sqe, 0, 0x5a, lengthBytes)
  setU64(sqe, Sqe.cdw10, BigInt(firstBlock))
  setU16(sqe, Sqe.cdw12, blocks - 1)
  if (dword10 !== undefined) setU32(sqe, Sqe.cdw10, dword10)
  return sqe
}

export interface TransferFields {
  readonly commandId: number
  readonly transferTag: number
  readonly offsetBytes?: number
  readonly isLast?: boolean
}

export const h2cData = (fields: TransferFields, data: Uint8Array): Uint8Array => {
  const { commandId, isLast = true, offsetBytes = 0, transferTag } = fields
  const bytes = new Uint8Array(shortHeaderBytes + data.length)
  const transfer = { commandId, transferTag, offsetBytes, lengthBytes: data.length }
  const flags = isLast ? PduFlag.Last : 0
  bytes.set(data, writeDataHeader(bytes, 0, plainFormat, { type: PduType.H2cData, flags, transfer }))
  return bytes
}

/** Waits for it, by the real clock: sockets know no other. */
export const until = (what: string, holds: () => Effect.Effect<boolean, unknown> | boolean) =>
  Effect.gen(function* () {
    const isOver = deadlineIn(20_000)
    for (;;) {
      const answer = holds()
      if (typeof answer === "boolean" ? answer : yield* Effect.orDie(answer)) return
      if (isOver()) throw new Error(`waited too long for: ${what}`)
      yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 2)))
    }
  })

/** What the target has said. */
export interface Said {
  readonly type: number
  readonly commandId: number
  /** Of a response: type and code without phase and more; of a termination request: its FES. */
  readonly status: number
  /** Of a response: the command is not to be sent again. */
  readonly isFinal: boolean
  readonly dword0: number
  /** Of a response. */
  readonly sqHead: number
  readonly transferTag: number
  readonly lengthBytes: number
  readonly data: Uint8Array
}

const saidOf = (bytes: Uint8Array): Said => {
  const type = bytes[0] ?? 0
  const isResponse = type === PduType.CapsuleResp
  return {
    type,
    commandId: getU16(bytes, isResponse ? 20 : 8),
    status: isResponse ? (getU16(bytes, 22) >>> 1) & 0x7ff : termFatalError(bytes, 0),
    isFinal: isResponse && (getU16(bytes, 22) & 0x8000) !== 0,
    dword0: getU32(bytes, 8),
    sqHead: isResponse ? getU16(bytes, 16) : 0,
    transferTag: getU16(bytes, 10),
    lengthBytes: getU32(bytes, 16),
    data: bytes.slice(bytes[3] ?? 0, getU32(bytes, 4))
  }
}

/** One connection. */
export class RawHost {
  readonly socket: net.Socket
  isEnded = false
  private buffer: Uint8Array = new Uint8Array(0)
  private readonly pdus: Array<Said> = []
  private wake = (): void => {}

  constructor(socket: net.Socket) {
    this.socket = socket
    socket.on("data", (chunk: Buffer) => this.take(chunk))
    socket.on("error", () => {})
    socket.on("close", () => {
      this.isEnded = true
      this.wake()
    })
  }

  send(...pieces: ReadonlyArray<Uint8Array>): void {
    this.socket.write(Buffer.concat(pieces))
  }

  /** The next PDU, or undefined when the target has hung up. */
  readonly next: Effect.Effect<Said | undefined> = Effect.callback((resume) => {
    const look = (): boolean => {
      const pdu = this.pdus.shift()
      if (pdu === undefined && !this.isEnded) return false
      this.wake = () => {}
      resume(Effect.succeed(pdu))
      return true
    }
    if (!look()) this.wake = () => void look()
  })

  /** The next PDU is a response; what it says. */
  readonly response: Effect.Effect<Said> = Effect.map(this.next, (pdu) => {
    if (pdu?.type !== PduType.CapsuleResp) throw new Error(`no response, but ${JSON.stringify(pdu)}`)
    return pdu
  })

  /** Reads until the target has hung up; the FES of its termination request, 0 without one. */
  readonly ended: Effect.Effect<number> = Effect.gen({ self: this }, function* () {
    let fatalError = 0
    for (let pdu = yield* this.next; pdu !== undefined; pdu = yield* this.next) {
      if (pdu.type === PduType.C2hTermReq) fatalError = pdu.status
    }
    return fatalError
  })

  private take(chunk: Uint8Array): void {
    let bytes = this.buffer.length === 0 ? chunk : Buffer.concat([this.buffer, chunk])
    while (bytes.length >= 8 && bytes.length >= getU32(bytes, 4)) {
      this.pdus.push(saidOf(bytes))
      bytes = bytes.subarray(getU32(bytes, 4))
    }
    this.buffer = bytes
    this.wake()
  }
}

/** A connection that has said nothing. */
export const dial = (port: number): Effect.Effect<RawHost, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<RawHost>((resume) => {
      const socket = net.connect(port, "127.0.0.1", () => resume(Effect.succeed(new RawHost(socket))))
    }),
    ({ socket }) => Effect.sync(() => void socket.destroy())
  )

export const initialized = (port: number) =>
  Effect.gen(function* () {
    const host = yield* dial(port)
    host.send(icReq)
    const said = yield* host.next
    if (said?.type !== PduType.IcResp) throw new Error("no ICResp")
    return host
  })

export interface QueueFields {
  readonly queueId?: number
  readonly queueSize?: number
  readonly controllerId?: number
  readonly keepAliveMillis?: number
  readonly subsystemNqn?: string
}

/** A connected queue and the id of its controller. */
export const connected = (port: number, fields: QueueFields = {}) =>
  Effect.gen(function* () {
    const { keepAliveMillis = 0, queueId = 0, queueSize = 31, subsystemNqn = nqn } = fields
    const host = yield* initialized(port)
    const sqe = encodeConnect({ recordFormat: 0, queueId, queueSize, attributes: 0, keepAliveMillis })
    writeSgl(sqe, 0, 0x01, 1024)
    const controllerId = fields.controllerId ?? dynamicControllerId
    host.send(
      capsule(sqe, encodeConnectData({ hostId: new Uint8Array(16).fill(7), controllerId, subsystemNqn, hostNqn }))
    )
    const { dword0, status } = yield* host.response
    if (status !== 0) throw new Error(`connect: status ${status.toString(16)}`)
    return { host, controllerId: dword0 & 0xffff }
  })

/** An enabled controller with one I/O queue. */
export const withQueue = (port: number, fields: QueueFields = {}) =>
  Effect.gen(function* () {
    const { keepAliveMillis = 0, queueSize = 31, subsystemNqn = nqn } = fields
    const { controllerId, host: admin } = yield* connected(port, { keepAliveMillis, subsystemNqn })
    const enable = encodePropertySet(Property.Cc, BigInt(Cc.enable | Cc.entrySizes), false)
    admin.send(capsule(enable))
    const { status } = yield* admin.response
    if (status !== 0) throw new Error(`enable: status ${status.toString(16)}`)
    const { host: io } = yield* connected(port, { queueId: 1, queueSize, controllerId, subsystemNqn })
    return { admin, io, controllerId }
  })
