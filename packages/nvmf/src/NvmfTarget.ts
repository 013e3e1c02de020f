/**
 * The NVMe over Fabrics target, which exports bdevs to hosts. No host is admitted by default. Listeners use the
 * loopback address by default.
 *
 * ```ts
 * import * as Bdev from "@effect-spdk/core/Bdev"
 * import * as Spdk from "@effect-spdk/core/Spdk"
 * import * as NvmfTarget from "@effect-spdk/nvmf/NvmfTarget"
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 *
 * const program = Effect.gen(function*() {
 *   const target = yield* NvmfTarget.NvmfTarget
 *   const subsystem = yield* target.subsystem({ nqn: "nqn.2026-01.com.example:disk" })
 *   yield* subsystem.addNamespace({ bdev: yield* Bdev.Bdev })
 *   yield* subsystem.addHost({ nqn: "nqn.2026-01.com.example:host" })
 *   yield* subsystem.addListener({ traddr: "192.0.2.1" })
 *   yield* Effect.never
 * }).pipe(Effect.scoped)
 *
 * const Storage = Layer.mergeAll(NvmfTarget.layer(), Bdev.layerFile({ path: "disk.img", size: "1 GiB" })).pipe(
 *   Layer.provide(Spdk.layerAuto)
 * )
 * ```
 *
 * Every call uses SPDK's RPC. With `Spdk.layerRemote`, the same program controls the target of an `spdk_tgt` elsewhere.
 *
 * @since 0.1.0
 */
import { callDecoded, discoveryNqn, withinLimitByRpc } from "@effect-spdk/core/Engine"
import * as Rpc from "@effect-spdk/core/Rpc"
import { RpcClient } from "@effect-spdk/core/Rpc"
import { AlreadyExists, failInvalid, type OptionsClash, type RpcReason, SpdkError } from "@effect-spdk/core/SpdkError"
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import {
  addressKey,
  addressParams,
  checkNqn,
  checkReferralAddress,
  defaultMaxNamespaces,
  showAddress
} from "./internal/checks.ts"
import { makeAccess } from "./internal/access.ts"
import { listSubsystems } from "./internal/refusals.ts"
import { makeSubsystem } from "./internal/subsystem.ts"
import { ensureTransport, listTransports } from "./internal/transports.ts"
import * as Info from "./NvmfInfo.ts"
import type { ReferralOptions, SubsystemOptions, TargetOptions } from "./NvmfOptions.ts"
import type { TransportOptions } from "./NvmfTransport.ts"
import type { SubsystemAccess, NvmfError, Subsystem } from "./NvmfSubsystem.ts"

export * from "./NvmfInfo.ts"
export type * from "./NvmfOptions.ts"
export type * from "./NvmfSubsystem.ts"
export type * from "./NvmfTransport.ts"

/** The reasons for which a target is not created. @since 0.1.0 @category errors */
export type TargetError = SpdkError<RpcReason | OptionsClash>

/**
 * The NVMe over Fabrics target of an SPDK.
 *
 * @since 0.1.0
 * @category services
 */
export class NvmfTarget extends Context.Service<
  NvmfTarget,
  {
    /** The transports of the target with their current options (`nvmf_get_transports`). */
    readonly transports: Effect.Effect<ReadonlyArray<Info.TransportInfo>, NvmfError>
    /**
     * Creates a subsystem (`nvmf_create_subsystem`). Fails with `AlreadyExists` when the name is taken.
     *
     * The end of the scope removes the listeners, waits up to `drainTimeout` for the hosts to disconnect, removes the
     * namespaces, and deletes the subsystem. All of this happens within `Bdev.ReleaseTimeout`. A part that was removed
     * before is not an error.
     */
    readonly subsystem: (options: SubsystemOptions) => Effect.Effect<Subsystem, NvmfError, Scope.Scope>
    /** All subsystems, the discovery subsystem included (`nvmf_get_subsystems`). */
    readonly subsystems: Effect.Effect<ReadonlyArray<Info.SubsystemInfo>, NvmfError>
    /**
     * The discovery subsystem, which admits every host. It is reachable at the listeners of all subsystems. A listener
     * of its own reports all subsystems at an additional address.
     */
    readonly discovery: SubsystemAccess
    /**
     * Refers hosts to another discovery service until the end of the scope (`nvmf_discovery_add_referral`). `traddr`
     * must be a numeric address, because SPDK cannot remove a referral to a host name.
     */
    readonly addReferral: (options: ReferralOptions) => Effect.Effect<void, NvmfError, Scope.Scope>
    readonly referrals: Effect.Effect<ReadonlyArray<Info.ReferralInfo>, NvmfError>
    /** The statistics of the target (`nvmf_get_stats`). */
    readonly stats: Effect.Effect<Info.TargetStats, NvmfError>
  }
