/**
 * Options for the creation of bdevs, checked before anything is sent, in the words of the caller rather than SPDK's.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as crypto from "node:crypto"
import * as path from "node:path"
import type {
  AioOptions,
  DelayOptions,
  FileCreation,
  Injection,
  MallocOptions,
  MemoryOptions,
  Size
} from "../../BdevCreate.ts"
import { type ErrnoReason, failInvalid, type InvalidArgument, type SpdkError } from "../../SpdkError.ts"
import { prepareFile } from "./file.ts"
import { bytesOf } from "../common/byteSize.ts"
import { checkName, textRule } from "../common/names.ts"
import { isUuid } from "../nvme/wire/nqn.ts"
import { largestExaminedBlock } from "../rpc/guard.ts"

const defaultBlockSize = 4096
const smallestBlockSize = 512
const largestBlockSize = 2 ** 31
const fileCreations: ReadonlyArray<FileCreation> = ["missing", "always", "never"]

export const generatedName = (kind: string): string => `${kind}-${crypto.randomBytes(4).toString("hex")}`

type Checked<A> = Effect.Effect<A, SpdkError<InvalidArgument>>

const maxUint32 = 0xffff_ffff

/** The name of the new bdev, generated where none is given, and its UUID. */
export const checkIdentity = Effect.fnUntraced(function* (
  operation: string,
  options: { readonly name?: string | undefined; readonly uuid?: string | undefined },
  kind: string
): Effect.fn.Return<string, SpdkError<InvalidArgument>> {
  yield* checkUuid(operation, options.uuid)
  return options.name === undefined ? generatedName(kind) : yield* checkName(operation, options.name)
})

export const checkUuid = (operation: string, uuid: string | undefined): Checked<void> => {
  if (uuid === undefined) return Effect.void
  if (!isUuid(uuid)) return failInvalid(operation, "uuid", "is not a UUID", uuid)
  return /^[0-]+$/.test(uuid) ? failInvalid(operation, "uuid", "is the zero UUID, which means none", uuid) : Effect.void
}

const checkInteger = (
  operation: string,
  field: string,
  value: number | undefined,
  minimum: number,
  maximum: number
): Checked<void> =>
  value === undefined || (Number.isInteger(value) && value >= minimum && value <= maximum)
    ? Effect.void
    : failInvalid(operation, field, `is not a whole number from ${minimum} to ${maximum}`, value)

/** Above 0. A bigint, which no division takes beside a number, is none. */
const isMultiple = (value: number, of: number): boolean => Number.isInteger(value) && value > 0 && value % of === 0

/** What a malloc bdev has besides its blocks. */
export const checkMalloc = Effect.fnUntraced(function* (operation: string, options: MallocOptions, blockSize: number) {
  const { optimalIoBoundaryBlocks, physicalBlockSize } = options
  yield* checkInteger(operation, "optimalIoBoundaryBlocks", optimalIoBoundaryBlocks, 1, maxUint32)
  if (optimalIoBoundaryBlocks !== undefined && blockSize > largestExaminedBlock) {
    const rule = `needs blocks of up to ${largestExaminedBlock} bytes, not ${blockSize}`
    yield* failInvalid(operation, "optimalIoBoundaryBlocks", rule, optimalIoBoundaryBlocks)
  }
  // Consumers divide the physical by the logical size: a remainder would be a lie, and a smaller one underflows.
  if (
    physicalBlockSize !== undefined &&
    !(isMultiple(physicalBlockSize, blockSize) && physicalBlockSize <= largestBlockSize)
  ) {
    const rule = `is not a multiple of the block size ${blockSize}, up to ${largestBlockSize}`
    yield* failInvalid(operation, "physicalBlockSize", rule, physicalBlockSize)
  }
})

/** A day. SPDK multiplies by the ticks of a microsecond, in 64 bits. */
const maxDelayMicros = 86_400_000_000

export const checkDelay = Effect.fnUntraced(function* (operation: string, options: DelayOptions) {
  const { readMicros = 0, readP99Micros = readMicros, writeMicros = 0, writeP99Micros = writeMicros } = options
  const latencies = { readMicros, readP99Micros, writeMicros, writeP99Micros }
  for (const [field, value] of Object.entries(latencies)) {
    yield* checkInteger(operation, field, value, 0, maxDelayMicros)
  }
  for (const [field, p99, most] of [
    ["readP99Micros", readP99Micros, readMicros],
    ["writeP99Micros", writeP99Micros, writeMicros]
  ] as const) {
    if (p99 < most) yield* failInvalid(operation, field, `is less than the latency of most requests, ${most}`, p99)
  }
  return latencies
})

export const checkInjection = Effect.fnUntraced(function* (operation: string, injection: Injection) {
  const { corruptOffset, corruptValue, count, errorType, nvmeSc = 0, nvmeSct = 0, queueDepth } = injection
  yield* checkInteger(operation, "count", count, 0, maxUint32)
  yield* checkInteger(operation, "queueDepth", queueDepth, 0, Number.MAX_SAFE_INTEGER)
  yield* checkInteger(operation, "corruptOffset", corruptOffset, 0, Number.MAX_SAFE_INTEGER)
  yield* checkInteger(operation, "corruptValue", corruptValue, 0, 0xff)
  yield* checkInteger(operation, "nvmeSct", nvmeSct, 0, 7)
  yield* checkInteger(operation, "nvmeSc", nvmeSc, 0, 0xff)
  if (errorType === "corrupt_data" && (corruptValue ?? 0) === 0) {
    yield* failInvalid(operation, "corruptValue", "is 0, which changes no data", corruptValue)
  }
  const hasStatus = nvmeSct !== 0 || nvmeSc !== 0
  if (errorType === "nvme_failure" && !hasStatus) {
    yield* failInvalid(operation, "nvmeSc", "is 0 together with nvmeSct, which is the status of success", nvmeSc)
  }
  if (errorType !== "nvme_failure" && hasStatus) {
    yield* failInvalid(
      operation,
      nvmeSc === 0 ? "nvmeSct" : "nvmeSc",
      `has no effect with ${errorType}`,
      nvmeSc || nvmeSct
    )
  }
})

