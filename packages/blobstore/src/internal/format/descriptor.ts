/** The descriptors that a metadata page is made of: bytes to tagged values and back. */
import * as Result from "effect/Result"
import { damaged, type Decoded, type Where } from "./damage.ts"
import * as L from "./layout.ts"
import { decodeText, encodeText } from "./text.ts"

/** `length` clusters in a row from `cluster` on; from 0: clusters that are not allocated. */
export interface Extent {
  readonly cluster: number
  readonly length: number
}

/** An extent page; page 0: `count` extent pages that are not allocated. */
export interface ExtentTableEntry {
  readonly page: number
  readonly count: number
}

export interface ExtentRle {
  readonly _tag: "ExtentRle"
  readonly extents: ReadonlyArray<Extent>
}

export interface ExtentTable {
  readonly _tag: "ExtentTable"
  /** Of the whole blob, in each table of its chain. */
  readonly clusters: number
  readonly entries: ReadonlyArray<ExtentTableEntry>
}

export interface ExtentPage {
  readonly _tag: "ExtentPage"
  /** In the blob. */
  readonly startCluster: number
  /** On the device; 0: not allocated. */
  readonly clusters: Uint32Array
}

export interface Xattr {
  readonly _tag: "Xattr"
  readonly name: string
  readonly value: Uint8Array
}

export interface XattrInternal {
  readonly _tag: "XattrInternal"
  readonly name: string
  readonly value: Uint8Array
}

export interface Flags {
  readonly _tag: "Flags"
  readonly invalidFlags: number
  readonly dataRoFlags: number
  readonly mdRoFlags: number
}

/** Of a newer version, which says by a flag whether the blob may be opened without understanding it. */
export interface Unknown {
  readonly _tag: "Unknown"
  readonly type: number
  readonly length: number
}

export type MdDescriptor = ExtentRle | ExtentTable | ExtentPage | Xattr | XattrInternal | Flags | Unknown

/**
 * Everything up to the padding that ends the page. No rule of SPDK's parser that looks at one descriptor alone is left out;
 * beyond it a descriptor may not reach past the end of the page, which SPDK would read.
 */
export const decodeDescriptors = (area: Uint8Array, where: Where): Decoded<ReadonlyArray<MdDescriptor>> => {
  const found: Array<MdDescriptor> = []
  const view = L.viewOf(area)
  let at = 0
  while (at + L.descriptorHeaderBytes <= area.length) {
    const type = view.getUint8(at)
    const length = view.getUint32(at + 1, true)
    const body = at + L.descriptorHeaderBytes
    if (type === L.descriptorType.padding) {
      if (length === 0) break
    } else if (type > L.descriptorType.extentPage) {
      found.push({ _tag: "Unknown", type, length })
    } else {
      const offset = L.mdPageOffset.descriptors + at
      if (length > area.length - body) return damaged(where, "has a descriptor that reaches past its end", offset)
      const decoded = decodeBody(type, area.subarray(body, body + length), where, offset)
      if (Result.isFailure(decoded)) return Result.fail(decoded.failure)
      found.push(decoded.success)
    }
    at = body + length
  }
  return Result.succeed(found)
}

const decodeBody = (type: number, body: Uint8Array, where: Where, offset: number): Decoded<MdDescriptor> => {
  switch (type) {
    case L.descriptorType.flags:
      return decodeFlags(body, where, offset)
    case L.descriptorType.extentRle:
      return decodeRle(body, where, offset)
    case L.descriptorType.extentTable:
      return decodeTable(body, where, offset)
    case L.descriptorType.extentPage:
      return decodeExtents(body, where, offset)
    default:
      return decodeXattr(body, type === L.descriptorType.xattr ? "Xattr" : "XattrInternal", where, offset)
  }
}

const decodeFlags = (body: Uint8Array, where: Where, offset: number): Decoded<Flags> => {
  if (body.length !== L.flagsBytes) return damaged(where, `has flags of ${body.length} bytes`, offset)
  const view = L.viewOf(body)
  const invalidFlags = L.readU64(view, 0)
  const dataRoFlags = L.readU64(view, 8)
  const mdRoFlags = L.readU64(view, 16)
  if (invalidFlags === undefined || dataRoFlags === undefined || mdRoFlags === undefined) {
    return damaged(where, "has flags that no version knows", offset)
  }
  return Result.succeed({ _tag: "Flags", invalidFlags, dataRoFlags, mdRoFlags })
}

const decodeRle = (body: Uint8Array, where: Where, offset: number): Decoded<ExtentRle> => {
  if (body.length === 0 || body.length % L.runBytes !== 0) {
    return damaged(where, `has extents of ${body.length} bytes`, offset)
  }
  const view = L.viewOf(body)
  const extents: Array<Extent> = []
  for (let at = 0; at < body.length; at += L.runBytes) {
    extents.push({ cluster: view.getUint32(at, true), length: view.getUint32(at + 4, true) })
  }
  return Result.succeed({ _tag: "ExtentRle", extents })
}

const decodeTable = (body: Uint8Array, where: Where, offset: number): Decoded<ExtentTable> => {
  const header = L.extentTableHeaderBytes
  if (body.length < header || (body.length - header) % L.runBytes !== 0) {
    return damaged(where, `has an extent table of ${body.length} bytes`, offset)
  }
  const view = L.viewOf(body)
  const clusters = L.readU64(view, 0)
  if (clusters === undefined) return damaged(where, "has an extent table of too many clusters", offset)
  const entries: Array<ExtentTableEntry> = []
  for (let at = header; at < body.length; at += L.runBytes) {
    const entry = { page: view.getUint32(at, true), count: view.getUint32(at + 4, true) }
    if (entry.page !== 0 && entry.count !== 1) {
      return damaged(where, `has ${entry.count} times the same extent page in its extent table`, offset)
    }
    entries.push(entry)
  }
  return Result.succeed({ _tag: "ExtentTable", clusters, entries })
}

