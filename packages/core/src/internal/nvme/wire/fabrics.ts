/**
 * The commands of NVMe over Fabrics, and the properties of a controller that they read and write.
 */
import { isUtf8 } from "node:buffer"
import { setU16, setU32, setU64, getU16, getU32 } from "./bytes.ts"
import { AdminOpcode, Sqe, sqeBytes } from "./command.ts"

export const FabricsType = {
  PropertySet: 0x00,
  Connect: 0x01,
  PropertyGet: 0x04,
  AuthenticationSend: 0x05,
  AuthenticationReceive: 0x06,
  Disconnect: 0x08
} as const

export const Property = { Cap: 0x00, Vs: 0x08, Cc: 0x14, Csts: 0x1c, Nssr: 0x20, Crto: 0x68 } as const

/** What CC and CSTS are made of. */
export const Cc = {
  enable: 0x1,
  shutdownMask: 0xc000,
  /** I/O queue entries of 64 and 16 bytes. */
  entrySizes: (6 << 16) | (4 << 20)
} as const
export const Csts = { ready: 0x1, fatal: 0x2, shutdownMask: 0xc, shutdownComplete: 0x8 } as const

export const connectDataBytes = 1024
const nqnFieldBytes = 256
/** Without the NUL behind it. */
const maxNqnBytes = 223

/** Asks for any controller of the subsystem. */
export const dynamicControllerId = 0xffff

export interface ConnectCommand {
  readonly recordFormat: number
  readonly queueId: number
  /** 0's based. */
  readonly queueSize: number
  readonly attributes: number
  readonly keepAliveMillis: number
}

export interface ConnectData {
  readonly hostId: Uint8Array
  readonly controllerId: number
  readonly subsystemNqn: string
  readonly hostNqn: string
}

/** Offsets of fields for "connect invalid parameters": in the command, or in the data. */
export const ConnectField = {
  recordFormat: 40,
  queueId: 42,
  queueSize: 44,
  keepAlive: 48,
  hostId: 0,
  controllerId: 16,
  subsystemNqn: 256,
  hostNqn: 512
} as const

const fabricsCommand = (type: number): Uint8Array => {
  const bytes = new Uint8Array(sqeBytes)
  bytes[Sqe.opcode] = AdminOpcode.Fabrics
  bytes[Sqe.fabricsType] = type
  return bytes
}

/** Without command id and data pointer, as all of them. */
export const encodeConnect = (command: ConnectCommand): Uint8Array => {
  const bytes = fabricsCommand(FabricsType.Connect)
  setU16(bytes, ConnectField.recordFormat, command.recordFormat)
  setU16(bytes, ConnectField.queueId, command.queueId)
  setU16(bytes, ConnectField.queueSize, command.queueSize)
  bytes[46] = command.attributes
  setU32(bytes, ConnectField.keepAlive, command.keepAliveMillis)
  return bytes
}

export const decodeConnect = (bytes: Uint8Array, at: number): ConnectCommand => ({
  recordFormat: getU16(bytes, at + ConnectField.recordFormat),
  queueId: getU16(bytes, at + ConnectField.queueId),
  queueSize: getU16(bytes, at + ConnectField.queueSize),
  attributes: bytes[at + 46] ?? 0,
  keepAliveMillis: getU32(bytes, at + ConnectField.keepAlive)
})

export const encodeConnectData = (data: ConnectData): Uint8Array => {
  const bytes = new Uint8Array(connectDataBytes)
  bytes.set(data.hostId.subarray(0, 16), ConnectField.hostId)
  setU16(bytes, ConnectField.controllerId, data.controllerId)
  bytes.set(nqnBytes(data.subsystemNqn), ConnectField.subsystemNqn)
  bytes.set(nqnBytes(data.hostNqn), ConnectField.hostNqn)
  return bytes
}

/** The offset of the field at fault when a name is too long, or no text. `bytes` has `connectDataBytes`. */
export const decodeConnectData = (bytes: Uint8Array): ConnectData | number => {
  const subsystemNqn = nqnAt(bytes, ConnectField.subsystemNqn)
  if (subsystemNqn === undefined) return ConnectField.subsystemNqn
  const hostNqn = nqnAt(bytes, ConnectField.hostNqn)
  if (hostNqn === undefined) return ConnectField.hostNqn
  return { hostId: bytes.slice(0, 16), controllerId: getU16(bytes, ConnectField.controllerId), subsystemNqn, hostNqn }
}

const nqnBytes = (nqn: string): Uint8Array => {
  const bytes = new Uint8Array(nqnFieldBytes)
  bytes.set(Buffer.from(nqn, "utf8").subarray(0, maxNqnBytes))
  return bytes
}

const nqnAt = (bytes: Uint8Array, at: number): string | undefined => {
  const field = bytes.subarray(at, at + maxNqnBytes + 1)
  const end = field.indexOf(0)
  // Names that differ must not become one by what cannot be decoded.
  return end === -1 || !isUtf8(field.subarray(0, end))
    ? undefined
    : Buffer.from(field.subarray(0, end)).toString("utf8")
}

/** `is64` is the attribute: 8 bytes instead of 4. */
export const encodePropertyGet = (offset: number, is64: boolean): Uint8Array => {
  const bytes = fabricsCommand(FabricsType.PropertyGet)
  bytes[Sqe.cdw10] = is64 ? 1 : 0
  setU32(bytes, Sqe.cdw11, offset)
  return bytes
}

export const encodePropertySet = (offset: number, value: bigint, is64: boolean): Uint8Array => {
  const bytes = fabricsCommand(FabricsType.PropertySet)
  bytes[Sqe.cdw10] = is64 ? 1 : 0
  setU32(bytes, Sqe.cdw11, offset)
  setU64(bytes, Sqe.cdw12, value)
  return bytes
}

export const propertySizeOf = (bytes: Uint8Array, at: number): number => (bytes[at + Sqe.cdw10] ?? 0) & 0x7
export const propertyOffsetOf = (bytes: Uint8Array, at: number): number => getU32(bytes, at + Sqe.cdw11)

/** The completion of a connect that was refused for a field: its offset, and whether it is one of the data. */
export const connectFaultDword0 = (field: number, isInData: boolean): number => field | (isInData ? 0x10000 : 0)
/** Non-zero when the controller wants the host to authenticate. */
export const connectAuthentication = (dword0: number): number => dword0 >>> 16
