/**
 * NVMe controllers attached as bdevs, on PCIe or over fabrics: the initiator. For services whose blocks are on another machine,
 * or on a local drive, and that want them as a `Bdev`: with several paths, reconnection and discovery. The one thing to know is
 * that the scope which attached a controller detaches it, and with that removes its bdevs.
 *
 * ```ts
 * import * as Bdev from "@effect-spdk/core/Bdev"
 * import * as NvmeBdev from "@effect-spdk/core/NvmeBdev"
 * import * as Effect from "effect/Effect"
 *
 * const program = Effect.gen(function*() {
 *   const disk = yield* NvmeBdev.attach({
 *     traddr: "192.0.2.1",
 *     subnqn: "nqn.2026-01.com.example:disk",
 *     lossTimeout: "1 minute",
 *     reconnectDelay: "2 seconds"
 *   })
 *   yield* disk.addPath({ traddr: "198.51.100.1" })
 *   for (const name of disk.bdevs) {
 *     const bdev = yield* Bdev.open(name, { write: true })
 *     yield* Effect.log(`${name} has ${bdev.sizeBytes} bytes`)
 *   }
 * })
 * ```
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import * as Bdev from "./Bdev.ts"
import type { EngineService } from "./internal/engineService.ts"
import { generatedName } from "./internal/bdevOptions.ts"
import { checkName } from "./internal/names.ts"
import {
  disabledIsPermissionDenied,
  isTooMany,
  missingIsNotFound,
  notConnected,
  takenIsAlreadyExists
} from "./internal/nvmeBdevErrors.ts"
import {
  attachParams,
  controllerParams,
  hostParams,
  multipathOpts,
  pathParams,
  policyParams
} from "./internal/nvmeBdevParams.ts"
import { pollChanges } from "./internal/pollChanges.ts"
import { withinLimitByRpc } from "./internal/release.ts"
import { callDecoded } from "./internal/rpcDecoded.ts"
import { keyName } from "./Keyring.ts"
import * as Info from "./NvmeBdevInfo.ts"
import type { AddPathOptions, AttachOptions, PolicyOptions, SetKeysOptions } from "./NvmeBdevOptions.ts"
import * as Rpc from "./Rpc.ts"
import { RpcClient } from "./Rpc.ts"
import { AlreadyExists, fail, failInvalid, NotFound, type RpcReason, type SpdkError } from "./SpdkError.ts"

export * from "./NvmeBdevDiscovery.ts"
export {
  ControllerInfo,
  ControllerState,
  DiscoveryInfo,
  IoPath,
  PathCounters,
  PathInfo,
  PathStats,
  ThreadPaths,
  TransportId
} from "./NvmeBdevInfo.ts"
export type * from "./NvmeBdevOptions.ts"

/** Why a call about an attached controller fails. @since 0.1.0 @category errors */
export type NvmeBdevError = SpdkError<RpcReason>

/** What has become of a path between two looks. @since 0.1.0 @category models */
export type PathEvent =
  | { readonly _tag: "PathFound"; readonly path: Info.PathInfo }
  | { readonly _tag: "PathChanged"; readonly path: Info.PathInfo }
  | { readonly _tag: "PathLost"; readonly path: Info.PathInfo }

