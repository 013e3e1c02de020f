/**
 * The findings of `Check.check`. Each kind is a class, so a program can match on `_tag`. `message` is one line for
 * people. Import these names from `Check`.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"

/**
 * `error`: data or metadata is lost, or will be lost when the store is used. `warning`: space is left over or wasted,
 * and a load or a repair recovers it. `info`: not a fault.
 *
 * @since 0.1.0
 * @category models
 */
export const Severity = Schema.Literals(["error", "warning", "info"])
export type Severity = typeof Severity.Type

/** The names of the three masks. @since 0.1.0 @category models */
export const Mask = Schema.Literals(["used pages", "used clusters", "used blob ids"])
export type Mask = typeof Mask.Type

const always = <S extends Severity>(severity: S) =>
  Schema.Literal(severity).pipe(Schema.withConstructorDefault(Effect.succeed(severity)))

const id = (prefix: string) => `@effect-spdk/blobstore/Check/${prefix}`
const hex = (blob: number): string => `0x${blob.toString(16)}`
const run = (first: number, count: number): string => (count === 1 ? `${first}` : `${first} to ${first + count - 1}`)

/**
 * The device holds no blobstore, or the super block is not valid. Nothing else is checked.
 *
 * @since 0.1.0
 * @category findings
 */
export class SuperBlockDamaged extends Schema.TaggedClass<SuperBlockDamaged>(id("SuperBlockDamaged"))(
  "SuperBlockDamaged",
  { severity: always("error"), rule: Schema.String, offsetBytes: Schema.optional(Schema.Int) }
) {
  get message(): string {
    return `the super block ${this.rule}`
  }
}

/**
 * The next load recovers the store. The store was not unloaded, or it has a version that is always recovered. The masks
 * on disk are then not valid and are not compared.
 *
 * @since 0.1.0
 * @category findings
 */
export class Unclean extends Schema.TaggedClass<Unclean>(id("Unclean"))("Unclean", {
  severity: always("info"),
  because: Schema.Literals(["stopped", "version"])
}) {
  get message(): string {
    return this.because === "stopped" ? "the store was not unloaded" : "the store is of a version without all masks"
  }
}

/** @since 0.1.0 @category findings */
export class SuperBlobMissing extends Schema.TaggedClass<SuperBlobMissing>(id("SuperBlobMissing"))("SuperBlobMissing", {
  severity: always("warning"),
  blob: Schema.Int
}) {
  get message(): string {
    return `the super blob ${hex(this.blob)} does not exist`
  }
}

/** @since 0.1.0 @category findings */
export class MaskDamaged extends Schema.TaggedClass<MaskDamaged>(id("MaskDamaged"))("MaskDamaged", {
  severity: always("error"),
  mask: Mask,
  rule: Schema.String
}) {
  get message(): string {
    return `the mask of ${this.mask} is damaged: the ${this.rule}`
  }
}

/** Marked as used although nothing refers to it. The space is not available. @since 0.1.0 @category findings */
export class Lost extends Schema.TaggedClass<Lost>(id("Lost"))("Lost", {
  severity: always("warning"),
  mask: Mask,
  first: Schema.Int,
  count: Schema.Int
}) {
  get message(): string {
    return `${this.mask} ${run(this.first, this.count)}: marked as used, but nothing refers to it`
  }
}

/** In use although marked as free. The next allocation overwrites it. @since 0.1.0 @category findings */
export class Missing extends Schema.TaggedClass<Missing>(id("Missing"))("Missing", {
  severity: always("error"),
  mask: Mask,
  first: Schema.Int,
  count: Schema.Int
}) {
  get message(): string {
    return `${this.mask} ${run(this.first, this.count)}: in use, but not marked as used`
  }
}

/** A page of a blob's chain, or of the store, that cannot be decoded. @since 0.1.0 @category findings */
export class PageDamaged extends Schema.TaggedClass<PageDamaged>(id("PageDamaged"))("PageDamaged", {
  severity: always("error"),
  page: Schema.Int,
  /** The blob of the chain. `undefined`: no blob starts the chain. */
  blob: Schema.optional(Schema.Int),
  rule: Schema.String
}) {
  get message(): string {
    return `metadata page ${this.page}${this.blob === undefined ? "" : ` of blob ${hex(this.blob)}`} ${this.rule}`
  }
}

