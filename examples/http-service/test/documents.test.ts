/**
 * Tests of a service that uses this SDK. They run on the embedded engine, in memory. The device fails on demand, is full, or is removed.
 * docs/testing.md shows this file.
 */
import * as Blobstore from "@effect-spdk/blobstore/Blobstore"
import * as Bdev from "@effect-spdk/core/Bdev"
import * as Rpc from "@effect-spdk/core/Rpc"
import * as Spdk from "@effect-spdk/core/Spdk"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { expect, it } from "vitest"
import { Documents } from "../src/Documents.ts"

/** The device under test, and the error bdev that makes it fail. */
class Device extends Context.Service<Device, { readonly bdev: string; readonly disk: Bdev.ErrorBdev }>()("Device") {
  static readonly layer = Layer.effect(
    Device,
    Effect.gen(function* () {
      const bdev = yield* Bdev.createMalloc({ size: "32 MiB" })
      return { bdev, disk: yield* Bdev.createError({ base: bdev }) }
    })
  )
}

const Storage = Documents.layer.pipe(
  Layer.provide(Blobstore.layer({ onEmpty: "init" })),
  Layer.provide(
    Layer.effect(
      Bdev.Bdev,
      Effect.flatMap(Device, ({ disk }) => Bdev.open(disk.name, { write: true }))
    )
  ),
  Layer.provideMerge(Device.layer),
  Layer.provideMerge(Spdk.layerEmbedded())
)

const run = <A, E>(
  test: Effect.Effect<A, E, Documents | Device | Layer.Success<ReturnType<typeof Spdk.layerEmbedded>>>
) => Effect.runPromise(Effect.provide(test, Storage))

const document = (length: number) => new Uint8Array(length).fill(7)

it("returns a document after a put", () =>
  run(
    Effect.gen(function* () {
      const documents = yield* Documents
      yield* documents.put("a", document(100))
      expect(yield* documents.get("a")).toStrictEqual(document(100))
      expect(yield* documents.get("b")).toBeUndefined()
    })
  ))

it("keeps the old document when the device fails a write, and works after the device recovers", () =>
  run(
    Effect.gen(function* () {
      const documents = yield* Documents
      const { disk } = yield* Device
      yield* documents.put("a", document(100))
      yield* disk.inject({ ioType: "write", errorType: "failure", count: 1000 })
      const failed = yield* Effect.flip(documents.put("a", document(200)))
      expect(failed._tag).toBe("Unavailable")
      yield* disk.inject({ ioType: "clear", errorType: "failure" })
      expect(yield* documents.get("a")).toStrictEqual(document(100))
      yield* documents.put("a", document(200))
      expect(yield* documents.get("a")).toStrictEqual(document(200))
    })
  ))

it("fails with Full when the device is full, and keeps the old document", () =>
  run(
    Effect.gen(function* () {
      const documents = yield* Documents
      yield* documents.put("a", document(100))
      const failed = yield* Effect.flip(documents.put("b", document(40 * 1024 * 1024)))
      expect(failed._tag).toBe("Full")
      expect(yield* documents.get("a")).toStrictEqual(document(100))
    })
  ))

it("fails with Unavailable after the device is removed", () =>
  run(
    Effect.gen(function* () {
      const documents = yield* Documents
      const { bdev } = yield* Device
      yield* documents.put("a", document(100))
      yield* Rpc.call("bdev_malloc_delete", { name: bdev })
      const failed = yield* Effect.flip(documents.put("a", document(200)))
      expect(failed._tag).toBe("Unavailable")
    })
  ))
