/** What a run of the demo does, once it knows its device: store, list, get or delete. */
import * as Blobstore from "@effect-spdk/blobstore/Blobstore"
import * as Bdev from "@effect-spdk/core/Bdev"
import * as Spdk from "@effect-spdk/core/Spdk"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Catalog from "./Catalog.ts"
import { DemoError } from "./DemoError.ts"
import * as Device from "./Device.ts"
import * as Hasher from "./Hasher.ts"
import * as Progress from "./Progress.ts"
import * as Report from "./Report.ts"
import type { Source } from "./Sources.ts"
import * as Transfer from "./Transfer.ts"

/** Runs one phase with its progress bar and says how long it took. */
const phase = Effect.fnUntraced(function* <A, E, R>(
  name: string,
  bytes: number,
  work: (progress: Progress.Progress) => Effect.Effect<A, E, R>
) {
  const started = performance.now()
  const result = yield* Effect.scoped(Effect.flatMap(Progress.make(name, bytes), work))
  return [result, { name, bytes, millis: performance.now() - started } satisfies Report.Phase] as const
})

const total = (files: Iterable<{ readonly sizeBytes: number }>): number => {
  let bytes = 0
  for (const { sizeBytes } of files) bytes += sizeBytes
  return bytes
}

const announce = Effect.gen(function* () {
  const spdk = yield* Spdk.Spdk
  const bdev = yield* Bdev.Bdev
  const store = yield* Blobstore.Blobstore
  const { clusterSizeBytes, freeClusters, totalClusters } = yield* store.info
  yield* Console.log(`engine: ${spdk.description}`)
  yield* Console.log(
    `device: ${bdev.name}, ${bdev.info.productName}, ${bdev.sizeBytes} bytes in blocks of ${bdev.blockSize}`
  )
  yield* Console.log(
    `store:  ${store.driver} driver, ${freeClusters} of ${totalClusters} clusters of ${clusterSizeBytes} bytes free`
  )
})

/** Whether the clusters that are free hold every file that may have to be stored. */
const checkRoom = Effect.fnUntraced(function* (files: ReadonlyArray<Source>, catalog: Catalog.Catalog) {
  const bdev = yield* Bdev.Bdev
  const store = yield* Blobstore.Blobstore
  const { clusterSizeBytes, freeClusters } = yield* store.info
  const changed = files.filter((file) => !Transfer.isUnchanged(file, catalog.entries.get(file.name)))
  const clusters = changed.reduce((sum, file) => sum + Math.ceil(file.sizeBytes / clusterSizeBytes), 0)
  if (clusters > freeClusters) {
    return yield* Device.tooSmall(bdev.sizeBytes, bdev.sizeBytes + (clusters - freeClusters) * clusterSizeBytes)
  }
})

const transfer = Effect.fn("demo.transfer")(function* (
  files: ReadonlyArray<Source>,
  options: { readonly corrupt: boolean }
) {
  yield* announce
  const store = yield* Blobstore.Blobstore
  const catalog = yield* Catalog.read(store)
  for (const id of catalog.leftovers) yield* store.delete(id)
  const bytes = total(files)
  yield* checkRoom(files, catalog)
  yield* Console.log(`files:  ${files.length}, ${bytes} bytes`)
  const [stored, storing] = yield* phase("store", bytes, (progress) =>
    Transfer.storeAll(store, files, catalog, progress)
  )
  if (options.corrupt) {
    const victim = yield* Transfer.corrupt(store, stored)
    yield* Console.log(`flipped one byte of ${victim.name} on the device`)
  }
  const [verified, reading] = yield* phase("read and verify", bytes, (progress) =>
    Transfer.verifyAll(store, stored, progress)
  )
  const written = stored.filter(({ action }) => action === "stored")
  const phases = [{ ...storing, bytes: total(written.map(({ entry }) => entry)) }, reading]
  yield* Console.log(`\n${Report.filesTable(verified)}\n${Report.phasesTable(phases)}\n`)
  yield* Console.log(`${written.length} files stored, ${stored.length - written.length} unchanged`)
  const damaged = verified.filter((file) => !Transfer.isIntact(file))
  const first = damaged[0]
  if (first !== undefined) {
    const message = `${damaged.length} of ${verified.length} files came back different, first ${first.entry.name}`
    return yield* new DemoError({ message })
  }
  const mebibytes = (bytes / 2 ** 20 / (reading.millis / 1000)).toFixed(0)
  yield* Console.log(`${verified.length} files, ${bytes} bytes verified, ${mebibytes} MiB/s`)
})

export interface StoreOptions {
  readonly engine: Device.EngineName
  readonly bdev: Device.BdevName
  readonly device: string | undefined
  readonly sizeBytes: number | undefined
  readonly corrupt: boolean
}

/** Stores files and verifies all of them, those that were stored before too. */
export const storeFiles = Effect.fn("demo.storeFiles")(function* (files: ReadonlyArray<Source>, options: StoreOptions) {
  const place = yield* Device.forFiles(files, options)
  yield* Effect.provide(transfer(files, options), Layer.merge(Device.layer(options.engine, place), Hasher.layer)).pipe(
    Effect.catchReason("SpdkError", "NoSpace", () =>
      Effect.fail(new DemoError({ message: "the device is full: give a larger --size, and it grows" }))
    )
  )
})

export const listFiles = Effect.gen(function* () {
  yield* announce
  const { entries } = yield* Catalog.read(yield* Blobstore.Blobstore)
  yield* Console.log(`\n${Report.catalogTable(entries.values())}\n`)
  yield* Console.log(`${entries.size} files, ${total(entries.values())} bytes`)
})

export const getFiles = Effect.fn("demo.getFiles")(function* (names: ReadonlyArray<string>, folder: string) {
  yield* announce
  const store = yield* Blobstore.Blobstore
  const catalog = yield* Catalog.read(store)
  const entries = yield* Effect.forEach(names, (name) => Catalog.find(catalog, name))
  const [paths, phaseDone] = yield* phase("get", total(entries), (progress) =>
    Effect.forEach(entries, (entry) => Transfer.get(store, entry, folder, progress))
  )
  for (const path of paths) yield* Console.log(path)
  yield* Console.log(`\n${Report.phasesTable([phaseDone])}\n`)
  yield* Console.log(`${entries.length} files, ${phaseDone.bytes} bytes verified`)
})

export const deleteFiles = Effect.fn("demo.deleteFiles")(function* (names: ReadonlyArray<string>) {
  yield* announce
  const store = yield* Blobstore.Blobstore
  const catalog = yield* Catalog.read(store)
  const entries = yield* Effect.forEach(new Set(names), (name) => Catalog.find(catalog, name))
  for (const { id } of entries) yield* store.delete(id)
  yield* Console.log(`${entries.length} files, ${total(entries)} bytes deleted`)
})