/** The blocks of a bdev in memory. */
export const blocksOf = Effect.fnUntraced(function* (
  operation: string,
  options: MemoryOptions
): Effect.fn.Return<{ readonly block_size: number; readonly num_blocks: number }, SpdkError<InvalidArgument>> {
  const blockSize = options.blockSize ?? defaultBlockSize
  if (!(isMultiple(blockSize, smallestBlockSize) && blockSize <= largestBlockSize)) {
    const rule = `is not a multiple of 512 bytes, up to ${largestBlockSize}`
    return yield* failInvalid(operation, "blockSize", rule, blockSize)
  }
  const { numBlocks, size } = options
  if (numBlocks === undefined) {
    if (size === undefined) return yield* failInvalid(operation, "size", "is missing; give size or numBlocks")
    return { block_size: blockSize, num_blocks: (yield* sizeOf(operation, size, blockSize)) / blockSize }
  }
  if (size !== undefined) return yield* failInvalid(operation, "size", "excludes numBlocks: give one of them", size)
  if (!Number.isSafeInteger(numBlocks) || numBlocks < 1 || !Number.isSafeInteger(numBlocks * blockSize)) {
    const rule = "is not a whole number above 0 whose bytes are a safe integer"
    return yield* failInvalid(operation, "numBlocks", rule, numBlocks)
  }
  return { block_size: blockSize, num_blocks: numBlocks }
})

const sizeOf = (operation: string, size: Size, blockSize: number): Effect.Effect<number, SpdkError<InvalidArgument>> =>
  Effect.flatMap(bytesOf(operation, "size", size), (bytes) =>
    bytes % blockSize === 0
      ? Effect.succeed(bytes)
      : failInvalid(operation, "size", `is not a multiple of the block size ${blockSize}`, size)
  )

/** PATH_MAX, the NUL at the end not counted. */
const maxPathBytes = 4095

const pathIssue = (file: string): string | undefined => {
  if (typeof file !== "string") return "is not a string"
  if (file === "") return "is empty"
  if (file.includes("\0")) return "contains a NUL character"
  if (file.length > maxPathBytes || Buffer.byteLength(path.resolve(file)) > maxPathBytes) {
    return `is longer than ${maxPathBytes} bytes`
  }
  return textRule(file)
}

/** As `bdev_aio_create` and `bdev_uring_create` take it. */
export interface FileParams {
  readonly filename: string
  readonly block_size: number | undefined
}

/** The file below a bdev, made and extended as the options say, and locked until the scope closes. */
export const fileOf = Effect.fnUntraced(function* (
  operation: string,
  options: AioOptions
): Effect.fn.Return<FileParams, SpdkError<ErrnoReason>, Scope.Scope> {
  const pathRule = pathIssue(options.path)
  if (pathRule !== undefined) return yield* failInvalid(operation, "path", pathRule, options.path)
  const filename = path.resolve(options.path)
  const blockSize = options.blockSize ?? defaultBlockSize
  const isPowerOfTwo = Number.isSafeInteger(blockSize) && blockSize > 0 && Number.isInteger(Math.log2(blockSize))
  if (!isPowerOfTwo || blockSize < smallestBlockSize || blockSize > largestBlockSize) {
    return yield* failInvalid(
      operation,
      "blockSize",
      `is not a power of two from 512 to ${largestBlockSize}`,
      blockSize
    )
  }
  const isReadonly = options.readonly === true
  const { create = isReadonly ? "never" : "missing" } = options
  if (!fileCreations.includes(create)) {
    return yield* failInvalid(operation, "create", `is none of ${fileCreations.join(", ")}`, create)
  }
  if (isReadonly && create !== "never") {
    return yield* failInvalid(operation, "create", "creates or changes a file, but readonly forbids that", create)
  }
  // Without a size nothing is made: who asks for a file that is always made anew would go on with the old bytes.
  if (options.size === undefined && options.create !== undefined && create !== "never") {
    return yield* failInvalid(operation, "create", "needs size, which is missing", create)
  }
  const sizeBytes = options.size === undefined ? undefined : yield* sizeOf(operation, options.size, blockSize)
  const lengthBytes = yield* prepareFile(operation, filename, sizeBytes, create, isReadonly)
  // A block device, or what only the server sees: SPDK knows better.
  if (lengthBytes === undefined) return { filename, block_size: options.blockSize }
  if (lengthBytes === 0 || lengthBytes % blockSize !== 0) {
    const rule = `has ${lengthBytes} bytes, which is not one or more blocks of ${blockSize}`
    return yield* failInvalid(operation, "path", rule, options.path)
  }
  return { filename, block_size: blockSize }
})
