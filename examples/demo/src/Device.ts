/** The layers that the demo runs on: an engine, and on it a bdev of the right size. */
import * as Bdev from "@effect-spdk/core/Bdev"
import * as Spdk from "@effect-spdk/core/Spdk"
import type { Options } from "@effect-spdk/core/SpdkOptions"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Path from "effect/Path"

export const engines = ["auto", "libspdk", "embedded"] as const
export type EngineName = (typeof engines)[number]

export const bdevs = ["file", "malloc"] as const
export type BdevName = (typeof bdevs)[number]

export const blockSizeBytes = 4096

/** A malloc bdev takes its bytes from the engine's memory, on top of what SPDK itself needs. */
const memoryFor = (bdev: BdevName, sizeBytes: number): Options =>
  bdev === "malloc" ? { memoryMiB: 512 + Math.ceil(sizeBytes / 2 ** 20) } : {}

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

/** A file bdev lies in a temporary folder that goes when the layer does. */
const bdevLayer = (bdev: BdevName, sizeBytes: number) =>
  bdev === "malloc"
    ? Bdev.layerMalloc({ name: "demo", size: sizeBytes, blockSize: blockSizeBytes })
    : Layer.unwrap(
        Effect.gen(function* () {
          const fs = yield* FileSystem.FileSystem
          const path = yield* Path.Path
          const folder = yield* fs.makeTempDirectoryScoped({ prefix: "effect-spdk-demo-" })
          return Bdev.layerFile({
            name: "demo",
            path: path.join(folder, "demo.img"),
            size: sizeBytes,
            blockSize: blockSizeBytes
          })
        })
      )

export const layer = (options: { readonly engine: EngineName; readonly bdev: BdevName; readonly sizeBytes: number }) =>
  bdevLayer(options.bdev, options.sizeBytes).pipe(
    Layer.provideMerge(
      engineLayer(options.engine, {
        name: "demo",
        logLevel: "warning",
        ...memoryFor(options.bdev, options.sizeBytes)
      })
    )
  )
