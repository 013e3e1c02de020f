/**
 * Cases for the fuzzing of creation options and RPC parameters: a seed and a number make the same case everywhere. A case is a
 * few calls on bdevs of its own; "@" in a text stands for the prefix of its names.
 */
import type * as Schema from "effect/Schema"
import { readFileSync } from "node:fs"
import { makeRandom, type RandomSource } from "../support/random.ts"

export type Json = Schema.Json

/** "create" calls a typed function, "rpc" a method as a client without types does, and "typed" a method by `Rpc.callWith`. */
export interface Call {
  readonly via: "create" | "rpc" | "typed"
  readonly method: string
  readonly params: { readonly [name: string]: Json }
}

export interface FuzzCase {
  readonly calls: ReadonlyArray<Call>
}

interface Field {
  readonly name: string
  readonly type: string
  readonly class?: string
  readonly required?: boolean
}

interface RpcSchema {
  readonly enums: ReadonlyArray<{ readonly name: string; readonly values: ReadonlyArray<string> }>
  readonly arrays: ReadonlyArray<{ readonly name: string; readonly item_type: string; readonly class?: string }>
  readonly objects: ReadonlyArray<{ readonly name: string; readonly fields: ReadonlyArray<Field> }>
  readonly methods: ReadonlyArray<{ readonly name: string; readonly params?: ReadonlyArray<Field> }>
}

const schemaFile = new URL("../../../packages/core/schema/spdk-rpc-v26.05.json", import.meta.url)
// The file that the RPC modules are generated from.
const schema = JSON.parse(readFileSync(schemaFile, "utf8")) as RpcSchema

/** Methods that people call on a running SPDK, and that neither end it nor reach outside of it. */
const methods: ReadonlyArray<string> = [
  "bdev_malloc_create",
  "bdev_malloc_delete",
  "bdev_null_create",
  "bdev_null_delete",
  "bdev_null_resize",
  "bdev_aio_create",
  "bdev_aio_delete",
  "bdev_aio_rescan",
  "bdev_uring_create",
  "bdev_uring_delete",
  "bdev_uring_rescan",
  "bdev_passthru_create",
  "bdev_passthru_delete",
  "bdev_delay_create",
  "bdev_delay_delete",
  "bdev_delay_update_latency",
  "bdev_error_create",
  "bdev_error_delete",
  "bdev_error_inject_error",
  "bdev_error_resume_pending",
  "bdev_split_create",
  "bdev_split_delete",
  "bdev_get_bdevs",
  "bdev_get_iostat",
  "bdev_reset_iostat",
  "bdev_examine",
  "bdev_set_qos_limit",
  "bdev_set_qd_sampling_period",
  "bdev_enable_histogram",
  "bdev_get_histogram",
  "bdev_get_histogram_borders",
  "bdev_lvol_create_lvstore",
  "bdev_lvol_delete_lvstore",
  "bdev_lvol_rename_lvstore",
  "bdev_lvol_grow_lvstore",
  "bdev_lvol_get_lvstores",
  "bdev_lvol_create",
  "bdev_lvol_delete",
  "bdev_lvol_resize",
  "bdev_lvol_rename",
  "bdev_lvol_snapshot",
  "bdev_lvol_clone",
  "bdev_lvol_inflate",
  "bdev_lvol_set_read_only",
  "bdev_lvol_get_lvols",
  "bdev_lvol_decouple_parent",
  "bdev_lvol_set_parent",
  "bdev_raid_create",
  "bdev_raid_delete",
  "bdev_raid_get_bdevs",
  "bdev_raid_add_base_bdev",
  "bdev_raid_remove_base_bdev",
  "bdev_zone_block_create",
  "bdev_zone_block_delete",
  "nvmf_create_target",
  "nvmf_delete_target",
  "nvmf_create_transport",
  "nvmf_get_transports",
  "nvmf_create_subsystem",
  "nvmf_delete_subsystem",
  "nvmf_subsystem_add_listener",
  "nvmf_subsystem_remove_listener",
  "nvmf_subsystem_listener_set_ana_state",
  "nvmf_subsystem_add_ns",
  "nvmf_subsystem_remove_ns",
  "nvmf_subsystem_add_host",
  "nvmf_subsystem_remove_host",
  "nvmf_subsystem_allow_any_host",
  "nvmf_subsystem_get_controllers",
  "nvmf_subsystem_get_listeners",
  "nvmf_get_subsystems",
  "iobuf_get_stats",
  "thread_get_stats",
  "log_set_flag",
  "log_clear_flag"
]

