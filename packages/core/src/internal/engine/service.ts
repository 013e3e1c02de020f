/**
 * How the engine reaches the public modules: a service of its own, so that programs name it in their
 * requirements and cannot do anything with it but provide it.
 */
import * as Context from "effect/Context"
import type { Engine } from "./engine.ts"

export class EngineService extends Context.Service<EngineService, Engine>()(
  "@effect-spdk/core/internal/EngineService"
) {}
