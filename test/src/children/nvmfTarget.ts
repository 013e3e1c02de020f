/**
 * The embedded engine as an NVMe-oF target, on an RPC socket. It never ends by itself: the test kills it. Argument: the socket.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Spdk from "@effect-spdk/core/Spdk"
import * as Layer from "effect/Layer"

const [rpcSocket = ""] = process.argv.slice(2)

NodeRuntime.runMain(Layer.launch(Spdk.layerEmbedded({ name: "target", memoryMiB: 512, rpcSocket, logLevel: "error" })))
