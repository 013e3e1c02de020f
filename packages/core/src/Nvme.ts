/**
 * The NVMe driver: controllers on PCIe and over fabrics, without the bdev layer. Use this module for NVMe features that
 * bdevs lack: log pages, features, events, compare, and any command. A controller, its namespaces and its queue pairs
 * are scoped. Closing the scope waits for the device.
 *
 * ```ts
 * import * as Nvme from "@effect-spdk/core/Nvme"
 * import * as Spdk from "@effect-spdk/core/Spdk"
 * import * as Effect from "effect/Effect"
 *
 * const program = Effect.gen(function*() {
 *   const controller = yield* Nvme.connect("trtype:TCP traddr:192.0.2.7 trsvcid:4420 subnqn:nqn.2016-06.io.spdk:disk1")
 *   const { modelNumber } = yield* controller.identify
 *   const health = yield* controller.logPages.health()
 *   const disk = yield* controller.namespace(1)
 *   const start = yield* disk.readBytes(0, disk.blockSize)
 *   return { modelNumber, kelvin: health.temperatureKelvin, start }
 * }).pipe(Effect.scoped, Effect.provide(Spdk.layerAuto))
 * ```
 *
 * The libspdk engine uses SPDK's NVMe driver. The embedded engine has an NVMe/TCP host; other transports fail with
 * `NotSupported` there. On the remote engine every operation fails with `NotSupported`.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { EngineService } from "./internal/engine/service.ts"
import { checkConnect, checkTransportId } from "./internal/nvme/connectOptions.ts"
import { connectController, controlReasons, driverOf } from "./internal/nvme/controllerHandle.ts"
import { devices, discoveries } from "./internal/nvme/discover.ts"
import { NvmeController, type OpenNamespaceError, type QueryError } from "./NvmeController.ts"
import type { DiscoveredSubsystem } from "./NvmeData.ts"
import { NvmeNamespace } from "./NvmeNamespace.ts"
import type { Input, TransportId } from "./NvmeTransportId.ts"
import type { Corrupted, ErrnoReason, SpdkError } from "./SpdkError.ts"

export * from "./NvmeController.ts"
export * from "./NvmeData.ts"
export * from "./NvmeNamespace.ts"

/**
 * The identity of the host and the parameters of the connection. Queue sizes are in entries.
 *
 * @since 0.1.0
 * @category options
 */
export interface ConnectOptions {
  /** The NQN of the host. Default: a UUID-based name that is generated when the process starts. */
  readonly hostnqn?: string | undefined
  /** The host identifier, a UUID. Default: the UUID in `hostnqn`, or a UUID derived from that name. */
  readonly hostId?: string | undefined
  /** The local IP address of the connection. Default: the system's choice. */
  readonly sourceAddress?: string | undefined
  /** The local port of the connection, 1 to 65535. Default: the system's choice. */
  readonly sourcePort?: number | undefined
  /** The number of queue pairs to request. The controller may grant fewer. Default 128. */
  readonly ioQueues?: number | undefined
  /** Default 256, as in SPDK. The controller's own limit applies too. */
  readonly ioQueueSize?: number | undefined
  /** Default 32, as in SPDK. */
  readonly adminQueueSize?: number | undefined
  /**
   * The controller ends the connection when it receives nothing for this long. `false` turns keep-alive off. Default 10
   * seconds.
   */
  readonly keepAlive?: Duration.Input | false | undefined
  /**
   * The time limit for the connection, until the controller is ready and all namespaces are listed. Default 10 seconds.
   * Infinity: no limit.
   */
  readonly connectTimeout?: Duration.Input | undefined
  /**
   * The time limit for a command of the admin queue. After it the driver gives the connection up. Default 30 seconds.
   * Infinity: no limit.
   */
  readonly adminTimeout?: Duration.Input | undefined
  /**
   * The time limit for a command of an I/O queue. After it the driver gives the connection up: the controller fails,
   * and the requests in flight end as when the connection is lost. Default 30 seconds, as in Linux. At most one hour.
   * Infinity: no limit.
   *
   * Only TCP and RDMA have this limit. A PCIe or vfio-user device may still write into memory, so its commands are
   * never given up. For such a device a limit fails with `InvalidArgument`.
   */
  readonly ioTimeout?: Duration.Input | undefined
  /** Adds a CRC32C digest to the headers of NVMe/TCP. Default false. */
  readonly headerDigest?: boolean | undefined
  /** Adds a CRC32C digest to the data of NVMe/TCP. Default false. */
  readonly dataDigest?: boolean | undefined
  /** How often a command is resubmitted when the device asks for a retry. 0 to 255. Default 4, as in SPDK. */
  readonly retries?: number | undefined
  /** The name of the TLS key in the keyring. Default: no TLS. */
  readonly psk?: string | undefined
  /** The name of the host's DH-HMAC-CHAP key in the keyring. Default: no authentication. */
  readonly dhchapKey?: string | undefined
  /** The name of the key with which the controller authenticates itself to the host. Only with `dhchapKey`. */
  readonly dhchapControllerKey?: string | undefined
}