const fieldsOf = new Map(schema.methods.map(({ name, params = [] }) => [name, params]))

/** Borders of types, of tables, of sums and products. */
const integers: ReadonlyArray<number> = [
  0,
  1,
  2,
  3,
  4,
  5,
  7,
  8,
  15,
  16,
  31,
  63,
  64,
  100,
  127,
  128,
  255,
  256,
  511,
  512,
  513,
  520,
  1000,
  1023,
  1024,
  1025,
  1536,
  2047,
  2048,
  4095,
  4096,
  4097,
  4104,
  8191,
  8192,
  8193,
  65_535,
  65_536,
  131_072,
  1_000_000,
  2 ** 20,
  2 ** 24,
  2 ** 31 - 1,
  2 ** 31,
  2 ** 31 + 512,
  2 ** 32 - 512,
  2 ** 32 - 1,
  2 ** 32,
  2 ** 33,
  2 ** 40,
  2 ** 43,
  2 ** 44,
  2 ** 44 + 1,
  2 ** 52,
  2 ** 53 - 1,
  -1,
  -512,
  -4096
]

/** What no JSON holds, by its name: `withMarks` of run.ts makes it. */
const marked = (mark: string): Json => ({ $: mark })

const beyondNumbers: ReadonlyArray<Json> = [
  0.5,
  1.5,
  1e21,
  1e300,
  2 ** 63,
  2 ** 64,
  -(2 ** 31),
  -(2 ** 53),
  ...["NaN", "Infinity", "-0", `${2n ** 53n + 1n}`, `${2n ** 63n - 1n}`, `${2n ** 63n}`].map(marked),
  ...[`${2n ** 64n - 512n}`, `${2n ** 64n - 1n}`, `${2n ** 64n}`, `${2n ** 65n}`, `${-(2n ** 63n)}`].map(marked)
]

const wildTexts: ReadonlyArray<string> = [
  "",
  " ",
  "a",
  "../x",
  "/",
  "/dev/null",
  "/dev/zero",
  "/nonexistent/file",
  "%s%s%s%n",
  "é",
  "𝄞",
  "x".repeat(63),
  "x".repeat(64),
  "x".repeat(65),
  "x".repeat(255),
  "x".repeat(256),
  "x".repeat(257),
  "x".repeat(1024),
  "x".repeat(20_000),
  "00000000-0000-0000-0000-000000000000",
  "6f1a2b3c-0000-4000-8000-1234567890ab",
  "nqn.2014-08.org.nvmexpress.discovery",
  "nqn.2016-06.io.spdk:",
  "a\u0000b",
  "x\ud800",
  "none",
  "TCP",
  "unmap",
  "write_zeroes"
]

/** Names that exist, may exist, or would be made by a module. */
const names: ReadonlyArray<string> = [
  "@m",
  "@m",
  "@m",
  "@n",
  "@a",
  "@b",
  "@mp0",
  "@mp1",
  "EE_@m",
  "@l/@v",
  "@l/@w",
  "@l"
]

const nqns: ReadonlyArray<string> = ["nqn.2016-06.io.spdk:@a", "nqn.2016-06.io.spdk:@a", "nqn.2016-06.io.spdk:@b"]

const valueOf = (random: RandomSource, field: Field, depth = 0): Json => {
  const { type } = field
  if (random.chance(0.04)) return ofAnyType(random)
  switch (type) {
    case "string":
      return textOf(random, field.name)
    case "uuid":
      return random.chance(0.7) ? uuidOf(random) : random.pick(wildTexts)
    case "boolean":
      return random.chance(0.5)
    case "enum": {
      const found = schema.enums.find(({ name }) => name === field.class)
      return found === undefined || random.chance(0.05) ? random.pick(wildTexts) : random.pick(found.values)
    }
    case "array": {
      const found = schema.arrays.find(({ name }) => name === field.class)
      const item: Field = {
        name: field.name,
        type: found?.item_type ?? "string",
        ...(found?.class === undefined ? {} : { class: found.class })
      }
      const length = random.chance(0.9) ? random.below(4) : random.pick([64, 255, 256, 257, 1025])
      return Array.from({ length }, () => (depth > 3 ? null : valueOf(random, item, depth + 1)))
    }
    case "object": {
      const found = schema.objects.find(({ name }) => name === field.class)
      return depth > 3 ? {} : objectOf(random, found?.fields ?? [], depth + 1)
    }
    default:
      return numberOf(random, field.name)
  }
}

