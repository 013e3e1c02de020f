/** The super block: the first 4096 bytes of a blobstore. */
import * as Result from "effect/Result"
import type { BlobId } from "../driver.ts"
import { pageCrc } from "./crc32c.ts"
import { damaged, type Decoded } from "./damage.ts"
import * as L from "./layout.ts"
import { maskPages } from "./mask.ts"
import { decodeText, encodeText } from "./text.ts"

/** Starts and lengths in pages of `mdPageSize` bytes from the start of the device. */
export interface SuperBlock {
  readonly version: number
  /** The store was unloaded, so that the masks are what the metadata says. */
  readonly clean: boolean
  readonly superBlob: BlobId | undefined
  readonly clusterSize: number
  readonly usedPageMaskStart: number
  readonly usedPageMaskLength: number
  readonly usedClusterMaskStart: number
  readonly usedClusterMaskLength: number
  readonly mdStart: number
  /** Also the number of bits of the masks of pages and of blob ids. */
  readonly mdLength: number
  /** Without the NULs at its end. */
  readonly type: string
  /** 0 and 0 before version 3: such a store is recovered at every load. */
  readonly usedBlobIdMaskStart: number
  readonly usedBlobIdMaskLength: number
  readonly sizeBytes: number
  readonly ioUnitSize: number
  readonly mdPageSize: number
}

const where = "super block"

/** Also those of the metadata. What is left over at the end of the device belongs to none. */
export const totalClusters = (sb: SuperBlock): number => Math.floor(sb.sizeBytes / sb.clusterSize)

/** The clusters at the front that hold the super block, the masks and the metadata. */
export const metadataClusters = (sb: SuperBlock): number =>
  Math.ceil((sb.mdStart + sb.mdLength) / Math.floor(sb.clusterSize / sb.mdPageSize))

/**
 * Signature, version and CRC as SPDK checks them, a size the device has, and ranges that lie in the store and apart, which SPDK
 * takes on trust.
 */
export const decodeSuperBlock = (bytes: Uint8Array, deviceBytes: number): Decoded<SuperBlock> => {
  if (bytes.length < L.pageBytes) return damaged(where, "is cut off")
  const view = L.viewOf(bytes)
  const at = L.superOffset
  for (let i = 0; i < L.signature.length; i++) {
    if (bytes[i] !== L.signature.charCodeAt(i)) return damaged(where, "has no signature of a blobstore", 0)
  }
  const version = view.getUint32(at.version, true)
  if (version < L.oldestVersion || version > L.currentVersion) {
    return damaged(where, `has version ${version}, not one of ${L.oldestVersion} to ${L.currentVersion}`, at.version)
  }
  if (view.getUint32(at.crc, true) !== pageCrc(bytes)) return damaged(where, "has a wrong CRC", at.crc)
  const sizeBytes = L.readU64(view, at.sizeBytes)
  if (sizeBytes === undefined || sizeBytes > deviceBytes) {
    return damaged(where, `is of a store larger than the device of ${deviceBytes} bytes`, at.sizeBytes)
  }
  const superBlob = decodeSuperBlob(view)
  if (Result.isFailure(superBlob)) return Result.fail(superBlob.failure)
  const u32 = (offset: number) => view.getUint32(offset, true)
  return checkRanges({
    version,
    clean: u32(at.clean) !== 0,
    superBlob: superBlob.success,
    clusterSize: u32(at.clusterSize),
    usedPageMaskStart: u32(at.usedPageMaskStart),
    usedPageMaskLength: u32(at.usedPageMaskLength),
    usedClusterMaskStart: u32(at.usedClusterMaskStart),
    usedClusterMaskLength: u32(at.usedClusterMaskLength),
    mdStart: u32(at.mdStart),
    mdLength: u32(at.mdLength),
    type: decodeType(bytes.subarray(at.type, at.type + L.typeBytes)),
    usedBlobIdMaskStart: u32(at.usedBlobIdMaskStart),
    usedBlobIdMaskLength: u32(at.usedBlobIdMaskLength),
    sizeBytes: sizeBytes === 0 ? deviceBytes : sizeBytes,
    ioUnitSize: u32(at.ioUnitSize) || L.oldIoUnitSize,
    mdPageSize: u32(at.mdPageSize) || L.oldMdPageSize
  })
}

