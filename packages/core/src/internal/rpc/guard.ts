/**
 * Calls that SPDK does not survive, refused before they are sent: a process that dies takes everybody's storage with it. Each was
 * found by the fuzzer (test/src/fuzz) or in SPDK's sources, in release 26.05. What depends on more than the call and the bdevs
 * that there are cannot be known here: see `RpcClient.call`.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Semaphore from "effect/Semaphore"
import type * as Schema from "effect/Schema"
import {
  AlreadyExists,
  Busy,
  fail,
  failInvalid,
  NotSupported,
  type RpcReason,
  type SpdkError
} from "../../SpdkError.ts"
import { type ClaimOf, type HasWriter, refuseClaimed } from "./claimed.ts"
import { sqeBytes } from "../nvme/wire/command.ts"
import { adminDataBytes, ioDataBytes } from "../nvme/dataLength.ts"
import { viewOf } from "../nvme/wire/struct.ts"
import { type SplitBase, splitIssue } from "./splitParts.ts"

type Params = { readonly [name: string]: unknown }

/** Any method of the same server. */
type Ask = (method: string, params?: Params) => Effect.Effect<Schema.Json, SpdkError<RpcReason>>

type Guard = (params: Params, ask: Ask) => Effect.Effect<void, SpdkError<RpcReason>>

/** The bdev of that name; undefined when there is none, or the answer is not SPDK's. */
const find = (ask: Ask, name: unknown): Effect.Effect<SplitBase | undefined, SpdkError<RpcReason>> =>
  typeof name !== "string" || name === ""
    ? Effect.succeed(undefined)
    : ask("bdev_get_bdevs", { name }).pipe(
        Effect.map((answer) => {
          const bdev: unknown = Array.isArray(answer) ? answer[0] : undefined
          return isFound(bdev) ? bdev : undefined
        }),
        Effect.catch((error) => (error.reason._tag === "NotFound" ? Effect.succeed(undefined) : Effect.fail(error)))
      )

const isFound = (bdev: unknown): bdev is SplitBase =>
  typeof bdev === "object" &&
  bdev !== null &&
  "name" in bdev &&
  typeof bdev.name === "string" &&
  "block_size" in bdev &&
  typeof bdev.block_size === "number" &&
  "num_blocks" in bdev &&
  typeof bdev.num_blocks === "number"

const MiB = 1024 * 1024
const beyond64Bits = 2 ** 64

/** As SPDK says it of other names. */
const exists = (operation: string, resource: string) =>
  fail(new AlreadyExists({ operation, resource, errno: "EEXIST", errnoCode: 17 }))

/** SPDK divides by the blocks of a part, and frees the base under the first parts when a later one cannot be made. */
const split: Guard = (params, ask) =>
  Effect.gen(function* () {
    const { base_bdev: name, split_count: count, split_size_mb: sizeMiB = 0 } = params
    if (typeof count !== "number" || (typeof sizeMiB !== "number" && typeof sizeMiB !== "bigint")) return
    const refuse = (field: string, rule: string, value: unknown) =>
      failInvalid("bdev_split_create", field, rule, value, typeof name === "string" ? name : undefined)
    const size = Number(sizeMiB)
    if (size * MiB >= beyond64Bits) return yield* refuse("split_size_mb", "is more bytes than 64 bits hold", size)
    const base = yield* find(ask, name)
    if (base === undefined || count === 0) return
    // SPDK looks for the parts of the bdev's own name, finds none of an alias, and reads at 0.
    if (base.name !== name)
      return yield* refuse("base_bdev", `is an alias of "${base.name}", whose name is needed`, name)
    // More parts of a size than fit are left away; SPDK makes those that do.
    const fit = size === 0 ? count : Math.min(count, Math.floor((base.num_blocks * base.block_size) / (size * MiB)))
    const issue = splitIssue(base, { count: Math.max(fit, 1), sizeMiB: size === 0 ? undefined : size })
    if (issue !== undefined) {
      const isCount = issue.field === "count"
      return yield* refuse(isCount ? "split_count" : "split_size_mb", issue.rule, isCount ? count : size)
    }
    // Of a base that somebody has, SPDK does not come so far.
    if (Reflect.get(base, "claimed") === true) return
    const bdevs = yield* ask("bdev_get_bdevs")
    const parts = new Set(Array.from({ length: fit }, (_, part) => `${String(name)}p${part}`))
    const taken = Array.isArray(bdevs)
      ? bdevs.find((bdev: unknown) => isFound(bdev) && parts.has(bdev.name))
      : undefined
    if (isFound(taken)) return yield* exists("bdev_split_create", taken.name)
  })

/** A day. SPDK's modules read every new bdev, and no bdev that comes later can be deleted before they have. */
const maxDelayMicros = 86_400_000_000