/**
 * The store was not unloaded, and this blob existed at its last unload. The blob's first page is neither empty, as
 * after a deletion, nor a page of another blob. A recovery ignores the blob and gives its clusters to others.
 *
 * @since 0.1.0
 * @category findings
 */
export class BlobLost extends Schema.TaggedClass<BlobLost>(id("BlobLost"))("BlobLost", {
  severity: always("warning"),
  blob: Schema.Int,
  page: Schema.Int,
  rule: Schema.String
}) {
  get message(): string {
    return `blob ${hex(this.blob)} was there at the last unload, and metadata page ${this.page} ${this.rule}`
  }
}

/**
 * Each page is valid, but the pages contradict each other: a broken chain, contradicting extents, unknown flags.
 *
 * @since 0.1.0
 * @category findings
 */
export class BlobDamaged extends Schema.TaggedClass<BlobDamaged>(id("BlobDamaged"))("BlobDamaged", {
  severity: always("error"),
  blob: Schema.Int,
  rule: Schema.String
}) {
  get message(): string {
    return `blob ${hex(this.blob)}: ${this.rule}`
  }
}

/** @since 0.1.0 @category findings */
export class ExtentPageDamaged extends Schema.TaggedClass<ExtentPageDamaged>(id("ExtentPageDamaged"))(
  "ExtentPageDamaged",
  { severity: always("error"), blob: Schema.Int, page: Schema.Int, rule: Schema.String }
) {
  get message(): string {
    return `blob ${hex(this.blob)}: ${this.rule}`
  }
}

/**
 * A resize stopped between the extent page and the chain. SPDK uses the extent page.
 *
 * @since 0.1.0
 * @category findings
 */
export class SizeDiffers extends Schema.TaggedClass<SizeDiffers>(id("SizeDiffers"))("SizeDiffers", {
  severity: always("warning"),
  blob: Schema.Int,
  /** In clusters. */
  inTable: Schema.Int,
  inPages: Schema.Int
}) {
  get message(): string {
    return `blob ${hex(this.blob)} has ${this.inTable} clusters by its chain and ${this.inPages} by its extent pages`
  }
}

/** @since 0.1.0 @category findings */
export class UsedTwice extends Schema.TaggedClass<UsedTwice>(id("UsedTwice"))("UsedTwice", {
  severity: always("error"),
  what: Schema.Literals(["pages", "clusters"]),
  /** The same id twice: the clash is within one blob. */
  blobs: Schema.Tuple([Schema.Int, Schema.Int]),
  /** The lowest number that both use. */
  first: Schema.Int,
  count: Schema.Int
}) {
  get message(): string {
    const [a, b] = this.blobs
    return `blobs ${hex(a)} and ${hex(b)} both use ${this.count} ${this.what}, ${this.first} among them`
  }
}

/**
 * Pages with content that nothing refers to. They are harmless: pages are written before they are used.
 *
 * @since 0.1.0
 * @category findings
 */
export class StalePages extends Schema.TaggedClass<StalePages>(id("StalePages"))("StalePages", {
  severity: always("info"),
  first: Schema.Int,
  count: Schema.Int
}) {
  get message(): string {
    return `metadata pages ${run(this.first, this.count)} are not empty, and nothing refers to them`
  }
}

/** Only the first xattr of this name counts. @since 0.1.0 @category findings */
export class XattrRepeated extends Schema.TaggedClass<XattrRepeated>(id("XattrRepeated"))("XattrRepeated", {
  severity: always("warning"),
  blob: Schema.Int,
  name: Schema.String
}) {
  get message(): string {
    return `blob ${hex(this.blob)} has the xattr "${this.name}" more than once`
  }
}

