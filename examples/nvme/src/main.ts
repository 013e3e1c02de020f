/**
 * What an NVMe subsystem is and how it does: `node main.js "trtype:TCP traddr:192.0.2.7 subnqn:nqn.2016-06.io.spdk:disk1"`. Without a
 * `subnqn` it lists what the discovery service at that address knows. On libspdk the address may be that of a drive, too:
 * `trtype:PCIe traddr:0000:5e:00.0`.
 */
import * as Nvme from "@effect-spdk/core/Nvme"
import * as NvmeNqn from "@effect-spdk/core/NvmeNqn"
import * as NvmeTransportId from "@effect-spdk/core/NvmeTransportId"
import * as Spdk from "@effect-spdk/core/Spdk"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"

const [, , text = ""] = process.argv

const describe = Effect.fn("describe")(function* (transportId: NvmeTransportId.TransportId) {
  const controller = yield* Nvme.connect(transportId)
  const { firmwareRevision, modelNumber, serialNumber } = yield* controller.identify
  yield* Console.log(`${modelNumber} ${serialNumber}, firmware ${firmwareRevision}, NVMe ${controller.version}`)
  const { percentageUsed, temperatureKelvin } = yield* controller.logPages.health()
  yield* Console.log(`  ${temperatureKelvin} K, ${percentageUsed} % of its life used`)
  for (const nsid of yield* controller.namespaces) {
    yield* Effect.scoped(
      Effect.gen(function* () {
        const disk = yield* controller.namespace(nsid)
        const start = yield* disk.readBytes(0, disk.blockSize)
        const isEmpty = start.every((byte) => byte === 0)
        const content = isEmpty ? "starts with zeroes" : "starts with data"
        yield* Console.log(`  namespace ${nsid}: ${disk.numBlocks} blocks of ${disk.blockSize} bytes, ${content}`)
      })
    )
  }
})

const program = Effect.gen(function* () {
  const transportId = yield* Effect.fromResult(NvmeTransportId.parse(text))
  if (transportId.trtype === "PCIe" || transportId.subnqn !== NvmeNqn.discoveryNqn) return yield* describe(transportId)
  for (const found of yield* Nvme.probe(transportId)) yield* Console.log(NvmeTransportId.format(found))
}).pipe(
  Effect.scoped,
  Effect.catchTag("SpdkError", (error) =>
    Effect.andThen(
      Console.error(error.message),
      Effect.sync(() => {
        process.exitCode = 1
      })
    )
  )
)

NodeRuntime.runMain(Effect.provide(program, Spdk.layerAuto))
