/**
 * Discovery services that attach the subsystems they find. Import these names from `NvmeBdev`.
 *
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import { generatedName } from "./internal/bdev/options.ts"
import { checkName } from "./internal/common/names.ts"
import { discoveryNqn } from "./internal/nvme/wire/nqn.ts"
import { checkNqn, lossParams, pathParams } from "./internal/nvmeBdev/params.ts"
import { pollChanges } from "./internal/rpc/pollChanges.ts"
import { withinLimitByRpc } from "./internal/common/release.ts"
import { callDecoded } from "./internal/rpc/decoded.ts"
import * as Info from "./NvmeBdevInfo.ts"
import type { DiscoverOptions } from "./NvmeBdevOptions.ts"
import * as Rpc from "./Rpc.ts"
import { RpcClient } from "./Rpc.ts"
import { AlreadyExists, failInvalid, type InvalidArgument, NotFound, type RpcReason, SpdkError } from "./SpdkError.ts"

/** A subsystem or bdev that a discovery service found or lost between two polls. @since 0.1.0 @category models */
export type DiscoveryEvent =
  /** A subsystem that is attached at this address. */
  | { readonly _tag: "SubsystemFound"; readonly transportId: Info.TransportId }
  | { readonly _tag: "SubsystemLost"; readonly transportId: Info.TransportId }
  /** A namespace of such a subsystem, attached as a bdev. */
  | { readonly _tag: "BdevFound"; readonly bdev: string }
  | { readonly _tag: "BdevLost"; readonly bdev: string }

/** A running discovery service. @since 0.1.0 @category models */
export interface Discovery {
  readonly name: string
  /** Fails with `NotFound` after the service has ended, by itself or by another client. */
  readonly info: Effect.Effect<Info.DiscoveryInfo, SpdkError<RpcReason>>
  /** The addresses at which the service has attached subsystems. */
  readonly subsystems: Effect.Effect<ReadonlyArray<Info.TransportId>, SpdkError<RpcReason>>
  /** The current bdevs of the service. */
  readonly bdevs: Effect.Effect<ReadonlyArray<string>, SpdkError<RpcReason>>
  /**
   * Follows the subsystems and bdevs of the service by polling. Every run of the stream polls by its own schedule, once
   * a second by default, and starts with all current ones. The stream misses a subsystem or bdev that appears and
   * disappears between two polls.
   */
  events(schedule?: Schedule.Schedule<unknown>): Stream.Stream<DiscoveryEvent, SpdkError<RpcReason>>
}

/**
 * Starts a discovery service (`bdev_nvme_start_discovery`). The service reads the log of a discovery controller,
 * attaches every subsystem in the log as bdevs, and follows changes. The end of the scope stops the service and
 * detaches its subsystems. Fails with `AlreadyExists` when a service has that name or that address.
 *
 * The discovery controller must be in another process. SPDK connects to the controller, and reads from it, without
 * running a target on the same reactor.
 *
 * On libspdk, set `lossTimeout` to "never". SPDK v26.05 crashes when it gives up a found controller while the
 * connection to the discovery controller is down too. This happens when the machine of both dies.
 *
 * Without `attachTimeout`, the call returns before any subsystem is attached. The service keeps trying when the address
 * does not answer.
 *
 * @since 0.1.0
 * @category constructors
 */
export const discover: (
  options: DiscoverOptions
) => Effect.Effect<Discovery, SpdkError<RpcReason>, RpcClient | Scope.Scope> = Effect.fn("NvmeBdev.discover")(
  function* (options: DiscoverOptions) {
    const operation = "NvmeBdev.discover"
    const name = options.name === undefined ? generatedName("discovery") : yield* checkName(operation, options.name)
    yield* checkNqn(operation, "hostnqn", options.hostnqn)
    const { subnqn: _, ...path } = yield* pathParams(operation, options, discoveryNqn)
    const attach_timeout_ms = yield* millisOf(operation, options.attachTimeout)
    const params = {
      ...path,
      ...(yield* lossParams(operation, options)),
      name,
      hostnqn: options.hostnqn,
      attach_timeout_ms,
      wait_for_attach: attach_timeout_ms !== undefined
    }
    const rpc = yield* RpcClient
    const start = Rpc.callWith(rpc, "bdev_nvme_start_discovery", params).pipe(
      Effect.mapError((error) => taken(error, name)),
      // One that did not attach in time goes on by itself.
      Effect.tapError((error) => (error.reason._tag === "AlreadyExists" ? Effect.void : Effect.ignore(stop(rpc, name))))
    )
    yield* Effect.acquireRelease(start, () =>
      withinLimitByRpc(
        "NvmeBdev.stopDiscovery",
        name,
        Effect.catch(Effect.asVoid(stop(rpc, name)), (error) =>
          error.reason._tag === "NotFound" ? Effect.void : Effect.die(error)
        )
      )
    )
    return makeDiscovery(rpc, name)
  }
)

