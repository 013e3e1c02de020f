/**
 * Block devices: open a bdev, do I/O, compose bdevs from layers. This module is for services that keep their data below
 * the file system. A handle, its channels and its buffers are scoped: closing the scope waits for the device.
 *
 * ```ts
 * import * as Bdev from "@effect-spdk/core/Bdev"
 * import * as Spdk from "@effect-spdk/core/Spdk"
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as Stream from "effect/Stream"
 *
 * const Disk = Bdev.layerFile({ path: "disk.img", size: "256 MiB" }).pipe(Layer.provide(Spdk.layerAuto))
 *
 * const program = Effect.gen(function*() {
 *   const bdev = yield* Bdev.Bdev
 *   const written = yield* Stream.run(Stream.make(new Uint8Array(10_000)), bdev.sink({ offsetBytes: 4096 }))
 *   yield* bdev.flush()
 *   return written
 * }).pipe(Effect.provide(Disk))
 * ```
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Predicate from "effect/Predicate"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import * as Create from "./BdevCreate.ts"
import type { BdevStats } from "./BdevInfo.ts"
import type { BdevIo, IoError } from "./BdevIo.ts"
import { BdevTypeId, openBdev } from "./internal/io/bdevHandle.ts"
import type { DescriptorEvent, DescriptorInfo } from "./internal/engine/engine.ts"
import { EngineService } from "./internal/engine/service.ts"
import { checkName } from "./internal/common/names.ts"
import * as release from "./internal/common/release.ts"
import type { RpcClient } from "./Rpc.ts"
import type { RpcReason, SpdkError, SpdkErrorOf } from "./SpdkError.ts"
import type { SpdkThread } from "./SpdkThread.ts"

export * from "./BdevCreate.ts"
export * from "./BdevInfo.ts"
export * from "./BdevIo.ts"

/**
 * The operations that `supports` accepts: operations of this module by their name here, every other I/O type by SPDK's
 * name.
 *
 * @since 0.1.0
 * @category models
 */
export type BdevOperation =
  | "read"
  | "write"
  | "flush"
  | "unmap"
  | "writeZeroes"
  | "reset"
  | "abort"
  | "compare"
  | "compare_and_write"
  | "copy"
  | "nvme_admin"
  | "nvme_io"
  | "write_zeroes"
  | "zcopy"
  | "zone_append"
  | "zone_management"

/**
 * An event of the bdev while a handle is open.
 *
 * @since 0.1.0
 * @category models
 */
export type BdevEvent = DescriptorEvent

/** The bdev as its open descriptor reports it, in SPDK's terms. @since 0.1.0 @category models */
export interface BdevDescription extends DescriptorInfo {}

/**
 * An open bdev, and the tag under which layers provide one. I/O fails with `Released` after the scope that opened the
 * bdev has closed.
 *
 * @since 0.1.0
 * @category models
 */
export interface Bdev extends BdevIo {
  readonly [BdevTypeId]: typeof BdevTypeId
  readonly name: string
  /** The state of the bdev when the handle was opened. */
  readonly info: BdevDescription
  /** In bytes. */
  readonly blockSize: number
  /** In blocks. Changes when a `Resized` event arrives. */
  readonly numBlocks: number
  /** `numBlocks * blockSize`, a safe integer. */
  readonly sizeBytes: number
  /** Whether the handle was opened for writing. */
  readonly writable: boolean
  /** True from the moment the `Removed` event arrives. */
  readonly isRemoved: boolean
  /** Whether the bdev's module supports the operation (`spdk_bdev_io_type_supported`). */
  supports(operation: BdevOperation): boolean
  /**
   * Events of the bdev from the time of subscription. Every run of the stream receives every event. The stream ends
   * after `Removed`, and when the handle closes. Late subscribers receive `Removed` too.
   */
  readonly events: Stream.Stream<BdevEvent>
  /** The I/O counters of the bdev, summed over all its users (`bdev_get_iostat`). */
  readonly stats: Effect.Effect<BdevStats, SpdkError<RpcReason>>
  /**
   * Opens an explicit channel on the fiber's current SpdkThread (`spdk_bdev_get_io_channel`). I/O through this channel
   * runs on that thread, wherever it is called. The end of the scope waits for the channel's I/O and closes the
   * channel.
   *
   * Without an explicit channel, the handle opens one channel per thread at the first I/O on that thread, and keeps it.
   */
  readonly channel: Effect.Effect<BdevChannel, IoError, Scope.Scope>
}

