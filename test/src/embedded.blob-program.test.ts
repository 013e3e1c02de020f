/** The program that the design asks for, word for word, and what its types leave to handle. */
import * as Blobstore from "@effect-spdk/blobstore/Blobstore"
import * as Bdev from "@effect-spdk/core/Bdev"
import * as Spdk from "@effect-spdk/core/Spdk"
import * as SpdkError from "@effect-spdk/core/SpdkError"
import { assert, describe, it } from "@effect/vitest"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { scratchFile } from "./support/engines.ts"
import { pattern, sameBytes } from "./support/harness.ts"

const embedded = ConfigProvider.layer(
  ConfigProvider.fromEnv({ env: { SPDK_ENGINE: "embedded", STORE_TYPE: "PHOTOS" } })
)

describe("a program with a blobstore", () => {
  it.live("keeps a photo", () =>
    Effect.gen(function* () {
      const path = yield* scratchFile
      const bytes = pattern(1_000_000, 1)
      const photo = Stream.make(bytes.subarray(0, 333_333), bytes.subarray(333_333))

      const Storage = Blobstore.layer({ onEmpty: "init" }).pipe(
        Layer.provide(Bdev.layerFile({ path, size: "256 MiB" })),
        Layer.provide(Spdk.layerAuto)
      )

      const program = Effect.gen(function* () {
        const store = yield* Blobstore.Blobstore
        const blob = yield* store.create({ size: "4 MiB", xattrs: { name: "photo.jpg" } })
        yield* Stream.run(photo, blob.sink())
        yield* blob.sync
        return blob.id
      }).pipe(
        Effect.scoped,
        Effect.catchReason("SpdkError", "NoSpace", (reason) => Effect.as(Effect.logWarning(reason.message), 0))
      )
      const id = yield* program.pipe(Effect.provide(Storage), Effect.provide(embedded))

      const look = Effect.gen(function* () {
        const store = yield* Blobstore.Blobstore
        assert.deepStrictEqual([...(yield* Stream.runCollect(store.list))], [id])
        const blob = yield* store.open(id)
        const name = Option.getOrThrow(yield* blob.xattrs.get("name"))
        assert.strictEqual(new TextDecoder().decode(name), "photo.jpg")
        sameBytes(yield* blob.readBytes(0, bytes.length), bytes, "the photo")
      }).pipe(Effect.scoped)
      yield* look.pipe(Effect.provide(Storage), Effect.provide(embedded))
    })
  )

  it.live("handles every reason, and then has nothing left to handle", () =>
    Effect.gen(function* () {
      const path = yield* scratchFile
      const Storage = Blobstore.layerConfig({
        onEmpty: Config.succeed("init" as const),
        clusterSize: Config.succeed("16 MiB"),
        type: Config.String("STORE_TYPE")
      }).pipe(Layer.provide(Bdev.layerFile({ path, size: "64 MiB" })), Layer.provide(Spdk.layerAuto))
      const grown = Effect.gen(function* () {
        const store = yield* Blobstore.Blobstore
        assert.strictEqual((yield* store.info.pipe(Effect.orDie)).type, "PHOTOS")
        yield* store.grow
        return "grown"
      })
      const handled: Effect.Effect<string, never, Blobstore.Blobstore> = grown.pipe(
        SpdkError.handleReasons({
          Aborted: () => Effect.succeed("aborted"),
          Busy: () => Effect.succeed("busy"),
          DeviceRemoved: () => Effect.succeed("removed"),
          IoFailed: () => Effect.succeed("failed"),
          NoMemory: () => Effect.succeed("no memory"),
          NoSpace: () => Effect.succeed("no space"),
          NotSupported: () => Effect.succeed("not supported"),
          Released: () => Effect.succeed("released"),
          TimedOut: () => Effect.succeed("timed out")
        })
      )
      assert.strictEqual(yield* handled.pipe(Effect.provide(Storage), Effect.provide(embedded)), "grown")
    })
  )
})