>()("@effect-spdk/nvmf/NvmfTarget") {}

const onlyTcp: ReadonlyArray<TransportOptions> = [{ trtype: "TCP" }]
const defaultDrainTimeout: Duration.Input = "10 seconds"

/**
 * The target of the SPDK in the context, with these transports. Transports stay after the release of the target,
 * because SPDK has no call that removes one. An existing transport with different values of these options fails with
 * `OptionsClash`. SPDK does not report the values of masked commands and of the polling of connections, so these two
 * are not compared.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make: (options?: TargetOptions) => Effect.Effect<NvmfTarget["Service"], TargetError, RpcClient> =
  Effect.fn("NvmfTarget.make")(function* (options: TargetOptions = {}) {
    const drainTimeout = options.drainTimeout ?? defaultDrainTimeout
    if (Option.isNone(Duration.fromInput(drainTimeout))) {
      return yield* failInvalid("NvmfTarget.make", "drainTimeout", "is not a duration", String(drainTimeout))
    }
    const { transports = onlyTcp } = options
    if (!Array.isArray(transports)) {
      return yield* failInvalid("NvmfTarget.make", "transports", "is not an array", transports)
    }
    const rpc = yield* RpcClient
    yield* Effect.forEach(transports, (one) => ensureTransport(rpc, one), { discard: true })
    return NvmfTarget.of({
      transports: listTransports(rpc),
      subsystem: (wanted) => makeSubsystem(rpc, drainTimeout, wanted),
      subsystems: listSubsystems(rpc),
      discovery: makeAccess(
        rpc,
        { nqn: discoveryNqn, maxNamespaces: defaultMaxNamespaces, anaReporting: false },
        Effect.acquireRelease
      ),
      addReferral: (referral) => addReferral(rpc, referral),
      referrals: listReferrals(rpc),
      stats: callDecoded(rpc, Info.TargetStats, "nvmf_get_stats")
    })
  })

/** Provides the target of the SPDK in the context. @since 0.1.0 @category layers */
export const layer = (options?: TargetOptions): Layer.Layer<NvmfTarget, TargetError, RpcClient> =>
  Layer.effect(NvmfTarget, make(options))

/** `layer` with options that come from Config. @since 0.1.0 @category layers */
export const layerConfig = (
  options: Config.Wrap<TargetOptions>
): Layer.Layer<NvmfTarget, TargetError | Config.ConfigError, RpcClient> =>
  Layer.unwrap(Effect.map(Config.unwrap(options), layer))

const listReferrals = (rpc: RpcClient["Service"]): Effect.Effect<ReadonlyArray<Info.ReferralInfo>, NvmfError> =>
  callDecoded(rpc, Schema.Array(Info.ReferralInfo), "nvmf_discovery_get_referrals")

const addReferral = Effect.fn("NvmfTarget.addReferral")(function* (
  rpc: RpcClient["Service"],
  options: ReferralOptions
): Effect.fn.Return<void, NvmfError, Scope.Scope> {
  const operation = "NvmfTarget.addReferral"
  const { secureChannel, subnqn = discoveryNqn } = options
  const address = yield* addressParams(operation, options)
  yield* checkReferralAddress(operation, address)
  yield* checkNqn(operation, "subnqn", subnqn)
  const isIt = (one: Info.ReferralInfo) => one.subnqn === subnqn && addressKey(one.address) === addressKey(address)
  const add = Effect.gen(function* () {
    // SPDK takes a second one for the first, and the first end of one would end both.
    if ((yield* listReferrals(rpc)).some(isIt)) {
      const detail = `there is a referral to ${subnqn} there already`
      return yield* Effect.fail(
        new SpdkError({ reason: new AlreadyExists({ operation, resource: showAddress(address), detail }) })
      )
    }
    return yield* Rpc.callWith(rpc, "nvmf_discovery_add_referral", { address, subnqn, secure_channel: secureChannel })
  })
  const gone = Effect.map(listReferrals(rpc), (all) => !all.some(isIt))
  const remove = Effect.catch(
    Effect.asVoid(Rpc.callWith(rpc, "nvmf_discovery_remove_referral", { address, subnqn })),
    (error) => Effect.flatMap(Effect.orDie(gone), (isGone) => (isGone ? Effect.void : Effect.die(error)))
  )
  yield* Effect.acquireRelease(add, () => withinLimitByRpc("NvmfTarget.removeReferral", showAddress(address), remove))
})
