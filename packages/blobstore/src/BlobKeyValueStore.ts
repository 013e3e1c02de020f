/**
 * Effect's `KeyValueStore` on a blobstore, for services that store sessions, settings, caches or documents by key.
 * After `set` has returned, the whole value survives a power cut.
 *
 * ```ts
 * import * as BlobKeyValueStore from "@effect-spdk/blobstore/BlobKeyValueStore"
 * import * as Blobstore from "@effect-spdk/blobstore/Blobstore"
 * import * as Bdev from "@effect-spdk/core/Bdev"
 * import * as Spdk from "@effect-spdk/core/Spdk"
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as KeyValueStore from "effect/persistence/KeyValueStore"
 *
 * const Sessions = BlobKeyValueStore.layer({ name: "sessions" }).pipe(
 *   Layer.provide(Blobstore.layer({ onEmpty: "init" })),
 *   Layer.provide(Bdev.layerFile({ path: "disk.img", size: "256 MiB" })),
 *   Layer.provide(Spdk.layerAuto)
 * )
 *
 * const program = Effect.gen(function*() {
 *   const sessions = yield* KeyValueStore.KeyValueStore
 *   yield* sessions.set("user/1", "signed in")
 *   return yield* sessions.get("user/1")
 * }).pipe(Effect.provide(Sessions))
 * ```
 *
 * @since 0.1.0
 */
import { bytesOf } from "@effect-spdk/core/Engine"
import { Busy, failInvalid, SpdkError, type SpdkErrorOf } from "@effect-spdk/core/SpdkError"
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as KeyValueStore from "effect/persistence/KeyValueStore"
import * as Scope from "effect/Scope"
import { Blobstore } from "./Blobstore.ts"
import { makeBlobs } from "./internal/kv/blobs.ts"
import { maxKeyBytes as codecMaxKeyBytes } from "./internal/kv/codec.ts"
import { loadLog } from "./internal/kv/load.ts"
import type { Limits } from "./internal/kv/log.ts"
import { makeStore, maxValueBytes as storeMaxValueBytes } from "./internal/kv/store.ts"
import { metadataReasons, only } from "./internal/reasons.ts"

/**
 * The maximum length of a key, in bytes of UTF-8. A longer key fails with `InvalidArgument`, as the cause of the
 * `KeyValueStoreError`.
 *
 * @since 0.1.0
 * @category constants
 */
export const maxKeyBytes: number = codecMaxKeyBytes

/** The maximum length of a value in bytes, just below 2 GiB. @since 0.1.0 @category constants */
export const maxValueBytes: number = storeMaxValueBytes

/** @since 0.1.0 @category options */
export interface Options {
  /**
   * The name of the key-value store. One blobstore can hold key-value stores of different names, and unrelated blobs. 1
   * to 255 bytes of UTF-8. Default "default".
   */
  readonly name?: string | undefined
  /**
   * The size of a segment, a blob that stores small values in a log. Rounded up to clusters; from 64 KiB to 256 MiB.
   * Default 4 MiB. Each key-value store has at least one segment, and one in reserve.
   */
  readonly segmentSize?: number | string | undefined
  /**
   * The length from which a value gets its own blob, in whole clusters. At most a quarter of a segment. Default: a
   * quarter of a segment or half a cluster, whichever is less.
   */
  readonly largeValueSize?: number | string | undefined
  /**
   * The fraction of overwritten and removed values in a full segment that starts compaction. Compaction copies the
   * other values elsewhere. Above 0 and up to 0.9. Default 0.5.
   */
  readonly garbageRatio?: number | undefined
}

/** The reasons for which a key-value store does not open. @since 0.1.0 @category errors */
export type OpenError = SpdkErrorOf<
  | "Aborted"
  | "Busy"
  | "Corrupted"
  | "DeviceRemoved"
  | "InvalidArgument"
  | "IoFailed"
  | "NoMemory"
  | "NoSpace"
  | "NotFound"
  | "NotSupported"
  | "PermissionDenied"
  | "ReadOnly"
  | "Released"
  | "TimedOut"
>