export const Bdev: Context.Service<Bdev, Bdev> = Context.Service("@effect-spdk/core/Bdev")

/**
 * The I/O of a bdev through one channel.
 *
 * @since 0.1.0
 * @category models
 */
export interface BdevChannel extends BdevIo {
  /** The thread of the channel. `undefined` is the engine's main thread. */
  readonly thread: SpdkThread | undefined
}

/** @since 0.1.0 @category guards */
export const isBdev = (u: unknown): u is Bdev => Predicate.hasProperty(u, BdevTypeId)

/**
 * The time limit for a release to wait for its device. Releases are: closing a handle or a channel, freeing DMA memory,
 * deleting a bdev. After the limit the release dies with `TimedOut`. The resources are then freed if the device ever
 * answers. The value is read when the resource is opened, so provide it there. Default: 30 seconds.
 *
 * @since 0.1.0
 * @category references
 */
export const ReleaseTimeout: Context.Reference<Duration.Input> = release.ReleaseTimeout

/** @since 0.1.0 @category models */
export interface OpenOptions {
  /** Opens for writing too. Default false: reads only. */
  readonly write?: boolean | undefined
}

/** The reasons for which a bdev does not open. @since 0.1.0 @category errors */
export type OpenError = SpdkErrorOf<
  | "Busy"
  | "DeviceRemoved"
  | "InvalidArgument"
  | "IoFailed"
  | "NoMemory"
  | "NotFound"
  | "NotSupported"
  | "PermissionDenied"
  | "ReadOnly"
  | "Released"
>

/**
 * Opens a bdev by its name or an alias (`spdk_bdev_open_ext`). Any number of handles may be open. Opening for writing
 * fails with `Busy`, which names the claimer, when a module or a loaded blobstore has claimed the bdev. An unknown name
 * fails with `NotFound`.
 *
 * At the end of the scope, new I/O fails with `Released`. The release waits for the I/O in flight, closes the channels,
 * and then the descriptor. The release does the same after the bdev was removed. It dies with `TimedOut` when it takes
 * longer than `ReleaseTimeout`.
 *
 * @since 0.1.0
 * @category constructors
 */
export const open: (
  name: string,
  options?: OpenOptions
) => Effect.Effect<Bdev, OpenError, EngineService | Scope.Scope> = Effect.fn("Bdev.open")(function* (
  name: string,
  options?: OpenOptions
) {
  yield* checkName("Bdev.open", name)
  const engine = yield* EngineService
  return yield* openBdev(engine, name, options?.write ?? false)
})

type LayerServices = EngineService | RpcClient

/** @since 0.1.0 @category models */
export interface LayerOpenOptions extends OpenOptions {
  readonly name: string
}

/**
 * Provides an existing bdev. Default: read-only.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerOpen = (options: LayerOpenOptions): Layer.Layer<Bdev, OpenError, EngineService> =>
  Layer.effect(Bdev, open(options.name, options))

/** `layerOpen` with options that come from Config. @since 0.1.0 @category layers */
export const layerOpenConfig = (
  options: Config.Wrap<LayerOpenOptions>
): Layer.Layer<Bdev, OpenError | Config.ConfigError, EngineService> => fromConfig(options, layerOpen)

