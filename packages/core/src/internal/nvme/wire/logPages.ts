/**
 * Log pages: NVMe Base specification 2.1, section 5.1.12, and the discovery log page of section 5.1.12.3.1. Encoded by the
 * embedded target, decoded by every host.
 */
import * as Result from "effect/Result"
import {
  array,
  ascii,
  type DecodedOf,
  flags,
  type InputOf,
  type Malformed,
  malformed,
  padded,
  ranges,
  struct,
  u128,
  u16,
  u32,
  u64,
  u8,
  utf8,
  viewOf
} from "./struct.ts"

/** Log page identifiers (LID). */
export const LogPageId = {
  supported: 0x00,
  error: 0x01,
  health: 0x02,
  firmware: 0x03,
  changedNamespaces: 0x04,
  commandEffects: 0x05,
  selfTest: 0x06,
  ana: 0x0c,
  discovery: 0x70,
  reservation: 0x80
} as const

/** The NSID for no namespace, or for all namespaces. */
export const allNamespaces = 0xffff_ffff

const errorEntry = struct("an entry of the error log", 64, {
  /** Counts all errors of the controller's life. 0 marks an unused entry. */
  errorCount: u64(0),
  submissionQueueId: u16(8),
  commandId: u16(10),
  /** As in the completion: bit 0 is the phase, then SC, SCT, CRD, more, do not retry. */
  status: ranges(u16(12), { phase: [0, 1], sc: [1, 8], sct: [9, 3], retryDelay: [12, 2], more: [14, 1], dnr: [15, 1] }),
  /** Byte and bit of the command. 0xffff when there is none. */
  parameterLocation: u16(14),
  lba: u64(16),
  nsid: u32(24),
  vendorLogPage: u8(28),
  transportType: u8(29),
  commandSpecific: u64(32),
  transportSpecific: u16(40)
})

export const errorEntryBytes = errorEntry.lengthBytes
export type ErrorLogEntry = DecodedOf<typeof errorEntry>

/** All used entries, newest first. */
export const decodeErrorLog = (bytes: Uint8Array): Result.Result<ReadonlyArray<ErrorLogEntry>, Malformed> => {
  const entries: Array<ErrorLogEntry> = []
  for (let at = 0; at + errorEntryBytes <= bytes.byteLength; at += errorEntryBytes) {
    const entry = Result.getOrThrow(errorEntry.decode(bytes.subarray(at)))
    if (entry.errorCount !== 0n) entries.push(entry)
  }
  return Result.succeed(entries)
}

export const encodeErrorEntry = (entry: InputOf<typeof errorEntry>): Uint8Array<ArrayBuffer> => errorEntry.encode(entry)

export const healthLog = struct("the health log page", 512, {
  criticalWarning: flags(u8(0), {
    spareBelowThreshold: 0,
    temperature: 1,
    reliabilityDegraded: 2,
    readOnly: 3,
    volatileMemoryBackupFailed: 4,
    persistentMemoryReadOnly: 5
  }),
  /** 0: no sensor. */
  temperatureKelvin: u16(1),
  availableSparePercent: u8(3),
  availableSpareThresholdPercent: u8(4),
  /** Percentage of the life that the vendor expects. May exceed 100. */
  percentageUsed: u8(5),
  /** In thousands of 512 bytes, rounded up. */
  dataUnitsRead: u128(32),
  dataUnitsWritten: u128(48),
  hostReadCommands: u128(64),
  hostWriteCommands: u128(80),
  controllerBusyMinutes: u128(96),
  powerCycles: u128(112),
  powerOnHours: u128(128),
  unsafeShutdowns: u128(144),
  mediaErrors: u128(160),
  errorLogEntries: u128(176),
  warningTemperatureMinutes: u32(192),
  criticalTemperatureMinutes: u32(196),
  /** 0: no sensor. */
  temperatureSensorsKelvin: array(8, u16(200))
})
export type HealthLog = DecodedOf<typeof healthLog>

export const firmwareLog = struct("the firmware slot log page", 512, {
  /** AFI. Slots count from 1. `nextReset` 0: no change. */
  slots: ranges(u8(0), { active: [0, 3], nextReset: [4, 3] }),
  /** The revisions in slots 1 to 7. Empty for an unused slot. */
  revisions: array(7, ascii(8, 8))
})
export type FirmwareLog = DecodedOf<typeof firmwareLog>

/** The namespaces that changed since the last read of the log. */
export interface ChangedNamespaces {
  /** Empty with `overflow`. */
  readonly namespaceIds: ReadonlyArray<number>
  /** More than 1,024 namespaces have changed. Read all of them. */
  readonly overflow: boolean
}