const latencies: Guard = (params) => {
  for (const [field, value] of Object.entries(params)) {
    if (!field.endsWith("_latency") || (typeof value !== "number" && typeof value !== "bigint")) continue
    if (value > maxDelayMicros) {
      return failInvalid("bdev_delay_create", field, `is more than a day, ${maxDelayMicros} microseconds`, value)
    }
  }
  return Effect.void
}

/** A size of 0 is divided by when the bdev is registered. */
const blockSize =
  (method: string): Guard =>
  ({ block_size: value }) =>
    value === 0 ? failInvalid(method, "block_size", "is 0", value) : Effect.void

/**
 * What SPDK's lvol module reads of every new bdev. Of larger blocks it reads none: a bdev that splits its requests never completes
 * that, and then no bdev that comes later can be deleted.
 */
export const largestExaminedBlock = 4096

const isAbove = (value: unknown, limit: number): boolean =>
  (typeof value === "number" || typeof value === "bigint") && value > limit

const splittingMalloc: Guard = ({ block_size: size, md_interleave, md_size, optimal_io_boundary: boundary }) => {
  const metadataBytes = md_interleave === true && typeof md_size === "number" ? md_size : 0
  if (!isAbove(boundary, 0) || !isAbove(typeof size === "number" ? size + metadataBytes : size, largestExaminedBlock)) {
    return Effect.void
  }
  const rule = `needs blocks of up to ${largestExaminedBlock} bytes, metadata included, not ${String(size)}`
  return failInvalid("bdev_malloc_create", "optimal_io_boundary", rule, boundary)
}

/** RAID 1 alone does not split. */
const splitsNothing = (level: unknown): boolean => level === "raid1" || level === "1"

const splittingRaid: Guard = ({ base_bdevs: bases, raid_level: level }, ask) =>
  splitsNothing(level) || !Array.isArray(bases)
    ? Effect.void
    : smallBlocks("bdev_raid_create", "base_bdevs", bases.slice(0, largestRaid), ask, isSmall)

/** SPDK takes no more base bdevs. */
const largestRaid = 256

/** Each of these bdevs, where it is there. */
const smallBlocks = (
  method: string,
  field: string,
  names: ReadonlyArray<unknown>,
  ask: Ask,
  fits: (bytes: number) => boolean
) =>
  Effect.forEach(
    names,
    (name) =>
      Effect.flatMap(find(ask, name), (base) =>
        base === undefined || fits(base.block_size)
          ? Effect.void
          : failInvalid(
              method,
              field,
              `has blocks of ${base.block_size} bytes, which do not fit ${largestExaminedBlock}`,
              name
            )
      ),
    { discard: true }
  )

const isSmall = (bytes: number): boolean => bytes <= largestExaminedBlock

/** Metadata pages are whole blocks: SPDK divides without looking at the rest. */
const isDivisor = (bytes: number): boolean => largestExaminedBlock % bytes === 0

const lvstoreBlocks: Guard = ({ bdev_name: name }, ask) =>
  smallBlocks("bdev_lvol_create_lvstore", "bdev_name", [name], ask, isDivisor)

const raidOf = ({ raid_bdev: name }: Params, raids: Schema.Json) =>
  listOf(raids).find((raid) => Reflect.get(raid, "name") === name)

const addedBase: Guard = (params, ask) =>
  Effect.gen(function* () {
    const raid = raidOf(params, yield* ask("bdev_raid_get_bdevs", { category: "all" }))
    if (raid === undefined || splitsNothing(Reflect.get(raid, "raid_level"))) return
    yield* smallBlocks("bdev_raid_add_base_bdev", "base_bdev", [params["base_bdev"]], ask, isSmall)
  })

/** As SPDK 26.05 calls them. */
const ioTypes: ReadonlySet<unknown> = new Set([
  "read",
  "write",
  "unmap",
  "flush",
  "reset",
  "nvme_admin",
  "nvme_io",
  "nvme_io_md",
  "write_zeroes",
  "zcopy",
  "get_zone_info",
  "zone_management",
  "zone_append",
  "compare",
  "compare_and_write",
  "abort",
  "seek_hole",
  "seek_data",
  "copy",
  "nvme_iov_md",
  "nvme_nssr",
  "write_uncorrectable"
])

/** 25 MiB for each channel. SPDK shifts by whatever it is given. */
const largestGranularity = 16

/** SPDK forgets to close the bdev when it does not know the type: the bdev's deletion waits for ever. */
const histogram: Guard = ({ granularity, opc }) => {
  const refuse = (field: string, rule: string, value: unknown) =>
    failInvalid("bdev_enable_histogram", field, rule, value)
  if (typeof opc === "string" && !ioTypes.has(opc)) return refuse("opc", "is no type of I/O", opc)
  return isAbove(granularity, largestGranularity)
    ? refuse("granularity", `is more than ${largestGranularity}`, granularity)
    : Effect.void
}

