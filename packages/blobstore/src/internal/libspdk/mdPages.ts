/**
 * What SPDK's load takes from one metadata page, read in place: a store has a hundred thousand of them. SPDK looks at the CRC, and
 * not at ids and sequence numbers.
 */
import { BitSet } from "../format/bitSet.ts"
import { pageCrc } from "../format/crc32c.ts"
import { blobIdOfPage, descriptorHeaderBytes, descriptorType, extentPageHeaderBytes } from "../format/layout.ts"
import { extentTableHeaderBytes, flagsBytes, internalXattr, invalidFlag, mdPageOffset } from "../format/layout.ts"
import { noPage, pageBytes, readU64, runBytes, xattrHeaderBytes } from "../format/layout.ts"
import { type SuperBlock, totalClusters } from "../format/superBlock.ts"

/** Fewer clusters or extent pages in one metadata page are not worth a note. */
const notedSize = 2 ** 16

const idBytes = 8
const parentName = Buffer.from(internalXattr.snapshot)
const leftoverNames = [internalXattr.snapshotInProgress, internalXattr.snapshotPendingRemoval].map((name) =>
  Buffer.from(name)
)

/** Some pages in memory, `strideBytes` apart. */
export interface Pages {
  readonly bytes: Uint8Array
  /** Of all of them: one for each page would cost more than looking at the page. */
  readonly view: DataView
  readonly text: Buffer
  readonly first: number
  readonly count: number
  readonly strideBytes: number
}

export class MdPages {
  /** With a right CRC: a chain that SPDK follows ends at any other. */
  readonly valid: BitSet
  /** What a recovery takes for the first page of a blob. */
  readonly firsts: BitSet
  /** Of valid pages. */
  readonly next: Uint32Array
  /** With flags, and those of a blob that has a parent if it names one. */
  readonly hasFlags: BitSet
  readonly canHaveParent: BitSet
  /** By the page that names it, the page that the parent begins with. */
  readonly parents = new Map<number, number>()
  /** By page, how many clusters or extent pages it tells of, where they are many. */
  readonly sizes = new Map<number, number>()
  /** By page, what SPDK does not survive, or what a recovery takes for granted. */
  readonly rules = new Map<number, string>()
  /** The same of extent pages, and which ones some page names. */
  readonly extentRules = new Map<number, string>()
  readonly extents: BitSet
  /** A snapshot was being made or removed. */
  mentionsLeftovers = false
  private readonly recovers: boolean
  private readonly mdPages: number
  private readonly clusters: number

  constructor(superBlock: SuperBlock, recovers: boolean) {
    const { mdLength } = superBlock
    this.recovers = recovers
    this.mdPages = mdLength
    this.clusters = totalClusters(superBlock)
    this.valid = new BitSet(mdLength)
    this.firsts = new BitSet(mdLength)
    this.next = new Uint32Array(mdLength)
    this.hasFlags = new BitSet(mdLength)
    this.canHaveParent = new BitSet(mdLength)
    this.extents = new BitSet(mdLength)
  }

  add(pages: Pages, page: number): void {
    const { bytes, view } = pages
    const at = (page - pages.first) * pages.strideBytes
    const crc = view.getUint32(at + mdPageOffset.crc, true)
    const idLow = view.getUint32(at, true)
    const idHigh = view.getUint32(at + 4, true)
    // Never written, or given back.
    if (crc === 0 && idLow === 0 && idHigh === 0) return
    if (crc !== pageCrc(bytes.subarray(at, at + pageBytes))) return
    this.valid.add(page)
    const sequence = view.getUint32(at + mdPageOffset.sequence, true)
    if (sequence === 0 && idHigh === 1 && idLow === page) this.firsts.add(page)
    const next = view.getUint32(at + mdPageOffset.next, true)
    this.next[page] = next
    if (next !== noPage && next >= this.mdPages) this.rules.set(page, `continues at page ${next} of ${this.mdPages}`)
    this.descriptors(pages, page, at + mdPageOffset.descriptors, at + mdPageOffset.next)
  }

