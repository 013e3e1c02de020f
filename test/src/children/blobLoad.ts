/**
 * Writes to a blobstore on a file as fast as it can, and says what is durable as soon as it is. It never ends by itself: the
 * test kills it. Arguments: engine, driver, path.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Blobstore from "@effect-spdk/blobstore/Blobstore"
import * as Bdev from "@effect-spdk/core/Bdev"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import { writeSync } from "node:fs"
import {
  roundBlockBytes,
  roundClusterBytes,
  roundClusters,
  roundImageBytes,
  roundSlots,
  stampBlob
} from "../support/blobRounds.ts"
import { engineLayer } from "./layers.ts"

const [engine, driver, path = ""] = process.argv.slice(2)

/** Synchronous, so that the line is out before the next write begins. */
const say = (line: string) => Effect.sync(() => writeSync(1, `${line}\n`))

const text = (value: Option.Option<Uint8Array>): string =>
  Option.match(value, { onNone: () => "", onSome: (bytes) => new TextDecoder().decode(bytes) })

/** The blobs of the slots, as far as they are there. */
const findSlots = Effect.fnUntraced(function* (store: Blobstore.Blobstore) {
  const found = new Map<number, number>()
  for (const id of yield* store.ids) {
    const slot = yield* Effect.scoped(Effect.flatMap(store.open(id), (blob) => blob.xattrs.get("slot")))
    if (Option.isSome(slot)) found.set(Number(text(slot)), id)
  }
  return found
})

const work = Effect.fnUntraced(function* (store: Blobstore.Blobstore, slot: number, id: number | undefined) {
  const blob =
    id === undefined
      ? yield* store.create({ clusters: roundClusters, thin: slot % 2 === 0, xattrs: { slot: String(slot) } })
      : yield* store.open(id)
  const old: Array<{ readonly id: number; readonly label: string }> = []
  for (let version = 1 + Number(text(yield* blob.xattrs.get("version"))); ; version++) {
    yield* blob.writeBytes(0, stampBlob(slot, version))
    yield* blob.xattrs.set("version", String(version))
    yield* blob.sync
    yield* say(`synced ${slot} ${version}`)
    if (version % 3 === 0) {
      const label = `extra-${slot}-${version}`
      old.push({ label, id: yield* store.createId({ clusters: 1 + (version % 3), xattrs: { label } }) })
      yield* say(`made ${label}`)
    }
    if (version % 5 === 0) {
      const label = `snapshot-${slot}-${version}`
      old.push({ label, id: yield* store.snapshot(blob.id, { xattrs: { label } }) })
      yield* say(`made ${label}`)
    }
    while (old.length > 2) {
      const first = old.shift()
      if (first === undefined) break
      yield* say(`deleting ${first.label}`)
      yield* store.delete(first.id)
      yield* say(`deleted ${first.label}`)
    }
  }
})

const program = Effect.gen(function* () {
  const store = yield* Blobstore.Blobstore
  const found = yield* findSlots(store)
  yield* say("ready")
  yield* Effect.forEach(Array.from({ length: roundSlots }), (_, slot) => work(store, slot, found.get(slot)), {
    concurrency: "unbounded",
    discard: true
  })
}).pipe(
  Effect.scoped,
  Effect.provide(
    Blobstore.layer({
      onEmpty: "init",
      driver: driver === "libspdk" ? "libspdk" : "portable",
      clusterSize: roundClusterBytes
    }).pipe(Layer.provide(Bdev.layerFile({ path, blockSize: roundBlockBytes, size: roundImageBytes })))
  ),
  Effect.provide(engineLayer(engine))
)

NodeRuntime.runMain(program)