/** A controller attached as bdevs. @since 0.1.0 @category models */
export interface AttachedController {
  readonly name: string
  /** The bdevs it had when it was attached: one for each namespace that the host may see. */
  readonly bdevs: ReadonlyArray<string>
  /** Its bdevs now: namespaces come and go. */
  readonly currentBdevs: Effect.Effect<ReadonlyArray<string>, NvmeBdevError>
  /** Its paths with their states (`bdev_nvme_get_controllers`). `NotFound` when it was given up or somebody detached it. */
  readonly paths: Effect.Effect<ReadonlyArray<Info.PathInfo>, NvmeBdevError>
  /**
   * What becomes of the paths. Every run of the stream looks by the schedule, once a second by default, and begins with
   * all paths there are. A controller that is gone has none.
   */
  pathEvents(schedule?: Schedule.Schedule<unknown>): Stream.Stream<PathEvent, NvmeBdevError>
  /** The paths of its bdevs by SPDK thread (`bdev_nvme_get_io_paths`). */
  readonly ioPaths: Effect.Effect<ReadonlyArray<Info.ThreadPaths>, NvmeBdevError>
  /**
   * One more path (`bdev_nvme_attach_controller` with the same name). The end of the scope removes it; when it is the last one,
   * that detaches the controller. `AlreadyExists` when the path is there already.
   */
  addPath(options: AddPathOptions): Effect.Effect<void, NvmeBdevError, Scope.Scope>
  /** Which path the I/O of a bdev takes (`bdev_nvme_set_multipath_policy`). Default: all bdevs it has now. */
  setPolicy(options: PolicyOptions & { readonly bdev?: string | undefined }): Effect.Effect<void, NvmeBdevError>
  /** The path that the I/O of a bdev takes with "active_passive" (`bdev_nvme_set_preferred_path`). */
  setPreferredPath(options: { readonly bdev: string; readonly cntlid: number }): Effect.Effect<void, NvmeBdevError>
  /**
   * What has gone by each path of a bdev (`bdev_nvme_get_path_iostat`). `PermissionDenied` unless `bdev_nvme_set_options` has
   * switched `io_path_stat` on.
   */
  pathStats(bdev: string): Effect.Effect<ReadonlyArray<Info.PathStats>, NvmeBdevError>
  /** Resets all paths, or the one with this id (`bdev_nvme_reset_controller`). I/O waits. */
  reset(options?: { readonly cntlid?: number | undefined }): Effect.Effect<void, NvmeBdevError>
  /** Uses other keys from now on, and authenticates again (`bdev_nvme_set_keys`). */
  setKeys(options: SetKeysOptions): Effect.Effect<void, NvmeBdevError>
}

/**
 * Attaches a controller (`bdev_nvme_attach_controller`). The end of the scope detaches it, with all its paths and bdevs, and waits
 * for that up to `Bdev.ReleaseTimeout`; whoever has a bdev of it open sees `Removed`. A controller that was given up before is no
 * error then.
 *
 * `AlreadyExists` when there is a controller of that name: `addPath` is for further paths. A target that cannot be reached, does
 * not know the subsystem, or refuses the host, by name or by key, is all the same to SPDK's answer: `IoFailed`, with an errno.
 * Interruption waits for SPDK's answer, and detaches what was attached.
 *
 * A target that comes back with another volume under the same namespace id, by UUID, NGUID, EUI64 or block size, is not written to:
 * the bdev is removed, and its I/O fails with `DeviceRemoved`. The embedded engine makes a bdev of the other volume. On libspdk v26.05
 * the whole controller is detached, and what waited may end as `IoFailed`; older SPDK does not compare. A volume without identifiers
 * cannot be told from another. While it is connected, the embedded host hears of a change by a notice, holds new I/O back, and waits for
 * what it has sent before it asks which volume that is; the embedded target refuses I/O for the other one until then. Of other targets and
 * hosts, what is sent before the notice is read may reach the other volume.
 *
 * @since 0.1.0
 * @category constructors
 */
export const attach: (
  options: AttachOptions
) => Effect.Effect<AttachedController, NvmeBdevError, RpcClient | Scope.Scope> = Effect.fn("NvmeBdev.attach")(
  function* (options: AttachOptions) {
    const operation = "NvmeBdev.attach"
    const name = options.name === undefined ? generatedName("nvme") : yield* checkName(operation, options.name)
    const path = yield* pathParams(operation, options, options.subnqn)
    const params = {
      ...(yield* attachParams(operation, options)),
      ...(yield* controllerParams(operation, path.trtype, options)),
      ...(yield* hostParams(operation, options)),
      ...path,
      name
    }
    const rpc = yield* RpcClient
    const acquire = Effect.gen(function* () {
      const known = yield* callDecoded(rpc, Schema.Array(Info.ControllerInfo), "bdev_nvme_get_controllers")
      if (known.some((one) => one.name === name)) {
        return yield* fail<RpcReason>(new AlreadyExists({ operation, resource: name }))
      }
      const call = Rpc.callWith(rpc, "bdev_nvme_attach_controller", params).pipe(
        // SPDK says so only once it has attached all of it.
        Effect.tapError((error) =>
          error.isRetryable || isTooMany(error) ? Effect.ignore(detach(rpc, { name })) : Effect.void
        ),
        Effect.catch((error) =>
          isTooMany(error)
            ? failInvalid(operation, "maxBdevs", "is less than the namespaces that there are", options.maxBdevs)
            : Effect.fail(error)
        )
      )
      return yield* notConnected(name, rpc.address, path)(call)
    })
    const bdevs = yield* Effect.acquireRelease(acquire, () => released(rpc, { name }))
    return makeController(rpc, name, bdevs, options)
  }
)