/**
 * The reasons for which a connection fails:
 *
 * - `PermissionDenied`: the subsystem does not admit this host.
 * - `NotFound`: the target has no such subsystem.
 * - `IoFailed` with the errno of the connection, for example when no target listens at the address.
 * - `TimedOut`: the target did not answer within `connectTimeout`.
 * - `Corrupted`: the controller sent an invalid answer.
 *
 * libspdk derives the reason from SPDK's log. When the log does not name a reason, libspdk reports `IoFailed` with EIO.
 *
 * @since 0.1.0
 * @category errors
 */
export type ConnectError = SpdkError<ErrnoReason | Corrupted>

/** @since 0.1.0 @category errors */
export type DiscoverError = ConnectError | QueryError

/**
 * Connects to a controller and initialises it (`spdk_nvme_connect`). A transport id without a `subnqn` means the
 * discovery controller at that address.
 *
 * The end of the scope closes the controller's namespaces, waits for the requests in flight, and disconnects. It dies
 * with `TimedOut` when it takes longer than `Bdev.ReleaseTimeout`.
 *
 * Interruption returns at once. On libspdk, SPDK's part of an unfinished connection ends later: when the target answers
 * or disconnects, or after 10 seconds. SPDK waits 10 seconds for the first answer over TCP, whatever `connectTimeout`
 * is. Until then the connection counts among `nvmeControllers` of `Spdk.usage`.
 *
 * SPDK connects to a discovery controller in one blocking step. A silent discovery controller blocks the thread of all
 * NVMe controllers of the process for that time. Several silent ones block it one after the other.
 *
 * @since 0.1.0
 * @category constructors
 */
export const connect: (
  transportId: Input,
  options?: ConnectOptions
) => Effect.Effect<NvmeController, ConnectError, EngineService | Scope.Scope> = Effect.fn("Nvme.connect")(function* (
  transportId: Input,
  options?: ConnectOptions
) {
  const operation = "Nvme.connect"
  const fields = yield* checkTransportId(operation, transportId)
  const settings = yield* checkConnect(operation, fields, options ?? {})
  const controller: NvmeController = yield* connectController(yield* EngineService, operation, fields, settings)
  return controller
})

/**
 * Lists the transport ids of controllers (`spdk_nvme_probe`). On fabrics these are the entries of the discovery
 * controller at this address. On PCIe this is the device with this address. The call leaves no connection open.
 * Interruption is as in `connect`.
 *
 * @since 0.1.0
 * @category combinators
 */
export const probe: (
  transportId: Input,
  options?: ConnectOptions
) => Effect.Effect<ReadonlyArray<TransportId>, ConnectError, EngineService> = Effect.fn("Nvme.probe")(function* (
  transportId: Input,
  options?: ConnectOptions
) {
  const operation = "Nvme.probe"
  const fields = yield* checkTransportId(operation, transportId)
  const settings = yield* checkConnect(operation, fields, options ?? {})
  const nvme = yield* driverOf(yield* EngineService, operation)
  return yield* controlReasons(nvme.probe(fields, settings))
})

