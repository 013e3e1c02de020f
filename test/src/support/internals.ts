/**
 * The one door to what the package's exports close: the fuzz and soak tests submit straight to an engine's queue, past
 * every check of the public modules, because the engine must survive whatever arrives there; the tests of broken connections
 * speak NVMe/TCP. The compiled file is imported, which is the module that the public ones use.
 */
import { EngineService } from "../../../packages/core/dist/internal/engine/service.js"
import type { Engine } from "../../../packages/core/dist/internal/engine/engine.js"
import { encodeTermReq, PduType, sequenceFault } from "../../../packages/core/dist/internal/nvme/wire/pdu.js"

export { encodeTermReq, EngineService, PduType, sequenceFault }
export type { Engine }