/** SPDK opens such a blob, but fails to recover a store with one. @since 0.1.0 @category findings */
export class DescriptorUnknown extends Schema.TaggedClass<DescriptorUnknown>(id("DescriptorUnknown"))(
  "DescriptorUnknown",
  { severity: always("warning"), blob: Schema.Int, type: Schema.Int }
) {
  get message(): string {
    return `blob ${hex(this.blob)} has a descriptor of the unknown type ${this.type}`
  }
}

/** `error` when SPDK does not open the blob. @since 0.1.0 @category findings */
export class FlagsContradict extends Schema.TaggedClass<FlagsContradict>(id("FlagsContradict"))("FlagsContradict", {
  severity: Severity,
  blob: Schema.Int,
  rule: Schema.String
}) {
  get message(): string {
    return `blob ${hex(this.blob)} ${this.rule}`
  }
}

/** The snapshot of a clone is missing. The clone cannot be opened. @since 0.1.0 @category findings */
export class ParentMissing extends Schema.TaggedClass<ParentMissing>(id("ParentMissing"))("ParentMissing", {
  severity: always("error"),
  blob: Schema.Int,
  parent: Schema.Int
}) {
  get message(): string {
    return `the parent ${hex(this.parent)} of blob ${hex(this.blob)} does not exist`
  }
}

/** @since 0.1.0 @category findings */
export class ParentCycle extends Schema.TaggedClass<ParentCycle>(id("ParentCycle"))("ParentCycle", {
  severity: always("error"),
  blob: Schema.Int
}) {
  get message(): string {
    return `blob ${hex(this.blob)} is its own ancestor`
  }
}

/** A parent is writable. A write to the parent changes its clones. @since 0.1.0 @category findings */
export class ParentWritable extends Schema.TaggedClass<ParentWritable>(id("ParentWritable"))("ParentWritable", {
  severity: always("error"),
  blob: Schema.Int,
  parent: Schema.Int
}) {
  get message(): string {
    return `the parent ${hex(this.parent)} of blob ${hex(this.blob)} is not read-only`
  }
}

/**
 * A snapshot whose creation or deletion was in progress when the store stopped. `drop`: its clone does not refer to it,
 * and a load deletes the orphan. `keep`: a load removes the mark.
 *
 * @since 0.1.0
 * @category findings
 */
export class Leftover extends Schema.TaggedClass<Leftover>(id("Leftover"))("Leftover", {
  severity: always("warning"),
  blob: Schema.Int,
  clone: Schema.Int,
  of: Schema.Literals(["snapshot", "delete"]),
  recovery: Schema.Literals(["keep", "drop"]),
  /**
   * The number of clusters that both maps contain. With `keep`, SPDK leaves them in both, and deleting the snapshot
   * then frees the clone's data.
   */
  sharedClusters: Schema.Int
}) {
  get message(): string {
    const what = this.of === "snapshot" ? "was being made" : "was being deleted"
    return `snapshot ${hex(this.blob)} of blob ${hex(this.clone)} ${what}; recovery is to ${this.recovery} it`
  }
}

/**
 * The mark of a leftover snapshot names no blob. SPDK's load leaves the snapshot unchanged.
 *
 * @since 0.1.0
 * @category findings
 */
export class LeftoverDamaged extends Schema.TaggedClass<LeftoverDamaged>(id("LeftoverDamaged"))("LeftoverDamaged", {
  severity: always("error"),
  blob: Schema.Int,
  rule: Schema.String
}) {
  get message(): string {
    return `snapshot ${hex(this.blob)} ${this.rule}`
  }
}

/** @since 0.1.0 @category findings */
export const Finding = Schema.Union([
  SuperBlockDamaged,
  Unclean,
  SuperBlobMissing,
  MaskDamaged,
  Lost,
  Missing,
  PageDamaged,
  BlobLost,
  BlobDamaged,
  ExtentPageDamaged,
  SizeDiffers,
  UsedTwice,
  StalePages,
  XattrRepeated,
  DescriptorUnknown,
  FlagsContradict,
  ParentMissing,
  ParentCycle,
  ParentWritable,
  Leftover,
  LeftoverDamaged
])
export type Finding = typeof Finding.Type