const numberOf = (random: RandomSource, name: string): Json => {
  // What a user would have written, so that something is made.
  if (name.endsWith("block_size") && random.chance(0.5)) return random.pick([512, 4096])
  if (/num_blocks$|size_in_mib|new_size/.test(name) && random.chance(0.5)) return random.pick([1, 64, 2048, 8192])
  // Waiting is no hang: it is kept short, or so long that it is refused.
  if (/latency/.test(name)) return random.pick([0, 1, 100, 1000, 2 ** 52, 2 ** 53 - 1])
  if (/timeout/.test(name)) return random.pick([0, 1, 50])
  if (random.chance(0.03)) return random.pick(beyondNumbers)
  return random.chance(0.15) ? random.below(2 ** 31) : random.pick(integers)
}

const uuidOf = (random: RandomSource): string => {
  const digits = (count: number) => Array.from({ length: count }, () => random.below(16).toString(16)).join("")
  return `${digits(8)}-${digits(4)}-4${digits(3)}-8${digits(3)}-${digits(12)}`
}

const textOf = (random: RandomSource, name: string): string => {
  if (random.chance(0.15)) return random.pick(wildTexts)
  if (/^(nqn|subnqn|host|hostnqn)$/.test(name)) return random.pick(nqns)
  if (/filename|path/.test(name)) return random.pick(["@file", "@file", "/dev/zero", "/nonexistent/file"])
  if (name === "trtype") return "TCP"
  if (name === "adrfam") return random.pick(["IPv4", "IPv4", "IPv6", "ib"])
  if (name === "traddr") return random.pick(["127.0.0.1", "127.0.0.1", "::1", "0.0.0.0", "localhost", "127.0.0.256"])
  // Any free port: a fixed one may be somebody's.
  if (name === "trsvcid") return random.pick(["0", "0", "65536", "-1", "http"])
  if (name === "tgt_name") return random.chance(0.8) ? "@t" : random.pick(wildTexts)
  if (/cipher|clear_method|sock_impl|psk|key|flag|oclass|ptpl_file/.test(name)) return random.pick(wildTexts)
  if (/lvs_name/.test(name)) return random.pick(["@l", "@l", "@k"])
  if (/uuid/.test(name)) return uuidOf(random)
  return random.pick(names)
}

const ofAnyType = (random: RandomSource): Json =>
  random.pick<() => Json>([
    () => null,
    () => true,
    () => random.pick(integers),
    () => random.pick(beyondNumbers),
    () => random.pick(wildTexts),
    () => [],
    () => [random.pick(integers), random.pick(wildTexts)],
    () => ({}),
    () => ({ name: random.pick(names) })
  ])()

const objectOf = (random: RandomSource, fields: ReadonlyArray<Field>, depth = 0): { readonly [name: string]: Json } => {
  const params: Record<string, Json> = {}
  const often = random.pick([0.1, 0.3, 0.8])
  for (const field of fields) {
    if (field.required === true ? !random.chance(0.02) : random.chance(often)) {
      params[field.name] = valueOf(random, field, depth)
    }
  }
  if (random.chance(0.01)) params["nonsense"] = ofAnyType(random)
  return params
}

const rpcCall = (random: RandomSource, hasTargets: boolean): Call => {
  const picked = random.pick(methods)
  const method = hasTargets || !ofTargets.has(picked) ? picked : "nvmf_create_subsystem"
  const params = objectOf(random, fieldsOf.get(method) ?? [])
  const isNamed = fieldsOf.get(method)?.some(({ name }) => name === "tgt_name") === true && random.chance(0.7)
  return {
    via: random.chance(0.15) ? "typed" : "rpc",
    method,
    params: isNamed ? ofTarget(params, hasTargets) : params
  }
}

/** Of a target that ends with the case, or of the one that everybody has. */
const ofTarget = (params: Call["params"], hasTargets: boolean): Call["params"] => {
  const { tgt_name: _, ...others } = params
  return hasTargets ? { ...others, tgt_name: "@t" } : others
}

type Option = (random: RandomSource) => Json

const number: Option = (random) => numberOf(random, "")
const micros: Option = (random) => random.pick([0, 1, 100, 1000, 86_400_000_000, random.pick(integers)])
const name: Option = (random) => (random.chance(0.2) ? random.pick(wildTexts) : random.pick(["@a", "@b", "@m"]))
const base: Option = (random) => (random.chance(0.1) ? random.pick(wildTexts) : random.pick(names))
const uuid: Option = (random) => (random.chance(0.7) ? uuidOf(random) : random.pick(wildTexts))
const size: Option = (random) =>
  random.pick<() => Json>([
    () => random.pick(["1 MiB", "4 MiB", "4096", "1.5 KiB", "", "x"]),
    () => numberOf(random, "num_blocks")
  ])()
