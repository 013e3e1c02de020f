/**
 * Bdevs made by SPDK's modules, and deleted with the scope. Import all of this from `Bdev`.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import type { BdevErrorInjectErrorType, BdevErrorInjectIoType } from "./generated/RpcTypes.ts"
import { requireBase, requireFree, untilGone } from "./internal/bdevBase.ts"
import {
  blocksOf,
  checkDelay,
  checkIdentity,
  checkInjection,
  checkMalloc,
  checkUuid,
  fileOf,
  type FileParams
} from "./internal/bdevOptions.ts"
import { checkName } from "./internal/names.ts"
import { withinLimitByRpc } from "./internal/release.ts"
import { splitIssue } from "./internal/splitParts.ts"
import * as Rpc from "./Rpc.ts"
import { RpcClient } from "./Rpc.ts"
import { fail, failInvalid, NoMemory, type RpcReason, type SpdkError } from "./SpdkError.ts"

/** Why a bdev is not made: what the RPC method answers. @since 0.1.0 @category errors */
export type CreateError = SpdkError<RpcReason>

/** A number of bytes, or a size like `"256 MiB"`, `"10 GB"`, `"4096"`. @since 0.1.0 @category models */
export type Size = number | string

/** @since 0.1.0 @category models */
export interface MemoryOptions {
  /** In bytes, a multiple of the block size. Either this or `numBlocks`. */
  readonly size?: Size | undefined
  readonly numBlocks?: number | undefined
  /** In bytes, a multiple of 512. Default 4096. */
  readonly blockSize?: number | undefined
  /** Default: generated, or derived from the bdev below where there is one. Zero is refused. */
  readonly uuid?: string | undefined
}

/** @since 0.1.0 @category models */
export interface MallocOptions extends MemoryOptions {
  /**
   * Default: SPDK's choice, `Malloc0` and so on. As all names here: 1 to 256 bytes of UTF-8, without NUL; `AlreadyExists` when
   * another bdev has it.
   */
  readonly name?: string | undefined
  /** Requests that cross a multiple of it are split. From 1, and only with a `blockSize` of up to 4096. */
  readonly optimalIoBoundaryBlocks?: number | undefined
  /** In bytes, a multiple of the block size. */
  readonly physicalBlockSize?: number | undefined
}

/**
 * A bdev in memory (`bdev_malloc_create`): zeroed, and gone with the engine. Its bytes come out of the engine's DMA memory, which
 * the option `memoryMiB` bounds: `NoMemory` says so.
 *
 * As all functions here: options that SPDK would not survive or not keep are `InvalidArgument` with the field and the rule; it returns the name; the end of the scope deletes the bdev, and waits for that up to
 * `ReleaseTimeout`. Whoever has it open sees `Removed`. A bdev that somebody else deleted before is no error then; another
 * failure of the deletion dies.
 * Interruption waits for SPDK's answer, and deletes what was made.
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

/** SPDK's "Cannot allocate memory" leaves open which memory, and whose. */
const namesMemory = (error: CreateError, bytes: number): Effect.Effect<never, CreateError> => {
  const { reason } = error
  if (reason._tag !== "NoMemory") return Effect.fail(error)
  const { errno, errnoCode, operation, resource, rpcCode } = reason
  const detail =
    `the DMA memory has no ${bytes} bytes free in one piece: ` +
    "the engine's option memoryMiB (of spdk_tgt: --mem-size) says how much there is"
  return fail(new NoMemory({ operation, resource, detail, errno, errnoCode, rpcCode, cause: reason.cause }))
}

/** @since 0.1.0 @category models */
export interface NullOptions extends MemoryOptions {
  /** Default: generated. */
  readonly name?: string | undefined
}

/**
 * A bdev that drops what is written and leaves buffers as they are on reads (`bdev_null_create`): for measuring.
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
  /** A file or a block device. A relative path starts at this process's directory. */
  readonly path: string
  /** Default: generated. */
  readonly name?: string | undefined
  /** In bytes, a power of two from 512. Default: 4096 for a file, and what SPDK finds for a block device. */
  readonly blockSize?: number | undefined
  /** What the file must have at least, in bytes; a multiple of the block size. */
  readonly size?: Size | undefined
  /**
   * What happens to the file when `size` is given. `"missing"`, the default, makes it when it is missing and extends it when it
   * is shorter; its bytes stay. `"always"` empties it first: all its bytes are lost. `"never"` only checks: a missing file is
   * `NotFound`, a shorter one `InvalidArgument`. Without `size` the file is not touched and must exist, and `"missing"` and
   * `"always"` are `InvalidArgument`, as they are for a bdev that is read-only. It is made on this machine, by this process, sparse, with mode 0600, and it is never
   * deleted.
   */
  readonly create?: FileCreation | undefined
  readonly uuid?: string | undefined
}

