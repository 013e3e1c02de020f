/**
 * Options for the creation of bdevs, checked before anything is sent, in the words of the caller rather than SPDK's.
 */
import * as Effect from "effect/Effect"
import * as crypto from "node:crypto"
import * as path from "node:path"
import type { AioOptions, FileCreation, MemoryOptions, Size } from "../BdevCreate.ts"
import type { RpcClient } from "../Rpc.ts"
import * as Rpc from "../Rpc.ts"
import { type ErrnoReason, failInvalid, type InvalidArgument, type RpcReason, type SpdkError } from "../SpdkError.ts"
import { prepareFile } from "./bdevFile.ts"
import { bytesOf } from "./byteSize.ts"

const defaultBlockSize = 4096
const smallestBlockSize = 512
const largestBlockSize = 2 ** 31
const fileCreations: ReadonlyArray<FileCreation> = ["missing", "always", "never"]

export const generatedName = (kind: string): string => `${kind}-${crypto.randomBytes(4).toString("hex")}`

/** The blocks of a bdev in memory. */
export const blocksOf = Effect.fnUntraced(function* (
  operation: string,
  options: MemoryOptions
): Effect.fn.Return<{ readonly block_size: number; readonly num_blocks: number }, SpdkError<InvalidArgument>> {
  const blockSize = options.blockSize ?? defaultBlockSize
  if (!(Number.isInteger(blockSize / smallestBlockSize) && blockSize > 0 && blockSize <= largestBlockSize)) {
    return yield* failInvalid(operation, "blockSize", "is not a multiple of 512 bytes", blockSize)
  }
  const { numBlocks, size } = options
  if (numBlocks === undefined) {
    if (size === undefined) return yield* failInvalid(operation, "size", "is missing, and so is numBlocks")
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

/** The file below a bdev, made and extended as the options say. */
export const fileOf = Effect.fnUntraced(function* (
  operation: string,
  options: AioOptions
): Effect.fn.Return<{ readonly filename: string; readonly block_size: number | undefined }, SpdkError<ErrnoReason>> {
  if (options.path === "") return yield* failInvalid(operation, "path", "is empty", options.path)
  const filename = path.resolve(options.path)
  const blockSize = options.blockSize ?? defaultBlockSize
  const isPowerOfTwo = Number.isSafeInteger(blockSize) && blockSize > 0 && Number.isInteger(Math.log2(blockSize))
  if (!isPowerOfTwo || blockSize < smallestBlockSize || blockSize > largestBlockSize) {
    return yield* failInvalid(operation, "blockSize", "is not a power of two from 512", blockSize)
  }
  const isReadonly = options.readonly === true
  const { create = isReadonly ? "never" : "missing" } = options
  if (!fileCreations.includes(create)) {
    return yield* failInvalid(operation, "create", `is none of ${fileCreations.join(", ")}`, create)
  }
  if (isReadonly && create !== "never") {
    return yield* failInvalid(
      operation,
      "create",
      "says how to make a file, and readonly that nothing is written",
      create
    )
  }
  // Without a size nothing is made: who asks for a file that is always made anew would go on with the old bytes.
  if (options.size === undefined && options.create !== undefined && create !== "never") {
    return yield* failInvalid(
      operation,
      "create",
      "says how to make a file, and size, which that needs, is missing",
      create
    )
  }
  const sizeBytes = options.size === undefined ? undefined : yield* sizeOf(operation, options.size, blockSize)
  const lengthBytes = yield* prepareFile(operation, filename, sizeBytes, create)
  // A block device, or what only the server sees: SPDK knows better.
  if (lengthBytes === undefined) return { filename, block_size: options.blockSize }
  if (lengthBytes === 0 || lengthBytes % blockSize !== 0) {
    const rule = `has ${lengthBytes} bytes, which is not one or more blocks of ${blockSize}`
    return yield* failInvalid(operation, "path", rule, options.path)
  }
  return { filename, block_size: blockSize }
})

/** Without one, SPDK's modules wait for it to come, and answer as if all were done. */
export const requireBase = (base: string): Effect.Effect<unknown, SpdkError<RpcReason>, RpcClient> =>
  Rpc.call("bdev_get_bdevs", { name: base })
