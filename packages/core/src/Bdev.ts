/**
 * Block devices: open one, do I/O, compose them from layers. For services that keep their data below the file system;
 * the one thing to know is that a handle, its channels and its buffers are scoped, and that closing the scope waits
 * for the device.
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
import { BdevTypeId, openBdev } from "./internal/bdevHandle.ts"
import type { DescriptorEvent, DescriptorInfo } from "./internal/engine.ts"
import { EngineService } from "./internal/engineService.ts"
import { checkName } from "./internal/names.ts"
import * as release from "./internal/release.ts"
import type { RpcClient } from "./Rpc.ts"
import type { RpcReason, SpdkError, SpdkErrorOf } from "./SpdkError.ts"
import type { SpdkThread } from "./SpdkThread.ts"

export * from "./BdevCreate.ts"
export * from "./BdevInfo.ts"
export * from "./BdevIo.ts"

/**
 * What `supports` can be asked: the operations by their name here, and every other I/O type by SPDK's name.
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
 * What can happen to a bdev under an open handle.
 *
 * @since 0.1.0
 * @category models
 */
export type BdevEvent = DescriptorEvent

/** What the open descriptor tells, in SPDK's terms. @since 0.1.0 @category models */
export interface BdevDescription extends DescriptorInfo {}

/**
 * An open bdev, and the tag under which layers provide one. Its I/O fails with `Released` once the scope that opened it
 * has closed.
 *
 * @since 0.1.0
 * @category models
 */
export interface Bdev extends BdevIo {
  readonly [BdevTypeId]: typeof BdevTypeId
  readonly name: string
  /** As it was when the handle was opened. */
  readonly info: BdevDescription
  /** In bytes. */
  readonly blockSize: number
  /** Follows `Resized`. */
  readonly numBlocks: number
  /** `numBlocks * blockSize`, a safe integer. */
  readonly sizeBytes: number
  /** Whether the handle was opened for writing. */
  readonly writable: boolean
  /** True from the moment the `Removed` event arrives. */
  readonly isRemoved: boolean
  /** Whether the bdev's module knows the operation (`spdk_bdev_io_type_supported`). */
  supports(operation: BdevOperation): boolean
  /**
   * What happens to the bdev from now on. Every run of the stream gets every event. It ends after `Removed`, which who
   * comes later still gets, and when the handle closes.
   */
  readonly events: Stream.Stream<BdevEvent>
  /** The I/O counts of the bdev, of all its users together (`bdev_get_iostat`). */
  readonly stats: Effect.Effect<BdevStats, SpdkError<RpcReason>>
  /**
   * A channel of one's own on the thread the fiber is on (`spdk_bdev_get_io_channel`). Without it the handle opens one
   * per thread at the first I/O there and keeps it; with it, I/O goes through this thread from wherever it is called, and the
   * end of the scope waits for it and closes the channel.
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
  /** Where the channel is; undefined is the engine's main thread. */
  readonly thread: SpdkThread | undefined
}

/** @since 0.1.0 @category guards */
export const isBdev = (u: unknown): u is Bdev => Predicate.hasProperty(u, BdevTypeId)

/**
 * How long a release may wait for its device: of a handle, of a channel, of DMA memory, and the deletion of a bdev. When the
 * time is over the release dies with `TimedOut`, and what it holds is given back if the device ever answers. It is read where
 * the thing is opened, so provide it around that. Default: 30 seconds.
 *
 * @since 0.1.0
 * @category references
 */
export const ReleaseTimeout: Context.Reference<Duration.Input> = release.ReleaseTimeout

/** @since 0.1.0 @category models */
export interface OpenOptions {
  /** Default false: reads only. */
  readonly write?: boolean | undefined
}

/** Why a bdev does not open. @since 0.1.0 @category errors */
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
 * Opens a bdev by its name or an alias (`spdk_bdev_open_ext`). Any number of handles may be open; opening for writing
 * what another module has claimed fails with `PermissionDenied`, and an unknown name with `NotFound`.
 *
 * The end of the scope first makes new I/O fail with `Released`, waits for the I/O in flight, closes the channels, and then
 * the descriptor. After the bdev was removed it does the same. It dies with `TimedOut` when that takes longer than
 * `ReleaseTimeout`.
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
 * Provides a bdev that exists already. Default: read-only.
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
 * Provides a bdev in memory, opened for writing. As all layers here that create a bdev, it deletes the bdev at the end.
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

/** Provides a bdev that keeps nothing. @since 0.1.0 @category layers */
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

/** Provides a bdev on a file by io_uring. @since 0.1.0 @category layers */
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
 * Provides a bdev that hands everything to the one below it:
 * `Bdev.layerPassthru().pipe(Layer.provide(Bdev.layerMalloc({ size: "64 MiB" })))`.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerPassthru = (
  options?: Omit<Create.PassthruOptions, "base">
): Layer.Layer<Bdev, LayerError, Bdev | LayerServices> => over((base) => Create.createPassthru({ ...options, base }))

/** Provides a bdev that is slower than the one below it. @since 0.1.0 @category layers */
export const layerDelay = (
  options: Omit<Create.DelayOptions, "base">
): Layer.Layer<Bdev, LayerError, Bdev | LayerServices> => over((base) => Create.createDelay({ ...options, base }))

/** Why a layer that creates a bdev does not build. @since 0.1.0 @category errors */
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
