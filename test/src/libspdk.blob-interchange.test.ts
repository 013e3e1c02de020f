/**
 * One on-disk format: what one driver writes, the other loads, and SPDK's own `blobcli` too; after a clean end and after a
 * process that was killed.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Spdk from "@effect-spdk/core/Spdk"
import * as Effect from "effect/Effect"
import { copyFileSync } from "node:fs"
import {
  imageBlockSize,
  imageClusterBytes,
  recordStore,
  sha256,
  storeOnFile,
  type StoreRecord
} from "./support/blobImage.ts"
import { blobcliTool, inspect } from "./support/blobcli.ts"
import { expectExit, start } from "./support/children.ts"
import { memoryMiB, scratchFile } from "./support/engines.ts"
import { libspdkMissing } from "./support/libspdkMissing.ts"
import { titled } from "./support/spdkTools.ts"

const writers = [
  ["embedded", "portable"],
  ["libspdk", "portable"],
  ["libspdk", "libspdk"]
] as const

const engines = {
  embedded: Spdk.layerEmbedded({ name: "reader", memoryMiB, logLevel: "error" }),
  libspdk: Spdk.layer({ name: "reader", memoryMiB, logLevel: "error" })
}

interface Written {
  readonly path: string
  readonly record: StoreRecord
}

const images = new Map<string, Written>()

/** An image that a process of its own has written, and what it said is in it. Written once: who reads it takes a copy. */
const written = Effect.fnUntraced(function* (engine: string, driver: string, way: "unload" | "wait") {
  const key = `${engine} ${driver} ${way}`
  const known = images.get(key)
  if (known !== undefined) return known
  const path = yield* scratchFile
  const child = yield* start("blobs", [engine, driver, path, way])
  const [, json = ""] = yield* child.line(/^record (.*)$/m)
  if (way === "wait") child.process.kill("SIGKILL")
  const ended = yield* child.ended
  if (way === "unload") expectExit(ended, 0)
  // Our own child printed it.
  const record: StoreRecord = JSON.parse(json)
  const image: Written = { path, record }
  images.set(key, image)
  return image
})

const copyOf = (path: string) =>
  Effect.map(scratchFile, (copy) => {
    copyFileSync(path, copy)
    return copy
  })

const readBy = Effect.fnUntraced(function* (
  engine: "embedded" | "libspdk",
  driver: "libspdk" | "portable",
  path: string
) {
  const copy = yield* copyOf(path)
  return yield* recordStore.pipe(
    Effect.provide(storeOnFile(copy, driver), { local: true }),
    Effect.provide(engines[engine])
  )
})

/** What blobcli sees, blob by blob, and the bytes it exports. */
const checkByBlobcli = Effect.fnUntraced(function* (path: string, record: StoreRecord) {
  const image = yield* copyOf(path)
  const { blobs } = record
  const ids = blobs.map((blob) => blob.id)
  const seen = yield* inspect(image, imageBlockSize, ids)
  assert.deepStrictEqual(seen.ids, ids)
  assert.strictEqual(seen.freeClusters, record.freeClusters)
  assert.strictEqual(seen.clusterSize, imageClusterBytes)
  assert.strictEqual(Number(seen.superBlob), record.superBlob)
  for (const [index, blob] of blobs.entries()) {
    const one = seen.blobs[index]
    assert.strictEqual(one?.clusters, blob.clusters)
    assert.deepStrictEqual((one?.xattrNames ?? []).toSorted(), Object.keys(blob.xattrs).toSorted())
    assert.strictEqual(sha256(one?.content ?? new Uint8Array()), blob.content, `blob ${blob.id}`)
  }
})

const skipped = libspdkMissing === undefined ? "" : ` [skipped: ${libspdkMissing}]`
describe.skipIf(libspdkMissing !== undefined)(`libspdk blob interchange${skipped}`, () => {
  for (const [engine, driver] of writers) {
    for (const way of ["unload", "wait"] as const) {
      const after = way === "unload" ? "after an unload" : "after SIGKILL"
      it.live(`what ${driver} on ${engine} wrote is read by both drivers, ${after}`, () =>
        Effect.gen(function* () {
          const { path, record } = yield* written(engine, driver, way)
          assert.deepStrictEqual(yield* readBy("embedded", "portable", path), record)
          assert.deepStrictEqual(yield* readBy("libspdk", "libspdk", path), record)
        }).pipe(Effect.scoped)
      )
      it.live.skipIf(blobcliTool.missing !== undefined)(
        titled(`what ${driver} on ${engine} wrote is read by blobcli, ${after}`, blobcliTool),
        () =>
          Effect.gen(function* () {
            const { path, record } = yield* written(engine, driver, way)
            yield* checkByBlobcli(path, record)
          }).pipe(Effect.scoped)
      )
    }
  }
})
