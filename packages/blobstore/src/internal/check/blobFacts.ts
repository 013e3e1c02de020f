/** What stays in memory of each blob, and the contradictions that one blob can have with itself. */
import * as Result from "effect/Result"
import type { BlobId } from "../driver.ts"
import { type ChainMeta, idXattr } from "../format/blobMeta.ts"
import { internalXattr, invalidFlag } from "../format/layout.ts"
import { DescriptorUnknown, type Finding, FlagsContradict, LeftoverDamaged, XattrRepeated } from "./finding.ts"
import type { BlobRead } from "./readBlob.ts"

export interface BlobFacts {
  readonly id: BlobId
  readonly isReadable: boolean
  readonly isReadOnly: boolean
  /** As SPDK takes it: only of a thin blob, and not of one on an external snapshot. */
  readonly parent: BlobId | undefined
  /** What the snapshot xattr says, whether it counts or not. */
  readonly namedParent: BlobId | undefined
  readonly leftover: { readonly of: "snapshot" | "delete"; readonly clone: BlobId } | undefined
  /** The size on disk is told in two ways. */
  readonly sizeDiffers: boolean
  readonly findings: ReadonlyArray<Finding>
}

export const isThin = (meta: ChainMeta): boolean => (meta.invalidFlags & invalidFlag.thin) !== 0
export const isExternalClone = (meta: ChainMeta): boolean => (meta.invalidFlags & invalidFlag.externalSnapshot) !== 0

export const asBlobFacts = (blob: BlobRead): BlobFacts => {
  const { id, meta } = blob
  if (meta === undefined) {
    const unknown = { isReadOnly: true, parent: undefined, namedParent: undefined, leftover: undefined }
    return { id, isReadable: false, ...unknown, sizeDiffers: false, findings: [] }
  }
  const findings: Array<Finding> = []
  for (const name of new Set(meta.duplicateXattrs)) findings.push(new XattrRepeated({ blob: id, name }))
  for (const type of new Set(meta.unknownDescriptors)) findings.push(new DescriptorUnknown({ blob: id, type }))
  findings.push(...contradictions(meta))
  const named = idXattr(meta, internalXattr.snapshot)
  const namedParent = Result.isSuccess(named) ? named.success : undefined
  return {
    id,
    isReadable: blob.isWhole,
    isReadOnly: meta.dataReadOnly,
    parent: isThin(meta) && !isExternalClone(meta) ? namedParent : undefined,
    namedParent,
    leftover: leftoverOf(meta, findings),
    sizeDiffers: blob.findings.some((finding) => finding._tag === "SizeDiffers"),
    findings
  }
}

/** SPDK looks for the mark of a deletion first. */
const leftoverOf = (meta: ChainMeta, findings: Array<Finding>): BlobFacts["leftover"] => {
  for (const name of [internalXattr.snapshotPendingRemoval, internalXattr.snapshotInProgress]) {
    const clone = idXattr(meta, name)
    if (Result.isFailure(clone)) {
      findings.push(new LeftoverDamaged({ blob: meta.id, rule: clone.failure.rule }))
      return undefined
    }
    const of = name === internalXattr.snapshotInProgress ? "snapshot" : "delete"
    if (clone.success !== undefined) return { of, clone: clone.success }
  }
  return undefined
}

const contradictions = (meta: ChainMeta): ReadonlyArray<Finding> => {
  const flag = (bit: number) => (meta.invalidFlags & bit) !== 0
  const found: Array<Finding> = []
  const say = (severity: "error" | "warning", rule: string) =>
    found.push(new FlagsContradict({ severity, blob: meta.id, rule }))
  if (meta.useExtentTable && !flag(invalidFlag.extentTable)) {
    say("warning", "has an extent table without the flag for it, which an old version would not see")
  }
  if (meta.internalXattrs.size > 0 && !flag(invalidFlag.internalXattr)) {
    say("warning", "has internal xattrs without the flag for them, which an old version would not see")
  }
  const external = meta.internalXattrs.has(internalXattr.externalSnapshot)
  if (flag(invalidFlag.externalSnapshot) && !external) say("error", "is on an external snapshot that it does not name")
  const named = idXattr(meta, internalXattr.snapshot)
  if (Result.isFailure(named)) say(isThin(meta) ? "error" : "warning", named.failure.rule)
  else if (named.success !== undefined && !isThin(meta)) say("warning", "names a parent, but is not thin")
  return found
}
