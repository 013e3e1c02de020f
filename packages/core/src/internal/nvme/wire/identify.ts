/**
 * The data structures of the Identify command: NVMe Base specification 2.1, section 5.1.13, and NVM Command Set
 * specification 1.1, section 4.1.5. Encoded by the embedded target, decoded by every host.
 */
import * as Result from "effect/Result"
import {
  array,
  type DecodedOf,
  flags,
  fromHex,
  identifier,
  type Malformed,
  malformed,
  ranges,
  struct,
  toHex,
  u128,
  u16,
  u32,
  u64,
  u8,
  viewOf
} from "./struct.ts"
import { identifyBytes } from "./identifyController.ts"

export * from "./identifyController.ts"

/** Controller or Namespace Structure (CNS). */
export const Cns = {
  namespace: 0x00,
  controller: 0x01,
  activeNamespaces: 0x02,
  descriptors: 0x03,
  namespaceForCommandSet: 0x05,
  controllerForCommandSet: 0x06,
  activeNamespacesForCommandSet: 0x07,
  independentNamespace: 0x08,
  commandSets: 0x1c
} as const

const lbaFormat = struct("LBA format", 4, {
  /** MS */
  metadataBytes: u16(0),
  /** LBADS: a power of two; 0 when the format is not in use. */
  blockSizeExponent: u8(2),
  /** RP: 0 is the best. */
  performance: ranges(u8(3), { relative: [0, 2] })
})

export const identifyNamespace = struct("the identify data of the namespace", identifyBytes, {
  /** NSZE, in blocks. */
  numBlocks: u64(0),
  /** NCAP */
  capacityBlocks: u64(8),
  /** NUSE */
  usedBlocks: u64(16),
  /** NSFEAT */
  features: flags(u8(24), {
    thinProvisioning: 0,
    atomicWriteUnits: 1,
    deallocatedError: 2,
    guidNeverReused: 3,
    optimalPerformance: 4
  }),
  /** NLBAF, counted from 0. */
  lbaFormats: u8(25),
  /** FLBAS */
  formatted: ranges(u8(26), { formatLow: [0, 4], extendedMetadata: [4, 1], formatHigh: [5, 2] }),
  /** MC */
  metadataCapabilities: flags(u8(27), { extended: 0, pointer: 1 }),
  /** DPC */
  protectionCapabilities: flags(u8(28), { type1: 0, type2: 1, type3: 2, firstBytes: 3, lastBytes: 4 }),
  /** DPS: `type` 0 is none. */
  protection: ranges(u8(29), { type: [0, 3], firstBytes: [3, 1] }),
  /** NMIC */
  sharing: flags(u8(30), { shared: 0, dispersed: 1 }),
  /** RESCAP */
  reservations: flags(u8(31), {
    persistThroughPowerLoss: 0,
    writeExclusive: 1,
    exclusiveAccess: 2,
    writeExclusiveRegistrantsOnly: 3,
    exclusiveAccessRegistrantsOnly: 4,
    writeExclusiveAllRegistrants: 5,
    exclusiveAccessAllRegistrants: 6,
    ignoreExistingKey: 7
  }),
  /** FPI */
  formatProgress: ranges(u8(32), { percentLeft: [0, 7], supported: [7, 1] }),
  /** DLFEAT. `read`: 0 not reported, 1 zeroes, 2 ones. */
  deallocated: ranges(u8(33), { read: [0, 3], inWriteZeroes: [3, 1], guardOfRead: [4, 1] }),
  /** NAWUN, NAWUPF, NACWU: in blocks, counted from 0. */
  atomicWriteBlocks: u16(34),
  atomicWritePowerFailBlocks: u16(36),
  atomicCompareWriteBlocks: u16(38),
  /** NABSN, NABO, NABSPF */
  atomicBoundaryBlocks: u16(40),
  atomicBoundaryOffset: u16(42),
  atomicBoundaryPowerFailBlocks: u16(44),
  /** NOIOB */
  optimalIoBoundaryBlocks: u16(46),
  /** NVMCAP */
  capacityBytes: u128(48),
  /** NPWG, NPWA, NPDG, NPDA, NOWS: in blocks, counted from 0. Valid only with `features.optimalPerformance`. */
  preferredWriteGranularity: u16(64),
  preferredWriteAlignment: u16(66),
  preferredDeallocateGranularity: u16(68),
  preferredDeallocateAlignment: u16(70),
  optimalWriteSize: u16(72),
  /** Limits of the Copy command: MSSRL and MCL in blocks, MSRC counted from 0. */
  maxCopySourceBlocks: u16(74),
  maxCopyBlocks: u32(76),
  maxCopySources: u8(80),
  /** ANAGRPID */
  anaGroupId: u32(92),
  /** NSATTR */
  attributes: flags(u8(99), { writeProtected: 0 }),
  /** NVMSETID */
  nvmSetId: u16(100),
  /** ENDGID */
  enduranceGroupId: u16(102),
  /** NGUID: 32 hexadecimal digits. */
  nguid: identifier(104, 16),
  /** EUI64: 16 hexadecimal digits. */
  eui64: identifier(120, 8),
  /** LBAF. Only the first `lbaFormats` + 1 entries are valid. */
  lbaFormatDescriptors: array(64, lbaFormat.at(128))
})

export type IdentifyNamespace = DecodedOf<typeof identifyNamespace>

/** The current block format, checked. */
export interface NamespaceFormat {
  readonly blockSizeBytes: number
  readonly metadataBytes: number
  /** Whether the metadata of each block follows its data in the same memory. */
  readonly extendedMetadata: boolean
  readonly numBlocks: number
}