/**
 * Attaches a controller, as `attach` does, and provides the bdev of its first namespace, opened for writing unless `readonly`.
 * `NotFound` when the host sees no namespace.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (
  options: AttachOptions & { readonly readonly?: boolean | undefined }
): Layer.Layer<Bdev.Bdev, NvmeBdevError | Bdev.OpenError, RpcClient | EngineService> =>
  Layer.effect(
    Bdev.Bdev,
    Effect.gen(function* () {
      const { bdevs, name } = yield* attach(options)
      const [first] = bdevs
      if (first === undefined) {
        const detail = "the controller has no namespace that this host may see"
        return yield* fail<RpcReason>(new NotFound({ operation: "NvmeBdev.layer", resource: name, detail }))
      }
      return yield* Bdev.open(first, { write: options.readonly !== true })
    })
  )

/** `layer` with options that come from Config. @since 0.1.0 @category layers */
export const layerConfig = (
  options: Config.Wrap<AttachOptions & { readonly readonly?: boolean | undefined }>
): Layer.Layer<Bdev.Bdev, NvmeBdevError | Bdev.OpenError | Config.ConfigError, RpcClient | EngineService> =>
  Layer.unwrap(Effect.map(Config.unwrap(options), layer))

/** All attached controllers (`bdev_nvme_get_controllers`). @since 0.1.0 @category inspection */
export const list: Effect.Effect<ReadonlyArray<Info.ControllerInfo>, NvmeBdevError, RpcClient> = Effect.flatMap(
  RpcClient,
  (rpc) => callDecoded(rpc, Schema.Array(Info.ControllerInfo), "bdev_nvme_get_controllers")
)

const everySecond = Schedule.spaced("1 second")

const makeController = (
  rpc: RpcClient["Service"],
  name: string,
  bdevs: ReadonlyArray<string>,
  options: AttachOptions
): AttachedController => {
  const paths = callDecoded(rpc, Schema.Array(Info.ControllerInfo), "bdev_nvme_get_controllers", { name }).pipe(
    missingIsNotFound(name),
    Effect.map((controllers) => controllers.flatMap((one) => one.paths))
  )
  const currentBdevs = bdevsOf(rpc, name)
  return {
    name,
    bdevs,
    currentBdevs,
    paths,
    pathEvents: (schedule = everySecond) => pathEvents(paths, schedule),
    ioPaths: Effect.flatMap(currentBdevs, (mine) =>
      Effect.map(callDecoded(rpc, Info.IoPaths, "bdev_nvme_get_io_paths"), ({ poll_groups }) =>
        poll_groups.map((group) => ({ ...group, paths: group.paths.filter((path) => mine.includes(path.bdev)) }))
      )
    ),
    addPath: (added) => addPath(rpc, name, options, added),
    setPolicy: ({ bdev, ...policy }) =>
      setPolicy(rpc, bdev === undefined ? currentBdevs : Effect.succeed([bdev]), policy),
    setPreferredPath: ({ bdev, cntlid }) =>
      Effect.asVoid(Rpc.callWith(rpc, "bdev_nvme_set_preferred_path", { name: bdev, cntlid })),
    pathStats: (bdev) =>
      callDecoded(rpc, Info.BdevPathStats, "bdev_nvme_get_path_iostat", { name: bdev }).pipe(
        disabledIsPermissionDenied(bdev),
        Effect.map(({ stats }) => stats)
      ),
    reset: (which) => Effect.asVoid(Rpc.callWith(rpc, "bdev_nvme_reset_controller", { name, cntlid: which?.cntlid })),
    setKeys: ({ dhchapControllerKey, dhchapKey }) =>
      Effect.asVoid(
        Rpc.callWith(rpc, "bdev_nvme_set_keys", {
          name,
          dhchap_key: keyName(dhchapKey),
          dhchap_ctrlr_key: dhchapControllerKey === undefined ? undefined : keyName(dhchapControllerKey)
        })
      )
  }
}

