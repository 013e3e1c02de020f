/** An image on a file bdev of the embedded engine. */
import * as Bdev from "@effect-spdk/core/Bdev"
import * as Spdk from "@effect-spdk/core/Spdk"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"

export const temporaryFolder: Effect.Effect<string, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => fs.mkdtempSync(path.join(os.tmpdir(), "effect-spdk-"))),
  (folder) => Effect.sync(() => fs.rmSync(folder, { recursive: true }))
)

const writeSparse = (file: string, bytes: Uint8Array): void => {
  const part = 65536
  const zeros = Buffer.alloc(part)
  const opened = fs.openSync(file, "w")
  for (let at = 0; at < bytes.length; at += part) {
    const some = bytes.subarray(at, at + part)
    if (!zeros.subarray(0, some.length).equals(some)) fs.writeSync(opened, some, 0, some.length, at)
  }
  fs.ftruncateSync(opened, bytes.length)
  fs.closeSync(opened)
}

/** Runs with the image as the bdev. `read` is what the file has afterwards. */
export const onImage = <A, E>(
  bytes: Uint8Array,
  use: (read: () => Buffer) => Effect.Effect<A, E, Bdev.Bdev | Spdk.Services>,
  options: { readonly readonly?: boolean } = {}
) =>
  Effect.flatMap(temporaryFolder, (folder) => {
    const file = path.join(folder, "disk.img")
    writeSparse(file, bytes)
    const disk = Bdev.layerFile({ path: file, blockSize: 512, readonly: options.readonly === true })
    return Effect.provide(
      use(() => fs.readFileSync(file)),
      Layer.provideMerge(disk, Spdk.layerEmbedded())
    )
  }).pipe(Effect.scoped)
