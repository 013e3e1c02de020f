/**
 * The NVMe bdevs of an engine: the controllers that are attached, and the discovery services that attach more.
 */
import * as Effect from "effect/Effect"
import type { SpdkError } from "../../../../SpdkError.ts"
import { nqnOfUuid } from "../../../nvme/wire/nqn.ts"
import { parseUuid } from "../../../nvme/wire/identify.ts"
import type { Json } from "../bdev.ts"
import { type LossSettings, NvmeBdevController, type NvmePath } from "./nvme.ts"
import type { DiscoveryService } from "./nvmeDiscovery.ts"
import { describePath } from "./nvmeInfo.ts"
import { defaultOptions, type NvmeOptions, optionsCall } from "./nvmeOptions.ts"
import type { BdevRegistry } from "../registry.ts"
import { addressOf } from "../../nvme/address.ts"
import { RpcFault } from "../../rpc/table.ts"
import { EINVAL, EIO, ENOTSUP } from "../../queue/status.ts"

export interface AttachRequest {
  readonly name: string
  readonly path: NvmePath
  readonly loss: LossSettings
  readonly mode: "disable" | "failover" | "multipath"
  /** Attached by a discovery service, which is what a configuration has of it. */
  readonly isDiscovered: boolean
}

export class NvmeModule {
  readonly registry: BdevRegistry
  readonly controllers = new Map<string, NvmeBdevController>()
  readonly discoveries = new Map<string, DiscoveryService>()
  options: NvmeOptions = defaultOptions
  readonly hostId: Uint8Array
  readonly hostNqn: string

  constructor(registry: BdevRegistry) {
    const uuid = registry.context.reactor.host.uuid()
    this.registry = registry
    this.hostId = parseUuid(uuid)
    this.hostNqn = nqnOfUuid(uuid)
  }

  /** Connects. What fails, or is interrupted, leaves nothing. */
  attach(request: AttachRequest): Effect.Effect<NvmeBdevController, RpcFault> {
    const { name, path } = request
    return Effect.flatMap(
      Effect.mapError(addressOf("bdev_nvme_attach_controller", path.transportId, path.settings), faultOf),
      (address) =>
        Effect.uninterruptibleMask((restore) => {
          const controller = new NvmeBdevController(
            this.registry,
            name,
            { ...request, address, isFlushing: this.options.enable_flush },
            () => this.forget(controller)
          )
          this.controllers.set(name, controller)
          return Effect.mapError(restore(controller.connect), notConnected).pipe(
            Effect.as(controller),
            Effect.onExit((exit) => (exit._tag === "Failure" ? controller.remove : Effect.void))
          )
        })
    )
  }

  /** The end of the engine: stops what attaches, and detaches all. */
  readonly close: Effect.Effect<void> = Effect.suspend(() =>
    Effect.andThen(
      Effect.forEach([...this.discoveries.values()], (service) => service.stop, {
        concurrency: "unbounded",
        discard: true
      }),
      Effect.forEach([...this.controllers.values()], (controller) => controller.remove, {
        concurrency: "unbounded",
        discard: true
      })
    )
  )

  configCalls(withBatches: boolean): ReadonlyArray<Json> {
    const attaches = [...this.controllers.values()]
      .filter(({ isDiscovered, isRemoved }) => !isDiscovered && !isRemoved)
      .flatMap((controller) => controller.paths.map((path) => attachCall(controller, path)))
    return [
      optionsCall(this.options),
      // Also an empty one.
      ...(withBatches ? [attaches] : attaches),
      ...[...this.discoveries.values()].map((service) => service.configCall())
    ]
  }

  private forget(controller: NvmeBdevController): void {
    if (this.controllers.get(controller.name) === controller) this.controllers.delete(controller.name)
    for (const service of this.discoveries.values()) service.controllerGone(controller.name)
  }
}

/** Where SPDK says EIO to everything, the errno of a connection, and what was wrong. */
const notConnected = ({ message, reason }: SpdkError): RpcFault =>
  new RpcFault(-(reason._tag === "IoFailed" ? (reason.errnoCode ?? EIO) : EIO), reason.detail ?? message)

const faultOf = ({ message, reason }: SpdkError): RpcFault =>
  new RpcFault(reason._tag === "NotSupported" ? -ENOTSUP : -EINVAL, message)

const attachCall = ({ loss, mode, name }: NvmeBdevController, { settings, transportId }: NvmePath): Json => ({
  method: "bdev_nvme_attach_controller",
  params: {
    name,
    ...describePath(transportId),
    prchk_reftag: false,
    prchk_guard: false,
    ...lossParams(loss),
    hostnqn: settings.hostnqn,
    hdgst: settings.headerDigest,
    ddgst: settings.dataDigest,
    ...(settings.sourceAddress === "" ? {} : { hostaddr: settings.sourceAddress }),
    ...(settings.sourcePort === "" ? {} : { hostsvcid: settings.sourcePort }),
    multipath: mode,
    fabrics_connect_timeout_us: settings.connectTimeoutMillis * 1000,
    num_io_queues: settings.ioQueues,
    multipath_opts: { policy: "active_passive" }
  }
})

export const lossParams = ({ fastFailSeconds, lossTimeoutSeconds, reconnectDelaySeconds }: LossSettings) => ({
  ctrlr_loss_timeout_sec: lossTimeoutSeconds,
  reconnect_delay_sec: reconnectDelaySeconds,
  fast_io_fail_timeout_sec: fastFailSeconds
})
