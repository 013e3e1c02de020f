/**
 * Creates bdevs with SPDK's bdev modules. The end of the scope deletes each bdev. Import these names from `Bdev`.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import type { BdevErrorInjectErrorType, BdevErrorInjectIoType } from "./generated/RpcTypes.ts"
import { requireBase, requireFree, untilGone } from "./internal/bdev/base.ts"
import {
  blocksOf,
  checkDelay,
  checkIdentity,
  checkInjection,
  checkMalloc,
  checkUuid,
  fileOf,
  type FileParams
} from "./internal/bdev/options.ts"
import { checkName } from "./internal/common/names.ts"
import { withinLimitByRpc } from "./internal/common/release.ts"
import { splitIssue } from "./internal/rpc/splitParts.ts"
import * as Rpc from "./Rpc.ts"
import { RpcClient } from "./Rpc.ts"
import { fail, failInvalid, NoMemory, type RpcReason, type SpdkError } from "./SpdkError.ts"

/** The reasons for which a bdev is not created, as the RPC method reports them. @since 0.1.0 @category errors */
export type CreateError = SpdkError<RpcReason>

/** A number of bytes, or a size like `"256 MiB"`, `"10 GB"`, `"4096"`. @since 0.1.0 @category models */
export type Size = number | string

/** @since 0.1.0 @category models */
export interface MemoryOptions {
  /** In bytes, a multiple of the block size. Give either `size` or `numBlocks`. */
  readonly size?: Size | undefined
  readonly numBlocks?: number | undefined
  /** In bytes, a multiple of 512. Default 4096. */
  readonly blockSize?: number | undefined
  /** Default: generated, or derived from the UUID of the base bdev when there is one. The zero UUID is refused. */
  readonly uuid?: string | undefined
}

/** @since 0.1.0 @category models */
export interface MallocOptions extends MemoryOptions {
  /**
   * Default: SPDK's choice, for example `Malloc0`. Every name in this module has 1 to 256 bytes of UTF-8 without NUL. A
   * name that another bdev has fails with `AlreadyExists`.
   */
  readonly name?: string | undefined
  /**
   * Requests that cross a multiple of this number of blocks are split. At least 1, and only with a `blockSize` of at
   * most 4096.
   */
  readonly optimalIoBoundaryBlocks?: number | undefined
  /** In bytes, a multiple of the block size. */
  readonly physicalBlockSize?: number | undefined
}

/**
 * Creates a bdev in memory (`bdev_malloc_create`). The content starts as zeroes and is lost when the engine ends. The
 * bdev takes its bytes from the engine's DMA memory. The option `memoryMiB` limits that memory; the call fails with
 * `NoMemory` beyond the limit.
 *
 * The following holds for every function of this module. The function returns the name of the bdev. Options that SPDK
 * would crash on or would not keep fail with `InvalidArgument`, which names the field and the rule. Interruption waits
 * for SPDK's answer and deletes the new bdev.
 *
 * The end of the scope deletes the bdev and waits up to `ReleaseTimeout`. Open handles of the bdev receive `Removed`.
 * The deletion succeeds when the bdev was deleted before. It dies with any other error.
 *
 * @since 0.1.0
 * @category creation
 */
export const createMalloc: (options: MallocOptions) => Effect.Effect<string, CreateError, RpcClient | Scope.Scope> =
  Effect.fn("Bdev.createMalloc")(function* (options: MallocOptions) {
    const operation = "Bdev.createMalloc"
    const blocks = yield* blocksOf(operation, options)
    yield* checkMalloc(operation, options, blocks.block_size)
    yield* checkUuid(operation, options.uuid)
    if (options.name !== undefined) yield* checkName(operation, options.name)
    return yield* scoped(
      (rpc) =>
        Rpc.callWith(rpc, "bdev_malloc_create", {
          ...blocks,
          name: options.name,
          uuid: options.uuid,
          optimal_io_boundary: options.optimalIoBoundaryBlocks,
          physical_block_size: options.physicalBlockSize
        }).pipe(Effect.catch((error) => namesMemory(error, blocks.block_size * blocks.num_blocks))),
      (rpc, created) => Rpc.callWith(rpc, "bdev_malloc_delete", { name: created })
    )
  })

