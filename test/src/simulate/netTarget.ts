/** The target of a simulation: an engine, the disks, a subsystem and its listeners, made and ended as often as the plan says. */
import * as NvmfTarget from "@effect-spdk/nvmf/NvmfTarget"
import * as SimulatedDisk from "@effect-spdk/core/SimulatedDisk"
import type * as Spdk from "@effect-spdk/core/Spdk"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type { NetPlan } from "./netPlan.ts"
import type { Volume } from "./netWork.ts"

export const subnqn = "nqn.2026-01.com.example:simulated"
export const address = "127.0.0.1"
export const portOf = (path: number): number => 4420 + path

type Services = Context.Context<Spdk.Services>
export type AnaState = "optimized" | "non_optimized" | "inaccessible"

/** What the target is made of again after an end. */
export class Target {
  readonly volumes: ReadonlyArray<Volume>
  /** What namespace 1 is. */
  current: Volume
  readonly ana: Array<AnaState>
  private readonly plan: NetPlan
  private services: Services | undefined = undefined
  private engineScope: Scope.Closeable | undefined = undefined
  private subsystemScope: Scope.Closeable | undefined = undefined
  private namespaceScope: Scope.Closeable | undefined = undefined
  private subsystem: NvmfTarget.Subsystem | undefined = undefined
  private readonly listeners = new Map<
    number,
    { readonly listener: NvmfTarget.Listener; readonly scope: Scope.Closeable }
  >()
  private readonly makeEngine: (scope: Scope.Scope) => Effect.Effect<Services, unknown>

  constructor(
    plan: NetPlan,
    volumes: readonly [Volume, ...ReadonlyArray<Volume>],
    makeEngine: (scope: Scope.Scope) => Effect.Effect<Services, unknown>
  ) {
    this.plan = plan
    this.volumes = volumes
    this.current = volumes[0]
    this.makeEngine = makeEngine
    this.ana = Array.from({ length: plan.paths }, () => "optimized" as const)
  }

  get engine(): Services | undefined {
    return this.services
  }

  /** The engine with the disks. */
  readonly startEngine = Effect.gen({ self: this }, function* () {
    const scope = yield* Scope.make()
    this.engineScope = scope
    const services = yield* this.makeEngine(scope)
    this.services = services
    yield* Effect.forEach(this.volumes, ({ disk }) => SimulatedDisk.attach(disk), { discard: true }).pipe(
      Scope.provide(scope),
      Effect.provideContext(services)
    )
  })

  /** The subsystem, its namespace, and then its listeners, so that nobody finds it half made. */
  readonly startSubsystem = Effect.gen({ self: this }, function* () {
    const { inCapsuleBytes, paths, queueDepth } = this.plan
    const scope = yield* Scope.make()
    this.subsystemScope = scope
    yield* this.provided(
      Effect.gen({ self: this }, function* () {
        const target = yield* NvmfTarget.make({
          transports: [
            {
              trtype: "TCP",
              maxQueueDepth: queueDepth,
              inCapsuleDataSize: inCapsuleBytes,
              keepAliveGranularity: 1,
              minKeepAliveMillis: 100
            }
          ],
          drainTimeout: "2 seconds"
        })
        this.subsystem = yield* Scope.provide(
          target.subsystem({ nqn: subnqn, allowAnyHost: true, anaReporting: true }),
          scope
        )
        yield* this.addNamespace
        for (let path = 0; path < paths; path++) yield* this.listen(path)
      })
    )
  })

  readonly stopSubsystem = Effect.suspend(() => {
    const { subsystemScope } = this
    this.subsystemScope = this.namespaceScope = this.subsystem = undefined
    this.listeners.clear()
    return subsystemScope === undefined ? Effect.void : Scope.close(subsystemScope, Exit.void)
  })

  readonly stopEngine = Effect.suspend(() => {
    const { engineScope } = this
    this.engineScope = this.services = undefined
    return engineScope === undefined ? Effect.void : Scope.close(engineScope, Exit.void)
  })

  /** Another volume takes the place of namespace 1 while hosts are connected. */
  readonly replace = (volume: Volume) =>
    Effect.gen({ self: this }, function* () {
      const { namespaceScope } = this
      if (namespaceScope !== undefined) yield* Scope.close(namespaceScope, Exit.void)
      this.current = volume
      yield* this.provided(this.addNamespace)
    })

  readonly setAna = (path: number, state: AnaState) =>
    Effect.suspend(() => {
      this.ana[path] = state
      return this.listeners.get(path)?.listener.setAnaState(state) ?? Effect.void
    })

  readonly listen = (path: number) =>
    Effect.gen({ self: this }, function* () {
      const { subsystem } = this
      if (subsystem === undefined || this.listeners.has(path)) return
      const scope = yield* Scope.make()
      const listener = yield* Scope.provide(
        subsystem.addListener({ traddr: address, trsvcid: portOf(path), anaState: this.ana[path] }),
        scope
      )
      this.listeners.set(path, { listener, scope })
    })

  readonly unlisten = (path: number) =>
    Effect.suspend(() => {
      const known = this.listeners.get(path)
      this.listeners.delete(path)
      return known === undefined ? Effect.void : Scope.close(known.scope, Exit.void)
    })

  private readonly addNamespace = Effect.gen({ self: this }, function* () {
    const { subsystem } = this
    if (subsystem === undefined) return
    const scope = yield* Scope.make()
    this.namespaceScope = scope
    const { disk, uuid } = this.current
    yield* Scope.provide(subsystem.addNamespace({ bdev: disk.name, nsid: 1, uuid }), scope)
  })

  readonly provided = <A, E>(effect: Effect.Effect<A, E, Spdk.Services>): Effect.Effect<A, E> =>
    Effect.suspend(() =>
      this.services === undefined
        ? Effect.die(new Error("the target has no engine"))
        : Effect.provideContext(effect, this.services)
    )
}