/** Modules release what they never had, or free twice, when the name or the UUID that they are to give is taken. */
const freeNames =
  (method: string, fields: ReadonlyArray<string>): Guard =>
  (params, ask) =>
    Effect.forEach(
      fields,
      (field) =>
        // No bdev is registered under it.
        params[field] === ""
          ? failInvalid(method, field, "is empty", "")
          : Effect.flatMap(find(ask, params[field]), (taken) =>
              taken === undefined ? Effect.void : exists(method, taken.name)
            ),
      { discard: true }
    )

const listOf = (answer: Schema.Json): ReadonlyArray<object> =>
  Array.isArray(answer) ? answer.filter((one): one is object => typeof one === "object" && one !== null) : []

const busyStore = ({ lvs_name, uuid }: Params, detail: string) => {
  const resource = typeof lvs_name === "string" ? lvs_name : typeof uuid === "string" ? uuid : undefined
  return fail(new Busy({ operation: "bdev_lvol_delete_lvstore", resource, detail, errno: "EBUSY", errnoCode: 16 }))
}

/** While one of its lvols is on its way out, SPDK asks for the same lvol's end again and again, until the stack is full. */
const deletedLvstore: Guard = ({ lvs_name, uuid }, ask) =>
  Effect.gen(function* () {
    const store = lvs_name === undefined ? { lvs_uuid: uuid } : { lvs_name }
    // Whatever is wrong with the store's name, SPDK says it better.
    const lvols = yield* Effect.orElseSucceed(ask("bdev_lvol_get_lvols", store), () => [])
    const there = new Set(listOf(yield* ask("bdev_get_bdevs")).map((bdev) => Reflect.get(bdev, "name")))
    const going = listOf(lvols).find(
      (lvol) => Reflect.get(lvol, "is_degraded") !== true && !there.has(Reflect.get(lvol, "uuid"))
    )
    if (going === undefined) return
    const detail = `lvol ${String(Reflect.get(going, "name"))} is being deleted, and somebody has it open`
    return yield* busyStore({ lvs_name, uuid }, detail)
  })

/** As text of base64url; undefined when it is none. */
const bytesOf = (text: unknown): Uint8Array | undefined =>
  typeof text === "string" && /^[A-Za-z0-9_-]*=*$/.test(text) ? Buffer.from(text, "base64url") : undefined

const smallestBlock = 512

/** A device moves what the command says, also past the end of SPDK's buffer. */
const sendCommand: Guard = (params, ask) =>
  Effect.gen(function* () {
    const { cmd_type: kind, cmdbuf, data, data_len: dataLength, name } = params
    const entry = bytesOf(cmdbuf)
    // SPDK refuses what is no command.
    if (entry === undefined || entry.length !== sqeBytes) return
    const view = viewOf(entry)
    const word = (number: number) => view.getUint32(4 * number, true)
    const command = {
      opcode: view.getUint8(0),
      nsid: word(1),
      cdw10: word(10),
      cdw11: word(11),
      cdw12: word(12),
      cdw13: word(13)
    }
    // The name of a controller tells no size of blocks: then at least the smallest one is moved.
    const blockSize = kind === "io" ? ((yield* find(ask, name))?.block_size ?? smallestBlock) : smallestBlock
    const neededBytes =
      kind === "io" ? ioDataBytes(command, { blockSize, extendedBlockSize: blockSize }) : adminDataBytes(command)
    const isGiven = data !== undefined
    const length = isGiven ? (bytesOf(data)?.length ?? neededBytes) : typeof dataLength === "number" ? dataLength : 0
    if (length >= neededBytes) return
    const rule = `is less than the ${neededBytes} bytes that the command moves`
    yield* failInvalid("bdev_nvme_send_cmd", isGiven ? "data" : "data_len", rule, length, String(name))
  })

const guards: { readonly [method: string]: Guard } = {
  bdev_split_create: split,
  bdev_malloc_create: splittingMalloc,
  bdev_raid_create: splittingRaid,
  bdev_raid_add_base_bdev: addedBase,
  bdev_lvol_create_lvstore: lvstoreBlocks,
  bdev_delay_create: latencies,
  bdev_enable_histogram: histogram,
  bdev_null_create: blockSize("bdev_null_create"),
  bdev_lvol_delete_lvstore: deletedLvstore,
  bdev_nvme_send_cmd: sendCommand,
  bdev_passthru_create: freeNames("bdev_passthru_create", ["name", "uuid"]),
  bdev_zone_block_create: freeNames("bdev_zone_block_create", ["name"])
}