/** SPDK's "Cannot allocate memory" does not say which memory is exhausted. */
const namesMemory = (error: CreateError, bytes: number): Effect.Effect<never, CreateError> => {
  const { reason } = error
  if (reason._tag !== "NoMemory") return Effect.fail(error)
  const { errno, errnoCode, operation, resource, rpcCode } = reason
  const detail =
    `the DMA memory has no ${bytes} bytes free in one piece: ` +
    "the engine's option memoryMiB (of spdk_tgt: --mem-size) sets its size"
  return fail(new NoMemory({ operation, resource, detail, errno, errnoCode, rpcCode, cause: reason.cause }))
}

/** @since 0.1.0 @category models */
export interface NullOptions extends MemoryOptions {
  /** Default: generated. */
  readonly name?: string | undefined
}

/**
 * Creates a bdev for measurements (`bdev_null_create`). Writes are dropped. Reads leave the buffer as it was.
 *
 * @since 0.1.0
 * @category creation
 */
export const createNull: (options: NullOptions) => Effect.Effect<string, CreateError, RpcClient | Scope.Scope> =
  Effect.fn("Bdev.createNull")(function* (options: NullOptions) {
    const blocks = yield* blocksOf("Bdev.createNull", options)
    const name = yield* checkIdentity("Bdev.createNull", options, "null")
    return yield* scoped(
      (rpc) => Rpc.callWith(rpc, "bdev_null_create", { ...blocks, name, uuid: options.uuid }),
      (rpc, created) => Rpc.callWith(rpc, "bdev_null_delete", { name: created })
    )
  })

/** @since 0.1.0 @category models */
export type FileCreation = "missing" | "always" | "never"

/** @since 0.1.0 @category models */
export interface FileOptions {
  /** The path of a file or a block device. A relative path starts at this process's working directory. */
  readonly path: string
  /** Default: generated. */
  readonly name?: string | undefined
  /** In bytes, a power of two, at least 512. Default: 4096 for a file, and SPDK's detected size for a block device. */
  readonly blockSize?: number | undefined
  /** The minimum size of the file in bytes, a multiple of the block size. */
  readonly size?: Size | undefined
  /**
   * How to treat the file when `size` is given:
   *
   * - `"missing"`, the default: creates a missing file and extends a shorter file. Existing bytes stay.
   * - `"always"`: empties the file first. All its bytes are lost.
   * - `"never"`: only checks. A missing file fails with `NotFound`, a shorter file with `InvalidArgument`.
   *
   * Without `size` the file is not touched and must exist. `"missing"` and `"always"` are then `InvalidArgument`. They
   * are also `InvalidArgument` for a read-only bdev. This process creates the file on this machine, sparse, with mode
   * 0600. The file is never deleted.
   */
  readonly create?: FileCreation | undefined
  readonly uuid?: string | undefined
}

/** @since 0.1.0 @category models */
export interface AioOptions extends FileOptions {
  /**
   * Makes the bdev read-only. The file is not created or extended: `create` must be `"never"`, which is then the
   * default, so that `size` is only checked. SPDK still opens such a bdev for writing; each write then fails with
   * `IoFailed`. Default false.
   */
  readonly readonly?: boolean | undefined
  /**
   * Whether unmap and write-zeroes requests punch holes in the file. The embedded engine writes zeroes instead: the
   * file keeps its size on disk.
   */
  readonly fallocate?: boolean | undefined
}

/**
 * Creates a bdev on a file or a block device (`bdev_aio_create`). A completed write survives a power cut after a later
 * `flush` has completed.
 *
 * Unless the bdev is `readonly`, it holds an exclusive lock on the file (flock) until it is deleted. A locked file
 * fails with `Busy`, which names the process that holds the lock. The lock holds across both engines and for every path
 * to the file. The kernel releases the lock when the process dies.
 *
 * On a machine without the flock program, a warning is logged and no lock is taken. Bdevs that a configuration or a
 * direct call of `bdev_aio_create` creates are not locked.
 *
 * @since 0.1.0
 * @category creation
 */
export const createFile: (options: AioOptions) => Effect.Effect<string, CreateError, RpcClient | Scope.Scope> =
  Effect.fn("Bdev.createFile")(function* (options: AioOptions) {
    const name = yield* checkIdentity("Bdev.createFile", options, "file")
    return yield* onFile("Bdev.createFile", options, (file) =>
      scoped(
        (rpc) =>
          Rpc.callWith(rpc, "bdev_aio_create", {
            ...file,
            name,
            uuid: options.uuid,
            readonly: options.readonly,
            fallocate: options.fallocate
          }),
        (rpc, created) => Rpc.callWith(rpc, "bdev_aio_delete", { name: created })
      )
    )
  })

