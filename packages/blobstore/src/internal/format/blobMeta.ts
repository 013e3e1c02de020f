/** A blob as its chain of metadata pages says: what SPDK's `blob_parse` reads and `blob_serialize` packs. */
import * as Result from "effect/Result"
import type { BlobId } from "../driver.ts"
import { damaged, type Decoded } from "./damage.ts"
import { descriptorBytes, encodeDescriptors, type ExtentPage, type MdDescriptor } from "./descriptor.ts"
import * as L from "./layout.ts"
import type { MdPage } from "./mdPage.ts"
import { metadataClusters, type SuperBlock, totalClusters } from "./superBlock.ts"

export { encodeExtentPage } from "./mdPage.ts"

/** What a chain is packed from. */
export interface BlobMeta {
  readonly id: BlobId
  readonly invalidFlags: number
  readonly dataRoFlags: number
  readonly mdRoFlags: number
  /** The cluster on the device for every cluster of the blob; 0: not allocated. */
  readonly clusters: ArrayLike<number>
  /** The metadata page for every 512 clusters; 0: none, all of them are not allocated. Empty without an extent table. */
  readonly extentPages: ArrayLike<number>
  readonly useExtentTable: boolean
  /** In the order they are written, which is that of their first `set`. */
  readonly xattrs: ReadonlyMap<string, Uint8Array>
  readonly internalXattrs: ReadonlyMap<string, Uint8Array>
}

/** `length` clusters in a row, from `start` in the blob and from `cluster` on the device. */
export interface ClusterRun {
  readonly start: number
  readonly cluster: number
  readonly length: number
}

/** What a chain says. */
export interface ChainMeta extends BlobMeta {
  /** With an extent table: all 0 until `applyExtentPage` has put each page in; it may then be shorter. */
  clusters: Uint32Array
  readonly extentPages: ReadonlyArray<number>
  readonly xattrs: Map<string, Uint8Array>
  readonly internalXattrs: Map<string, Uint8Array>
  /** The blob is read-only, or has a flag of that kind that this version does not know. */
  readonly dataReadOnly: boolean
  /** The metadata must not be changed. SPDK sets it with `dataReadOnly`. */
  readonly mdReadOnly: boolean
  /** What is allocated by run-length extents; empty with an extent table. */
  readonly runs: ReadonlyArray<ClusterRun>
  /** The pages of the chain, in order. */
  readonly pages: ReadonlyArray<number>
  /** Names that come more than once. The first one counts, as in SPDK. */
  readonly duplicateXattrs: ReadonlyArray<string>
  /** Descriptor types of a newer version. SPDK skips them when it opens the blob and fails when it recovers the store. */
  readonly unknownDescriptors: ReadonlyArray<number>
}

/** What indexes are checked against. */
export interface StoreLimits {
  /** The first that is not the metadata's. SPDK lets a blob have those of the metadata. */
  readonly firstCluster: number
  readonly totalClusters: number
  readonly mdPages: number
}

export const limitsOf = (sb: SuperBlock): StoreLimits => ({
  firstCluster: metadataClusters(sb),
  totalClusters: totalClusters(sb),
  mdPages: sb.mdLength
})

/** Of one blob: a thin one can claim more than memory can hold. 64 TiB with the usual cluster of 1 MiB. */
export const maxBlobClusters = 2 ** 26

const anywhere: StoreLimits = { firstCluster: 1, totalClusters: 2 ** 32, mdPages: L.noPage }

interface Parsing {
  readonly limits: StoreLimits
  readonly extents: Array<ClusterRun>
  readonly extentPages: Array<number>
  readonly xattrs: Map<string, Uint8Array>
  readonly internalXattrs: Map<string, Uint8Array>
  readonly duplicateXattrs: Array<string>
  readonly unknownDescriptors: Array<number>
  clusters: number
  hasRle: boolean
  hasTable: boolean
  invalidFlags: number
  dataRoFlags: number
  mdRoFlags: number
  dataReadOnly: boolean
  mdReadOnly: boolean
}

const isThin = (flags: number): boolean => (flags & L.invalidFlag.thin) !== 0
/** Flags are wider than the 32 bits that `&` sees. */
const hasOther = (flags: number, mask: number): boolean => flags > 0xffffffff || (flags & ~mask) >>> 0 !== 0

