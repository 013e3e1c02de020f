import * as Blobstore from "@effect-spdk/blobstore/Blobstore"
import * as Bdev from "@effect-spdk/core/Bdev"
import * as Spdk from "@effect-spdk/core/Spdk"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"

// A blobstore on a block device in a file: on libspdk where SPDK is installed, on the embedded engine everywhere else.
const Storage = Blobstore.layer({ onEmpty: "init" }).pipe(
  Layer.provide(Bdev.layerFile({ path: "disk.img", size: "256 MiB" })),
  Layer.provide(Spdk.layerAuto)
)

const program = Effect.gen(function* () {
  const store = yield* Blobstore.Blobstore
  const blob = yield* store.create({ size: "4 MiB", xattrs: { name: "letter.txt" } })
  const letter = Stream.make("Dear disk, ", "keep this.").pipe(Stream.encodeText)
  yield* Stream.run(letter, blob.sink())
  yield* blob.sync

  const bytes = yield* blob.readBytes(0, 21)
  yield* Effect.log(new TextDecoder().decode(bytes))
}).pipe(
  Effect.scoped,
  Effect.catchReason("SpdkError", "NoSpace", (reason) => Effect.logWarning(reason.message))
)

NodeRuntime.runMain(program.pipe(Effect.provide(Storage)))