/** Fails when the numbers are not possible for a disk: a missing format, blocks below 512 bytes, 2^53 bytes or more. */
export const namespaceFormat = (namespace: IdentifyNamespace): Result.Result<NamespaceFormat, Malformed> => {
  const { formatHigh, formatLow, extendedMetadata } = namespace.formatted
  // The high bits mean something only when there are more formats than the low ones can name.
  const index = namespace.lbaFormats > 15 ? formatHigh * 16 + formatLow : formatLow
  const format = namespace.lbaFormatDescriptors[index]
  const where = identifyNamespace.name
  if (format === undefined || index > namespace.lbaFormats)
    return malformed(where, `names LBA format ${index}, which it has not`)
  const exponent = format.blockSizeExponent
  if (exponent < 9 || exponent > 31) return malformed(where, `has blocks of 2^${exponent} bytes`)
  const blockSizeBytes = 2 ** exponent
  if (namespace.numBlocks * BigInt(blockSizeBytes) > BigInt(Number.MAX_SAFE_INTEGER)) {
    return malformed(
      where,
      `has ${namespace.numBlocks} blocks of ${blockSizeBytes} bytes, which is more than 2^53 bytes`
    )
  }
  return Result.succeed({
    blockSizeBytes,
    metadataBytes: format.metadataBytes,
    extendedMetadata: extendedMetadata === 1,
    numBlocks: Number(namespace.numBlocks)
  })
}

/** The number of ids in one list. A full list continues with a request for the ids above its last one. */
export const namespaceListEntries = 1024

/** Ids in ascending order, up to the first 0. Another order is refused: paging by the last id would never end. */
export const decodeNamespaceList = (bytes: Uint8Array): Result.Result<ReadonlyArray<number>, Malformed> => {
  const where = "the list of namespaces"
  if (bytes.byteLength < identifyBytes)
    return malformed(where, `has ${bytes.byteLength} bytes instead of ${identifyBytes}`)
  const view = viewOf(bytes)
  const ids: Array<number> = []
  for (let i = 0; i < namespaceListEntries; i++) {
    const id = view.getUint32(4 * i, true)
    if (id === 0) break
    if (id <= (ids.at(-1) ?? 0)) return malformed(where, `is not in rising order at entry ${i}`)
    ids.push(id)
  }
  return Result.succeed(ids)
}

/** The first 1,024 of these. */
export const encodeNamespaceList = (ids: ReadonlyArray<number>): Uint8Array<ArrayBuffer> => {
  const bytes = new Uint8Array(identifyBytes)
  const view = viewOf(bytes)
  ids.slice(0, namespaceListEntries).forEach((id, i) => view.setUint32(4 * i, id, true))
  return bytes
}

/** The permanent identifiers of a namespace. */
export interface NamespaceDescriptors {
  /** 16 hexadecimal digits. */
  readonly eui64?: string | undefined
  /** 32 hexadecimal digits. */
  readonly nguid?: string | undefined
  readonly uuid?: string | undefined
  /** CSI: 0 NVM, 1 key value, 2 zoned. */
  readonly commandSet?: number | undefined
}

const descriptorLengths = { 1: ["eui64", 8], 2: ["nguid", 16], 3: ["uuid", 16], 4: ["commandSet", 1] } as const

export const formatUuid = (bytes: Uint8Array): string =>
  toHex(bytes)
    .toLowerCase()
    .replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5")

export const parseUuid = (uuid: string): Uint8Array<ArrayBuffer> => fromHex(uuid.replaceAll("-", ""))

/** The Namespace Identification Descriptor list. Unknown types are skipped. */
export const decodeDescriptors = (bytes: Uint8Array): Result.Result<NamespaceDescriptors, Malformed> => {
  const where = "the descriptors of the namespace"
  const view = viewOf(bytes)
  const found: Record<string, string | number> = {}
  let at = 0
  while (at + 4 <= bytes.byteLength) {
    const type = view.getUint8(at)
    const length = view.getUint8(at + 1)
    if (length === 0) break
    if (at + 4 + length > bytes.byteLength) return malformed(where, `run past their end at byte ${at}`)
    const known = descriptorLengths[type as keyof typeof descriptorLengths] // undefined for others
    if (known !== undefined) {
      const [name, expected] = known
      if (length !== expected) return malformed(where, `have ${length} bytes for ${name} instead of ${expected}`)
      const value = bytes.slice(at + 4, at + 4 + length)
      found[name] = name === "uuid" ? formatUuid(value) : name === "commandSet" ? (value[0] ?? 0) : toHex(value)
    }
    at += 4 + length
  }
  return Result.succeed(found)
}

export const encodeDescriptors = (descriptors: NamespaceDescriptors): Uint8Array<ArrayBuffer> => {
  const bytes = new Uint8Array(identifyBytes)
  let at = 0
  const put = (type: number, value: Uint8Array): void => {
    bytes[at] = type
    bytes[at + 1] = value.byteLength
    bytes.set(value, at + 4)
    at += 4 + value.byteLength
  }
  if (descriptors.eui64 !== undefined) put(1, fromHex(descriptors.eui64))
  if (descriptors.nguid !== undefined) put(2, fromHex(descriptors.nguid))
  if (descriptors.uuid !== undefined) put(3, parseUuid(descriptors.uuid))
  if (descriptors.commandSet !== undefined) put(4, Uint8Array.of(descriptors.commandSet))
  return bytes
}
