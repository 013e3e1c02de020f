/** What a discovery controller knows, over a connection of its own that ends with the answer. */
import * as Effect from "effect/Effect"
import type { SpdkError } from "../../SpdkError.ts"
import { bouncePoolOf } from "../memory/bouncePool.ts"
import type { Engine } from "../engine/engine.ts"
import type { EngineNvme, NvmeConnectSettings, NvmeTransportIdFields } from "../engine/nvme.ts"
import { AdminQueue } from "../nvme/adminQueue.ts"
import { readDiscovery } from "../nvme/logReader.ts"
import { formatTransportId } from "../nvme/transportId.ts"
import { withinLimit } from "../common/release.ts"

const operation = "Nvme.probe"

export const discoverTransportIds = (
  engine: Engine,
  nvme: EngineNvme,
  transportId: NvmeTransportIdFields,
  settings: NvmeConnectSettings
): Effect.Effect<ReadonlyArray<NvmeTransportIdFields>, SpdkError> => {
  const resource = formatTransportId(transportId)
  return Effect.scoped(
    Effect.gen(function* () {
      const bounce = yield* bouncePoolOf(engine)
      const handle = yield* Effect.acquireRelease(
        nvme.connect(transportId, settings, () => {}),
        (connected) => withinLimit(operation, resource, nvme.disconnect(connected)),
        { interruptible: true }
      )
      const subsystems = yield* readDiscovery(new AdminQueue(nvme, handle, bounce, resource), operation)
      return subsystems.flatMap((subsystem) =>
        subsystem.type === "nvme" && subsystem.transportId !== undefined ? [subsystem.transportId] : []
      )
    })
  )
}