const decodeExtents = (body: Uint8Array, where: Where, offset: number): Decoded<ExtentPage> => {
  const header = L.extentPageHeaderBytes
  if (body.length <= header || (body.length - header) % 4 !== 0) {
    return damaged(where, `has a list of clusters of ${body.length} bytes`, offset)
  }
  const view = L.viewOf(body)
  const clusters = new Uint32Array((body.length - header) / 4)
  for (let i = 0; i < clusters.length; i++) clusters[i] = view.getUint32(header + i * 4, true)
  return Result.succeed({ _tag: "ExtentPage", startCluster: view.getUint32(0, true), clusters })
}

const decodeXattr = (
  body: Uint8Array,
  tag: "Xattr" | "XattrInternal",
  where: Where,
  offset: number
): Decoded<Xattr | XattrInternal> => {
  const header = L.xattrHeaderBytes
  if (body.length < header) return damaged(where, `has an xattr of ${body.length} bytes`, offset)
  const view = L.viewOf(body)
  const nameLength = view.getUint16(0, true)
  const valueLength = view.getUint16(2, true)
  if (body.length !== header + nameLength + valueLength) {
    return damaged(where, `has an xattr whose lengths contradict each other`, offset)
  }
  // In SPDK a name is a C string: it ends at a NUL.
  const name = body.subarray(header, header + nameLength)
  const end = name.indexOf(0)
  return Result.succeed({
    _tag: tag,
    name: decodeText(end < 0 ? name : name.subarray(0, end)),
    // The page's memory is used again.
    value: body.slice(header + nameLength)
  })
}

/** With the header. */
export const descriptorBytes = (descriptor: MdDescriptor): number => {
  const header = L.descriptorHeaderBytes
  switch (descriptor._tag) {
    case "Flags":
      return header + L.flagsBytes
    case "ExtentRle":
      return header + descriptor.extents.length * L.runBytes
    case "ExtentTable":
      return header + L.extentTableHeaderBytes + descriptor.entries.length * L.runBytes
    case "ExtentPage":
      return header + L.extentPageHeaderBytes + descriptor.clusters.length * 4
    case "Unknown":
      return header + descriptor.length
    default:
      return xattrBytes(descriptor.name, descriptor.value)
  }
}

/** What an xattr takes in a page. One that takes more than `descriptorAreaBytes` cannot be stored. */
export const xattrBytes = (name: string, value: Uint8Array): number =>
  L.descriptorHeaderBytes + L.xattrHeaderBytes + encodeText(name).length + value.length

/** The area between the header of a page and its `next`, padded with zeros. The descriptors are known to fit. */
export const encodeDescriptors = (descriptors: ReadonlyArray<MdDescriptor>): Uint8Array => {
  const area = new Uint8Array(L.descriptorAreaBytes)
  const view = L.viewOf(area)
  let at = 0
  for (const descriptor of descriptors) {
    const bytes = descriptorBytes(descriptor)
    view.setUint8(at, typeOf(descriptor))
    view.setUint32(at + 1, bytes - L.descriptorHeaderBytes, true)
    encodeBody(descriptor, area, view, at + L.descriptorHeaderBytes)
    at += bytes
  }
  return area
}

const typeOf = (descriptor: MdDescriptor): number => {
  switch (descriptor._tag) {
    case "Flags":
      return L.descriptorType.flags
    case "ExtentRle":
      return L.descriptorType.extentRle
    case "ExtentTable":
      return L.descriptorType.extentTable
    case "ExtentPage":
      return L.descriptorType.extentPage
    case "Xattr":
      return L.descriptorType.xattr
    case "XattrInternal":
      return L.descriptorType.xattrInternal
    case "Unknown":
      return descriptor.type
  }
}

const encodeBody = (descriptor: MdDescriptor, area: Uint8Array, view: DataView, start: number): void => {
  let at = start
  const pair = (a: number, b: number) => {
    view.setUint32(at, a, true)
    view.setUint32(at + 4, b, true)
    at += L.runBytes
  }
  switch (descriptor._tag) {
    case "Flags":
      L.writeU64(view, at, descriptor.invalidFlags)
      L.writeU64(view, at + 8, descriptor.dataRoFlags)
      L.writeU64(view, at + 16, descriptor.mdRoFlags)
      return
    case "ExtentRle":
      for (const { cluster, length } of descriptor.extents) pair(cluster, length)
      return
    case "ExtentTable":
      L.writeU64(view, at, descriptor.clusters)
      at += L.extentTableHeaderBytes
      for (const { count, page } of descriptor.entries) pair(page, count)
      return
    case "ExtentPage":
      view.setUint32(at, descriptor.startCluster, true)
      for (const cluster of descriptor.clusters) view.setUint32((at += 4), cluster, true)
      return
    case "Unknown":
      return
    default: {
      const name = encodeText(descriptor.name)
      view.setUint16(at, name.length, true)
      view.setUint16(at + 2, descriptor.value.length, true)
      area.set(name, at + L.xattrHeaderBytes)
      area.set(descriptor.value, at + L.xattrHeaderBytes + name.length)
    }
  }
}