export const changedNamespacesBytes = 4096

export const decodeChangedNamespaces = (bytes: Uint8Array): Result.Result<ChangedNamespaces, Malformed> => {
  const where = "the log page of changed namespaces"
  if (bytes.byteLength < changedNamespacesBytes)
    return malformed(where, `has ${bytes.byteLength} bytes instead of 4096`)
  const view = viewOf(bytes)
  if (view.getUint32(0, true) === allNamespaces) return Result.succeed({ namespaceIds: [], overflow: true })
  const namespaceIds: Array<number> = []
  for (let at = 0; at < changedNamespacesBytes; at += 4) {
    const id = view.getUint32(at, true)
    if (id === 0) break
    namespaceIds.push(id)
  }
  return Result.succeed({ namespaceIds, overflow: false })
}

export const encodeChangedNamespaces = (namespaceIds: ReadonlyArray<number>): Uint8Array<ArrayBuffer> => {
  const bytes = new Uint8Array(changedNamespacesBytes)
  const view = viewOf(bytes)
  if (namespaceIds.length > changedNamespacesBytes / 4) view.setUint32(0, allNamespaces, true)
  else namespaceIds.forEach((id, i) => view.setUint32(4 * i, id, true))
  return bytes
}

const commandEffect = (offset: number) =>
  ranges(u32(offset), {
    /** CSUPP: the command is supported. */
    supported: [0, 1],
    /** LBCC: the command may change the content of blocks. */
    changesBlocks: [1, 1],
    /** NCC */
    changesNamespace: [2, 1],
    /** NIC */
    changesNamespaceInventory: [3, 1],
    /** CCC */
    changesController: [4, 1],
    /** CSE: 0 no restriction, 1 alone on its namespace, 2 alone on the controller. */
    submission: [16, 3],
    /** USS */
    uuidSelection: [19, 1],
    /** CSP: the scope of the command. */
    namespaceScope: [20, 1],
    controllerScope: [21, 1],
    nvmSetScope: [22, 1],
    enduranceGroupScope: [23, 1],
    domainScope: [24, 1],
    subsystemScope: [25, 1]
  })

export const commandEffectsLog = struct("the log page of command effects", 4096, {
  /** By opcode. */
  admin: array(256, commandEffect(0)),
  io: array(256, commandEffect(1024))
})
export type CommandEffectsLog = DecodedOf<typeof commandEffectsLog>

/** Asymmetric Namespace Access: the state of the access from this controller to a group of namespaces. */
export type AnaState = "optimized" | "nonOptimized" | "inaccessible" | "persistentLoss" | "change"

const anaStates: Readonly<Record<AnaState, number>> = {
  optimized: 1,
  nonOptimized: 2,
  inaccessible: 3,
  persistentLoss: 4,
  change: 15
}
const anaStateOf = new Map(Object.entries(anaStates).map(([state, code]) => [code, state as AnaState]))

export interface AnaGroup {
  readonly groupId: number
  readonly state: AnaState
  readonly changeCount: bigint
  readonly namespaceIds: ReadonlyArray<number>
}

export interface AnaLog {
  readonly changeCount: bigint
  readonly groups: ReadonlyArray<AnaGroup>
}

export const anaHeaderBytes = 16
export const anaGroupBytes = 32

export const decodeAnaLog = (bytes: Uint8Array): Result.Result<AnaLog, Malformed> => {
  const where = "the ANA log page"
  if (bytes.byteLength < anaHeaderBytes) return malformed(where, `has ${bytes.byteLength} bytes`)
  const view = viewOf(bytes)
  const groups: Array<AnaGroup> = []
  let at = anaHeaderBytes
  for (let i = view.getUint16(8, true); i > 0; i--) {
    if (at + anaGroupBytes > bytes.byteLength) return malformed(where, `ends before group ${groups.length}`)
    const count = view.getUint32(at + 4, true)
    const end = at + anaGroupBytes + 4 * count
    if (end > bytes.byteLength) return malformed(where, `ends before the namespaces of group ${groups.length}`)
    const code = view.getUint8(at + 16) & 0x0f
    const state = anaStateOf.get(code)
    if (state === undefined) return malformed(where, `has the unknown state ${code} in group ${groups.length}`)
    const start = at + anaGroupBytes
    groups.push({
      groupId: view.getUint32(at, true),
      state,
      changeCount: view.getBigUint64(at + 8, true),
      namespaceIds: Array.from({ length: count }, (_, n) => view.getUint32(start + 4 * n, true))
    })
    at = end
  }
  return Result.succeed({ changeCount: view.getBigUint64(0, true), groups })
}

