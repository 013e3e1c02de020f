import * as Bdev from "@effect-spdk/core/Bdev"
import * as NvmeBdev from "@effect-spdk/core/NvmeBdev"
import * as Spdk from "@effect-spdk/core/Spdk"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"

// Reconnect a lost path every two seconds. I/O waits at most one minute. After ten minutes the path is given up.
const patience = { lossTimeout: "10 minutes", reconnectDelay: "2 seconds", fastIoFailTimeout: "1 minute" } as const

const Volume = Layer.effect(
  Bdev.Bdev,
  Effect.gen(function* () {
    const controller = yield* NvmeBdev.attach({
      name: "volume",
      traddr: "192.0.2.1",
      subnqn: "nqn.2026-01.com.example:volume",
      hostnqn: "nqn.2026-01.com.example:this-machine",
      policy: { policy: "active_active" },
      ...patience
    })
    yield* controller.addPath({ traddr: "198.51.100.1", ...patience })
    yield* controller.pathEvents().pipe(
      Stream.runForEach(({ _tag, path }) => Effect.logInfo(_tag, path.transportId.traddr, path.state)),
      Effect.forkScoped
    )
    return yield* Bdev.open(`${controller.name}n1`, { write: true })
  })
)

const program = Effect.gen(function* () {
  const bdev = yield* Bdev.Bdev
  // Bdevs take whole blocks.
  const block = new Uint8Array(bdev.blockSize)
  new TextEncoder().encodeInto("by whichever path is there", block)
  yield* bdev.writeBytes(0, block)
  yield* bdev.flush()
})

NodeRuntime.runMain(program.pipe(Effect.provide(Volume.pipe(Layer.provide(Spdk.layer())))))