/**
 * Creates a bdev on a file that uses io_uring (`bdev_uring_create`), by the rules of `createFile`. Fails with
 * `MethodNotFound` when SPDK was built without io_uring, and on the embedded engine.
 *
 * @since 0.1.0
 * @category creation
 */
export const createUring: (options: FileOptions) => Effect.Effect<string, CreateError, RpcClient | Scope.Scope> =
  Effect.fn("Bdev.createUring")(function* (options: FileOptions) {
    const name = yield* checkIdentity("Bdev.createUring", options, "uring")
    return yield* onFile("Bdev.createUring", options, (file) =>
      scoped(
        (rpc) => Rpc.callWith(rpc, "bdev_uring_create", { ...file, name, uuid: options.uuid }),
        (rpc, created) => Rpc.callWith(rpc, "bdev_uring_delete", { name: created })
      )
    )
  })

/** @since 0.1.0 @category models */
export interface PassthruOptions {
  /**
   * The name of the base bdev. The new bdev claims it: nothing else can open it for writing. `NotFound` when there is
   * no such bdev.
   */
  readonly base: string
  /** Default: generated. */
  readonly name?: string | undefined
  readonly uuid?: string | undefined
}

/**
 * Creates a bdev that passes every request to its base bdev (`bdev_passthru_create`).
 *
 * @since 0.1.0
 * @category creation
 */
export const createPassthru: (options: PassthruOptions) => Effect.Effect<string, CreateError, RpcClient | Scope.Scope> =
  Effect.fn("Bdev.createPassthru")(function* (options: PassthruOptions) {
    const operation = "Bdev.createPassthru"
    const name = yield* checkIdentity(operation, options, "passthru")
    const { name: base } = yield* requireBase(operation, options.base)
    yield* requireFree(operation, [name], options.uuid)
    return yield* scoped(
      (rpc) => Rpc.callWith(rpc, "bdev_passthru_create", { name, base_bdev_name: base, uuid: options.uuid }),
      (rpc, created) => Rpc.callWith(rpc, "bdev_passthru_delete", { name: created })
    )
  })

/** @since 0.1.0 @category models */
export interface DelayOptions extends PassthruOptions {
  /**
   * Extra latency of most reads (99 %). Each of the four latencies is a whole number of microseconds, at most one day.
   * Default 0.
   */
  readonly readMicros?: number | undefined
  /** Extra latency of the slowest 1 % of reads (p99). Not less than `readMicros`. Default: equal to `readMicros`. */
  readonly readP99Micros?: number | undefined
  readonly writeMicros?: number | undefined
  readonly writeP99Micros?: number | undefined
}

/**
 * Creates a bdev that adds latency to its base bdev (`bdev_delay_create`). The delays begin when this function returns.
 * The reason: SPDK's modules read the first blocks of every new bdev, and a deletion would wait for those reads.
 *
 * @since 0.1.0
 * @category creation
 */
export const createDelay: (options: DelayOptions) => Effect.Effect<string, CreateError, RpcClient | Scope.Scope> =
  Effect.fn("Bdev.createDelay")(function* (options: DelayOptions) {
    const operation = "Bdev.createDelay"
    const name = yield* checkIdentity(operation, options, "delay")
    const latencies = yield* checkDelay(operation, options)
    const { name: base } = yield* requireBase(operation, options.base)
    yield* requireFree(operation, [name], options.uuid)
    const created = yield* scoped(
      (rpc) =>
        Rpc.callWith(rpc, "bdev_delay_create", {
          name,
          base_bdev_name: base,
          uuid: options.uuid,
          avg_read_latency: 0,
          p99_read_latency: 0,
          avg_write_latency: 0,
          p99_write_latency: 0
        }),
      (rpc, made) => Rpc.callWith(rpc, "bdev_delay_delete", { name: made })
    )
    yield* setLatencies(yield* RpcClient, created, latencies)
    return created
  })

/** A module that still examines the bdev after this time waits for something of its own. */
const examineLimit = "1 second"

