/** What is known of the blobs of a store: registers for everything a crash may leave old or new. */
import type { BlobId } from "@effect-spdk/blobstore/Blob"
import * as Model from "@effect-spdk/core/SimulationModel"

/** Contents that may be anything: of a thick blob that nobody wrote, say. */
export const anyStamp = -2
export const noValue = -3

export const sectorMatches = (possible: number, found: number): boolean => possible === anyStamp || possible === found

export class ModelBlob {
  readonly label: number
  id: BlobId | undefined = undefined
  readonly exists: Model.Register<boolean>
  readonly size: Model.Register<number>
  readonly thin: boolean
  isReadOnly = false
  hasParent = false
  /** Calls under way that name the blob by its id, which another blob gets when it is deleted. */
  calls = 0
  isDeleting = false
  sectors: Array<Model.Register<number>> = []
  readonly xattr: Model.Register<number>

  constructor(time: Model.Time, label: number, clusters: number, thin: boolean) {
    this.label = label
    this.exists = Model.makeRegister(time, false)
    this.size = Model.makeRegister(time, clusters)
    this.xattr = Model.makeRegister(time, noValue)
    this.thin = thin
  }

  registers(): ReadonlyArray<Pick<Model.Register<number>, "durableSince">> {
    return [this.size, this.xattr, ...this.sectors]
  }
}

export class BlobModel {
  readonly time = Model.makeTime()
  readonly sectorsPerCluster: number
  readonly blobs = new Map<number, ModelBlob>()
  /** What has to be brought in order when the run ends in the middle. */
  readonly unfinished = new Set<() => void>()
  private nextStamp = 1

  constructor(clusterBytes: number) {
    this.sectorsPerCluster = clusterBytes / Model.stampBytes
  }

  stamp(): number {
    return this.nextStamp++
  }

  add(label: number, clusters: number, thin: boolean): ModelBlob {
    const blob = new ModelBlob(this.time, label, clusters, thin)
    this.blobs.set(label, blob)
    this.fit(blob, clusters, thin ? Model.zeroStamp : anyStamp)
    return blob
  }

  /** The blob of this label that may exist, and can be named. */
  find(label: number): ModelBlob | undefined {
    const blob = this.blobs.get(label)
    return blob !== undefined && blob.id !== undefined && blob.exists.possible().includes(true) ? blob : undefined
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
    for (const blob of this.blobs.values()) {
      blob.exists.crash()
      blob.size.crash()
      blob.xattr.crash()
      for (const sector of blob.sectors) sector.crash()
    }
  }

  /** Everything there is now is durable. */
  settled(): void {
    const now = this.time.next()
    for (const blob of this.blobs.values()) {
      blob.exists.durableSince(now)
      for (const register of blob.registers()) register.durableSince(now)
    }
  }
}

/** Several changes as one. */
export const together = (changes: ReadonlyArray<Model.Change>): Model.Change => ({
  succeed: () => changes.forEach((change) => change.succeed()),
  fail: () => changes.forEach((change) => change.fail()),
  refuse: () => changes.forEach((change) => change.refuse())
})