const blockSize: Option = (random) => (random.chance(0.6) ? random.pick([512, 4096]) : number(random))
const boolean: Option = (random) => random.chance(0.5)
const path: Option = (random) => random.pick(["@file", "@file", "@file", "/dev/zero", "/tmp", random.pick(wildTexts)])
const createMode: Option = (random) => random.pick(["missing", "always", "never", "x"])

type Creations = { readonly [method: string]: { readonly [option: string]: Option } }

/** The options of every function that creates a bdev, by its name. */
const bdevCreations: Creations = {
  createMalloc: {
    name,
    size,
    numBlocks: number,
    blockSize,
    uuid,
    optimalIoBoundaryBlocks: number,
    physicalBlockSize: number
  },
  createNull: { name, size, numBlocks: number, blockSize, uuid },
  createFile: { name, path, blockSize, size, create: createMode, uuid, readonly: boolean, fallocate: boolean },
  createUring: { name, path, blockSize, size, create: createMode, uuid },
  createPassthru: { base, name, uuid },
  createDelay: {
    base,
    name,
    uuid,
    readMicros: micros,
    readP99Micros: micros,
    writeMicros: micros,
    writeP99Micros: micros
  },
  createError: { base },
  inject: {
    ioType: (random) => random.pick(["clear", "read", "write", "unmap", "flush", "all", "x"]),
    errorType: (random) => random.pick(["failure", "pending", "corrupt_data", "nomem", "nvme_failure", "x"]),
    count: number,
    queueDepth: number,
    corruptOffset: number,
    corruptValue: number,
    nvmeSct: number,
    nvmeSc: number
  },
  createSplit: { base, count: number, sizeMiB: number }
}

const small: Option = (random) => random.pick([1, 2, 4, 16, 64])
const oftenSmall: Option = (random) => (random.chance(0.5) ? small(random) : number(random))
const nqn: Option = (random) => (random.chance(0.2) ? random.pick(wildTexts) : random.pick(nqns))
const wildText: Option = (random) => random.pick(wildTexts)
const duration: Option = (random) => random.pick<Json>(["1 second", 10, 0, -1, "x", marked("NaN"), marked("Infinity")])
const clearMethod: Option = (random) => random.pick(["none", "unmap", "write_zeroes", "default", "x"])
const driver: Option = (random) => random.pick(["auto", "libspdk", "portable", "portable", "x"])
const clusterSize: Option = (random) =>
  random.chance(0.7) ? random.pick([4096, 8192, 65_536, 1_048_576, "64 KiB"]) : number(random)
const xattrs: Option = (random) =>
  random.pick<Json>([{}, { a: "b" }, { [random.pick(wildTexts)]: random.pick(wildTexts) }, { a: 1 }, [], "x"])

const transportOption: Option = (random) => {
  const params: Record<string, Json> = { trtype: random.pick(["TCP", "TCP", "TCP", "RDMA", "VFIOUSER", "x"]) }
  const often = random.pick([0.05, 0.3])
  for (const option of transportNumbers) if (random.chance(often)) params[option] = number(random)
  for (const option of transportFlags) if (random.chance(often)) params[option] = random.chance(0.5)
  if (random.chance(often)) params["maskedCommands"] = [random.pick(["compare", "reservations", "x"])]
  return params
}

const transportNumbers = [
  "maxQueueDepth",
  "maxIoQpairsPerController",
  "inCapsuleDataSize",
  "maxIoSize",
  "maxAdminQueueDepth",
  "iobufSmallCacheSize",
  "iobufLargeCacheSize",
  "abortTimeoutSeconds",
  "acceptorPollRateMicros",
  "ackTimeoutMillis",
  "keepAliveGranularity",
  "minKeepAliveMillis",
  "sockPriority",
  "controlMessageCount"
]

const transportFlags = ["zcopy", "difInsertOrStrip", "disableCommandPassthru", "maskFusedCompareAndWrite"]

