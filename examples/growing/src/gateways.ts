import * as NvmeBdev from "@effect-spdk/core/NvmeBdev"
import * as Spdk from "@effect-spdk/core/Spdk"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"

// Whatever the discovery service of the gateways tells of is attached, and followed: new volumes come, old ones go.
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
