/**
 * The results of `Check`, as schemas. Import these names from `Check`.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"
import { invalidFlag } from "../format/layout.ts"
import { metadataClusters, type SuperBlock, totalClusters } from "../format/superBlock.ts"
import { Finding } from "./finding.ts"
import type { BlobRead } from "./readBlob.ts"
import type { Survey } from "./survey.ts"

/** A blob id as SPDK prints it, as a number here: safe, since SPDK's ids are below 2^33. */
const Id = Schema.Int

/** The store by its metadata. The masks may differ. @since 0.1.0 @category models */
export class StoreSummary extends Schema.Class<StoreSummary>("@effect-spdk/blobstore/Check/StoreSummary")({
  version: Schema.Int,
  clean: Schema.Boolean,
  type: Schema.String,
  sizeBytes: Schema.Int,
  clusterBytes: Schema.Int,
  ioUnitBytes: Schema.Int,
  pageBytes: Schema.Int,
  superBlob: Schema.optional(Id),
  blobs: Schema.Int,
  clusters: Schema.Int,
  /** The clusters at the start of the device that hold metadata. */
  metadataClusters: Schema.Int,
  /** Including the clusters of the metadata. */
  usedClusters: Schema.Int,
  pages: Schema.Int,
  usedPages: Schema.Int
}) {}

/** @since 0.1.0 @category models */
export class Report extends Schema.Class<Report>("@effect-spdk/blobstore/Check/Report")({
  /** The name of the bdev. */
  device: Schema.String,
  deviceBytes: Schema.Int,
  /** `undefined` when the super block is not valid. */
  store: Schema.optional(StoreSummary),
  findings: Schema.Array(Finding),
  /** The number of findings beyond the thousand that a report holds. */
  omitted: Schema.Int
}) {
  /** Whether nothing is damaged, lost or left over. A store that was not unloaded can be clean in this sense. */
  get isClean(): boolean {
    return this.omitted === 0 && this.findings.every((finding) => finding.severity === "info")
  }

  get hasErrors(): boolean {
    return this.findings.some((finding) => finding.severity === "error")
  }
}

/** One action of `repair`. @since 0.1.0 @category models */
export const Action = Schema.Struct({
  kind: Schema.Literals([
    "leftover dropped",
    "leftover kept",
    "clusters returned",
    "size settled",
    "masks rebuilt",
    "marks added"
  ]),
  blob: Schema.optional(Id),
  message: Schema.String
})
export type Action = typeof Action.Type

/** @since 0.1.0 @category models */
export class Repaired extends Schema.Class<Repaired>("@effect-spdk/blobstore/Check/Repaired")({
  /** The actions in order. Empty when nothing was written. */
  actions: Schema.Array(Action),
  before: Report,
  /** Equal to `before` when nothing was written. */
  after: Report
}) {}

const Run = Schema.Struct({
  /** The first cluster in the blob. */
  start: Schema.Int,
  /** The first cluster on the device. 0: not allocated. */
  cluster: Schema.Int,
  length: Schema.Int
})

const Xattrs = Schema.Record(Schema.String, Schema.Uint8ArrayFromHex)

/** A blob as stored on the device. @since 0.1.0 @category models */
export class DumpedBlob extends Schema.Class<DumpedBlob>("@effect-spdk/blobstore/Check/DumpedBlob")({
  id: Id,
  thin: Schema.Boolean,
  readOnly: Schema.Boolean,
  externalSnapshot: Schema.Boolean,
  clearMethod: Schema.Literals(["default", "none", "unmap", "write_zeroes"]),
  clusters: Schema.Int,
  allocatedClusters: Schema.Int,
  /** Runs of consecutive clusters on the device, and runs without clusters. */
  extents: Schema.Array(Run),
  /** The metadata pages of the chain, and of the extent table. 0 is a missing page. */
  chain: Schema.Array(Schema.Int),
  extentPages: Schema.optional(Schema.Array(Schema.Int)),
  /** In JSON the values are hexadecimal. */
  xattrs: Xattrs,
  internalXattrs: Xattrs
}) {}

/** The decoded store. `Schema.encodeSync(Check.Dump)` converts it to JSON. @since 0.1.0 @category models */
export class Dump extends Schema.Class<Dump>("@effect-spdk/blobstore/Check/Dump")({
  report: Report,
  /** The blobs whose chain is readable. */
  blobs: Schema.Array(DumpedBlob)
}) {}

export const summaryOf = (sb: SuperBlock, survey: Survey): StoreSummary =>
  new StoreSummary({
    version: sb.version,
    clean: sb.clean,
    type: sb.type,
    sizeBytes: sb.sizeBytes,
    clusterBytes: sb.clusterSize,
    ioUnitBytes: sb.ioUnitSize,
    pageBytes: sb.mdPageSize,
    superBlob: sb.superBlob,
    blobs: survey.blobs.size,
    clusters: totalClusters(sb),
    metadataClusters: metadataClusters(sb),
    usedClusters: survey.clusters.count,
    pages: sb.mdLength,
    usedPages: survey.pages.count
  })

const clearMethods = ["default", "none", "unmap", "write_zeroes"] as const

/** `undefined` when the chain is not readable. */
export const dumpBlob = ({ id, meta }: BlobRead): DumpedBlob | undefined => {
  if (meta === undefined) return undefined
  const extents: Array<{ start: number; cluster: number; length: number }> = []
  let allocatedClusters = 0
  for (const [start, cluster] of meta.clusters.entries()) {
    const last = extents[extents.length - 1]
    if (cluster !== 0) allocatedClusters++
    if (last !== undefined && cluster === (last.cluster === 0 ? 0 : last.cluster + last.length)) last.length++
    else extents.push({ start, cluster, length: 1 })
  }
  return new DumpedBlob({
    id,
    thin: (meta.invalidFlags & invalidFlag.thin) !== 0,
    readOnly: meta.dataReadOnly,
    externalSnapshot: (meta.invalidFlags & invalidFlag.externalSnapshot) !== 0,
    clearMethod: clearMethods[meta.mdRoFlags & 3] ?? "default",
    clusters: meta.clusters.length,
    allocatedClusters,
    extents,
    chain: meta.pages,
    extentPages: meta.useExtentTable ? meta.extentPages : undefined,
    xattrs: Object.fromEntries(meta.xattrs),
    internalXattrs: Object.fromEntries(meta.internalXattrs)
  })
}
