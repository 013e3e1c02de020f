import * as Bdev from "@effect-spdk/core/Bdev"
import * as Spdk from "@effect-spdk/core/Spdk"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"

// A block device kept in a file: on libspdk where SPDK is installed, on the embedded engine everywhere else.
const Disk = Bdev.layerFile({ path: "disk.img", size: "64 MiB" }).pipe(Layer.provide(Spdk.layerAuto))

const program = Effect.gen(function* () {
  const disk = yield* Bdev.Bdev
  const letter = Stream.make("Dear disk, ", "keep this.").pipe(Stream.encodeText)
  yield* Stream.run(letter, disk.sink({ offsetBytes: 4096 }))
  yield* disk.flush()

  const bytes = yield* disk.readBytes(4096, disk.blockSize)
  yield* Effect.log(new TextDecoder().decode(bytes.subarray(0, 21)))
}).pipe(Effect.catchReason("SpdkError", "NoSpace", (reason) => Effect.logWarning(reason.message)))

NodeRuntime.runMain(program.pipe(Effect.provide(Disk)))
