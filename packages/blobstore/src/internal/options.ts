/**
 * From the options people write to those a driver takes, with everything checked that can be known before the driver.
 */
import { bytesOf } from "@effect-spdk/core/Engine"
import { failInvalid, type SpdkErrorOf } from "@effect-spdk/core/SpdkError"
import * as Effect from "effect/Effect"
import type * as Blobstore from "../Blobstore.ts"
import type { BlobId, ClearMethod, DriverCreateOptions, DriverInitOptions, DriverLoadOptions } from "./driver.ts"
import type { Place } from "./reasons.ts"
import { xattrsOf } from "./xattrs.ts"

type Checked<A> = Effect.Effect<A, SpdkErrorOf<"InvalidArgument">>

/** As SPDK (`SPDK_BLOB_OPTS_CLUSTER_SZ`). */
const defaultClusterBytes = 2 ** 20
/** Of a page of metadata, which a cluster is made of. */
const pageBytes = 4096
const maxTypeBytes = 16
/** Clusters and pages have 32 bits on the device. */
const maxUint32 = 2 ** 32 - 1
/** The descriptor of an xattr less the name SPDK keeps it under, with its NUL. */
const maxExternalSnapshotBytes = 4072 - 9 - Buffer.byteLength("EXTERNAL_SNAPSHOT_ID\0")
const clearMethods: ReadonlyArray<ClearMethod> = ["default", "none", "unmap", "write_zeroes"]
const drivers = ["auto", "libspdk", "portable"] as const

const refuse = (place: Place, field: string, rule: string, value: unknown) =>
  failInvalid(place.operation, field, rule, value, place.resource)

export const checkDriver = (place: Place, driver: unknown): Checked<(typeof drivers)[number]> => {
  const known = drivers.find((one) => one === (driver ?? "auto"))
  return known === undefined
    ? refuse(place, "driver", `is none of ${drivers.join(", ")}`, driver)
    : Effect.succeed(known)
}

export const checkInit = Effect.fnUntraced(function* (place: Place, options: Blobstore.InitOptions) {
  const clusterSizeBytes = yield* bytesOf(place.operation, "clusterSize", options.clusterSize ?? defaultClusterBytes)
  if (clusterSizeBytes % pageBytes !== 0 || clusterSizeBytes > maxUint32) {
    const rule = `is not a multiple of ${pageBytes} bytes below 4 GiB`
    return yield* refuse(place, "clusterSize", rule, options.clusterSize)
  }
  const { metadataPages } = options
  if (metadataPages !== undefined && !isCount(metadataPages, 1, maxUint32 - 1)) {
    return yield* refuse(place, "metadataPages", `is not a whole number from 1 to ${maxUint32 - 1}`, metadataPages)
  }
  const type = yield* checkType(place, options.type)
  const clearMethod = options.clearMethod ?? "unmap"
  if (!clearMethods.slice(1).includes(clearMethod)) {
    return yield* refuse(place, "clearMethod", `is none of ${clearMethods.slice(1).join(", ")}`, clearMethod)
  }
  const zeroFreed = yield* checkFlag(place, "zeroFreed", options.zeroFreed, false)
  const checked: DriverInitOptions = { clusterSizeBytes, metadataPages, type, clearMethod, zeroFreed }
  return checked
})

export const checkLoad = Effect.fnUntraced(function* (place: Place, options: Blobstore.LoadOptions) {
  const type = yield* checkType(place, options.type)
  const { onProgress } = options
  if (onProgress !== undefined && typeof onProgress !== "function") {
    return yield* refuse(place, "onProgress", "is not a function", undefined)
  }
  const checked: DriverLoadOptions = {
    type,
    forceRecover: yield* checkFlag(place, "forceRecover", options.forceRecover, false),
    grow: yield* checkFlag(place, "grow", options.grow, false),
    zeroFreed: yield* checkFlag(place, "zeroFreed", options.zeroFreed, false),
    onProgress: onProgress === undefined ? undefined : (done, total) => onProgress({ done, total })
  }
  return checked
})