const setLatencies = (
  rpc: RpcClient["Service"],
  name: string,
  latencies: Effect.Success<ReturnType<typeof checkDelay>>
): Effect.Effect<void, CreateError> => {
  const wanted = [
    ["avg_read", latencies.readMicros],
    ["p99_read", latencies.readP99Micros],
    ["avg_write", latencies.writeMicros],
    ["p99_write", latencies.writeP99Micros]
  ] as const
  const set = wanted.filter(([, micros]) => micros > 0)
  if (set.length === 0) return Effect.void
  const examined = Rpc.callWith(rpc, "bdev_wait_for_examine", undefined, { timeout: examineLimit }).pipe(
    Effect.catch((error) => (error.reason._tag === "TimedOut" ? Effect.void : Effect.fail(error)))
  )
  const update = ([latency_type, latency_us]: (typeof wanted)[number]) =>
    Rpc.callWith(rpc, "bdev_delay_update_latency", { delay_bdev_name: name, latency_type, latency_us })
  return Effect.andThen(examined, Effect.forEach(set, update, { concurrency: "unbounded", discard: true }))
}

/** @since 0.1.0 @category models */
export interface ErrorOptions {
  /**
   * The name of the base bdev. The error bdev claims it. SPDK derives the UUID of the error bdev from the UUID of the
   * base bdev.
   */
  readonly base: string
}

/** An error to inject into later requests. @since 0.1.0 @category models */
export interface Injection {
  /** The I/O type to fail. `clear` ends all injections. */
  readonly ioType: BdevErrorInjectIoType
  readonly errorType: BdevErrorInjectErrorType
  /** The number of requests to fail, up to 2^32 - 1. Default 1. */
  readonly count?: number | undefined
  /** Fails a request only while at least this many requests of its channel are in flight. */
  readonly queueDepth?: number | undefined
  /**
   * For `corrupt_data`: the offset of the corrupted byte in the data. `corruptValue` is the value that is XORed into
   * it, 1 to 255.
   */
  readonly corruptOffset?: number | undefined
  readonly corruptValue?: number | undefined
  /**
   * For `nvme_failure` only: the status code type, 0 to 7. `nvmeSc` is the status code, 0 to 255. At least one must not
   * be 0.
   */
  readonly nvmeSct?: number | undefined
  readonly nvmeSc?: number | undefined
}

/** @since 0.1.0 @category models */
export interface ErrorBdev {
  /** `EE_` followed by the name of the base bdev. */
  readonly name: string
  /** Injects errors (`bdev_error_inject_error`). */
  readonly inject: (injection: Injection) => Effect.Effect<void, CreateError>
}

/**
 * A bdev that fails requests on demand (`bdev_error_create`).
 *
 * @since 0.1.0
 * @category creation
 */
export const createError: (options: ErrorOptions) => Effect.Effect<ErrorBdev, CreateError, RpcClient | Scope.Scope> =
  Effect.fn("Bdev.createError")(function* (options: ErrorOptions) {
    const client = yield* RpcClient
    const operation = "Bdev.createError"
    const { name: base } = yield* requireBase(operation, options.base)
    yield* requireFree(operation, [`EE_${base}`], undefined)
    const name = yield* scoped(
      (rpc) => Effect.as(Rpc.callWith(rpc, "bdev_error_create", { base_name: base }), `EE_${base}`),
      (rpc, created) => Rpc.callWith(rpc, "bdev_error_delete", { name: created })
    )
    return {
      name,
      inject: (injection) =>
        Effect.andThen(
          checkInjection("ErrorBdev.inject", injection),
          Rpc.callWith(client, "bdev_error_inject_error", {
            name,
            io_type: injection.ioType,
            error_type: injection.errorType,
            num: injection.count,
            queue_depth: injection.queueDepth,
            corrupt_offset: injection.corruptOffset,
            corrupt_value: injection.corruptValue,
            nvme_sct: injection.nvmeSct,
            nvme_sc: injection.nvmeSc
          })
        ).pipe(Effect.asVoid)
    }
  })

/** @since 0.1.0 @category models */
export interface SplitOptions {
  /** The name of the base bdev. The parts claim it. */
  readonly base: string
  /** The number of parts, from 1 to 8192. All parts must fit on the base bdev. */
  readonly count: number
  /** The size of each part: whole blocks of the base bdev. Default: equal parts of the base bdev. */
  readonly sizeMiB?: number | undefined
}

/**
 * Splits a bdev into bdevs (`bdev_split_create`). Returns the names of the parts in order.
 *
 * @since 0.1.0
 * @category creation
 */
