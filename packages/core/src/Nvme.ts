/**
 * The NVMe driver: controllers on PCIe and over fabrics, without a bdev between. For services that want what only NVMe has, log
 * pages, features, events, compare, any command; the one thing to know is that a controller, its namespaces and its queue pairs are
 * scoped, and that closing the scope waits for the device.
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
 * The libspdk engine uses SPDK's driver. The embedded engine has a host for NVMe/TCP; the other transports fail with
 * `NotSupported` there, and on the remote engine everything does.
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
import { EngineService } from "./internal/engineService.ts"
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
 * Who connects, and how. Sizes in entries.
 *
 * @since 0.1.0
 * @category options
 */
export interface ConnectOptions {
  /** Default: one with a UUID, made when the process starts. */
  readonly hostnqn?: string | undefined
  /** A UUID. Default: the one in `hostnqn`, or one made from that name. */
  readonly hostId?: string | undefined
  /** The IP address to connect from. Default: the system's choice. */
  readonly sourceAddress?: string | undefined
  /** The port to connect from, 1 to 65535. Default: the system's choice. */
  readonly sourcePort?: number | undefined
  /** Queue pairs to ask for; the controller may grant fewer. Default 128. */
  readonly ioQueues?: number | undefined
  /** Default 256, as SPDK; the controller's limit holds too. */
  readonly ioQueueSize?: number | undefined
  /** Default 32, as SPDK. */
  readonly adminQueueSize?: number | undefined
  /** How long the controller may hear nothing before it gives the connection up; false: no keep-alive. Default 10 seconds. */
  readonly keepAlive?: Duration.Input | false | undefined
  /** For everything up to the controller being ready, all namespaces listed. Default 10 seconds; infinity: no limit. */
  readonly connectTimeout?: Duration.Input | undefined
  /** How long a command of the admin queue may take before the connection is given up. Default 30 seconds; infinity: no limit. */
  readonly adminTimeout?: Duration.Input | undefined
  /**
   * How long the device may take for a command of an I/O queue before the connection is given up: the controller fails, and what
   * is in flight is answered, as when the connection is lost. Default 30 seconds, as Linux; an hour at most; infinity: no limit.
   * Over TCP and RDMA only: a device of this machine may still write into memory, so nothing of it is given up, and a limit is
   * `InvalidArgument`.
   */
  readonly ioTimeout?: Duration.Input | undefined
  /** CRC32C over the headers of NVMe/TCP. Default false. */
  readonly headerDigest?: boolean | undefined
  /** CRC32C over the data of NVMe/TCP. Default false. */
  readonly dataDigest?: boolean | undefined
  /** How often a command is sent again that the device asks to try again. Default 4, as SPDK; 0 to 255. */
  readonly retries?: number | undefined
  /** The name of the TLS key in the keyring. Default: no TLS. */
  readonly psk?: string | undefined
  /** The name of the host's DH-HMAC-CHAP key in the keyring. Default: no authentication. */
  readonly dhchapKey?: string | undefined
  /** The name of the key by which the controller proves itself in turn. Only with `dhchapKey`. */
  readonly dhchapControllerKey?: string | undefined
}

/**
 * Why there is no connection. `PermissionDenied`: the subsystem does not let this host in. `NotFound`: the target has no such
 * subsystem. `IoFailed` with the errno of the connection: nobody listens, and the like. libspdk knows these from SPDK's log, and says
 * `IoFailed` with EIO where that has no word. `TimedOut`: nobody answered within `connectTimeout`. `Corrupted`: the controller
 * answered what cannot be.
 *
 * @since 0.1.0
 * @category errors
 */
export type ConnectError = SpdkError<ErrnoReason | Corrupted>

/** @since 0.1.0 @category errors */
export type DiscoverError = ConnectError | QueryError

/**
 * Connects to a controller and initialises it (`spdk_nvme_connect`). A transport id without a `subnqn` means the discovery
 * controller at that address.
 *
 * The end of the scope closes its namespaces, waits for what is in flight, and disconnects. It dies with `TimedOut` when that
 * takes longer than `Bdev.ReleaseTimeout`. Interruption gives up at once. On libspdk SPDK's part of an unfinished connection ends
 * later: when the target answers or hangs up, or after the 10 seconds that SPDK waits for the first answer over TCP, whatever
 * `connectTimeout` is. Until then it counts among `nvmeControllers` of `Spdk.usage`. SPDK connects to a discovery controller in one
 * step: a silent one holds the thread of all NVMe controllers of the process for that time, and several do so one after the other.
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
 * Transport ids of what can be connected to: what the discovery controller at this address knows, or, of PCIe, the device with
 * this address (`spdk_nvme_probe`). Leaves nothing connected; interruption as in `connect`.
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
   * When to look, besides at each notice of the controller. Default: never; say something for controllers that send no
   * notices, `Schedule.spaced("30 seconds")`.
   */
  readonly schedule?: Schedule.Schedule<unknown> | undefined
}

/**
 * The subsystems that a discovery controller knows: first all that there are, then each that comes and goes. The stream keeps a
 * connection as long as it runs. When that is lost it fails with `DeviceRemoved`; `Stream.retry` connects again, and
 * tells of all subsystems anew.
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
  /** When to look. Default: every second. */
  readonly schedule?: Schedule.Schedule<unknown> | undefined
}

/**
 * The NVMe devices of this machine that SPDK may take: first all that there are, then each that is plugged in and out.
 * `NotSupported` by engines without PCIe.
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

/** Provides a namespace of the controller of the context. @since 0.1.0 @category layers */
export const layerNamespace = (options: {
  readonly nsid: number
}): Layer.Layer<NvmeNamespace, OpenNamespaceError, NvmeController> =>
  Layer.effect(
    NvmeNamespace,
    Effect.flatMap(NvmeController, (controller) => controller.namespace(options.nsid))
  )