export const checkCreate = Effect.fnUntraced(function* (
  place: Place,
  options: Blobstore.CreateOptions,
  clusterBytes: number
) {
  const clusters = yield* checkClusters(place, options, clusterBytes)
  const externalSnapshot = options.externalSnapshot
  if (externalSnapshot !== undefined) yield* checkBdevName(place, "externalSnapshot", externalSnapshot)
  const checked: DriverCreateOptions = {
    clusters,
    thin: (yield* checkFlag(place, "thin", options.thin, false)) || externalSnapshot !== undefined,
    clearMethod: yield* checkClearMethod(place, options.clearMethod),
    extentTable: yield* checkFlag(place, "extentTable", options.extentTable, true),
    xattrs: yield* Effect.fromResult(xattrsOf(options.xattrs, place.operation, place.resource)),
    externalSnapshot
  }
  return checked
})

/** From a size or a number of clusters. */
export const checkClusters = (
  place: Place,
  size: { readonly size?: number | string | undefined; readonly clusters?: number | undefined },
  clusterBytes: number
): Checked<number> => {
  if (size.clusters !== undefined) {
    if (size.size !== undefined) return refuse(place, "size", "comes together with clusters", size.size)
    return isCount(size.clusters, 0, maxUint32)
      ? Effect.succeed(size.clusters)
      : refuse(place, "clusters", `is not a whole number from 0 to ${maxUint32}`, size.clusters)
  }
  // bytesOf takes nothing for a mistake. An empty blob is none.
  if (size.size === undefined || size.size === 0) return Effect.succeed(0)
  return Effect.flatMap(bytesOf(place.operation, "size", size.size), (bytes) => {
    const clusters = Math.ceil(bytes / clusterBytes)
    return clusters <= maxUint32
      ? Effect.succeed(clusters)
      : refuse(place, "size", `is more than ${maxUint32} clusters`, size.size)
  })
}

export const checkClearMethod = (place: Place, method: ClearMethod | undefined): Checked<ClearMethod> =>
  method === undefined || clearMethods.includes(method)
    ? Effect.succeed(method ?? "default")
    : refuse(place, "clearMethod", `is none of ${clearMethods.join(", ")}`, method)

/** Ids of SPDK: the index of a page, with bit 32 set. */
export const checkId = (place: Place, id: BlobId, field = "id"): Checked<BlobId> =>
  isCount(id, 2 ** 32, 2 ** 33 - 1)
    ? Effect.succeed(id)
    : refuse(place, field, "is not the id of a blob, which is a whole number from 2^32 to 2^33 - 1", id)

export const checkBdevName = (place: Place, field: string, name: string): Checked<string> => {
  if (typeof name !== "string") return refuse(place, field, "is not a string", name)
  if (name === "") return refuse(place, field, "is empty", name)
  if (name.includes("\0")) return refuse(place, field, "contains a NUL character", name)
  const bytes = Buffer.byteLength(name)
  return bytes > maxExternalSnapshotBytes
    ? refuse(place, field, `is longer than ${maxExternalSnapshotBytes} bytes`, bytes)
    : Effect.succeed(name)
}

const checkType = (place: Place, type: string | undefined): Checked<string> => {
  if (type === undefined) return Effect.succeed("")
  return typeof type === "string" && /^[\x20-\x7e]*$/.test(type) && type.length <= maxTypeBytes
    ? Effect.succeed(type)
    : refuse(place, "type", `is not a string of at most ${maxTypeBytes} printable ASCII characters`, type)
}

const checkFlag = (place: Place, field: string, flag: boolean | undefined, otherwise: boolean): Checked<boolean> =>
  flag === undefined || typeof flag === "boolean"
    ? Effect.succeed(flag ?? otherwise)
    : refuse(place, field, "is not a boolean", flag)

const isCount = (value: number, least: number, most: number): boolean =>
  Number.isSafeInteger(value) && value >= least && value <= most