/** @since 0.1.0 @category models */
export interface AioOptions extends FileOptions {
  /**
   * Nothing is written: `create` can only be `"never"` then, which is the default, so that a `size` is checked and nothing is
   * made or extended. SPDK opens such a bdev for writing all the same; each write then fails with `IoFailed`. Default
   * false.
   */
  readonly readonly?: boolean | undefined
  /** Whether unmap and write zeroes punch holes. The embedded engine writes zeroes instead: the file keeps its size on disk. */
  readonly fallocate?: boolean | undefined
}

/**
 * A bdev on a file or a block device (`bdev_aio_create`). Writes survive a power cut once a `flush` after them has completed.
 *
 * Unless it is `readonly`, the bdev holds an exclusive lock on the file (flock) until it is deleted: `Busy` names the process that has
 * it already, on either engine and by any name of the file. The kernel releases the lock when the process dies. A machine without
 * the flock program gets a warning in the log and no lock, and bdevs that a configuration or a call of `bdev_aio_create` makes
 * are not locked.
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
 * As `createFile`, by io_uring (`bdev_uring_create`). `MethodNotFound` where SPDK was built without it, and on the embedded
 * engine.
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
  /** The name of the bdev below. It is claimed: nobody can open it for writing any more. `NotFound` when there is none. */
  readonly base: string
  /** Default: generated. */
  readonly name?: string | undefined
  readonly uuid?: string | undefined
}

/** A bdev that hands everything to another one (`bdev_passthru_create`). @since 0.1.0 @category creation */
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
  /** What most reads take longer. A whole number up to a day, as all four. Default 0. */
  readonly readMicros?: number | undefined
  /** What one read of a hundred takes longer, not less than the others. Default: as the others. */
  readonly readP99Micros?: number | undefined
  readonly writeMicros?: number | undefined
  readonly writeP99Micros?: number | undefined
}

/**
 * A bdev that completes later than the one below it (`bdev_delay_create`). The delays begin when this returns: SPDK's modules read
 * the first blocks of every new bdev, and its deletion would wait for them.
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

/** A module that is still at it after this waits for something of its own. */
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
  /** The name of the bdev below, which is claimed. SPDK makes the UUID of the error bdev out of the UUID of this one. */
  readonly base: string
}

/** What an error bdev does to the next requests. @since 0.1.0 @category models */
export interface Injection {
  /** `clear` ends all injections. */
  readonly ioType: BdevErrorInjectIoType
  readonly errorType: BdevErrorInjectErrorType
  /** How many requests, up to 2^32 - 1. Default 1. */
  readonly count?: number | undefined
  /** Fails only what comes while this many are in flight. */
  readonly queueDepth?: number | undefined
  /** For `corrupt_data`: which byte of the data, and with what it is XORed, 1 to 255. */
  readonly corruptOffset?: number | undefined
  readonly corruptValue?: number | undefined
  /** For `nvme_failure` alone: status code type, 0 to 7, and status code, 0 to 255; one of them must not be 0. */
  readonly nvmeSct?: number | undefined
  readonly nvmeSc?: number | undefined
}

/** @since 0.1.0 @category models */
export interface ErrorBdev {
  /** `EE_` and the name of the bdev below. */
  readonly name: string
  /** `bdev_error_inject_error` */
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
  /** The name of the bdev below, which is claimed. */
  readonly base: string
  /** From 1 to 8192, and not more than fit. */
  readonly count: number
  /** Of each part: whole blocks of the bdev below. Default: the bdev below in equal parts. */
  readonly sizeMiB?: number | undefined
}

/**
 * Parts of a bdev as bdevs of their own (`bdev_split_create`). Returns their names in order.
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
  /** Default: `{ name }`. Without a name nothing can be deleted: then `create` fails, and what it made stays. */
  readonly deleteParams?: { readonly [name: string]: Schema.Json } | undefined
  /** Of the bdev. Default: what the method answers, when that is one name, otherwise the parameter `name`. */
  readonly name?: string | undefined
}

/**
 * A bdev of any module, by the names of its RPC methods. Parameters are not checked here.
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

/** Methods answer a name, or a list of names: one name is one bdev. */
const nameIn = (result: Schema.Json): string | undefined => {
  const one = Array.isArray(result) && result.length === 1 ? result[0] : result
  return typeof one === "string" ? one : undefined
}

/** Deletes at the end of the scope, with the time limit of releases. */
/** Prepares the file, locked, for what `make` makes on it. The lock goes after the bdev, or at once when there is none. */
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