const keyOfPath = ({ cntlid, transportId: id }: Info.PathInfo): string =>
  `${id.trtype} ${id.traddr} ${id.trsvcid ?? ""} ${cntlid}`

const pathEvents = (
  paths: Effect.Effect<ReadonlyArray<Info.PathInfo>, NvmeBdevError>,
  schedule: Schedule.Schedule<unknown>
): Stream.Stream<PathEvent, NvmeBdevError> =>
  pollChanges(
    {
      look: Effect.catch(paths, (error) =>
        error.reason._tag === "NotFound" ? Effect.succeed([]) : Effect.fail(error)
      ),
      keyOf: keyOfPath,
      found: (path): PathEvent => ({ _tag: "PathFound", path }),
      lost: (path): PathEvent => ({ _tag: "PathLost", path }),
      changed: (before, path) => (before.state === path.state ? undefined : { _tag: "PathChanged", path })
    },
    schedule
  )

/** A bdev is named after its controller: `<name>n<nsid>`. */
const bdevsOf = (rpc: RpcClient["Service"], name: string) =>
  Effect.map(Rpc.callWith(rpc, "bdev_get_bdevs"), (all) =>
    all
      .filter((one) => one.name.startsWith(`${name}n`) && /^\d+$/.test(one.name.slice(name.length + 1)))
      .filter((one) => "nvme" in one.driver_specific)
      .map((one) => one.name)
  )

const addPath = Effect.fn("NvmeBdev.addPath")(function* (
  rpc: RpcClient["Service"],
  name: string,
  attached: AttachOptions,
  options: AddPathOptions
): Effect.fn.Return<void, NvmeBdevError, Scope.Scope> {
  const operation = "NvmeBdev.addPath"
  const path = yield* pathParams(operation, options, attached.subnqn)
  const host = yield* hostParams(operation, options)
  const params = { ...(yield* controllerParams(operation, path.trtype, options)), ...host, ...path, name }
  const { hostaddr, hostsvcid } = host
  const multipath_opts = yield* multipathOpts(operation, attached.policy)
  yield* Effect.acquireRelease(
    Rpc.callWith(rpc, "bdev_nvme_attach_controller", {
      ...params,
      hostnqn: attached.hostnqn,
      multipath: attached.multipath,
      multipath_opts
    }).pipe(takenIsAlreadyExists(name), notConnected(name, rpc.address, path)),
    () => released(rpc, { ...path, name, hostaddr, hostsvcid })
  )
})

const setPolicy = Effect.fn("NvmeBdev.setPolicy")(function* (
  rpc: RpcClient["Service"],
  bdevs: Effect.Effect<ReadonlyArray<string>, NvmeBdevError>,
  options: PolicyOptions
): Effect.fn.Return<void, NvmeBdevError> {
  const { minIo, policy, selector } = yield* policyParams("NvmeBdev.setPolicy", options)
  yield* Effect.forEach(
    yield* bdevs,
    (name) => Rpc.callWith(rpc, "bdev_nvme_set_multipath_policy", { name, policy, selector, rr_min_io: minIo }),
    { discard: true }
  )
})

type DetachParams = Rpc.RpcMethods["bdev_nvme_detach_controller"]

const detach = (rpc: RpcClient["Service"], params: DetachParams) =>
  Rpc.callWith(rpc, "bdev_nvme_detach_controller", params)

const released = (rpc: RpcClient["Service"], params: DetachParams): Effect.Effect<void> =>
  withinLimitByRpc(
    "NvmeBdev.detach",
    params.name,
    Effect.catch(Effect.asVoid(detach(rpc, params)), (error) =>
      error.reason._tag === "NotFound" ? Effect.void : Effect.die(error)
    )
  )
