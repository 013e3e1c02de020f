/** What is known of the blobs of a store: registers for everything a crash may leave old or new. */
import type { BlobId } from "@effect-spdk/blobstore/Blob"
import * as Model from "@effect-spdk/core/SimulationModel"

/** Contents that may be anything: of a thick blob that nobody wrote, say. */
export const anyStamp = -2
export const noValue = -3

/** Of a blob without a parent. */
export const noParent = 0
/** Of a blob over a bdev. */
export const externalParent = -1

export const xattrNames = ["value", "big", "json"] as const
export type XattrName = (typeof xattrNames)[number]

export const sectorMatches = (possible: number, found: number): boolean => possible === anyStamp || possible === found

export class ModelBlob {
  readonly label: number
  id: BlobId | undefined = undefined
  readonly exists: Model.Register<boolean>
  readonly size: Model.Register<number>
  /** An inflation ends that: what a thick blob grows by is not cleared. */
  thin: boolean
  readonly readOnly: Model.Register<boolean>
  /** It has, or has had, one. */
  hasParent = false
  /** Its label, or what is not one; undefined when nobody knows. */
  parent: number | undefined = noParent
  /** Writes under way, and how many have begun. */
  writing = 0
  writes = 0
  /** Calls under way that name the blob by its id, which another blob gets when it is deleted. */
  calls = 0
  isDeleting = false
  sectors: Array<Model.Register<number>> = []
  readonly xattrs: { readonly [Name in XattrName]: Model.Register<number> }

  constructor(time: Model.Time, label: number, clusters: number, thin: boolean, isReadOnly: boolean) {
    this.label = label
    this.exists = Model.makeRegister(time, false)
    this.size = Model.makeRegister(time, clusters)
    this.readOnly = Model.makeRegister(time, isReadOnly)
    const none = () => Model.makeRegister(time, noValue)
    this.xattrs = { value: none(), big: none(), json: none() }
    this.thin = thin
  }

  /** What its sync makes durable. */
  registers(): ReadonlyArray<Pick<Model.Register<number>, "durableSince">> {
    return [...this.metadata(), ...this.sectors]
  }

  /** What lies in its pages. */
  metadata(): ReadonlyArray<Pick<Model.Register<number>, "durableSince" | "crash">> {
    return [this.size, this.readOnly, ...Object.values(this.xattrs)]
  }

  /** A close could not write it. */
  loseUnsynced(): void {
    const isInUse = this.calls > 1
    loses(this.size, isInUse)
    loses(this.readOnly, isInUse)
    for (const xattr of Object.values(this.xattrs)) loses(xattr, isInUse)
  }

  /** Nobody can write it any more. */
  get isSurelyReadOnly(): boolean {
    return this.readOnly.possible().every(Boolean)
  }
}

/** What was not synced is gone. A change that others have under way may come after that, so that it keeps its register. */
const loses = <A>(register: Model.Register<A>, isInUse: boolean): void => {
  if (!isInUse) return register.crash()
  for (const value of register.afterCrash()) register.begin(value).fail()
}

export class BlobModel {
  readonly time = Model.makeTime()
  readonly sectorsPerCluster: number
  readonly blobs = new Map<number, ModelBlob>()
  /** What has to be brought in order when the run ends in the middle. */
  readonly unfinished = new Set<() => void>()
  readonly lineage = new Lineage(this)
  /** The id of the blob from which applications find the others; 0: none. */
  readonly superBlob = Model.makeRegister(this.time, 0)
  /** Of the device, as the store knows it. */
  readonly clusters: Model.Register<number>
  private nextStamp = 1

  constructor(clusterBytes: number, clusters: number) {
    this.sectorsPerCluster = clusterBytes / Model.stampBytes
    this.clusters = Model.makeRegister(this.time, clusters)
  }

  stamp(): number {
    return this.nextStamp++
  }

  add(label: number, clusters: number, thin: boolean, isReadOnly = false): ModelBlob {
    const blob = new ModelBlob(this.time, label, clusters, thin, isReadOnly)
    this.blobs.set(label, blob)
    this.fit(blob, clusters, thin ? Model.zeroStamp : anyStamp)
    return blob
  }