/**
 * Provides a bdev in memory, opened for writing. The end of the layer deletes the bdev. The same holds for every layer
 * of this module that creates a bdev.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerMalloc = (options: Create.MallocOptions): Layer.Layer<Bdev, LayerError, LayerServices> =>
  created(Create.createMalloc(options))

/** `layerMalloc` with options that come from Config. @since 0.1.0 @category layers */
export const layerMallocConfig = (
  options: Config.Wrap<Create.MallocOptions>
): Layer.Layer<Bdev, LayerError | Config.ConfigError, LayerServices> => fromConfig(options, layerMalloc)

/** Provides a bdev that stores nothing. @since 0.1.0 @category layers */
export const layerNull = (options: Create.NullOptions): Layer.Layer<Bdev, LayerError, LayerServices> =>
  created(Create.createNull(options))

/** `layerNull` with options that come from Config. @since 0.1.0 @category layers */
export const layerNullConfig = (
  options: Config.Wrap<Create.NullOptions>
): Layer.Layer<Bdev, LayerError | Config.ConfigError, LayerServices> => fromConfig(options, layerNull)

/** Provides a bdev on a file, opened for writing unless `readonly`. @since 0.1.0 @category layers */
export const layerFile = (options: Create.AioOptions): Layer.Layer<Bdev, LayerError, LayerServices> =>
  created(Create.createFile(options), options.readonly !== true)

/** `layerFile` with options that come from Config. @since 0.1.0 @category layers */
export const layerFileConfig = (
  options: Config.Wrap<Create.AioOptions>
): Layer.Layer<Bdev, LayerError | Config.ConfigError, LayerServices> => fromConfig(options, layerFile)

/** Provides a bdev on a file that uses io_uring. @since 0.1.0 @category layers */
export const layerUring = (options: Create.FileOptions): Layer.Layer<Bdev, LayerError, LayerServices> =>
  created(Create.createUring(options))

/** `layerUring` with options that come from Config. @since 0.1.0 @category layers */
export const layerUringConfig = (
  options: Config.Wrap<Create.FileOptions>
): Layer.Layer<Bdev, LayerError | Config.ConfigError, LayerServices> => fromConfig(options, layerUring)

/** Provides a bdev of any module. @since 0.1.0 @category layers */
export const layerCreate = (options: Create.CreateOptions): Layer.Layer<Bdev, LayerError, LayerServices> =>
  created(Create.create(options))

/**
 * Provides a bdev that passes every request to the bdev below:
 * `Bdev.layerPassthru().pipe(Layer.provide(Bdev.layerMalloc({ size: "64 MiB" })))`.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerPassthru = (
  options?: Omit<Create.PassthruOptions, "base">
): Layer.Layer<Bdev, LayerError, Bdev | LayerServices> => over((base) => Create.createPassthru({ ...options, base }))

/** Provides a bdev that adds latency to the bdev below. @since 0.1.0 @category layers */
export const layerDelay = (
  options: Omit<Create.DelayOptions, "base">
): Layer.Layer<Bdev, LayerError, Bdev | LayerServices> => over((base) => Create.createDelay({ ...options, base }))

/** The reasons for which a layer that creates a bdev does not build. @since 0.1.0 @category errors */
export type LayerError = Create.CreateError | OpenError

const created = <R>(
  create: Effect.Effect<string, Create.CreateError, R>,
  write = true
): Layer.Layer<Bdev, LayerError, EngineService | Exclude<R, Scope.Scope>> =>
  Layer.effect(
    Bdev,
    Effect.flatMap(create, (name) => open(name, { write }))
  )

const over = (
  create: (base: string) => Effect.Effect<string, Create.CreateError, RpcClient | Scope.Scope>
): Layer.Layer<Bdev, LayerError, Bdev | LayerServices> => created(Effect.flatMap(Bdev, (base) => create(base.name)))

const fromConfig = <Options, E, R>(
  options: Config.Wrap<Options>,
  layer: (options: Options) => Layer.Layer<Bdev, E, R>
): Layer.Layer<Bdev, E | Config.ConfigError, R> => Layer.unwrap(Effect.map(Config.unwrap(options), layer))
