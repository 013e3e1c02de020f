/**
 * Inspects a blobstore without loading it: damage, lost space and leftovers, the decoded metadata, and safe repairs.
 * Operators use it, and tests of code that writes blobstores. The store must not be loaded by any process meanwhile.
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
import { engineOf } from "@effect-spdk/core/Engine"
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
import { only } from "./internal/reasons.ts"
import { hasStore } from "./internal/claims.ts"

export * from "./internal/check/finding.ts"
export { Action, Dump, DumpedBlob, Repaired, Report, StoreSummary } from "./internal/check/report.ts"

/** The device failed. Faults of the store are in the report instead. @since 0.1.0 @category errors */
export type CheckError = IoError

interface Looked {
  readonly report: Report
  readonly found: { readonly survey: Survey; readonly masks: Masks } | undefined
}

/**
 * Checks a blobstore. Reads the super block, the masks and the metadata, one megabyte at a time, and no data. Writes
 * nothing, so a bdev that is open for reading is enough. A device without a blobstore is a finding,
 * `SuperBlockDamaged`.
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
 * All the data that `check` decodes, blob by blob in order of ids. The whole dump is in memory at once.
 * `Schema.encodeSync(Check.Dump)` converts it to JSON.
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
 * Makes the repairs that need no guess, and reports them:
 *
 * - A snapshot whose creation or deletion was cut short is dropped or kept, as a load does it (`spdk_bs_load`). A clone
 *   that had begun to take over the snapshot's clusters gives them back.
 * - A blob whose resize was cut short gets the size of its extent pages, which is the size that SPDK uses.
 * - Masks that differ from the metadata, or belong to a store that was not unloaded, are rewritten. The store is marked
 *   as unloaded.
 *
 * When damaged metadata may refer to unknown clusters or pages, nothing is freed: only missing marks are added. Damaged
 * blobs and missing parents are not changed.
 *
 * Fails with `ReadOnly`, and writes nothing, when the bdev was not opened for writing. Fails with `Busy` when a
 * blobstore is loaded on the bdev, or another module has claimed it. The repair claims the bdev until it returns.
 *
 * During the repair the store is marked as not unloaded, and flushes order the steps. A power cut thus leaves a store
 * that a load recovers. When the repair returns, all of it is durable. Interruption stops the repair between two
 * writes, with the same effect as a power cut.
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
  // A store is not loaded meanwhile, and the bdev is not exported.
  const engine = engineOf(bdev)
  if (engine !== undefined && !bdev.isRemoved) {
    const place = { operation: "Check.repair", resource: bdev.name }
    const claim = Effect.acquireRelease(engine.claimBdev(bdev.name, place.operation), (letGo) => letGo)
    yield* only(place, ["Busy"])(claim)
  }
  const before = yield* look(bdev)
  const { found } = before
  const actions = found === undefined ? [] : yield* repairStore(bdev, found.survey, found.masks)
  const after = actions.length === 0 ? before : yield* look(bdev)
  return new Repaired({ actions, before: before.report, after: after.report })
}).pipe(Effect.scoped)

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