/**
 * Opens the key-value store of this name, or creates it. Fails with `Busy` when the store is open already. Fails with
 * `Corrupted` when its content is damaged by anything other than a crash during a write. The end of the scope waits for
 * writes in progress.
 *
 * **Durability.** `set`, `remove`, `modify` and `clear` survive a power cut after they have returned. Readers see each
 * of them whole or not at all. Concurrent writers share one write and one flush of the device. A call that failed or
 * was interrupted may or may not have taken effect.
 *
 * **Order.** After a fiber's `set` has returned, every fiber reads that value. `modify` and `modifyUint8Array` call
 * their function again when the value has changed meanwhile, so no change is lost.
 *
 * **Values.** `getUint8Array` returns a string value as UTF-8. `get` returns a bytes value as Base64. Every string is
 * stored exactly, lone surrogates included. Do not change bytes before `set` has returned. Each read verifies a
 * checksum, and fails with `Corrupted` when the checksum is wrong.
 *
 * **Memory.** Keys are in memory, about 200 bytes each in addition to their text. Values are not.
 *
 * **Errors** are `KeyValueStoreError` with the `SpdkError` as `cause`. On a full device `set` fails with `NoSpace`, and
 * `clear` still works. `remove` has one segment in reserve. Each commit takes at least one block of the reserve, so remove
 * many keys concurrently: they share commits. When the reserve is used up and no segment has enough garbage, `remove` also
 * fails with `NoSpace`, until `clear` or the deletion of other blobs frees space.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make: (
  options?: Options
) => Effect.Effect<KeyValueStore.KeyValueStore, OpenError, Blobstore | Scope.Scope> = Effect.fn(
  "BlobKeyValueStore.make"
)(function* (options?: Options) {
  const store = yield* Blobstore
  const name = options?.name ?? "default"
  const nameBytes = typeof name === "string" ? Buffer.byteLength(name) : 0
  if (nameBytes < 1 || nameBytes > maxNameBytes) {
    return yield* failInvalid(operation, "name", `has ${nameBytes} bytes, and not 1 to ${maxNameBytes}`, name)
  }
  // All lone surrogates would be one name on the device.
  if (/\p{Surrogate}/u.test(name)) return yield* failInvalid(operation, "name", "has no encoding in UTF-8", name)
  const scope = yield* Effect.scope
  yield* claim(store, name)
  const handles = yield* Scope.make()
  yield* Scope.addFinalizerExit(scope, (exit) => Scope.close(handles, exit))
  const blobs = yield* makeBlobs(store, handles)
  const limits = yield* limitsOf(options ?? {}, blobs.clusterBytes)
  const log = yield* only({ operation, resource: name }, openReasons)(loadLog(blobs, name, limits))
  return makeStore(log)
})

/**
 * Provides Effect's `KeyValueStore` from the blobstore in the context, as `make` does.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (options?: Options): Layer.Layer<KeyValueStore.KeyValueStore, OpenError, Blobstore> =>
  Layer.effect(KeyValueStore.KeyValueStore, make(options))

/** `layer` with options that come from Config. @since 0.1.0 @category layers */
export const layerConfig = (
  options: Config.Wrap<Options>
): Layer.Layer<KeyValueStore.KeyValueStore, OpenError | Config.ConfigError, Blobstore> =>
  Layer.unwrap(Effect.map(Config.unwrap(options), layer))

const operation = "BlobKeyValueStore.make"
const openReasons = [
  ...metadataReasons,
  "Busy",
  "Corrupted",
  "InvalidArgument",
  "NoSpace",
  "NotFound",
  "NotSupported",
  "PermissionDenied",
  "ReadOnly"
] as const
const maxNameBytes = 255
const minSegmentBytes = 64 * 1024
const maxSegmentBytes = 256 * 2 ** 20
const defaultSegmentBytes = 4 * 2 ** 20

/** Two open stores of one name would overwrite each other. */
const open = new WeakMap<Blobstore, Set<string>>()

const claim = (store: Blobstore, name: string): Effect.Effect<void, SpdkErrorOf<"Busy">, Scope.Scope> =>
  Effect.asVoid(
    Effect.acquireRelease(
      Effect.suspend(() => {
        const names = open.get(store) ?? new Set()
        open.set(store, names)
        if (names.has(name)) {
          const detail = "this key-value store is open already"
          return Effect.fail(new SpdkError({ reason: new Busy({ operation, resource: name, detail }) }))
        }
        names.add(name)
        return Effect.succeed(names)
      }),
      (names) => Effect.sync(() => names.delete(name))
    )
  )

const limitsOf = Effect.fnUntraced(function* (options: Options, clusterBytes: number) {
  const asked = yield* bytesOf(operation, "segmentSize", options.segmentSize ?? defaultSegmentBytes)
  if (asked < minSegmentBytes || asked > maxSegmentBytes) {
    const rule = `is not from ${minSegmentBytes} to ${maxSegmentBytes} bytes`
    return yield* failInvalid(operation, "segmentSize", rule, options.segmentSize)
  }
  const segmentBytes = Math.ceil(asked / clusterBytes) * clusterBytes
  const largestBytes = Math.floor(segmentBytes / 4)
  const largeValueBytes =
    options.largeValueSize === undefined
      ? Math.min(largestBytes, Math.ceil(clusterBytes / 2))
      : yield* bytesOf(operation, "largeValueSize", options.largeValueSize)
  if (largeValueBytes > largestBytes) {
    const rule = `is more than ${largestBytes} bytes, a quarter of a segment`
    return yield* failInvalid(operation, "largeValueSize", rule, options.largeValueSize)
  }
  const garbageRatio = options.garbageRatio ?? 0.5
  if (!(garbageRatio > 0 && garbageRatio <= 0.9)) {
    return yield* failInvalid(operation, "garbageRatio", "is not above 0 and up to 0.9", garbageRatio)
  }
  const limits: Limits = { segmentBytes, largeValueBytes, garbageRatio }
  return limits
})