/** Of the package nvmf: after `subsystem`, what is made belongs to it. */
const nvmfCreations: Creations = {
  target: { transports: (random) => [transportOption(random)], drainTimeout: duration },
  subsystem: {
    nqn,
    serialNumber: wildText,
    modelNumber: wildText,
    maxNamespaces: oftenSmall,
    allowAnyHost: boolean,
    anaReporting: boolean,
    minCntlid: number,
    maxCntlid: number,
    maxDeallocateBlocks: number,
    writeZeroesSizeLimit: number,
    passthrough: boolean,
    enableSubsystemReset: boolean
  },
  addNamespace: {
    bdev: base,
    nsid: oftenSmall,
    uuid,
    nguid: (random) => (random.chance(0.6) ? uuidOf(random).replaceAll("-", "") : random.pick(wildTexts)),
    anaGroup: oftenSmall,
    persistReservationsIn: path,
    visibleTo: (random) => random.pick<Json>([[], [random.pick(nqns)], [random.pick(wildTexts)], "x"])
  },
  addListener: {
    trtype: (random) => random.pick(["TCP", "TCP", "TCP", "RDMA", "x"]),
    adrfam: (random) => textOf(random, "adrfam"),
    traddr: (random) => textOf(random, "traddr"),
    trsvcid: (random) => random.pick<Json>([0, "0", "0", 65_536, -1, "x", 0.5]),
    anaState: (random) => random.pick(["optimized", "non_optimized", "inaccessible", "x"]),
    secureChannel: boolean,
    sockImpl: wildText,
    numaId: number
  },
  addHost: { nqn, psk: wildText, dhchapKey: wildText, dhchapControllerKey: wildText },
  addReferral: {
    trtype: (random) => random.pick(["TCP", "x"]),
    traddr: (random) => textOf(random, "traddr"),
    trsvcid: (random) => random.pick<Json>([4420, "4420", 65_536, -1, "x", 0.5]),
    subnqn: nqn,
    secureChannel: boolean
  }
}

/** Of the package blobstore, on "@m": after `init`, what is made belongs to it. */
const blobCreations: Creations = {
  init: { driver, clusterSize, metadataPages: oftenSmall, type: wildText, clearMethod },
  load: { driver, type: wildText, forceRecover: boolean, grow: boolean },
  createBlob: {
    size,
    clusters: oftenSmall,
    thin: boolean,
    clearMethod,
    extentTable: boolean,
    externalSnapshot: base,
    xattrs
  },
  resizeBlob: { clusters: oftenSmall },
  snapshot: { xattrs },
  clone: { xattrs }
}

const needed = new Set(["base", "path", "count", "ioType", "errorType", "nqn", "bdev", "traddr", "transports"])

const createCall = (random: RandomSource, creations: Creations): Call => {
  const method = random.pick(Object.keys(creations))
  const params: Record<string, Json> = {}
  const often = random.pick([0.1, 0.3, 0.8])
  for (const [option, make] of Object.entries(creations[method] ?? {})) {
    if (needed.has(option) ? !random.chance(0.02) : random.chance(often)) params[option] = make(random)
  }
  // One of the two is needed, and only one is allowed.
  if (method === "createMalloc" || method === "createNull") {
    if (random.chance(0.5)) delete params["numBlocks"]
    else delete params["size"]
    if (params["numBlocks"] === undefined) params["size"] ??= "1 MiB"
  }
  if (method === "createBlob") delete params[random.pick(["size", "clusters"])]
  // Nothing of it fits the type.
  if (random.chance(0.03)) params[random.pick(Object.keys(creations[method] ?? {}))] = ofAnyType(random)
  return { via: "create", method, params }
}

const geometry = (random: RandomSource): { readonly [name: string]: Json } => ({
  block_size: random.pick([512, 512, 4096, 4096, 1536, 131_072]),
  num_blocks: random.pick([1, 2, 63, 1024, 2048, 8192])
})

/** What runs at the same time is of the same batch. */
export const batchCases = 128

/** Of every fourth batch: while there are two targets, SPDK takes none for the one that has no name. */
const ofTargets: ReadonlySet<string> = new Set(["nvmf_create_target", "nvmf_delete_target"])