/** `pages` is the whole chain, from the page that the id names. */
export const parseChain = (pages: ReadonlyArray<MdPage>, limits: StoreLimits = anywhere): Decoded<ChainMeta> => {
  const first = pages[0]
  if (first === undefined) return damaged("metadata chain", "has no page")
  if (first.id !== L.blobIdOfPage(first.index)) {
    return damaged(first.index, `is not the first of a chain: it has id ${first.id}`, L.mdPageOffset.id)
  }
  const parsing = newParsing(limits)
  for (const [i, page] of pages.entries()) {
    const linked = checkLink(page, i, first.id, pages[i + 1])
    if (Result.isFailure(linked)) return Result.fail(linked.failure)
    for (const descriptor of page.descriptors) {
      const rule = parseDescriptor(parsing, descriptor)
      if (rule !== undefined) return damaged(page.index, rule)
    }
  }
  const pagesNeeded = Math.ceil(parsing.clusters / L.clustersPerExtentPage)
  if (parsing.hasTable && parsing.extentPages.length !== pagesNeeded) {
    const have = parsing.extentPages.length
    return damaged(first.index, `has ${have} extent pages for ${parsing.clusters} clusters`)
  }
  return Result.succeed(finish(first.id, pages, parsing))
}

const newParsing = (limits: StoreLimits): Parsing => ({
  limits,
  extents: [],
  extentPages: [],
  xattrs: new Map(),
  internalXattrs: new Map(),
  duplicateXattrs: [],
  unknownDescriptors: [],
  clusters: 0,
  hasRle: false,
  hasTable: false,
  invalidFlags: 0,
  dataRoFlags: 0,
  mdRoFlags: 0,
  dataReadOnly: false,
  mdReadOnly: false
})

const checkLink = (page: MdPage, i: number, id: BlobId, after: MdPage | undefined): Decoded<void> => {
  const where = page.index
  if (page.id !== id) return damaged(where, `has id ${page.id} in the chain of ${id}`, L.mdPageOffset.id)
  if (page.sequence !== i) {
    return damaged(where, `has sequence ${page.sequence} at place ${i} of its chain`, L.mdPageOffset.sequence)
  }
  return page.next === after?.index
    ? Result.void
    : damaged(where, after === undefined ? "is not the last of its chain" : "ends its chain early", L.mdPageOffset.next)
}

/** The rule that does not hold. */
const parseDescriptor = (parsing: Parsing, descriptor: MdDescriptor): string | undefined => {
  switch (descriptor._tag) {
    case "Flags":
      return parseFlags(parsing, descriptor)
    case "ExtentRle":
      return parseRle(parsing, descriptor)
    case "ExtentTable":
      return parseTable(parsing, descriptor)
    case "ExtentPage":
      return "has the clusters of an extent page in a chain"
    case "Unknown":
      parsing.unknownDescriptors.push(descriptor.type)
      return undefined
    default: {
      const xattrs = descriptor._tag === "Xattr" ? parsing.xattrs : parsing.internalXattrs
      if (xattrs.has(descriptor.name)) parsing.duplicateXattrs.push(descriptor.name)
      else xattrs.set(descriptor.name, descriptor.value)
      return undefined
    }
  }
}

/** The last flags count, but read-only stays: as in SPDK. */
const parseFlags = (parsing: Parsing, flags: MdDescriptor & { readonly _tag: "Flags" }): string | undefined => {
  if (hasOther(flags.invalidFlags, L.invalidFlagsMask)) return `has unknown flags 0x${flags.invalidFlags.toString(16)}`
  const readOnly = hasOther(flags.dataRoFlags, L.dataRoFlagsMask) || (flags.dataRoFlags & L.dataRoFlag.readOnly) !== 0
  parsing.dataReadOnly ||= readOnly
  parsing.mdReadOnly ||= readOnly || hasOther(flags.mdRoFlags, L.clearMethodMask)
  parsing.invalidFlags = flags.invalidFlags
  parsing.dataRoFlags = flags.dataRoFlags
  parsing.mdRoFlags = flags.mdRoFlags
  return undefined
}

const parseRle = (parsing: Parsing, rle: MdDescriptor & { readonly _tag: "ExtentRle" }): string | undefined => {
  if (parsing.hasTable) return "has extents and an extent table"
  parsing.hasRle = true
  for (const { cluster, length } of rle.extents) {
    if (cluster === 0 && length > 0 && !isThin(parsing.invalidFlags)) return "has a hole, but is not thin"
    const rule = cluster === 0 ? undefined : clusterRule(parsing.limits, cluster, length)
    if (rule !== undefined) return rule
    if (cluster !== 0) parsing.extents.push({ start: parsing.clusters, cluster, length })
    parsing.clusters += length
    if (parsing.clusters > maxBlobClusters) return `has more than ${maxBlobClusters} clusters`
  }
  return parsing.clusters === 0 ? "has extents without a cluster" : undefined
}

