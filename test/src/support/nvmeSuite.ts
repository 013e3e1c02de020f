/** What the NVMe suites share: one target for all tests of a file, and connecting to what it exports. */
import * as Nvme from "@effect-spdk/core/Nvme"
import { afterAll, beforeAll } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type { Capabilities, EngineLayer } from "./engines.ts"
import { exported, type ExportOptions, type NvmfTarget, type NvmfTargetFactory } from "./nvmfTarget.ts"

/** As the suites of other resources, with the target that they connect to. */
export type NvmeSuite = (
  name: string,
  layer: EngineLayer,
  capabilities: Capabilities,
  target: NvmfTargetFactory
) => void

/** Starts a target before the tests of the file, and ends it after them. */
export const sharedTarget = (factory: NvmfTargetFactory): Effect.Effect<NvmfTarget> => {
  const scope = Scope.makeUnsafe()
  let target: NvmfTarget | undefined
  beforeAll(async () => {
    target = await Effect.runPromise(Scope.provide(factory, scope))
  }, 60_000)
  afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))
  return Effect.suspend(() => (target === undefined ? Effect.die(new Error("no target")) : Effect.succeed(target)))
}

/** A subsystem of the target, and a controller of it. */
export const connected = (target: Effect.Effect<NvmfTarget>, options?: ExportOptions & Nvme.ConnectOptions) =>
  Effect.gen(function* () {
    const running = yield* target
    const { discovery, hosts, model, namespaces, serial, ...connect } = options ?? {}
    const subsystem = yield* exported(running, { discovery, hosts, model, namespaces, serial })
    const controller = yield* Nvme.connect(subsystem.transportId, connect)
    return { target: running, subsystem, controller }
  })

/** Namespace 1 of a subsystem of its own. */
export const opened = (target: Effect.Effect<NvmfTarget>, options?: ExportOptions & Nvme.ConnectOptions) =>
  Effect.gen(function* () {
    const all = yield* connected(target, options)
    const disk = yield* all.controller.namespace(1)
    return { ...all, disk }
  })
