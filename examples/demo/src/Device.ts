/** The layers that the demo runs on: an engine, on it a bdev on a file or in memory, and on that a blobstore. */
import * as Blobstore from "@effect-spdk/blobstore/Blobstore"
import * as Bdev from "@effect-spdk/core/Bdev"
import * as Spdk from "@effect-spdk/core/Spdk"
import type { Options } from "@effect-spdk/core/SpdkOptions"
import * as ByteSize from "effect/ByteSize"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Path from "effect/Path"
import { DemoError } from "./DemoError.ts"

export const engines = ["auto", "libspdk", "embedded"] as const
export type EngineName = (typeof engines)[number]

export const bdevs = ["file", "malloc"] as const
export type BdevName = (typeof bdevs)[number]

const blockSizeBytes = 4096
/** Small, because most files are. */
const clusterBytes = 65_536
const pageBytes = 4096

/** So that the demo never touches a blobstore of somebody else's. */
const storeType = "effect-spdk demo"

/** What the demo works on. */
export interface Device {
  readonly bdev: BdevName
  /** undefined for memory, and for a file in a temporary folder that goes at the end. */
  readonly path: string | undefined
  /** Of a file at least; undefined for a block device. */
  readonly sizeBytes: number | undefined
  /** A new blobstore with room for so many blobs, or the one that is there. */
  readonly init: { readonly metadataPages: number } | undefined
}

const clustersOf = (sizeBytes: number): number => Math.ceil(sizeBytes / clusterBytes)

const roundUp = (value: number, unit: number): number => Math.ceil(value / unit) * unit

interface Needed {
  readonly sizeBytes: number
  readonly metadataPages: number
}

/**
 * What a new blobstore needs for files of these sizes: their clusters, pages of metadata for twice as many, and a cluster for
 * the super block and the masks per so many.
 */
const neededFor = (sizesBytes: ReadonlyArray<number>): Needed => {
  const clusters = sizesBytes.reduce((total, size) => total + clustersOf(size), 0)
  const metadataPages = 1024 + 4 * sizesBytes.length + Math.ceil(clusters / 128)
  const masksBytes = 3 * roundUp(Math.ceil((clusters * 2 + metadataPages) / 8) + 64, pageBytes)
  const metadataBytes = roundUp(pageBytes + masksBytes + metadataPages * pageBytes, clusterBytes)
  return { sizeBytes: metadataBytes + (clusters + 2) * clusterBytes, metadataPages }
}

/** A new device gets room for more, which costs nothing: the file is sparse. */
const withSlack = (neededBytes: number): number =>
  roundUp(Math.max(neededBytes * 1.5, neededBytes + 64 * 2 ** 20), clusterBytes)

export const tooSmall = (holdsBytes: number, neededBytes: number): DemoError =>
  new DemoError({ message: `the device is too small: it holds ${holdsBytes} bytes, the files need ${neededBytes}` })

interface Examined {
  readonly isThere: boolean
  /** Nothing, or zeroes: a new blobstore may be made there. */
  readonly isEmpty: boolean
  /** undefined for a block device. */
  readonly sizeBytes: number | undefined
}

const signature = "SPDKBLOB"

/** What lies at the path, as far as its first bytes tell. Refuses what is neither empty nor a blobstore. */
const examine = Effect.fn("demo.examine")(function* (path: string) {
  const fs = yield* FileSystem.FileSystem
  const paths = yield* Path.Path
  const info = yield* fs.stat(path).pipe(Effect.catchReason("PlatformError", "NotFound", () => Effect.undefined))
  if (info === undefined) {
    const folder = paths.dirname(path)
    if (!(yield* fs.exists(folder))) return yield* new DemoError({ message: `no such folder: ${folder}` })
    return { isThere: false, isEmpty: true, sizeBytes: 0 } satisfies Examined
  }
  if (info.type !== "File" && info.type !== "BlockDevice") {
    return yield* new DemoError({ message: `not a file: ${path}` })
  }
  const start = yield* Effect.scoped(
    Effect.flatMap(fs.open(path), (file) => {
      const bytes = new Uint8Array(clusterBytes)
      return Effect.map(file.read(bytes), (length) => bytes.subarray(0, length))
    })
  )
  const isEmpty = start.every((byte) => byte === 0)
  if (!isEmpty && Buffer.from(start.subarray(0, signature.length)).toString("latin1") !== signature) {
    return yield* new DemoError({ message: `${path} holds something else than a blobstore` })
  }
  const sizeBytes = info.type === "File" ? ByteSize.toNumberUnsafe(info.size) : undefined
  return { isThere: true, isEmpty, sizeBytes } satisfies Examined
})