const decodeSuperBlob = (view: DataView): Decoded<BlobId | undefined> => {
  const offset = L.superOffset.superBlob
  if (view.getUint32(offset, true) === 0xffffffff && view.getUint32(offset + 4, true) === 0xffffffff) {
    return Result.succeed(undefined)
  }
  const id = L.readU64(view, offset)
  return id === undefined ? damaged(where, "names a super blob that cannot be one", offset) : Result.succeed(id)
}

const decodeType = (bytes: Uint8Array): string => {
  let end = bytes.length
  while (end > 0 && bytes[end - 1] === 0) end--
  return decodeText(bytes.subarray(0, end))
}

const checkRanges = (sb: SuperBlock): Decoded<SuperBlock> => {
  const at = L.superOffset
  const { clusterSize, ioUnitSize, mdPageSize } = sb
  if (mdPageSize % L.pageBytes !== 0) return damaged(where, `has metadata pages of ${mdPageSize} bytes`, at.mdPageSize)
  if (clusterSize < mdPageSize || clusterSize % L.pageBytes !== 0) {
    return damaged(where, `has clusters of ${clusterSize} bytes`, at.clusterSize)
  }
  if (ioUnitSize > clusterSize || clusterSize % ioUnitSize !== 0) {
    return damaged(where, `has io units of ${ioUnitSize} bytes in clusters of ${clusterSize}`, at.ioUnitSize)
  }
  const clusters = totalClusters(sb)
  // Cluster indexes are 32 bits wide.
  if (clusters > 0xffffffff) return damaged(where, `has ${clusters} clusters`, at.sizeBytes)
  if (sb.mdLength === 0) return damaged(where, "has no metadata pages", at.mdLength)
  const ranges = [
    {
      name: "used page mask",
      start: sb.usedPageMaskStart,
      length: sb.usedPageMaskLength,
      offset: at.usedPageMaskStart
    },
    {
      name: "used cluster mask",
      start: sb.usedClusterMaskStart,
      length: sb.usedClusterMaskLength,
      offset: at.usedClusterMaskStart
    },
    {
      name: "used blob id mask",
      start: sb.usedBlobIdMaskStart,
      length: sb.usedBlobIdMaskLength,
      offset: at.usedBlobIdMaskStart
    },
    { name: "metadata", start: sb.mdStart, length: sb.mdLength, offset: at.mdStart }
  ].filter((range) => range.length > 0)
  let end = 1
  for (const { name, start, length, offset } of ranges.toSorted((a, b) => a.start - b.start)) {
    if (start < end) return damaged(where, `puts the ${name} over what lies before it`, offset)
    end = start + length
  }
  // Clusters are handed out from the end of the metadata on.
  if (end !== sb.mdStart + sb.mdLength) return damaged(where, "puts a mask behind the metadata", at.mdStart)
  if (metadataClusters(sb) > clusters)
    return damaged(where, "puts the metadata beyond the end of the store", at.mdStart)
  const short = [
    { name: "used page mask", have: sb.usedPageMaskLength, bits: sb.mdLength },
    { name: "used cluster mask", have: sb.usedClusterMaskLength, bits: clusters },
    // A store without this mask is one of before version 3.
    { name: "used blob id mask", have: sb.usedBlobIdMaskLength || Infinity, bits: sb.mdLength }
  ].find(({ bits, have }) => have < maskPages(bits, mdPageSize))
  return short === undefined
    ? Result.succeed(sb)
    : damaged(where, `has ${short.have} pages for the ${short.name} of ${short.bits} bits`)
}