const clusterRule = (limits: StoreLimits, cluster: number, length = 1): string | undefined => {
  if (cluster < limits.firstCluster) return `has cluster ${cluster}, which is the metadata's`
  return cluster + length > limits.totalClusters
    ? `has cluster ${cluster + length - 1} of ${limits.totalClusters}`
    : undefined
}

const parseTable = (parsing: Parsing, table: MdDescriptor & { readonly _tag: "ExtentTable" }): string | undefined => {
  if (parsing.hasRle) return "has extents and an extent table"
  if (parsing.hasTable && table.clusters !== parsing.clusters) {
    return `has an extent table of ${table.clusters} clusters after one of ${parsing.clusters}`
  }
  if (table.clusters > maxBlobClusters) return `has more than ${maxBlobClusters} clusters`
  parsing.hasTable = true
  parsing.clusters = table.clusters
  const needed = Math.ceil(table.clusters / L.clustersPerExtentPage)
  for (const { count, page } of table.entries) {
    if (parsing.extentPages.length + count > needed) return `has extent pages for more than ${table.clusters} clusters`
    if (page === 0 && count > 0 && !isThin(parsing.invalidFlags)) return "misses an extent page, but is not thin"
    if (page >= parsing.limits.mdPages) return `has extent page ${page} of ${parsing.limits.mdPages}`
    for (let i = 0; i < count; i++) parsing.extentPages.push(page)
  }
  return undefined
}

const finish = (id: BlobId, pages: ReadonlyArray<MdPage>, parsing: Parsing): ChainMeta => {
  const clusters = new Uint32Array(parsing.clusters)
  for (const { cluster, length, start } of parsing.extents) {
    for (let i = 0; i < length; i++) clusters[start + i] = cluster + i
  }
  const { dataReadOnly, dataRoFlags, duplicateXattrs, extentPages, internalXattrs } = parsing
  const { invalidFlags, mdReadOnly, mdRoFlags, unknownDescriptors, xattrs } = parsing
  return {
    id,
    invalidFlags,
    dataRoFlags,
    mdRoFlags,
    clusters,
    extentPages,
    // Without any extents it is a blob of no clusters that has never had a table.
    useExtentTable: parsing.hasTable,
    xattrs,
    internalXattrs,
    dataReadOnly,
    mdReadOnly,
    runs: parsing.extents,
    pages: pages.map((page) => page.index),
    duplicateXattrs,
    unknownDescriptors
  }
}

/**
 * Puts extent page number `index` of `meta.extentPages` into `meta.clusters`. Answers how many clusters more than the table has
 * the page holds: when SPDK stops in the middle of a resize, extent pages are already written and the chain is not. SPDK
 * then takes the page's word. Here more are left out, and fewer, in the last page, shorten the blob; a caller that gets more has to
 * write the page again before it gives their clusters to anybody.
 */
export const applyExtentPage = (
  meta: ChainMeta,
  index: number,
  page: ExtentPage,
  limits: StoreLimits = anywhere
): Decoded<number> => {
  const where = meta.extentPages[index] ?? 0
  const start = index * L.clustersPerExtentPage
  if (page.startCluster !== start) return damaged(where, `starts at cluster ${page.startCluster} instead of ${start}`)
  for (const cluster of page.clusters) {
    const rule = cluster === 0 ? undefined : clusterRule(limits, cluster)
    if (rule !== undefined) return damaged(where, rule)
    if (cluster === 0 && !isThin(meta.invalidFlags)) return damaged(where, "has a hole, but its blob is not thin")
  }
  const expected = Math.min(L.clustersPerExtentPage, Math.max(0, meta.clusters.length - start))
  const have = page.clusters.length
  const isLast = index === meta.extentPages.length - 1
  if (have !== expected && !isLast) return damaged(where, `has ${have} clusters instead of ${expected}`)
  meta.clusters.set(page.clusters.subarray(0, expected), start)
  if (have < expected) meta.clusters = meta.clusters.subarray(0, start + have)
  return Result.succeed(have - expected)
}

/** The clusters that a blob has, without a walk over the holes, which a thin blob can have millions of at no cost. */
export const eachAllocated = (meta: ChainMeta, use: (cluster: number) => void): void => {
  for (const { cluster, length } of meta.runs) for (let i = 0; i < length; i++) use(cluster + i)
  for (const [i, page] of meta.extentPages.entries()) {
    if (page === 0) continue
    // The last one may hold more than its share.
    const end = i === meta.extentPages.length - 1 ? undefined : (i + 1) * L.clustersPerExtentPage
    for (const cluster of meta.clusters.subarray(i * L.clustersPerExtentPage, end)) if (cluster !== 0) use(cluster)
  }
}

