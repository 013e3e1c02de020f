/**
 * The embedded engine: SPDK's contract in TypeScript, for laptops and tests. Everything runs on the JS thread.
 */
import { readFileSync } from "node:fs"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as CpuSet from "../../../CpuSet.ts"
import type { RpcClient } from "../../../Rpc.ts"
import type { ErrnoReason, SpdkError, StartFailed } from "../../../SpdkError.ts"
import type { Engine } from "../../engine/engine.ts"
import { Host } from "../../engine/host.ts"
import type { ResolvedOptions } from "../../engine/options.ts"
import { withinLimit } from "../../common/release.ts"
import { attachDevice } from "../bdev/modules/device.ts"
import type { BdevModule } from "../bdev/module.ts"
import type { BdevRegistry } from "../bdev/registry.ts"
import { EngineState } from "./engineState.ts"
import { addBdevMethods } from "../rpc/bdev.ts"
import { addBdevModules } from "../rpc/bdevModules.ts"
import { makeClient } from "../rpc/client.ts"
import { addFramework } from "../rpc/framework.ts"
import { serve } from "../rpc/server.ts"
import { addSettings } from "../rpc/settings.ts"
import { addNvmf } from "../rpc/nvmf.ts"
import { RpcTable } from "../rpc/table.ts"
import * as Timers from "./timers.ts"

export type EmbeddedOptions = Pick<ResolvedOptions, "name" | "cores" | "memoryMiB" | "rpcSocket" | "logLevel" | "onLog">

/**
 * An engine of its own: nothing is shared with others in the process. The end of the scope ends what is in flight,
 * removes all bdevs and takes back all memory; it dies with TimedOut when a device does not let go.
 *
 * With `waitsForStart` only what may be called before the framework starts is answered until `framework_start_init`.
 * `configure` calls that; what of its calls has no effect here is named in one warning after it.
 */
export const make = Effect.fnUntraced(function* <E = never>(
  options: EmbeddedOptions,
  {
    configure,
    modules = () => [],
    waitsForStart = configure !== undefined
  }: {
    /** More bdev modules than the engine has: they look at a new bdev after its own. */
    readonly modules?: (registry: BdevRegistry) => ReadonlyArray<BdevModule>
    readonly waitsForStart?: boolean
    readonly configure?: ((rpc: RpcClient["Service"]) => Effect.Effect<void, E>) | undefined
  } = {}
): Effect.fn.Return<Engine, SpdkError<ErrnoReason | StartFailed> | E, Scope.Scope> {
  const host = yield* Host
  const state = new EngineState(options, yield* Timers.make, host)
  yield* Effect.addFinalizer(() => withinLimit("Spdk.layer", options.name, state.release))
  const version = packageVersion()
  const table = new RpcTable()
  const nvmeBdevs = addBdevModules(table, state.registry, modules(state.registry))
  yield* Effect.addFinalizer(() => withinLimit("Spdk.layer", "NVMe bdevs", nvmeBdevs.close))
  addBdevMethods(table, state.registry)
  addSettings(table, state.registry)
  const nvmf = addNvmf(table, state.registry)
  yield* Effect.addFinalizer(() =>
    withinLimit(
      "Spdk.layer",
      "NVMe-oF target",
      Effect.callback<void>((resume) => nvmf.close(() => resume(Effect.void)))
    )
  )
  let stopServing = () => {}
  addFramework(table, {
    registry: state.registry,
    nvmf,
    version,
    cores: options.cores,
    startMillis: host.nowMillis(),
    threads: () => [...state.threads],
    printLevel: state.printLevel,
    stopServing: () => stopServing()
  })
  if (waitsForStart) table.holdStart()
  const { memoryMiB, rpcSocket } = options
  if (rpcSocket !== undefined) stopServing = (yield* serve(rpcSocket, table)).stop
  const rpc = makeClient(table, (name) => Effect.sync(() => state.claimOf(name)))
  if (configure !== undefined) {
    const { withoutEffect } = state.registry
    withoutEffect.hold()
    yield* Effect.ensuring(
      configure(rpc),
      Effect.sync(() => withoutEffect.release())
    )
  }
  return {
    kind: "embedded",
    version: `embedded ${version}`,
    description:
      `the embedded engine ${version} "${options.name}" with ${memoryMiB} MiB of memory on cores ` +
      `${CpuSet.toList(options.cores)}, ${rpcSocket === undefined ? "no RPC socket" : `RPC socket ${rpcSocket}`}`,
    rpcSocket,
    rpc,
    memory: state.slabs,
    mainThread: state.mainThread,
    spawn: state.spawn,
    openBdev: state.openBdev,
    closeBdev: state.closeBdev,
    claimBdev: state.claimBdev,
    openChannel: state.openChannel,
    closeChannel: state.closeChannel,
    registerPoller: state.registerPoller,
    usage: state.usage,
    loadedInTypeScript: state.loadedInTypeScript,
    attachDevice: (name, device) => attachDevice(state.registry, name, device),
    nvme: state.nvme
  }
})

let readVersion: string | undefined

const packageVersion = (): string => (readVersion ??= readPackageVersion())

const readPackageVersion = (): string => {
  const json: unknown = JSON.parse(readFileSync(new URL("../../../../package.json", import.meta.url), "utf8"))
  return typeof json === "object" && json !== null && "version" in json ? String(json.version) : "0.0.0"
}
