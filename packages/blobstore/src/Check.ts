/**
 * Looks at a blobstore without loading it: what is damaged, lost or left over, everything decoded, and the repairs that need
 * no guess. For operators and for tests of anything that writes blobstores; the one thing to know is that the store must not be
 * loaded meanwhile, by anybody.
 *
 * ```ts
 * import * as Check from "@effect-spdk/blobstore/Check"
 * import * as Bdev from "@effect-spdk/core/Bdev"
 * import * as Spdk from "@effect-spdk/core/Spdk"
 * import * as Console from "effect/Console"
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 *
 * const Disk = Bdev.layerFile({ path: "disk.img" }).pipe(Layer.provide(Spdk.layerEmbedded()))
 *
 * const program = Effect.gen(function*() {
 *   const report = yield* Check.check
 *   for (const finding of report.findings) yield* Console.log(`${finding.severity}: ${finding.message}`)
 *   return report.isClean
 * }).pipe(Effect.provide(Disk))
 * ```
 *
 * @since 0.1.0
 */
import { Bdev, type IoError } from "@effect-spdk/core/Bdev"
import { Busy, ReadOnly, SpdkError } from "@effect-spdk/core/SpdkError"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { SuperBlockDamaged } from "./internal/check/finding.ts"
import { judge, type Masks } from "./internal/check/judge.ts"
import type { BlobRead } from "./internal/check/readBlob.ts"
import { readSuper } from "./internal/check/reader.ts"
import { repairStore } from "./internal/check/repair.ts"
import { Dump, dumpBlob, type DumpedBlob, Repaired, Report, summaryOf } from "./internal/check/report.ts"
import { type Survey, survey } from "./internal/check/survey.ts"
import { hasStore } from "./internal/claims.ts"

export * from "./internal/check/finding.ts"
export { Action, Dump, DumpedBlob, Repaired, Report, StoreSummary } from "./internal/check/report.ts"

/** The device failed. What is wrong with the store is in the report. @since 0.1.0 @category errors */
export type CheckError = IoError

interface Looked {
  readonly report: Report
  readonly found: { readonly survey: Survey; readonly masks: Masks } | undefined
}

/**
 * Reads the super block, the masks and the metadata, a megabyte at a time, and nothing of the data. Writes nothing: a bdev that was
 * opened for reading is enough. A device without a blobstore is a finding, `SuperBlockDamaged`, too.
 *
 * Memory: about five bytes per cluster and per metadata page, and the extents of one blob.
 *
 * @since 0.1.0
 * @category checking
 */
export const check: Effect.Effect<Report, CheckError, Bdev> = Effect.flatMap(Bdev, (bdev) =>
  Effect.map(look(bdev), ({ report }) => report)
)

/**
 * Everything that `check` decodes, blob by blob in the order of ids: all of it is in memory at once. `Schema.encodeSync(Check.Dump)`
 * makes JSON of it.
 *
 * @since 0.1.0
 * @category checking
 */
export const dump: Effect.Effect<Dump, CheckError, Bdev> = Effect.flatMap(Bdev, (bdev) => {
  const blobs: Array<DumpedBlob> = []
  const keep = (blob: BlobRead) => {
    const dumped = dumpBlob(blob)
    if (dumped !== undefined) blobs.push(dumped)
  }
  return Effect.map(look(bdev, keep), ({ report }) => new Dump({ report, blobs }))
})

/**
 * Puts right what needs no guess, and tells what it did:
 *
 * - A snapshot that was being made or deleted is dropped or kept as a load would do it (`spdk_bs_load`), and a clone that had begun to
 *   take over its clusters gives them back.
 * - A blob whose resize was cut gets the size that its extent pages have, which is what SPDK takes.
 * - Masks that differ from the metadata, or belong to a store that was not unloaded, are written anew, and the store is marked as
 *   unloaded.
 *
 * When metadata is damaged so that nobody knows what it refers to, nothing is freed: only missing marks are added. Damaged blobs
 * and missing parents are left as they are.
 *
 * Fails with `ReadOnly`, and writes nothing, when the bdev was not opened for writing, and with `Busy` when a blobstore is loaded
 * on this handle of it; a store that somebody loaded by another handle is not noticed. While it works the store is marked as not
 * unloaded and each step is ordered by flushes, so that a power cut leaves a store that a load recovers; when it returns
 * all of it is durable. Interruption stops it between two writes, with the same effect.
 *
 * @since 0.1.0
 * @category repairing
 */
export const repair: Effect.Effect<Repaired, CheckError, Bdev> = Effect.gen(function* () {
  const bdev = yield* Bdev
  if (!bdev.writable) {
    return yield* new SpdkError({ reason: new ReadOnly({ operation: "Check.repair", resource: bdev.name }) })
  }
  if (hasStore.has(bdev)) {
    const detail = "a blobstore is loaded on this bdev"
    return yield* new SpdkError({ reason: new Busy({ operation: "Check.repair", resource: bdev.name, detail }) })
  }
  const before = yield* look(bdev)
  const { found } = before
  const actions = found === undefined ? [] : yield* repairStore(bdev, found.survey, found.masks)
  const after = actions.length === 0 ? before : yield* look(bdev)
  return new Repaired({ actions, before: before.report, after: after.report })
})

const look = Effect.fnUntraced(function* (
  bdev: Bdev,
  onBlob?: (blob: BlobRead) => void
): Effect.fn.Return<Looked, CheckError> {
  const device = { device: bdev.name, deviceBytes: bdev.sizeBytes }
  const { decoded } = yield* readSuper(bdev)
  if (Result.isFailure(decoded)) {
    const { offset, rule } = decoded.failure
    const findings = [new SuperBlockDamaged({ rule, offsetBytes: offset })]
    return { report: new Report({ ...device, findings, omitted: 0 }), found: undefined }
  }
  const found = yield* survey(bdev, decoded.success, onBlob)
  const masks = yield* judge(bdev, found)
  const { all, omitted } = found.findings
  const report = new Report({ ...device, store: summaryOf(decoded.success, found), findings: all, omitted })
  return { report, found: { survey: found, masks } }
})