const stop = (rpc: RpcClient["Service"], name: string) => Rpc.callWith(rpc, "bdev_nvme_stop_discovery", { name })

const taken = (error: SpdkError<RpcReason>, name: string): SpdkError<RpcReason> =>
  error.reason._tag === "AlreadyExists" || error.reason.errno === "EALREADY"
    ? new SpdkError({ reason: new AlreadyExists({ operation: "bdev_nvme_start_discovery", resource: name }) })
    : error

const millisOf = (
  operation: string,
  input: Duration.Input | undefined
): Effect.Effect<number | undefined, SpdkError<InvalidArgument>> => {
  if (input === undefined) return Effect.succeed(undefined)
  const duration = Option.getOrUndefined(Duration.fromInput(input))
  const millis = duration === undefined ? Number.NaN : Math.ceil(Duration.toMillis(duration))
  return Number.isSafeInteger(millis) && millis > 0
    ? Effect.succeed(millis)
    : failInvalid(operation, "attachTimeout", "is not a duration above 0", String(input))
}

const makeDiscovery = (rpc: RpcClient["Service"], name: string): Discovery => {
  const info = Effect.flatMap(
    callDecoded(rpc, Schema.Array(Info.DiscoveryInfo), "bdev_nvme_get_discovery_info"),
    (all) => {
      const found = all.find((one) => one.name === name)
      return found === undefined
        ? Effect.fail(
            new SpdkError({ reason: new NotFound({ operation: "bdev_nvme_get_discovery_info", resource: name }) })
          )
        : Effect.succeed(found)
    }
  )
  // SPDK calls the controllers that it attaches by the name of the service and a number, and tells of them nowhere else.
  const isController = (text: string) => text.startsWith(name) && /^\d+$/.test(text.slice(name.length))
  const isBdev = (text: string) => text.startsWith(name) && /^\d+n\d+$/.test(text.slice(name.length))
  const subsystems = Effect.map(
    callDecoded(rpc, Schema.Array(Info.ControllerInfo), "bdev_nvme_get_controllers"),
    (all) => all.filter((one) => isController(one.name)).flatMap((one) => one.paths.map((path) => path.transportId))
  )
  const bdevs = Effect.map(Rpc.callWith(rpc, "bdev_get_bdevs"), (all) =>
    all.map((bdev) => bdev.name).filter((one) => isBdev(one))
  )
  return {
    name,
    info,
    subsystems,
    bdevs,
    events: (schedule = Schedule.spaced("1 second")) =>
      pollChanges(
        {
          look: Effect.zipWith(subsystems, bdevs, (ids, names): ReadonlyArray<Seen> => [
            ...ids.map((transportId) => ({ transportId })),
            ...names.map((bdev) => ({ bdev }))
          ]),
          keyOf: (one: Seen) => ("bdev" in one ? one.bdev : addressOf(one.transportId)),
          found: (one): DiscoveryEvent =>
            "bdev" in one
              ? { _tag: "BdevFound", bdev: one.bdev }
              : { _tag: "SubsystemFound", transportId: one.transportId },
          lost: (one): DiscoveryEvent =>
            "bdev" in one
              ? { _tag: "BdevLost", bdev: one.bdev }
              : { _tag: "SubsystemLost", transportId: one.transportId }
        },
        schedule
      )
  }
}

type Seen = { readonly transportId: Info.TransportId } | { readonly bdev: string }

const addressOf = (id: Info.TransportId): string =>
  `${id.trtype} ${id.traddr} ${id.trsvcid ?? ""} ${id.subnqn ?? ""}`.toLowerCase()