/** While a store of logical volumes goes or comes, SPDK lists it with a blobstore that is freed already: one after the other. */
const oneByOne: ReadonlySet<string> = new Set([
  "bdev_lvol_create_lvstore",
  "bdev_lvol_delete_lvstore",
  "bdev_lvol_get_lvstores"
])

/**
 * Whether another target has a transport of the same type. SPDK keeps buffers by the name of the type alone: it frees those of the
 * target that was first, and reads them when somebody asks for statistics.
 */
const sharesTransports = ({ name }: Params, ask: Ask): Effect.Effect<boolean, SpdkError<RpcReason>> =>
  Effect.gen(function* () {
    const typesOf = (target: unknown) =>
      Effect.map(
        ask("nvmf_get_transports", { tgt_name: target }),
        (answer) => new Set(listOf(answer).map((transport) => Reflect.get(transport, "trtype")))
      ).pipe(Effect.orElseSucceed(() => new Set<unknown>()))
    const own = yield* typesOf(name)
    if (own.size === 0) return false
    const targets = yield* ask("nvmf_get_targets")
    for (const other of Array.isArray(targets) ? targets : []) {
      if (other === name) continue
      for (const type of yield* typesOf(other)) if (own.has(type)) return true
    }
    return false
  })

/** Each takes milliseconds, where SPDK answers. */
const turnLimit = "5 seconds"

type Guarded = <A>(
  method: string,
  params: Params | undefined,
  ask: Ask,
  call: Effect.Effect<A, SpdkError<RpcReason>>
) => Effect.Effect<A, SpdkError<RpcReason>>

/** For one client: `call` runs when nothing speaks against it. */
export const makeGuard = (claimOf?: ClaimOf, hasWriter?: HasWriter): Guarded => {
  const lvstores = Semaphore.makeUnsafe(1)
  const inTurn = <A>(operation: string, call: Effect.Effect<A, SpdkError<RpcReason>>) =>
    Effect.acquireUseRelease(
      Effect.timeoutOption(lvstores.take(1), turnLimit),
      (turn): Effect.Effect<A, SpdkError<RpcReason>> => {
        const detail = "a store of logical volumes is being made or deleted"
        return Option.isSome(turn) ? call : fail(new Busy({ operation, detail, errno: "EBUSY", errnoCode: 16 }))
      },
      (turn) => (Option.isSome(turn) ? lvstores.release(1) : Effect.void)
    )
  /** The lvols that are being deleted, by the names that were given for them. */
  const deletions = new Map<symbol, unknown>()
  /** A store that is deleted while one of its lvols still is stays half deleted for good. */
  const counted = <A, E>({ name }: Params, call: Effect.Effect<A, E>) =>
    Effect.suspend(() => {
      const key = Symbol()
      deletions.set(key, name)
      return Effect.ensuring(
        call,
        Effect.sync(() => void deletions.delete(key))
      )
    })
  /** A UUID may be of any store. */
  const isOf = (lvol: unknown, store: unknown): boolean =>
    typeof lvol !== "string" || typeof store !== "string" || !lvol.includes("/") || lvol.startsWith(`${store}/`)
  const unlessDeleting = <A>(params: Params, call: Effect.Effect<A, SpdkError<RpcReason>>) =>
    Effect.suspend(() =>
      [...deletions.values()].some((lvol) => isOf(lvol, params["lvs_name"]))
        ? busyStore(params, "lvols are being deleted")
        : call
    )
  /** For good: nothing tells which buffers were freed. */
  let freedBuffers = false
  const deletedTarget = <A>(params: Params, ask: Ask, call: Effect.Effect<A, SpdkError<RpcReason>>) =>
    Effect.flatMap(sharesTransports(params, ask), (shares) => {
      freedBuffers ||= shares
      return call
    })
  const statistics = <A>(call: Effect.Effect<A, SpdkError<RpcReason>>) =>
    Effect.suspend(() => {
      if (!freedBuffers) return call
      const detail =
        "a target was deleted whose transport another target has too, and SPDK 26.05 would read freed memory"
      return fail(new NotSupported({ operation: "iobuf_get_stats", detail, errno: "ENOTSUP", errnoCode: 95 }))
    })
  return (method, params, ask, sent) => {
    const call = refuseClaimed(method, params, ask, claimOf, hasWriter, sent)
    if (method === "iobuf_get_stats") return statistics(call)
    if (method === "nvmf_delete_target") return deletedTarget(params ?? {}, ask, call)
    const guard = Object.hasOwn(guards, method) ? guards[method] : undefined
    const checked = guard === undefined ? call : Effect.andThen(guard(params ?? {}, ask), call)
    if (method === "bdev_lvol_delete") return counted(params ?? {}, checked)
    const waiting = oneByOne.has(method) ? inTurn(method, checked) : checked
    return method === "bdev_lvol_delete_lvstore" ? unlessDeleting(params ?? {}, waiting) : waiting
  }
}
