import * as NvmeBdev from "@effect-spdk/core/NvmeBdev"
import * as Spdk from "@effect-spdk/core/Spdk"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"

// The discovery service of the gateways reports volumes. The program attaches them, and follows new and removed volumes.
const program = Effect.gen(function* () {
  const discovery = yield* NvmeBdev.discover({
    traddr: "192.0.2.1",
    trsvcid: 8009,
    hostnqn: "nqn.2026-01.com.example:this-machine",
    lossTimeout: "never",
    reconnectDelay: "2 seconds"
  })
  yield* Stream.runForEach(discovery.events(), (event) =>
    "bdev" in event ? Effect.logInfo(event._tag, event.bdev) : Effect.logInfo(event._tag, event.transportId.subnqn)
  )
}).pipe(Effect.scoped)

NodeRuntime.runMain(program.pipe(Effect.provide(Spdk.layer())))