/** The case of this number: on a malloc bdev "@m", by creation functions alone or by methods alone. */
export const caseOf = (seed: number, index: number): FuzzCase => {
  const hasTargets = Math.floor(index / batchCases) % 4 === 0
  const random = makeRandom((Math.imul(seed, 0x9e3779b1) ^ Math.imul(index + 1, 0x85ebca6b)) >>> 0)
  for (let warm = 0; warm < 4; warm++) random.word()
  const calls: Array<Call> = []
  if (random.chance(0.9)) {
    calls.push({ via: "rpc", method: "bdev_malloc_create", params: { name: "@m", ...geometry(random) } })
  }
  if (random.chance(0.5)) return { calls: [...calls, ...typedCalls(random, hasTargets)] }
  if (random.chance(0.4)) calls.push(...(random.chance(0.5) ? lvolStart(random) : nvmfStart(random, hasTargets)))
  const count = 1 + random.below(5)
  for (let i = 0; i < count; i++) calls.push(rpcCall(random, hasTargets))
  return { calls }
}

const typedCalls = (random: RandomSource, hasTargets: boolean): ReadonlyArray<Call> => {
  const several = (creations: Creations, most: number): ReadonlyArray<Call> =>
    Array.from({ length: 1 + random.below(most) }, () => createCall(random, creations))
  const of = (method: string, params: Call["params"]): Call => ({ via: "create", method, params })
  const kind = random.pick(["bdev", "bdev", "bdev", "bdev", hasTargets ? "blob" : "nvmf", "blob"])
  if (kind === "bdev") return several(bdevCreations, 3)
  const isStarted = random.chance(0.7)
  if (kind === "nvmf") {
    const start = isStarted ? [of("subsystem", { nqn: "nqn.2016-06.io.spdk:@a" })] : []
    return [...start, ...several(nvmfCreations, 4)]
  }
  const start = isStarted ? [of("init", { driver: random.pick(["auto", "portable"]), clusterSize: 65_536 })] : []
  return [...start, ...several(blobCreations, 4)]
}

/** The options of all functions that create, for counting. */
export const allCreations: ReadonlyArray<readonly [method: string, options: ReadonlyArray<string>]> = [
  bdevCreations,
  nvmfCreations,
  blobCreations
].flatMap((creations) => Object.entries(creations).map(([method, options]) => [method, Object.keys(options)] as const))

/** The fields of the methods, for counting. */
export const allMethods: ReadonlyArray<readonly [method: string, fields: ReadonlyArray<string>]> = methods.map(
  (method) => [method, (fieldsOf.get(method) ?? []).map(({ name }) => name)]
)

/** What a method cannot do without. */
export const requiredOf = (method: string): ReadonlyArray<string> =>
  (fieldsOf.get(method) ?? []).flatMap(({ name, required }) => (required === true ? [name] : []))

const lvolStart = (random: RandomSource): ReadonlyArray<Call> => [
  { via: "rpc", method: "bdev_malloc_create", params: { name: "@s", num_blocks: 16_384, block_size: 512 } },
  { via: "rpc", method: "bdev_lvol_create_lvstore", params: { bdev_name: "@s", lvs_name: "@l", cluster_sz: 65_536 } },
  {
    via: "rpc",
    method: "bdev_lvol_create",
    params: { lvs_name: "@l", lvol_name: "@v", size_in_mib: 1, thin_provision: random.chance(0.5) }
  }
]

/** On a target of its own, because no transport ever goes while its target is there. */
const nvmfStart = (random: RandomSource, hasTargets: boolean): ReadonlyArray<Call> => {
  const nqn = "nqn.2016-06.io.spdk:@a"
  const subsystem: Call = { via: "rpc", method: "nvmf_create_subsystem", params: { nqn, allow_any_host: true } }
  if (!hasTargets) return [{ via: "rpc", method: "nvmf_create_transport", params: { trtype: "TCP" } }, subsystem]
  const tgt_name = "@t"
  const transport: Call = {
    via: "rpc",
    method: "nvmf_create_transport",
    params: random.chance(0.5)
      ? { trtype: "TCP", tgt_name }
      : { ...objectOf(random, fieldsOf.get("nvmf_create_transport") ?? []), trtype: "TCP", tgt_name }
  }
  return [
    { via: "rpc", method: "nvmf_create_target", params: { name: "@t" } },
    transport,
    { ...subsystem, params: { ...subsystem.params, tgt_name } }
  ]
}

/** Each case with one thing less: a call, or a parameter of a call. */
export const smaller = ({ calls }: FuzzCase): ReadonlyArray<FuzzCase> => [
  ...calls.map((_, i) => ({ calls: calls.filter((_, at) => at !== i) })),
  ...calls.flatMap((call, i) =>
    Object.keys(call.params).map((field) => {
      const { [field]: _, ...params } = call.params
      return { calls: calls.map((other, at) => (at === i ? { ...call, params } : other)) }
    })
  )
]