/**
 * The descriptors of each page of the chain, as many bytes each as a page has room for, byte for byte as SPDK packs them:
 * flags, xattrs, internal xattrs, extents. Fails when an xattr fits into no page.
 */
export const serializeChain = (meta: BlobMeta): Decoded<ReadonlyArray<Uint8Array>> => {
  const pages: Array<Array<MdDescriptor>> = [[]]
  let room = L.descriptorAreaBytes
  const put = (descriptor: MdDescriptor) => {
    pages[pages.length - 1]?.push(descriptor)
    room -= descriptorBytes(descriptor)
  }
  const newPage = () => {
    pages.push([])
    room = L.descriptorAreaBytes
  }
  const { dataRoFlags, invalidFlags, mdRoFlags } = meta
  put({ _tag: "Flags", invalidFlags, dataRoFlags, mdRoFlags })
  for (const _tag of ["Xattr", "XattrInternal"] as const) {
    for (const [name, value] of _tag === "Xattr" ? meta.xattrs : meta.internalXattrs) {
      const xattr = { _tag, name, value }
      const bytes = descriptorBytes(xattr)
      if (bytes > L.descriptorAreaBytes) return damaged(`xattr "${name}"`, "does not fit into a page")
      if (bytes > room) newPage()
      put(xattr)
    }
  }
  if (meta.useExtentTable) {
    const clusters = meta.clusters.length
    split(
      tableEntries(meta.extentPages),
      L.descriptorHeaderBytes + L.extentTableHeaderBytes,
      () => room,
      newPage,
      (entries) => put({ _tag: "ExtentTable", clusters, entries })
    )
  } else if (meta.clusters.length > 0) {
    // An extent descriptor has at least one extent, a table may have none.
    split(
      extentsOf(meta.clusters),
      L.descriptorHeaderBytes,
      () => room,
      newPage,
      (extents) => {
        if (extents.length > 0) put({ _tag: "ExtentRle", extents })
      }
    )
  }
  return Result.succeed(pages.map(encodeDescriptors))
}

/**
 * As many as there is room for, the others in new pages. When there is nothing to write and no room for a table of nothing,
 * SPDK writes no table, and so do we.
 */
const split = <A>(
  all: ReadonlyArray<A>,
  headerBytes: number,
  room: () => number,
  newPage: () => void,
  put: (some: ReadonlyArray<A>) => void
): void => {
  for (let at = 0; ; newPage()) {
    const fits = Math.floor((room() - headerBytes) / L.runBytes)
    if (fits >= 0) put(all.slice(at, at + fits))
    at += Math.max(0, fits)
    if (at >= all.length) return
  }
}

const tableEntries = (extentPages: ArrayLike<number>): ReadonlyArray<{ page: number; count: number }> => {
  const entries: Array<{ page: number; count: number }> = []
  for (let i = 0; i < extentPages.length; i++) {
    const page = extentPages[i] ?? 0
    const last = entries[entries.length - 1]
    if (page === 0 && last?.page === 0) last.count++
    else entries.push({ page, count: 1 })
  }
  return entries
}

const extentsOf = (clusters: ArrayLike<number>): ReadonlyArray<{ cluster: number; length: number }> => {
  const extents: Array<{ cluster: number; length: number }> = []
  for (let i = 0; i < clusters.length; i++) {
    const cluster = clusters[i] ?? 0
    const last = extents[extents.length - 1]
    const follows =
      last !== undefined &&
      (cluster === 0 ? last.cluster === 0 : last.cluster !== 0 && last.cluster + last.length === cluster)
    if (follows) last.length++
    else extents.push({ cluster, length: 1 })
  }
  return extents
}

/** The blob that an internal xattr names: the parent, or the clone of a snapshot that was being made or removed. */
export const idXattr = (meta: Pick<BlobMeta, "id" | "internalXattrs">, name: string): Decoded<BlobId | undefined> => {
  const value = meta.internalXattrs.get(name)
  if (value === undefined) return Result.succeed(undefined)
  const id = value.length === 8 ? L.readU64(L.viewOf(value), 0) : undefined
  return id === undefined ? damaged(`blob ${meta.id}`, `has an xattr ${name} that is no id`) : Result.succeed(id)
}

export const encodeIdXattr = (id: BlobId): Uint8Array => {
  const value = new Uint8Array(8)
  L.writeU64(L.viewOf(value), 0, id)
  return value
}
