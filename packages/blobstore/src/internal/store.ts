/**
 * A loaded blobstore above its driver: options are checked, calls are counted, blobs are shared, and the end of the scope
 * closes everything in SPDK's order.
 */
import type { Bdev } from "@effect-spdk/core/Bdev"
import { type Engine, EngineService, withinLimit } from "@effect-spdk/core/Engine"
import { failInvalid, NotSupported, ReadOnly, SpdkError } from "@effect-spdk/core/SpdkError"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type { BlobstoreError, InitError, InitOptions, LayerOptions, LoadError, LoadOptions } from "../Blobstore.ts"
import { claim } from "./claims.ts"
import type { DriverFactory, StoreDriver } from "./driver.ts"
import { libspdkDriver } from "./libspdk/driver.ts"
import { checkDriver, checkInit, checkLoad } from "./options.ts"
import { portableDriver } from "./portable/driver.ts"
import { isFlushed } from "./flushed.ts"
import { checkBlocks, checkIoUnits } from "./ioUnits.ts"
import { isEmpty } from "./probe.ts"
import { metadataReasons, only, type Place } from "./reasons.ts"
import { BlobstoreImpl } from "./storeHandle.ts"

export { BlobstoreTypeId } from "./storeHandle.ts"

const initReasons = [
  ...metadataReasons,
  "Busy",
  "InvalidArgument",
  "NoSpace",
  "NotSupported",
  "PermissionDenied",
  "ReadOnly"
] as const

const loadReasons = [...initReasons, "Corrupted", "WrongType"] as const

export const initStore = (
  engine: Engine,
  bdev: Bdev,
  options: InitOptions
): Effect.Effect<BlobstoreImpl, InitError, Scope.Scope> => {
  const place = { operation: "Blobstore.init", resource: bdev.name }
  return Effect.gen(function* () {
    const checked = yield* checkInit(place, options)
    const factory = yield* factoryFor(place, engine, options.driver)
    yield* checkWritable(place, bdev)
    yield* checkBlocks(place, bdev)
    return yield* scoped(place, engine, bdev, factory.init(bdev, checked))
  }).pipe(only(place, initReasons))
}

export const loadStore = (
  engine: Engine,
  bdev: Bdev,
  options: LoadOptions
): Effect.Effect<BlobstoreImpl, LoadError, Scope.Scope> => {
  const place = { operation: "Blobstore.load", resource: bdev.name }
  return Effect.gen(function* () {
    const checked = yield* checkLoad(place, options)
    const factory = yield* factoryFor(place, engine, options.driver)
    // Loading marks the store as in use.
    yield* checkWritable(place, bdev)
    yield* checkBlocks(place, bdev)
    yield* checkIoUnits(place, bdev, factory.kind)
    return yield* scoped(place, engine, bdev, factory.load(bdev, checked))
  }).pipe(only(place, loadReasons))
}

export const loadOrInitStore = (
  engine: Engine,
  bdev: Bdev,
  options: LayerOptions
): Effect.Effect<BlobstoreImpl, BlobstoreError, Scope.Scope> => {
  const place = { operation: "Blobstore.make", resource: bdev.name }
  return Effect.gen(function* () {
    const { onEmpty } = options
    if (onEmpty !== "init" && onEmpty !== "fail") {
      return yield* failInvalid(place.operation, "onEmpty", 'is neither "init" nor "fail"', onEmpty, place.resource)
    }
    // All of them, so that a mistake does not wait for the day when the device is empty.
    yield* checkInit(place, options)
    yield* checkLoad(place, options)
    yield* checkBlocks(place, bdev)
    const init = onEmpty === "init" && (yield* isEmpty(bdev))
    return yield* init ? initStore(engine, bdev, options) : loadStore(engine, bdev, options)
  }).pipe(only(place, loadReasons))
}

const factoryFor = (place: Place, engine: Engine, driver: unknown): Effect.Effect<DriverFactory, SpdkError> =>
  Effect.flatMap(checkDriver(place, driver), (wanted): Effect.Effect<DriverFactory, SpdkError> => {
    const hasLibspdk = engine.blobstores !== undefined
    if (wanted === "portable" || (wanted === "auto" && !hasLibspdk)) return Effect.succeed(portableDriver)
    if (hasLibspdk) return Effect.succeed(libspdkDriver)
    const detail = `the engine is ${engine.kind}, which has no blobstore of its own; the portable driver works on it`
    return Effect.fail(new SpdkError({ reason: new NotSupported({ ...place, detail }) }))
  })

const checkWritable = (place: Place, bdev: Bdev): Effect.Effect<void, SpdkError> =>
  bdev.writable
    ? Effect.void
    : Effect.fail(new SpdkError({ reason: new ReadOnly({ ...place, detail: "the bdev is open for reading only" }) }))

/** The store, and what its scope does at the end. What does not become a store lets go of everything. */
const scoped = (
  place: Place,
  engine: Engine,
  bdev: Bdev,
  driver: Effect.Effect<StoreDriver, SpdkError, EngineService>
): Effect.Effect<BlobstoreImpl, SpdkError, Scope.Scope> =>
  Effect.uninterruptible(
    Effect.gen(function* () {
      const scope = yield* Effect.flatMap(Effect.scope, Scope.fork)
      // Made first, so that buffers go after everything that uses them.
      const buffers = yield* Scope.fork(scope)
      const store = Effect.gen(function* () {
        const letGo = yield* claim(place, engine, bdev)
        const flushes = yield* isFlushed(engine.rpc, bdev)
        if (!flushes) {
          yield* Effect.logWarning(
            `${bdev.name} has a volatile write cache, and no flush reaches it (bdev_nvme_set_options with enable_flush: false): ` +
              "data that this blobstore reports as durable may be lost in a power cut"
          )
        }
        return yield* Effect.acquireRelease(
          Effect.flatMap(Effect.provideService(driver, EngineService, engine), (native) =>
            native.info.pipe(
              Effect.onError(() => Effect.ignore(native.unload)),
              Effect.map(
                (info) => new BlobstoreImpl(engine, bdev, native, { ...info, isFlushed: flushes }, buffers, letGo)
              )
            )
          ),
          (opened) => withinLimit("Blobstore.close", bdev.name, opened.close)
        )
      })
      return yield* Effect.onExit(Scope.provide(store, scope), (exit) =>
        Exit.isFailure(exit) ? Scope.close(scope, exit) : Effect.void
      )
    })
  )
