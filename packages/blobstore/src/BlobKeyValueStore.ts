/**
 * Effect's `KeyValueStore` on a blobstore. For services that keep sessions, settings, caches or documents by key; the one thing
 * to know is that a `set` which has returned survives a power cut, whole.
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
 * Bytes of a key at most, in UTF-8. A longer one fails with `InvalidArgument`, as the cause of the `KeyValueStoreError`.
 *
 * @since 0.1.0
 * @category constants
 */
export const maxKeyBytes: number = codecMaxKeyBytes

/** Bytes of a value at most, just below 2 GiB. @since 0.1.0 @category constants */
export const maxValueBytes: number = storeMaxValueBytes

/** @since 0.1.0 @category options */
export interface Options {
  /**
   * Under which name the values are found again. Key-value stores of different names, and blobs that are none of theirs, live
   * side by side in one blobstore. 1 to 255 bytes of UTF-8. Default "default".
   */
  readonly name?: string | undefined
  /**
   * Size of the blobs that small values are logged to, rounded up to clusters: from 64 KiB to 256 MiB. Default 4 MiB. Each key-value
   * store has at least one of them, and one in reserve.
   */
  readonly segmentSize?: number | string | undefined
  /**
   * Values from this length on get a blob of their own, in whole clusters. At most a quarter of a segment, and by default that
   * or half a cluster, whichever is less.
   */
  readonly largeValueSize?: number | string | undefined
  /**
   * The part of a full segment, above 0 and up to 0.9, that overwritten and removed values may take before compaction copies
   * the rest elsewhere. Default 0.5.
   */
  readonly garbageRatio?: number | undefined
}

/** Why a key-value store does not open. @since 0.1.0 @category errors */
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
 * Opens the key-value store of this name, or starts one. `Busy` when it is open already; `Corrupted` when what is there was
 * damaged, other than by a crash in the middle of a write. The end of the scope waits for what is being set.
 *
 * **Durability.** `set`, `remove`, `modify` and `clear` survive a power cut once they have returned, and each of them is seen whole
 * or not at all. Fibers that set at the same time share one write and one flush of the device. A call that failed, or
 * was interrupted, may or may not have taken effect.
 *
 * **Order.** What a fiber has set, every fiber gets from then on. `modify` and `modifyUint8Array` call their function again when the value
 * has changed in between, so that no change is lost.
 *
 * **Values** come back as what they were set as: a string is UTF-8 for `getUint8Array`, bytes are Base64 for `get`. Every
 * string is kept exactly, lone surrogates included. Bytes must not change until `set` has returned. Checksums are verified with every
 * read, and fail it with `Corrupted`.
 *
 * **Memory.** Keys are in memory, about 200 bytes each on top of their text; values are not.
 *
 * **Errors** are `KeyValueStoreError` with the `SpdkError` as `cause`. On a full device `set` fails with `NoSpace`, while
 * `remove` and `clear` go on working.
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
 * Provides Effect's `KeyValueStore` from the blobstore of the context, as `make` has it.
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

/** Two of one name would write over each other. */
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
