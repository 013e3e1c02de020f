/**
 * SPDK's on-disk blobstore format, version 3: sizes, offsets and numbers, as `lib/blob/blobstore.h` of SPDK v26.05 packs
 * them. Everything is little-endian and packed without gaps.
 */
import type { BlobId } from "../driver.ts"

/** Of a super block and of a metadata page. The store may keep them further apart (`SuperBlock.mdPageSize`). */
export const pageBytes = 4096

export const signature = "SPDKBLOB"
export const oldestVersion = 1
export const currentVersion = 3
export const typeBytes = 16

export const superOffset = {
  signature: 0,
  version: 8,
  length: 12,
  clean: 16,
  superBlob: 20,
  clusterSize: 28,
  usedPageMaskStart: 32,
  usedPageMaskLength: 36,
  usedClusterMaskStart: 40,
  usedClusterMaskLength: 44,
  mdStart: 48,
  mdLength: 52,
  type: 56,
  usedBlobIdMaskStart: 72,
  usedBlobIdMaskLength: 76,
  sizeBytes: 80,
  ioUnitSize: 88,
  mdPageSize: 92,
  reserved: 96,
  crc: 4092
} as const

/** What a store that was written before these fields existed has in them is 0, and means these. */
export const oldIoUnitSize = 4096
export const oldMdPageSize = 4096

export const mdPageOffset = { id: 0, sequence: 8, reserved: 12, descriptors: 16, next: 4088, crc: 4092 } as const
export const descriptorAreaBytes = mdPageOffset.next - mdPageOffset.descriptors

/** Type (1) and length (4). The length of a descriptor does not count these. */
export const descriptorHeaderBytes = 5

export const descriptorType = {
  padding: 0,
  extentRle: 1,
  xattr: 2,
  flags: 3,
  xattrInternal: 4,
  extentTable: 5,
  extentPage: 6
} as const

export const flagsBytes = 24
/** Name length (2) and value length (2), then the name and the value. */
export const xattrHeaderBytes = 4
/** Cluster or page index (4) and count (4): what extents and entries of an extent table are made of. */
export const runBytes = 8
export const extentTableHeaderBytes = 8
export const extentPageHeaderBytes = 4
/** A power of two, though more would fit. */
export const clustersPerExtentPage = 512

/** Of `next` in the last page of a chain. */
export const noPage = 0xffffffff

export const invalidFlag = { thin: 1, internalXattr: 2, extentTable: 4, externalSnapshot: 8 } as const
export const invalidFlagsMask = 0xf
export const dataRoFlag = { readOnly: 1 } as const
export const dataRoFlagsMask = 1
/** Two bits: default 0, none 1, unmap 2, write zeroes 3. */
export const clearMethodMask = 3

export const maskType = { usedPages: 0, usedClusters: 1, usedBlobIds: 2 } as const
export type MaskType = (typeof maskType)[keyof typeof maskType]
/** Type (1) and number of bits (4). */
export const maskHeaderBytes = 5

/** Internal xattrs. The first holds the parent's id, the two leftovers the clone's, each in 8 bytes. */
export const internalXattr = {
  snapshot: "SNAP",
  snapshotInProgress: "SNAPTMP",
  snapshotPendingRemoval: "SNAPRM",
  externalSnapshot: "EXTSNAP"
} as const

/** An xattr whose descriptor is longer does not fit into any page. */
export const maxXattrBytes = descriptorAreaBytes - descriptorHeaderBytes - xattrHeaderBytes

export const blobIdHighBit = 2 ** 32
export const blobIdOfPage = (page: number): BlobId => blobIdHighBit + page
/** undefined: not an id that SPDK makes. */
export const pageOfBlobId = (id: BlobId): number | undefined => {
  const page = id - blobIdHighBit
  return Number.isInteger(page) && page >= 0 && page < noPage ? page : undefined
}

export const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)

/** A `uint64_t`; undefined when it passes 2^53. */
export const readU64 = (view: DataView, offset: number): number | undefined => {
  const high = view.getUint32(offset + 4, true)
  return high >= 0x200000 ? undefined : high * 2 ** 32 + view.getUint32(offset, true)
}

export const writeU64 = (view: DataView, offset: number, value: number): void => {
  view.setUint32(offset, value % 2 ** 32, true)
  view.setUint32(offset + 4, Math.floor(value / 2 ** 32), true)
}