/** @since 0.1.0 @category models */
export type DiscoveryEvent =
  | { readonly _tag: "Found"; readonly subsystem: DiscoveredSubsystem }
  | { readonly _tag: "Lost"; readonly subsystem: DiscoveredSubsystem }

/** @since 0.1.0 @category options */
export interface DiscoverOptions extends ConnectOptions {
  /**
   * When to read the discovery log, in addition to each notice of the controller. Default: never. For controllers that
   * send no notices, give a schedule: `Schedule.spaced("30 seconds")`.
   */
  readonly schedule?: Schedule.Schedule<unknown> | undefined
}

/**
 * Follows the subsystems that a discovery controller reports. The stream starts with all current subsystems, then emits
 * each one that appears or disappears. The stream holds one connection while it runs. When the connection is lost the
 * stream fails with `DeviceRemoved`. `Stream.retry` reconnects; the stream then starts again with all current
 * subsystems.
 *
 * @since 0.1.0
 * @category constructors
 */
export const discover = (
  transportId: Input,
  options: DiscoverOptions = {}
): Stream.Stream<DiscoveryEvent, DiscoverError, EngineService> =>
  Stream.unwrap(
    Effect.gen(function* () {
      const operation = "Nvme.discover"
      const { schedule } = options
      const fields = yield* checkTransportId(operation, transportId)
      const settings = yield* checkConnect(operation, fields, options, ["schedule"])
      const controller = yield* connectController(yield* EngineService, operation, fields, settings)
      const { asyncEvents } = yield* controller.identify
      if (asyncEvents.discoveryLogChange) {
        yield* controller.features.set("asyncEvents", { discoveryLogChange: true })
      }
      return discoveries(controller, schedule)
    })
  )

/** @since 0.1.0 @category models */
export type HotplugEvent =
  | { readonly _tag: "Found"; readonly transportId: TransportId }
  | { readonly _tag: "Lost"; readonly transportId: TransportId }

/** @since 0.1.0 @category options */
export interface HotplugOptions {
  /** When to scan for devices. Default: every second. */
  readonly schedule?: Schedule.Schedule<unknown> | undefined
}

/**
 * Follows the NVMe devices of this machine that SPDK may use. The stream starts with all current devices, then emits
 * each one that is plugged in or out. Fails with `NotSupported` on engines without PCIe.
 *
 * @since 0.1.0
 * @category constructors
 */
export const hotplug = (options: HotplugOptions = {}): Stream.Stream<HotplugEvent, ConnectError, EngineService> =>
  Stream.unwrap(
    Effect.gen(function* () {
      const operation = "Nvme.hotplug"
      const settings = yield* checkConnect(operation, { trtype: "PCIe" }, {})
      const nvme = yield* driverOf(yield* EngineService, operation)
      return devices(nvme, settings, options.schedule ?? Schedule.spaced("1 second"))
    })
  )

/** @since 0.1.0 @category options */
export interface LayerOptions extends ConnectOptions {
  readonly transportId: Input
}

/** Provides a connected controller. @since 0.1.0 @category layers */
export const layerController = ({
  transportId,
  ...options
}: LayerOptions): Layer.Layer<NvmeController, ConnectError, EngineService> =>
  Layer.effect(NvmeController, connect(transportId, options))

/** `layerController` with options that come from Config. @since 0.1.0 @category layers */
export const layerControllerConfig = (
  options: Config.Wrap<LayerOptions>
): Layer.Layer<NvmeController, ConnectError | Config.ConfigError, EngineService> =>
  Layer.unwrap(Effect.map(Config.unwrap(options), layerController))

/** Provides a namespace of the controller in the context. @since 0.1.0 @category layers */
export const layerNamespace = (options: {
  readonly nsid: number
}): Layer.Layer<NvmeNamespace, OpenNamespaceError, NvmeController> =>
  Layer.effect(
    NvmeNamespace,
    Effect.flatMap(NvmeController, (controller) => controller.namespace(options.nsid))
  )