export const encodeAnaLog = (log: AnaLog): Uint8Array<ArrayBuffer> => {
  const lengths = log.groups.map((group) => anaGroupBytes + 4 * group.namespaceIds.length)
  const bytes = new Uint8Array(lengths.reduce((sum, length) => sum + length, anaHeaderBytes))
  const view = viewOf(bytes)
  view.setBigUint64(0, log.changeCount, true)
  view.setUint16(8, log.groups.length, true)
  let at = anaHeaderBytes
  for (const group of log.groups) {
    view.setUint32(at, group.groupId, true)
    view.setUint32(at + 4, group.namespaceIds.length, true)
    view.setBigUint64(at + 8, group.changeCount, true)
    view.setUint8(at + 16, anaStates[group.state])
    at += anaGroupBytes
    for (const id of group.namespaceIds) {
      view.setUint32(at, id, true)
      at += 4
    }
  }
  return bytes
}

/** TRTYPE, ADRFAM and SUBTYPE as numbers of the specification. */
export const DiscoveryTransport = { RDMA: 1, FC: 2, TCP: 3, loopback: 254 } as const
export const DiscoveryAddressFamily = { IPv4: 1, IPv6: 2, IB: 3, FC: 4, Intra_Host: 254 } as const
export const DiscoverySubsystemType = { referral: 1, nvme: 2, currentDiscovery: 3 } as const

const discoveryEntry = struct("an entry of the discovery log page", 1024, {
  trtype: u8(0),
  adrfam: u8(1),
  subtype: u8(2),
  /** TREQ. `secureChannel`: 0 not reported, 1 required, 2 not required. */
  requirements: ranges(u8(3), { secureChannel: [0, 2], sqFlowControlOff: [2, 1] }),
  portId: u16(4),
  /** 0xffff: the controller assigns the id at the connection. */
  controllerId: u16(6),
  /** ASQSZ */
  adminQueueSize: u16(8),
  /** EFLAGS */
  flags: flags(u16(10), { sameInformation: 0, explicitPersistentConnections: 1 }),
  trsvcid: padded(32, 32),
  subnqn: utf8(256, 256),
  traddr: padded(512, 256),
  /** TSAS: for TCP the security type, 0 none, 1 TLS 1.2, 2 TLS 1.3. */
  securityType: u8(768)
})
export type DiscoveryEntry = DecodedOf<typeof discoveryEntry>
export type DiscoveryEntryInput = InputOf<typeof discoveryEntry>

export const discoveryHeaderBytes = 1024
export const discoveryEntryBytes = 1024
/** A larger log is refused: 64 MiB of entries. */
export const maxDiscoveryEntries = 65_536

export interface DiscoveryHeader {
  /** GENCTR: a different number means that the log has changed. */
  readonly generation: bigint
  /** NUMREC */
  readonly records: number
}

export const decodeDiscoveryHeader = (bytes: Uint8Array): Result.Result<DiscoveryHeader, Malformed> => {
  const where = "the discovery log page"
  if (bytes.byteLength < 18) return malformed(where, `has ${bytes.byteLength} bytes`)
  const view = viewOf(bytes)
  const records = view.getBigUint64(8, true)
  const format = view.getUint16(16, true)
  if (format !== 0) return malformed(where, `has the unknown record format ${format}`)
  if (records > BigInt(maxDiscoveryEntries)) return malformed(where, `has ${records} records`)
  return Result.succeed({ generation: view.getBigUint64(0, true), records: Number(records) })
}

export const decodeDiscoveryEntry = (bytes: Uint8Array): Result.Result<DiscoveryEntry, Malformed> =>
  discoveryEntry.decode(bytes)

/** The whole page. The server cuts out the requested part. */
export const encodeDiscoveryLog = (
  generation: bigint,
  entries: ReadonlyArray<DiscoveryEntryInput>
): Uint8Array<ArrayBuffer> => {
  const bytes = new Uint8Array(discoveryHeaderBytes + entries.length * discoveryEntryBytes)
  const view = viewOf(bytes)
  view.setBigUint64(0, generation, true)
  view.setBigUint64(8, BigInt(entries.length), true)
  entries.forEach((entry, i) => bytes.set(discoveryEntry.encode(entry), discoveryHeaderBytes + i * discoveryEntryBytes))
  return bytes
}