  /** The blob of this label that may exist, and can be named. */
  find(label: number): ModelBlob | undefined {
    const blob = this.blobs.get(label)
    return blob !== undefined && blob.id !== undefined && blob.exists.possible().includes(true) ? blob : undefined
  }

  /** Nobody sets another one when the blob is deleted. */
  get mayMissSuperBlob(): boolean {
    const ids = new Set(
      [...this.blobs.values()].flatMap(({ exists, id }) => (exists.possible().every(Boolean) ? [id] : []))
    )
    return this.superBlob.possible().some((id) => id !== 0 && !ids.has(id))
  }

  private metadataClusters: number | undefined

  /** What a store says of its clusters, without those of its metadata, which stay. */
  countTotal(clusters: number, watch: { readonly violated: (message: string) => void }): void {
    const possible = this.clusters.possible()
    this.metadataClusters ??= (possible[0] ?? 0) - clusters
    const total = clusters + this.metadataClusters
    if (this.clusters.found(total, this.time.next())) return
    watch.violated(`the store has ${total} clusters, and not ${possible.join(" or ")}`)
  }

  /** As many sectors as the size has; those that are new have `fresh`. */
  fit(blob: ModelBlob, clusters: number, fresh: number): void {
    const count = clusters * this.sectorsPerCluster
    if (blob.sectors.length > count) blob.sectors.length = count
    while (blob.sectors.length < count) {
      blob.sectors.push(Model.makeRegister(this.time, [fresh], sectorMatches))
    }
  }

  /** The content of another, as it was at some moment since `begin`. */
  copy(from: ModelBlob, to: ModelBlob, begin: number): void {
    to.sectors = from.sectors.map((sector) => Model.makeRegister(this.time, [...sector.possible(begin)], sectorMatches))
  }

  crash(): void {
    for (const finish of this.unfinished) finish()
    this.unfinished.clear()
    this.superBlob.crash()
    this.clusters.crash()
    this.lineage.crash()
    for (const blob of this.blobs.values()) {
      blob.exists.crash()
      for (const register of blob.metadata()) register.crash()
      for (const sector of blob.sectors) sector.crash()
    }
  }

  /** Everything there is now is durable. */
  settled(): void {
    const now = this.time.next()
    this.superBlob.durableSince(now)
    this.clusters.durableSince(now)
    for (const blob of this.blobs.values()) {
      blob.exists.durableSince(now)
      for (const register of blob.registers()) register.durableSince(now)
    }
  }
}

/**
 * Who is whose parent, as long as changes of that come one after the other. Where two overlap, nobody knows, until somebody looks
 * while nothing is under way.
 */
class Lineage {
  private readonly model: BlobModel
  private running = 0
  private begun = 0

  constructor(model: BlobModel) {
    this.model = model
  }

  /** A change begins. What is returned is called at its end: `apply` when it has succeeded, undefined when nothing has changed. */
  begin(): (apply: (() => void) | "unknown" | undefined) => void {
    const isAlone = this.running++ === 0
    const mine = ++this.begun
    return (apply) => {
      this.running--
      if (apply === undefined) return
      if (typeof apply === "function" && isAlone && mine === this.begun) apply()
      else this.forget()
    }
  }

  /** The clones of a blob that goes get its parent. */
  handOver(from: ModelBlob): void {
    for (const blob of this.model.blobs.values()) if (blob.parent === from.label) blob.parent = from.parent
  }

  /** The blob, and those that may read through it. */
  above(blob: ModelBlob): ReadonlyArray<ModelBlob> {
    const found = new Set([blob])
    for (const below of found) {
      for (const other of this.model.blobs.values()) {
        if (other.parent === below.label || other.parent === undefined) found.add(other)
      }
    }
    return [...found]
  }

  crash(): void {
    if (this.running > 0) this.forget()
    this.running = 0
  }

  private forget(): void {
    for (const blob of this.model.blobs.values()) blob.parent = undefined
  }
}

/** Several changes as one. */
export const together = (changes: ReadonlyArray<Model.Change>): Model.Change => ({
  succeed: () => changes.forEach((change) => change.succeed()),
  fail: () => changes.forEach((change) => change.fail()),
  refuse: () => changes.forEach((change) => change.refuse())
})