  private descriptors(pages: Pages, page: number, start: number, end: number): void {
    const { view } = pages
    for (let at = start; at + descriptorHeaderBytes <= end;) {
      const type = view.getUint8(at)
      const length = view.getUint32(at + 1, true)
      const body = at + descriptorHeaderBytes
      if (type === descriptorType.padding && length === 0) return
      if (type !== descriptorType.padding && type <= descriptorType.extentPage) {
        if (length > end - body) {
          this.rules.set(page, "has a descriptor that reaches past its end")
          return
        }
        this.descriptor(pages, page, type, body, length)
      }
      at = body + length
    }
  }

  private descriptor(pages: Pages, page: number, type: number, at: number, length: number): void {
    switch (type) {
      case descriptorType.flags:
        return this.flags(pages.view, page, at, length)
      case descriptorType.extentRle:
        return this.runs(pages.view, page, at, length)
      case descriptorType.extentTable:
        return this.table(pages.view, page, at, length)
      case descriptorType.extentPage:
        return this.extentPage(pages.view, page, at, length)
      case descriptorType.xattrInternal:
        return this.internal(pages, page, at, length)
    }
  }

  private flags(view: DataView, page: number, at: number, length: number): void {
    if (length !== flagsBytes) return
    const flags = view.getUint32(at, true)
    this.hasFlags.add(page)
    // The last ones count.
    this.canHaveParent.delete(page)
    if ((flags & invalidFlag.thin) !== 0 && (flags & invalidFlag.externalSnapshot) === 0) this.canHaveParent.add(page)
  }

  private runs(view: DataView, page: number, at: number, length: number): void {
    let clusters = 0
    for (let run = at; run + runBytes <= at + length; run += runBytes) {
      const cluster = view.getUint32(run, true)
      const count = view.getUint32(run + 4, true)
      clusters += count
      if (cluster !== 0) this.checkCluster(this.rules, page, cluster + count - 1)
    }
    this.noteSize(page, clusters)
  }

  private table(view: DataView, page: number, at: number, length: number): void {
    let pages = 0
    for (let entry = at + extentTableHeaderBytes; entry + runBytes <= at + length; entry += runBytes) {
      const extent = view.getUint32(entry, true)
      const count = view.getUint32(entry + 4, true)
      pages += count
      if (extent === 0) continue
      if (count !== 1) this.rules.set(page, `has ${count} times the same extent page in its extent table`)
      if (extent >= this.mdPages) this.rules.set(page, `has extent page ${extent} of ${this.mdPages}`)
      this.extents.add(extent)
    }
    this.noteSize(page, pages)
  }

  private noteSize(page: number, size: number): void {
    if (size > notedSize) this.sizes.set(page, (this.sizes.get(page) ?? 0) + size)
  }

  private extentPage(view: DataView, page: number, at: number, length: number): void {
    for (let entry = at + extentPageHeaderBytes; entry + 4 <= at + length; entry += 4) {
      const cluster = view.getUint32(entry, true)
      if (cluster !== 0) this.checkCluster(this.extentRules, page, cluster)
    }
  }

  /** After a clean unload SPDK looks whether the cluster is marked; a recovery marks it. */
  private checkCluster(rules: Map<number, string>, page: number, cluster: number): void {
    if (this.recovers && cluster >= this.clusters) rules.set(page, `has cluster ${cluster} of ${this.clusters}`)
  }

  private internal({ text, view }: Pages, page: number, at: number, length: number): void {
    const nameLength = view.getUint16(at, true)
    const valueLength = view.getUint16(at + 2, true)
    if (length !== xattrHeaderBytes + nameLength + valueLength) return
    const name = at + xattrHeaderBytes
    const nul = text.indexOf(0, name)
    const nameEnd = nul < 0 ? name + nameLength : Math.min(nul, name + nameLength)
    const isNamed = (wanted: Buffer) => text.compare(wanted, 0, wanted.length, name, nameEnd) === 0
    if (leftoverNames.some(isNamed)) this.mentionsLeftovers = true
    // The first one counts.
    if (valueLength !== idBytes || !isNamed(parentName) || this.parents.has(page)) return
    const id = readU64(view, name + nameLength)
    const parent = id === undefined ? -1 : id - blobIdOfPage(0)
    if (parent >= 0 && parent < this.mdPages) this.parents.set(page, parent)
  }
}
