/**
 * NVMe controllers attached as bdevs, on PCIe or over fabrics: the NVMe host (initiator). Use this module when the
 * blocks are on another machine or on a local drive, and the program wants them as a `Bdev`. Controllers have several
 * paths, reconnection and discovery. The scope that attached a controller detaches it, and thereby removes its bdevs.
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
import type { EngineService } from "./internal/engine/service.ts"
import { generatedName } from "./internal/bdev/options.ts"
import { checkName } from "./internal/common/names.ts"
import {
  disabledIsPermissionDenied,
  isTooMany,
  missingIsNotFound,
  notConnected,
  takenIsAlreadyExists
} from "./internal/nvmeBdev/errors.ts"
import {
  attachParams,
  controllerParams,
  hostParams,
  multipathOpts,
  pathParams,
  policyParams
} from "./internal/nvmeBdev/params.ts"
import { pollChanges } from "./internal/rpc/pollChanges.ts"
import { withinLimitByRpc } from "./internal/common/release.ts"
import { callDecoded } from "./internal/rpc/decoded.ts"
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

/** The error of a call on an attached controller. @since 0.1.0 @category errors */
export type NvmeBdevError = SpdkError<RpcReason>

/** A change of a path between two polls. @since 0.1.0 @category models */
export type PathEvent =
  | { readonly _tag: "PathFound"; readonly path: Info.PathInfo }
  | { readonly _tag: "PathChanged"; readonly path: Info.PathInfo }
  | { readonly _tag: "PathLost"; readonly path: Info.PathInfo }

/** A controller attached as bdevs. @since 0.1.0 @category models */
export interface AttachedController {
  readonly name: string
  /** The bdevs of the controller when it was attached: one for each namespace that the host may see. */
  readonly bdevs: ReadonlyArray<string>
  /** The current bdevs of the controller. Namespaces appear and disappear. */
  readonly currentBdevs: Effect.Effect<ReadonlyArray<string>, NvmeBdevError>
  /**
   * The paths of the controller with their states (`bdev_nvme_get_controllers`). Fails with `NotFound` after SPDK has
   * given the controller up, or after another client has detached it.
   */
  readonly paths: Effect.Effect<ReadonlyArray<Info.PathInfo>, NvmeBdevError>
  /**
   * Follows the paths by polling. Every run of the stream polls by its own schedule, once a second by default, and
   * starts with all current paths. A detached controller has no paths.
   */
  pathEvents(schedule?: Schedule.Schedule<unknown>): Stream.Stream<PathEvent, NvmeBdevError>
  /** The paths of the controller's bdevs, for each SPDK thread (`bdev_nvme_get_io_paths`). */
  readonly ioPaths: Effect.Effect<ReadonlyArray<Info.ThreadPaths>, NvmeBdevError>
  /**
   * Adds a path (`bdev_nvme_attach_controller` with the same name). The end of the scope removes the path. Removing the
   * last path detaches the controller. Fails with `AlreadyExists` when the controller has this path.
   */
  addPath(options: AddPathOptions): Effect.Effect<void, NvmeBdevError, Scope.Scope>
  /**
   * Sets the policy by which a bdev's I/O chooses a path (`bdev_nvme_set_multipath_policy`). Default: all current bdevs
   * of the controller.
   */
  setPolicy(options: PolicyOptions & { readonly bdev?: string | undefined }): Effect.Effect<void, NvmeBdevError>
  /** Sets the preferred path of a bdev with "active_passive" (`bdev_nvme_set_preferred_path`). */
  setPreferredPath(options: { readonly bdev: string; readonly cntlid: number }): Effect.Effect<void, NvmeBdevError>
  /**
   * The I/O counters of each path of a bdev (`bdev_nvme_get_path_iostat`). Fails with `PermissionDenied` unless
   * `bdev_nvme_set_options` has enabled `io_path_stat`.
   */
  pathStats(bdev: string): Effect.Effect<ReadonlyArray<Info.PathStats>, NvmeBdevError>
  /** Resets all paths, or the path with this controller id (`bdev_nvme_reset_controller`). I/O waits for the reset. */
  reset(options?: { readonly cntlid?: number | undefined }): Effect.Effect<void, NvmeBdevError>
  /** Replaces the keys of the controller and authenticates again (`bdev_nvme_set_keys`). */
  setKeys(options: SetKeysOptions): Effect.Effect<void, NvmeBdevError>
}

/**
 * Attaches a controller (`bdev_nvme_attach_controller`). The end of the scope detaches the controller with all its
 * paths and bdevs, and waits up to `Bdev.ReleaseTimeout`. Open handles of its bdevs receive `Removed`. The detach
 * succeeds when SPDK has given the controller up before.
 *
 * Fails with `AlreadyExists` when a controller has that name; `addPath` adds further paths. Fails with `IoFailed` and
 * an errno when the target is unreachable, does not know the subsystem, or refuses the host by name or key. SPDK's
 * answer does not distinguish these faults; `detail` names the cause when it is known. Interruption waits for SPDK's
 * answer and detaches the controller.
 *
 * A target may come back with another volume under the same namespace id. The volume is identified by UUID, NGUID,
 * EUI64 and block size; a volume without identifiers cannot be told from another. The other volume is not written to:
 * the bdev is removed, and its I/O fails with `DeviceRemoved`. The embedded engine then makes a bdev of the other
 * volume. libspdk v26.05 detaches the whole controller, and waiting I/O may fail with `IoFailed`. Older SPDK does not
 * compare volumes.
 *
 * A volume can also change while the host is connected. The embedded host learns of the change from a notice. The host
 * then holds new I/O back, waits for the I/O in flight, and identifies the volume. The embedded target refuses I/O to
 * the new volume until then. With other targets or hosts, I/O that was submitted before the notice was read may reach
 * the other volume.
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
            ? failInvalid(operation, "maxBdevs", "is less than the number of namespaces", options.maxBdevs)
            : Effect.fail(error)
        )
      )
      return yield* notConnected(name, rpc, path)(call)
    })
    const bdevs = yield* Effect.acquireRelease(acquire, () => released(rpc, { name }))
    return makeController(rpc, name, bdevs, options)
  }
)

/**
 * Attaches a controller, as `attach` does, and provides the bdev of its first namespace. The bdev is opened for writing
 * unless `readonly`. Fails with `NotFound` when the host sees no namespace.
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

/** Lists all attached controllers (`bdev_nvme_get_controllers`). @since 0.1.0 @category inspection */
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

/** A bdev has the name of its controller and its namespace id: `<name>n<nsid>`. */
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
    }).pipe(takenIsAlreadyExists(name), notConnected(name, rpc, path)),
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