export const createSplit: (
  options: SplitOptions
) => Effect.Effect<ReadonlyArray<string>, CreateError, RpcClient | Scope.Scope> = Effect.fn("Bdev.createSplit")(
  function* (options: SplitOptions) {
    const operation = "Bdev.createSplit"
    const { count } = options
    const found = yield* requireBase(operation, options.base)
    // SPDK does not survive an alias, a UUID among them.
    const base = found.name
    const issue = splitIssue(found, { count, sizeMiB: options.sizeMiB })
    if (issue !== undefined) return yield* failInvalid(operation, issue.field, issue.rule, options[issue.field], base)
    const parts = Array.from({ length: count }, (_, part) => `${base}p${part}`)
    yield* requireFree(operation, parts, undefined)
    return yield* scoped(
      (rpc) =>
        Rpc.callWith(rpc, "bdev_split_create", {
          base_bdev: base,
          split_count: options.count,
          split_size_mb: options.sizeMiB
        }),
      (rpc) => Effect.andThen(Rpc.callWith(rpc, "bdev_split_delete", { base_bdev: base }), untilGone(rpc, base, parts))
    )
  }
)

/** @since 0.1.0 @category models */
export interface CreateOptions {
  readonly method: string
  readonly params?: { readonly [name: string]: Schema.Json } | undefined
  readonly deleteMethod: string
  /**
   * The parameters of `deleteMethod`. Default: `{ name }`. Without a name no deletion is possible: `create` then fails,
   * and the bdev stays.
   */
  readonly deleteParams?: { readonly [name: string]: Schema.Json } | undefined
  /**
   * The name of the bdev. Default: the name that the method returns when it returns exactly one; otherwise the
   * parameter `name`.
   */
  readonly name?: string | undefined
}

/**
 * Creates a bdev with any module, by the names of its RPC methods. Does not check the parameters.
 *
 * @since 0.1.0
 * @category creation
 */
export const create: (options: CreateOptions) => Effect.Effect<string, CreateError, RpcClient | Scope.Scope> =
  Effect.fn("Bdev.create")(function* (options: CreateOptions) {
    const { deleteMethod, deleteParams, method, params } = options
    const given = options.name ?? (typeof params?.["name"] === "string" ? params["name"] : undefined)
    const name = yield* scoped(
      (rpc) => Effect.map(rpc.call(method, params), (result) => options.name ?? nameIn(result) ?? given),
      (rpc, created) => {
        const deletes = deleteParams ?? (created === undefined ? undefined : { name: created })
        return deletes === undefined ? Effect.void : rpc.call(deleteMethod, deletes)
      }
    )
    return name === undefined
      ? yield* failInvalid("Bdev.create", "name", `is missing, and ${method} answered none`)
      : name
  })

/** Methods return a name, or a list of names. A list of one name is one bdev. */
const nameIn = (result: Schema.Json): string | undefined => {
  const one = Array.isArray(result) && result.length === 1 ? result[0] : result
  return typeof one === "string" ? one : undefined
}

/** Deletes the bdev at the end of the scope, within the time limit of releases. */
/**
 * Prepares and locks the file for the bdev that `make` creates. The lock is released after the bdev, or at once when
 * `make` fails.
 */
const onFile = (
  operation: string,
  options: AioOptions,
  make: (file: FileParams) => Effect.Effect<string, CreateError, RpcClient | Scope.Scope>
): Effect.Effect<string, CreateError, RpcClient | Scope.Scope> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(Effect.flatMap(Effect.scope, Scope.fork), (scope) =>
      restore(Scope.provide(Effect.flatMap(fileOf(operation, options), make), scope)).pipe(
        Effect.onExit((exit) => (Exit.isFailure(exit) ? Scope.close(scope, exit) : Effect.void))
      )
    )
  )

const scoped = <A>(
  acquire: (rpc: RpcClient["Service"]) => Effect.Effect<A, CreateError>,
  remove: (rpc: RpcClient["Service"], created: A) => Effect.Effect<unknown, CreateError>
): Effect.Effect<A, CreateError, RpcClient | Scope.Scope> =>
  Effect.flatMap(RpcClient, (rpc) =>
    Effect.acquireRelease(acquire(rpc), (created) => {
      const gone = Effect.catch(remove(rpc, created), (error) =>
        error.reason._tag === "NotFound" ? Effect.void : Effect.die(error)
      )
      return withinLimitByRpc("Bdev.delete", `${created}`, Effect.asVoid(gone))
    })
  )