/**
 * 4096 bytes with their CRC. `before` is the super block that this one takes the place of: what no field describes stays as it
 * was there, and so do, in a store of before they were written, the fields that read as their defaults.
 */
export const encodeSuperBlock = (sb: SuperBlock, before?: Uint8Array): Uint8Array => {
  const bytes = new Uint8Array(L.pageBytes)
  if (before !== undefined) bytes.set(before.subarray(0, L.pageBytes))
  const view = L.viewOf(bytes)
  const at = L.superOffset
  const set = (offset: number, value: number) => view.setUint32(offset, value, true)
  for (let i = 0; i < L.signature.length; i++) bytes[i] = L.signature.charCodeAt(i)
  set(at.version, sb.version)
  set(at.length, L.pageBytes)
  set(at.clean, sb.clean ? 1 : 0)
  if (sb.superBlob === undefined) bytes.fill(0xff, at.superBlob, at.superBlob + 8)
  else L.writeU64(view, at.superBlob, sb.superBlob)
  set(at.clusterSize, sb.clusterSize)
  set(at.usedPageMaskStart, sb.usedPageMaskStart)
  set(at.usedPageMaskLength, sb.usedPageMaskLength)
  set(at.usedClusterMaskStart, sb.usedClusterMaskStart)
  set(at.usedClusterMaskLength, sb.usedClusterMaskLength)
  set(at.mdStart, sb.mdStart)
  set(at.mdLength, sb.mdLength)
  bytes.fill(0, at.type, at.type + L.typeBytes)
  bytes.set(encodeText(sb.type).subarray(0, L.typeBytes), at.type)
  set(at.usedBlobIdMaskStart, sb.usedBlobIdMaskStart)
  set(at.usedBlobIdMaskLength, sb.usedBlobIdMaskLength)
  L.writeU64(view, at.sizeBytes, sb.sizeBytes)
  const keepsDefault = (offset: number, value: number, byDefault: number) =>
    before !== undefined && view.getUint32(offset, true) === 0 && value === byDefault
  if (!keepsDefault(at.ioUnitSize, sb.ioUnitSize, L.oldIoUnitSize)) set(at.ioUnitSize, sb.ioUnitSize)
  if (!keepsDefault(at.mdPageSize, sb.mdPageSize, L.oldMdPageSize)) set(at.mdPageSize, sb.mdPageSize)
  set(at.crc, pageCrc(bytes))
  return bytes
}

/** What `spdk_bs_init` lays out on a device of so many bytes; undefined when the metadata does not fit, SPDK's ENOMEM. */
export const layoutStore = (options: {
  readonly deviceBytes: number
  readonly clusterSize: number
  /** undefined: one per cluster. */
  readonly mdPages: number | undefined
  readonly ioUnitSize: number
  readonly mdPageSize: number
  readonly type: string
}): SuperBlock | undefined => {
  const clusters = Math.floor(options.deviceBytes / options.clusterSize)
  const mdLength = options.mdPages ?? clusters
  const forPages = maskPages(mdLength, options.mdPageSize)
  const forClusters = maskPages(clusters, options.mdPageSize)
  // Room for the mask of a store grown until every metadata page has a cluster.
  const blobIdStart = 1 + forPages + Math.max(forPages, forClusters)
  const sb: SuperBlock = {
    version: L.currentVersion,
    clean: false,
    superBlob: undefined,
    clusterSize: options.clusterSize,
    usedPageMaskStart: 1,
    usedPageMaskLength: forPages,
    usedClusterMaskStart: 1 + forPages,
    usedClusterMaskLength: forClusters,
    mdStart: blobIdStart + forPages,
    mdLength,
    type: options.type,
    usedBlobIdMaskStart: blobIdStart,
    usedBlobIdMaskLength: forPages,
    sizeBytes: options.deviceBytes,
    ioUnitSize: options.ioUnitSize,
    mdPageSize: options.mdPageSize
  }
  return metadataClusters(sb) > clusters ? undefined : sb
}