/** Files on the device have blocks of 4 KiB. */
const wholeBlocks = (sizeBytes: number): number => sizeBytes - (sizeBytes % blockSizeBytes)

/** A device to store these files on: the one that is there, or a new one that is large enough. */
export const forFiles = Effect.fn("demo.forFiles")(function* (
  files: ReadonlyArray<{ readonly sizeBytes: number }>,
  options: {
    readonly bdev: BdevName
    readonly device: string | undefined
    readonly sizeBytes: number | undefined
  }
) {
  const needed = neededFor(files.map(({ sizeBytes }) => sizeBytes))
  const { bdev, device: path } = options
  const found: Examined = path === undefined ? { isThere: false, isEmpty: true, sizeBytes: 0 } : yield* examine(path)
  if (!found.isEmpty || found.sizeBytes === undefined) {
    const init = found.isEmpty ? { metadataPages: needed.metadataPages } : undefined
    const sizeBytes = found.sizeBytes === undefined ? undefined : Math.max(found.sizeBytes, options.sizeBytes ?? 0)
    return { bdev, path, init, sizeBytes: sizeBytes && wholeBlocks(sizeBytes) } satisfies Device
  }
  const newBytes = path === undefined ? needed.sizeBytes : withSlack(needed.sizeBytes)
  const sizeBytes = wholeBlocks(Math.max(options.sizeBytes ?? (found.sizeBytes > 0 ? 0 : newBytes), found.sizeBytes))
  if (sizeBytes < needed.sizeBytes) return yield* tooSmall(sizeBytes, needed.sizeBytes)
  return { bdev, path, sizeBytes, init: { metadataPages: needed.metadataPages } } satisfies Device
})

/** The device at this path, which must hold a blobstore. */
export const existing = Effect.fn("demo.existing")(function* (path: string, sizeBytes: number | undefined) {
  const found = yield* examine(path)
  if (!found.isThere) return yield* new DemoError({ message: `no such device: ${path}` })
  if (found.isEmpty) return yield* new DemoError({ message: `${path} holds no blobstore` })
  const bytes = found.sizeBytes === undefined ? undefined : wholeBlocks(Math.max(found.sizeBytes, sizeBytes ?? 0))
  return { bdev: "file", path, sizeBytes: bytes, init: undefined } satisfies Device
})

/** A malloc bdev takes its bytes from the engine's memory, on top of what SPDK itself needs. */
const memoryFor = ({ bdev, sizeBytes }: Device): Options =>
  bdev === "malloc" ? { memoryMiB: 512 + Math.ceil((sizeBytes ?? 0) / 2 ** 20) } : {}

const engineLayer = (engine: EngineName, options: Options) => {
  switch (engine) {
    case "auto":
      return Spdk.layerAutoWith(options)
    case "libspdk":
      return Spdk.layer(options)
    case "embedded":
      return Spdk.layerEmbedded(options)
  }
}

const fileLayer = (path: string, sizeBytes: number | undefined) =>
  Bdev.layerFile({
    name: "demo",
    path,
    size: sizeBytes,
    // A block device knows its own.
    blockSize: sizeBytes === undefined ? undefined : blockSizeBytes
  })

const bdevLayer = ({ bdev, path, sizeBytes }: Device) => {
  if (bdev === "malloc") return Bdev.layerMalloc({ name: "demo", size: sizeBytes, blockSize: blockSizeBytes })
  if (path !== undefined) return fileLayer(path, sizeBytes)
  return Layer.unwrap(
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const paths = yield* Path.Path
      const folder = yield* fs.makeTempDirectoryScoped({ prefix: "effect-spdk-demo-" })
      return fileLayer(paths.join(folder, "demo.img"), sizeBytes)
    })
  )
}

const storeLayer = ({ init }: Device) =>
  init === undefined
    ? Blobstore.layer({ onEmpty: "fail", type: storeType, grow: true })
    : Blobstore.layer({
        onEmpty: "init",
        type: storeType,
        clusterSize: clusterBytes,
        metadataPages: init.metadataPages
      })

export const layer = (engine: EngineName, device: Device) =>
  storeLayer(device).pipe(
    Layer.provideMerge(bdevLayer(device)),
    Layer.provideMerge(engineLayer(engine, { name: "demo", logLevel: "warning", ...memoryFor(device) }))
  )
