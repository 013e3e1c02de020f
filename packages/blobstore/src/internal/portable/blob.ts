/** A blob in memory, while it is open. */
import type { Bdev } from "@effect-spdk/core/Bdev"
import type { IoError } from "@effect-spdk/core/Bdev"
import type * as Deferred from "effect/Deferred"
import type * as Scope from "effect/Scope"
import type { BlobId, DriverBlobInfo, ClearMethod, Parent } from "../driver.ts"
import { decodeText } from "../format/text.ts"
import * as L from "../format/layout.ts"
import { encodeIdXattr } from "../format/blobMeta.ts"
import { Gate } from "./gate.ts"

/** A bdev under a blob. */
export interface External {
  readonly bdev: Bdev
  readonly scope: Scope.Closeable
}

/** What unallocated clusters read from; undefined is zeroes. `Missing`: a bdev that could not be opened when the blob was. */
export type Backing =
  | { readonly _tag: "Blob"; readonly blob: BlobState }
  | ({ readonly _tag: "External" } & External)
  | { readonly _tag: "Missing"; readonly name: string }

/** `external`: a bdev. */
export type ParentId = BlobId | "external" | undefined

const clearMethods: ReadonlyArray<ClearMethod> = ["default", "none", "unmap", "write_zeroes"]
export const clearMethodOf = (mdRoFlags: number): ClearMethod =>
  clearMethods[mdRoFlags & L.clearMethodMask] ?? "default"
const clearMethodFlags = (method: ClearMethod): number => clearMethods.indexOf(method)

export class BlobState {
  readonly id: BlobId
  /** In errors. */
  readonly name: string
  readonly rootPage: number
  readonly gate = new Gate()
  /** First writes that are under way, by cluster of the blob. */
  readonly allocations = new Map<number, Deferred.Deferred<void, IoError>>()

  /** The cluster on the device of each cluster; 0: none. Longer than `clusterCount` while what was cut off waits to be given back. */
  clusters: Uint32Array = new Uint32Array(0)
  clusterCount = 0
  allocatedClusters = 0
  extentPages: Uint32Array = new Uint32Array(0)
  extentPageCount = 0
  useExtentTable = true
  /** As on the device: the root page and what it leads to. Empty before the first sync. */
  chain: Array<number> = []
  /** Pages that the root page on the device may lead to, and must not. They are claimed until it is written. */
  stale: Array<number> = []
  /** Clusters that the device may have under this blob, and must not. They are claimed until it has been told. */
  staleClusters: Array<number> = []
  /** Extent pages, by their place in the table, that may differ on the device. They are written after the root page. */
  readonly unsurePages = new Set<number>()
  /** As on the device. */
  persistedClusters = 0
  persistedExtentPages = 0

  invalidFlags = 0
  dataRoFlags = 0
  mdRoFlags = 0
  dataReadOnly = false
  mdReadOnly = false
  xattrs: Map<string, Uint8Array> = new Map()
  internalXattrs: Map<string, Uint8Array> = new Map()
  clearMethod: ClearMethod = "default"

  parentId: ParentId = undefined
  backing: Backing | undefined = undefined
  /** The memory differs from the device. */
  dirty = false
  /** Counts what users change: a change that is taken back must not take theirs with it. */
  changes = 0
  /** The last sync failed: the root page on the device may be of before it or of after it. */
  unsure = false
  /** Writes of the root page since the last one that is known to be flushed. */
  unflushed = 0
  /** An operation of several steps is under way. */
  locked = false
  openCount = 0

  constructor(id: BlobId, name: string) {
    this.id = id
    this.name = name
    this.rootPage = id - L.blobIdHighBit
  }

  get isThin(): boolean {
    return (this.invalidFlags & L.invalidFlag.thin) !== 0
  }

  get isExternalClone(): boolean {
    return (this.invalidFlags & L.invalidFlag.externalSnapshot) !== 0
  }

  /** The end of the clusters, and of the extent pages, waits to be given back. */
  get cutsOff(): boolean {
    return this.clusters.length > this.clusterCount || this.extentPages.length > this.extentPageCount
  }

  /** A failure left the device in another state than the memory. */
  get isUnsettled(): boolean {
    const { stale, staleClusters, unsure, unsurePages } = this
    return unsure || unsurePages.size > 0 || stale.length > 0 || staleClusters.length > 0 || this.cutsOff
  }

  get isClone(): boolean {
    return typeof this.parentId === "number"
  }

  /** A user has changed it. */
  touch(): void {
    this.dirty = true
    this.changes++
  }

  setFlag(flag: number, on: boolean): void {
    this.invalidFlags = on ? this.invalidFlags | flag : this.invalidFlags & ~flag
    this.dirty = true
  }

  setClearMethod(method: ClearMethod): void {
    this.clearMethod = method
    this.mdRoFlags |= clearMethodFlags(method)
    this.dirty = true
  }

  setInternal(name: string, value: Uint8Array | BlobId): void {
    this.internalXattrs.set(name, typeof value === "number" ? encodeIdXattr(value) : value)
    this.setFlag(L.invalidFlag.internalXattr, true)
  }

  removeInternal(name: string): boolean {
    if (!this.internalXattrs.delete(name)) return false
    if (this.internalXattrs.size === 0) this.setFlag(L.invalidFlag.internalXattr, false)
    this.dirty = true
    return true
  }

  /** Room for so many clusters; what is new is unallocated. */
  reserve(clusters: number, extentPages: number): void {
    if (clusters > this.clusters.length) this.clusters = grown(this.clusters, clusters)
    if (extentPages > this.extentPages.length) this.extentPages = grown(this.extentPages, extentPages)
  }

  countAllocated(): void {
    let count = 0
    for (let i = 0; i < this.clusterCount; i++) if (this.clusters[i] !== 0) count++
    this.allocatedClusters = count
  }

  info(isSnapshot: boolean): DriverBlobInfo {
    return {
      id: this.id,
      clusters: this.clusterCount,
      allocatedClusters: this.allocatedClusters,
      isReadOnly: this.dataReadOnly || this.mdReadOnly,
      isThin: this.isThin,
      isSnapshot,
      isClone: this.isClone,
      parent: parentOf(this.parentId, this.internalXattrs)
    }
  }
}

const grown = (old: Uint32Array, length: number): Uint32Array => {
  const array = new Uint32Array(length)
  array.set(old)
  return array
}

export const parentOf = (id: ParentId, internalXattrs: ReadonlyMap<string, Uint8Array>): Parent => {
  if (id === undefined) return { _tag: "None" }
  if (id !== "external") return { _tag: "Snapshot", id }
  return { _tag: "External", bdev: externalName(internalXattrs.get(L.internalXattr.externalSnapshot)) }
}

/** SPDK's lvols keep a UUID with the NUL at its end. */
export const externalName = (value: Uint8Array | undefined): string => {
  if (value === undefined) return ""
  const end = value.indexOf(0)
  return decodeText(end < 0 ? value : value.subarray(0, end))
}
